"""What the contract of a room is tested on: the memory room, and LiveKit's client against each media server.

A backend makes rooms and tokens and does what only a server can do. Each has one room name of its own, and ends
everything it made.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tests.media_servers import MediaServerProcess
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import Permission, Publication, RemoteTrack, Room, RoomEvent, RoomOptions, TrackAdded

PATIENCE = 30.0
"""Upper bound of every wait; the machine may be slow, and a wait that succeeds costs nothing."""

PUBLISHER = Permission(can_publish=True)
LISTENER = Permission(can_publish=False)
EventT = TypeVar("EventT")


class Inbox:
    """The events one room posted, with waiting."""

    def __init__(self) -> None:
        self.events: list[RoomEvent] = []
        self._news = asyncio.Event()

    def __call__(self, event: RoomEvent) -> None:
        self.events.append(event)
        self._news.set()

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Those of one kind, so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(
        self,
        kind: type[EventT],
        matches: Callable[[EventT], bool] = lambda _: True,
        *,
        since: int = 0,
        limit: float = PATIENCE,
    ) -> EventT:
        """The first of a kind that matches, posted before or from now on."""
        async with asyncio.timeout(limit):
            while True:
                for event in self.events[since:]:
                    if isinstance(event, kind) and matches(event):
                        return event
                self._news.clear()
                await self._news.wait()

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when it is true, looking after every event."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._news.clear()
                await self._news.wait()


class Backend(ABC):
    """A server and the rooms made on it."""

    url: str

    def __init__(self) -> None:
        self.name = f"room-{secrets.token_hex(4)}"
        self.rooms: list[Room] = []

    def room(self, options: RoomOptions | None = None) -> tuple[Room, Inbox]:
        """A new room object and what it posts."""
        inbox = Inbox()
        room = self.make(inbox, options if options is not None else RoomOptions())
        self.rooms.append(room)
        return room, inbox

    async def join(
        self, identity: str, permission: Permission = PUBLISHER, options: RoomOptions | None = None, **token: Any
    ) -> tuple[Room, Inbox]:
        """A new room object that has joined."""
        room, inbox = self.room(options)
        await room.connect(self.url, self.token(identity, permission, **token))
        return room, inbox

    @abstractmethod
    def make(self, post: Callable[[RoomEvent], None], options: RoomOptions) -> Room: ...

    @abstractmethod
    def token(
        self, identity: str, permission: Permission = PUBLISHER, *, metadata: str = "", max_participants: int = 0
    ) -> str: ...

    @abstractmethod
    async def present(self) -> set[str]: ...

    @abstractmethod
    async def permit(self, identity: str, permission: Permission) -> None: ...

    @abstractmethod
    async def remove(self, identity: str) -> None: ...

    @abstractmethod
    async def delete_room(self) -> None: ...

    @abstractmethod
    async def set_room_metadata(self, metadata: str) -> None: ...

    @abstractmethod
    async def set_metadata(self, identity: str, metadata: str) -> None: ...

    @abstractmethod
    async def mute(self, identity: str, sid: str) -> None: ...

    @abstractmethod
    async def send_data(self, data: bytes, topic: str) -> None: ...

    @abstractmethod
    async def full_reconnect(self, room: Room) -> None: ...

    async def close(self) -> None:
        """End everything."""
        await asyncio.gather(*(room.disconnect() for room in self.rooms))


class MemoryBackend(Backend):
    """The memory room."""

    def __init__(self) -> None:
        from utd_fsm.testing import MemoryServer

        super().__init__()
        self.server = MemoryServer()
        self.url = self.server.url

    def make(self, post: Callable[[RoomEvent], None], options: RoomOptions) -> Room:
        return self.server.room_factory(post, options)

    def token(
        self, identity: str, permission: Permission = PUBLISHER, *, metadata: str = "", max_participants: int = 0
    ) -> str:
        return self.server.token(identity, self.name, permission, metadata=metadata, max_participants=max_participants)

    async def present(self) -> set[str]:
        room = self.server.rooms.get(self.name)
        return set(room.seats) if room is not None else set()

    async def permit(self, identity: str, permission: Permission) -> None:
        self.server.set_permission(self.name, identity, permission)

    async def remove(self, identity: str) -> None:
        self.server.remove(self.name, identity)

    async def delete_room(self) -> None:
        self.server.delete_room(self.name)

    async def set_room_metadata(self, metadata: str) -> None:
        self.server.set_room_metadata(self.name, metadata)

    async def set_metadata(self, identity: str, metadata: str) -> None:
        self.server.set_metadata(self.name, identity, metadata)

    async def mute(self, identity: str, sid: str) -> None:
        track = self.server.rooms[self.name].seats[identity].tracks[sid]
        self.server.mute(self.name, identity, track.source)

    async def send_data(self, data: bytes, topic: str) -> None:
        self.server.send_data(self.name, data, topic=topic)

    async def full_reconnect(self, room: Room) -> None:
        assert room.local is not None
        self.server.cut(self.name, room.local.identity)
        self.server.mend(self.name, room.local.identity, full=True)


class LiveKitBackend(Backend):
    """LiveKit's client against a media server."""

    def __init__(self, server: MediaServerProcess) -> None:
        from livekit import api

        super().__init__()
        self._api = api
        self._server = server
        self.url = server.url
        self._admin: Any = None

    @property
    def admin(self) -> Any:
        """The server's RoomService."""
        if self._admin is None:
            self._admin = self._api.LiveKitAPI(self._server.http_url, self._server.key, self._server.secret)
        return self._admin.room

    def make(self, post: Callable[[RoomEvent], None], options: RoomOptions) -> Room:
        from utd_fsm.livekit_room import LiveKitRoom

        return LiveKitRoom(post, options)

    def token(
        self, identity: str, permission: Permission = PUBLISHER, *, metadata: str = "", max_participants: int = 0
    ) -> str:
        names = {UTDTrackSource.SCREEN: "screen_share", UTDTrackSource.SCREEN_AUDIO: "screen_share_audio"}
        sources: list[Any] = [names.get(source, str(source)) for source in permission.sources]
        grants = self._api.VideoGrants(
            room_join=True,
            room=self.name,
            can_publish=permission.can_publish,
            can_subscribe=permission.can_subscribe,
            can_publish_data=permission.can_publish_data,
            can_publish_sources=sources,
        )
        token = self._api.AccessToken(self._server.key, self._server.secret).with_identity(identity)
        token = token.with_metadata(metadata).with_grants(grants)
        if max_participants:
            token = token.with_room_config(self._api.RoomConfiguration(max_participants=max_participants))
        return str(token.to_jwt())

    async def present(self) -> set[str]:
        rooms = await self.admin.list_rooms(self._api.ListRoomsRequest(names=[self.name]))
        if not any(room.name == self.name for room in rooms.rooms):
            return set()
        listed = await self.admin.list_participants(self._api.ListParticipantsRequest(room=self.name))
        return {participant.identity for participant in listed.participants}

    async def permit(self, identity: str, permission: Permission) -> None:
        from utd_fsm.livekit_tracks import SOURCE_NUMBERS

        sources: list[Any] = [SOURCE_NUMBERS[source] for source in permission.sources]
        message = self._api.ParticipantPermission(
            can_publish=permission.can_publish,
            can_subscribe=permission.can_subscribe,
            can_publish_data=permission.can_publish_data,
            can_publish_sources=sources,
        )
        await self.admin.update_participant(
            self._api.UpdateParticipantRequest(room=self.name, identity=identity, permission=message)
        )

    async def remove(self, identity: str) -> None:
        await self.admin.remove_participant(self._api.RoomParticipantIdentity(room=self.name, identity=identity))

    async def delete_room(self) -> None:
        await self.admin.delete_room(self._api.DeleteRoomRequest(room=self.name))

    async def set_room_metadata(self, metadata: str) -> None:
        await self.admin.update_room_metadata(self._api.UpdateRoomMetadataRequest(room=self.name, metadata=metadata))

    async def set_metadata(self, identity: str, metadata: str) -> None:
        await self.admin.update_participant(
            self._api.UpdateParticipantRequest(room=self.name, identity=identity, metadata=metadata)
        )

    async def mute(self, identity: str, sid: str) -> None:
        await self.admin.mute_published_track(
            self._api.MuteRoomTrackRequest(room=self.name, identity=identity, track_sid=sid, muted=True)
        )

    async def send_data(self, data: bytes, topic: str) -> None:
        await self.admin.send_data(
            self._api.SendDataRequest(room=self.name, data=data, kind=self._api.DataPacket.Kind.RELIABLE, topic=topic)
        )

    async def full_reconnect(self, room: Room) -> None:
        from livekit import rtc

        await room.native.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)

    async def close(self) -> None:
        from utd_fsm.livekit_room import settled

        await super().close()
        await settled()
        if self._admin is not None:
            await self._admin.aclose()


