"""The routes of one live stream or audio room for one signed-in device, awaitable: each request runs in a REST thread,
never on the loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType, UTDTokenResponse
from utd_fsm.room_models import (
    UTDBan,
    UTDBanPage,
    UTDBroadcast,
    UTDInvitation,
    UTDRoleChange,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStage,
)

from .engine_calls import REST, WISH

if TYPE_CHECKING:
    from utd_fsm.engine_api import Credentials, EngineApi
    from utd_fsm.engine_rooms import SeatAnswer
    from utd_fsm.portal import Portal

T = TypeVar("T")


class EngineRoom:
    """`engine_rooms.RoomApi` with credentials and room bound. See there for what each method sends and raises.

    Wishes about oneself (those with a ``key``) and what is done to others take at most 15 s, looks and the way in 10 s.

    Args:
        portal: whose REST threads send.
        api: the engine.
        credentials: as whom.
        room_name: the room.
        type: ``live_stream`` or ``audio_room``.
        metadata: what every `way_in` tells of oneself, as `EngineApi.room_token` takes it.
    """

    def __init__(
        self,
        portal: Portal,
        api: EngineApi,
        credentials: Credentials,
        room_name: str,
        type: UTDStreamType,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._portal = portal
        self._api = api
        self._rooms = api.rooms
        self._credentials = credentials
        self._metadata = metadata
        self.name = room_name
        self.type = type
        self.identity = credentials.identity

    async def _look(self, method: Callable[..., T], *args: Any, **more: Any) -> T:
        return await self._portal.in_thread(partial(method, self._credentials, *args, deadline=REST, **more))

    async def _wish(self, method: Callable[..., T], *args: Any, **more: Any) -> T:
        request = partial(method, self._credentials, self.name, *args, deadline=WISH, **more)
        return await self._portal.in_thread(request)

    async def way_in(
        self,
        *,
        as_host: bool = False,
        seat_count: int | None = None,
        seat_mode: UTDSeatMode | str | None = None,
        mode_id: int | str | None = None,
        host_seat: int | None = None,
    ) -> UTDTokenResponse:
        """A fresh way into the room (``POST /token``), for the join and for every join after it.

        Args:
            as_host: whether to claim the room; the engine clamps the claim of whoever does not own it.
            seat_count, seat_mode, mode_id, host_seat: seed an audio room's seats (hosts only).
        """
        return await self._look(
            self._api.room_token,
            self.name,
            self.type,
            UTDRole.HOST if as_host else UTDRole.AUDIENCE,
            room_owner_id=self.identity if as_host else None,
            metadata=self._metadata,
            seat_count=seat_count,
            seat_mode=seat_mode,
            mode_id=mode_id,
            host_seat=host_seat,
        )

    # --- the stage

    async def stage(self, *, key: str | None = None) -> UTDStage:
        return await self._look(self._rooms.stage, self.name, key=key)

    async def stage_request(self, *, key: str) -> UTDStage | None:
        return await self._wish(self._rooms.stage_request, key=key)

    async def stage_lower(self, *, key: str) -> UTDStage | None:
        return await self._wish(self._rooms.stage_lower, key=key)

    async def stage_leave(self, *, key: str) -> UTDStage | None:
        return await self._wish(self._rooms.stage_leave, key=key)

    async def stage_add(self, target: str) -> UTDStage | None:
        return await self._wish(self._rooms.stage_add, target)

    async def stage_remove(self, target: str) -> UTDStage | None:
        return await self._wish(self._rooms.stage_remove, target)

    async def live_start(self, *, key: str | None = None) -> tuple[UTDBroadcast | None, int | None]:
        return await self._wish(self._rooms.live_start, key=key)

    async def live_end(self, *, key: str | None = None) -> tuple[UTDBroadcast | None, int | None]:
        return await self._wish(self._rooms.live_end, key=key)

    # --- the seats

    async def seats(self, *, key: str | None = None) -> UTDSeatGrid:
        return await self._look(self._rooms.seats, self.name, key=key)

    async def setup_seats(
        self,
        *,
        count: int | None = None,
        mode: UTDSeatMode | str | None = None,
        mode_id: int | str | None = None,
    ) -> SeatAnswer:
        return await self._wish(self._rooms.setup_seats, count=count, mode=mode, mode_id=mode_id)

    async def take(self, index: int, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.take, index, key=key)

    async def leave(self, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.leave, key=key)

    async def move(self, index: int, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.move, index, key=key)

    async def kick(self, index: int) -> SeatAnswer:
        return await self._wish(self._rooms.kick, index)

    async def lock(self, index: int) -> SeatAnswer:
        return await self._wish(self._rooms.lock, index)

    async def unlock(self, index: int) -> SeatAnswer:
        return await self._wish(self._rooms.unlock, index)

    async def mute(self, index: int) -> SeatAnswer:
        return await self._wish(self._rooms.mute, index)

    async def unmute(self, index: int) -> SeatAnswer:
        return await self._wish(self._rooms.unmute, index)

    async def swap(self, a: int, b: int) -> SeatAnswer:
        return await self._wish(self._rooms.swap, a, b)

    async def mute_all(self, muted: bool) -> SeatAnswer:
        return await self._wish(self._rooms.mute_all, muted)

    # --- speakers

    async def request(self, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.request, key=key)

    async def cancel(self, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.cancel, key=key)

    async def requests(self) -> tuple[UTDSpeakerRequest, ...]:
        return await self._look(self._rooms.requests, self.name)

    async def approve(self, id: int | UTDSpeakerRequest) -> SeatAnswer:
        return await self._wish(self._rooms.approve, id)

    async def reject(self, id: int | UTDSpeakerRequest) -> SeatAnswer:
        return await self._wish(self._rooms.reject, id)

    async def invite(self, target: str, seat_index: int | None = None) -> SeatAnswer:
        return await self._wish(self._rooms.invite, target, seat_index)

    async def accept(self, id: int | UTDInvitation, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.accept, id, key=key)

    async def decline(self, id: int | UTDInvitation, *, key: str) -> SeatAnswer:
        return await self._wish(self._rooms.decline, id, key=key)

    # --- participants, roles, bans, comments

    async def remove_participant(self, identity: str) -> None:
        await self._wish(self._rooms.remove_participant, identity)

    async def mute_participant(
        self, identity: str, *, audio: bool = True, video: bool = False, muted: bool = True
    ) -> None:
        await self._wish(self._rooms.mute_participant, identity, audio=audio, video=video, muted=muted)

    async def set_role(self, identity: str, role: UTDRole | str) -> UTDRoleChange:
        return await self._wish(self._rooms.set_role, identity, role)

    async def by_role(self, role: UTDRole | str) -> tuple[str, ...]:
        return await self._look(self._rooms.by_role, self.name, role)

    async def ban(
        self, identity: str, *, reason: str | None = None, duration: float | None = None, everywhere: bool = False
    ) -> UTDBan:
        """In this room, or everywhere."""
        room = None if everywhere else self.name
        request = partial(
            self._rooms.ban, self._credentials, identity, room=room, reason=reason, duration=duration, deadline=WISH
        )
        return await self._portal.in_thread(request)

    async def unban(self, identity: str, *, everywhere: bool = False) -> None:
        """Here, or everywhere: whichever ban it is."""
        room = None if everywhere else self.name
        await self._portal.in_thread(partial(self._rooms.unban, self._credentials, identity, room=room, deadline=WISH))

    async def bans(self, *, everywhere: bool = False, page: int = 1, per_page: int = 20) -> UTDBanPage:
        """Of this room, or all of them."""
        room = None if everywhere else self.name
        return await self._look(self._rooms.bans, room=room, page=page, per_page=per_page)

    async def lock_comments(self, locked: bool) -> tuple[bool | None, int | None]:
        return await self._wish(self._rooms.lock_comments, locked)
