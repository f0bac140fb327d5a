"""Health, a user's bearer, and the way into a room that is not a call.

No rule of a call is decided here.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from utd_fsm import wire
from utd_fsm.models import UTDRole

from . import bodies
from .asking import TheEngine, address, answer_json
from .idempotency import Answer
from .livekit_books import CALL_ROOM
from .refusal import Refused
from .service import Engine

routes = APIRouter()

_NO: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": bodies.Refusal, "description": text}
    for status, text in {
        401: "The application's id or key is missing or wrong.",
        403: "Not allowed to this identity.",
        409: "The call's state does not allow it.",
        422: "Something in the request is malformed.",
        429: "Too many requests; `Retry-After` says when to come back.",
    }.items()
}


def _check_app(engine: Engine, request: Request, identity: str, device_id: str | None) -> None:
    try:
        engine.auth.check_app(request.headers)
    except Refused:
        engine.limit.take(address(request))
        raise
    engine.limit.take(f"token:{identity}:{device_id or ''}")


def _socket_url(request: Request) -> str:
    """Under the name and port by which this client reached us."""
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}{wire.PREFIX}{wire.SOCKET}"


@routes.get(wire.HEALTH, tags=["engine"], responses={200: {"model": bodies.Health}}, summary="Does it run?")
async def health() -> JSONResponse:
    """`{"status": "ok"}`, without credentials and without a limit."""
    return answer_json(Answer(200, {"status": "ok"}))


@routes.post(
    wire.AUTH_SESSION, tags=["users"], responses={200: {"model": bodies.Session}, **_NO}, summary="Sign a user in"
)
async def session(body: bodies.OpenSession, request: Request, engine: TheEngine) -> JSONResponse:
    """A bearer for one identity, without a room. It survives a restart of the engine, and expires after a day."""
    _check_app(engine, request, body.identity, body.device_id)
    settings = engine.settings
    content = {
        "user_token": engine.auth.mint(body.identity, body.name, body.device_id),
        "ws_url": _socket_url(request),
        "signaling_enabled": True,
        "messaging_enabled": False,
        "limits": {
            "ring_timeout_seconds": settings.ring_timeout,
            "max_call_seconds": settings.max_call,
            "requests_per_minute": settings.rate_limit,
        },
    }
    return answer_json(Answer(200, content))


@routes.post(wire.TOKEN, tags=["users"], responses={200: {"model": bodies.RoomToken}, **_NO}, summary="Enter a room")
async def token(body: bodies.MintToken, request: Request, engine: TheEngine) -> JSONResponse:
    """A user's bearer and its way into a room. Only the owner of a stream or an audio room is its host; another claim
    becomes audience. The owner may set up the seats with it. Whoever sits or is on stage may publish from the start.
    Somebody who is banned gets 403 `banned`. Into a call's room only its parties are let, and only while it is open."""
    _check_app(engine, request, body.identity, body.device_id)
    if body.type.is_call:
        call = engine.calls.may_rejoin(body.room_name, body.identity, body.device_id)
        way_in = engine.tokens.for_call(call, body.identity)
    else:
        way_in = _enter(engine, body)
    content = {
        "token": way_in,
        "url": engine.settings.media_url,
        "room_name": body.room_name,
        "user_token": engine.auth.mint(body.identity, body.name, body.device_id),
        "ws_url": _socket_url(request),
    }
    return answer_json(Answer(200, content))


def _enter(engine: Engine, body: bodies.MintToken) -> str:
    """Into a stream or an audio room.

    Raises: Refused: 403 banned; 409, the room has another type, or bears a call's name.
    """
    if CALL_ROOM.fullmatch(body.room_name):
        raise Refused(409, "the name is one of a call's room", "other_type")
    changed = engine.in_room(
        lambda: engine.rooms.enter(
            body.room_name,
            body.type,
            body.identity,
            claims_host=body.role is UTDRole.HOST,
            owner_id=body.room_owner_id,
            display=body.name,
            attributes=body.metadata or {},
            seat_count=body.seat_count,
            seat_mode=body.seat_mode,
            host_seat=body.host_seat,
            mode_id=body.mode_id,
        )
    )
    return engine.tokens.for_room(changed.room, body.identity, body.name)
