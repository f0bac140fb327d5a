"""From start() until both parties are active and hear each other: this SDK against a script written by hand.

The script is what a good engineer would write on `requests` and `livekit.rtc`: same requests, connect, publish, wait
for the first loud frame. Both run in one process, by turns, on the same engine and the real livekit-server (the
embedded media server where there is none). The callee is handed the call's id in memory in both: no polling is timed.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import requests

from utd_fsm.local.processes import find_livekit_server
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine, local_engine

ROUNDS = 12
LOUD = 1000
PATIENCE = 30.0


class ByHand:
    """The script: one event loop, requests in threads, LiveKit's client as its documentation shows it."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.pool = ThreadPoolExecutor(4)
        self.http = {who: requests.Session() for who in ("hand-a", "hand-b")}
        for who, http in self.http.items():
            http.headers.update({"X-App-Id": engine.app_id, "X-App-Key": engine.app_key})
            bearer = self._post(who, "/auth/session", identity=who)["user_token"]
            http.headers["Authorization"] = f"Bearer {bearer}"

    def _post(self, who: str, route: str, **body: Any) -> Any:
        answer = self.http[who].post(f"{self.engine.base_url}/api/v1{route}", json=body, timeout=(5, 8))
        answer.raise_for_status()
        return answer.json()

    async def post(self, who: str, route: str, **body: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: self._post(who, route, **body))

    async def party(self, ticket: dict[str, Any], hz: float, heard: asyncio.Event) -> tuple[Any, asyncio.Task[None]]:
        from livekit import rtc

        room = rtc.Room()
        readers: list[asyncio.Task[None]] = []

        async def read(track: Any) -> None:
            stream = rtc.AudioStream(track, sample_rate=48000, num_channels=1, frame_size_ms=20, capacity=50)
            async for event in stream:
                if np.abs(np.frombuffer(event.frame.data, dtype=np.int16)).max() > LOUD:
                    heard.set()
                    break
            await stream.aclose()

        room.on("track_subscribed", lambda track, *_: readers.append(asyncio.ensure_future(read(track))))
        await room.connect(ticket["url"], ticket["token"], rtc.RoomOptions(single_peer_connection=False))
        source = rtc.AudioSource(48000, 1, queue_size_ms=100)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)

        async def speak() -> None:
            n = 0
            while True:
                wave = (9000 * np.sin(2 * np.pi * hz * (np.arange(480) + n) / 48000)).astype(np.int16)
                n += 480
                await source.capture_frame(rtc.AudioFrame(wave.tobytes(), 48000, 1, 480))

        return room, asyncio.ensure_future(speak())

    async def once(self) -> float:
        heard = asyncio.Event(), asyncio.Event()
        began = time.perf_counter()
        call = await self.post(
            "hand-a", "/calls", caller_identity="hand-a", callee_identity="hand-b", type="audio_call"
        )

        async def answer() -> tuple[Any, asyncio.Task[None]]:
            await self.post("hand-b", f"/calls/{call['call_id']}/ringing", identity="hand-b")
            ticket = await self.post("hand-b", f"/calls/{call['call_id']}/accept", identity="hand-b")
            return await self.party(ticket, 660, heard[1])

        parties = await asyncio.gather(self.party(call, 440, heard[0]), answer())
        await asyncio.wait_for(asyncio.gather(heard[0].wait(), heard[1].wait()), PATIENCE)
        took = time.perf_counter() - began
        await self.post("hand-a", f"/calls/{call['call_id']}/end", identity="hand-a")
        for room, speaking in parties:
            speaking.cancel()
            await room.disconnect()
        return took


class Ours:
    """The same with this SDK: two blocking threads."""

    def __init__(self, engine: LocalEngine) -> None:
        self.clients = [engine.client(), engine.client()]
        for client, who in zip(self.clients, ("sdk-a", "sdk-b"), strict=True):
            client.authenticate(who)

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def once(self) -> float:
        ids: list[str] = []
        created = threading.Event()
        heard: list[float] = []

        def hear(call: Any) -> None:
            for frame in call.listen(timeout=PATIENCE):
                if np.abs(frame.samples).max() > LOUD:
                    heard.append(time.perf_counter())
                    return

        caller, callee = self.clients
        with (
            caller.call_session("audio_call", microphone=Tone(440)) as a,
            callee.call_session("audio_call", microphone=Tone(660)) as b,
        ):

            def tell(observable: Any, *, value: str | None, **extra: Any) -> None:
                if value:
                    ids.append(value)
                    created.set()

            a.call_id.changed.connect(tell)

            def answer() -> None:
                created.wait(PATIENCE)
                b.ringing(ids[0])
                b.accept(ids[0])
                hear(b)

            answering = threading.Thread(target=answer)
            answering.start()
            began = time.perf_counter()
            a.start("sdk-b")
            hear(a)
            answering.join(PATIENCE)
            took = max(heard) - began
            a.end()
        return took


def run() -> list[tuple[str, float, str]]:
    """(name, ours divided by the script's, the medians)."""
    media = "livekit-server" if find_livekit_server() else "embedded"
    with local_engine(media=media) as engine:
        hand, ours = ByHand(engine), Ours(engine)
        by_hand: list[float] = []
        by_us: list[float] = []
        for i in range(ROUNDS + 1):
            a, b = asyncio.run(hand.once()), ours.once()
            if i:  # the first loads the native library
                by_hand.append(a)
                by_us.append(b)
        ours.close()
    mine, theirs = statistics.median(by_us), statistics.median(by_hand)
    note = f"{mine * 1000:.0f} ms against {theirs * 1000:.0f} ms, medians of {ROUNDS}, {media}"
    return [("call set-up against requests + livekit.rtc", mine / theirs, note)]


if __name__ == "__main__":
    for name, ratio, note in run():
        print(f"{name:44} {ratio:8.4f}  {note}")
