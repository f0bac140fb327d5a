"""The portal: how threads that may block reach the one loop thread that owns every machine, room and timer.

One per process, made at first use: `portal()`. The thread starts when it is needed and ends when nobody holds it any
more; a forked child begins afresh; at interpreter exit the registered farewells are run, 5 seconds at most.
A portal knows how to run things and to wait for them, and nothing of calls or rooms.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, TypeVar, cast

from utd_fsm.dispatcher import dispatcher
from utd_fsm.errors import UTDClosedError, UTDStateError, UTDTimeoutError
from utd_fsm.loop_thread import OwnLoop, Run, Work
from utd_fsm.waiting import Deadline, check_timeout, refuse_if_blocking_deadlocks, refuse_if_patched

__all__ = ["Deadline", "Lease", "Portal", "check_timeout", "portal", "refuse_if_blocking_deadlocks"]

T = TypeVar("T")

FAREWELL: Final = 5.0
"""Seconds that everything registered with `Portal.at_exit` has, together, when the interpreter exits."""
_JOIN: Final = 5.0
_JOIN_SIGNALS: Final = 1.0

_log = logging.getLogger("utd_fsm.portal")


class _Call(Work):
    """Work that a blocked thread waits for."""

    __slots__ = ("error", "gate", "result")

    def __init__(self, fn: Callable[[], Awaitable[Any]], what: str, lost: Callable[[Any], None] | None = None) -> None:
        super().__init__(fn, what, lost)
        self.result: Any = None
        self.error: BaseException | None = None
        # A bare lock that its waiter acquires twice: a third of the price of an Event, and Ctrl-C interrupts it too.
        self.gate = threading.Lock()
        self.gate.acquire()

    def settle(self, result: Any, error: BaseException | None) -> None:
        if not self.settled:
            self.settled = True
            self.result, self.error = result, error
            self.gate.release()


class _Post(Work, Generic[T]):
    """Work whose outcome goes into a future that any thread may look at or cancel."""

    __slots__ = ("future",)

    def __init__(self, fn: Callable[[], Awaitable[Any]], what: str) -> None:
        super().__init__(fn, what)
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def settle(self, result: Any, error: BaseException | None) -> None:
        if self.settled:
            return
        self.settled = True
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _Awaited(Work, Generic[T]):
    """Work that a coroutine of another event loop awaits."""

    __slots__ = ("future", "loop")

    def __init__(
        self,
        fn: Callable[[], Awaitable[Any]],
        what: str,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[Any], None] | None,
    ) -> None:
        super().__init__(fn, what, lost)
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()

    def settle(self, result: Any, error: BaseException | None) -> None:
        if self.settled:
            return
        self.settled = True
        try:
            self.loop.call_soon_threadsafe(self._deliver, result, error)
        except RuntimeError:
            pass  # the other loop was closed, and nobody awaits this any more

    def _deliver(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Lease:
    """Holds the loop thread open. Made by `Portal.hold`; whoever has one releases it."""

    __slots__ = ("__weakref__", "_portal", "_run")

    def __init__(self, portal: Portal, run: Run) -> None:
        self._portal = portal
        self._run: Run | None = run

    @property
    def released(self) -> bool:
        """Whether it no longer holds anything."""
        return self._run is None

    def release(self) -> None:
        """Let go. When it was the last lease, the loop thread, the signals thread and the REST threads end.

        Idempotent; from any thread, a receiver, a signal handler, the loop thread. A thread that may wait sees the
        threads end, a few seconds at most; on the loop thread, the signals thread and in an event loop it only
        gives the word. Work that is still under way has half a second; then it is cancelled and whoever waits for it
        gets `UTDClosedError`.
        """
        run, self._run = self._run, None
        if run is None or self._portal.pid != os.getpid():
            return
        run.release(self)
        if run.leases:
            return
        self._portal._wait_for_the_end(run)


class Portal:
    """What blocking code calls into, and what coroutines on the loop thread use. Get it with `portal()`."""

    pid: int
    """The process it belongs to; in any other, calls raise `UTDClosedError`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock: Final = threading.RLock()
        self._run: Run | None = None
        self._exited = False
        self._farewells: dict[object, Callable[[], Awaitable[None]]] = {}

    # From any thread.

    def hold(self) -> Lease:
        """Start the loop thread if need be, and keep it until the lease is released. Any thread.

        Raises:
            UTDClosedError: the interpreter is exiting, or this portal belongs to the parent process.
            UTDWouldBlockError: the interpreter is patched by gevent or eventlet.
        """
        self._refuse_after_fork()
        _go_first_at_exit()
        with self.lock:
            run = self._running()
            lease = Lease(self, run)
            run.leases.add(lease)
            return lease

    def call(
        self,
        fn: Callable[[], Awaitable[T]],
        *,
        timeout: float | None = 30.0,
        what: str,
        lost: Callable[[T], None] | None = None,
    ) -> T:
        """Run ``fn()`` on the loop thread and wait for it: its own result, its own exception.

        Args:
            fn: a coroutine function without arguments, or a lambda that returns a coroutine.
            timeout: seconds, or None for no limit.
            what: the call as the caller knows it, for messages.
            lost: given the result on the loop thread when it came in the very moment in which the wait was given up.

        Returns:
            What the coroutine returned.

        Raises:
            UTDTimeoutError: it took longer; the work is cancelled, and ``outcome_known`` is False.
            UTDWouldBlockError: on the loop thread, where an event loop runs, or under gevent; the message has the mend.
            UTDClosedError: it was cancelled, because the last client was closed or the interpreter exits; or this
                portal belongs to the parent process.
            UTDInputError: the timeout is not a number, NaN, or negative.

        Interrupting the wait (Ctrl-C, or whatever else is raised in it) cancels the work. Any thread that may block,
        a receiver on the signals thread too.
        """
        limit = check_timeout(timeout)
        refuse_if_blocking_deadlocks(what)
        work = _Call(fn, what, lost)
        run: Run | None = None
        try:
            run = self._submit(work)
            in_time = work.gate.acquire(timeout=-1 if limit is None else limit) or work.settled
        except BaseException:
            work.cancelled = True
            if run is not None or (run := self._run) is not None:
                run.cancel(work)
            raise
        if not in_time:
            run.cancel(work)
            raise _too_long(what, limit)
        error = work.error
        if error is not None:
            try:
                raise error
            finally:
                # The traceback holds this frame, and this frame the error: without this, only the collector frees them.
                work.error = None
                del error
        return cast("T", work.result)

    def post(self, fn: Callable[[], Awaitable[T]], *, what: str = "posted work") -> concurrent.futures.Future[T]:
        """Run ``fn()`` on the loop thread and don't wait. Any thread, the loop thread too.

        Returns:
            A future with its result or exception; cancelling it cancels the work.

        Raises:
            UTDClosedError: the interpreter is exiting, or this portal belongs to the parent process.
        """
        work: _Post[T] = _Post(fn, what)
        run = self._submit(work)
        work.future.add_done_callback(lambda future: run.cancel(work) if future.cancelled() else None)
        return work.future

    async def acall(
        self,
        fn: Callable[[], Awaitable[T]],
        *,
        timeout: float | None,
        what: str,
        lost: Callable[[T], None] | None = None,
    ) -> T:
        """Run ``fn()`` on the loop thread and await it, in an asyncio event loop of any thread.

        Arguments, result and errors are those of `call`. A cancelled await cancels the work.
        """
        limit = check_timeout(timeout)
        if self.on_loop_thread:
            awaited = fn()
        else:
            refuse_if_patched(what)
            awaited = self._from_another_loop(fn, what, lost)
        if limit is None:
            return await awaited
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                return await awaited
        except TimeoutError:
            # The work may have raised a timeout of its own: only ours is turned into UTDTimeoutError.
            if scope.expired():
                raise _too_long(what, limit) from None
            raise

    async def _from_another_loop(
        self, fn: Callable[[], Awaitable[T]], what: str, lost: Callable[[T], None] | None
    ) -> T:
        work: _Awaited[T] = _Awaited(fn, what, asyncio.get_running_loop(), lost)
        run = self._submit(work)
        try:
            return await work.future
        except asyncio.CancelledError:
            run.cancel(work)
            raise

    @property
    def on_loop_thread(self) -> bool:
        """Whether the caller is the loop thread."""
        loop = asyncio._get_running_loop()
        return isinstance(loop, OwnLoop) and loop.run.owner is self

    def at_exit(self, fn: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Run ``fn()`` on the loop thread when the interpreter exits while the loop is open. Any thread.

        All of them run at the same time and have 5 seconds together. A forked child does not run its parent's.

        Returns:
            A function that takes it back; it may be called twice.
        """
        key = object()
        self._farewells[key] = fn
        _go_first_at_exit()
        return lambda: (self._farewells.pop(key, None), None)[1]

    # On the loop thread only.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, for ``call_later`` and the like. Loop thread only.

        Raises:
            UTDStateError: called elsewhere.
        """
        return self._own("portal.loop").loop

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a coroutine beside the others, until it ends or the loop does. Loop thread only.

        The task is held, an exception that it ends with is logged (the caller scrubs what must not be in a log), and
        it is cancelled when the loop ends: it does not keep the loop open.

        Raises:
            UTDStateError: called elsewhere.
        """
        try:
            run = self._own("portal.spawn()")
        except BaseException:
            coro.close()
            raise
        return run.spawn(coro, name)

    async def in_thread(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking ``fn(*args)`` in one of the REST threads (8 at most) and await it. Loop thread only.

        A cancelled await leaves the thread to finish what it is doing, and drops the outcome.
        """
        return await self._own("portal.in_thread()").loop.in_thread(fn, *args)

    def _own(self, what: str) -> Run:
        # The thread decides, not self._run: a run that is ending still has tasks that tidy up.
        loop = asyncio._get_running_loop()
        if not isinstance(loop, OwnLoop) or loop.run.owner is not self:
            raise UTDStateError(f"{what} belongs to the loop thread: reach it with portal().call(…)")
        return loop.run

    # Inside.

    def _submit(self, work: Work) -> Run:
        self._refuse_after_fork()
        while True:
            run = self._run
            if run is None:
                with self.lock:
                    run = self._running()
            if run.submit(work):
                return run

    def _refuse_after_fork(self) -> None:
        if self.pid != os.getpid():
            raise UTDClosedError(
                "this belongs to the process that this one was forked from: make a client or session of its own here"
            )

    def _running(self) -> Run:
        """The run, started if need be. Under the lock."""
        if self._run is None:
            if self._exited:
                raise UTDClosedError("the interpreter is exiting: utd_fsm has stopped its threads")
            refuse_if_patched("utd_fsm")
            run = Run(self)
            try:
                run.thread.start()
            except RuntimeError as error:  # Python 3.12 and later start no thread once the interpreter is exiting
                run.loop.close()
                raise UTDClosedError(f"the loop thread cannot be started: {error}") from None
            # A signal handler may have got here meanwhile, in this very thread: then its run is the one.
            if self._run is None:
                self._run = run
            else:
                run.abort()
        return self._run

    def run_ends(self, run: Run) -> None:
        """The run has decided to end: the next use starts another. Loop thread, under the lock."""
        if self._run is run:
            self._run = None

    def run_has_ended(self, run: Run) -> None:
        """What its last tasks announced is queued by now, so that the signals thread may end after it."""
        if self._run is None:
            dispatcher().stop()

    def _wait_for_the_end(self, run: Run) -> None:
        signals = dispatcher()
        if asyncio._get_running_loop() is not None or signals.on_thread:
            return
        until = time.monotonic() + _JOIN
        while run.thread.is_alive() and not run.leases and time.monotonic() < until:
            run.thread.join(0.05)
        if not run.thread.is_alive():
            run.workers.join(_JOIN_SIGNALS)
            if self._run is None:
                signals.join(_JOIN_SIGNALS)

    def _exit(self) -> None:
        """The interpreter exits. The main thread, with everything else still alive."""
        self._exited = True
        run = self._run
        if run is None:
            return
        farewells = list(self._farewells.values())
        if farewells:
            work = _Call(lambda: _say(farewells), "the farewell at exit")
            # A little more than the farewells have: if the loop itself hangs, the exit does not hang with it.
            if run.submit(work) and not work.gate.acquire(timeout=FAREWELL + 0.5):
                _log.warning("the loop thread did not answer at exit: sessions may not have been ended")
                return
        run.abort()
        run.thread.join(_JOIN)
        dispatcher().join(_JOIN_SIGNALS)


async def _say(farewells: list[Callable[[], Awaitable[None]]]) -> None:
    async def one(fn: Callable[[], Awaitable[None]]) -> None:
        try:
            await fn()
        except Exception:  # noqa: BLE001  # one session's trouble must not cost another its farewell
            _log.exception("something went wrong while a session was ended at exit")

    tasks = [asyncio.ensure_future(one(fn)) for fn in farewells]
    _, late = await asyncio.wait(tasks, timeout=FAREWELL)
    if late:
        _log.warning("%d of %d sessions were not ended within %g s at exit", len(late), len(tasks), FAREWELL)
    for task in late:
        task.cancel()


def _too_long(what: str, timeout: float | None) -> UTDTimeoutError:
    return UTDTimeoutError(
        f"{what} took longer than {timeout:g} s and was cancelled. The outcome is unknown: the engine may have applied "
        "it. Look at the state again, or give a longer timeout.",
        outcome_known=False,
    )


_portal = Portal()


def portal() -> Portal:
    """The portal of this process. A forked child has its own."""
    return _portal


def _at_exit() -> None:
    _portal._exit()


def _go_first_at_exit() -> None:
    """Have `_at_exit` run before every exit handler there is by now.

    The last one registered runs first, and LiveKit's native library registers the end of itself when it is first used:
    it must still be there when the sessions say farewell.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


# Once more when the main thread has ended, for what registered itself since: the hook of concurrent.futures, which
# comes before the threads are joined and the exit handlers run. Where it is gone, the calls above are all there is.
_before_exit_handlers = getattr(threading, "_register_atexit", None)
if _before_exit_handlers is not None:
    with contextlib.suppress(RuntimeError):  # imported while the interpreter exits
        _before_exit_handlers(_go_first_at_exit)


def _after_fork_in_child() -> None:
    global _portal
    _portal = Portal()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
