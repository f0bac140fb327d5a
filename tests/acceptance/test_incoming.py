"""api.md, Incoming calls, and the bot that answers: each sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, signed_in, until
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDCall, UTDCallStatus, UTDClosedError, UTDStateError, UTDStreamClient, UTDTimeoutError, signals
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


def test_nothing_listens_until_somebody_asks(engine: LocalEngine, way: Way) -> None:
    there = way()
    with (
        signed_in(engine, fresh("alice")) as caller,
        signed_in(engine, fresh("bob"), there) as callee,
        caller.call_session("audio_call") as call,
        callee.call_session("audio_call"),
    ):
        assert callee.identity
        heard: list[UTDCall] = []
        hear = signals.incoming_call.connect(lambda client, *, call, **_: heard.append(call), sender=callee, weak=False)
        call.start(callee.identity)
        call.status.wait_for(UTDCallStatus.INITIATING)
        with pytest.raises(UTDTimeoutError):
            call.wait_for_answer(timeout=1.5)
        assert there.paths("GET") == []
        assert there.sockets == 0
        assert heard == []
        incoming = callee.wait_for_call(timeout=WAIT)
        assert incoming is not None
        assert there.sockets == 1
        signals.incoming_call.disconnect(hear)


def test_receive_calls_is_for_signals(engine: LocalEngine) -> None:
    with (
        signed_in(engine, fresh("alice")) as caller,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as callee,
        caller.call_session("audio_call") as call,
    ):
        told: list[tuple[object, UTDCall]] = []

        def hear(client: object, *, call: UTDCall, **_: object) -> None:
            told.append((client, call))

        signals.incoming_call.connect(hear, weak=False)
        callee.authenticate(bob := fresh("bob"), receive_calls=True)
        started = call.start(bob, callee_name="Bob", metadata={"order": 17})
        until(lambda: told, "the signal")
        signals.incoming_call.disconnect(hear)
        [(sender, incoming)] = told
        assert sender is callee
        assert incoming.call_id == started.call_id
        assert (incoming.callee_name, dict(incoming.metadata)) == ("Bob", {"order": 17})
        # What was told by a signal is there for a waiter, too.
        handed = callee.wait_for_call(timeout=WAIT)
        assert handed is not None
        assert handed.call_id == started.call_id


def test_each_call_goes_to_exactly_one_waiter_first_come_first_served(engine: LocalEngine) -> None:
    with (
        signed_in(engine, fresh("alice")) as alice,
        signed_in(engine, fresh("carol")) as carol,
        signed_in(engine, fresh("bob")) as bob,
        alice.call_session("audio_call") as one,
        carol.call_session("audio_call") as two,
    ):
        assert bob.identity
        first = in_thread(lambda: bob.wait_for_call(timeout=None))
        with pytest.raises(UTDTimeoutError):  # a waiter that goes away swallows none
            bob.wait_for_call(timeout=0.3)
        second = in_thread(lambda: bob.wait_for_call(timeout=None))
        started = one.start(bob.identity)
        got = first.result(WAIT)
        assert got is not None
        assert got.call_id == started.call_id
        assert not second.done()
        one.end()
        started = two.start(bob.identity)
        got = second.result(WAIT)
        assert got is not None
        assert got.call_id == started.call_id
        with pytest.raises(UTDTimeoutError):  # snapshot, poll and frame are one call
            bob.wait_for_call(timeout=2)


def test_one_that_is_no_longer_ringing_is_skipped(engine: LocalEngine) -> None:
    with (
        signed_in(engine, fresh("alice")) as alice,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as bob,
        alice.call_session("audio_call") as call,
    ):
        bob.authenticate(who := fresh("bob"), receive_calls=True)
        call.start(who)
        call.end()
        started = call.start(who)
        got = bob.wait_for_call(timeout=WAIT)
        assert got is not None
        assert got.call_id == started.call_id


def test_a_closed_client_gives_none(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("bob")) as client:
        waits = [in_thread(lambda: client.wait_for_call(timeout=None)) for _ in range(3)]
        loop = in_thread(lambda: list(client.incoming_calls))
        until(lambda: not any(waiting.done() for waiting in waits), "they wait")
        client.close()
        assert [waiting.result(WAIT) for waiting in waits] == [None] * 3
        assert loop.result(WAIT) == []
        assert client.wait_for_call() is None
        assert client.wait_for_call(timeout=0) is None
        assert list(client.incoming_calls) == []
        for refused in (lambda: client.call_session("audio_call"), lambda: client.authenticate("x")):
            with pytest.raises(UTDClosedError):
                refused()


def test_nobody_is_signed_in(engine: LocalEngine) -> None:
    with engine.client() as client:
        assert client.identity is None
        for refused in (
            lambda: client.wait_for_call(timeout=1),
            lambda: next(client.incoming_calls),
            lambda: client.call_session("audio_call"),
            lambda: client.get_call("call_" + "0" * 24),
            lambda: client.calls(),
        ):
            with pytest.raises(UTDStateError, match="authenticate"):
                refused()


def test_signing_in_again_ends_no_iteration_and_gives_no_call_twice(engine: LocalEngine) -> None:
    """A bot's loop ends when the client is closed, not when its bearer is minted again."""
    with (
        signed_in(engine, fresh("alice")) as alice,
        signed_in(engine, fresh("carol")) as carol,
        signed_in(engine, fresh("bob")) as bob,
        alice.call_session("audio_call") as one,
        carol.call_session("audio_call") as two,
    ):
        assert bob.identity
        calls: list[UTDCall] = []

        def loop() -> None:
            for incoming in bob.incoming_calls:
                calls.insert(len(calls), incoming)

        looping = in_thread(loop)
        started = [one.start(bob.identity)]
        until(lambda: len(calls) == 1, "the first call")
        bob.authenticate(bob.identity, name="Bob")
        one.end()
        until(lambda: alice.get_call(started[0]).status.is_terminal, "it is over")
        started.append(two.start(bob.identity))
        until(lambda: len(calls) >= 2, "the second call")
        bob.authenticate(bob.identity)
        with pytest.raises(UTDTimeoutError):
            bob.wait_for_call(timeout=2)
        assert not looping.done()
        bob.close()
        looping.result(WAIT)
        assert [call.call_id for call in calls] == [call.call_id for call in started]


