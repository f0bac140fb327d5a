"""What the tests of calls share: threads whose outcome is asked for, tones that are measured, what all must agree on.

The public blocking API only, except where the media server is asked who is in a room.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from livekit import api

from tests.integration.gate_proxy import GateProxy
from utd_fsm import (
    UTDAudioRoomSession,
    UTDCall,
    UTDCallSession,
    UTDCallStatus,
    UTDLiveStreamSession,
    UTDRoom,
    UTDStreamClient,
)
from utd_fsm.media import Tone
from utd_fsm.media.measure import dominant_hz, loudness
from utd_fsm.testing import LocalEngine

T = TypeVar("T")

WAIT = 60.0
"""Upper bound of every wait: generous, since the machine may be busy."""
RATE = 48_000
CALLER_HZ, CALLEE_HZ = 440.0, 660.0
_numbers = itertools.count(1)
_run = secrets.token_hex(3)


def fresh(name: str) -> str:
    """An identity that no other test uses: engines are shared."""
    return f"{name}-{_run}-{next(_numbers)}"


def in_thread(fn: Callable[[], T]) -> Future[T]:
    """Run it in a thread of its own; its result, or what it raised, comes by the future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(fn())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="test-party", daemon=True).start()
    return future


def until(condition: Callable[[], object], what: str, timeout: float = WAIT) -> None:
    """Wait for what no event tells: a state of the engine or of the machine."""
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)


@contextmanager
def signed_in(engine: LocalEngine, identity: str, way: GateProxy | None = None) -> Iterator[UTDStreamClient]:
    """A client of the engine, perhaps through a proxy."""
    url = way.url if way is not None else engine.base_url
    with UTDStreamClient(engine.app_id, engine.app_key, base_url=url) as client:
        client.authenticate(identity)
        yield client


@contextmanager
def two(
    engine: LocalEngine, *, caller_way: GateProxy | None = None, callee_way: GateProxy | None = None
) -> Iterator[tuple[UTDCallSession, UTDCallSession, UTDStreamClient, UTDStreamClient]]:
    """A caller's and a callee's session with their clients; nobody has called yet."""
    with (
        signed_in(engine, fresh("alice"), caller_way) as caller,
        signed_in(engine, fresh("bob"), callee_way) as callee,
        caller.call_session("audio_call", microphone=Tone(CALLER_HZ)) as call,
        callee.call_session("audio_call", microphone=Tone(CALLEE_HZ)) as answer,
    ):
        yield call, answer, caller, callee


def ring(call: UTDCallSession, answer: UTDCallSession, caller: UTDStreamClient, callee: UTDStreamClient) -> UTDCall:
    """Call, and ring at the callee."""
    assert callee.identity
    started = call.start(callee.identity)
    incoming = callee.wait_for_call(timeout=WAIT)
    assert incoming is not None
    assert incoming.call_id == started.call_id
    answer.ringing(incoming)
    call.status.wait_for(UTDCallStatus.RINGING, timeout=WAIT)
    return incoming


@contextmanager
def talking(
    engine: LocalEngine, *, caller_way: GateProxy | None = None, callee_way: GateProxy | None = None
) -> Iterator[tuple[UTDCallSession, UTDCallSession, UTDStreamClient, UTDStreamClient]]:
    """Both in an active call, and each hears the other's tone."""
    with two(engine, caller_way=caller_way, callee_way=callee_way) as (call, answer, caller, callee):
        answer.accept(ring(call, answer, caller, callee))
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        hear_each_other(call, answer)
        yield call, answer, caller, callee


def heard_hz(
    call: UTDCallSession | UTDRoom | UTDAudioRoomSession | UTDLiveStreamSession,
    identity: str | None = None,
    seconds: float = 0.5,
) -> float | None:
    """The tone of the last half second, once anything is heard at all."""
    pieces: list[np.ndarray[tuple[int, ...], np.dtype[np.int16]]] = []
    with call.listen(identity, timeout=WAIT) as frames:
        for frame in frames:
            if pieces or loudness(frame.samples) > 0.01:
                pieces.append(frame.samples)
            if sum(map(len, pieces)) >= seconds * RATE:
                break
    return dominant_hz(np.concatenate(pieces), RATE) if pieces else None


def hears(call: UTDCallSession, hz: float, identity: str | None = None) -> None:
    """This tone is heard, within 2 Hz; what a reconnect mixes into the first moments may pass first."""
    limit = time.monotonic() + WAIT
    while True:
        measured = heard_hz(call, identity)
        if measured is not None and abs(measured - hz) <= 2:
            return
        assert time.monotonic() < limit, f"heard {measured} Hz instead of {hz} Hz"


def hear_each_other(call: UTDCallSession, answer: UTDCallSession) -> None:
    """Both at once."""
    other = in_thread(lambda: hears(answer, CALLER_HZ))
    hears(call, CALLEE_HZ)
    other.result(WAIT)


def participants(engine: LocalEngine, room: str) -> list[str]:
    """Who is in a room, as the media server says."""

    async def ask() -> list[str]:
        url = engine.livekit_url.replace("ws", "http", 1)
        async with api.LiveKitAPI(url, engine.livekit_key, engine.livekit_secret) as livekit:
            try:
                answer = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
            except api.TwirpError as error:
                if error.status == 404:
                    return []
                raise
            return [one.identity for one in answer.participants]

    return asyncio.run(ask())


def agreed(
    engine: LocalEngine,
    call_id: str,
    status: UTDCallStatus,
    reason: str | None,
    *sessions: UTDCallSession,
    client: UTDStreamClient,
) -> UTDCall:
    """All sessions and the engine say the same of a finished call, and nobody is left in its room."""
    for session in sessions:
        record = session.wait_until_ended(timeout=WAIT)
        assert (record.call_id, record.status, record.end_reason) == (call_id, status, reason)
        assert session.status.value is status
        assert session.end_reason == reason
        assert not session.connected.value
    record = client.get_call(call_id)
    assert (record.status, record.end_reason) == (status, reason)
    until(lambda: participants(engine, call_id) == [], "the room is empty")
    return record
