"""Every route of the engine, on a real process, where it goes well and where it does not."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import jwt
import pytest
import requests

from utd_fsm import wire
from utd_fsm.models import UTDCallStatus

from .support import APP_SECRET, Site, User, running, somebody

NOWHERE = "call_" + "0" * 24


def ended(answer: requests.Response, status: int, code: str | None = None, state: str | None = None) -> None:
    """The answer is this refusal, in the one shape all refusals have."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert content["message"]
    if code is not None:
        assert content["code"] == code
    if state is not None:
        assert content["status"] == state


def test_health_needs_nothing(site: Site) -> None:
    answer = requests.get(site.api + wire.HEALTH, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {wire.APP_ID: "1234567890"},
        {wire.APP_ID: "1234567890", wire.APP_KEY: "wrong"},
        {wire.APP_ID: "1234567891", wire.APP_KEY: "0123456789abcdef0123456789abcdef"},
        {wire.APP_ID: "1234567890", wire.APP_KEY: "0123456789abcdef0123456789abcdef", wire.APP_SECRET: "wrong"},
    ],
)
@pytest.mark.parametrize("route", [wire.AUTH_SESSION, wire.TOKEN])
def test_the_application_must_name_itself(site: Site, headers: dict[str, str], route: str) -> None:
    body = {"identity": "x", "room_name": "r", "type": "audio_room"}
    ended(requests.post(site.api + route, json=body, headers=headers, timeout=30), 401, "bad_app")


def test_a_session_gives_a_bearer_and_the_socket(site: Site) -> None:
    body = {"identity": somebody(), "name": "Ann", "os": "Linux"}
    answer = requests.post(site.api + wire.AUTH_SESSION, json=body, headers=site.app_headers, timeout=30)
    info = wire.read_session(answer.json())
    assert info.ws_url == site.api.replace("http", "ws") + wire.SOCKET
    assert info.signaling_enabled is True
    assert info.limits["ring_timeout_seconds"] == 30


@pytest.mark.parametrize("bearer", ["", "nonsense", "u1.x.y", "u1..", "u1.W10.AAAA", "eyJhbGciOiJub25lIn0.e30."])
def test_a_forged_bearer_is_refused(site: Site, bearer: str) -> None:
    user = User(site, "x", bearer, "")
    ended(user.ask("GET", wire.CALLS), 401)


def test_a_bearer_expires() -> None:
    with running(bearer_ttl=1) as site:
        user = site.user()
        assert user.ask("GET", wire.CALLS).status_code == 200
        time.sleep(2.1)
        ended(user.ask("GET", wire.CALLS), 401, "bearer_expired")


def test_a_bearer_speaks_for_its_own_identity_only(site: Site) -> None:
    alice, bob = site.pair()
    changed = alice.bearer[:-2] + ("AA" if alice.bearer[-2:] != "AA" else "BB")
    ended(User(site, alice.identity, changed, "").ask("GET", wire.CALLS), 401, "bad_bearer")
    body = {"caller_identity": bob.identity, "callee_identity": "c", "type": "audio_call"}
    ended(alice.ask("POST", wire.CALLS, json=body), 403, "wrong_identity")
    ended(alice.ask("GET", wire.CALLS, params={"identity": bob.identity}), 403, "wrong_identity")
    end = wire.CALL_END.replace("{id}", NOWHERE)
    ended(alice.ask("POST", end, json={"identity": bob.identity}), 403, "wrong_identity")


def test_a_whole_call(site: Site) -> None:
    alice, bob = site.pair()
    answer = alice.create(
        bob.identity, type="video_call", caller_name="Alice", callee_name="Bob", metadata={"order": 17, "é": "\u20ac"}
    )
    assert answer.status_code == 201
    ticket = wire.read_ticket(answer.json(), "POST /calls")
    call = ticket.call
    assert re.fullmatch(r"call_[0-9a-f]{24}", call.call_id)
    assert (call.status, call.room_name, call.version) == (UTDCallStatus.INITIATING, call.call_id, 1)
    assert (call.caller_name, call.callee_name, call.metadata) == ("Alice", "Bob", {"order": 17, "é": "\u20ac"})
    assert ticket.url == site.process.settings.media_url

    rang = bob.do(wire.CALL_RINGING, call.call_id)
    assert wire.read_call(rang.json(), "ringing").version == 2
    again = bob.do(wire.CALL_RINGING, call.call_id)
    assert again.json() == rang.json()

    answer = bob.do(wire.CALL_ACCEPT, call.call_id, device_id="phone", os="Linux")
    accepted = wire.read_ticket(answer.json(), "accept").call
    assert (accepted.status, accepted.answered_by, accepted.version) == (UTDCallStatus.ACTIVE, "phone", 3)

    for user, device in ((alice, "any"), (bob, "phone")):
        back = wire.read_ticket(user.do(wire.CALL_TOKEN, call.call_id, device_id=device).json(), "token")
        assert back.call == accepted
    ended(bob.do(wire.CALL_TOKEN, call.call_id, device_id="tablet"), 409, wire.ANSWERED_ELSEWHERE, "active")

    answer = bob.do(wire.CALL_END, call.call_id, device_id="phone")
    over = wire.read_call(answer.json(), "end")
    assert (over.status, over.end_reason, over.version) == (UTDCallStatus.ENDED, "callee_hangup", 4)
    assert over.duration is not None
    assert wire.read_call(alice.read(call.call_id), "read") == over
    ended(alice.do(wire.CALL_TOKEN, call.call_id), 409, wire.ILLEGAL_TRANSITION, "ended")


