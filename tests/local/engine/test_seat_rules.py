"""The seats of an audio room: every verb on every kind of seat, by whoever may or may not, against tables by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from utd_fsm.local.engine.rooms import entitled, is_muted
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_wire import read_grid, read_seats

from .room_desk import ADMIN, HOST, PEOPLE, ROOM, Desk, must_hold, refused

ILLEGAL = "illegal_transition"
REQUEST = UTDSeatMode.REQUEST


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Seats: 0 the host's and empty, 1 ann, 2 bob muted, 3 locked, 4 and 5 free."""
    one = Desk()
    one.audio(6)
    one.rooms.take(ROOM, "ann", 1)
    one.rooms.take(ROOM, "bob", 2)
    one.rooms.mute(ROOM, HOST, 2)
    one.rooms.lock(ROOM, HOST, 3)
    yield one
    must_hold(one.room)
    one.store.close()


@pytest.fixture
def asked() -> Iterator[Desk]:
    """Request mode, four seats; ann (1) and bob (2) ask."""
    one = Desk()
    one.audio(4, REQUEST)
    one.rooms.request(ROOM, "ann")
    one.rooms.request(ROOM, "bob")
    yield one
    must_hold(one.room)
    one.store.close()


# verb, on the seat that is … → the states of seats 0 to 5 afterwards, or status and code
ON_SEATS: dict[tuple[str, int], list[str] | tuple[int, str]] = {
    ("take", 0): (403, "reserved"),
    ("take", 1): (409, ILLEGAL),
    ("take", 2): (409, ILLEGAL),
    ("take", 3): (409, ILLEGAL),
    ("take", 4): ["free", "occupied", "muted", "locked", "occupied", "free"],
    ("take", 6): (404, "no_such_seat"),
    ("take", -1): (404, "no_such_seat"),
    ("kick", 0): (409, ILLEGAL),
    ("kick", 1): ["free", "free", "muted", "locked", "free", "free"],
    ("kick", 2): ["free", "occupied", "free", "locked", "free", "free"],
    ("kick", 3): (409, ILLEGAL),
    ("lock", 0): ["locked", "occupied", "muted", "locked", "free", "free"],
    ("lock", 1): ["free", "locked", "muted", "locked", "free", "free"],
    ("lock", 2): ["free", "occupied", "locked", "locked", "free", "free"],
    ("lock", 3): [],
    ("lock", 6): (404, "no_such_seat"),
    ("unlock", 1): (409, ILLEGAL),
    ("unlock", 3): ["free", "occupied", "muted", "free", "free", "free"],
    ("unlock", 4): [],
    ("mute", 1): ["free", "muted", "muted", "locked", "free", "free"],
    ("mute", 2): [],
    ("mute", 3): (409, ILLEGAL),
    ("mute", 4): (409, ILLEGAL),
    ("unmute", 1): [],
    ("unmute", 2): ["free", "occupied", "occupied", "locked", "free", "free"],
    ("unmute", 4): (409, ILLEGAL),
}


@pytest.mark.parametrize(("verb", "index"), ON_SEATS)
def test_every_verb_on_every_kind_of_seat(desk: Desk, verb: str, index: int) -> None:
    wanted, actor, before = ON_SEATS[verb, index], "cyd" if verb == "take" else ADMIN, desk.room
    run: Callable[[], Any] = lambda: getattr(desk.rooms, verb)(ROOM, actor, index)  # noqa: E731
    if isinstance(wanted, tuple):
        refused(desk, *wanted, run)
        return
    done = run()
    assert desk.states() == (wanted or ["free", "occupied", "muted", "locked", "free", "free"])
    assert done.changed is bool(wanted)
    assert desk.room.version == before.version + done.changed == done.room.version
    grid = read_grid(done.answer, "answer")
    assert grid is not None
    assert grid.version == desk.room.versions["_seats"]
    hints = [note for note in done.notes if note.kind == "_seat_update"]
    assert len(hints) == done.changed
    for note in hints:
        assert note.to is None
        assert read_seats(note.content, "note") == grid


