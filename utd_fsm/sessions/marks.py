"""Marks on the methods of core sessions, for the script that generates the two facades. Metadata, no behaviour.

A facade method is made from each marked one: `verb` and `wait` are posted to the loop thread and waited for, `stream`
is posted and its `Feed` handed out as a stream, `plain` is called where the caller is. Properties are passed through.

Imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE = "__utd__"
"""The attribute that holds a method's `Mark`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the facades need to know of one method."""

    kind: Literal["verb", "wait", "stream", "plain"]
    timeout: float | None = None
    """Default of the facade's ``timeout``, in seconds; None is no limit. Streams take their own, as an argument."""
    lane: str | None = None
    """The queue its calls stand in, one at a time and in their order; None: in none."""
    overtakes: bool = False
    """Whether it goes before whatever stands in the queues and cancels it."""


def verb(*, timeout: float | None = 30.0, lane: str | None = "session", overtakes: bool = False) -> Callable[[F], F]:
    """Mark a coroutine method that does something. The core's method takes no ``timeout``; the facade's does.

    Args:
        timeout: seconds after which the facade cancels it, unless its caller says otherwise.
        lane: which of the session's queues its calls stand in. "Verbs of one session run one at a time" is one lane;
            sending data has its own, so that it does not wait for a grant. None for what may run beside everything.
        overtakes: for end, leave and dispose.
    """
    return _marked(Mark("verb", timeout, None if overtakes else lane, overtakes))


def wait(*, timeout: float | None = 30.0) -> Callable[[F], F]:
    """Mark a coroutine method that only waits: it takes ``timeout`` itself, and timing out changes nothing."""
    return _marked(Mark("wait", timeout))


def stream() -> Callable[[F], F]:
    """Mark a plain method that returns a `Feed`, or a handle with coroutine methods; it takes its own ``timeout``."""
    return _marked(Mark("stream"))


def plain() -> Callable[[F], F]:
    """Mark a plain method that neither waits nor touches the loop thread: the facade calls it where its caller is."""
    return _marked(Mark("plain"))


def mark_of(method: object) -> Mark | None:
    """The mark of a method; None where it has none."""
    mark = getattr(method, ATTRIBUTE, None)
    return mark if isinstance(mark, Mark) else None


def _marked(mark: Mark) -> Callable[[F], F]:
    def decorate(method: F) -> F:
        setattr(method, ATTRIBUTE, mark)
        return method

    return decorate
