"""One request to the engine until it is decided: tried again where that is safe, as somebody whose bearer may be old.

What is decided here: how often and how long, what a 401 means, and whether the engine may have applied what was asked.
Which routes there are, and what stands in their bodies, is `engine_api`'s.

- Tried again: what never left this machine; 429, 502, 503 and 504; and, where repeating is safe, what was lost on the
  way. Safe is a GET, a request with an idempotency key, and what the contract makes idempotent (minting, ringing).
- A 401 mints the bearer again, once, and asks once more.
- ``Retry-After`` is a lower bound. Where it does not fit into the budget, or a 429 asks for more than `LONGEST_PAUSE`,
  the refusal is raised at once, and carries it: whoever sends too much shall hear of it.
- Once a try was lost, the outcome stays unknown until an answer comes, however the later tries fail.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode
from uuid import UUID, uuid5

from . import validation, wire
from .errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDInputError,
    UTDProtocolError,
    UTDStreamException,
    UTDTimeoutError,
)
from .http_pool import Answer, Failure, HttpPool
from .refusals import refusal, retry_after
from .scrub import foreign

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .credentials import Credentials
    from .models import UTDSessionInfo

log = logging.getLogger("utd_fsm.engine")

DEFAULT_BUDGET: Final = 30.0
"""Seconds for one request with all its tries, where the caller sets no other."""
MAX_TRIES: Final = 5
LONGEST_PAUSE: Final = 5.0
"""Seconds of a 429's ``Retry-After`` that are waited out unseen."""
_BACKOFF_FIRST: Final = 0.2
_BACKOFF_MOST: Final = 4.0
_PLACE: Final = re.compile(r"\{(room|id|index)\}")
_ORDERED: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}:[0-9]{1,15}", re.IGNORECASE)
_KEYS: Final = UUID("5b1c1a52-6d0c-4c8e-9c5e-0d6a6d0f7a11")
_OVERLOADED: Final = frozenset({429, 502, 503, 504})
_NOT_APPLIED: Final = frozenset({429})


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    method: str
    base: str
    """Root of the host."""
    template: str
    """The route as `wire` and `room_wire` spell it, with ``{room}``, ``{id}`` and ``{index}``."""
    id: str | None = None
    room: str | None = None
    index: int | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    key: str | None = None
    """Idempotency key."""
    credentials: Credentials | None = None
    repeatable: bool = True
    """Whether it may be sent again after it was lost."""
    applies: bool = True
    """Whether it changes something at the engine that a caller must learn of."""
    bare: bool = False
    """Whether a success without a body is an answer, too; it is then read as ``{}``."""

    @property
    def route(self) -> str:
        """For messages: ``POST /calls/:id/accept``. Holds no id, no room and no query."""
        return f"{self.method} {self.template.replace('{', ':').replace('}', '')}"

    def url(self) -> str:
        """The whole URL.

        Raises:
            UTDInputError: the id or the room would lead to another route.
        """
        index = "" if self.index is None else str(self.index)
        places = {"id": ("id", self.id), "room": ("room_name", self.room), "index": ("index", index)}

        def part(place: re.Match[str]) -> str:
            what, value = places[place[1]]
            return segment(value or "", what)

        path = _PLACE.sub(part, self.template)
        query = {name: value for name, value in self.query.items() if value is not None}
        return f"{self.base}{wire.PREFIX}{path}" + (f"?{urlencode(query)}" if query else "")


def segment(value: str, what: str = "id") -> str:
    """One part of a path, encoded. Refuses what would lead elsewhere, or cannot be encoded."""
    try:
        encoded = quote(value, safe="")
    except UnicodeEncodeError:
        encoded = ""
    if encoded in ("", ".", ".."):
        raise UTDInputError(f"{what}: empty, '.', '..' or not Unicode; allowed: what the engine gave")
    return encoded