def test_a_mute_goes_with_the_person_and_not_with_the_seat(desk: Desk) -> None:
    assert desk.rooms.move(ROOM, "bob", 4).answer | {"grid": 0} == {"from": 2, "to": 4, "grid": 0}
    assert desk.states() == ["free", "occupied", "free", "locked", "muted", "free"]
    assert is_muted(desk.room, "bob")
    assert not is_muted(desk.room, "ann")
    desk.rooms.swap(ROOM, ADMIN, 1, 4)
    assert desk.sitting() == {1: "bob", 4: "ann"}
    assert desk.states() == ["free", "muted", "free", "locked", "occupied", "free"]
    desk.rooms.swap(ROOM, ADMIN, 1, 4)
    assert desk.states() == ["free", "occupied", "free", "locked", "muted", "free"]
    desk.rooms.swap(ROOM, ADMIN, 4, 1)
    desk.rooms.swap(ROOM, ADMIN, 5, 1)  # with an empty one it is a move, whichever is named first
    assert desk.states() == ["free", "free", "free", "locked", "occupied", "muted"]
    desk.rooms.leave(ROOM, "bob")
    desk.rooms.take(ROOM, "bob", 5)
    assert not is_muted(desk.room, "bob")


@pytest.mark.parametrize(("index", "status", "code"), [
    (0, 403, "reserved"), (1, 409, ILLEGAL), (2, 409, ILLEGAL), (3, 409, ILLEGAL), (9, 404, "no_such_seat"),
])  # fmt: skip
def test_a_move_is_to_a_free_seat(desk: Desk, index: int, status: int, code: str) -> None:
    refused(desk, status, code, lambda: desk.rooms.move(ROOM, "ann", index))
    refused(desk, 409, ILLEGAL, lambda: desk.rooms.move(ROOM, "cyd", 4))


@pytest.mark.parametrize(("a", "b", "status", "code"), [
    (1, 3, 409, ILLEGAL), (3, 1, 409, ILLEGAL), (4, 5, 409, ILLEGAL), (3, 4, 409, ILLEGAL), (1, 1, 422, "validation"),
    (1, 0, 403, "reserved"), (0, 1, 403, "reserved"), (1, 6, 404, "no_such_seat"),
])  # fmt: skip
def test_what_cannot_be_swapped(desk: Desk, a: int, b: int, status: int, code: str) -> None:
    refused(desk, status, code, lambda: desk.rooms.swap(ROOM, ADMIN, a, b))


def test_sitting_twice(desk: Desk) -> None:
    told = refused(desk, 409, ILLEGAL, lambda: desk.rooms.take(ROOM, "ann", 4))
    assert "sits already" in told.message
    refused(desk, 409, ILLEGAL, lambda: desk.rooms.leave(ROOM, "cyd"))


@pytest.mark.parametrize("verb", ["kick", "lock", "mute", "unmute"])
def test_an_admin_cannot_act_on_the_host(desk: Desk, verb: str) -> None:
    desk.rooms.take(ROOM, HOST, 0)
    refused(desk, 403, "not_on_host", lambda: getattr(desk.rooms, verb)(ROOM, ADMIN, 0))
    getattr(desk.rooms, verb)(ROOM, HOST, 0)  # it may itself


def test_an_admin_cannot_move_the_host(desk: Desk) -> None:
    desk.rooms.take(ROOM, HOST, 4)
    refused(desk, 403, "not_on_host", lambda: desk.rooms.swap(ROOM, ADMIN, 4, 5))
    refused(desk, 403, "not_on_host", lambda: desk.rooms.swap(ROOM, ADMIN, 1, 4))


