"""What a person can ask of a live stream and of an audio room alike: who one is there, in and out, and moderation.

Loop thread only; how it goes about it is in `engine_room_core`. The facades get these members through the sessions that
inherit them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utd_fsm import room_wire, validation
from utd_fsm.errors import UTDInputError, UTDPermissionError, UTDStateError
from utd_fsm.models import UTDRole
from utd_fsm.observable import BaseObservable
from utd_fsm.room_models import UTDBan, UTDBanPage, UTDRoleChange
from utd_fsm.sessions.engine_room_core import EngineRoomCore
from utd_fsm.sessions.marks import verb


class EngineRoomSession(EngineRoomCore):
    """A room that the engine keeps books about: a live stream or an audio room."""

    roles: BaseObservable[Mapping[str, UTDRole]]
    """Identity → role of everybody here, as the server wrote it; read-only. The owner of the room is host."""
    chat_locked: BaseObservable[bool]
    """Whether only host and admins may write in the chat."""

    # ----------------------------------------------------------------------------------------------------- what it is

    @property
    def room_name(self) -> str:
        """The room's name. Any thread."""
        return self._engine_room.name

    @property
    def is_host(self) -> bool:
        """Whether the server made this session the room's host: only its owner is, whatever was asked for.

        Any thread.
        """
        return self._is_host

    @property
    def role(self) -> UTDRole | None:
        """This session's role, as the server wrote it; None before the room is joined. Any thread."""
        return self._role

    @property
    def video_effects_entitled(self) -> bool:
        """Whether the engine entitles this participant to video effects (the ``videoEffects`` claim). Any thread."""
        return self._video_effects

    # ----------------------------------------------------------------------------------------------------- in and out

    @verb()
    async def join(self) -> None:
        """Enter the room again, after it was left or lost. Returns with the first snapshot in.

        Raises:
            UTDStateError: in the room already, or on the way.
            UTDPermissionError: banned, or otherwise not let in.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: engine or media server could not be reached.
        """
        if self._connection.state not in ("disconnected", "force_exit"):
            raise UTDStateError(
                f"join: the session is {self._connection.public} already; leave() first",
                state=self._connection.state,
                event="join",
            )
        await self._enter()

    @verb(overtakes=True)
    async def leave(self) -> None:
        """Leave the room: seat, stage, raised hand and requests are given up. Idempotent; `join` enters again.

        What it overtakes raises `UTDStateError`.
        """
        await self._depart()

    # ----------------------------------------------------------------------------------------------------- moderation

    @verb()
    async def set_role(self, identity: str, role: UTDRole | str) -> UTDRoleChange:
        """Give somebody a role. Host only.

        Args:
            identity: whom.
            role: ``admin``, ``guest``, ``audience`` or ``visitor``; host is only the owner, for good.

        Returns:
            The change.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: not in the room; or the role is the one it has (409).
            UTDPermissionError: not the host.
            UTDEngineError: the engine refused otherwise.
        """
        who, what = validation.identity(identity), validation.enum(UTDRole, role, "role")
        if what is UTDRole.HOST:
            raise UTDInputError("role: host; allowed: admin, guest, audience, visitor (host is the owner of the room)")
        self._must_be_host("set_role")
        change = await self._engine_room.set_role(who, what)
        await self._see_role(change)
        return change

    @verb()
    async def promote(self, identity: str) -> UTDRoleChange:
        """Make somebody an admin, who may moderate; it grants no camera and no microphone. As `set_role`.

        Args:
            identity: whom.
        """
        return await EngineRoomSession.set_role(self, identity, UTDRole.ADMIN)

    @verb()
    async def demote(self, identity: str) -> UTDRoleChange:
        """Make an admin audience again. As `set_role`.

        Args:
            identity: whom.
        """
        return await EngineRoomSession.set_role(self, identity, UTDRole.AUDIENCE)

    @verb()
    async def kick(self, identity: str) -> None:
        """Put somebody out of the room. It may come back; `ban` keeps it out. Host and admins.

        Args:
            identity: whom.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: not in the room.
            UTDPermissionError: neither host nor admin, or an admin against the host.
            UTDEngineError: the engine refused. That nobody of this identity is here is no error.
        """
        who = validation.identity(identity)
        self._must_moderate("kick", who)
        await self._engine_room.remove_participant(who)

    @verb()
    async def mute_participant(self, identity: str, *, audio: bool = True, video: bool = False) -> None:
        """Silence what somebody sends just now. It may unmute itself; a seat is muted with ``mute_seat``. Host, admins.

        Args:
            identity: whom.
            audio: its microphone.
            video: its camera and screen.

        Raises: as `kick`.
        """
        who = validation.identity(identity)
        sound, sight = validation.boolean(audio, "audio"), validation.boolean(video, "video")
        if not (sound or sight):
            raise UTDInputError("audio and video: both False; allowed: at least one True")
        self._must_moderate("mute_participant", who)
        await self._engine_room.mute_participant(who, audio=sound, video=sight, muted=True)

    @verb()
    async def ban(
        self, identity: str, *, reason: str | None = None, duration: float | None = None, everywhere: bool = False
    ) -> UTDBan:
        """Keep somebody out: it is put out at once, and no token lets it in again. Host and admins.

        Args:
            identity: whom.
            reason: shown to it, up to 255 characters.
            duration: seconds, 1 and more; None is for good.
            everywhere: from all rooms of the application, not only this one.

        Returns:
            The ban.

        Raises: as `kick`.
        """
        who = validation.identity(identity)
        why = validation.optional_name(reason, "reason")
        seconds = None if duration is None else validation.number(duration, "duration", least=1, most=1e9, unit="s")
        anywhere = validation.boolean(everywhere, "everywhere")
        self._must_moderate("ban", who)
        return await self._engine_room.ban(who, reason=why, duration=seconds, everywhere=anywhere)

    @verb()
    async def unban(self, identity: str, *, everywhere: bool = False) -> None:
        """Lift a ban. Host and admins.

        Args:
            identity: whose.
            everywhere: the ban from all rooms, not the one from this.

        Raises: as `kick`; 404 where there is no such ban.
        """
        who, anywhere = validation.identity(identity), validation.boolean(everywhere, "everywhere")
        self._must_moderate("unban")
        await self._engine_room.unban(who, everywhere=anywhere)

    @verb()
    async def bans(self, *, page: int = 1, per_page: int = 20) -> UTDBanPage:
        """Who is banned from this room. Host and admins.

        Args:
            page: 1 or more.
            per_page: 1 to 100.

        Raises: as `kick`.
        """
        which = validation.integer(page, "page", least=1, most=1_000_000)
        size = validation.integer(per_page, "per_page", least=1, most=100)
        self._must_moderate("bans")
        return await self._engine_room.bans(page=which, per_page=size)

    @verb()
    async def lock_chat(self, locked: bool = True) -> None:
        """Let only host and admins write in the chat, or everybody again. Host and admins.

        Messages of others are then refused where they are sent, and dropped where they arrive.

        Args:
            locked: locked or open.

        Raises: as `kick`.
        """
        wanted = validation.boolean(locked, "locked")
        self._must_moderate("lock_chat")
        mark = self._comments.mark()
        now, version = await self._engine_room.lock_comments(wanted)
        number = self._comments.answer(version, mark)
        if number is not None:
            self._fold_comments(wanted if now is None else now, number)

    # ------------------------------------------------------------------------------------------------------- messages

    @verb(lane="messages")
    async def send_chat(self, text: str, *, user_data: Any = None, to: Sequence[str] | None = None) -> None:
        """Send a chat message. Errors as `send_data`, and `UTDPermissionError` while the chat is locked.

        Args:
            text: 1 to 16,000 characters.
            user_data: whatever the application adds; JSON.
            to: identities; None and an empty list are everybody.
        """
        if self.chat_locked.value and not room_wire.is_moderator(self._role):
            raise UTDPermissionError("send_chat: the chat is locked; only the host and admins may write")
        await super().send_chat(text, user_data=user_data, to=to)
