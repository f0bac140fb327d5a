"""What is played is heard: playing, recording, listening and watching in real calls, measured at the other side."""

from __future__ import annotations

import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.integration.calling import (
    CALLEE_HZ,
    CALLER_HZ,
    RATE,
    WAIT,
    agreed,
    fresh,
    hears,
    in_thread,
    ring,
    signed_in,
    talking,
    two,
)
from utd_fsm import (
    UTDCallSession,
    UTDCallStatus,
    UTDInputError,
    UTDParticipant,
    UTDStateError,
    UTDStreamType,
    UTDTimeoutError,
)
from utd_fsm.media import AudioFeed, TestPattern, Tone, VideoFeed, WavFile
from utd_fsm.media.measure import dominant_hz, loudness
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media


def wav(path: Path, hz: float, seconds: float) -> Path:
    """A file with one tone."""
    samples = (0.3 * 32767 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


def hz_in(path: Path) -> float | None:
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return dominant_hz(samples[-RATE // 2 :], RATE)


def is_silent(call: UTDCallSession) -> None:
    """Within a minute there is half a second of silence, in whatever is heard; a mute may be a gap as well."""
    quiet = 0.0
    try:
        for frame in call.listen(seconds=WAIT, timeout=1.0):
            quiet = quiet + len(frame.samples) / RATE if loudness(frame.samples) < 0.003 else 0.0
            if quiet >= 0.5:
                return
    except UTDTimeoutError:
        return
    pytest.fail("never silent")


def test_play_is_heard_and_ends_with_the_last_sample(engine: LocalEngine, tmp_path: Path) -> None:
    with talking(engine) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        listening = in_thread(lambda: hears(answer, 880))
        call.play(WavFile(wav(tmp_path / "hello.wav", 880, 2.5)))
        listening.result(WAIT)
        hears(answer, CALLER_HZ)  # the microphone is back
        playing = call.start_playing(Tone(1200))
        hears(answer, 1200)
        playing.stop()
        playing.wait(timeout=WAIT)
        hears(answer, CALLER_HZ)
        hears(call, CALLEE_HZ)
        call.end()
        agreed(engine, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_recordings(engine: LocalEngine, tmp_path: Path) -> None:
    with talking(engine) as (call, answer, _, callee):
        until_the_end = answer.start_recording(tmp_path / "alice.wav")
        stopped = call.start_recording(tmp_path / "stopped.wav", identity=callee.identity)
        taken = call.record(tmp_path / "bob.wav", seconds=1.0)
        assert taken.path == tmp_path / "bob.wav"
        assert taken.seconds == pytest.approx(1.0, abs=0.05)
        assert taken.ended_by == "seconds"
        assert hz_in(taken.path) == pytest.approx(CALLEE_HZ, abs=2)
        assert stopped.stop().ended_by == "stopped"
        assert hz_in(tmp_path / "stopped.wav") == pytest.approx(CALLEE_HZ, abs=2)
        call.end()
        over = until_the_end.wait(timeout=WAIT)  # a hang-up does not raise
        assert over.ended_by == "call_ended"
        assert over.seconds > 0.9
        with wave.open(str(over.path), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        assert dominant_hz(samples[: RATE // 2], RATE) == pytest.approx(CALLER_HZ, abs=2)


def test_listening_ends_with_the_call(local: LocalEngine) -> None:
    """Every listener has its own copy; a finished call gives no more, and a new listener is refused."""
    with two(local) as (call, answer, caller, callee):
        with pytest.raises(UTDStateError):
            call.listen()
        incoming = ring(call, answer, caller, callee)
        early = call.listen(timeout=WAIT)  # before the answer it waits
        answer.accept(incoming)
        listeners = [in_thread(lambda: list(call.listen(timeout=WAIT))) for _ in range(2)]
        first = next(early)
        assert first.identity == callee.identity
        assert first.samples.dtype == np.int16
        assert first.samples.shape[1] == first.channels == 1
        assert first.samples.flags.writeable
        hears(call, CALLEE_HZ)
        answer.end()
        for listener in listeners:
            frames = listener.result(WAIT)
            assert {frame.identity for frame in frames} == {callee.identity}
            assert dominant_hz(np.concatenate([frame.samples for frame in frames]), RATE) == pytest.approx(660, abs=5)
        call.wait_until_ended(timeout=WAIT)
        with pytest.raises(UTDStateError):
            list(call.listen())


def test_a_muted_microphone_is_a_gap(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, *_):
        call.set_microphone(False)
        is_silent(answer)
        hears(call, CALLEE_HZ)
        call.set_microphone(True)
        hears(answer, CALLER_HZ)
        call.set_microphone(True, source=Tone(1000))
        hears(answer, 1000)


def test_what_is_fed_is_heard(local: LocalEngine) -> None:
    """A bot that makes its own sound, from a thread of its own."""
    feed = AudioFeed(16_000, 1)
    stop = threading.Event()

    def speak() -> None:
        phase = 0
        while not stop.wait(0.02):
            block = np.arange(phase, phase + 320)
            feed.push((8000 * np.sin(2 * np.pi * 700 * block / 16_000)).astype(np.int16))
            phase += 320

    with talking(local) as (call, answer, *_):
        call.set_microphone(True, source=feed)
        speaking = in_thread(speak)
        try:
            hears(answer, 700)
        finally:
            stop.set()
            speaking.result(WAIT)


def test_a_video_call_both_ways(engine: LocalEngine) -> None:
    feed = VideoFeed(320, 240)
    red = np.zeros((240, 320, 3), np.uint8)
    red[:, :, 0] = 200
    stop = threading.Event()

    def show() -> None:
        while not stop.wait(0.05):
            feed.push(red)

    with (
        signed_in(engine, fresh("alice")) as caller,
        signed_in(engine, fresh("bob")) as callee,
        caller.call_session(UTDStreamType.VIDEO_CALL, microphone=Tone(CALLER_HZ), camera=feed) as call,
        callee.call_session("video_call", microphone=Tone(CALLEE_HZ), camera=TestPattern(320, 240, 15)) as answer,
    ):
        showing = in_thread(show)
        try:
            answer.accept(ring(call, answer, caller, callee))
            assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
            with call.watch(timeout=WAIT) as pictures:
                # black until both are in the call: then a test pattern, which is not one colour
                pattern = next(picture for picture in pictures if picture.pixels.std() > 10)
            assert pattern.identity == callee.identity
            assert pattern.pixels.dtype == np.uint8
            assert pattern.pixels.ndim == 3
            with answer.watch(caller.identity, timeout=WAIT) as pictures:
                for picture in pictures:
                    colour = picture.pixels.reshape(-1, 3).mean(axis=0)
                    if colour[0] > 120 and colour[1] < 60 and colour[2] < 60:
                        break
            hears(call, CALLEE_HZ)
            hears(answer, CALLER_HZ)
            call.set_camera(False)
            answer.remote_participants.wait_for(
                lambda others: not any(shows_video(other) for other in others), timeout=WAIT
            )
            call.set_camera(True)
            with answer.watch(timeout=WAIT) as pictures:
                assert next(pictures).pixels.size
            answer.end()
            call_id = call.call_id.value
            assert call_id
            agreed(engine, call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)
        finally:
            stop.set()
            showing.result(WAIT)


def shows_video(somebody: UTDParticipant) -> bool:
    """Whether the others are told that a camera is on."""
    return any(track.kind == "video" and not track.muted for track in somebody.tracks)


def test_no_camera_in_an_audio_call(local: LocalEngine) -> None:
    with talking(local) as (call, _, caller, _):
        with pytest.raises((UTDStateError, UTDInputError)):
            call.set_camera(True)
        with pytest.raises(UTDInputError):
            caller.call_session("audio_call", camera=TestPattern(320, 240, 15))
        assert call.status.value is UTDCallStatus.ACTIVE
