"""What api.md says of sources, checked from outside: when a recipe is pulled, where, and what the other side hears."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance.scenes import WAIT, joined, pitch, sees, until
from tests.integration.calling import CALLER_HZ, fresh, hears, in_thread, ring, signed_in, talking, two
from utd_fsm import UTDCallStatus, UTDInputError, UTDStateError, UTDTimeoutError
from utd_fsm.media import AudioFeed, AudioFrames, Silence, TestPattern, Tone, VideoFeed, VideoFrames, WavFile
from utd_fsm.media.measure import loudness
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

CHUNK = 960


class Recipe:
    """Endless tone, as an iterable that says when and where it is opened and pulled."""

    def __init__(self, hz: float = 440.0) -> None:
        self.hz = hz
        self.opened = 0
        self.pulled = threading.Event()
        self.threads: set[str] = set()

    def __call__(self) -> Iterator[Any]:
        self.opened += 1
        return self._chunks()

    def _chunks(self) -> Iterator[Any]:
        at = 0
        while True:
            self.threads.add(threading.current_thread().name)
            self.pulled.set()
            times = (at + np.arange(CHUNK)) / 48_000
            yield (np.sin(2 * np.pi * self.hz * times) * 10_000).astype(np.int16)
            at += CHUNK

    def source(self) -> AudioFrames:
        return AudioFrames(self, 48_000, 1)


def published(session: Any) -> list[str]:
    """The sids of what a session publishes."""
    return session.run(lambda room: sorted(room.local_participant.track_publications))  # type: ignore[no-any-return]


def test_a_recipe_is_opened_afresh_and_pulled_on_a_thread_of_its_own_once_the_call_is_active(
    engine: LocalEngine,
) -> None:
    recipe = Recipe()
    source = recipe.source()
    with signed_in(engine, fresh("alice")) as alice, signed_in(engine, fresh("bob")) as bob:
        for number in (1, 2):
            recipe.pulled.clear()
            with alice.call_session("audio_call", microphone=source) as call, bob.call_session("audio_call") as answer:
                incoming = ring(call, answer, alice, bob)
                assert published(call)  # the track is there already
                assert not recipe.pulled.wait(0.3)
                answer.accept(incoming)
                assert recipe.pulled.wait(WAIT)
                assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
                hears(answer, 440)
                assert recipe.opened == number
                loop = call.run(lambda room: threading.current_thread().name)
    assert not recipe.threads & {loop, "MainThread", threading.current_thread().name}


def test_the_first_word_is_heard(engine: LocalEngine) -> None:
    """It starts only when the other has subscribed: nothing of a beep of half a second is lost."""
    beep = 0.5
    with (
        signed_in(engine, fresh("alice")) as alice,
        signed_in(engine, fresh("bob")) as bob,
        alice.call_session("audio_call", microphone=Tone(1000, seconds=beep)) as call,
        bob.call_session("audio_call") as answer,
    ):
        answer.accept(ring(call, answer, alice, bob))
        loud = sum(
            len(frame.samples) for frame in answer.listen(seconds=3, timeout=WAIT) if np.abs(frame.samples).max() > 1000
        )
        assert loud / 48_000 >= beep - 0.1


def test_it_keeps_its_place_while_muted(engine: LocalEngine) -> None:
    def numbered() -> Iterator[Any]:
        for step in range(1, 10_000):
            yield np.full(4800, step, dtype=np.int16)  # 0.1 s each; so quiet that only its value is read

    taken: list[int] = []

    def counted() -> Iterator[Any]:
        for piece in numbered():
            taken.append(int(piece[0]))
            yield piece

    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=AudioFrames(counted, 48_000, 1))
        sees(bob, "ann", "microphone")
        until(lambda: len(taken) >= 10, "it is pulled")
        ann.set_microphone(False)
        time.sleep(0.3)  # what was pulled ahead
        before = len(taken)
        time.sleep(1.0)
        assert len(taken) - before <= 1
        ann.set_microphone(True)
        until(lambda: len(taken) > before + 5, "it goes on")
        assert taken == list(range(1, len(taken) + 1))


def test_a_finished_source_is_silence_and_stays_published_and_another_replaces_it(engine: LocalEngine) -> None:
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=Tone(880, seconds=0.6))
        track = sees(bob, "ann", "microphone").tracks[0].sid
        with bob.listen("ann", timeout=WAIT) as frames:
            quiet = 0
            for frame in frames:
                quiet = quiet + 1 if loudness(frame.samples) < 0.005 else 0
                if quiet == 25:
                    break  # frames of silence go on coming
        mine = published(ann)
        ann.set_microphone(True, source=Tone(500))
        assert pitch(bob.listen("ann", timeout=WAIT)) == pytest.approx(500, abs=2)
        ann.set_microphone(True, source=Silence())
        assert published(ann) == mine
        assert sees(bob, "ann", "microphone").tracks[0].sid == track


def test_an_underrun_is_silence_and_counted(engine: LocalEngine) -> None:
    feed = AudioFeed(48_000, 1)
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=feed)
        sees(bob, "ann", "microphone")
        assert ann.underruns == 0
        tone = (np.sin(2 * np.pi * 700 * np.arange(24_000) / 48_000) * 10_000).astype(np.int16)
        feed.push(tone)
        with bob.listen("ann", timeout=WAIT) as frames:
            assert next(frame for frame in frames if loudness(frame.samples) > 0.1).identity == "ann"
            assert next(frame for frame in frames if loudness(frame.samples) < 0.005).identity == "ann"
        until(lambda: ann.underruns > 10, "underruns are counted")
        feed.push(tone)
        assert pitch(bob.listen("ann", timeout=WAIT), 0.3) == pytest.approx(700, abs=4)
        counted = ann.underruns
    assert ann.underruns >= counted


def test_a_source_that_raises_ends_nothing(engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
    def breaks() -> Iterator[Any]:
        yield np.zeros(CHUNK, dtype=np.int16)
        raise ZeroDivisionError("of the recipe")

    with talking(engine) as (call, answer, _, _):
        call.set_microphone(True, source=AudioFrames(breaks, 48_000, 1))
        until(lambda: "of the recipe" in caplog.text, "it is logged")
        call.set_microphone(True, source=Tone(CALLER_HZ + 100))
        hears(answer, CALLER_HZ + 100)


# ---------------------------------------------------------------------------------------------------------- playing


def test_play_returns_when_the_last_sample_is_out(engine: LocalEngine, tmp_path: Path) -> None:
    import wave

    path = tmp_path / "hello.wav"
    with wave.open(str(path), "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(16_000)
        times = np.arange(16_000) / 16_000
        made.writeframes((np.sin(2 * np.pi * 1200 * times) * 12_000).astype(np.int16).tobytes())
    with talking(engine) as (call, answer, _, _):
        recording = in_thread(lambda: answer.record(tmp_path / "heard.wav", seconds=5))
        began = time.monotonic()
        call.play(WavFile(path))
        assert time.monotonic() - began >= 0.9
        hears(answer, CALLER_HZ)  # the own source goes on
        heard = recording.result(WAIT)
    with wave.open(str(heard.path)) as read:
        sound = np.frombuffer(read.readframes(read.getnframes()), dtype=np.int16).astype(float)
    windows = sound[: len(sound) // 2400 * 2400].reshape(-1, 2400)
    bins = np.abs(np.fft.rfft(windows * np.hanning(2400), axis=1))
    at_1200 = (bins[:, 60] > bins[:, 22] * 3) & (bins[:, 60] > 1e5)
    assert at_1200.sum() * 0.05 == pytest.approx(1.0, abs=0.15)


def test_start_playing_has_a_handle_that_waits_and_stops(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, _, _):
        endless = call.start_playing(Tone(900))
        hears(answer, 900)
        with pytest.raises(UTDTimeoutError):
            endless.wait(timeout=0.1)
        endless.stop()
        endless.stop()
        endless.wait(timeout=WAIT)
        hears(answer, CALLER_HZ)
        short = call.start_playing(Tone(900, seconds=0.3))
        short.wait(timeout=WAIT)
        hears(answer, CALLER_HZ)
        over = call.start_playing(Tone(2000), over=True, duck=0)
        hears(answer, 2000)
        over.stop()
        with pytest.raises(UTDTimeoutError):
            call.play(Tone(300), timeout=0.3)
        hears(answer, CALLER_HZ)
        playing = in_thread(lambda: call.play(Tone(300)))
        hears(answer, 300)
        answer.end()
        with pytest.raises(UTDStateError):
            playing.result(WAIT)


def test_playing_needs_a_microphone(engine: LocalEngine) -> None:
    with joined(engine, "ann", fresh("room")) as ann:
        with pytest.raises(UTDStateError, match="set_microphone"):
            ann.play(Tone(440, seconds=0.1))
        with pytest.raises(UTDInputError):
            ann.play("hello.wav")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- video


def test_a_camera_in_an_audio_call_is_refused(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("alice")) as alice, pytest.raises(UTDInputError):
        alice.call_session("audio_call", camera=TestPattern())
    with talking(engine) as (call, _, _, _):
        refused: Callable[[], object]
        for refused in (
            lambda: call.set_camera(True),
            lambda: call.set_camera(True, source=TestPattern()),
            lambda: call.set_screen(True, source=TestPattern()),
        ):
            with pytest.raises(UTDStateError, match="video"):
                refused()
        assert len(published(call)) == 1


def test_a_video_call_the_default_camera_and_a_screen(engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    who = fresh("bob")
    red = np.zeros((360, 640, 3), dtype=np.uint8)
    red[:, :, 0] = 200
    with (
        engine.peer(who, camera=VideoFrames(lambda: iter([red] * 10_000), 15)) as peer,
        signed_in(engine, fresh("alice")) as alice,
        alice.call_session("video_call") as call,
    ):
        call.start(who)
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        other = peer.wait_for_session(timeout=WAIT)
        picture = next(frame for frame in call.watch(timeout=WAIT) if frame.pixels[180, 320, 0] > 120)
        assert picture.identity == who
        assert picture.pixels[180, 320, 0] > picture.pixels[180, 320, 1] + 60
        pattern = next(frame for frame in other.watch(timeout=WAIT) if frame.pixels.max() > 100)
        assert pattern.identity == alice.identity
        call.set_camera(False)
        call.set_camera(True)
        screen = VideoFeed(640, 360)
        call.set_screen(True, source=screen)
        blue = np.zeros((360, 640, 3), dtype=np.uint8)
        blue[:, :, 2] = 200
        screen.push(blue)
        shown = next(frame for frame in other.watch(source="screen", timeout=WAIT) if frame.pixels[180, 320, 2] > 100)
        assert shown.identity == alice.identity
        call.set_screen(False)
        until(
            lambda: (
                not any(track.source == "screen" for one in other.remote_participants.value for track in one.tracks)
            ),
            "the screen is gone",
        )
        assert peer.errors == []
    told = [record for record in caplog.records if "test pattern" in record.getMessage()]
    assert len(told) == 1
    assert told[0].name.startswith("utd_fsm.")


def test_a_screen_needs_a_source_the_first_time(engine: LocalEngine) -> None:
    with joined(engine, "ann", fresh("room")) as ann:
        with pytest.raises(UTDInputError):
            ann.set_screen(True)
        ann.set_screen(True, source=TestPattern())
        ann.set_screen(False)
        ann.set_screen(True)
        assert len(published(ann)) == 1


def test_microphones_are_switched_in_calls_too(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        with pytest.raises(UTDStateError):
            call.set_microphone(True)
        answer.accept(ring(call, answer, caller, callee))
        call.set_microphone(False)
        answer.remote_participants.wait_for(
            lambda some: some and some[0].tracks and some[0].tracks[0].muted, timeout=WAIT
        )
        call.set_microphone(True)
        hears(answer, CALLER_HZ)
