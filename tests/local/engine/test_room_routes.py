"""Every route of streams and audio rooms, on a real process without a media server: where it goes well, and not."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import requests

from utd_fsm import room_wire as rw
from utd_fsm import wire

from .room_support import World, audio_room, enter, stream, way_in
from .support import APP_SECRET, Site, running, somebody
from .test_routes import ended

ABOUT_ROOMS = [
    ("GET", rw.STAGE), ("POST", rw.STAGE_ADD), ("POST", rw.STAGE_REMOVE), ("POST", rw.STAGE_REQUEST),
    ("DELETE", rw.STAGE_REQUEST), ("POST", rw.STAGE_LEAVE), ("POST", rw.LIVE_START), ("POST", rw.LIVE_END),
    ("GET", rw.SEATS), ("POST", rw.SEATS_SETUP), ("POST", rw.SEATS_LEAVE), ("POST", rw.SEATS_MOVE),
    ("POST", rw.SEATS_SWAP), ("PUT", rw.SEATS_MUTE_ALL), ("POST", rw.SEAT_TAKE), ("POST", rw.SEAT_KICK),
    ("POST", rw.SEAT_LOCK), ("POST", rw.SEAT_UNLOCK), ("POST", rw.SEAT_MUTE), ("POST", rw.SEAT_UNMUTE),
    ("POST", rw.SPEAKERS_REQUEST), ("DELETE", rw.SPEAKERS_REQUEST), ("GET", rw.SPEAKERS_REQUESTS),
    ("POST", rw.SPEAKER_APPROVE), ("POST", rw.SPEAKER_REJECT), ("POST", rw.SPEAKER_INVITE),
    ("POST", rw.INVITATION_ACCEPT), ("POST", rw.INVITATION_DECLINE), ("GET", rw.PARTICIPANT),
    ("DELETE", rw.PARTICIPANT), ("PUT", rw.PARTICIPANT_MUTE), ("PUT", rw.PARTICIPANT_ROLE),
    ("GET", rw.PARTICIPANTS_BY_ROLE), ("PUT", rw.COMMENTS),
]  # fmt: skip
OTHERS = [("POST", rw.BAN), ("DELETE", rw.BAN), ("GET", rw.BANS)]

# a body that every route finds in order
ANY_BODY: dict[str, Any] = {
    "target_identity": "someone", "target_seat": 2, "a": 1, "b": 2, "muted": True, "role": "guest", "locked": True,
    "audio": True, "video": False, "seat_count": 4,
}  # fmt: skip
IN_A_STREAM = (rw.STAGE, "/rooms/{room}/live")


def world_of(site: Site, route: str) -> World:
    return stream(site) if route.startswith(IN_A_STREAM) else audio_room(site)


def key_of(n: int, machine: str) -> str:
    return f"{machine}:{n}"


def all_but_gets() -> list[tuple[str, str]]:
    return [(method, route) for method, route in ABOUT_ROOMS if method != "GET"]


def of_one_type() -> list[tuple[str, str]]:
    begins = (rw.STAGE, rw.SEATS, *(f"/rooms/{{room}}/{part}" for part in ("speakers", "live")))
    return [(method, route) for method, route in all_but_gets() if route.startswith(begins)]


def names(routes: list[tuple[str, str]]) -> list[str]:
    return [f"{method} {route}" for method, route in routes]


# ----------------------------------------------------------------------------------------- what holds for every route


@pytest.mark.parametrize(("method", "route"), all_but_gets(), ids=names(all_but_gets()))
def test_nobody_acts_as_another(site: Site, method: str, route: str) -> None:
    world = world_of(site, route)
    eve = world.guest()
    before = eve.grid() if world.type == "audio_room" else eve.stage()
    actor = {"actor_identity" if route == rw.PARTICIPANT_ROLE else "identity": world.host.identity}
    ended(eve.say(method, route, id=5, index=1, **{**ANY_BODY, **actor}), 403, "wrong_identity")
    assert (eve.grid() if world.type == "audio_room" else eve.stage()) == before


@pytest.mark.parametrize(("method", "route"), [*ABOUT_ROOMS, *OTHERS], ids=names([*ABOUT_ROOMS, *OTHERS]))
def test_a_bearer_is_needed(site: Site, method: str, route: str) -> None:
    path = route.replace("{room}", "r").replace("{id}", "1").replace("{index}", "1")
    body = {"identity": "x", **ANY_BODY, "actor_identity": "x"}
    answer = requests.request(method, site.api + path, json=body, params={"role": "host"}, headers=site.app_headers,
                              timeout=30)  # fmt: skip
    ended(answer, 401, "no_bearer")


@pytest.mark.parametrize(("method", "route"), ABOUT_ROOMS, ids=names(ABOUT_ROOMS))
def test_an_unknown_room_is_a_404(site: Site, method: str, route: str) -> None:
    ann = enter(site, somebody("room"), "audio_room")
    ann.room = somebody("elsewhere")
    answer = ann.say(method, f"{route}?role=host", id=5, index=1, **ANY_BODY, actor_identity=ann.identity)
    ended(answer, 404, "not_found")


@pytest.mark.parametrize(("method", "route"), ABOUT_ROOMS, ids=names(ABOUT_ROOMS))
def test_who_is_banned_gets_nothing(site: Site, method: str, route: str) -> None:
    world = world_of(site, route)
    eve = world.guest()
    world.host.well(rw.BAN, identity=eve.identity, room_name=world.name, reason="spam", duration=3600)
    answer = eve.say(method, f"{route}?role=host", id=5, index=1, **ANY_BODY, actor_identity=eve.identity)
    ended(answer, 403, rw.BANNED)
    content = answer.json()
    assert content["message"].startswith("User is banned")
    assert (content["reason"], content["room_name"]) == ("spam", world.name)
    assert content["expires_at"]


@pytest.mark.parametrize(("method", "route"), of_one_type(), ids=names(of_one_type()))
def test_a_verb_of_the_other_type_of_room_is_a_409(site: Site, method: str, route: str) -> None:
    world = audio_room(site) if route.startswith(IN_A_STREAM) else stream(site)
    ended(world.host.say(method, route, id=5, index=1, **ANY_BODY), 409, "other_type")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (rw.STAGE_ADD, {}),
        (rw.STAGE_ADD, {"target_identity": "\x00"}),
        (rw.SEATS_SETUP, {"seat_count": 0}),
        (rw.SEATS_SETUP, {"seat_count": 101}),
        (rw.SEATS_SETUP, {"seat_count": "8x"}),
        (rw.SEATS_SETUP, {"seat_mode": "open"}),
        (rw.SEATS_MOVE, {}),
        (rw.SEATS_MOVE, {"target_seat": -1}),
        (rw.SEATS_SWAP, {"a": 1}),
        (rw.SEATS_SWAP, {"a": 1, "b": 100}),
        (rw.SPEAKER_INVITE, {}),
        (rw.SPEAKER_INVITE, {"target_identity": "x", "seat_index": 100}),
        (rw.BAN, {"identity": ""}),
        (rw.BAN, {"identity": "x", "duration": 0}),
        (rw.BAN, {"identity": "x", "duration": 1e12}),
        (rw.BAN, {"identity": "x", "reason": "x" * 501}),
        (rw.BAN, {"identity": "x", "reason": "\ud800"}),
        (rw.SEATS_SETUP, {"mode_id": "\ud800"}),
        (rw.SEATS_SETUP, {"mode_id": 2**60}),
        (rw.SEAT_TAKE.replace("{index}", "x"), {}),
        (rw.SEAT_TAKE.replace("{index}", "100"), {}),
        (rw.SPEAKER_APPROVE.replace("{id}", "x"), {}),
    ],
)
def test_what_is_malformed_is_a_422(site: Site, route: str, body: dict[str, Any]) -> None:
    world = stream(site) if route.startswith(IN_A_STREAM) else audio_room(site)
    ended(world.host.post(route, **body), 422, "validation")


def test_more_that_is_malformed(site: Site) -> None:
    host = audio_room(site).host
    for method, route, body in (
        ("PUT", rw.PARTICIPANT_ROLE, {"actor_identity": host.identity, "role": "king"}),
        ("PUT", rw.PARTICIPANT_ROLE, {"actor_identity": host.identity, "role": "host"}),
        ("PUT", rw.PARTICIPANT_ROLE, {"role": "guest"}),
        ("PUT", rw.COMMENTS, {}),
        ("PUT", rw.COMMENTS, {"locked": "perhaps"}),
        ("PUT", rw.SEATS_MUTE_ALL, {"muted": "perhaps"}),
    ):
        ended(host.say(method, route, id="x", **body), 422, "validation")
    ended(host.get(rw.PARTICIPANTS_BY_ROLE), 422, "validation")
    ended(host.ask("DELETE", rw.BAN), 422, "validation")
    ended(host.post(rw.SEAT_TAKE, index=1, key="no key"), 422, "validation")


def test_names_with_slashes_and_the_like(site: Site) -> None:
    for name in ("a/b", "seats", "a b?c=d#e", "日本/x", "%2F", "ban"):
        room = f"{name}-{somebody()}"
        world = audio_room(site, room=room)
        guest = world.guest(f"u/{somebody()}")
        guest.well(rw.SEAT_TAKE, index=3)
        assert world.host.sitting() == {3: guest.identity}
        found = world.host.get(rw.PARTICIPANT, id=guest.identity).json()
        assert (found["identity"], found["seat_index"]) == (guest.identity, 3)
        host = world.host
        host.well(rw.PARTICIPANT_ROLE, method="PUT", id=guest.identity, actor_identity=host.identity, role="admin")
        assert host.get(rw.PARTICIPANT, id=guest.identity).json()["role"] == "admin"


def test_the_limit_counts_these_routes_too() -> None:
    with running(rate_limit=5) as site:
        ann = enter(site, "r", "audio_room", "ann", role="host")
        statuses = [ann.get(rw.SEATS).status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]


def test_a_backend_acts_for_anybody(site: Site) -> None:
    world = audio_room(site)
    guest = world.guest()
    headers = {wire.APP_ID: site.process.settings.app_id, wire.APP_SECRET: APP_SECRET}
    url = f"{site.api}/rooms/{world.name}"
    answer = requests.post(f"{url}/seats/2/take", json={"identity": guest.identity}, headers=headers, timeout=30)
    assert answer.status_code == 200
    assert requests.get(f"{url}/seats", headers=headers, timeout=30).json()["seats"][2]["occupant_identity"]
    answer = requests.delete(f"{url}/speakers/request", headers=headers, timeout=30)
    ended(answer, 422, "validation")
    answer = requests.post(f"{site.api}{rw.BAN}", json={"identity": guest.identity}, headers=headers, timeout=30)
    assert answer.json()["room_name"] is None
    ended(way_in(site, guest.identity, somebody("r"), "audio_room"), 403, rw.BANNED)
    assert requests.get(f"{site.api}{rw.BANS}", headers=headers, timeout=30).json()["pagination"]["total"] >= 1


# ---------------------------------------------------------------------------------------------------------- the token


def test_the_token_has_the_room_as_it_is(site: Site) -> None:
    world = audio_room(site)
    guest = world.guest(name="Ann", metadata={"avatar": "a.png", "secret": "x"})
    claims = guest.claims()
    state = rw.read_room_state(claims["roomConfig"]["metadata"])
    assert state.seats is not None
    assert (state.seats.count, state.comments_locked) == (8, False)
    assert claims["video"]["canPublish"] is False
    assert claims["video"]["canUpdateOwnMetadata"] is False
    assert json.loads(claims["metadata"]) == {"role": "audience", "appId": site.process.settings.app_id}
    guest.well(rw.SEAT_TAKE, index=2)
    again = world.guest(guest.identity)  # a fresh token for one who sits: it may publish at once
    assert again.claims()["video"]["canPublish"] is True
    assert again.claims()["video"]["canPublishSources"] == ["microphone"]
    shown = rw.read_room_state(again.claims()["roomConfig"]["metadata"]).seats
    assert shown is not None
    assert shown.seats[2].identity == guest.identity
    assert (shown.seats[2].name, dict(shown.seats[2].attributes)) == ("Ann", {"avatar": "a.png"})
    guest.well(rw.SEATS_LEAVE)
    assert world.guest(guest.identity).claims()["video"]["canPublish"] is False
    assert world.host.claims()["video"]["canPublish"] is False  # the host, too, speaks from a seat


def test_a_member_of_the_stage_comes_back_with_the_grant(site: Site) -> None:
    world = stream(site)
    guest = world.guest()
    assert (world.host.role(), world.host.claims()["video"]["canPublish"]) == ("host", True)
    assert guest.claims()["video"]["canPublish"] is False
    world.host.well(rw.STAGE_ADD, target_identity=guest.identity)
    assert "camera" in world.guest(guest.identity).claims()["video"]["canPublishSources"]
    assert world.guest(guest.identity).claims()["video"]["canPublish"] is True
    admin = world.admin()
    again = world.guest(admin.identity)
    assert (again.role(), again.claims()["video"]["canPublish"]) == ("admin", False)


def test_metadata_that_are_too_long_to_travel_stay_behind(site: Site) -> None:
    world = audio_room(site, seat_count=100)
    assert not world.guest().claims()["roomConfig"].get("metadata")


def test_video_effects_are_a_setting() -> None:
    with running(video_effects=True) as site:
        assert json.loads(stream(site).guest().claims()["metadata"])["videoEffects"] is True


def test_the_name_of_a_call_is_no_room(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    for name in (call_id, "call_" + "0" * 24):
        ended(way_in(site, somebody("eve"), name, "audio_room"), 409, "other_type")


def test_whoever_is_banned_gets_no_token(site: Site) -> None:
    world = stream(site)
    eve = world.guest()
    world.host.well(rw.BAN, identity=eve.identity, room_name=world.name, reason="spam")
    answer = way_in(site, eve.identity, world.name, world.type)
    ended(answer, 403, rw.BANNED)
    assert answer.json()["expires_at"] is None
    assert way_in(site, eve.identity, somebody("room"), world.type).status_code == 200


# ------------------------------------------------------------------------------------------------- requests and looks


WISHES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("live_stream", "POST", rw.STAGE_REQUEST, {}),
    ("audio_room", "POST", rw.SEAT_TAKE, {"index": 1}),
]


@pytest.mark.parametrize(("type_", "method", "route", "more"), WISHES)
def test_a_wish_is_applied_once(site: Site, type_: str, method: str, route: str, more: dict[str, Any]) -> None:
    world = World(site, type_, seat_count=8) if type_ == "audio_room" else World(site, type_)
    ann, machine = world.guest(), str(uuid.uuid4())
    first = ann.say(method, route, key=key_of(3, machine), **more)
    assert first.status_code == 200
    again = ann.say(method, route, key=key_of(3, machine), **more)
    assert again.json() == first.json()
    ended(ann.say(method, route, key=key_of(2, machine), **more), 409, wire.SUPERSEDED)
    other = ann.say("POST", rw.COMMENTS.replace("comments", "stage/leave"), key=key_of(3, machine))
    ended(other, 422, "key_reused")


def test_a_refusal_is_repeated_as_it_was(site: Site) -> None:
    world = audio_room(site)
    ann, bob, machine = world.guest(), world.guest(), str(uuid.uuid4())
    bob.well(rw.SEAT_TAKE, index=1)
    ended(ann.post(rw.SEAT_TAKE, index=1, key=key_of(1, machine)), 409)
    bob.well(rw.SEATS_LEAVE)
    ended(ann.post(rw.SEAT_TAKE, index=1, key=key_of(1, machine)), 409)  # the first answer
    ann.well(rw.SEAT_TAKE, index=1, key=key_of(2, machine))


@pytest.mark.parametrize("key", [1, 2])
def test_a_look_seals_what_was_sent_before(site: Site, key: int) -> None:
    """A request that was given up on and arrives after a look with its number, or a higher one, is not applied."""
    for world, look, wish, more in (
        (audio_room(site), rw.SEATS, rw.SEAT_TAKE, {"index": 1}),
        (audio_room(site, seat_mode="request"), rw.SPEAKERS_REQUESTS, rw.SPEAKERS_REQUEST, {}),
        (stream(site), rw.STAGE, rw.STAGE_REQUEST, {}),
    ):
        ann, machine = world.guest(), str(uuid.uuid4())
        before = ann.get(look, key=key_of(key, machine))
        assert before.status_code == 200
        ended(ann.post(wish, key=key_of(1, machine), **more), 409, wire.SUPERSEDED)
        assert ann.get(look).json() == before.json()
        assert ann.post(wish, key=key_of(key + 1, machine), **more).status_code == 200


def test_keys_of_one_are_not_anothers(site: Site) -> None:
    world = audio_room(site)
    ann, bob, key = world.guest(), world.guest(), key_of(1, str(uuid.uuid4()))
    ann.well(rw.SEAT_TAKE, index=1, key=key)
    bob.well(rw.SEAT_TAKE, index=2, key=key)
    assert world.host.sitting() == {1: ann.identity, 2: bob.identity}


def test_versions_grow_with_every_change(site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    seen = [ann.grid()["version"]]
    verbs: list[tuple[str, dict[str, Any]]] = [
        (rw.SEAT_TAKE, {"index": 1}), (rw.SEATS_MOVE, {"target_seat": 2}), (rw.SEATS_LEAVE, {}),
    ]  # fmt: skip
    for route, more in verbs:
        seen.append(ann.well(route, **more)[rw.GRID]["version"])
    world.host.well(rw.COMMENTS, method="PUT", locked=True)
    assert ann.grid()["version"] == seen[-1]  # each part has the version of its own last change
    seen.append(ann.well(rw.SEAT_TAKE, index=1)[rw.GRID]["version"])
    assert seen == sorted(set(seen))


def test_the_openapi_page_describes_these_routes(site: Site) -> None:
    paths = requests.get(site.process.base_url + "/openapi.json", timeout=30).json()["paths"]
    for method, route in [*ABOUT_ROOMS, *OTHERS]:
        described = paths[wire.PREFIX + route][method.lower()]
        assert described["summary"]
        assert described["description"]
        assert {"200", "401", "403", "409", "422"} <= set(described["responses"])
