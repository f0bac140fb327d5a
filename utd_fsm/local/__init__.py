"""Servers for development and tests: the engine, and the media server that it can run beside it.

Nothing here is needed by a program that talks to the hosted engine; the extra ``local`` installs what it stands on.
"""
