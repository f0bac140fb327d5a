"""Real LiveKit clients in streams and audio rooms, and the engines they are with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from livekit import api, rtc
from livekit.protocol import models

from tests.media_servers import Kind, MediaServers
from utd_fsm import room_wire as rw
from utd_fsm.room_models import RoomState
from utd_fsm.testing import LocalEngine, local_engine

from .room_support import Member

GRACE = 5.0
NEVER = 3600.0
PATIENCE = 60.0


def on(kind: Kind, **changes: Any) -> LocalEngine:
    """An engine on this kind of media server; a missing livekit-server is a visible skip."""
    MediaServers.require(kind)
    return local_engine(kind, **{"party_grace": GRACE, "reconcile_every": NEVER, **changes})


class Client:
    """One real client in one room, and everything it was told."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.gone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.metadata: list[str] = []
        self.notes: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self.reconnected = asyncio.Event()
        self.room.on("room_metadata_changed", lambda _old, new: self._add(self.metadata, new))
        self.room.on("data_received", lambda packet: self._add(self.notes, json.loads(packet.data)))
        self.room.on("disconnected", self._disconnected)
        self.room.on("reconnected", self._reconnected)
        for event in ("participant_permissions_changed", "participant_metadata_changed", "track_muted",
                      "track_unmuted"):  # fmt: skip
            self.room.on(event, lambda *_: self.heard.set())

    def _add(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self.heard.set()

    def _disconnected(self, reason: int) -> None:
        if not self.gone.done():
            self.gone.set_result(reason)

    def _reconnected(self) -> None:
        self.reconnected.set()
        self.heard.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Until it is so; looked at again at every event."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.heard.clear()
                try:
                    await asyncio.wait_for(self.heard.wait(), 0.2)  # a state may change without an event of its own
                except TimeoutError:
                    continue

    async def reason(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.gone), PATIENCE)

    @property
    def me(self) -> rtc.LocalParticipant:
        return self.room.local_participant

    @property
    def may_publish(self) -> bool:
        return bool(self.me.permissions.can_publish)

    @property
    def role(self) -> str | None:
        return rw.role_of(self.me.metadata)

    @property
    def state(self) -> RoomState:
        """What the room's metadata say now."""
        return rw.read_room_state(self.room.metadata)

    def versions(self) -> list[int]:
        grids = [rw.read_room_state(text).seats for text in self.metadata]
        return [grid.version or 0 for grid in grids if grid is not None]

    def lives(self) -> list[str]:
        """Each state of the stream, as it came."""
        states = [str(rw.read_room_state(text).live) for text in self.metadata]
        return [state for i, state in enumerate(states) if i == 0 or states[i - 1] != state]

    def kinds(self) -> list[str]:
        return [str(note["type"]) for note in self.notes]

    async def speak(self) -> rtc.LocalTrackPublication:
        """Publish a microphone."""
        source = rtc.AudioSource(48_000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        return await self.me.publish_track(track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))


@asynccontextmanager
async def inside(member: Member, token: str | None = None) -> AsyncIterator[Client]:
    """A client in the room; left at the end."""
    client = Client()
    try:
        await client.room.connect(member.url, token or member.token)
        yield client
    finally:
        await client.room.disconnect()


async def do(what: Callable[..., Any], *args: Any, **rest: Any) -> Any:
    """A request, without holding up the loop."""
    return await asyncio.to_thread(what, *args, **rest)


async def permission(engine: LocalEngine, room: str, identity: str) -> models.ParticipantPermission:
    async with api.LiveKitAPI(engine.livekit_url, engine.livekit_key, engine.livekit_secret, failover=False) as lk:
        request = api.RoomParticipantIdentity(room=room, identity=identity)
        return (await lk.room.get_participant(request)).permission


class Cable:
    """The wire of one client's signalling, which can be cut."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.partition("://")[2].partition(":")
        self._port = int(port)
        self._links: set[asyncio.StreamWriter] = set()
        self._whole = True
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        """Its own URL."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()

    def cut(self) -> None:
        """Every link breaks, and no new one stands, until `mend`."""
        self._whole = False
        for writer in list(self._links):
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        there, onward = await asyncio.open_connection(self._host, self._port)
        self._links |= {writer, onward}
        await asyncio.gather(self._pass(reader, onward), self._pass(there, writer))
        self._links -= {writer, onward}

    @staticmethod
    async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
