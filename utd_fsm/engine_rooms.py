"""The engine's routes of live streams and audio rooms as typed methods: blocking, for any number of threads.

`engine_api` makes it, as ``api.rooms``. The rules there hold here: arguments are checked before anything is sent,
answers are read by `room_wire` and by nothing else. What is asked again after it was lost: what reads, and a wish about
oneself that carries its idempotency key. What is done to others carries none: it is sent once, and when its answer is
lost, the error says that the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import room_wire, validation, wire
from .credentials import Credentials
from .engine_requests import Ask, EngineRequests, ordered_key, present
from .models import ReadOnlyDict, UTDRole, UTDSeatMode
from .room_models import (
    UTDBan,
    UTDBanPage,
    UTDBroadcast,
    UTDInvitation,
    UTDRoleChange,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStage,
)

_POST: Final = "POST"
_PUT: Final = "PUT"
_DELETE: Final = "DELETE"


@dataclass(frozen=True, slots=True)
class SeatAnswer:
    """What the engine answered to a verb about seats or speakers."""

    content: Mapping[str, Any]
    """The engine's own words; read-only."""
    grid: UTDSeatGrid | None
    """The whole state after the verb; None from an engine that leaves it out: look then."""
    identity: str | None = None
    """Whom it was about, where it says so."""
    seat_index: int | None = None
    request_id: int | None = None
    invitation_id: int | None = None


