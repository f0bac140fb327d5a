"""A misbehaving engine in front of a real one: chosen answers are replaced, everything else passes."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.http_stub import HttpStub, Reply, Seen
from utd_fsm import wire
from utd_fsm.testing import LocalEngine

Spoil = Callable[[bytes], Reply]


class BadEngine:
    """What one client takes for its engine. Any thread."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname
        assert parts.port
        self._upstream = parts.hostname, parts.port
        self._spoilt: list[tuple[str, str, Spoil, bool]] = []
        self._stub = HttpStub(self._answer)
        self.url = self._stub.url
        self.frames = Frames()

    def spoil(self, method: str, path: str, reply: Reply | Spoil, *, applied: bool = False) -> None:
        """Replace the answers of a route; ``applied``: the engine is asked all the same, and only its answer lost."""
        self._spoilt.append((method, path, reply if callable(reply) else lambda _: reply, applied))

    def mend(self) -> None:
        """Everything passes again."""
        self._spoilt.clear()

    def paths(self) -> list[str]:
        """What was asked for, oldest first."""
        return self._stub.paths()

    def headers(self, path: str) -> list[dict[str, str]]:
        """The headers of the requests of one route, oldest first."""
        return [seen.headers for seen, name in zip(list(self._stub.seen), self.paths(), strict=False) if name == path]

    def close(self) -> None:
        self._stub.close()
        self.frames.close()

    def _answer(self, seen: Seen) -> Reply:
        path = seen.path.split("?")[0].removeprefix(wire.PREFIX)
        for method, pattern, reply, applied in list(self._spoilt):
            if method == seen.method and fnmatchcase(path, pattern):
                return reply(self._ask(seen).body if applied else b"")
        answer = self._ask(seen)
        if path == wire.AUTH_SESSION and answer.status == 200:
            data = json.loads(answer.body)
            if data.get("ws_url"):
                data["ws_url"] = self.frames.in_front_of(data["ws_url"])
            return Reply(json=data)
        return answer

    def _ask(self, seen: Seen) -> Reply:
        upstream = http.client.HTTPConnection(*self._upstream, timeout=30)
        try:
            body = None if seen.body is None else json.dumps(seen.body).encode()
            skip = ("host", "connection", "content-length", "accept-encoding")
            headers = {name: value for name, value in seen.headers.items() if name not in skip}
            upstream.request(seen.method, seen.path, body, headers)
            answer = upstream.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() == "retry-after"}
            return Reply(status=answer.status, body=answer.read(), headers=kept)
        finally:
            upstream.close()


class Frames:
    """The engine's socket: passes its frames on, and says what a test has it say."""

    def __init__(self) -> None:
        self._url = ""
        self._clients: list[ServerConnection] = []
        self._server = serve(self._serve, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def in_front_of(self, url: str) -> str:
        """Where to listen instead."""
        self._url = url
        port = self._server.socket.getsockname()[1]
        return f"ws://127.0.0.1:{port}/?{urlsplit(url).query}"

    def say(self, frame: str | bytes) -> bool:
        """Send one frame to whoever listens; whether somebody does."""
        said = False
        for client in list(self._clients):
            try:
                client.send(frame)
                said = True
            except ConnectionClosed:
                with contextlib.suppress(ValueError):  # its own thread may have been faster
                    self._clients.remove(client)
        return said

    @property
    def listeners(self) -> int:
        return len(self._clients)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5)

    def _serve(self, client: ServerConnection) -> None:
        parts, asked = urlsplit(self._url), client.request
        assert asked is not None
        url = f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        headers = {"Authorization": asked.headers["Authorization"]} if "Authorization" in asked.headers else None
        with connect(url, additional_headers=headers) as upstream:

            def up() -> None:
                try:
                    for frame in client:
                        upstream.send(frame)
                except ConnectionClosed:
                    pass
                upstream.close()

            threading.Thread(target=up, daemon=True).start()
            self._clients.append(client)
            try:
                for frame in upstream:
                    client.send(frame)
            except ConnectionClosed:
                pass
            finally:
                if client in self._clients:
                    self._clients.remove(client)


@contextmanager
def bad_engine(engine: LocalEngine) -> Iterator[BadEngine]:
    """One in front of `engine`, for the length of a block."""
    made = BadEngine(engine.base_url)
    try:
        yield made
    finally:
        made.close()


def junk(**good: Any) -> list[tuple[str, Reply]]:
    """Answers that are none: no JSON, no object, and a good one with one field at a time missing or wrong."""
    made = [
        (name, Reply(body=body))
        for name, body in {
            "empty": b"",
            "html": b"<html>hello</html>",
            "half": b'{"call_id": "call_0123',
            "latin": b'{"call_id": "\xff\xfe"}',
            "list": b"[]",
            "null": b"null",
            "text": b'"ok"',
            "number": b"1e999",
            "nothing in it": b"{}",
            "deep": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
        }.items()
    ]
    wrongs: tuple[Any, ...] = (None, 7, "", [], {}, "flying\ud800")
    for field in good:
        made += [(f"{field} {wrong!r:.12}", Reply(json={**good, field: wrong})) for wrong in wrongs]
        made.append((f"no {field}", Reply(json={name: value for name, value in good.items() if name != field})))
    return made
