"""Bounded queues between the loop thread and whoever reads: a producer's end, a blocking reader, an awaitable one.

Floor 3: it knows nothing of calls, rooms or frames, holds no threads and starts none. A producer never waits: when its
reader is slow, the oldest item is dropped and counted. Frames, raw room events and the changes of an Observable all
travel on these.

The two ends share a line. Whoever produces holds the `Feed`; the reader holds a `Stream` or an `AsyncStream`, and the
feed keeps only a weak reference to it, so that dropping the reader closes the line like ``close()`` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import EllipsisType, TracebackType
from typing import Generic, Self, TypeVar

from utd_fsm.errors import UTDClosedError, UTDInputError, UTDStateError, UTDStreamException, UTDTimeoutError
from utd_fsm.waiting import refuse_if_blocking_deadlocks

T = TypeVar("T")

_log = logging.getLogger("utd_fsm.streams")


class _Empty(Exception):
    """Nothing is queued and the line is open."""


class _Line(Generic[T]):
    """What the two ends share. Any thread; the lock is re-entrant because a finaliser may close a line in mid-put."""

    def __init__(
        self,
        capacity: int,
        *,
        timeout: float | None,
        on_close: Callable[[], None] | None,
        what: str,
        mark: Callable[[T, int], T] | None,
        armed: bool,
    ) -> None:
        self.changed = threading.Condition()
        self.capacity = capacity
        self.timeout = timeout
        self.what = what
        self.dropped = 0
        self.finished = False
        self.closed = False
        self.error: UTDStreamException | None = None
        self._on_close = on_close
        self._mark = mark
        self._items: deque[T] = deque()
        self._lost = 0
        self._armed_at = time.monotonic() if armed else None
        self._waiters: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._pid = os.getpid()

    def put(self, item: T) -> None:
        with self.changed:
            if self.finished or self.closed:
                return
            while len(self._items) >= self.capacity:
                self._items.popleft()
                self._lost += 1
                self.dropped += 1
            self._items.append(item)
            self._wake()

    def take(self) -> T:
        """The oldest item; `_Empty` while there may be one later, the line's end as an error."""
        self.refuse_in_child()
        with self.changed:
            if self.closed:
                raise UTDClosedError(f"{self.what} was closed; ask for a new one")
            if self._items:
                item = self._items.popleft()
                lost, self._lost = self._lost, 0
                return item if self._mark is None or not lost else self._mark(item, lost)
            if self.finished:
                raise self.error or UTDClosedError(f"{self.what} is over")
            raise _Empty

    def lose(self, count: int) -> None:
        with self.changed:
            self._lost += count
            self.dropped += count

    def finish(self, error: UTDStreamException | None) -> None:
        with self.changed:
            if self.finished or self.closed:
                return
            self.finished, self.error = True, error
            self._wake()

    def close(self) -> None:
        with self.changed:
            if self.closed:
                return
            self.closed = True
            self._items.clear()
            self._wake()
        if self._on_close is not None and os.getpid() == self._pid:
            try:
                self._on_close()
            except Exception:  # noqa: BLE001 - it may run in a finaliser, where nobody could catch it
                _log.exception("closing %s failed", self.what)

    def arm(self) -> None:
        with self.changed:
            if self._armed_at is None:
                self._armed_at = time.monotonic()
                self._wake()

    def remaining(self, began: float, timeout: float | None) -> float | None:
        """Seconds a wait that began then may still take; None means without limit."""
        if timeout is None or self._armed_at is None:
            return None
        return max(began, self._armed_at) + timeout - time.monotonic()

    def late(self, timeout: float | None) -> UTDTimeoutError:
        return UTDTimeoutError(
            f"nothing came from {self.what} for {timeout:g} s; it is still open: read on, "
            "or ask for it with a longer timeout (None waits without limit)"
        )

    def refuse_in_child(self) -> None:
        # Before the lock: it may have been held at the moment of the fork, and would then never be free.
        if os.getpid() != self._pid:
            raise UTDClosedError(f"{self.what} belongs to the process this one was forked from")

    def await_change(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future that the next change resolves. Call with the lock held."""
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[waiter] = loop
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        with self.changed:
            self._waiters.pop(waiter, None)

    def _wake(self) -> None:
        self.changed.notify_all()
        waiters, self._waiters = self._waiters, {}
        for waiter, loop in waiters.items():
            try:
                loop.call_soon_threadsafe(_resolve, waiter)
            except RuntimeError:  # that reader's loop is closed; there is nobody to wake
                continue


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Reader(Generic[T]):
    """What both readers have in common."""

    def __init__(self, line: _Line[T]) -> None:
        self._line = line
        self._finalizer = weakref.finalize(self, line.close)
        self._finalizer.atexit = False  # the sessions are ended by then, and the loop is gone

    @property
    def dropped(self) -> int:
        """How many items were lost so far because they were not read in time. Any thread."""
        return self._line.dropped

    @property
    def closed(self) -> bool:
        """Whether nothing will come any more: it was closed, or is over and read to its end. Any thread."""
        line = self._line
        with line.changed:
            return line.closed or (line.finished and not line._items)

    def close(self) -> None:
        """Stop reading: what is queued is dropped, an iteration ends, the producer is told.

        May be called twice, from any thread and while another thread waits here. Dropping the last reference does the
        same.
        """
        self._finalizer.detach()
        self._line.close()

    def _ends_quietly(self, error: UTDClosedError) -> bool:
        line = self._line
        return error is not line.error and (line.closed or line.finished)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._line.what}, {'closed' if self.closed else 'open'}>"


class Stream(_Reader[T]):
    """A blocking iterator over what a session hears, sees or is told. Also a context manager.

    Made by the session, never directly. It may be read from several threads: each item then goes to one of them.
    """

    def get(self, timeout: float | EllipsisType | None = ...) -> T:
        """Wait for the next item.

        Args:
            timeout: seconds to wait at most; None waits without limit. Left out, the stream's own holds. Before the
                call is answered the clock does not run.

        Returns:
            The item.

        Raises:
            UTDTimeoutError: nothing came in time. The stream stays open.
            UTDClosedError: it was closed, or is over.
            UTDWouldBlockError: called where waiting would deadlock (the loop thread, a thread with a running loop).
            UTDStreamException: what the stream ended with, if it did not end in an orderly way.
        """
        line = self._line
        limit = line.timeout if isinstance(timeout, EllipsisType) else timeout
        line.refuse_in_child()
        refuse_if_blocking_deadlocks(f"reading {line.what}")
        began = time.monotonic()
        with line.changed:
            while True:
                try:
                    return line.take()
                except _Empty:
                    left = line.remaining(began, limit)
                    if left is not None and left <= 0:
                        raise line.late(limit) from None
                    line.changed.wait(left)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next item; ends when the stream does. Raises like `get`, except that an orderly end is the end."""
        try:
            return self.get()
        except UTDClosedError as error:
            if self._ends_quietly(error):
                raise StopIteration from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_Reader[T]):
    """The awaitable twin of `Stream`: ``async for``, ``async with``, from any event loop."""

    async def get(self, timeout: float | EllipsisType | None = ...) -> T:
        """Await the next item; arguments, result and errors as `Stream.get`. Cancelling it loses no item."""
        line = self._line
        limit = line.timeout if isinstance(timeout, EllipsisType) else timeout
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        line.refuse_in_child()
        while True:
            with line.changed:
                try:
                    return line.take()
                except _Empty:
                    left = line.remaining(began, limit)
                    if left is not None and left <= 0:
                        raise line.late(limit) from None
                    waiter = line.await_change(loop)
            try:
                await asyncio.wait((waiter,), timeout=left)
            finally:
                line.forget(waiter)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next item; ends when the stream does."""
        try:
            return await self.get()
        except UTDClosedError as error:
            if self._ends_quietly(error):
                raise StopAsyncIteration from None
            raise

    async def aclose(self) -> None:
        """The same as `close`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Feed(Generic[T]):
    """The producer's end. Every method may be called from any thread and never waits.

    Args:
        capacity: items kept at most, 1 or more; a further one drops the oldest.
        timeout: seconds its reader waits for one item at most, unless it asks otherwise; None waits without limit.
        on_close: called once, in the thread that closes (or drops) the reader.
        what: names it in errors, for instance ``the sound of bob``.
        mark: called as ``mark(item, n)`` when ``n`` items were lost right before ``item``; returns what is delivered.
        armed: False leaves `timeout` without effect until `arm`.

    Raises:
        UTDInputError: capacity under 1.
    """

    def __init__(
        self,
        capacity: int,
        *,
        timeout: float | None = None,
        on_close: Callable[[], None] | None = None,
        what: str,
        mark: Callable[[T, int], T] | None = None,
        armed: bool = True,
    ) -> None:
        if capacity < 1:
            raise UTDInputError(f"capacity is {capacity}; it must be 1 or more")
        self._line: _Line[T] = _Line(capacity, timeout=timeout, on_close=on_close, what=what, mark=mark, armed=armed)
        self._reader: weakref.ref[_Reader[T]] | None = None
        self._handing_out = threading.Lock()

    @property
    def stream(self) -> Stream[T]:
        """The blocking reader: the same object as long as somebody holds it.

        Raises:
            UTDStateError: it was handed out as an `AsyncStream`.
        """
        with self._handing_out:
            reader = self._reader() if self._reader is not None else None
            if reader is None:
                reader = Stream(self._line)
                self._reader = weakref.ref(reader)
            if not isinstance(reader, Stream):
                raise UTDStateError(f"{self._line.what} is already read as an AsyncStream")
            return reader

    @property
    def async_stream(self) -> AsyncStream[T]:
        """The awaitable reader: the same object as long as somebody holds it.

        Raises:
            UTDStateError: it was handed out as a `Stream`.
        """
        with self._handing_out:
            reader = self._reader() if self._reader is not None else None
            if reader is None:
                reader = AsyncStream(self._line)
                self._reader = weakref.ref(reader)
            if not isinstance(reader, AsyncStream):
                raise UTDStateError(f"{self._line.what} is already read as a Stream")
            return reader

    @property
    def capacity(self) -> int:
        """Items kept at most. A smaller value takes effect at the next `put`."""
        return self._line.capacity

    @capacity.setter
    def capacity(self, value: int) -> None:
        self._line.capacity = max(1, value)

    @property
    def dropped(self) -> int:
        """Items lost so far."""
        return self._line.dropped

    @property
    def closed(self) -> bool:
        """Whether a `put` would be thrown away: the reader closed it, or it was finished."""
        return self._line.closed or self._line.finished

    def put(self, item: T) -> None:
        """Queue one item. The oldest is dropped and counted when full; after the end it is thrown away."""
        self._line.put(item)

    def lose(self, count: int) -> None:
        """Count items that were lost before they came here; the next one delivered tells of them."""
        self._line.lose(count)

    def finish(self, error: UTDStreamException | None = None) -> None:
        """End it: what is queued is still delivered, then the iteration ends, or raises `error`. Idempotent."""
        self._line.finish(error)

    def arm(self) -> None:
        """Let the reader's timeout count from now on."""
        self._line.arm()