def test_a_token_grants_what_a_call_needs_and_no_more(site: Site) -> None:
    alice, bob = site.pair()
    secret = site.process.settings.livekit_secret
    for kind, sources in (
        ("audio_call", ["microphone"]),
        ("video_call", ["microphone", "camera", "screen_share", "screen_share_audio"]),
    ):
        answer = alice.create(bob.identity, type=kind, caller_name="Alice").json()
        claims = jwt.decode(answer["token"], secret, algorithms=["HS256"])
        assert claims["sub"] == alice.identity
        assert claims["name"] == "Alice"
        assert claims["exp"] - claims["nbf"] == 3600
        assert json.loads(claims["metadata"])["role"] == "caller"
        assert claims["roomConfig"] == {"maxParticipants": 2, "departureTimeout": 70, "emptyTimeout": 110}
        assert claims["video"] == {
            "roomJoin": True, "room": answer["call_id"], "canPublish": True, "canSubscribe": True,
            "canPublishData": True, "canPublishSources": sources, "canUpdateOwnMetadata": False, "hidden": False,
            "canSubscribeMetrics": False, "canManageAgentSession": False,
        }  # fmt: skip
        alice.do(wire.CALL_END, answer["call_id"])


@pytest.mark.parametrize(
    ("route", "status"),
    [
        (wire.CALL_RINGING, "ringing"),
        (wire.CALL_ACCEPT, "active"),
        (wire.CALL_REJECT, "rejected"),
        (wire.CALL_BUSY, "busy"),
    ],
)
def test_only_the_callee(site: Site, route: str, status: str) -> None:
    alice, bob = site.pair()
    stranger = site.user()
    call_id = alice.call(bob)
    ended(alice.do(route, call_id), 403, "only_callee")
    ended(stranger.do(route, call_id), 403, "not_a_party")
    assert bob.read(call_id)["version"] == 1
    ended(bob.do(route, NOWHERE), 404, "not_found")
    assert bob.do(route, call_id).json()["status"] == status


def test_what_is_refused_changes_nothing(site: Site) -> None:
    alice, bob = site.pair()
    stranger = site.user()
    call_id = alice.call(bob)
    before = alice.read(call_id)
    ended(bob.do(wire.CALL_END, call_id), 409, wire.NOT_ANSWERED, "initiating")
    ended(stranger.do(wire.CALL_END, call_id), 403, "not_a_party")
    ended(stranger.ask("GET", wire.CALL.replace("{id}", call_id)), 403, "not_a_party")
    ended(bob.do(wire.CALL_TOKEN, call_id), 409, wire.NOT_ANSWERED, "initiating")
    assert alice.read(call_id) == before
    alice.do(wire.CALL_END, call_id)
    before = alice.read(call_id)
    assert before["end_reason"] == "caller_cancelled"
    for user, route in ((bob, wire.CALL_RINGING), (bob, wire.CALL_ACCEPT), (bob, wire.CALL_REJECT),
                        (bob, wire.CALL_BUSY), (bob, wire.CALL_END), (alice, wire.CALL_END)):  # fmt: skip
        ended(user.do(route, call_id), 409, wire.ILLEGAL_TRANSITION, "ended")
    assert alice.read(call_id) == before


