"""A reverse proxy in front of an engine whose gates a test opens: how an interleaving is forced without a sleep.

Threads only. Each client is given a proxy of its own, so that one device's requests can be held while another's pass::

    with GateProxy(engine.base_url) as way:
        gate = way.hold("POST", "/calls/*/accept", at="answer")      # the engine has applied it; nobody knows yet
        ...
        gate.reached()                                               # somebody stands at it
        gate.open()

The engine's socket goes through it as well (the engine offers it under the name it was asked by), and can be paused:
then nothing is heard of what others do.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from utd_fsm import wire

At = Literal["request", "answer"]
LIMIT = 60.0
"""Seconds after which a gate that nobody opens is a mistake of the test."""


@dataclass(frozen=True)
class Passed:
    """One request that came by."""

    method: str
    path: str
    """Without the prefix and the query."""
    key: str | None
    """Its idempotency key."""
    status: int | None
    """What the engine answered; None where it was not asked."""


class CutError(Exception):
    """The connection is to be cut."""


class Gate:
    """What happens to the requests of one route. Made by `GateProxy`."""

    def __init__(self, method: str, path: str, at: At, *, shut: bool, times: int | None) -> None:
        self.method, self.path, self.at = method, path, at
        self._left = times
        self._lock = threading.Lock()
        self._come = threading.Semaphore(0)
        self._decided = threading.Event()
        self._cut = not shut
        if not shut:
            self._decided.set()
        self.caught = 0
        """How many requests it has caught."""

    def catches(self, method: str, path: str) -> bool:
        """Whether this request is one of its own; it then counts as caught."""
        if method != self.method or not fnmatchcase(path, self.path):
            return False
        with self._lock:
            if self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            self.caught += 1
        return True

    def stand(self) -> None:
        """A request stands here until it is decided.

        Raises: CutError: the decision is to cut it.
        """
        self._come.release()
        self._decided.wait(LIMIT)
        if self._cut:
            raise CutError

    def reached(self, timeout: float = LIMIT) -> None:
        """Wait until one more request stands here."""
        assert self._come.acquire(timeout=timeout), f"nothing came by {self.method} {self.path}"

    def open(self) -> None:
        """Let pass what stands here, and whatever comes later."""
        self._cut = False
        self._left = 0
        self._decided.set()

    def cut(self) -> None:
        """Cut the connections of what stands here, and let pass whatever comes later."""
        self._cut = True
        self._left = 0
        self._decided.set()


@dataclass
class _State:
    gates: list[Gate] = field(default_factory=list)
    rewrites: list[tuple[str, str, Callable[[dict[str, Any]], object]]] = field(default_factory=list)
    seen: list[Passed] = field(default_factory=list)
    connections: set[socket.socket] = field(default_factory=set)
    tunnels: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class GateProxy:
    """One client's way to an engine. A context manager; any thread.

    Args:
        upstream: root of the engine.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname
        assert parts.port
        self.upstream = parts.hostname, parts.port
        self.state = _State()
        self.frames = threading.Event()
        """While clear, what the engine's socket says is held."""
        self.frames.set()
        self.is_down = threading.Event()
        """While set, every connection is cut, as if there were no engine."""
        self.over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="gate-proxy", daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    # --- what a test asks of it

    def hold(self, method: str, path: str, *, at: At = "request", times: int | None = 1) -> Gate:
        """Hold requests of a route: before the engine sees them, or after it has answered.

        Args:
            path: without the prefix; ``*`` stands for anything.
            times: how many; None for all, until the gate is opened.
        """
        return self._add(Gate(method, path, at, shut=True, times=times))

    def cut(self, method: str, path: str, *, at: At = "answer", times: int | None = 1) -> Gate:
        """Cut the connections of a route: before the engine has seen the request, or instead of its answer."""
        return self._add(Gate(method, path, at, shut=False, times=times))

    def rewrite(self, method: str, path: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the JSON answers of a route, in place."""
        self.state.rewrites.append((method, path, change))

    def down(self) -> None:
        """There is no engine any more, for this client."""
        self.is_down.set()
        with self.state.lock:
            for connection in self.state.connections:
                _reset(connection)

    def up(self) -> None:
        """There is one again."""
        self.is_down.clear()

    def paths(self, method: str = "POST") -> list[str]:
        """What came by, oldest first."""
        return [passed.path for passed in list(self.state.seen) if passed.method == method]

    @property
    def sockets(self) -> int:
        """How many engine sockets were opened through it so far."""
        return self.state.tunnels

    def close(self) -> None:
        """Let everything go and stop."""
        self.over.set()
        for gate in self.state.gates:
            gate.cut()
        self.frames.set()
        self.down()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- what the connections ask of it

    def _add(self, gate: Gate) -> Gate:
        self.state.gates.append(gate)
        return gate

    def pass_gates(self, at: At, caught: list[Gate]) -> None:
        """Stand at each gate on the way that caught this request."""
        for gate in caught:
            if gate.at == at:
                gate.stand()
        if self.is_down.is_set():
            raise CutError


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: GateProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    @property
    def proxy(self) -> GateProxy:
        assert isinstance(self.server, _Server)
        return self.server.proxy

    def setup(self) -> None:
        super().setup()
        with self.proxy.state.lock:
            self.proxy.state.connections.add(self.connection)

    def finish(self) -> None:
        with self.proxy.state.lock:
            self.proxy.state.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _do(self) -> None:
        try:
            if self.headers.get("Upgrade", "").lower() == "websocket":
                self._tunnel()
            else:
                self._relay()
        except (CutError, OSError, http.client.HTTPException):
            self.close_connection = True
            _reset(self.connection)

    do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815 - http.server's names

    def _relay(self) -> None:
        proxy, state = self.proxy, self.proxy.state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path.removeprefix(wire.PREFIX)
        caught = [gate for gate in list(state.gates) if gate.catches(self.command, path)]
        key = self.headers.get(wire.IDEMPOTENCY_KEY)
        try:
            proxy.pass_gates("request", caught)
        except CutError:
            state.seen.append(Passed(self.command, path, key, None))
            raise
        answer, content = self._ask(body)
        state.seen.append(Passed(self.command, path, key, answer.status))
        for method, pattern, change in state.rewrites:
            if method == self.command and fnmatchcase(path, pattern):
                data = json.loads(content)
                change(data)
                content = json.dumps(data).encode()
        proxy.pass_gates("answer", caught)
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        upstream = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "accept-encoding"):
                    upstream.putheader(name, value)
            upstream.putheader("Connection", "close")
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            return answer, answer.read()
        finally:
            upstream.close()

    def _tunnel(self) -> None:
        """The engine's socket: bytes both ways, those of the engine only while frames may pass."""
        if self.proxy.is_down.is_set():
            raise CutError
        self.close_connection = True
        lines = [f"{self.command} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in self.headers.items()), "", ""]
        with socket.create_connection(self.proxy.upstream, timeout=30) as upstream:
            upstream.sendall("\r\n".join(lines).encode("latin-1"))
            self.proxy.state.tunnels += 1
            self._pump(upstream)

    def _pump(self, upstream: socket.socket) -> None:
        proxy = self.proxy
        with selectors.DefaultSelector() as ready:
            ready.register(self.connection, selectors.EVENT_READ, upstream)
            ready.register(upstream, selectors.EVENT_READ, self.connection)
            while not proxy.over.is_set() and not proxy.is_down.is_set():
                for key, _ in ready.select(0.05):
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    if source is upstream and not proxy.frames.is_set():
                        proxy.frames.wait(0.01)
                        continue
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    key.data.sendall(data)


def _reset(connection: socket.socket) -> None:
    """Cut it hard, as a process that was killed does."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is cut already
