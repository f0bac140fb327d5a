"""Who else is in the room, as the application is shown it.

Loop thread only. What LiveKit says of others around a reconnect is not people leaving (LiveKit fact 23): on a full
reconnect it tells that everybody left right *before* it tells that it reconnects, and those who publish nothing are
listed up to 3 s late (fact 22). So who is missing stays shown for a moment, and for longer after a return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from utd_fsm.models import UTDParticipant, UTDSpeaker
from utd_fsm.sessions.timing import Timing


class Others:
    """The other participants, in the order in which they were first seen.

    Args:
        on_change: given the new tuple whenever it may differ.
        timing: `Timing.departure` and `Timing.settle` are used.
    """

    def __init__(self, on_change: Callable[[tuple[UTDParticipant, ...]], None], timing: Timing) -> None:
        self._on_change = on_change
        self._timing = timing
        self._shown: dict[str, UTDParticipant] = {}
        self._missing: dict[str, float] = {}
        """Who is shown and not listed, and until when."""
        self._unsettled_until = 0.0
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None

    def away(self) -> None:
        """The link broke: nothing is read until `back`."""
        self._reading = False
        self._stop_timer()

    def back(self, listed: Iterable[UTDParticipant]) -> None:
        """In the room, for the first time or again."""
        if self._shown:
            self._unsettled_until = asyncio.get_running_loop().time() + self._timing.settle
        self._missing = {}
        self._reading = True
        self.read(listed)

    def read(self, listed: Iterable[UTDParticipant]) -> None:
        """What the Room lists now; ignored while away."""
        if not self._reading:
            return
        now = {one.identity: one for one in listed}
        until = max(asyncio.get_running_loop().time() + self._timing.departure, self._unsettled_until)
        self._missing = {
            identity: self._missing.get(identity, until) for identity in self._shown if identity not in now
        }
        self._shown = {identity: now.get(identity, before) for identity, before in self._shown.items()} | now
        self._wait_for_the_missing()
        self._on_change(tuple(self._shown.values()))

    def gone(self) -> None:
        """The session left: nobody is shown any more."""
        self._reading = False
        self._stop_timer()
        self._unsettled_until = 0.0
        self._missing, self._shown = {}, {}
        self._on_change(())

    def __contains__(self, identity: str) -> bool:
        return identity in self._shown

    def _wait_for_the_missing(self) -> None:
        self._stop_timer()
        if self._missing:
            self._timer = asyncio.get_running_loop().call_at(min(self._missing.values()), self._drop_the_missing)

    def _drop_the_missing(self) -> None:
        self._timer = None
        soonest = min(self._missing.values())
        for identity, until in list(self._missing.items()):
            if until <= soonest:
                del self._missing[identity], self._shown[identity]
        self._wait_for_the_missing()
        self._on_change(tuple(self._shown.values()))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def speakers(levels: Iterable[tuple[str, float]], before: Iterable[UTDSpeaker], now: float) -> tuple[UTDSpeaker, ...]:
    """Who is heard, the loudest first; ``since`` goes on for those who were heard before.

    Args:
        levels: (identity, level 0 to 1).
        before: who was shown as heard until now.
        now: monotonic seconds.
    """
    since = {one.identity: one.since for one in before}
    return tuple(UTDSpeaker(identity, level, since.get(identity, now)) for identity, level in levels)