# -- sound and pictures


class Singer:
    """Captures a tone, on and on, until its publication ends or it is stopped."""

    def __init__(self, publication: Publication, hertz: float) -> None:
        self._publication = publication
        self._hertz = hertz
        self._task = asyncio.get_running_loop().create_task(self._sing())

    async def _sing(self) -> None:
        count = 0
        while not self._publication.closed:
            at = (np.arange(960) + count) / 48000
            await self._publication.capture(
                (12000 * np.sin(2 * np.pi * self._hertz * at)).astype(np.int16).reshape(-1, 1)
            )
            count += 960

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Painter:
    """Captures one colour at 15 frames a second, until its publication ends or it is stopped."""

    def __init__(self, publication: Publication, width: int, height: int, colour: tuple[int, int, int]) -> None:
        self._publication = publication
        self._frame = np.full((height, width, 3), colour, dtype=np.uint8)
        self._task = asyncio.get_running_loop().create_task(self._paint())

    async def _paint(self) -> None:
        while not self._publication.closed:
            await self._publication.capture(self._frame)
            await asyncio.sleep(1 / 15)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def pitch(samples: npt.NDArray[Any], sample_rate: int) -> float:
    """The strongest frequency, in hertz; 0 for silence."""
    mono = samples.astype(np.float64).mean(axis=1)
    if np.sqrt(np.mean(mono**2)) < 500:
        return 0.0
    spectrum = np.abs(np.fft.rfft(mono * np.hanning(len(mono))))
    return float(np.argmax(spectrum) * sample_rate / len(mono))


async def hear(track: RemoteTrack, hertz: float, *, sample_rate: int = 48000, channels: int = 1) -> None:
    """Return when a tone of this pitch is heard on the track."""
    stream = track.audio(sample_rate=sample_rate, channels=channels)
    heard: list[npt.NDArray[Any]] = []
    try:
        async with asyncio.timeout(PATIENCE):
            async for frame in stream:
                assert frame.dtype == np.int16
                assert frame.shape == (sample_rate // 50, channels)
                heard = [*heard[-9:], frame]
                if len(heard) == 10 and abs(pitch(np.concatenate(heard), sample_rate) - hertz) < 20:
                    return
    finally:
        await stream.aclose()
    raise AssertionError("the stream ended before the tone was heard")


async def track_of(inbox: Inbox, identity: str, *, since: int = 0) -> RemoteTrack:
    """The first track of somebody, when it has come."""
    return (await inbox.wait(TrackAdded, lambda event: event.track.identity == identity, since=since)).track


def only(permission: Permission, *sources: UTDTrackSource) -> Permission:
    """The permission, for these sources alone."""
    return replace(permission, sources=frozenset(sources))
