"""What all books about media rooms share: one writer a room, work in the background, and what was heard already.

Nothing of a call or of a room is known here. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from .media_api import MediaUnreachableError

log = logging.getLogger("utd_fsm.engine.media")

ASK_AGAIN: Final = 2.0
"""Seconds until a media server that could not be asked is asked again."""
_REMEMBER: Final = 4096


class Recent:
    """The newest few of a set."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, item: str) -> bool:
        return item in self._items

    def add(self, item: str) -> bool:
        """Whether it was new."""
        new = item not in self._items
        self._items[item] = None
        while len(self._items) > _REMEMBER:
            self._items.popitem(last=False)
        return new


class Writers:
    """One writer a room, in the order of arrival: concurrent writes to LiveKit may end with an older one (fact 21)."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def writing(self, room: str) -> AsyncIterator[None]:
        """Alone with a room."""
        lock, users = self._locks.get(room, (asyncio.Lock(), 0))
        self._locks[room] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[room]
            if users == 1:
                del self._locks[room]
            else:
                self._locks[room] = lock, users - 1


class Background:
    """Tasks that somebody keeps, and whose errors are told: an unreachable media server is no error."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin it. Needs the running loop."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def aclose(self) -> None:
        """Stop them all."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MediaUnreachableError):
            log.info("%s: %s; the next comparison of the rooms will see to it", task.get_name(), error)
        elif error is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


class Timers:
    """One timer a name; setting it again moves it. Needs the running loop."""

    def __init__(self) -> None:
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set(self, name: str, wait: float, struck: Callable[[str], None]) -> None:
        """Call `struck(name)` in `wait` seconds."""
        self.stop(name)
        self._timers[name] = asyncio.get_running_loop().call_later(max(0.0, wait), self._struck, name, struck)

    def stop(self, name: str) -> None:
        """No longer; nothing, if there is none."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Stop them all."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _struck(self, name: str, struck: Callable[[str], None]) -> None:
        self._timers.pop(name, None)
        struck(name)
