"""Sources of pictures and the camera that sends them."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.media.helpers import LONG, FakePublication, Tasks, threads_called, until
from utd_fsm.errors import UTDClosedError, UTDInputError, UTDStateError
from utd_fsm.media import TestPattern, VideoFeed, VideoFrames
from utd_fsm.media.arrays import fitted
from utd_fsm.media.camera import Camera

if TYPE_CHECKING:
    from utd_fsm.room import Pixels


def plain(value: int, width: int = 64, height: int = 48) -> Pixels:
    return np.full((height, width, 3), value, dtype=np.uint8)


def cam_threads() -> list[str]:
    return threads_called("utd-fsm-cam")


# ------------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize(("width", "height"), [(640, 360), (16, 16), (322, 178), (1280, 720)])
def test_the_pattern_moves_and_numbers_its_pictures(width: int, height: int) -> None:
    pattern = TestPattern(width, height)
    first, second = pattern.open(), pattern.open()
    pictures = [first.read() for _ in range(40)]
    for number, picture in enumerate(pictures):
        assert picture is not None
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8
        assert TestPattern.number_in(picture) == number
    upper = [picture[: height // 2] for picture in pictures if picture is not None]
    assert all((a != b).any() for a, b in itertools.pairwise(upper))
    again, number_0 = second.read(), pictures[0]
    assert again is not None
    assert number_0 is not None
    assert np.array_equal(again, number_0)


def test_the_number_can_be_read_from_a_smaller_and_noisy_picture() -> None:
    reader: Any = TestPattern(640, 360).open()
    reader._number = 0b1010_0110_0011_0101
    noise = np.random.default_rng(1).integers(-40, 40, (180, 320, 3))
    small = reader.read()[::2, ::2].astype(int) + noise
    assert TestPattern.number_in(np.clip(small, 0, 255).astype(np.uint8)) == 0b1010_0110_0011_0101


@pytest.mark.parametrize(
    "make",
    [
        lambda: TestPattern(641, 360),
        lambda: TestPattern(640, 361),
        lambda: TestPattern(0, 0),
        lambda: TestPattern(14, 16),
        lambda: TestPattern(4098, 16),
        lambda: TestPattern(64.0, 48),  # type: ignore[arg-type]
        lambda: TestPattern(64, 48, fps=0),
        lambda: TestPattern(64, 48, fps=61),
        lambda: VideoFeed(63, 48),
        lambda: VideoFeed(64, 48, fps=float("inf")),
        lambda: VideoFrames([], 0),
        lambda: VideoFrames(3, 15),  # type: ignore[arg-type]
        lambda: VideoFrames([], 15, width=64),
        lambda: VideoFrames([], 15, width=63, height=48),
        lambda: VideoFrames([np.zeros((48, 64, 3))], 15),
        lambda: VideoFrames([np.zeros((5, 5, 3), dtype=np.uint8)], 15),
    ],
)
def test_bad_arguments_are_refused_where_they_are_given(make: Callable[[], object]) -> None:
    with pytest.raises(UTDInputError, match="allowed"):
        make()


def test_frames_have_the_size_of_the_first_and_others_are_fitted_into_it() -> None:
    source = VideoFrames([plain(1), plain(200, 32, 48), plain(3, 65, 49)], 15)
    assert (source.width, source.height) == (64, 48)
    reader = source.open()
    pictures = [reader.read() for _ in range(3)]
    assert all(picture is not None and picture.shape == (48, 64, 3) for picture in pictures)
    narrow = pictures[1]
    assert narrow is not None
    assert (narrow[:, 16:48] == 200).all()  # its proportions kept,
    assert not narrow[:, :16].any()  # black at its sides
    assert not narrow[:, 48:].any()
    assert reader.read() is None
    odd = VideoFrames([plain(1, 65, 49)], 15)
    assert (odd.width, odd.height) == (64, 48)
    assert (VideoFrames(iter([plain(1)]), 15).width, VideoFrames(iter([plain(1)]), 15).height) == (640, 360)


def test_fitting_keeps_what_is_where() -> None:
    picture = np.zeros((100, 100, 3), dtype=np.uint8)
    picture[:50, :50] = 200
    small = fitted(picture, 50, 50)
    assert (small[:25, :25] == 200).all()
    assert not small[25:].any()
    large = fitted(picture, 400, 200)
    assert (large[:100, 100:200] == 200).all()
    assert int((large > 0).sum()) == 100 * 100 * 3
    assert fitted(picture, 100, 100) is picture
    assert fitted(plain(9, 4096, 16), 16, 16).shape == (16, 16, 3)


def test_a_generator_of_pictures_can_be_sent_once() -> None:
    source = VideoFrames((plain(value) for value in range(3)), 15, width=64, height=48)
    source.open()
    with pytest.raises(UTDStateError, match="read only once"):
        source.open()


@pytest.mark.parametrize(
    "picture",
    [
        None,
        np.zeros((48, 64, 3), dtype=np.int16),
        np.zeros((48, 64), dtype=np.uint8),
        np.zeros((48, 64, 4), dtype=np.uint8),
        np.zeros((0, 64, 3), dtype=np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any) -> None:
    feed = VideoFeed(64, 48)
    with pytest.raises(UTDInputError, match=r"pixels: .*allowed: .*\(48, 64, 3\)"):
        feed.push(picture)
    reader = VideoFrames([plain(1), picture], 15).open()
    reader.read()
    with pytest.raises(UTDInputError, match="picture 2 of a VideoFrames"):
        reader.read()


def test_a_feed_of_pictures_has_one_size() -> None:
    with pytest.raises(UTDInputError, match=r"\(48, 64, 3\)"):
        VideoFeed(64, 48).push(plain(1, 48, 64))


def test_only_the_newest_pushed_picture_waits_and_each_reader_has_its_own() -> None:
    feed = VideoFeed(64, 48)
    assert [feed.push(plain(value)) for value in range(3)] == [0, 1, 1]
    first = feed.open()
    second = feed.open()
    newest = first.read()
    assert newest is not None
    assert newest[0, 0, 0] == 2
    array = plain(9)
    assert feed.push(array) == 0
    array[:] = 0
    for reader in (first, second):
        picture = reader.read()
        assert picture is not None
        assert picture[0, 0, 0] == 9
    assert feed.dropped == 2
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(first.read)
        feed.close()
        assert waiting.result(LONG) is None
    assert feed.push(plain(1)) == 1
    assert feed.closed
    assert feed.open().read() is None
    second.close()


# ------------------------------------------------------------------------------------------------------------- camera


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await until(lambda: not cam_threads(), "the end of the threads")
    await until(lambda: not made.tasks, "the end of the pumps")
    assert made.errors == []


def values(pictures: list[Any]) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in pictures]


async def filled(camera: Camera, count: int = 2) -> None:
    view = camera._view
    assert view is not None
    await until(lambda: len(view._queue) >= count or view._over)


async def test_black_before_the_start_then_every_picture_then_the_last_for_ever(tasks: Tasks) -> None:
    camera = Camera(tasks, VideoFrames([plain(value) for value in range(1, 4)], 60))
    publication = FakePublication()
    assert (camera.width, camera.height, camera.fps) == (64, 48, 60)
    camera.attach(publication)
    assert values(await publication.let(3)) == [0, 0, 0]
    assert cam_threads() == []
    camera.start()
    await filled(camera)
    seen = values(await publication.let(4))
    await until(lambda: camera._view is not None and camera._view._over)
    seen += values(await publication.let(4))
    assert [value for value in dict.fromkeys(seen) if value] == [1, 2, 3]
    assert seen[-3:] == [3, 3, 3]
    await camera.aclose()
    await camera.aclose()
    with pytest.raises(UTDClosedError):
        camera.attach(publication)
    with pytest.raises(UTDClosedError):
        camera.set_source(TestPattern())


async def test_a_paused_or_detached_camera_sends_and_pulls_nothing_and_keeps_its_place(tasks: Tasks) -> None:
    def counting() -> Iterator[Pixels]:
        for value in range(1, 250):
            yield plain(value)

    camera = Camera(tasks, VideoFrames(counting, 60, width=64, height=48))
    first, second = FakePublication(), FakePublication()
    camera.start()
    camera.attach(first)
    await filled(camera)
    await first.let(5)
    camera.pause()
    camera.pause()
    await until(lambda: not cam_threads(), "the end of the thread")
    first.close()
    camera.detach()
    camera.attach(second)
    await asyncio.sleep(0.05)
    assert cam_threads() == []
    camera.resume()
    camera.resume()
    await filled(camera)
    await second.let(5)
    seen = [value for value in values(first.frames + second.frames) if value]
    assert set(range(1, max(seen) + 1)) - set(seen) <= {seen[len([v for v in values(first.frames) if v]) - 1] + 1}
    assert seen == sorted(seen)
    await camera.aclose()


async def test_replacing_the_source_keeps_track_and_size(tasks: Tasks) -> None:
    camera = Camera(tasks, VideoFrames([plain(7)], 60))
    publication = FakePublication()
    camera.start()
    camera.attach(publication)
    await filled(camera)
    await publication.let(2)
    with pytest.raises(UTDInputError, match="allowed"):
        camera.set_source("pattern")  # type: ignore[arg-type]
    camera.set_source(VideoFrames([plain(200, 128, 96)], 30))
    await filled(camera)
    pictures = await publication.let(3)
    assert values(pictures)[-1] == 200
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    assert camera.fps == 30
    await camera.aclose()


async def test_a_picture_that_is_late_repeats_the_last_and_is_counted(tasks: Tasks) -> None:
    feed = VideoFeed(64, 48, fps=60)
    camera = Camera(tasks, feed)
    publication = FakePublication()
    camera.start()
    camera.attach(publication)
    await publication.let(3)
    assert camera.underruns == 0
    feed.push(plain(5))
    await filled(camera, 1)
    assert values(await publication.let(6))[-1] == 5
    assert camera.underruns >= 3
    await camera.aclose()


async def test_the_default_is_the_test_pattern_and_the_log_says_so(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "utd_fsm.media")
    camera = Camera(tasks)
    assert caplog.text.count("test pattern") == 1
    publication = FakePublication()
    camera.start()
    camera.attach(publication)
    await filled(camera)
    await publication.let(3)
    assert TestPattern.number_in(publication.frames[-1]) in (1, 2)
    await camera.aclose()


async def test_an_exception_in_the_pictures_keeps_the_last_one(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterator[Pixels]:
        yield plain(4)
        raise ZeroDivisionError("seeded")

    camera = Camera(tasks, VideoFrames(broken, 60, width=64, height=48))
    publication = FakePublication()
    camera.start()
    camera.attach(publication)
    await until(lambda: "seeded" in caplog.text, "the log")
    assert values(await publication.let(4))[-3:] == [4, 4, 4]
    await camera.aclose()


async def test_a_track_that_refuses_is_asked_again_and_the_log_says_so_once(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    camera = Camera(tasks, TestPattern(64, 48, fps=60))
    publication = FakePublication()
    publication.broken = True
    camera.attach(publication)
    await until(lambda: publication.refusals == 2)
    publication.broken = False
    await publication.let(2)
    assert caplog.text.count("takes no pictures") == 1
    await camera.aclose()


async def test_closing_is_quick_even_at_one_picture_a_second(tasks: Tasks) -> None:
    camera = Camera(tasks, TestPattern(64, 48, fps=1))
    publication = FakePublication()
    camera.start()
    camera.attach(publication)
    await publication.let(1)
    await camera.aclose()
    assert not tasks.tasks
