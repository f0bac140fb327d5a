"""The package's kind of blinker signal: it refuses what could never be called, and counts from when a receiver counts.

Knows nothing of what is sent, nor of the thread it is sent on.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import blinker
from blinker._utilities import make_id  # the key under which blinker itself files a receiver
from blinker.base import ANY_ID

from utd_fsm.dispatcher import last_number
from utd_fsm.errors import UTDInputError

F = TypeVar("F", bound=Callable[..., Any])

# blinker walks its books without a lock, and a receiver may be collected in any thread. One lock for all signals:
# what it guards is short, and a forked child has one lock to make anew.
_books = threading.RLock()


def _after_fork_in_child() -> None:
    global _books
    _books = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class UTDWeakReceiverWarning(UserWarning):
    """A lambda, a local function or a partial was connected weakly: nothing holds it, so it may never be called."""


class UTDSignal(blinker.NamedSignal):
    """A blinker signal that refuses what could never be called, and is safe to connect from any thread.

    Args:
        name: how it is called in the log.
        doc: payload, sender and thread.
        weak: what `connect` does when it is not told.
    """

    def __init__(self, name: str, doc: str | None = None, *, weak: bool = True) -> None:
        super().__init__(name, doc)
        self._weak = weak
        self._since: dict[Hashable, int] = {}

    def connect(self, receiver: F, sender: Any = blinker.ANY, weak: bool | None = None) -> F:
        """Call ``receiver(sender, **payload)`` for everything emitted from now on. Any thread; also a decorator.

        Args:
            receiver: a function, a bound method or another callable; not a coroutine function.
            sender: only emissions of this sender; all senders when left out.
            weak: whether the signal holds the receiver weakly; when left out, True for the module-level signals
                and False for ``Observable.changed``.

        Raises:
            UTDInputError: not callable, or a coroutine function.

        Warns:
            UTDWeakReceiverWarning: a lambda, a local function or a partial held weakly.
        """
        weak = self._weak if weak is None else weak
        self._check(receiver, weak)
        with _books:
            self._since.setdefault(make_id(receiver), last_number())
            return super().connect(receiver, sender, weak)

    def disconnect(self, receiver: Callable[..., Any], sender: Any = blinker.ANY) -> None:
        """Call ``receiver`` no more, not even for what is already queued. Any thread; it may just be running."""
        with _books:
            super().disconnect(receiver, sender)

    def _disconnect(self, receiver_id: Hashable, sender_id: Hashable) -> None:
        with _books:
            if sender_id == ANY_ID:
                # As blinker does it, but over a copy: a sender that is collected meanwhile takes its bucket out.
                if self._by_receiver.pop(receiver_id, None) is not None:
                    for bucket in tuple(self._by_sender.values()):
                        bucket.discard(receiver_id)
                self.receivers.pop(receiver_id, None)
            else:
                super()._disconnect(receiver_id, sender_id)
            if receiver_id not in self.receivers or not self._by_receiver.get(receiver_id):
                self._since.pop(receiver_id, None)

    def _make_cleanup_sender(self, sender_id: Hashable) -> Callable[[weakref.ref[Any]], None]:
        clean_up = super()._make_cleanup_sender(sender_id)

        def locked(ref: weakref.ref[Any]) -> None:
            with _books:
                clean_up(ref)

        return locked

    def receivers_since(self, sender: object, number: int) -> list[Callable[..., Any]]:
        """The receivers for ``sender`` that were connected before emission ``number``."""
        with _books:
            since = self._since
            return [receiver for receiver in self.receivers_for(sender) if since.get(make_id(receiver), 0) < number]

    def _check(self, receiver: Callable[..., Any], weak: bool) -> None:
        if not callable(receiver):
            raise UTDInputError(f"{self.name}.connect: {receiver!r} is not callable; give a function")
        function: Any = receiver
        while isinstance(function, functools.partial):
            function = function.func
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            raise UTDInputError(
                f"{self.name}.connect: {receiver!r} is a coroutine function, and nobody would await it. Connect an "
                "ordinary function; from there, asyncio.run_coroutine_threadsafe(…) reaches your loop."
            )
        if not weak or inspect.ismethod(receiver):
            return
        name = getattr(receiver, "__qualname__", "")
        if isinstance(receiver, functools.partial) or "<lambda>" in name or "<locals>" in name:
            warnings.warn(
                f"{self.name}.connect: {name or receiver!r} is held weakly and is gone as soon as nothing else holds "
                f"it. Write {self.name}.connect(receiver, weak=False), or connect a function of a module.",
                UTDWeakReceiverWarning,
                stacklevel=3,
            )
