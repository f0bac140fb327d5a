"""The media server as the engine asks it: five requests of LiveKit's RoomService, each with one plain outcome.

What is not there is no error: a room that is gone has no participants and needs no deleting. Whatever else goes wrong
is `MediaUnreachableError`, and its text holds no token.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar

import aiohttp
from livekit import api
from livekit.protocol import models

from .settings import EngineSettings

T = TypeVar("T")
_TIMEOUT: Final = 5.0


class MediaUnreachableError(Exception):
    """The media server did not answer, or answered with an error: nothing is known."""


class MediaApi:
    """RoomService, with the engine's key. Made and used on the event loop."""

    def __init__(self, settings: EngineSettings) -> None:
        self._api = api.LiveKitAPI(
            settings.media_url,
            settings.livekit_key,
            settings.livekit_secret,
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT),
            failover=False,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    async def rooms(self) -> list[str]:
        """The names of all rooms."""
        answer = await self._ask(self._api.room.list_rooms(api.ListRoomsRequest()))
        return [] if answer is None else [room.name for room in answer.rooms]

    async def participants(self, room: str) -> list[models.ParticipantInfo]:
        """Who is in a room, those in mid-join too; nobody, if there is no such room."""
        answer = await self._ask(self._api.room.list_participants(api.ListParticipantsRequest(room=room)))
        if answer is None:
            return []
        return [each for each in answer.participants if each.state != models.ParticipantInfo.State.DISCONNECTED]

    async def delete_room(self, room: str) -> None:
        """Everybody out, and the room gone."""
        await self._ask(self._api.room.delete_room(api.DeleteRoomRequest(room=room)))

    async def remove(self, room: str, identity: str) -> None:
        """One participant out."""
        request = api.RoomParticipantIdentity(room=room, identity=identity)
        await self._ask(self._api.room.remove_participant(request))

    async def set_permission(self, room: str, identity: str, permission: models.ParticipantPermission) -> None:
        """Replace a participant's whole permission."""
        request = api.UpdateParticipantRequest(room=room, identity=identity, permission=permission)
        await self._ask(self._api.room.update_participant(request))

    @staticmethod
    async def _ask(request: Awaitable[T]) -> T | None:
        """The answer; None for "not found"."""
        try:
            return await request
        except api.TwirpError as error:
            if error.code == api.TwirpErrorCode.NOT_FOUND:
                return None
            raise MediaUnreachableError(f"the media server answered {error.status} {error.code}") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise MediaUnreachableError(f"the media server did not answer: {type(error).__name__}") from None
