"""Looks at the engine that somebody else's word gave reason for: debounced, jittered, and never a flood.

Loop thread only. A data message is a hint that anybody can forge, and a thousand listeners hear the same one at the
same moment. So hints are gathered, each listener waits a random while of its own, and looks that bring nothing make the
next hint wait longer, up to minutes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from utd_fsm.errors import UTDConnectionError, UTDStreamException, UTDTimeoutError

_log = logging.getLogger("utd_fsm.looks")


@dataclass(frozen=True, slots=True)
class LookTiming:
    """Seconds. Only tests have others."""

    debounce: float = 0.2
    """From the first hint, so that what comes together is one look."""
    jitter: float = 2.0
    """A random part of this is waited on top."""
    quiet: float = 10.0
    """Between two looks that hints gave reason for; doubled each time one brought nothing."""
    longest: float = 300.0
    """The most that doubling comes to."""


class Looks:
    """The looks of one session.

    Args:
        look: asks the engine and folds the answer; returns whether it was news.
        timing: seconds.
    """

    def __init__(self, look: Callable[[], Awaitable[bool]], timing: LookTiming | None = None) -> None:
        self._look = look
        self._timing = timing or LookTiming()
        self._task: asyncio.Task[None] | None = None
        self._looking = False
        self._again = False
        self._quiet = self._timing.quiet
        self._not_before = 0.0

    def hint(self) -> None:
        """Somebody said that something changed."""
        if self._looking:
            self._again = True  # the answer under way may be older than what this is about
        elif self._task is None:
            now = asyncio.get_running_loop().time()
            wait = max(self._timing.debounce, self._not_before - now) + random.uniform(0, self._timing.jitter)  # noqa: S311
            self._task = asyncio.create_task(self._after(wait), name="utd-fsm-look")

    def soon(self) -> None:
        """What only the server can write was not readable: look, without the long wait."""
        self._not_before = 0.0
        self.hint()

    def close(self) -> None:
        """No more. Idempotent; a later hint begins anew."""
        task, self._task = self._task, None
        self._looking = self._again = False
        if task is not None:
            task.cancel()

    async def _after(self, wait: float) -> None:
        await asyncio.sleep(wait)
        self._looking = True
        news = owed = False
        try:
            news = await self._look()
        except UTDStreamException as error:
            _log.info("a look that a hint gave reason for failed: %s", error)
            owed = isinstance(error, UTDConnectionError | UTDTimeoutError)
        if self._task is not asyncio.current_task():
            return  # closed meanwhile
        self._quiet = self._timing.quiet if news else min(self._quiet * 2, self._timing.longest)
        self._not_before = asyncio.get_running_loop().time() + self._quiet
        again = self._again or owed
        self._task, self._looking, self._again = None, False, False
        if again:
            self.hint()
