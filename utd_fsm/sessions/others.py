"""Who else is in the room, as the application is shown it.

Loop thread only. What LiveKit says of others while a link is mended is not people leaving (LiveKit fact 23), and those
who publish nothing are listed up to 3 s late (fact 22): after a return, who is missing stays shown until that is over.
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
        timing: `Timing.settle` is used.
    """

    def __init__(self, on_change: Callable[[tuple[UTDParticipant, ...]], None], timing: Timing) -> None:
        self._on_change = on_change
        self._timing = timing
        self._shown: dict[str, UTDParticipant] = {}
        self._missing: set[str] = set()
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None

    def away(self) -> None:
        """The link broke: nothing is read until `back`."""
        self._reading = False
        self._stop_timer()

    def back(self, listed: Iterable[UTDParticipant]) -> None:
        """In the room, for the first time or again."""
        self._reading = True
        listed = tuple(listed)
        self._missing = self._shown.keys() - {one.identity for one in listed}
        self._stop_timer()
        if self._missing:
            self._timer = asyncio.get_running_loop().call_later(self._timing.settle, self._settled)
        self.read(listed)

    def read(self, listed: Iterable[UTDParticipant]) -> None:
        """What the Room lists now; ignored while away."""
        if not self._reading:
            return
        now = {one.identity: one for one in listed}
        self._missing -= now.keys()
        kept = {
            identity: now.get(identity, before)
            for identity, before in self._shown.items()
            if identity in now or identity in self._missing
        }
        self._shown = kept | now
        self._tell()

    def gone(self) -> None:
        """The session left: nobody is shown any more."""
        self._reading = False
        self._stop_timer()
        self._missing.clear()
        self._shown = {}
        self._tell()

    def __contains__(self, identity: str) -> bool:
        return identity in self._shown

    def _settled(self) -> None:
        self._timer = None
        for identity in self._missing:
            self._shown.pop(identity, None)
        self._missing.clear()
        self._tell()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._on_change(tuple(self._shown.values()))


def speakers(levels: Iterable[tuple[str, float]], before: Iterable[UTDSpeaker], now: float) -> tuple[UTDSpeaker, ...]:
    """Who is heard, the loudest first; ``since`` goes on for those who were heard before.

    Args:
        levels: (identity, level 0 to 1).
        before: who was shown as heard until now.
        now: monotonic seconds.
    """
    since = {one.identity: one.since for one in before}
    return tuple(UTDSpeaker(identity, level, since.get(identity, now)) for identity, level in levels)
