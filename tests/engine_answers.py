"""What the engine answers, for tests that play the engine: records, tickets, sessions, and a stub that knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.http_stub import Reply, Seen
from utd_fsm.engine_api import EngineApi

APP_ID = "1234567890"
APP_KEY = "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"
BEARER = "eyJhbGciOiJIUzI1NiJ9.bearer-one.sig"
CALL_ID = "call_" + "0123456789abcdef01234567"
KEY = "7e57ab1e-0000-4000-8000-000000000000:1"
TICKET = {"token": "eyJhbGciOiJIUzI1NiJ9.room.sig", "url": "ws://127.0.0.1:7880"}


def record(
    status: str = "initiating", *, call_id: str = CALL_ID, version: int | None = 1, **other: Any
) -> dict[str, Any]:
    """A whole call record."""
    return {
        "id": 1,
        "call_id": call_id,
        "type": "audio_call",
        "status": status,
        "caller_identity": "alice",
        "callee_identity": "bob",
        "room_name": call_id,
        "version": version,
        **other,
    }


def session(token: str = BEARER, **other: Any) -> dict[str, Any]:
    """The answer of ``POST /auth/session``."""
    return {"user_token": token, **other}


def page(*rows: dict[str, Any]) -> dict[str, Any]:
    """One page of calls."""
    return {"data": list(rows), "pagination": {"page": 1, "per_page": 20, "total": len(rows), "total_pages": 1}}


def engine(answers: Callable[[Seen], Reply] | Reply, *, ws_url: str | None = None) -> Callable[[Seen], Reply]:
    """Signs everybody in, and leaves the rest to `answers`."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/api/v1/auth/session":
            return Reply(json=session(ws_url=ws_url))
        return answers(seen) if callable(answers) else answers

    return answer


def api_for(url: str, **other: Any) -> EngineApi:
    """A client of the engine at `url`."""
    return EngineApi(APP_ID, APP_KEY, base_url=url, **other)
