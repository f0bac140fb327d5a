"""The wire of live streams and audio rooms: routes, field names, JSON to models, models to JSON.

The rules of `wire` hold: readers are tolerant of what they don't know, accept both spellings, and refuse what is
malformed with route and field. A seat is spelt one way in room metadata and another by ``GET seats`` (wire contract).
What is marked *ours* has no public source. Pure: no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from .models import ReadOnlyDict, UTDRole, UTDSeatMode
from .room_models import (
    RoomState,
    UTDBan,
    UTDBanPage,
    UTDBroadcast,
    UTDHand,
    UTDInvitation,
    UTDRoleChange,
    UTDSeat,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStage,
    UTDStageMember,
)
from .wire import IDENTITY_ALIASES, Reader, malformed

E = TypeVar("E", UTDRole, UTDSeatMode, UTDBroadcast)

# --- routes below the prefix; {room}, {id} and {index} are URL-encoded by the sender
STAGE = "/rooms/{room}/stage"
STAGE_ADD = "/rooms/{room}/stage/add"
STAGE_REMOVE = "/rooms/{room}/stage/remove"
STAGE_REQUEST = "/rooms/{room}/stage/request"  # DELETE lowers the hand (ours)
STAGE_LEAVE = "/rooms/{room}/stage/leave"
LIVE_START = "/rooms/{room}/live/start"  # ours
LIVE_END = "/rooms/{room}/live/end"  # ours
SEATS = "/rooms/{room}/seats"
SEATS_SETUP = "/rooms/{room}/seats/setup"
SEATS_LEAVE = "/rooms/{room}/seats/leave"
SEATS_MOVE = "/rooms/{room}/seats/move"
SEATS_SWAP = "/rooms/{room}/seats/swap"  # ours
SEATS_MUTE_ALL = "/rooms/{room}/seats/mute-all"  # ours
SEAT_TAKE = "/rooms/{room}/seats/{index}/take"
SEAT_KICK = "/rooms/{room}/seats/{index}/kick"
SEAT_LOCK = "/rooms/{room}/seats/{index}/lock"
SEAT_UNLOCK = "/rooms/{room}/seats/{index}/unlock"
SEAT_MUTE = "/rooms/{room}/seats/{index}/mute"
SEAT_UNMUTE = "/rooms/{room}/seats/{index}/unmute"
SPEAKERS_REQUEST = "/rooms/{room}/speakers/request"  # DELETE takes it back
SPEAKERS_REQUESTS = "/rooms/{room}/speakers/requests"
SPEAKER_APPROVE = "/rooms/{room}/speakers/requests/{id}/approve"
SPEAKER_REJECT = "/rooms/{room}/speakers/requests/{id}/reject"
SPEAKER_INVITE = "/rooms/{room}/speakers/invite"
INVITATION_ACCEPT = "/rooms/{room}/speakers/invitations/{id}/accept"
INVITATION_DECLINE = "/rooms/{room}/speakers/invitations/{id}/decline"
PARTICIPANT = "/rooms/{room}/participants/{id}"
PARTICIPANT_MUTE = "/rooms/{room}/participants/{id}/mute"
PARTICIPANT_ROLE = "/rooms/{room}/participants/{id}/role"
PARTICIPANTS_BY_ROLE = "/rooms/{room}/participants/by-role"
BAN = "/rooms/ban"  # DELETE lifts it
BANS = "/rooms/bans"
COMMENTS = "/rooms/{room}/comments"  # ours

# --- room metadata: one JSON object, written by the engine only
META_SEATS = "_seats"
META_STAGE = "_stage"  # ours
META_LIVE = "_live"  # ours
META_COMMENTS = "_comments_locked"  # ours

# --- participant metadata, written by the engine only
META_ROLE = "role"
META_VIDEO_EFFECTS = "videoEffects"

# --- answers
GRID = "grid"  # ours: the whole state after the verb, in the answer to a verb about seats or speakers
BANNED = "banned"  # the code of a 403 to somebody who is banned (ours; the message says so, too)
ALREADY_IN_ROLE = "already_in_role"  # 409 (ours)

# --- data messages of the engine's types
SEAT_UPDATE = "_seat_update"
MODE_CHANGE = "_mode_change"
SPEAKER_REQUEST = "_speaker_request"
SPEAKER_REQUEST_APPROVED = "_speaker_request_approved"
SPEAKER_REQUEST_REJECTED = "_speaker_request_rejected"
SPEAKER_INVITATION = "_speaker_invitation"
SPEAKER_INVITATION_ACCEPTED = "_speaker_invitation_accepted"
SPEAKER_INVITATION_DECLINED = "_speaker_invitation_declined"
ROLE_CHANGE = "_role_change"
USER_BANNED = "_banned"
USER_KICKED = "_kicked"
STAGE_REQUESTED = "_stage_request"
STAGE_UPDATE = "_stage_update"  # ours
LIVE_ENDED = "_live_ended"
COMMENT_LOCK = "_comment_lock"  # ours

MAX_SEATS: Final = 100
MODERATORS: Final = frozenset((UTDRole.ADMIN, UTDRole.HOST))


def is_moderator(role: UTDRole | None) -> bool:
    """Whether this role may act on others."""
    return role in MODERATORS


def _enum(reader: Reader, kind: type[E], *names: str) -> E | None:
    value = reader.text_or_none(*names)
    if value is None:
        return None
    try:
        return kind(value.lower())
    except ValueError:
        malformed(reader.route, f"{reader.where}.{names[0]}".lstrip("."), f"unknown value {value[:40]!r}")


def _rows(reader: Reader, name: str) -> list[tuple[Any, str]]:
    """The rows of a list, each with where it stands; a list that is missing is empty."""
    rows = reader.data.get(name)
    if rows is None:
        return []
    if not isinstance(rows, list):
        malformed(reader.route, name, "expected a list")
    return [(row, f"{name}[{i}]") for i, row in enumerate(rows)]


def _moment(value: datetime | None) -> str | None:
    return value.astimezone(UTC).isoformat() if value else None


# ------------------------------------------------------------------------------------------------------------ seats


def _seat(data: object, route: str, where: str) -> UTDSeat:
    r = Reader(data, route, where)
    index = r.integer("index", "seat_index")
    if index is None or index < 0:
        malformed(route, f"{where}.index", "missing or negative")
    attributes = r.object("attributes")
    name = r.text_or_none("name") or attributes.get("name")
    # By position, in the order of the fields: a grid has a hundred, and names cost a third more.
    return UTDSeat(
        index,
        r.text_or_none(*IDENTITY_ALIASES) or None,
        bool(r.flag("locked")),
        bool(r.flag("muted")),
        r.text_or_none("reserved_for") or None,
        name if isinstance(name, str) else None,
        attributes,
    )


def _whole_number(reader: Reader, *names: str) -> int:
    value = reader.integer(*names)
    if value is None:
        malformed(reader.route, f"{reader.where}.{names[0]}", "missing")
    return value


def _request(data: object, route: str, where: str) -> UTDSpeakerRequest:
    r = Reader(data, route, where)
    return UTDSpeakerRequest(
        id=_whole_number(r, "id", "request_id"),
        identity=r.text(*IDENTITY_ALIASES),
        created_at=r.moment("created_at"),
        name=r.text_or_none("name"),
    )


def read_requests(data: object, route: str) -> tuple[UTDSpeakerRequest, ...]:
    """``GET speakers/requests``: ``{"requests": […]}`` or ``{"data": […]}``, oldest first."""
    r = Reader(data, route)
    name = "requests" if "requests" in r.data else "data"
    return tuple(_request(row, route, where) for row, where in _rows(r, name))


def _invitation(data: object, route: str, where: str) -> UTDInvitation:
    r = Reader(data, route, where)
    return UTDInvitation(
        id=_whole_number(r, "id", "invitation_id"),
        identity=r.text("target_identity", *IDENTITY_ALIASES),
        inviter=r.text_or_none("inviter_identity"),
        seat_index=r.integer("seat_index"),
        created_at=r.moment("created_at"),
    )


def read_seats(data: object, route: str, *, viewer: str | None = None) -> UTDSeatGrid:
    """The whole grid, in either spelling. A seat that is not listed is free; one beyond the count is malformed."""
    r = Reader(data, route)
    listed = [_seat(row, route, where) for row, where in _rows(r, "seats")]
    count = r.integer("count", "seat_count")
    if count is None:
        count = len(listed)
    if not 0 <= count <= MAX_SEATS:
        malformed(route, "count", f"not within 0 and {MAX_SEATS}")
    by_index = {seat.index: seat for seat in listed}
    if len(by_index) != len(listed) or any(index >= count for index in by_index):
        malformed(route, "seats", "an index twice, or beyond the count")
    sitting = [seat.identity for seat in listed if seat.identity is not None]
    if len(set(sitting)) != len(sitting):
        malformed(route, "seats", "one identity on two seats")
    mode_id = r.data.get("mode_id")
    return UTDSeatGrid(
        count=count,
        mode=_enum(r, UTDSeatMode, "mode", "seat_mode") or UTDSeatMode.FREE,
        seats=tuple(by_index.get(index) or UTDSeat(index) for index in range(count)),
        requests=tuple(_request(row, route, where) for row, where in _rows(r, "requests")),
        invitations=tuple(_invitation(row, route, where) for row, where in _rows(r, "invitations")),
        version=r.integer("version"),
        mode_id=mode_id if isinstance(mode_id, str | int) and not isinstance(mode_id, bool) else None,
        all_muted=bool(r.flag("all_muted")),
        viewer=viewer,
        raw=ReadOnlyDict(r.data),
    )


def seats_json(grid: UTDSeatGrid, *, realtime: bool) -> dict[str, Any]:
    """The inverse of `read_seats`: as room metadata spell it, or as ``GET seats`` does."""
    count, mode, index, identity = (
        ("count", "mode", "index", "identity") if realtime else ("seat_count", "seat_mode", "seat_index",
                                                                 "occupant_identity")
    )  # fmt: skip

    def seat(one: UTDSeat) -> dict[str, Any]:
        row: dict[str, Any] = {index: one.index, identity: one.identity}
        row["locked"] = one.locked if realtime else int(one.locked)
        row["reserved_for"] = one.reserved_for
        if one.name is not None or not realtime:
            row["name"] = one.name
        if one.muted or not realtime:
            row["muted"] = one.muted
        if one.attributes or not realtime:
            row["attributes"] = dict(one.attributes)
        return row

    return {
        count: grid.count,
        mode: grid.mode.value,
        "mode_id": grid.mode_id,
        "seats": [seat(one) for one in grid.seats],
        "requests": [request_json(one) for one in grid.requests],
        "invitations": [invitation_json(one) for one in grid.invitations],  # ours
        "all_muted": grid.all_muted,  # ours
        "version": grid.version,
    }


def request_json(one: UTDSpeakerRequest) -> dict[str, Any]:
    """One request to speak."""
    row = {"id": one.id, "identity": one.identity, "created_at": _moment(one.created_at)}
    return row if one.name is None else {**row, "name": one.name}


def invitation_json(one: UTDInvitation) -> dict[str, Any]:
    """One open invitation (ours)."""
    return {
        "id": one.id,
        "identity": one.identity,
        "inviter_identity": one.inviter,
        "seat_index": one.seat_index,
        "created_at": _moment(one.created_at),
    }


def read_grid(data: object, route: str, *, viewer: str | None = None) -> UTDSeatGrid | None:
    """The state after a verb, where the engine answers it (ours); None where it does not."""
    r = Reader(data, route)
    grid = r.data.get(GRID)
    return None if grid is None else read_seats(grid, route, viewer=viewer)


# ------------------------------------------------------------------------------------------------------------ stage


def _member(data: object, route: str, where: str) -> UTDStageMember:
    r = Reader(data, route, where)
    return UTDStageMember(r.text(*IDENTITY_ALIASES), r.text_or_none("name"), _enum(r, UTDRole, "role"))


def _hand(data: object, route: str, where: str) -> UTDHand:
    r = Reader(data, route, where)
    return UTDHand(r.text(*IDENTITY_ALIASES), r.text_or_none("name"), r.moment("raised_at"))


def read_stage(data: object, route: str) -> UTDStage:
    """``GET stage``, and room metadata ``_stage``. Hands are None where the engine keeps none."""
    r = Reader(data, route)
    hands = None if r.data.get("hands") is None else tuple(_hand(row, route, w) for row, w in _rows(r, "hands"))
    if "stage" not in r.data:
        malformed(route, "stage", "missing")
    return UTDStage(
        members=tuple(_member(row, route, where) for row, where in _rows(r, "stage")),
        hands=hands,
        version=r.integer("version"),
        raw=ReadOnlyDict(r.data),
    )


def stage_json(stage: UTDStage) -> dict[str, Any]:
    """The inverse of `read_stage`."""
    content: dict[str, Any] = {
        "stage": [
            {"identity": one.identity, "name": one.name, "role": one.role.value if one.role else None}
            for one in stage.members
        ],
        "version": stage.version,
    }
    if stage.hands is not None:
        content["hands"] = [
            {"identity": one.identity, "name": one.name, "raised_at": _moment(one.raised_at)} for one in stage.hands
        ]
    return content


def has_stage(data: object) -> bool:
    """Whether an answer about the stage holds the stage (ours), or only says that it was done."""
    return isinstance(data, Mapping) and isinstance(data.get("stage"), list)


def read_live(data: object, route: str) -> tuple[UTDBroadcast | None, int | None]:
    """``_live`` and the answers of ``live/start`` and ``live/end`` (ours): state and version."""
    r = Reader(data, route)
    return _enum(r, UTDBroadcast, "state"), r.integer("version")


def live_json(state: UTDBroadcast, version: int) -> dict[str, Any]:
    """The inverse of `read_live`."""
    return {"state": state.value, "version": version}


# --------------------------------------------------------------------------------------------- the room's metadata


def read_room_state(metadata: str, *, viewer: str | None = None) -> RoomState:
    """Room metadata. Empty, and what isn't a JSON object, says nothing; a part that is malformed is refused.

    Raises:
        UTDProtocolError: a part the engine writes is malformed.
    """
    route = "room metadata"
    if not metadata:
        return RoomState()
    try:
        content = json.loads(metadata)
    except (ValueError, RecursionError):
        malformed(route, "body", "not JSON")
    if not isinstance(content, Mapping):
        return RoomState()
    seats, stage, live, comments = (content.get(name) for name in (META_SEATS, META_STAGE, META_LIVE, META_COMMENTS))
    state, live_version = (None, None) if live is None else read_live(live, f"{route} {META_LIVE}")
    locked, comments_version = (None, None) if comments is None else read_comments(comments, f"{route} {META_COMMENTS}")
    return RoomState(
        seats=None if seats is None else read_seats(seats, f"{route} {META_SEATS}", viewer=viewer),
        stage=None if stage is None else read_stage(stage, f"{route} {META_STAGE}"),
        live=state,
        live_version=live_version,
        comments_locked=locked,
        comments_version=comments_version,
    )


def read_comments(data: object, route: str) -> tuple[bool | None, int | None]:
    """The comment lock (ours): ``{locked, version}``, or a bare boolean."""
    if isinstance(data, bool):
        return data, None
    r = Reader(data, route)
    return r.flag("locked"), r.integer("version")


def comments_json(locked: bool, version: int) -> dict[str, Any]:
    """The inverse of `read_comments`."""
    return {"locked": locked, "version": version}


def _claims(metadata: str) -> Mapping[str, Any]:
    try:
        content = json.loads(metadata) if metadata else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}


def role_of(metadata: str) -> UTDRole | None:
    """The role in a participant's metadata; None where there is none that is known. Never raises."""
    value = _claims(metadata).get(META_ROLE)
    return UTDRole(value) if isinstance(value, str) and value in tuple(UTDRole) else None


