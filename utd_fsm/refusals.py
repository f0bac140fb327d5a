"""What the engine's refusals become: one error for each status, with the engine's own words made fit to print."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from . import wire
from .errors import UTDConflictError, UTDEngineError, UTDForbiddenError, UTDProtocolError, UTDStreamException
from .http_pool import Answer, status_name
from .scrub import foreign, scrub

_LONGEST_WAIT: Final = 7 * 86400.0
"""Seconds; an engine that asks for more says nothing that anybody could act on."""

_MOST_DETAILS: Final = 16
_LARGEST: Final = 2**63


def refusal(answer: Answer, route: str) -> UTDStreamException:
    """The error for an answer that is no success.

    Returns:
        `UTDConflictError` for 409 (with the engine's ``state``), `UTDForbiddenError` for 403, `UTDEngineError` for the
        rest from 400 on, and `UTDProtocolError` for what is neither a success nor a refusal: a redirect above all. None
        is followed, so that no bearer travels to another host.
    """
    if answer.status < 400:
        return _misplaced(answer, route)
    content = _content(answer)
    words, code, state = wire.read_refusal(content)
    words = foreign(words)
    code = foreign(code, 80) if code else None
    text = f"{words or status_name(answer.status)} (the engine refused {route} with {answer.status})"
    wait, more = retry_after(answer.headers), _details(content)
    if answer.status == 409:
        state = foreign(state, 80) if state else None
        return UTDConflictError(text, 409, code, retry_after=wait, details=more, state=state)
    if answer.status == 403:
        return UTDForbiddenError(text, 403, code, retry_after=wait, details=more)
    return UTDEngineError(text, answer.status, code, retry_after=wait, details=more)


def _details(content: object) -> dict[str, Any]:
    """What else was said, fit to be shown and pickled: few, short, and nothing that is called like a secret."""
    kept: dict[str, Any] = {}
    for name, value in wire.refusal_details(content).items():
        if len(kept) == _MOST_DETAILS:
            break
        if len(name) > 40 or not name.isidentifier() or scrub(f"{name}=x") != f"{name}=x":
            continue
        if isinstance(value, str):
            kept[name] = foreign(value, 500)
        elif value is None or -_LARGEST < value < _LARGEST:  # no NaN, no infinity, nothing that takes long to print
            kept[name] = value
    return kept


def _misplaced(answer: Answer, route: str) -> UTDProtocolError:
    if 300 <= answer.status < 400:
        text = (
            f"{route} was answered with a redirect ({answer.status}); none is followed, credentials would go along: "
            "give the engine's final address as base_url"
        )
        return UTDProtocolError(text, answer.status, route=route, field=wire.LOCATION)
    return UTDProtocolError(
        f"{route} was answered with status {answer.status}, which is no answer to it",
        answer.status,
        route=route,
        field="status",
    )


def _content(answer: Answer) -> Any:
    try:
        return answer.json()
    except ValueError:
        pass
    # A bare string is the engine's; a page of HTML is a proxy's, and says nothing that the status does not.
    if "text/plain" in answer.headers.get("Content-Type", "").lower():
        return answer.body[:2000].decode("utf-8", "replace")
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the engine asked to wait: ``Retry-After`` in seconds or as a date; None where it did not say."""
    value = headers.get(wire.RETRY_AFTER, "").strip()[:80]
    if not value:
        return None
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return wait if math.isfinite(wait) and 0 <= wait <= _LONGEST_WAIT else None