def test_only_moderators_act_on_others(desk: Desk) -> None:
    rooms = desk.rooms
    for verb in ("kick", "lock", "unlock", "mute", "unmute"):
        refused(desk, 403, "not_moderator", lambda verb=verb: getattr(rooms, verb)(ROOM, "cyd", 1))  # type: ignore[misc]
    refused(desk, 403, "not_moderator", lambda: rooms.swap(ROOM, "cyd", 1, 2))
    refused(desk, 403, "not_moderator", lambda: rooms.mute_all(ROOM, "cyd", True))
    refused(desk, 403, "not_moderator", lambda: rooms.setup(ROOM, "cyd", 8, None, None))
    refused(desk, 403, "not_moderator", lambda: rooms.invite(ROOM, "cyd", "ann", None))
    refused(desk, 403, "not_moderator", lambda: rooms.approve(ROOM, "cyd", 99))
    refused(desk, 403, "not_moderator", lambda: rooms.reject(ROOM, "cyd", 99))


def test_mute_all_spares_host_and_actor_and_covers_who_sits_down_later(desk: Desk) -> None:
    rooms = desk.rooms
    rooms.take(ROOM, HOST, 0)
    rooms.take(ROOM, ADMIN, 4)
    done = rooms.mute_all(ROOM, ADMIN, True)
    assert desk.states() == ["occupied", "muted", "muted", "locked", "occupied", "free"]
    assert done.answer["all_muted"] is True
    assert desk.room.all_muted
    assert not rooms.mute_all(ROOM, ADMIN, True).changed
    rooms.take(ROOM, "cyd", 5)
    assert is_muted(desk.room, "cyd")
    rooms.unmute(ROOM, ADMIN, 5)
    assert not is_muted(desk.room, "cyd")
    assert desk.room.all_muted
    rooms.leave(ROOM, HOST)
    rooms.take(ROOM, HOST, 0)
    assert not is_muted(desk.room, HOST)
    rooms.mute_all(ROOM, HOST, False)
    assert "muted" not in desk.states()
    assert not desk.room.all_muted


def test_setup_again_keeps_whom_it_can(asked: Desk) -> None:
    rooms = asked.rooms
    rooms.approve(ROOM, HOST, 1)  # ann: seat 1, the first that is not the host's
    rooms.invite(ROOM, HOST, "cyd", 3)
    rooms.invite(ROOM, HOST, ADMIN, None)
    rooms.move(ROOM, "ann", 2)
    done = rooms.setup(ROOM, ADMIN, 3, None, "stage left")
    assert asked.sitting() == {2: "ann"}
    assert done.answer["seat_mode"] == "request"
    assert [one.identity for one in asked.room.requests] == ["bob"]
    assert [one.identity for one in asked.room.invitations] == [ADMIN]  # cyd's seat is no more
    change = next(note for note in done.notes if note.kind == "_mode_change")
    assert change.to is None
    assert dict(change.content) == {
        "mode_id": "stage left",
        "seat_count": 3,
        "seat_mode": "request",
    }
    rooms.setup(ROOM, HOST, 2, UTDSeatMode.FREE, None)
    assert asked.sitting() == {}
    assert not asked.room.requests
    assert asked.room.mode_id == "stage left"
    assert asked.room.seats[0].reserved_for == HOST
    again = rooms.setup(ROOM, HOST, None, None, None)
    assert not again.changed
    assert again.notes == ()


@pytest.mark.parametrize("count", [0, -1, 101])
def test_how_many_seats_there_can_be(desk: Desk, count: int) -> None:
    refused(desk, 422, "validation", lambda: desk.rooms.setup(ROOM, HOST, count, None, None))


def test_a_room_without_seats() -> None:
    desk = Desk()
    desk.everybody(UTDStreamType.AUDIO_ROOM)
    for verb in (
        lambda: desk.rooms.take(ROOM, "ann", 0),
        lambda: desk.rooms.lock(ROOM, HOST, 0),
        lambda: desk.rooms.request(ROOM, "ann"),
        lambda: desk.rooms.invite(ROOM, HOST, "ann", None),
    ):
        refused(desk, 409, ILLEGAL, verb)
    desk.rooms.setup(ROOM, HOST, None, None, None)
    assert len(desk.room.seats) == 8
    assert desk.room.mode is UTDSeatMode.FREE


