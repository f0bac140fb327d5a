"""Listening and watching: who gets what, in which form, how streams end, and what is not delivered any more."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from tests.media.helpers import LONG, FakeTrack, Tasks, until
from utd_fsm.errors import UTDConnectionError, UTDInputError, UTDStateError, UTDTimeoutError
from utd_fsm.media.incoming import Listening
from utd_fsm.models import UTDTrackSource


def piece(value: int, channels: int = 1) -> Any:
    return np.full((960, channels), value, dtype=np.int16)


def picture(value: int) -> Any:
    return np.full((48, 64, 3), value, dtype=np.uint8)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await until(lambda: not made.tasks, "the end of the taps")
    assert made.errors == []


@pytest.fixture
async def listening(tasks: Tasks) -> AsyncIterator[Listening]:
    made = Listening(tasks)
    made.start_now()
    yield made
    await made.aclose()


def heard(stream: Any) -> list[int]:
    """What waits in a stream, by the value of its pieces."""
    line, values = stream._line, []
    while line._items:
        frame = line.take()
        values.append(int((frame.samples if hasattr(frame, "samples") else frame.pixels).flat[0]))
    return values


# ------------------------------------------------------------------------------------------------------------- sound


async def test_a_frame_tells_what_it_is(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    stream = listening.audio("bob", sample_rate=24_000, channels=2).async_stream
    listening.add(bob)
    before = time.monotonic()
    await bob.say(piece(5, 2))
    frame = await stream.get()
    assert bob.opened == [(24_000, 2)]
    assert frame.samples.dtype == np.int16
    assert frame.samples.shape == (960, 2)
    assert (frame.sample_rate, frame.channels, frame.identity, frame.dropped) == (24_000, 2, "bob", 0)
    assert before <= frame.timestamp <= time.monotonic()
    assert frame.seconds == pytest.approx(0.04)


async def test_each_listener_hears_whom_it_asked_for(listening: Listening) -> None:
    bob, carol = FakeTrack("TR_1", "bob"), FakeTrack("TR_2", "carol")
    listening.add(bob)
    of_bob, of_all, of_dave = (listening.audio(who).async_stream for who in ("bob", None, "dave"))
    listening.add(carol)  # whoever comes later is heard too
    await bob.say(piece(1))
    await carol.say(piece(2))
    await bob.say(piece(3))
    assert heard(of_bob) == [1, 3]
    assert heard(of_all) == [1, 2, 3]
    assert heard(of_dave) == []


async def test_every_listener_has_its_own_writable_copy_of_one_stream(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    streams = [listening.audio("bob").async_stream for _ in range(3)]
    assert len(bob.streams) == 1
    original = piece(1)
    original.setflags(write=False)
    await bob.say(original)
    frames = [await stream.get() for stream in streams]
    for number, frame in enumerate(frames):
        frame.samples[:] = 100 + number
    assert [int(frame.samples[0, 0]) for frame in frames] == [100, 101, 102]
    assert original[0, 0] == 1


async def test_each_form_is_one_stream_and_the_last_listener_closes_it(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    assert bob.streams == []
    first, second, other = listening.audio(), listening.audio("bob"), listening.audio(sample_rate=16_000)
    streams = [feed.async_stream for feed in (first, second, other)]
    assert bob.opened == [(48_000, 1), (16_000, 1)]
    streams[0].close()
    await asyncio.sleep(0)
    assert len(bob.streams) == 2
    streams[1].close()
    await until(lambda: len(bob.streams) == 1)
    streams[2].close()
    await until(lambda: not bob.streams)
    assert bob.opened == [(48_000, 1), (16_000, 1)]


async def test_dropping_a_stream_unsubscribes_in_any_thread(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    stream: Any = listening.audio().async_stream
    holder = [stream]
    del stream

    def forget() -> None:
        holder.clear()
        gc.collect()

    thread = threading.Thread(target=forget)
    thread.start()
    await until(lambda: not bob.streams)
    thread.join(LONG)


async def test_a_slow_listener_loses_the_oldest_second_and_is_told(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    slow, quick = listening.audio().async_stream, listening.audio().async_stream
    for value in range(60):
        await bob.say(piece(value))
        assert (await quick.get()).samples[0, 0] == value
    frame = await slow.get()
    assert frame.samples[0, 0] == 10
    assert frame.dropped == slow.dropped == 10
    assert (await slow.get()).dropped == 0
    assert quick.dropped == 0


async def test_what_was_lost_before_it_came_here_is_told_too(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    stream = listening.audio().async_stream
    await bob.say(piece(1))
    bob.streams[0].dropped = 3
    await bob.say(piece(2), piece(3))
    assert [(await stream.get()).dropped for _ in range(3)] == [3, 0, 0]
    assert stream.dropped == 3


async def test_everybody_together_has_a_second_each(listening: Listening) -> None:
    tracks = [FakeTrack(f"TR_{n}", f"p{n}") for n in range(4)]
    stream = listening.audio().async_stream
    for track in tracks:
        listening.add(track)
    for _ in range(50):
        for track in tracks:
            await track.say(piece(1))
    assert stream.dropped == 0
    assert len(heard(stream)) == 200


async def test_screen_audio_and_unnamed_sources(listening: Listening) -> None:
    voice = FakeTrack("TR_1", "bob", source=UTDTrackSource.UNKNOWN)
    screen = FakeTrack("TR_2", "bob", source=UTDTrackSource.SCREEN_AUDIO)
    listening.add(voice)
    listening.add(screen)
    said, shown = listening.audio("bob").async_stream, listening.audio("bob", source="screen_audio").async_stream
    await voice.say(piece(1))
    await screen.say(piece(2))
    assert heard(said) == [1]
    assert heard(shown) == [2]


# -------------------------------------------------------------------------------------------------------------- the end


async def test_nothing_of_a_removed_track_is_delivered_any_more(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    stream = listening.audio().async_stream
    await bob.say(piece(1))
    native = bob.streams[0]
    native.put(piece(66))  # already there, not yet handed out: it may be somebody else's voice (fact 34)
    listening.remove("TR_1")
    listening.remove("TR_1")
    native.put(piece(67))
    await until(lambda: native.closed)
    await until(lambda: len(listening._tasks.tasks) == 0)  # type: ignore[attr-defined]
    assert heard(stream) == [1]
    assert not stream.closed  # a gap: bob may come back
    again = FakeTrack("TR_2", "bob")
    listening.add(again)
    await again.say(piece(2))
    assert heard(stream) == [2]


async def test_the_same_sid_again_is_a_new_track(listening: Listening) -> None:
    old, new = FakeTrack("TR_1", "bob"), FakeTrack("TR_1", "bob")
    stream = listening.audio().async_stream
    listening.add(old)
    listening.add(new)
    await until(lambda: not old.streams)
    await new.say(piece(2))
    assert heard(stream) == [2]


async def test_a_track_that_ends_by_itself_is_a_gap(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    stream = listening.audio(timeout=0.05).async_stream
    await bob.streams[0].aclose()
    with pytest.raises(UTDTimeoutError, match="the sound of everybody"):
        await anext(stream)


async def test_the_end_of_the_call_ends_streams_after_what_is_queued(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    stream, seen = listening.audio().async_stream, listening.video().async_stream
    await bob.say(piece(1), piece(2))
    listening.finish()
    listening.finish()
    assert [int(frame.samples[0, 0]) async for frame in stream] == [1, 2]
    assert [frame async for frame in seen] == []
    await until(lambda: not bob.streams)
    for late in (listening.audio, listening.video, lambda: listening.record("x.wav")):
        with pytest.raises(UTDStateError, match="over"):
            late()
    listening.add(bob)
    assert bob.streams == []


async def test_a_call_that_was_lost_says_so_at_the_end(listening: Listening) -> None:
    stream = listening.audio().async_stream
    listening.finish(UTDConnectionError("lost"))
    with pytest.raises(UTDConnectionError, match="lost"):
        await anext(stream)


async def test_seconds_count_from_the_first_frame(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    stream = listening.audio(seconds=0.1).async_stream
    await asyncio.sleep(0.15)  # longer than its seconds: they do not run yet
    assert not stream.closed
    listening.add(bob)
    await bob.say(piece(1))
    await until(lambda: not bob.streams, "the end")
    assert [int(frame.samples[0, 0]) async for frame in stream] == [1]


async def test_a_gap_longer_than_the_timeout_raises_but_not_before_the_answer(tasks: Tasks) -> None:
    listening = Listening(tasks)
    stream = listening.audio("bob", timeout=0.05).async_stream
    reading = asyncio.ensure_future(stream.get())
    done, _ = await asyncio.wait({reading}, timeout=0.2)
    assert not done
    listening.start_now()
    listening.start_now()
    with pytest.raises(UTDTimeoutError, match="the sound of bob"):
        await reading
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    await bob.say(piece(1))
    assert heard(stream) == [1]  # the stream is as good as before
    await listening.aclose()


@pytest.mark.parametrize(
    "arguments",
    [
        {"seconds": 0},
        {"seconds": -1},
        {"timeout": -1},
        {"timeout": "x"},
        {"sample_rate": 7999},
        {"sample_rate": 200_000},
        {"channels": 3},
        {"source": "camera"},
    ],
)
async def test_bad_arguments_are_refused_and_nothing_listens(listening: Listening, arguments: Any) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    with pytest.raises(UTDInputError, match="allowed"):
        listening.audio(**arguments)
    assert bob.streams == []
    with pytest.raises(UTDInputError, match="allowed"):
        listening.video(source="microphone")


# ------------------------------------------------------------------------------------------------------------ pictures


async def test_only_the_newest_picture_waits_and_tells_what_it_replaced(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob", "video")
    listening.add(bob)
    stream = listening.video("bob").async_stream
    await bob.say(picture(1), picture(2), picture(3))
    frame = await stream.get()
    assert (frame.pixels == 3).all()
    assert (frame.width, frame.height, frame.identity, frame.dropped) == (64, 48, "bob", 2)
    frame.pixels[:] = 0


async def test_camera_and_screen_are_two_things(listening: Listening) -> None:
    camera = FakeTrack("TR_1", "bob", "video")
    screen = FakeTrack("TR_2", "bob", "video", UTDTrackSource.SCREEN)
    listening.add(camera)
    listening.add(screen)
    faces, slides = listening.video("bob").async_stream, listening.video("bob", source="screen").async_stream
    await camera.say(picture(1))
    await screen.say(picture(2))
    assert heard(faces) == [1]
    assert heard(slides) == [2]


async def test_a_video_is_wanted_as_large_as_the_largest_who_watches(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob", "video")
    listening.add(bob)
    assert bob.wanted == [(False, None)]
    small = listening.video(size=(320, 180)).async_stream
    wide = listening.video("bob", size=(640, 90)).async_stream
    tall = listening.video(size=(100, 400)).async_stream
    full = listening.video().async_stream
    assert bob.wanted[1:] == [(True, (320, 180)), (True, (640, 180)), (True, (640, 400)), (True, None)]
    assert len(bob.streams) == 1
    for stream in (full, tall, wide, small):
        stream.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert bob.wanted[5:] == [(True, (640, 400)), (True, (640, 180)), (True, (320, 180)), (False, None)]
    assert bob.streams == []


async def test_without_adaptive_streams_nothing_is_paused(tasks: Tasks) -> None:
    listening = Listening(tasks, adaptive=False)
    bob = FakeTrack("TR_1", "bob", "video")
    listening.add(bob)
    listening.video(size=(320, 180)).async_stream.close()
    assert bob.wanted == []
    await listening.aclose()


async def test_sound_is_never_told_to_be_unwanted(listening: Listening) -> None:
    bob = FakeTrack("TR_1", "bob")
    listening.add(bob)
    listening.audio().async_stream.close()
    assert bob.wanted == []
