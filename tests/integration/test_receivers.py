"""Receivers that block, raise, or ask the session for something: nothing deadlocks, nobody else's signal is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.integration.calling import WAIT, agreed, fresh, in_thread, ring, signed_in, talking, two, until
from utd_fsm import UTDCallSession, UTDCallStatus, UTDClosedError, UTDStateError, signals
from utd_fsm.testing import LocalEngine, wait_for_signal

pytestmark = pytest.mark.media

WHOLE = ["initiating", "ringing", "active", "ended"]


@contextmanager
def receiving(receiver: Callable[..., Any], sender: object) -> Iterator[None]:
    signals.call_status_changed.connect(receiver, sender=sender, weak=False)
    try:
        yield
        signals.drain(WAIT)
    finally:
        signals.call_status_changed.disconnect(receiver, sender=sender)


class Notes:
    """What a receiver heard, and on which thread."""

    def __init__(self) -> None:
        self.values: list[str | None] = []
        self.seqs: list[int] = []
        self.threads: set[str] = set()

    def __call__(self, session: object, *, value: UTDCallStatus | None, seq: int, **extra: object) -> None:
        self.values.append(value)
        self.seqs.append(seq)
        self.threads.add(threading.current_thread().name)


def a_whole_call(engine: LocalEngine, receiver: Callable[..., Any]) -> Notes:
    """A call from start to end; `receiver` is connected to the caller's session first, and somebody else second."""
    notes = Notes()
    with (
        two(engine) as (call, answer, caller, callee),
        receiving(receiver, call),
        receiving(notes, call),
    ):
        incoming = ring(call, answer, caller, callee)
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        answer.end()
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)
    return notes


def test_one_that_blocks(local: LocalEngine) -> None:
    """Verbs and waits go on without it, and whoever else receives gets everything, in order, once it lets go."""
    blocked, release, notes = threading.Event(), threading.Event(), Notes()

    def block(session: object, **extra: object) -> None:
        blocked.set()
        release.wait(WAIT)

    with two(local) as (call, answer, caller, callee), receiving(block, call), receiving(notes, call):
        incoming = ring(call, answer, caller, callee)
        assert blocked.wait(WAIT)
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        call.end()
        assert call.status.value is UTDCallStatus.ENDED
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)
        assert notes.values == []
        release.set()
        signals.drain(WAIT)
        assert notes.values == WHOLE
        assert notes.seqs == sorted(set(notes.seqs))
        assert notes.threads == {"utd-fsm-signals"}


@pytest.mark.usefixtures("receivers_raise")
def test_one_that_raises(local: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
    def fail(session: object, *, value: UTDCallStatus | None, **extra: object) -> None:
        raise KeyError(f"a fault of the application at {value}")

    assert a_whole_call(local, fail).values == WHOLE
    assert caplog.text.count("a fault of the application") >= len(WHOLE)
    assert "fail" in caplog.text


def test_one_that_asks_and_waits(local: LocalEngine) -> None:
    """Blocking methods may be called from a receiver: also those that wait for what comes later."""
    found: list[object] = []

    def ask(session: UTDCallSession, *, value: UTDCallStatus | None, **extra: object) -> None:
        if value is UTDCallStatus.RINGING:
            found.append(session.wait_for_answer(timeout=WAIT))
        found.append(session.call.status if session.call else None)

    assert a_whole_call(local, ask).values == WHOLE
    assert found[1] is UTDCallStatus.ACTIVE
    assert found[-1] is UTDCallStatus.ENDED


@pytest.mark.parametrize("how", ["end", "dispose", "client.close"])
def test_one_that_hangs_up(local: LocalEngine, how: str) -> None:
    """As soon as the call is active, from inside the receiver."""
    notes = Notes()
    with two(local) as (call, answer, caller, callee), signed_in(local, fresh("carol")) as watcher:
        deeds: dict[str, Callable[[], object]] = {
            "end": call.end,
            "dispose": call.dispose,
            "client.close": caller.close,
        }

        def hang_up(session: object, *, value: UTDCallStatus | None, **extra: object) -> None:
            if value is UTDCallStatus.ACTIVE:
                deeds[how]()

        with receiving(hang_up, call), receiving(notes, call):
            incoming = ring(call, answer, caller, callee)
            with suppress(UTDStateError):  # it may be over before the callee has joined
                answer.accept(incoming)
            assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
            until(lambda: call.status.value is UTDCallStatus.ENDED, "the caller's session shows it")
        assert notes.values == WHOLE
        agreed(local, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", answer, client=callee)
        if how != "end":
            with pytest.raises(UTDClosedError):
                call.start(watcher.identity or "")


def test_one_that_answers(local: LocalEngine) -> None:
    """`authenticate(…, receive_calls=True)` and the signal: the whole of a callee inside a receiver."""
    bob = fresh("bob")
    with (
        signed_in(local, fresh("alice")) as caller,
        caller.call_session("audio_call") as call,
        local.client() as callee,
    ):
        callee.authenticate(bob, receive_calls=True)
        answer = callee.call_session("audio_call")

        def take(client: object, *, call: Any, **extra: object) -> None:
            answer.ringing(call)
            answer.accept(call)

        signals.incoming_call.connect(take, sender=callee, weak=False)
        try:
            with wait_for_signal(signals.call_status_changed, sender=answer, timeout=WAIT):
                started = call.start(bob)
            assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        finally:
            signals.incoming_call.disconnect(take, sender=callee)
        call.end()
        agreed(local, started.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_changed_of_one_observable(local: LocalEngine) -> None:
    """`.changed` holds its receivers; what is set while somebody receives slowly is not skipped."""
    seen: list[tuple[object, object]] = []
    with talking(local) as (call, answer, _, _):
        call.connection.changed.connect(lambda observable, *, value, previous, **extra: seen.append((previous, value)))
        done = in_thread(answer.end)
        call.wait_until_ended(timeout=WAIT)
        done.result(WAIT)
        until(lambda: not call.connected.value, "the caller has left the room")
        signals.drain(WAIT)
    assert seen == [("connected", "disconnected")]