def test_a_bot_that_answers(engine: LocalEngine) -> None:
    """The second example, with a caller that cancels once: that call raises inside, and the loop goes on."""
    errors: list[Exception] = []
    heard: list[int] = []
    with signed_in(engine, fresh("bob")) as client, signed_in(engine, fresh("alice")) as alice:
        from utd_fsm import UTDStreamException
        from utd_fsm.media import Tone

        def bot() -> int:
            count = 0
            for incoming in client.incoming_calls:
                count += 1
                try:
                    with client.call_session(incoming.type, microphone=Tone(440)) as call:
                        call.ringing(incoming)
                        if count == 1:
                            alice.end_call(incoming)
                        call.accept(incoming)
                        heard.extend(len(frame.samples) for frame in call.listen(seconds=0.5))
                        call.wait_until_ended()
                except UTDStreamException as error:
                    errors.append(error)
            return count

        running = in_thread(bot)
        assert client.identity
        with alice.call_session("video_call") as call:
            call.start(client.identity)
            assert call.wait_for_answer() is UTDCallStatus.ENDED
        with alice.call_session("audio_call", microphone=Tone(660)) as call:
            call.start(client.identity)
            assert call.wait_for_answer() is UTDCallStatus.ACTIVE
            until(lambda: sum(heard) >= 24_000, "half a second is heard")
        client.close()
        assert running.result(WAIT) == 2
    assert 24_000 <= sum(heard) <= 24_960  # whole frames of 20 ms
    [error] = errors
    assert isinstance(error, UTDStateError)
    assert error.state == "ended"
    assert error.call_id
