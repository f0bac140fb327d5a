"""Who gets an incoming call: each one exactly one waiter, first come first served.

On the loop thread. Nothing listens until somebody asks. A snapshot, a poll and a frame that tell of the same call are
one call; one that no longer rings when its turn comes is skipped; a waiter that went away swallows none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from . import signals
from .call_feed import CallFeed, feed_of
from .credentials import Credentials
from .dispatcher import dispatcher
from .engine_socket import LoopPortal
from .errors import UTDClosedError, UTDEngineError, UTDStreamException, UTDTimeoutError
from .models import UTDCall, UTDCallStatus

if TYPE_CHECKING:
    from .engine_api import EngineApi

log = logging.getLogger("utd_fsm.calls")

CAPACITY: Final = 32
"""Calls that may ring and wait for a waiter; the oldest is dropped first, its caller hears no answer."""
_REMEMBERED: Final = 1024
_OFFERED: Final = (UTDCallStatus.INITIATING, UTDCallStatus.RINGING)


@dataclass(frozen=True, slots=True)
class IncomingTiming:
    """Seconds."""

    poll: float = 1.0
    """Between two polls while there is no socket; jittered down to three quarters."""
    backoff: float = 15.0
    """The longest, while the engine cannot be asked."""
    socket_first: float = 1.0
    """How long a socket has to become ready before polling begins."""
    fresh: float = 2.0
    """How long a call may have waited before it is looked at again when its turn comes."""


class IncomingCalls:
    """The calls that ring for one signed-in identity. Loop thread only.

    Args:
        portal, api, cred: who listens.
        sender: the sender of `signals.incoming_call`: the client.
        capacity: how many calls may wait.
        feed: what is heard; None for the credentials' own.
    """

    def __init__(
        self,
        portal: LoopPortal,
        api: EngineApi,
        cred: Credentials,
        *,
        sender: object = None,
        capacity: int = CAPACITY,
        timing: IncomingTiming | None = None,
        feed: CallFeed | None = None,
    ) -> None:
        self._portal = portal
        self._api = api
        self._cred = cred
        self._sender = self if sender is None else sender
        self._capacity = capacity
        self._timing = timing or IncomingTiming()
        self._feed = feed or feed_of(portal, cred)
        self._known: OrderedDict[str, UTDCall] = OrderedDict()
        self._offered: OrderedDict[str, None] = OrderedDict()
        self._queue: deque[tuple[str, float]] = deque()
        self._waiters: deque[asyncio.Future[tuple[str, float] | None]] = deque()
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._end: Callable[[], None] | None = None
        self._closed = False
        self.dropped = 0
        """Calls that nobody took in time, because more than `capacity` were waiting."""

    @property
    def identity(self) -> str:
        """Whose calls these are."""
        return self._cred.identity

    @property
    def listening(self) -> bool:
        """Whether it has been started and not closed."""
        return self._task is not None and not self._task.done() and not self._closed

    def start(self) -> None:
        """Listen from now on: calls that ring are queued and told to `signals.incoming_call`. Idempotent.

        Raises:
            UTDClosedError: it was closed.
        """
        if self._closed:
            raise UTDClosedError("the client is closed")
        if self.listening:
            return
        if self._feed.running:
            self._look.set()  # its snapshot was before our time
        if self._end is None:
            self._end = self._feed.listen(self._heard, on_look=lambda why: self._look.set())
        self._task = self._portal.spawn(self._poll(), name="incoming-calls")

    async def next(self, timeout: float | None = None) -> UTDCall | None:
        """The next call that rings, for this waiter alone.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            The call, or None when this was closed.

        Raises:
            UTDTimeoutError: none rang in time. Nothing changed.
        """
        if self._closed:
            return None
        self.start()
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        first = False
        while True:
            turn = await self._turn(until, timeout, first=first)
            if turn is None:
                return None
            try:
                call = await self._checked(turn)
            except BaseException:
                self._put_back(turn)
                raise
            if call is not None:
                return call
            # It no longer rang. The place in the line is not lost by that.
            first = True

    def give_back(self, call: UTDCall) -> None:
        """Offer a call again that `next` returned to somebody who is gone: an interrupted thread, a cancelled task."""
        self._put_back((call.call_id, asyncio.get_running_loop().time()))

    def listen(self, call_id: str, on_call: Callable[[UTDCall], None]) -> Callable[[], None]:
        """Hear every record of one call, as `CallFeed.listen`; returns a function that ends it."""
        return self._feed.listen(on_call, call_id=call_id)

    def inherit(self, before: IncomingCalls) -> None:
        """Go on where `before` is: the same identity has signed in again. No call is handed over twice, none is lost.

        Close `before` afterwards: whoever waits there comes here, in the same order.
        """
        self._known = before._known.copy()
        self._offered = before._offered.copy()
        self._queue = before._queue.copy()
        self.start()

    def close(self) -> None:
        """Listen no longer; whoever waits gets None. Idempotent."""
        self._closed = True
        if self._end is not None:
            self._end()
        if self._task is not None:
            self._task.cancel()
        self._queue.clear()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    # --- the line

    async def _turn(self, until: float | None, timeout: float | None, *, first: bool) -> tuple[str, float] | None:
        if self._closed:
            return None
        if self._queue:  # then nobody waits before this one
            return self._queue.popleft()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[tuple[str, float] | None] = loop.create_future()
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            # Not wait_for: cancelled at the wrong moment, it would take the result with it.
            await asyncio.wait([waiter], timeout=None if until is None else max(0.0, until - loop.time()))
        except BaseException:
            self._withdraw(waiter)
            raise
        if waiter.done():
            return waiter.result()
        self._withdraw(waiter)
        raise UTDTimeoutError(f"no call came within {timeout:g} s")

    def _withdraw(self, waiter: asyncio.Future[tuple[str, float] | None]) -> None:
        if waiter.done():
            if (turn := waiter.result()) is not None:
                self._put_back(turn)
        else:
            self._waiters.remove(waiter)
            waiter.cancel()

    def _put_back(self, turn: tuple[str, float]) -> None:
        if not self._closed:
            self._queue.appendleft(turn)
            self._serve()

    def _serve(self) -> None:
        while self._queue and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(self._queue.popleft())

    async def _checked(self, turn: tuple[str, float]) -> UTDCall | None:
        """The newest record of a call whose turn has come, or None when it no longer rings."""
        call_id, since = turn
        waited = asyncio.get_running_loop().time() - since
        if waited > self._timing.fresh and self._rings(call_id):
            try:
                self._feed.publish(
                    await self._portal.in_thread(partial(self._api.call, self._cred, call_id, deadline=5.0))
                )
            except UTDEngineError as error:
                if error.status_code == 404:
                    return None
            except UTDStreamException as error:
                # Who cannot ask cannot know that it is over; accept() will tell.
                log.debug("call %s could not be looked at: %s", call_id, error)
        return self._known.get(call_id) if self._rings(call_id) else None

    def _rings(self, call_id: str) -> bool:
        call = self._known.get(call_id)
        return call is not None and call.status in _OFFERED

    # --- what is heard

    def _heard(self, call: UTDCall) -> None:
        if call.callee_identity != self._cred.identity or self._closed:
            return
        known = self._known.get(call.call_id)
        if known is not None and not _newer(call, known):
            return
        self._known[call.call_id] = call
        self._known.move_to_end(call.call_id)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        if call.status not in _OFFERED:
            self._queue = deque(turn for turn in self._queue if turn[0] != call.call_id)
        elif call.call_id not in self._offered:
            self._offer(call)

    def _offer(self, call: UTDCall) -> None:
        self._offered[call.call_id] = None
        while len(self._offered) > _REMEMBERED:
            self._offered.popitem(last=False)
        dispatcher().emit(signals.incoming_call, self._sender, drop_ok=False, call=call)
        self._queue.append((call.call_id, asyncio.get_running_loop().time()))
        self._serve()
        while len(self._queue) > self._capacity:
            self._queue.popleft()
            self.dropped += 1

    # --- asking, where no socket tells

    async def _poll(self) -> None:
        """Ask for what rings: once when it is wanted, and again and again while there is no socket."""
        failures, turn = 0, 0
        if self._feed.offered:
            await self._wait(self._timing.socket_first)
        while True:
            if not self._feed.ready or self._look.is_set():
                # Two requests each time would be half of what the engine allows in a minute. New calls are initiating;
                # ringing ones, which another device of this identity saw first, are asked for less often.
                both = self._look.is_set() or turn % 3 == 0
                self._look.clear()
                turn += 1
                wait = 0.0
                try:
                    await self._ask(UTDCallStatus.INITIATING)
                    if both:
                        await self._ask(UTDCallStatus.RINGING)
                    failures = 0
                except UTDStreamException as error:
                    failures += 1
                    wait = error.retry_after or 0.0 if isinstance(error, UTDEngineError) else 0.0
                    level = logging.WARNING if failures == 1 else logging.DEBUG
                    log.log(level, "incoming calls cannot be asked for at the moment: %s", error)
                await asyncio.sleep(max(wait, self._pause(failures)))
            else:
                await self._wait(None)
                # Several reasons to look come together.
                await asyncio.sleep(random.uniform(0, 0.2))  # noqa: S311 - no secret

    async def _ask(self, status: UTDCallStatus) -> None:
        page = await self._portal.in_thread(
            partial(self._api.calls, self._cred, status=status, per_page=50, deadline=8.0)
        )
        # The oldest first: whoever called first is answered first, whatever order the engine lists them in.
        for call in sorted(page.calls, key=lambda c: c.initiated_at.timestamp() if c.initiated_at else 0.0):
            self._feed.publish(call)

    def _pause(self, failures: int) -> float:
        longest: float = min(self._timing.backoff, self._timing.poll * 2 ** min(failures, 10))
        return longest * random.uniform(0.75, 1)  # noqa: S311 - no secret

    async def _wait(self, seconds: float | None) -> None:
        """Until somebody asks for a look, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            pass


_RANK: Final = {UTDCallStatus.INITIATING: 0, UTDCallStatus.RINGING: 1, UTDCallStatus.ACTIVE: 2}


def _newer(call: UTDCall, known: UTDCall) -> bool:
    """By version; where an engine sends none, by the rank of the status (machines, law 3)."""
    if call.version is not None and known.version is not None:
        return call.version > known.version
    return _RANK.get(call.status, 3) > _RANK.get(known.status, 3)
