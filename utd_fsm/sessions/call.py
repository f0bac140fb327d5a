"""The session of 1:1 calls: what a caller and a callee may ask. How it goes about it is in `call_core`.

Loop thread only; the facades are `utd_fsm.client.UTDCallSession` and `utd_fsm.aio.UTDCallSession`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from utd_fsm import validation
from utd_fsm.errors import (
    UTDClosedError,
    UTDInputError,
    UTDStateError,
    UTDStreamException,
)
from utd_fsm.models import UTDCall, UTDCallStatus
from utd_fsm.sessions.call_core import GOODBYE, CallCore
from utd_fsm.sessions.marks import verb, wait

if TYPE_CHECKING:
    from utd_fsm.observable import BaseObservable

log = logging.getLogger("utd_fsm.call")


class CallSession(CallCore):
    """A 1:1 call, as caller or as callee; after it ended, the next one.

    Made by ``client.call_session(type)``. One call at a time; verbs run one at a time, in the order of the calls, and
    `end`, `leave` and `dispose` overtake. A context manager: leaving it ends a call that was started or accepted here
    and leaves alone one that only rang.
    """

    status: BaseObservable[UTDCallStatus | None]
    """Where the call is, as the engine keeps it; None until one starts. Never ahead of the engine."""
    call_id: BaseObservable[str | None]
    """The call's id; None until the engine gave one."""

    # ------------------------------------------------------------------ what it shows

    @property
    def call(self) -> UTDCall | None:
        """The newest record of the call; None until one starts."""
        return self._shown_record()

    @property
    def duration(self) -> float | None:
        """Seconds since the answer, or from the answer to the end; None for a call that was never answered.

        Stays readable until the next call starts.
        """
        record = self.call
        if record is not None and record.status.is_terminal and record.duration is not None:
            # A call that was soon over may be heard of as active by nobody but the engine.
            answered = self._active_at is not None or record.answered_at is not None
            return record.duration if answered else None
        if self._active_at is None:
            return None
        return (self._ended_at or time.monotonic()) - self._active_at

    @property
    def end_reason(self) -> str | None:
        """Why the call ended (see `UTDCall.end_reason`); None before. Stays readable until the next call starts."""
        return self._driver.end_reason if self._driver else None

    def tell_call(self, error: UTDStreamException) -> None:
        """Say in an error which call it was about: now, or as soon as that is learnt. Any thread."""
        if self._driver is not None:
            self._driver.tell_call(error)

    def lost(self, name: str, result: Any) -> None:
        """Whoever gave up a start or an accept is told that the call is ended: so it is."""
        driver = self._driver
        if name in ("start", "accept") and driver is not None and driver.call_id == result.call_id:
            driver.hang_up()

    def describe(self) -> str:
        """For the repr."""
        return f"{self._kind.value} {self.status.value or 'idle'} {self.call_id.value or ''}".rstrip()

    # ------------------------------------------------------------------ verbs

    @verb(timeout=30.0)
    async def start(
        self,
        callee_identity: str,
        callee_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> UTDCall:
        """Call somebody: returns once the engine has the call, the room is joined and the microphone is published.

        All or nothing: when it fails midway or is interrupted, the engine's call is ended in the background and the
        error carries ``call_id`` where it is known. A busy callee does not raise: the status becomes BUSY. Neither does
        an end that comes while the room is being joined: look at the status.

        Args:
            callee_identity: whom, 1 to 255 characters, not oneself.
            callee_name: how the callee is called, for its device.
            metadata: anything JSON can say, for the callee; a dict.
            idempotency_key: the same key gives the same call, so that a redelivered task does not ring twice.

        Returns:
            The call's record.

        Raises:
            UTDInputError: an argument is wrong; nothing was sent.
            UTDStateError: a call is under way in this session, or ``end`` overtook.
            UTDEngineError: the engine refused.
            UTDConnectionError: engine or media could not be reached.
        """
        callee = validation.identity(callee_identity, "callee_identity")
        if callee == self.identity:
            raise UTDInputError("callee_identity: one's own; allowed: the identity of somebody else")
        name = validation.optional_name(callee_name, "callee_name")
        extra = validation.metadata(metadata) if metadata is not None else None
        key = validation.idempotency_key(idempotency_key) if idempotency_key is not None else None
        await self._previous_over("start")
        driver = self._begin("caller", mine=True)
        try:
            ticket = await driver.dial(callee, self._kind, callee_name=name, metadata=extra, key=key)
        except UTDStreamException as error:
            error.call_id = error.call_id or driver.call_id
            if driver.view.state == "idle":
                self._forget(driver)
            raise
        if ticket is None:
            self._busy = UTDCall("", self._kind, UTDCallStatus.BUSY, self.identity or "", callee, callee_name=name)
            return self._busy
        self._follow(driver)
        await self._go_in(driver, look_first=key is not None)
        record = driver.snapshot()
        assert record is not None
        return record

    @verb(timeout=30.0)
    async def accept(self, call: str | UTDCall) -> UTDCall:
        """Answer a call on this device: returns once the room is joined and the microphone is published.

        All or nothing, as `start`. Legal without `ringing` before it.

        Args:
            call: the call or its id, however it got here (`incoming_calls`, a webhook, a push message).

        Returns:
            The call's record.

        Raises:
            UTDInputError: not a call id.
            UTDStateError: cancelled, missed, or answered by another device; ``state`` says which. Or another call is
                under way in this session, or ``end`` overtook.
            UTDPermissionError: only the callee can accept.
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: engine or media could not be reached.
        """
        driver = await self._incoming(call, "accept")
        before, self._mine = self._mine, True
        try:
            await driver.accept()
        except UTDStreamException as error:
            # A second accept of the call that is answered here is refused, and changes nothing.
            self._mine = before or driver.view.is_pending
            self._not_ours(driver, error)
            raise
        self._follow(driver)
        await self._go_in(driver)
        record = driver.snapshot()
        assert record is not None
        if driver.view.is_final:
            over = UTDStateError(
                f"the call is {record.status.value} ({driver.end_reason}): it was over before its room was joined",
                state=record.status.value,
                event="accept",
            )
            over.call_id = driver.call_id
            raise over
        return record

    @verb(timeout=30.0)
    async def ringing(self, call: str | UTDCall) -> UTDCall:
        """Tell the caller that this device rings.

        Args:
            call: the call or its id.

        Raises:
            UTDInputError: not a call id.
            UTDStateError: the call is over, or another one is under way in this session.
            UTDEngineError: the engine refused.
        """
        driver = await self._incoming(call, "ringing")
        self._follow(driver)
        try:
            return await driver.ring()
        except UTDStreamException as error:
            self._not_ours(driver, error)
            raise

    @verb(timeout=30.0)
    async def reject(self, call: str | UTDCall) -> UTDCall | None:
        """Decline a call. When somebody was faster (cancelled, answered elsewhere) that is what the record says.

        Args:
            call: the call or its id.

        Raises:
            UTDInputError: not a call id.
            UTDStateError: it was answered here: `end` it instead; or another call is under way in this session.
        """
        return await self._decline(call, "reject")

    @verb(timeout=30.0)
    async def busy(self, call: str | UTDCall) -> UTDCall | None:
        """Decline a call because of another one. Arguments and errors as `reject`."""
        return await self._decline(call, "busy")

    @verb(timeout=30.0, overtakes=True)
    async def end(self) -> UTDCall | None:
        """Hang up: media is down at once, and the engine is told until it agrees. Returns when it did.

        Overtakes whatever verb is running. Without a call, or when it is already over, nothing happens. The other side
        may have been faster: the record says what happened. A timeout ends only the wait; hanging up goes on.

        Returns:
            The record; None without a call.
        """
        driver = self._driver
        if driver is None:
            return self._busy
        driver.hang_up()
        if driver.view.is_pending or driver.view.is_final:
            with contextlib.suppress(UTDStateError):  # there was no call after all
                await self._over(driver)
        return self.call

    @verb(timeout=30.0, overtakes=True)
    async def leave(self) -> None:
        """`end`, under the name every session has. The session may make another call."""
        await type(self).end(self)

    @verb(timeout=30.0, overtakes=True)
    async def dispose(self) -> None:
        """End the call, leave, free everything. Idempotent; the session cannot be used again."""
        driver = self._driver
        # A hang-up that is under way counts too: a start that failed midway leaves one, and the process may end next.
        if driver is not None and self._mine and (driver.hang_up() or driver.view.state in ("ending", "withdrawing")):
            try:
                async with asyncio.timeout(GOODBYE):
                    await asyncio.shield(driver.final)
                    if self._taking_down is not None:
                        await asyncio.shield(self._taking_down)
            except TimeoutError:
                log.warning(
                    "%s: the engine has not agreed to the end yet; it is told in the background", self.describe()
                )
            except UTDStreamException:
                pass  # there was no call after all
        self._stop_following()
        await super().dispose()
        if driver is not None:
            driver.drop(lambda: UTDClosedError("the session is disposed"))

    # ------------------------------------------------------------------ waits

    @wait(timeout=150.0)
    async def wait_for_answer(self, timeout: float | None = 150.0) -> UTDCallStatus:
        """Wait until the call is answered, or will not be.

        Args:
            timeout: seconds, or None for no limit. A wait that times out changes nothing.

        Returns:
            ACTIVE, or the terminal status.

        Raises:
            UTDTimeoutError: neither came in time.
            UTDStateError: there is no call.
        """
        limit = validation.timeout(timeout)
        if self._busy is not None:
            return UTDCallStatus.BUSY
        driver = self._needed("wait_for_answer")
        if driver.view.is_final and driver.status is not None:
            return driver.status
        return await self._patiently(driver.answered, limit, "wait_for_answer")

    @wait(timeout=14_500.0)
    async def wait_until_ended(self, timeout: float | None = 14_500.0) -> UTDCall:
        """Wait until the call is over, whoever ended it.

        Args:
            timeout: seconds, or None for no limit. A wait that times out changes nothing.

        Returns:
            The final record, with ``end_reason`` and ``duration``.

        Raises:
            UTDTimeoutError: it is not over yet.
            UTDStateError: there is no call.
        """
        limit = validation.timeout(timeout)
        if self._busy is not None:
            return self._busy
        driver = self._needed("wait_until_ended")
        await self._patiently(driver.final, limit, "wait_until_ended")
        record = driver.snapshot()
        if record is None:
            raise UTDStateError("the call is over, and the engine could not be asked what became of it", state="lost")
        return record

    @property
    def is_alive(self) -> bool:
        """Whether a call is under way. Any thread."""
        if self._disposed:
            return False
        status = self.status.value
        return super().is_alive or (status is not None and not status.is_terminal)
