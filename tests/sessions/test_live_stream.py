"""Live streams on rooms in memory, with the engine's own rules: host, viewers, stage and hands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
)
from utd_fsm.models import UTDConnectionState
from utd_fsm.room_models import UTDBroadcast
from utd_fsm.sessions.live_stream import LiveStreamSession

from .room_world import RoomWorld, begin, do, until

WAITING, LIVE, AWAY, ENDED = UTDBroadcast.WAITING, UTDBroadcast.LIVE, UTDBroadcast.HOST_AWAY, UTDBroadcast.ENDED
SOUND, SIGHT = ("host", "microphone"), ("host", "camera")


def names(rows: Any) -> list[str]:
    return [row.identity for row in rows]


def state(session: LiveStreamSession) -> str:
    assert session._standing is not None
    return session._standing.state


def source(session: LiveStreamSession, which: str = "microphone") -> str:
    return next(session._sources[one].state for one in session._sources._drivers if one == which)


async def on_stage(rooms: RoomWorld, who: str = "ann") -> tuple[LiveStreamSession, LiveStreamSession]:
    """A live host, and a viewer on stage whose microphone is on."""
    host = await rooms.stream("host", as_host=True)
    viewer = await rooms.stream(who)
    await do(host.go_live)
    await do(host.invite_to_stage, who)
    await until(lambda: viewer.can_publish.value and state(viewer) == "on_stage")
    await do(viewer.set_microphone, True)
    return host, viewer


# ---------------------------------------------------------------------------------------------------------- the whole


async def test_an_evening(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    bob = await rooms.stream("bob")
    assert host.is_host
    assert not ann.is_host
    await do(host.go_live)
    assert host.broadcast.value == LIVE
    await until(lambda: ann.broadcast.value == LIVE and rooms.heard_by(ann) == {SOUND, SIGHT})
    await do(ann.request_stage)
    assert names(ann.hands.value) == ["ann"]
    await until(lambda: names(host.hands.value) == ["ann"])
    await do(host.invite_to_stage, "ann")
    assert names(host.stage.value) == ["ann"]
    assert host.hands.value == ()
    await until(lambda: ann.can_publish.value)
    assert source(ann) == "off", "being brought on stage switches nothing on"
    await do(ann.set_microphone, True)
    await until(lambda: ("ann", "microphone") in rooms.heard_by(bob))
    await do(host.remove_from_stage, "ann")
    await until(lambda: ("ann", "microphone") not in rooms.heard_by(bob))
    await until(lambda: ann.stage.value == () and source(ann) == "off")
    await do(host.end_live)
    assert host.broadcast.value == ENDED
    assert source(host) == "off"
    for viewer in (ann, bob):
        assert await viewer.wait_until_ended() is ENDED


# ----------------------------------------------------------------------------------------------------------- the host


async def test_a_viewer_cannot_go_live_and_nothing_is_sent(rooms: RoomWorld) -> None:
    await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann", as_host=True)  # the claim is clamped
    assert not ann.is_host
    sent = list(rooms.person("ann").sent)
    for verb in (ann.go_live, ann.end_live):
        with pytest.raises(UTDPermissionError, match="only the host"):
            await do(verb)
    for moderate in (ann.invite_to_stage, ann.remove_from_stage):
        with pytest.raises(UTDPermissionError, match="only the host and admins"):
            await do(moderate, "bob")
    with pytest.raises(UTDInputError):
        await do(ann.invite_to_stage, "")
    with pytest.raises(UTDInputError):
        await do(ann.go_live, "yes")
    assert rooms.person("ann").sent == sent
    assert source(ann) == "off"


async def test_going_live_publishes_first(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    gate = rooms.person("host").hold("live_start")
    going = begin(host.go_live, False)
    await rooms.person("host").arrived["live_start"].wait()
    assert (source(host), source(host, "camera")) == ("on", "off")
    assert host.broadcast.value is WAITING
    gate.set()
    await going
    assert host.broadcast.value is LIVE
    await do(host.go_live)  # idempotent; now with the camera
    assert source(host, "camera") == "on"
    assert rooms.engine.truth().live is LIVE


async def test_going_live_is_all_or_nothing(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    person = rooms.person("host")
    person.lose_request.add("live_start")
    with pytest.raises(UTDConnectionError):
        await do(host.go_live)
    await until(lambda: source(host) == source(host, "camera") == "off")
    assert host.broadcast.value is WAITING
    gate = person.hold("live_start")
    going = begin(host.go_live)
    await person.arrived["live_start"].wait()
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    del person.gates["live_start"]
    gate.set()
    await until(lambda: source(host) == source(host, "camera") == "off")
    assert rooms.engine.truth().live is WAITING


async def test_a_start_whose_answer_was_lost_shows_as_what_it_is(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    rooms.person("host").lose_answer.add("live_start")
    with pytest.raises(UTDConnectionError) as caught:
        await do(host.go_live)
    assert not caught.value.outcome_known
    await until(lambda: host.broadcast.value is LIVE and source(host) == "off")
    await do(host.end_live)
    assert rooms.engine.truth().live is ENDED


@pytest.mark.parametrize("applied", [False, True])
async def test_a_second_start_that_fails_is_ended_unless_the_engine_took_it(rooms: RoomWorld, applied: bool) -> None:
    host = await rooms.stream("host", as_host=True)
    await do(host.go_live)
    await do(host.end_live)
    person = rooms.person("host")
    (person.lose_answer if applied else person.lose_request).add("live_start")
    rooms.engine.telling = False
    with pytest.raises(UTDConnectionError):
        await do(host.go_live)
    assert host.broadcast.value is ENDED
    rooms.engine.telling = True
    rooms.engine.tell()
    await rooms.engine.media.settled()
    assert host.broadcast.value is (LIVE if applied else ENDED)
    await do(host.go_live)
    assert (host.broadcast.value, source(host)) == (LIVE, "on")


async def test_a_failed_start_leaves_on_what_was_on(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    await do(host.set_microphone, True)
    rooms.engine.unreachable = True
    with pytest.raises(UTDConnectionError):
        await do(host.go_live)
    assert source(host) == "on"
    await until(lambda: source(host, "camera") == "off")


async def test_going_live_waits_for_the_link(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    await do(host.set_microphone, True)
    rooms.engine.media.cut("room", "host")
    await until(lambda: host.connection.value is UTDConnectionState.RECONNECTING)
    going = begin(host.go_live, False)
    await asyncio.sleep(0.02)
    assert "live_start" not in rooms.person("host").sent
    rooms.engine.media.mend("room", "host")
    await going
    assert host.broadcast.value is LIVE


async def test_the_end_is_told_to_all_and_is_idempotent(rooms: RoomWorld) -> None:
    rooms.engine.keeps_live = False
    host, ann = await on_stage(rooms)
    await do(host.end_live)
    await until(lambda: ann.broadcast.value is ENDED and source(ann) == "off")
    await do(host.end_live)
    assert rooms.person("host").sent.count("live_end") == 1
    with pytest.raises(UTDStateError, match="ended"):
        await do(ann.set_microphone, True)


async def test_an_end_that_fails_changes_nothing(rooms: RoomWorld) -> None:
    host, ann = await on_stage(rooms)
    rooms.person("host").lose_request.add("live_end")
    with pytest.raises(UTDConnectionError):
        await do(host.end_live)
    assert (host.broadcast.value, source(host), ann.broadcast.value) == (LIVE, "on", LIVE)
    await do(host.end_live)
    assert host.broadcast.value == ENDED


async def test_a_start_given_up_on_is_not_applied_after_the_end(rooms: RoomWorld) -> None:
    """A ghost: it is still on its way when newer requests were answered."""
    host = await rooms.stream("host", as_host=True)
    person = rooms.person("host")
    ghosts: list[Any] = []
    carry = person.carry

    async def give_up(verb: str, request: Any) -> Any:
        if verb == "live_start" and not ghosts:
            ghosts.append(request)
            raise UTDConnectionError("gone", outcome_known=False)
        return await carry(verb, request)

    person.carry = give_up  # type: ignore[method-assign]
    with pytest.raises(UTDConnectionError):
        await do(host.go_live)
    await until(lambda: "stage" in person.sent)  # the look that seals it
    await rooms.engine.media.settled()
    with pytest.raises(UTDEngineError, match="newer"):
        ghosts[0]()
    assert rooms.engine.truth().live is WAITING


@pytest.mark.parametrize("failed", [False, True])
async def test_leaving_a_with(rooms: RoomWorld, failed: bool) -> None:
    host, ann = await on_stage(rooms)
    await host.leave_with(failed)
    await until(lambda: rooms.engine.truth().live is (AWAY if failed else ENDED))
    await until(lambda: ann.broadcast.value is (AWAY if failed else ENDED))
    with pytest.raises(UTDClosedError):
        await do(host.go_live)


async def test_leaving_a_with_before_it_has_begun_says_nothing(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    await host.leave_with(False)
    assert "live_end" not in rooms.person("host").sent


async def test_an_admin_moderates_and_does_not_publish(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann, bob = await rooms.stream("ann"), await rooms.stream("bob")
    await do(host.promote, "ann")
    await until(lambda: ann.role == "admin")
    with pytest.raises(UTDPermissionError):
        await do(ann.set_microphone, True)
    await do(ann.invite_to_stage, "bob")
    await until(lambda: state(bob) == "on_stage")
    for verb, who in ((ann.remove_from_stage, "host"), (host.invite_to_stage, "host")):
        with pytest.raises((UTDPermissionError, UTDStateError), match="host"):
            await do(verb, who)
    await do(ann.remove_from_stage, "bob")
    assert ann.stage.value == ()
    with pytest.raises(UTDStateError):  # the engine's 409
        await do(ann.remove_from_stage, "bob")


# --------------------------------------------------------------------------------------------------------- the viewer


async def test_what_a_viewer_may_ask_and_when(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    for verb in (ann.lower_hand, ann.leave_stage):
        with pytest.raises(UTDStateError, match="audience"):
            await do(verb)
    await do(ann.request_stage)
    with pytest.raises(UTDStateError, match="the hand is up") as caught:
        await do(ann.request_stage)
    assert caught.value.allowed == ("lower_hand",)
    await do(ann.lower_hand)
    assert ann.hands.value == ()
    assert rooms.engine.truth().hands == []
    for verb in (host.request_stage, host.lower_hand, host.leave_stage):
        with pytest.raises(UTDStateError, match="always on stage"):
            await do(verb)
    await do(ann.leave)
    out: tuple[Any, ...] = (ann.request_stage, ann.go_live, ann.refresh_stage)
    for one in out:
        with pytest.raises(UTDStateError, match="not in the room"):
            await do(one)


async def test_stepping_down_stops_the_sources_before_the_engine_answers(rooms: RoomWorld) -> None:
    _, ann = await on_stage(rooms)
    gate = rooms.person("ann").hold("stage_leave")
    leaving = begin(ann.leave_stage)
    await rooms.person("ann").arrived["stage_leave"].wait()
    await until(lambda: source(ann) == "off")
    assert rooms.engine.truth().is_on_stage("ann")
    gate.set()
    await leaving
    assert (state(ann), ann.stage.value) == ("audience", ())


async def test_a_step_down_that_fails_is_on_stage_again_with_the_sources_off(rooms: RoomWorld) -> None:
    _, ann = await on_stage(rooms)
    rooms.person("ann").lose_request.add("stage_leave")
    with pytest.raises(UTDConnectionError):
        await do(ann.leave_stage)
    await until(lambda: state(ann) == "on_stage")
    await until(lambda: source(ann) == "off")
    await do(ann.set_microphone, True)
    assert source(ann) == "on"


async def test_taken_off_the_stage_while_it_waits_for_the_grant(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    rooms.engine.granting = False
    await do(host.invite_to_stage, "ann")
    await until(lambda: state(ann) == "on_stage")
    waiting = begin(ann.set_microphone, True)
    await until(lambda: source(ann) == "waiting")
    await do(host.remove_from_stage, "ann")
    with pytest.raises(UTDPermissionError, match="stage"):
        await waiting
    rooms.engine.grant_all()


async def test_who_is_not_on_stage_is_refused_at_once(rooms: RoomWorld) -> None:
    await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    with pytest.raises(UTDPermissionError):
        await do(ann.set_microphone, True)


@pytest.mark.parametrize("verb", ["leave", "dispose"])
async def test_leaving_tells_the_engine_of_stage_and_hand(rooms: RoomWorld, verb: str) -> None:
    host, ann = await on_stage(rooms)
    bob = await rooms.stream("bob")
    await do(bob.request_stage)
    await asyncio.gather(do(getattr(ann, verb)), do(getattr(bob, verb)))
    assert (rooms.engine.truth().stage, rooms.engine.truth().hands) == ([], [])
    await until(lambda: host.stage.value == () and host.hands.value == ())
    assert ann.stage.value == ()


async def test_whoever_leaves_before_it_hears_that_it_is_on_stage_is_not(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    await do(ann.request_stage)
    rooms.engine.telling = False
    await do(host.invite_to_stage, "ann")
    await do(ann.leave)
    assert rooms.engine.truth().involved() == frozenset()


async def test_leaving_with_a_request_under_way_leaves_no_hand(rooms: RoomWorld) -> None:
    await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    person = rooms.person("ann")
    gate = person.hold("stage_request")
    asking = begin(ann.request_stage)
    await person.arrived["stage_request"].wait()
    await do(ann.leave)
    with pytest.raises(UTDStateError, match="overtaken"):
        await asking
    gate.set()
    assert rooms.engine.truth().hands == []


async def test_a_goodbye_that_comes_late_does_not_take_the_next_stay_down(rooms: RoomWorld) -> None:
    host, ann = await on_stage(rooms)
    person = rooms.person("ann")
    late: list[Any] = []
    carry = person.carry

    async def keep(verb: str, request: Any) -> Any:
        if verb == "stage_leave" and not late:
            late.append(request)
            raise UTDConnectionError("gone", outcome_known=False)
        return await carry(verb, request)

    person.carry = keep  # type: ignore[method-assign]
    await do(ann.leave)
    rooms.engine.gone("ann")
    await do(ann.join)
    await do(ann.request_stage)
    await do(host.invite_to_stage, "ann")
    await until(lambda: state(ann) == "on_stage")
    with pytest.raises(UTDEngineError, match="newer"):
        late[0]()
    assert rooms.engine.truth().is_on_stage("ann")


# ---------------------------------------------------------------------------------------------------- coming back


async def test_whoever_is_on_stage_speaks_again_and_nobody_else(rooms: RoomWorld) -> None:
    host, ann = await on_stage(rooms)
    bob, eve = await rooms.stream("bob"), await rooms.stream("eve")
    await do(host.invite_to_stage, "bob")
    await until(lambda: bob.can_publish.value and state(bob) == "on_stage")
    await do(bob.set_microphone, True)
    rooms.engine.media.joining.clear()
    for who in ("ann", "bob"):
        rooms.engine.media.lose("room", who)
    await until(lambda: all(one.connection.value == "reconnecting" for one in (ann, bob)))
    await do(host.remove_from_stage, "bob")  # while it was out
    rooms.engine.media.joining.set()
    await until(lambda: ann.connected.value and bob.connected.value)
    await until(lambda: ("ann", "microphone") in rooms.heard_by(eve))
    assert (source(ann), source(bob), source(eve)) == ("on", "off", "off")
    assert ("bob", "microphone") not in rooms.heard_by(eve)
    assert (state(ann), state(bob)) == ("on_stage", "audience")


@pytest.mark.parametrize("forget", [False, True])
async def test_after_a_media_restart_the_stage_speaks_again(rooms: RoomWorld, forget: bool) -> None:
    rooms.timing = replace(rooms.timing, first_reading=2.0)
    host, ann = await on_stage(rooms)
    bob = await rooms.stream("bob")
    rooms.engine.media.stop()
    await until(lambda: ann.connection.value == bob.connection.value == "reconnecting")
    rooms.engine.media.start(forget_grants=forget)
    rooms.engine.put_right()
    await until(lambda: host.connected.value and ann.connected.value and bob.connected.value)
    await until(lambda: {SOUND, SIGHT, ("ann", "microphone")} <= rooms.heard_by(bob))
    assert (host.broadcast.value, state(ann), source(bob)) == (LIVE, "on_stage", "off")
