"""Malformed answers and metadata in streams and audio rooms: no machine moves, the error names route and field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from livekit import api

from tests.acceptance.bad_engine import BadEngine, bad_engine, junk
from tests.acceptance.scenes import server
from tests.http_stub import Reply
from tests.integration.calling import WAIT, fresh, until
from tests.integration.room_scenes import TONES, Scene, all_agree, audio_room, live_stream, own_standing, stage_agrees
from utd_fsm import (
    UTDAudioRoomSession,
    UTDBroadcast,
    UTDLiveStreamSession,
    UTDProtocolError,
    UTDRole,
    UTDStreamClient,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

NO_OBJECT = [(name, reply) for name, reply in junk() if name not in ("empty", "nothing in it")]
"""Where an engine may answer little: nothing at all and an empty object are answers, these are none."""
BAD_SEATS: list[Any] = [
    5,
    [],
    "x",
    {"seats": 5},
    {"seats": [5]},
    {"seats": [{}]},
    {"seats": [{"index": -1}]},
    {"seats": [{"index": "one"}]},
    {"seats": [{"index": 0}, {"index": 0}]},
    {"seats": [{"index": 7}], "count": 4},
    {"seats": [{"index": 0, "identity": 5}]},
    {"seats": [{"index": 0, "identity": "a"}, {"index": 1, "identity": "a"}]},
    {"seats": [{"index": 0, "locked": "perhaps"}]},
    {"count": -1},
    {"count": 101},
    {"count": "four"},
    {"mode": "first come"},
    {"mode": 5},
    {"version": "new"},
    {"version": 1.5},
    {"requests": 5},
    {"requests": [{}]},
    {"requests": [{"id": "one", "identity": "a"}]},
    {"requests": [{"id": 1}]},
    {"requests": [{"id": 1, "identity": "a", "created_at": "yesterday"}]},
    {"invitations": [{"id": 1}]},
]
BAD_STAGES: list[Any] = [
    {"stage": 5, "version": 10**6},
    {"stage": [5]},
    {"stage": [{}]},
    {"stage": [{"identity": 5}]},
    {"stage": [{"identity": "a", "role": "king"}]},
    {"stage": [], "hands": 5},
    {"stage": [], "hands": [{}]},
    {"stage": [], "hands": [{"identity": "a", "raised_at": "yesterday"}]},
    {"stage": [], "version": "new"},
]
BAD_LIVES: list[Any] = [5, [], "live", {"state": "flying"}, {"state": 5}, {"state": "ended", "version": "new"}]


FINE = (
    *("previous_role None", "no previous_role", "data []", "pagination", "no pagination", "room_name", "reason"),
    *("no room_name", "no reason", "no locked", "no version", "locked None", "version None", "version 7", "locked 7"),
    *("identity 'flying", "id ''", "id 'flying", "id 7", "nothing in it", "empty"),
)
"""Of the junk, what a tolerant reader takes: what may be missing, and names that could be any."""


def refused(act: Callable[[], object], route: str, name: object) -> None:
    with pytest.raises(UTDProtocolError) as wrong:
        act()
    assert wrong.value.route == route, name
    assert wrong.value.field, name


@contextmanager
def behind(engine: LocalEngine) -> Iterator[tuple[BadEngine, UTDStreamClient]]:
    """A client behind an engine of its own that may misbehave."""
    with bad_engine(engine) as bad, UTDStreamClient(engine.app_id, engine.app_key, base_url=bad.url) as client:
        yield bad, client
        bad.mend()


def looked(bad: BadEngine, what: str, since: int) -> bool:
    return any(path.startswith("GET ") and path.endswith(what) for path in bad.paths()[since:])


# ---------------------------------------------------------------------------------------------------------- joining


def test_a_way_in(engine: LocalEngine) -> None:
    good = {"token": "t", "url": "ws://127.0.0.1:1", "user_token": "u", "room_name": "r"}
    with behind(engine) as (bad, client):
        for join in (client.join_live_stream, client.join_audio_room):
            for name, reply in junk(**good):
                if "flying" in name or name.startswith(("no room_name", "room_name", "no user_token", "user_token")):
                    continue
                bad.spoil("POST", "/token", reply)
                refused(lambda: join("vera", "room"), "POST /token", name)  # noqa: B023 - called at once
                assert client.sessions == ()
                assert client.identity is None
                bad.mend()
        who = fresh("vera")
        client.join_live_stream(who, fresh("show")).leave()
        assert client.identity == who


# ------------------------------------------------------------------------------------------------------ audio rooms


def shown(session: UTDAudioRoomSession) -> tuple[object, ...]:
    return session.seats.value, session.pending_requests.value, session.invitations.value, own_standing(session)


ANSWERS = [*NO_OBJECT, *((f"grid {one!r:.60}", Reply(json={"grid": one})) for one in BAD_SEATS)]


def test_what_a_listener_asks_for(engine: LocalEngine) -> None:
    """Take, ask, take back, accept, decline, move, leave: nothing was applied, and nothing moves."""
    with audio_room(engine, mode="request") as scene, behind(engine) as (bad, client):
        host, who = scene["host"], fresh("vera")
        vera = client.join_audio_room(who, scene.room, microphone=Tone(660))

        def each(act: Callable[[], object], method: str, path: str, route: str, every: int = 1) -> None:
            before = shown(vera)
            for name, reply in ANSWERS[::every]:
                bad.spoil(method, f"/rooms/*/{path}", reply)
                refused(act, f"{method} /rooms/:room/{route}", name)
                assert shown(vera) == before, name
                assert not vera.can_publish.value or own_standing(vera) == "seated"
                bad.mend()

        each(vera.request_to_speak, "POST", "speakers/request", "speakers/request")
        vera.request_to_speak()
        each(vera.cancel_request, "DELETE", "speakers/request", "speakers/request", 4)
        vera.cancel_request()
        host.seats.wait_for(lambda grid: not grid.requests, timeout=WAIT)
        host.invite_to_speak(who, 2)
        vera.invitations.wait_for(lambda some: some, timeout=WAIT)
        each(vera.accept_invitation, "POST", "speakers/invitations/*/accept", "speakers/invitations/:id/accept", 3)
        each(vera.decline_invitation, "POST", "speakers/invitations/*/decline", "speakers/invitations/:id/decline", 4)
        assert vera.accept_invitation() == 2
        each(lambda: vera.move_seat(3), "POST", "seats/move", "seats/move", 4)
        bad.spoil("POST", "/rooms/*/seats/leave", Reply(body=b"no JSON"))
        refused(vera.leave_seat, "POST /rooms/:room/seats/leave", "leave")
        assert vera.seats.value.my_seat == 2
        bad.mend()
        vera.leave_seat()
        host.setup_seats(seat_mode="free")
        vera.seats.wait_for(lambda grid: grid.mode == "free", timeout=WAIT)
        each(lambda: vera.take_seat(1), "POST", "seats/1/take", "seats/:index/take", 3)
        before = shown(vera)
        for name, reply in [*junk(), *((repr(one), Reply(json=one)) for one in BAD_SEATS)]:
            if name != "nothing in it":
                bad.spoil("GET", "/rooms/*/seats", reply)
                refused(vera.get_seats, "GET /rooms/:room/seats", name)
                assert shown(vera) == before, name
                bad.mend()
        vera.take_seat(1)
        scene.people["vera"], scene.names["vera"] = vera, who
        all_agree(scene, {"vera": 1}, speaking=["vera"])


@pytest.mark.parametrize("answer", [b"no JSON", b'{"grid": {"seats": 5}}'])
def test_what_was_applied_all_the_same_is_seen(engine: LocalEngine, answer: bytes) -> None:
    """The verb fails, and the session resyncs: it sits, as the engine says, with the microphone off."""
    with audio_room(engine) as scene, behind(engine) as (bad, client):
        who = fresh("vera")
        vera = client.join_audio_room(who, scene.room, microphone=Tone(660))
        scene.people["vera"], scene.names["vera"] = vera, who
        bad.spoil("POST", "/rooms/*/take", Reply(body=answer), applied=True)
        refused(lambda: vera.take_seat(1), "POST /rooms/:room/seats/:index/take", answer)
        bad.mend()
        vera.seats.wait_for(lambda grid: grid.my_seat == 1, timeout=WAIT)
        all_agree(scene, {"vera": 1}, speaking=[])
        vera.set_microphone(True)
        bad.spoil("POST", "/rooms/*/leave", Reply(body=answer), applied=True)
        refused(vera.leave_seat, "POST /rooms/:room/seats/leave", answer)
        bad.mend()
        all_agree(scene, {}, speaking=[])


def moderation(host: Any, other: str) -> list[tuple[Callable[[], object], str, str]]:
    return [
        (lambda: host.setup_seats(6), "POST", "seats/setup"),
        (lambda: host.kick_seat(1), "POST", "seats/:index/kick"),
        (lambda: host.lock_seat(3), "POST", "seats/:index/lock"),
        (lambda: host.unlock_seat(2), "POST", "seats/:index/unlock"),
        (lambda: host.mute_seat(1), "POST", "seats/:index/mute"),
        (lambda: host.unmute_seat(1), "POST", "seats/:index/unmute"),
        (lambda: host.swap_seats(1, 3), "POST", "seats/swap"),
        (lambda: host.mute_all(), "PUT", "seats/mute-all"),
        (lambda: host.approve_speaker(1), "POST", "speakers/requests/:id/approve"),
        (lambda: host.reject_speaker(1), "POST", "speakers/requests/:id/reject"),
        (lambda: host.invite_to_speak(other), "POST", "speakers/invite"),
    ]


def pattern(route: str) -> str:
    return "/rooms/*/" + route.replace(":index", "*").replace(":id", "*")


def test_what_a_moderator_does(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", mode="free") as scene, behind(engine) as (bad, client):
        scene["host"].leave()
        host = client.join_audio_room(scene.id("host"), scene.room, True, microphone=Tone(TONES["host"]))
        scene.people["host"] = host
        assert host.is_host
        scene["vera"].take_seat(1)
        host.lock_seat(2)
        host.seats.wait_for(lambda grid: grid.seats[1].identity is not None, timeout=WAIT)
        before = shown(host)
        for act, method, route in moderation(host, scene.id("will")):
            for name, reply in ANSWERS[:: 1 if route == "seats/swap" else 5]:
                bad.spoil(method, pattern(route), reply)
                refused(act, f"{method} /rooms/:room/{route}", name)
                bad.mend()
                assert shown(host) == before, (route, name)
        bad.spoil("POST", "/rooms/*/speakers/invite", Reply(json={}))
        refused(lambda: host.invite_to_speak(scene.id("will")), "POST /rooms/:room/speakers/invite", "no id")
        bad.mend()
        all_agree(scene, {"vera": 1}, speaking=["vera"])
        since = len(bad.paths())
        bad.spoil("POST", "/rooms/*/swap", Reply(body=b"no JSON"), applied=True)
        refused(lambda: host.swap_seats(1, 3), "POST /rooms/:room/seats/swap", "applied")
        assert host.seats.value.seat_of(scene.id("vera")) == 3  # it looked
        assert looked(bad, "/seats", since)
        all_agree(scene, {"vera": 3}, speaking=["vera"])


@pytest.mark.parametrize("kind", ["stream", "room"])
def test_people_roles_bans_and_comments(engine: LocalEngine, kind: str) -> None:
    make: Any = live_stream if kind == "stream" else audio_room
    with make(engine, "vera") as scene, behind(engine) as (bad, client):
        scene["host"].leave()
        join: Any = client.join_live_stream if kind == "stream" else client.join_audio_room
        host = join(scene.id("host"), scene.room, True)
        who = scene.id("vera")
        host.roles.wait_for(lambda roles: who in roles, timeout=WAIT)
        before = dict(host.roles.value), host.chat_locked.value
        role = {"identity": who, "role": "admin", "previous_role": "audience"}
        ban = {"id": 1, "identity": who, "room_name": scene.room, "reason": None}
        page = {"page": 1, "per_page": 20, "total": 1, "total_pages": 1}
        wholes: list[tuple[Callable[[], object], str, str, list[tuple[str, Reply]]]] = [
            (lambda: host.promote(who), "PUT", "rooms/:room/participants/:id/role", junk(**role)),
            (lambda: host.bans(), "GET", "rooms/bans", junk(data=[ban], pagination=page)),
            (lambda: host.kick(who), "DELETE", "rooms/:room/participants/:id", NO_OBJECT),
            (lambda: host.mute_participant(who), "PUT", "rooms/:room/participants/:id/mute", NO_OBJECT),
            (lambda: host.unban(who), "DELETE", "rooms/ban", NO_OBJECT),
            (lambda: host.ban(who), "POST", "rooms/ban", junk(**ban)),
            (lambda: host.lock_chat(), "PUT", "rooms/:room/comments", NO_OBJECT),
            (lambda: host.lock_chat(), "PUT", "rooms/:room/comments", junk(locked=True, version=9)),
        ]
        for act, method, route, answers in wholes:
            for name, reply in answers:
                if name.startswith(FINE) or (route == "rooms/ban" and name == "no id"):
                    continue
                bad.spoil(method, "/" + route.replace(":room", "*").replace(":id", "*"), reply)
                refused(act, f"{method} /{route}", name)
                bad.mend()
                assert (dict(host.roles.value), host.chat_locked.value) == before, (route, name)
        assert scene["vera"].connected.value
        host.promote(who)
        host.lock_chat()
        assert host.roles.value[who] is UTDRole.ADMIN
        assert host.chat_locked.value


# ---------------------------------------------------------------------------------------------------------- streams


def of_stage(session: UTDLiveStreamSession) -> tuple[object, ...]:
    return session.stage.value, session.hands.value, str(session.broadcast.value), own_standing(session)


STAGE_ANSWERS = [*NO_OBJECT, *((repr(one), Reply(json=one)) for one in BAD_STAGES[1:])]


def test_a_viewers_and_a_hosts_verbs(engine: LocalEngine) -> None:
    with live_stream(engine) as scene, behind(engine) as (bad, client), behind(engine) as (worse, other):
        who = fresh("vera")
        vera = client.join_live_stream(who, scene.room, microphone=Tone(660))
        scene["host"].leave()
        host = other.join_live_stream(scene.id("host"), scene.room, True, microphone=Tone(440))
        scene.people |= {"host": host, "vera": vera}
        scene.names["vera"] = who
        host.go_live(with_video=False)
        vera.broadcast.wait_for("live", timeout=WAIT)

        def each(
            session: UTDLiveStreamSession,
            at: BadEngine,
            act: Callable[[], object],
            method: str,
            route: str,
            answers: Any,
        ) -> None:
            before = of_stage(session)
            for name, reply in answers:
                at.spoil(method, f"/rooms/*/{route}", reply)
                refused(act, f"{method} /rooms/:room/{route}", name)
                at.mend()
                assert of_stage(session) == before, (route, name)

        each(vera, bad, vera.request_stage, "POST", "stage/request", STAGE_ANSWERS)
        vera.request_stage()
        each(vera, bad, vera.lower_hand, "DELETE", "stage/request", STAGE_ANSWERS[::3])
        host.hands.wait_for(lambda hands: hands, timeout=WAIT)
        each(host, worse, lambda: host.invite_to_stage(who), "POST", "stage/add", STAGE_ANSWERS[::2])
        host.invite_to_stage(who)
        vera.can_publish.wait_for(True, timeout=WAIT)
        vera.stage.wait_for(lambda stage: stage, timeout=WAIT)
        vera.set_microphone(True)
        each(host, worse, lambda: host.remove_from_stage(who), "POST", "stage/remove", STAGE_ANSWERS[::3])
        whole = [*junk(), *((repr(one), Reply(json=one)) for one in BAD_STAGES)]
        each(host, worse, host.refresh_stage, "GET", "stage", whole)
        each(host, worse, host.end_live, "POST", "live/end", [("x", Reply(json=one)) for one in BAD_LIVES])
        stage_agrees(scene, ["vera"], speaking=["host", "vera"])
        # What was applied all the same is seen, and what stopped stays stopped.
        bad.spoil("POST", "/rooms/*/stage/leave", Reply(body=b"no JSON"), applied=True)
        refused(vera.leave_stage, "POST /rooms/:room/stage/leave", "applied")
        bad.mend()
        assert vera.stage.value == ()
        worse.spoil("POST", "/rooms/*/stage/add", Reply(body=b"no JSON"), applied=True)
        refused(lambda: host.invite_to_stage(who), "POST /rooms/:room/stage/add", "applied")
        worse.mend()
        assert [one.identity for one in host.stage.value] == [who]
        stage_agrees(scene, ["vera"], speaking=["host"])
        worse.spoil("POST", "/rooms/*/live/end", Reply(body=b"no JSON"), applied=True)
        refused(host.end_live, "POST /rooms/:room/live/end", "applied")
        worse.mend()
        assert vera.wait_until_ended(timeout=WAIT) is UTDBroadcast.ENDED
        assert host.wait_until_ended(timeout=WAIT) is UTDBroadcast.ENDED


def test_going_live_is_all_or_nothing(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", live=False) as scene, behind(engine) as (bad, client):
        scene["host"].leave()
        host = client.join_live_stream(scene.id("host"), scene.room, True, microphone=Tone(440))
        scene.people["host"] = host
        for name, reply in [*NO_OBJECT[::3], *((repr(one), Reply(json=one)) for one in BAD_LIVES)]:
            bad.spoil("POST", "/rooms/*/live/start", reply)
            refused(lambda: host.go_live(with_video=False), "POST /rooms/:room/live/start", name)
            bad.mend()
            assert host.broadcast.value == "waiting"
        stage_agrees(scene, [], speaking=[], broadcast="waiting")
        host.go_live(with_video=False)
        stage_agrees(scene, [], speaking=["host"])


# --------------------------------------------------------------------------------------------------------- metadata


def write_room(engine: LocalEngine, room: str, metadata: str) -> None:
    """As only a server can; here in the engine's place."""
    request = api.UpdateRoomMetadataRequest(room=room, metadata=metadata)
    server(engine, lambda livekit: livekit.room.update_room_metadata(request))


