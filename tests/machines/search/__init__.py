"""Breadth-first searches of products of the declared machines, over the tables of the shipped classes.

The network is the worst there is, and unbounded: whatever was ever said may be heard at any time, any number of
times, or never. So a channel is no set of messages, it is the history of the record. A request may be lost, be
applied and its answer lost, or be applied long after its sender gave up (a *ghost*). Processes die, the engine
crashes, timers fire at any moment.

`model` is the search itself; `call_engine` and `call` are caller, devices and engine; `media` is a source, its
connection, LiveKit and the grant; `standings` is what `stage` (host and viewers) and `seats` (speakers, grid and
moderator) have in common; `air` is a stream, its host and a viewer; `desk` is seat, speaker, grant and microphone;
`runs` lists what is searched, with which bounds, and the seeded mistakes each search must find.
"""
