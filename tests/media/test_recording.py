"""Recordings: every sample in its place, silence in the gaps, a valid file at every moment, an orderly end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media.helpers import LONG, FakeTrack, Tasks, pitch, until
from utd_fsm.errors import UTDInputError, UTDStreamException, UTDTimeoutError
from utd_fsm.media import Tone, WavFile
from utd_fsm.media.incoming import Listening
from utd_fsm.media.recording import WAITING, RecorderCore
from utd_fsm.media.timeline import AHEAD, GAP, LATENCY, Timeline
from utd_fsm.media.wav import WavWriter

FRAME = 960


def piece(value: int) -> Any:
    return np.full((FRAME, 1), value, dtype=np.int16)


def content(path: Path) -> Any:
    """The samples of a WAV file, read by the standard library: what others make of it."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 48_000)
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await until(lambda: not made.tasks, "the end of the taps")
    await until(lambda: not [t for t in threading.enumerate() if t.name == "utd-fsm-rec"], "the writing thread's end")
    assert made.errors == []


@pytest.fixture
async def listening(tasks: Tasks) -> AsyncIterator[Listening]:
    made = Listening(tasks)
    made.start_now()
    yield made
    await made.aclose()


# --------------------------------------------------------------------------------------------------------- the timeline


class Written:
    def __init__(self, limit: int | None = None) -> None:
        self.parts: list[Any] = []
        self.timeline = Timeline(self.parts.append, limit)

    @property
    def samples(self) -> Any:
        return np.concatenate(self.parts)[:, 0] if self.parts else np.zeros(0, dtype=np.int16)


def test_pieces_with_jitter_follow_each_other_without_a_seam() -> None:
    written = Written()
    jitter = np.random.default_rng(3).uniform(0, GAP * 0.9, 100)
    for number in range(100):
        at = (number + 1) * 0.02 + jitter[number] - jitter[0]
        written.timeline.add("a", piece(number + 1), max(at, 0.02))
        written.timeline.advance(max(at, 0.02))
    written.timeline.finish(2.0)
    assert np.array_equal(written.samples[:96_000], np.repeat(np.arange(1, 101), FRAME))
    assert len(written.samples) == 96_000


def test_gaps_and_the_time_before_the_first_piece_are_silence_by_the_clock() -> None:
    written = Written()
    for begin in (1.0, 3.0):
        for number in range(10):
            at = begin + (number + 1) * 0.02
            written.timeline.add("a", piece(7), at)
            written.timeline.advance(at)
    written.timeline.finish(4.0)
    truth = np.zeros(4 * 48_000, dtype=np.int16)
    for begin in (1.0, 3.0):
        truth[int(begin * 48_000) : int((begin + 0.2) * 48_000)] = 7
    assert np.array_equal(written.samples, truth)


