"""The microphone: what goes out, when sources are pulled, and its end. Paced by gates, never by sleeping."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.media.helpers import (
    AHEAD,
    LONG,
    FakePublication,
    Tasks,
    counting,
    filled,
    hear,
    numbered,
    numbers,
    pitch,
    pulling_threads,
    until,
)
from utd_fsm.errors import UTDClosedError, UTDConnectionError, UTDInputError, UTDStateError
from utd_fsm.media import AudioFeed, AudioFrames, Tone
from utd_fsm.media.outgoing import Microphone

if TYPE_CHECKING:
    from utd_fsm.room import Samples


# ------------------------------------------------------------------------------------------------------ when it sends


async def test_nothing_goes_out_before_start_and_the_source_is_not_touched(make: Callable[..., Microphone]) -> None:
    asked: list[int] = []

    def pieces() -> Iterator[Samples]:
        asked.append(1)
        yield from numbered()

    mic = make(AudioFrames(pieces, 48_000, 1))
    publication = FakePublication()
    mic.attach(publication)
    for _ in range(20):
        await asyncio.sleep(0)
    assert publication.capturing == 0  # silence queued in the track would be in the way of the first word
    assert publication.frames == []
    assert asked == []
    assert pulling_threads() == []
    assert not mic.started
    mic.start()
    mic.start()
    await filled(mic._voice)
    heard = numbers(await hear(mic, publication, AHEAD + 20))
    first = heard.index(1)  # silence goes ahead of it, unless the source was faster than that
    assert heard[:first] == [0] * first
    assert heard[first : first + 20] == list(range(1, 21))
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
