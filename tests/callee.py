"""The one who is called: an engine with a REST and a socket side over one list of calls, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.engine_answers import api_for, engine, page, record
from tests.http_stub import HttpStub, Reply, Seen, http_stub
from utd_fsm.engine_api import Credentials, EngineApi
from utd_fsm.incoming import IncomingCalls, IncomingTiming
from utd_fsm.models import UTDCall
from utd_fsm.portal import portal
from utd_fsm.wire import read_call

WAIT = 20.0
QUICK = IncomingTiming(poll=0.02, backoff=0.1, socket_first=0.05, fresh=60.0)


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    portal().call(test, timeout=60, what="the test")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.005)


def more_than(things: list[Any], number: int) -> bool:
    return len(things) > number


def is_at(heard: list[UTDCall], status: str) -> bool:
    return bool(heard) and heard[-1].status == status


def call_id(number: int) -> str:
    return f"call_{number:024x}"


class Engine:
    """An engine's REST and socket sides over one list of calls."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.connections: list[ServerConnection] = []
        self.fail: Reply | None = None
        self.gate: threading.Event | None = None
        """Holds back the answers about single calls."""
        self.rest: HttpStub
        self.seq = 1

    def set(self, number: int, status: str = "initiating", *, version: int | None = 1, **other: Any) -> None:
        """What the record of call `number` is now; tells nobody."""
        self.calls[call_id(number)] = record(status, call_id=call_id(number), version=version, **other)

    async def tell(self, number: int, status: str = "initiating", *, version: int | None = 1, **other: Any) -> None:
        """The same, and a frame to everybody."""
        self.set(number, status, version=version, **other)
        self.seq += 1
        frame = {"event": "call", "data": self.calls[call_id(number)], "seq": self.seq}
        for connection in self.connections:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(json.dumps(frame))

    def answer(self, seen: Seen) -> Reply:
        """The REST side."""
        if self.fail is not None:
            return self.fail
        url = urlsplit(seen.path)
        wanted = url.path.removeprefix("/api/v1/calls").strip("/")
        if wanted:
            found = self.calls.get(wanted)
            return Reply(json=found, gate=self.gate) if found else Reply(404, json={"message": "no such call"})
        status = parse_qs(url.query).get("status", [None])[0]
        return Reply(json=page(*[call for call in self.calls.values() if status in (None, call["status"])]))

    async def __call__(self, connection: ServerConnection) -> None:
        """The socket side."""
        await connection.recv()
        rows = [call for call in self.calls.values() if call["status"] in ("initiating", "ringing", "active")]
        self.seq = 1
        await connection.send(json.dumps({"event": "ready", "data": {"calls": rows}, "seq": 1}))
        self.connections.append(connection)
        await connection.wait_closed()

    def polls(self) -> list[str]:
        return [seen.path for seen in list(self.rest.seen) if seen.method == "GET"]


@asynccontextmanager
async def bob(
    *, socket: bool = True, timing: IncomingTiming = QUICK, **options: Any
) -> AsyncIterator[tuple[Engine, IncomingCalls, EngineApi, Credentials]]:
    """An engine, and the one who is called."""
    other = Engine()
    async with serve(other, "127.0.0.1", 0) as server:
        ws_url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/" if socket else None
        with http_stub(engine(other.answer, ws_url=ws_url)) as other.rest:
            api = api_for(other.rest.url)
            cred = await portal().in_thread(lambda: api.authenticate("bob"))
            incoming = IncomingCalls(portal(), api, cred, timing=timing, **options)
            yield other, incoming, api, cred
            incoming.close()
            await until(lambda: not [c for c in other.connections if c.state.name == "OPEN"])
            api.close()


def a_call(number: int, status: str = "initiating", version: int = 1) -> UTDCall:
    return read_call(record(status, call_id=call_id(number), version=version), "test")
