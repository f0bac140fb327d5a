"""Tells the application's backend: signed, in order where nothing fails, six attempts, and not lost by a restart.

A webhook is written in the transaction of what it tells about, and delivered from there: at least once. What was
delivered just before a kill may come again with the same attempt number.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from utd_fsm import wire
from utd_fsm.models import UTDCall

from .settings import EngineSettings
from .store import Hook, Store

log = logging.getLogger("utd_fsm.engine.webhooks")

_AT_ONCE: Final = 32


class Webhooks:
    """The outgoing side. Belongs to the event loop."""

    def __init__(self, settings: EngineSettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._tails: dict[str, asyncio.Event] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._http: aiohttp.ClientSession | None = None

    # --- inside a transaction

    def note_call(self, call: UTDCall) -> None:
        """Queue what a call's new status is told as. Call inside the transaction that changed it."""
        event = wire.CALL_WEBHOOKS[call.status]
        self.note(event, call.call_id, call={
            "call_id": call.call_id,
            "caller_identity": call.caller_identity,
            "callee_identity": call.callee_identity,
            "type": call.type.value,
            "duration_seconds": call.duration,
        })  # fmt: skip

    def note(self, event: str, subject: str, **parts: Mapping[str, Any]) -> None:
        """Queue one webhook. Those of one subject go out in order. Call inside a transaction."""
        if self._settings.webhook_url is not None:
            body = json.dumps({"event": event, **parts}, separators=(",", ":"))
            self._store.add_hook(event, subject, body, time.time() + self._settings.webhook_delays[0])

    # --- on the loop

    def wake(self) -> None:
        """Deliver what has been queued and committed. Never blocks, needs the running loop."""
        if self._settings.webhook_url is None:
            return
        for hook in self._store.hooks(self._last):
            self._last = hook.id
            before, mine = None, asyncio.Event()
            if hook.attempt == 1:  # one that waits for its next attempt, perhaps long, holds nobody up
                before, self._tails[hook.subject] = self._tails.get(hook.subject), mine
            task = asyncio.get_running_loop().create_task(self._deliver(hook, before, mine), name=f"webhook-{hook.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Stop delivering; what is left stays queued for the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def _deliver(self, hook: Hook, before: asyncio.Event | None, mine: asyncio.Event) -> None:
        attempt, due = hook.attempt, hook.due
        try:
            if before is not None:
                await before.wait()  # the first attempts of one subject keep their order
            await asyncio.sleep(max(0.0, due - time.time()))
            done = await self._attempt(hook, attempt)
        finally:
            mine.set()
            if self._tails.get(hook.subject) is mine:
                del self._tails[hook.subject]
        while not done:
            if attempt >= len(self._settings.webhook_delays):
                log.warning("webhook %s of %s given up after %d attempts", hook.event, hook.subject, attempt)
                break
            due = time.time() + self._settings.webhook_delays[attempt]
            attempt += 1
            self._store.postpone_hook(hook.id, attempt, due)
            await asyncio.sleep(max(0.0, due - time.time()))
            done = await self._attempt(hook, attempt)
        self._store.drop_hook(hook.id)

    async def _attempt(self, hook: Hook, attempt: int) -> bool:
        """Whether it is settled: taken, or refused for good with a 4xx."""
        assert self._settings.webhook_url is not None
        body = hook.body.encode()
        secret = (self._settings.webhook_secret or "").encode()
        headers = {
            "Content-Type": "application/json",
            wire.WEBHOOK_EVENT[0]: hook.event,
            wire.WEBHOOK_SIGNATURE[0]: wire.SIGNATURE_PREFIX + hmac.new(secret, body, hashlib.sha256).hexdigest(),
            wire.WEBHOOK_ATTEMPT[0]: str(attempt),
        }
        http = self._http
        if http is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.webhook_timeout)
            http = self._http = aiohttp.ClientSession(timeout=timeout)
        try:
            async with (
                self._slots,
                http.post(self._settings.webhook_url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("webhook %s of %s, attempt %d: %s", hook.event, hook.subject, attempt, type(error).__name__)
            return False
        if 400 <= status < 500:
            log.warning("webhook %s of %s refused with %d: not tried again", hook.event, hook.subject, status)
        return status < 300 or 400 <= status < 500
