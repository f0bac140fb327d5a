"""Streams and audio rooms with people in them, and the proof that all of them see the same.

What is held against each other: the engine, asked by somebody who is not in the room; every session's Observables and
its own standing; and the media server, which alone knows who really sends. The public blocking API, except for two
looks behind it: the standing of a session's own machine, and the media server's list.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

from livekit import api
from livekit.protocol import models

from tests.integration.calling import WAIT, fresh, heard_hz
from tests.integration.gate_proxy import GateProxy
from utd_fsm import (
    UTDAudioRoomSession,
    UTDBroadcast,
    UTDConnectionState,
    UTDLiveStreamSession,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStreamClient,
    room_wire,
    wire,
)
from utd_fsm.local.processes import EngineProcess
from utd_fsm.media import Tone
from utd_fsm.room_models import UTDStage
from utd_fsm.sessions.seat_grid import standing_of
from utd_fsm.testing import LocalEngine, local_engine

S = TypeVar("S", UTDLiveStreamSession, UTDAudioRoomSession)

TONES: Mapping[str, float] = {"host": 440.0, "vera": 660.0, "will": 880.0, "xena": 1100.0, "yuri": 1320.0}
"""What each one says, in Hz."""
_POLL = 0.1


class Asker:
    """Somebody who only asks the engine, without any of our own code in between.

    Args:
        identity: whose bearer it carries; a fresh one unless given.
    """

    def __init__(self, engine: LocalEngine, identity: str | None = None) -> None:
        self.identity = identity or fresh("eye")
        self._engine = engine
        with UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as client:
            self.bearer = client.authenticate(self.identity)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request; status and answer."""
        parts = urlsplit(self._engine.base_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT)
        try:
            connection.request(
                method,
                wire.PREFIX + path,
                body=None if body is None else json.dumps(body),
                headers={
                    "Authorization": f"Bearer {self.bearer}",
                    "X-App-Id": self._engine.app_id,
                    "X-App-Key": self._engine.app_key,
                    "Content-Type": "application/json",
                },
            )
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        finally:
            connection.close()

    def seats(self, room: str) -> UTDSeatGrid:
        """The grid, as the engine keeps it."""
        return room_wire.read_seats(self._get(room_wire.SEATS, room), "GET seats")

    def stage(self, room: str) -> UTDStage:
        """The stage and the hands, as the engine keeps them."""
        return room_wire.read_stage(self._get(room_wire.STAGE, room), "GET stage")

    def _get(self, route: str, room: str) -> Any:
        status, answer = self.ask("GET", route.format(room=quote(room, safe="")))
        assert status == 200, (status, answer)
        return answer


def in_media(engine: LocalEngine, room: str) -> dict[str, models.ParticipantInfo]:
    """Who is in a media room, as the media server lists them."""

    async def ask() -> dict[str, models.ParticipantInfo]:
        url = engine.media.url.replace("ws", "http", 1)
        async with api.LiveKitAPI(url, engine.livekit_key, engine.livekit_secret) as livekit:
            try:
                answer = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
            except api.TwirpError as error:
                if error.status == 404:
                    return {}
                raise
            return {one.identity: one for one in answer.participants}

    return asyncio.run(ask())


def live_of(engine: LocalEngine, room: str) -> str | None:
    """Where a stream is, as the metadata of its media room say."""

    async def ask() -> str:
        url = engine.media.url.replace("ws", "http", 1)
        async with api.LiveKitAPI(url, engine.livekit_key, engine.livekit_secret) as livekit:
            answer = await livekit.room.list_rooms(api.ListRoomsRequest(names=[room]))
            return answer.rooms[0].metadata if answer.rooms else ""

    metadata = asyncio.run(ask())
    return room_wire.read_room_state(metadata).live if metadata else None


def speaks(who: models.ParticipantInfo) -> bool:
    """Whether it sends sound."""
    return any(track.type == models.TrackType.AUDIO and not track.muted for track in who.tracks)


def settles(differences: Callable[[], list[str]], timeout: float = WAIT) -> None:
    """Until nothing differs any more; what does is the failure."""
    limit = time.monotonic() + timeout
    while left := differences():
        assert time.monotonic() < limit, "they do not agree:\n" + "\n".join(left)
        time.sleep(_POLL)


