"""The seam between HTTP and the engine: who asks, what is answered, how a refusal looks.

No rule lives here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
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


def asker(engine: Engine) -> Callable[[Request], Who]:
    """The dependency of every route with a bearer: who asks, counted."""

    def ask(request: Request) -> Who:
        try:
            who = engine.auth.who(request.headers)
        except Refused:
            engine.limit.take(address(request))  # whoever guesses is slowed down
            raise
        engine.limit.take("backend" if who.identity is None else f"identity:{who.identity}")
        return who

    return ask


def Asking(ask: Callable[..., Who]) -> Any:  # noqa: N802 - it makes a type
    """The annotation of a parameter that is filled with who asks."""
    return Annotated[Who, Depends(ask)]
