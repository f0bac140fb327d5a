"""How a verb about a room is run and kept: on a copy, all or nothing, one version. The verbs are `rooms`'.

The caller of everything here holds the store's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from utd_fsm import room_wire
from utd_fsm.models import UTDRole, UTDStreamType

from .refusal import Refused
from .room_state import Note, Person, RoomRecord, Said, parts, role
from .store import Store

_UPDATES: Final = {room_wire.META_SEATS: room_wire.SEAT_UPDATE, room_wire.META_STAGE: room_wire.STAGE_UPDATE}


@dataclass(frozen=True, slots=True)
class Changed:
    """A room after a verb."""

    room: RoomRecord
    """As it is kept now. To be read only."""
    answer: dict[str, Any]
    """What the route answers with 200."""
    changed: bool
    """Whether there is a new version. Notes and removals count even where there is none (a kicked listener)."""
    notes: tuple[Note, ...] = ()
    removed: tuple[str, ...] = ()
    """Who is put out of the media room, after the notes."""


Answer = Callable[[RoomRecord, Said], Mapping[str, Any]]


def as_said(_room: RoomRecord, said: Said) -> Mapping[str, Any]:
    """The answer of a verb that has one of its own."""
    return said.answer


def _now() -> datetime:
    return datetime.now(UTC)


class RoomKeeper:
    """The records of all rooms: read, and changed by whatever rule is given.

    Args:
        store: the engine's memory; its transaction is held by the caller.
        now: the clock, with a time zone.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime] = _now) -> None:
        self._store = store
        self._now = now

    # --- reading

    def find(self, name: str) -> RoomRecord | None:
        """One room; None if nobody ever came in."""
        return self._store.room(name)

    def get(self, name: str, type: UTDStreamType | None = None) -> RoomRecord:
        """One room.

        Raises: Refused: 404 ``not_found``; 409 ``other_type``.
        """
        room = self.find(name)
        if room is None:
            raise Refused(404, "no such room: it is made by the first token for it", "not_found")
        must_be(room, type)
        return room

    def names(self) -> list[str]:
        """All rooms there ever were."""
        return self._store.room_names()

    def by_role(self, name: str, wanted: UTDRole) -> list[str]:
        """Who is in the media room with this role, by the books about its occupants."""
        room = self.get(name)
        there = self._store.occupants(name).values()
        return [who.identity for who in there if who.dropped_at is None and role(room, who.identity) is wanted]

    # --- how a verb runs

    def _verb(
        self, name: str, type: UTDStreamType | None, rule: Callable[[RoomRecord], Said], answer: Answer
    ) -> Changed:
        before = self.get(name, type)
        room = before.copy()
        return self._save(before, room, rule(room), answer)

    def _save(self, before: RoomRecord | None, room: RoomRecord, said: Said, answer: Answer) -> Changed:
        """Keep what a rule made of the copy, under a new version, unless it is what it was."""
        if room == before:
            return Changed(room, dict(answer(room, said)), False, said.notes, said.removed)
        room.versions = dict.fromkeys(parts(room), room.version) | room.versions
        room.version += 1
        was, is_ = {} if before is None else parts(before), parts(room)
        news = [part for part in is_ if part not in was or _told(was[part]) != _told(is_[part])]
        room.versions.update(dict.fromkeys(news, room.version))
        self._store.save_room(room)
        shown = parts(room)
        hints = tuple(Note(_UPDATES[part], shown[part]) for part in news if part in _UPDATES)
        return Changed(room, dict(answer(room, said)), True, hints + said.notes, said.removed)

    def _person(self, room: RoomRecord, identity: str) -> Person:
        return self._store.person(room.name, identity) or Person(identity)


def must_be(room: RoomRecord, type: UTDStreamType | None) -> None:
    """Raises: Refused: 409 ``other_type``; None is any."""
    if type not in (None, room.type):
        raise Refused(409, f"the room {room.name[:80]!r} is of type {room.type}", "other_type")


def _told(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of the metadata without its version."""
    return {key: value for key, value in part.items() if key != "version"}
