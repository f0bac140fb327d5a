"""The call session on rooms in memory and the engine's own rules: every race forced by a gate, every end agreed on.

The order of things is decided by the test, never by a clock: a verb waits at a gate until the test lets it go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from utd_fsm.errors import (
    UTDClosedError,
    UTDConflictError,
    UTDConnectionError,
    UTDForbiddenError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.media import AudioFrames
from utd_fsm.models import UTDCall, UTDCallStatus, UTDConnectionState, UTDStreamType, UTDTrackSource
from utd_fsm.room import LeaveReason
from utd_fsm.sessions.call import CallSession
from utd_fsm.sessions.call_driver import CallTiming

from .conftest import SHORT
from .memory_engine import Device, MemoryEngine
from .scripted import LoopPortal

PATIENCE = 20.0
QUICK = CallTiming(out_of_reach=0.3, retry_first=0.01, retry_most=0.05)
ACTIVE, ENDED = UTDCallStatus.ACTIVE, UTDCallStatus.ENDED


class World:
    """One engine, a caller, and two devices of a callee."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.sessions: list[CallSession] = []
        self.alice = self.engine.device("alice", "a1")
        self.bob = self.engine.device("bob", "b1")
        self.bob2 = self.engine.device("bob", "b2")

    def session(self, device: Device, kind: UTDStreamType = UTDStreamType.AUDIO_CALL) -> CallSession:
        made = CallSession(
            kind,
            engine=device,
            watch=device.watch,
            call_timing=QUICK,
            identity=device.identity,
            room_factory=self.engine.media.room_factory,
            timing=SHORT,
            portal_=LoopPortal(),
        )
        self.sessions.append(made)
        return made

    async def ringing(self) -> tuple[CallSession, CallSession, str]:
        """A call that rings: caller, callee, id."""
        caller, callee = self.session(self.alice), self.session(self.bob)
        call = await do(caller.start, "bob")
        await do(callee.ringing, call.call_id)
        return caller, callee, call.call_id

    async def talking(self) -> tuple[CallSession, CallSession, str]:
        """A call that was answered."""
        caller, callee, call_id = await self.ringing()
        await do(callee.accept, call_id)
        await until(caller, ACTIVE)
        return caller, callee, call_id

    async def close(self) -> None:
        for session in self.sessions:
            await do(session.dispose)
        self.engine.close()


async def do(method: Any, *args: Any, **kwargs: Any) -> Any:
    """A verb, in its turn, as a facade calls it."""
    async with asyncio.timeout(PATIENCE):
        return await method.__self__.perform(method, *args, **kwargs)


