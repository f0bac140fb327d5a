"""The stage of a live stream: every verb on every standing, and the stream's own state, against hand-written tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from utd_fsm.local.engine.rooms import entitled, live_of, stage_of
from utd_fsm.local.engine.store import Occupant
from utd_fsm.models import UTDRole, UTDStreamType
from utd_fsm.room_models import UTDBroadcast
from utd_fsm.room_wire import read_live, read_stage

from .room_desk import ADMIN, HOST, ROOM, Desk, must_hold, refused

ILLEGAL = "illegal_transition"
STREAM = UTDStreamType.LIVE_STREAM


@pytest.fixture
def desk() -> Iterator[Desk]:
    """ann watches, bob's hand is up, cyd is on stage."""
    one = Desk()
    one.everybody(STREAM)
    one.rooms.ask(ROOM, "bob")
    one.rooms.add(ROOM, HOST, "cyd")
    yield one
    must_hold(one.room)
    one.store.close()


def standing(desk: Desk, identity: str) -> str:
    stage = stage_of(desk.room)
    assert stage.hands is not None
    if any(one.identity == identity for one in stage.members):
        return "on_stage"
    return "hand_up" if any(one.identity == identity for one in stage.hands) else "audience"


BY_ITSELF = {
    ("ask", "ann"): "hand_up", ("ask", "bob"): None, ("ask", "cyd"): 409, ("ask", HOST): 409,
    ("lower", "ann"): 409, ("lower", "bob"): "audience", ("lower", "cyd"): 409, ("lower", HOST): 409,
    ("step_down", "ann"): 409, ("step_down", "bob"): 409, ("step_down", "cyd"): "audience", ("step_down", HOST): 409,
}  # fmt: skip
BY_MODERATOR = {
    ("add", "ann"): "on_stage", ("add", "bob"): "on_stage", ("add", "cyd"): None, ("add", HOST): 409,
    ("remove", "ann"): 409, ("remove", "bob"): 409, ("remove", "cyd"): "audience", ("remove", HOST): 409,
}  # fmt: skip


@pytest.mark.parametrize(("verb", "who"), [*BY_ITSELF, *BY_MODERATOR])
@pytest.mark.parametrize("actor", [HOST, ADMIN])
def test_every_verb_on_every_standing(desk: Desk, verb: str, who: str, actor: str) -> None:
    wanted = {**BY_ITSELF, **BY_MODERATOR}[verb, who]
    identities = (who,) if (verb, who) in BY_ITSELF else (actor, who)
    version, was = desk.room.version, standing(desk, who)
    if wanted == 409:
        refused(desk, 409, ILLEGAL, lambda: getattr(desk.rooms, verb)(ROOM, *identities))
        return
    done = getattr(desk.rooms, verb)(ROOM, *identities)
    assert standing(desk, who) == (wanted or was)
    assert done.changed is (wanted is not None)
    assert desk.room.version == version + done.changed
    assert read_stage(done.answer, "answer") == stage_of(desk.room)
    hints = [note for note in done.notes if note.kind == "_stage_update"]
    assert len(hints) == done.changed
    assert all(note.to is None for note in hints)
    assert entitled(desk.room, who) is (standing(desk, who) == "on_stage")
    asked = [note for note in done.notes if note.kind == "_stage_request"]
    assert [(dict(note.content), note.to) for note in asked] == (
        [({"identity": "ann", "name": "Ann"}, (HOST, ADMIN))] if (verb, who) == ("ask", "ann") else []
    )


def test_viewers_do_not_add_or_remove(desk: Desk) -> None:
    refused(desk, 403, "not_self", lambda: desk.rooms.add(ROOM, ADMIN, ADMIN))
    refused(desk, 403, "not_moderator", lambda: desk.rooms.add(ROOM, "cyd", "ann"))
    refused(desk, 403, "not_moderator", lambda: desk.rooms.remove(ROOM, "ann", "cyd"))


def test_hands_are_oldest_first_and_named(desk: Desk) -> None:
    desk.clock.forward(5)
    desk.rooms.ask(ROOM, "ann")
    hands = stage_of(desk.room).hands
    assert hands is not None
    assert [(one.identity, one.name) for one in hands] == [("bob", "Bob"), ("ann", "Ann")]
    assert [one.raised_at for one in hands][1] == desk.clock.at
    desk.enter("ann", STREAM, attributes={})
    assert desk.room.hands[1].name == "Ann"


def test_the_role_of_a_member_is_shown(desk: Desk) -> None:
    stage = desk.room.versions["_stage"]
    done = desk.rooms.set_role(ROOM, HOST, "cyd", UTDRole.GUEST)
    assert stage_of(desk.room).members[0].role is UTDRole.GUEST
    assert desk.room.versions["_stage"] > stage
    assert [note.kind for note in done.notes] == ["_stage_update", "_role_change"]
    before = desk.room
    desk.rooms.set_role(ROOM, HOST, "ann", UTDRole.GUEST)  # not on stage: a version, and no part of it
    assert desk.room.version == before.version + 1
    assert desk.room.versions == before.versions