def is_unreadable(metadata: str) -> bool:
    """Whether a participant's metadata is nothing the engine writes, and so says nothing: what was known holds.

    Empty metadata, and metadata without a role, do say something: nobody gave a role. Never raises.
    """
    try:
        content = json.loads(metadata) if metadata else {}
    except (ValueError, RecursionError):
        return True
    return not isinstance(content, Mapping) or (
        content.get(META_ROLE) is not None and content[META_ROLE] not in tuple(UTDRole)
    )


def may_have_video_effects(metadata: str) -> bool:
    """The ``videoEffects`` claim in a participant's metadata. Never raises."""
    return _claims(metadata).get(META_VIDEO_EFFECTS) is True


# ---------------------------------------------------------------------------------------------- roles, bans, people


def read_role(data: object, route: str) -> UTDRoleChange:
    """The answer to ``PUT …/role``, and ``_role_change``."""
    r = Reader(data, route)
    role = _enum(r, UTDRole, "role")
    if role is None:
        malformed(route, "role", "missing")
    return UTDRoleChange(r.text(*IDENTITY_ALIASES), role, _enum(r, UTDRole, "previous_role"))


def read_identities(data: object, route: str) -> tuple[str, ...]:
    """``GET participants/by-role``: ``{"participants": […]}`` or ``{"data": […]}``."""
    r = Reader(data, route)
    name = "participants" if "participants" in r.data else "data"
    return tuple(Reader(row, route, where).text(*IDENTITY_ALIASES) for row, where in _rows(r, name))


