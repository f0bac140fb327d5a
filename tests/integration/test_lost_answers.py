"""The engine applied it and the answer never came; or there is no engine just then. All agree at the end all the same.

What no media server decides: on the embedded one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.calling import WAIT, agreed, hear_each_other, ring, signed_in, talking, two, until
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDCallStatus, UTDConnectionError, UTDStreamException, UTDTimeoutError
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


def open_calls(engine: LocalEngine, identity: str) -> int:
    """How many calls of an identity are not over, as the engine keeps them."""
    with signed_in(engine, identity) as client:
        return sum(not call.status.is_terminal for call in client.calls().calls)


def outcome_known(error: UTDStreamException) -> bool:
    """What an error says of the engine's deed."""
    assert isinstance(error, UTDConnectionError | UTDTimeoutError)
    return error.outcome_known


def test_the_answer_to_a_create_is_lost_once(local: LocalEngine, local_way: Way) -> None:
    """It is asked again under the same key: one call, as if nothing had happened."""
    there = local_way()
    with two(local, caller_way=there) as (call, answer, caller, callee):
        lost = there.cut("POST", "/calls")
        incoming = ring(call, answer, caller, callee)
        assert lost.caught == 1
        creates = [passed for passed in there.state.seen if (passed.method, passed.path) == ("POST", "/calls")]
        assert [passed.status for passed in creates] == [201, 201]
        assert len({passed.key for passed in creates}) == 1
        assert caller.calls().total == 1
        answer.accept(incoming)
        hear_each_other(call, answer)
        call.end()
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_no_answer_to_a_create_ever_comes(local: LocalEngine, local_way: Way) -> None:
    """start() raises, does not know, and the call it may have made is found by its key and ended."""
    there = local_way()
    with two(local, caller_way=there) as (call, _, caller, callee):
        lost = there.cut("POST", "/calls", times=None)
        assert callee.identity
        with pytest.raises((UTDConnectionError, UTDTimeoutError)) as failed:
            call.start(callee.identity)
        assert not outcome_known(failed.value)
        assert lost.caught > 1
        made = callee.wait_for_call(timeout=WAIT) if open_calls(local, callee.identity) else None
        ended = call.wait_until_ended(timeout=WAIT)
        assert made is None or made.call_id == ended.call_id
        agreed(local, ended.call_id, UTDCallStatus.ENDED, "caller_cancelled", call, client=caller)
        assert caller.calls().total == 1
        lost.open()
        assert call.start(callee.identity).status is UTDCallStatus.INITIATING  # and the session is free again
        call.end()


def test_an_interrupted_start_is_undone(local: LocalEngine, local_way: Way) -> None:
    """The engine has made the call when the caller gives up: the error says that, and the call is ended."""
    there = local_way()
    with two(local, caller_way=there) as (call, _, caller, callee):
        gate = there.hold("POST", "/calls", at="answer")
        assert callee.identity
        with pytest.raises(UTDTimeoutError) as failed:
            call.start(callee.identity, timeout=0.5)
        assert failed.value.outcome_known is False
        gate.reached()
        gate.open()
        ended = call.wait_until_ended(timeout=WAIT)
        agreed(local, ended.call_id, UTDCallStatus.ENDED, "caller_cancelled", call, client=caller)


def test_the_answer_to_an_accept_is_lost_once(local: LocalEngine, local_way: Way) -> None:
    here = local_way()
    with two(local, callee_way=here) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        lost = here.cut("POST", "/calls/*/accept")
        assert answer.accept(incoming).status is UTDCallStatus.ACTIVE
        assert lost.caught == 1
        hear_each_other(call, answer)
        answer.end()
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)


