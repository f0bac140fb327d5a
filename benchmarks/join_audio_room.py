"""Joining an audio room of 100 seats, against a bare LiveKit ``Room.connect`` with a token made here, in round trips.

One engine and one media server (the real livekit-server where there is one), one room with 100 seats set up by its
host, who stays in it. By turns, in one process: `join_audio_room`, which returns with the grid in; LiveKit's own
client with a token signed with the server's key; and the one request that stands between the two, ``POST /token`` on a
connection of `requests` that is kept open. What our join takes longer, divided by what that request takes, is the
figure: the aim is 1, one round trip and nothing else.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from utd_fsm.local.processes import find_livekit_server
from utd_fsm.testing import LocalEngine, local_engine

SEATS = 100
ROUNDS = 60
WARM = 3
PATIENCE = 30.0
ROOM = "lobby"


class _Bare:
    """LiveKit's client on an event loop of its own, which runs all the time, as ours does."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.seats = 0
        """How many the room's metadata told of, at the last join."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    async def _connect(self, token: str) -> Any:
        from livekit import rtc

        room = rtc.Room()
        await room.connect(self._engine.livekit_url, token, rtc.RoomOptions(single_peer_connection=False))
        return room

    def once(self, identity: str) -> float:
        from livekit import api

        grants = api.VideoGrants(
            room_join=True, room=ROOM, can_publish=False, can_subscribe=True, can_publish_data=True
        )
        key, secret = self._engine.livekit_key, self._engine.livekit_secret
        token = api.AccessToken(key, secret).with_identity(identity).with_grants(grants).to_jwt()
        began = time.perf_counter()
        room = self._call(self._connect(token))
        took = time.perf_counter() - began
        self.seats = room.metadata.count('"index"')
        self._call(room.disconnect())
        return took

    def until_written(self) -> None:
        """100 seats are more than a token holds: the engine writes them once its host is in. Wait for that."""
        until = time.monotonic() + PATIENCE
        while self.seats != SEATS:
            if time.monotonic() > until:
                raise AssertionError(f"the room's metadata tell of {self.seats} seats")
            self.once("first")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Request:
    """``POST /token`` by itself."""

    def __init__(self, engine: LocalEngine) -> None:
        import requests

        self._url = f"{engine.base_url}/api/v1/token"
        self._http = requests.Session()
        self._http.headers.update({"X-App-Id": engine.app_id, "X-App-Key": engine.app_key})

    def once(self, identity: str) -> float:
        body = {"identity": identity, "room_name": ROOM, "type": "audio_room", "role": "audience", "device_id": "d"}
        began = time.perf_counter()
        answer = self._http.post(self._url, json=body, timeout=PATIENCE)
        took = time.perf_counter() - began
        answer.raise_for_status()
        return took

    def close(self) -> None:
        self._http.close()


class _Ours:
    """This SDK."""

    def __init__(self, engine: LocalEngine) -> None:
        self._client = engine.client()
        self.requests: list[int] = []
        """How many requests each join sent."""
        self._sent = 0
        pool: Any = self._client._core._api._requests._pool
        send = pool.send

        def counting(*args: Any, **more: Any) -> Any:
            self._sent += 1
            return send(*args, **more)

        pool.send = counting

    def once(self, identity: str) -> float:
        self._sent = 0
        began = time.perf_counter()
        room = self._client.join_audio_room(identity, ROOM)
        took = time.perf_counter() - began
        self.requests.append(self._sent)
        count = room.seats.value.count
        room.dispose()
        if count != SEATS:
            raise AssertionError(f"our room has {count} seats")
        return took

    def close(self) -> None:
        self._client.close()


def _measure(engine: LocalEngine, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each, and the most requests that a join of ours sent."""
    bare, ours = _Bare(engine), _Ours(engine)
    contenders: dict[str, Any] = {"ours": ours, "bare": bare, "request": _Request(engine)}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    try:
        bare.until_written()
        for number in range(WARM + rounds):
            turn = list(contenders)
            random.shuffle(turn)
            for name in turn:
                once: Callable[[str], float] = contenders[name].once
                took = once(f"{name}-{number}")
                if number >= WARM:
                    taken[name].append(took)
    finally:
        for contender in contenders.values():
            contender.close()
    return taken, max(ours.requests)


def run() -> list[tuple[str, float, str]]:
    """(name, round trips more than the bare connect; and our join divided by it; the medians)."""
    media = "livekit-server" if find_livekit_server() else "embedded"
    with local_engine(media=media) as engine, engine.client() as host:
        host.join_audio_room("host", ROOM, as_host=True, seat_count=SEATS)
        taken, requests = _measure(engine, ROUNDS)
    ours, bare, request = (statistics.median(taken[name]) for name in ("ours", "bare", "request"))
    more = statistics.median(a - b for a, b in zip(taken["ours"], taken["bare"], strict=True))
    figures = f"{ours * 1e3:.0f} ms against {bare * 1e3:.0f} ms, medians of {ROUNDS}, {media}"
    return [
        (
            f"joining {SEATS} seats, round trips more than a bare connect",
            more / request,
            f"{more * 1e3:+.1f} ms, of the pairs; a round trip {request * 1e3:.1f} ms; {requests} request a join",
        ),
        (f"joining {SEATS} seats against a bare connect", ours / bare, figures),
    ]


if __name__ == "__main__":
    for name, ratio, note in run():
        print(f"{name:60} {ratio:8.4f}  {note}")
