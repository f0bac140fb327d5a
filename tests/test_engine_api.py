"""Every route: what is sent, how whole and short answers are read, and what a refusal becomes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.engine_answers import APP_ID, APP_KEY, BEARER, CALL_ID, KEY, TICKET, api_for, engine, page, record, session
from tests.http_stub import HttpStub, Reply, Seen, http_stub
from utd_fsm.engine_api import Credentials, EngineApi
from utd_fsm.errors import (
    UTDConflictError,
    UTDEngineError,
    UTDForbiddenError,
    UTDInputError,
    UTDPermissionError,
    UTDProtocolError,
    UTDStateError,
)
from utd_fsm.models import UTDCallStatus, UTDStreamType

ROUTES: dict[str, tuple[Callable[[EngineApi, Credentials], Any], str, Any]] = {
    "room_token": (
        lambda api, cred: api.room_token(cred, "lobby", "audio_room"),
        "POST /token",
        {**TICKET, "room_name": "lobby", "user_token": BEARER},
    ),
    "create": (
        lambda api, cred: api.create_call(cred, "bob", "audio_call", key=KEY),
        "POST /calls",
        {**record(), **TICKET},
    ),
    "ring": (lambda api, cred: api.ring(cred, CALL_ID), f"POST /calls/{CALL_ID}/ringing", record("ringing")),
    "accept": (
        lambda api, cred: api.accept(cred, CALL_ID, key=KEY),
        f"POST /calls/{CALL_ID}/accept",
        {**record("active"), **TICKET},
    ),
    "reject": (
        lambda api, cred: api.reject(cred, CALL_ID, key=KEY), f"POST /calls/{CALL_ID}/reject", record("rejected"),
    ),
    "busy": (lambda api, cred: api.busy(cred, CALL_ID, key=KEY), f"POST /calls/{CALL_ID}/busy", record("busy")),
    "end": (lambda api, cred: api.end(cred, CALL_ID, key=KEY), f"POST /calls/{CALL_ID}/end", record("ended")),
    "rejoin": (
        lambda api, cred: api.rejoin(cred, CALL_ID), f"POST /calls/{CALL_ID}/token", {**record("active"), **TICKET},
    ),
    "call": (lambda api, cred: api.call(cred, CALL_ID), f"GET /calls/{CALL_ID}", record()),
    "calls": (lambda api, cred: api.calls(cred), "GET /calls", page(record())),
    "call_by_key": (lambda api, cred: api.call_by_key(cred, KEY), "GET /calls", page(record())),
}  # fmt: skip


def always(reply: Reply) -> Callable[[Seen], Reply]:
    return lambda seen: reply


def ask(stub: HttpStub, name: str) -> Any:
    api = api_for(stub.url)
    cred = api.authenticate("alice", name="Alice", device_id="phone")
    stub.seen.clear()
    return ROUTES[name][0](api, cred)


@pytest.mark.parametrize("name", ROUTES)
def test_a_whole_answer_takes_one_request(name: str) -> None:
    _, route, answer = ROUTES[name]
    with http_stub(engine(Reply(json=answer))) as stub:
        ask(stub, name)
        assert stub.paths() == [route]
        headers = stub.seen[0].headers
    assert headers["x-app-id"] == APP_ID
    assert headers["x-app-key"] == APP_KEY
    assert headers["user-agent"].startswith("utd-fsm/")
    assert headers.get("authorization") == (None if name == "room_token" else f"Bearer {BEARER}")
    assert "cookie" not in headers


@pytest.mark.parametrize("name", [name for name in ROUTES if name != "room_token"])
def test_the_key_travels_as_a_header_where_the_request_has_one(name: str) -> None:
    with http_stub(engine(Reply(json=ROUTES[name][2]))) as stub:
        ask(stub, name)
        keyed = name in ("create", "accept", "reject", "busy", "end")
        assert stub.seen[0].headers.get("idempotency-key") == (KEY if keyed else None)


def test_authenticate() -> None:
    answer = session(ws_url="ws://127.0.0.1:1/socket", signaling_enabled=None, limits={"calls": 3})
    with http_stub(Reply(json=answer)) as stub:
        api = api_for(stub.url)
        first, second = api.authenticate("alice", name="Alice"), api.authenticate("bob", device_id="phone")
        assert stub.paths() == ["POST /auth/session"] * 2
        assert stub.seen[0].body["identity"] == "alice"
        assert stub.seen[0].body["name"] == "Alice"
        assert stub.seen[0].body["device_id"] == first.device_id == api.device_id
        assert stub.seen[1].body["device_id"] == second.device_id == "phone"
    assert (first.identity, first.name, first.bearer) == ("alice", "Alice", BEARER)
    assert first.ws_url == "ws://127.0.0.1:1/socket"
    assert first.signaling_enabled is None  # unknown, and not False
    assert first.info.limits == {"calls": 3}


def test_what_a_create_sends() -> None:
    with http_stub(engine(Reply(201, json={**record(), **TICKET}))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice", name="Alice")
        api.create_call(cred, "bob", UTDStreamType.VIDEO_CALL, callee_name="Bob", metadata={"order": 17}, key=KEY)
        body = stub.seen[-1].body
    assert body.pop("os")
    assert body == {
        "caller_identity": "alice",
        "callee_identity": "bob",
        "caller_name": "Alice",
        "callee_name": "Bob",
        "type": "video_call",
        "metadata": {"order": 17},
    }


def test_a_short_create_answer_is_filled_in_from_what_was_asked() -> None:
    short = {"call_id": CALL_ID, "status": "initiating", "room_name": CALL_ID, **TICKET}
    with http_stub(engine(Reply(201, json=short))) as stub:
        api = api_for(stub.url)
        ticket = api.create_call(api.authenticate("alice"), "bob", "video", metadata={"order": 17}, key=KEY)
        assert stub.paths() == ["POST /auth/session", "POST /calls"]
    assert ticket.call.call_id == CALL_ID
    assert ticket.call.type is UTDStreamType.VIDEO_CALL
    assert (ticket.call.caller_identity, ticket.call.callee_identity) == ("alice", "bob")
    assert ticket.call.metadata == {"order": 17}
    assert ticket.token == TICKET["token"]


@pytest.mark.parametrize("name", ["ring", "accept", "reject", "busy", "end", "rejoin"])
def test_a_short_answer_is_filled_in_by_a_look(name: str) -> None:
    _, route, answer = ROUTES[name]
    short = {"call_id": CALL_ID, "status": answer["status"], **(TICKET if "token" in answer else {})}

    def answers(seen: Seen) -> Reply:
        return Reply(json=record(answer["status"], version=7) if seen.method == "GET" else short)

    with http_stub(engine(answers)) as stub:
        result = ask(stub, name)
        assert stub.paths() == [route, f"GET /calls/{CALL_ID}"]
    call = getattr(result, "call", result)
    assert call.status == answer["status"]
    assert call.version == 7
    if name in ("accept", "rejoin"):
        assert (result.url, result.token) == (TICKET["url"], TICKET["token"])


def test_a_short_accept_needs_no_look_where_the_record_is_known() -> None:
    with http_stub(engine(Reply(json=record("ringing")))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("bob")
        known = api.call(cred, CALL_ID)
        stub.seen.clear()
        stub.answer = lambda _: Reply(json={"call_id": CALL_ID, "status": "active", **TICKET})
        ticket = api.accept(cred, CALL_ID, key=KEY, record=known)
        assert stub.paths() == [f"POST /calls/{CALL_ID}/accept"]
    assert ticket.call.status is UTDCallStatus.ACTIVE
    assert ticket.call.caller_identity == "alice"


def test_a_look_with_a_key_seals() -> None:
    with http_stub(engine(Reply(json=record()))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        api.call(cred, CALL_ID, key=KEY)
        assert stub.seen[-1].headers["idempotency-key"] == KEY


def test_a_call_found_by_its_key_or_not_at_all() -> None:
    with http_stub(engine(Reply(json=page(record())))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        found = api.call_by_key(cred, KEY)
        assert found is not None
        assert found.call_id == CALL_ID
        assert parse_qs(urlsplit(stub.seen[-1].path).query) == {"key": [KEY]}
        stub.answer = lambda _: Reply(json=page())
        assert api.call_by_key(cred, KEY) is None
        stub.answer = lambda _: Reply(404, json={"message": "no such call"})
        assert api.call_by_key(cred, KEY) is None
        stub.answer = lambda _: Reply(500, json={"message": "broken"})
        with pytest.raises(UTDEngineError):
            api.call_by_key(cred, KEY)


def test_what_a_list_asks_for() -> None:
    with http_stub(engine(Reply(json=page(record(), record(call_id="call_" + "f" * 24))))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        calls = api.calls(
            cred,
            status="ended",
            type=UTDStreamType.AUDIO_CALL,
            identity="bob",
            start_date=datetime(2026, 11, 1, 12, tzinfo=UTC),
            end_date=date(2026, 11, 23),
            page=2,
            per_page=50,
        )
        assert parse_qs(urlsplit(stub.seen[-1].path).query) == {
            "status": ["ended"],
            "type": ["audio_call"],
            "identity": ["bob"],
            "start_date": ["2026-11-01T12:00:00+00:00"],
            "end_date": ["2026-11-23"],
            "page": ["2"],
            "per_page": ["50"],
        }
    assert [call.call_id for call in calls.calls] == [CALL_ID, "call_" + "f" * 24]
    assert (calls.total, calls.total_pages) == (2, 1)


def test_what_a_room_token_sends() -> None:
    answer = {**TICKET, "room_name": "lobby", "user_token": BEARER, "ws_url": None}
    with http_stub(engine(Reply(json=answer))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice", name="Alice", device_id="phone")
        token = api.room_token(cred, "lobby", "audio_room", "host", seat_count=8, seat_mode="request")
        body = stub.seen[-1].body
        api.room_token("bob", "lobby", "live_stream")
        assert stub.seen[-1].body["identity"] == "bob"
        assert stub.seen[-1].body["role"] == "audience"
    assert body["identity"] == "alice"
    assert body["name"] == "Alice"
    assert body["device_id"] == "phone"
    assert (body["role"], body["seat_count"], body["seat_mode"]) == ("host", 8, "request")
    assert len(body["device_model"]) <= 100
    assert "image" not in body
    assert token.room_name == "lobby"
    assert token.user_token == BEARER


@pytest.mark.parametrize(
    ("body", "code", "state"),
    [
        ({"message": "callee is on another call"}, None, "busy"),
        ({"message": "callee is on another call", "code": "callee_busy", "status": "active"}, "callee_busy", "busy"),
        ({"message": "you are on a call", "code": "caller_busy"}, "caller_busy", None),
        ({"message": "an older request", "code": "superseded"}, "superseded", None),
    ],
)
def test_a_create_to_somebody_who_is_on_a_call(body: dict[str, Any], code: str | None, state: str | None) -> None:
    with http_stub(engine(Reply(409, json=body))) as stub, pytest.raises(UTDConflictError) as caught:
        ask(stub, "create")
    assert (caught.value.code, caught.value.state) == (code, state)


def test_a_lost_race_is_a_state_error_with_the_engines_state() -> None:
    body = {"message": "the call was cancelled", "code": "illegal_transition", "status": "ended"}
    with http_stub(engine(Reply(409, json=body))) as stub, pytest.raises(UTDStateError) as caught:
        ask(stub, "accept")
    assert caught.value.state == "ended"
    assert caught.value.status_code == 409
    assert "the call was cancelled" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (403, {"message": "User is banned"}, UTDForbiddenError, "User is banned"),
        (403, {"message": "you are banned here", "code": "banned"}, UTDForbiddenError, "you are banned here"),
        (403, {"message": "User is banned", "code": "no_entry"}, UTDForbiddenError, "User is banned"),
        (403, {"message": "she is banned", "code": "target_banned"}, UTDForbiddenError, "she is"),
        (403, {"error": "video calls are not enabled"}, UTDPermissionError, "video calls are not enabled"),
        (404, {"detail": "no such call"}, UTDEngineError, "no such call"),
        (422, {"detail": [{"msg": "field required"}, {"msg": "too long"}]}, UTDEngineError, "field required; too long"),
        (400, "bad", UTDEngineError, "bad"),
        (500, None, UTDEngineError, "500 Internal Server Error"),
        (418, [1, 2], UTDEngineError, "418"),
        (599, {"message": 7}, UTDEngineError, "599"),
    ],
)
def test_refusals(status: int, body: Any, kind: type[UTDEngineError], text: str) -> None:
    with http_stub(engine(Reply(status, json=body))) as stub, pytest.raises(kind) as caught:
        ask(stub, "end")
    assert text in str(caught.value)
    assert "POST /calls/:id/end" in str(caught.value)
    assert caught.value.status_code == status
    assert caught.value.is_banned == ("banned" in text)
    assert caught.value.is_feature_disabled == ("not enabled" in text)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", b"engine is away", "engine is away"),
        ("text/html", b"<html>gateway trouble</html>", "500 Internal Server Error"),
        ("text/plain", b"\xff\xfe\r\nforged log line", "forged"),
    ],
)
def test_refusals_that_are_no_json(content_type: str, body: bytes, text: str) -> None:
    reply = Reply(500, body=body, headers={"Content-Type": content_type})
    with http_stub(engine(reply)) as stub, pytest.raises(UTDEngineError) as caught:
        ask(stub, "end")
    assert text in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_engines_words_are_scrubbed() -> None:
    reply = Reply(422, json={"message": f"bad token {BEARER} for key {APP_KEY}"})
    with http_stub(engine(reply)) as stub, pytest.raises(UTDEngineError) as caught:
        ask(stub, "end")
    assert BEARER not in str(caught.value)
    assert APP_KEY not in str(caught.value)


@pytest.mark.parametrize("status", [204, 200])
def test_an_empty_answer_is_malformed(status: int) -> None:
    with http_stub(engine(Reply(status))) as stub, pytest.raises(UTDProtocolError) as caught:
        ask(stub, "end")
    assert (caught.value.route, caught.value.field) == ("POST /calls/:id/end", "body")


def test_a_create_answer_without_an_id_is_malformed() -> None:
    reply = Reply(201, json={"status": "initiating", **TICKET})
    with http_stub(engine(reply)) as stub, pytest.raises(UTDProtocolError) as caught:
        ask(stub, "create")
    assert (caught.value.route, caught.value.field) == ("POST /calls", "call_id")


def test_health() -> None:
    with http_stub(Reply(json={"status": "ok"})) as stub:
        api = api_for(stub.url)
        assert api.health() is True
        assert stub.paths() == ["GET /health"]
        for answer in (
            Reply(json={"status": "starting"}),
            Reply(503),
            Reply(body=b"<"),
            Reply(reset=True),
            Reply(json=[]),
        ):
            stub.answer = always(answer)
            assert api.health() is False


def test_two_hosts_or_one_override() -> None:
    with http_stub(engine(Reply(json=record()))) as tokens, http_stub(engine(Reply(json=record()))) as rest:
        api = EngineApi(APP_ID, APP_KEY, base_url=rest.url, token_base_url=tokens.url)
        api.call(api.authenticate("alice"), CALL_ID)
        assert tokens.paths() == ["POST /auth/session"]
        assert rest.paths() == [f"GET /calls/{CALL_ID}"]
    hosted = EngineApi(APP_ID, APP_KEY)
    assert hosted.base_url == "https://engine.udt-stream.com"
    assert hosted.token_base_url == "https://udt-stream.com"
    assert api_for("http://127.0.0.1:9").token_base_url == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "arguments",
    [
        ("123", APP_KEY, {}),
        (APP_ID, "key", {}),
        (APP_ID, APP_KEY, {"base_url": "http://engine.example.com"}),
        (APP_ID, APP_KEY, {"base_url": "http://127.0.0.1/api/v1"}),
        (APP_ID, APP_KEY, {"token_base_url": "ftp://x"}),
    ],
)
def test_bad_arguments_of_the_client(arguments: tuple[str, str, dict[str, str]]) -> None:
    app_id, app_key, urls = arguments
    with pytest.raises(UTDInputError):
        EngineApi(app_id, app_key, **urls)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda api, cred: api.authenticate(""),
        lambda api, cred: api.authenticate("alice", name="a\nb"),
        lambda api, cred: api.authenticate("alice", device_id=""),
        lambda api, cred: api.create_call(cred, "", "audio_call", key=KEY),
        lambda api, cred: api.create_call(cred, "bob", "live_stream", key=KEY),
        lambda api, cred: api.create_call(cred, "bob", "audio_call", metadata={1: 2}, key=KEY),
        lambda api, cred: api.create_call(cred, "bob", "audio_call", key="with blank"),
        lambda api, cred: api.call(cred, ""),
        lambda api, cred: api.call(cred, ".."),
        lambda api, cred: api.call(cred, "\ud800"),
        lambda api, cred: api.end(cred, ".", key=KEY),
        lambda api, cred: api.calls(cred, status="gone"),
        lambda api, cred: api.calls(cred, per_page=101),
        lambda api, cred: api.calls(cred, page=0),
        lambda api, cred: api.calls(cred, start_date="yesterday"),
        lambda api, cred: api.room_token(cred, "", "audio_room"),
        lambda api, cred: api.room_token(cred, "lobby", "audio_room", seat_count=0),
    ],
)
def test_bad_input_sends_nothing(wrong: Callable[[EngineApi, Credentials], Any]) -> None:
    with http_stub(engine(Reply(500))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        stub.seen.clear()
        with pytest.raises(UTDInputError):
            wrong(api, cred)
        assert stub.seen == []


def test_an_id_with_a_slash_stays_one_part_of_the_path() -> None:
    with http_stub(engine(Reply(404, json={"message": "no"}))) as stub, pytest.raises(UTDEngineError):
        api = api_for(stub.url)
        api.call(api.authenticate("alice"), "a/../b?c#d")
    assert stub.seen[-1].path == "/api/v1/calls/a%2F..%2Fb%3Fc%23d"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_starts_with_connections_of_its_own() -> None:
    with http_stub(engine(Reply(json=record()))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        held = threading.Event()
        release = threading.Event()

        def hold_the_locks() -> None:
            with cred._lock, api._requests._pool._lock:
                held.set()
                release.wait(30)

        holder = threading.Thread(target=hold_the_locks)
        holder.start()
        held.wait(30)
        child = os.fork()
        if child == 0:
            good = False
            try:
                good = api.call(cred, CALL_ID, deadline=10).call_id == CALL_ID
            finally:
                os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        release.set()
        holder.join()
        assert os.waitstatus_to_exitcode(status) == 0
        assert api.call(cred, CALL_ID).call_id == CALL_ID
