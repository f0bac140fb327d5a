"""30 participants in one room: until a receiver has an event, against handlers on as many bare LiveKit rooms.

One process, one embedded media server. 29 listen and one sends data messages to everybody: in one half the listeners
are `UTDRoom`s, each with a receiver of `utd_fsm.signals.data_received`, in the other half bare ``livekit.rtc.Room``s
with ``room.on("data_received", …)``; the halves alternate. Measured is the whole way, from the sending to the first
line of each receiver, and how long the last of the 29 takes: all of our receivers share one signals thread.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import threading
import time
from typing import Any

from utd_fsm.local.processes import MediaProcess

PARTICIPANTS = 30
MESSAGES = 60
PAUSE = 0.1
"""Seconds between messages: the last one has reached everybody."""
ROUNDS = 2
PATIENCE = 60.0


class _Arrivals:
    """When each listener had each message."""

    def __init__(self) -> None:
        self.at: dict[tuple[int, int], float] = {}
        self._lock = threading.Lock()

    def note(self, listener: int, data: bytes) -> None:
        now = time.perf_counter()
        with self._lock:
            self.at[listener, int(data)] = now

    def complete(self, number: int) -> bool:
        with self._lock:
            return all((listener, number) in self.at for listener in range(PARTICIPANTS - 1))


def _send_all(send: Any, arrivals: _Arrivals) -> tuple[list[float], list[float]]:
    """Seconds of each arrival, and of the last arrival of each message."""
    sent: dict[int, float] = {}
    for number in range(-10, MESSAGES):  # the first few warm everything up
        sent[number] = time.perf_counter()
        send(str(number).encode())
        time.sleep(PAUSE)
        until = time.monotonic() + PATIENCE
        while not arrivals.complete(number) and time.monotonic() < until:
            time.sleep(0.005)
    each: list[float] = []
    last: list[float] = []
    for number in range(MESSAGES):
        took = [arrivals.at[listener, number] - sent[number] for listener in range(PARTICIPANTS - 1)]
        each += took
        last.append(max(took))
    return each, last


def _ours(url: str, token: Any) -> tuple[list[float], list[float]]:
    from utd_fsm import UTDRoom, signals

    arrivals = _Arrivals()
    rooms = [UTDRoom() for _ in range(PARTICIPANTS)]
    receivers = []
    try:
        for index, room in enumerate(rooms):
            room.connect(url, token(f"p{index}"))
        for index, room in enumerate(rooms[1:]):

            def receive(sender: object, *, data: bytes, index: int = index, **extra: Any) -> None:
                arrivals.note(index, data)

            signals.data_received.connect(receive, sender=room, weak=False)
            receivers.append((receive, room))
        return _send_all(rooms[0].send_data, arrivals)
    finally:
        for receive, room in receivers:
            signals.data_received.disconnect(receive, sender=room)
        for room in rooms:
            room.close()


def _bare(url: str, token: Any) -> tuple[list[float], list[float]]:
    from livekit import rtc

    arrivals = _Arrivals()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)

    async def join(index: int) -> rtc.Room:
        room = rtc.Room()
        await room.connect(url, token(f"p{index}"), rtc.RoomOptions(single_peer_connection=False))
        if index:
            room.on("data_received", lambda packet: arrivals.note(index - 1, packet.data))
        return room

    rooms: list[rtc.Room] = []
    try:
        for index in range(PARTICIPANTS):
            rooms.append(call(join(index)))  # noqa: PERF401 - those that joined are left, also when one fails
        return _send_all(lambda data: call(rooms[0].local_participant.publish_data(data)), arrivals)
    finally:
        for room in rooms:
            call(room.disconnect())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run() -> list[tuple[str, float, str]]:
    """(name, our median divided by the bare rooms', the figures) for every arrival and for the last of a message."""
    from livekit import api

    media = MediaProcess("embedded")
    media.start()
    taken: dict[str, tuple[list[float], list[float]]] = {"bare": ([], []), "ours": ([], [])}
    try:
        for _ in range(ROUNDS):
            for who, measure in (("bare", _bare), ("ours", _ours)):
                name = secrets.token_hex(4)

                def token(identity: str, name: str = name) -> str:
                    grants = api.VideoGrants(room_join=True, room=name)
                    made = api.AccessToken(media.key, media.secret).with_identity(identity).with_grants(grants)
                    return made.to_jwt()

                for kept, new in zip(taken[who], measure(media.url, token), strict=True):
                    kept.extend(new)
    finally:
        media.stop()
    rows = []
    for index, what in enumerate(("each", "the last")):
        median = {who: statistics.median(values[index]) * 1e3 for who, values in taken.items()}
        tail = {who: statistics.quantiles(values[index], n=20)[-1] * 1e3 for who, values in taken.items()}
        note = (
            f"{median['ours']:.2f} ms against {median['bare']:.2f} ms "
            f"(95 %: {tail['ours']:.2f} and {tail['bare']:.2f} ms)"
        )
        rows.append((f"{PARTICIPANTS} participants, sending to {what} receiver", median["ours"] / median["bare"], note))
    return rows


if __name__ == "__main__":
    for row_name, ratio, text in run():
        print(f"{row_name}: {ratio:.2f}  ({text})")
