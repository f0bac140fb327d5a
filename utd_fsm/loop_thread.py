"""One run of the loop thread: from its first use until nobody holds it any more.

`Portal` starts a run when one is needed and forgets it when it ends; the next use starts another. A run decides by
itself, on its own thread, when to end. Knows work to do and who holds it, and nothing of calls or rooms.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextvars
import functools
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple, Unpack

from utd_fsm.errors import UTDClosedError
from utd_fsm.waiting import LOOP_THREAD_NAME
from utd_fsm.workers import Workers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LINGER: Final = 1.0
"""Seconds the loop stays when it is used without a lease, so that the next such use finds it warm."""
GRACE: Final = 0.5
"""Seconds that work under way has for finishing by itself once the last lease is released."""
CLEANUP: Final = 2.0
"""Seconds that cancelled tasks have for their ``finally`` blocks before they are abandoned."""
REST_THREADS: Final = 8
"""How many blocking REST requests run at once; more wait for their turn."""

log = logging.getLogger("utd_fsm.portal")


class OwnLoop(asyncio.SelectorEventLoop):
    """The loop of the loop thread: its blocking work runs in our daemon threads, and only its own process closes it."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self._pid = os.getpid()

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As the base class, but None means our workers: the exit must not wait for a name lookup that hangs."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        return self.in_thread(func, *args)

    def in_thread(self, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run ``func(*args)`` in a worker thread. If the future is cancelled, a thread that runs it is left alone."""
        future: asyncio.Future[T] = self.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def job() -> None:
            if future.cancelled():
                return
            result: Any = None
            error: BaseException | None = None
            try:
                result = func(*args)
            except StopIteration as stop:  # a future cannot carry it
                error = RuntimeError(f"work in a thread raised StopIteration({stop.value!r})")
            except BaseException as raised:  # noqa: BLE001  # it belongs to whoever awaits
                error = raised
            try:
                self.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                pass  # the loop has ended meanwhile, and whoever awaited this with it
            finally:
                del result, error

        if not self.run.workers.submit(job):
            future.set_exception(UTDClosedError("utd_fsm has stopped its threads: the client is closed"))
        return future

    def __del__(self, **kwargs: Any) -> None:
        # A forked child shares the parent's epoll object: closing this loop there would make the parent's deaf.
        if self._pid == os.getpid():
            super().__del__(**kwargs)


class Work:
    """Something to run on the loop thread, and the place where its outcome goes, exactly once."""

    __slots__ = ("begun", "cancelled", "fn", "lost", "settled", "task", "undo", "what")

    def __init__(self, fn: Callable[[], Awaitable[Any]], what: str, lost: Callable[[Any], None] | None = None) -> None:
        self.fn = fn
        self.what = what
        self.lost = lost
        self.undo: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self.cancelled = False
        self.settled = False

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Take the outcome. Loop thread, or the thread that gave the work up; what comes second is ignored."""
        raise NotImplementedError


class ReentrantLock(Protocol):
    """`threading.RLock`, which is a function and no type."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
    def release(self) -> None: ...


class Owner(Protocol):
    """What a run needs of whoever started it."""

    @property
    def lock(self) -> ReentrantLock:
        """Held while a run is started or leased. The loop thread takes it to decide its end, and never waits for it."""
        ...

    def run_ends(self, run: Run) -> None:
        """The run has decided to end: the next use starts another. Loop thread, under the lock."""

    def run_has_ended(self, run: Run) -> None:
        """Its tasks are gone and its loop is closed. The last thing it does."""


class Run:
    """The loop thread, from start to end.

    Args:
        owner: what started it.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.workers = Workers("utd-fsm-rest", REST_THREADS)
        self.loop = OwnLoop(self)
        self.leases: set[object] = set()
        self.closed = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self._inbox: collections.deque[Work] = collections.deque()
        self._woken = False
        self._works: set[Work] = set()
        self._released = False
        self._aborting = False
        self._served = 0
        self._linger: asyncio.TimerHandle | None = None
        # Work runs in the loop's own context, not in that of whoever asked: tasks outlive a web request.
        self._context = contextvars.Context()
        self.thread = threading.Thread(target=self._main, name=LOOP_THREAD_NAME, daemon=True)

    # From any thread, and without a lock: a signal handler may interrupt any of this and do it itself.

    def submit(self, work: Work) -> bool:
        """Hand work over. False when this run has ended: the work is the caller's again."""
        self._inbox.append(work)
        self._wake()
        if not self.closed:
            return True
        try:
            self._inbox.remove(work)
        except ValueError:
            return True  # the end took it along, and settles it
        return False

    def cancel(self, work: Work) -> None:
        """Cancel work that was handed over; nothing if it is done."""
        work.cancelled = True
        self._post(self._cancel, work)

    def release(self, lease: object) -> None:
        """Take a lease away; when it was the last, the loop ends."""
        self.leases.discard(lease)
        if not self.leases:
            self._post(self._last_lease_is_gone)

    def abort(self) -> None:
        """End now, whoever holds it: work under way gets `UTDClosedError`."""
        self._post(self._abort)

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._post(self._take_in)

    def _post(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(callback, *args, context=self._context)
        except RuntimeError:
            pass  # the loop has ended: so has all its work

    # On the loop thread.

    def _take_in(self) -> None:
        self._woken = False  # first this, then look: who comes later wakes the loop again
        inbox = self._inbox
        for _ in range(len(inbox)):
            work = inbox.popleft()
            self._works.add(work)
            work.task = self.loop.create_task(self._do(work))
        if inbox:
            self._wake()

    async def _do(self, work: Work) -> None:
        work.begun = True
        result: Any = None
        error: BaseException | None = None
        try:
            if work.cancelled:
                raise asyncio.CancelledError
            result = await work.fn()
        except asyncio.CancelledError:
            error = self._cancelled(work)
        except BaseException as raised:  # noqa: BLE001  # SystemExit too is the caller's, and must not end the loop
            error = raised
        self._done(work, result, error)
        del result, error

    def _done(self, work: Work, result: Any, error: BaseException | None) -> None:
        self._works.discard(work)
        self._served += 1
        if work.lost is not None and error is None:
            work.undo = functools.partial(work.lost, result)
        work.settle(result, error)
        if not (self.leases or self._works or self._inbox or self.closed):
            self._idle()

    def _cancelled(self, work: Work) -> UTDClosedError:
        if self._aborting:
            return UTDClosedError(f"{work.what}: utd_fsm was closed before it finished")
        return UTDClosedError(f"{work.what} was cancelled before it finished")

    def _cancel(self, work: Work) -> None:
        # Before its first step a task is left to look at the flag: cancelled there, it would never run nor settle.
        if work.task is not None and work.begun and not work.settled:
            work.task.cancel()
        elif work.undo is not None:
            # It succeeded while the word that nobody waits any more was on its way here.
            undo, work.undo = work.undo, None
            undo()

    def _idle(self) -> None:
        """Nobody holds the loop and nothing runs: end now, or after a while if there never was a lease to release."""
        if self._released:
            self._end()
        elif self._linger is None:
            self._linger = self.loop.call_later(LINGER, self._lingered, self._served)

    def _lingered(self, served: int) -> None:
        self._linger = None
        if self.leases or self._works:
            return
        if served != self._served:
            self._idle()
        else:
            self._end()

    def _last_lease_is_gone(self) -> None:
        if self.leases or self.closed:
            return
        self._released = True
        if self._works or self._inbox:
            self.loop.call_later(GRACE, self._grace_is_over)
        else:
            self._end()

    def _grace_is_over(self) -> None:
        if not (self.leases or self.closed):
            self._end(even_if_busy=True)

    def _abort(self) -> None:
        self.leases.clear()
        self._end(even_if_busy=True)

    def _end(self, *, even_if_busy: bool = False) -> None:
        # Never wait here: the holder of the lock may be a thread that, in a signal handler, waits for this loop.
        if self.closed:
            return
        if not self.owner.lock.acquire(blocking=False):
            self.loop.call_later(0.01, lambda: self._end(even_if_busy=even_if_busy))
            return
        try:
            if self.leases or (self._works and not even_if_busy):
                return
            self.closed = True  # first this, then look: who comes later takes its work elsewhere
            if self._inbox and not even_if_busy:
                self.closed = False
                return
            self.owner.run_ends(self)
        finally:
            self.owner.lock.release()
        self.loop.stop()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._run_until(lambda: self.closed)
        self._aborting = True
        try:
            self._clean_up()
        finally:
            self.workers.stop()
            asyncio.set_event_loop(None)
            self.loop.close()
            self.owner.run_has_ended(self)

    def _run_until(self, over: Callable[[], bool]) -> None:
        while not over():
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as error:
                # asyncio lets these two out of run_forever, whoever's task raised them: the others go on.
                log.error("a task raised %s: the loop thread goes on", type(error).__name__)  # noqa: TRY400

    def _clean_up(self) -> None:
        while self._inbox:
            work = self._inbox.popleft()
            work.settle(None, self._cancelled(work))
        tasks = self._cancel_all()
        if tasks:
            self._run_for(CLEANUP, asyncio.wait(tasks))
        for task in asyncio.all_tasks(self.loop):
            log.warning("task %s did not end when it was cancelled: it is abandoned", task.get_name())
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # said above, in better words
        for work in tuple(self._works):
            work.settle(None, self._cancelled(work))
        self._works.clear()
        self._run_for(CLEANUP, self.loop.shutdown_asyncgens())

    def _cancel_all(self) -> Iterable[asyncio.Task[Any]]:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        return tasks

    def _run_for(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run the loop until the coroutine is done, ``seconds`` at most."""
        task = self.loop.create_task(coroutine)
        over = False

        def stop(*_: object) -> None:
            nonlocal over
            over = True
            self.loop.stop()

        task.add_done_callback(stop)
        timer = self.loop.call_later(seconds, stop)
        self._run_until(lambda: over)
        timer.cancel()
        task.cancel()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # what it waited for is logged

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """See `Portal.spawn`."""
        task = self.loop.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._spawned_is_done)
        return task

    def _spawned_is_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
