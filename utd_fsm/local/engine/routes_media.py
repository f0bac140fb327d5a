"""Where LiveKit tells the engine, and where users listen to it: the webhook receiver and the engine socket."""

from __future__ import annotations

import json
import logging
from typing import Any

import jwt
from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import JSONResponse
from google.protobuf.json_format import ParseError
from livekit import api

from utd_fsm import wire

from .asking import TheEngine, answer_json
from .idempotency import Answer
from .refusal import Refused
from .service import Engine

log = logging.getLogger("utd_fsm.engine.media")

routes = APIRouter()


@routes.post(wire.MEDIA_WEBHOOK, tags=["media"], summary="LiveKit tells (not for clients)")
async def told_by_media(request: Request, engine: TheEngine) -> JSONResponse:
    """A webhook of the media server, signed with the engine's LiveKit key. It is answered before anything is done
    about it, because a slow answer delays the whole room's webhooks."""
    settings = engine.settings
    receiver = api.WebhookReceiver(api.TokenVerifier(settings.livekit_key, settings.livekit_secret))
    body = await request.body()
    try:
        event = receiver.receive(body.decode(), request.headers.get("authorization", ""))
    except (jwt.PyJWTError, ParseError, ValueError, TypeError, AttributeError) as error:
        log.warning("a webhook that is not LiveKit's: %s", type(error).__name__)
        raise Refused(401, "not signed with the media server's key", "bad_signature") from None
    except Exception as error:  # the receiver raises bare exceptions for a missing or wrong hash
        if type(error) is not Exception:
            raise
        raise Refused(401, "the body is not the one that was signed", "bad_signature") from None
    engine.news.heard(event)
    return answer_json(Answer(200, {"status": "ok"}))


@routes.websocket(wire.SOCKET)
async def engine_socket(socket: WebSocket) -> None:
    """The user's own calls as they change; see `socket`."""
    engine: Engine = socket.app.state.engine
    await engine.hub.serve(socket)


def describe_socket(schema: dict[str, Any]) -> None:
    """OpenAPI has no word for sockets: say it in the page's description."""
    example = json.dumps({"event": wire.SOCKET_AUTH, "data": {"token": "<user_token>"}})
    schema["info"]["description"] += (
        f"\n\n**Engine socket** `{wire.PREFIX}{wire.SOCKET}` (take `ws_url` from the session): send `{example}`, get "
        "`ready` with your open calls, then a `call` frame with the whole record at every change, and `presence`."
    )
