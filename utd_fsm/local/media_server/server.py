"""The media server as a whole: its HTTP side, its rooms, its start and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import web
from livekit.protocol import models
from livekit.protocol import room as room_protocol

from .auth import Keys
from .room import Room
from .room_service import RoomService
from .signalling import Signalling
from .webhooks import Webhooks

_log = logging.getLogger("utd_fsm.local.media_server")

_FAREWELL = 0.3
"""Seconds that clients are given to take their `leave`, and webhooks to go out, when the server stops."""
_CLOSING = 5.0
"""Upper bound for closing the connections after that."""
_LONGEST_HEADER = 1_048_576
"""Bytes of a header or a URL, as livekit-server takes them: a token travels there, and the room's metadata in it."""


class MediaServer:
    """A LiveKit-compatible media server in this process.

    All of it lives on the event loop that `start` is called on. What it is not good for is said in the package's
    docstring.

    Args:
        key: the API key that tokens must name.
        secret: what they must be signed with.
        webhook_url: where LiveKit's webhooks go; None sends none.
        remote_unmute: let ``MutePublishedTrack(muted=False)`` through (LiveKit refuses it by default).
        media_host: the local address that media is received on. Loopback by default: nobody outside can reach it.

    Raises:
        ValueError: the key or the secret is empty.
    """

    def __init__(
        self,
        *,
        key: str,
        secret: str,
        webhook_url: str | None = None,
        remote_unmute: bool = False,
        media_host: str = "127.0.0.1",
    ) -> None:
        if not key or not secret:
            raise ValueError("a media server needs a key and a secret: both were to be non-empty strings")
        self.keys = Keys(key, secret)
        self.remote_unmute = remote_unmute
        self.media_host = media_host
        self.webhooks = Webhooks(self.keys, webhook_url, self.spawn)
        self._webhook_url = webhook_url
        self._rooms: dict[str, Room] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finishing: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._url: str | None = None

    @property
    def url(self) -> str | None:
        """Its root, ``http://host:port``, while it runs; clients take it with ``ws://`` as well."""
        return self._url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Begins to listen.

        Args:
            host: the address to listen on.
            port: 0 takes a free one.

        Returns:
            Its URL, ``http://host:port``.

        Raises:
            RuntimeError: it runs already.
            OSError: the port is taken.
        """
        if self._runner is not None:
            raise RuntimeError("the media server runs already: stop it before starting it again")
        self.webhooks = Webhooks(self.keys, self._webhook_url, self.spawn)
        # No access log: it would print the tokens that clients put into their URLs (LiveKit facts, 27).
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=_FAREWELL, handle_signals=False,
            max_line_size=_LONGEST_HEADER, max_field_size=_LONGEST_HEADER,
        )  # fmt: skip
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        address = runner.addresses[0]
        shown = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        self._url = f"http://{shown}:{address[1]}"
        return self._url

    async def stop(self, *, hard: bool = False) -> None:
        """Ends every room and stops to listen, within a second. May be called twice.

        Args:
            hard: vanish as a killed process does: nobody is told anything, no webhook goes out.
        """
        runner, self._runner, self._url = self._runner, None, None
        if runner is None:
            return
        for room in self.rooms():
            room.close(models.SERVER_SHUTDOWN, tell=not hard)
        await self.webhooks.close(0 if hard else _FAREWELL)
        await runner.cleanup()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks and not hard:
            await asyncio.wait(tasks, timeout=_FAREWELL)
        if self._finishing:  # sockets: a matter of milliseconds, but never left open
            await asyncio.wait(set(self._finishing), timeout=_CLOSING)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- rooms, for signalling and the room service

    def find_room(self, name: str) -> Room | None:
        return self._rooms.get(name)

    def rooms(self) -> list[Room]:
        return list(self._rooms.values())

    def open_room(
        self, name: str, config: room_protocol.RoomConfiguration | room_protocol.CreateRoomRequest | None
    ) -> Room:
        """A new room of that name, with these limits."""
        room = self._rooms[name] = Room(self, name, config)
        return room

    def room_closed(self, room: Room) -> None:
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]

    def spawn(self, work: Coroutine[Any, Any, None], *, finish: bool = False) -> asyncio.Task[None]:
        """Starts a background task: its error is logged, and it ends with the server at the latest.

        Args:
            work: what to do.
            finish: the server waits for it when it stops, and does not cancel it midway.
        """
        task = asyncio.get_running_loop().create_task(work)
        (self._finishing if finish else self._tasks).add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._finishing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a background task failed", exc_info=error)

    # -- HTTP

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_cors])
        signalling, service = Signalling(self), RoomService(self)
        router = application.router
        router.add_get("/", _health)
        for path in ("/rtc", "/rtc/v1"):
            router.add_get(path, signalling.connect)
            router.add_get(f"{path}/validate", signalling.validate)
        router.add_post("/twirp/livekit.RoomService/{method}", service.handle)
        return application


async def _health(request: web.Request) -> web.Response:
    return web.Response(text="OK")


@web.middleware
async def _cors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Pages of any origin may call, as livekit-server lets them: the tokens are what protects a room."""
    if request.method == "OPTIONS":
        answer: web.StreamResponse = web.Response(status=204)
    else:
        answer = await handler(request)
    if not answer.prepared:
        answer.headers["Access-Control-Allow-Origin"] = "*"
        answer.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        answer.headers["Access-Control-Allow-Headers"] = request.headers.get("Access-Control-Request-Headers", "*")
    return answer
