"""A host and two viewers of a live stream, real sessions on rooms in memory, under whatever a network can do.

Hypothesis decides which request reaches the engine, which is lost, whose answer is lost, which is applied long after
its sender gave up; which version of the room's metadata is heard when, again, or never; when a grant comes; who drops.
Time is virtual. After every step whoever is not on stage sends nothing, and what has ended stays ended; at last, once
the network heals, everybody agrees with the engine's books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from utd_fsm import room_wire as rw
from utd_fsm.errors import UTDConnectionError, UTDStreamException
from utd_fsm.local.engine.stage_rules import standing
from utd_fsm.models import UTDStreamType, UTDTrackSource
from utd_fsm.room_models import UTDBroadcast
from utd_fsm.sessions.live_stream import LiveStreamSession
from utd_fsm.sessions.timing import Timing

from .room_engine import RoomEngine
from .room_world import Person
from .scripted import LoopPortal
from .test_call_walk import VirtualLoop

STREAM = UTDStreamType.LIVE_STREAM
VIEWERS = ("ann", "bob")
EVERYBODY = ("host", *VIEWERS)
ANY = st.integers(0, 10_000)
VIEWER = st.sampled_from(VIEWERS)
WHO = st.sampled_from(EVERYBODY)
ENDED = UTDBroadcast.ENDED


@dataclass(eq=False)
class Request:
    """One request on its way."""

    who: str
    verb: str
    apply: Callable[[], Any]
    answer: asyncio.Future[Any]

    def refuse(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(UTDConnectionError(f"{self.verb}: no answer", outcome_known=False))
            self.answer.exception()

    def deliver(self, *, answered: bool = True) -> None:
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


class HostilePerson(Person):
    """Its requests wait until the test says what becomes of them; while ``easy``, they simply arrive."""

    pending: list[Request]
    easy = True

    async def carry(self, verb: str, request: Callable[[], Any]) -> Any:
        if self.easy:
            return await super().carry(verb, request)
        on_its_way = Request(self.identity, verb, request, asyncio.get_running_loop().create_future())
        self.pending.append(on_its_way)
        return await on_its_way.answer


class StreamWalk(RuleBasedStateMachine):
    """The world, and what may happen in it."""

    @initialize()
    def begin(self) -> None:
        self.loop = VirtualLoop()
        self.pending: list[Request] = []
        self.ghosts: list[Request] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.faults: list[BaseException] = []
        self.over: set[str] = set()
        """Who has seen the end in its present stay."""
        self.excused: set[str] = set()
        """Who waited 60 s for the host: it saw an end that the engine may not have seen."""
        self.loop.run_until_complete(self._build())

    async def _build(self) -> None:
        self.engine = RoomEngine(paced=True)
        self.sessions: dict[str, LiveStreamSession] = {}
        for identity in EVERYBODY:
            person = HostilePerson(self.engine, identity, "room", STREAM)
            person.pending = self.pending
            session = LiveStreamSession(
                engine_room=person,
                as_host=identity == "host",
                identity=identity,
                room_factory=self.engine.media.room_factory,
                timing=Timing(),
                portal_=cast("Any", LoopPortal()),
            )
            self.sessions[identity] = session
            await session.perform(session.join)
            person.easy = False
        await asyncio.sleep(0.1)
        self.engine.telling = self.engine.granting = False

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
        for name, session in self.sessions.items():
            air = session._air
            if air is not None and air.is_over and air.live is not ENDED:
                self.excused.add(name)

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

    def _take(self, where: list[Request], n: int) -> Request:
        return where.pop(n % len(where))

    # -------------------------------------------------------------------------------------------------------- rules

    @rule(what=st.sampled_from(("go_live", "end_live")))
    def host_acts(self, what: str) -> None:
        host = self.sessions["host"]
        self._verb(getattr(host, what), *((False,) if what == "go_live" else ()))

    @rule(what=st.sampled_from(("invite_to_stage", "remove_from_stage")), whom=VIEWER)
    def host_moderates(self, what: str, whom: str) -> None:
        self._verb(getattr(self.sessions["host"], what), whom)

    @rule(who=VIEWER, what=st.sampled_from(("request_stage", "lower_hand", "leave_stage", "leave", "join")))
    def viewer_acts(self, who: str, what: str) -> None:
        self._verb(getattr(self.sessions[who], what))

    @rule(who=WHO, on=st.booleans())
    def microphone(self, who: str, on: bool) -> None:
        self._verb(self.sessions[who].set_microphone, on)

    @precondition(lambda self: self.pending)
    @rule(n=ANY)
    def arrives(self, n: int) -> None:
        self._run(first=lambda: self._take(self.pending, n).deliver())

    @rule()
    def all_is_well_for_a_while(self) -> None:
        for _ in range(3):
            while self.pending:
                self._run(first=lambda: self.pending.pop(0).deliver())
            self._run(0.2, first=self.engine.put_right)

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
        if request.verb != "room_token":  # nobody comes in by a token that nobody got
            self.ghosts.append(request)
        self._run()

    @precondition(lambda self: self.ghosts)
    @rule(n=ANY)
    def ghost_arrives(self, n: int) -> None:
        self._run(first=lambda: self._take(self.ghosts, n).deliver(answered=False))

    @precondition(lambda self: any(not task.done() for task in self.tasks))
    @rule(n=ANY)
    def interrupted(self, n: int) -> None:
        """A caller stops waiting: a timeout, or Ctrl-C."""
        running = [task for task in self.tasks if not task.done()]
        self._run(first=lambda: running[n % len(running)].cancel())

    @precondition(lambda self: self.engine.written["room"])
    @rule(n=ANY)
    def heard(self, n: int) -> None:
        """Any version of the metadata that was ever written."""
        written = len(self.engine.written["room"])
        self._run(first=lambda: self.engine.tell(index=n % written))

    @rule(n=ANY)
    def newest_is_heard(self, n: int) -> None:
        self._run(first=self.engine.tell)

    @rule()
    def grants_come(self) -> None:
        self._run(first=self.engine.grant_all)

    @rule(kind=st.sampled_from((rw.LIVE_ENDED, rw.STAGE_UPDATE, rw.STAGE_REQUESTED, rw.ROLE_CHANGE)), who=WHO)
    def forged(self, kind: str, who: str) -> None:
        content = {"identity": who, "role": "host", "stage": [{"identity": who}], "version": 10**9}
        self._run(first=lambda: self.engine.forge(kind, content) if "room" in self.engine.media.rooms else None)

    @rule(who=WHO)
    def drops(self, who: str) -> None:
        if self._there(who):
            self._run(first=lambda: self.engine.media.lose("room", who))

    @rule(who=WHO, seconds=st.sampled_from((0.5, 3.0, 20.0)), full=st.booleans())
    def link_breaks(self, who: str, seconds: float, full: bool) -> None:
        if self._there(who):
            self._run(seconds, first=lambda: self.engine.media.cut("room", who))
            if self._there(who):
                self._run(0.2, first=lambda: self.engine.media.mend("room", who, full=full))

    @rule(who=VIEWER)
    def gone(self, who: str) -> None:
        """The engine waited 60 s for somebody who is not there."""
        if not self._there(who):
            self._run(first=lambda: self.engine.gone(who))

    @rule()
    def host_does_not_come_back(self) -> None:
        if not self._there("host"):
            self._run(first=self.engine.live_over)

    @rule(seconds=st.sampled_from((0.3, 2.0, 9.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        self._run(seconds)

    def _there(self, who: str) -> bool:
        room = self.engine.media.rooms.get("room")
        return room is not None and who in room.seats

    # -------------------------------------------------------------------------------------------------- what holds

    @invariant()
    def nothing_broke(self) -> None:
        assert not getattr(self, "faults", [])

    @invariant()
    def whoever_is_not_on_stage_sends_nothing(self) -> None:
        for name, session in getattr(self, "sessions", {}).items():
            view = session._standing.state if session._standing is not None else "out"
            if name != "host" and view != "on_stage":
                assert not session._sources[UTDTrackSource.MICROPHONE].wanted, (name, view)
            if session._is_over:
                assert not session._sources[UTDTrackSource.MICROPHONE].wanted, (name, "over")

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        for name, session in getattr(self, "sessions", {}).items():
            if session._is_over:
                assert session.broadcast.value is ENDED
                assert session.broadcast.finished
            elif name in VIEWERS and session._standing is not None:
                assert session.broadcast.value is not ENDED

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
                self._run(first=lambda: self.pending.pop(0).deliver())
            self._run(1.0, first=self.engine.put_right)
            if not self.pending and all(task.done() for task in self.tasks) and not self._anybody_busy():
                self._run(6.0, first=self.engine.put_right)  # whoever is listed late is listed by now
                return
        raise AssertionError(f"never settles: {[self._state(name) for name in EVERYBODY]}")

    def _anybody_busy(self) -> bool:
        for session in self.sessions.values():
            view = session._standing
            if view is not None and (view.view.is_pending or view._settling is not None):
                return True
            if session._connection.state in ("connecting", "reconnecting", "rejoining"):
                return True
        return False

    def _state(self, name: str) -> str:
        session = self.sessions[name]
        view = session._standing.state if session._standing is not None else "out"
        return f"{name}: {session._connection.state} {view} {session.broadcast.value}"

    def _agree(self) -> None:
        truth = self.engine.truth()
        on, up = [one.identity for one in truth.stage], [one.identity for one in truth.hands]
        host = self.sessions["host"]
        for name, session in self.sessions.items():
            if session._connection.state != "connected":
                continue
            said = (self._state(name), truth)
            assert [one.identity for one in session.stage.value] == on, said
            assert [one.identity for one in session.hands.value] == up, said
            assert session.can_publish.value == (name == "host" or name in on), said
            if name != "host":
                assert session._standing is not None
                assert session._standing.state == standing(truth, name), said
            if session.broadcast.value is not ENDED:
                assert session.broadcast.value is truth.live, said
            elif name == "host":
                assert truth.live is ENDED, said
            elif name not in self.excused:
                assert any(f'"{ENDED}"' in one for one in self.engine.written["room"]), said
        if host._connection.state == "connected":
            assert truth.live is not UTDBroadcast.HOST_AWAY

    def _close(self) -> None:
        async def close() -> None:
            for session in self.sessions.values():
                task = asyncio.ensure_future(session.perform(session.dispose))
                for _ in range(1000):
                    if task.done():
                        break
                    while self.pending:
                        self.pending.pop(0).deliver()
                    await asyncio.sleep(0.1)
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.loop.run_until_complete(close())
        self.engine.close()
        self.loop.close()


TestStreamWalk = StreamWalk.TestCase
TestStreamWalk.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
