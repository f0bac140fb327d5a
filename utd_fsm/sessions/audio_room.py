"""The session of an audio room: what listeners, speakers and moderators may ask. How it goes about it is in
`audio_room_core`.

Loop thread only; the facades are `utd_fsm.client.UTDAudioRoomSession` and `utd_fsm.aio.UTDAudioRoomSession`.
"""

from __future__ import annotations

import logging
from functools import partial

from utd_fsm import validation
from utd_fsm.errors import UTDStateError, UTDStreamException
from utd_fsm.models import UTDSeatMode, UTDTrackSource
from utd_fsm.observable import BaseObservable
from utd_fsm.room_models import UTDInvitation, UTDSeatGrid, UTDSpeakerRequest
from utd_fsm.sessions import seat_grid
from utd_fsm.sessions.audio_room_core import Ask, AudioRoomCore, Stay, outcome_unknown
from utd_fsm.sessions.marks import verb
from utd_fsm.wire import malformed

log = logging.getLogger("utd_fsm.audio_room")

_SEATED = frozenset({"seated"})
_LISTENS = frozenset({"listener"})


class AudioRoomSession(AudioRoomCore):
    """An audio room: seats, requests to speak and invitations, and the moderation of all of them.

    Made by ``client.join_audio_room(…)``. Verbs run one at a time, in the order of the calls; `leave` and `dispose`
    overtake. A context manager: leaving it leaves the room, and with it seat, request and invitation.
    """

    seats: BaseObservable[UTDSeatGrid]
    """All seats, with who asks and who is invited, as one snapshot; its `my_seat` is this session's."""
    pending_requests: BaseObservable[tuple[UTDSpeakerRequest, ...]]
    """Who asks to speak, oldest first."""
    invitations: BaseObservable[tuple[UTDInvitation, ...]]
    """The open invitations for this session, oldest first."""

    # ----------------------------------------------------------------------------------------------------- the seats

    @verb()
    async def setup_seats(
        self,
        seat_count: int | None = None,
        seat_mode: UTDSeatMode | str | None = None,
        mode_id: int | str | None = None,
    ) -> UTDSeatGrid:
        """Arrange the seats, for the first time or again. Host and admins.

        Whoever sits on a seat that still exists keeps it, the others stand up; a change to free mode dismisses the
        requests. None leaves a part as it is (at first: 8 seats, free).

        Args:
            seat_count: 1 to 100.
            seat_mode: ``free`` (whoever wants takes a seat) or ``request`` (a moderator gives them).
            mode_id: the application's own name for the arrangement: a whole number, or up to 100 characters.

        Returns:
            The grid.

        Raises:
            UTDInputError: an argument is wrong; nothing was sent.
            UTDStateError: not in the room.
            UTDPermissionError: neither host nor admin.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        count = validation.optional(validation.seat_count, seat_count, "seat_count")
        mode = validation.optional(validation.seat_mode, seat_mode, "seat_mode")
        name = validation.mode_id(mode_id)
        self._must_moderate("setup_seats")
        answer = await self._act(partial(self._engine_room.setup_seats, count=count, mode=mode, mode_id=name))
        return self._newest(answer.grid)

    @verb()
    async def get_seats(self) -> UTDSeatGrid:
        """Ask the engine for the grid. It is in `seats` already, without asking; this is for whoever doubts it.

        Returns:
            The newest grid; its ``raw`` is the engine's own words.

        Raises:
            UTDStateError: not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached.
        """
        self._must_be_in("get_seats")
        stay = self._stay
        mark = stay.arrivals.mark()
        grid = await self._engine_room.seats()
        self._heard_grid(stay, grid, mark)
        return self._newest(grid)

    @verb()
    async def take_seat(self, index: int) -> None:
        """Sit down, and speak: returns with the seat taken and the microphone on.

        On a seat that is muted (`mute_all`) it returns with the microphone off: a moderator decides. When the grant to
        publish does not come the seat is kept, and ``set_microphone(True)`` tries again.

        Args:
            index: which seat, from 0. Seat 0 is the host's.

        Raises:
            UTDInputError: no such seat; nothing was sent.
            UTDStateError: it is taken or locked; one sits already; not in the room; overtaken by ``leave``; or the seat
                was lost meanwhile.
            UTDPermissionError: seats are given on request here, this one is reserved for somebody else, or the seat was
                lost while the grant was waited for.
            UTDTimeoutError: the grant to publish did not come within 10 s.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        which = validation.seat_index(index)
        stay = await self._ready("take_seat")
        self._must_not_sit(stay, "take_seat")
        seat_grid.refuse_taking(stay.grid.grid, which, is_host=self.is_host)
        await self._sit(stay, "take_seat", lambda key: self._engine_room.take(which, key=key))

    @verb()
    async def leave_seat(self) -> None:
        """Give the seat back. The microphone is off at once, before the engine answers.

        Raises:
            UTDStateError: one doesn't sit, or is not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached.
        """
        stay = await self._ready("leave_seat")
        self._must_stand(stay, "leave_seat", "seated", "there is no seat to give back", "take_seat")
        await self._wish(stay, "leave", lambda key: self._engine_room.leave(key=key), reaches=_LISTENS)

    @verb()
    async def move_seat(self, index: int) -> None:
        """Change to another seat in one step, without a gap in the sound. A mute goes along.

        Args:
            index: which seat.

        Raises:
            UTDInputError: no such seat; nothing was sent.
            UTDStateError: it is taken or locked; one doesn't sit; not in the room.
            UTDPermissionError: it is reserved for somebody else.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        which = validation.seat_index(index)
        stay = await self._ready("move_seat")
        self._must_stand(stay, "move_seat", "seated", "only who sits can move", "take_seat")
        seat_grid.refuse_sitting(stay.grid.grid, which, "move_seat")
        try:
            await self._act(partial(self._engine_room.move, which, key=stay.standing.order.next()), ordered=stay)
        except UTDStreamException as error:
            if not outcome_unknown(error) or stay.grid.grid.my_seat != which:
                raise
            log.info("%s: the answer to move_seat was lost; the engine has done it", self.room_name)

    # ------------------------------------------------------------------------------------------------- asked to speak

    @verb()
    async def request_to_speak(self) -> UTDSpeakerRequest:
        """Ask for a seat, where seats are given on request. Returns once the request is in the list.

        When it is approved the engine seats this session; the microphone goes on by itself only with
        ``join_audio_room(…, auto_unmute=True)``.

        Returns:
            The request.

        Raises:
            UTDStateError: seats are free to take here; one asks, is invited or sits already; not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached.
        """
        stay = await self._ready("request_to_speak")
        self._must_not_sit(stay, "request_to_speak")
        state = stay.standing.state
        if state != "listener":
            mend = "cancel_request" if state == "requested" else "accept_invitation"
            raise UTDStateError(
                f"request_to_speak: {state} already; {mend}() instead",
                state=state,
                event="request_to_speak",
                allowed=(mend,),
            )
        seat_grid.refuse_requesting(stay.grid.grid)
        answer = await self._wish(
            stay, "request", lambda key: self._engine_room.request(key=key), reaches=frozenset({"requested", "seated"})
        )
        for one in stay.grid.grid.requests:
            if one.identity == self.identity:
                return one
        if answer is None or answer.request_id is None or self.identity is None:
            raise UTDStateError("request_to_speak: it was answered at once; look at seats", state=stay.standing.state)
        return UTDSpeakerRequest(answer.request_id, self.identity)  # answered already

    @verb()
    async def cancel_request(self) -> None:
        """Take one's request to speak back.

        Raises:
            UTDStateError: there is none, or not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached.
        """
        stay = await self._ready("cancel_request")
        self._must_stand(stay, "cancel_request", "requested", "there is no request", "request_to_speak")
        await self._wish(stay, "withdraw", lambda key: self._engine_room.cancel(key=key), reaches=_LISTENS)

    @verb()
    async def accept_invitation(self, invitation: int | UTDInvitation | None = None) -> int:
        """Accept an invitation, and speak: returns with the seat taken and the microphone on, as `take_seat`.

        Args:
            invitation: it, or its id; None is the newest open one.

        Returns:
            The index of the seat.

        Raises: as `take_seat`; `UTDStateError` where there is no open invitation.
        """
        which = validation.optional(validation.invitation_id, invitation, "invitation")
        stay = await self._ready("accept_invitation")
        self._must_not_sit(stay, "accept_invitation")
        number = self._open_invitation(stay, which, "accept_invitation")
        return await self._sit(stay, "accept_invitation", lambda key: self._engine_room.accept(number, key=key))

    @verb()
    async def decline_invitation(self, invitation: int | UTDInvitation | None = None) -> None:
        """Decline an invitation.

        Args:
            invitation: it, or its id; None is the newest open one.

        Raises:
            UTDInputError: not an invitation; nothing was sent.
            UTDStateError: there is no open invitation, or not in the room.
            UTDEngineError: the engine refused.
            UTDConnectionError: the engine could not be reached.
        """
        which = validation.optional(validation.invitation_id, invitation, "invitation")
        stay = await self._ready("decline_invitation")
        number = self._open_invitation(stay, which, "decline_invitation")
        self._must_stand(stay, "decline_invitation", "invited", "there is no open invitation", "request_to_speak")
        await self._wish(stay, "withdraw", lambda key: self._engine_room.decline(number, key=key), reaches=_LISTENS)

    # --------------------------------------------------------------------------------------------------- moderation

    @verb()
    async def approve_speaker(self, request: int | UTDSpeakerRequest) -> int | None:
        """Seat somebody who asks to speak, on the first seat that is free. Host and admins.

        Args:
            request: the request, or its id.

        Returns:
            The index of the seat; None where the engine does not say.

        Raises:
            UTDInputError: not a request; nothing was sent.
            UTDStateError: the request is no longer open, no seat is free, or not in the room.
            UTDPermissionError: neither host nor admin.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        number = validation.request_id(request, "request")
        self._must_moderate("approve_speaker")
        answer = await self._act(partial(self._engine_room.approve, number))
        return answer.seat_index

    @verb()
    async def reject_speaker(self, request: int | UTDSpeakerRequest) -> None:
        """Turn a request to speak down. Host and admins.

        Args:
            request: the request, or its id.

        Raises: as `approve_speaker`.
        """
        number = validation.request_id(request, "request")
        self._must_moderate("reject_speaker")
        await self._act(partial(self._engine_room.reject, number))

    @verb()
    async def invite_to_speak(self, identity: str, seat_index: int | None = None) -> UTDInvitation:
        """Invite somebody to sit, in either mode. Host and admins.

        Args:
            identity: whom.
            seat_index: on which seat; None is the first that is free when it accepts.

        Returns:
            The invitation.

        Raises:
            UTDInputError: an argument is wrong, or no such seat; nothing was sent.
            UTDStateError: it sits or is invited already; the seat is taken or locked; not in the room.
            UTDPermissionError: neither host nor admin, or the seat is reserved for somebody else.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        who = validation.identity(identity)
        where = validation.optional(validation.seat_index, seat_index, "seat_index")
        self._must_moderate("invite_to_speak")
        seat_grid.refuse_inviting(self._stay.grid.grid, who, where)
        answer = await self._act(partial(self._engine_room.invite, who, where))
        for one in reversed(self._stay.grid.grid.invitations):
            if one.identity == who and answer.invitation_id in (None, one.id):
                return one
        if answer.invitation_id is None:
            malformed("POST /rooms/:room/speakers/invite", "invitation_id", "missing")
        return UTDInvitation(answer.invitation_id, who, self.identity, where)  # answered already

    @verb()
    async def kick_seat(self, index: int) -> None:
        """Make whoever sits there stand up. Host and admins; an admin not the host.

        Args:
            index: which seat.

        Raises:
            UTDInputError: no such seat; nothing was sent.
            UTDStateError: nobody sits there, or not in the room.
            UTDPermissionError: neither host nor admin, or an admin against the host.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        which = self._occupied("kick_seat", index)
        await self._act(partial(self._engine_room.kick, which))

    @verb()
    async def lock_seat(self, index: int) -> None:
        """Close a seat, so that nobody may sit there; whoever does stands up first. Host and admins.

        Args:
            index: which seat.

        Raises: as `kick_seat`; a seat that is empty or locked already is no error.
        """
        which = self._anybody("lock_seat", index)
        await self._act(partial(self._engine_room.lock, which))

    @verb()
    async def unlock_seat(self, index: int) -> None:
        """Open a seat that was locked. Host and admins.

        Args:
            index: which seat.

        Raises: as `kick_seat`; `UTDStateError` where somebody sits.
        """
        which = self._anybody("unlock_seat", index)
        seat_grid.refuse_unlocking(self._stay.grid.grid, which)
        await self._act(partial(self._engine_room.unlock, which))

    @verb()
    async def mute_seat(self, index: int) -> None:
        """Silence whoever sits there, until `unmute_seat`: it cannot unmute itself. Host and admins.

        Args:
            index: which seat.

        Raises: as `kick_seat`.
        """
        which = self._occupied("mute_seat", index)
        await self._act(partial(self._engine_room.mute, which))

    @verb()
    async def unmute_seat(self, index: int) -> None:
        """Let whoever sits there speak again; it switches its microphone on itself. Host and admins.

        Args:
            index: which seat.

        Raises: as `kick_seat`.
        """
        which = self._occupied("unmute_seat", index)
        await self._act(partial(self._engine_room.unmute, which))

    @verb()
    async def swap_seats(self, a: int, b: int) -> None:
        """Let two change seats, in one step; mutes go with the persons. With an empty seat it is a move. Host, admins.

        Args:
            a: one seat.
            b: the other.

        Raises:
            UTDInputError: no such seat, or the same twice; nothing was sent.
            UTDStateError: one of them is locked, or nobody sits on either; not in the room.
            UTDPermissionError: neither host nor admin, or an admin against the host.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        one, other = validation.seat_index(a, "a"), validation.seat_index(b, "b")
        self._must_moderate("swap_seats")
        for who in seat_grid.refuse_swap(self._stay.grid.grid, one, other):
            self._must_moderate("swap_seats", who)
        await self._act(partial(self._engine_room.swap, one, other))

    @verb()
    async def mute_all(self, muted: bool = True) -> None:
        """Silence everybody who sits, and whoever sits down later; never the host. Or end that. Host and admins.

        Args:
            muted: silence, or let everybody speak again (each switches its own microphone on).

        Raises:
            UTDInputError: not a boolean; nothing was sent.
            UTDStateError: not in the room.
            UTDPermissionError: neither host nor admin.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: the engine could not be reached.
        """
        wanted = validation.boolean(muted, "muted")
        self._must_moderate("mute_all")
        await self._act(partial(self._engine_room.mute_all, wanted))

    def lost(self, name: str, result: object) -> None:
        """Whoever gave up sitting down is told that it was cancelled: then nothing is heard of it, either."""
        if name in ("take_seat", "accept_invitation"):
            self._sources[UTDTrackSource.MICROPHONE].stop_now()
        super().lost(name, result)

    # -------------------------------------------------------------------------------------------------- what they share

    async def _sit(self, stay: Stay, event: str, send: Ask) -> int:
        """Be seated, with the microphone on; where the seat is muted, without."""
        await self._wish(stay, "take", send, reaches=_SEATED)
        seat = self._my_seat()
        if stay.standing.state != "seated" or seat is None:
            raise UTDStateError(
                f"{event}: the seat was lost again at once; look at seats", state=stay.standing.state, event=event
            )
        if seat.muted:
            log.info("%s: seat %d is muted by a moderator: the microphone stays off", self.room_name, seat.index)
        else:
            await self._enable(UTDTrackSource.MICROPHONE)
        return seat.index

    def _newest(self, answered: UTDSeatGrid | None) -> UTDSeatGrid:
        """What is shown; as the engine just spelt it, where room metadata brought the same version first."""
        shown = self.seats.value
        return answered if answered is not None and answered == shown else shown

    def _must_not_sit(self, stay: Stay, event: str) -> None:
        if stay.standing.state == "seated":
            raise UTDStateError(
                f"{event}: one sits on seat {stay.grid.grid.my_seat} already; move_seat(index) or leave_seat() instead",
                state="seated",
                event=event,
                allowed=("move_seat", "leave_seat"),
            )

    def _must_stand(self, stay: Stay, event: str, state: str, wrong: str, mend: str) -> None:
        if stay.standing.state != state:
            raise UTDStateError(
                f"{event}: {wrong}; {mend} first", state=stay.standing.state, event=event, allowed=(mend,)
            )

    def _open_invitation(self, stay: Stay, number: int | None, event: str) -> int:
        """Its id; the newest open one where none is named."""
        if number is not None:
            return number
        mine = stay.grid.mine(stay.grid.grid)
        if not mine:
            raise UTDStateError(
                f"{event}: there is no open invitation; a moderator's invite_to_speak makes one",
                state=stay.standing.state,
                event=event,
            )
        return mine[-1].id

    def _anybody(self, event: str, index: int) -> int:
        """A seat that a moderator acts on, whoever sits there or not."""
        which = validation.seat_index(index)
        self._must_moderate(event)
        self._must_moderate(event, seat_grid.seat_at(self._stay.grid.grid, which, event).identity)
        return which

    def _occupied(self, event: str, index: int) -> int:
        """A seat that a moderator acts on, on which somebody has to sit."""
        which = self._anybody(event, index)
        seat_grid.refuse_empty(self._stay.grid.grid, which, event)
        return which
