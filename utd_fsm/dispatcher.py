"""The one signals thread: emissions are queued on the loop thread and delivered here, in order.

Each receiver is called by itself: it may block, raise, or call back into the package; the loop never waits for it, and
what it does costs nobody else a signal. Knows signals as something with receivers, and nothing of calls or rooms.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from utd_fsm.errors import UTDTimeoutError, UTDWouldBlockError
from utd_fsm.waiting import Deadline, refuse_if_blocking_deadlocks

if TYPE_CHECKING:
    from utd_fsm.signal import UTDSignal

SIGNALS_THREAD_NAME: Final = "utd-fsm-signals"
SLOW_RECEIVER: Final = 1.0
"""Seconds after which a receiver is logged by name."""
QUEUE_LIMIT: Final = 10_000
"""Emissions that may wait; what comes on top is dropped and counted."""

_log = logging.getLogger("utd_fsm.signals")

ReceiverErrorHook = Callable[[BaseException, Callable[..., Any], "UTDSignal", object], None]
"""Called with (error, receiver, signal, sender)."""

on_receiver_error: list[ReceiverErrorHook] = []
"""Called on the signals thread with (error, receiver, signal, sender) whenever a receiver raised, after it was logged.
Append a function to be told, remove it when done: this is how `utd_fsm.testing.strict_signals` learns of them."""

# Never restarted, not even by a fork: a receiver connected before is older than every later emission.
_numbers = itertools.count(1)
_last_number = 0


def last_number() -> int:
    """The number of the newest emission of this process: a receiver connected now gets those that come after it."""
    return _last_number


@dataclass(slots=True)
class _Emission:
    number: int
    signal: UTDSignal
    sender: object
    payload: dict[str, Any]


@dataclass(slots=True)
class _Running:
    """The receiver that is being called, and whether its slowness has been logged."""

    receiver: Callable[..., Any]
    since: float
    logged: bool = False


def receiver_name(receiver: Callable[..., Any]) -> str:
    """How a receiver is named in the log: ``module.qualname``, of its class where it has none. Runs nothing of it."""
    if isinstance(receiver, functools.partial):
        return receiver_name(receiver.func)
    name = getattr(receiver, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(receiver, '__module__', '?')}.{name}"
    return f"a {type(receiver).__module__}.{type(receiver).__qualname__}"


class Dispatcher:
    """Delivers emissions on one thread, which starts with the first of them and ends with `stop`.

    Args:
        limit: how many emissions may wait, 1 or more.
    """

    def __init__(self, limit: int = QUEUE_LIMIT) -> None:
        self._limit = limit
        self._queue: queue.SimpleQueue[_Emission | threading.Event | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._newest: threading.Thread | None = None  # the same, but kept when it steps back: it has to end yet
        self._running: _Running | None = None
        # (id of signal, id of sender) -> how many, and the sender itself, so that its id stays its own
        self._dropped: dict[tuple[int, int], tuple[int, object]] = {}
        self.dropped = 0
        """How many emissions were dropped so far, of all signals."""

    @property
    def on_thread(self) -> bool:
        """Whether the caller is the signals thread."""
        return self._thread is threading.current_thread()

    def emit(self, signal: UTDSignal, sender: object, *, drop_ok: bool = True, **payload: Any) -> bool:
        """Queue ``signal`` for its receivers. Loop thread (any thread may, but order is kept per calling thread only).

        Args:
            signal: what to send.
            sender: blinker's sender.
            drop_ok: False for what must arrive even when the queue is full.
            payload: keyword arguments of the receivers. ``dropped`` is added when emissions of this signal from this
                sender were lost before: how many.

        Returns:
            False when it was dropped, because as many emissions as the limit allows were waiting.
        """
        global _last_number
        number = _last_number = next(_numbers)
        if not signal.receivers:
            return True
        running = self._running
        if running is not None:
            self._log_if_slow(running)
        key = (id(signal), id(sender))
        if drop_ok and self._queue.qsize() >= self._limit:
            if not self._dropped:
                _log.warning(
                    "%d emissions wait for the signals thread: more are dropped until its receivers keep up",
                    self._limit,
                )
            self.dropped += 1
            self._dropped[key] = self._dropped.get(key, (0, sender))[0] + 1, sender
            return False
        if self._dropped and (lost := self._dropped.pop(key, None)):
            payload["dropped"] = lost[0]
        self._queue.put(_Emission(number, signal, sender, payload))
        if self._thread is None:
            self._start()
        return True

    def drain(self, timeout: float | None = 30.0) -> None:
        """Wait until everything emitted so far was delivered.

        Args:
            timeout: seconds, or None for no limit.

        Raises:
            UTDTimeoutError: a receiver takes longer than that; nothing is lost.
            UTDWouldBlockError: called on the signals thread, by a receiver, which would wait for itself, or where no
                blocking call is possible (see `refuse_if_blocking_deadlocks`).
            UTDInputError: the timeout is not a number, NaN, or negative.
        """
        deadline = Deadline(timeout)
        refuse_if_blocking_deadlocks("signals.drain()")
        if self.on_thread:
            raise UTDWouldBlockError(
                "signals.drain() from a receiver would wait for itself: call it from the thread that needs the result"
            )
        if self._thread is None and self._queue.empty():
            return
        delivered = threading.Event()
        self._queue.put(delivered)
        if self._thread is None:
            self._start()
        if not delivered.wait(deadline.left()):
            running = self._running
            if running is not None:
                self._log_if_slow(running)
            slow = f"; {receiver_name(running.receiver)} is running" if running is not None else ""
            raise UTDTimeoutError(f"the signals were not all delivered within {deadline.timeout:g} s{slow}")

    def stop(self) -> None:
        """Let the thread end once everything queued is delivered. Does not wait; the next emission starts it again.

        Any thread, a receiver too.
        """
        if self._thread is not None:
            self._queue.put(None)

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the thread to end after `stop`; whether it did. Another thread."""
        thread = self._newest
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout)
        return not thread.is_alive()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._deliver_all, name=SIGNALS_THREAD_NAME, daemon=True)
            self._thread = thread
            try:
                thread.start()
                self._newest = thread
            except RuntimeError:
                # The interpreter is exiting and starts no thread any more: nobody is left to be told.
                self._thread = None

    def _deliver_all(self) -> None:
        me = threading.current_thread()
        ending = False
        while True:
            try:
                item = self._queue.get(block=not ending)
            except queue.Empty:
                if self._may_end(me):
                    break
                continue
            if isinstance(item, _Emission):
                self._deliver(item)
                del item
            elif item is not None:
                item.set()
            else:
                ending = True  # after the rest
        _close_django_connections(everything=True)

    def _may_end(self, me: threading.Thread) -> bool:
        # Step back first and look then: whoever queues something after that look finds no thread and starts one.
        self._thread = None
        if self._queue.empty():
            return True
        with self._lock:
            if self._thread is not None:
                return True  # somebody was faster, and delivers in our place
            self._thread = me
        return False

    def _deliver(self, emission: _Emission) -> None:
        signal, sender = emission.signal, emission.sender
        if signal.is_muted:
            return
        _close_django_connections()
        for receiver in signal.receivers_since(sender, emission.number):
            running = self._running = _Running(receiver, time.monotonic())
            try:
                answer = receiver(sender, **emission.payload)
                if inspect.iscoroutine(answer):
                    answer.close()
                    raise TypeError("a receiver returned a coroutine, which nobody awaits: receivers are functions")
            except BaseException as error:  # noqa: BLE001  # whatever a receiver raises is its own affair
                _log.exception("receiver %s of signal %s raised", receiver_name(receiver), signal.name)
                self._tell(error, receiver, signal, sender)
            finally:
                self._running = None
                self._log_if_slow(running)
        _close_django_connections()

    def _tell(self, error: BaseException, receiver: Callable[..., Any], signal: UTDSignal, sender: object) -> None:
        for hook in tuple(on_receiver_error):
            try:
                hook(error, receiver, signal, sender)
            except BaseException:  # noqa: BLE001  # nor may a hook cost anybody a signal
                _log.exception("a hook of on_receiver_error raised")

    def _log_if_slow(self, running: _Running) -> None:
        seconds = time.monotonic() - running.since
        if seconds > SLOW_RECEIVER and not running.logged:
            running.logged = True
            _log.warning(
                "receiver %s has taken %.1f s, and other signals wait for it: hand long work to a thread of yours",
                receiver_name(running.receiver),
                seconds,
            )


def _close_django_connections(*, everything: bool = False) -> None:
    """What Django does around each request, and nobody else would do for receivers on this thread.

    Without it a receiver keeps a connection that the database has long closed (docs of ``CONN_MAX_AGE``).
    """
    db = sys.modules.get("django.db")
    if db is None:
        return
    try:
        from django.conf import settings

        if settings.configured and hasattr(db, "close_old_connections"):
            if everything:
                db.connections.close_all()
            else:
                db.close_old_connections()
    except Exception:  # noqa: BLE001  # a database that is away must not end the signals thread
        _log.exception("Django's connections of the signals thread could not be looked after")


_dispatcher = Dispatcher()


def dispatcher() -> Dispatcher:
    """The dispatcher of this process. A forked child has its own, which delivers nothing of what the parent emitted."""
    return _dispatcher


def _after_fork_in_child() -> None:
    global _dispatcher
    _dispatcher = Dispatcher()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
