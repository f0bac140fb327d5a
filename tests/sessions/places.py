"""Rooms of media servers, and the server's own side of them, for tests of `UTDRoom` with LiveKit's real client."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.media_servers import MediaServerProcess
from utd_fsm import UTDRoom

T = TypeVar("T")

LONG = 60.0
"""Upper bound of every wait, in seconds."""


class Place:
    """A room of its own on a media server."""

    def __init__(self, server: MediaServerProcess) -> None:
        self.server = server
        self.name = f"room-{secrets.token_hex(4)}"
        self.rooms: list[UTDRoom] = []

    def token(self, identity: str, *, can_publish: bool = True) -> str:
        from livekit import api

        grants = api.VideoGrants(room_join=True, room=self.name, can_publish=can_publish, can_subscribe=True)
        return api.AccessToken(self.server.key, self.server.secret).with_identity(identity).with_grants(grants).to_jwt()

    def join(self, identity: str, *, can_publish: bool = True, **options: bool) -> UTDRoom:
        """Somebody in the room; ``options`` are those of `UTDRoom`."""
        room = UTDRoom(**options)
        self.rooms.append(room)
        room.connect(self.server.url, self.token(identity, can_publish=can_publish), timeout=LONG)
        return room

    def admin(self, do: Callable[[Any, Any], Awaitable[T]]) -> T:
        """Call ``do(livekit.api, its RoomService)``."""
        from livekit import api

        async def call() -> T:
            async with api.LiveKitAPI(self.server.http_url, self.server.key, self.server.secret) as lk:
                return await do(api, lk.room)

        return asyncio.run(call())

    def permit(self, identity: str, can_publish: bool) -> None:
        self.admin(
            lambda api, room: room.update_participant(
                api.UpdateParticipantRequest(
                    room=self.name,
                    identity=identity,
                    permission=api.ParticipantPermission(
                        can_subscribe=True, can_publish=can_publish, can_publish_data=True
                    ),
                )
            )
        )

    def mute(self, identity: str, sid: str) -> None:
        """As a moderator's backend mutes a track."""
        self.admin(
            lambda api, room: room.mute_published_track(
                api.MuteRoomTrackRequest(room=self.name, identity=identity, track_sid=sid, muted=True)
            )
        )

    def close(self) -> None:
        """Everybody goes."""
        for room in self.rooms:
            room.dispose()
