"""30 participants in one room: until a receiver has an event, against handlers on as many bare LiveKit rooms.

One process, one embedded media server, two rooms of 30. In each, one sends data messages and 29 listen: in one room
they are `UTDRoom`s, each with a receiver of `utd_fsm.signals.data_received`; in the other bare ``livekit.rtc.Room``s
with ``room.on("data_received", …)``. The two rooms take turns, message by message, the first turn alternating too.

Two measures, each of every arrival and of the last of the 29 (all of our receivers share one signals thread). *From
the emission*: from the moment LiveKit's room begins to emit the event to the first line of the receiver: what we add.
*From the sending*: the whole way, most of which is the network, the server and LiveKit's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from utd_fsm.local.processes import MediaProcess

PARTICIPANTS = 30
LISTENERS = PARTICIPANTS - 1
MESSAGES = 100
WARM = 10
PAUSE = 0.03
"""Seconds between messages: the last one has reached everybody."""
PATIENCE = 60.0

Token = Callable[[str], str]


class _Arrivals:
    """When each listener's room emitted each message, and when its receiver had it."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self.sent: dict[int, float] = {}
        self.emitted: dict[tuple[int, int], float] = {}
        self.at: dict[tuple[int, int], float] = {}
        self._left = 0
        self._all = threading.Event()

    def watch(self, listener: int, native: Any) -> None:
        """Note when LiveKit's room begins to emit a data message. On that room's loop."""
        emit = native.emit

        def noting(event: str, *args: Any) -> None:
            if event == "data_received":
                self.emitted[listener, int(args[0].data)] = time.perf_counter()
            emit(event, *args)

        native.emit = noting

    def note(self, listener: int, data: bytes) -> None:
        """A receiver has begun. One thread only: the signals thread, or the loop of the bare rooms."""
        self.at[listener, int(data)] = time.perf_counter()
        self._left -= 1
        if self._left == 0:
            self._all.set()

    def round(self, number: int) -> None:
        """Send one message, and wait until everybody has it."""
        self._left = LISTENERS
        self._all.clear()
        self.sent[number] = time.perf_counter()
        self._send(str(number).encode())
        if not self._all.wait(PATIENCE):
            raise AssertionError(f"{self._left} listeners never had message {number}")
        time.sleep(PAUSE)

    def taken(self, measure: str) -> tuple[list[float], list[float]]:
        """Seconds of each arrival, and of the last one of each message."""
        each: list[float] = []
        last: list[float] = []
        for number in range(MESSAGES):
            keys = [(listener, number) for listener in range(LISTENERS)]
            if measure == "emission":
                took = [self.at[key] - self.emitted[key] for key in keys]
            else:
                took = [self.at[key] - self.sent[number] for key in keys]
            each += took
            last.append(max(took))
        return each, last


@contextlib.contextmanager
def _ours(url: str, token: Token) -> Iterator[_Arrivals]:
    from utd_fsm import UTDRoom, signals

    rooms = [UTDRoom() for _ in range(PARTICIPANTS)]
    arrivals = _Arrivals(rooms[0].send_data)
    receivers = []
    try:
        for index, room in enumerate(rooms):
            room.connect(url, token(f"p{index}"))
        for index, room in enumerate(rooms[1:]):

            def receive(sender: object, *, data: bytes, index: int = index, **extra: Any) -> None:
                arrivals.note(index, data)

            signals.data_received.connect(receive, sender=room, weak=False)
            receivers.append((receive, room))
            joined = room._core._connection.room
            assert joined is not None
            arrivals.watch(index, joined.native)
        yield arrivals
    finally:
        for receiver, room in receivers:
            signals.data_received.disconnect(receiver, sender=room)
        for room in rooms:
            room.close()


@contextlib.contextmanager
def _bare(url: str, token: Token) -> Iterator[_Arrivals]:
    from livekit import rtc

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    rooms: list[rtc.Room] = []

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)

    arrivals = _Arrivals(lambda data: call(rooms[0].local_participant.publish_data(data)))

    async def join(index: int) -> rtc.Room:
        room = rtc.Room()
        await room.connect(url, token(f"p{index}"), rtc.RoomOptions(single_peer_connection=False))
        if index:
            room.on("data_received", lambda packet: arrivals.note(index - 1, packet.data))
            arrivals.watch(index - 1, room)
        return room

    try:
        rooms.extend(call(join(index)) for index in range(PARTICIPANTS))
        yield arrivals
    finally:
        for room in rooms:
            call(room.disconnect())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _row(measure: str, index: int, what: str, ours: _Arrivals, bare: _Arrivals) -> tuple[str, float, str]:
    mine, theirs = ours.taken(measure)[index], bare.taken(measure)[index]
    a, b = statistics.median(mine) * 1e3, statistics.median(theirs) * 1e3
    tail_a, tail_b = (statistics.quantiles(values, n=20)[-1] * 1e3 for values in (mine, theirs))
    note = f"{a:.2f} ms against {b:.2f} ms: {a - b:+.2f} ms (95 %: {tail_a:.2f} and {tail_b:.2f} ms)"
    return f"{PARTICIPANTS} participants, {measure} to {what} receiver", a / b, note


def run() -> list[tuple[str, float, str]]:
    """(name, our median divided by the bare rooms', the figures) for every arrival and for the last of a message."""
    from livekit import api

    media = MediaProcess("embedded")
    media.start()

    def token_of(name: str) -> Token:
        grants = api.VideoGrants(room_join=True, room=name)

        def token(identity: str) -> str:
            made = api.AccessToken(media.key, media.secret).with_identity(identity).with_grants(grants)
            return made.to_jwt()

        return token

    try:
        with (
            _bare(media.url, token_of(f"bare-{secrets.token_hex(4)}")) as bare,
            _ours(media.url, token_of(f"ours-{secrets.token_hex(4)}")) as ours,
        ):
            for number in range(-WARM, MESSAGES):
                for arrivals in (bare, ours) if number % 2 else (ours, bare):
                    arrivals.round(number)
    finally:
        media.stop()
    return [
        _row(measure, index, what, ours, bare)
        for measure in ("emission", "sending")
        for index, what in enumerate(("each", "the last"))
    ]


if __name__ == "__main__":
    for row_name, ratio, text in run():
        print(f"{row_name}: {ratio:.2f}  ({text})")