def _ban(data: object, route: str, where: str = "") -> UTDBan:
    r = Reader(data, route, where)
    number = r.data.get("id")
    if not isinstance(number, str | int) or isinstance(number, bool):
        malformed(route, f"{where}.id".lstrip("."), "missing or of a wrong type")
    return UTDBan(
        id=number,
        identity=r.text(*IDENTITY_ALIASES),
        name=r.text_or_none("name"),
        attributes=r.object("attributes"),
        room_name=r.text_or_none("room_name"),
        reason=r.text_or_none("reason"),
        banned_at=r.moment("banned_at"),
        expires_at=r.moment("expires_at"),
    )


def read_ban(data: object, route: str) -> UTDBan:
    """The answer to ``POST ban``."""
    return _ban(data, route)


def read_ban_page(data: object, route: str) -> UTDBanPage:
    """``GET bans``: ``{data, pagination}``."""
    r = Reader(data, route)
    if not isinstance(r.data.get("data"), list):
        malformed(route, "data", "expected a list")
    rows = _rows(r, "data")
    p = Reader(r.data.get("pagination") or {}, route, "pagination")
    return UTDBanPage(
        bans=tuple(_ban(row, route, where) for row, where in rows),
        page=p.integer("page") or 1,
        per_page=p.integer("per_page") or max(len(rows), 1),
        total=p.integer("total") or len(rows),
        total_pages=p.integer("total_pages") or 1,
    )


def ban_json(ban: UTDBan) -> dict[str, Any]:
    """The inverse of `read_ban`."""
    return {
        "id": ban.id,
        "identity": ban.identity,
        "name": ban.name,
        "attributes": dict(ban.attributes) or None,
        "room_name": ban.room_name,
        "reason": ban.reason,
        "banned_at": _moment(ban.banned_at),
        "expires_at": _moment(ban.expires_at),
    }


def message_json(kind: str, content: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> bytes:
    """A data message of an engine type, as bytes."""
    return json.dumps({"type": kind, **dict(content)}, ensure_ascii=False, separators=(",", ":")).encode()
