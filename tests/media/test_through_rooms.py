"""The whole way of sound and pictures: source, microphone, track, room, listener, file; on every kind of room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from tests.media.helpers import Tasks, pitch, until
from tests.media_servers import KINDS, MediaServers
from tests.room_backends import PATIENCE, Backend, Inbox, LiveKitBackend, MemoryBackend
from utd_fsm.media import AudioFeed, TestPattern, Tone, WavFile
from utd_fsm.media.incoming import Listening
from utd_fsm.media.outgoing import Camera, Microphone
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import LocalTrackSubscribed, Room, TrackAdded, TrackRemoved

pytestmark = pytest.mark.media

T = TypeVar("T")


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await awaitable


@pytest.fixture(params=["memory", *KINDS])
async def backend(request: pytest.FixtureRequest, media_servers: MediaServers) -> AsyncIterator[Backend]:
    made: Backend = MemoryBackend() if request.param == "memory" else LiveKitBackend(media_servers.get(request.param))
    yield made
    await made.close()


class Party:
    """One who is in the room: what a session does with media, and no more."""

    def __init__(self, room: Room, inbox: Inbox, tasks: Tasks) -> None:
        self.room = room
        self.inbox = inbox
        self.listening = Listening(tasks)
        self.listening.start_now()
        self._seen = 0

    def follow(self) -> None:
        """Tell `Listening` what the room said."""
        for event in self.inbox.events[self._seen :]:
            if isinstance(event, TrackAdded):
                self.listening.add(event.track)
            elif isinstance(event, TrackRemoved):
                self.listening.remove(event.sid)
        self._seen = len(self.inbox.events)

    async def hears(self, source: UTDTrackSource) -> None:
        await self.inbox.wait(TrackAdded, lambda event: event.track.source is source)
        self.follow()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    assert made.errors == []


async def parties(backend: Backend, tasks: Tasks) -> tuple[Party, Party]:
    alice, bob = await asyncio.gather(backend.join("alice"), backend.join("bob"))
    return Party(*alice, tasks), Party(*bob, tasks)


async def collected(stream: Any, seconds: float, *, wait_for_sound: bool = True) -> Any:
    """So much sound of a stream, from where it is loud."""
    frames: list[Any] = []
    async for frame in stream:
        if frames or not wait_for_sound or np.abs(frame.samples).max() > 3000:
            frames.append(frame.samples)
        if len(frames) * 0.02 >= seconds:
            return np.concatenate(frames)
    raise AssertionError("the stream ended")


async def test_a_tone_is_heard_listened_to_and_recorded_at_its_pitch(
    backend: Backend, tasks: Tasks, tmp_path: Path
) -> None:
    alice, bob = await parties(backend, tasks)
    microphone = Microphone(tasks, Tone(440))
    publication = await alice.room.publish_audio(UTDTrackSource.MICROPHONE)
    microphone.attach(publication)
    await bob.hears(UTDTrackSource.MICROPHONE)
    stream = bob.listening.audio("alice").async_stream
    low = bob.listening.audio(sample_rate=16_000, channels=2).async_stream
    await alice.inbox.wait(LocalTrackSubscribed)
    microphone.start()
    sound = await soon(collected(stream, 1.0))
    assert pitch(sound) == pytest.approx(440, abs=0.5)
    assert sound.shape[1] == 1
    recorder = bob.listening.record(tmp_path / "alice.wav", seconds=1.0, identity="alice")
    stereo = await soon(collected(low, 0.5))
    assert stereo.shape[1] == 2
    assert pitch(stereo[:, 0], 16_000) == pytest.approx(440, abs=1.5)
    result = await soon(recorder.wait())
    assert result.ended_by == "seconds"
    assert result.seconds == pytest.approx(1.0)
    reader = WavFile(result.path).open()
    recorded = reader.read(48_000)
    reader.close()
    assert pitch(recorded) == pytest.approx(440, abs=2)
    await microphone.aclose()
    await bob.listening.aclose()


async def test_play_returns_when_it_was_heard_and_the_source_goes_on(backend: Backend, tasks: Tasks) -> None:
    alice, bob = await parties(backend, tasks)
    microphone = Microphone(tasks, Tone(440))
    microphone.attach(await alice.room.publish_audio(UTDTrackSource.MICROPHONE))
    await bob.hears(UTDTrackSource.MICROPHONE)
    stream = bob.listening.audio("alice").async_stream
    await alice.inbox.wait(LocalTrackSubscribed)
    microphone.start()
    assert pitch(await soon(collected(stream, 0.5))) == pytest.approx(440, abs=2)
    began = asyncio.get_running_loop().time()
    await soon(microphone.play(Tone(1000, seconds=0.6)))
    assert asyncio.get_running_loop().time() - began >= 0.5  # as long as it is, but for what was queued before it
    played = await soon(collected(stream, 0.6, wait_for_sound=False))
    assert pitch(played[len(played) // 2 :]) == pytest.approx(1000, abs=10)
    await until(lambda: len(stream._line._items) >= 45)  # all that was queued is past
    await soon(collected(stream, 0.9, wait_for_sound=False))
    assert pitch(await soon(collected(stream, 0.5))) == pytest.approx(440, abs=2)
    await microphone.aclose()
    await bob.listening.aclose()


async def test_a_muted_microphone_goes_on_where_it_was(backend: Backend, tasks: Tasks) -> None:
    alice, bob = await parties(backend, tasks)
    feed = AudioFeed(48_000, 1, seconds=5)
    microphone = Microphone(tasks, feed)
    publication = await alice.room.publish_audio(UTDTrackSource.MICROPHONE)
    microphone.attach(publication)
    await bob.hears(UTDTrackSource.MICROPHONE)
    stream = bob.listening.audio("alice").async_stream
    await alice.inbox.wait(LocalTrackSubscribed)
    microphone.start()
    microphone.pause()
    await publication.set_muted(True)
    feed.push(Tone(660, seconds=1.0).open().read(48_000))
    await publication.set_muted(False)
    microphone.resume()
    assert pitch(await soon(collected(stream, 0.6))) == pytest.approx(660, abs=3)
    await microphone.aclose()
    await bob.listening.aclose()


async def test_pictures_arrive_in_order_and_the_newest_is_what_is_seen(backend: Backend, tasks: Tasks) -> None:
    alice, bob = await parties(backend, tasks)
    camera = Camera(tasks, TestPattern(320, 180, fps=15))
    publication = await alice.room.publish_video(
        UTDTrackSource.CAMERA, width=camera.width, height=camera.height, fps=camera.fps, simulcast=False
    )
    camera.attach(publication)
    await bob.hears(UTDTrackSource.CAMERA)
    stream = bob.listening.video("alice").async_stream
    camera.start()
    numbers: list[int] = []
    async with asyncio.timeout(PATIENCE):
        async for frame in stream:
            assert frame.pixels.dtype == np.uint8
            assert frame.pixels.shape[2] == 3
            assert frame.identity == "alice"
            if frame.pixels.max() > 100:  # before the start it was black
                numbers.append(TestPattern.number_in(frame.pixels))
            if len(set(numbers)) >= 10:
                break
    # A real encoder begins at a few kilobits: its first pictures may be too blurred to read the number in them.
    later = numbers[len(numbers) // 2 :]
    assert later == sorted(later)
    assert later[-1] < 600
    stream.close()
    await camera.aclose()
    await bob.listening.aclose()


async def test_nothing_is_heard_of_a_track_after_it_was_unpublished(backend: Backend, tasks: Tasks) -> None:
    alice, bob = await parties(backend, tasks)
    microphone = Microphone(tasks, Tone(440))
    microphone.start()
    microphone.attach(await alice.room.publish_audio(UTDTrackSource.MICROPHONE))
    await bob.hears(UTDTrackSource.MICROPHONE)
    stream = bob.listening.audio().async_stream
    await soon(collected(stream, 0.1))
    microphone.detach()
    await alice.room.unpublish(UTDTrackSource.MICROPHONE)
    await bob.inbox.wait(TrackRemoved)
    bob.follow()
    while stream._line._items:
        await stream.get()
    # The next one to publish may get the same media section: only the new track may be heard.
    second = Microphone(tasks, Tone(880))
    second.start()
    since = len(bob.inbox.events)
    second.attach(await alice.room.publish_audio(UTDTrackSource.MICROPHONE))
    await bob.inbox.wait(TrackAdded, since=since)
    assert not stream._line._items
    bob.follow()
    assert pitch(await soon(collected(stream, 0.5))) == pytest.approx(880, abs=3)
    await microphone.aclose()
    await second.aclose()
    await bob.listening.aclose()