@dataclass
class Scene(Generic[S]):
    """One room, its people, and somebody outside who asks the engine."""

    engine: LocalEngine
    room: str
    eye: Asker
    people: dict[str, S] = field(default_factory=dict)
    clients: dict[str, UTDStreamClient] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> S:
        return self.people[name]

    def id(self, name: str) -> str:
        """The identity of whoever is called so here."""
        return self.names[name]

    def who(self, identities: Iterable[str | None]) -> list[str]:
        """How these are called here."""
        called = {identity: name for name, identity in self.names.items()}
        return [called.get(one or "", one or "-") for one in identities]

    def sending(self) -> set[str]:
        """Who really sends sound, by name."""
        return set(self.who(one.identity for one in in_media(self.engine, self.room).values() if speaks(one)))

    def present(self) -> dict[str, S]:
        """Who is in the room, or on its way back into it."""
        out = (UTDConnectionState.DISCONNECTED, UTDConnectionState.FORCE_EXIT)
        return {name: one for name, one in self.people.items() if one.connection.value not in out}


# --------------------------------------------------------------------------------------------------------- audio room


@contextmanager
def audio_room(
    engine: LocalEngine,
    *listeners: str,
    seats: int = 4,
    mode: str = "free",
    ways: Mapping[str, GateProxy] | None = None,
    auto_unmute: bool = False,
) -> Iterator[Scene[UTDAudioRoomSession]]:
    """An audio room with its host and these listeners; nobody sits. Each has a tone of its own."""
    scene: Scene[UTDAudioRoomSession] = Scene(engine, fresh("lobby"), Asker(engine))
    with ExitStack() as stack:
        for name in ("host", *listeners):
            client = _client(engine, name, ways, stack)
            scene.clients[name], scene.names[name] = client, fresh(name)
            more: dict[str, Any] = {"seat_count": seats, "seat_mode": mode} if name == "host" else {}
            scene.people[name] = client.join_audio_room(
                scene.names[name],
                scene.room,
                name == "host",
                microphone=Tone(TONES[name]),
                auto_unmute=auto_unmute,
                timeout=WAIT,
                **more,
            )
        yield scene


def all_agree(scene: Scene[UTDAudioRoomSession], seats: Mapping[str, int], *, speaking: Iterable[str]) -> UTDSeatGrid:
    """Who sits where, who speaks, and that engine, media server and everybody in the room say so. Returns the grid."""
    loud = set(speaking)

    def differences() -> list[str]:
        truth = scene.eye.seats(scene.room)
        seated = {seat.identity for seat in truth.seats if seat.identity is not None}
        wanted = {scene.id(name): index for name, index in seats.items()}
        found = [] if {one: truth.seat_of(one) for one in seated} == wanted else [f"the engine: {truth}"]
        for name, one in scene.present().items():
            if not one.connected.value:
                found.append(f"{name} is {one.connection.value}")
            mine, identity = one.seats.value, scene.id(name)
            if dataclasses.replace(mine, viewer=None) != truth:
                found.append(f"{name} sees {mine} instead of {truth}")
            if mine.my_seat != truth.seat_of(identity) or mine.viewer != identity:
                found.append(f"{name}'s seat is {mine.my_seat}")
            if own_standing(one) != standing_of(truth, identity):
                found.append(f"{name} is {own_standing(one)}, not {standing_of(truth, identity)}")
            if one.pending_requests.value != truth.requests:
                found.append(f"{name} sees {one.pending_requests.value} ask")
            if one.can_publish.value != (identity in seated):
                found.append(f"{name}'s can_publish is {one.can_publish.value}")
        return found + _media_differs(scene, loud, {one for one in seated if one})

    settles(differences)
    return scene.eye.seats(scene.room)


def own_standing(session: UTDAudioRoomSession | UTDLiveStreamSession) -> str:
    """The state of a session's own machine."""
    if isinstance(session, UTDAudioRoomSession):
        return session._core._stay.standing.state
    standing = session._core._standing
    return standing.state if standing is not None else "none"


def ask_to_speak(scene: Scene[UTDAudioRoomSession], name: str) -> UTDSpeakerRequest:
    """Ask; returns the request once the host sees it."""
    request = scene[name].request_to_speak()
    scene["host"].pending_requests.wait_for(lambda asked: request in asked, timeout=WAIT)
    return request


# -------------------------------------------------------------------------------------------------------- live stream


@contextmanager
def live_stream(
    engine: LocalEngine,
    *viewers: str,
    live: bool = True,
    ways: Mapping[str, GateProxy] | None = None,
    room: str | None = None,
) -> Iterator[Scene[UTDLiveStreamSession]]:
    """A stream with its host, live with sound only, and these viewers. Each has a tone of its own."""
    scene: Scene[UTDLiveStreamSession] = Scene(engine, room or fresh("show"), Asker(engine))
    with ExitStack() as stack:
        for name in ("host", *viewers):
            client = _client(engine, name, ways, stack)
            scene.clients[name], scene.names[name] = client, fresh(name)
            scene.people[name] = client.join_live_stream(
                scene.names[name], scene.room, name == "host", microphone=Tone(TONES[name]), timeout=WAIT
            )
        if live:
            scene["host"].go_live(with_video=False, timeout=WAIT)
            for one in scene.people.values():
                one.broadcast.wait_for(UTDBroadcast.LIVE, timeout=WAIT)
        yield scene


