"""Plays: in the source's place or over it, one after the other or at once, and how they end. Paced by gates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.media.helpers import (
    AHEAD,
    LONG,
    FakePublication,
    counting,
    filled,
    hear,
    numbered,
    numbers,
    pulling_threads,
    until,
)
from utd_fsm.errors import UTDInputError
from utd_fsm.media import AudioFrames, Silence, Tone
from utd_fsm.media.outgoing import Microphone

if TYPE_CHECKING:
    from utd_fsm.room import Samples


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
    for _ in range(20):
        await asyncio.sleep(0)
    assert publication.capturing == 0  # nothing goes out before the start
    mic.pause()
    mic.start()
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
