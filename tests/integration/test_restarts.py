"""The engine, or the media server, is killed with -9 and comes back: no call is lost, and sound is back both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.calling import (
    CALLEE_HZ,
    CALLER_HZ,
    WAIT,
    agreed,
    hear_each_other,
    hears,
    in_thread,
    participants,
    ring,
    talking,
    two,
    until,
)
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDCallSession, UTDCallStatus, signals
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


@contextmanager
def statuses_of(*sessions: UTDCallSession) -> Iterator[list[list[str | None]]]:
    """Every status that each session shows meanwhile."""
    lists: list[list[str | None]] = [[] for _ in sessions]

    def note(session: UTDCallSession, *, value: UTDCallStatus | None, **extra: object) -> None:
        if session in sessions:
            lists[sessions.index(session)].append(value)

    with signals.call_status_changed.connected_to(note):
        yield lists
        signals.drain(WAIT)


# -------------------------------------------------------------------------------------------------------- the engine


def test_the_engine_is_killed_in_the_middle_of_a_call(engine: LocalEngine) -> None:
    """They go on talking, and hang up at the new one."""
    with talking(engine) as (call, answer, caller, _), statuses_of(call, answer) as shown:
        call_id = call.call_id.value
        assert call_id
        engine.stop(hard=True)
        hear_each_other(call, answer)
        engine.start()
        hear_each_other(call, answer)
        record = caller.get_call(call_id)
        assert record.status is UTDCallStatus.ACTIVE
        assert sorted(participants(engine, call_id)) == sorted((record.caller_identity, record.callee_identity))
        answer.end()
        agreed(engine, call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)
    assert shown == [["ended"], ["ended"]]


def test_the_engine_is_killed_after_it_made_the_call(local: LocalEngine, local_way: Way) -> None:
    """The answer dies with it. The new one knows the key, and answers the same."""
    there = local_way()
    with two(local, caller_way=there) as (call, answer, caller, callee):
        applied = there.hold("POST", "/calls", at="answer")
        assert callee.identity
        starting = in_thread(lambda: call.start(callee.identity or ""))
        applied.reached()
        again = there.hold("POST", "/calls", times=None)
        local.stop(hard=True)
        applied.cut()
        again.reached()
        local.start()
        again.open()
        started = starting.result(WAIT)
        assert caller.calls().total == 1
        answer.accept(started.call_id)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        hear_each_other(call, answer)
        call.end()
        agreed(local, started.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_the_engine_is_killed_before_it_made_the_call(local: LocalEngine, local_way: Way) -> None:
    there = local_way()
    with two(local, caller_way=there) as (call, _, caller, callee):
        before = there.hold("POST", "/calls")
        starting = in_thread(lambda: call.start(callee.identity or ""))
        before.reached()
        again = there.hold("POST", "/calls", times=None)
        local.stop(hard=True)
        before.open()  # there is nobody behind it
        again.reached()
        local.start()
        again.open()
        started = starting.result(WAIT)
        assert caller.calls().total == 1
        call.end()
        agreed(local, started.call_id, UTDCallStatus.ENDED, "caller_cancelled", call, client=caller)


def test_the_engine_is_killed_after_it_applied_the_accept(local: LocalEngine, local_way: Way) -> None:
    here = local_way()
    with two(local, callee_way=here) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        applied = here.hold("POST", "/calls/*/accept", at="answer")
        accepting = in_thread(lambda: answer.accept(incoming))
        applied.reached()
        again = here.hold("POST", "/calls/*/accept", times=None)
        local.stop(hard=True)
        applied.cut()
        again.reached()
        local.start()
        again.open()
        assert accepting.result(WAIT).status is UTDCallStatus.ACTIVE
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        hear_each_other(call, answer)
        answer.end()
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)


@pytest.mark.parametrize("at", ["request", "answer"])
def test_the_engine_is_killed_around_the_end(local: LocalEngine, local_way: Way, at: str) -> None:
    """Before it has seen the end, or after it has applied it."""
    there = local_way()
    with talking(local, caller_way=there) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        gate = there.hold("POST", "/calls/*/end", at="request" if at == "request" else "answer")
        ending = in_thread(lambda: call.end(timeout=WAIT))
        gate.reached()
        local.stop(hard=True)
        gate.cut()
        local.start()
        ending.result(WAIT)
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_an_unanswered_call_outlives_the_engine(local: LocalEngine) -> None:
    """Rings before, is answered after, and the ring timeout has not been forgotten either."""
    with two(local) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        local.restart(hard=True)
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        call.end()
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


# -------------------------------------------------------------------------------------------------- the media server


def test_the_media_server_is_killed_in_the_middle_of_a_call(engine: LocalEngine) -> None:
    """Nobody's status moves, and each hears the other again."""
    with talking(engine) as (call, answer, caller, _), statuses_of(call, answer) as shown:
        call_id = call.call_id.value
        assert call_id
        engine.media.restart(hard=True)
        for session in (call, answer):
            session.connection.wait_for("reconnecting", timeout=WAIT)
        other = in_thread(lambda: hears(answer, CALLER_HZ))
        hears(call, CALLEE_HZ)
        other.result(WAIT)
        assert call.connected.value
        assert answer.connected.value
        signals.drain(WAIT)
        assert shown == [[], []]
        record = caller.get_call(call_id)
        assert record.status is UTDCallStatus.ACTIVE
        parties = sorted((record.caller_identity, record.callee_identity))
        until(lambda: sorted(participants(engine, call_id)) == parties, "both are in the room")
        call.end()
        agreed(engine, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)
    assert shown == [["ended"], ["ended"]]


def test_hung_up_while_the_media_server_is_away(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        engine.media.stop(hard=True)
        for session in (call, answer):
            session.connection.wait_for("reconnecting", timeout=WAIT)
        call.end()
        answer.wait_until_ended(timeout=WAIT)
        engine.media.start()
        agreed(engine, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)
