"""One call as one party follows it: the view's machine, the requests its pending states stand for, and how they end.

Knows the engine and nothing of media. Everything here runs on the loop thread; the machine is stepped nowhere else.
The rules are the laws of the machines (docs/machines.md): an observation passes through one fold, whichever channel it
came by; a request is over as yes, no or unknown, and the same follows; hanging up is the one wish that does not fall
back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from uuid import UUID, uuid5

from utd_fsm import wire
from utd_fsm.errors import (
    UTDConflictError,
    UTDConnectionError,
    UTDEngineError,
    UTDProtocolError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.machines import IncomingCall, OutgoingCall, start
from utd_fsm.models import UTDCall, UTDCallStatus, UTDCallTicket, UTDStreamType
from utd_fsm.observe import Contradiction, Order, Party, Snapshot, fold, request_over, snapshot_of

if TYPE_CHECKING:
    from utd_fsm.machines import Runner

log = logging.getLogger("utd_fsm.call")

_KEYS = UUID("5f0c1b6e-8f0e-5c39-9d55-3a0f1e0c7a11")
"""The namespace in which an application's idempotency key is a uuid. Never change it: a task may be redelivered."""


Outcome: TypeAlias = "tuple[UTDCallTicket | None, UTDStreamException | None]"


class CallEngine(Protocol):
    """What a call asks of the engine, for one signed-in device. Every method may raise any `UTDStreamException`.

    A key makes a request safe to repeat and seals what was sent before it (wire contract, conventions).
    """

    device_id: str

    async def create(
        self, callee: str, type: UTDStreamType, *, callee_name: str | None, metadata: Mapping[str, Any] | None, key: str
    ) -> UTDCallTicket: ...
    async def ring(self, call_id: str) -> UTDCall: ...
    async def accept(self, call_id: str, *, key: str) -> UTDCallTicket: ...
    async def reject(self, call_id: str, *, key: str) -> UTDCall: ...
    async def busy(self, call_id: str, *, key: str) -> UTDCall: ...
    async def end(self, call_id: str, *, key: str) -> UTDCall: ...
    async def look(self, call_id: str, *, key: str | None = None) -> UTDCall: ...
    async def find(self, key: str) -> UTDCall | None: ...
    async def rejoin(self, call_id: str) -> UTDCallTicket: ...