def write_person(engine: LocalEngine, room: str, identity: str, metadata: str) -> None:
    request = api.UpdateParticipantRequest(room=room, identity=identity, metadata=metadata)
    server(engine, lambda livekit: livekit.room.update_participant(request))


def told_by_data(scene: Scene[Any], sender: str, to: Any, engine: LocalEngine) -> None:
    """What was written before has arrived when this has."""
    mark = fresh("mark")
    events = to.events.listen(timeout=WAIT)
    with events:
        scene[sender].send_data(mark.encode(), to=[to.identity] if hasattr(to, "identity") else None)
        for event in events:
            if event.name == "data_received" and mark.encode() in getattr(event.args[0], "data", b""):
                return


def test_the_metadata_of_an_audio_room(engine: LocalEngine) -> None:
    with audio_room(engine, "will", mode="request") as scene, behind(engine) as (bad, client):
        vera = client.join_audio_room(fresh("vera"), scene.room)
        vera.request_to_speak()
        scene["host"].pending_requests.wait_for(lambda some: some, timeout=WAIT)  # the engine has written it
        before, locked = shown(vera), vera.chat_locked.value
        wrongs = [
            "garbage",
            "[" * 50_000,
            *(json.dumps({"_seats": one}) for one in BAD_SEATS if not isinstance(one, dict) or "version" not in one),
            json.dumps({"_seats": {"version": "new"}}),
            json.dumps({"_comments_locked": {"locked": "perhaps", "version": 10**6}}),
            json.dumps({"_comments_locked": 5}),
        ]
        since = len(bad.paths())
        for wrong in wrongs:
            write_room(engine, scene.room, wrong)
        told_by_data(scene, "host", vera, engine)
        until(lambda: looked(bad, "/seats", since), "it asks the engine instead")
        assert shown(vera) == before
        assert vera.chat_locked.value is locked
        assert sum(path.endswith("/seats") for path in bad.paths()[since:]) < len(wrongs)  # and does not flood it
        scene["host"].approve_speaker(before[1][0])  # type: ignore[index]
        vera.seats.wait_for(lambda grid: grid.my_seat is not None, timeout=WAIT)


