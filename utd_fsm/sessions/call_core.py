"""What holds a call session together: one call at a time, and media that follows the call's machine.

The call's machine and requests are `CallDriver`'s; connection and sources are `SessionCore`'s. Here are the rules
between them: media goes up once the engine has the call, comes down before the engine agrees to an end, and a room
that was deleted is first a look at the record, since the engine deletes the room of every finished call.
Loop thread only. What a person can ask of it is in `call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from utd_fsm import signals, validation
from utd_fsm.errors import (
    UTDEngineError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType, UTDTrackSource
from utd_fsm.room import LeaveReason
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.call_driver import CallDriver, CallEngine, CallTiming

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step
    from utd_fsm.observable import BaseObservable

log = logging.getLogger("utd_fsm.call")

T = TypeVar("T")

Watch = Callable[[str, Callable[[UTDCall], None]], Callable[[], None]]
"""Follow a call by its id; returns what stops following. Safe to call on the loop thread."""

LONG_JOIN = 3.0
"""Seconds after which a join that still lasts is a reason to look at the call. LiveKit's client does not notice that
the room it is joining was deleted, as the room of a finished call is, and tries on for 15 s."""

GOODBYE = 4.0
"""Seconds that leaving waits for the engine to agree to an end; it is told in the background after that."""


class CallCore(BaseSession):
    """The machinery of a call session, without what a person can ask of it."""

    status: BaseObservable[UTDCallStatus | None]
    call_id: BaseObservable[str | None]

    def __init__(
        self,
        kind: UTDStreamType,
        *,
        engine: CallEngine,
        watch: Watch,
        call_timing: CallTiming | None = None,
        on_life: Callable[[Any], None] = lambda session: None,
        **core: Any,
    ) -> None:
        """Any thread.

        Args:
            kind: ``audio_call`` or ``video_call``.
            engine: asks on behalf of this device.
            watch: follows a call's record.
            call_timing: seconds.
            on_life: called when it may have come to life, or may be alive no longer.
            core: as `SessionCore`.
        """
        super().__init__(kind=kind, **core)
        self._kind = kind
        self._engine = engine
        self._watch_call = watch
        self._on_life = on_life
        self._call_timing = call_timing
        self._driver: CallDriver | None = None
        self._unwatch: Callable[[], None] | None = None
        self._mine = False
        self._busy: UTDCall | None = None
        self._active_at: float | None = None
        self._ended_at: float | None = None
        self._heard_by_other: set[UTDTrackSource] = set()
        self._taking_down: asyncio.Task[None] | None = None
        self.status = self._observable(None, "status", signals.call_status_changed)
        self.call_id = self._observable(None, "call_id")

    # ------------------------------------------------------------------ one call at a time

    async def _previous_over(self, event: str) -> None:
        """Let a hang-up that is under way come to its end, and refuse while a call is under way."""
        driver = self._driver
        if driver is None:
            return
        if driver.view.state in ("ending", "withdrawing"):
            try:
                await asyncio.shield(driver.final)
            except UTDStateError:
                pass  # there was no call after all
        if self._taking_down is not None:
            await asyncio.shield(self._taking_down)
        only_rings = driver.role == "callee" and driver.view.state in ("initiating", "ringing") and not self._mine
        if driver is self._driver and not (driver.view.is_final or driver.view.state == "idle" or only_rings):
            raise UTDStateError(
                f"{event}: a call is under way in this session ({driver.view.state}); one call at a time: end() it "
                "first, or use another session",
                state=driver.view.state,
                event=event,
                allowed=("end", "leave", "dispose"),
            )

    def _begin(self, role: Any, *, mine: bool, call_id: str | None = None) -> CallDriver:
        self._stop_following()
        if self._driver is not None:
            self._driver.drop(lambda: UTDStateError("the session has turned to another call", event="wait"))
        self._mine = mine
        self._busy = None
        self._active_at = self._ended_at = None
        self._heard_by_other.clear()
        for observable in (self.status, self.call_id):
            observable.reopen()
        self.status.set(None)
        self.call_id.set(call_id)
        self._driver = CallDriver(
            self._portal,
            self._engine,
            role,
            on_change=self._on_call,
            call_id=call_id,
            timing=self._call_timing,
        )
        return self._driver

    def _forget(self, driver: CallDriver) -> None:
        if self._driver is driver:
            self._driver = None
            self._mine = False

    async def _incoming(self, call: str | UTDCall, event: str) -> CallDriver:
        call_id = validation.call_id(call)
        driver = self._driver
        if driver is None or driver.call_id != call_id or driver.view.is_final or driver.role != "callee":
            await self._previous_over(event)
            driver = self._begin("callee", mine=False, call_id=call_id)
        if isinstance(call, UTDCall):
            driver.observe(call)
        return driver

    async def _decline(self, call: str | UTDCall, how: str) -> UTDCall | None:
        driver = await self._incoming(call, how)
        if driver.record is None:
            await self._known(driver)
        driver.decline(how)
        await self._over(driver)
        if driver.refused is not None:
            raise driver.refused
        return self._shown_record()

    def _shown_record(self) -> UTDCall | None:
        """The newest record, as it is shown; that of a busy callee is made up, since the engine keeps none."""
        return (self._driver.snapshot() if self._driver else None) or self._busy

    async def _known(self, driver: CallDriver) -> None:
        """Raise what the engine says of a call that it does not know, or that is not ours, before anything moves."""
        try:
            await driver.look()
        except UTDEngineError as error:
            self._not_ours(driver, error)
            if error.status_code in (403, 404):
                raise
        except UTDStreamException as error:
            log.info("%s: the engine could not be asked: %s", self.describe(), error)

    def _not_ours(self, driver: CallDriver, error: UTDStreamException) -> None:
        """A verb about a call was refused: one that the engine does not know, or that is not ours, is none here."""
        driver.tell_call(error)
        if error.status_code in (403, 404) and driver is self._driver and driver.view.state == "idle":
            self._stop_following()
            self._forget(driver)
            self.call_id.set(None)

    def _needed(self, what: str) -> CallDriver:
        if self._driver is None:
            raise UTDStateError(
                f"{what}: this session has no call; start() or accept() one first",
                state="idle",
                event=what,
                allowed=("start", "ringing", "accept", "reject", "busy"),
            )
        return self._driver

    async def _patiently(self, future: asyncio.Future[T], limit: float | None, what: str) -> T:
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(future)
        except TimeoutError:
            shown = self.status.value
            raise UTDTimeoutError(
                f"{what}: not within {limit:g} s; the call is {shown.value if shown else 'not there yet'}; nothing has "
                "changed, wait again or end() it",
                outcome_known=True,
            ) from None

    async def _over(self, driver: CallDriver) -> None:
        """Both are over: the call for the engine, and its media here.

        Raises:
            UTDProtocolError: the engine's answer was malformed; it is told again in the background.
        """
        misheard = driver.misheard
        if not driver.final.done():
            either: set[asyncio.Future[Any]] = {driver.final, misheard}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if misheard.done():
            raise misheard.result()
        await asyncio.shield(driver.final)
        if self._taking_down is not None:
            await asyncio.shield(self._taking_down)

    # ------------------------------------------------------------------ media follows the call

    async def _go_in(self, driver: CallDriver, *, look_first: bool = False) -> None:
        """Join and publish; an end that comes meanwhile stops that, a failure of that ends the call.

        Args:
            driver: the call.
            look_first: whether its ticket may be older than the call: the answer to a key that was used before.
        """
        entering = asyncio.ensure_future(self._join_and_publish(driver, look_first=look_first))
        try:
            while not (entering.done() or driver.final.done()):
                over = asyncio.wait({entering, driver.final}, timeout=LONG_JOIN, return_when=asyncio.FIRST_COMPLETED)
                if not (await over)[0]:
                    driver.look_soon()
            if entering.done():
                await self._entered(entering, driver)
        except BaseException as error:
            if isinstance(error, UTDStreamException):
                if driver.view.is_final:
                    return
                error.call_id = error.call_id or driver.call_id
            driver.hang_up()
            raise
        finally:
            if not entering.done():
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)

    async def _entered(self, entering: asyncio.Future[None], driver: CallDriver) -> None:
        try:
            entering.result()
        except UTDStreamException:
            # The engine deletes the room of a call that is over, and LiveKit may tell of that before the engine does.
            with contextlib.suppress(UTDStreamException):
                await driver.look()
            raise

    async def _join_and_publish(self, driver: CallDriver, *, look_first: bool) -> None:
        if look_first:
            await driver.look()
            if driver.view.is_final:
                return
        await self._join()
        if driver.view.state == "active":
            self._start_listening()  # a callee's call is active before there is anything to listen with
        sources = [UTDTrackSource.MICROPHONE]
        if self._kind.has_video:
            sources.append(UTDTrackSource.CAMERA)
        await asyncio.gather(*(self._enable(source) for source in sources))

    def _on_call(self, driver: CallDriver) -> None:
        """The call's view moved, or its record is newer. Media first, what is shown after it."""
        if driver is not self._driver:
            return
        state = driver.view.state
        if (state in ("ending", "withdrawing") or driver.view.is_final) and self._taking_down is None:
            self._ended_at = self._ended_at or time.monotonic()
            self._stop_sources()
            # At once, also inside a look that a removal waits for: whoever has left is not thrown out any more.
            self._connection.leave_now()
            self._taking_down = self._portal.spawn(self._take_down(), name="utd-media-down")
        if state == "active" and self._active_at is None:
            self._active_at = time.monotonic()
            self._start_listening()
            for source in self._heard_by_other:
                self._start_source(source)
        self.call_id.set(driver.call_id)
        self.status.set(driver.status)
        self._on_life(self)
        if driver.view.is_final:
            self._stop_following()
            status, reason = driver.status, driver.end_reason
            text = f"the call is over: {status.value if status else 'gone'}" + (f" ({reason})" if reason else "")
            self.status.finish(lambda: UTDStateError(text, state=status.value if status else None))

    async def _take_down(self) -> None:
        try:
            await self._leave_room()
        finally:
            self._taking_down = None

    def _follow(self, driver: CallDriver) -> None:
        if self._unwatch is None and driver.call_id is not None and not driver.view.is_final:
            self._unwatch = self._watch_call(driver.call_id, driver.observe)

    def _stop_following(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()

    # ------------------------------------------------------------------ hooks of the base

    async def _ticket(self, reason: str) -> tuple[str, str]:
        driver = self._needed("join")
        assert driver.call_id is not None
        ticket = driver.ticket
        if reason != "join" or ticket is None:
            try:
                ticket = await self._engine.rejoin(driver.call_id)
            except UTDStreamException:
                driver.look_soon()
                raise
        return ticket.url, ticket.token

    def _entitled(self, source: UTDTrackSource) -> bool:
        driver = self._driver
        return driver is not None and driver.view.state in ("initiating", "ringing", "active")

    async def _resync(self, age: float) -> None:
        if self._driver is not None and age >= 15.0:
            await self._driver.look()

    async def _before_removal(self, reason: LeaveReason | None) -> None:
        """The engine deletes the room of a finished call: ask before it looks like being thrown out."""
        if self._driver is not None and self._driver.call_id is not None:
            try:
                await self._driver.look()
            except UTDStreamException as error:
                log.info("%s: removed from the room, and the engine could not be asked: %s", self.describe(), error)

    def _on_connection(self, step: Step) -> None:
        self._on_life(self)
        if step.after == "force_exit" and self._driver is not None:
            if self._connection.removed_for is LeaveReason.DUPLICATE_IDENTITY:
                # Another session of this identity goes on with the call (a start redelivered under its key): this one
                # still shows it, and no longer ends it by leaving.
                self._mine = False
            else:
                self._driver.hang_up("connection_lost")

    def _on_track_subscribed(self, source: UTDTrackSource) -> None:
        """A source starts when the call is active and the other side listens, so that its first word is heard."""
        self._heard_by_other.add(source)
        if self._driver is not None and self._driver.view.state == "active":
            self._start_source(source)
