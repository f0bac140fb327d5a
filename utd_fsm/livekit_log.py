"""Keeps tokens out of what LiveKit's client logs. Floor 4; imports `scrub` only.

A refused join is logged with its whole access token (LiveKit fact 25), at the logger ``livekit``. Nothing else of that
logger is touched: level, handlers and propagation are the application's.
"""

from __future__ import annotations

import logging

from utd_fsm.scrub import scrub


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
    """See to it that what this logger itself logs holds no token. Idempotent; any thread."""
    logger = logging.getLogger(name)
    if not any(isinstance(present, ScrubFilter) for present in logger.filters):
        logger.addFilter(ScrubFilter())
