"""Signals in tests: what receivers raise becomes a failure, and an emission can be waited for."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from utd_fsm import signals
from utd_fsm.dispatcher import on_receiver_error
from utd_fsm.errors import UTDTimeoutError
from utd_fsm.signal import UTDSignal


@contextmanager
def strict_signals(*, drain: float = 10.0) -> Iterator[None]:
    """Re-raise at exit what receivers raised on the signals thread inside the ``with``.

    In production such an exception is logged and hurts nobody else; in a test it should fail the test.

    Args:
        drain: seconds that exit waits for emissions still on their way.

    Raises:
        ExceptionGroup: what the receivers raised, in order; not if the body raises itself.
        UTDTimeoutError: the emissions were not delivered in time.
    """
    caught: list[Exception] = []

    def note(error: BaseException, receiver: Callable[..., Any], signal: UTDSignal, sender: object) -> None:
        wrapped = error if isinstance(error, Exception) else RuntimeError(f"a receiver raised {error!r}")
        wrapped.add_note(f"raised by receiver {receiver!r} of {signal!r}")
        caught.append(wrapped)

    on_receiver_error.append(note)
    try:
        yield
        signals.drain(drain)
    finally:
        on_receiver_error.remove(note)
    if caught:
        raise ExceptionGroup("receivers raised", caught)


@contextmanager
def wait_for_signal(
    signal: UTDSignal, sender: object = None, timeout: float | None = 5.0
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Wait, at the end of the ``with``, for an emission that came after its beginning.

    Args:
        signal: a signal of `utd_fsm.signals`, or an Observable's ``changed``.
        sender: only emissions of this sender; None for any.
        timeout: seconds that exit waits, or None for no limit.

    Yields:
        A function that gives the emission's payload, with ``sender``, once the ``with`` is left.

    Raises:
        UTDTimeoutError: nothing was emitted in time; not if the body raises itself.
    """
    heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    found: dict[str, Any] = {}

    def receive(who: object, **payload: Any) -> None:
        if sender is None or who is sender:
            heard.put({**payload, "sender": who})

    signal.connect(receive, weak=False)
    try:
        yield lambda: found
        try:
            found.update(heard.get(timeout=timeout))
        except queue.Empty:
            raise UTDTimeoutError(f"{signal!r} was not emitted within {timeout} s") from None
    finally:
        signal.disconnect(receive)
