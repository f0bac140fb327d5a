"""The routes of an audio room: seats, requests to speak, invitations. Paths and fields are the wire contract's.

No rule of a seat is decided here. A verb answers with its own fields and, in `grid`, with the whole grid after it.
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
from .room_bodies import Number, Room, Seat
from .rooms import seats_of

routes = APIRouter()

_SEATS = {200: {"model": room_bodies.SeatAnswer}, **NO}
_ROOM = UTDStreamType.AUDIO_ROOM


# ------------------------------------------------------------------------------------------------------------- seats


@routes.get(wire.SEATS, tags=["seats"], responses={200: {"model": room_bodies.Grid}, **NO}, summary="The grid")
async def seats(room: Room, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """All seats, requests and invitations, for anybody who isn't banned."""
    record = of_type(engine, who, key, room, _ROOM)
    return answer_json(Answer(200, wire.seats_json(seats_of(record), realtime=False)))


@routes.post(wire.SEATS_SETUP, tags=["seats"], responses=_SEATS, summary="Set up the seats")
async def setup(
    room: Room, body: room_bodies.SetUpSeats, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """How many seats there are and how one comes by them. Whoever sits on one that remains keeps it."""
    return verb(engine, who, key, wire.SEATS_SETUP, room, body.identity, body,
                lambda actor: engine.rooms.setup(room, actor, body.seat_count, body.seat_mode,
                                                 body.mode_id))  # fmt: skip


@routes.post(wire.SEATS_LEAVE, tags=["seats"], responses=_SEATS, summary="Stand up")
async def leave(room: Room, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """One who sits leaves its seat, and may no longer publish."""
    return verb(engine, who, key, wire.SEATS_LEAVE, room, body.identity, body,
                lambda actor: engine.rooms.leave(room, actor))  # fmt: skip


@routes.post(wire.SEATS_MOVE, tags=["seats"], responses=_SEATS, summary="Change one's seat")
async def move(
    room: Room, body: room_bodies.MoveSeat, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """From one's own seat to a free one, in one step; a mute goes along."""
    return verb(engine, who, key, wire.SEATS_MOVE, room, body.identity, body,
                lambda actor: engine.rooms.move(room, actor, body.target_seat))  # fmt: skip


@routes.post(wire.SEATS_SWAP, tags=["seats"], responses=_SEATS, summary="Swap two seats (ours)")
async def swap(
    room: Room, body: room_bodies.SwapSeats, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Who sits on the one sits on the other, in one step; mutes go with the persons."""
    return verb(engine, who, key, wire.SEATS_SWAP, room, body.identity, body,
                lambda actor: engine.rooms.swap(room, actor, body.a, body.b))  # fmt: skip


@routes.put(wire.SEATS_MUTE_ALL, tags=["seats"], responses=_SEATS, summary="Mute all (ours)")
async def mute_all(
    room: Room, body: room_bodies.MuteAll, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Everybody who sits but the host, and whoever sits down later; or nobody any more."""
    return verb(engine, who, key, wire.SEATS_MUTE_ALL, room, body.identity, body,
                lambda actor: engine.rooms.mute_all(room, actor, body.muted))  # fmt: skip


@routes.post(wire.SEAT_TAKE, tags=["seats"], responses=_SEATS, summary="Sit down")
async def take(
    room: Room, index: Seat, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Takes a free seat; from then on one may publish. 403 `request_mode` where a moderator approves, 409 where
    somebody sits already, or one does oneself."""
    return verb(engine, who, key, wire.SEAT_TAKE.replace("{index}", str(index)), room, body.identity, body,
                lambda actor: engine.rooms.take(room, actor, index))  # fmt: skip


@routes.post(wire.SEAT_KICK, tags=["seats"], responses=_SEATS, summary="Take somebody's seat away")
async def kick(
    room: Room, index: Seat, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """A moderator takes it away; an admin not the host's."""
    return verb(engine, who, key, wire.SEAT_KICK.replace("{index}", str(index)), room, body.identity, body,
                lambda actor: engine.rooms.kick(room, actor, index))  # fmt: skip


@routes.post(wire.SEAT_LOCK, tags=["seats"], responses=_SEATS, summary="Lock a seat")
async def lock(
    room: Room, index: Seat, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Nobody may sit there any more; whoever does loses the seat first."""
    return verb(engine, who, key, wire.SEAT_LOCK.replace("{index}", str(index)), room, body.identity, body,
                lambda actor: engine.rooms.lock(room, actor, index))  # fmt: skip


@routes.post(wire.SEAT_UNLOCK, tags=["seats"], responses=_SEATS, summary="Unlock a seat")
async def unlock(
    room: Room, index: Seat, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """The seat is free again."""
    return verb(engine, who, key, wire.SEAT_UNLOCK.replace("{index}", str(index)), room, body.identity, body,
                lambda actor: engine.rooms.unlock(room, actor, index))  # fmt: skip


@routes.post(wire.SEAT_MUTE, tags=["seats"], responses=_SEATS, summary="Mute a seat")
async def mute(
    room: Room, index: Seat, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Whoever sits there is silenced, at the media server too, and again whenever it publishes."""
    return verb(engine, who, key, wire.SEAT_MUTE.replace("{index}", str(index)), room, body.identity, body,
                lambda actor: engine.rooms.mute(room, actor, index))  # fmt: skip


@routes.post(wire.SEAT_UNMUTE, tags=["seats"], responses=_SEATS, summary="Unmute a seat")
async def unmute(
    room: Room, index: Seat, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Whoever sits there may speak again; its own client unmutes."""
    return verb(engine, who, key, wire.SEAT_UNMUTE.replace("{index}", str(index)), room, body.identity, body,
                lambda actor: engine.rooms.unmute(room, actor, index))  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- speakers


@routes.post(wire.SPEAKERS_REQUEST, tags=["speakers"], responses=_SEATS, summary="Ask to speak")
async def request(
    room: Room, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """In request mode a listener asks; host and admins are told."""
    return verb(engine, who, key, wire.SPEAKERS_REQUEST, room, body.identity, body,
                lambda actor: engine.rooms.request(room, actor))  # fmt: skip


@routes.delete(wire.SPEAKERS_REQUEST, tags=["speakers"], responses=_SEATS, summary="Take one's request back")
async def cancel(
    room: Room, engine: TheEngine, who: Asked, identity: Actor = None, body: bodies.ByIdentity | None = None,
    key: Keyed = None,
) -> JSONResponse:  # fmt: skip
    """The listener no longer wants to speak."""
    return verb(engine, who, key, f"DELETE {wire.SPEAKERS_REQUEST}", room, body.identity if body else identity, body,
                lambda actor: engine.rooms.cancel(room, actor))  # fmt: skip


@routes.get(
    wire.SPEAKERS_REQUESTS, tags=["speakers"], responses={200: {"model": room_bodies.SpeakerRequests}, **NO},
    summary="Who asks to speak",
)  # fmt: skip
async def requests(room: Room, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The open requests, oldest first."""
    grid = seats_of(of_type(engine, who, key, room, _ROOM))
    rows = [wire.request_json(one) for one in grid.requests]
    return answer_json(Answer(200, {"requests": rows, "version": grid.version}))


@routes.post(wire.SPEAKER_APPROVE, tags=["speakers"], responses=_SEATS, summary="Approve a request")
async def approve(
    room: Room, id: Number, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """Seats the one who asked, at once, on the first free seat; 409 `no_free_seat` if there is none."""
    return verb(engine, who, key, wire.SPEAKER_APPROVE.replace("{id}", str(id)), room, body.identity, body,
                lambda actor: engine.rooms.approve(room, actor, id))  # fmt: skip


@routes.post(wire.SPEAKER_REJECT, tags=["speakers"], responses=_SEATS, summary="Reject a request")
async def reject(
    room: Room, id: Number, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """The one who asked goes on listening."""
    return verb(engine, who, key, wire.SPEAKER_REJECT.replace("{id}", str(id)), room, body.identity, body,
                lambda actor: engine.rooms.reject(room, actor, id))  # fmt: skip


@routes.post(wire.SPEAKER_INVITE, tags=["speakers"], responses=_SEATS, summary="Invite to speak")
async def invite(
    room: Room, body: room_bodies.Invite, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """A moderator invites a listener, to a seat or to any that is free."""
    return verb(engine, who, key, wire.SPEAKER_INVITE, room, body.identity, body,
                lambda actor: engine.rooms.invite(room, actor, body.target_identity, body.seat_index))  # fmt: skip


@routes.post(wire.INVITATION_ACCEPT, tags=["speakers"], responses=_SEATS, summary="Accept an invitation")
async def accept(
    room: Room, id: Number, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """The one who was invited sits down."""
    return verb(engine, who, key, wire.INVITATION_ACCEPT.replace("{id}", str(id)), room, body.identity, body,
                lambda actor: engine.rooms.accept(room, actor, id))  # fmt: skip


@routes.post(wire.INVITATION_DECLINE, tags=["speakers"], responses=_SEATS, summary="Decline an invitation")
async def decline(
    room: Room, id: Number, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None
) -> JSONResponse:
    """The one who was invited goes on listening."""
    return verb(engine, who, key, wire.INVITATION_DECLINE.replace("{id}", str(id)), room, body.identity, body,
                lambda actor: engine.rooms.decline(room, actor, id))  # fmt: skip
