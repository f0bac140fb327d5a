"""api.md, Threads: each sentence."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, ring, signed_in, talking, two, until
from tests.integration.gate_proxy import GateProxy
from tests.processes import run_python
from utd_fsm import UTDCallStatus, UTDClosedError, UTDStateError, UTDStreamException
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
S = UTDCallStatus


def test_every_public_object_may_be_used_from_any_thread(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, caller, callee):
        told: list[int] = []
        call_id = call.call_id.value
        assert call_id

        def use() -> None:
            for session in (call, answer):
                assert session.status.wait_for(S.ACTIVE) is S.ACTIVE
                assert next(session.status.updates()) is S.ACTIVE
                session.set_microphone(False)
                session.set_microphone(True)
                session.send_data(b"x")
                with session.listen(timeout=WAIT) as frames:
                    next(iter(frames))
                assert session.wait_for_answer() is S.ACTIVE
            assert caller.get_call(call_id).status is S.ACTIVE
            assert repr((caller, callee, call, call.status))
            told.append(1)

        for thread in [in_thread(use) for _ in range(6)]:
            thread.result(WAIT)
        assert len(told) == 6
        assert call.status.value is answer.status.value is S.ACTIVE


def test_verbs_run_one_at_a_time_in_the_order_of_the_calls(engine: LocalEngine, way: Way) -> None:
    there = way()
    with two(engine, caller_way=there) as (call, _, __, callee):
        assert callee.identity
        gate = there.hold("POST", "/calls")
        first = in_thread(lambda: call.start(str(callee.identity)))
        gate.reached()
        second = in_thread(lambda: call.start("carol"))
        third = in_thread(lambda: call.set_microphone(False))
        with pytest.raises(TimeoutError):
            second.result(0.3)
        assert there.paths() == ["/auth/session"]
        gate.open()
        record = first.result(WAIT)
        with pytest.raises(UTDStateError):
            second.result(WAIT)
        third.result(WAIT)
        assert call.call_id.value == record.call_id


@pytest.mark.parametrize("by", ["end", "leave", "dispose"])
@pytest.mark.parametrize("at", ["request", "answer"])
def test_ending_overtakes(engine: LocalEngine, way: Way, by: str, at: str) -> None:
    there = way()
    with two(engine, caller_way=there) as (call, _, caller, callee):
        assert callee.identity
        gate = there.hold("POST", "/calls", at=at)  # type: ignore[arg-type]
        running = in_thread(lambda: call.start(str(callee.identity)))
        gate.reached()
        waiting = in_thread(lambda: call.set_microphone(True))
        until(lambda: not waiting.done(), "it waits in its turn")
        overtaker = in_thread(getattr(call, by))
        for overtaken in (running, waiting):
            with pytest.raises((UTDStateError, UTDClosedError)) as error:
                overtaken.result(WAIT)
            assert isinstance(error.value, UTDClosedError if by == "dispose" else UTDStateError)
        gate.open()
        overtaker.result(WAIT)
        until(lambda: all(one.status.is_terminal for one in caller.calls().calls), "no call is left")
        assert not call.connected.value


def test_ctrl_c_in_a_wait_changes_nothing_and_in_a_verb_cancels_it(engine: LocalEngine, way: Way) -> None:
    there = way()
    with two(engine, caller_way=there) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)

        def interrupt(when: Callable[[], object]) -> None:
            def run() -> None:
                when()
                os.kill(os.getpid(), signal.SIGINT)

            in_thread(run)

        for wait in (
            lambda: call.wait_for_answer(timeout=None),
            lambda: call.status.wait_for(S.ACTIVE, timeout=None),
            lambda: callee.wait_for_call(timeout=None),
        ):
            interrupt(lambda: threading.Event().wait(0.2))
            with pytest.raises(KeyboardInterrupt):
                wait()
        assert caller.get_call(incoming).status is call.status.value is S.RINGING
        call.end()
        gate = there.hold("POST", "/calls", at="answer")
        interrupt(gate.reached)
        with pytest.raises(KeyboardInterrupt):
            call.start(str(callee.identity))
        gate.open()
        until(lambda: all(one.status.is_terminal for one in caller.calls().calls), "no call is left")


CHILD = """
import os, signal, sys
from utd_fsm import UTDStreamClient, UTDClosedError
signal.alarm(60)
client = UTDStreamClient({app_id!r}, {app_key!r}, base_url={base_url!r})
client.authenticate({identity!r})
call = client.call_session("audio_call")
record = call.start({callee!r})
pid = os.fork()
if not pid:
    told = []
    for act in (call.end, call.leave, call.dispose, call.wait_for_answer, call.wait_until_ended,
                lambda: call.start("x"), lambda: call.status.wait_for("active"), lambda: call.listen(),
                lambda: call.set_microphone(False)):
        try:
            act()
            told.append("nothing")
        except UTDClosedError:
            pass
        except Exception as error:
            told.append(repr(error))
    with call:
        pass
    told.append(client.sessions)
    told.append(client.get_call(record).status.value)
    print(told, flush=True)
    client.close()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(client.get_call(record).status.value, call.status.value, client.sessions == (call,))
call.end()
client.close()
"""


def test_after_a_fork(engine: LocalEngine) -> None:
    """The client works with fresh pools, the parent's sessions are closed there, the exit sends nothing for them."""
    code = CHILD.format(
        app_id=engine.app_id,
        app_key=engine.app_key,
        base_url=engine.base_url,
        identity=fresh("alice"),
        callee=fresh("bob"),
    )
    child, parent = run_python(code, timeout=90)[0].splitlines()
    assert child == "[(), 'initiating']"
    assert parent == "initiating initiating True"


def test_many_verbs_against_one_end(engine: LocalEngine) -> None:
    """Whatever runs, each call gets one outcome, and nothing hangs."""
    with talking(engine) as (call, answer, caller, __):
        call_id = str(call.call_id.value)
        others = [in_thread(lambda n=n: call.set_microphone(bool(n % 2))) for n in range(12)]  # type: ignore[misc]
        ends = [in_thread(call.end) for _ in range(4)]
        for end in ends:
            assert end.result(WAIT) is not None
        for other in others:
            try:
                other.result(WAIT)
            except UTDStreamException as error:
                assert isinstance(error, UTDStateError)
        assert caller.get_call(call_id).status is S.ENDED
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
        with signed_in(engine, fresh("carol")) as carol:
            assert carol.sessions == ()
