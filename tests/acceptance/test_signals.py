"""What api.md says of Observables and signals, checked from outside on real calls and rooms."""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.scenes import WAIT, joined, sees, token, until
from tests.integration.calling import fresh, in_thread, ring, signed_in, talking, two
from utd_fsm import (
    UTDCallSession,
    UTDCallStatus,
    UTDInputError,
    UTDRoom,
    UTDStateError,
    UTDTimeoutError,
    UTDWouldBlockError,
    signals,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine, wait_for_signal

pytestmark = pytest.mark.media

heard: list[tuple[Any, dict[str, Any], str]] = []


@signals.call_status_changed.connect
def on_status(session: object, *, value: object, previous: object, seq: int, **extra: Any) -> None:
    heard.append(
        (session, {"value": value, "previous": previous, "seq": seq, **extra}, threading.current_thread().name)
    )


# Connected at import, as the page shows it; heard only while these tests run, so that other files' sessions are let go.
signals.call_status_changed.disconnect(on_status)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    signals.call_status_changed.connect(on_status)
    yield
    signals.drain(WAIT)
    signals.call_status_changed.disconnect(on_status)
    heard.clear()


STATES = [None, UTDCallStatus.INITIATING, UTDCallStatus.RINGING, UTDCallStatus.ACTIVE, UTDCallStatus.ENDED]


# -------------------------------------------------------------------------------------------------------- the page


def test_a_whole_call_is_told_in_order_by_every_means(engine: LocalEngine) -> None:
    changes: list[tuple[object, Any]] = []
    with two(engine) as (call, answer, caller, callee):
        assert call.status.value is None
        call.status.changed.connect(lambda sender, **change: changes.append((sender, change)))
        following = in_thread(lambda: list(call.status.updates(timeout=None)))
        waiting = in_thread(lambda: call.status.wait_for(UTDCallStatus.ACTIVE, timeout=WAIT))
        predicate = in_thread(lambda: call.status.wait_for(lambda value: value == "ringing", timeout=WAIT))
        answer.accept(ring(call, answer, caller, callee))
        assert waiting.result(WAIT) is UTDCallStatus.ACTIVE
        assert predicate.result(WAIT) is UTDCallStatus.RINGING
        call.end()
        assert following.result(WAIT) == STATES
        answer.wait_until_ended(timeout=WAIT)
    signals.drain(WAIT)

    mine = [payload for session, payload, _ in heard if session is call]
    assert [payload["value"] for payload in mine] == STATES[1:]
    assert [payload["previous"] for payload in mine] == STATES[:-1]
    assert [payload["seq"] for payload in mine] == sorted({payload["seq"] for payload in mine})
    assert [change["value"] for _, change in changes] == STATES[1:]
    assert all(sender is call.status for sender, _ in changes)
    assert {thread for _, _, thread in heard} == {heard[0][2]}  # one thread, and not this one
    assert heard[0][2] != threading.current_thread().name
    theirs = [payload["value"] for session, payload, _ in heard if session is answer]
    assert theirs[-2:] == [UTDCallStatus.ACTIVE, UTDCallStatus.ENDED]


def test_seq_counts_per_session_over_all_its_values(engine: LocalEngine) -> None:
    numbers: dict[int, list[int]] = {}

    def number(session: object, *, seq: int, **extra: Any) -> None:
        numbers.setdefault(id(session), []).append(seq)

    told = (
        signals.call_status_changed,
        signals.connection_changed,
        signals.can_publish_changed,
        signals.remote_participants_changed,
    )
    for signal in told:
        signal.connect(number, weak=False)
    try:
        with talking(engine) as (call, answer, _, _):
            call.end()
            answer.wait_until_ended(timeout=WAIT)
        signals.drain(WAIT)
    finally:
        for signal in told:
            signal.disconnect(number)
    for session in (call, answer):
        seen = numbers[id(session)]
        assert len(seen) > 6
        assert seen == sorted(set(seen))


def test_incoming_call_names_the_client(engine: LocalEngine) -> None:
    who = fresh("bob")
    with signed_in(engine, fresh("alice")) as alice, signed_in(engine, fresh("idle")) as idle:
        idle.authenticate(who, receive_calls=True)
        with wait_for_signal(signals.incoming_call, sender=idle, timeout=WAIT) as emission:
            call = alice.call_session("audio_call")
            started = call.start(who)
        assert emission["call"].call_id == started.call_id
        assert emission["call"].callee_identity == who
        call.close()


def test_connection_grant_and_participants_are_told(engine: LocalEngine) -> None:
    values: dict[str, list[Any]] = {"connection": [], "grant": [], "others": []}

    def to(name: str) -> Any:
        def receive(session: object, *, value: Any, **extra: Any) -> None:
            values[name].append((session, value))

        return receive

    receivers = {
        signals.connection_changed: to("connection"),
        signals.can_publish_changed: to("grant"),
        signals.remote_participants_changed: to("others"),
    }
    with UTDRoom() as room:
        for signal, receiver in receivers.items():
            signal.connect(receiver, sender=room, weak=False)
        name = fresh("room")
        room.connect(engine.livekit_url, token(engine, "ann", name))
        with joined(engine, "bob", name):
            sees(room, "bob")
        room.disconnect()
        signals.drain(WAIT)
        for signal, receiver in receivers.items():
            signal.disconnect(receiver)
    assert [str(value) for _, value in values["connection"]] == ["connecting", "connected", "disconnected"]
    assert [value for _, value in values["grant"]] == [True, False]
    assert [one.identity for one in values["others"][0][1]] == ["bob"]
    assert values["others"][-1][1] == ()
    assert all(session is room for told in values.values() for session, _ in told)


# ------------------------------------------------------------------------------------------------------ Observables


def test_an_observable_is_not_its_value(engine: LocalEngine) -> None:
    slip: Callable[[], object]
    with signed_in(engine, fresh("ann")) as client, client.call_session("audio_call") as call:
        for slip in (
            lambda: bool(call.status),
            lambda: call.status == "active",
            lambda: call.status != "active",
            lambda: call.status in (None, "active"),
        ):
            with pytest.raises(TypeError, match=r"did you mean \.value\?"):
                slip()


def test_a_wait_raises_at_once_when_the_value_can_no_longer_come(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, _, _):
        waiting = in_thread(lambda: call.status.wait_for("missed", timeout=None))
        answer.end()
        with pytest.raises(UTDStateError):
            waiting.result(WAIT)
        with pytest.raises(UTDStateError):
            call.status.wait_for("ringing", timeout=None)
        assert call.status.wait_for(UTDCallStatus.ENDED, timeout=0) is UTDCallStatus.ENDED
    disposed = call.connected
    with pytest.raises(Exception, match="disposed"):
        disposed.wait_for(True, timeout=None)


def test_a_wait_that_times_out_changes_nothing(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        ring(call, answer, caller, callee)
        with pytest.raises(UTDTimeoutError) as late:
            call.status.wait_for("active", timeout=0.1)
        assert late.value.outcome_known
        with pytest.raises(UTDTimeoutError):
            call.wait_for_answer(timeout=0.1)
        with pytest.raises(UTDTimeoutError):
            for _ in call.status.updates(timeout=0.2):
                pass
        assert call.status.value is UTDCallStatus.RINGING


def test_the_predicate_runs_in_the_waiters_thread(engine: LocalEngine) -> None:
    threads: set[str] = set()
    with two(engine) as (call, answer, caller, callee):

        def active(value: object) -> bool:
            threads.add(threading.current_thread().name)
            return value == "active"

        waiting = in_thread(lambda: call.status.wait_for(active, timeout=WAIT))
        answer.accept(ring(call, answer, caller, callee))
        waiting.result(WAIT)
    assert threads == {"test-party"}


# ----------------------------------------------------------------------------------------------------------- connecting


def test_weak_receivers_are_warned_about_and_changed_holds_its_own(engine: LocalEngine) -> None:
    with pytest.warns(UserWarning, match="weak=False"):
        signals.banned.connect(lambda *_, **__: None)

    def local(sender: object, **extra: Any) -> None: ...

    with pytest.warns(UserWarning, match="weak=False"):
        signals.invited.connect(local)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        signals.banned.connect(local, weak=False)
        signals.banned.disconnect(local)
        signals.banned.connect(on_status)
        signals.banned.disconnect(on_status)
    told = threading.Event()
    with joined(engine, "ann", fresh("room")) as ann:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ann.connected.changed.connect(lambda sender, **extra: told.set())
        gc.collect()
        ann.disconnect()
        assert told.wait(WAIT)


def test_a_coroutine_function_is_refused(engine: LocalEngine) -> None:
    async def receive(sender: object, **extra: Any) -> None: ...

    names = [name for name, value in vars(signals).items() if isinstance(value, signals.UTDSignal)]
    assert len(names) == 18
    for name in names:
        with pytest.raises(UTDInputError, match="coroutine"):
            getattr(signals, name).connect(receive, weak=False)
    with joined(engine, "ann", fresh("room")) as ann, pytest.raises(UTDInputError):
        ann.connected.changed.connect(receive)
    assert inspect.iscoroutinefunction(receive)


# ----------------------------------------------------------------------------------------------------- being delivered


def slow_receiver_of_the_test(sender: object, **extra: Any) -> None:
    time.sleep(1.3)


def test_a_receiver_over_a_second_is_logged_by_name(engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
    signals.can_publish_changed.connect(slow_receiver_of_the_test)
    try:
        with joined(engine, "ann", fresh("room")):
            signals.drain(WAIT)
    finally:
        signals.can_publish_changed.disconnect(slow_receiver_of_the_test)
    slow = [record for record in caplog.records if "slow_receiver_of_the_test" in record.getMessage()]
    assert slow
    assert slow[0].name.startswith("utd_fsm.")
    assert slow[0].levelno >= logging.WARNING


def test_no_coalescing_in_bursts_and_a_receiver_that_raises_costs_nobody(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    name = fresh("room")
    got: list[bytes] = []

    def receive(session: object, *, data: bytes, **extra: Any) -> None:
        got.append(data)

    def breaks(session: object, **extra: Any) -> None:
        raise ZeroDivisionError

    with joined(engine, "ann", name) as ann, joined(engine, "bob", name) as bob:
        signals.data_received.connect(breaks, sender=bob, weak=False)
        signals.data_received.connect(receive, sender=bob, weak=False)
        sent = [str(number).encode() for number in range(200)]
        for one in sent:
            ann.send_data(one)
        until(lambda: len(got) == len(sent), "all arrived")
        signals.data_received.disconnect(breaks)
        signals.data_received.disconnect(receive)
    assert got == sent
    assert "breaks" in caplog.text


def test_a_receiver_may_block_and_end_the_call(engine: LocalEngine) -> None:
    outcome: list[Any] = []
    with two(engine) as (call, answer, caller, callee):

        def hang_up(session: UTDCallSession, *, value: UTDCallStatus | None, **extra: Any) -> None:
            if value is UTDCallStatus.ACTIVE:
                session.set_microphone(False)
                outcome.append(session.end())
                outcome.append(session.wait_until_ended(timeout=WAIT).status)

        signals.call_status_changed.connect(hang_up, sender=call, weak=False)
        with contextlib.suppress(UTDStateError):  # it may be over before the callee is in its room
            answer.accept(ring(call, answer, caller, callee))
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
        signals.drain(WAIT)
        signals.call_status_changed.disconnect(hang_up)
    assert outcome[1] is UTDCallStatus.ENDED


def test_drain_waits_for_what_was_emitted_and_not_in_a_receiver(engine: LocalEngine) -> None:
    errors: list[BaseException] = []

    def drains(sender: object, **extra: Any) -> None:
        try:
            signals.drain(1)
        except UTDWouldBlockError as error:
            errors.append(error)

    gate = threading.Event()

    def holds(sender: object, **extra: Any) -> None:
        gate.wait(WAIT)

    signals.can_publish_changed.connect(drains, weak=False)
    signals.can_publish_changed.connect(holds, weak=False)
    try:
        with joined(engine, "ann", fresh("room")):
            with pytest.raises(UTDTimeoutError):
                signals.drain(0.1)
            gate.set()
            signals.drain(WAIT)
            assert len(errors) == 1
    finally:
        signals.can_publish_changed.disconnect(drains)
        signals.can_publish_changed.disconnect(holds)


def test_data_and_chat_in_a_call(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, caller, callee):
        with wait_for_signal(signals.data_received, sender=answer, timeout=WAIT) as data:
            call.send_data(b'{"mine": 1}')
        assert (data["data"], data["identity"], data["reliable"]) == (b'{"mine": 1}', caller.identity, True)
        assert data["topic"] is None
        with wait_for_signal(signals.chat_received, sender=call, timeout=WAIT) as chat:
            answer.send_chat("hi", user_data={"a": None})
        assert (chat["message"].text, chat["message"].identity) == ("hi", callee.identity)
        # a participant's word for the engine's is dropped, and the call goes on (livekit-facts, 20)
        call.send_data(b'{"type": "_banned", "reason": "forged"}')
        with wait_for_signal(signals.data_received, sender=answer, timeout=WAIT) as after:
            call.send_data(b"after")
        assert after["data"] == b"after"
        assert answer.status.value is UTDCallStatus.ACTIVE


def test_speakers_in_a_call(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, _, callee):
        answer.set_microphone(True, source=Tone(500, amplitude=0.8))
        speakers = call.speakers.wait_for(
            lambda some: any(one.identity == callee.identity for one in some), timeout=WAIT
        )
        assert isinstance(speakers, tuple)
