"""Every route of streams and audio rooms, on a real process without a media server: where it goes well, and not."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import requests

from utd_fsm import room_wire as rw
from utd_fsm import wire

from .room_support import Member, World, audio_room, enter, stream, way_in
from .support import APP_SECRET, Site, running, somebody, until
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
    assert world.host.claims()["video"]["canPublish"] is True


def test_a_member_of_the_stage_comes_back_with_the_grant(site: Site) -> None:
    world = stream(site)
    guest = world.guest()
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


# ---------------------------------------------------------------------------------------------------------- the stage


def test_the_life_of_a_hand(site: Site) -> None:
    world = stream(site)
    viewer = world.guest(name="Vic")
    first = viewer.well(rw.STAGE_REQUEST)
    assert [(hand["identity"], hand["name"]) for hand in first["hands"]] == [(viewer.identity, "Vic")]
    assert viewer.well(rw.STAGE_REQUEST)["version"] == first["version"]  # up already
    assert viewer.well(rw.STAGE_REQUEST, method="DELETE")["hands"] == []
    ended(viewer.say("DELETE", rw.STAGE_REQUEST), 409, wire.ILLEGAL_TRANSITION)
    viewer.well(rw.STAGE_REQUEST)
    added = world.host.well(rw.STAGE_ADD, target_identity=viewer.identity)
    assert added["hands"] == []
    assert [(one["identity"], one["role"]) for one in added["stage"]] == [(viewer.identity, "audience")]
    ended(viewer.post(rw.STAGE_REQUEST), 409, wire.ILLEGAL_TRANSITION)
    assert viewer.well(rw.STAGE_LEAVE)["stage"] == []
    ended(viewer.post(rw.STAGE_LEAVE), 409)
    world.host.well(rw.STAGE_ADD, target_identity=viewer.identity)
    removed = world.host.well(rw.STAGE_REMOVE, target_identity=viewer.identity)
    assert removed["stage"] == []
    assert removed["version"] > added["version"] > first["version"]
    assert viewer.stage() == removed
    ended(world.host.post(rw.STAGE_REMOVE, target_identity=viewer.identity), 409)


def test_delete_without_a_body(site: Site) -> None:
    world = stream(site)
    viewer = world.guest()
    path = rw.STAGE_REQUEST.replace("{room}", world.name)
    viewer.well(rw.STAGE_REQUEST)
    assert viewer.ask("DELETE", path).json()["hands"] == []
    viewer.well(rw.STAGE_REQUEST)
    assert viewer.ask("DELETE", path, params={"identity": viewer.identity}).json()["hands"] == []
    ended(viewer.ask("DELETE", path, params={"identity": world.host.identity}), 403, "wrong_identity")


def test_only_moderators_call_on_stage(site: Site) -> None:
    world = stream(site)
    viewer, other, admin = world.guest(), world.guest(), world.admin()
    for route in (rw.STAGE_ADD, rw.STAGE_REMOVE):
        ended(viewer.post(route, target_identity=other.identity), 403, "not_moderator")
    admin.well(rw.STAGE_ADD, target_identity=other.identity)
    assert world.host.on_stage() == [other.identity]
    ended(world.host.post(rw.STAGE_ADD, target_identity=world.host.identity), 409)
    world.host.well(rw.BAN, identity=viewer.identity, room_name=world.name)
    ended(world.host.post(rw.STAGE_ADD, target_identity=viewer.identity), 403)


def test_on_air_and_off(site: Site) -> None:
    world = stream(site)
    viewer = world.guest()
    for route in (rw.LIVE_START, rw.LIVE_END):
        ended(viewer.post(route), 403, "not_owner")
    live = world.host.well(rw.LIVE_START)
    assert live["state"] == "live"
    assert world.host.well(rw.LIVE_START) == live
    world.host.well(rw.STAGE_ADD, target_identity=viewer.identity)
    world.guest().well(rw.STAGE_REQUEST)
    assert world.host.well(rw.LIVE_END)["state"] == "ended"
    after = viewer.stage()
    assert (after["stage"], after["hands"]) == ([], [])
    assert world.host.well(rw.LIVE_START)["state"] == "live"


# ---------------------------------------------------------------------------------------------------------- the seats


def test_the_life_of_a_seat(site: Site) -> None:
    world = audio_room(site)
    host, ann, bob = world.host, world.guest(), world.guest()
    taken = ann.well(rw.SEAT_TAKE, index=2)
    assert taken["seat_index"] == 2
    assert taken[rw.GRID] == bob.grid()
    ended(bob.post(rw.SEAT_TAKE, index=2), 409)
    ended(ann.post(rw.SEAT_TAKE, index=3), 409)
    ended(bob.post(rw.SEAT_TAKE, index=0), 403)
    ended(bob.post(rw.SEAT_TAKE, index=8), 404, "no_such_seat")
    host.well(rw.SEAT_TAKE, index=0)
    moved = ann.well(rw.SEATS_MOVE, target_seat=4)
    assert (moved["from"], moved["to"]) == (2, 4)
    ended(bob.post(rw.SEATS_MOVE, target_seat=5), 409)
    bob.well(rw.SEAT_TAKE, index=5)
    assert host.well(rw.SEATS_SWAP, a=4, b=5)[rw.GRID]["seats"][4]["occupant_identity"] == bob.identity
    assert host.well(rw.SEAT_MUTE, index=4)[rw.GRID]["seats"][4]["muted"] is True
    assert host.well(rw.SEAT_UNMUTE, index=4)[rw.GRID]["seats"][4]["muted"] is False
    assert host.well(rw.SEAT_LOCK, index=4)[rw.GRID]["seats"][4]["locked"] == 1  # evicts first
    ended(bob.post(rw.SEAT_TAKE, index=4), 409)
    ended(bob.post(rw.SEATS_LEAVE), 409)
    assert host.well(rw.SEAT_UNLOCK, index=4)[rw.GRID]["seats"][4]["locked"] == 0
    kicked = host.well(rw.SEAT_KICK, index=5)
    assert (kicked["identity"], kicked["seat_index"]) == (ann.identity, 5)
    ended(host.post(rw.SEAT_KICK, index=5), 409)
    bob.well(rw.SEAT_TAKE, index=4)
    assert bob.well(rw.SEATS_LEAVE)["seat_index"] == 4
    assert world.host.sitting() == {0: host.identity}


def test_setting_up(site: Site) -> None:
    world = audio_room(site)
    guest = world.guest()
    ended(guest.post(rw.SEATS_SETUP, seat_count=2), 403, "not_moderator")
    guest.well(rw.SEAT_TAKE, index=7)
    made = world.host.well(rw.SEATS_SETUP, seat_count=4, seat_mode="request", mode_id="party")[rw.GRID]
    assert (made["seat_count"], made["seat_mode"], made["mode_id"], len(made["seats"])) == (4, "request", "party", 4)
    assert world.host.sitting() == {}
    ended(guest.post(rw.SEAT_TAKE, index=1), 403, "request_mode")
    assert world.admin().well(rw.SEATS_SETUP)[rw.GRID]["seat_count"] == 4


def test_moderators_of_seats(site: Site) -> None:
    world = audio_room(site)
    ann, eve, admin = world.guest(), world.guest(), world.admin()
    world.host.well(rw.SEAT_TAKE, index=0)
    ann.well(rw.SEAT_TAKE, index=1)
    for route in (rw.SEAT_KICK, rw.SEAT_LOCK, rw.SEAT_UNLOCK, rw.SEAT_MUTE, rw.SEAT_UNMUTE):
        ended(eve.post(route, index=1), 403, "not_moderator")
    for route in (rw.SEAT_KICK, rw.SEAT_LOCK, rw.SEAT_MUTE):
        ended(admin.post(route, index=0), 403, "not_on_host")
    ended(eve.post(rw.SEATS_SWAP, a=1, b=2), 403, "not_moderator")
    ended(eve.say("PUT", rw.SEATS_MUTE_ALL, muted=True), 403, "not_moderator")
    assert admin.well(rw.SEATS_MUTE_ALL, method="PUT", muted=True)[rw.GRID]["all_muted"] is True
    eve.well(rw.SEAT_TAKE, index=3)
    muted = [seat["muted"] for seat in ann.grid()["seats"]]
    assert muted == [False, True, False, True, False, False, False, False]
    assert admin.well(rw.SEATS_MUTE_ALL, method="PUT", muted=False)[rw.GRID]["all_muted"] is False
    assert not any(seat["muted"] for seat in ann.grid()["seats"])


def test_requests_to_speak(site: Site) -> None:
    world = audio_room(site, seat_mode="request")
    ann, bob, eve = world.guest(name="Ann"), world.guest(), world.guest()
    first = ann.well(rw.SPEAKERS_REQUEST)["request_id"]
    ended(ann.post(rw.SPEAKERS_REQUEST), 409)
    second = bob.well(rw.SPEAKERS_REQUEST)["request_id"]
    rows = rw.read_requests(eve.get(rw.SPEAKERS_REQUESTS).json(), "requests")
    assert [(row.id, row.identity, row.name) for row in rows] == [
        (first, ann.identity, "Ann"), (second, bob.identity, None),
    ]  # fmt: skip
    ended(eve.post(rw.SPEAKER_APPROVE, id=first), 403, "not_moderator")
    approved = world.host.well(rw.SPEAKER_APPROVE, id=first)
    assert (approved["request_id"], approved["identity"], approved["seat_index"]) == (first, ann.identity, 1)
    ended(world.host.post(rw.SPEAKER_APPROVE, id=first), 409)
    world.host.well(rw.SPEAKER_REJECT, id=second)
    ended(world.host.post(rw.SPEAKER_REJECT, id=second), 409)
    bob.well(rw.SPEAKERS_REQUEST)
    bob.well(rw.SPEAKERS_REQUEST, method="DELETE")
    ended(bob.say("DELETE", rw.SPEAKERS_REQUEST), 409)
    world.host.well(rw.SEATS_SETUP, seat_count=2)
    third = bob.well(rw.SPEAKERS_REQUEST)["request_id"]
    ended(world.host.post(rw.SPEAKER_APPROVE, id=third), 409, "no_free_seat")


def test_invitations(site: Site) -> None:
    world = audio_room(site, seat_mode="request")
    ann, eve = world.guest(), world.guest()
    ended(eve.post(rw.SPEAKER_INVITE, target_identity=ann.identity), 403, "not_moderator")
    number = world.host.well(rw.SPEAKER_INVITE, target_identity=ann.identity, seat_index=3)["invitation_id"]
    (row,) = eve.grid()["invitations"]
    assert (row["id"], row["identity"], row["seat_index"]) == (number, ann.identity, 3)
    ended(eve.post(rw.INVITATION_ACCEPT, id=number), 403)
    ended(eve.post(rw.INVITATION_DECLINE, id=number), 403)
    accepted = ann.well(rw.INVITATION_ACCEPT, id=number)
    assert (accepted["invitation_id"], accepted["seat_index"]) == (number, 3)
    ended(ann.post(rw.INVITATION_ACCEPT, id=number), 409)
    other = world.host.well(rw.SPEAKER_INVITE, target_identity=eve.identity)["invitation_id"]
    eve.well(rw.INVITATION_DECLINE, id=other)
    ended(eve.post(rw.INVITATION_DECLINE, id=other), 409)


# -------------------------------------------------------------------------------------- participants, roles, comments


def test_roles(site: Site) -> None:
    world = audio_room(site)
    ann, host = world.guest(), world.host

    def give(actor: Member, role: str, target: str = ann.identity) -> requests.Response:
        return actor.say("PUT", rw.PARTICIPANT_ROLE, id=target, actor_identity=actor.identity, role=role)

    ended(give(ann, "admin"), 403)
    change = rw.read_role(give(host, "admin").json(), "role")
    assert (change.identity, change.role, change.previous) == (ann.identity, "admin", "audience")
    ended(give(host, "admin"), 409, rw.ALREADY_IN_ROLE)
    ended(give(ann, "guest", host.identity), 403)
    assert world.guest(ann.identity).role() == "admin"
    assert give(host, "visitor").json()["previous_role"] == "admin"
    answer = host.get(rw.PARTICIPANTS_BY_ROLE, params={"role": "visitor"})
    assert answer.status_code == 200
    assert isinstance(rw.read_identities(answer.json(), "by-role"), tuple)


def test_what_is_known_of_somebody(site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    ann.well(rw.SEAT_TAKE, index=2)
    world.host.well(rw.SEAT_MUTE, index=2)
    assert ann.get(rw.PARTICIPANT, id=ann.identity).json() == {
        "identity": ann.identity, "role": "audience", "connected": False, "may_publish": True, "seat_index": 2,
        "muted": True, "on_stage": False,
    }  # fmt: skip
    assert ann.get(rw.PARTICIPANT, id=world.host.identity).json()["role"] == "host"


def test_putting_somebody_out(site: Site) -> None:
    world = audio_room(site)
    ann, eve, admin = world.guest(), world.guest(), world.admin()
    ann.well(rw.SEAT_TAKE, index=1)
    ended(eve.say("DELETE", rw.PARTICIPANT, id=ann.identity), 403, "not_moderator")
    ended(admin.say("DELETE", rw.PARTICIPANT, id=world.host.identity), 403, "not_on_host")
    assert admin.well(rw.PARTICIPANT, method="DELETE", id=ann.identity)["identity"] == ann.identity
    assert world.host.sitting() == {}
    assert way_in(site, ann.identity, world.name, world.type).status_code == 200  # it is no ban


def test_muting_tracks(site: Site) -> None:
    world = audio_room(site)
    ann, eve, admin = world.guest(), world.guest(), world.admin()
    ended(eve.say("PUT", rw.PARTICIPANT_MUTE, id=ann.identity, audio=True, muted=True), 403, "not_moderator")
    ended(admin.say("PUT", rw.PARTICIPANT_MUTE, id=world.host.identity, muted=True), 403, "not_on_host")
    # LiveKit lets nobody unmute another: nothing is sent, so that it matters not that nobody would answer here
    answer = admin.well(rw.PARTICIPANT_MUTE, method="PUT", id=ann.identity, muted=False)
    assert answer == {"identity": ann.identity, "audio": True, "video": False, "muted": False}
    ended(admin.say("PUT", rw.PARTICIPANT_MUTE, id=ann.identity, muted=True), 503, "media_unreachable")


def test_comments(site: Site) -> None:
    for world in (stream(site), audio_room(site)):
        ended(world.guest().say("PUT", rw.COMMENTS, locked=True), 403, "not_moderator")
        locked = world.host.well(rw.COMMENTS, method="PUT", locked=True)
        assert locked["locked"] is True
        assert world.admin().well(rw.COMMENTS, method="PUT", locked=True)["locked"] is True
        state = rw.read_room_state(world.guest().claims()["roomConfig"]["metadata"])
        assert state.comments_locked is True
        assert state.comments_version == locked["version"]


# --------------------------------------------------------------------------------------------------------------- bans


def test_the_life_of_a_ban(site: Site) -> None:
    world = audio_room(site)
    eve, host, admin = world.guest(name="Eve"), world.host, world.admin()
    eve.well(rw.SEAT_TAKE, index=1)
    row = rw.read_ban(admin.well(rw.BAN, identity=eve.identity, room_name=world.name, reason="noise"), "ban")
    assert (row.identity, row.room_name, row.reason, row.name) == (eve.identity, world.name, "noise", "Eve")
    assert world.host.sitting() == {}
    page = rw.read_ban_page(host.get(rw.BANS, params={"room_name": world.name}).json(), "bans")
    assert [ban.id for ban in page.bans] == [row.id]
    assert (page.page, page.per_page, page.total, page.total_pages) == (1, 20, 1, 1)
    ended(eve.get(rw.SEATS), 403, rw.BANNED)
    assert rw.read_ban(host.well(rw.BAN, method="DELETE", identity=eve.identity, room_name=world.name), "ban") == row
    ended(host.say("DELETE", rw.BAN, identity=eve.identity, room_name=world.name), 404, "not_banned")
    assert eve.get(rw.SEATS).status_code == 200
    assert rw.read_ban_page(host.get(rw.BANS, params={"room_name": world.name}).json(), "bans").bans == ()


def test_who_may_ban(site: Site) -> None:
    world = audio_room(site)
    ann, eve = world.guest(), world.guest()
    ended(eve.post(rw.BAN, identity=ann.identity, room_name=world.name), 403, "not_moderator")
    ended(eve.post(rw.BAN, identity=ann.identity), 403, "not_moderator")
    ended(eve.say("DELETE", rw.BAN, identity=ann.identity, room_name=world.name), 403, "not_moderator")
    ended(eve.get(rw.BANS, params={"room_name": world.name}), 403, "not_moderator")
    ended(world.admin().post(rw.BAN, identity=world.host.identity, room_name=world.name), 403, "not_on_host")
    ended(world.host.post(rw.BAN, identity=ann.identity, room_name=somebody("nowhere")), 404, "not_found")
    other = stream(site).host  # the owner of another room, without naming one
    other.well(rw.BAN, identity=eve.identity)
    ended(eve.get(rw.SEATS), 403, rw.BANNED)
    other.well(rw.BAN, method="DELETE", identity=eve.identity)
    assert eve.get(rw.SEATS).status_code == 200


def test_a_ban_ends_by_itself(site: Site) -> None:
    world = audio_room(site)
    eve = world.guest()
    world.host.well(rw.BAN, identity=eve.identity, room_name=world.name, duration=0.05)
    until(lambda: eve.get(rw.SEATS).status_code == 200)


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
