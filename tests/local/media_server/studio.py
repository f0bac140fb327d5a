"""A media server in the test's own loop, real LiveKit clients in it, and what tests ask of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from livekit import api, rtc
from livekit.rtc.room import EventTypes

from utd_fsm.local.media_server import MediaServer

KEY = "testkey"
SECRET = "a secret that is long enough for HMAC"
RATE = 48_000
PATIENCE = 30.0
"""Upper bound of every wait, in seconds: generous, because the machine may be busy."""

Permission = api.ParticipantPermission


def token(identity: str, room: str = "room", *, config: api.RoomConfiguration | None = None, **grants: Any) -> str:
    """An access token for that room; grants as `api.VideoGrants` takes them."""
    made = (
        api.AccessToken(KEY, SECRET)
        .with_identity(identity)
        .with_name(identity.title())
        .with_grants(api.VideoGrants(room_join=True, room=room, **grants))
    )
    return (made.with_room_config(config) if config is not None else made).to_jwt()


def who(identity: str, room: str = "room") -> api.RoomParticipantIdentity:
    return api.RoomParticipantIdentity(room=room, identity=identity)


class Client:
    """A real client, with everything that its room emitted."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.room = rtc.Room()
        self.events: list[tuple[str, tuple[Any, ...]]] = []
        self._something = asyncio.Event()
        for name in get_args(EventTypes):
            self.room.on(name, self._recorder(name))

    def _recorder(self, name: str) -> Callable[..., None]:
        def record(*args: Any) -> None:
            self.events.append((name, args))
            self._something.set()

        return record

    async def connect(self, url: str, access: str, *, single: bool = True, auto_subscribe: bool = True) -> Client:
        options = rtc.RoomOptions(single_peer_connection=single, auto_subscribe=auto_subscribe)
        await self.room.connect(url, access, options)
        return self

    @property
    def me(self) -> rtc.LocalParticipant:
        return self.room.local_participant

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def seen(self, name: str) -> list[tuple[Any, ...]]:
        return [args for found, args in self.events if found == name]

    async def event(self, name: str, matches: Callable[..., bool] = lambda *_: True) -> tuple[Any, ...]:
        """The first event of that name that matches, past ones included."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for args in self.seen(name):
                    if matches(*args):
                        return args
                self._something.clear()
                await self._something.wait()

    async def until(self, true: Callable[[], Any]) -> None:
        """Waits until something is true, looking again after every event and now and then."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._something.clear()
                try:
                    await asyncio.wait_for(self._something.wait(), 0.05)
                except TimeoutError:
                    pass

    def sees(self, identity: str) -> bool:
        return identity in self.room.remote_participants

    async def hears(self, track: rtc.RemoteAudioTrack, seconds: float = 1.0) -> tuple[float, float]:
        """Listens until that much sound (silence before it left out) has come.

        Returns:
            The strongest frequency in Hz and the loudness (RMS, int16 scale).
        """
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, capacity=200)
        heard: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        try:
            async with asyncio.timeout(PATIENCE):
                async for event in stream:
                    samples = np.frombuffer(event.frame.data, np.int16).astype(float)
                    if heard or np.abs(samples).max() > 500:
                        heard.append(samples)
                    if sum(map(len, heard)) >= seconds * RATE:
                        break
        finally:
            await stream.aclose()
        sound = np.concatenate(heard)
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
        return float(np.argmax(spectrum) * RATE / len(sound)), float(np.sqrt(np.mean(sound**2)))

    async def publish_tone(self, hertz: float, name: str = "microphone") -> Sender:
        source = rtc.AudioSource(RATE, 1, queue_size_ms=200)
        track = rtc.LocalAudioTrack.create_audio_track(name, source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        publication = await self.me.publish_track(track, options)
        return Sender(publication, track, asyncio.ensure_future(_tone(source, hertz)))

    async def publish_picture(self, width: int = 320, height: int = 180, **options: Any) -> Sender:
        source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        publication = await self.me.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, **options)
        )
        return Sender(publication, track, asyncio.ensure_future(_picture(source, width, height)))

    async def subscribed(self, sid: str) -> Any:
        """The remote track of that sid, once it is here."""
        return (await self.event("track_subscribed", lambda _track, pub, _who: pub.sid == sid))[0]


@dataclass
class Sender:
    """A published track and what feeds it."""

    publication: rtc.LocalTrackPublication
    track: rtc.LocalAudioTrack | rtc.LocalVideoTrack
    feeding: asyncio.Future[None]

    @property
    def sid(self) -> str:
        return self.publication.sid

    async def stop(self) -> None:
        self.feeding.cancel()
        await asyncio.gather(self.feeding, return_exceptions=True)


async def _tone(source: rtc.AudioSource, hertz: float) -> None:
    step, at = RATE // 100, 0
    while True:
        wave = 8000 * np.sin(2 * np.pi * hertz * (np.arange(step) + at) / RATE)
        at += step
        await source.capture_frame(rtc.AudioFrame(wave.astype(np.int16).tobytes(), RATE, 1, step))


async def _picture(source: rtc.VideoSource, width: int, height: int) -> None:
    count = 0
    while True:
        pixels = np.full((height, width, 4), 255, np.uint8)
        pixels[:, :, 0] = (np.arange(width) + 7 * count) % 256
        count += 1
        source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, pixels.tobytes()))
        await asyncio.sleep(1 / 20)


@dataclass
class Studio:
    """A running server and the clients in it."""

    server: MediaServer
    url: str
    lk: api.LiveKitAPI
    clients: list[Client] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)

    async def join(
        self, identity: str, room: str = "room", *, single: bool = True, auto_subscribe: bool = True, **grants: Any
    ) -> Client:
        client = Client(identity)
        self.clients.append(client)
        return await client.connect(
            self.url, token(identity, room, **grants), single=single, auto_subscribe=auto_subscribe
        )

    async def tone(self, client: Client, hertz: float) -> Sender:
        self.senders.append(await client.publish_tone(hertz))
        return self.senders[-1]

    async def picture(self, client: Client, **options: Any) -> Sender:
        self.senders.append(await client.publish_picture(**options))
        return self.senders[-1]

    async def permit(self, identity: str, room: str = "room", **permission: Any) -> api.ParticipantInfo:
        """Sends the whole permission, as one has to; everything is allowed that is not named."""
        whole: dict[str, Any] = {"can_subscribe": True, "can_publish": True, "can_publish_data": True} | permission
        request = api.UpdateParticipantRequest(room=room, identity=identity, permission=Permission(**whole))
        return await self.lk.room.update_participant(request)

    async def close(self) -> None:
        for sender in self.senders:
            await sender.stop()
        for client in self.clients:
            await client.room.disconnect()
        await self.lk.aclose()
        await self.server.stop()


@asynccontextmanager
async def studio(**options: Any) -> AsyncIterator[Studio]:
    """A server on a free port, gone at the end with all its clients."""
    server = MediaServer(key=KEY, secret=SECRET, **options)
    url = await server.start()
    made = Studio(server, url, api.LiveKitAPI(url, KEY, SECRET))
    try:
        yield made
    finally:
        await made.close()
