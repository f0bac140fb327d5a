"""The call session on rooms in memory and the engine's own rules: the plain way, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from utd_fsm.errors import (
    UTDClosedError,
    UTDConflictError,
    UTDForbiddenError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.media import AudioFrames
from utd_fsm.models import UTDCall, UTDCallStatus, UTDTrackSource

from .call_world import ACTIVE, ENDED, PATIENCE, World, begin, do, in_room, over, until

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
