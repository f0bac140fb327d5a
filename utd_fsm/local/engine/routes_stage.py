"""The routes of a live stream: stage, raised hands, on air and off. Paths and fields are the wire contract's.

No rule of a stage is decided here.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from utd_fsm import room_wire as wire
from utd_fsm.models import UTDStreamType

from . import bodies, room_bodies
from .asking import Asked, Keyed, TheEngine, answer_json
from .idempotency import Answer
from .room_asking import NO, Actor, of_type, verb
from .room_bodies import Room
from .rooms import stage_of

routes = APIRouter(tags=["stage"])

_STAGE = {200: {"model": room_bodies.Stage}, **NO}
_LIVE = {200: {"model": room_bodies.Live}, **NO}


@routes.get(wire.STAGE, responses=_STAGE, summary="Who is on stage")
async def stage(room: Room, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The stage and the raised hands, for anybody who isn't banned."""
    record = of_type(engine, who, key, room, UTDStreamType.LIVE_STREAM)
    return answer_json(Answer(200, wire.stage_json(stage_of(record))))


@routes.post(wire.STAGE_ADD, responses=_STAGE, summary="Bring on stage")
async def add(room: Room, body: room_bodies.Target, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The host or an admin brings somebody on stage, who may publish from now on."""
    return verb(engine, who, key, wire.STAGE_ADD, room, body.identity, body,
                lambda actor: engine.rooms.add(room, actor, body.target_identity))  # fmt: skip


@routes.post(wire.STAGE_REMOVE, responses=_STAGE, summary="Take off the stage")
async def remove(
    room: Room, body: room_bodies.Target, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """The host or an admin takes somebody off the stage, who may no longer publish."""
    return verb(engine, who, key, wire.STAGE_REMOVE, room, body.identity, body,
                lambda actor: engine.rooms.remove(room, actor, body.target_identity))  # fmt: skip


@routes.post(wire.STAGE_REQUEST, responses=_STAGE, summary="Raise one's hand")
async def ask(room: Room, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """A viewer asks to come on stage; host and admins are told."""
    return verb(engine, who, key, wire.STAGE_REQUEST, room, body.identity, body,
                lambda actor: engine.rooms.ask(room, actor))  # fmt: skip


@routes.delete(wire.STAGE_REQUEST, responses=_STAGE, summary="Lower one's hand (ours)")
async def lower(
    room: Room, engine: TheEngine, who: Asked, identity: Actor = None, body: bodies.ByIdentity | None = None,
    key: Keyed = None,
) -> JSONResponse:  # fmt: skip
    """The viewer takes its request back."""
    return verb(engine, who, key, f"DELETE {wire.STAGE_REQUEST}", room, body.identity if body else identity, body,
                lambda actor: engine.rooms.lower(room, actor))  # fmt: skip


@routes.post(wire.STAGE_LEAVE, responses=_STAGE, summary="Leave the stage")
async def leave(room: Room, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """One who is on stage steps down."""
    return verb(engine, who, key, wire.STAGE_LEAVE, room, body.identity, body,
                lambda actor: engine.rooms.step_down(room, actor))  # fmt: skip


@routes.post(wire.LIVE_START, responses=_LIVE, summary="Go on air (ours)")
async def start(room: Room, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The owner begins the stream. While it is live, nothing changes."""
    return verb(engine, who, key, wire.LIVE_START, room, body.identity, body,
                lambda actor: engine.rooms.start_live(room, actor))  # fmt: skip


@routes.post(wire.LIVE_END, responses=_LIVE, summary="Go off air (ours)")
async def end(room: Room, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The owner ends the stream: the stage is cleared and all hands are lowered with it."""
    return verb(engine, who, key, wire.LIVE_END, room, body.identity, body,
                lambda actor: engine.rooms.end_live(room, actor))  # fmt: skip
