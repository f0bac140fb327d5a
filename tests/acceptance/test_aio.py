"""api.md, The same, awaitable: each sentence."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

import utd_fsm
from tests.integration.calling import WAIT, fresh, in_thread
from tests.integration.gate_proxy import GateProxy
from utd_fsm import (
    UTDCallStatus,
    UTDClosedError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
    UTDWouldBlockError,
    aio,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
S = UTDCallStatus


def made(engine: LocalEngine, way: GateProxy | None = None) -> aio.UTDStreamClient:
    return aio.UTDStreamClient(engine.app_id, engine.app_key, base_url=way.url if way else engine.base_url)


@pytest.mark.parametrize("name", ["UTDStreamClient", "UTDCallSession", "UTDRoom"])
def test_the_same_members(name: str) -> None:
    def members(kind: type) -> dict[str, Any]:
        return {one: inspect.getattr_static(kind, one) for one in dir(kind) if not one.startswith("_")}

    blocking, awaitable = members(getattr(utd_fsm, name)), members(getattr(aio, name))
    assert set(blocking) == set(awaitable)
    for one, member in blocking.items():
        assert isinstance(member, property) == isinstance(awaitable[one], property), one
        if inspect.isfunction(member):
            assert list(inspect.signature(member).parameters) == list(inspect.signature(awaitable[one]).parameters)


async def test_a_call_and_its_answer(engine: LocalEngine) -> None:
    alice, bob = fresh("alice"), fresh("bob")
    heard = 0

    async def answer(client: aio.UTDStreamClient) -> int:
        nonlocal heard
        count = 0
        async for incoming in client.incoming_calls:
            count += 1
            async with client.call_session(incoming.type, microphone=Tone(440)) as call:
                await call.ringing(incoming)
                await call.accept(incoming)
                async for frame in call.listen(seconds=0.5):
                    heard += len(frame.samples)
                await call.wait_until_ended()
        return count

    async with made(engine) as caller, made(engine) as callee:
        assert await caller.authenticate(alice)
        await callee.authenticate(bob)
        assert (caller.identity, caller.sessions) == (alice, ())
        bot = asyncio.create_task(answer(callee))
        async with caller.call_session("audio_call", microphone=Tone(660)) as call:
            assert call.status.value is None
            seen: list[UTDCallStatus | None] = []

            async def follow() -> None:
                seen.extend([status async for status in call.status.updates()])

            following = asyncio.create_task(follow())
            await asyncio.sleep(0)
            record = await call.start(bob)
            assert record.call_id == call.call_id.value
            assert await call.wait_for_answer() is S.ACTIVE
            assert await call.status.wait_for(S.ACTIVE) is S.ACTIVE
            async with call.listen() as frames:
                assert (await anext(aiter(frames))).identity == bob
            while heard < 24_000:
                await asyncio.sleep(0.05)
            await call.end()
            await following
            assert seen[-1] is S.ENDED
            assert (await caller.get_call(record)).status is S.ENDED
        await callee.close()
        assert await asyncio.wait_for(bot, WAIT) == 1
        assert await callee.wait_for_call() is None
        with pytest.raises(UTDClosedError):
            callee.call_session("audio_call")


async def test_a_cancelled_await_is_an_interrupted_wait(engine: LocalEngine, way: Way) -> None:
    there = way()
    async with made(engine, there) as caller, made(engine) as callee:
        await caller.authenticate(fresh("alice"))
        await callee.authenticate(bob := fresh("bob"))
        async with caller.call_session("audio_call") as call, callee.call_session("audio_call") as answer:
            record = await call.start(bob)
            waits: list[Any] = [call.wait_for_answer(), call.wait_until_ended(), call.status.wait_for(S.ACTIVE)]
            for wait in waits:
                task = asyncio.ensure_future(wait)
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(callee.wait_for_call(timeout=None), 0)
            incoming = await callee.wait_for_call()
            assert incoming is not None
            assert incoming.call_id == record.call_id
            assert (await caller.get_call(record)).status is S.INITIATING
            with pytest.raises(UTDTimeoutError):
                await call.wait_for_answer(timeout=0.05)
            await answer.reject(incoming)
            assert await call.wait_for_answer() is S.REJECTED
            # A verb is cancelled, and undone.
            gate = there.hold("POST", "/calls", at="answer")
            task = asyncio.ensure_future(call.start(bob))
            await asyncio.to_thread(gate.reached)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open()
            incoming = await callee.wait_for_call(timeout=5) if not (await _over(caller)) else None
            for _ in range(600):
                if await _over(caller):
                    break
                await asyncio.sleep(0.1)
            assert await _over(caller)


async def _over(client: aio.UTDStreamClient) -> bool:
    return all(call.status.is_terminal for call in (await client.calls()).calls)


async def test_overtaking_and_wrong_order(engine: LocalEngine, way: Way) -> None:
    there = way()
    async with made(engine, there) as client:
        await client.authenticate(fresh("alice"))
        call = client.call_session("audio_call")
        gate = there.hold("POST", "/calls")
        running = asyncio.create_task(call.start(fresh("bob")))
        await asyncio.to_thread(gate.reached)
        ending = asyncio.create_task(call.dispose())
        with pytest.raises(UTDClosedError):
            await running
        gate.open()
        await ending
        await call.dispose()
        with pytest.raises(UTDClosedError):
            await call.start("bob")
        with pytest.raises(UTDStateError):
            await client.call_session("audio_call").wait_for_answer()


def test_usable_from_any_event_loop(engine: LocalEngine) -> None:
    """One client, three loops in three threads and one after the other."""
    client = made(engine)
    bob = fresh("bob")
    asyncio.run(client.authenticate(bob))
    waiting = in_thread(lambda: asyncio.run(client.wait_for_call(timeout=None)))
    with engine.client() as caller:
        caller.authenticate(fresh("alice"))
        with caller.call_session("audio_call") as call:
            call.start(bob)
            incoming = waiting.result(WAIT)
            assert incoming is not None
            answer = client.call_session("audio_call")
            in_thread(lambda: asyncio.run(answer.accept(incoming))).result(WAIT)
            assert call.wait_for_answer() is S.ACTIVE
            ended = in_thread(lambda: asyncio.run(answer.wait_until_ended()))
            active = in_thread(lambda: asyncio.run(answer.status.wait_for("active")))
            assert active.result(WAIT) is S.ACTIVE
            asyncio.run(answer.end())
            assert ended.result(WAIT).end_reason == "callee_hangup"
    asyncio.run(client.close())
    asyncio.run(client.dispose())


async def test_the_blocking_one_is_refused_in_a_loop(engine: LocalEngine) -> None:
    with pytest.raises(UTDWouldBlockError, match="aio"):
        engine.client().authenticate("alice")

    def elsewhere() -> str | None:
        with engine.client() as client:
            client.authenticate("alice")
            return client.identity

    assert await asyncio.to_thread(elsewhere) == "alice"
    assert threading.active_count() < 50


async def test_leaving_ends_what_was_started(engine: LocalEngine) -> None:
    async with made(engine) as client:
        await client.authenticate(fresh("alice"))
        call = client.call_session("audio_call")
        with pytest.raises(UTDStreamException, match="mine"):
            async with call:
                await call.start(fresh("bob"))
                raise UTDStreamException("mine")
        assert (await client.get_call(str(call.call_id.value))).end_reason == "caller_cancelled"
        assert call.status.value is S.ENDED
