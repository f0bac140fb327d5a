"""Whatever is sent, the engine answers 2xx or 4xx in its one shape, never a 5xx, and keeps running."""

from __future__ import annotations

import json
from typing import Any

import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utd_fsm import wire

from .support import Site, User

FEW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["alice", "audio_call", "live_stream", "host", "", "\x00", "\ud800", "x" * 300, "voice"]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = (
    "identity", "caller_identity", "callee_identity", "caller_name", "callee_name", "type", "metadata", "os", "name",
    "device_id", "room_name", "role", "room_owner_id", "seat_count", "seat_mode", "host_seat", "mode_id", "image",
    "os_version", "app_version", "device_model",
)  # fmt: skip
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8)
ROUTES = (wire.TOKEN, wire.AUTH_SESSION, wire.CALLS, wire.CALL_RINGING, wire.CALL_ACCEPT, wire.CALL_REJECT,
          wire.CALL_BUSY, wire.CALL_END, wire.CALL_TOKEN)  # fmt: skip


def sane(answer: requests.Response) -> None:
    assert answer.status_code < 500, (answer.request.method, answer.request.url, answer.request.body, answer.text)
    content = answer.json()
    if answer.status_code >= 400:
        assert isinstance(content["message"], str)
        assert content["message"]


def opened(site: Site) -> tuple[User, str]:
    alice, bob = site.pair()
    return alice, alice.call(bob)


class Session:
    """One user and one open call for all examples of a test."""

    def __init__(self, site: Site) -> None:
        self.user, self.call_id = opened(site)
        self.http = requests.Session()

    def send(self, method: str, path: str, **rest: Any) -> requests.Response:
        headers = {
            **self.user.site.app_headers,
            "Authorization": f"Bearer {self.user.bearer}",
            "Content-Type": "application/json",
            **rest.pop("headers", {}),
        }
        return self.http.request(method, self.user.site.api + path, headers=headers, timeout=60, **rest)


def test_bodies_of_every_route(site: Site) -> None:
    session = Session(site)

    @FEW
    @given(route=st.sampled_from(ROUTES), body=bodies, mine=st.sampled_from(["identity", "caller_identity", None]))
    def run(route: str, body: dict[str, Any], mine: str | None) -> None:
        if mine is not None:  # gets past the bearer's check, to what lies behind it
            body = {**body, mine: session.user.identity}
        sane(session.send("POST", route.replace("{id}", session.call_id), data=json.dumps(body).encode()))

    run()


def test_raw_bodies(site: Site) -> None:
    session = Session(site)

    @FEW
    @given(route=st.sampled_from(ROUTES), body=st.binary(max_size=200) | st.text(max_size=50).map(
        lambda text: json.dumps(text).encode()
    ))  # fmt: skip
    def run(route: str, body: bytes) -> None:
        sane(session.send("POST", route.replace("{id}", session.call_id), data=body))

    run()


def test_queries_paths_and_keys(site: Site) -> None:
    session = Session(site)
    words = st.text(max_size=12) | st.sampled_from(
        ["0", "1", "-1", "1e9", "9" * 30, "active", "video", "2026-01-01", "2026-13-01", "0001-01-01T00:00:00+14:00",
         "9999-12-31T23:59:59-14:00"]
    )  # fmt: skip
    names = st.sampled_from(["status", "type", "identity", "start_date", "end_date", "page", "per_page", "key", "x"])
    keys = st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=45)

    @FEW
    @given(
        query=st.dictionaries(names, words.filter(lambda w: w.encode(errors="ignore").decode() == w), max_size=4),
        tail=st.sampled_from(["", "/x", "/%00", "/%ff", "/" + "y" * 300, "/../calls"]),
        key=keys,
    )
    def run(query: dict[str, str], tail: str, key: str | None) -> None:
        headers = {} if key is None else {wire.IDEMPOTENCY_KEY: key}
        sane(session.send("GET", wire.CALLS + tail, params=query, headers=headers))

    run()


def test_credentials(site: Site) -> None:
    printable = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60).map(str.strip)
    session = Session(site)

    @FEW
    @given(bearer=printable, app=printable)
    def run(bearer: str, app: str) -> None:
        headers = {"Authorization": f"Bearer {bearer}".strip().encode("latin-1"), wire.APP_ID: app.encode("latin-1")}
        answer = session.send("GET", wire.CALLS, headers=headers)
        assert answer.status_code == 401
        sane(answer)

    run()


def test_it_still_runs(site: Site) -> None:
    assert requests.get(site.api + wire.HEALTH, timeout=60).json() == {"status": "ok"}
    assert "Traceback" not in site.process.output