def stage_agrees(
    scene: Scene[UTDLiveStreamSession],
    on_stage: Iterable[str],
    *,
    hands: Iterable[str] = (),
    speaking: Iterable[str],
    broadcast: UTDBroadcast | str = UTDBroadcast.LIVE,
) -> None:
    """Who is on stage, whose hand is up, who speaks, where the stream is; and that everybody and everything says so."""
    loud, members, raised = set(speaking), list(on_stage), list(hands)

    def differences() -> list[str]:
        truth = scene.eye.stage(scene.room)
        found = []
        if scene.who(one.identity for one in truth.members) != members:
            found.append(f"the engine: {truth}")
        if scene.who(one.identity for one in truth.hands or ()) != raised:
            found.append(f"the engine: {truth}")
        if (kept := live_of(scene.engine, scene.room)) != broadcast:
            found.append(f"the engine's broadcast: {kept}")
        for name, one in scene.present().items():
            if not one.connected.value:
                found.append(f"{name} is {one.connection.value}")
            if one.stage.value != truth.members or one.hands.value != truth.hands:
                found.append(f"{name} sees {one.stage.value}, {one.hands.value} instead of {truth}")
            if one.broadcast.value != broadcast:
                found.append(f"{name} sees the stream {one.broadcast.value}")
            if name == "host":
                continue
            standing = "on_stage" if name in members else "hand_up" if name in raised else "audience"
            if own_standing(one) != standing:
                found.append(f"{name} is {own_standing(one)}, not {standing}")
            if one.can_publish.value != (name in members):
                found.append(f"{name}'s can_publish is {one.can_publish.value}")
        return found + _media_differs(scene, loud, {scene.id(name) for name in ("host", *members)})

    settles(differences)


def bring_on_stage(scene: Scene[UTDLiveStreamSession], *names: str) -> None:
    """On stage, with the microphone on."""
    for name in names:
        scene["host"].invite_to_stage(scene.id(name))
        scene[name].can_publish.wait_for(True, timeout=WAIT)
        scene[name].set_microphone(True)


# -------------------------------------------------------------------------------------------------------------- sound


def listens_to(scene: Scene[S], name: str, other: str) -> None:
    """This one hears that one's tone, within 2 Hz; what a reconnect mixes into the first moments may pass first."""
    limit = time.monotonic() + WAIT
    while True:
        measured = heard_hz(scene[name], scene.id(other))
        if measured is not None and abs(measured - TONES[other]) <= 2:
            return
        assert time.monotonic() < limit, f"{name} heard {measured} Hz of {other} instead of {TONES[other]} Hz"


# --------------------------------------------------------------------------------------------------------- the engine


@contextmanager
def engine_behind_gates(media: str, **settings: Any) -> Iterator[tuple[LocalEngine, GateProxy]]:
    """An engine that finds its media server through gates only: what it grants, revokes and says can be held there.

    So do its clients find it, and `GateProxy.down` cuts everybody's link.
    """
    engine = local_engine(media=media, **settings)
    with GateProxy(engine.media.url.replace("ws", "http", 1)) as gates:
        engine.settings = dataclasses.replace(engine.settings, media_url=gates.url.replace("http", "ws", 1))
        engine.process = EngineProcess(engine.settings)
        with engine:
            yield engine, gates


UPDATE_PARTICIPANT = "/twirp/livekit.RoomService/UpdateParticipant"
"""How the engine grants and revokes."""


# ------------------------------------------------------------------------------------------------------------ helpers


def _client(engine: LocalEngine, name: str, ways: Mapping[str, GateProxy] | None, stack: ExitStack) -> UTDStreamClient:
    way = (ways or {}).get(name)
    url = engine.base_url if way is None else way.url
    return stack.enter_context(UTDStreamClient(engine.app_id, engine.app_key, base_url=url))


def _media_differs(scene: Scene[S], loud: set[str], entitled: set[str]) -> list[str]:
    """What the media server says of who may send and who does."""
    found = []
    there = in_media(scene.engine, scene.room)
    sending = set(scene.who(one.identity for one in there.values() if speaks(one)))
    if sending != loud:
        found.append(f"{sorted(sending)} send sound, not {sorted(loud)}")
    for identity, one in there.items():
        if one.permission.can_publish != (identity in entitled):
            found.append(f"the media server's permission of {identity} is {one.permission.can_publish}")
    return found
