"""Two devices of a callee and a caller, real sessions on rooms in memory, under whatever a network can do.

Hypothesis decides which request reaches the engine, which is lost, whose answer is lost, which is applied long after
its sender gave up, and which record is heard when, again, or never. Time is virtual. After every step the statuses
shown must be a path of the engine's record; at the end, once the network heals, everybody agrees with the engine, or
says that it could not be asked.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from utd_fsm.errors import UTDConnectionError, UTDStreamException
from utd_fsm.machines import CallRecord, table
from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType
from utd_fsm.sessions.call import CallSession
from utd_fsm.sessions.call_driver import CallTiming
from utd_fsm.sessions.timing import Timing

from .memory_engine import Device, MemoryEngine
from .scripted import LoopPortal


class _Clock(selectors.DefaultSelector):
    """A selector that never sleeps: what it would have slept, the clock is put forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events and timeout is None:
            raise AssertionError("everybody waits for somebody else")
        if not events and timeout:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when there is nothing else to do."""

    def __init__(self) -> None:
        self.clock = _Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


@dataclass(eq=False)
class Request:
    """One request on its way."""

    device: str
    verb: str
    apply: Callable[[], Any]
    answer: asyncio.Future[Any]

    def refuse(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(UTDConnectionError(f"{self.verb}: no answer", outcome_known=False))
            self.answer.exception()

    def deliver(self, *, answered: bool) -> None:
        try:
            result = self.apply()
        except UTDStreamException as error:
            if answered and not self.answer.done():
                self.answer.set_exception(error)
                self.answer.exception()
        else:
            if answered and not self.answer.done():
                self.answer.set_result(result)
        if not answered:
            self.refuse()


class HostileDevice(Device):
    """Its requests wait until the test says what becomes of them."""

    pending: list[Request]

    async def _ask(self, verb: str, do: Callable[[], Any]) -> Any:
        request = Request(self.device_id, verb, do, asyncio.get_running_loop().create_future())
        self.pending.append(request)
        return await request.answer


REACH: dict[str, set[str]] = {state.id: set() for state in CallRecord.states}
for (_source, _event), _target in table(CallRecord).items():
    REACH[_source].add(_target)
for _ in REACH:
    for _source in REACH:
        for _target in tuple(REACH[_source]):
            REACH[_source] |= REACH[_target]

PARTIES = ("a1", "b1", "b2")
WHICH = st.sampled_from(PARTIES)
ANY = st.integers(0, 10_000)


class CallWalk(RuleBasedStateMachine):
    """The world, and what may happen in it."""

    @initialize()
    def begin(self) -> None:
        self.loop = VirtualLoop()
        self.shown: dict[str, list[str]] = {name: [] for name in PARTIES}
        self.history: dict[str, list[UTDCall]] = {}
        self.ghosts: list[Request] = []
        self.pending: list[Request] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.ids: list[str] = []
        self.faults: list[BaseException] = []
        self.gave_up = False
        self.loop.run_until_complete(self._build())

    async def _build(self) -> None:
        self.engine = MemoryEngine(paced=True)
        self.engine.pushing = False
        self.engine.push = self._said  # type: ignore[method-assign]
        self.engine.pushing = True
        self.sessions: dict[str, CallSession] = {}
        for name, identity in (("a1", "alice"), ("b1", "bob"), ("b2", "bob")):
            device = HostileDevice(self.engine, identity, name)
            device.pending = self.pending
            session = CallSession(
                UTDStreamType.AUDIO_CALL,
                engine=device,
                watch=device.watch,
                call_timing=CallTiming(out_of_reach=8.0),
                identity=identity,
                room_factory=self.engine.media.room_factory,
                timing=Timing(),
                portal_=LoopPortal(),
            )
            self._watch_status(name, session)
            self.sessions[name] = session

    def _watch_status(self, name: str, session: CallSession) -> None:
        change = session.status.set

        def set_(value: UTDCallStatus | None, **extra: Any) -> bool:
            changed = change(value, **extra)
            if session._driver is not None and session._driver.view.state == "lost":
                self.gave_up = True  # nobody could be asked for long enough: a call may be left behind
            if changed:
                self.shown[name] = [*self.shown[name], value.value] if value else []
            return changed

        session.status.set = set_  # type: ignore[method-assign]

    def _said(self, record: UTDCall) -> None:
        """What the engine says is not heard by itself; it can be heard from now on, at any time."""
        self.history.setdefault(record.call_id, []).append(record)

    # ------------------------------------------------------------------------------------------------------ helpers

    def _run(self, seconds: float = 0.0, first: Callable[[], object] = lambda: None) -> None:
        """Do something on the loop, and let everything that follows from it happen."""

        async def turn() -> None:
            first()
            for _ in range(30):
                await asyncio.sleep(0)
            if seconds:
                await asyncio.sleep(seconds)

        self.loop.run_until_complete(turn())

    def _verb(self, method: Any, *args: Any) -> None:
        async def act() -> None:
            try:
                await method.__self__.perform(method, *args)
            except UTDStreamException:
                pass
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.faults.append(error)
                raise

        async def start() -> None:
            self.tasks.append(asyncio.ensure_future(act()))

        self.loop.run_until_complete(start())
        self._run()

    def _tell(self, record: UTDCall) -> None:
        for watcher in tuple(self.engine.watchers[record.call_id]):
            watcher(record)

    def _tell_everybody(self) -> None:
        for call_id in list(self.engine.watchers):
            self._tell(self.engine.truth(call_id))

    def _take(self, where: list[Request], n: int) -> Request:
        return where.pop(n % len(where))

    def _call_ids(self) -> list[str]:
        return list(self.history) or [record.call_id for record in self.engine.open_calls()]

    # -------------------------------------------------------------------------------------------------------- rules

    @rule()
    def start(self) -> None:
        self._verb(self.sessions["a1"].start, "bob")

    @rule(who=WHICH)
    def end(self, who: str) -> None:
        self._verb(self.sessions[who].end)

    @precondition(lambda self: self._call_ids())
    @rule(who=st.sampled_from(("b1", "b2")), what=st.sampled_from(("ringing", "accept", "reject", "busy")), n=ANY)
    def answer(self, who: str, what: str, n: int) -> None:
        ids = self._call_ids()
        self._verb(getattr(self.sessions[who], what), ids[-1 - n % min(2, len(ids))])

    @precondition(lambda self: self.pending)
    @rule(n=ANY)
    def arrives(self, n: int) -> None:
        self._run(first=lambda: self._take(self.pending, n).deliver(answered=True))

    @rule()
    def all_is_well_for_a_while(self) -> None:
        for _ in range(3):
            while self.pending:
                self._run(first=lambda: self.pending.pop(0).deliver(answered=True))
            self._run(first=self._tell_everybody)

    @precondition(lambda self: any(not task.done() for task in self.tasks))
    @rule(n=ANY)
    def interrupted(self, n: int) -> None:
        """A caller stops waiting: a timeout, or Ctrl-C."""
        running = [task for task in self.tasks if not task.done()]
        self._run(first=lambda: running[n % len(running)].cancel())

    @precondition(lambda self: self.pending)
    @rule(n=ANY)
    def request_lost(self, n: int) -> None:
        self._run(first=lambda: self._take(self.pending, n).refuse())

    @precondition(lambda self: self.pending)
    @rule(n=ANY)
    def answer_lost(self, n: int) -> None:
        self._run(first=lambda: self._take(self.pending, n).deliver(answered=False))

    @precondition(lambda self: self.pending)
    @rule(n=ANY)
    def given_up(self, n: int) -> None:
        request = self._take(self.pending, n)
        request.refuse()
        self.ghosts.append(request)
        self._run()

    @precondition(lambda self: self.ghosts)
    @rule(n=ANY)
    def ghost_arrives(self, n: int) -> None:
        self._run(first=lambda: self._take(self.ghosts, n).deliver(answered=False))

    @precondition(lambda self: self.history)
    @rule(which=ANY, n=ANY)
    def heard(self, which: int, n: int) -> None:
        """Any record that was ever said, by anybody who follows that call."""
        call_id = list(self.history)[which % len(self.history)]
        record = self.history[call_id][n % len(self.history[call_id])]
        self._run(first=lambda: self._tell(record))

    @precondition(lambda self: self.engine.open_calls())
    @rule(event=st.sampled_from(("ring_timeout", "cut")))
    def engine_acts(self, event: str) -> None:
        record = self.engine.open_calls()[0]
        calls = self.engine.calls
        if event == "cut":
            self._run(first=lambda: self.engine.by_itself(lambda: calls.cut(record.call_id, "connection_lost")))
        else:
            self._run(first=lambda: self.engine.by_itself(lambda: calls.ring_timeout(record.call_id)))

    @rule(seconds=st.sampled_from((0.3, 2.0, 9.0)))
    def time_passes(self, seconds: float) -> None:
        self._run(seconds)

    # -------------------------------------------------------------------------------------------------- what holds

    @invariant()
    def nothing_broke(self) -> None:
        if hasattr(self, "faults"):
            assert not self.faults

    @invariant()
    def what_is_shown_is_a_path(self) -> None:
        for name, statuses in getattr(self, "shown", {}).items():
            for before, after in pairwise(statuses):
                assert after in REACH[before] or after == "ended", (name, statuses)

    @invariant()
    def one_device_at_most_believes_that_it_answered(self) -> None:
        sessions = getattr(self, "sessions", {})
        drivers = [session._driver for name, session in sessions.items() if name != "a1"]
        active = [driver.call_id for driver in drivers if driver is not None and driver.view.state == "active"]
        assert len(active) == len(set(active))

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self._heal()
            self._agree()
        finally:
            self._close()

    def _heal(self) -> None:
        """The network works again: everything arrives, and everybody hears the newest."""
        for _ in range(60):
            while self.pending:
                self._run(first=lambda: self.pending.pop(0).deliver(answered=True))
            self._run(1.0, first=self._tell_everybody)
            if not self.pending and all(task.done() for task in self.tasks) and not self._anybody_pending():
                return
        raise AssertionError(f"never settles: {[self._state(name) for name in PARTIES]}")

    def _anybody_pending(self) -> bool:
        drivers = [session._driver for session in self.sessions.values()]
        return any(driver is not None and driver.view.is_pending for driver in drivers)

    def _state(self, name: str) -> str:
        driver = self.sessions[name]._driver
        return f"{name}: {driver.view.state} {driver.call_id}" if driver else f"{name}: none"

    def _agree(self) -> None:
        caller = self.sessions["a1"]._driver
        followed = {caller.call_id} if caller is not None and not caller.view.is_final else set()
        for record in self.engine.open_calls():
            assert record.call_id in followed or self.gave_up, f"nobody knows of {record}"
        for name, session in self.sessions.items():
            driver = session._driver
            if driver is None or driver.call_id is None or driver.view.state in ("idle", "lost"):
                continue
            truth = self.engine.truth(driver.call_id)
            state = driver.view.state
            if state == "elsewhere":
                assert truth.answered_by != name, self._state(name)
                continue
            if state in ("initiating", "ringing") and not session._mine:
                continue  # it rang once and follows no more
            assert state == truth.status.value, (self._state(name), truth)
            if state == "active":
                assert name == "a1" or truth.answered_by == name
            if truth.status.is_terminal:
                room = self.engine.media.rooms.get(driver.call_id)
                assert room is None or not room.seats, "somebody is still in the room of a finished call"

    def _close(self) -> None:
        async def close() -> None:
            for session in self.sessions.values():
                task = asyncio.ensure_future(session.perform(session.dispose))
                for _ in range(1000):
                    if task.done():
                        break
                    while self.pending:
                        self.pending.pop(0).deliver(answered=True)
                    await asyncio.sleep(0.1)
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.loop.run_until_complete(close())
        self.engine.close()
        self.loop.close()


TestCallWalk = CallWalk.TestCase
TestCallWalk.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
