"""Every verb about a live stream or an audio room: who may do it, what it changes, who is told.

`Rooms` is what routes and the media books use. A verb works on a copy; it is refused and nothing has changed, or it is
saved whole, and the room's version has grown by one. No request, token, timer or socket is known here. The caller of
everything here holds the store's transaction, and tells (`Changed.notes`, `Changed.removed`) only after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_models import UTDBan

from .room_state import (
    RoomRecord,
    comments_of,
    entitled,
    is_muted,
    live_of,
    metadata,
    participant_metadata,
    role,
    seats_of,
    stage_of,
)
from .store import Store

__all__ = [
    "Changed",
    "Note",
    "RoomRecord",
    "Rooms",
    "comments_of",
    "entitled",
    "is_muted",
    "live_of",
    "metadata",
    "participant_metadata",
    "role",
    "seats_of",
    "stage_of",
]


@dataclass(frozen=True, slots=True)
class Note:
    """One data message to be sent after the commit: a hint, never the truth."""

    kind: str
    """Its type: ``_seat_update`` and the like (`room_wire`)."""
    content: Mapping[str, Any]
    """Without the type."""
    to: tuple[str, ...] | None = None
    """Identities; None is all. Never empty: a note to nobody isn't made."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A room after a verb."""

    room: RoomRecord
    """As it is kept now. To be read only."""
    answer: dict[str, Any]
    """What the route answers with 200."""
    changed: bool
    """Whether there is a new version. Notes and removals count even where there is none (a kicked listener)."""
    notes: tuple[Note, ...] = ()
    removed: tuple[str, ...] = ()
    """Who is put out of the media room, after the notes."""


def _now() -> datetime:
    return datetime.now(UTC)


class Rooms:
    """The records of all streams and audio rooms.

    All raise `Refused`: 404 ``not_found``, 409 ``other_type``, and what the rules of the verb say.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime] = _now) -> None:
        self._store = store
        self._now = now

    # --- reading

    def find(self, name: str) -> RoomRecord | None:
        raise NotImplementedError

    def get(self, name: str, type: UTDStreamType | None = None) -> RoomRecord:
        raise NotImplementedError

    def names(self) -> list[str]:
        """All rooms there ever were."""
        raise NotImplementedError

    def by_role(self, name: str, wanted: UTDRole) -> list[str]:
        """Who is in the media room (by the occupants) with this role."""
        raise NotImplementedError

    # --- coming in

    def enter(
        self,
        name: str,
        type: UTDStreamType,
        identity: str,
        *,
        claims_host: bool,
        owner_id: str | None,
        display: str | None,
        attributes: Mapping[str, Any],
        seat_count: int | None = None,
        seat_mode: UTDSeatMode | None = None,
        host_seat: int | None = None,
        mode_id: int | str | None = None,
    ) -> Changed:
        """POST /token. Answer: ``{"role": …}``. Refuses whoever is banned."""
        raise NotImplementedError

    # --- stage

    def ask(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def lower(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def step_down(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def add(self, name: str, actor: str, target: str) -> Changed:
        raise NotImplementedError

    def remove(self, name: str, actor: str, target: str) -> Changed:
        raise NotImplementedError

    def start_live(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def end_live(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    # --- seats

    def setup(
        self, name: str, actor: str, count: int | None, mode: UTDSeatMode | None, mode_id: int | str | None
    ) -> Changed:
        raise NotImplementedError

    def take(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def leave(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def move(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def kick(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def lock(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def unlock(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def mute(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def unmute(self, name: str, actor: str, index: int) -> Changed:
        raise NotImplementedError

    def swap(self, name: str, actor: str, a: int, b: int) -> Changed:
        raise NotImplementedError

    def mute_all(self, name: str, actor: str, muted: bool) -> Changed:
        raise NotImplementedError

    # --- speakers

    def request(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def cancel(self, name: str, actor: str) -> Changed:
        raise NotImplementedError

    def approve(self, name: str, actor: str, request_id: int) -> Changed:
        raise NotImplementedError

    def reject(self, name: str, actor: str, request_id: int) -> Changed:
        raise NotImplementedError

    def invite(self, name: str, actor: str, target: str, seat_index: int | None) -> Changed:
        raise NotImplementedError

    def accept(self, name: str, actor: str, invitation_id: int) -> Changed:
        raise NotImplementedError

    def decline(self, name: str, actor: str, invitation_id: int) -> Changed:
        raise NotImplementedError

    # --- moderation

    def set_role(self, name: str, actor: str, target: str, role: UTDRole) -> Changed:
        raise NotImplementedError

    def lock_comments(self, name: str, actor: str, locked: bool) -> Changed:
        raise NotImplementedError

    def kick_out(self, name: str, actor: str, target: str) -> Changed:
        raise NotImplementedError

    def may_mute(self, name: str, actor: str, target: str) -> RoomRecord:
        """The room, if `actor` may mute the tracks of `target` there."""
        raise NotImplementedError

    def ban(
        self, actor: str | None, identity: str, room_name: str | None, reason: str | None, duration: float | None
    ) -> tuple[list[Changed], UTDBan]:
        """`actor` None is the backend. One `Changed` for each room that `identity` was ever in (with `removed`)."""
        raise NotImplementedError

    def unban(self, actor: str | None, identity: str, room_name: str | None) -> UTDBan:
        """The ban that was lifted. Refused: 404 ``not_banned``."""
        raise NotImplementedError

    def bans(self, actor: str | None, room_name: str | None, page: int, per_page: int) -> tuple[list[UTDBan], int]:
        """One page, newest first, and how many there are in all."""
        raise NotImplementedError

    def check_ban(self, identity: str, room: str | None) -> None:
        """Refused: 403 ``banned`` with details reason, expires_at, room_name. `room` None: only bans everywhere."""
        raise NotImplementedError

    # --- the engine itself; nothing (changed False) where it is no longer so

    def gone(self, name: str, identity: str) -> Changed:
        raise NotImplementedError

    def host_away(self, name: str) -> Changed:
        raise NotImplementedError

    def host_back(self, name: str) -> Changed:
        raise NotImplementedError

    def live_over(self, name: str) -> Changed:
        raise NotImplementedError
