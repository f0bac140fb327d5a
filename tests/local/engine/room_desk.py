"""What the tests of the rules of rooms share: rooms with people in them, and what must hold of every record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from utd_fsm.local.engine.refusal import Refused
from utd_fsm.local.engine.room_state import RoomRecord, dump, load
from utd_fsm.local.engine.rooms import Changed, Rooms, metadata, seats_of, stage_of
from utd_fsm.local.engine.store import Store
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_wire import read_room_state

ROOM = "r"
HOST, ADMIN = "host", "admin"
PEOPLE = ("ann", "bob", "cyd")


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Desk:
    """An engine's rooms without an engine."""

    def __init__(self) -> None:
        self.store = Store(":memory:")
        self.clock = Clock()
        self.rooms = Rooms(self.store, now=self.clock)

    def enter(self, identity: str, type: UTDStreamType, *, room: str = ROOM, **more: Any) -> Changed:
        given: dict[str, Any] = {"claims_host": identity == HOST, "owner_id": None, "attributes": {}}
        return self.rooms.enter(room, type, identity, display=identity.title(), **(given | more))

    def everybody(self, type: UTDStreamType, *, room: str = ROOM, **more: Any) -> None:
        """Host, admin and three others come in."""
        self.enter(HOST, type, room=room, **more)
        for identity in (ADMIN, *PEOPLE):
            self.enter(identity, type, room=room)
        self.rooms.set_role(room, HOST, ADMIN, UTDRole.ADMIN)

    def audio(self, seats: int = 4, mode: UTDSeatMode = UTDSeatMode.FREE) -> None:
        self.everybody(UTDStreamType.AUDIO_ROOM, seat_count=seats, seat_mode=mode)

    @property
    def room(self) -> RoomRecord:
        return self.rooms.get(ROOM)

    def sitting(self) -> dict[int, str]:
        return {i: row.identity for i, row in enumerate(self.room.seats) if row.identity is not None}

    def states(self) -> list[str]:
        return [row.state for row in self.room.seats]


def refused(desk: Desk, status: int, code: str, verb: Callable[[], object]) -> Refused:
    """The verb is refused like this, and nothing at all has changed."""
    before = list(desk.store._db.iterdump())
    with pytest.raises(Refused) as caught:
        verb()
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len(caught.value.message) > 8
    assert list(desk.store._db.iterdump()) == before
    return caught.value


def must_hold(room: RoomRecord) -> None:
    """The invariants of machines.md, Seats and Stage, and that a record survives being kept and being shown."""
    for row in room.seats:
        assert (row.who is not None) == (row.state in ("occupied", "muted")), "free and locked have nobody"
    sitting = [row.identity for row in room.seats if row.identity is not None]
    standing = sitting + [one.identity for one in room.requests] + [one.identity for one in room.invitations]
    assert len(standing) == len(set(standing)), "one seat, one request or one invitation, and never two of them"
    assert not (room.mode is UTDSeatMode.FREE and room.requests)
    viewers = [one.identity for one in room.stage] + [one.identity for one in room.hands]
    assert len(viewers) == len(set(viewers))
    assert room.owner not in viewers
    assert room.version >= max(room.versions.values(), default=0)
    assert load(room.name, room.type, room.owner, dump(room)) == room
    shown = read_room_state(metadata(room))
    if room.type is UTDStreamType.AUDIO_ROOM:
        assert shown.seats == seats_of(room)
        assert shown.stage is None
        assert shown.live is None
    else:
        assert shown.stage == stage_of(room)
        assert shown.live is room.live
        assert shown.seats is None
    assert shown.comments_locked is room.comments_locked
