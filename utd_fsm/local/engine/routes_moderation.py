"""The routes of moderation, in streams and audio rooms alike: participants, roles, bans, the comment lock.

Paths and fields are the wire contract's. No rule is decided here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from utd_fsm import room_wire as wire
from utd_fsm.models import UTDRole

from . import bodies, idempotency, room_bodies
from .asking import Asked, Keyed, TheEngine, answer_json
from .idempotency import Answer
from .media_api import MediaUnreachableError
from .refusal import Refused
from .room_asking import NO, Actor, look, verb
from .room_bodies import Room, Whom
from .rooms import entitled, is_muted, role
from .service import RoomDone

routes = APIRouter()

_DONE: Final[dict[int | str, dict[str, Any]]] = {200: {"model": room_bodies.Plain}, **NO}
_MAX_PAGE: Final = 1_000_000


# ------------------------------------------------------------------------------------------------------ participants


@routes.get(
    wire.PARTICIPANTS_BY_ROLE, tags=["participants"], responses={200: {"model": room_bodies.ByRole}, **NO},
    summary="Who has a role",
)  # fmt: skip
async def by_role(
    room: Room, engine: TheEngine, who: Asked, role: Annotated[UTDRole, Query()], key: Keyed = None
) -> JSONResponse:
    """Those in the room who have this role."""
    look(engine, who, key, room)
    rows = [{"identity": one, "role": role.value} for one in engine.rooms.by_role(room, role)]
    return answer_json(Answer(200, {"participants": rows}))


@routes.get(
    wire.PARTICIPANT, tags=["participants"], responses={200: {"model": room_bodies.Participant}, **NO},
    summary="Somebody in a room",
)  # fmt: skip
async def participant(room: Room, id: Whom, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """What the engine knows of somebody in this room; nobody is unknown, as long as it may come."""
    record = look(engine, who, key, room)
    place = engine.store.occupants(room).get(id)
    content = {
        "identity": id,
        "role": role(record, id).value,
        "connected": place is not None and place.dropped_at is None,
        "may_publish": entitled(record, id),
        "seat_index": record.seat_of(id),
        "muted": is_muted(record, id),
        "on_stage": record.is_on_stage(id),
    }
    return answer_json(Answer(200, content))


@routes.delete(wire.PARTICIPANT, tags=["participants"], responses=_DONE, summary="Put somebody out")
async def kick_out(
    room: Room, id: Whom, engine: TheEngine, who: Asked, identity: Actor = None, body: bodies.ByIdentity | None = None,
    key: Keyed = None,
) -> JSONResponse:  # fmt: skip
    """A moderator puts somebody out of the room. It may come back: this is no ban."""
    return verb(engine, who, key, f"DELETE {wire.PARTICIPANT} {id}", room, body.identity if body else identity, body,
                lambda actor: engine.rooms.kick_out(room, actor, id))  # fmt: skip


@routes.put(wire.PARTICIPANT_MUTE, tags=["participants"], responses=_DONE, summary="Silence somebody's tracks")
async def mute(room: Room, id: Whom, body: room_bodies.MuteParticipant, engine: TheEngine, who: Asked) -> JSONResponse:
    """A moderator mutes what somebody publishes now, at the media server. Only its own client unmutes: with
    `muted: false` nothing is sent."""
    actor = who.must_be(body.identity)
    engine.rooms.check_ban(actor, room)
    engine.rooms.may_mute(room, actor, id)
    if body.muted:
        try:
            await engine.room_books.mute(room, id, audio=body.audio, video=body.video)
        except MediaUnreachableError:
            raise Refused(503, "the media server cannot be asked now; try again", "media_unreachable") from None
    content = {"identity": id, "audio": body.audio, "video": body.video, "muted": body.muted}
    return answer_json(Answer(200, content))


@routes.put(
    wire.PARTICIPANT_ROLE, tags=["participants"], responses={200: {"model": room_bodies.RoleChange}, **NO},
    summary="Give a role",
)  # fmt: skip
async def set_role(
    room: Room, id: Whom, body: room_bodies.SetRole, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """The owner gives somebody a role, in the room or not; 409 `already_in_role`. Nobody is made host."""
    return verb(engine, who, key, f"{wire.PARTICIPANT_ROLE} {id}", room, body.actor_identity, body,
                lambda actor: engine.rooms.set_role(room, actor, id, body.role))  # fmt: skip


@routes.put(
    wire.COMMENTS, tags=["participants"], responses={200: {"model": room_bodies.Comments}, **NO},
    summary="Lock the comments (ours)",
)  # fmt: skip
async def lock_comments(
    room: Room, body: room_bodies.LockComments, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """A moderator says whether others may comment."""
    return verb(engine, who, key, wire.COMMENTS, room, body.identity, body,
                lambda actor: engine.rooms.lock_comments(room, actor, body.locked))  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- bans


@routes.post(wire.BAN, tags=["bans"], responses={200: {"model": room_bodies.BanRow}, **NO}, summary="Ban somebody")
async def ban(body: room_bodies.Ban, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """From one room, by its moderators; without a room from everywhere, by the owner of one or the application's
    backend. Whoever is there loses seat and stage, is told `_banned`, and is removed; it gets no token, and 403
    `banned` from every route of the room."""

    def ruled() -> RoomDone:
        if who.identity is not None:
            engine.rooms.check_ban(who.identity, body.room_name)
        changed, row = engine.rooms.ban(who.identity, body.identity, body.room_name, body.reason, body.duration)
        return RoomDone(Answer(200, wire.ban_json(row)), tuple(changed))

    content = body.model_dump(mode="json", exclude_none=True)
    return answer_json(
        engine.run_room(who.identity or "", idempotency.parse(key) if who.identity else None, wire.BAN, content, ruled)
    )


@routes.delete(wire.BAN, tags=["bans"], responses={200: {"model": room_bodies.BanRow}, **NO}, summary="Lift a ban")
async def unban(
    engine: TheEngine, who: Asked, body: room_bodies.LiftBan | None = None,
    identity: Annotated[bodies.Identity | None, Query(description="Whose, for a client that sends no body.")] = None,
    room_name: Annotated[bodies.RoomName | None, Query()] = None, key: Keyed = None,
) -> JSONResponse:  # fmt: skip
    """The ban from this room, or without one the one from everywhere; 404 `not_banned`."""
    target = body.identity if body else identity
    room = body.room_name if body else room_name
    if target is None:
        raise Refused(422, "identity: is required", "validation")

    def ruled() -> RoomDone:
        if who.identity is not None:
            engine.rooms.check_ban(who.identity, room)
        return RoomDone(Answer(200, wire.ban_json(engine.rooms.unban(who.identity, target, room))), ())

    content = {"identity": target, "room_name": room}
    parsed = idempotency.parse(key) if who.identity else None
    return answer_json(engine.run_room(who.identity or "", parsed, f"DELETE {wire.BAN}", content, ruled))


@routes.get(wire.BANS, tags=["bans"], responses={200: {"model": room_bodies.BanPage}, **NO}, summary="List bans")
async def bans(
    engine: TheEngine, who: Asked,
    room_name: Annotated[bodies.RoomName | None, Query(description="Of this room only.")] = None,
    page: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 1,
    per_page: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JSONResponse:  # fmt: skip
    """The bans that are in force, newest first, for moderators of the room and the application's backend."""
    if who.identity is not None:
        engine.rooms.check_ban(who.identity, room_name)
    rows, total = engine.rooms.bans(who.identity, room_name, page, per_page)
    pages = {"page": page, "per_page": per_page, "total": total, "total_pages": -(-total // per_page)}
    return answer_json(Answer(200, {"data": [wire.ban_json(row) for row in rows], "pagination": pages}))