def test_two_devices_answer_and_one_wins(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    assert bob.do(wire.CALL_ACCEPT, call_id, device_id="phone").status_code == 200
    before = alice.read(call_id)
    ended(bob.do(wire.CALL_ACCEPT, call_id, device_id="tablet"), 409, wire.ANSWERED_ELSEWHERE, "active")
    ended(bob.do(wire.CALL_END, call_id, device_id="tablet"), 409, wire.ANSWERED_ELSEWHERE, "active")
    ended(bob.do(wire.CALL_REJECT, call_id), 409, wire.ILLEGAL_TRANSITION, "active")
    assert alice.read(call_id) == before


def test_the_bearers_device_counts_where_the_body_names_none(site: Site) -> None:
    alice = site.user()
    phone = site.user(somebody("bob"), device_id="phone")
    tablet = site.user(phone.identity, device_id="tablet")
    call_id = alice.call(phone)
    assert phone.do(wire.CALL_ACCEPT, call_id).json()["answered_by"] == "phone"
    ended(tablet.do(wire.CALL_END, call_id), 409, wire.ANSWERED_ELSEWHERE)
    assert phone.do(wire.CALL_END, call_id).json()["end_reason"] == "callee_hangup"


def test_busy(site: Site) -> None:
    alice, bob = site.pair()
    third = site.user()
    call_id = alice.call(bob)
    ended(third.create(bob.identity), 409, wire.CALLEE_BUSY)
    ended(third.create(alice.identity), 409, wire.CALLEE_BUSY)
    ended(alice.create(third.identity), 409, wire.CALLER_BUSY)
    alice.do(wire.CALL_END, call_id)
    assert third.create(bob.identity).status_code == 201


@pytest.mark.parametrize(
    "change",
    [
        {"callee_identity": None},
        {"callee_identity": ""},
        {"callee_identity": "  "},
        {"callee_identity": "a\nb"},
        {"callee_identity": "x" * 256},
        {"callee_identity": 7},
        {"type": "live_stream"},
        {"type": "telepathy"},
        {"metadata": []},
        {"metadata": {"x": "y" * 20_000}},
        {"os": "x" * 51},
        {"caller_name": "\x00"},
    ],
)
def test_a_malformed_create_is_told_where(site: Site, change: dict[str, Any]) -> None:
    alice = site.user()
    answer = alice.create("bob", **change)
    ended(answer, 422, "validation")
    assert next(iter(change)) in answer.json()["message"]
    assert alice.ask("GET", wire.CALLS).json()["data"] == []


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"caller_identity": "\\ud800"}', b"[" * 5000, b"9" * 6000,
     b'{"a": NaN}'],
)  # fmt: skip
def test_a_body_that_is_no_object(site: Site, raw: bytes) -> None:
    alice = site.user()
    ended(alice.ask("POST", wire.CALLS, data=raw, headers={"Content-Type": "application/json"}), 422)


def test_metadata_must_be_plain_json(site: Site) -> None:
    alice = site.user()
    start = f'{{"caller_identity": "{alice.identity}", "callee_identity": "bob-x", "type": "audio_call", "metadata": '
    for raw in ('{"a": NaN}', '{"a": "\\ud800"}', '{"a": Infinity}'):
        answer = alice.ask("POST", wire.CALLS, data=start + raw + "}", headers={"Content-Type": "application/json"})
        ended(answer, 422, "validation")


def test_a_huge_body_is_refused_unread(site: Site) -> None:
    alice = site.user()
    ended(alice.create("bob", metadata={"x": "y" * 300_000}), 413)

    def endless() -> Any:
        for _ in range(400):
            yield b" " * 1024

    answer = alice.ask("POST", wire.CALLS, data=endless(), headers={"Content-Type": "application/json"})
    ended(answer, 413)


def test_a_list_has_pages_and_filters(site: Site) -> None:
    alice, bob = site.pair()
    ids = []
    for number in range(5):
        call_id = alice.call(bob, type="video_call" if number % 2 else "voice")
        bob.do(wire.CALL_REJECT if number == 0 else wire.CALL_BUSY, call_id)
        ids.append(call_id)

    def found(**query: Any) -> list[str]:
        answer = alice.ask("GET", wire.CALLS, params=query)
        assert answer.status_code == 200, answer.text
        return [call.call_id for call in wire.read_call_page(answer.json(), "list").calls]

    assert found() == ids[::-1]
    assert found(per_page=2) == ids[:2:-1]
    assert found(per_page=2, page=3) == ids[:1]
    assert found(page=9) == []
    page = wire.read_call_page(alice.ask("GET", wire.CALLS, params={"per_page": 2}).json(), "list")
    assert (page.total, page.total_pages, page.per_page) == (5, 3, 2)
    assert found(status="rejected") == ids[:1]
    assert found(type="video") == found(type="video_call") == [ids[3], ids[1]]
    assert found(identity=alice.identity, status="missed") == []
    started = alice.read(ids[2])["initiated_at"]
    assert found(start_date=started) == ids[:1:-1]
    assert found(end_date=started) == [ids[1], ids[0]]
    assert found(end_date=started[:10]) == ids[::-1]
    assert alice.ask("GET", f"{wire.CALLS}?start_date=2026-01-01T00:00:00+00:00").status_code == 200
    for query in ("page=0", "per_page=101", "per_page=x", "status=asleep", "type=live_stream", "start_date=soon",
                  "end_date=9999-12-31", "page=99999999999999999999"):  # fmt: skip
        ended(alice.ask("GET", f"{wire.CALLS}?{query}"), 422, "validation")


