"""The application: routes, one shape for every refusal, a limit on bodies, and the OpenAPI page at ``/docs``.

`create_app` makes it, `serve` runs it until SIGTERM. Access logs are off, because URLs hold tokens (fact 27).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket as sockets
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utd_fsm import wire
from utd_fsm.local.leash import parent_pid

from . import room_bodies, routes_auth, routes_calls, routes_media, routes_moderation, routes_seats, routes_stage
from .asking import refusal_json
from .refusal import Refused
from .service import Engine
from .settings import EngineSettings

log = logging.getLogger("utd_fsm.engine")

MAX_BODY: Final = 256 * 1024
STOP_WITHIN: Final = 2
"""Seconds that requests under way have when the engine is told to stop."""
_PARENT_POLL: Final = 0.25

_ABOUT: Final = """\
The local engine of utd_fsm, for development and tests. It speaks the wire contract of the UTD stream engine.

Every client request carries `X-App-Id` and `X-App-Key`; in-room and call routes carry
`Authorization: Bearer <user_token>` too. A backend sends `X-App-Secret` in place of both.
Whatever is refused has changed nothing, and says why in `message`, `code` and, for a call, `status`; somebody who is
banned also gets `reason`, `expires_at` and `room_name`."""


def create_app(settings: EngineSettings) -> FastAPI:
    """The engine as an ASGI application. Its database is opened when it starts, not before.

    Args:
        settings: checked already.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine(settings)
        app.state.engine = engine
        engine.open()
        try:
            yield
        finally:
            await engine.aclose()

    app = FastAPI(title="UTD stream engine (local)", version="1", description=_ABOUT, lifespan=life)
    app.include_router(routes_auth.routes, prefix=wire.PREFIX)
    for part in (routes_calls, routes_stage, routes_seats, routes_moderation, routes_media):
        app.include_router(part.routes, prefix=wire.PREFIX)
    app.add_middleware(_BodyLimit)
    app.add_middleware(_WholeSegments)

    @app.exception_handler(Refused)
    async def refused(_: Request, refusal: Exception) -> JSONResponse:
        assert isinstance(refusal, Refused)
        return refusal_json(refusal)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [f"{'.'.join(map(str, e['loc'][1:])) or e['loc'][0]}: {e['msg']}" for e in error.errors()[:5]]
        return refusal_json(Refused(422, "; ".join(faults)[:500], "validation"))

    @app.exception_handler(HTTPException)
    async def by_framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = 422 if error.status_code == 400 else error.status_code  # a body that can't even be read
        code = {404: "not_found", 422: "validation"}.get(status, "http")
        return refusal_json(Refused(status, str(error.detail), code))

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            routes_media.describe_socket(made)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]
    return app


class _BodyLimit:
    """Refuses bodies over `MAX_BODY` before they are read into memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0
        too_big = Refused(413, f"the body is over {MAX_BODY} bytes", "too_big")

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise too_big
            return message

        async def unless_too_big(message: Message) -> None:
            if size <= MAX_BODY:  # else the framework answers its own misreading of the cut-off body
                await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY:
            await refusal_json(too_big)(scope, receive, send)
            return
        await self._app(scope, counted, unless_too_big)
        if size > MAX_BODY:
            await refusal_json(too_big)(scope, receive, send)


class _WholeSegments:
    """Keeps an encoded slash within its segment of the path: rooms and identities may have one in their names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%2f" in raw.lower():
            segments = raw.partition(b"?")[0].decode("latin-1").split("/")
            path = "/".join(unquote(segment).replace("/", room_bodies.SLASH) for segment in segments)
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def serve(settings: EngineSettings, *, with_parent: bool = False, ready: Callable[[str], None] | None = None) -> None:
    """Run the engine in this thread until SIGTERM or SIGINT (or `with_parent` says so).

    Args:
        settings: port 0 takes a free port.
        with_parent: stop when the process that started this one is gone.
        ready: told the base URL once requests are taken; None prints ``ready http://…`` on standard output.

    Raises:
        OSError: the port is taken.
    """
    import uvicorn

    listener = _listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"

    def tell(base_url: str) -> None:
        sys.stdout.write(f"ready {base_url}\n")
        sys.stdout.flush()

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own sends the signal again afterwards, which ends the process before its caller can tidy up
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            numbers = (signal.SIGINT, signal.SIGTERM)
            before = [signal.signal(number, self.handle_exit) for number in numbers]
            try:
                yield
            finally:
                for number, handler in zip(numbers, before, strict=True):
                    signal.signal(number, handler)

        async def startup(self, sockets: list[sockets.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                (ready or tell)(url)

    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        ws="websockets-sansio",
        ws_max_size=wire.SOCKET_MAX_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=40,
        timeout_graceful_shutdown=STOP_WITHIN,
    )
    server = Server(config)
    if with_parent:
        threading.Thread(target=_stop_with_parent, name="utd-engine-parent", daemon=True).start()
    with listener:
        asyncio.run(server.serve(sockets=[listener]))


def _listen(host: str, port: int) -> sockets.socket:
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    # with the protocol named asyncio sets TCP_NODELAY on what is accepted; without it every answer waits 40 ms
    listener = sockets.socket(family, sockets.SOCK_STREAM, sockets.IPPROTO_TCP)
    try:
        # a restart takes the same port again, although old connections linger
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _stop_with_parent() -> None:
    parent = parent_pid()
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL)
    os.kill(os.getpid(), signal.SIGTERM)
