"""A small real HTTP server whose answers a test writes: slow, cut off, reset, redirected, garbage."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    """The JSON, or None."""
    raw: bytes = b""
    """The body, byte for byte."""


@dataclass(frozen=True)
class Reply:
    """What is answered. `json` wins over `body`."""

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    """Answered only once it is set."""
    reset: bool = False
    """The connection is reset instead."""
    length: int | None = None
    """Claimed length of the body; more than there is means that the answer breaks off."""
    raw: bytes | None = None
    """Sent as it is instead of an answer, and the connection closed."""


class HttpStub:
    """Answers with `answer(request)`, one thread a connection, and remembers what it saw."""

    def __init__(self, answer: Callable[[Seen], Reply]) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.stub = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def paths(self) -> list[str]:
        """Method and path of what was seen, without queries."""
        return [f"{seen.method} {seen.path.split('?')[0].removeprefix('/api/v1')}" for seen in list(self.seen)]

    def close(self) -> None:
        """Stop; gated answers are let go."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def http_stub(answer: Callable[[Seen], Reply] | Reply) -> Iterator[HttpStub]:
    """A server for the length of a block."""
    stub = HttpStub(answer if callable(answer) else lambda _: answer)
    try:
        yield stub
    finally:
        stub.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    stub: HttpStub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken pipes are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: unbuffered, each answer would wait 40 ms for an acknowledgement

    @property
    def stub(self) -> HttpStub:
        assert isinstance(self.server, _Server)
        return self.server.stub

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        seen = Seen(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(body) if body else None,
            body,
        )
        self.stub.seen.append(seen)
        reply = self.stub.answer(seen)
        if reply.gate is not None:
            while not reply.gate.wait(0.02) and not self.stub.over.is_set():
                pass
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if reply.raw is not None:
            self.wfile.write(reply.raw)
            self.close_connection = True
            return
        content = reply.body if reply.json is None else json.dumps(reply.json).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-type" for name in reply.headers):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(reply.length if reply.length is not None else len(content)))
        self.end_headers()
        self.wfile.write(content)
        if reply.length is not None:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
