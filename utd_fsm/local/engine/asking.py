"""The seam between HTTP and the engine: who asks, what is answered, how a refusal looks.

No rule lives here.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse

from utd_fsm import wire

from .auth import Who
from .idempotency import Answer
from .refusal import Refused
from .service import Engine


class PlainJSON(JSONResponse):
    """JSON in ASCII, so that no text a client sent can fail to be encoded."""

    def render(self, content: Any) -> bytes:
        """The bytes of an answer."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def answer_json(answer: Answer) -> JSONResponse:
    """An answer as HTTP."""
    return PlainJSON(dict(answer.body), status_code=answer.status)


def refusal_json(refusal: Refused) -> JSONResponse:
    """A refusal as HTTP."""
    headers = {} if refusal.retry_after is None else {wire.RETRY_AFTER: str(refusal.retry_after)}
    return PlainJSON(refusal.body(), status_code=refusal.status, headers=headers)


def address(request: Request) -> str:
    """What stands for somebody who isn't known yet."""
    return f"address:{request.client.host if request.client else ''}"


async def the_engine(request: Request) -> Engine:
    """The engine of the application that was asked."""
    engine: Engine = request.app.state.engine
    return engine


TheEngine = Annotated[Engine, Depends(the_engine)]


async def who_asks(request: Request, engine: TheEngine) -> Who:
    """Who asks, counted against the limit.

    Raises: Refused: 401, 429.
    """
    try:
        who = engine.auth.who(request.headers)
    except Refused:
        engine.limit.take(address(request))  # whoever guesses is slowed down
        raise
    engine.limit.take("backend" if who.identity is None else f"identity:{who.identity}")
    return who


Asked = Annotated[Who, Depends(who_asks)]
"""The parameter of every route that needs a bearer."""

Keyed = Annotated[
    str | None,
    Header(
        alias=wire.IDEMPOTENCY_KEY,
        description="`<uuid of the client's machine>:<n>`, n growing. A repeat of the highest n gets the first answer,"
        " a lower one is 409 `superseded`; with a GET it seals what was sent before.",
    ),
]
"""The parameter of every route that can be repeated or that seals."""
