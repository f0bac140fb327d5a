"""api.md, the bot that calls, and Calls; behaviour.md, Client and Call: each sentence."""

from __future__ import annotations

import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance.bad_engine import bad_engine
from tests.http_stub import Reply
from tests.integration.calling import WAIT, fresh, ring, signed_in, talking, two, until
from tests.integration.gate_proxy import GateProxy
from utd_fsm import (
    UTDCall,
    UTDCallSession,
    UTDCallStatus,
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamClient,
    UTDStreamException,
    UTDStreamType,
    UTDTimeoutError,
    signals,
)
from utd_fsm.media import Tone, WavFile
from utd_fsm.media.measure import dominant_hz
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
S = UTDCallStatus


@contextmanager
def collecting(session: UTDCallSession) -> Iterator[list[UTDCallStatus]]:
    """The statuses a session shows."""
    seen: list[UTDCallStatus] = []

    def changed(_: object, *, value: UTDCallStatus, **__: object) -> None:
        seen.append(value)

    session.status.changed.connect(changed)
    yield seen
    signals.drain(timeout=10)
    session.status.changed.disconnect(changed)


def test_a_bot_that_calls(engine: LocalEngine, tmp_path: Path) -> None:
    """The first example, with somebody there who answers."""
    import wave

    hello, heard = tmp_path / "hello.wav", tmp_path / "bob.wav"
    with wave.open(str(hello), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        at = np.arange(24_000) / 48_000
        file.writeframes((np.sin(2 * np.pi * 440 * at) * 9000).astype("<i2").tobytes())
    bob_id = fresh("bob")
    with (
        engine.peer(bob_id, microphone=Tone(660)) as bob,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as client,
    ):
        bearer = client.authenticate(fresh("alice"), name="Alice")
        assert isinstance(bearer, str)
        assert bearer
        with client.call_session(UTDStreamType.AUDIO_CALL) as call:
            assert call.type is UTDStreamType.AUDIO_CALL
            assert call.call_id.value is call.status.value is None
            record = call.start(bob_id, callee_name="Bob", metadata={"order": 17})
            assert (record.caller_name, record.callee_name, dict(record.metadata)) == ("Alice", "Bob", {"order": 17})
            assert call.wait_for_answer() is UTDCallStatus.ACTIVE
            began = time.monotonic()
            call.play(WavFile(str(hello)))
            assert time.monotonic() - began >= 0.4  # it returns when the last sample is out
            recording = call.record(str(heard), seconds=1)
            assert recording.seconds == pytest.approx(1, abs=0.05)
        assert bob.wait_for_session().wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
        assert not bob.errors
    with wave.open(str(heard)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert dominant_hz(samples[-24_000:], file.getframerate()) == pytest.approx(660, abs=2)


def test_when_a_verb_returns_the_observables_show_its_effect(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        assert callee.identity
        record = call.start(callee.identity)
        assert call.status.value in (S.INITIATING, S.RINGING)
        assert call.call_id.value == record.call_id
        assert call.connected.value
        assert call.can_publish.value
        assert call.local_participant is not None
        assert call.local_participant.tracks  # published
        assert caller.sessions == (call,)
        incoming = callee.wait_for_call()
        assert incoming is not None
        answer.ringing(incoming)
        assert answer.status.value == "ringing"
        assert answer.call_id.value == record.call_id
        accepted = answer.accept(incoming)
        assert (accepted.status, answer.status.value) == (S.ACTIVE, S.ACTIVE)
        assert answer.connected.value
        assert answer.local_participant is not None
        assert answer.local_participant.tracks
        assert call.wait_for_answer() is S.ACTIVE
        assert call.duration is not None
        ended = answer.end()
        assert ended is not None
        assert ended.status is answer.status.value is S.ENDED
        assert not answer.connected.value
        assert callee.sessions == ()
        assert call.wait_until_ended().status is S.ENDED
        until(lambda: not call.connected.value, "the caller is out, too")


def test_busy_is_a_status_and_no_error(engine: LocalEngine) -> None:
    with talking(engine) as (_, __, ___, callee), signed_in(engine, fresh("carol")) as carol:
        assert callee.identity
        with carol.call_session("audio_call") as call, collecting(call) as seen:
            record = call.start(callee.identity)
            assert record.status is call.status.value is S.BUSY
            assert call.wait_for_answer(timeout=0) is S.BUSY
            assert call.wait_until_ended(timeout=0).status is S.BUSY
            assert not call.connected.value
            assert call.duration is None
            assert call.end() == record
        assert seen == [S.BUSY]


def test_accept_of_what_is_over_or_taken_says_the_engines_state(engine: LocalEngine) -> None:
    with (
        two(engine) as (call, answer, caller, callee),
        signed_in(engine, str(callee.identity)) as other,
        other.call_session("audio_call") as second,
    ):
        incoming = ring(call, answer, caller, callee)
        answer.accept(incoming)
        with pytest.raises(UTDStateError) as taken:
            second.accept(incoming)
        assert taken.value.call_id == incoming.call_id
        assert taken.value.state == "answered_elsewhere"
        assert taken.value.status_code == 409
        assert call.wait_for_answer() is S.ACTIVE
        call.end()
        with pytest.raises(UTDStateError) as over:
            second.accept(incoming)
        assert over.value.state == "ended"
        again = ring(call, answer, caller, callee)
        call.end()
        with pytest.raises(UTDStateError) as cancelled:
            second.accept(again.call_id)
        assert (cancelled.value.state, cancelled.value.call_id) == ("ended", again.call_id)


def test_verbs_take_an_id_or_a_call_and_accept_without_ringing_is_legal(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        assert callee.identity
        for act, taking, status in (
            ("ringing", str, S.RINGING),
            ("reject", str, S.REJECTED),
            ("busy", str, S.BUSY),
            ("ringing", UTDCall, S.RINGING),
            ("reject", UTDCall, S.REJECTED),
            ("busy", UTDCall, S.BUSY),
            ("accept", str, S.ACTIVE),
            ("accept", UTDCall, S.ACTIVE),
        ):
            started = call.start(callee.identity)
            told = getattr(answer, act)(started.call_id if taking is str else callee.get_call(started.call_id))
            assert told.status is answer.status.value is status
            assert told.call_id == started.call_id
            call.status.wait_for(status, timeout=WAIT)
            assert caller.get_call(started.call_id).status is status
            if not status.is_terminal:
                caller.end_call(started if taking is UTDCall else started.call_id)
            answer.wait_until_ended(timeout=WAIT)
            call.wait_until_ended(timeout=WAIT)


def test_one_call_at_a_time_and_a_new_one_after_it_ended(engine: LocalEngine) -> None:
    with (
        two(engine) as (call, answer, caller, callee),
        signed_in(engine, fresh("carol")) as carol,
        carol.call_session("audio_call") as third,
    ):
        incoming = ring(call, answer, caller, callee)
        assert carol.identity
        assert callee.identity
        with pytest.raises(UTDStateError, match="one call at a time"):
            call.start(carol.identity)
        answer.accept(incoming)
        for refused in (
            lambda: call.start(str(carol.identity)),
            lambda: answer.start(str(carol.identity)),
            lambda: answer.accept("call_" + "0" * 24),
        ):
            act: Any = refused
            with pytest.raises(UTDStateError):
                act()
        assert call.wait_for_answer() is S.ACTIVE
        assert {call.status.value, answer.status.value} == {S.ACTIVE}
        # One identity holds one call, whichever session asks.
        with caller.call_session("audio_call") as more, pytest.raises(UTDStateError) as held:
            more.start(carol.identity)
        assert isinstance(held.value, UTDEngineError)
        assert third.start(callee.identity).status is S.BUSY
        with pytest.raises(UTDTimeoutError):
            call.wait_until_ended(timeout=0.3)
        call.end()
        answer.wait_until_ended()
        assert call.end_reason == answer.end_reason == "caller_hangup"
        durations = call.duration, answer.duration
        assert None not in durations
        time.sleep(0.05)
        assert (call.duration, answer.duration) == durations
        second = ring(call, answer, caller, callee)
        assert second.call_id != incoming.call_id
        assert not [fact for fact in (call.end_reason, answer.end_reason, call.duration, answer.duration) if fact]
        answer.reject(second)
        assert call.wait_until_ended().status is S.REJECTED
        assert call.duration is None
        call.dispose()
        assert call.call is not None
        assert call.call.status is call.status.value is S.REJECTED


def test_a_call_that_nobody_answers() -> None:
    with local_engine(media="embedded", ring_timeout=3) as quick, two(quick) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        assert call.wait_for_answer(timeout=WAIT) is S.MISSED
        assert answer.wait_until_ended(timeout=WAIT).status is S.MISSED
        with pytest.raises(UTDStateError) as late:
            answer.accept(incoming)
        assert late.value.state == "missed"


@pytest.mark.parametrize("verb", ["start", "accept"])
def test_all_or_nothing(engine: LocalEngine, way: Way, verb: str) -> None:
    """The room cannot be joined: the engine's call is ended, and the error says which it was."""
    there = way()
    at = {"caller_way": there} if verb == "start" else {"callee_way": there}
    with two(engine, **at) as (call, answer, caller, callee):
        assert callee.identity
        there.rewrite("POST", "/calls", lambda data: data.update(url="ws://127.0.0.1:9"))
        for route in ("accept", "token"):
            there.rewrite("POST", f"/calls/*/{route}", lambda data: data.update(url="ws://127.0.0.1:9"))
        if verb == "start":
            with pytest.raises(UTDConnectionError) as failed:
                call.start(callee.identity)
        else:
            call.start(callee.identity)
            incoming = callee.wait_for_call()
            assert incoming is not None
            with pytest.raises(UTDConnectionError) as failed:
                answer.accept(incoming)
        call_id = failed.value.call_id
        assert call_id
        until(lambda: caller.get_call(call_id).status.is_terminal, "it is ended in the background")
        mine = call if verb == "start" else answer
        assert mine.wait_until_ended(timeout=WAIT).call_id == call_id
        assert not mine.connected.value


def test_an_idempotency_key_rings_once(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        assert callee.identity
        started = call.start(callee.identity, idempotency_key="task-17")
        with signed_in(engine, str(caller.identity)) as redelivered, redelivered.call_session("audio_call") as again:
            assert again.start(callee.identity, idempotency_key="task-17").call_id == started.call_id
            assert callee.calls().total == 1
            incoming = callee.wait_for_call()
            assert incoming is not None
            answer.accept(incoming)
            assert again.wait_for_answer() is S.ACTIVE


def test_a_process_that_has_no_session(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        with signed_in(engine, str(caller.identity)) as task:
            assert task.get_call(incoming.call_id) == task.get_call(incoming)
            assert [one.call_id for one in task.calls(status="ringing").calls] == [incoming.call_id]
            assert task.calls(status=S.ACTIVE).total == 0
            assert task.calls(type="video_call").total == 0
            assert task.calls(identity=str(caller.identity)).total == 1
            with pytest.raises(UTDPermissionError):
                task.calls(identity=str(callee.identity))
            ended = task.end_call(incoming.call_id)
            assert ended.status is S.ENDED
            assert task.end_call(incoming) == ended
            with pytest.raises(UTDEngineError) as unknown:
                task.get_call("call_" + "0" * 24)
            assert unknown.value.status_code == 404
        assert call.wait_until_ended(timeout=WAIT).end_reason == "caller_cancelled"
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_cancelled"


@pytest.mark.parametrize("verb", ["ringing", "accept", "reject", "busy"])
def test_a_call_that_the_engine_does_not_know(engine: LocalEngine, verb: str) -> None:
    with two(engine) as (call, answer, caller, callee):
        with pytest.raises(UTDEngineError) as unknown:
            getattr(answer, verb)("call_" + "0" * 24)
        assert unknown.value.status_code == 404
        answer.accept(ring(call, answer, caller, callee))


@pytest.mark.parametrize("verb", ["ringing", "accept", "reject", "busy"])
def test_somebody_elses_call(engine: LocalEngine, verb: str) -> None:
    with (
        two(engine) as (call, answer, caller, callee),
        signed_in(engine, fresh("mallory")) as mallory,
        mallory.call_session("audio_call") as third,
    ):
        incoming = ring(call, answer, caller, callee)
        with pytest.raises(UTDPermissionError) as refused:
            getattr(third, verb)(incoming)
        assert isinstance(refused.value, UTDEngineError)
        assert refused.value.is_forbidden
        assert call.status.value is answer.status.value is S.RINGING
        assert third.start(fresh("nobody")).status is S.INITIATING


def test_a_session_keeps_its_identity_and_bearer(engine: LocalEngine) -> None:
    with bad_engine(engine) as front, UTDStreamClient(engine.app_id, engine.app_key, base_url=front.url) as client:
        first = client.authenticate(alice := fresh("alice"))
        session = client.call_session("audio_call")
        second = client.authenticate(fresh("carol"))
        assert client.identity != alice
        record = session.start(fresh("bob"))
        assert record.caller_identity == alice
        assert front.headers("POST /calls")[0]["authorization"] == f"Bearer {first}"
        session.end()
        with client.call_session("audio_call") as other:
            assert other.start(fresh("bob")).caller_identity == client.identity
        assert front.headers("POST /calls")[1]["authorization"] == f"Bearer {second}"


def test_a_401_mints_the_bearer_again_once(engine: LocalEngine) -> None:
    with bad_engine(engine) as front, UTDStreamClient(engine.app_id, engine.app_key, base_url=front.url) as client:
        client.authenticate(fresh("alice"))
        left = [1]

        def once(_: bytes) -> Reply:
            if left:
                left.pop()
                front.mend()
            return Reply(status=401, json={"message": "expired"})

        front.spoil("POST", "/calls", once)
        with client.call_session("audio_call") as call:
            call.start(fresh("bob"))
            assert front.paths().count("POST /auth/session") == 2
            assert front.paths().count("POST /calls") == 2
            call.end()
            front.spoil("POST", "/calls", Reply(status=401, json={"message": "suspended"}))
            with pytest.raises(UTDEngineError) as refused:
                call.start(fresh("bob"))
            assert refused.value.status_code == 401
            assert front.paths().count("POST /auth/session") == 3
            assert call.status.value is None


def test_the_client_holds_sessions_until_they_end(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        with caller.call_session("audio_call") as idle:
            assert idle not in caller.sessions
        del idle

        def begin() -> weakref.ref[UTDCallSession]:
            session = callee.call_session("audio_call")
            session.accept(ring(call, answer, caller, callee))
            return weakref.ref(session)

        held = begin()
        gc.collect()
        assert held() is not None
        assert held() in callee.sessions
        call.end()
        until(lambda: not callee.sessions, "it has ended")

        def gone() -> bool:
            signals.drain(timeout=10)
            gc.collect()
            return held() is None

        until(gone, "nobody holds it any more")


def test_only_call_types(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("alice")) as client:
        for kind in ("live_stream", UTDStreamType.AUDIO_ROOM, "fax", None, 5):
            with pytest.raises(UTDInputError, match="audio_call"):
                client.call_session(kind)  # type: ignore[arg-type]
        with client.call_session("video_call") as call:
            assert call.type is UTDStreamType.VIDEO_CALL


def test_two_callers_in_threads_and_a_camera(engine: LocalEngine) -> None:
    """Both publish, and camera for video; the room holds two."""
    with (
        engine.peer(bob := fresh("bob")) as peer,
        signed_in(engine, fresh("alice")) as client,
        client.call_session("video_call") as call,
    ):
        call.start(bob)
        assert call.wait_for_answer() is S.ACTIVE
        [other] = call.remote_participants.wait_for(lambda others: others and len(others[0].tracks) == 2, timeout=WAIT)
        assert {str(track.source) for track in other.tracks} == {"microphone", "camera"}
        with call.watch() as pictures:
            assert next(iter(pictures)).identity == bob
        assert peer.wait_for_session().type is UTDStreamType.VIDEO_CALL


def test_errors_pickle_with_their_fields(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        call.end()
        with pytest.raises(UTDStreamException) as failed:
            answer.accept(incoming)
        copy = pickle.loads(pickle.dumps(failed.value))
        assert type(copy) is type(failed.value)
        assert vars(copy) == vars(failed.value)
        assert copy.call_id == incoming.call_id


def test_no_bearer_or_key_is_shown(engine: LocalEngine) -> None:
    with engine.client() as client:
        bearer = client.authenticate(fresh("alice"))
        with client.call_session("audio_call") as call:
            call.start(fresh("bob"))
            shown = repr([client, call, call.call, client.sessions, vars(client), call.status, threading.enumerate()])
            for secret in (bearer, engine.app_key, str(engine.app_secret)):
                assert secret not in shown


def test_a_disposed_session_and_a_closed_client_say_so(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("alice")) as client:
        call = client.call_session("audio_call")
        call.dispose()
        call.dispose()
        with pytest.raises(UTDClosedError):
            call.start("bob")
        open_session = client.call_session("audio_call")
        client.close()
        client.dispose()
        for refused in (
            lambda: open_session.start("bob"),
            lambda: client.authenticate("alice"),
            lambda: client.call_session("audio_call"),
            lambda: client.calls(),
            lambda: client.get_call("call_" + "0" * 24),
        ):
            with pytest.raises(UTDClosedError):
                refused()
