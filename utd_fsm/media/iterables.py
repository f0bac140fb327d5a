"""The caller's own iterables: which can be iterated again and which only once, and who has the right to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from utd_fsm.errors import UTDInputError, UTDStateError


class OneShot:
    """A caller's iterable that may be iterated once or often; tells which, and keeps a second reading off the first."""

    def __init__(self, iterable: Iterable[Any] | Callable[[], Iterable[Any]], what: str) -> None:
        if isinstance(iterable, str | bytes) or not (isinstance(iterable, Iterable) or callable(iterable)):
            raise UTDInputError(
                f"iterable: got {type(iterable).__name__}; "
                "allowed: an iterable of numpy arrays, or a function that returns one"
            )
        self.iterable = iterable
        self._what = what
        self._taken = False
        self._lock = threading.Lock()

    def claim(self) -> Claim:
        """The right to iterate.

        Raises:
            UTDStateError: it can be iterated only once, and that right is given.
        """
        once = isinstance(self.iterable, Iterator)
        with self._lock:
            if once and self._taken:
                raise UTDStateError(
                    f"{self._what} was made from a {type(self.iterable).__name__}, which can be read only once, and it "
                    "is already sent elsewhere or used up; make it from a list, or from a function that returns a new "
                    "iterable each time"
                )
            self._taken = True
        return Claim(self)

    def give_back(self) -> None:
        """It was claimed and never begun: another may have it."""
        with self._lock:
            self._taken = False

    def __repr__(self) -> str:
        return f"<{type(self.iterable).__name__}>"


class Claim:
    """One reading of a `OneShot`."""

    def __init__(self, once: OneShot) -> None:
        self._once = once
        self._iterator: Iterator[Any] | None = None
        self._released = False

    def items(self) -> Iterator[Any]:
        """The iterator, made at the first use; nothing more after `release`. The reading thread."""
        if self._released:
            return iter(())
        if self._iterator is None:
            iterable = self._once.iterable
            self._iterator = iter(iterable if isinstance(iterable, Iterable) else iterable())
        return self._iterator

    def release(self) -> None:
        """Done with it. Idempotent; any thread."""
        if not self._released:
            self._released = True
            if self._iterator is None:
                self._once.give_back()
