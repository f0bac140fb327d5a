"""What it costs until a blinker receiver has a LiveKit event, against a handler on LiveKit's own room.

One run, one event loop, one media server on loopback (the embedded one, in a child process). A third participant sends
data messages; two listeners receive each of them: a bare ``livekit.rtc.Room`` with ``room.on("data_received", …)``, and
our `LiveKitRoom`, whose events go on to a receiver of `utd_fsm.signals.data_received` on the signals thread.

Two measures. *From the emission*: from the moment LiveKit's room begins to emit the event to the first line of the
handler or receiver: what we add, and nothing of the network. *From the sending*: the whole way, where the order in
which the server serves the two is alternated. The aim is at most 100 µs more.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import subprocess
import sys
import time
from typing import Any

from utd_fsm import signals
from utd_fsm.dispatcher import dispatcher
from utd_fsm.livekit_room import LiveKitRoom, settled
from utd_fsm.room import DataReceived, RoomEvent

MESSAGES = 400
PAUSE = 0.004
"""Seconds between messages: each is measured by itself, none waits behind another."""
PATIENCE = 30.0

Times = dict[int, float]


class _Listener:
    """When each message was emitted by LiveKit and when it was handled."""

    def __init__(self) -> None:
        self.emitted: Times = {}
        self.handled: Times = {}

    def watch(self, native: Any) -> None:
        """Note when LiveKit's room begins to emit a data message."""
        emit = native.emit

        def noting(event: str, *args: Any) -> None:
            if event == "data_received":
                self.emitted[int(args[0].data)] = time.perf_counter()
            emit(event, *args)

        native.emit = noting


class _Bare(_Listener):
    async def join(self, url: str, token: str) -> None:
        from livekit import rtc

        self.room = rtc.Room()
        self.room.on("data_received", self._handle)
        await self.room.connect(url, token, rtc.RoomOptions(single_peer_connection=False))
        self.watch(self.room)

    def _handle(self, packet: Any) -> None:
        self.handled[int(packet.data)] = time.perf_counter()

    async def leave(self) -> None:
        await self.room.disconnect()


class _Ours(_Listener):
    async def join(self, url: str, token: str) -> None:
        self.room = LiveKitRoom(self._post)
        signals.data_received.connect(self._receive, sender=self)
        await self.room.connect(url, token)
        self.watch(self.room.native)

    def _post(self, event: RoomEvent) -> None:
        if isinstance(event, DataReceived):
            dispatcher().emit(
                signals.data_received,
                self,
                data=event.data,
                identity=event.identity,
                topic=event.topic,
                reliable=event.reliable,
            )

    def _receive(self, sender: object, *, data: bytes, **extra: Any) -> None:
        self.handled[int(data)] = time.perf_counter()

    async def leave(self) -> None:
        signals.data_received.disconnect(self._receive, sender=self)
        await self.room.disconnect()


async def _half(url: str, token: Any, *, ours_first: bool) -> tuple[_Bare, _Ours, Times]:
    bare, ours, sender = _Bare(), _Ours(), LiveKitRoom(lambda event: None)
    name = secrets.token_hex(4)
    joins = [ours.join(url, token("ours", name)), bare.join(url, token("bare", name))]
    for join in joins if ours_first else reversed(joins):
        await join
    await sender.connect(url, token("sender", name))
    sent: Times = {}
    for number in range(-20, MESSAGES):  # the first few warm everything up
        sent[number] = time.perf_counter()
        await sender.send_data(str(number).encode())
        await asyncio.sleep(PAUSE)
    async with asyncio.timeout(PATIENCE):
        while MESSAGES - 1 not in ours.handled or MESSAGES - 1 not in bare.handled:
            await asyncio.sleep(0.01)
    for room in (bare, ours):
        await room.leave()
    await sender.disconnect()
    return bare, ours, sent


async def _measure(url: str, key: str, secret: str) -> list[tuple[str, float, str]]:
    from livekit import api

    def token(identity: str, room: str) -> str:
        grants = api.VideoGrants(room_join=True, room=room)
        return api.AccessToken(key, secret).with_identity(identity).with_grants(grants).to_jwt()

    added: dict[str, list[float]] = {"bare": [], "ours": []}
    whole: dict[str, list[float]] = {"bare": [], "ours": []}
    for ours_first in (True, False):
        bare, ours, sent = await _half(url, token, ours_first=ours_first)
        for name, listener in (("bare", bare), ("ours", ours)):
            for number in range(MESSAGES):
                added[name].append(listener.handled[number] - listener.emitted[number])
                whole[name].append(listener.handled[number] - sent[number])
    await settled()
    return [_row("event latency, from the emission", added), _row("event latency, from the sending", whole)]


def _row(name: str, seconds: dict[str, list[float]]) -> tuple[str, float, str]:
    median = {who: statistics.median(values) * 1e6 for who, values in seconds.items()}
    tail = {who: statistics.quantiles(values, n=20)[-1] * 1e6 for who, values in seconds.items()}
    text = (
        f"{median['ours']:.0f} µs to our receiver, {median['bare']:.0f} µs to a bare room.on: "
        f"{median['ours'] - median['bare']:+.0f} µs (95 %: {tail['ours']:.0f} and {tail['bare']:.0f} µs)"
    )
    return name, median["ours"] / median["bare"], text


def run() -> list[tuple[str, float, str]]:
    """(name, ours divided by LiveKit's, the medians and their difference) for each measure."""
    key, secret = "benchmark", secrets.token_hex(24)
    command = [sys.executable, "-m", "utd_fsm.local.media_server", "--config-stdin", "--with-parent"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({"key": key, "secret": secret}) + "\n")
        server.stdin.close()
        ready, url = server.stdout.readline().split()
        assert ready == "ready"
        return asyncio.run(_measure(url, key, secret))
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    for row_name, ratio, text in run():
        print(f"{row_name}: {ratio:.2f}  ({text})")
