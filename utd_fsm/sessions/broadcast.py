"""Drives the declared `Broadcast` machine: from what LiveKit lists and what the engine keeps, to where the stream is.

Loop thread only. It knows neither rooms nor engine: its owner says what `_live` reads, whether a host is listed, and
when the session is connected. News is never passed on by itself but always as the pair, so that the order in which the
two sources are heard changes nothing (machines, Broadcast).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from utd_fsm.machines import Broadcast
from utd_fsm.machines.base import Step, start
from utd_fsm.room_models import UTDBroadcast

if TYPE_CHECKING:
    from utd_fsm.sessions.timing import Timing

_log = logging.getLogger("utd_fsm.broadcast")


class BroadcastDriver:
    """One stream, as it is seen in one stay in its room.

    Args:
        host_listed: whether the room lists a participant whom the server made host.
        on_step: told each step that changed the machine. Must not raise.
        timing: ``settle`` and ``grace`` are used.
    """

    def __init__(self, *, host_listed: Callable[[], bool], on_step: Callable[[Step], None], timing: Timing) -> None:
        self._machine = start(Broadcast)
        self._host_listed = host_listed
        self._on_step = on_step
        self._timing = timing
        self._live: UTDBroadcast | None = None
        self._connected = False
        self._unsettled = True
        self._settling: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._grace_left = timing.grace

    @property
    def state(self) -> str:
        """The machine's state."""
        return self._machine.state

    @property
    def shown(self) -> UTDBroadcast:
        """The value to show."""
        return UTDBroadcast(self._machine.public or "waiting")

    @property
    def live(self) -> UTDBroadcast | None:
        """What the engine keeps; None where it keeps nothing, or has not been heard yet."""
        return self._live

    @property
    def is_over(self) -> bool:
        """Whether it has ended, for good."""
        return self._machine.is_final

    # ----------------------------------------------------------------------------------------------- observations

    def said(self, live: UTDBroadcast) -> None:
        """The engine's newest `_live`. ``ended`` counts also while the link is mended."""
        self._live = live
        if live is UTDBroadcast.ENDED:
            self.over()
        else:
            self.read()

    def connected(self) -> None:
        """In the room, for the first time or again, and all that the room says was read.

        A host that publishes nothing is listed up to 3 s late (LiveKit fact 22): so at first ``live`` is believed.
        """
        self._connected = True
        if self._unsettled and self._settling is None and not self.is_over:
            self._settling = asyncio.get_running_loop().call_later(self._timing.settle, self._settled)
        self.read()
        self._watch_grace()

    def away(self) -> None:
        """The link broke, or the room was left: nothing is read, and the 60 s stand still."""
        self._connected = False
        self._watch_grace()

    def over(self) -> None:
        """Ended: by the host's own word, by the engine's, or because the room was deleted. Idempotent."""
        if not self.is_over:
            self._send("saw_over")

    def read(self) -> None:
        """Either half of the pair may have changed. Ignored unless connected."""
        if not self._connected or self.is_over:
            return
        listed = self._host_listed()
        if listed:
            self._settled_now()
        begun = self._live is not UTDBroadcast.WAITING
        believed = self._unsettled and self._live is UTDBroadcast.LIVE
        if begun and (listed or believed):
            self._send("saw_host")
        elif self._live is UTDBroadcast.HOST_AWAY:
            self._send("saw_away")
        else:
            self._send("saw_no_host")

    def close(self) -> None:
        """No more timers. Idempotent."""
        self.away()
        self._settled_now()

    # ---------------------------------------------------------------------------------------------------- the step

    def _send(self, event: str) -> None:
        step = self._machine.send(event)
        if not step.changed:
            return
        _log.debug("broadcast: %s, %s, %s", step.before, event, step.after)
        if step.after == "over":
            self._settled_now()
        self._grace_left = self._timing.grace
        self._watch_grace()
        self._on_step(step)

    def _settled(self) -> None:
        self._settled_now()
        self.read()

    def _settled_now(self) -> None:
        self._unsettled = False
        timer, self._settling = self._settling, None
        if timer is not None:
            timer.cancel()

    def _watch_grace(self) -> None:
        """The 60 s run while the host is away and we are there to see it come back, and at no other time."""
        counts = self._connected and self.state == "host_away"
        loop = asyncio.get_running_loop()
        if counts and self._grace is None:
            self._grace = loop.call_later(self._grace_left, self._grace_over)
        elif not counts and self._grace is not None:
            if self.state == "host_away":
                self._grace_left = max(0.0, self._grace.when() - loop.time())
            self._grace.cancel()
            self._grace = None

    def _grace_over(self) -> None:
        self._grace = None
        self._send("grace_over")
