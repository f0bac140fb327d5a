"""What the routes of streams and audio rooms take and answer, as the OpenAPI page shows them; the rest as in `bodies`.

Names are the wire contract's. Nothing here reads or changes anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, Field

from utd_fsm import room_wire
from utd_fsm.models import UTDRole, UTDSeatMode

from .bodies import ByIdentity, Identity, ModeId, Pagination, RoomName, _Body
from .moderation import LONGEST_BAN

SLASH = "\x1f"
"""Stands in a path's segment for a slash that was sent encoded (`app`): no name may hold it itself."""


def _segment(value: object) -> object:
    return value.replace(SLASH, "/") if isinstance(value, str) else value


Room = Annotated[RoomName, BeforeValidator(_segment), Path(description="The room's name.")]
Whom = Annotated[Identity, BeforeValidator(_segment), Path(description="The identity that it is about.")]
SeatIndex = Annotated[int, Field(ge=0, lt=room_wire.MAX_SEATS)]
Seat = Annotated[SeatIndex, Path(description="The seat's index, from 0.")]
Number = Annotated[int, Path(ge=0, lt=2**53, description="The request's or the invitation's id.")]
Reason = Annotated[str, Field(max_length=500)]


class Target(ByIdentity):
    """Who does it, and to whom."""

    target_identity: Identity


class SetUpSeats(ByIdentity):
    """How many seats, and how one comes by them. What is left out stays as it is: 8 seats, free, at first."""

    seat_count: Annotated[int, Field(ge=1, le=room_wire.MAX_SEATS)] | None = None
    seat_mode: UTDSeatMode | None = None
    mode_id: ModeId | None = None


class MoveSeat(ByIdentity):
    """Where to."""

    target_seat: SeatIndex


class SwapSeats(ByIdentity):
    """Which two (ours)."""

    a: SeatIndex
    b: SeatIndex


class MuteAll(ByIdentity):
    """Everybody who sits, and who will (ours)."""

    muted: bool = True


class Invite(Target):
    """Who is invited, and to which seat; without one, to any that is free."""

    seat_index: SeatIndex | None = None


class MuteParticipant(ByIdentity):
    """What is silenced. LiveKit lets nobody be unmuted by another: `muted: false` changes nothing."""

    audio: bool = True
    video: bool = False
    muted: bool = True


class SetRole(_Body):
    """The role that the owner gives. Nobody is made host."""

    actor_identity: Identity
    role: UTDRole


class Ban(_Body):
    """Who is banned: from one room, or without one from all; for a time in seconds, or without one for good."""

    identity: Identity
    room_name: RoomName | None = None
    reason: Reason | None = None
    duration: Annotated[float, Field(gt=0, le=LONGEST_BAN)] | None = None


class LiftBan(_Body):
    """Whose ban is lifted, and where."""

    identity: Identity
    room_name: RoomName | None = None


class LockComments(ByIdentity):
    """Whether only moderators may comment (ours)."""

    locked: bool


# --- answers, for the OpenAPI page


class StageMember(BaseModel):
    """One who may publish beside the host."""

    identity: str
    name: str | None
    role: UTDRole | None


class Hand(BaseModel):
    """One who asked to come on stage (ours)."""

    identity: str
    name: str | None
    raised_at: str | None


class Stage(BaseModel):
    """The stage, in the order of coming, and the raised hands, oldest first."""

    stage: list[StageMember]
    hands: list[Hand]
    version: int


class Live(BaseModel):
    """Where the stream is (ours)."""

    state: Literal["waiting", "live", "host_away", "ended"]
    version: int


class SpeakerRequest(BaseModel):
    """One request to speak."""

    id: int
    identity: str
    created_at: str | None
    name: str | None = None


class SpeakerRequests(BaseModel):
    """The open requests, oldest first."""

    requests: list[SpeakerRequest]
    version: int


class Invitation(BaseModel):
    """One open invitation (ours)."""

    id: int
    identity: str
    inviter_identity: str | None
    seat_index: int | None
    created_at: str | None


class SeatRow(BaseModel):
    """One seat."""

    seat_index: int
    occupant_identity: str | None
    locked: Literal[0, 1]
    reserved_for: str | None
    name: str | None
    muted: bool
    attributes: dict[str, Any]


class Grid(BaseModel):
    """All seats, with who asks and who is invited. `version` grows with every change in the room (ours)."""

    seat_count: int
    seat_mode: UTDSeatMode
    mode_id: str | int | None
    seats: list[SeatRow]
    requests: list[SpeakerRequest]
    invitations: list[Invitation]
    all_muted: bool
    version: int


class SeatAnswer(BaseModel):
    """What a verb about seats or speakers did, and the whole grid after it (`grid` is ours). Which of the other
    fields there are depends on the verb."""

    seat_index: int | None = None
    from_: int | None = Field(None, alias="from")
    to: int | None = None
    request_id: int | None = None
    invitation_id: int | None = None
    identity: str | None = None
    grid: Grid


class RoleChange(BaseModel):
    """Somebody's role, now and before."""

    identity: str
    role: UTDRole
    previous_role: UTDRole


class Participant(BaseModel):
    """Somebody in a room, as the engine knows it."""

    identity: str
    role: UTDRole
    connected: bool
    may_publish: bool
    seat_index: int | None = None
    muted: bool
    on_stage: bool


class ByRole(BaseModel):
    """Those who have a role."""

    participants: list[dict[str, str]]


class BanRow(BaseModel):
    """One ban."""

    id: int
    identity: str
    name: str | None
    attributes: dict[str, Any] | None
    room_name: str | None
    reason: str | None
    banned_at: str | None
    expires_at: str | None


class BanPage(BaseModel):
    """Bans, newest first."""

    data: list[BanRow]
    pagination: Pagination


class Comments(BaseModel):
    """The comment lock (ours)."""

    locked: bool
    version: int


class Plain(BaseModel):
    """It is done."""

    message: str | None = None


class Banned(BaseModel):
    """A 403 to somebody who is banned: `code` is `banned`, and the message begins with `User is banned`."""

    message: str
    code: str | None = None
    reason: str | None = None
    expires_at: str | None = None
    room_name: str | None = None
