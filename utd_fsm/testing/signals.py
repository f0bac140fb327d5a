"""Signals in tests: what receivers raise becomes a failure, and an emission can be waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import EllipsisType, TracebackType
from typing import Any, Self

from utd_fsm import signals
from utd_fsm.dispatcher import on_receiver_error
from utd_fsm.errors import UTDTimeoutError
from utd_fsm.signal import UTDSignal
from utd_fsm.waiting import Deadline, refuse_if_blocking_deadlocks


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


class AwaitedSignal(Mapping[str, Any]):
    """The first emission of a signal after this was made: what `wait_for_signal` returns. Any thread.

    It is the emission's payload, with ``sender``: reading it (``emission["value"]``), calling it and `wait` block until
    the emission is there. As a context manager it waits at the end of the ``with``.
    """

    def __init__(self, signal: UTDSignal, sender: object, timeout: float | None) -> None:
        Deadline(timeout)  # a bad one is refused here
        self._signal = signal
        self._sender = sender
        self._timeout = timeout
        self._payload: dict[str, Any] = {}
        self._arrived = threading.Event()
        signal.connect(self._receive, weak=True)  # dropping this object disconnects

    def _receive(self, who: object, **payload: Any) -> None:
        if self._arrived.is_set() or (self._sender is not None and who is not self._sender):
            return
        self._payload = {**payload, "sender": who}
        self._arrived.set()

    def wait(self, timeout: float | EllipsisType | None = ...) -> dict[str, Any]:
        """Block until it was emitted.

        Args:
            timeout: seconds, or None for no limit; left out, what `wait_for_signal` was given.

        Returns:
            The payload, with ``sender``.

        Raises:
            UTDTimeoutError: nothing was emitted in time; it may be waited for again.
            UTDWouldBlockError: on the loop thread, or where an event loop runs.
        """
        limit = self._timeout if isinstance(timeout, EllipsisType) else timeout
        deadline = Deadline(limit)
        if not self._arrived.is_set():
            refuse_if_blocking_deadlocks(f"waiting for {self._signal.name}")
        if not self._arrived.wait(deadline.left()):
            raise UTDTimeoutError(f"{self._signal.name} was not emitted within {limit:g} s")
        self.close()
        return self._payload

    __call__ = wait

    @property
    def arrived(self) -> bool:
        """Whether it was emitted. Never blocks."""
        return self._arrived.is_set()

    def close(self) -> None:
        """Wait for nothing any more. Idempotent."""
        self._signal.disconnect(self._receive)

    def __getitem__(self, name: str) -> Any:
        return self.wait()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.wait())

    def __len__(self) -> int:
        return len(self.wait())

    def __bool__(self) -> bool:
        return True  # not its length, which would block

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._signal.name}: {'arrived' if self.arrived else 'awaited'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self.close()


def wait_for_signal(signal: UTDSignal, sender: object = None, timeout: float | None = 5.0) -> AwaitedSignal:
    """Wait for an emission that comes after this call, in a ``with`` or by hand::

        with wait_for_signal(signals.call_status_changed, sender=call) as emission:
            call.start("bob")                      # the end of the with waits
        assert emission["value"] == "initiating"

        emission = wait_for_signal(signals.incoming_call)
        call.start("bob")
        assert emission.wait()["call"].caller_identity == "alice"

    Args:
        signal: a signal of `utd_fsm.signals`, or an Observable's ``changed``.
        sender: only emissions of this sender; None for any.
        timeout: seconds that a wait takes at most, or None for no limit.

    Returns:
        The emission: its payload, with ``sender``; reading it, calling it and ``wait()`` block until it is there.

    Raises:
        UTDTimeoutError: (at the end of the ``with``, or where it is read) nothing was emitted in time; not if the body
            of the ``with`` raises itself.
        UTDInputError: the timeout is not a number, NaN, or negative.
    """
    return AwaitedSignal(signal, sender, timeout)
