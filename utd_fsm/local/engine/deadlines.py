"""The two clocks of a call: nobody answered in time, and the longest a call may last.

Armed from the times in the record, so that an engine that comes back goes on where it was; what fell due meanwhile
falls due at once. Nothing is decided here: a clock that strikes sends its event, and the machine takes it or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from utd_fsm.models import UTDCall, UTDCallStatus

from .calls import now
from .settings import EngineSettings


def due(call: UTDCall, settings: EngineSettings) -> datetime | None:
    """When this call's clock strikes; None for a finished call."""
    if call.status.is_terminal:
        return None
    if call.status is UTDCallStatus.ACTIVE:
        assert call.answered_at is not None
        return call.answered_at + timedelta(seconds=settings.max_call)
    assert call.initiated_at is not None
    return call.initiated_at + timedelta(seconds=settings.ring_timeout)


class Deadlines:
    """One timer for each open call. Belongs to the event loop."""

    def __init__(self, settings: EngineSettings, strike: Callable[[UTDCall], None]) -> None:
        self._settings = settings
        self._strike = strike
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def call_changed(self, call: UTDCall) -> None:
        """Set, move or stop the timer of a call."""
        timer = self._timers.pop(call.call_id, None)
        if timer is not None:
            timer.cancel()
        when = due(call, self._settings)
        if when is not None:
            wait = max(0.0, (when - now()).total_seconds())
            self._timers[call.call_id] = asyncio.get_running_loop().call_later(wait, self._struck, call)

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _struck(self, call: UTDCall) -> None:
        self._timers.pop(call.call_id, None)
        self._strike(call)
