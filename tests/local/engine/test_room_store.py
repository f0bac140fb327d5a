"""What the engine keeps of rooms: databases of an earlier version, a restart, and random verbs in any order."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utd_fsm.local.engine.refusal import Refused
from utd_fsm.local.engine.rooms import Changed, Rooms, metadata
from utd_fsm.local.engine.store import Occupant, Store
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_wire import read_room_state

from .room_desk import ADMIN, HOST, PEOPLE, ROOM, Desk, must_hold

AUDIO, STREAM = UTDStreamType.AUDIO_ROOM, UTDStreamType.LIVE_STREAM


def test_a_database_of_an_earlier_version_opens(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE rooms (name TEXT PRIMARY KEY, type TEXT NOT NULL, owner TEXT) WITHOUT ROWID")
        old.execute("INSERT INTO rooms VALUES ('old', 'audio_room', 'host'), ('nobody', 'live_stream', NULL)")
    old.close()
    store = Store(str(path))
    rooms = Rooms(store)
    assert rooms.names() == ["nobody", "old"]
    assert rooms.get("old").owner == "host"
    assert rooms.get("nobody").version == 0
    rooms.setup("old", "host", 2, None, None)
    room = rooms.get("old")
    assert room.version == 1
    assert room.versions == {"_seats": 1, "_comments_locked": 0}
    must_hold(room)
    store.close()


def test_a_restart_finds_everything_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.db")
    store = Store(path)
    with store.transaction():
        rooms = Rooms(store)
        for identity in (HOST, "ann", "bob"):
            rooms.enter(ROOM, AUDIO, identity, claims_host=identity == HOST, owner_id=None, display=identity.title(),
                        attributes={"avatar": "é"}, seat_count=3, seat_mode=UTDSeatMode.REQUEST, mode_id=7)  # fmt: skip
        rooms.request(ROOM, "ann")
        rooms.approve(ROOM, HOST, 1)
        rooms.mute(ROOM, HOST, 1)
        rooms.invite(ROOM, HOST, "bob", 2)
        store.set_occupant(Occupant(ROOM, "ann", "PA_1", 1.5, 2.5))
    before = rooms.get(ROOM)
    store.close()
    store = Store(path)
    assert Rooms(store).get(ROOM) == before
    assert before.mode_id == 7
    assert store.occupied() == [ROOM]
    assert store.occupants(ROOM) == {"ann": Occupant(ROOM, "ann", "PA_1", 1.5, 2.5)}
    store.drop_occupant(ROOM, "ann")
    assert store.occupied() == []
    store.close()


def test_a_new_room_tells_its_parts_at_once() -> None:
    desk = Desk()
    room = desk.enter(HOST, AUDIO).room
    assert room.version == 1
    assert room.versions == {"_seats": 1, "_comments_locked": 1}
    assert desk.enter(HOST, STREAM, room="s").room.versions == {"_stage": 1, "_live": 1, "_comments_locked": 1}


def test_a_record_in_hand_does_not_change_under_a_verb() -> None:
    desk = Desk()
    desk.audio()
    before = desk.room
    kept = before.copy()
    desk.rooms.take(ROOM, "ann", 1)
    assert before == kept != desk.room


def test_a_refused_entry_leaves_no_trace() -> None:
    """The engine commits a refusal's idempotency key in the same transaction: nothing else may go with it."""
    desk = Desk()
    with pytest.raises(Refused):
        desk.enter(HOST, AUDIO, seat_count=2, host_seat=2)
    assert desk.rooms.find(ROOM) is None
    assert desk.store.person(ROOM, HOST) is None


# --- random verbs

