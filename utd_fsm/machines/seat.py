"""The machine of one seat of an audio room. Declaration only: nothing here does anything."""

from __future__ import annotations

from statemachine import State

from utd_fsm.machines.base import Machine, event, stay


class Seat(Machine):
    """One seat of the grid, as the engine keeps it.

    Who may sit (`reserved_for`, the seat mode) is data and no state: a reserved seat can be free, locked or taken. Who
    sits there is data as well, kept beside the machine. A verb of the engine is a list of steps on seats and persons
    (`SpeakerRecord`), all or none, in one version; if one of them is not declared, the verb is a 409 and nothing
    changes:

    - take, approve, accept: person.sit, seat.take, and seat.mute if all are muted.
    - leave, kick, gone from the room: person.unseat, seat.vacate.
    - move: seat.vacate, the other seat.take, seat.mute there if the mover was muted, person.move.
    - swap: both vacate, both take, mutes go with the persons, both move; with an empty seat it is a move.
    - lock: if somebody sits there, seat.vacate and person.unseat first; then seat.lock.
    - unlock, mute, unmute: the seat's own step.

    A client keeps no such machines: it has the grid as one immutable snapshot, replaced by version. Invariants: free
    and locked have nobody, occupied and muted have exactly one person, who is seated; a mute goes with the person until
    it leaves the seat.
    """

    free = State("empty", initial=True)
    locked = State("empty, nobody may sit")
    occupied = State("somebody sits")
    muted = State("somebody sits, silenced by a moderator")

    take = event(free.to(occupied), "engine: take, approve, accept, move to, swap", "somebody sits down")
    vacate = event(free.from_(occupied, muted), "engine: leave, kick, lock, move away, swap, gone", "who sat is gone")
    lock = event(free.to(locked) | stay(locked), "moderator: POST lock (after vacate)", "nobody may sit down")
    unlock = event(locked.to(free) | stay(free), "moderator: POST unlock", "whoever may can sit down again")
    mute = event(occupied.to(muted) | stay(muted),
                 "moderator: POST mute; engine: after take, if all are muted or the mover was", "who sits is silenced")
    unmute = event(muted.to(occupied) | stay(occupied), "moderator: POST unmute", "who sits may be heard again")
