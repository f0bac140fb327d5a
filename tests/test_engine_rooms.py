"""Every route of streams and audio rooms: what is sent, how answers are read, what is repeated and what is not."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.engine_answers import BEARER, KEY, TICKET, api_for, engine, session
from tests.http_stub import Reply, Seen, http_stub
from tests.room_answers import BAN, BANS, GRID, ROOM, ROUTES, STAGE, signed_in
from utd_fsm.engine_api import Credentials
from utd_fsm.engine_rooms import RoomApi, SeatAnswer
from utd_fsm.errors import (
    UTDConflictError,
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDInputError,
    UTDProtocolError,
)
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_models import UTDBroadcast, UTDInvitation, UTDRoleChange, UTDSpeakerRequest

GETS = frozenset({"stage", "seats", "requests", "by_role", "bans"})
WISHES = frozenset(name for name, route in ROUTES.items() if route.keyed and name not in GETS)
VERBS_OF_SEATS = [name for name, route in ROUTES.items() if "grid" in route.answer]
VERBS_OF_THE_STAGE = [name for name in ROUTES if name.startswith("stage_")]


def test_the_table_has_every_method() -> None:
    methods = {name for name, _ in inspect.getmembers(RoomApi, inspect.isfunction) if not name.startswith("_")}
    assert methods == set(ROUTES)


@pytest.mark.parametrize("name", ROUTES)
def test_what_is_sent(name: str) -> None:
    route = ROUTES[name]
    with signed_in(Reply(json=route.answer)) as (api, cred, stub):
        route.ask(api, cred)
        assert stub.paths() == [route.sent]
        [seen] = stub.seen
    assert seen.body == route.body
    assert seen.headers["authorization"] == f"Bearer {BEARER}"
    assert seen.headers.get("idempotency-key") == (KEY if route.keyed else None)
    assert seen.headers.get("content-type") == (None if route.body is None else "application/json")


def test_queries() -> None:
    with signed_in(Reply(json={"data": []})) as (api, cred, stub):
        api.rooms.by_role(cred, ROOM, UTDRole.ADMIN)
        assert parse_qs(urlsplit(stub.seen[-1].path).query) == {"role": ["admin"]}
        api.rooms.bans(cred, room=ROOM, page=2, per_page=50)
        query = parse_qs(urlsplit(stub.seen[-1].path).query)
        assert query == {"room_name": [ROOM], "page": ["2"], "per_page": ["50"]}
        api.rooms.bans(cred)
        assert parse_qs(urlsplit(stub.seen[-1].path).query) == {"page": ["1"], "per_page": ["20"]}


def test_what_is_not_said_is_not_sent() -> None:
    with signed_in(Reply(json={**BAN, "grid": GRID})) as (api, cred, stub):
        api.rooms.setup_seats(cred, ROOM)
        assert stub.seen[-1].body == {"identity": "alice"}
        api.rooms.invite(cred, ROOM, "bob")
        assert stub.seen[-1].body == {"identity": "alice", "target_identity": "bob"}
        api.rooms.ban(cred, "bob", room=None)
        assert stub.seen[-1].body == {"identity": "bob"}
        api.rooms.unban(cred, "bob", room=None)
        assert stub.seen[-1].body == {"identity": "bob"}


def test_values_of_the_caller_stay_one_part_of_the_path() -> None:
    room, who = "a/../{id}?c#d", "b/{index} %41"
    with signed_in(Reply(404, json={"message": "no such room"})) as (api, cred, stub):
        with pytest.raises(UTDEngineError) as caught:
            api.rooms.remove_participant(cred, room, who)
        assert stub.seen[-1].path == "/api/v1/rooms/a%2F..%2F%7Bid%7D%3Fc%23d/participants/b%2F%7Bindex%7D%20%2541"
        assert "DELETE /rooms/:room/participants/:id" in str(caught.value)
        assert room not in str(caught.value)
        assert who not in str(caught.value)
        with pytest.raises(UTDEngineError, match="POST /rooms/:room/seats/:index/take "):
            api.rooms.take(cred, room, 0, key=KEY)
        assert stub.seen[-1].path.endswith("/seats/0/take")


# --- answers


@pytest.mark.parametrize("name", VERBS_OF_SEATS)
def test_a_verb_about_seats_answers_the_grid_as_its_asker_sees_it(name: str) -> None:
    route = ROUTES[name]
    with signed_in(Reply(json=route.answer)) as (api, cred, _):
        answer: SeatAnswer = route.ask(api, cred)
    assert answer.grid is not None
    assert (answer.grid.version, answer.grid.count, answer.grid.mode) == (12, 3, UTDSeatMode.REQUEST)
    assert answer.grid.my_seat == 1
    assert dict(answer.content) == route.answer
    told = (answer.identity, answer.seat_index, answer.request_id, answer.invitation_id)
    assert told == tuple(route.answer.get(field) for field in ("identity", "seat_index", "request_id", "invitation_id"))
    with pytest.raises(TypeError):
        answer.content["grid"] = None  # type: ignore[index]


@pytest.mark.parametrize("name", VERBS_OF_SEATS)
@pytest.mark.parametrize("short", [Reply(json={"success": True}), Reply(204), Reply()])
def test_a_short_answer_has_no_grid(name: str, short: Reply) -> None:
    with signed_in(short) as (api, cred, stub):
        assert ROUTES[name].ask(api, cred).grid is None
        assert len(stub.seen) == 1


@pytest.mark.parametrize("name", VERBS_OF_THE_STAGE)
def test_a_verb_about_the_stage_answers_the_stage_or_nothing(name: str) -> None:
    with signed_in(Reply(json=STAGE)) as (api, cred, stub):
        stage = ROUTES[name].ask(api, cred)
        assert ([one.identity for one in stage.members], stage.version) == (["carol", "dave"], 7)
        for short in (Reply(json={"message": "done"}), Reply(204)):
            stub.answer = lambda _, short=short: short  # type: ignore[misc]
            assert ROUTES[name].ask(api, cred) is None


@pytest.mark.parametrize("name", [*sorted(GETS), "set_role", "ban"])
def test_what_must_be_told_may_not_be_left_out(name: str) -> None:
    for bad in (Reply(204), Reply(json=[]), Reply(json=7)):
        with signed_in(bad) as (api, cred, _), pytest.raises(UTDProtocolError) as caught:
            ROUTES[name].ask(api, cred)
        assert caught.value.route
        assert caught.value.field


def test_what_else_is_answered() -> None:
    def ask(name: str, answer: Any) -> Any:
        with signed_in(Reply(json=answer)) as (api, cred, _):
            return ROUTES[name].ask(api, cred)

    def whole(name: str) -> Any:
        return ask(name, ROUTES[name].answer)

    assert whole("live_start") == (UTDBroadcast.LIVE, 3)
    assert whole("live_end") == (UTDBroadcast.ENDED, 4)
    assert ask("live_start", {"message": "ok"}) == (None, None)
    assert whole("seats").my_seat == 1
    assert whole("requests")[0].id == 4
    assert whole("by_role") == ("bob", "carol")
    assert whole("set_role") == UTDRoleChange("bob", UTDRole.ADMIN, UTDRole.AUDIENCE)
    assert (whole("ban").id, whole("ban").reason, whole("ban").expires_at) == (9, "noise", None)
    assert (whole("bans").bans[0].identity, whole("bans").total) == ("bob", 1)
    assert whole("lock_comments") == (True, 8)
    assert ask("lock_comments", {}) == (None, None)
    for name in ("remove_participant", "mute_participant", "unban"):
        assert whole(name) is None


def test_a_short_answer_to_a_ban_is_looked_up() -> None:
    def answers(seen: Seen) -> Reply:
        return Reply(json=BANS if seen.method == "GET" else {"message": "banned"})

    with signed_in(answers) as (api, cred, stub):
        assert api.rooms.ban(cred, "bob", room=ROOM).id == 9
        assert stub.paths() == ["POST /rooms/ban", "GET /rooms/bans"]
        with pytest.raises(UTDProtocolError) as caught:
            api.rooms.ban(cred, "carol", room=ROOM)
    assert (caught.value.route, caught.value.field) == ("POST /rooms/ban", "id")


# --- what is repeated


def _lost_once(answer: Any, lost: Reply) -> Callable[[Seen], Reply]:
    replies = iter([lost])
    return lambda _: next(replies, Reply(json=answer))


@pytest.mark.parametrize("name", sorted(WISHES | GETS))
@pytest.mark.parametrize("lost", [Reply(reset=True), Reply(503)], ids=["lost", "503"])
def test_a_look_and_a_wish_with_its_key_are_repeated(name: str, lost: Reply) -> None:
    route = ROUTES[name]
    with signed_in(_lost_once(route.answer, lost)) as (api, cred, stub):
        route.ask(api, cred)
        assert stub.paths() == [route.sent] * 2
        assert stub.seen[0].headers.get("idempotency-key") == stub.seen[1].headers.get("idempotency-key")


@pytest.mark.parametrize("name", sorted(set(ROUTES) - WISHES - GETS))
def test_what_is_done_to_others_is_sent_once(name: str) -> None:
    route = ROUTES[name]
    with signed_in(_lost_once(route.answer, Reply(reset=True))) as (api, cred, stub):
        with pytest.raises(UTDConnectionError, match="may have applied it") as caught:
            route.ask(api, cred)
        assert stub.paths() == [route.sent]
    assert caught.value.outcome_known is False


def test_a_wish_without_a_key_is_sent_once_too() -> None:
    with signed_in(_lost_once({}, Reply(reset=True))) as (api, cred, stub):
        with pytest.raises(UTDConnectionError):
            api.rooms.take(cred, ROOM, 1)
        assert len(stub.seen) == 1


def test_what_was_not_taken_up_is_repeated_for_moderation_too() -> None:
    again = Reply(429, json={"message": "too many"}, headers={"Retry-After": "0"})
    with signed_in(_lost_once(ROUTES["kick"].answer, again)) as (api, cred, stub):
        ROUTES["kick"].ask(api, cred)
        assert len(stub.seen) == 2


# --- refusals


def test_a_ban_tells_why_and_until_when() -> None:
    body = {
        "message": "User is banned: noise",
        "code": "banned",
        "reason": "noise",
        "expires_at": "2026-11-24T10:00:00+00:00",
        "room_name": ROOM,
    }
    with signed_in(Reply(403, json=body)) as (api, cred, _):
        for asked in (
            lambda: api.rooms.take(cred, ROOM, 1, key=KEY),
            lambda: api.room_token(cred, ROOM, "audio_room"),
        ):
            with pytest.raises(UTDForbiddenError) as caught:
                asked()
            error = caught.value
            assert error.is_banned
            expected = {"reason": "noise", "expires_at": "2026-11-24T10:00:00+00:00", "room_name": ROOM}
            assert dict(error.details) == expected
            again = pickle.loads(pickle.dumps(error))
            assert dict(again.details) == expected
            assert again.is_banned
            for one in (error, again):
                details: Any = one.details
                with pytest.raises(TypeError):
                    details["reason"] = "none"


def test_details_are_small_and_hold_no_secret() -> None:
    body = {
        "message": "no",
        "reason": f"token {BEARER} " + "x" * 600,
        "user_token": "hidden-by-name",
        "nested": {"a": 1},
        "rows": [1],
        "huge": 10**400,
        "a b": 1,
        "n" * 41: 1,
        "nothing": None,
        "status": "on_stage",
        **{f"more{i}": i for i in range(30)},
    }
    with signed_in(Reply(409, json=body)) as (api, cred, _), pytest.raises(UTDConflictError) as caught:
        ROUTES["stage_add"].ask(api, cred)
    details = caught.value.details
    assert caught.value.state == "on_stage"
    assert len(details) == 16
    assert {"user_token", "nested", "rows", "huge", "a b", "n" * 41, "message"} & set(details) == set()
    assert details["nothing"] is None
    assert BEARER not in details["reason"]
    assert len(details["reason"]) <= 500


def test_an_error_without_a_body_has_no_details() -> None:
    with signed_in(Reply(403)) as (api, cred, _), pytest.raises(UTDForbiddenError) as caught:
        ROUTES["take"].ask(api, cred)
    assert dict(caught.value.details) == {}
    assert not caught.value.is_banned
    assert dict(UTDForbiddenError("made here").details) == {}
    assert dict(UTDConflictError("made here").details) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rooms, cred: rooms.stage(cred, ""),
        lambda rooms, cred: rooms.stage(cred, ".."),
        lambda rooms, cred: rooms.stage(cred, ROOM, key="a b"),
        lambda rooms, cred: rooms.stage_add(cred, ROOM, ""),
        lambda rooms, cred: rooms.take(cred, ROOM, 100, key=KEY),
        lambda rooms, cred: rooms.take(cred, ROOM, -1, key=KEY),
        lambda rooms, cred: rooms.take(cred, ROOM, True, key=KEY),
        lambda rooms, cred: rooms.take(cred, ROOM, "1", key=KEY),
        lambda rooms, cred: rooms.move(cred, ROOM, 1.0, key=KEY),
        lambda rooms, cred: rooms.swap(cred, ROOM, 1, 100),
        lambda rooms, cred: rooms.mute_all(cred, ROOM, 1),
        lambda rooms, cred: rooms.setup_seats(cred, ROOM, count=0),
        lambda rooms, cred: rooms.setup_seats(cred, ROOM, count=101),
        lambda rooms, cred: rooms.setup_seats(cred, ROOM, mode="both"),
        lambda rooms, cred: rooms.setup_seats(cred, ROOM, mode_id=1.5),
        lambda rooms, cred: rooms.approve(cred, ROOM, 0),
        lambda rooms, cred: rooms.approve(cred, ROOM, UTDInvitation(5, "bob")),
        lambda rooms, cred: rooms.accept(cred, ROOM, UTDSpeakerRequest(4, "bob"), key=KEY),
        lambda rooms, cred: rooms.invite(cred, ROOM, "bob", 100),
        lambda rooms, cred: rooms.set_role(cred, ROOM, "bob", "owner"),
        lambda rooms, cred: rooms.by_role(cred, ROOM, "owner"),
        lambda rooms, cred: rooms.ban(cred, "", room=ROOM),
        lambda rooms, cred: rooms.ban(cred, "bob", room=""),
        lambda rooms, cred: rooms.ban(cred, "bob", room=ROOM, reason="x" * 501),
        lambda rooms, cred: rooms.ban(cred, "bob", room=ROOM, duration=0),
        lambda rooms, cred: rooms.ban(cred, "bob", room=ROOM, duration=float("inf")),
        lambda rooms, cred: rooms.bans(cred, per_page=101),
        lambda rooms, cred: rooms.remove_participant(cred, ROOM, "."),
        lambda rooms, cred: rooms.mute_participant(cred, ROOM, "bob", audio=1),
        lambda rooms, cred: rooms.lock_comments(cred, ROOM, None),
    ],
)
def test_bad_input_sends_nothing(wrong: Callable[[RoomApi, Credentials], Any]) -> None:
    with signed_in(Reply(500)) as (api, cred, stub):
        with pytest.raises(UTDInputError):
            wrong(api.rooms, cred)
        assert stub.seen == []


def test_a_request_and_an_invitation_are_as_good_as_their_ids() -> None:
    with signed_in(Reply(json={})) as (api, cred, stub):
        api.rooms.reject(cred, ROOM, UTDSpeakerRequest(4, "bob"))
        api.rooms.accept(cred, ROOM, UTDInvitation(5, "alice"), key=KEY)
        assert stub.paths() == [
            "POST /rooms/lobby/speakers/requests/4/reject",
            "POST /rooms/lobby/speakers/invitations/5/accept",
        ]


# --- the way in


def test_entering_a_room_takes_one_request_and_signs_in() -> None:
    answer = {**TICKET, "room_name": ROOM, "user_token": BEARER, "ws_url": "ws://127.0.0.1:1/socket"}
    fresh = "eyJhbGciOiJIUzI1NiJ9.bearer-two.sig"

    def answers(seen: Seen) -> Reply:
        if seen.path.endswith("/auth/session"):
            return Reply(json=session(fresh))
        if seen.path.endswith("/token"):
            return Reply(json=answer)
        return Reply(json=GRID) if seen.headers["authorization"] == f"Bearer {fresh}" else Reply(401)

    with http_stub(answers) as stub:
        api = api_for(stub.url)
        cred, way_in = api.enter_room(
            "alice", ROOM, "audio_room", as_host=True, name="Alice", device_id="phone", seat_count=8, seat_mode="free"
        )
        assert stub.paths() == ["POST /token"]
        body = stub.seen[0].body
        assert (body["identity"], body["name"], body["device_id"]) == ("alice", "Alice", "phone")
        assert (body["role"], body["room_owner_id"]) == ("host", "alice")
        assert (body["seat_count"], body["seat_mode"], body["type"]) == (8, "free", "audio_room")
        assert (way_in.token, way_in.url) == (TICKET["token"], TICKET["url"])
        assert (cred.identity, cred.name, cred.device_id) == ("alice", "Alice", "phone")
        assert (cred.bearer, cred.ws_url) == (BEARER, "ws://127.0.0.1:1/socket")
        stub.seen.clear()
        api.rooms.seats(cred, ROOM)  # the bearer is refused, and minted again as any other
        assert stub.paths() == ["GET /rooms/lobby/seats", "POST /auth/session", "GET /rooms/lobby/seats"]
        assert stub.seen[1].body["device_id"] == "phone"
        assert cred.bearer == fresh


@pytest.mark.parametrize("told", [{}, {"user_token": None}, {"user_token": ""}])
def test_an_engine_whose_token_brings_no_bearer_is_asked_for_one(told: dict[str, Any]) -> None:
    with http_stub(engine(Reply(json={**TICKET, "room_name": ROOM, **told}))) as stub:
        api = api_for(stub.url)
        cred, way_in = api.enter_room("alice", ROOM, UTDStreamType.LIVE_STREAM)
        assert stub.paths() == ["POST /token", "POST /auth/session"]
        body = stub.seen[0].body
    assert body["role"] == "audience"
    assert "room_owner_id" not in body
    assert body["device_id"] == cred.device_id == api.device_id
    assert cred.bearer == BEARER
    assert way_in.room_name == ROOM


def test_a_bearer_that_cannot_stand_in_a_header_is_malformed() -> None:
    answer = {**TICKET, "room_name": ROOM, "user_token": "a\r\nX-Forged: 1"}
    with http_stub(Reply(json=answer)) as stub, pytest.raises(UTDProtocolError) as caught:
        api_for(stub.url).enter_room("alice", ROOM, "live_stream")
    assert (caught.value.route, caught.value.field) == ("POST /token", "user_token")


@pytest.mark.parametrize(
    "wrong",
    [
        {"identity": ""},
        {"room_name": ".."},
        {"type": "room"},
        {"name": "a\n"},
        {"device_id": ""},
        {"seat_count": 101},
        {"seat_mode": "both"},
        {"metadata": [1]},
    ],
)
def test_nobody_enters_with_bad_input(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"identity": "alice", "room_name": ROOM, "type": "audio_room", **wrong}
    with http_stub(Reply(500)) as stub:
        with pytest.raises(UTDInputError):
            api_for(stub.url).enter_room(**arguments)
        assert stub.seen == []
