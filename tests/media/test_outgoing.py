"""The microphone: what goes out, when sources are pulled, and how plays end. Paced by gates, never by sleeping."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.media.helpers import LONG, FakePublication, Tasks, pitch, until
from utd_fsm.errors import UTDClosedError, UTDConnectionError, UTDInputError, UTDStateError
from utd_fsm.media import AudioFeed, AudioFrames, Silence, Tone
from utd_fsm.media.outgoing import QUEUED_CHUNKS, Microphone

if TYPE_CHECKING:
    from utd_fsm.media.pulling import Puller
    from utd_fsm.room import Samples

AHEAD = 1
"""Pieces that were mixed before a change: the one in hand."""


def numbered(begin: int = 1, end: int = 10_000) -> Iterator[Samples]:
    """20 ms each, all of one value, which counts up: every piece can be told from its neighbours."""
    for number in range(begin, end):
        yield np.full((960, 1), number, dtype=np.int16)


def counting(begin: int = 1, end: int = 10_000) -> AudioFrames:
    return AudioFrames(lambda: numbered(begin, end), 48_000, 1)


def numbers(frames: list[Any]) -> list[int]:
    """The value of each piece; every piece must be of one value."""
    for frame in frames:
        assert frame.dtype == np.int16
        assert frame.shape == (960, 1)
        assert (frame == frame[0, 0]).all()
    return [int(frame[0, 0]) for frame in frames]


async def filled(puller: Puller[Any] | None, count: int = QUEUED_CHUNKS) -> None:
    assert puller is not None
    await until(lambda: len(puller._queue) >= count or puller._over, "a full queue")


async def hear(mic: Microphone, publication: FakePublication, count: int) -> list[Any]:
    """Let so many pieces out, never faster than the source is pulled."""
    frames: list[Any] = []
    for _ in range(count):
        await filled(mic._voice, 2)
        frames += await publication.let(1)
    return frames


def pulling_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "utd-fsm-mic"]


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    assert made.errors == []


@pytest.fixture
async def make(tasks: Tasks) -> AsyncIterator[Callable[..., Microphone]]:
    made: list[Microphone] = []

    def microphone(source: Any = None) -> Microphone:
        made.append(Microphone(tasks, source))
        return made[-1]

    yield microphone
    for each in made:
        if each._publication is not None:
            each._publication.close()  # type: ignore[attr-defined]
        await each.aclose()
    await until(lambda: not pulling_threads(), "the end of the threads")
    await until(lambda: not tasks.tasks, "the end of the pumps")


# ------------------------------------------------------------------------------------------------------ when it sends


async def test_silence_goes_out_before_start_and_the_source_is_not_touched(make: Callable[..., Microphone]) -> None:
    asked: list[int] = []

    def pieces() -> Iterator[Samples]:
        asked.append(1)
        yield from numbered()

    mic = make(AudioFrames(pieces, 48_000, 1))
    publication = FakePublication()
    mic.attach(publication)
    assert numbers(await publication.let(5)) == [0] * 5
    assert asked == []
    assert pulling_threads() == []
    assert not mic.started
    mic.start()
    mic.start()
    await filled(mic._voice)
    assert numbers(await hear(mic, publication, AHEAD + 20))[AHEAD:] == list(range(1, 21))
    assert mic.underruns == 0


async def test_no_thread_pulls_unless_something_is_attached_and_started(make: Callable[..., Microphone]) -> None:
    mic = make(counting())
    mic.start()
    assert pulling_threads() == []
    publication = FakePublication()
    mic.attach(publication)
    await filled(mic._voice)
    assert pulling_threads() == ["utd-fsm-mic"]
    mic.detach()
    await until(lambda: not pulling_threads(), "the end of the thread")


async def test_a_muted_source_keeps_its_place(make: Callable[..., Microphone]) -> None:
    mic = make(counting())
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await filled(mic._voice)
    first = numbers(await publication.let(5))
    mic.pause()
    mic.pause()
    await publication.let(1)  # the piece in hand
    await until(lambda: not pulling_threads(), "the end of the thread")
    assert mic._voice is not None
    queued = len(mic._voice._queue)
    publication._room.release()
    await asyncio.sleep(0.05)
    assert len(publication.frames) == 6  # muted: nothing goes out
    assert len(mic._voice._queue) == queued  # and nothing is pulled
    mic.resume()
    mic.resume()
    await hear(mic, publication, 20)
    heard = numbers(publication.frames)
    assert first == [0, 1, 2, 3, 4] or first == [1, 2, 3, 4, 5]
    assert [number for number in heard if number] == list(range(1, max(heard) + 1))
    assert mic.underruns == 0


async def test_the_next_publication_goes_on_where_the_last_one_ended(make: Callable[..., Microphone]) -> None:
    mic = make(counting())
    first, second = FakePublication("TR_1"), FakePublication("TR_2")
    mic.start()
    mic.attach(first)
    await filled(mic._voice)
    await first.let(5)
    mic.detach()
    first.close()
    mic.attach(second)
    heard = [number for number in numbers(first.frames + await hear(mic, second, 10)) if number]
    # At most the piece in hand is lost with the track that carried it.
    lost = set(range(1, max(heard) + 1)) - set(heard)
    assert len(lost) <= 1
    assert heard == sorted(heard)


async def test_a_finished_source_is_silence_for_ever_and_no_underrun(make: Callable[..., Microphone]) -> None:
    mic = make(counting(1, 4))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await filled(mic._voice, 3)
    assert [n for n in numbers(await publication.let(AHEAD + 20)) if n] == [1, 2, 3]
    assert numbers(publication.frames)[-10:] == [0] * 10
    await until(lambda: not pulling_threads(), "the end of the thread")


async def test_a_source_with_nothing_ready_is_silence_and_counted(make: Callable[..., Microphone]) -> None:
    feed = AudioFeed(48_000, 1)
    mic = make(feed)
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await publication.let(10)
    assert mic.underruns == 0  # it has not begun
    feed.push(np.full(960, 7, dtype=np.int16))
    await filled(mic._voice, 1)
    assert sum(numbers(await publication.let(AHEAD + 10))) == 7
    assert mic.underruns == pytest.approx(9, abs=1)


async def test_a_source_can_be_replaced_without_a_new_track(make: Callable[..., Microphone]) -> None:
    mic = make(counting(1, 100))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await filled(mic._voice)
    await publication.let(5)
    mic.set_source(counting(1000, 1100))
    await filled(mic._voice)
    assert numbers(await publication.let(AHEAD + 5))[AHEAD:] == [1000, 1001, 1002, 1003, 1004]
    mic.set_source(None)
    assert numbers(await publication.let(AHEAD + 5))[AHEAD:] == [0] * 5
    await until(lambda: not pulling_threads(), "the end of the threads")


async def test_a_refused_source_leaves_the_old_one(make: Callable[..., Microphone], tasks: Tasks) -> None:
    used = AudioFrames(numbered(), 48_000, 1)
    used.open()
    mic = make(counting(5, 100))
    voice = mic._voice
    with pytest.raises(UTDStateError):
        mic.set_source(used)
    with pytest.raises(UTDInputError, match="allowed"):
        mic.set_source("tone")  # type: ignore[arg-type]
    assert mic._voice is voice
    with pytest.raises(UTDInputError, match="allowed"):
        Microphone(tasks, 440)  # type: ignore[arg-type]


async def test_an_exception_in_the_iterable_is_logged_once_and_counts_as_the_end(
    make: Callable[..., Microphone], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[Samples]:
        yield from numbered(1, 4)
        raise ZeroDivisionError("seeded")

    mic = make(AudioFrames(broken, 48_000, 1))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await filled(mic._voice, 99)
    assert [n for n in numbers(await publication.let(AHEAD + 10)) if n] == [1, 2, 3]
    await until(lambda: not pulling_threads(), "the end of the thread")
    records = [record for record in caplog.records if record.name == "utd_fsm.media"]
    assert [record.levelno for record in records] == [logging.ERROR]
    assert records[0].exc_info is not None
    assert "ZeroDivisionError" in caplog.text


async def test_a_track_that_refuses_is_asked_again_until_it_takes_the_same_piece(
    make: Callable[..., Microphone], caplog: pytest.LogCaptureFixture
) -> None:
    mic = make(counting())
    broken = FakePublication()
    broken.broken = True
    mic.start()
    await until(lambda: mic._voice is not None)
    mic.attach(broken)
    await until(lambda: broken.refusals == 2)
    broken.broken = False
    heard = [number for number in numbers(await hear(mic, broken, 5)) if number]
    assert heard == list(range(1, len(heard) + 1))
    assert caplog.text.count("takes no sound") == 1


async def test_a_track_that_refuses_is_left_for_the_next_one(make: Callable[..., Microphone]) -> None:
    mic = make(counting())
    broken, whole = FakePublication("TR_1"), FakePublication("TR_2")
    broken.broken = True
    mic.start()
    mic.attach(broken)
    await until(lambda: broken.refusals)
    mic.detach()
    mic.attach(whole)
    await filled(mic._voice)
    assert sum(numbers(await whole.let(5))) > 0


async def test_there_is_never_more_than_one_capture_at_a_time(make: Callable[..., Microphone]) -> None:
    mic = make(counting())
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await until(lambda: publication.capturing)
    for _ in range(5):  # muted and unmuted while a piece waits for room
        mic.pause()
        mic.resume()
        await asyncio.sleep(0)
    assert publication.capturing == 1
    heard = [number for number in numbers(await hear(mic, publication, 20)) if number]
    assert heard == list(range(1, len(heard) + 1))


# -------------------------------------------------------------------------------------------------------------- plays


async def test_play_returns_when_its_last_sample_is_out_and_the_source_kept_its_place(
    make: Callable[..., Microphone],
) -> None:
    mic = make(counting(1, 1000))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await filled(mic._voice)
    await publication.let(5)
    publication.playing_out.clear()
    last = np.full((100, 1), 5003, dtype=np.int16)
    playing = asyncio.ensure_future(mic.play(AudioFrames([*numbered(5000, 5003), last], 48_000, 1)))
    await until(lambda: mic._line, "the play")
    await filled(mic._line[0].puller, 4)
    await publication.let(AHEAD + 4)
    await until(lambda: publication.drains, "the wait for the queue")
    assert not playing.done()  # captured, and not yet out
    publication.playing_out.set()
    await asyncio.wait_for(playing, LONG)
    frames = publication.frames[5 + AHEAD :]
    assert numbers(frames[:3]) == [5000, 5001, 5002]
    assert (frames[3][:100] == 5003).all()
    assert not frames[3][100:].any()
    after = numbers(await publication.let(5))
    before = [n for n in numbers(publication.frames[: 5 + AHEAD]) if n]
    assert after == list(range(max(before) + 1, max(before) + 6))
    assert mic.underruns == 0


async def test_two_plays_are_heard_one_after_the_other(make: Callable[..., Microphone]) -> None:
    mic = make()
    publication = FakePublication()
    mic.start()
    first = mic.start_playing(counting(100, 103))
    second = mic.start_playing(counting(200, 203))
    mic.attach(publication)
    await filled(first.puller, 3)
    heard = numbers(await publication.let(4))
    await asyncio.wait_for(first.wait(), LONG)
    assert not second.done
    await filled(second.puller, 3)
    heard += numbers(await publication.let(6))
    assert await asyncio.wait_for(second.wait(), LONG) is True
    assert [n for n in heard if n] == [100, 101, 102, 200, 201, 202]


async def test_over_is_mixed_and_the_source_ducked_and_back_to_full_afterwards(make: Callable[..., Microphone]) -> None:
    mic = make(AudioFrames(lambda: (np.full(960, 10_000, dtype=np.int16) for _ in range(1000)), 48_000, 1))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await filled(mic._voice)
    await publication.let(3)
    playing = mic.start_playing(AudioFrames([np.full(960 * 4, 500, dtype=np.int16)], 48_000, 1), over=True, duck=0.2)
    await filled(playing.puller, 4)
    frames = (await publication.let(AHEAD + 6))[AHEAD:]
    assert frames[0][0, 0] == 10_500  # the gain glides over one piece,
    assert frames[0][-1, 0] == 2_500
    assert (np.diff(frames[0][:, 0].astype(int)) <= 0).all()
    assert all((frame == 2_500).all() for frame in frames[1:4])
    assert frames[4][0, 0] in (2_000, 2_008)  # and back
    assert frames[4][-1, 0] == 10_000
    assert (frames[5] == 10_000).all()
    assert not playing.done  # captured; the track may still hold 100 ms of it
    await publication.let(6)
    assert await asyncio.wait_for(playing.wait(), LONG) is True
    assert publication.drains == 0  # the source went on without a gap


async def test_a_mix_that_is_too_loud_is_cut_off_and_never_wraps(make: Callable[..., Microphone]) -> None:
    loud = AudioFrames(lambda: [np.full(960 * 20, 32_000, dtype=np.int16)], 48_000, 1)
    quiet = AudioFrames(lambda: [np.full(960 * 20, -32_000, dtype=np.int16)], 48_000, 1)
    for source, limit in ((loud, 32_767), (quiet, -32_768)):
        mic = make(source)
        publication = FakePublication()
        mic.start()
        playing = mic.start_playing(source, over=True, duck=1)
        mic.attach(publication)
        await filled(playing.puller)
        await filled(mic._voice)
        assert (publication_value := numbers(await publication.let(4))[-1]) == limit, publication_value


async def test_several_over_at_once_and_the_lowest_duck_counts(make: Callable[..., Microphone]) -> None:
    def constant(value: int) -> AudioFrames:
        return AudioFrames(lambda: [np.full(960 * 30, value, dtype=np.int16)], 48_000, 1)

    mic = make(constant(10_000))
    publication = FakePublication()
    mic.start()
    playings = [
        mic.start_playing(constant(100), over=True, duck=0.5),
        mic.start_playing(constant(30), over=True, duck=0.0),
    ]
    mic.attach(publication)
    for playing in playings:
        await filled(playing.puller)
    await filled(mic._voice)
    assert numbers((await publication.let(5))[3:]) == [130, 130]


async def test_a_stopped_play_ends_at_once_and_the_source_goes_on(make: Callable[..., Microphone]) -> None:
    mic = make(counting(1, 1000))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    playing = mic.start_playing(Tone(440))
    await filled(playing.puller)
    await publication.let(5)
    await playing.stop()
    await playing.stop()
    assert await playing.wait() is False
    await filled(mic._voice)
    heard = numbers((await hear(mic, publication, AHEAD + 10))[AHEAD:])
    assert heard == list(range(heard[0], heard[0] + 10))


async def test_a_cancelled_play_stops(make: Callable[..., Microphone]) -> None:
    mic = make()
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    playing = asyncio.ensure_future(mic.play(Tone(440)))
    await until(lambda: mic._line)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert mic._line == []
    await until(lambda: not pulling_threads())


async def test_a_play_waits_while_muted_and_before_the_start(make: Callable[..., Microphone]) -> None:
    mic = make()
    publication = FakePublication()
    mic.attach(publication)
    playing = mic.start_playing(counting(1, 4))
    assert numbers(await publication.let(5)) == [0] * 5
    mic.pause()
    mic.start()
    await publication.let(1)
    assert pulling_threads() == []
    assert not playing.done
    mic.resume()
    await filled(playing.puller, 3)
    assert [n for n in numbers(await publication.let(6)) if n] == [1, 2, 3]
    assert await asyncio.wait_for(playing.wait(), LONG) is True


async def test_a_play_whose_last_piece_went_out_as_it_was_muted_is_over(make: Callable[..., Microphone]) -> None:
    mic = make(Silence())
    publication = FakePublication()
    mic.start()
    playing = mic.start_playing(counting(1, 2), over=True, duck=1)
    mic.attach(publication)
    await filled(playing.puller, 1)
    await publication.let(3)
    assert not playing.done
    mic.pause()
    await publication.let(1)
    assert await asyncio.wait_for(playing.wait(), LONG) is True


async def test_what_the_iterable_of_a_play_raises_is_raised_there_after_what_came_before(
    make: Callable[..., Microphone], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[Samples]:
        yield from numbered(1, 3)
        raise ZeroDivisionError("seeded")

    mic = make()
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    for over in (False, True):
        playing = asyncio.ensure_future(mic.play(AudioFrames(broken, 48_000, 1), over=over))
        await until(lambda: mic._line or mic._overs)
        await filled((mic._line + mic._overs)[0].puller, 99)
        publication.frames.clear()
        assert [n for n in numbers(await publication.let(15)) if n] == [1, 2]
        with pytest.raises(UTDInputError, match="ZeroDivisionError: seeded") as caught:
            await asyncio.wait_for(playing, LONG)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "seeded" not in caplog.text  # raised, and so not logged


async def test_a_piece_that_is_no_sound_is_raised_by_play(make: Callable[..., Microphone]) -> None:
    mic = make()
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    playing = asyncio.ensure_future(mic.play(AudioFrames([[1, 2]], 48_000, 1)))
    await until(lambda: mic._line)
    await filled(mic._line[0].puller, 99)
    await publication.let(3)
    with pytest.raises(UTDInputError, match="piece 1 of an AudioFrames: got list"):
        await asyncio.wait_for(playing, LONG)


@pytest.mark.parametrize(("over", "duck"), [(True, 1.5), (True, -0.1), (True, "x"), (1, 0.2), (False, float("nan"))])
async def test_bad_arguments_of_play_are_refused_and_nothing_plays(
    make: Callable[..., Microphone], over: Any, duck: Any
) -> None:
    mic = make()
    with pytest.raises(UTDInputError, match="allowed"):
        mic.start_playing(Tone(440), over=over, duck=duck)
    with pytest.raises(UTDInputError, match="allowed"):
        mic.start_playing("tone")  # type: ignore[arg-type]
    assert mic._line + mic._overs == []


# -------------------------------------------------------------------------------------------------------------- the end


async def test_closing_ends_everything_even_when_a_source_blocks_for_ever(
    make: Callable[..., Microphone], caplog: pytest.LogCaptureFixture
) -> None:
    inside, release = threading.Event(), threading.Event()

    def stuck() -> Iterator[Samples]:
        yield from numbered(1, 3)
        inside.set()
        release.wait(LONG)

    mic = make(AudioFrames(stuck, 48_000, 1))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await until(inside.is_set)
    began = asyncio.get_running_loop().time()
    publication.close()
    await mic.aclose()
    assert asyncio.get_running_loop().time() - began >= 0.9  # it was given its second
    assert "did not return" in caplog.text
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "utd-fsm-mic"] == [True]
    release.set()
    await until(lambda: not pulling_threads())


async def test_a_play_under_way_learns_that_the_microphone_is_closed(make: Callable[..., Microphone]) -> None:
    for error, expected in ((None, UTDClosedError), (UTDConnectionError("lost"), UTDConnectionError)):
        mic = make()
        playings = [asyncio.ensure_future(mic.play(Tone(440), over=over)) for over in (False, False, True)]
        await until(lambda mic=mic: len(mic._line + mic._overs) == 3)  # type: ignore[misc]
        await mic.aclose(error)
        for playing in playings:
            with pytest.raises(expected):
                await playing
        await mic.aclose()
        with pytest.raises(UTDClosedError):
            mic.set_source(None)
        with pytest.raises(UTDClosedError):
            mic.start_playing(Tone(1))
        with pytest.raises(UTDClosedError):
            mic.attach(FakePublication())


async def test_a_capture_that_never_returns_does_not_hold_up_the_close(tasks: Tasks) -> None:
    mic = Microphone(tasks, Tone(440))
    mic.start()
    mic.attach(FakePublication())  # no room in its queue, ever
    await asyncio.sleep(0)
    await mic.aclose()
    await until(lambda: not tasks.tasks)


async def test_many_openings_leave_no_thread(make: Callable[..., Microphone], tasks: Tasks) -> None:
    for _ in range(30):
        mic = make(Tone(440))
        publication = FakePublication()
        mic.start()
        mic.attach(publication)
        await publication.let(1)
        publication.close()
        await mic.aclose()
    assert pulling_threads() == []


async def test_a_tone_comes_out_as_one(make: Callable[..., Microphone]) -> None:
    mic = make(Tone(440))
    publication = FakePublication()
    mic.start()
    mic.attach(publication)
    await hear(mic, publication, 60)
    sound = publication.sound[AHEAD * 960 :]
    assert pitch(sound) == pytest.approx(440, abs=0.5)
    assert mic.underruns == 0
