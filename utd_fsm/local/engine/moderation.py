"""The rules of roles, the comment lock, putting somebody out, and bans. Pure: works on the caller's copy of the record.

Whoever is put out, or banned, loses seat, request, invitation, stage and hand in the same commit.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final

from utd_fsm import room_wire
from utd_fsm.models import UTDRole
from utd_fsm.room_models import UTDBan

from . import seat_rules, stage_rules
from .refusal import Refused
from .room_rights import NOT_ON_HOST, must_moderate, must_own, must_spare_host
from .room_state import Note, RoomRecord, Said, role

KICKED: Final = "kicked"
"""The reason in ``_kicked``."""
TARGET_BANNED: Final = "target_banned"
"""403: whom one acts on is banned. Not ``banned``, which tells the asker that it is banned itself."""
LONGEST_BAN: Final = 10 * 366 * 86_400.0
"""Seconds; whoever wants more gives no duration."""


def clear(room: RoomRecord, identity: str) -> Said:
    """Somebody is gone for good."""
    seat_rules.clear(room, identity)
    stage_rules.clear(room, identity)
    return Said()


def set_role(room: RoomRecord, actor: str, target: str, wanted: UTDRole) -> Said:
    """The owner gives somebody a role."""
    must_own(room, actor, "give roles")
    if wanted is UTDRole.HOST:
        raise Refused(422, "role: a room has one host, its owner; give visitor, audience, guest or admin", "validation")
    if target == room.owner:
        raise Refused(403, "the host of this room is its host, always", NOT_ON_HOST)
    before = role(room, target)
    if before is wanted:
        raise Refused(409, f"is {wanted.value} already", room_wire.ALREADY_IN_ROLE)
    room.roles.pop(target, None)
    if wanted is not UTDRole.AUDIENCE:
        room.roles[target] = wanted
    told = {"identity": target, "role": wanted.value, "previous_role": before.value}
    return Said(told, (Note(room_wire.ROLE_CHANGE, told),))


def lock_comments(room: RoomRecord, actor: str, locked: bool) -> Said:
    """A moderator closes the chat, or opens it."""
    must_moderate(room, actor)
    news = room.comments_locked is not locked
    room.comments_locked = locked
    return Said(notes=(Note(room_wire.COMMENT_LOCK, {"locked": locked}),) if news else ())


def may_act_on(room: RoomRecord, actor: str, target: str) -> None:
    """A moderator, on anybody; on the host only the host itself.

    Raises: Refused: 403.
    """
    must_moderate(room, actor)
    must_spare_host(room, actor, target)


def kick_out(room: RoomRecord, actor: str, target: str) -> Said:
    """A moderator puts somebody out; it may come back."""
    may_act_on(room, actor, target)
    clear(room, target)
    told = {"room_name": room.name, "reason": KICKED}
    return Said({"identity": target}, (Note(room_wire.USER_KICKED, told, (target,)),), (target,))


def may_ban(room: RoomRecord, target: str) -> None:
    """Anybody but the host of the room.

    Raises: Refused: 403.
    """
    must_spare_host(room, None, target)


def expiry(now: datetime, duration: float | None) -> datetime | None:
    """When a ban is over; None: never.

    Raises: Refused: 422.
    """
    if duration is None:
        return None
    if not math.isfinite(duration) or not 0 < duration <= LONGEST_BAN:
        raise Refused(422, f"duration: must be more than 0 and at most {LONGEST_BAN:.0f} seconds", "validation")
    return now + timedelta(seconds=duration)


def banned_from(room: RoomRecord, ban: UTDBan) -> Said:
    """What a ban does in one room."""
    clear(room, ban.identity)
    row = room_wire.ban_json(ban)
    told = {name: row[name] for name in ("room_name", "reason", "expires_at")}
    return Said(row, (Note(room_wire.USER_BANNED, told, (ban.identity,)),), (ban.identity,))


def banned(ban: UTDBan) -> Refused:
    """The refusal of whatever a banned one asks for."""
    where = "everywhere" if ban.room_name is None else "from this room"
    until = "for good" if ban.expires_at is None else f"until {ban.expires_at.isoformat()}"
    row = room_wire.ban_json(ban)
    details = {name: row[name] for name in ("room_name", "reason", "expires_at")}
    return Refused(403, f"User is banned {where}, {until}", room_wire.BANNED, details=details)
