"""The engine's one way of saying no: a status, a sentence, a code and, for a call, the state it was refused in.

Imports nothing but the wire. Rules raise it; one handler in `app` turns it into the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utd_fsm import wire


class Refused(Exception):
    """A request that is refused; nothing has changed.

    Args:
        status: HTTP status.
        message: what was wrong and what is allowed. No token, no key.
        code: for programs.
        state: the call's state, where a call refused.
        retry_after: whole seconds, with a 429.
        details: further fields of the answer, for programs.
    """

    def __init__(
        self, status: int, message: str, code: str, *, state: str | None = None, retry_after: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.state = state
        self.retry_after = retry_after
        self.details = dict(details or {})

    def body(self) -> dict[str, Any]:
        """The answer's content."""
        return {**self.details, **wire.refusal_json(self.message, code=self.code, status=self.state)}
