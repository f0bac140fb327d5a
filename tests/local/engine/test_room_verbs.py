"""The verbs of stage, seats and moderation by their routes: what each does, and who is refused. The rules have more."""

from __future__ import annotations

import requests

from utd_fsm import room_wire as rw
from utd_fsm import wire

from .room_support import Member, audio_room, stream, way_in
from .support import Site, somebody, until
from .test_routes import ended

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