def test_the_metadata_of_a_stream(engine: LocalEngine) -> None:
    with live_stream(engine) as scene, behind(engine) as (bad, client):
        vera = client.join_live_stream(fresh("vera"), scene.room)
        vera.request_stage()
        vera.broadcast.wait_for("live", timeout=WAIT)
        before, since = of_stage(vera), len(bad.paths())
        wrongs = [
            "garbage",
            *(json.dumps({"_stage": one}) for one in BAD_STAGES),
            *(json.dumps({"_live": one}) for one in BAD_LIVES if one != "live"),
        ]
        for wrong in wrongs:
            write_room(engine, scene.room, wrong)
        told_by_data(scene, "host", vera, engine)
        until(lambda: looked(bad, "/stage", since), "it asks the engine instead")
        assert of_stage(vera) == before
        scene["host"].invite_to_stage(before[1][0].identity)  # type: ignore[index]
        vera.stage.wait_for(lambda stage: stage, timeout=WAIT)
        scene["host"].end_live()
        vera.wait_until_ended(timeout=WAIT)


@pytest.mark.parametrize("metadata", ["garbage", "[]", "5", '{"role": 5}', '{"role": "king"}', "[" * 50_000])
def test_a_participants_metadata(engine: LocalEngine, metadata: str) -> None:
    """What cannot be read says nothing: who was host is host."""
    with live_stream(engine, "vera") as scene:
        host, vera = scene["host"], scene["vera"]
        before = dict(vera.roles.value), of_stage(vera)
        for name in ("host", "vera"):
            write_person(engine, scene.room, scene.id(name), metadata)
        told_by_data(scene, "host", vera, engine)
        told_by_data(scene, "vera", host, engine)
        assert (dict(vera.roles.value), of_stage(vera)) == before
        assert (host.is_host, host.role, vera.role) == (True, "host", "audience")
        host.end_live()
        vera.wait_until_ended(timeout=WAIT)
