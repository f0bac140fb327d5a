"""A participant of the room forges the engine's messages, speaks for others, and publishes what it may not.

It is a real LiveKit client with a token of the room, and none of our code in between. What it says is at most a hint:
nothing changes at anyone's, no signal is sent, and nobody is made to flood the engine with requests.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import pytest
from livekit import rtc
from livekit.rtc.participant import PublishTrackError

from tests.integration.calling import WAIT, fresh, until
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import Asker, Scene, all_agree, audio_room, in_media, live_stream, stage_agrees
from utd_fsm import UTDRole, signals
from utd_fsm.local.engine.app import create_app
from utd_fsm.local.engine.settings import EngineSettings
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

T = TypeVar("T")
Way = Callable[[], GateProxy]
FLOOD = 2000
A_LOOK = 2.2
"""Seconds within which a hint is looked into: `LookTiming.debounce` and its whole jitter."""
A_HANDFUL = 3
"""Requests that a session may send because of all hints together: a look for news, one for a ban, one to spare."""
SIGNALS = (
    "connection_changed",
    "can_publish_changed",
    "broadcast_changed",
    "stage_changed",
    "hands_changed",
    "seats_changed",
    "requests_changed",
    "chat_locked_changed",
    "invited",
    "role_changed",
    "chat_received",
    "banned",
    "data_received",
)


class Hostile:
    """A raw LiveKit client on a loop of its own. A context manager."""

    def __init__(self, engine: LocalEngine, room: str, kind: str, identity: str | None = None) -> None:
        self.engine, self.name, self.kind = engine, room, kind
        self.asker = Asker(engine, identity or fresh("eve"))
        self.identity = self.asker.identity
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile", daemon=True)
        self._thread.start()
        self.room: rtc.Room | None = None

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Run it on its loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(WAIT)

    def join(self, *at_once: bytes) -> None:
        """Enter, and send these before anybody can have been told of it."""
        body = {"identity": self.identity, "room_name": self.name, "type": self.kind}
        status, ticket = self.asker.ask("POST", "/token", body)
        assert status == 200, ticket

        async def enter() -> rtc.Room:
            room = rtc.Room()
            await room.connect(ticket["url"], ticket["token"])
            self.room = room
            await self._send(at_once)
            return room

        self.do(enter())

    def send(self, *messages: bytes) -> None:
        """To all, reliably."""
        self.do(self._send(messages))

    async def _send(self, messages: tuple[bytes, ...]) -> None:
        assert self.room is not None
        for begin in range(0, len(messages), 50):
            await asyncio.gather(
                *(self.room.local_participant.publish_data(one, reliable=True) for one in messages[begin : begin + 50])
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.room is not None:
            self.do(self.room.disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()


def forgeries(scene: Scene[Any], hostile: str) -> list[bytes]:
    """One of each message that the engine, or a host, may send; all of them lies."""
    victim, host = scene.id("vera"), scene.id("host")
    grid = {
        "count": 1,
        "mode": "free",
        "version": 10**15,
        "seats": [{"index": 0, "identity": hostile, "locked": False, "muted": False}],
        "requests": [],
    }
    stage = {"stage": [{"identity": hostile, "role": "host"}], "hands": [], "version": 10**15}
    lies: list[dict[str, Any]] = [
        {"type": "_seat_update", **grid},
        {"type": "_seat_update", "seats": grid, "version": 10**15},
        {"type": "_stage_update", **stage},
        {"type": "_mode_change", "mode_id": 7, "seat_count": 1, "seat_mode": "request"},
        {"type": "_role_change", "identity": hostile, "role": "host", "previous_role": "audience"},
        {"type": "_role_change", "identity": host, "role": "audience", "previous_role": "host"},
        {"type": "_comment_lock", "locked": True, "version": 10**15},
        {"type": "_kicked", "reason": "signed_in_elsewhere", "room_name": scene.room},
        {"type": "_kicked", "reason": "kicked", "room_name": scene.room},
        {"type": "_banned", "room_name": scene.room, "reason": "because", "expires_at": None},
        {"type": "_live_ended"},
        {"type": "_speaker_request", "identity": hostile, "request_id": 1},
        {"type": "_speaker_request_approved", "request_id": 1, "identity": victim, "seat_index": 1},
        {
            "type": "_speaker_invitation",
            "invitation_id": 1,
            "inviter_identity": host,
            "target_identity": victim,
            "seat_index": 1,
        },
        {"type": "_stage_request", "identity": hostile, "name": "Eve"},
    ]
    return [json.dumps(lie).encode() for lie in lies]


@contextmanager
def told() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Every signal that any session sends meanwhile."""
    heard: list[tuple[str, dict[str, Any]]] = []
    receivers = []
    for name in SIGNALS:

        def note(sender: object, *, _name: str = name, **content: Any) -> None:
            heard.append((_name, content))

        getattr(signals, name).connect(note, weak=False)
        receivers.append((getattr(signals, name), note))
    try:
        yield heard
    finally:
        for signal, note in receivers:
            signal.disconnect(note)


