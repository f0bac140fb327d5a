"""Every error this package raises, in one tree.

::

    UTDStreamException(message, status_code=None, code=None)
    ├─ UTDInputError        (ValueError)       an argument is wrong; nothing was sent
    ├─ UTDStateError                           not possible in this state; .state .event .allowed
    ├─ UTDPermissionError   (PermissionError)  the engine has not granted it
    ├─ UTDTimeoutError      (TimeoutError)     .outcome_known tells whether the engine may have applied it
    ├─ UTDConnectionError   (ConnectionError)  engine or media not reachable, or lost
    ├─ UTDEngineError                          the engine refused: status_code, code, retry_after, details
    │  ├─ UTDConflictError  (UTDStateError)       409: somebody was faster, or the state does not allow it
    │  └─ UTDForbiddenError (UTDPermissionError)  403: banned, forbidden, or the feature is off
    ├─ UTDProtocolError                        the engine's answer is malformed: .route .field
    ├─ UTDWouldBlockError   (RuntimeError)     a blocking call where it would deadlock; the message has the mend
    └─ UTDClosedError                          the client or session is closed

A lost race is caught the same way whichever side noticed it: locally as a ``UTDStateError``, at the engine
as a ``UTDConflictError``, which is one too. All of them pickle with their fields, so that they survive
Celery and ``multiprocessing``. No message ever holds a token or a key.

This module imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any


def _rebuild(cls: type[UTDStreamException], fields: dict[str, Any]) -> UTDStreamException:
    error = cls.__new__(cls)
    Exception.__init__(error, fields["message"])
    error.__dict__.update(fields)
    return error


class UTDStreamException(Exception):
    """The root of the tree.

    Args:
        message: what was wrong, what is allowed, what to do.
        status_code: the HTTP status, where the engine refused.
        code: the engine's own error code, where it gave one.
    """

    message: str
    """The text, as ``str(error)`` shows it."""
    status_code: int | None
    """HTTP status of the engine's refusal; None where no answer was involved."""
    code: str | None
    """The engine's own code (for instance ``superseded``), where it sent one."""
    call_id: str | None
    """The call a failed ``start`` or ``accept`` was about, where it is known."""

    def __init__(self, message: str, status_code: int | None = None, code: str | None = None) -> None:
        # Exception, not super(): OSError (a base of some) would read two arguments as errno and text.
        Exception.__init__(self, message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.call_id = None

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {**self.__dict__, "message": self.message})

    @property
    def is_banned(self) -> bool:
        """A 403 that says that whoever asked is banned. A 403 is a ban only when it says so (wire contract,
        conventions); where it carries another code, such as ``target_banned``, in the contract's own words only."""
        if self.status_code != 403:
            return False
        said = self.message.lower()
        return self.code == "banned" or "user is banned" in said or (self.code is None and "banned" in said)

    @property
    def is_forbidden(self) -> bool:
        """Any 403."""
        return self.status_code == 403

    @property
    def is_rate_limited(self) -> bool:
        """A 429: too many requests; see ``retry_after`` of `UTDEngineError`."""
        return self.status_code == 429

    @property
    def is_feature_disabled(self) -> bool:
        """A 403 whose text says that the feature is not enabled, not available or disabled."""
        text = self.message.lower()
        return self.status_code == 403 and any(words in text for words in ("not enabled", "not available", "disabled"))


class UTDInputError(UTDStreamException, ValueError):
    """An argument is wrong. Nothing was sent and no state changed."""


class UTDStateError(UTDStreamException):
    """Not possible in this state. The state is as it was."""

    state: str | None
    """The state it was refused in: the machine's, or the engine's where the engine refused."""
    event: str | None
    """The event that was refused."""
    allowed: tuple[str, ...]
    """The events this state declares."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        code: str | None = None,
        *,
        state: str | None = None,
        event: str | None = None,
        allowed: Iterable[str] = (),
    ) -> None:
        super().__init__(message, status_code, code)
        self.state = state
        self.event = event
        self.allowed = tuple(allowed)


class UTDPermissionError(UTDStreamException, PermissionError):
    """The engine has not granted it."""


class UTDTimeoutError(UTDStreamException, TimeoutError):
    """A wait or a verb took longer than its timeout."""

    outcome_known: bool
    """False when the engine may have applied what was asked; the session then looks at the engine again."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        code: str | None = None,
        *,
        outcome_known: bool = True,
    ) -> None:
        super().__init__(message, status_code, code)
        self.outcome_known = outcome_known


class UTDConnectionError(UTDStreamException, ConnectionError):
    """Engine or media not reachable, or lost."""

    outcome_known: bool
    """False when a request was sent and its answer never came: the engine may have applied it."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        code: str | None = None,
        *,
        outcome_known: bool = True,
    ) -> None:
        super().__init__(message, status_code, code)
        self.outcome_known = outcome_known


class UTDEngineError(UTDStreamException):
    """The engine refused. ``status_code`` is the HTTP status."""

    retry_after: float | None
    """Seconds the engine asked to wait (``Retry-After``); None where it did not say."""
    _details: dict[str, Any]

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        code: str | None = None,
        *,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, status_code, code)
        self.retry_after = retry_after
        self._details = dict(details or ())

    @property
    def details(self) -> Mapping[str, Any]:
        """What else the refusal said, beside its message and code: of a ban ``reason``, ``expires_at``, ``room_name``.

        Read-only and small: texts, numbers, booleans and None, none of them a secret. Empty where it said nothing more.
        """
        # Kept as a dict, because a proxy does not pickle.
        return MappingProxyType(self._details)


class UTDConflictError(UTDEngineError, UTDStateError):
    """409: somebody was faster, or the engine's state does not allow it."""

    def __init__(
        self,
        message: str,
        status_code: int | None = 409,
        code: str | None = None,
        *,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
        state: str | None = None,
        event: str | None = None,
        allowed: Iterable[str] = (),
    ) -> None:
        UTDStateError.__init__(self, message, status_code, code, state=state, event=event, allowed=allowed)
        self.retry_after = retry_after
        self._details = dict(details or ())


class UTDForbiddenError(UTDEngineError, UTDPermissionError):
    """403: banned, forbidden, or the feature is off; the ``is_…`` properties tell which."""


class UTDProtocolError(UTDStreamException):
    """The engine's answer is malformed. No machine moved; the session looks again."""

    route: str | None
    """The route or frame whose content was malformed, for instance ``POST /calls``."""
    field: str | None
    """The field at fault."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        code: str | None = None,
        *,
        route: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, status_code, code)
        self.route = route
        self.field = field


class UTDWouldBlockError(UTDStreamException, RuntimeError):
    """A blocking call where it would deadlock. The message names the mend."""


class UTDClosedError(UTDStreamException):
    """The client or session is closed, or belongs to the process this one was forked from."""
