"""Takes tokens out of texts that others wrote: LiveKit's errors and log lines. Floor 1; imports nothing of the package.

A refused join's text holds the whole access token (LiveKit fact 25: ``invalid token: eyJ…``), a failed connection's the
URL with ``access_token=…`` in it.
"""

from __future__ import annotations

import logging
import re

_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_=-]+){0,2}")
_PARAMETER = re.compile(
    r"\b(access_token|join_request|token|authorization)(=|%3D|: ?)(?:bearer )?[^\s&\"',;)}\]]+", re.IGNORECASE
)
_BEARER = re.compile(r"\b(bearer) +[^\s\"',;]+", re.IGNORECASE)
HIDDEN = "<hidden>"


def scrub(text: str, *secrets: str) -> str:
    """The text without anything that looks like a token, and without the secrets given.

    Args:
        text: what LiveKit or a library wrote.
        secrets: values known to be secret, whatever they look like; empty ones are ignored.

    Any thread.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    text = _PARAMETER.sub(rf"\1\2{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _JWT.sub(HIDDEN, text)


class ScrubFilter(logging.Filter):
    """Scrubs each record of the logger it is on; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's text, and that of its exception, where either holds a token."""
        text = record.getMessage()
        clean = scrub(text)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            clean = scrub(trace)
            if clean != trace:
                # A formatter prints exc_text instead of formatting exc_info again; the exception itself has the token.
                record.exc_text, record.exc_info = clean, None
        return True


def scrub_logger(name: str) -> None:
    """See to it that what this logger itself logs holds no token. Idempotent."""
    logger = logging.getLogger(name)
    if not any(isinstance(present, ScrubFilter) for present in logger.filters):
        logger.addFilter(ScrubFilter())
