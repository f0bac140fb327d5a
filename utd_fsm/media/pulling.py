"""Pulls one opened source on a thread of its own into a small queue, out of which the loop thread takes.

The thread exists only while something is to be pulled. When pulling rests (muted, reconnecting, another sound instead)
it ends after the piece it is reading, what is queued stays, and a later thread goes on where it was. A source that
blocks for ever can hold up its thread and nothing else: it is a daemon, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

_log = logging.getLogger("utd_fsm.media")


CLOSE_LIMIT = 1.0
"""Seconds that closing waits for threads and captures at most."""


RETRY = 0.2
"""Seconds until a track that refused a frame is asked again."""


class Tasks(Protocol):
    """Where background work is put (the portal)."""

    def spawn(self, coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run it beside the others, and hold it."""
        ...


class Puller(Generic[T]):
    """Any thread may call any method; `take` never waits.

    Args:
        read: the next piece (or None) and whether it was the last; runs on the pulling thread, may block or raise.
        close: frees what is read, and makes a `read` that waits return. Called at the end, more than once.
        name: of the thread.
        capacity: pieces kept at most.
        what: names the source in the log.
        log_errors: whether an exception of `read` is logged; where it is raised to somebody, it need not be.
    """

    def __init__(
        self,
        read: Callable[[], tuple[T | None, bool]],
        close: Callable[[], None],
        *,
        name: str,
        capacity: int,
        what: str,
        log_errors: bool = True,
    ) -> None:
        self.error: BaseException | None = None
        """What `read` raised; the source is over then."""
        self.begun = False
        """Whether a piece was ever taken."""
        self._read = read
        self._close = close
        self._name = name
        self._capacity = capacity
        self._what = what
        self._log_errors = log_errors
        self._changed = threading.Condition()
        self._queue: deque[T] = deque()
        self._wanted = False
        self._over = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Pull: fill the queue, and keep it filled."""
        with self._changed:
            if self._closed or self._over:
                return
            self._wanted = True
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._pull, name=self._name, daemon=True)
                self._thread.start()

    def rest(self) -> None:
        """Stop pulling and keep the place."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()

    def take(self) -> T | None:
        """The next piece; None when none is ready."""
        with self._changed:
            if not self._queue:
                return None
            self.begun = True
            self._changed.notify_all()
            return self._queue.popleft()

    @property
    def over(self) -> bool:
        """Whether the source is finished and everything was taken."""
        with self._changed:
            return self._closed or (self._over and not self._queue)

    @property
    def pulling(self) -> bool:
        """Whether its thread lives."""
        return self._thread is not None

    def close(self) -> None:
        """Drop what is queued, pull no more, free the source. Idempotent."""
        with self._changed:
            self._closed = True
            self._wanted = False
            self._queue.clear()
            self._changed.notify_all()
        self._free()

    def _pull(self) -> None:
        while True:
            with self._changed:
                while self._wanted and len(self._queue) >= self._capacity:
                    self._changed.wait()
                if not self._wanted:
                    self._thread = None
                    return
            piece: T | None = None
            error: BaseException | None = None
            try:
                piece, last = self._read()
            except BaseException as raised:  # noqa: BLE001 - whatever the caller's iterable raises ends it, not us
                error, last = raised, True
            with self._changed:
                if piece is not None and not self._closed:
                    self._queue.append(piece)
                if last:
                    self._over = True
                    if not self._closed:
                        self.error = error
                    self._thread = None
            if last:
                # A read that fails because it was closed under it is nobody's trouble.
                if self.error is not None and self._log_errors:
                    _log.error("%s raised; it counts as finished", self._what, exc_info=self.error)
                self._free()
                return

    def _free(self) -> None:
        try:
            self._close()
        except Exception:  # noqa: BLE001 - it may be the caller's code, and nobody waits for it
            _log.exception("closing %s failed", self._what)


async def close_within(limit: float, pumps: set[asyncio.Task[Any]], pullers: list[Puller[Any]]) -> None:
    """Wait for pumps and pulling threads to end; cancel the former and leave the latter alone after `limit` seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit
    if pumps:
        done_or_not = set(pumps)
        await asyncio.wait(done_or_not, timeout=limit)
        for pump in done_or_not:
            pump.cancel()
    while any(puller.pulling for puller in pullers) and loop.time() < until:  # noqa: ASYNC110 - a thread's end cannot be awaited
        await asyncio.sleep(0.005)
    stuck = sum(puller.pulling for puller in pullers)
    if stuck:
        _log.warning("a source did not return within %g s; its thread is left to it", limit)
    pullers.clear()