EVERYBODY = st.sampled_from((HOST, ADMIN, *PEOPLE))
INDEX = st.integers(-1, 5)
NUMBER = st.integers(0, 12)
MODES = st.sampled_from((None, *UTDSeatMode))
COMMON: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "set_role": (EVERYBODY, EVERYBODY, st.sampled_from(UTDRole)),
    "lock_comments": (EVERYBODY, st.booleans()),
    "kick_out": (EVERYBODY, EVERYBODY),
    "gone": (EVERYBODY,),
}
SEATS: dict[str, tuple[st.SearchStrategy[Any], ...]] = COMMON | {
    "setup": (EVERYBODY, st.none() | st.integers(0, 6), MODES, st.sampled_from((None, 1, "x"))),
    **dict.fromkeys(("take", "move", "kick", "lock", "unlock", "mute", "unmute"), (EVERYBODY, INDEX)),
    **dict.fromkeys(("leave", "request", "cancel"), (EVERYBODY,)),
    **dict.fromkeys(("approve", "reject", "accept", "decline"), (EVERYBODY, NUMBER)),
    "swap": (EVERYBODY, INDEX, INDEX),
    "mute_all": (EVERYBODY, st.booleans()),
    "invite": (EVERYBODY, EVERYBODY, st.none() | INDEX),
}
STAGE: dict[str, tuple[st.SearchStrategy[Any], ...]] = COMMON | {
    **dict.fromkeys(("ask", "lower", "step_down", "start_live", "end_live"), (EVERYBODY,)),
    **dict.fromkeys(("add", "remove"), (EVERYBODY, EVERYBODY)),
    **dict.fromkeys(("host_away", "host_back", "live_over"), ()),
}


def steps(verbs: dict[str, tuple[st.SearchStrategy[Any], ...]]) -> st.SearchStrategy[list[tuple[str, tuple[Any, ...]]]]:
    one = st.one_of([st.tuples(st.just(name), st.tuples(*arguments)) for name, arguments in verbs.items()])
    return st.lists(one, min_size=5, max_size=50)


def kept(desk: Desk) -> tuple[Any, ...]:
    rows = desk.store._rows("SELECT * FROM rooms JOIN room_states USING (name)")
    return tuple(map(tuple, rows))


def walk(desk: Desk, verbs: list[tuple[str, tuple[Any, ...]]]) -> None:
    for name, arguments in verbs:
        before, stored = desk.room, kept(desk)
        try:
            done: Changed = getattr(desk.rooms, name)(ROOM, *arguments)
        except Refused as no:
            assert no.status in (403, 404, 409, 422)
            assert kept(desk) == stored
            continue
        room = desk.room
        must_hold(room)
        assert room == done.room
        assert room.version == before.version + done.changed
        assert (kept(desk) != stored) is done.changed
        shown, was = read_room_state(metadata(room)), read_room_state(metadata(before))
        for part in ("seats", "stage"):
            new, old = getattr(shown, part), getattr(was, part)
            if new is not None and done.changed:
                differs = replace(new, version=None) != replace(old, version=None)
                assert new.version == (room.version if differs else old.version)
        if done.changed:
            differs = shown.comments_locked is not was.comments_locked
            assert shown.comments_version == (room.version if differs else was.comments_version)
        assert all(note.to != () for note in done.notes)
        assert all(one.id <= room.last_id for one in room.requests)
        assert all(one.id <= room.last_id for one in room.invitations)


@settings(max_examples=120, deadline=None)
@given(mode=st.sampled_from(UTDSeatMode), verbs=steps(SEATS))
def test_random_verbs_in_an_audio_room(mode: UTDSeatMode, verbs: list[tuple[str, tuple[Any, ...]]]) -> None:
    desk = Desk()
    desk.audio(4, mode)
    walk(desk, verbs)
    desk.store.close()


@settings(max_examples=80, deadline=None)
@given(verbs=steps(STAGE))
def test_random_verbs_in_a_stream(verbs: list[tuple[str, tuple[Any, ...]]]) -> None:
    desk = Desk()
    desk.everybody(STREAM)
    walk(desk, verbs)
    desk.store.close()
