"""api.md, Waiting: each sentence."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, ring, signed_in, two, until
from tests.integration.gate_proxy import GateProxy
from utd_fsm import (
    UTDCallSession,
    UTDCallStatus,
    UTDClosedError,
    UTDInputError,
    UTDRoom,
    UTDStateError,
    UTDStreamClient,
    UTDTimeoutError,
    aio,
)
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

CLASSES = [UTDStreamClient, UTDCallSession, UTDRoom, aio.UTDStreamClient, aio.UTDCallSession, aio.UTDRoom]
NO_LIMIT = {"play", "record"}
"""They last as long as what they play or record."""


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_defaults_stand_in_the_signatures(kind: type) -> None:
    own = {"wait_for_answer": 150, "wait_until_ended": 14_500}
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_") or "timeout" not in (parameters := inspect.signature(member).parameters):
            continue
        timeout = parameters["timeout"]
        assert "None" in str(timeout.annotation), name
        assert timeout.default == (None if name in NO_LIMIT else own.get(name, 30)), name


@pytest.mark.parametrize("limit", [None, math.inf, 1e12])
def test_none_means_no_limit_everywhere(engine: LocalEngine, limit: float | None) -> None:
    with two(engine) as (call, answer, caller, callee):
        assert callee.identity
        coming = in_thread(lambda: callee.wait_for_call(timeout=limit))
        call.start(callee.identity, timeout=limit)
        incoming = coming.result(WAIT)
        assert incoming is not None
        answered = in_thread(lambda: call.wait_for_answer(timeout=limit))
        active = in_thread(lambda: call.status.wait_for(UTDCallStatus.ACTIVE, timeout=limit))
        over = in_thread(lambda: call.wait_until_ended(timeout=limit))
        shown = in_thread(lambda: list(call.status.updates(timeout=limit)))
        answer.ringing(incoming, timeout=limit)
        answer.accept(incoming, timeout=limit)
        assert answered.result(WAIT) is active.result(WAIT) is UTDCallStatus.ACTIVE
        assert caller.get_call(incoming, timeout=limit).status is UTDCallStatus.ACTIVE
        with call.listen(timeout=limit) as frames:
            assert next(iter(frames)).identity == callee.identity
        answer.end(timeout=limit)
        assert over.result(WAIT).status is UTDCallStatus.ENDED
        assert shown.result(WAIT)[-1] is UTDCallStatus.ENDED
        call.dispose(timeout=limit)


@pytest.mark.parametrize("bad", [-1, math.nan, -math.inf, "1", True, object()])
def test_a_timeout_that_is_none_is_refused_the_same_everywhere(engine: LocalEngine, bad: Any) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        for attempt in (
            lambda: call.wait_for_answer(timeout=bad),
            lambda: call.wait_until_ended(timeout=bad),
            lambda: call.status.wait_for(UTDCallStatus.ACTIVE, timeout=bad),
            lambda: call.status.updates(timeout=bad),
            lambda: call.listen(timeout=bad),
            lambda: call.end(timeout=bad),
            lambda: answer.accept(incoming, timeout=bad),
            lambda: caller.get_call(incoming, timeout=bad),
            lambda: callee.wait_for_call(timeout=bad),
            lambda: caller.dispose(timeout=bad),
        ):
            with pytest.raises(UTDInputError, match="timeout"):
                attempt()
        assert call.status.value is UTDCallStatus.RINGING
        assert caller.get_call(incoming).status is UTDCallStatus.RINGING
        call.end()
        for late in (lambda: call.wait_for_answer(timeout=bad), lambda: call.wait_until_ended(timeout=bad)):
            with pytest.raises(UTDInputError, match="timeout"):
                late()


def test_a_wait_that_times_out_raises_and_changes_nothing(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        before = caller.get_call(incoming)
        for attempt in (
            lambda: call.wait_for_answer(timeout=0),
            lambda: call.wait_until_ended(timeout=0.05),
            lambda: call.status.wait_for(UTDCallStatus.ACTIVE, timeout=0.05),
            lambda: answer.wait_until_ended(timeout=0.05),
            lambda: callee.wait_for_call(timeout=0.05),
        ):
            with pytest.raises(UTDTimeoutError) as late:
                attempt()
            assert late.value.outcome_known
        assert caller.get_call(incoming) == before
        assert call.status.value is answer.status.value is UTDCallStatus.RINGING
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE


def test_a_verb_that_times_out_is_cancelled(engine: LocalEngine, way: Callable[[], GateProxy]) -> None:
    there = way()
    with two(engine, caller_way=there) as (call, _, caller, callee):
        assert callee.identity
        gate = there.hold("POST", "/calls", at="answer")
        started = in_thread(lambda: call.start(str(callee.identity), timeout=1))
        gate.reached()
        with pytest.raises(UTDTimeoutError) as late:
            started.result(WAIT)
        assert not late.value.outcome_known
        gate.open()
        incoming = caller.calls().calls[0]
        until(lambda: caller.get_call(incoming).status is UTDCallStatus.ENDED, "the call is ended in the background")
        until(lambda: late.value.call_id == incoming.call_id, "the error carries the call's id once it is learnt")
        again = call.start(callee.identity)
        assert again.call_id != incoming.call_id


def test_wait_for_looks_at_the_value_then_at_every_later_one_in_order(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        assert call.status.wait_for(lambda status: status is None, timeout=0) is None
        seen: list[UTDCallStatus | None] = []
        threads: set[threading.Thread] = set()
        go_on = threading.Event()

        def look(status: UTDCallStatus | None) -> bool:
            seen.append(status)
            threads.add(threading.current_thread())
            go_on.wait(WAIT)
            return status is UTDCallStatus.ENDED

        waiter: list[threading.Thread] = []

        def wait() -> UTDCallStatus | None:
            waiter.append(threading.current_thread())
            return call.status.wait_for(look, timeout=WAIT)

        waiting = in_thread(wait)
        until(lambda: seen == [None], "the first look")
        incoming = ring(call, answer, caller, callee)
        answer.accept(incoming)
        call.wait_for_answer(timeout=WAIT)
        call.end()
        go_on.set()
        assert waiting.result(WAIT) is UTDCallStatus.ENDED
        assert seen == [None, *(UTDCallStatus(s) for s in ("initiating", "ringing", "active", "ended"))]
        assert threads == set(waiter)


def test_wait_for_raises_at_once_when_the_value_can_no_longer_come(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        waiting = in_thread(lambda: call.status.wait_for(UTDCallStatus.ACTIVE, timeout=None))
        answer.reject(incoming)
        with pytest.raises(UTDStateError, match="rejected"):
            waiting.result(WAIT)
        with pytest.raises(UTDStateError, match="rejected"):
            call.status.wait_for(UTDCallStatus.ACTIVE, timeout=None)


def test_disposing_ends_every_wait(engine: LocalEngine) -> None:
    """Also of a call that only rang here, which is left alone and so never is over for this session."""
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        waits: list[Future[Any]] = [
            in_thread(lambda: answer.wait_until_ended(timeout=None)),
            in_thread(lambda: answer.wait_for_answer(timeout=None)),
            in_thread(lambda: answer.status.wait_for(UTDCallStatus.ACTIVE, timeout=None)),
            in_thread(lambda: answer.call_id.wait_for("call_none", timeout=None)),
            in_thread(lambda: answer.connected.wait_for(True, timeout=None)),
        ]
        answer.status.wait_for(UTDCallStatus.RINGING)
        answer.dispose()
        for waiting in waits:
            with pytest.raises((UTDClosedError, UTDStateError)):
                waiting.result(10)
        assert caller.get_call(incoming).status is UTDCallStatus.RINGING


def test_another_call_on_the_session_ends_the_waits_for_one_that_only_rang(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee), signed_in(engine, fresh("carol")) as other:
        ring(call, answer, caller, callee)
        waiting = in_thread(lambda: answer.wait_until_ended(timeout=None))
        until(lambda: not waiting.done(), "it waits")
        assert other.identity
        other_call = in_thread(lambda: answer.ringing("call_" + "0" * 24))
        with pytest.raises(Exception, match="call"):
            other_call.result(WAIT)
        with pytest.raises(UTDStateError):
            waiting.result(10)


@pytest.mark.parametrize(
    ("how", "status"),
    [("accept", "active"), ("reject", "rejected"), ("busy", "busy"), ("end", "ended")],
)
def test_wait_for_answer_returns_active_or_the_terminal_status(engine: LocalEngine, how: str, status: str) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        waiting = in_thread(lambda: call.wait_for_answer())
        if how == "end":
            call.end()
        else:
            getattr(answer, how)(incoming)
        assert waiting.result(WAIT) == status
        assert call.wait_for_answer(timeout=0) == status
        if how == "accept":
            call.end()
        final = call.wait_until_ended()
        assert final.call_id == incoming.call_id
        assert final.status is call.status.value
        assert final.status.is_terminal
        assert final == call.wait_until_ended(timeout=0)


def test_waiting_without_a_call_raises_at_once(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("alone")) as client, client.call_session("audio_call") as call:
        for attempt in (call.wait_for_answer, call.wait_until_ended, call.listen, call.watch):
            with pytest.raises(UTDStateError):
                attempt()