def test_another_host_seat() -> None:
    desk = Desk()
    desk.everybody(UTDStreamType.AUDIO_ROOM, seat_count=3, host_seat=2)
    refused(desk, 403, "reserved", lambda: desk.rooms.take(ROOM, "ann", 2))
    desk.rooms.take(ROOM, "ann", 0)
    desk.rooms.take(ROOM, HOST, 2)
    other = Desk()
    refused(other, 422, "validation", lambda: other.enter(HOST, UTDStreamType.AUDIO_ROOM, seat_count=3, host_seat=3))


# --- who speaks


def test_in_request_mode_only_the_host_takes(asked: Desk) -> None:
    refused(asked, 403, "request_mode", lambda: asked.rooms.take(ROOM, "ann", 1))
    refused(asked, 403, "request_mode", lambda: asked.rooms.take(ROOM, ADMIN, 1))
    asked.rooms.take(ROOM, HOST, 0)
    asked.rooms.approve(ROOM, HOST, 1)
    refused(asked, 409, ILLEGAL, lambda: asked.rooms.take(ROOM, "ann", 2))  # not 403: it was approved


def test_requests_are_told_to_host_and_admins_and_answered_once(asked: Desk) -> None:
    done = asked.rooms.request(ROOM, "cyd")
    note = next(note for note in done.notes if note.kind == "_speaker_request")
    assert note.to == (HOST, ADMIN)
    assert note.content["identity"] == "cyd"
    assert note.content["request_id"] == 3
    refused(asked, 409, ILLEGAL, lambda: asked.rooms.request(ROOM, "cyd"))
    done = asked.rooms.approve(ROOM, ADMIN, 1)
    assert {k: done.answer[k] for k in ("request_id", "identity", "seat_index")} == {
        "request_id": 1, "identity": "ann", "seat_index": 1,
    }  # fmt: skip
    assert done.notes[-1].kind == "_speaker_request_approved"
    assert done.notes[-1].to == ("ann",)
    assert entitled(asked.room, "ann")
    assert asked.room.seats[1].who is not None
    assert asked.room.seats[1].who.name == "Ann"
    refused(asked, 409, ILLEGAL, lambda: asked.rooms.approve(ROOM, ADMIN, 1))
    done = asked.rooms.reject(ROOM, ADMIN, 2)
    assert done.notes[-1].kind == "_speaker_request_rejected"
    assert done.notes[-1].to == ("bob",)
    refused(asked, 409, ILLEGAL, lambda: asked.rooms.cancel(ROOM, "bob"))
    asked.rooms.request(ROOM, "bob")
    assert asked.room.requests[-1].id == 4  # never an old number
    asked.rooms.cancel(ROOM, "bob")
    refused(asked, 409, ILLEGAL, lambda: asked.rooms.approve(ROOM, HOST, 4))


def test_approval_without_a_free_seat(asked: Desk) -> None:
    for index in (1, 2):
        asked.rooms.lock(ROOM, HOST, index)
    asked.rooms.approve(ROOM, HOST, 1)
    refused(asked, 409, "no_free_seat", lambda: asked.rooms.approve(ROOM, HOST, 2))  # seat 0 is the host's
    asked.rooms.unlock(ROOM, HOST, 2)
    assert asked.rooms.approve(ROOM, HOST, 2).answer["seat_index"] == 2


def test_free_mode_needs_no_requests(desk: Desk) -> None:
    refused(desk, 409, ILLEGAL, lambda: desk.rooms.request(ROOM, "cyd"))