def test_a_backend_speaks_for_anybody_and_sees_all(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    headers = {wire.APP_ID: site.process.settings.app_id, wire.APP_SECRET: APP_SECRET}
    everything = requests.get(site.api + wire.CALLS, headers=headers, timeout=30).json()
    assert call_id in [row["call_id"] for row in everything["data"]]
    assert requests.get(f"{site.api}/calls/{call_id}", headers=headers, timeout=30).json()["call_id"] == call_id
    url = site.api + wire.CALL_END.replace("{id}", call_id)
    answer = requests.post(url, json={"identity": alice.identity}, headers=headers, timeout=30)
    assert answer.json()["end_reason"] == "caller_cancelled"


def test_token_lets_hosts_be_hosts_and_clamps_the_rest(site: Site) -> None:
    host, viewer, room = somebody("host"), somebody("viewer"), somebody("room")

    def role(identity: str, role: str, type_: str = "live_stream", **more: Any) -> tuple[str, bool, list[str]]:
        body = {"identity": identity, "room_name": room, "type": type_, "role": role, **more}
        answer = requests.post(site.api + wire.TOKEN, json=body, headers=site.app_headers, timeout=30)
        assert answer.status_code == 200, answer.text
        token = wire.read_token(answer.json())
        assert token.room_name == room
        assert token.user_token
        claims = jwt.decode(token.token, site.process.settings.livekit_secret, algorithms=["HS256"])
        return (
            json.loads(claims["metadata"])["role"],
            claims["video"]["canPublish"],
            claims["video"]["canPublishSources"],
        )

    assert role(host, "host")[:2] == ("host", True)
    assert role(host, "host")[2][1] == "camera"
    assert role(viewer, "host")[:2] == ("audience", False)
    assert role(viewer, "admin")[:2] == ("audience", False)
    assert role(host, "audience")[:2] == ("host", True)  # the owner is, always
    body = {"identity": host, "room_name": room, "type": "audio_room"}
    ended(requests.post(site.api + wire.TOKEN, json=body, headers=site.app_headers, timeout=30), 409, "other_type")


def test_token_into_a_call_is_for_its_parties(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)

    def enter(identity: str, room: str = call_id) -> requests.Response:
        body = {"identity": identity, "room_name": room, "type": "audio_call"}
        return requests.post(site.api + wire.TOKEN, json=body, headers=site.app_headers, timeout=30)

    assert enter(alice.identity).status_code == 200
    ended(enter(bob.identity), 409, wire.NOT_ANSWERED)
    ended(enter(somebody()), 403, "not_a_party")
    ended(enter(alice.identity, NOWHERE), 404)


def test_unknown_routes_and_methods_have_the_same_shape(site: Site) -> None:
    ended(requests.get(site.api + "/nothing", timeout=30), 404)
    ended(requests.delete(site.api + wire.CALLS, timeout=30), 405)


def test_the_openapi_page_describes_every_route(site: Site) -> None:
    root = site.process.base_url
    schema = requests.get(root + "/openapi.json", timeout=30).json()
    routes = {
        wire.HEALTH: "get", wire.TOKEN: "post", wire.AUTH_SESSION: "post", wire.CALLS: "post", wire.CALL: "get",
        wire.CALL_RINGING: "post", wire.CALL_ACCEPT: "post", wire.CALL_REJECT: "post", wire.CALL_BUSY: "post",
        wire.CALL_END: "post", wire.CALL_TOKEN: "post", wire.MEDIA_WEBHOOK: "post",
    }  # fmt: skip
    for path, method in routes.items():
        described = schema["paths"][wire.PREFIX + path][method]
        assert described["summary"]
        assert described["description"]
    assert "Engine socket" in schema["info"]["description"]
    assert "409" in schema["paths"]["/api/v1/calls/{id}/accept"]["post"]["responses"]
    assert "/openapi.json" in requests.get(root + "/docs", timeout=30).text
