"""What live streams and audio rooms show: the stage, the seats, who asks and who is invited. Frozen values, any thread.

Snapshots: each is whole, has one writer, and is swapped, never changed. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from .models import NOTHING, UTDRole, UTDSeatMode


class UTDBroadcast(StrEnum):
    """Where a live stream is, as a viewer sees it."""

    WAITING = "waiting"
    """Not begun."""
    LIVE = "live"
    """The host is on air, sending or silent."""
    HOST_AWAY = "host_away"
    """The host dropped; it has 60 s to come back."""
    ENDED = "ended"
    """Over. A stream that begins again is joined again."""


@dataclass(frozen=True, slots=True)
class UTDStageMember:
    """One who may publish in a live stream beside the host."""

    identity: str
    name: str | None = None
    role: UTDRole | None = None


@dataclass(frozen=True, slots=True)
class UTDHand:
    """A viewer who asked to come on stage."""

    identity: str
    name: str | None = None
    raised_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UTDStage:
    """The stage of a live stream, as the engine keeps it."""

    members: tuple[UTDStageMember, ...] = ()
    """In the order in which they came on."""
    hands: tuple[UTDHand, ...] | None = ()
    """Oldest first; None from an engine that keeps none."""
    version: int | None = None
    """Grows with every change in the room; None from an engine that sends none."""
    raw: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False, compare=False)
    """The engine's own words."""


@dataclass(frozen=True, slots=True)
class UTDSeat:
    """One seat of an audio room."""

    index: int
    """From 0; seat 0 is the host's."""
    identity: str | None = None
    """Who sits there; None where nobody does."""
    locked: bool = False
    """Nobody may sit there."""
    muted: bool = False
    """Whoever sits there was silenced by a moderator."""
    reserved_for: str | None = None
    """Only this identity may sit there."""
    name: str | None = None
    """The occupant's name."""
    attributes: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """The occupant's: avatar, frame and the like, as its application set them."""

    @property
    def occupant(self) -> str | None:
        """Who sits there: identity, or None."""
        return self.identity

    @property
    def is_empty(self) -> bool:
        """Whether nobody sits there, locked or not."""
        return self.identity is None


@dataclass(frozen=True, slots=True)
class UTDSpeakerRequest:
    """Somebody's request to speak, in request mode."""

    id: int
    identity: str
    created_at: datetime | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class UTDInvitation:
    """A moderator's invitation to sit."""

    id: int
    identity: str
    """Who is invited."""
    inviter: str | None = None
    seat_index: int | None = None
    """Which seat; None is any that is free."""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UTDSeatGrid:
    """All seats of an audio room at one moment, with who asks to speak and who is invited."""

    count: int = 0
    """How many seats; 0 before they are set up."""
    mode: UTDSeatMode = UTDSeatMode.FREE
    seats: tuple[UTDSeat, ...] = ()
    """By index."""
    requests: tuple[UTDSpeakerRequest, ...] = ()
    """Oldest first."""
    invitations: tuple[UTDInvitation, ...] = ()
    """The open ones, oldest first."""
    version: int | None = None
    """Grows with every change in the room; None from an engine that sends none."""
    mode_id: int | str | None = None
    """The application's own name for this arrangement of seats."""
    all_muted: bool = False
    """Whoever sits down is muted."""
    viewer: str | None = field(default=None, repr=False)
    """Whose view it is: `my_seat` and `free_seats` are about this identity."""
    raw: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False, compare=False)
    """The engine's own words."""

    @property
    def my_seat(self) -> int | None:
        """The index of my seat; None while I don't sit."""
        return None if self.viewer is None else self.seat_of(self.viewer)

    def seat_of(self, identity: str) -> int | None:
        """The index of somebody's seat; None while it doesn't sit."""
        return next((seat.index for seat in self.seats if seat.identity == identity), None)

    def free_seats(self) -> tuple[int, ...]:
        """The indexes of the seats I could sit on: empty, not locked, not reserved for somebody else."""
        return tuple(
            seat.index
            for seat in self.seats
            if seat.identity is None and not seat.locked and seat.reserved_for in (None, self.viewer)
        )

    def changed_since(self, before: UTDSeatGrid) -> tuple[int, ...]:
        """The indexes of the seats that differ from another grid's, seats that came or went included."""
        most = max(len(self.seats), len(before.seats))
        here, there = self.seats, before.seats
        return tuple(i for i in range(most) if i >= len(here) or i >= len(there) or here[i] != there[i])


@dataclass(frozen=True, slots=True)
class UTDBan:
    """One ban."""

    id: int | str
    identity: str
    name: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    room_name: str | None = None
    """None: everywhere."""
    reason: str | None = None
    banned_at: datetime | None = None
    expires_at: datetime | None = None
    """None: for good."""


@dataclass(frozen=True, slots=True)
class UTDBanPage:
    """One page of bans."""

    bans: tuple[UTDBan, ...]
    page: int
    per_page: int
    total: int
    total_pages: int


@dataclass(frozen=True, slots=True)
class UTDRoleChange:
    """Somebody's role changed."""

    identity: str
    role: UTDRole
    previous: UTDRole | None = None


@dataclass(frozen=True, slots=True)
class RoomState:
    """What the room's metadata say: the truth in realtime, since only the server can write it. Parts it lacks are None.

    Not public: sessions fold the parts into their Observables.
    """

    seats: UTDSeatGrid | None = None
    stage: UTDStage | None = None
    live: UTDBroadcast | None = None
    live_version: int | None = None
    comments_locked: bool | None = None
    comments_version: int | None = None