def test_nobody_who_is_banned_is_brought_on(desk: Desk) -> None:
    desk.rooms.ban(HOST, "ann", ROOM, None, None)
    refused(desk, 403, "target_banned", lambda: desk.rooms.add(ROOM, HOST, "ann"))
    refused(desk, 403, "not_moderator", lambda: desk.rooms.add(ROOM, "bob", "ann"))  # that is not bob's to learn


# the stream itself: state, event → state (None: unchanged)
W, L, A, E = UTDBroadcast.WAITING, UTDBroadcast.LIVE, UTDBroadcast.HOST_AWAY, UTDBroadcast.ENDED
BROADCAST = {
    (W, "start_live"): L, (L, "start_live"): None, (A, "start_live"): L, (E, "start_live"): L,
    (W, "end_live"): E, (L, "end_live"): E, (A, "end_live"): E, (E, "end_live"): None,
    (W, "host_away"): None, (L, "host_away"): A, (A, "host_away"): None, (E, "host_away"): None,
    (W, "host_back"): None, (L, "host_back"): None, (A, "host_back"): L, (E, "host_back"): None,
    (W, "live_over"): None, (L, "live_over"): None, (A, "live_over"): E, (E, "live_over"): None,
}  # fmt: skip
PATHS: dict[UTDBroadcast, tuple[str, ...]] = {
    W: (), L: ("start_live",), A: ("start_live", "host_away"), E: ("start_live", "end_live"),
}  # fmt: skip


def send(desk: Desk, event: str, actor: str = HOST) -> object:
    of_host = event in ("start_live", "end_live")
    return getattr(desk.rooms, event)(*((ROOM, actor) if of_host else (ROOM,)))


@pytest.mark.parametrize(("state", "event"), BROADCAST)
def test_the_stream_in_every_state(state: UTDBroadcast, event: str) -> None:
    desk = Desk()
    desk.everybody(STREAM)
    for step in PATHS[state]:
        send(desk, step)
    assert desk.room.live is state
    if state is not E:
        desk.rooms.ask(ROOM, "bob")
        desk.rooms.add(ROOM, ADMIN, "cyd")
    version, wanted = desk.room.version, BROADCAST[state, event]
    done = send(desk, event)
    assert desk.room.live is (wanted or state)
    assert desk.room.version == version + (wanted is not None)
    assert read_live(done.answer, "answer") == read_live(live_of(desk.room), "kept")  # type: ignore[attr-defined]
    if desk.room.live is E:
        assert desk.room.involved() == frozenset()
        assert not entitled(desk.room, "cyd")
        refused(desk, 409, ILLEGAL, lambda: desk.rooms.ask(ROOM, "bob"))
        refused(desk, 409, ILLEGAL, lambda: desk.rooms.add(ROOM, HOST, "bob"))
    elif state is not E:
        assert desk.room.involved() == {"bob", "cyd"}
    must_hold(desk.room)


@pytest.mark.parametrize("actor", [ADMIN, "cyd"])
def test_only_the_host_starts_and_ends(desk: Desk, actor: str) -> None:
    refused(desk, 403, "not_owner", lambda: desk.rooms.start_live(ROOM, actor))
    refused(desk, 403, "not_owner", lambda: desk.rooms.end_live(ROOM, actor))


def test_a_host_that_comes_for_the_next_show_finds_it_waiting(desk: Desk) -> None:
    """Others who are early wait then, instead of seeing the last one end. A host that is still there is not coming."""
    desk.rooms.end_live(ROOM, HOST)
    desk.store.set_occupant(Occupant(ROOM, HOST, "PA_1", 1.0, None))
    desk.enter(HOST, STREAM)
    assert desk.room.live is E
    desk.store.set_occupant(Occupant(ROOM, HOST, "PA_1", 1.0, 2.0))
    desk.enter("bob", STREAM)
    assert desk.room.live is E
    desk.enter(HOST, STREAM)
    assert desk.room.live is W


def test_seats_are_no_business_of_a_stream_nor_a_stage_of_an_audio_room(desk: Desk) -> None:
    refused(desk, 409, "other_type", lambda: desk.rooms.take(ROOM, "ann", 0))
    desk.enter(HOST, UTDStreamType.AUDIO_ROOM, room="seats")
    refused(desk, 409, "other_type", lambda: desk.rooms.ask("seats", "ann"))
    refused(desk, 409, "other_type", lambda: desk.rooms.start_live("seats", HOST))
    refused(desk, 404, "not_found", lambda: desk.rooms.ask("nowhere", "ann"))
    refused(desk, 409, "other_type", lambda: desk.enter("ann", UTDStreamType.AUDIO_ROOM))


def test_whoever_is_gone_is_off_the_stage(desk: Desk) -> None:
    for identity in ("bob", "cyd"):
        assert desk.rooms.gone(ROOM, identity).changed
    assert desk.room.involved() == frozenset()
    assert not desk.rooms.gone(ROOM, HOST).changed
