"""Races of a call, each forced by a gate; failures and interruptions. Every end is agreed on.

The order of things is decided by the test, never by a clock: a verb waits at a gate until the test lets it go.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDStateError,
)
from utd_fsm.models import UTDCallStatus, UTDConnectionState
from utd_fsm.room import LeaveReason

from .call_world import ACTIVE, ENDED, PATIENCE, World, begin, do, in_room, over, until

# --------------------------------------------------------------------------------------------------------------- races


async def test_accept_against_cancel_the_cancel_first(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    gate = world.bob.hold("accept")
    accepting = begin(callee.accept, call_id)
    await world.bob.arrived["accept"].wait()
    await do(caller.end)
    gate.set()
    with pytest.raises(UTDStateError) as caught:
        await accepting
    assert caught.value.state == "ended"
    assert caught.value.call_id == call_id
    assert (await over(callee)).end_reason == "caller_cancelled"
    assert caller.end_reason == "caller_cancelled"


async def test_accept_against_cancel_the_accept_first(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    gate = world.alice.hold("end")
    ending = begin(caller.end)
    await world.alice.arrived["end"].wait()
    accepting = begin(callee.accept, call_id)
    await until(callee, ACTIVE)
    gate.set()
    await ending
    assert (await over(caller)).status is ENDED
    assert (await over(callee)).status is ENDED
    assert caller.end_reason == callee.end_reason == "caller_hangup"
    await asyncio.gather(accepting, return_exceptions=True)
    assert world.engine.truth(call_id).status is ENDED


async def test_accept_against_the_ring_timeout(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    gate = world.bob.hold("accept")
    accepting = begin(callee.accept, call_id)
    await world.bob.arrived["accept"].wait()
    world.engine.pushing = False  # the callee's device has not heard of it yet
    world.engine.by_itself(lambda: world.engine.calls.ring_timeout(call_id))
    gate.set()
    with pytest.raises(UTDStateError) as caught:
        await accepting
    assert caught.value.state == "missed"
    assert callee.status.value is UTDCallStatus.MISSED
    world.engine.push(world.engine.truth(call_id))
    assert await caller.wait_for_answer() is UTDCallStatus.MISSED


async def test_both_hang_up_at_once(world: World) -> None:
    caller, callee, call_id = await world.talking()
    a, b = world.alice.hold("end"), world.bob.hold("end")
    endings = begin(caller.end), begin(callee.end)
    await world.alice.arrived["end"].wait()
    await world.bob.arrived["end"].wait()
    a.set()
    b.set()
    await asyncio.gather(*endings)
    truth = world.engine.truth(call_id)
    assert truth.status is ENDED
    assert caller.end_reason == callee.end_reason == truth.end_reason


async def test_two_devices_accept_one_wins_and_the_other_is_told(world: World) -> None:
    caller, first, call_id = await world.ringing()
    second = world.session(world.bob2)
    await do(second.ringing, call_id)
    a, b = world.bob.hold("accept"), world.bob2.hold("accept")
    accepting = begin(first.accept, call_id), begin(second.accept, call_id)
    await world.bob.arrived["accept"].wait()
    await world.bob2.arrived["accept"].wait()
    b.set()
    await until(second, ACTIVE)
    a.set()
    with pytest.raises(UTDStateError) as caught:
        await accepting[0]
    assert caught.value.state == "answered_elsewhere"
    assert (await accepting[1]).status is ACTIVE
    assert first.status.value is ENDED
    assert first.end_reason == "answered_elsewhere"
    assert await caller.wait_for_answer() is ACTIVE
    assert world.engine.truth(call_id).answered_by == "b2"


async def test_the_other_devices_decline_does_not_undo_an_answer(world: World) -> None:
    caller, first, call_id = await world.ringing()
    second = world.session(world.bob2)
    await do(second.ringing, call_id)
    gate = world.bob2.hold("reject")
    declining = begin(second.reject, call_id)
    await world.bob2.arrived["reject"].wait()
    await do(first.accept, call_id)
    gate.set()
    await declining
    assert world.engine.truth(call_id).status is ACTIVE
    assert second.end_reason == "answered_elsewhere"
    assert caller.status.value is ACTIVE


async def test_hanging_up_while_the_call_is_being_created(world: World) -> None:
    caller = world.session(world.alice)
    gate = world.alice.hold("create")
    starting = begin(caller.start, "bob")
    await world.alice.arrived["create"].wait()
    ending = begin(caller.end)
    with pytest.raises(UTDStateError):
        await starting
    gate.set()
    await ending
    assert world.engine.open_calls() == []
    assert caller.status.value is ENDED


@pytest.mark.parametrize("verb", ["create", "accept", "end", "ring", "reject"])
async def test_an_answer_is_lost_after_the_engine_applied_it(world: World, verb: str) -> None:
    caller, callee = world.session(world.alice), world.session(world.bob)
    world.alice.lose_answer = {"create"} if verb == "create" else set()
    if verb == "create":
        with pytest.raises(UTDConnectionError):
            await do(caller.start, "bob")
        await over(caller)
        assert world.engine.open_calls() == []
        return
    call = await do(caller.start, "bob")
    world.bob.lose_answer = {verb} if verb in ("accept", "ring", "reject") else set()
    world.alice.lose_answer = {"end"} if verb == "end" else set()
    if verb == "accept":
        with pytest.raises(UTDConnectionError):
            await do(callee.accept, call.call_id)  # all or nothing: what was won is given back
    elif verb == "ring":
        with pytest.raises(UTDConnectionError):
            await do(callee.ringing, call.call_id)
        await do(callee.accept, call.call_id)
        await until(caller, ACTIVE)
        await do(caller.end)
    elif verb == "reject":
        assert (await do(callee.reject, call.call_id)).status is UTDCallStatus.REJECTED
    else:
        assert (await do(caller.end)).status is ENDED
    final = await over(caller)
    truth = world.engine.truth(call.call_id)
    assert truth.status.is_terminal
    assert final.status is truth.status
    if verb != "end":
        assert (await over(callee)).status is truth.status


async def test_a_request_is_lost_on_its_way(world: World) -> None:
    caller, callee = world.session(world.alice), world.session(world.bob)
    world.alice.lose_request = {"create"}
    with pytest.raises(UTDConnectionError):
        await do(caller.start, "bob")
    async with asyncio.timeout(PATIENCE):
        call = await do(caller.start, "bob")  # waits until the first is settled, and then is a new call
    world.bob.lose_request = {"reject"}
    assert (await do(callee.reject, call.call_id)).status is UTDCallStatus.REJECTED


async def test_a_contradiction_is_looked_at_and_never_believed(world: World) -> None:
    """A record that claims to be newer and says that an active call rings."""
    caller, _, call_id = await world.talking()
    truth = world.engine.truth(call_id)
    world.alice.sent.clear()
    for watcher in world.engine.watchers[call_id]:
        watcher(replace(truth, status=UTDCallStatus.RINGING, version=(truth.version or 0) + 100))
    async with asyncio.timeout(PATIENCE):
        while "look" not in world.alice.sent:
            await asyncio.sleep(0.001)
    assert caller.status.value is ACTIVE


async def test_old_news_and_repeated_news_change_nothing(world: World) -> None:
    caller, callee = world.session(world.alice), world.session(world.bob)
    call = await do(caller.start, "bob")
    history = [world.engine.truth(call.call_id)]
    for verb in (callee.ringing, callee.accept):
        await do(verb, call.call_id)
        history.append(world.engine.truth(call.call_id))
    await until(caller, ACTIVE)
    for record in [*history, *reversed(history)] * 2:
        world.engine.push(record)
        assert caller.status.value is ACTIVE
        assert callee.status.value is ACTIVE


# --------------------------------------------------------------------------------------------- failures, interruptions


async def test_start_is_all_or_nothing_when_the_room_cannot_be_joined(world: World) -> None:
    caller = world.session(world.alice)
    world.engine.media.refuse_next(*[UTDConnectionError("the media server is away")] * 3)
    with pytest.raises(UTDConnectionError) as caught:
        await do(caller.start, "bob")
    assert caught.value.call_id is not None
    final = await over(caller)
    assert final.status is ENDED
    assert world.engine.truth(caught.value.call_id).status is ENDED
    assert in_room(world, caught.value.call_id) == set()


async def test_an_interrupted_start_ends_the_call(world: World) -> None:
    caller = world.session(world.alice)
    world.engine.media.joining.clear()
    starting = begin(caller.start, "bob")
    await until(caller, UTDCallStatus.INITIATING)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    final = await over(caller)
    assert final.end_reason == "caller_cancelled"
    world.engine.media.joining.set()


async def test_an_interrupted_accept_gives_the_call_back(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    gate = world.bob.hold("accept")
    accepting = begin(callee.accept, call_id)
    await world.bob.arrived["accept"].wait()
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    gate.set()
    await over(callee)
    assert (await over(caller)).status.is_terminal
    assert world.engine.truth(call_id).status.is_terminal


async def test_the_other_side_hangs_up_while_the_room_is_being_joined(world: World) -> None:
    caller, callee = world.session(world.alice), world.session(world.bob)
    world.engine.media.joining.clear()
    starting = begin(caller.start, "bob")
    await until(caller, UTDCallStatus.INITIATING)
    assert caller.call_id.value is not None
    await do(callee.reject, caller.call_id.value)
    record = await starting  # no error: look at the status
    assert record.status is UTDCallStatus.REJECTED
    world.engine.media.joining.set()


async def test_end_overtakes_start(world: World) -> None:
    caller = world.session(world.alice)
    world.engine.media.joining.clear()
    starting = begin(caller.start, "bob")
    await until(caller, UTDCallStatus.INITIATING)
    ended = await do(caller.end)
    assert ended.status is ENDED
    with pytest.raises(UTDStateError):
        await starting
    world.engine.media.joining.set()
    assert world.engine.open_calls() == []


async def test_dispose_overtakes_start(world: World) -> None:
    caller = world.session(world.alice)
    world.engine.media.joining.clear()
    starting = begin(caller.start, "bob")
    await until(caller, UTDCallStatus.INITIATING)
    await do(caller.dispose)
    with pytest.raises(UTDClosedError):
        await starting
    world.engine.media.joining.set()
    assert world.engine.open_calls() == []
    with pytest.raises(UTDClosedError):
        await do(caller.start, "bob")


async def test_nobody_can_be_asked_for_a_minute(world: World) -> None:
    caller, _, call_id = await world.talking()
    world.engine.unreachable = True
    await do(caller.end)
    assert caller.status.value is ENDED
    assert caller.end_reason == "unreachable"
    world.engine.unreachable = False
    assert world.engine.truth(call_id).status is ACTIVE  # what the engine does is its own affair


async def test_the_engine_comes_back_in_time_and_is_told(world: World) -> None:
    caller, callee, _ = await world.talking()
    world.engine.unreachable = True
    ending = begin(caller.end)
    await asyncio.sleep(0.05)
    world.engine.unreachable = False
    assert (await ending).end_reason == "caller_hangup"
    await over(callee)


async def test_media_lost_for_good_ends_the_call(world: World) -> None:
    caller, callee, call_id = await world.talking()
    world.engine.media.remove(call_id, "alice")
    final = await over(caller)
    assert final.end_reason == "connection_lost"
    assert world.engine.truth(call_id).status is ENDED
    await over(callee)


async def test_a_deleted_room_is_first_a_look_at_the_record(world: World) -> None:
    """The engine deletes the room of a finished call: FORCE_EXIT must not flash up before ENDED."""
    caller, callee, call_id = await world.talking()
    world.engine.pushing = False
    states: list[str] = []
    record = caller.connection.set

    def note(value: UTDConnectionState, **extra: Any) -> bool:
        states.append(value.value)
        return record(value, **extra)

    caller.connection.set = note  # type: ignore[method-assign]
    await do(callee.end)
    assert (await over(caller)).end_reason == "callee_hangup"
    assert "force_exit" not in states
    assert LeaveReason.ROOM_DELETED.is_final
    assert in_room(world, call_id) == set()


async def test_a_dead_link_comes_back_and_the_call_goes_on(world: World) -> None:
    caller, callee, call_id = await world.talking()
    media = world.engine.media
    media.cut(call_id, "alice")
    async with asyncio.timeout(PATIENCE):
        while caller.connection.value == "connected":
            await asyncio.sleep(0.001)
    media.mend(call_id, "alice")
    async with asyncio.timeout(PATIENCE):
        while caller.connection.value != "connected":
            await asyncio.sleep(0.001)
    assert caller.status.value is ACTIVE
    assert callee.status.value is ACTIVE
    await do(caller.end)
    await over(callee)
