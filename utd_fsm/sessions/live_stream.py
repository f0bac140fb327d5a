"""The session of a live stream: what its host and its viewers may ask. How it goes about it is in `live_stream_core`.

Loop thread only; the facades are `utd_fsm.client.UTDLiveStreamSession` and `utd_fsm.aio.UTDLiveStreamSession`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from utd_fsm import room_wire, validation
from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.models import UTDRole, UTDTrackSource
from utd_fsm.room_models import UTDBroadcast, UTDHand, UTDStageMember
from utd_fsm.sessions.engine_room_core import GOODBYE
from utd_fsm.sessions.live_stream_core import LiveStreamCore, log
from utd_fsm.sessions.marks import verb, wait

if TYPE_CHECKING:
    from utd_fsm.observable import BaseObservable


class LiveStreamSession(LiveStreamCore):
    """A live stream, as its host, as a viewer, or as a viewer who is on stage.

    Made by ``client.join_live_stream(…)``. The host goes live and brings viewers on stage; a viewer watches, asks for
    the stage, and publishes while it is there. A context manager: a host that leaves it ends the stream, unless an
    exception made it leave, which the viewers then see as `UTDBroadcast.HOST_AWAY` for up to 60 s.
    """

    stage: BaseObservable[tuple[UTDStageMember, ...]]
    """Who may publish beside the host, in the order in which they came on."""
    hands: BaseObservable[tuple[UTDHand, ...]]
    """Who asks for the stage, oldest first."""
    broadcast: BaseObservable[UTDBroadcast]
    """Where the stream is: waiting, live, host_away, ended."""

    # ------------------------------------------------------------------------------------------------------ the host

    @verb()
    async def go_live(self, with_video: bool = True) -> None:
        """Publish the microphone (and camera), then begin the stream. Host only. Idempotent.

        All or nothing: when it fails midway, what it switched on is off again. While the link is mended it waits.

        Args:
            with_video: the camera too.

        Raises:
            UTDInputError: an argument is wrong.
            UTDPermissionError: not the host; nothing was sent. Or the grant was taken away.
            UTDStateError: not in the room.
            UTDTimeoutError: the grant did not come within 10 s, or the engine's answer did not come; `outcome_known`
                tells whether the stream may have begun.
            UTDEngineError: the engine refused.
            UTDConnectionError: engine or media could not be reached.
        """
        video = validation.boolean(with_video, "with_video")
        self._must_be_host("go_live")
        await self._up("go_live")
        again = self._is_over
        if again:
            self._begin_broadcast()
        wanted = [UTDTrackSource.MICROPHONE, *([UTDTrackSource.CAMERA] if video else [])]
        fresh = [source for source in wanted if not self._sources[source].wanted]
        try:
            await self._switch_on(wanted)
            self._may_be_live = True
            if not await self._tell_live(self._engine_room.live_start, UTDBroadcast.LIVE):
                self._went_live = True
                self._read_air()
        except BaseException as error:
            unknown = isinstance(error, UTDConnectionError | UTDTimeoutError) and not error.outcome_known
            if isinstance(error, UTDStreamException) and not unknown:
                self._may_be_live = False
            for source in fresh:
                self._sources[source].stop_now()
            if again and self._live_said in (None, UTDBroadcast.ENDED):
                self._over_now()
            raise

    @verb()
    async def end_live(self) -> None:
        """End the stream, for everybody and for good: the sources stop. Host only. Idempotent.

        Raises:
            UTDPermissionError: not the host; nothing was sent.
            UTDStateError: not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached; the stream goes on.
        """
        self._must_be_host("end_live")
        if self._is_over or not self._has_begun():
            return
        kept = await self._tell_live(self._engine_room.live_end, UTDBroadcast.ENDED)
        await self._say_that_it_ended(must=not kept)
        self._over_now()
        if self.stage.value or self.hands.value:
            await self._look_all_the_same()  # the end cleared them, and its answer does not show it

    @verb()
    async def invite_to_stage(self, identity: str) -> None:
        """Bring a viewer on stage, whether its hand is up or not: it may publish from then on. Host and admins.

        Args:
            identity: whom.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: not in the room, or it is the host, who is always on stage.
            UTDPermissionError: neither host nor admin, or an admin itself.
            UTDEngineError: the engine refused.
        """
        who = validation.identity(identity)
        self._must_moderate("invite_to_stage", None)
        self._must_not_be_the_host("invite_to_stage", who)
        if who == self.identity:
            raise UTDPermissionError("invite_to_stage: nobody takes itself on stage; request_stage(), the host decides")
        mark = self._stage_news.mark()
        await self._moderate(self._engine_room.stage_add(who), mark)

    @verb()
    async def remove_from_stage(self, identity: str) -> None:
        """Take somebody off the stage: it is not heard any more. Host and admins.

        Args:
            identity: whom.

        Raises: as `invite_to_stage`; `UTDStateError` also where it is not on stage.
        """
        who = validation.identity(identity)
        self._must_moderate("remove_from_stage", who)
        self._must_not_be_the_host("remove_from_stage", who)
        mark = self._stage_news.mark()
        await self._moderate(self._engine_room.stage_remove(who), mark)

    # ---------------------------------------------------------------------------------------------------- the viewer

    @verb()
    async def request_stage(self) -> None:
        """Raise the hand: the host and the admins see it in `hands`. A viewer's.

        With an engine that keeps no hands it is told to those who are there, and nothing stays up.

        Raises:
            UTDStateError: not in the room, on stage or with the hand up already, the host, or the stream has ended.
            UTDPermissionError: banned.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        await self._wish("request_stage", "raise_hand", self._engine_room.stage_request)

    @verb()
    async def lower_hand(self) -> None:
        """Take the hand down again. Errors as `request_stage`; `UTDStateError` while it is not up."""
        await self._wish("lower_hand", "lower_hand", self._engine_room.stage_lower)

    @verb()
    async def leave_stage(self) -> None:
        """Step off the stage: camera and microphone stop at once, whatever the engine answers.

        Errors as `request_stage`; `UTDStateError` while not on stage. If the engine could not be told, the session is
        on stage again, with the sources off.
        """
        await self._wish("leave_stage", "step_down", self._engine_room.stage_leave)

    # ------------------------------------------------------------------------------------------------------ everybody

    @verb()
    async def refresh_stage(self) -> tuple[UTDStageMember, ...]:
        """Ask the engine who is on stage, and show it. Needed by nobody who follows `stage`.

        Returns:
            The stage.

        Raises:
            UTDStateError: not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached.
        """
        self._must_be_in("refresh_stage")
        await self._look()
        return self.stage.value

    @wait(timeout=14_500.0)
    async def wait_until_ended(self, timeout: float | None = 14_500.0) -> UTDBroadcast:
        """Wait until the stream has ended, whoever ended it. The session is then still in the room: leave it.

        Args:
            timeout: seconds, or None for no limit. A wait that times out changes nothing.

        Returns:
            `UTDBroadcast.ENDED`.

        Raises:
            UTDTimeoutError: it has not ended yet.
            UTDStateError: not in the room, or left before it ended.
            UTDConnectionError: removed from the room, or the connection was lost for good.
        """
        limit = validation.timeout(timeout)
        ended = self._ended
        if self._disposed:
            raise UTDClosedError("wait_until_ended: the session is disposed; make a new one")
        if ended is None:
            raise UTDStateError("wait_until_ended: not in the room; join first", event="wait_until_ended")
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(ended)
        except TimeoutError as error:
            if isinstance(error, UTDStreamException):
                raise
            raise UTDTimeoutError(
                f"wait_until_ended: not within {limit:g} s; the stream is {self.broadcast.value}; nothing has changed",
                outcome_known=True,
            ) from None

    # ---------------------------------------------------------------------------------------------- for the facades

    async def leave_with(self, failed: bool) -> None:
        """Leave a ``with``: a host ends its stream, unless the body raised; then the engine's 60 s decide."""
        if not failed and self.is_host and self._has_begun() and not self._is_over:
            try:
                async with asyncio.timeout(GOODBYE):
                    await self.perform(self.end_live)
            except (TimeoutError, UTDStreamException) as error:
                log.warning("%s: left without having ended the stream: %s", self.describe(), error)
        await super().leave_with(failed)

    # ------------------------------------------------------------------------------------------------------- helpers

    async def _switch_on(self, wanted: list[UTDTrackSource]) -> None:
        tasks = [asyncio.ensure_future(self._enable(source)) for source in wanted]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _has_begun(self) -> bool:
        return self._may_be_live or self.broadcast.value in (UTDBroadcast.LIVE, UTDBroadcast.HOST_AWAY)

    async def _say_that_it_ended(self, *, must: bool) -> None:
        """Tell all in the room, as hosts do. Where the engine keeps the stream's state, that is what counts."""
        room = self._connection.room if self._connection.state == "connected" else None
        if room is None and must:
            room = await self._up("end_live")
        if room is None:
            return
        try:
            await room.send_data(room_wire.message_json(room_wire.LIVE_ENDED), reliable=True)
        except UTDStreamException as error:
            if must:
                raise
            log.info("%s: the viewers hear of the end from the engine alone: %s", self.describe(), error)

    def _must_not_be_the_host(self, event: str, identity: str) -> None:
        mine = self.is_host and identity == self.identity
        if mine or self.roles.value.get(identity) is UTDRole.HOST:
            raise UTDStateError(f"{event}: {identity!r} is the host, who is always on stage", event=event)
