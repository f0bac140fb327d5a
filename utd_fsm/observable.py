"""A value that changes, which any thread may read, wait for and follow.

One writer, the session on the loop thread; readers see immutable snapshots and never a half-step. There is no lock:
a reader registers its feed first and reads the state then, and each state carries its number, so that nothing is
skipped and nothing comes twice. Knows nothing of calls or rooms.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import queue
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, Generic, NoReturn, TypeVar

from utd_fsm.dispatcher import dispatcher
from utd_fsm.errors import UTDClosedError, UTDStreamException, UTDTimeoutError
from utd_fsm.signal import UTDSignal
from utd_fsm.waiting import Deadline, check_timeout, refuse_if_blocking_deadlocks

T = TypeVar("T")

_SHOWN: Final = 200
"""Characters of a value's repr that a message shows."""


class _State(Generic[T]):
    """What an observable is at one moment: a number that grows, the value, and why no other will come (or None)."""

    __slots__ = ("end", "number", "value")

    def __init__(self, number: int, value: T, end: Callable[[], UTDStreamException] | None) -> None:
        self.number = number
        self.value = value
        self.end = end


class BaseObservable(Generic[T]):
    """What `Observable` and `AsyncObservable` have in common: the value, who follows it, and the writer's side.

    Args:
        value: the first value; immutable, as readers of any thread get this very object.
        name: how messages call it, for instance ``status of call 7``.
        signal: the module-level signal that announces a change, if there is one.
        sender: that signal's sender, the session.
        next_seq: gives the next number of the session's order of changes; left out, this observable counts by itself.
        extra: keyword arguments that every announcement carries beside ``value``, ``previous`` and ``seq``.
    """

    def __init__(
        self,
        value: T,
        *,
        name: str,
        signal: UTDSignal | None = None,
        sender: object = None,
        next_seq: Callable[[], int] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._state: _State[T] = _State(0, value, None)
        # A dict for its order and because adding, dropping and copying its keys are each one atomic step.
        self._feeds: dict[Callable[[_State[T]], None], None] = {}
        self._signal = signal
        self.sender = sender
        self._next_seq = next_seq
        self._seq = 0
        self._extra = extra or {}
        self._changed: UTDSignal | None = None
        self._pid = os.getpid()

    @property
    def value(self) -> T:
        """The value now: an immutable snapshot. Any thread."""
        return self._state.value

    @property
    def finished(self) -> bool:
        """Whether no further change will come. Any thread."""
        return self._state.end is not None

    @property
    def changed(self) -> UTDSignal:
        """A blinker signal sent on the signals thread after each change, with ``value``, ``previous``, ``seq``.

        Its sender is this observable. Unlike the module-level signals it holds its receivers, so that lambdas and
        local functions may be connected as they are.
        """
        signal = self._changed
        if signal is None:
            # Two threads may both get here: setdefault makes one of the two signals the only one.
            signal = self._changed = self.__dict__.setdefault("_made", UTDSignal(f"changed of {self.name}", weak=False))
        return signal

    # The writer's side: loop thread only.

    def set(self, value: T, **extra: Any) -> bool:
        """Change the value, feed the waiters, announce it. Loop thread only.

        Args:
            value: the new value; an equal one changes nothing.
            extra: further keyword arguments of this announcement.

        Returns:
            Whether it was a change.
        """
        announce = self.prepare(value, **extra)
        if announce is None:
            return False
        announce()
        return True

    def prepare(self, value: T, **extra: Any) -> Callable[[], None] | None:
        """The first half of `set`: the value is there, and nobody was told. Loop thread only.

        For values that change together: whoever is told of one of them shall find the others changed as well.

        Returns:
            The other half: feeds the waiters and announces it, at once after; None where nothing changed.
        """
        before = self._state
        previous = before.value
        if previous is value or previous == value:
            return None
        state = self._state = _State(before.number + 1, value, before.end)
        seq = self._seq = self._seq + 1 if self._next_seq is None else self._next_seq()

        def announce() -> None:
            self._feed(state)
            payload = {**self._extra, **extra, "value": value, "previous": previous, "seq": seq}
            if self._changed is not None:
                dispatcher().emit(self._changed, self, **payload)
            if self._signal is not None:
                dispatcher().emit(self._signal, self.sender, **payload)

        return announce

    def finish(self, error: Callable[[], UTDStreamException]) -> None:
        """No further change will come: who still waits for another value gets ``error()`` at once. Loop thread only.

        Args:
            error: makes the error, a fresh one for each waiter (it is raised in several threads).
        """
        before = self._state
        state = self._state = _State(before.number + 1, before.value, error)
        self._feed(state)

    def reopen(self) -> None:
        """Changes will come again (a second call on the same session). Loop thread only."""
        before = self._state
        if before.end is not None:
            self._state = _State(before.number + 1, before.value, None)

    def _feed(self, state: _State[T]) -> None:
        for feed in tuple(self._feeds):
            feed(state)

    # The readers' side.

    def _matcher(self, wanted: Callable[[T], object] | T | str) -> Callable[[T], bool]:
        if callable(wanted):
            return lambda value: bool(wanted(value))
        return lambda value: bool(value == wanted)

    def _refuse_after_fork(self) -> None:
        if self._pid != os.getpid():
            raise UTDClosedError(
                f"{self.name} belongs to the process this one was forked from: make a session of this process's own"
            )

    def _nothing_more(self) -> UTDClosedError:
        return UTDClosedError(f"{self.name} is finished")

    def _timed_out(self, timeout: float | None, awaited: str) -> UTDTimeoutError:
        shown = repr(self.value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
        return UTDTimeoutError(f"{self.name} {awaited} within {timeout:g} s; it is {shown}", outcome_known=True)

    # A truth value or a comparison of the observable itself is always a slip for one of its value.

    def __bool__(self) -> NoReturn:
        raise TypeError("did you mean .value?")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("did you mean .value?")

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Observable(BaseObservable[T]):
    """The blocking one. Made by sessions; every member here may be used from any thread that may block."""

    def wait_for(self, wanted: Callable[[T], object] | T | str, timeout: float | None = 30.0) -> T:
        """Wait until the value is, or satisfies, ``wanted``: the current one, or else the first later one that does.

        None is skipped, however short it lasted.

        Args:
            wanted: a value, or a predicate; a predicate runs in this thread and may take its time.
            timeout: seconds, or None for no limit. A wait that times out changes nothing.

        Returns:
            The value that was waited for.

        Raises:
            UTDTimeoutError: it did not come in time.
            UTDStreamException: at once, when it can no longer come: what ended the call, room or client says which.
            UTDWouldBlockError: on the loop thread, or where an event loop runs. A receiver may wait.
            UTDInputError: the timeout is not a number, NaN, or negative.
        """
        deadline = Deadline(timeout)
        matches = self._matcher(wanted)
        states = self._follow(f"{self.name}.wait_for()", lambda: deadline, "did not become what was waited for")
        with contextlib.closing(states):
            for state, is_news in states:
                if is_news and matches(state.value):
                    return state.value
                if state.end is not None:
                    raise state.end()
        raise self._nothing_more()

    def updates(self, timeout: float | None = None) -> Generator[T, None, None]:
        """The current value, then every change in order, none skipped; ends when no further change will come.

        It begins with the first ``next()``. Closing the iterator, or dropping it, unsubscribes.

        Args:
            timeout: the longest gap in seconds, or None for no limit.

        Raises:
            UTDTimeoutError: a gap was longer.
            UTDWouldBlockError: on the loop thread, or where an event loop runs.
            UTDInputError: the timeout is not a number, NaN, or negative.
        """
        gap = check_timeout(timeout)
        refuse_if_blocking_deadlocks(f"{self.name}.updates()")
        self._refuse_after_fork()
        return self._values(self._follow(f"{self.name}.updates()", lambda: Deadline(gap), "did not change"))

    def _values(self, states: Generator[tuple[_State[T], bool], None, None]) -> Generator[T, None, None]:
        with contextlib.closing(states):
            for state, is_news in states:
                if is_news:
                    yield state.value

    def _follow(
        self, what: str, deadline: Callable[[], Deadline], awaited: str
    ) -> Generator[tuple[_State[T], bool], None, None]:
        """The state now and each later one, with whether its value is news; the last one is the one that ended it."""
        refuse_if_blocking_deadlocks(what)
        self._refuse_after_fork()
        states: queue.SimpleQueue[_State[T]] = queue.SimpleQueue()
        feed = states.put
        self._feeds[feed] = None  # first this, then look: see the first lines of this module
        try:
            state = self._state
            yield state, True
            while state.end is None:
                seen = state.number
                refuse_if_blocking_deadlocks(what)
                until = deadline()
                while state.number <= seen:
                    try:
                        state = states.get(timeout=until.left())
                    except queue.Empty:
                        raise self._timed_out(until.timeout, awaited) from None
                yield state, state.end is None
        finally:
            self._feeds.pop(feed, None)


class AsyncObservable(BaseObservable[T]):
    """The awaitable one. Made by sessions; its waits may be awaited in any asyncio event loop of any thread."""

    async def wait_for(self, wanted: Callable[[T], object] | T | str, timeout: float | None = 30.0) -> T:
        """Wait until the value is, or satisfies, ``wanted``: the current one, or else the first later one that does.

        None is skipped, however short it lasted. A cancelled await unsubscribes and changes nothing.

        Args:
            wanted: a value, or a predicate; a predicate runs in the awaiting thread and must not block.
            timeout: seconds, or None for no limit. A wait that times out changes nothing.

        Returns:
            The value that was waited for.

        Raises:
            UTDTimeoutError: it did not come in time.
            UTDStreamException: at once, when it can no longer come: what ended the call, room or client says which.
            UTDInputError: the timeout is not a number, NaN, or negative.
        """
        deadline = Deadline(timeout)
        matches = self._matcher(wanted)
        states = self._follow(lambda: deadline, "did not become what was waited for")
        async with contextlib.aclosing(states):
            async for state, is_news in states:
                if is_news and matches(state.value):
                    return state.value
                if state.end is not None:
                    raise state.end()
        raise self._nothing_more()

    def updates(self, timeout: float | None = None) -> AsyncGenerator[T, None]:
        """The current value, then every change in order, none skipped; ends when no further change will come.

        It begins with the first step of the ``async for``. Closing the iterator unsubscribes, and so does cancelling
        who awaits it.

        Args:
            timeout: the longest gap in seconds, or None for no limit.

        Raises:
            UTDTimeoutError: a gap was longer.
            UTDInputError: the timeout is not a number, NaN, or negative.
        """
        gap = check_timeout(timeout)
        self._refuse_after_fork()
        return self._values(self._follow(lambda: Deadline(gap), "did not change"))

    async def _values(self, states: AsyncGenerator[tuple[_State[T], bool], None]) -> AsyncGenerator[T, None]:
        async with contextlib.aclosing(states):
            async for state, is_news in states:
                if is_news:
                    yield state.value

    async def _follow(
        self, deadline: Callable[[], Deadline], awaited: str
    ) -> AsyncGenerator[tuple[_State[T], bool], None]:
        """As the blocking one: the state now and each later one, with whether its value is news."""
        self._refuse_after_fork()
        loop = asyncio.get_running_loop()
        states: collections.deque[_State[T]] = collections.deque()
        arrived = asyncio.Event()

        def feed(state: _State[T]) -> None:
            states.append(state)
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the reader's loop was closed under it
                self._feeds.pop(feed, None)

        self._feeds[feed] = None  # first this, then look: see the first lines of this module
        try:
            state = self._state
            yield state, True
            while state.end is None:
                seen = state.number
                until = deadline()
                while state.number <= seen:
                    while not states:
                        # The writer appends first, and its set() runs later on this loop: clearing here loses nothing.
                        arrived.clear()
                        try:
                            async with asyncio.timeout(until.left()):
                                await arrived.wait()
                        except TimeoutError:
                            raise self._timed_out(until.timeout, awaited) from None
                    state = states.popleft()
                yield state, state.end is None
        finally:
            self._feeds.pop(feed, None)