def test_invitations(asked: Desk) -> None:
    rooms = asked.rooms
    done = rooms.invite(ROOM, ADMIN, "cyd", 3)
    number = done.answer["invitation_id"]
    note = done.notes[-1]
    assert (note.kind, note.to) == ("_speaker_invitation", ("cyd",))
    assert dict(note.content) == {
        "invitation_id": number, "inviter_identity": ADMIN, "target_identity": "cyd", "seat_index": 3,
    }  # fmt: skip
    refused(asked, 403, "not_invited", lambda: rooms.accept(ROOM, "bob", number))
    refused(asked, 403, "not_invited", lambda: rooms.decline(ROOM, ADMIN, number))
    refused(asked, 409, ILLEGAL, lambda: rooms.invite(ROOM, HOST, "cyd", None))
    refused(asked, 409, ILLEGAL, lambda: rooms.cancel(ROOM, "cyd"))  # an invitation is no request
    refused(asked, 409, ILLEGAL, lambda: rooms.accept(ROOM, "cyd", 99))
    done = rooms.accept(ROOM, "cyd", number)
    assert asked.sitting() == {3: "cyd"}
    assert done.answer["seat_index"] == 3
    assert (done.notes[-1].kind, done.notes[-1].to) == ("_speaker_invitation_accepted", (ADMIN,))
    refused(asked, 409, ILLEGAL, lambda: rooms.invite(ROOM, HOST, "cyd", None))
    number = rooms.invite(ROOM, HOST, "ann", None).answer["invitation_id"]  # who asked can be invited instead
    assert [one.identity for one in asked.room.requests] == ["bob"]
    done = rooms.decline(ROOM, "ann", number)
    assert (done.notes[-1].kind, done.notes[-1].to) == ("_speaker_invitation_declined", (HOST,))
    number = rooms.invite(ROOM, HOST, "ann", None).answer["invitation_id"]
    assert rooms.accept(ROOM, "ann", number).answer["seat_index"] == 1


def test_an_invitation_to_a_seat_that_is_gone(asked: Desk) -> None:
    rooms = asked.rooms
    refused(asked, 404, "no_such_seat", lambda: rooms.invite(ROOM, HOST, "cyd", 4))
    refused(asked, 403, "reserved", lambda: rooms.invite(ROOM, HOST, "cyd", 0))
    number = rooms.invite(ROOM, HOST, "cyd", 2).answer["invitation_id"]
    rooms.lock(ROOM, HOST, 2)
    refused(asked, 409, ILLEGAL, lambda: rooms.accept(ROOM, "cyd", number))
    refused(asked, 409, ILLEGAL, lambda: rooms.invite(ROOM, HOST, "ann", 2))


def test_somebody_gone_leaves_nothing_behind(asked: Desk) -> None:
    asked.rooms.approve(ROOM, HOST, 1)
    asked.rooms.invite(ROOM, HOST, "cyd", 3)
    for identity in PEOPLE:
        assert asked.rooms.gone(ROOM, identity).changed
        assert not asked.rooms.gone(ROOM, identity).changed
    assert asked.room.involved() == frozenset()
    assert set(asked.states()) == {"free"}


def test_only_a_seat_entitles() -> None:
    desk = Desk()
    desk.audio(3)
    desk.rooms.take(ROOM, "ann", 1)
    assert {who: entitled(desk.room, who) for who in (HOST, ADMIN, *PEOPLE)} == {
        HOST: False, ADMIN: False, "ann": True, "bob": False, "cyd": False,
    }  # fmt: skip
    desk.rooms.set_role(ROOM, HOST, "ann", UTDRole.VISITOR)
    assert entitled(desk.room, "ann")
    desk.rooms.kick(ROOM, ADMIN, 1)
    assert not entitled(desk.room, "ann")


def test_a_new_name_is_shown_where_one_sits(desk: Desk) -> None:
    done = desk.enter(
        "ann", UTDStreamType.AUDIO_ROOM, attributes={"avatar": "a.png", "fr": 3, "cn": "x" * 513, "k": "v"}
    )
    row = desk.room.seats[1]
    assert row.who is not None
    assert dict(row.who.attributes) == {"avatar": "a.png"}
    assert done.changed
    assert not desk.enter("ann", UTDStreamType.AUDIO_ROOM).changed
