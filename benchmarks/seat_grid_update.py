"""A full update of 100 seats: from the text of the room's metadata to the last receiver, against `json.loads` alone.

The shipped `AudioRoomSession` in a room in memory, on the shipped loop and signals threads. Each update is the event
that the LiveKit adapter posts, with another person, name and avatar on every one of the 100 seats, and another twenty
who ask to speak. Counted from the moment before it is posted until the last of the receivers below has begun. The aim
is 1 ms. `json.loads` of the same text takes its turn after each update: it is the least that any client must do.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from datetime import UTC, datetime
from typing import Any

from utd_fsm import room_wire, signals
from utd_fsm.credentials import Credentials
from utd_fsm.engine_api import EngineApi
from utd_fsm.models import UTDSeatMode, UTDSessionInfo, UTDStreamType, UTDTokenResponse
from utd_fsm.portal import portal
from utd_fsm.room import Room, RoomEvent, RoomMetadataChanged, RoomOptions
from utd_fsm.room_models import UTDSeat, UTDSeatGrid, UTDSpeakerRequest
from utd_fsm.sessions.audio_room import AudioRoomSession
from utd_fsm.sessions.engine_rooms import EngineRoom
from utd_fsm.testing import MemoryServer

SEATS = 100
REQUESTS = 20
UPDATES = 400
WARM = 50
RECEIVERS = 5
"""Of `signals.seats_changed`; beside them one of ``seats.changed`` and one of `signals.requests_changed`."""
PAUSE = 0.003
"""Seconds between updates: each is measured by itself."""
AIM = 1e-3
PATIENCE = 30.0
ROOM, IDENTITY = "lobby", "listener"


def _text(version: int) -> str:
    """Room metadata in which nothing is as in the version before but the arrangement of the seats."""

    def who(number: int) -> str:
        return f"user-{version}-{number:03}"

    seats = tuple(
        UTDSeat(i, who(i), name=f"Name of {who(i)}", attributes={"avatar": f"https://cdn.example.com/{who(i)}.png"})
        for i in range(SEATS)
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    requests = tuple(UTDSpeakerRequest(version * 1000 + i, who(SEATS + i), at) for i in range(REQUESTS))
    grid = UTDSeatGrid(SEATS, UTDSeatMode.REQUEST, seats, requests, version=version)
    content = {
        room_wire.META_SEATS: room_wire.seats_json(grid, realtime=True),
        room_wire.META_COMMENTS: room_wire.comments_json(False, 1),
    }
    return json.dumps(content, separators=(",", ":"))


class _Audience:
    """The receivers, and when the last of them began."""

    def __init__(self) -> None:
        self._left = 0
        self.last = 0.0
        self.all_told = threading.Event()
        self.expected = RECEIVERS + 2

    def expect(self) -> None:
        self._left = self.expected
        self.all_told.clear()

    def receiver(self) -> Any:
        def receive(sender: object, **payload: Any) -> None:
            now = time.perf_counter()
            self._left -= 1
            if self._left == 0:
                self.last = now
                self.all_told.set()

        return receive


def _no_bearer(budget: float | None) -> UTDSessionInfo:
    raise AssertionError("nothing is asked of an engine here")


class _Listener:
    """A session in a room in memory, to which the benchmark posts what LiveKit's adapter would."""

    def __init__(self) -> None:
        self.post: Any = None
        self.room: AudioRoomSession

    async def join(self) -> None:
        server = MemoryServer()
        server.create_room(ROOM, metadata=_text(1))

        def factory(post: Any, options: RoomOptions) -> Room:
            self.post = post
            return server.room_factory(post, options)

        # an address at which nobody answers: the whole state is in the metadata
        api = EngineApi("0000000000", "0" * 32, base_url="http://127.0.0.1:9")
        info = UTDSessionInfo("bearer")
        who = Credentials(IDENTITY, name=None, device_id="device", info=info, mint=_no_bearer)
        ticket = UTDTokenResponse(server.token(IDENTITY, ROOM), server.url, ROOM)
        self.room = AudioRoomSession(
            engine_room=EngineRoom(portal(), api, who, ROOM, UTDStreamType.AUDIO_ROOM),
            ticket=ticket,
            identity=IDENTITY,
            room_factory=factory,
        )
        await self.room.perform(self.room.join)

    async def hear(self, event: RoomEvent) -> float:
        began = time.perf_counter()
        self.post(event)
        return began

    async def leave(self) -> None:
        await self.room.perform(self.room.dispose)


def _call(method: Any, *args: Any) -> Any:
    return portal().call(lambda: method(*args), timeout=PATIENCE, what="the benchmark")


def _measure(listener: _Listener, audience: _Audience) -> tuple[list[float], list[float], int]:
    """Seconds of each update, and of each `json.loads`; and how long the text is."""
    updates: list[float] = []
    parses: list[float] = []
    size = 0
    for version in range(2, WARM + UPDATES + 2):
        text = _text(version)
        size = len(text)
        audience.expect()
        began = _call(listener.hear, RoomMetadataChanged(text))
        if not audience.all_told.wait(PATIENCE):
            raise AssertionError("a receiver was not called")
        at = time.perf_counter()
        json.loads(text)
        parse = time.perf_counter() - at
        if version >= WARM + 2:
            updates.append(audience.last - began)
            parses.append(parse)
        time.sleep(PAUSE)
    grid = listener.room.seats.value
    if grid.version != WARM + UPDATES + 1 or grid.seats[0].identity != f"user-{grid.version}-000":
        raise AssertionError(f"the last grid did not arrive: {grid.version}")
    return updates, parses, size


def run() -> list[tuple[str, float, str]]:
    """(name, an update divided by its aim and by `json.loads`, the medians)."""
    lease = portal().hold()
    listener, audience = _Listener(), _Audience()
    receivers = [audience.receiver() for _ in range(audience.expected)]
    try:
        _call(listener.join)
        for receiver in receivers[:RECEIVERS]:
            signals.seats_changed.connect(receiver, sender=listener.room, weak=False)
        signals.requests_changed.connect(receivers[RECEIVERS], sender=listener.room, weak=False)
        listener.room.seats.changed.connect(receivers[RECEIVERS + 1])
        updates, parses, size = _measure(listener, audience)
        _call(listener.leave)
    finally:
        lease.release()
    ours, least = statistics.median(updates), statistics.median(parses)
    tail = statistics.quantiles(updates, n=20)[-1]
    note = f"{ours * 1e3:.2f} ms (95 %: {tail * 1e3:.2f} ms); the ratio is to the aim, {AIM * 1e3:g} ms"
    return [
        (f"{SEATS} seats updated, to the last of {audience.expected} receivers", ours / AIM, note),
        (
            f"{SEATS} seats updated, against json.loads alone",
            ours / least,
            f"{ours * 1e3:.2f} ms against {least * 1e3:.2f} ms for {size / 1000:.0f} kB",
        ),
    ]


if __name__ == "__main__":
    for name, ratio, note in run():
        print(f"{name:52} {ratio:8.4f}  {note}")