def begin(method: Any, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """A verb that goes on while the test does something else."""
    return asyncio.create_task(do(method, *args, **kwargs))


async def until(session: CallSession, status: UTDCallStatus) -> None:
    async with asyncio.timeout(PATIENCE):
        while session.status.value is not status:
            await asyncio.sleep(0.001)


async def over(session: CallSession) -> UTDCall:
    async with asyncio.timeout(PATIENCE):
        return await session.wait_until_ended()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


def in_room(world: World, call_id: str) -> set[str]:
    room = world.engine.media.rooms.get(call_id)
    return set(room.seats) if room else set()


# ------------------------------------------------------------------------------------------------------- the plain way


async def test_a_call_from_its_start_to_its_end(world: World) -> None:
    caller, callee, call_id = await world.talking()
    assert in_room(world, call_id) == {"alice", "bob"}
    assert await caller.wait_for_answer() is ACTIVE
    ended = await do(caller.end)
    assert ended.status is ENDED
    assert (await over(callee)).end_reason == "caller_hangup"
    assert caller.end_reason == callee.end_reason == "caller_hangup"
    assert caller.duration is not None
    assert world.engine.truth(call_id).status is ENDED
    assert in_room(world, call_id) == set()


async def test_the_callee_hangs_up(world: World) -> None:
    caller, callee, _ = await world.talking()
    await do(callee.end)
    assert (await over(caller)).end_reason == "callee_hangup"
    assert callee.end_reason == "callee_hangup"


@pytest.mark.parametrize(("verb", "status"), [("reject", UTDCallStatus.REJECTED), ("busy", UTDCallStatus.BUSY)])
async def test_the_callee_declines(world: World, verb: str, status: UTDCallStatus) -> None:
    caller, callee, call_id = await world.ringing()
    record = await do(getattr(callee, verb), call_id)
    assert record.status is status
    assert await caller.wait_for_answer() is status
    assert (await over(caller)).status is status
    assert caller.duration is None


async def test_nobody_answers(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    world.engine.by_itself(lambda: world.engine.calls.ring_timeout(call_id))
    assert await caller.wait_for_answer() is UTDCallStatus.MISSED
    assert (await over(callee)).status is UTDCallStatus.MISSED


async def test_accept_without_ringing_and_by_a_record(world: World) -> None:
    caller, callee = world.session(world.alice), world.session(world.bob)
    call = await do(caller.start, "bob")
    assert (await do(callee.accept, call)).status is ACTIVE


async def test_a_busy_callee_is_a_status_and_no_error(world: World) -> None:
    first, second = world.session(world.engine.device("carol")), world.session(world.alice)
    await do(first.start, "bob")
    record = await do(second.start, "bob")
    assert record.status is UTDCallStatus.BUSY
    assert second.status.value is UTDCallStatus.BUSY
    assert second.call_id.value is None
    assert await second.wait_for_answer() is UTDCallStatus.BUSY
    assert await second.wait_until_ended() == record
    await do(first.end)
    assert (await do(second.start, "bob")).status is UTDCallStatus.INITIATING  # and the session is good for another


async def test_a_caller_who_is_on_a_call_is_refused_and_nothing_changes(world: World) -> None:
    first, second = world.session(world.alice), world.session(world.alice)
    await do(first.start, "bob")
    with pytest.raises(UTDConflictError):
        await do(second.start, "carol")
    assert second.status.value is None
    assert second.call is None


async def test_a_second_call_on_the_same_session(world: World) -> None:
    caller, callee, first = await world.talking()
    await do(caller.end)
    await over(callee)
    call = await do(caller.start, "bob")
    assert call.call_id != first
    assert caller.end_reason is None
    assert caller.duration is None
    await do(callee.accept, call.call_id)
    assert await caller.wait_for_answer() is ACTIVE
    await do(callee.end)
    await over(caller)


async def test_statuses_are_shown_in_order_and_end_once(world: World) -> None:
    caller, callee = world.session(world.alice), world.session(world.bob)
    shown: list[str | None] = []
    record = caller.status.set

    def note(value: UTDCallStatus | None, **extra: Any) -> bool:
        if record(value, **extra):
            shown.append(value.value if value else None)
            return True
        return False

    caller.status.set = note  # type: ignore[method-assign]
    call = await do(caller.start, "bob")
    await do(callee.ringing, call.call_id)
    await do(callee.accept, call.call_id)
    await until(caller, ACTIVE)
    await do(callee.end)
    await over(caller)
    assert shown == ["initiating", "ringing", "active", "ended"]
    assert caller.status.finished


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


# ----------------------------------------------------------------------------------------------------- what is refused


async def test_what_the_state_does_not_allow_changes_nothing(world: World) -> None:
    caller, callee, call_id = await world.talking()
    for method, args in ((caller.start, ("carol",)), (callee.accept, (call_id,)), (callee.reject, (call_id,))):
        with pytest.raises(UTDStateError):
            await do(method, *args)
    for session in (caller, callee):
        assert session.status.value is ACTIVE
    other = world.session(world.engine.device("carol"))
    with pytest.raises(UTDStateError):
        await other.wait_for_answer()
    with pytest.raises(UTDStateError):
        await other.wait_until_ended()
    assert await do(other.end) is None


async def test_end_may_be_called_again_and_again(world: World) -> None:
    caller, callee, _ = await world.talking()
    first = await do(caller.end)
    assert await do(caller.end) == first
    assert (await do(callee.end)).status is ENDED
    await do(caller.leave)


@pytest.mark.parametrize("identity", ["", "a\x00b", "x" * 300, 7, None])
async def test_bad_input_is_refused_before_anything_is_sent(world: World, identity: Any) -> None:
    caller = world.session(world.alice)
    with pytest.raises(UTDInputError):
        await do(caller.start, identity)
    with pytest.raises(UTDInputError):
        await do(caller.accept, identity)
    assert world.alice.sent == []
    assert caller.status.value is None


async def test_a_wait_that_times_out_changes_nothing(world: World) -> None:
    caller, _, _ = await world.ringing()
    with pytest.raises(UTDTimeoutError) as caught:
        await caller.wait_for_answer(timeout=0.01)
    assert caught.value.outcome_known
    assert caller.status.value is UTDCallStatus.RINGING
    for bad in (-1, float("nan"), "soon"):
        with pytest.raises(UTDInputError):
            await caller.wait_for_answer(timeout=bad)  # type: ignore[arg-type]


async def test_a_session_that_only_rang_leaves_the_call_alone(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    await callee.leave_with(failed=False)
    assert world.engine.truth(call_id).status is UTDCallStatus.RINGING
    await do(caller.end)


async def test_leaving_a_with_ends_what_was_started_here(world: World) -> None:
    caller, callee, call_id = await world.talking()
    await caller.leave_with(failed=True)
    assert world.engine.truth(call_id).status is ENDED
    await over(callee)
    assert caller.end_reason == "caller_hangup"


async def test_two_redeliveries_of_one_task_are_one_call(world: World) -> None:
    first, second = world.session(world.alice), world.session(world.alice)
    world.engine.media.joining.clear()  # the first worker dies on its way into the room
    dead = begin(first.start, "bob", idempotency_key="order-17")
    await until(first, UTDCallStatus.INITIATING)
    redelivered = begin(second.start, "bob", idempotency_key="order-17")
    await until(second, UTDCallStatus.INITIATING)
    assert first.call_id.value == second.call_id.value
    assert len(world.engine.open_calls()) == 1
    world.engine.media.joining.set()
    await asyncio.gather(dead, redelivered, return_exceptions=True)


async def test_a_refusal_by_the_engine_is_raised_with_its_status(world: World) -> None:
    caller, _, call_id = await world.ringing()
    stranger = world.session(world.engine.device("mallory"))
    with pytest.raises(UTDStreamException) as caught:
        await do(stranger.accept, call_id)
    assert caught.value.is_forbidden
    assert caller.status.value is UTDCallStatus.RINGING


async def test_a_second_accept_is_refused_and_leaving_still_ends_the_call(world: World) -> None:
    _, callee, call_id = await world.talking()
    with pytest.raises(UTDStateError):
        await do(callee.accept, call_id)
    await callee.leave_with(failed=False)
    assert world.engine.truth(call_id).status is ENDED


async def test_ending_a_call_that_the_engine_never_took_is_no_error(world: World) -> None:
    caller = world.session(world.alice)
    gate = world.alice.hold("create")
    world.alice.lose_request.add("create")
    starting = begin(caller.start, "bob")
    await world.alice.arrived["create"].wait()
    ending = begin(caller.end)
    await asyncio.sleep(0)
    gate.set()
    assert await ending is None
    with pytest.raises(UTDStateError):
        await starting
    assert world.engine.open_calls() == []


async def test_an_engine_that_refuses_every_word_is_not_told_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, callee, call_id = await world.talking()

    async def banned(call_id: str, *, key: str | None = None) -> UTDCall:
        raise UTDForbiddenError("User is banned", 403)

    for verb in ("end", "look"):
        monkeypatch.setattr(world.alice, verb, banned)
    assert (await do(caller.end)).end_reason == caller.end_reason == "unreachable"
    monkeypatch.undo()
    await do(callee.end)
    assert world.engine.truth(call_id).status is ENDED


async def test_a_call_that_is_heard_of_only_when_it_is_over_has_its_duration(world: World) -> None:
    caller, callee, call_id = await world.ringing()
    world.engine.pushing = False
    await do(callee.accept, call_id)
    await do(callee.end)
    world.engine.push(world.engine.truth(call_id))
    assert (await over(caller)).status is ENDED
    assert caller.duration == callee.duration == world.engine.truth(call_id).duration


async def test_a_dispose_that_is_interrupted_tells_who_waits_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, _, _ = await world.talking()
    never = asyncio.Event()
    saying_goodbye = asyncio.Event()

    async def endless() -> None:
        caller._connection.dispose_now()
        saying_goodbye.set()
        await never.wait()

    monkeypatch.setattr(caller._connection, "dispose", endless)
    disposing = begin(caller.dispose)
    await saying_goodbye.wait()
    disposing.cancel()
    monkeypatch.undo()
    await asyncio.gather(disposing, return_exceptions=True)
    assert caller.speakers.finished


async def test_a_start_that_waits_for_a_dispose_calls_nobody(world: World) -> None:
    caller, _, _ = await world.talking()
    gate = world.alice.hold("end")
    disposing = begin(caller.dispose)
    await world.alice.arrived["end"].wait()
    starting = begin(caller.start, "bob")
    await asyncio.sleep(0)
    gate.set()
    await disposing
    with pytest.raises(UTDClosedError):
        await starting
    assert world.alice.sent.count("create") == 1


@pytest.mark.parametrize("verb", ["start", "accept"])
async def test_wherever_a_verb_is_interrupted_no_call_is_left_in_progress(verb: str) -> None:
    """Also in the very step in which it comes home: its caller is told that it was cancelled."""
    for steps in range(45):
        world = World()
        caller, callee, call_id = await world.ringing() if verb == "accept" else (world.session(world.alice), None, "")
        interrupted = begin(caller.start, "bob") if callee is None else begin(callee.accept, call_id)
        for _ in range(steps):
            await asyncio.sleep(0)
        interrupted.cancel()
        await asyncio.wait({interrupted})
        if interrupted.cancelled() or interrupted.exception() is not None:
            allowed = set() if verb == "start" else {UTDCallStatus.RINGING}
            async with asyncio.timeout(PATIENCE):
                while {call.status for call in world.engine.open_calls()} - allowed:
                    await asyncio.sleep(0.001)
        await world.close()


async def test_a_source_that_can_be_read_once_survives_a_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, _, _ = await world.talking()
    await do(caller.set_microphone, False)
    once = AudioFrames((np.zeros((960, 1), dtype=np.int16) for _ in range(100)), 48_000, 1)
    refusal = UTDPermissionError("the seat is muted")
    monkeypatch.setattr(caller._sources[UTDTrackSource.MICROPHONE], "_refusal", lambda: refusal)
    with pytest.raises(UTDPermissionError):
        await do(caller.set_microphone, True, source=once)
    monkeypatch.undo()
    await do(caller.set_microphone, True, source=once)
