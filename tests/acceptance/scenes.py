"""Scenes of the acceptance tests: an engine's media server used by itself, and what a listener measures.

The public API only, beside LiveKit's own server API, which stands for the application's backend.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from livekit import api

from tests.integration.calling import WAIT, until
from utd_fsm import UTDRoom
from utd_fsm.client import UTDSession
from utd_fsm.media import AudioFrame
from utd_fsm.media.measure import dominant_hz, loudness
from utd_fsm.testing import LocalEngine

T = TypeVar("T")

RATE = 48_000


def token(engine: LocalEngine, identity: str, room: str, *, name: str = "", metadata: str = "", **grants: Any) -> str:
    """An access token as an application's backend makes it."""
    made = (
        api.AccessToken(engine.livekit_key, engine.livekit_secret)
        .with_identity(identity)
        .with_name(name)
        .with_metadata(metadata)
        .with_attributes({"made": "by hand"})
        .with_ttl(dt.timedelta(minutes=10))
        .with_grants(api.VideoGrants(room_join=True, room=room, **grants))
    )
    return made.to_jwt()


@contextmanager
def joined(
    engine: LocalEngine, identity: str, room: str, *, auto_subscribe: bool = True, adaptive: bool = False, **grants: Any
) -> Iterator[UTDRoom]:
    """In a room by itself."""
    with UTDRoom(adaptive_stream=adaptive) as made:
        made.connect(engine.livekit_url, token(engine, identity, room, **grants), auto_subscribe=auto_subscribe)
        yield made


def server(engine: LocalEngine, ask: Callable[[api.LiveKitAPI], Awaitable[T]]) -> T:
    """Ask the media server as a backend would."""

    async def go() -> T:
        url = engine.livekit_url.replace("ws", "http", 1)
        async with api.LiveKitAPI(url, engine.livekit_key, engine.livekit_secret) as livekit:
            return await ask(livekit)

    return asyncio.run(go())


def grant(engine: LocalEngine, room: str, identity: str, can_publish: bool) -> None:
    """Let somebody publish, or not any more."""
    permission = api.ParticipantPermission(can_subscribe=True, can_publish=can_publish, can_publish_data=True)
    request = api.UpdateParticipantRequest(room=room, identity=identity, permission=permission)
    server(engine, lambda livekit: livekit.room.update_participant(request))


def sees(room: UTDRoom, identity: str, source: str = "") -> Any:
    """Wait until somebody is listed, perhaps with a track of this source; returns it."""

    def look(others: Iterable[Any]) -> Any:
        return [
            one
            for one in others
            if one.identity == identity and (not source or any(track.source == source for track in one.tracks))
        ]

    return look(room.remote_participants.wait_for(look, timeout=WAIT))[0]


def pitch(frames: Iterable[AudioFrame], seconds: float = 0.5) -> float | None:
    """The tone of so much sound, from where it is loud."""
    pieces: list[np.ndarray[tuple[int, ...], np.dtype[np.int16]]] = []
    for frame in frames:
        if pieces or loudness(frame.samples) > 0.01:
            pieces.append(frame.samples)
        if sum(map(len, pieces)) >= seconds * frame.sample_rate:
            return dominant_hz(np.concatenate(pieces), frame.sample_rate)
    return None


def hears(session: UTDSession, hz: float, identity: str | None = None) -> None:
    """This tone is heard, within 2 Hz; what was under way before it may pass first."""
    limit = time.monotonic() + WAIT
    while True:
        with session.listen(identity, timeout=WAIT) as frames:
            measured = pitch(frames)
        if measured is not None and abs(measured - hz) <= 2:
            return
        assert time.monotonic() < limit, f"heard {measured} Hz instead of {hz} Hz"


__all__ = ["RATE", "WAIT", "grant", "hears", "joined", "pitch", "sees", "server", "token", "until"]
