"""A party's process is killed, interrupted, forked, or simply ends: what its call comes to, and what the other sees."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.calling import CALLEE_HZ, CALLER_HZ, WAIT, agreed, fresh, hears, signed_in, until
from tests.integration.conftest import Engines
from tests.integration.scripts import CALLEE, CALLER, STAY, Program
from utd_fsm import UTDCallSession, UTDCallStatus, UTDConflictError, UTDStreamClient, UTDStreamException
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media


@contextmanager
def callee_elsewhere(engine: LocalEngine, code: str) -> Iterator[tuple[Program, UTDCallSession, UTDStreamClient]]:
    """An active call; the callee is a program, the caller is here."""
    bob = fresh("bob")
    with (
        signed_in(engine, fresh("alice")) as client,
        Program(engine, CALLEE + code, bob) as program,
        client.call_session("audio_call", microphone=Tone(CALLER_HZ)) as call,
    ):
        program.expect("waits")
        call.start(bob)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        program.expect("active")
        yield program, call, client


@contextmanager
def caller_elsewhere(engine: LocalEngine, code: str) -> Iterator[tuple[Program, UTDCallSession, UTDStreamClient]]:
    """An active call; the caller is a program, the callee is here."""
    alice, bob = fresh("alice"), fresh("bob")
    with (
        signed_in(engine, bob) as client,
        client.call_session("audio_call", microphone=Tone(CALLEE_HZ)) as answer,
        Program(engine, CALLER + code, alice, bob) as program,
    ):
        incoming = client.wait_for_call(timeout=WAIT)
        assert incoming is not None
        answer.accept(incoming)
        program.expect(incoming.call_id)
        program.expect("active")
        yield program, answer, client


def test_killed_in_the_middle_of_a_call(engines: Engines, media: str) -> None:
    """A callee's process, a caller's, and both of a call: LiveKit notices after some 20 s, the engine waits out the
    time in which they may return and cuts the calls. (Three calls in one test, as it takes that long.)"""
    engine = engines.get(media, party_grace=2.0)
    with ExitStack() as stack:
        callee, call, one = stack.enter_context(callee_elsewhere(engine, STAY))
        caller, answer, other = stack.enter_context(caller_elsewhere(engine, STAY))
        alice, bob = fresh("alice"), fresh("bob")
        last = stack.enter_context(Program(engine, CALLEE + STAY, bob))
        last.expect("waits")
        first = stack.enter_context(Program(engine, CALLER + STAY, alice, bob))
        theirs = first.line()
        for program in (first, last):
            program.expect("active")
        hears(call, CALLEE_HZ)
        hears(answer, CALLER_HZ)
        calls = call.call_id.value, answer.call_id.value
        for program in (callee, caller, first, last):
            program.process.kill()
        assert calls[0]
        assert calls[1]
        assert call.status.value is UTDCallStatus.ACTIVE
        agreed(engine, calls[0], UTDCallStatus.ENDED, "connection_lost", call, client=one)
        agreed(engine, calls[1], UTDCallStatus.ENDED, "connection_lost", answer, client=other)
        with signed_in(engine, alice) as watcher:
            until(lambda: watcher.get_call(theirs).status.is_terminal, "the call of the two dead is over")
            agreed(engine, theirs, UTDCallStatus.ENDED, "connection_lost", client=watcher)


def test_an_interpreter_that_exits_without_close_hangs_up(local: LocalEngine) -> None:
    with caller_elsewhere(local, "") as (program, answer, client):
        call_id = answer.call_id.value
        assert call_id
        assert program.finish() == (0, "", "")
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_hangup", answer, client=client)


def test_an_exception_in_the_with_block_hangs_up(local: LocalEngine) -> None:
    code = CALLEE + "with c, call:\n    say('in')\n    raise KeyError('the body')\n"
    bob = fresh("bob")
    with (
        signed_in(local, fresh("alice")) as client,
        Program(local, code, bob) as program,
        client.call_session("audio_call") as call,
    ):
        program.expect("waits")
        started = call.start(bob)
        program.expect("active")
        program.expect("in")
        status, _, err = program.finish()
        assert status == 1
        assert err.rstrip().endswith("KeyError: 'the body'")
        agreed(local, started.call_id, UTDCallStatus.ENDED, "callee_hangup", call, client=client)


@pytest.mark.parametrize("where", ["start", "wait_for_answer", "wait_until_ended"])
def test_ctrl_c(local: LocalEngine, where: str) -> None:
    """KeyboardInterrupt comes out of the blocked call, and the engine's call is ended by leaving."""
    bob = fresh("bob")
    code = """
c = client(); c.authenticate(sys.argv[1])
with c, c.call_session("audio_call") as call:
    if sys.argv[3] == "start":
        say("starting")
    else:
        call.start(sys.argv[2])
    try:
        if sys.argv[3] == "start":
            call.start(sys.argv[2], timeout=60)
        elif sys.argv[3] == "wait_for_answer":
            say("waiting"); call.wait_for_answer()
        else:
            assert call.wait_for_answer(60) == "active"
            say("waiting"); call.wait_until_ended()
        say("not interrupted")
    except KeyboardInterrupt:
        say("interrupted")
        raise
"""
    from tests.integration.gate_proxy import GateProxy

    with (
        signed_in(local, bob) as callee,
        callee.call_session("audio_call") as answer,
        GateProxy(local.base_url) as way,
    ):
        gate = way.hold("POST", "/calls", at="answer") if where == "start" else None
        with Program(local, code, fresh("alice"), bob, where, base_url=way.url) as program:
            incoming = callee.wait_for_call(timeout=WAIT)
            assert incoming is not None
            if where == "wait_until_ended":
                answer.accept(incoming)
            program.line()
            if gate is not None:
                gate.reached()
            program.process.send_signal(signal.SIGINT)
            program.expect("interrupted")
            if gate is not None:
                gate.open()
            status, _, err = program.finish()
            assert status == -signal.SIGINT, err
            assert "KeyboardInterrupt" in err
        reason = "caller_hangup" if where == "wait_until_ended" else "caller_cancelled"
        sessions = (answer,) if where == "wait_until_ended" else ()
        until(lambda: callee.get_call(incoming).status.is_terminal, "the engine's call is over")
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, reason, *sessions, client=callee)


