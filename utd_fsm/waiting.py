"""What every blocking wait has in common: its timeout is checked, counted down, and refused where it would deadlock.

Knows nothing of the loop thread, of calls or of rooms; starts no thread and creates nothing at import.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Final

from utd_fsm import validation
from utd_fsm.errors import UTDTimeoutError, UTDWouldBlockError

LOOP_THREAD_NAME: Final = "utd-fsm-loop"
"""Name of the one thread that owns every machine, room and timer."""

_GREEN_MODULES: Final = ("thread", "threading", "_thread", "select", "selectors", "socket")


def check_timeout(timeout: float | None, name: str = "timeout") -> float | None:
    """The timeout as a number of seconds, or None where there is no limit.

    Args:
        timeout: seconds, 0 or more; None and infinity mean no limit.
        name: what the caller's argument is called, for the message.

    Raises:
        UTDInputError: not a number, NaN, or negative.
    """
    return None if timeout is None else validation.timeout(timeout, name)


class Deadline:
    """A timeout shared by several steps, on the monotonic clock.

    Args:
        timeout: seconds from now, 0 or more; None is never over.
        name: what the caller's argument is called, for the message.

    Raises:
        UTDInputError: the timeout is not a number, NaN, or negative.
    """

    __slots__ = ("_at", "timeout")

    timeout: float | None
    """What it was made with, for messages; None where there is no limit."""

    def __init__(self, timeout: float | None, name: str = "timeout") -> None:
        self.timeout = check_timeout(timeout, name)
        self._at = None if self.timeout is None else time.monotonic() + self.timeout

    def left(self) -> float | None:
        """Seconds left, never below 0; None where there is no limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._at is not None and time.monotonic() >= self._at

    def check(self, what: str, *, outcome_known: bool = True) -> None:
        """Raise `UTDTimeoutError` if the time is up; ``what`` begins the message."""
        if self.over:
            raise UTDTimeoutError(f"{what} took longer than {self.timeout:g} s", outcome_known=outcome_known)


def refuse_if_blocking_deadlocks(what: str) -> None:
    """Refuse, with the mend in the message, a blocking call from where it could never return.

    Args:
        what: the call, as the message shall name it.

    Raises:
        UTDWouldBlockError: called on the loop thread, in a thread that has a running event loop, or in an
            interpreter that gevent or eventlet has patched.
    """
    # First: under gevent, asking for the running loop succeeds in the main greenlet although none runs there.
    if "gevent.monkey" in sys.modules or "eventlet.patcher" in sys.modules:
        refuse_if_patched(what)
    if asyncio._get_running_loop() is None:
        return
    if threading.current_thread().name == LOOP_THREAD_NAME:
        raise UTDWouldBlockError(
            f"{what}: a blocking call on utd_fsm's own loop thread would wait for itself. "
            "Await the same member of utd_fsm.aio there, or make the call from another thread."
        )
    raise UTDWouldBlockError(
        f"{what}: a blocking call in a thread whose event loop is running would stop that loop. "
        "In async code (an async view, a coroutine) await the same member of utd_fsm.aio, "
        "or run the blocking one in a thread: asyncio.to_thread(…), or asgiref's sync_to_async(…)."
    )


def refuse_if_patched(what: str) -> None:
    """Refuse in an interpreter patched by gevent or eventlet, where a second thread with a loop cannot be had.

    Raises:
        UTDWouldBlockError: threads, sockets or select are patched.
    """
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    by = None
    if gevent is not None and any(gevent.is_module_patched(module) for module in _GREEN_MODULES):
        by = "gevent"
    elif eventlet is not None and any(eventlet.is_monkey_patched(module) for module in _GREEN_MODULES):
        by = "eventlet"
    if by is not None:
        raise UTDWouldBlockError(
            f"{what}: this interpreter is patched by {by}, so that waiting for utd_fsm's loop thread would stop it. "
            "Run without the patch: for instance gunicorn with sync or gthread workers, Celery with prefork or threads."
        )