class RoomApi:
    """Stage, seats, speakers, participants, roles, bans and comments.

    Args:
        requests: what sends.
        base_url: root of the engine's host.

    Every method takes ``cred``, as whom it asks, and most of them ``room``, the room's name. ``key`` is an idempotency
    key (machines, law 5); ``deadline`` the seconds it may take with all tries, None for 30. Every method may raise
    `UTDEngineError` (and its kinds for 409 and 403; `UTDForbiddenError.details` tells more of a ban),
    `UTDTimeoutError`, `UTDConnectionError`, `UTDProtocolError`, `UTDClosedError`, and `UTDInputError` for what cannot
    be sent.
    """

    def __init__(self, requests: EngineRequests, base_url: str) -> None:
        self._requests = requests
        self._base = base_url

    # --- the stage

    def stage(self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None) -> UTDStage:
        """Who is on stage, and who raised a hand (``GET stage``). With a key the look seals what was sent before."""
        ask = self._get(cred, room_wire.STAGE, room, key=key)
        return room_wire.read_stage(self._requests.perform(ask, deadline=deadline), ask.route)

    def stage_request(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> UTDStage | None:
        """Raise one's hand. Returns the stage; None where the answer is short."""
        return self._stage(self._ask(_POST, cred, room_wire.STAGE_REQUEST, room, key=key), deadline)

    def stage_lower(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> UTDStage | None:
        """Lower one's hand (``DELETE stage/request``, ours). Returns as `stage_request` does."""
        return self._stage(self._ask(_DELETE, cred, room_wire.STAGE_REQUEST, room, key=key), deadline)

    def stage_leave(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> UTDStage | None:
        """Step off the stage. Returns as `stage_request` does."""
        return self._stage(self._ask(_POST, cred, room_wire.STAGE_LEAVE, room, key=key), deadline)

    def stage_add(self, cred: Credentials, room: str, target: str, *, deadline: float | None = None) -> UTDStage | None:
        """Bring `target` on stage (host and admins). Returns as `stage_request` does."""
        body = {"target_identity": validation.identity(target)}
        return self._stage(self._ask(_POST, cred, room_wire.STAGE_ADD, room, body), deadline)

    def stage_remove(
        self, cred: Credentials, room: str, target: str, *, deadline: float | None = None
    ) -> UTDStage | None:
        """Take `target` off the stage (host and admins). Returns as `stage_request` does."""
        body = {"target_identity": validation.identity(target)}
        return self._stage(self._ask(_POST, cred, room_wire.STAGE_REMOVE, room, body), deadline)

    def live_start(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> tuple[UTDBroadcast | None, int | None]:
        """Go on air (the owner; ours). Returns state and version, None each where the answer leaves it out."""
        ask = self._ask(_POST, cred, room_wire.LIVE_START, room, key=key)
        return room_wire.read_live(self._requests.perform(ask, deadline=deadline), ask.route)

    def live_end(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> tuple[UTDBroadcast | None, int | None]:
        """End the stream (the owner; ours). Returns as `live_start` does."""
        ask = self._ask(_POST, cred, room_wire.LIVE_END, room, key=key)
        return room_wire.read_live(self._requests.perform(ask, deadline=deadline), ask.route)

    # --- the seats

    def seats(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> UTDSeatGrid:
        """The whole grid, as `cred` sees it (``GET seats``). With a key the look seals what was sent before."""
        ask = self._get(cred, room_wire.SEATS, room, key=key)
        answer = self._requests.perform(ask, deadline=deadline)
        return room_wire.read_seats(answer, ask.route, viewer=cred.identity)

    def setup_seats(
        self,
        cred: Credentials,
        room: str,
        *,
        count: int | None = None,
        mode: UTDSeatMode | str | None = None,
        mode_id: int | str | None = None,
        deadline: float | None = None,
    ) -> SeatAnswer:
        """Arrange the seats (owner and admins): 1 to 100 of them; None leaves a part to the engine."""
        body = {
            "seat_count": validation.optional(validation.seat_count, count, "seat_count"),
            "seat_mode": validation.optional(validation.seat_mode, mode, "seat_mode"),
            "mode_id": validation.mode_id(mode_id),
        }
        return self._seats(self._ask(_POST, cred, room_wire.SEATS_SETUP, room, body), deadline)

    def take(
        self, cred: Credentials, room: str, index: int, *, key: str | None = None, deadline: float | None = None
    ) -> SeatAnswer:
        """Sit down. 403 where that is not allowed (request mode, reserved), 409 where the seat is taken or locked."""
        return self._seats(self._seat(cred, room_wire.SEAT_TAKE, room, index, key=key), deadline)

    def leave(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> SeatAnswer:
        """Stand up."""
        return self._seats(self._ask(_POST, cred, room_wire.SEATS_LEAVE, room, key=key), deadline)

    def move(
        self, cred: Credentials, room: str, index: int, *, key: str | None = None, deadline: float | None = None
    ) -> SeatAnswer:
        """Sit somewhere else, in one step."""
        body = {"target_seat": validation.seat_index(index)}
        return self._seats(self._ask(_POST, cred, room_wire.SEATS_MOVE, room, body, key=key), deadline)

    def kick(self, cred: Credentials, room: str, index: int, *, deadline: float | None = None) -> SeatAnswer:
        """Make whoever sits there stand up (moderators)."""
        return self._seats(self._seat(cred, room_wire.SEAT_KICK, room, index), deadline)

    def lock(self, cred: Credentials, room: str, index: int, *, deadline: float | None = None) -> SeatAnswer:
        """Lock a seat; whoever sits there stands up first (moderators)."""
        return self._seats(self._seat(cred, room_wire.SEAT_LOCK, room, index), deadline)

    def unlock(self, cred: Credentials, room: str, index: int, *, deadline: float | None = None) -> SeatAnswer:
        """Open a locked seat (moderators)."""
        return self._seats(self._seat(cred, room_wire.SEAT_UNLOCK, room, index), deadline)

    def mute(self, cred: Credentials, room: str, index: int, *, deadline: float | None = None) -> SeatAnswer:
        """Silence whoever sits there (moderators)."""
        return self._seats(self._seat(cred, room_wire.SEAT_MUTE, room, index), deadline)

    def unmute(self, cred: Credentials, room: str, index: int, *, deadline: float | None = None) -> SeatAnswer:
        """Allow whoever sits there to be heard again (moderators)."""
        return self._seats(self._seat(cred, room_wire.SEAT_UNMUTE, room, index), deadline)

    def swap(self, cred: Credentials, room: str, a: int, b: int, *, deadline: float | None = None) -> SeatAnswer:
        """Exchange who sits on two seats, in one step (moderators; ours)."""
        body = {"a": validation.seat_index(a, "a"), "b": validation.seat_index(b, "b")}
        return self._seats(self._ask(_POST, cred, room_wire.SEATS_SWAP, room, body), deadline)

    def mute_all(self, cred: Credentials, room: str, muted: bool, *, deadline: float | None = None) -> SeatAnswer:
        """Silence everybody but the owner, and whoever sits down later; or end that (moderators; ours)."""
        body = {"muted": validation.boolean(muted, "muted")}
        return self._seats(self._ask(_PUT, cred, room_wire.SEATS_MUTE_ALL, room, body), deadline)

    # --- speakers

    def request(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> SeatAnswer:
        """Ask to speak, in request mode. The answer has the ``request_id``."""
        return self._seats(self._ask(_POST, cred, room_wire.SPEAKERS_REQUEST, room, key=key), deadline)

    def cancel(
        self, cred: Credentials, room: str, *, key: str | None = None, deadline: float | None = None
    ) -> SeatAnswer:
        """Take one's request back."""
        return self._seats(self._ask(_DELETE, cred, room_wire.SPEAKERS_REQUEST, room, key=key), deadline)

    def requests(self, cred: Credentials, room: str, *, deadline: float | None = None) -> tuple[UTDSpeakerRequest, ...]:
        """Who asks to speak, oldest first."""
        ask = self._get(cred, room_wire.SPEAKERS_REQUESTS, room)
        return room_wire.read_requests(self._requests.perform(ask, deadline=deadline), ask.route)

    def approve(
        self, cred: Credentials, room: str, id: int | UTDSpeakerRequest, *, deadline: float | None = None
    ) -> SeatAnswer:
        """Seat whoever asked, on the first seat that is free (moderators). The answer has the ``seat_index``."""
        number = str(validation.request_id(id))
        return self._seats(self._ask(_POST, cred, room_wire.SPEAKER_APPROVE, room, id=number), deadline)

    def reject(
        self, cred: Credentials, room: str, id: int | UTDSpeakerRequest, *, deadline: float | None = None
    ) -> SeatAnswer:
        """Refuse a request (moderators)."""
        number = str(validation.request_id(id))
        return self._seats(self._ask(_POST, cred, room_wire.SPEAKER_REJECT, room, id=number), deadline)

    def invite(
        self,
        cred: Credentials,
        room: str,
        target: str,
        seat_index: int | None = None,
        *,
        deadline: float | None = None,
    ) -> SeatAnswer:
        """Invite somebody to sit (moderators); on any seat that is free, unless one is named."""
        body = {
            "target_identity": validation.identity(target),
            "seat_index": validation.optional(validation.seat_index, seat_index, "seat_index"),
        }
        return self._seats(self._ask(_POST, cred, room_wire.SPEAKER_INVITE, room, body), deadline)

    def accept(
        self,
        cred: Credentials,
        room: str,
        id: int | UTDInvitation,
        *,
        key: str | None = None,
        deadline: float | None = None,
    ) -> SeatAnswer:
        """Accept an invitation, and sit. The answer has the ``seat_index``."""
        number = str(validation.invitation_id(id))
        return self._seats(self._ask(_POST, cred, room_wire.INVITATION_ACCEPT, room, id=number, key=key), deadline)

    def decline(
        self,
        cred: Credentials,
        room: str,
        id: int | UTDInvitation,
        *,
        key: str | None = None,
        deadline: float | None = None,
    ) -> SeatAnswer:
        """Decline an invitation."""
        number = str(validation.invitation_id(id))
        return self._seats(self._ask(_POST, cred, room_wire.INVITATION_DECLINE, room, id=number, key=key), deadline)

    # --- participants, roles, bans, comments

    def remove_participant(self, cred: Credentials, room: str, identity: str, *, deadline: float | None = None) -> None:
        """Put somebody out of the room (moderators). It may come back: that is no ban."""
        target = validation.identity(identity)
        self._done(self._ask(_DELETE, cred, room_wire.PARTICIPANT, room, id=target), deadline)

    def mute_participant(
        self,
        cred: Credentials,
        room: str,
        identity: str,
        *,
        audio: bool = True,
        video: bool = False,
        muted: bool = True,
        deadline: float | None = None,
    ) -> None:
        """Mute what somebody publishes now: its microphone, its camera, or both (moderators)."""
        body = {
            "audio": validation.boolean(audio, "audio"),
            "video": validation.boolean(video, "video"),
            "muted": validation.boolean(muted, "muted"),
        }
        target = validation.identity(identity)
        self._done(self._ask(_PUT, cred, room_wire.PARTICIPANT_MUTE, room, body, id=target), deadline)

    def set_role(
        self, cred: Credentials, room: str, identity: str, role: UTDRole | str, *, deadline: float | None = None
    ) -> UTDRoleChange:
        """Give somebody a role (the owner). 409 with `room_wire.ALREADY_IN_ROLE` where it has it already."""
        body = {"actor_identity": cred.identity, "role": validation.role(role)}
        target = validation.identity(identity)
        ask = self._ask(_PUT, cred, room_wire.PARTICIPANT_ROLE, room, body, id=target, actor=None, bare=False)
        return room_wire.read_role(self._requests.perform(ask, deadline=deadline), ask.route)

    def by_role(
        self, cred: Credentials, room: str, role: UTDRole | str, *, deadline: float | None = None
    ) -> tuple[str, ...]:
        """The identities of those in the room who have a role."""
        query = {"role": validation.role(role).value}
        ask = self._get(cred, room_wire.PARTICIPANTS_BY_ROLE, room, query=query)
        return room_wire.read_identities(self._requests.perform(ask, deadline=deadline), ask.route)

    def ban(
        self,
        cred: Credentials,
        identity: str,
        *,
        room: str | None,
        reason: str | None = None,
        duration: float | None = None,
        deadline: float | None = None,
    ) -> UTDBan:
        """Ban somebody, and put it out (moderators).

        Args:
            room: where; None for everywhere.
            reason: up to 500 characters, told to whoever is banned.
            duration: seconds, 1 to ten years, rounded up to whole ones; None for good.
        """
        target, where = validation.identity(identity), validation.optional(validation.room_name, room, "room")
        body = {
            "room_name": where,
            "reason": validation.reason(reason),
            "duration": validation.ban_duration(duration),
        }
        ask = self._ask(_POST, cred, room_wire.BAN, None, body, actor=target)
        answer = self._requests.perform(ask, deadline=deadline)
        if "id" in wire.Reader(answer, ask.route).data:
            return room_wire.read_ban(answer, ask.route)
        # A short answer: the row stands among the bans.
        page = self.bans(cred, room=where, per_page=100, deadline=deadline)
        rows = [row for row in page.bans if (row.identity, row.room_name) == (target, where)]
        return rows[0] if rows else wire.malformed(ask.route, "id", "missing, and no such ban is listed")

    def unban(self, cred: Credentials, identity: str, *, room: str | None, deadline: float | None = None) -> None:
        """Lift a ban: the one of `room`, or with None the one that holds everywhere."""
        body = {"room_name": validation.optional(validation.room_name, room, "room")}
        target = validation.identity(identity)
        self._done(self._ask(_DELETE, cred, room_wire.BAN, None, body, actor=target), deadline)

    def bans(
        self,
        cred: Credentials,
        *,
        room: str | None = None,
        page: int = 1,
        per_page: int = 20,
        deadline: float | None = None,
    ) -> UTDBanPage:
        """One page of bans: those of a room, or with None all that `cred` may see. `per_page` is 1 to 100."""
        query = {
            "room_name": validation.optional(validation.room_name, room, "room"),
            "page": validation.integer(page, "page", least=1, most=10**9),
            "per_page": validation.integer(per_page, "per_page", least=1, most=100),
        }
        ask = self._get(cred, room_wire.BANS, None, query=query)
        return room_wire.read_ban_page(self._requests.perform(ask, deadline=deadline), ask.route)

    def lock_comments(
        self, cred: Credentials, room: str, locked: bool, *, deadline: float | None = None
    ) -> tuple[bool | None, int | None]:
        """Lock or open the chat (moderators; ours). Returns the lock and its version, None each where left out."""
        body = {"locked": validation.boolean(locked, "locked")}
        ask = self._ask(_PUT, cred, room_wire.COMMENTS, room, body)
        return room_wire.read_comments(self._requests.perform(ask, deadline=deadline), ask.route)

    # --- what the routes share

    def _get(
        self,
        cred: Credentials,
        template: str,
        room: str | None,
        *,
        query: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Ask:
        return Ask(
            "GET",
            self._base,
            template,
            room=None if room is None else validation.room_name(room),
            query=query or {},
            key=ordered_key(key),
            credentials=cred,
            applies=False,
        )

    def _ask(
        self,
        method: str,
        cred: Credentials,
        template: str,
        room: str | None,
        body: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        index: int | None = None,
        actor: str | None = "",
        key: str | None = None,
        bare: bool = True,
    ) -> Ask:
        """A request that changes something. `actor` is its ``identity``: "" for the asker's own, None for none."""
        return Ask(
            method,
            self._base,
            template,
            room=None if room is None else validation.room_name(room),
            id=id,
            index=index,
            body=present({"identity": cred.identity if actor == "" else actor, **(body or {})}),
            key=ordered_key(key),
            credentials=cred,
            repeatable=key is not None,
            bare=bare,
        )

    def _seat(self, cred: Credentials, template: str, room: str, index: int, *, key: str | None = None) -> Ask:
        return self._ask(_POST, cred, template, room, index=validation.seat_index(index), key=key)

    def _done(self, ask: Ask, deadline: float | None) -> None:
        wire.Reader(self._requests.perform(ask, deadline=deadline), ask.route)

    def _stage(self, ask: Ask, deadline: float | None) -> UTDStage | None:
        answer = wire.Reader(self._requests.perform(ask, deadline=deadline), ask.route).data
        return room_wire.read_stage(answer, ask.route) if room_wire.has_stage(answer) else None

    def _seats(self, ask: Ask, deadline: float | None) -> SeatAnswer:
        r = wire.Reader(self._requests.perform(ask, deadline=deadline), ask.route)
        assert ask.credentials is not None
        return SeatAnswer(
            content=ReadOnlyDict(r.data),
            grid=room_wire.read_grid(r.data, ask.route, viewer=ask.credentials.identity),
            identity=r.text_or_none(*wire.IDENTITY_ALIASES),
            seat_index=r.integer("seat_index"),
            request_id=r.integer("request_id"),
            invitation_id=r.integer("invitation_id"),
        )
