"""Roles, the comment lock, putting out, bans: who may, on whom, and what is gone in the same commit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from utd_fsm.local.engine.rooms import entitled, participant_metadata, role
from utd_fsm.local.engine.store import Occupant
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_wire import read_ban, role_of

from .room_desk import ADMIN, HOST, ROOM, Desk, must_hold, refused

AUDIO, STREAM = UTDStreamType.AUDIO_ROOM, UTDStreamType.LIVE_STREAM


@pytest.fixture
def desk() -> Iterator[Desk]:
    """ann sits on 1; the stream `s` has the same people, ann on stage, bob with a hand up."""
    one = Desk()
    one.audio(4)
    one.rooms.take(ROOM, "ann", 1)
    one.everybody(STREAM, room="s")
    one.rooms.add("s", HOST, "ann")
    one.rooms.ask("s", "bob")
    yield one
    must_hold(one.room)
    must_hold(one.rooms.get("s"))
    one.store.close()


# --- roles


@pytest.mark.parametrize(("actor", "target", "wanted", "status", "code"), [
    (ADMIN, "ann", UTDRole.GUEST, 403, "not_owner"),
    ("ann", "ann", UTDRole.ADMIN, 403, "not_owner"),
    (HOST, "ann", UTDRole.HOST, 422, "validation"),
    (HOST, HOST, UTDRole.ADMIN, 403, "not_on_host"),
    (HOST, "ann", UTDRole.AUDIENCE, 409, "already_in_role"),
    (HOST, ADMIN, UTDRole.ADMIN, 409, "already_in_role"),
])  # fmt: skip
def test_who_gives_which_role(desk: Desk, actor: str, target: str, wanted: UTDRole, status: int, code: str) -> None:
    refused(desk, status, code, lambda: desk.rooms.set_role(ROOM, actor, target, wanted))


@pytest.mark.parametrize("given", [UTDRole.VISITOR, UTDRole.GUEST, UTDRole.ADMIN])
def test_a_role_is_given_and_taken_back(desk: Desk, given: UTDRole) -> None:
    done = desk.rooms.set_role(ROOM, HOST, "bob", given)
    assert done.answer == {"identity": "bob", "role": given.value, "previous_role": "audience"}
    assert [(note.kind, dict(note.content), note.to) for note in done.notes] == [("_role_change", done.answer, None)]
    assert role(desk.room, "bob") is given
    assert role_of(participant_metadata(desk.room, "bob", "1")) is given
    assert not entitled(desk.room, "bob")
    assert desk.enter("bob", AUDIO).answer == {"role": given.value}
    desk.rooms.set_role(ROOM, HOST, "bob", UTDRole.AUDIENCE)
    assert desk.room.roles == {ADMIN: UTDRole.ADMIN}
    assert desk.enter("bob", AUDIO).answer == {"role": "audience"}


def test_the_owner_is_host_whatever_it_claims(desk: Desk) -> None:
    assert desk.enter(HOST, AUDIO, claims_host=False).answer == {"role": "host"}
    assert desk.enter("bob", AUDIO, claims_host=True).answer == {"role": "audience"}
    assert desk.enter("bob", AUDIO, claims_host=True, owner_id="bob").answer == {"role": "audience"}
    assert desk.room.owner == HOST


def test_who_owns_a_room() -> None:
    desk = Desk()
    assert desk.enter("ann", STREAM, claims_host=True, owner_id="bob").answer == {"role": "audience"}
    assert desk.room.owner == "bob"
    assert desk.enter("bob", STREAM).answer == {"role": "host"}
    desk.enter("cyd", STREAM, room="late")
    desk.rooms.ask("late", "cyd")  # nobody to tell: no note
    assert desk.enter("cyd", STREAM, room="late", claims_host=True).answer == {"role": "host"}
    must_hold(desk.rooms.get("late"))  # its own hand is down


def test_who_is_in_which_role(desk: Desk) -> None:
    for identity, dropped in ((HOST, None), ("ann", None), (ADMIN, 3.0), ("bob", None)):
        desk.store.set_occupant(Occupant(ROOM, identity, f"PA_{identity}", 1.0, dropped))
    assert desk.rooms.by_role(ROOM, UTDRole.AUDIENCE) == ["ann", "bob"]
    assert desk.rooms.by_role(ROOM, UTDRole.ADMIN) == []
    assert desk.rooms.by_role(ROOM, UTDRole.HOST) == [HOST]


# --- the chat


def test_the_comment_lock(desk: Desk) -> None:
    refused(desk, 403, "not_moderator", lambda: desk.rooms.lock_comments(ROOM, "ann", True))
    seats = desk.room.versions["_seats"]
    done = desk.rooms.lock_comments(ROOM, ADMIN, True)
    assert done.answer == {"locked": True, "version": desk.room.version}
    assert desk.room.versions["_seats"] == seats
    assert [(note.kind, dict(note.content), note.to) for note in done.notes] == [
        ("_comment_lock", {"locked": True}, None)
    ]
    again = desk.rooms.lock_comments(ROOM, HOST, True)
    assert not again.changed
    assert again.notes == ()


# --- putting out


@pytest.mark.parametrize("room", [ROOM, "s"])
def test_whoever_is_put_out_has_nothing_left_there(desk: Desk, room: str) -> None:
    refused(desk, 403, "not_moderator", lambda: desk.rooms.kick_out(room, "bob", "ann"))
    refused(desk, 403, "not_on_host", lambda: desk.rooms.kick_out(room, ADMIN, HOST))
    done = desk.rooms.kick_out(room, ADMIN, "ann")
    assert done.removed == ("ann",)
    assert "ann" not in desk.rooms.get(room).involved()
    note = done.notes[-1]
    assert (note.kind, note.to, note.content["reason"]) == ("_kicked", ("ann",), "kicked")
    again = desk.rooms.kick_out(room, ADMIN, "ann")  # nothing to change, and still to be removed
    assert not again.changed
    assert again.removed == ("ann",)
    assert len(again.notes) == 1
    assert desk.enter("ann", AUDIO).answer == {"role": "audience"}  # a kick is no ban


def test_who_may_mute_tracks(desk: Desk) -> None:
    assert desk.rooms.may_mute(ROOM, ADMIN, "ann").name == ROOM
    refused(desk, 403, "not_moderator", lambda: desk.rooms.may_mute(ROOM, "bob", "ann"))
    refused(desk, 403, "not_on_host", lambda: desk.rooms.may_mute(ROOM, ADMIN, HOST))


# --- bans


def test_a_ban_from_one_room(desk: Desk) -> None:
    changed, ban = desk.rooms.ban(ADMIN, "ann", ROOM, "rude", 60)
    (done,) = changed
    assert done.removed == ("ann",)
    assert desk.sitting() == {}
    assert read_ban(done.answer, "answer") == ban
    assert (ban.name, ban.room_name, ban.reason) == ("Ann", ROOM, "rude")
    assert ban.expires_at == desk.clock.at + timedelta(seconds=60)
    note = done.notes[-1]
    assert (note.kind, note.to) == ("_banned", ("ann",))
    assert dict(note.content) == {"room_name": ROOM, "reason": "rude", "expires_at": "2026-11-23T12:01:00+00:00"}
    told = refused(desk, 403, "banned", lambda: desk.enter("ann", AUDIO))
    assert told.message.startswith("User is banned")
    assert told.details == dict(note.content)
    assert told.body().items() >= told.details.items()
    refused(desk, 403, "banned", lambda: desk.rooms.check_ban("ann", ROOM))
    desk.rooms.check_ban("ann", "s")
    desk.rooms.check_ban("ann", None)
    desk.rooms.check_ban("bob", ROOM)
    assert "ann" in desk.rooms.get("s").involved()
    refused(desk, 403, "target_banned", lambda: desk.rooms.invite(ROOM, HOST, "ann", None))
    desk.clock.forward(59.9)
    refused(desk, 403, "banned", lambda: desk.rooms.check_ban("ann", ROOM))
    desk.clock.forward(0.1)
    desk.rooms.check_ban("ann", ROOM)
    assert desk.rooms.bans(HOST, ROOM, 1, 20) == ([], 0)
    refused(desk, 404, "not_banned", lambda: desk.rooms.unban(HOST, "ann", ROOM))


def test_a_ban_from_everywhere(desk: Desk) -> None:
    desk.rooms.setup(ROOM, HOST, None, UTDSeatMode.REQUEST, None)
    desk.rooms.request(ROOM, "bob")
    changed, ban = desk.rooms.ban(HOST, "bob", None, None, None)
    assert [done.room.name for done in changed] == [ROOM, "s"]
    assert all(done.removed == ("bob",) for done in changed)
    assert not desk.room.requests
    assert not desk.rooms.get("s").hands
    assert ban.room_name is None
    assert ban.expires_at is None
    for room in (ROOM, "s", "any other", None):
        refused(desk, 403, "banned", lambda room=room: desk.rooms.check_ban("bob", room))  # type: ignore[misc]
    refused(desk, 404, "not_banned", lambda: desk.rooms.unban(HOST, "bob", ROOM))
    assert desk.rooms.unban(HOST, "bob", None) == ban
    assert desk.enter("bob", AUDIO).answer == {"role": "audience"}


@pytest.mark.parametrize(("actor", "target", "room", "status", "code"), [
    ("bob", "ann", ROOM, 403, "not_moderator"),
    ("bob", "ann", None, 403, "not_moderator"),
    (ADMIN, "ann", None, 403, "not_moderator"),
    (ADMIN, HOST, ROOM, 403, "not_on_host"),
    (None, HOST, ROOM, 403, "not_on_host"),
    ("other", HOST, None, 403, "not_on_host"),
    (HOST, "ann", "nowhere", 404, "not_found"),
])  # fmt: skip
def test_who_bans_whom(desk: Desk, actor: str | None, target: str, room: str | None, status: int, code: str) -> None:
    desk.enter("other", STREAM, room="others", claims_host=True)
    refused(desk, status, code, lambda: desk.rooms.ban(actor, target, room, None, None))


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), 1e12])
def test_how_long_a_ban_can_be(desk: Desk, duration: float) -> None:
    refused(desk, 422, "validation", lambda: desk.rooms.ban(HOST, "ann", ROOM, None, duration))


def test_a_backend_bans_anybody_from_everywhere(desk: Desk) -> None:
    changed, _ = desk.rooms.ban(None, HOST, None, "fraud", None)
    assert len(changed) == 2
    refused(desk, 403, "banned", lambda: desk.enter(HOST, AUDIO))


def test_a_ban_again_takes_the_place_of_the_first(desk: Desk) -> None:
    desk.rooms.ban(HOST, "ann", ROOM, "once", 5)
    desk.rooms.ban(HOST, "ann", ROOM, "twice", None)
    rows, total = desk.rooms.bans(HOST, ROOM, 1, 20)
    assert total == 1
    assert rows[0].reason == "twice"
    assert rows[0].expires_at is None


def test_pages_of_bans(desk: Desk) -> None:
    desk.enter("other", STREAM, room="others", claims_host=True)
    for number in range(5):
        desk.rooms.ban(HOST, f"u{number}", ROOM, None, None)
    desk.rooms.ban("other", "v", "others", None, None)
    desk.rooms.ban(None, "w", None, None, None)
    rows, total = desk.rooms.bans(ADMIN, ROOM, 2, 2)
    assert total == 5
    assert [row.identity for row in rows] == ["u2", "u1"]
    rows, total = desk.rooms.bans("other", None, 1, 20)
    assert total == 2
    assert [row.identity for row in rows] == ["w", "v"]
    assert desk.rooms.bans(None, None, 1, 3)[1] == 7
    refused(desk, 403, "not_moderator", lambda: desk.rooms.bans("ann", ROOM, 1, 20))
    refused(desk, 403, "not_moderator", lambda: desk.rooms.bans("ann", None, 1, 20))
    refused(desk, 403, "not_moderator", lambda: desk.rooms.unban("ann", "u1", ROOM))
