"""The verb table of the seats of an audio room (machines.md): each verb a list of steps on declared machines.

The machines are `Seat` and `SpeakerRecord`; the steps of a verb are taken all or none (`apply`). Who may do it, and
which seats are meant, is asked before (`seat_rules`). Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from utd_fsm.machines import Seat, SpeakerRecord, start
from utd_fsm.machines.base import Runner
from utd_fsm.wire import ILLEGAL_TRANSITION

from .refusal import Refused
from .room_state import Person, RoomRecord


@dataclass(frozen=True, slots=True)
class PersonStep:
    """One event of a person's `SpeakerRecord`."""

    identity: str
    event: str


@dataclass(frozen=True, slots=True)
class SeatStep:
    """One event of a `Seat`."""

    index: int
    event: str
    who: Person | None = None
    """Who sits down, with ``take``."""


Steps = tuple[PersonStep | SeatStep, ...]


@dataclass(frozen=True, slots=True)
class Sitter:
    """Somebody on a seat, with the mute that goes wherever it goes."""

    who: Person
    index: int
    muted: bool


def _mute(index: int, muted: bool) -> Steps:
    return (SeatStep(index, "mute"),) if muted else ()


def sits(who: Person, i: int, *, muted: bool) -> Steps:
    """Take, approve, accept: person.sit, i.take (i.mute if all are muted)."""
    return PersonStep(who.identity, "sit"), SeatStep(i, "take", who), *_mute(i, muted)


def rises(one: Sitter) -> Steps:
    """Leave, kick, gone: person.unseat, i.vacate."""
    return PersonStep(one.who.identity, "unseat"), SeatStep(one.index, "vacate")


def moves(one: Sitter, j: int) -> Steps:
    """Move, and swap with an empty seat: i.vacate, j.take, (j.mute if i was muted), person.move."""
    return (
        SeatStep(one.index, "vacate"),
        SeatStep(j, "take", one.who),
        *_mute(j, one.muted),
        PersonStep(one.who.identity, "move"),
    )


def swaps(a: Sitter, b: Sitter) -> Steps:
    """Both vacate, both take, mutes go with the persons, both move."""
    return (
        SeatStep(a.index, "vacate"),
        SeatStep(b.index, "vacate"),
        SeatStep(b.index, "take", a.who),
        SeatStep(a.index, "take", b.who),
        *_mute(b.index, a.muted),
        *_mute(a.index, b.muted),
        PersonStep(a.who.identity, "move"),
        PersonStep(b.who.identity, "move"),
    )


def locks(i: int, sitter: Sitter | None) -> Steps:
    """(i.vacate, person.unseat) i.lock."""
    return *(() if sitter is None else rises(sitter)), SeatStep(i, "lock")


def dismisses(identities: Iterable[str]) -> Steps:
    """Cancel, reject, decline, and whatever else ends a request or an invitation: person.dismiss."""
    return tuple(PersonStep(identity, "dismiss") for identity in identities)


_WHY: Final = {
    ("seat", "occupied", "take"): "seat {key} is taken: take a free one",
    ("seat", "muted", "take"): "seat {key} is taken: take a free one",
    ("seat", "locked", "take"): "seat {key} is locked: take another, or have a moderator unlock it",
    ("seat", "free", "vacate"): "nobody sits on seat {key}",
    ("seat", "locked", "vacate"): "nobody sits on seat {key}",
    ("person", "seated", "sit"): "sits already: leave that seat, or move",
    ("person", "seated", "request"): "sits already: nothing to ask for",
    ("person", "seated", "invite"): "sits already: nobody to invite",
    ("person", "requested", "request"): "has asked already: take that request back first",
    ("person", "invited", "request"): "is invited: accept, or decline first",
    ("person", "invited", "invite"): "is invited already: one invitation at a time",
}


def standing(room: RoomRecord, identity: str) -> str:
    """The state of somebody's `SpeakerRecord`."""
    if room.seat_of(identity) is not None:
        return "seated"
    if room.invitation_of(identity) is not None:
        return "invited"
    return "listener" if room.request_of(identity) is None else "requested"


def apply(room: RoomRecord, steps: Steps) -> None:
    """Take all the steps, or none.

    Raises: Refused: 409, one of them is not declared where it would be taken.
    """
    seats: dict[int, Runner[Seat]] = {}
    people: dict[str, Runner[SpeakerRecord]] = {}
    sitting: dict[int, Person | None] = {}
    for step in steps:
        if isinstance(step, SeatStep):
            seat = seats.setdefault(step.index, start(Seat, room.seats[step.index].state))
            _send(seat, step.event, "seat", step.index)
            if step.event in ("take", "vacate"):
                sitting[step.index] = step.who
        else:
            person = people.setdefault(step.identity, start(SpeakerRecord, standing(room, step.identity)))
            _send(person, step.event, "person", step.identity)
    touched = {index: room.seats[index] for index in seats}
    before = {row.identity: standing(room, row.identity) for row in touched.values() if row.identity is not None}
    for index, row in touched.items():
        room.seats[index] = replace(row, state=seats[index].state, who=sitting.get(index, row.who))
    room.requests = [one for one in room.requests if _still(people, one.identity, "requested")]
    room.invitations = [one for one in room.invitations if _still(people, one.identity, "invited")]
    for identity, state in (before | {who: machine.state for who, machine in people.items()}).items():
        # whoever now asks or is invited comes into its list with the number that the verb gives it
        assert state in ("requested", "invited") or standing(room, identity) == state, "seat and person disagree"


def _send(machine: Runner[Any], event: str, kind: str, key: int | str) -> None:
    if not machine.can(event):
        why = _WHY.get((kind, machine.state, event))
        if why is None:
            why = f"is {machine.state}; possible: {', '.join(machine.allowed)}"
            why = f"seat {key} {why}" if kind == "seat" else why
        told = why.format(key=key) if kind == "seat" else f"this person {why}"
        raise Refused(409, f"not possible: {told}", ILLEGAL_TRANSITION)
    machine.send(event)


def _still(people: dict[str, Runner[SpeakerRecord]], identity: str, state: str) -> bool:
    return identity not in people or people[identity].state == state