class Tasks(Protocol):
    """Where background work is put so that it outlives the caller that caused it (the portal)."""

    def spawn(self, coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...


@dataclass(frozen=True, slots=True)
class CallTiming:
    """Seconds; shortened by tests."""

    out_of_reach: float = 60.0
    """How long an engine that nobody can ask is waited for before the view gives up."""
    retry_first: float = 0.25
    retry_most: float = 5.0


def is_unknown(error: BaseException) -> bool:
    """Whether the engine may have applied the request that ended so: lost answers, and 5xx."""
    if isinstance(error, UTDConnectionError | UTDTimeoutError):
        return not error.outcome_known
    if isinstance(error, UTDEngineError):
        return error.status_code is None or error.status_code >= 500
    return isinstance(error, UTDProtocolError) or not isinstance(error, UTDStreamException)


class CallDriver:
    """Drives one `OutgoingCall` or `IncomingCall`.

    Args:
        tasks: keeps what goes on in the background.
        engine: asks on behalf of this device.
        role: which party this is.
        on_change: called on the loop thread after each change of state or record; may not raise, may not block.
        call_id: known from the start for the callee.
    """

    def __init__(
        self,
        tasks: Tasks,
        engine: CallEngine,
        role: Party,
        *,
        on_change: Callable[[CallDriver], None],
        call_id: str | None = None,
        timing: CallTiming | None = None,
    ) -> None:
        self._tasks = tasks
        self._engine = engine
        self._on_change = on_change
        self._timing = timing or CallTiming()
        self._order = Order()
        self._create_key: str | None = None
        self._untold: list[UTDStreamException] = []
        self._decline_with = "reject"
        self._won = False
        self._settling: asyncio.Task[None] | None = None
        self._requesting: asyncio.Task[Outcome] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.role: Party = role
        self.call_id = call_id
        self.record: UTDCall | None = None
        self.known: Snapshot | None = None
        self.reason: str | None = None
        """Why this side ended it, where that says more than the engine's reason."""
        self.view: Runner[Any] = start(OutgoingCall if role == "caller" else IncomingCall)
        self.final: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the view is final, or (an error) when there is no call after all."""
        self.answered: asyncio.Future[UTDCallStatus] = asyncio.get_running_loop().create_future()
        """What answered the caller first: ACTIVE or a terminal status; an error when there is no call after all."""
        self.misheard: asyncio.Future[UTDProtocolError] = asyncio.get_running_loop().create_future()
        """Done when the next answer to end, reject or busy is malformed. Ending goes on all the same."""
        self.refused: UTDStreamException | None = None
        """Why the engine does not let this party end the call."""
        self.ticket: UTDCallTicket | None = None

    # ------------------------------------------------------------------ what it shows

    @property
    def status(self) -> UTDCallStatus | None:
        """What the application is shown; never ahead of the engine."""
        shown = self.view.public
        return UTDCallStatus(shown) if shown else None

    @property
    def end_reason(self) -> str | None:
        """Why it ended: this side's reason where it knows better, else the engine's."""
        if not self.view.is_final:
            return None
        if self.view.state == "elsewhere":
            return "answered_elsewhere"
        if self.reason:
            return self.reason
        if self.view.state == "lost":
            return "unreachable"
        return self.record.end_reason if self.record else None

    def snapshot(self) -> UTDCall | None:
        """The record as this party shows it: the engine's newest, with the status and reason shown."""
        if self.record is None:
            return None
        status = self.status or self.record.status
        return replace(self.record, status=status, end_reason=self.end_reason or self.record.end_reason)

    # ------------------------------------------------------------------ intentions

    async def dial(
        self,
        callee: str,
        type: UTDStreamType,
        *,
        callee_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> UTDCallTicket | None:
        """Create the call.

        Returns:
            The way into its room; None where the callee is busy.

        Raises:
            UTDStreamException: the engine refused (the view is idle again), or its answer is unknown: the view is
                then withdrawing, and ends the call should it exist.
        """
        # A key of its own: an application's key may be used by another process, whose verbs count from 1 as well.
        # The engine knows keys as uuids: any text an application has is one, always the same.
        self._create_key = Order(str(uuid5(_KEYS, key)) if key is not None else None).next()
        self._step("dial")
        self._requesting = self._tasks.spawn(
            _outcome(self._create(callee, type, callee_name, metadata)), name="utd-create"
        )
        return await self._follow_request()

    async def _create(
        self, callee: str, type: UTDStreamType, callee_name: str | None, metadata: Mapping[str, Any] | None
    ) -> UTDCallTicket | None:
        assert self._create_key is not None
        try:
            ticket = await self._engine.create(
                callee, type, callee_name=callee_name, metadata=metadata, key=self._create_key
            )
        except UTDConflictError as error:
            if error.code in (None, wire.CALLEE_BUSY):
                self._step("saw_busy")
                return None
            self._over(None)
            raise
        except BaseException as error:
            if is_unknown(error):
                self.hang_up()
            else:
                self._over(None)
            raise
        self.ticket = ticket
        self.observe(ticket.call)
        return ticket

    async def accept(self) -> UTDCallTicket:
        """Answer the call on this device.

        Raises:
            UTDStateError: not offered (any more): cancelled, missed, or answered elsewhere; ``state`` is the engine's.
            UTDStreamException: refused, or unknown: the view is then ending, and gives back what it may have won.
        """
        self._step("accept")
        self._requesting = self._tasks.spawn(_outcome(self._accept()), name="utd-accept")
        ticket = await self._follow_request()
        assert ticket is not None
        return ticket

    async def _accept(self) -> UTDCallTicket:
        assert self.call_id is not None
        try:
            ticket = await self._engine.accept(self.call_id, key=self._order.next())
            self._won = True
            self.observe(ticket.call)
            if self.view.state == "accepting":
                said = ticket.call.status.value
                wire.malformed(f"POST {wire.CALL_ACCEPT}".replace("{id}", ":id"), "status", f"accepted, and {said}")
        except UTDProtocolError:
            # It was answered, so that nothing is under way any more: what a look says is what became of it.
            record = await self._try_look()
            if record is None or self._is_ours(record):
                self.hang_up()
            else:
                self._over(record)
            raise
        except BaseException as error:
            if is_unknown(error):
                self.hang_up()
            else:
                self._over(await self._try_look())
                if isinstance(error, UTDStateError) and self.record is not None:
                    error.state = "answered_elsewhere" if self.view.state == "elsewhere" else self.record.status.value
            raise
        self.ticket = ticket
        return ticket

    def _is_ours(self, record: UTDCall) -> bool:
        """Whether this device has answered it."""
        return snapshot_of(record, self._engine.device_id, self.role, won=True).standing == "active"

    async def _follow_request(self) -> UTDCallTicket | None:
        """Wait for the request under way. Whoever stops waiting hangs up; the request itself is never torn apart."""
        assert self._requesting is not None
        try:
            ticket, error = await asyncio.shield(self._requesting)
        except asyncio.CancelledError:
            self.hang_up()
            raise
        if error is not None:
            raise error
        return ticket

    async def ring(self) -> UTDCall:
        """Tell the engine that this device rings. No wish: nothing that is legal changes while it is under way."""
        assert self.call_id is not None
        try:
            record = await self._engine.ring(self.call_id)
        except (UTDEngineError, UTDProtocolError):
            looked = await self._try_look()
            if looked is not None:
                self.observe(looked)
            raise
        self.observe(record)
        return record

    def hang_up(self, reason: str | None = None) -> bool:
        """The person is gone. Media is the session's to take down, at once; the engine is told until it agrees.

        Returns:
            Whether there was anything to hang up.
        """
        if not self.view.can("hang_up"):
            return False
        self.reason = reason or self.reason
        self._step("hang_up")
        return True

    def decline(self, verb: str) -> None:
        """Reject, or say busy. Told until the engine agrees.

        Raises:
            UTDStateError: nothing is offered.
        """
        self._decline_with = verb
        self._step("decline")

    # ------------------------------------------------------------------ observations

    def observe(self, record: UTDCall) -> None:
        """Fold what somebody said about this call, whichever way it came. Never raises."""
        if self.call_id is not None and record.call_id != self.call_id:
            return
        before = self.view.state
        snapshot = snapshot_of(record, self._engine.device_id, self.role, won=self._won)
        try:
            known = fold(self.view, self.known, snapshot)
        except Contradiction as contradiction:
            log.warning("call %s: %s", record.call_id, contradiction)
            self.look_soon()
            return
        except UTDProtocolError as error:
            log.warning("call %s: %s", record.call_id, error)
            return
        self._learn(record, known)
        self._moved(before)

    def _learn(self, record: UTDCall, known: Snapshot | None) -> None:
        if known is not self.known or self.record is None:
            self.known = known
            self.record = record
            self.call_id = record.call_id
            while self._untold:
                self._untold.pop().call_id = record.call_id

    def tell_call(self, error: UTDStreamException) -> None:
        """Say in `error` which call it was about: at once, or when the engine has told its id. Any thread."""
        if error.call_id is None:
            if self.call_id is None and not self.view.is_final and self.view.state != "idle":
                self._untold.append(error)
            error.call_id = self.call_id

    def _over(self, heard: UTDCall | None) -> None:
        """The request is over and the engine has been heard since."""
        before = self.view.state
        snapshot = None
        if heard is not None:
            snapshot = snapshot_of(heard, self._engine.device_id, self.role, won=self._won)
        try:
            known = request_over(self.view, self.known, snapshot)
        except UTDProtocolError as error:
            log.warning("call %s: %s", self.call_id, error)
            self.look_soon()
            return
        if heard is not None:
            self._learn(heard, known)
        self._moved(before)

    def look_soon(self) -> None:
        """One look at the engine, unless one is under way."""
        if self.call_id is None or self.view.is_final or (self._looking and not self._looking.done()):
            return
        self._looking = self._tasks.spawn(self._look(), name="utd-look")

    async def _look(self) -> None:
        record = await self._try_look()
        if record is not None:
            self.observe(record)

    async def look(self) -> None:
        """Ask the engine, now, and fold what it says.

        Raises:
            UTDStreamException: it could not be asked.
        """
        assert self.call_id is not None
        self.observe(await self._engine.look(self.call_id))

    async def _try_look(self) -> UTDCall | None:
        assert self.call_id is not None
        try:
            return await self._engine.look(self.call_id, key=self._order.next())
        except UTDStreamException as error:
            log.info("call %s: the engine could not be asked: %s", self.call_id, error)
            return None

    # ------------------------------------------------------------------ steps and what follows from them

    def _step(self, event: str) -> None:
        before = self.view.state
        self.view.send(event)
        self._moved(before)

    def _moved(self, before: str) -> None:
        state = self.view.state
        if state != before and state in ("ending", "withdrawing") and self._settling is None:
            self._settling = self._tasks.spawn(self._settle(), name="utd-hang-up")
        self._on_change(self)
        status = self.status
        if status is not None and (status is UTDCallStatus.ACTIVE or status.is_terminal) and not self.answered.done():
            self.answered.set_result(status)
        if self.view.is_final and not self.final.done():
            self.final.set_result(None)
        if before in ("dialing", "withdrawing") and state == "idle":
            self._abandon()

    def _abandon(self) -> None:
        """There is no call after all: the engine refused the create, or never saw it."""
        self.drop(lambda: UTDStateError("there is no call: the engine did not take it", state="idle"))

    def drop(self, error: Callable[[], UTDStreamException]) -> None:
        """Nobody shows this call any more: whoever still waits for something of it is told why."""
        for future in (self.answered, self.final):
            if not future.done():
                future.set_exception(error())
                future.exception()  # whoever waits is told; nobody has to

    async def _settle(self) -> None:
        """Tell the engine that the person is gone, until it agrees, or for a minute has told nothing of the call."""
        loop = asyncio.get_running_loop()
        reached = loop.time()
        delay = self._timing.retry_first
        while self.view.state in ("ending", "withdrawing"):
            try:
                await (self._withdraw() if self.view.state == "withdrawing" else self._tell_end())
                reached = loop.time()
            except UTDStreamException as error:
                log.info("call %s: ending it: %s", self.call_id, error)
                if error.status_code in (403, 404):  # no affair of ours: asking again changes nothing
                    self.refused = error
                    self._step("give_up")
                elif error.status_code == 429:
                    reached = loop.time()  # it asks for patience; any other refusal is no answer either
            if self.view.state not in ("ending", "withdrawing"):
                break
            if loop.time() - reached >= self._timing.out_of_reach:
                self._step("give_up")
                break
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
            delay = min(delay * 2, self._timing.retry_most)
        self._settling = None

    async def _withdraw(self) -> None:
        """Hung up while the create was under way: find out whether there is a call, then end it."""
        request, key = self._requesting, self._create_key
        if request is not None and not request.done():
            await asyncio.wait({request})
            return
        assert key is not None
        found = await self._engine.find(key)
        if self.view.state != "withdrawing":
            return
        if found is None:
            self._over(None)
        else:
            self.observe(found)

    async def _tell_end(self) -> None:
        assert self.call_id is not None
        verb = self._ending_verb()
        request = {"end": self._engine.end, "reject": self._engine.reject, "busy": self._engine.busy}[verb]
        try:
            answer = await request(self.call_id, key=self._order.next())
        except UTDProtocolError as error:
            # Whoever asked is told; what became of it, a look says. Otherwise it is sent again.
            looked = await self._try_look()
            misheard, self.misheard = self.misheard, asyncio.get_running_loop().create_future()
            misheard.set_result(error)
            if looked is None:
                raise
            answer = looked
        except UTDEngineError as error:
            if is_unknown(error) or error.status_code == 429:
                raise
            # Refused: somebody was faster. What the engine says now decides what is sent next, or that it is over.
            answer = await self._engine.look(self.call_id, key=self._order.next())
        self._over(answer)

    def _ending_verb(self) -> str:
        """Before the answer a callee never sends end: it would end the call its other device has just answered."""
        if self.role == "caller" or (self.known is not None and self.known.standing == "active"):
            return "end"
        return self._decline_with


async def _outcome(request: Coroutine[Any, Any, UTDCallTicket | None]) -> Outcome:
    """What a request came to, as a value: whoever asked may have stopped waiting, and a refusal is no fault of ours."""
    try:
        return await request, None
    except UTDStreamException as error:
        return None, error
