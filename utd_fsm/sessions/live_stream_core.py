"""What holds a live stream's session together: the stage, one's own standing there, the broadcast, and the sources.

Here are the rules between them: whoever is not on stage sends nothing from that moment on, before the engine answers;
being brought on stage switches nothing on; what is over stops everything. The truth is room metadata and the engine's
answers; a data message is at most a reason to look. Loop thread only. What a person can ask of it is in `live_stream`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from utd_fsm import room_wire, signals
from utd_fsm.errors import (
    UTDEngineError,
    UTDPermissionError,
    UTDProtocolError,
    UTDStateError,
    UTDStreamException,
)
from utd_fsm.machines import StageMember
from utd_fsm.models import UTDParticipant, UTDRole, UTDStreamType, UTDTrackSource
from utd_fsm.observable import BaseObservable
from utd_fsm.observe import Order, Snapshot
from utd_fsm.room import LeaveReason
from utd_fsm.room_models import RoomState, UTDBroadcast, UTDHand, UTDStage, UTDStageMember
from utd_fsm.sessions.arrivals import Arrivals
from utd_fsm.sessions.broadcast import BroadcastDriver
from utd_fsm.sessions.engine_room import EngineRoomSession
from utd_fsm.sessions.standing import Standing

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step

log = logging.getLogger("utd_fsm.stream")

NO_SUCH_ROUTE: Final = frozenset({404, 405})
"""What an engine answers that does not know ``live/start`` and ``live/end``, which are ours."""


class LiveStreamCore(EngineRoomSession):
    """The machinery of a live stream's session, without what a person can ask of it."""

    PARTICIPANTS_MAY: ClassVar[frozenset[str]] = frozenset({room_wire.LIVE_ENDED})

    stage: BaseObservable[tuple[UTDStageMember, ...]]
    hands: BaseObservable[tuple[UTDHand, ...]]
    broadcast: BaseObservable[UTDBroadcast]

    def __init__(self, **core: Any) -> None:
        """Any thread. Arguments as `EngineRoomSession`, without the kind."""
        super().__init__(UTDStreamType.LIVE_STREAM, **core)
        nobody: tuple[UTDStageMember, ...] = ()
        none: tuple[UTDHand, ...] = ()
        self.stage = self._observable(nobody, "stage", signals.stage_changed)
        self.hands = self._observable(none, "hands", signals.hands_changed)
        self.broadcast = self._observable(UTDBroadcast.WAITING, "broadcast", signals.broadcast_changed)
        self._of_a_stay = (*self._of_a_stay, self.stage, self.hands)
        # One machine to the engine, also over several stays: what an earlier one still has under way is superseded.
        self._order = Order()
        self._standing: Standing | None = None
        self._air: BroadcastDriver | None = None
        self._ended: asyncio.Future[UTDBroadcast] | None = None
        self._forget()

    def _forget(self) -> None:
        """Nothing is known of the stage, the hands and the stream."""
        self._stage_news, self._stage_number = Arrivals(), 0
        self._live_news, self._live_number = Arrivals(), 0
        self._live_said: UTDBroadcast | None = None
        self._stage_in_metadata = False
        self._keeps_hands = True
        self._asked: dict[str, UTDHand] = {}
        self._went_live = False
        self._may_be_live = False

    # -------------------------------------------------------------------------------------------------------- a stay

    def _begin_stay(self) -> None:
        super()._begin_stay()
        self._forget()
        self._standing = Standing(StageMember, look=self._look_as_seal, on_step=self._standing_moved)
        self._standing.order = self._order
        self._begin_broadcast()

    def _begin_broadcast(self) -> None:
        """A new stream, of which nothing is known yet."""
        if self._air is not None:
            self._air.close()
        self._air = BroadcastDriver(host_listed=self._host_is_here, on_step=self._air_moved, timing=self._timing)
        self._ended = asyncio.get_running_loop().create_future()
        self.broadcast.reopen()
        self.broadcast.set(self._air.shown)
        if self._connection.state == "connected":
            self._air.connected()

    def _end_stay(self) -> None:
        super()._end_stay()
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.close()
        if self._air is not None:
            self._air.close()

    def _gone(self, state: str) -> None:
        if self._air is not None:
            self._air.away()  # first: that nobody is listed any more is not the host's leaving
        super()._gone(state)
        self._show((), ())

    def _tell_who_waits(self, state: str) -> None:
        super()._tell_who_waits(state)
        if state in ("disconnected", "force_exit", "closed"):
            if not self.broadcast.finished:
                self.broadcast.finish(self._why_out)
            if self._ended is not None and not self._ended.done():
                self._ended.set_exception(self._why_out())
                self._ended.exception()  # retrieved: there may be nobody who waits

    def _farewell(self) -> Awaitable[object] | None:
        standing = self._standing
        if standing is None or self.is_host or self._is_over:
            return None
        if standing.state in ("on_stage", "stepping_down"):
            return self._engine_room.stage_leave(key=self._order.next())
        if standing.state in ("hand_up", "asking", "lowering"):
            return self._lower_or_step_down()
        return None

    async def _lower_or_step_down(self) -> None:
        """The hand goes down; a 409 may say that its owner was taken on stage in the same moment."""
        try:
            await self._engine_room.stage_lower(key=self._order.next())
        except UTDEngineError as error:
            if error.status_code != 409:
                raise
            await self._engine_room.stage_leave(key=self._order.next())

    # ------------------------------------------------------------------------------------------------- the broadcast

    @property
    def _is_over(self) -> bool:
        return self._air is not None and self._air.is_over

    def _host_is_here(self) -> bool:
        if self.is_host:
            # Listed is the host itself; where no engine says whether it has begun, going live is its own word.
            return self._went_live or (self._air is not None and self._air.live is not None)
        roles = self.roles.value
        return any(roles.get(one.identity) is UTDRole.HOST for one in self.remote_participants.value)

    def _fold_live(self, live: UTDBroadcast, number: int) -> None:
        if number <= self._live_number:
            return
        self._live_number, self._live_said = number, live
        if self._is_over and self.is_host and live is not UTDBroadcast.ENDED:
            self._begin_broadcast()  # only the host itself starts another: a go_live whose answer was lost
        if self._air is not None:
            self._air.said(live)

    def _air_moved(self, step: Step) -> None:
        air = self._air
        assert air is not None
        if step.after == "over":
            self._went_live = self._may_be_live = False
            self._stop_sources(self._over_error("switched on"))
        self.broadcast.set(air.shown)
        if step.after == "over":
            self.broadcast.finish(lambda: self._over_error("wait"))
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(UTDBroadcast.ENDED)
        self._on_life(self)

    def _read_air(self) -> None:
        if self._air is not None:
            self._air.read()

    def _over_now(self) -> None:
        """The host ended it; where the engine keeps the state, that was heard already."""
        if self._air is not None:
            self._air.over()

    @staticmethod
    def _over_error(event: str) -> UTDStateError:
        return UTDStateError(
            f"{event}: the stream has ended; join again for the next one", state="ended", event=event, allowed=("join",)
        )

    async def _tell_live(
        self, request: Callable[..., Awaitable[tuple[UTDBroadcast | None, int | None]]], meant: UTDBroadcast
    ) -> bool:
        """Tell the engine that the stream begins or ends; False from an engine that does not keep it.

        Numbered as wishes are, so that one that was given up on is never applied after a newer one.
        """
        mark = self._live_news.mark()
        try:
            said, version = await request(key=self._order.next())
        except UTDEngineError as error:
            if error.status_code in NO_SUCH_ROUTE and not self._live_number:
                log.info("%s: the engine keeps no state of the stream; presence alone decides", self.describe())
                return False
            raise
        except BaseException:
            # It may be on its way still, and must not be applied once this verb has failed.
            if self._standing is not None:
                self._standing.seal()
            raise
        number = self._live_news.answer(version, mark)
        if number is not None:
            self._fold_live(said or meant, number)
        return True

    # ----------------------------------------------------------------------------------------------------- the stage

    def _standing_moved(self, step: Step) -> None:
        """On entering anything but on_stage the sources stop, at once. Being on stage switches nothing on."""
        if step.after == "on_stage" or self.is_host:
            return
        if step.event.startswith("saw_") or step.event == "lapsed":
            self._stop_sources(UTDPermissionError("not on the stage any more; ask for it again with request_stage()"))
        else:
            self._stop_sources()

    def _fold_stage(self, stage: UTDStage, number: int) -> bool:
        """One writer: what is not newer changes nothing. Whether it was news."""
        if number <= self._stage_number:
            return False
        self._stage_number = number
        self._keeps_hands = stage.hands is not None
        if stage.hands is not None:
            self._asked.clear()
        else:
            for one in stage.members:
                self._asked.pop(one.identity, None)
        if self._standing is not None:
            self._standing.observe(self._mine(stage, number))
        changed = stage.members != self.stage.value
        hands = tuple(self._asked.values()) if stage.hands is None else stage.hands
        return self._show(stage.members, hands) or changed

    def _show(self, members: tuple[UTDStageMember, ...], hands: tuple[UTDHand, ...]) -> bool:
        # Both first, then who waits and the receivers: nobody sees one without the other.
        both = (self.stage.prepare(members), self.hands.prepare(hands))
        for announce in both:
            if announce is not None:
                announce()
        return any(announce is not None for announce in both)

    def _mine(self, stage: UTDStage, number: int) -> Snapshot:
        """What a snapshot says of oneself."""
        me = self.identity
        if any(one.identity == me for one in stage.members):
            return Snapshot(number, "on_stage")
        if any(one.identity == me for one in stage.hands or ()):
            return Snapshot(number, "hand_up")
        return Snapshot(number, "audience")

    def _answered(self, stage: UTDStage | None, mark: int) -> Snapshot | None:
        """Fold an answer; what it says of oneself. None where it is short, or may be older than what is known."""
        if stage is None:
            return None
        number = self._stage_news.answer(stage.version, mark)
        if number is None:
            return None
        self._fold_stage(stage, number)
        return self._mine(stage, number)

    async def _look_as_seal(self, key: str) -> Snapshot | None:
        mark = self._stage_news.mark()
        return self._answered(await self._engine_room.stage(key=key), mark)

    async def _wish(self, verb: str, event: str, request: Callable[..., Awaitable[UTDStage | None]]) -> None:
        """A viewer's wish about itself: refused here with a clear word, or sent and seen to its end."""
        self._must_be_in(verb)
        if self.is_host:
            raise UTDStateError(
                f"{verb}: the host is always on stage; go_live() and end_live() are its verbs", event=verb
            )
        if self._is_over:
            raise self._over_error(verb)
        standing = self._standing
        assert standing is not None
        if not (standing.view.is_pending or standing.view.can(event)):
            allowed = _WISHES.get(standing.state, ())
            raise UTDStateError(
                f"{verb}: not possible while {_SAID[standing.state]}; allowed: {', '.join(allowed)}",
                state=standing.state,
                event=verb,
                allowed=allowed,
            )

        async def send(key: str) -> Snapshot | None:
            mark = self._stage_news.mark()
            return self._answered(await request(key=key), mark)

        await standing.wish(event, send)

    async def _moderate(self, request: Awaitable[UTDStage | None], mark: int) -> None:
        """What is done to others: its effect is shown when this returns, and what became of it when it fails."""
        try:
            stage = await request
        except UTDPermissionError:
            raise
        except (UTDEngineError, UTDProtocolError):
            await self._look_all_the_same()
            raise
        except BaseException:
            self._looks.soon()  # it may be done all the same
            raise
        if stage is None or self._answered(stage, mark) is None:
            await self._look()

    async def _look_all_the_same(self) -> None:
        """Look, for a verb whose outcome is settled, or settled as failed, whatever comes of looking."""
        try:
            await self._look()
        except UTDStreamException as error:
            log.info("%s: who is on stage could not be asked: %s", self.describe(), error)
            self._looks.soon()

    # --------------------------------------------------------------------------------------------- hooks of the base

    def _entitled(self, source: UTDTrackSource) -> bool:
        return self.is_host or (self._standing is not None and self._standing.state == "on_stage")

    def _refusal(self, source: UTDTrackSource) -> UTDStreamException | None:
        return self._over_error(f"set_{source}") if self._is_over else None

    def _has_snapshot(self) -> bool:
        return self._stage_in_metadata

    def _fold_state(self, state: RoomState) -> None:
        if state.live is not None:
            self._fold_live(state.live, self._live_news.metadata(state.live_version))
        if state.stage is not None:
            self._stage_in_metadata = True
            self._fold_stage(state.stage, self._stage_news.metadata(state.stage.version))

    async def _look(self) -> bool:
        mark = self._stage_news.mark()
        stage = await self._engine_room.stage()
        number = self._stage_news.answer(stage.version, mark)
        return number is not None and self._fold_stage(stage, number)

    def _on_connection(self, step: Step) -> None:
        if self._air is not None:
            if step.after == "connected":
                self._air.connected()
            else:
                self._air.away()
        super()._on_connection(step)

    async def _before_removal(self, reason: LeaveReason | None) -> None:
        if reason is LeaveReason.ROOM_DELETED and self._air is not None:
            self._air.over()
        await super()._before_removal(reason)

    def _on_local_metadata(self, metadata: str) -> None:
        super()._on_local_metadata(metadata)
        self._read_air()

    def _on_participants(self, others: tuple[UTDParticipant, ...]) -> None:
        super()._on_participants(others)
        if self._asked:
            here = {one.identity for one in others}
            self._asked = {who: hand for who, hand in self._asked.items() if who in here}
            self._show(self.stage.value, tuple(self._asked.values()))
        self._read_air()

    def _on_hint(self, kind: str, content: Mapping[str, Any], identity: str | None) -> None:
        super()._on_hint(kind, content, identity)
        if kind == room_wire.LIVE_ENDED:
            if identity is not None and self.roles.value.get(identity) is UTDRole.HOST and self._air is not None:
                self._air.over()
        elif kind == room_wire.STAGE_REQUESTED and not self._keeps_hands:
            self._hand_of(content)
        elif kind in (room_wire.STAGE_REQUESTED, room_wire.STAGE_UPDATE) and not self._stage_in_metadata:
            self._looks.hint()

    def _hand_of(self, content: Mapping[str, Any]) -> None:
        """An engine that keeps no hands: its word makes one, for somebody who is listed, once while it is up."""
        who = content.get("identity")
        if not room_wire.is_moderator(self._role) or not isinstance(who, str) or who in self._asked:
            return
        listed = next((one for one in self.remote_participants.value if one.identity == who), None)
        if listed is None or any(one.identity == who for one in self.stage.value):
            return
        name = content.get("name")
        self._asked[who] = UTDHand(who, listed.name or (name if isinstance(name, str) else None))
        self._show(self.stage.value, tuple(self._asked.values()))


_WISHES: Final[Mapping[str, tuple[str, ...]]] = {
    "audience": ("request_stage",),
    "hand_up": ("lower_hand",),
    "on_stage": ("leave_stage",),
}
_SAID: Final[Mapping[str, str]] = {
    "audience": "in the audience, without a raised hand",
    "hand_up": "the hand is up",
    "on_stage": "on stage",
}
