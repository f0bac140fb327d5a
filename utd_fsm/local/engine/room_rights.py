"""Who may act in a room, and on whom: what the rules of seats, stage and moderation ask first. Pure.

All raise `Refused`, 403, and say who may instead.
"""

from __future__ import annotations

from typing import Final

from utd_fsm.room_wire import is_moderator

from .refusal import Refused
from .room_state import RoomRecord, role

NOT_MODERATOR: Final = "not_moderator"
NOT_OWNER: Final = "not_owner"
NOT_ON_HOST: Final = "not_on_host"
NOT_SELF: Final = "not_self"


def must_moderate(room: RoomRecord, actor: str) -> None:
    """The host and its admins."""
    if not is_moderator(role(room, actor)):
        raise Refused(403, "only the host and the admins of this room may do that", NOT_MODERATOR)


def must_own(room: RoomRecord, actor: str, what: str) -> None:
    """The host."""
    if actor != room.owner:
        raise Refused(403, f"only the host of this room can {what}", NOT_OWNER)


def must_not_serve_itself(actor: str, target: str) -> None:
    """An admin moderates; a camera or a microphone of its own it asks for, as anybody does."""
    if actor == target:
        raise Refused(403, "nobody takes itself on stage; raise a hand, and the host decides", NOT_SELF)


def must_spare_host(room: RoomRecord, actor: str | None, target: str | None) -> None:
    """Nobody acts on the host but the host itself."""
    if target is not None and target == room.owner and actor != target:
        raise Refused(403, "nobody may do that to the host of this room", NOT_ON_HOST)
