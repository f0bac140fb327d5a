"""The machinery of a room that the engine keeps books about: the way in and out, roles, the chat lock, bans.

Loop thread only. The truth comes from what only the server can write (room and participant metadata, permissions,
removal) and from the engine's answers; a data message is at most a reason to look. What a person can ask of it is in
`engine_room`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from utd_fsm import room_wire, signals
from utd_fsm.errors import (
    UTDPermissionError,
    UTDProtocolError,
    UTDStateError,
    UTDStreamException,
)
from utd_fsm.models import (
    ReadOnlyDict,
    UTDChatMessage,
    UTDParticipant,
    UTDRole,
    UTDStreamType,
    UTDTokenResponse,
)
from utd_fsm.observable import BaseObservable
from utd_fsm.room import LeaveReason
from utd_fsm.room_models import RoomState, UTDRoleChange
from utd_fsm.sessions.arrivals import Arrivals
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.looks import Looks, LookTiming
from utd_fsm.sessions.marks import verb

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step
    from utd_fsm.sessions.connection import TicketReason
    from utd_fsm.sessions.engine_rooms import EngineRoom

log = logging.getLogger("utd_fsm.room")

GOODBYE: Final = 4.0
"""Seconds that leaving waits for the engine to hear of it; whatever it missed it notices by itself after 60 s."""
METADATA: Final = 3.0
"""Seconds that a verb waits for the media server to show what the engine has done already."""
_REMOVED: Final = frozenset({LeaveReason.REMOVED, LeaveReason.ROOM_DELETED})


class EngineRoomCore(BaseSession):
    """The part of a stream's and an audio room's session that nobody asks for by name.

    What subclasses give: `_fold_state`, `_look`, `_has_snapshot`, `_farewell`.
    """

    roles: BaseObservable[Mapping[str, UTDRole]]
    chat_locked: BaseObservable[bool]

    def __init__(
        self,
        kind: UTDStreamType,
        *,
        engine_room: EngineRoom,
        ticket: UTDTokenResponse | None = None,
        as_host: bool = False,
        look_timing: LookTiming | None = None,
        on_life: Callable[[Any], None] = lambda session: None,
        **core: Any,
    ) -> None:
        """Any thread.

        Args:
            kind: ``live_stream`` or ``audio_room``.
            engine_room: the engine's routes, for this identity and room.
            ticket: the way in, where it was asked for already.
            as_host: whether the room is entered as its host.
            look_timing: seconds.
            on_life: called when the session may have come to life, or may be alive no longer.
            core: as `SessionCore`.
        """
        super().__init__(kind=kind, **core)
        self._engine_room = engine_room
        self._way_in = ticket
        self._as_host = as_host
        self._on_life = on_life
        self._looks = Looks(self._look_for_news, look_timing)
        self._bans = Looks(self._look_whether_banned, look_timing)
        self._comments = Arrivals()
        self._comments_known = 0
        self._role: UTDRole | None = None
        self._roles_news = asyncio.Event()
        self._video_effects = False
        self._ban_told = False
        nobody: Mapping[str, UTDRole] = ReadOnlyDict()
        self.roles = self._observable(nobody, "roles")
        self.chat_locked = self._observable(False, "chat_locked", signals.chat_locked_changed)

    @property
    def _is_host(self) -> bool:
        return self._role is UTDRole.HOST

    def describe(self) -> str:
        """For the repr."""
        return f"{self._type} {self._engine_room.name} {self.connection.value}"

    # ----------------------------------------------------------------------------------------------------- in and out

    async def _enter(self) -> None:
        """Be in the room, with the first snapshot in; all or nothing."""
        self._begin_stay()
        try:
            await self._join()
            if not self._has_snapshot():
                await self._look()
        except BaseException:
            await self._leave_room()
            raise

    @verb(overtakes=True)
    async def dispose(self) -> None:
        """Leave and free everything; idempotent. The session cannot be used again: what is called raises
        `UTDClosedError`."""
        if not self._disposed:
            await self._depart()
        await super().dispose()

    async def _depart(self) -> None:
        """Media comes down at once; the engine is told beside it, and not waited for longer than `GOODBYE`."""
        tell = self._farewell() if self._connection.state != "disconnected" else None
        if tell is None:
            await self._leave_room()
            return
        telling = self._portal.spawn(self._told(tell), name="utd-fsm-farewell")
        await self._leave_room()
        await asyncio.wait({telling}, timeout=GOODBYE)

    async def _told(self, tell: Any) -> None:
        try:
            await tell
        except UTDStreamException as error:
            log.info("%s: the engine did not hear that it was left: %s", self.describe(), error)

    def lost(self, name: str, result: object) -> None:
        """Whoever gave up a join is told that it was cancelled: so it is, also when it came home just then."""
        if name == "join":
            self._connection.leave_now()

    # ------------------------------------------------------------------------------------------- what subclasses give

    def _begin_stay(self) -> None:
        """A stay in the room begins: what was known of the last one is forgotten."""
        self._ban_told = False
        self._comments, self._comments_known = Arrivals(), 0

    def _end_stay(self) -> None:
        """A stay is over."""
        self._looks.close()
        self._bans.close()

    def _has_snapshot(self) -> bool:
        """Whether the room's metadata said what this kind of room is about."""
        raise NotImplementedError

    def _fold_state(self, state: RoomState) -> None:
        """What the room's metadata say now."""
        raise NotImplementedError

    async def _look(self) -> bool:
        """Ask the engine for the snapshot, fold it; whether it was news."""
        raise NotImplementedError

    def _farewell(self) -> Any:
        """What the engine is told when the room is left: an awaitable, or None."""
        return None

    # ------------------------------------------------------------------------------------------------------ the hooks

    async def _ticket(self, reason: TicketReason) -> tuple[str, str]:
        ticket, self._way_in = self._way_in, None
        if ticket is None:
            try:
                ticket = await self._engine_room.way_in(as_host=self._as_host)
            except UTDStreamException as error:
                if error.is_banned and reason == "rejoin":
                    self._tell_ban(error)
                raise
        return ticket.url, ticket.token

    async def _resync(self, age: float) -> None:
        await self._look()

    async def _before_removal(self, reason: LeaveReason | None) -> None:
        if reason is LeaveReason.REMOVED:
            await self._look_whether_banned()

    def _on_connection(self, step: Step) -> None:
        if step.after in ("disconnected", "force_exit", "closed"):
            self._end_stay()
        self._on_life(self)

    def _on_room_metadata(self, metadata: str) -> None:
        try:
            state = room_wire.read_room_state(metadata, viewer=self.identity)
        except UTDProtocolError as error:
            log.warning("%s; asking the engine instead", error)
            self._looks.soon()
            return
        if state.comments_locked is not None:
            self._fold_comments(state.comments_locked, self._comments.metadata(state.comments_version))
        self._fold_state(state)

    def _on_local_metadata(self, metadata: str) -> None:
        if not room_wire.is_unreadable(metadata):
            self._role = room_wire.role_of(metadata)
            self._video_effects = room_wire.may_have_video_effects(metadata)
        self._show_roles()

    def _on_participants(self, others: tuple[UTDParticipant, ...]) -> None:
        self._show_roles()

    def _on_hint(self, kind: str, content: Mapping[str, Any], identity: str | None) -> None:
        if kind == room_wire.USER_BANNED:
            self._bans.hint()

    def _lets_through(self, message: UTDChatMessage) -> bool:
        if not self.chat_locked.value:
            return True
        return message.identity is not None and room_wire.is_moderator(self.roles.value.get(message.identity))

    def _fold_comments(self, locked: bool, number: int) -> None:
        if number > self._comments_known:
            self._comments_known = number
            self.chat_locked.set(locked)

    async def _see_role(self, change: UTDRoleChange) -> None:
        """Until `roles` show it, which follows the participants' metadata: the engine's answer may be faster."""
        try:
            async with asyncio.timeout(METADATA):
                while self.roles.value.get(change.identity) not in (None, change.role):  # None: it is not in the room
                    self._roles_news.clear()
                    await self._roles_news.wait()
        except TimeoutError:
            log.info("%s: the media server has not shown a new role yet", self.describe())

    def _show_roles(self) -> None:
        before = self.roles.value
        now: dict[str, UTDRole] = {}
        if self.identity is not None and self._role is not None:
            now[self.identity] = self._role
        for one in self.remote_participants.value:
            unreadable = room_wire.is_unreadable(one.metadata)
            role = before.get(one.identity) if unreadable else room_wire.role_of(one.metadata)
            if role is not None:
                now[one.identity] = role
        self._roles_news.set()
        if self.roles.set(ReadOnlyDict(now)):
            for identity, role in now.items():
                previous = before.get(identity)
                if previous is not None and previous is not role:
                    self._emit(signals.role_changed, identity=identity, role=role, previous=previous)

    # ----------------------------------------------------------------------------------------------------------- bans

    async def _look_for_news(self) -> bool:
        return await self._look()

    async def _look_whether_banned(self) -> bool:
        """Ask; a 403 that says so is a ban, and nothing else is."""
        try:
            await self._look()
        except UTDStreamException as error:
            if not error.is_banned:
                raise
            self._tell_ban(error)
            return True
        return False

    def _tell_ban(self, error: UTDStreamException) -> None:
        """One notice, whichever of the three ways it came by."""
        if self._ban_told:
            return
        self._ban_told = True
        details: Mapping[str, Any] = getattr(error, "details", {})
        reason, room_name = details.get("reason"), details.get("room_name")
        self._emit(
            signals.banned,
            reason=reason if isinstance(reason, str) else None,
            expires_at=_moment(details.get("expires_at")),
            room_name=room_name if isinstance(room_name, str) else None,
        )

    # ----------------------------------------------------------------------------------------------------- moderation

    def _must_be_in(self, event: str) -> None:
        if self._connection.state in ("disconnected", "force_exit", "closed", "connecting"):
            raise UTDStateError(
                f"{event}: not in the room; join first", state=self._connection.public, event=event, allowed=("join",)
            )

    def _must_moderate(self, event: str, target: str | None = None) -> None:
        """Mirrors the engine's rule, so that the answer is clear and at once.

        Raises:
            UTDStateError: not in the room.
            UTDPermissionError: neither host nor admin, or an admin against the host.
        """
        self._must_be_in(event)
        if not room_wire.is_moderator(self._role):
            raise UTDPermissionError(
                f"{event}: only the host and admins may; not {self._role or 'none'}; the host can promote()"
            )
        if target is not None and not self._is_host and self.roles.value.get(target) is UTDRole.HOST:
            raise UTDPermissionError(f"{event}: an admin cannot act on the host; only on others")

    def _must_be_host(self, event: str) -> None:
        self._must_be_in(event)
        if not self._is_host:
            raise UTDPermissionError(f"{event}: only the host may; the role here is {self._role or 'none'}")


def _moment(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
