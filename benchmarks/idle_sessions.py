"""Memory and threads of 1, 50 and 200 idle sessions (`UTDRoom`) against as many bare LiveKit rooms.

Each count runs in a process of its own, on one embedded media server; memory is what the process grew by from just
before the first room to all of them joined. The aim: 5 % more memory, no thread more.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from utd_fsm.local.processes import MediaProcess

COUNTS = (1, 50, 200)


def used() -> tuple[float, int]:
    """(MB resident, threads) of this process."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])


def _tokens(count: int, key: str, secret: str) -> list[str]:
    from livekit import api

    return [
        api.AccessToken(key, secret)
        .with_identity(f"p{i}")
        .with_grants(api.VideoGrants(room_join=True, room=f"idle-{i}"))
        .to_jwt()
        for i in range(count)
    ]


async def _bare(url: str, tokens: list[str]) -> tuple[float, int]:
    from livekit import rtc

    options = rtc.RoomOptions(single_peer_connection=False)
    warm = rtc.Room()
    await warm.connect(url, tokens[-1], options)
    await warm.disconnect()
    before = used()
    rooms = []
    for token in tokens[:-1]:
        room = rtc.Room()
        await room.connect(url, token, options)
        rooms.append(room)
    await asyncio.sleep(1.0)
    after = used()
    for room in rooms:
        await room.disconnect()
    return after[0] - before[0], after[1] - before[1]


def _ours(url: str, tokens: list[str]) -> tuple[float, int]:
    import time

    from utd_fsm import UTDRoom

    with UTDRoom() as keep:
        with UTDRoom() as warm:
            warm.connect(url, tokens[-1])
        keep.connect(url, tokens[-2])
        before = used()
        rooms = []
        for token in tokens[:-2]:
            room = UTDRoom()
            room.connect(url, token)
            rooms.append(room)
        time.sleep(1.0)
        after = used()
        for room in rooms:
            room.close()
    return after[0] - before[0], after[1] - before[1]


def _measure(kind: str, count: int, media: MediaProcess) -> tuple[float, int]:
    environment = {**os.environ, "BENCH_KEY": media.key, "BENCH_SECRET": media.secret}
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.idle_sessions", kind, str(count), media.url],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    megabytes, threads = json.loads(out.stdout.splitlines()[-1])
    return float(megabytes), int(threads)


def run() -> list[tuple[str, float, str]]:
    """(name, our memory divided by the bare rooms', the figures)."""
    rows = []
    media = MediaProcess("embedded")
    media.start()
    try:
        for count in COUNTS:
            bare = _measure("bare", count, media)
            ours = _measure("ours", count, media)
            note = f"{ours[0]:.1f} MB against {bare[0]:.1f} MB; threads +{ours[1]} against +{bare[1]}"
            rows.append((f"{count} idle sessions", ours[0] / bare[0] if bare[0] > 0.05 else 1.0, note))
    finally:
        media.stop()
    return rows


def main(arguments: list[str]) -> Any:
    """A child's work."""
    kind, count, url = arguments
    tokens = _tokens(int(count) + (1 if kind == "bare" else 2), os.environ["BENCH_KEY"], os.environ["BENCH_SECRET"])
    return asyncio.run(_bare(url, tokens)) if kind == "bare" else _ours(url, tokens)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(main(sys.argv[1:])))
    else:
        for name, ratio, note in run():
            print(f"{name:44} {ratio:8.4f}  {note}")