@pytest.mark.parametrize("told", [True, False], ids=["socket tells", "socket is late"])
def test_no_answer_to_an_accept_ever_comes(local: LocalEngine, local_way: Way, told: bool) -> None:
    """accept() raises, and what it may have won is given back: the caller does not sit in a call with nobody."""
    here = local_way()
    with two(local, callee_way=here) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        if not told:
            here.frames.clear()
        here.cut("POST", "/calls/*/accept", times=None)
        with pytest.raises((UTDConnectionError, UTDTimeoutError)) as failed:
            answer.accept(incoming)
        assert not outcome_known(failed.value)
        assert failed.value.call_id == incoming.call_id
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("told", [True, False], ids=["socket tells", "socket is late"])
def test_the_answer_to_an_end_is_lost(local: LocalEngine, local_way: Way, times: int, told: bool) -> None:
    there = local_way()
    with talking(local, caller_way=there) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        if not told:
            there.frames.clear()
        lost = there.cut("POST", "/calls/*/end", times=times)
        ended = call.end()
        assert ended is not None
        assert ended.status is UTDCallStatus.ENDED
        assert 1 <= lost.caught <= times
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_the_answers_to_a_reject_and_to_ringing_are_lost(local: LocalEngine, local_way: Way) -> None:
    here = local_way()
    with two(local, callee_way=here) as (call, answer, caller, callee):
        assert callee.identity
        started = call.start(callee.identity)
        lost = [here.cut("POST", "/calls/*/ringing"), here.cut("POST", "/calls/*/reject", times=2)]
        assert answer.ringing(started.call_id).status is UTDCallStatus.RINGING
        rejected = answer.reject(started.call_id)
        assert rejected is not None
        assert rejected.status is UTDCallStatus.REJECTED
        assert [gate.caught >= 1 for gate in lost] == [True, True]
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.REJECTED
        agreed(local, started.call_id, UTDCallStatus.REJECTED, None, call, answer, client=caller)


def test_there_is_no_engine_when_one_hangs_up(local: LocalEngine, local_way: Way) -> None:
    """Media is down at once; the engine is told as soon as it is back, and the other side then learns of it."""
    there = local_way()
    with talking(local, caller_way=there) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        there.down()
        with pytest.raises(UTDTimeoutError, match="end"):
            call.end(timeout=0.5)
        assert not call.connected.value
        assert call.status.value is UTDCallStatus.ACTIVE  # never ahead of the engine
        assert answer.status.value is UTDCallStatus.ACTIVE
        there.up()
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_without_a_socket_everything_is_asked_for(local: LocalEngine, local_way: Way) -> None:
    """An engine that offers no socket: incoming calls and the other side's deeds are heard by polling."""
    ways = local_way(), local_way()
    for each in ways:
        each.rewrite("POST", "/auth/session", lambda session: session.pop("ws_url"))
    with two(local, caller_way=ways[0], callee_way=ways[1]) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        hear_each_other(call, answer)
        answer.end()
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)
    assert [each.sockets for each in ways] == [0, 0]
    assert any(path == "/calls" for path in ways[1].paths("GET"))


def test_a_socket_that_is_cut_comes_back(local: LocalEngine, local_way: Way) -> None:
    """What happened meanwhile is in the snapshot it begins with."""
    here = local_way()
    with two(local, callee_way=here) as (call, answer, caller, callee):
        with pytest.raises(UTDTimeoutError):
            callee.wait_for_call(timeout=0.2)  # from now on it listens
        until(lambda: here.sockets, "a socket is open")
        here.down()
        assert callee.identity
        started = call.start(callee.identity)
        here.up()
        incoming = callee.wait_for_call(timeout=WAIT)
        assert incoming is not None
        assert incoming.call_id == started.call_id
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        call.end()
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_a_redelivered_task_does_not_ring_twice(local: LocalEngine) -> None:
    """The same key gives the same call, also in another process's session."""
    with two(local) as (call, _, caller, callee), caller.call_session("audio_call") as again:
        assert callee.identity
        first = call.start(callee.identity, idempotency_key="task-17")
        assert again.start(callee.identity, idempotency_key="task-17").call_id == first.call_id
        assert caller.calls().total == 1
        assert call.end()
        assert again.wait_until_ended(timeout=WAIT).end_reason == "caller_cancelled"
