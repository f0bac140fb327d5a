"""How a session follows its own call: by the socket where there is one, and by asking where there is none.

On the loop thread. It only passes on what the engine says; folding it is the session's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .call_feed import CallFeed, feed_of
from .credentials import Credentials
from .engine_socket import LoopPortal
from .errors import UTDEngineError, UTDStreamException
from .models import UTDCall, UTDCallStatus

if TYPE_CHECKING:
    from .engine_api import EngineApi

log = logging.getLogger("utd_fsm.calls")


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """Seconds between two looks while the socket tells nothing; each is jittered down to its half."""

    ringing: float = 1.0
    active: float = 5.0
    quiet: float = 30.0
    """While the socket tells everything: a look all the same, in case it does not."""
    backoff: float = 10.0
    """The longest, while the engine cannot be asked."""


class CallWatch:
    """Follows one call until it is over or `close` is called. Loop thread only.

    Args:
        portal, api, cred: who asks.
        call_id: which call.
        on_call: called with each record heard, by whatever channel; the same one may come more than once.
        on_error: called when a look failed; the watch goes on by itself.
        feed: what else is heard; None for the credentials' own.
    """

    def __init__(
        self,
        portal: LoopPortal,
        api: EngineApi,
        cred: Credentials,
        call_id: str,
        on_call: Callable[[UTDCall], None],
        *,
        on_error: Callable[[UTDStreamException], None] | None = None,
        timing: WatchTiming | None = None,
        feed: CallFeed | None = None,
    ) -> None:
        self._portal = portal
        self._api = api
        self._cred = cred
        self._call_id = call_id
        self._on_call = on_call
        self._on_error = on_error
        self._timing = timing or WatchTiming()
        self._feed = feed or feed_of(portal, cred)
        self._status: UTDCallStatus | None = None
        self._wake = asyncio.Event()
        if self._feed.running:
            self._wake.set()  # a frame may have been faster than the answer that made somebody follow the call
        self._end = self._feed.listen(self._heard, call_id=call_id, on_look=self._look)
        self._task: asyncio.Task[None] | None = portal.spawn(self._run(), name=f"watch-{call_id}")

    def look(self) -> None:
        """Ask the engine soon (a few hundred milliseconds at most), however often this is called."""
        self._wake.set()

    def close(self) -> None:
        """Follow it no longer. Idempotent."""
        self._end()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _heard(self, call: UTDCall) -> None:
        if self._status is None or not self._status.is_terminal:
            self._status = call.status
        self._on_call(call)
        if call.status.is_terminal:
            self.close()

    def _look(self, why: str) -> None:
        self._wake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            asked = await self._wait(failures)
            if asked:
                # Several reasons to look come together, and so do many sessions when an engine is back.
                await asyncio.sleep(random.uniform(0, min(0.2, self._timing.ringing)))  # noqa: S311 - no secret
            self._wake.clear()
            try:
                call = await self._portal.in_thread(
                    partial(self._api.call, self._cred, self._call_id, deadline=self._timing.backoff)
                )
            except UTDStreamException as error:
                failures += 1
                log.debug("call %s could not be looked at: %s", self._call_id, error)
                if self._on_error is not None:
                    self._on_error(error)
                if isinstance(error, UTDEngineError) and error.retry_after:
                    await asyncio.sleep(error.retry_after)
            else:
                failures = 0
                self._feed.publish(call)

    async def _wait(self, failures: int) -> bool:
        """Until the next look is due; whether somebody asked for it."""
        if self._feed.ready:
            due = self._timing.quiet
        elif self._status is UTDCallStatus.ACTIVE:
            due = self._timing.active
        else:
            due = self._timing.ringing
        if failures:
            due = min(self._timing.backoff, due * 2 ** min(failures, 10))
        try:
            async with asyncio.timeout(due * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                await self._wake.wait()
        except TimeoutError:
            return False
        return True
