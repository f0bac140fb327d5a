"""Webhooks as LiveKit sends them, so that `livekit.api.WebhookReceiver` accepts them (LiveKit facts, 35-36).

One ordered queue a room: a slow answer delays that room and no other. A 5xx or no answer is tried again 1, 3, 7 and
15 s after the first try; any other answer is final. An event that is older than 30 s when its turn comes is dropped.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from google.protobuf.json_format import MessageToJson
from livekit.protocol import models, webhook

from .auth import Keys
from .settings import new_sid

_log = logging.getLogger("utd_fsm.local.media_server.webhooks")

_PAUSES = (1.0, 2.0, 4.0, 8.0)
_MAX_AGE = 30.0
_ANSWER_TIMEOUT = 10.0


class Webhooks:
    """Sends the events of all rooms.

    Args:
        keys: sign each body.
        url: where to; None sends nothing.
        spawn: starts a background task.
    """

    def __init__(
        self, keys: Keys, url: str | None, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._keys = keys
        self._url = url
        self._spawn = spawn
        self._queues: dict[str, asyncio.Queue[tuple[float, webhook.WebhookEvent]]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def send(
        self,
        event: str,
        room: models.Room,
        participant: models.ParticipantInfo | None = None,
        track: models.TrackInfo | None = None,
    ) -> None:
        """Queues one event about a room as it is at this moment. Never blocks."""
        if self._url is None or self._closed:
            return
        message = webhook.WebhookEvent(
            event=event, id=new_sid("EV_"), created_at=int(time.time()), room=room, participant=participant, track=track
        )
        queue = self._queues.setdefault(room.name, asyncio.Queue())
        queue.put_nowait((time.monotonic(), message))
        if room.name not in self._workers:
            self._workers[room.name] = self._spawn(self._work(room.name, queue))

    async def _work(self, name: str, queue: asyncio.Queue[tuple[float, webhook.WebhookEvent]]) -> None:
        """Delivers one room's events in order; ends when there are none left."""
        try:
            while not queue.empty():
                queued_at, message = queue.get_nowait()
                if time.monotonic() - queued_at > _MAX_AGE:
                    _log.warning("%s of room %s is too old and dropped", message.event, name)
                    continue
                await self._deliver(message)
        finally:
            self._workers.pop(name, None)
            self._queues.pop(name, None)

    async def _deliver(self, message: webhook.WebhookEvent) -> None:
        body = MessageToJson(message, indent=None).encode()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        for pause in (*_PAUSES, None):
            if await self._post(body, digest, message.event):
                return
            if pause is not None:
                await asyncio.sleep(pause)
        _log.warning("%s of room %s could not be delivered", message.event, message.room.name)

    async def _post(self, body: bytes, digest: str, event: str) -> bool:
        """One try; False where it is worth another."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT))
        headers = {"Authorization": self._keys.webhook_token(digest), "Content-Type": "application/webhook+json"}
        try:
            async with self._session.post(self._url or "", data=body, headers=headers) as answer:
                if answer.status >= 400:
                    _log.info("%s was answered with %s", event, answer.status)
                return answer.status < 500
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.info("%s was not delivered: %s", event, type(error).__name__)
            return False

    async def close(self, grace: float) -> None:
        """Takes no more events and gives those that wait `grace` seconds to go out."""
        self._closed = True
        workers = list(self._workers.values())
        if workers:
            _, late = await asyncio.wait(workers, timeout=grace)
            for worker in late:
                worker.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