FORK = """
before = [t.name for t in threading.enumerate()]
child = os.fork()
if child == 0:
    try:
        try:
            call.end()
            say("the child ended the call")
        except UTDClosedError as error:
            say("child:", type(error).__name__)
        try:
            call.status.wait_for("ended", timeout=5)
        except UTDClosedError as error:
            say("child:", type(error).__name__)
        assert c.sessions == ()
        say("child sees", c.get_call(sys.argv[3] if len(sys.argv) > 3 else call.call_id.value).status)
        mine = c.call_session("audio_call")
        say("child is", mine.status.value)
    finally:
        sys.stdout.flush()
        raise SystemExit(0)  # an ordinary exit, with all its handlers
status = os.waitpid(child, 0)[1]
say("child's exit", status)
for frame in call.listen(timeout=30):
    if abs(frame.samples).max() > 1000:
        say("still heard")
        break
"""


def test_a_child_forked_in_the_middle_of_a_call(local: LocalEngine) -> None:
    """The parent's session is closed to it, the client works for it, and its exit says nothing to the engine."""
    with callee_elsewhere(local, FORK + STAY) as (program, call, client):
        call_id = call.call_id.value
        assert call_id
        for expected in (
            "child: UTDClosedError",
            "child: UTDClosedError",
            "child sees active",
            "child is None",
            "child's exit 0",
            "still heard",
        ):
            program.expect(expected)
        assert client.get_call(call_id).status is UTDCallStatus.ACTIVE
        hears(call, CALLEE_HZ)
        call.end()
        assert program.finish()[0] == 0
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_hangup", call, client=client)


def _call_somebody_busy(app_id: str, app_key: str, base_url: str, identity: str, call_id: str) -> object:
    """In a process of a pool: accept a call that is over."""
    with UTDStreamClient(app_id, app_key, base_url=base_url) as client:
        client.authenticate(identity)
        with client.call_session("audio_call") as call:
            return call.accept(call_id)


def test_errors_of_a_pool_of_processes_keep_their_fields(local: LocalEngine) -> None:
    bob = fresh("bob")
    with signed_in(local, fresh("alice")) as client, client.call_session("audio_call") as call:
        call_id = call.start(bob).call_id
        call.end()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        job = pool.apply_async(_call_somebody_busy, (local.app_id, local.app_key, local.base_url, bob, call_id))
        with pytest.raises(UTDConflictError) as over:
            job.get(WAIT)
        assert (over.value.status_code, over.value.state, over.value.call_id) == (409, "ended", call_id)
        wrong = pool.apply_async(_call_somebody_busy, (local.app_id, "0" * 32, local.base_url, bob, call_id))
        with pytest.raises(UTDStreamException) as refused:
            wrong.get(WAIT)
        assert refused.value.status_code == 401
