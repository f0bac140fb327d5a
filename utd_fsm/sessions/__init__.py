"""Sessions, floor 5: one party's calls, streams and rooms, written once as coroutines that run on the loop thread.

The facades of floor 6 are generated from them; nothing here blocks, holds a lock or knows of another thread.
"""
