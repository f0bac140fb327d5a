"""api.md, Leaving a `with`: each sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, ring, signed_in, two, until
from tests.integration.gate_proxy import GateProxy
from tests.processes import run_python
from utd_fsm import UTDCallStatus, UTDClosedError, UTDStateError, UTDStreamClient, signals
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
S = UTDCallStatus


class Mine(Exception):
    """Raised by a body."""


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_call_that_i_started_or_accepted_is_ended(engine: LocalEngine, who: str, fails: bool) -> None:
    with two(engine) as (call, answer, caller, callee):
        mine, other = (call, answer) if who == "caller" else (answer, call)
        try:
            with mine:
                answer.accept(ring(call, answer, caller, callee))
                assert call.wait_for_answer() is S.ACTIVE
                if fails:
                    raise Mine
        except Mine:
            assert fails
        assert mine.status.value is S.ENDED
        assert not mine.connected.value
        assert other.wait_until_ended(timeout=WAIT).end_reason == f"{who}_hangup"


def test_one_that_only_rang_is_left_alone(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        with answer:
            incoming = ring(call, answer, caller, callee)
        assert caller.get_call(incoming).status is S.RINGING
        assert callee.sessions == ()
        with callee.call_session("audio_call") as again:
            assert again.accept(incoming).status is S.ACTIVE


def test_errors_on_the_way_out_are_logged_and_never_hide_the_bodys(
    engine: LocalEngine, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    there = way()
    with signed_in(engine, fresh("alice"), there) as client, caplog.at_level(logging.WARNING, "utd_fsm"):
        gate = there.hold("POST", "/calls/*/end", times=None)
        with pytest.raises(Mine), client.call_session("audio_call") as call:
            call.start(fresh("bob"))
            raise Mine
        gate.open()
        assert any(record.name.startswith("utd_fsm") for record in caplog.records)
        call_id = call.call_id.value
        assert call_id
        until(lambda: client.get_call(call_id).status is S.ENDED, "it is told in the background")


@pytest.mark.parametrize("how", ["dispose", "close"])
def test_disposing_a_client_ends_its_sessions_first(engine: LocalEngine, how: str) -> None:
    with two(engine) as (call, answer, caller, callee):
        answer.accept(ring(call, answer, caller, callee))
        call.wait_for_answer()
        waiting = in_thread(lambda: call.wait_until_ended(timeout=None))
        getattr(caller, how)()
        assert call.status.value is S.ENDED
        assert waiting.result(WAIT).end_reason == "caller_hangup"
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
        getattr(caller, how)()
        caller.dispose()
        with pytest.raises(UTDClosedError):
            call.start("bob")


def test_the_interpreters_exit_ends_the_sessions(engine: LocalEngine) -> None:
    code = f"""
from utd_fsm import UTDStreamClient
client = UTDStreamClient({engine.app_id!r}, {engine.app_key!r}, base_url={engine.base_url!r})
client.authenticate({(alice := fresh("alice"))!r})
call = client.call_session("audio_call")
print(call.start({fresh("bob")!r}).call_id)
"""
    call_id = run_python(code, timeout=60)[0].strip()
    with signed_in(engine, alice) as client:
        record = client.get_call(call_id)
        assert (record.status, record.end_reason) == (S.ENDED, "caller_cancelled")


def test_closing_from_a_receiver(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        closed = threading.Event()

        def close(_: object, *, value: UTDCallStatus, **__: object) -> None:
            if value is S.ACTIVE:
                call.dispose()
                caller.dispose()
                caller.close()
                closed.set()

        call.status.changed.connect(close)
        incoming = ring(call, answer, caller, callee)
        with contextlib.suppress(UTDStateError):  # hung up before the callee is in the room
            answer.accept(incoming)
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
        assert closed.wait(WAIT)
        caller.close()
        call.dispose()


def test_closing_from_a_signal_handler(engine: LocalEngine) -> None:
    """While the main thread is inside a wait of the very client."""
    with two(engine) as (call, answer, caller, callee):
        answer.accept(ring(call, answer, caller, callee))

        def close(*_: object) -> None:
            call.dispose()
            caller.dispose()
            caller.close()

        before = signal.signal(signal.SIGUSR1, close)
        try:

            def interrupt() -> None:
                call.wait_for_answer()
                os.kill(os.getpid(), signal.SIGUSR1)

            in_thread(interrupt)
            assert call.wait_until_ended(timeout=WAIT).status is S.ENDED
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
        signals.drain(timeout=10)


def test_closing_a_client_that_was_never_used(engine: LocalEngine) -> None:
    client = UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url)
    client.close()
    client.dispose()
    with client:
        pass
