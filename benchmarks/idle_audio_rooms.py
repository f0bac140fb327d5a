"""Memory and threads of 200 idle audio-room sessions in one process, against as many bare LiveKit rooms.

Each host sits in a room of its own with 8 seats, on one local engine and one embedded media server. Each measure is a
process of its own, by turns; the bare rooms join the same rooms, with tokens of their own, so that both hold the same
metadata. Memory is what the process grew by, from just before the first of the 200 to all of them joined and quiet;
the ratio is of the medians. The aim: 5 % more memory, no thread more.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.idle_sessions import used
from utd_fsm.testing import LocalEngine, local_engine

COUNT = 200
ROUNDS = 3
SEATS = 8
QUIET = 3.0
"""Seconds after the last join: what joining used is freed, and what happens late has happened."""


def _room(number: int) -> str:
    return f"idle-{number}"


def _token(number: int, key: str, secret: str) -> str:
    from livekit import api

    grants = api.VideoGrants(room_join=True, room=_room(number), can_publish=False)
    return api.AccessToken(key, secret).with_identity(f"bare-{number}").with_grants(grants).to_jwt()


async def _bare(count: int) -> tuple[float, int]:
    from livekit import rtc

    url, key, secret = (os.environ[name] for name in ("BENCH_MEDIA", "BENCH_KEY", "BENCH_SECRET"))
    options = rtc.RoomOptions(single_peer_connection=False)

    async def join(number: int) -> Any:
        room = rtc.Room()
        await room.connect(url, _token(number, key, secret), options)
        return room

    kept = [await join(0), await join(1)]
    await kept.pop().disconnect()
    before = used()
    kept += [await join(number) for number in range(2, count + 2)]
    await asyncio.sleep(QUIET)
    after = used()
    if not all(room.isconnected() and room.metadata.count('"index"') == SEATS for room in kept):
        raise AssertionError("not all of the bare rooms are still joined, with the seats in their metadata")
    for room in kept:
        await room.disconnect()
    return after[0] - before[0], after[1] - before[1]


def _ours(count: int) -> tuple[float, int]:
    from utd_fsm import UTDAudioRoomSession, UTDStreamClient

    url, app, key = (os.environ[name] for name in ("BENCH_ENGINE", "BENCH_APP", "BENCH_APP_KEY"))
    with UTDStreamClient(app, key, base_url=url) as client:

        def join(number: int) -> UTDAudioRoomSession:
            return client.join_audio_room(f"host-{number}", _room(number), as_host=True, seat_count=SEATS)

        kept = [join(0), join(1)]
        kept.pop().dispose()
        before = used()
        kept += [join(number) for number in range(2, count + 2)]
        time.sleep(QUIET)
        after = used()
        if not all(room.connected.value and room.seats.value.count == SEATS for room in kept):
            raise AssertionError("not all of our rooms are still joined, with their seats")
    return after[0] - before[0], after[1] - before[1]


def _measure(kind: str, count: int, engine: LocalEngine) -> tuple[float, int]:
    environment = {
        **os.environ,
        "BENCH_ENGINE": engine.base_url,
        "BENCH_APP": engine.app_id,
        "BENCH_APP_KEY": engine.app_key,
        "BENCH_MEDIA": engine.livekit_url,
        "BENCH_KEY": engine.livekit_key,
        "BENCH_SECRET": engine.livekit_secret,
    }
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.idle_audio_rooms", kind, str(count)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    megabytes, threads = json.loads(out.stdout.splitlines()[-1])
    return float(megabytes), int(threads)


def run() -> list[tuple[str, float, str]]:
    """(name, our memory divided by the bare rooms', the figures)."""
    taken: dict[str, list[tuple[float, int]]] = {"ours": [], "bare": []}
    with local_engine() as engine:
        for _ in range(ROUNDS):
            for kind, measures in taken.items():
                measures.append(_measure(kind, COUNT, engine))
    ours, bare = (statistics.median(megabytes for megabytes, _ in taken[kind]) for kind in ("ours", "bare"))
    most = {kind: max(number for _, number in measures) for kind, measures in taken.items()}
    threads = f"threads +{most['ours']} against +{most['bare']}"
    note = f"{ours:.1f} MB against {bare:.1f} MB, medians of {ROUNDS}; {threads}"
    return [(f"{COUNT} idle audio rooms", ours / bare, note)]


def main(arguments: list[str]) -> Any:
    """A child's work."""
    kind, count = arguments
    return asyncio.run(_bare(int(count))) if kind == "bare" else _ours(int(count))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(main(sys.argv[1:])))
    else:
        for name, ratio, note in run():
            print(f"{name:44} {ratio:8.4f}  {note}")
