"""Drives one declared view of one's own standing in a room: a viewer's at the stage, a person's at the seats.

Loop thread only. What was heard of the record goes through the fold, a wish goes out as a numbered request, and when
that is over (yes, no or unknown) the view is told, always (machines, laws 3 to 5). Knows nothing of seats or stages:
its owner says how to ask and how to look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from utd_fsm.errors import (
    UTDConnectionError,
    UTDEngineError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.machines.base import Machine, Runner, Step, start
from utd_fsm.observe import Contradiction, Order, Snapshot, fold, request_over

_log = logging.getLogger("utd_fsm.standing")

Look: TypeAlias = Callable[[str], Awaitable[Snapshot | None]]
"""Reads the record under an idempotency key, which seals what was sent before it; None where there is no record."""

FIRST_PAUSE: Final = 0.3
LONGEST_PAUSE: Final = 5.0
"""Seconds between two looks, while a request whose end is unknown is being settled."""


class Standing:
    """One view, from joining a room to leaving it.

    Args:
        machine: the declared view.
        look: reads the record.
        on_step: told each step that changed the view. Must not raise.
    """

    def __init__(self, machine: type[Machine], *, look: Look, on_step: Callable[[Step], None]) -> None:
        self.view: Runner[Machine] = start(machine)
        self.known: Snapshot | None = None
        """The newest standing heard."""
        self.order = Order()
        self._look = look
        self._on_step = on_step
        self._settling: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def state(self) -> str:
        """The view's state."""
        return self.view.state

    def observe(self, snapshot: Snapshot) -> None:
        """Something was heard of the record, by whatever channel."""
        before = self.state
        try:
            self.known = fold(self.view, self.known, snapshot)
        except Contradiction as error:
            _log.warning("%s", error)
            self._settle_soon()
            return
        self._tell(before, f"saw_{snapshot.standing}")

    async def settled(self) -> None:
        """Until no request is left whose end is unknown. Cancelled, it is settled all the same.

        Raises:
            UTDStateError: the room was left meanwhile.
        """
        if self._settling is not None:
            await asyncio.wait({self._settling})
        if self._closed:
            raise UTDStateError("the room was left; join first", state=self.state, allowed=("join",))

    async def wish(self, event: str, send: Callable[[str], Awaitable[Snapshot | None]]) -> None:
        """Wish for something: step, send, and see it to its end.

        A request before it whose end is still unknown is settled first. Cancelled, it is settled in the background.

        Args:
            event: the declared intention.
            send: sends the request under the key it is given; returns the record as answered, None for a short answer.

        Raises:
            UTDStateError: not possible in this state, or the room was left; nothing was sent. Otherwise what ``send``
                raises.
        """
        await self.settled()
        self._step(event)
        try:
            heard = await send(self.order.next())
        except UTDStreamException as error:
            await self._refused(error)
            raise
        except BaseException:
            self._settle_soon()
            raise
        if heard is None:
            await self._over_by_looking()
        else:
            self._over(heard)

    def seal(self) -> None:
        """A request numbered by `order` was given up on that is no wish of this view: a look seals it, by and by."""
        self._settle_soon()

    def close(self) -> None:
        """The room was left: nothing is settled any more. Idempotent."""
        self._closed = True
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()

    # ------------------------------------------------------------------------------------------ the end of a request

    async def _refused(self, error: UTDStreamException) -> None:
        never_left = isinstance(error, UTDConnectionError | UTDTimeoutError) and error.outcome_known
        if never_left or (isinstance(error, UTDStateError) and not isinstance(error, UTDEngineError)):
            self._over(None)
        else:
            await self._over_by_looking()

    async def _over_by_looking(self) -> None:
        try:
            heard = await self._look(self.order.next())
        except BaseException as error:
            self._settle_soon()
            if not isinstance(error, UTDStreamException):
                raise
            return
        self._over(heard)

    def _settle_soon(self) -> None:
        if self._settling is None and not self._closed:
            self._settling = asyncio.create_task(self._settle(), name="utd-fsm-settle")

    async def _settle(self) -> None:
        pause = FIRST_PAUSE
        heard: Snapshot | None = None
        while True:
            try:
                heard = await self._look(self.order.next())
                break
            except UTDEngineError as error:
                if error.status_code in (403, 404):
                    break  # there is no standing here any more
                pause = max(pause, error.retry_after or 0.0)
            except UTDStreamException as error:
                _log.info("a request's end is unknown, and the engine could not be asked: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self._settling = None
        self._over(heard)

    def _over(self, heard: Snapshot | None) -> None:
        before = self.state
        try:
            self.known = request_over(self.view, self.known, heard)
        except Contradiction as error:
            _log.warning("%s", error)
            self._settle_soon()
            return
        self._tell(before, "lapsed" if heard is None else f"saw_{heard.standing}")

    # ----------------------------------------------------------------------------------------------------- the step

    def _step(self, event: str) -> None:
        before = self.state
        self.view.send(event)
        self._tell(before, event)

    def _tell(self, before: str, event: str) -> None:
        if self.state != before:
            _log.debug("%s: %s, %s, %s", self.view.machine.__name__, before, event, self.state)
            self._on_step(Step(before, event, self.state))
