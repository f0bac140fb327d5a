"""What api.md says of listening, watching and recording, checked from outside."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import itertools
import shutil
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance.scenes import RATE, WAIT, joined, pitch, sees, until
from tests.integration.calling import CALLEE_HZ, CALLER_HZ, fresh, in_thread, ring, signed_in, talking, two
from utd_fsm import (
    UTDCallSession,
    UTDClosedError,
    UTDInputError,
    UTDRecording,
    UTDRoom,
    UTDStateError,
    UTDTimeoutError,
)
from utd_fsm.media import AudioFrame, TestPattern, Tone, VideoFrame
from utd_fsm.media.measure import loudness
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media


def samples_of(path: Path) -> tuple[int, np.ndarray[Any, np.dtype[np.int16]]]:
    """(rate, samples) of a WAV file."""
    with wave.open(str(path)) as read:
        return read.getframerate(), np.frombuffer(read.readframes(read.getnframes()), dtype=np.int16)


# ------------------------------------------------------------------------------------------------------ the signatures


@pytest.mark.parametrize("session", [UTDCallSession, UTDRoom])
def test_signatures(session: type) -> None:
    def parameters(name: str) -> dict[str, Any]:
        found = inspect.signature(getattr(session, name)).parameters
        return {key: one.default for key, one in found.items() if key != "self"}

    assert parameters("listen") == {
        "identity": None,
        "seconds": None,
        "timeout": 30.0,
        "sample_rate": 48000,
        "channels": 1,
    }
    assert parameters("watch") == {"identity": None, "source": "camera", "size": None, "timeout": 30.0}
    assert list(parameters("record")) == ["path", "seconds", "identity", "timeout"]
    assert list(parameters("start_recording")) == ["path", "identity"]
    assert list(parameters("play")) == ["source", "over", "duck", "timeout"]
    assert parameters("play")["duck"] == 0.2
    assert [field.name for field in dataclasses.fields(UTDRecording)] == ["path", "seconds", "dropped", "ended_by"]


# ------------------------------------------------------------------------------------------------------- who may listen


def test_without_a_call_it_raises_at_once_and_before_the_answer_it_waits(engine: LocalEngine, tmp_path: Path) -> None:
    with two(engine) as (call, answer, caller, callee):
        for refused in (
            call.listen,
            call.watch,
            lambda: call.record(tmp_path / "never.wav", timeout=None),
            lambda: call.start_recording(tmp_path / "never.wav"),
        ):
            with pytest.raises(UTDStateError):
                refused()
        assert not (tmp_path / "never.wav").exists()
        incoming = ring(call, answer, caller, callee)
        # the clock of `timeout` does not run before the answer
        listening = in_thread(lambda: pitch(call.listen(timeout=0.5)))
        recording = in_thread(lambda: call.record(tmp_path / "early.wav", seconds=1, timeout=5))
        time.sleep(1.0)
        assert not listening.done()
        assert not recording.done()
        answer.accept(incoming)
        assert listening.result(WAIT) == pytest.approx(CALLEE_HZ, abs=2)
        assert recording.result(WAIT).seconds == pytest.approx(1.0, abs=0.01)
        call.end()
        with pytest.raises(UTDStateError):
            call.listen()
    for refused in (call.listen, call.watch, lambda: call.record(tmp_path / "never.wav")):
        with pytest.raises(UTDClosedError):
            refused()


# ------------------------------------------------------------------------------------------------------------- frames


def test_what_an_audio_frame_is(engine: LocalEngine) -> None:
    with talking(engine) as (call, _, _, callee):
        for rate, channels in ((48_000, 1), (16_000, 2), (8_000, 1)):
            with call.listen(timeout=WAIT, sample_rate=rate, channels=channels) as frames:
                frame = next(one for one in frames if loudness(one.samples) > 0.01)
            assert isinstance(frame, AudioFrame)
            assert isinstance(frame.samples, np.ndarray)
            assert frame.samples.dtype == np.int16
            assert frame.samples.ndim == 2
            assert frame.samples.shape[1] == channels
            assert (frame.sample_rate, frame.channels, frame.identity) == (rate, channels, callee.identity)
            assert abs(time.monotonic() - frame.timestamp) < WAIT
            assert frame.dropped >= 0
            assert frame.samples.flags.writeable
            frame.samples[:] = 0


def test_what_a_video_frame_is(engine: LocalEngine) -> None:
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_camera(True, source=TestPattern(320, 180, 15))
        with bob.watch("ann", timeout=WAIT) as one, bob.watch(timeout=WAIT) as two_:
            frame, other = next(one), next(two_)
        assert isinstance(frame, VideoFrame)
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.shape == (frame.height, frame.width, 3)
        assert frame.pixels.shape[1] * 9 == pytest.approx(frame.pixels.shape[0] * 16, abs=16)
        assert (frame.identity, other.identity) == ("ann", "ann")
        assert abs(time.monotonic() - frame.timestamp) < WAIT
        assert frame.pixels.flags.writeable
        assert not np.shares_memory(frame.pixels, other.pixels)


# ------------------------------------------------------------------------------------------------------------ its end


def test_it_ends_with_seconds_with_the_call_and_when_it_is_closed(engine: LocalEngine) -> None:
    with talking(engine) as (call, answer, _, _):
        frames = list(call.listen(seconds=1))
        assert frames[-1].timestamp - frames[0].timestamp == pytest.approx(1.0, abs=0.2)
        closed = call.listen()
        next(closed)
        closed.close()
        closed.close()
        assert list(closed) == []
        until_the_end = call.listen(timeout=None)
        seen = call.listen(timeout=None)
        assert next(until_the_end).identity
        assert next(seen).identity
        reading = in_thread(lambda: list(until_the_end))
        answer.end()
        reading.result(WAIT)
        assert all(isinstance(frame, AudioFrame) for frame in seen)  # it ends quietly, too


def test_dropping_one_unsubscribes(engine: LocalEngine) -> None:
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room, adaptive=True) as bob:
        ann.set_microphone(True, source=Tone(440))
        sees(bob, "ann", "microphone")
        stream = bob.listen("ann", timeout=WAIT)
        next(stream)
        line = stream._line
        del stream
        gc.collect()
        assert line.closed
        for frame in bob.listen("ann", timeout=WAIT):  # in a loop that is left
            assert frame.identity == "ann"
            break


# ---------------------------------------------------------------------------------------------------------------- gaps


def test_a_muted_participant_makes_a_gap_and_a_long_one_raises(engine: LocalEngine) -> None:
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=Tone(440))
        patient, impatient = bob.listen("ann", timeout=WAIT), bob.listen("ann", timeout=0.7)
        next(patient)
        next(impatient)
        ann.set_microphone(False)
        with pytest.raises(UTDTimeoutError):
            for _ in impatient:
                pass
        ann.set_microphone(True)
        assert pitch(itertools.islice(impatient, 60, None)) == pytest.approx(440, abs=3)  # it is still open
        assert pitch(itertools.islice(patient, 60, None)) == pytest.approx(440, abs=3)


def test_nobody_at_all_is_a_gap(engine: LocalEngine) -> None:
    with joined(engine, "ann", fresh("room")) as ann:
        with pytest.raises(UTDTimeoutError):
            next(ann.listen("nobody", timeout=0.2))
        with pytest.raises(UTDTimeoutError):
            next(ann.watch(timeout=0.2))


def test_a_participant_who_comes_back_is_heard_on_the_same_stream(engine: LocalEngine) -> None:
    with joined(engine, "bob", room := fresh("room")) as bob:
        stream = bob.listen("ann", timeout=WAIT)
        for hz in (440, 880):
            with joined(engine, "ann", room) as ann:
                ann.set_microphone(True, source=Tone(hz))
                assert pitch(stream) == pytest.approx(hz, abs=4)


# ---------------------------------------------------------------------------------------------------- several listeners


def test_every_caller_has_its_own_copy_and_queue(engine: LocalEngine) -> None:
    with talking(engine) as (call, _, _, _):
        one, two_, asleep = call.listen(), call.listen(), call.listen()
        for _ in range(10):
            next(one).samples[:] = 0
        assert pitch(two_) == pytest.approx(CALLEE_HZ, abs=3)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            next(two_)
        late = next(asleep)
        assert late.dropped > 0  # about a second too many, the oldest gone
        assert asleep.dropped >= late.dropped
        kept = list(itertools.islice(asleep, 45))
        assert kept[0].timestamp > time.monotonic() - 10
        assert all(frame.dropped == 0 for frame in kept)
        assert two_.dropped == 0


def test_video_is_always_the_newest_picture(engine: LocalEngine) -> None:
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_camera(True, source=TestPattern(640, 360, 15))
        slow, quick = bob.watch("ann", timeout=WAIT), bob.watch("ann", timeout=WAIT)
        next(slow)
        newest = 0
        for frame in itertools.islice(quick, 15):
            newest = TestPattern.number_in(frame.pixels)
        skipped = next(slow)
        assert skipped.dropped > 5
        assert TestPattern.number_in(skipped.pixels) >= newest - 1


def test_everybody_is_interleaved_and_each_frame_names_its_own(engine: LocalEngine) -> None:
    room = fresh("room")
    with joined(engine, "ann", room) as ann, joined(engine, "carl", room) as carl, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=Tone(440))
        carl.set_microphone(True, source=Tone(990))
        heard: dict[str, list[AudioFrame]] = {"ann": [], "carl": []}
        for frame in bob.listen(timeout=WAIT):
            if loudness(frame.samples) > 0.05 or heard[frame.identity]:
                heard[frame.identity].append(frame)
            if all(len(frames) > 60 for frames in heard.values()):
                break
        assert pitch(heard["ann"][20:]) == pytest.approx(440, abs=3)
        assert pitch(heard["carl"][20:]) == pytest.approx(990, abs=3)
        assert {frame.identity for frame in itertools.islice(bob.listen("carl", timeout=WAIT), 20)} == {"carl"}


# ----------------------------------------------------------------------------------------------------------- recording


def test_a_recording_without_an_identity_mixes_and_with_one_does_not(engine: LocalEngine, tmp_path: Path) -> None:
    room = fresh("room")
    with joined(engine, "ann", room) as ann, joined(engine, "carl", room) as carl, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=Tone(440))
        carl.set_microphone(True, source=Tone(1000))
        assert pitch(bob.listen("ann", timeout=WAIT))
        assert pitch(bob.listen("carl", timeout=WAIT))
        both = in_thread(lambda: bob.record(tmp_path / "both.wav", seconds=2))
        one = bob.record(str(tmp_path / "one.wav"), seconds=2, identity="carl")
        assert one == UTDRecording(tmp_path / "one.wav", one.seconds, one.dropped, "seconds")
        assert one.seconds == pytest.approx(2.0, abs=0.01)

        def share(path: Path) -> tuple[float, float]:
            rate, samples = samples_of(path)
            assert rate == RATE
            middle = samples[RATE // 2 : RATE // 2 + RATE].astype(float)
            power = np.abs(np.fft.rfft(middle * np.hanning(RATE)))
            return power[435:446].max() / power.max(), power[995:1006].max() / power.max()

        ann_both, carl_both = share(both.result(WAIT).path)
        assert min(ann_both, carl_both) > 0.3
        ann_one, carl_one = share(one.path)
        assert ann_one < 0.05
        assert carl_one == 1.0


def test_a_file_is_valid_at_any_moment_gaps_are_silence_and_a_hang_up_does_not_raise(
    engine: LocalEngine, tmp_path: Path
) -> None:
    with talking(engine) as (call, answer, _, _):
        path = tmp_path / "call.wav"
        began = time.monotonic()
        recording = in_thread(lambda: call.record(path))
        until(lambda: path.exists() and path.stat().st_size > 60_000, "it grows")
        shutil.copy(path, tmp_path / "then.wav")
        rate, sound = samples_of(tmp_path / "then.wav")
        assert rate == RATE
        assert len(sound) > 20_000
        answer.set_microphone(False)
        time.sleep(2.5)
        answer.set_microphone(True)
        assert pitch(call.listen(timeout=WAIT))
        answer.end()
        done = recording.result(WAIT)
        lasted = time.monotonic() - began
        assert done.ended_by == "call_ended"
        assert done.seconds == pytest.approx(lasted, abs=2.0)
        _, sound = samples_of(path)
        quiet = [not np.abs(piece).max() for piece in np.split(sound[: len(sound) // 480 * 480], len(sound) // 480)]
        longest = max((len(list(run)) for silent, run in itertools.groupby(quiet) if silent), default=0)
        assert longest * 0.01 >= 1.0


def test_how_a_recording_ended(engine: LocalEngine, tmp_path: Path) -> None:
    with joined(engine, "ann", room := fresh("room")) as ann, joined(engine, "bob", room) as bob:
        ann.set_microphone(True, source=Tone(440))
        handle = bob.start_recording(tmp_path / "a.wav", identity="ann")
        assert pitch(bob.listen(timeout=WAIT))
        stopped = handle.stop()
        assert stopped.ended_by == "stopped"
        assert handle.stop() == stopped
        assert stopped.seconds > 0.3
        leaving = bob.start_recording(tmp_path / "b.wav")
        bob.disconnect()
        assert leaving.wait(timeout=WAIT).ended_by == "left"
        closing = ann.start_recording(tmp_path / "c.wav")
        ann.dispose()
        assert closing.wait(timeout=WAIT).ended_by == "closed"
    with talking(engine) as (call, _, _, _):
        mine = in_thread(lambda: call.record(tmp_path / "d.wav"))
        until(lambda: (tmp_path / "d.wav").exists(), "it began")
        call.end()
        assert mine.result(WAIT).ended_by == "call_ended"


def test_a_gap_longer_than_the_timeout_raises_out_of_a_recording(engine: LocalEngine, tmp_path: Path) -> None:
    with talking(engine) as (call, answer, _, _):
        whole = call.record(tmp_path / "whole.wav", seconds=2, timeout=1.5)  # it is the gap that counts
        assert whole.seconds == pytest.approx(2.0, abs=0.01)
        recording = in_thread(lambda: call.record(tmp_path / "gap.wav", timeout=1))
        until(lambda: (tmp_path / "gap.wav").exists(), "it began")
        answer.set_microphone(False)
        with pytest.raises(UTDTimeoutError, match=r"gap\.wav"):
            recording.result(WAIT)
        assert samples_of(tmp_path / "gap.wav")[0] == RATE


def test_what_cannot_be_a_recording(engine: LocalEngine, tmp_path: Path) -> None:
    with signed_in(engine, fresh("ann")) as _, joined(engine, "ann", fresh("room")) as ann:
        for bad in (tmp_path / "a.mp3", tmp_path / "nowhere" / "a.wav", 7):
            with pytest.raises(UTDInputError):
                ann.record(bad, seconds=1)  # type: ignore[arg-type]
        wrongs: list[dict[str, Any]] = [{"seconds": -1}, {"timeout": -1}, {"identity": ""}, {"seconds": True}]
        for wrong in wrongs:
            with pytest.raises(UTDInputError):
                ann.record(tmp_path / "b.wav", **wrong)
        assert list(tmp_path.iterdir()) == []


def test_the_callers_side_hears_the_callers_tone(engine: LocalEngine) -> None:
    with talking(engine) as (_, answer, caller, _):
        frame = next(iter(answer.listen(caller.identity, timeout=WAIT)))
        assert frame.identity == caller.identity
        assert pitch(answer.listen(timeout=WAIT)) == pytest.approx(CALLER_HZ, abs=3)
