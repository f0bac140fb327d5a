"""The awaitable client on real processes: the same calls, from an event loop of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from tests.integration.calling import CALLEE_HZ, CALLER_HZ, RATE, WAIT, fresh, participants
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDCallStatus, UTDWouldBlockError, aio
from utd_fsm.media import Tone
from utd_fsm.media.measure import dominant_hz, loudness
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media


@asynccontextmanager
async def signed_in(
    engine: LocalEngine, identity: str, way: GateProxy | None = None
) -> AsyncIterator[aio.UTDStreamClient]:
    url = way.url if way is not None else engine.base_url
    async with aio.UTDStreamClient(engine.app_id, engine.app_key, base_url=url) as client:
        await client.authenticate(identity)
        yield client


async def heard_hz(call: aio.UTDCallSession) -> float | None:
    pieces: list[np.ndarray[tuple[int, ...], np.dtype[np.int16]]] = []
    async with call.listen(timeout=WAIT) as frames:
        async for frame in frames:
            if pieces or loudness(frame.samples) > 0.01:
                pieces.append(frame.samples)
            if len(pieces) * len(frame.samples) >= RATE:
                break
    return dominant_hz(np.concatenate(pieces)[-RATE // 2 :], RATE)


async def test_a_call(engine: LocalEngine) -> None:
    async with (
        signed_in(engine, fresh("alice")) as caller,
        signed_in(engine, fresh("bob")) as callee,
        caller.call_session("audio_call", microphone=Tone(CALLER_HZ)) as call,
        callee.call_session("audio_call", microphone=Tone(CALLEE_HZ)) as answer,
    ):

        async def answers() -> float | None:
            async for incoming in callee.incoming_calls:
                await answer.ringing(incoming)
                await answer.accept(incoming)
                return await heard_hz(answer)
            return None

        answering = asyncio.create_task(answers())
        started = await call.start(callee.identity or "")
        assert await call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        assert await heard_hz(call) == pytest.approx(CALLEE_HZ, abs=2)
        assert await answering == pytest.approx(CALLER_HZ, abs=2)
        with pytest.raises(UTDWouldBlockError):
            engine.client().authenticate("nobody")  # the blocking client, where an event loop runs
        await answer.end()
        assert (await call.wait_until_ended(timeout=WAIT)).end_reason == "callee_hangup"
        record = await caller.get_call(started)
        assert record.status is answer.status.value is call.status.value is UTDCallStatus.ENDED
        async with asyncio.timeout(WAIT):
            while await asyncio.to_thread(participants, engine, started.call_id):
                await asyncio.sleep(0.05)


async def test_a_cancelled_await_is_an_interrupted_start(local: LocalEngine) -> None:
    """The engine had made the call: it is ended, and the callee's device stops ringing."""
    with GateProxy(local.base_url) as way:
        async with (
            signed_in(local, fresh("alice"), way) as caller,
            signed_in(local, fresh("bob")) as callee,
            caller.call_session("audio_call") as call,
        ):
            gate = way.hold("POST", "/calls", at="answer")
            starting = asyncio.create_task(call.start(callee.identity or ""))
            await asyncio.to_thread(gate.reached)
            incoming = await callee.wait_for_call(timeout=WAIT)
            assert incoming is not None
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            gate.open()
            ended = await call.wait_until_ended(timeout=WAIT)
            assert (ended.call_id, ended.end_reason) == (incoming.call_id, "caller_cancelled")
            assert (await callee.get_call(incoming)).status is UTDCallStatus.ENDED


async def test_waiters_end_with_the_client(local: LocalEngine) -> None:
    async with signed_in(local, fresh("bob")) as client:

        async def take() -> list[str]:
            return [incoming.call_id async for incoming in client.incoming_calls]

        waiting = asyncio.create_task(take())
        gone = asyncio.create_task(client.wait_for_call(timeout=None))
        await asyncio.sleep(0)
        gone.cancel()
        await client.dispose()
        assert await waiting == []
        with pytest.raises(asyncio.CancelledError):
            await gone
