"""What holds an audio room together: the grid and its one writer, one's own standing, and the microphone that follows.

Loop thread only. The grid comes from room metadata and from the engine's answers, never from a data message. One's own
standing is a `Standing` over the machine `Speaker`; entering anything in which one may not speak stops the microphone,
before the engine answers. Grid and grant arrive in either order: the view follows the grid, the microphone the grant.
What a person can ask of it is in `audio_room`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from utd_fsm import room_wire, signals
from utd_fsm.errors import (
    UTDConnectionError,
    UTDEngineError,
    UTDPermissionError,
    UTDProtocolError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.machines.speaker import Speaker
from utd_fsm.models import UTDStreamType, UTDTrackSource
from utd_fsm.observable import BaseObservable
from utd_fsm.observe import Snapshot
from utd_fsm.room_models import RoomState, UTDInvitation, UTDSeat, UTDSeatGrid, UTDSpeakerRequest
from utd_fsm.sessions.arrivals import Arrivals
from utd_fsm.sessions.engine_room import EngineRoomSession
from utd_fsm.sessions.seat_grid import GridFold, standing_of
from utd_fsm.sessions.standing import Standing
from utd_fsm.validation import boolean

if TYPE_CHECKING:
    from utd_fsm.engine_rooms import SeatAnswer
    from utd_fsm.machines.base import Step

log = logging.getLogger("utd_fsm.audio_room")

_MICROPHONE: Final = UTDTrackSource.MICROPHONE
_LOOKS: Final = 3
"""How often an engine without versions is asked again, when room metadata came while it was."""
_MAY_SPEAK: Final = frozenset({"taking", "seated"})
_HINTS: Final = frozenset(
    {
        room_wire.SEAT_UPDATE,
        room_wire.MODE_CHANGE,
        room_wire.SPEAKER_REQUEST,
        room_wire.SPEAKER_REQUEST_APPROVED,
        room_wire.SPEAKER_REQUEST_REJECTED,
        room_wire.SPEAKER_INVITATION,
        room_wire.SPEAKER_INVITATION_ACCEPTED,
        room_wire.SPEAKER_INVITATION_DECLINED,
    }
)

Ask = Callable[[str], Awaitable["SeatAnswer"]]
"""Sends a request under the key it is given."""


class Stay:
    """What is known between joining a room and leaving it. A late answer of an earlier stay finds another one."""

    def __init__(self, room: AudioRoomCore, before: Stay | None = None) -> None:
        self.grid = GridFold(room.identity)
        self.arrivals = Arrivals()
        self.standing = Standing(
            Speaker,
            look=lambda key: room._look_sealing(self, key),
            on_step=lambda step: room._stood(self, step),
        )
        if before is not None:
            # One machine to the engine: what an earlier stay still has under way is superseded by this one's requests.
            self.standing.order = before.standing.order


class AudioRoomCore(EngineRoomSession):
    """The machinery of an audio room, without what a person can ask of it."""

    seats: BaseObservable[UTDSeatGrid]
    pending_requests: BaseObservable[tuple[UTDSpeakerRequest, ...]]
    invitations: BaseObservable[tuple[UTDInvitation, ...]]

    def __init__(self, *, auto_unmute: bool = False, **more: Any) -> None:
        """Any thread.

        Args:
            auto_unmute: whether the microphone goes on by itself when a request to speak is approved.
            more: as `EngineRoomSession`, without ``kind``.
        """
        super().__init__(UTDStreamType.AUDIO_ROOM, **more)
        self._auto_unmute = boolean(auto_unmute, "auto_unmute")
        self._metadata_has_seats = False
        self._happened: Counter[str] = Counter()
        self._stay = Stay(self)
        self.seats = self._observable(self._stay.grid.grid, "seats", signals.seats_changed)
        asked: tuple[UTDSpeakerRequest, ...] = ()
        self.pending_requests = self._observable(asked, "pending_requests", signals.requests_changed)
        bidden: tuple[UTDInvitation, ...] = ()
        self.invitations = self._observable(bidden, "invitations")
        self._of_a_stay = (*self._of_a_stay, self.seats, self.pending_requests, self.invitations)

    # ------------------------------------------------------------------------------------------------------- a stay

    def _begin_stay(self) -> None:
        super()._begin_stay()
        self._new_stay()

    def _end_stay(self) -> None:
        super()._end_stay()
        self._new_stay()
        self._show(self._stay.grid.grid)

    def _new_stay(self) -> None:
        before = self._stay
        before.standing.close()
        self._metadata_has_seats = False
        self._stay = Stay(self, before)

    def _farewell(self) -> Any:
        """Seat, request or invitation are given back; the key supersedes what is still under way."""
        stay, state = self._stay, self._stay.standing.state
        known = stay.standing.known.standing if stay.standing.known is not None else "listener"
        if state == "listener":
            return None
        invitation = next(iter(stay.grid.mine(stay.grid.grid)), None)
        return self._give_back(stay, state, known, invitation)

    async def _give_back(self, stay: Stay, state: str, known: str, invitation: UTDInvitation | None) -> None:
        """What one has is given back; a 409 says that it is something else by now, which goes next."""
        engine = self._engine_room
        seat = engine.leave
        asked = (
            partial(engine.decline, invitation.id) if known == "invited" and invitation is not None else engine.cancel
        )
        sits = state in ("taking", "seated", "leaving")
        ways: tuple[Callable[..., Awaitable[object]], ...] = (seat, asked) if sits else (asked, seat)
        if sits and known not in ("requested", "invited"):
            ways = (seat,)
        for way in ways:
            try:
                await way(key=stay.standing.order.next())
                return
            except UTDEngineError as error:
                if error.status_code != 409 or way is ways[-1]:
                    raise

    # ------------------------------------------------------------------------------------------------------ the grid

    def _has_snapshot(self) -> bool:
        # Without seats it may be of before they were set up: metadata follow the engine, they do not lead.
        return self._stay.grid.number is not None and self._stay.grid.grid.count > 0

    def _fold_state(self, state: RoomState) -> None:
        self._metadata_has_seats = state.seats is not None
        if state.seats is not None:
            self._looks.close()  # whatever gave reason for a look, this is what it would have found
            stay = self._stay
            self._fold(stay, state.seats, stay.arrivals.metadata(state.seats.version))

    async def _look(self) -> bool:
        stay, before = self._stay, self._stay.grid.number
        mark = stay.arrivals.mark()
        self._heard_grid(stay, await self._engine_room.seats(), mark)
        return stay is self._stay and stay.grid.number != before

    async def _look_sealing(self, stay: Stay, key: str) -> Snapshot | None:
        """The look after a request of one's own: its number seals whatever was sent before it."""
        for _ in range(_LOOKS):
            mark = stay.arrivals.mark()
            heard = self._heard_grid(stay, await self._engine_room.seats(key=key), mark)
            if heard is not None:
                return heard
            # No versions here, and metadata came meanwhile: which of the two is newer, nobody can say.
            key = stay.standing.order.next()
        return None

    def _heard_grid(self, stay: Stay, grid: UTDSeatGrid | None, mark: int) -> Snapshot | None:
        """An answer's grid; None where there is none, or where it may be older than what is known."""
        number = None if grid is None else stay.arrivals.answer(grid.version, mark)
        if grid is None or number is None:
            return None
        self._fold(stay, grid, number)
        return Snapshot(number, standing_of(grid, self.identity))

    def _fold(self, stay: Stay, grid: UTDSeatGrid, number: int) -> None:
        """The one writer of the grid."""
        if stay is not self._stay:
            return  # said of a stay that is over
        news = stay.grid.fold(grid, number)
        if news is None:
            return
        self._happened[news.verb] += 1
        log.debug("%s: version %s: %s", self.room_name, grid.version, news.verb)
        stay.standing.observe(Snapshot(number, news.standing))
        self._silence_muted_seat()
        self._show(news.grid)
        for invitation in news.invitations:
            self._emit(signals.invited, invitation=invitation)

    def _show(self, grid: UTDSeatGrid) -> None:
        before = self.seats.value
        mine = tuple(one for one in grid.invitations if one.identity == self.identity)
        # All three first, then who waits and the receivers: nobody sees one without the others.
        for announce in (
            self.seats.prepare(grid, changed_indexes=grid.changed_since(before)),
            self.pending_requests.prepare(grid.requests),
            self.invitations.prepare(mine),
        ):
            if announce is not None:
                announce()

    def _on_hint(self, kind: str, content: Mapping[str, Any], identity: str | None) -> None:
        super()._on_hint(kind, content, identity)
        if kind in _HINTS and not self._metadata_has_seats:
            self._looks.hint()

    # ------------------------------------------------------------------------------------- standing, grant, microphone

    def _my_seat(self) -> UTDSeat | None:
        grid = self._stay.grid.grid
        index = grid.my_seat
        return None if index is None else grid.seats[index]

    def _entitled(self, source: UTDTrackSource) -> bool:
        return source is _MICROPHONE and self._stay.standing.state in _MAY_SPEAK

    def _refusal(self, source: UTDTrackSource) -> UTDStreamException | None:
        seat = self._my_seat()
        if seat is not None and seat.muted:
            return UTDPermissionError(
                f"the {source} may not be switched on: a moderator muted seat {seat.index}; "
                f"only a moderator's unmute_seat({seat.index}) lets it be switched on again"
            )
        if self._stay.standing.state == "leaving":
            return UTDStateError(
                f"the {source} may not be switched on: the seat is being given back",
                state="leaving",
                event=f"set_{source}",
            )
        return None

    def _on_source(self, source: UTDTrackSource, step: Step) -> None:
        if step.after == "on":
            self._silence_muted_seat()

    def _silence_muted_seat(self) -> None:
        seat, microphone = self._my_seat(), self._sources[_MICROPHONE]
        if seat is not None and seat.muted and microphone.state == "on":
            microphone.muted_by_other()

    def _stood(self, stay: Stay, step: Step) -> None:
        """One's own standing moved."""
        if stay is not self._stay:
            return
        if step.after not in _MAY_SPEAK:
            self._sources[_MICROPHONE].stop_now(_unseated(step))
        elif step.after == "seated" and step.before in ("requested", "requesting") and self._auto_unmute:
            self._portal.spawn(self._unmute_by_itself(), name="utd-fsm-auto-unmute")

    async def _unmute_by_itself(self) -> None:
        try:
            await self._enable(_MICROPHONE)
        except UTDStreamException as error:
            log.info("%s: approved, but the microphone did not go on: %s", self.room_name, error)

    # ------------------------------------------------------------------------------------------------------ requests

    async def _ready(self, event: str) -> Stay:
        """In the room, and no request of one's own is left whose end is unknown."""
        self._must_be_in(event)
        stay = self._stay
        await self._settled(stay)
        return stay

    async def _settled(self, stay: Stay) -> None:
        self._same(stay)
        try:
            await stay.standing.settled()
        finally:
            self._same(stay)

    def _same(self, stay: Stay) -> None:
        if stay is not self._stay:
            raise self._why_out()

    async def _wish(self, stay: Stay, event: str, send: Ask, *, reaches: frozenset[str]) -> SeatAnswer | None:
        """A wish about oneself, to its end.

        Args:
            reaches: the states that show that it was granted: where the answer was lost and the look finds one of them,
                that is the answer.

        Returns:
            The answer; None where it was lost.
        """
        answers: list[SeatAnswer] = []

        async def ask(key: str) -> Snapshot | None:
            mark = stay.arrivals.mark()
            answers.append(await send(key))
            return self._heard_grid(stay, answers[0].grid, mark)

        try:
            await stay.standing.wish(event, ask)
        except UTDStreamException as error:
            self._same(stay)
            if not outcome_unknown(error):
                raise
            if stay.standing.state not in reaches:
                raise
            log.info("%s: the answer to %s was lost; the engine has done it", self.room_name, event)
        await self._settled(stay)
        return answers[0] if answers else None

    async def _act(self, send: Callable[[], Awaitable[SeatAnswer]], *, ordered: Stay | None = None) -> SeatAnswer:
        """What is no wish of the machine: moderation, or moving. Folds the answer; looks where it is short or unknown.

        Args:
            ordered: the stay whose numbers it carries, for what one does oneself: the look after it then seals it.
        """
        stay = self._stay
        mark = stay.arrivals.mark()
        try:
            answer = await send()
        except UTDStreamException as error:
            if outcome_unknown(error) or error.status_code in (404, 409) or isinstance(error, UTDProtocolError):
                await self._look_again(stay, sealing=ordered is not None)
            raise
        except BaseException:
            # Given up by whoever asked: it may still be done.
            self._portal.spawn(self._look_again(stay, sealing=ordered is not None), name="utd-fsm-look-again")
            raise
        if self._heard_grid(stay, answer.grid, mark) is None and stay is self._stay:
            await self._look()
        return answer

    async def _look_again(self, stay: Stay, *, sealing: bool) -> None:
        if stay is not self._stay:
            return
        try:
            if sealing:
                await self._look_sealing(stay, stay.standing.order.next())
            else:
                await self._look()
        except UTDStreamException as error:
            log.info("%s: what became of a request is unknown: %s", self.room_name, error)
            if stay is self._stay:
                self._looks.soon()


def outcome_unknown(error: UTDStreamException) -> bool:
    """Whether the engine may have done what was asked, although it was not said."""
    if isinstance(error, UTDConnectionError | UTDTimeoutError):
        return not error.outcome_known
    return isinstance(error, UTDEngineError) and (error.status_code or 0) >= 500


def _unseated(step: Step) -> UTDStreamException:
    if step.after == "leaving":
        return UTDStateError("the seat was given back", state=step.after, event="leave_seat")
    return UTDPermissionError("the seat is lost: a moderator took it away, or it was given up")
