"""Drives the declared `Connection` machine: tries, rejoins, given-up tries, the 60 s of grace.

Loop thread only. It knows rooms and tickets, nothing of calls, sources or participants: whoever owns it is told each
step of the machine (`on_change`) and each event of the Room we are in (`on_event`).

Each try is a new Room and a new epoch; what an older Room says never comes through. A try is never cancelled, because
LiveKit's ``connect`` must not be (LiveKit fact 1): one that is no longer wanted is given up to a reaper, which awaits
it and disconnects it, and which outlives leaving and disposing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal, TypeAlias

from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.machines.base import Step, start
from utd_fsm.machines.connection import Connection
from utd_fsm.room import (
    Disconnected,
    LeaveReason,
    Reconnected,
    Reconnecting,
    Room,
    RoomEvent,
    RoomFactory,
    RoomOptions,
)
from utd_fsm.sessions.timing import Timing

_log = logging.getLogger("utd_fsm.connection")

TicketReason: TypeAlias = Literal["join", "retry", "rejoin"]
"""Why a ticket is asked for: the first try of a join, a later one, or a try to come back."""

Tickets: TypeAlias = Callable[[TicketReason], Awaitable[tuple[str, str]]]
"""Gives (url, token) for one try. May raise: a refusal ends the trying, anything else counts as a failed try."""

Look: TypeAlias = Callable[["LeaveReason | UTDStreamException"], Awaitable[None]]
"""What the owner does before a removal counts, for instance ask the engine what became of the call."""

_REMOVALS: Final = frozenset({LeaveReason.DUPLICATE_IDENTITY, LeaveReason.REMOVED, LeaveReason.ROOM_DELETED})
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429})


def is_refusal(error: UTDStreamException) -> bool:
    """Whether a try that failed so will fail again: the room, or the engine, will not have us.

    401, 403, 404 and the other answers that blame the request; not those that ask for patience, not a 5xx (a full room
    answers 500, and the next ticket asks the engine about it: LiveKit facts 25, 32).
    """
    if isinstance(error, (UTDPermissionError, UTDStateError, UTDInputError, UTDClosedError)):
        return True
    if isinstance(error, UTDEngineError) and error.status_code is not None:
        return 400 <= error.status_code < 500 and error.status_code not in _WORTH_ANOTHER_TRY
    return False


class ConnectionDriver:
    """One session's place in its room.

    Args:
        room_factory: makes a Room for each try.
        options: how rooms are joined.
        ticket: gives url and token for each try.
        on_change: told each step that changed the machine, after `room`, `age` and the timers are what they should
            be. Must not raise; may call `leave_now`.
        on_event: told each event of the Room we are in, except those the machine itself takes; and `Disconnected`
            when a look (see `before_removal`) begins, for the Room is dead by then. Must not raise.
        before_removal: awaited (`Timing.look` at most) before a removal becomes force_exit. Whoever leaves meanwhile
            is out without a force_exit having been shown.
        timing: seconds.
        auto_subscribe: whether tracks of others are subscribed at once.
    """

    def __init__(
        self,
        room_factory: RoomFactory,
        options: RoomOptions,
        *,
        ticket: Tickets,
        on_change: Callable[[Step], None],
        on_event: Callable[[RoomEvent], None],
        before_removal: Look | None = None,
        timing: Timing | None = None,
        auto_subscribe: bool = True,
    ) -> None:
        self.auto_subscribe = auto_subscribe
        self.age: float | None = None
        """Seconds since the drop, when connected was reached again; None after a first join."""
        self.removed_for: LeaveReason | UTDStreamException | None = None
        """Why the machine is in force_exit, where it was a removal; None after 60 s of absence."""
        self._factory = room_factory
        self._options = options
        self._ticket = ticket
        self._on_change = on_change
        self._on_event = on_event
        self._before_removal = before_removal
        self._timing = timing or Timing()
        self._machine = start(Connection)
        self._epoch = 0
        self._room: Room | None = None
        self._early: list[RoomEvent] = []
        self._trying: asyncio.Task[None] | None = None
        self._joining: asyncio.Future[None] | None = None
        self._stay: object = None
        self._looking: asyncio.Task[None] | None = None
        self._dropped_at: float | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._given_up: set[asyncio.Task[None]] = set()
        self._goodbyes: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------- what it is

    @property
    def state(self) -> str:
        """The machine's state."""
        return self._machine.state

    @property
    def public(self) -> str:
        """The state to show: rejoining shows reconnecting, closed shows disconnected."""
        return self._machine.public or "disconnected"

    @property
    def room(self) -> Room | None:
        """The Room we are in, also while LiveKit mends its link; None while there is none, or it is dead."""
        return self._room

    @property
    def epoch(self) -> int:
        """Which try this is; grows with each."""
        return self._epoch

    @property
    def given_up(self) -> int:
        """How many given-up tries still live; each may yet join, and then throw us out as a duplicate identity."""
        return len(self._given_up)

    @property
    def dropped_at(self) -> float | None:
        """Loop time at which the link broke; None unless away."""
        return self._dropped_at

    # ------------------------------------------------------------------------------------------------- intentions

    async def join(self) -> None:
        """Be in the room: three tries of 15 s, 500 ms apart, each a new Room.

        Cancelled, it gives up: the session has left.

        Raises:
            UTDStateError: already in or on the way, or left meanwhile.
            UTDClosedError: disposed, before or meanwhile.
            UTDPermissionError, UTDEngineError: refused; there was no further try.
            UTDConnectionError, UTDTimeoutError: the last of the tries failed so.
        """
        if self.state == "closed":
            raise UTDClosedError("the session is disposed; make a new one")
        step = self._machine.send("connect")
        stay = self._stay = object()
        joining = self._joining = asyncio.get_running_loop().create_future()
        self.removed_for = None
        self._changed(step)
        if self.state == "connecting":
            self._trying = asyncio.create_task(self._try_to_join(), name="utd-fsm-join")
        try:
            await asyncio.shield(joining)
        except asyncio.CancelledError:
            # Also when the join came home in this very moment: its caller will never know.
            if self._stay is stay:
                self.leave_now()
            raise

    def leave_now(self) -> None:
        """Out of the room, and no more tries; LiveKit's goodbye goes on in the background. Idempotent."""
        if self.state != "closed":
            self._out("leave", UTDStateError("left while joining; join again", state="disconnected", event="connect"))

    async def leave(self) -> None:
        """`leave_now`, and wait for LiveKit's goodbye (3 s at most; it goes on in the background)."""
        self.leave_now()
        await self._farewell()

    def dispose_now(self) -> None:
        """Out of the room for ever. Idempotent."""
        if self.state != "closed":
            self._out("dispose", UTDClosedError("disposed while joining"))

    async def dispose(self) -> None:
        """`dispose_now`, and wait for LiveKit's goodbye (3 s at most; it goes on in the background)."""
        self.dispose_now()
        await self._farewell()

    async def reaped(self) -> None:
        """Wait until no given-up try and no goodbye is under way any more. For tests and for a process's end."""
        while self._given_up or self._goodbyes:
            await asyncio.wait(self._given_up | self._goodbyes)

    # ------------------------------------------------------------------------------------------------------ tries

    async def _try_to_join(self) -> None:
        error: UTDStreamException | None = None
        for number in range(self._timing.tries):
            if number:
                await asyncio.sleep(self._timing.pause)
            error = await self._one_try("retry" if number else "join")
            if error is None:
                return
            if is_refusal(error):
                self._out("saw_removed", error)
                return
            self._machine.send("try_failed")
        assert error is not None
        self._out("tries_over", error)

    async def _try_to_rejoin(self) -> None:
        pause = self._timing.pause
        while True:
            error = await self._one_try("rejoin")
            if error is None:
                return
            if is_refusal(error):
                self._removed(error)
                return
            self._machine.send("try_failed")
            after = error.retry_after if isinstance(error, UTDEngineError) else None
            await asyncio.sleep(max(after or 0.0, pause * random.uniform(0.8, 1.2)))  # noqa: S311 - not a secret
            pause = min(pause * 2, self._timing.longest_pause)

    async def _one_try(self, reason: TicketReason) -> UTDStreamException | None:
        """One Room. None: we are in it. Otherwise why not. Cancelled or timed out, what is under way is given up."""
        self._epoch += 1
        early: list[RoomEvent] = []
        self._early = early
        deadline = asyncio.get_running_loop().time() + self._timing.attempt
        try:
            async with asyncio.timeout_at(deadline):
                url, token = await self._ticket(reason)
        except TimeoutError as error:
            if isinstance(error, UTDStreamException):
                return error
            return UTDTimeoutError("no room token within the time of a try; is the engine in reach?")
        except UTDStreamException as error:
            return error
        except Exception as error:  # noqa: BLE001 - a fault of a ticket's giver must not end the rejoining
            _log.exception("the ticket for a room could not be had")
            return UTDConnectionError(f"no room token could be had ({type(error).__name__})")
        try:
            room = self._factory(partial(self._heard, self._epoch), self._options)
        except Exception as error:  # noqa: BLE001 - a native library that cannot be loaded, above all
            _log.exception("a Room could not be made")
            return UTDConnectionError(f"the media client could not be started ({type(error).__name__}: {error})")
        connect = asyncio.create_task(
            room.connect(url, token, auto_subscribe=self.auto_subscribe), name="utd-fsm-connect"
        )
        try:
            # wait() leaves the task alone when it times out or is cancelled itself: connect is never cancelled.
            await asyncio.wait({connect}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            self._give_up(room, connect)
            raise
        if not connect.done():
            self._give_up(room, connect)
            return UTDTimeoutError(f"the media server did not let us in within {self._timing.attempt:g} s")
        failed = _outcome(connect)
        if failed is not None:
            self._say_goodbye(room)
            return failed
        self._joined(room, early)
        return None

    def _give_up(self, room: Room, connect: asyncio.Task[None]) -> None:
        reaper = asyncio.create_task(_reap(room, connect, self._timing.echo), name="utd-fsm-reaper")
        self._given_up.add(reaper)
        reaper.add_done_callback(self._given_up.discard)

    def _joined(self, room: Room, early: list[RoomEvent]) -> None:
        epoch, self._room, self._trying = self._epoch, room, None
        self._in_room()
        joining, self._joining = self._joining, None
        if joining is not None and not joining.done():
            joining.set_result(None)
        # What the Room said before we knew that we are in it, in its order.
        for event in early:
            self._heard(epoch, event)

    # ----------------------------------------------------------------------------------------------- observations

    def _heard(self, epoch: int, event: RoomEvent) -> None:
        if epoch != self._epoch:
            return
        if self._room is None:
            if self._trying is not None:
                self._early.append(event)
            return
        match event:
            case Reconnecting():
                if self._machine.can("saw_reconnecting"):
                    self._away("saw_reconnecting")
            case Reconnected():
                if self.state == "reconnecting":
                    self._in_room()
            case Disconnected(reason):
                self._room_over(reason)
            case _:
                self._on_event(event)

    def _in_room(self) -> None:
        dropped_at, self._dropped_at = self._dropped_at, None
        self.age = None if dropped_at is None else asyncio.get_running_loop().time() - dropped_at
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._changed(self._machine.send("saw_joined"))

    def _away(self, event: str) -> None:
        loop = asyncio.get_running_loop()
        if self._dropped_at is None:
            self._dropped_at = loop.time()
            self._grace = loop.call_later(self._timing.grace, self._grace_over)
        self._changed(self._machine.send(event))

    def _room_over(self, reason: LeaveReason) -> None:
        room, self._room = self._room, None
        self._epoch += 1
        if room is not None:
            self._say_goodbye(room)
        if reason is LeaveReason.ASKED:
            # Not asked by us, who would be deaf by now: the application did it, on the LiveKit object itself.
            self.leave_now()
        elif reason in _REMOVALS and not (reason is LeaveReason.DUPLICATE_IDENTITY and self._given_up):
            self._removed(reason)
        else:
            self._away("saw_dropped")
            if self.state == "rejoining":
                self._trying = asyncio.create_task(self._try_to_rejoin(), name="utd-fsm-rejoin")

    def _removed(self, why: LeaveReason | UTDStreamException) -> None:
        """The room will not have us. In a call that is first a look at the record: the engine deletes ended rooms."""
        if self._before_removal is None:
            self._force_exit("saw_removed", why)
            return
        self._trying = None
        if isinstance(why, LeaveReason):
            self._on_event(Disconnected(why))
        self._looking = asyncio.create_task(self._look_first(self._before_removal, why), name="utd-fsm-look")

    async def _look_first(self, look: Look, why: LeaveReason | UTDStreamException) -> None:
        try:
            async with asyncio.timeout(self._timing.look):
                await look(why)
        except Exception as error:  # noqa: BLE001 - whatever the look came to, the removal stands
            _log.info("the look before a removal failed: %s", type(error).__name__)
        self._force_exit("saw_removed", why)

    def _grace_over(self) -> None:
        self._grace = None
        self._force_exit("grace_over", None)

    def _force_exit(self, event: str, why: LeaveReason | UTDStreamException | None) -> None:
        if self._machine.can(event):
            self.removed_for = why
            self._out(event, None)

    # -------------------------------------------------------------------------------------------------------- out

    def _out(self, event: str, error: UTDStreamException | None) -> None:
        """Out of the room for good: nothing is tried, heard or waited for any more. ``error``: what `join` raises."""
        step = self._machine.send(event)
        room, self._room = self._room, None
        self._epoch += 1
        self._dropped_at = self.age = self._stay = None
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        tasks = (self._trying, self._looking)
        self._trying = self._looking = None
        for task in tasks:
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        # The sources stop before the goodbye, so that nothing is sent once the machine has left.
        self._changed(step)
        if room is not None:
            self._say_goodbye(room)
        joining, self._joining = self._joining, None
        if joining is not None and not joining.done() and error is not None:
            joining.set_exception(error)
            joining.exception()  # retrieved: its waiter may be gone

    def _say_goodbye(self, room: Room) -> None:
        goodbye = asyncio.create_task(_disconnect(room), name="utd-fsm-goodbye")
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)

    async def _farewell(self) -> None:
        if self._goodbyes:
            await asyncio.wait(self._goodbyes, timeout=self._timing.farewell)

    def _changed(self, step: Step) -> None:
        if step.changed:
            _log.debug("connection: %s, %s, %s", step.before, step.event, step.after)
            self._on_change(step)


def _outcome(connect: asyncio.Task[None]) -> UTDStreamException | None:
    if connect.cancelled():
        return UTDConnectionError("the try to join was cancelled from outside")
    error = connect.exception()
    if error is None or isinstance(error, UTDStreamException):
        return error
    _log.error("a Room's connect raised %s", type(error).__name__)
    return UTDConnectionError(f"the media server could not be joined ({type(error).__name__})")


async def _disconnect(room: Room) -> None:
    try:
        await room.disconnect()
    except Exception as error:  # noqa: BLE001 - nobody is left who could do anything about it
        _log.warning("leaving a room failed: %s", type(error).__name__)


async def _reap(room: Room, connect: asyncio.Task[None], echo: float) -> None:
    await asyncio.wait({connect})
    joined = not connect.cancelled() and connect.exception() is None
    await _disconnect(room)
    if joined:
        # It threw our own Room out if there was one; that Room may hear of it after this one's goodbye.
        await asyncio.sleep(echo)
