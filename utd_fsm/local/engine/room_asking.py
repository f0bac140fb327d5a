"""What the routes of streams and audio rooms have in common: who acts, in which room, once for each key.

No rule lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from . import bodies, idempotency, room_bodies
from .asking import answer_json
from .auth import Who
from .idempotency import Answer
from .rooms import Changed, RoomRecord
from .service import Engine, RoomDone

NO: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": bodies.Refusal, "description": "The application's id or key, or the bearer, is missing or wrong."},
    403: {
        "model": room_bodies.Banned,
        "description": "Not allowed to this identity: `wrong_identity`, `not_moderator`, `not_on_host`, `request_mode`,"
        " …; or `banned`, with reason and end.",
    },
    404: {"model": bodies.Refusal, "description": "No such room."},
    409: {"model": bodies.Refusal, "description": "Somebody was faster, or it is not so (any more). Nothing changed."},
    422: {"model": bodies.Refusal, "description": "Something in the request is malformed."},
    429: {"model": bodies.Refusal, "description": "Too many requests; `Retry-After` says when to come back."},
}

Actor = Annotated[
    bodies.Identity | None,
    Query(alias="identity", description="Who does it, for a client that sends no body with DELETE."),
]


def verb(
    engine: Engine, who: Who, key: str | None, path: str, room: str, actor: str | None, body: BaseModel | None,
    do: Callable[[str], Changed],
) -> JSONResponse:  # fmt: skip
    """Apply one verb in a room.

    Args:
        path: of this request, names filled in: with the body it says what is asked.
        actor: whom the request names; None is the bearer's own identity.
        do: the rule; given the actor.

    Raises:
        Refused: 403 for another's identity or somebody who is banned there, 404, 409, 422.
    """
    identity = who.must_be(actor)
    content = {} if body is None else body.model_dump(mode="json", exclude_none=True)

    def ruled() -> RoomDone:
        engine.rooms.check_ban(identity, room)
        changed = do(identity)
        return RoomDone(Answer(200, changed.answer), (changed,))

    return answer_json(engine.run_room(identity, idempotency.parse(key), f"{path} {room}", content, ruled))


def look(engine: Engine, who: Who, key: str | None, room: str) -> RoomRecord:
    """The room as it is now, for anybody who isn't banned there; a key seals what the asker sent before.

    Raises:
        Refused: 403 banned, 404, 422.
    """
    if who.identity is not None:
        engine.look(who.identity, idempotency.parse(key))
        engine.rooms.check_ban(who.identity, room)
    return engine.rooms.get(room)


def of_type(engine: Engine, who: Who, key: str | None, room: str, type_: Any) -> RoomRecord:
    """As `look`, and 409 `other_type` for a room of another type."""
    look(engine, who, key, room)
    return engine.rooms.get(room, type_)
