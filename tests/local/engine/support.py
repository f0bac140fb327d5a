"""A user of the engine's REST interface, by hand: nothing of the SDK's client is in it."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from utd_fsm import wire
from utd_fsm.local.engine.settings import EngineSettings
from utd_fsm.local.ports import free_port
from utd_fsm.local.processes import EngineProcess

APP_KEY = "0123456789abcdef0123456789abcdef"
APP_SECRET = "a backend's secret"
_count = itertools.count()


def somebody(stem: str = "user") -> str:
    """An identity no other test has."""
    return f"{stem}-{next(_count)}-{uuid.uuid4().hex[:6]}"


def settings(**changes: Any) -> EngineSettings:
    """Settings for a test: no limit, and a media server that isn't there unless one is given."""
    given: dict[str, Any] = {
        "app_key": APP_KEY,
        "app_secret": APP_SECRET,
        "rate_limit": 0,
        "port": free_port(),
        "media_url": "ws://127.0.0.1:1",
    }
    return EngineSettings(**{**given, **changes})


@contextmanager
def running(**changes: Any) -> Iterator[Site]:
    """An engine process of its own."""
    process = EngineProcess(settings(**changes))
    process.start()
    try:
        yield Site(process)
    finally:
        process.stop(hard=True)


@dataclass
class Site:
    """One running engine."""

    process: EngineProcess

    @property
    def api(self) -> str:
        return self.process.base_url + wire.PREFIX

    @property
    def app_headers(self) -> dict[str, str]:
        return {wire.APP_ID: self.process.settings.app_id, wire.APP_KEY: self.process.settings.app_key}

    def user(self, identity: str | None = None, device_id: str | None = None) -> User:
        """Somebody who has signed in."""
        identity = identity or somebody()
        body = {"identity": identity, **({"device_id": device_id} if device_id else {})}
        answer = requests.post(self.api + wire.AUTH_SESSION, json=body, headers=self.app_headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return User(self, identity, answer.json()["user_token"], answer.json()["ws_url"])

    def pair(self) -> tuple[User, User]:
        return self.user(somebody("alice")), self.user(somebody("bob"))


@dataclass
class User:
    """One identity with its bearer."""

    site: Site
    identity: str
    bearer: str = field(repr=False)
    ws_url: str

    def ask(self, method: str, path: str, *, key: str | None = None, **rest: Any) -> requests.Response:
        headers = {**self.site.app_headers, "Authorization": f"Bearer {self.bearer}"}
        if key is not None:
            headers[wire.IDEMPOTENCY_KEY] = key
        headers.update(rest.pop("headers", {}))
        return requests.request(method, self.site.api + path, headers=headers, timeout=30, **rest)

    def create(self, callee: str, *, key: str | None = None, **more: Any) -> requests.Response:
        body = {"caller_identity": self.identity, "callee_identity": callee, "type": "audio_call", **more}
        return self.ask("POST", wire.CALLS, json=body, key=key)

    def call(self, callee: User | str, **more: Any) -> str:
        answer = self.create(callee if isinstance(callee, str) else callee.identity, **more)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["call_id"])

    def do(self, route: str, call_id: str, *, key: str | None = None, **more: Any) -> requests.Response:
        """POST one verb."""
        body = {"identity": self.identity, **more}
        return self.ask("POST", route.replace("{id}", call_id), json=body, key=key)

    def read(self, call_id: str) -> dict[str, Any]:
        answer = self.ask("GET", wire.CALL.replace("{id}", call_id))
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def status(self, call_id: str) -> str:
        return str(self.read(call_id)["status"])


def until(condition: Callable[[], Any], *, within: float = 60, every: float = 0.02) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {within} s"
        time.sleep(every)
    return value


@dataclass
class Delivered:
    """One webhook as it arrived."""

    headers: dict[str, str]
    raw: bytes
    at: float

    @property
    def body(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.raw)
        return content


class Backend:
    """An application's backend: keeps what it is told, and answers as the test says."""

    def __init__(self) -> None:
        self.seen: list[Delivered] = []
        self.answers: list[int] = []
        """Statuses for the next requests; 200 when empty."""
        self.gate = threading.Event()
        self.gate.set()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                backend.seen.append(Delivered(dict(self.headers), raw, time.monotonic()))
                backend.gate.wait(60)
                status = backend.answers.pop(0) if backend.answers else 200
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    pass  # the engine no longer waits

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def events(self, call_id: str | None = None) -> list[str]:
        return [
            d.body["event"]
            for d in list(self.seen)
            if call_id is None or d.body.get("call", {}).get("call_id") == call_id
        ]