def test_two_tracks_are_added_in_their_places_and_cut_off_where_too_loud() -> None:
    written = Written()
    for number in range(50):
        at = (number + 1) * 0.02
        written.timeline.add("a", piece(20_000), at)
        if number >= 25:
            written.timeline.add("b", piece(15_000 if number < 40 else -500), at + LATENCY * 0.5)
        written.timeline.advance(at)
    written.timeline.finish(1.0)
    values = written.samples[FRAME // 2 :: FRAME][:50].tolist()
    assert values[:20] == [20_000] * 20
    assert set(values) == {20_000, 32_767, 19_500}


def test_a_piece_too_late_to_be_mixed_in_follows_instead_of_being_lost() -> None:
    written = Written()
    for number in range(100):
        written.timeline.add("a", piece(100), (number + 1) * 0.02)
        written.timeline.advance((number + 1) * 0.02)
    for number in range(10):
        written.timeline.add("b", piece(1), 1.0 + number * 0.02)  # a second ago by now
    written.timeline.finish(2.0)
    assert int((written.samples == 101).sum()) == 10 * FRAME


def test_sound_from_the_far_future_is_dropped() -> None:
    written = Written()
    kept = [written.timeline.add("a", piece(1), 0.02) for _ in range(1000)]
    assert kept.count(True) == pytest.approx(AHEAD * 50, abs=2)


def test_a_limit_is_kept_to_the_sample() -> None:
    written = Written(limit=10_000)
    for number in range(50):
        written.timeline.add("a", piece(3), (number + 1) * 0.02)
    written.timeline.finish(5.0)
    assert len(written.samples) == 10_000


def test_an_hour_of_silence_needs_no_hour_of_memory() -> None:
    largest = 0
    total = 0

    def write(samples: Any) -> None:
        nonlocal largest, total
        largest, total = max(largest, len(samples)), total + len(samples)

    Timeline(write).finish(3600)
    assert total == 3600 * 48_000
    assert largest <= 48_000


# ------------------------------------------------------------------------------------------------------------ recording


async def test_one_participant_or_everybody_mixed(listening: Listening, tmp_path: Path) -> None:
    bob, carol = FakeTrack("TR_1", "bob"), FakeTrack("TR_2", "carol")
    listening.add(bob)
    of_bob = listening.record(tmp_path / "bob.wav", identity="bob")
    of_all = listening.record(str(tmp_path / "all.WAV"))
    listening.add(carol)
    for _ in range(20):
        await bob.say(piece(1000))
        await carol.say(piece(30))
    results = [await of_bob.stop(), await of_all.stop()]
    assert [result.path for result in results] == [tmp_path / "bob.wav", tmp_path / "all.WAV"]
    assert [result.ended_by for result in results] == ["stopped", "stopped"]
    assert [result.dropped for result in results] == [0, 0]
    only, mixed = content(results[0].path), content(results[1].path)
    assert int(only.astype(int).sum()) == 20 * FRAME * 1000
    assert int(mixed.astype(int).sum()) == 20 * FRAME * 1030
    assert set(only.tolist()) <= {0, 1000}
    assert results[0].seconds == pytest.approx(len(only) / 48_000)
    assert await of_bob.stop() is results[0]
    assert await of_bob.wait() is results[0]
    await until(lambda: not bob.streams)
    assert not carol.streams


async def test_seconds_give_a_file_of_just_that_length(listening: Listening, tmp_path: Path) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    recorder = listening.record(tmp_path / "a.wav", seconds=0.3)
    await bob.say(piece(9))
    result = await recorder.wait()
    assert result.ended_by == "seconds"
    assert result.seconds == pytest.approx(0.3)
    samples = content(result.path)
    assert len(samples) == 14_400
    assert int((samples == 9).sum()) == FRAME


async def test_silence_takes_the_place_of_a_gap_by_the_clock(listening: Listening, tmp_path: Path) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    recorder = listening.record(tmp_path / "a.wav")
    await bob.say(piece(1))
    first = time.monotonic()
    await asyncio.sleep(0.5)
    listening.remove("TR_1")  # muted, reconnected: another track goes on
    again = FakeTrack("TR_2", "bob")
    listening.add(again)
    await again.say(piece(2))
    gap = time.monotonic() - first
    result = await recorder.stop()
    samples = content(result.path)
    ones, twos = np.flatnonzero(samples == 1), np.flatnonzero(samples == 2)
    assert len(ones) == len(twos) == FRAME
    assert (twos[0] - ones[0]) / 48_000 == pytest.approx(gap, abs=0.1)
    assert not samples[ones[-1] + 1 : twos[0]].any()


async def test_a_hang_up_does_not_raise(listening: Listening, tmp_path: Path) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    recorder = listening.record(tmp_path / "a.wav", seconds=100)
    other = listening.record(tmp_path / "b.wav")
    waiting = asyncio.ensure_future(recorder.wait())
    await bob.say(*(piece(4) for _ in range(5)))
    listening.finish(UTDStreamException("the call was lost"))
    result = await waiting
    assert result.ended_by == "call_ended"
    assert int((content(result.path) == 4).sum()) == 5 * FRAME
    assert (await other.wait()).ended_by == "call_ended"


async def test_before_the_answer_it_waits_and_an_unanswered_call_leaves_an_empty_file(
    tasks: Tasks, tmp_path: Path
) -> None:
    listening = Listening(tasks)
    recorder = listening.record(tmp_path / "a.wav", seconds=0.1)
    await asyncio.sleep(0.3)
    assert len(content(tmp_path / "a.wav")) == 0  # valid already
    early = FakeTrack("TR_1", "bob")
    listening.add(early)
    await early.say(piece(8))
    listening.start_now()
    assert (await recorder.wait()).seconds == pytest.approx(0.1)
    assert not content(tmp_path / "a.wav").any()
    never = Listening(tasks)
    unanswered = never.record(tmp_path / "b.wav")
    never.finish(ended_by="left")
    result = await unanswered.wait()
    assert (result.seconds, result.ended_by) == (0.0, "left")
    assert len(content(tmp_path / "b.wav")) == 0
    await listening.aclose()


async def test_a_gap_longer_than_the_timeout_raises_and_keeps_what_there_is(
    listening: Listening, tmp_path: Path
) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    recorder = listening.record(tmp_path / "a.wav", timeout=0.2)
    for _ in range(3):
        await asyncio.sleep(0.1)
        await bob.say(piece(3))
    with pytest.raises(UTDTimeoutError, match=r"nothing was heard for 0\.2 s"):
        await recorder.wait()
    assert int((content(tmp_path / "a.wav") == 3).sum()) == 3 * FRAME


async def test_a_cancelled_wait_leaves_the_recording_alone(listening: Listening, tmp_path: Path) -> None:
    recorder = listening.record(tmp_path / "a.wav")
    waiting = asyncio.ensure_future(recorder.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await recorder.stop()).ended_by == "stopped"


@pytest.mark.parametrize("path", ["call.mp4", "call", "missing/call.wav", ".", "a\0b.wav", 5, b"call.wav", None])
async def test_a_bad_path_is_refused_before_anything_starts(listening: Listening, tmp_path: Path, path: Any) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    with pytest.raises(UTDInputError, match=r"allowed: .*\.wav"):
        listening.record(tmp_path / path if isinstance(path, str) else path)
    assert bob.streams == []
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_written_is_refused_before_anything_starts(listening: Listening, tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(UTDInputError, match="allowed"):
        listening.record(tmp_path / "folder.wav")
    with pytest.raises(UTDInputError, match="allowed"):
        listening.record("/proc/nothing.wav")
    with pytest.raises(UTDInputError, match="allowed"):
        listening.record(tmp_path / "a.wav", seconds=0)


async def test_a_full_disk_is_told_to_whoever_waits(
    listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    (tmp_path / "full.wav").symlink_to("/dev/full")
    with pytest.raises(UTDInputError, match="No space left"):
        listening.record(tmp_path / "full.wav")

    def full(self: WavWriter, samples: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WavWriter, "write", full)
    recorder = listening.record(tmp_path / "a.wav")
    await bob.say(piece(1))
    with pytest.raises(UTDStreamException, match=r"could not be written any more: .*No space left") as caught:
        await recorder.wait()
    assert isinstance(caught.value.__cause__, OSError)
    await until(lambda: not bob.streams)
    assert len(content(tmp_path / "a.wav")) == 0


async def test_a_disk_that_hangs_drops_and_counts_and_never_holds_up_the_loop(
    listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, release = threading.Event(), threading.Event()
    write = WavWriter.write

    def slow(self: WavWriter, samples: Any) -> int:
        inside.set()
        release.wait(LONG)
        return write(self, samples)

    monkeypatch.setattr(WavWriter, "write", slow)
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    recorder = listening.record(tmp_path / "a.wav")
    await until(inside.is_set, "the first writing, of silence")
    for _ in range(15):
        await bob.say(*(piece(1) for _ in range(100)))
    assert recorder.dropped == 1500 - WAITING
    stopping = asyncio.ensure_future(recorder.stop())
    await asyncio.sleep(0)
    release.set()
    result = await stopping
    assert int((content(result.path) == 1).sum()) == (1500 - result.dropped) * FRAME  # every other one is there


async def test_the_file_can_be_copied_at_any_moment(listening: Listening, tmp_path: Path) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    path = tmp_path / "a.wav"
    recorder = listening.record(path)
    stop = threading.Event()
    lengths: list[int] = []

    def copy() -> None:
        while not stop.is_set():
            shutil.copy(path, tmp_path / "copy.wav")
            lengths.append(len(content(tmp_path / "copy.wav")))
            stop.wait(0.002)

    copying = asyncio.get_running_loop().run_in_executor(None, copy)
    reader = Tone(440).open()
    for _ in range(60):
        await bob.say(reader.read(FRAME))
        await asyncio.sleep(0.01)
    await until(lambda: lengths and lengths[-1] > 10_000, "a file that grows")
    stop.set()
    await copying
    assert lengths == sorted(lengths)
    await recorder.stop()
    assert pitch(content(path)[:40_000]) == pytest.approx(440, abs=1)
    assert WavFile(path).seconds > 0.5


def test_after_kill_minus_nine_the_file_holds_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        from tests.media.helpers import FakeTrack, Tasks
        from utd_fsm.media import Tone
        from utd_fsm.media.incoming import Listening

        async def main():
            listening = Listening(Tasks())
            listening.start_now()
            bob = FakeTrack("TR_1", "bob")
            listening.add(bob)
            listening.record({str(path)!r})
            reader = Tone(440).open()
            while True:
                await bob.say(reader.read(960))
                await asyncio.sleep(0.02)

        asyncio.run(main())
        """
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    try:
        end = time.monotonic() + LONG
        while not (path.exists() and path.stat().st_size > 100_000):
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(LONG)
    samples = content(path)
    assert len(samples) > 40_000
    assert path.stat().st_size - 44 - 2 * len(samples) <= 48_000 * 2  # the header told of it all, but for a last piece
    assert pitch(samples) == pytest.approx(440, abs=1)


async def test_a_file_is_finished_by_its_thread_even_when_the_loop_is_gone(tmp_path: Path) -> None:
    def elsewhere() -> RecorderCore:
        async def main() -> RecorderCore:
            listening = Listening(Tasks())
            listening.start_now()
            bob = FakeTrack("TR_1", "bob")
            listening.add(bob)
            recorder = listening.record(tmp_path / "a.wav")
            await bob.say(piece(5))
            listening.finish()
            return recorder

        return asyncio.run(main())

    recorder = await asyncio.to_thread(elsewhere)
    assert (await recorder.wait()).ended_by == "call_ended"
    assert int((content(tmp_path / "a.wav") == 5).sum()) == FRAME
    assert (await recorder.stop()).ended_by == "call_ended"