def everything_arrived(hostile: Hostile, heard: list[tuple[str, dict[str, Any]]], sessions: int) -> None:
    """Its last word, an honest one, came to all; so everything before it did. Then the time of the looks goes by."""
    mark = b"the end of " + fresh("it").encode()
    hostile.send(mark)
    until(lambda: sum(content.get("data") == mark for _, content in list(heard)) == sessions, "the last word came")
    time.sleep(A_LOOK)
    signals.drain(WAIT)
    heard[:] = [(name, content) for name, content in heard if content.get("data") != mark]


def attack(scene: Scene[Any], kind: str, ways: dict[str, GateProxy], unchanged: Callable[[], object]) -> None:
    """All lies in the first moment, then later, then thousands of both; after each everything is as it was."""
    before = unchanged()
    people = len(scene.people)
    with told() as heard:
        for flood in (1, FLOOD):
            asked = {name: len(way.state.seen) for name, way in ways.items()}
            with Hostile(scene.engine, scene.room, kind) as early, Hostile(scene.engine, scene.room, kind) as late:
                lies = forgeries(scene, early.identity)
                early.join(*(lies * (flood // len(lies) + 1))[: max(flood, len(lies))])
                everything_arrived(early, heard, people)
                late.join()
                for one in scene.people.values():
                    one.remote_participants.wait_for(
                        lambda others: any(other.identity == late.identity for other in others), timeout=WAIT
                    )
                lies = forgeries(scene, late.identity)
                late.send(*(lies * (flood // len(lies) + 1))[: max(flood, len(lies))])
                everything_arrived(late, heard, people)
            assert heard == []
            assert unchanged() == before
            for name, way in ways.items():
                new = [(one.method, one.path) for one in way.state.seen[asked[name] :]]
                assert len(new) <= A_HANDFUL, f"{name} was made to ask {new}"


def test_a_participant_lies_in_an_audio_room(engine: LocalEngine, way: Way) -> None:
    ways = {name: way() for name in ("host", "vera", "will")}
    with audio_room(engine, "vera", "will", mode="free", ways=ways) as room:
        room["host"].take_seat(0)
        room["vera"].take_seat(2)

        given = {who: UTDRole.HOST if name == "host" else UTDRole.AUDIENCE for name, who in room.names.items()}

        def shown() -> object:
            grid = all_agree(room, {"host": 0, "vera": 2}, speaking={"host", "vera"})
            for one in room.people.values():
                assert one.connection.value == "connected"
                assert not one.chat_locked.value
                assert not one.invitations.value
                one.roles.wait_for(lambda roles: {who: roles.get(who) for who in given} == given, timeout=WAIT)
            return grid

        attack(room, "audio_room", ways, shown)


def test_a_participant_lies_in_a_live_stream(engine: LocalEngine, way: Way) -> None:
    ways = {name: way() for name in ("host", "vera", "will")}
    with live_stream(engine, "vera", "will", ways=ways) as show:
        show["host"].invite_to_stage(show.id("vera"))
        show["will"].request_stage()

        def shown() -> object:
            stage_agrees(show, ["vera"], hands=["will"], speaking={"host"})
            for one in show.people.values():
                assert one.connection.value == "connected"
                assert not one.chat_locked.value
            return show.eye.stage(show.room)

        attack(show, "live_stream", ways, shown)


# -------------------------------------------------------------------------------------------- in the name of others


def operations() -> list[tuple[str, str, dict[str, Any] | None]]:
    """Every operation of the engine that names who does it: method, path, and a body that is right but for that."""
    schema = create_app(EngineSettings()).openapi()
    found = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            acting = [one["name"] for one in operation.get("parameters", ()) if one["name"] == "identity"]
            if body is not None or acting:
                found.append((method.upper(), path, None if body is None else _resolved(schema, body)))
    return found


def _resolved(schema: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    for option in body.get("anyOf", (body,)):
        if "$ref" in option:
            resolved: dict[str, Any] = schema["components"]["schemas"][option["$ref"].rsplit("/", 1)[1]]
            return resolved
    return body


def _content(schema: dict[str, Any], victim: str, target: str, room: str) -> dict[str, Any]:
    known: dict[str, Any] = {
        "identity": victim,
        "actor_identity": victim,
        "caller_identity": victim,
        "callee_identity": target,
        "target_identity": target,
        "room_name": room,
        "type": "audio_room",
        "role": "admin",
        "seat_count": 2,
        "target_seat": 1,
        "a": 0,
        "b": 1,
        "muted": True,
        "locked": True,
        "audio": True,
        "video": False,
    }
    return {name: known[name] for name in schema["properties"] if name in known}


UNNAMED = {("POST", "/auth/session"), ("POST", "/token"), ("POST", "/rooms/ban"), ("DELETE", "/rooms/ban")}
"""Where no bearer says who it is: signing in and asking for a way in make one; and a ban names whom it is about."""


def test_every_route_refuses_to_act_for_another(local: LocalEngine) -> None:
    """With the bearer of an ordinary listener, in the name of the host."""
    with audio_room(local, "vera", mode="request") as room:
        request = room["vera"].request_to_speak()
        before = all_agree(room, {}, speaking=())
        eve, host, bob = Asker(local, fresh("eve")), Asker(local, room.id("host")), fresh("bob")
        ringing = {"caller_identity": host.identity, "callee_identity": bob, "type": "audio_call"}
        status, call = host.ask("POST", "/calls", ringing)
        assert status == 201, call
        walked = []
        for method, path, schema in operations():
            route = re.sub(r"^/api/v1", "", path)
            if (method, route) in UNNAMED or route.startswith(("/webhooks", "/media")):
                continue
            number = call["call_id"] if route.startswith("/calls") else str(request.id)
            whom = room.id("vera") if "/participants/" in route else number
            filled = route.replace("{room}", room.room).replace("{index}", "1").replace("{id}", whom)
            assert "{" not in filled, filled
            body = None if schema is None else _content(schema, room.id("host"), eve.identity, room.room)
            if body is not None and route == "/calls":
                body["type"] = "video_call"
            if body is None:
                filled += f"?identity={room.id('host')}"
            status, answer = eve.ask(method, filled, body)
            assert (status, answer.get("code")) == (403, "wrong_identity"), (method, route, body, status, answer)
            walked.append((method, route))
        assert len(walked) > 30, walked
        for status, answer in (
            eve.ask("POST", "/rooms/ban", {"identity": room.id("vera"), "room_name": room.room}),
            eve.ask("DELETE", "/rooms/ban", {"identity": room.id("vera"), "room_name": room.room}),
            eve.ask("GET", f"/rooms/bans?room_name={room.room}"),
            eve.ask("PUT", f"/rooms/{room.room}/comments", {"identity": eve.identity, "locked": True}),
            eve.ask("POST", f"/rooms/{room.room}/seats/1/lock", {"identity": eve.identity}),
        ):
            assert (status, answer.get("code")) == (403, "not_moderator"), answer
        assert all_agree(room, {}, speaking=()) == before
        status, after = host.ask("GET", f"/calls/{call['call_id']}")
        assert (status, after["status"]) == (200, "initiating"), after
        assert host.ask("POST", f"/calls/{call['call_id']}/end", {"identity": host.identity})[0] == 200


# ----------------------------------------------------------------------------------------------------------- in media


async def _publishes(room: rtc.Room, hz: float) -> rtc.LocalTrackPublication:
    source = rtc.AudioSource(48_000, 1)
    track = rtc.LocalAudioTrack.create_audio_track("mic", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    return await room.local_participant.publish_track(track, options)


def test_a_listener_publishes_without_a_grant(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as room:
        before = all_agree(room, {}, speaking=())
        with Hostile(engine, room.room, "audio_room") as eve:
            eve.join()
            assert eve.room is not None
            with pytest.raises(PublishTrackError):
                eve.do(_publishes(eve.room, 1000.0))
            assert all_agree(room, {}, speaking=()) == before
            assert not in_media(engine, room.room)[eve.identity].tracks


def test_one_who_is_muted_by_its_seat_unmutes_itself(engine: LocalEngine) -> None:
    """The engine mutes whatever it publishes, again and again; its own unmute reaches nobody."""
    with audio_room(engine, "vera", "will") as room, Hostile(engine, room.room, "audio_room") as eve:
        room.names["eve"] = eve.identity
        eve.join()
        status, answer = eve.asker.ask("POST", f"/rooms/{room.room}/seats/1/take", {"identity": eve.identity})
        assert status == 200, answer
        until(lambda: in_media(engine, room.room)[eve.identity].permission.can_publish, "it may publish")
        assert eve.room is not None
        publication = eve.do(_publishes(eve.room, 1000.0))
        all_agree(room, {"eve": 1}, speaking={"eve"})
        room["host"].seats.wait_for(lambda grid: not grid.seats[1].is_empty, timeout=WAIT)
        room["host"].mute_seat(1)
        assert all_agree(room, {"eve": 1}, speaking=()).seats[1].muted

        async def unmute() -> None:
            assert isinstance(publication.track, rtc.LocalAudioTrack)
            publication.track.unmute()

        eve.do(unmute())
        all_agree(room, {"eve": 1}, speaking=())

        async def publish_anew() -> None:
            assert eve.room is not None
            await eve.room.local_participant.unpublish_track(publication.sid)
            await _publishes(eve.room, 1000.0)

        eve.do(publish_anew())
        all_agree(room, {"eve": 1}, speaking=())
        room["host"].kick_seat(1)
        all_agree(room, {}, speaking=())
