"""Many threads on one client or session, many calls through one process, many waiters for a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from tests.integration.calling import CALLER_HZ, WAIT, agreed, fresh, hears, in_thread, ring, signed_in, talking, two
from tests.integration.conftest import Engines
from tests.integration.gate_proxy import GateProxy
from utd_fsm import (
    UTDCall,
    UTDCallStatus,
    UTDClosedError,
    UTDStateError,
    UTDStreamClient,
    UTDTimeoutError,
)
from utd_fsm.local.processes import find_livekit_server
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

CALLS = 20


def test_eight_threads_start_on_one_session(local: LocalEngine) -> None:
    """One has the call; the others are refused, and nothing of theirs reaches the engine."""
    with two(local) as (call, _, caller, callee):
        together = threading.Barrier(8)

        def start() -> UTDCall:
            together.wait(WAIT)
            return call.start(callee.identity or "")

        outcomes = [in_thread(start) for _ in range(8)]
        errors = [one.exception(WAIT) for one in outcomes]
        assert sum(error is None for error in errors) == 1
        assert all(isinstance(error, UTDStateError) for error in errors if error is not None), errors
        assert caller.calls().total == 1
        call.end()
        assert call.call is not None
        agreed(local, call.call.call_id, UTDCallStatus.ENDED, "caller_cancelled", call, client=caller)


def test_eight_threads_ask_everything_of_one_call(local: LocalEngine) -> None:
    """Each gets its own answer, and the call is what it was."""
    with talking(local) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        together = threading.Barrier(8)

        def ask(number: int) -> list[object]:
            together.wait(WAIT)
            answers: list[object] = []
            for turn in range(5):
                call.set_microphone((number + turn) % 2 == 0)
                answers += [
                    caller.get_call(call_id).status,
                    call.status.wait_for(UTDCallStatus.ACTIVE, timeout=WAIT),
                    call.wait_for_answer(timeout=WAIT),
                ]
                call.send_data(f"{number} {turn}".encode())
                with pytest.raises(UTDTimeoutError):
                    call.wait_until_ended(timeout=0)
            return answers

        for done in [in_thread(partial(ask, number)) for number in range(8)]:
            assert set(done.result(WAIT)) == {UTDCallStatus.ACTIVE}
        call.set_microphone(True)
        hears(answer, CALLER_HZ)
        ends = [in_thread(call.end) for _ in range(8)]
        assert {end.result(WAIT) is not None for end in ends} == {True}
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_twenty_calls_at_once_of_forty_identities(engines: Engines) -> None:
    """Through one process: every party hears its own other side, and nobody else's.

    Forty encoders and decoders are the work of half a small machine. So they come in a few at a time, all are in
    their calls together, and whoever has heard the other side hangs up and makes room. LiveKit's own server, where it
    is installed: the embedded one would take the other half.
    """
    engine = engines.get("livekit-server" if find_livekit_server() is not None else "embedded")
    coming_in, together = threading.Semaphore(4), threading.Barrier(CALLS)

    def one_call(number: int) -> UTDCall:
        tones = 300.0 + 40 * number, 1200.0 + 40 * number
        with (
            signed_in(engine, fresh("alice")) as caller,
            signed_in(engine, fresh("bob")) as callee,
            caller.call_session("audio_call", microphone=Tone(tones[0])) as call,
            callee.call_session("audio_call", microphone=Tone(tones[1])) as answer,
        ):
            with coming_in:
                answer.accept(ring(call, answer, caller, callee), timeout=WAIT)
                assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
            together.wait(WAIT)
            other = in_thread(partial(hears, answer, tones[0]))
            hears(call, tones[1])
            other.result(WAIT)
            call_id = call.call_id.value
            assert call_id
            call.end()
            return agreed(engine, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)

    records = [done.result(2 * WAIT) for done in [in_thread(partial(one_call, number)) for number in range(CALLS)]]
    assert len({record.call_id for record in records}) == CALLS
    last_answer = max(record.answered_at for record in records if record.answered_at)
    assert all(record.ended_at and record.ended_at > last_answer for record in records)  # all at once


# ------------------------------------------------------------------------------------------------- who gets a call


@contextmanager
def calling(engine: LocalEngine, callees: list[str]) -> Iterator[list[str]]:
    """Somebody else calls each of them; the ids, in their order."""
    with ExitStack() as stack:
        ids = []
        for callee in callees:
            client = stack.enter_context(signed_in(engine, fresh("caller")))
            ids.append(stack.enter_context(client.call_session("audio_call")).start(callee).call_id)
        yield ids


def test_each_call_goes_to_exactly_one_of_several_waiters(local: LocalEngine) -> None:
    """First come, first served; one after the other, since an identity holds one call."""
    with signed_in(local, fresh("bob")) as client, client.call_session("audio_call") as answer:
        assert client.identity
        taken: list[str] = []
        handed_out = threading.Semaphore(0)
        lock = threading.Lock()

        def take() -> None:
            for incoming in client.incoming_calls:
                with lock:
                    taken.append(incoming.call_id)
                handed_out.release()

        waiters = [in_thread(take) for _ in range(4)]
        ids = []
        for _ in range(6):
            with calling(local, [client.identity]) as (call_id,):
                ids.append(call_id)
                assert handed_out.acquire(timeout=WAIT)
                answer.reject(call_id)
        client.close()
        for waiter in waiters:
            assert waiter.result(WAIT) is None
        assert taken == ids


def test_a_cancelled_call_is_skipped(local: LocalEngine) -> None:
    """Nobody waited while it rang; the next waiter gets the call that rings now."""
    with signed_in(local, fresh("bob")) as client:
        assert client.identity
        with pytest.raises(UTDTimeoutError):
            client.wait_for_call(timeout=0.05)
        with calling(local, [client.identity]):
            pass  # cancelled by leaving
        with calling(local, [client.identity]) as (call_id,):
            incoming = client.wait_for_call(timeout=WAIT)
            assert incoming is not None
            assert incoming.call_id == call_id


def test_a_wait_for_a_call_that_times_out_changes_nothing(local: LocalEngine) -> None:
    with signed_in(local, fresh("bob")) as client:
        with pytest.raises(UTDTimeoutError) as nobody:
            client.wait_for_call(timeout=0.2)
        assert nobody.value.outcome_known
        with calling(local, [client.identity or ""]) as (call_id,):
            incoming = client.wait_for_call(timeout=WAIT)
            assert incoming is not None
            assert incoming.call_id == call_id


def test_waiting_ends_when_the_client_is_closed(local: LocalEngine) -> None:
    with signed_in(local, fresh("bob")) as client:
        loop: Future[list[UTDCall]] = in_thread(lambda: list(client.incoming_calls))
        one = in_thread(lambda: client.wait_for_call(timeout=None))
        for waiting in (loop, one):
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        client.close()
        assert loop.result(WAIT) == []
        assert one.result(WAIT) is None
        with pytest.raises(UTDClosedError):
            client.call_session("audio_call")


def test_nothing_listens_until_somebody_asks(local: LocalEngine) -> None:
    """A web worker takes no calls by accident: no socket, no poll."""
    with GateProxy(local.base_url) as way, signed_in(local, fresh("bob"), way) as client:
        with calling(local, [client.identity or ""]):
            assert client.calls().total == 1
        assert way.sockets == 0
        assert [passed.path for passed in way.state.seen] == ["/auth/session", "/calls"]


# -------------------------------------------------------------------------------------------------- waits on status


def test_updates_and_waits_follow_one_call(local: LocalEngine) -> None:
    with two(local) as (call, answer, _, callee):
        with pytest.raises(UTDStateError):
            call.wait_for_answer()
        updates = call.status.updates(timeout=WAIT)
        assert next(updates) is None
        follow = in_thread(lambda: list(updates))
        later = in_thread(lambda: call.status.wait_for(UTDCallStatus.ACTIVE, timeout=WAIT))
        some = in_thread(lambda: call.status.wait_for(lambda value: value in ("ringing", "active"), timeout=WAIT))
        call.start(callee.identity or "")
        incoming = callee.wait_for_call(timeout=WAIT)
        assert incoming is not None
        answer.ringing(incoming)
        assert some.result(WAIT) is UTDCallStatus.RINGING
        with pytest.raises(UTDTimeoutError) as early:
            call.wait_for_answer(timeout=0.05)
        assert early.value.outcome_known
        never = in_thread(lambda: call.status.wait_for(UTDCallStatus.MISSED, timeout=None))
        answer.accept(incoming)
        assert later.result(WAIT) is UTDCallStatus.ACTIVE
        answer.end()
        with pytest.raises(UTDStateError) as gone:
            never.result(WAIT)
        assert gone.value.state == "ended"
        assert call.wait_until_ended(timeout=WAIT).end_reason == "callee_hangup"
        seen: list[object] = []
        try:
            seen = list(follow.result(WAIT))
        except UTDStateError as over:
            assert over.state == "ended"
        assert seen in ([], ["initiating", "ringing", "active", "ended"])


def test_nobody_is_called_before_signing_in(local: LocalEngine) -> None:
    with UTDStreamClient(local.app_id, local.app_key, base_url=local.base_url) as nobody, pytest.raises(UTDStateError):
        nobody.wait_for_call(timeout=1)
