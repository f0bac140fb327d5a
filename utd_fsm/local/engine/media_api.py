"""The media server as the engine asks it: LiveKit's RoomService, each request with one plain outcome.

What is not there is no error: a room that is gone has no participants and needs no deleting. Whatever else goes wrong
is `MediaUnreachableError`, and its text holds no token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import aiohttp
from livekit import api
from livekit.api.room_service import RoomService
from livekit.protocol import models

from .settings import EngineSettings

T = TypeVar("T")
_TIMEOUT: Final = 5.0


class MediaUnreachableError(Exception):
    """The media server did not answer, or answered with an error: nothing is known."""


class MediaRefusedError(MediaUnreachableError):
    """The media server understood, and said no: asking the same again is of no use."""


class MediaApi:
    """RoomService, with the engine's key. Used on the event loop; connects at the first request."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._made: api.LiveKitAPI | None = None

    @property
    def _room(self) -> RoomService:
        if self._made is None:
            self._made = api.LiveKitAPI(
                self._settings.media_url,
                self._settings.livekit_key,
                self._settings.livekit_secret,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT),
                failover=False,
            )
        return self._made.room

    async def aclose(self) -> None:
        """Close the connections."""
        if self._made is not None:
            await self._made.aclose()

    # --- rooms

    async def rooms(self) -> dict[str, models.Room]:
        """All rooms, by name."""
        answer = await self._ask(lambda: self._room.list_rooms(api.ListRoomsRequest()))
        return {} if answer is None else {room.name: room for room in answer.rooms}

    async def delete_room(self, room: str) -> None:
        """Everybody out, and the room gone."""
        await self._ask(lambda: self._room.delete_room(api.DeleteRoomRequest(room=room)))

    async def set_metadata(self, room: str, metadata: str) -> bool:
        """Replace a room's metadata; False where there is no such room."""
        request = api.UpdateRoomMetadataRequest(room=room, metadata=metadata)
        return await self._ask(lambda: self._room.update_room_metadata(request)) is not None

    async def send(self, room: str, data: bytes, to: Iterable[str]) -> None:
        """A reliable data message without a topic, to these identities, or to all if there are none."""
        request = api.SendDataRequest(
            room=room, data=data, kind=models.DataPacket.RELIABLE, destination_identities=list(to)
        )
        await self._ask(lambda: self._room.send_data(request))

    # --- participants

    async def participants(self, room: str) -> list[models.ParticipantInfo]:
        """Who is in a room, those in mid-join too; nobody, if there is no such room."""
        answer = await self._ask(lambda: self._room.list_participants(api.ListParticipantsRequest(room=room)))
        if answer is None:
            return []
        return [each for each in answer.participants if each.state != models.ParticipantInfo.State.DISCONNECTED]

    async def participant(self, room: str, identity: str) -> models.ParticipantInfo | None:
        """One participant; None where it is not there."""
        request = api.RoomParticipantIdentity(room=room, identity=identity)
        return await self._ask(lambda: self._room.get_participant(request))

    async def remove(self, room: str, identity: str) -> None:
        """One participant out."""
        request = api.RoomParticipantIdentity(room=room, identity=identity)
        await self._ask(lambda: self._room.remove_participant(request))

    async def update(
        self, room: str, identity: str, permission: models.ParticipantPermission, metadata: str = ""
    ) -> bool:
        """Replace a participant's whole permission, and its metadata unless they are empty; False where it isn't."""
        request = api.UpdateParticipantRequest(room=room, identity=identity, permission=permission, metadata=metadata)
        return await self._ask(lambda: self._room.update_participant(request)) is not None

    async def mute(self, room: str, identity: str, track_sid: str) -> None:
        """Silence one track; only its owner can undo that (fact 14)."""
        request = api.MuteRoomTrackRequest(room=room, identity=identity, track_sid=track_sid, muted=True)
        await self._ask(lambda: self._room.mute_published_track(request))

    @staticmethod
    async def _ask(request: Callable[[], Awaitable[T]]) -> T | None:
        """The answer; None for "not found"."""
        try:
            return await request()
        except api.TwirpError as error:
            if error.code == api.TwirpErrorCode.NOT_FOUND:
                return None
            kind = MediaRefusedError if error.code == api.TwirpErrorCode.INVALID_ARGUMENT else MediaUnreachableError
            raise kind(f"the media server answered {error.status} {error.code}") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise MediaUnreachableError(f"the media server did not answer: {type(error).__name__}") from None
