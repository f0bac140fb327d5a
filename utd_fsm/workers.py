"""A small bounded pool of daemon threads for blocking work: the REST executor.

Not ``concurrent.futures``: its threads are joined when the interpreter exits, and one request that hangs would
then hold the exit for as long as it hangs. Knows nothing of what it runs.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("utd_fsm.portal")


class Workers:
    """Runs jobs in at most ``limit`` daemon threads, which start when there is something to do.

    Args:
        name: threads are called ``<name>-1``, ``<name>-2`` and so on.
        limit: how many threads at most, 1 or more.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pending = 0  # queued and running jobs
        self._stopped = False

    def submit(self, job: Callable[[], None]) -> bool:
        """Queue a job; it must not raise. False when the pool is stopped, or no thread can be had any more.

        Any thread may call it.
        """
        with self._lock:
            if self._stopped:
                return False
            if self._pending >= len(self._threads) and len(self._threads) < self._limit:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{next(self._numbers)}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # Python 3.12 starts no thread once the interpreter is exiting; those there are go on.
                    if not self._threads:
                        return False
                else:
                    self._threads.append(thread)
            self._pending += 1
            self._jobs.put(job)
            return True

    def stop(self) -> None:
        """Take no more jobs, and let each thread end after what it is doing. Does not wait. Any thread."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            for _ in self._threads:
                self._jobs.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the threads to end, ``timeout`` seconds for each at most; whether they all did."""
        for thread in self._threads:
            thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001  # a thread of the pool survives whatever a job does
                _log.error("a job of %s raised %s", self._name, type(error).__name__)
            finally:
                del job
            with self._lock:
                self._pending -= 1
