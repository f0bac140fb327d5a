"""The machine of one session's place in its LiveKit room. Declaration only: nothing here does anything."""

from __future__ import annotations

from types import MappingProxyType

from statemachine import State

from utd_fsm.machines.base import Machine, event, stay


class Connection(Machine):
    """Whether the session is in its room, and who is working at it.

    Each try is a new Room and a new epoch; news of an older one never comes here. reconnecting and rejoining differ
    in who works: LiveKit on the same Room, which publishes again by itself, or we on a new Room with a fresh token.
    The 60 s of `grace_over` run from leaving `connected` until it is reached again. On entering: connecting and
    rejoining begin a try; disconnected, force_exit and closed leave the Room and stop every source; connected reads
    records and grants again.

    A try that timed out is given up, not cancelled, and may still join: while one lives, a duplicate identity is our
    own doing and is told as `saw_dropped`, otherwise as `saw_removed` (else two devices would throw each other out
    for ever). Before a removal or a deleted room is told in a call, the session looks at the record: the engine
    deletes the room of every finished call, and force_exit must not flash up before ended.

    Refused locally: connect unless disconnected or force_exit; everything after dispose. leave is always allowed
    before. Invariants: out of the room nothing is published; force_exit only by `grace_over` or a real removal;
    connecting, reconnecting and rejoining end by themselves.
    """

    disconnected = State("not in the room, not trying", initial=True)
    connecting = State("up to 3 tries of 15 s, 500 ms apart")
    connected = State("in the room")
    reconnecting = State("LiveKit tries by itself, with the same Room (12-20 s)")
    rejoining = State("that Room is dead: we try, with fresh tokens and new Rooms")
    force_exit = State("out against the application's will; we do not come back by ourselves")
    closed = State("disposed", final=True)

    connect = event(connecting.from_(disconnected, force_exit), "application: join, connect()",
                    "the room is wished for")
    leave = event(disconnected.from_(connecting, connected, reconnecting, rejoining, force_exit) | stay(disconnected),
                  "application: leave()", "out of the room, and no more tries")
    dispose = event(closed.from_(disconnected, connecting, connected, reconnecting, rejoining, force_exit),
                    "application: dispose()", "out of the room for ever")

    saw_joined = event(connected.from_(connecting, reconnecting, rejoining),
                       "LiveKit: connect() returned, reconnected", "in the room")
    saw_reconnecting = event(connected.to(reconnecting), "LiveKit: reconnecting", "LiveKit lost the link, works at it")
    saw_dropped = event(rejoining.from_(connected, reconnecting), "LiveKit: disconnected, and nobody sent us away",
                        "the Room is dead")
    saw_removed = event(connecting.to(disconnected) | force_exit.from_(connected, reconnecting, rejoining),
                        "LiveKit: removed, room deleted, signed in elsewhere; 401, 403, 404 to a try",
                        "the room will not have us")

    try_failed = event(stay(connecting, rejoining), "session: timed out or not reachable", "another try follows")
    tries_over = event(connecting.to(disconnected), "session: the third try failed", "no more tries")
    grace_over = event(force_exit.from_(reconnecting, rejoining), "timer: 60 s since the drop", "too long away")

    PENDING = frozenset({"connecting", "reconnecting", "rejoining"})
    STALE = frozenset(
        # no Room of this epoch
        {(state, seen) for state in ("disconnected", "force_exit")
         for seen in ("saw_joined", "saw_reconnecting", "saw_dropped", "saw_removed")}
        # a try returns or fails, and nothing else
        | {(state, seen) for state in ("connecting", "rejoining") for seen in ("saw_reconnecting", "saw_dropped")}
        | {("connected", "saw_joined"), ("reconnecting", "saw_reconnecting")}
    )
    PUBLIC = MappingProxyType({
        "disconnected": "disconnected", "connecting": "connecting", "connected": "connected",
        "reconnecting": "reconnecting", "rejoining": "reconnecting", "force_exit": "force_exit",
        "closed": "disconnected",
    })