def present(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body without what has no value."""
    return {name: value for name, value in body.items() if value is not None}


def ordered_key(key: str | None) -> str | None:
    """An idempotency key as it travels: ``<uuid>:<n>``. An application's own becomes one, always the same.

    Raises:
        UTDInputError: it cannot stand in a header.
    """
    if key is None or _ORDERED.fullmatch(validation.idempotency_key(key)):
        return key
    return f"{uuid5(_KEYS, key)}:0"


class EngineRequests:
    """Sends what `engine_api` asks, from any number of threads.

    Args:
        headers: sent with every request: who the application is.
        pool: the connections.
    """

    def __init__(self, headers: Mapping[str, str], pool: HttpPool) -> None:
        self._headers = dict(headers)
        self._pool = pool
        self._closed = threading.Event()
        _alive.add(self)

    def close(self) -> None:
        """End waits between tries and refuse what comes later. Any thread, any number of times."""
        self._closed.set()
        self._pool.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' closed' if self._closed.is_set() else ''}>"

    def perform(self, ask: Ask, *, deadline: float | None = None, tries: int = MAX_TRIES) -> Any:
        """Send `ask` until it is decided, and return the decoded body of a success.

        Args:
            deadline: seconds for all of it; None for 30.

        Raises:
            UTDEngineError: the engine refused; a 409 and a 403 are their own kinds.
            UTDTimeoutError, UTDConnectionError: no answer; ``outcome_known`` tells whether it may have been applied.
            UTDProtocolError: the answer is none: too long, no JSON, a redirect.
            UTDClosedError: the client was closed.
            UTDInputError: the id makes no URL.
        """
        from tenacity import Retrying, retry_if_result, stop_after_attempt, stop_before_delay

        budget = DEFAULT_BUDGET if deadline is None else deadline
        attempt = _Attempts(self, ask, budget)
        retrying = Retrying(
            retry=retry_if_result(attempt.worth_another),
            stop=stop_after_attempt(tries) | stop_before_delay(budget),
            wait=_wait,
            sleep=self._pause,
            retry_error_callback=_last,
        )
        try:
            result: Answer | Failure = retrying(attempt)
        except (UTDConnectionError, UTDTimeoutError) as error:
            # The renewal failed, whose own outcome matters to nobody: what an earlier try did is what is asked.
            error.outcome_known = not attempt.lost
            raise
        if isinstance(result, Failure):
            raise _no_answer(result, ask, lost=attempt.lost)
        if not 200 <= result.status < 300:
            refused = refusal(result, ask.route)
            raise _undecided(refused, ask) if attempt.lost and result.status in _NOT_APPLIED else refused
        if ask.bare and not result.body.strip():
            return {}
        try:
            return result.json()
        except ValueError as error:
            why = f"not JSON ({foreign(str(error), 80)})"
        return wire.malformed(ask.route, "body", why)

    def once(self, ask: Ask, budget: float, info: UTDSessionInfo | None) -> Answer | Failure:
        """One try, without a second thought, as whom `info` says."""
        if self._closed.is_set():
            raise UTDClosedError("the client is closed")
        url = ask.url()
        body = None if ask.body is None else json.dumps(ask.body, ensure_ascii=False, allow_nan=False).encode()
        # From here on nothing raises: a traceback that shows local variables would show the bearer.
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if ask.key is not None:
            headers[wire.IDEMPOTENCY_KEY] = ask.key
        if info is not None:
            headers["Authorization"] = f"Bearer {info.user_token}"
        started = time.monotonic()
        result = self._pool.send(ask.method, url, headers=headers, body=body, budget=budget)
        outcome = result.what if isinstance(result, Failure) else result.status
        log.debug("%s: %s after %.0f ms", ask.route, outcome, (time.monotonic() - started) * 1000)
        return result

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise UTDClosedError("the client was closed while it waited to try again")

    def _after_fork(self) -> None:
        closed, self._closed = self._closed.is_set(), threading.Event()
        if closed:
            self._closed.set()


_alive: weakref.WeakSet[EngineRequests] = weakref.WeakSet()


def _after_fork() -> None:
    for requests in list(_alive):
        requests._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Attempts:
    """The tries of one request: how much time is left, and what was learnt from the earlier ones."""

    def __init__(self, requests: EngineRequests, ask: Ask, budget: float) -> None:
        self.lost = False
        self._requests = requests
        self._ask = ask
        self._until = time.monotonic() + budget
        self._renewed = False
        self._last: Answer | Failure | None = None

    def __call__(self) -> Answer | Failure:
        credentials = self._ask.credentials
        info = credentials.info if credentials else None
        result = self._try(info)
        if isinstance(result, Answer) and result.status == 401 and credentials and info and not self._renewed:
            self._renewed = True
            credentials.renew(info, budget=max(self._until - time.monotonic(), 0.0))
            result = self._try(credentials.info)
        return result

    def _try(self, info: UTDSessionInfo | None) -> Answer | Failure:
        left = self._until - time.monotonic()
        if left <= 0:
            return self._last or Failure("no time was left to send it", sent=False, timed_out=True, again=False)
        self._last = result = self._requests.once(self._ask, left, info)
        if isinstance(result, Failure) and result.sent and self._ask.applies:
            self.lost = True
        return result

    def worth_another(self, result: Answer | Failure) -> bool:
        if isinstance(result, Answer):
            if result.status == 429 and (retry_after(result.headers) or 0.0) > LONGEST_PAUSE:
                return False
            return result.status in _OVERLOADED and (self._ask.repeatable or result.status in _NOT_APPLIED)
        return result.again and (self._ask.repeatable or not result.sent)


def _wait(state: RetryCallState) -> float:
    result = _last(state)
    asked = retry_after(result.headers) if isinstance(result, Answer) else None
    if asked is not None:
        # Jitter on top of it and never below, so that those who were refused together do not come back together.
        return asked + random.uniform(0, 0.1 + asked / 10)  # noqa: S311 - no secret
    step: float = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** (state.attempt_number - 1))
    return step * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


def _last(state: RetryCallState) -> Answer | Failure:
    assert state.outcome is not None
    result: Answer | Failure = state.outcome.result()
    return result


def _no_answer(failure: Failure, ask: Ask, *, lost: bool) -> UTDStreamException:
    if failure.malformed:
        return UTDProtocolError(
            f"malformed answer of the engine: {ask.route}: body: {failure.what}",
            failure.status,
            route=ask.route,
            field="body",
        )
    if not failure.sent and not lost:
        fate = "nothing was sent"
    elif lost:
        fate = "the engine may have applied it"
    else:
        fate = "it changes nothing at the engine"
    text = f"{ask.route} to {ask.base}: {failure.what}; {fate}"
    if failure.timed_out:
        return UTDTimeoutError(text, outcome_known=not lost)
    return UTDConnectionError(text, outcome_known=not lost)


def _undecided(error: UTDStreamException, ask: Ask) -> UTDConnectionError:
    """A refusal that says nothing of the try before it, which was lost and may have been applied."""
    return UTDConnectionError(
        f"{ask.route}: an earlier try was lost and may have been applied; then: {error}",
        error.status_code,
        error.code,
        outcome_known=False,
    )
