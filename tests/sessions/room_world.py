"""Persons and sessions on a `RoomEngine`: what the tests of live streams and audio rooms stand on.

`Person` is one signed-in identity in one room: the shipped `EngineRoom` over the shipped `RoomApi`, whose requests
reach the engine's rules instead of HTTP. A test may hold a verb at a gate before it is applied, lose a request, lose
its answer.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from utd_fsm.engine_requests import Ask
from utd_fsm.engine_rooms import RoomApi
from utd_fsm.errors import UTDConnectionError
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType, UTDTokenResponse
from utd_fsm.sessions.engine_room import EngineRoomSession
from utd_fsm.sessions.engine_rooms import EngineRoom
from utd_fsm.sessions.live_stream import LiveStreamSession
from utd_fsm.sessions.looks import LookTiming
from utd_fsm.sessions.timing import Timing

from .conftest import SHORT
from .room_engine import RoomEngine
from .scripted import LoopPortal

T = TypeVar("T")
S = TypeVar("S", bound=EngineRoomSession)

PATIENCE = 20.0
STREAM = UTDStreamType.LIVE_STREAM
QUICK_LOOKS = LookTiming(debounce=0.005, jitter=0.005, quiet=0.02, longest=0.2)


@dataclass(frozen=True)
class Signed:
    """Credentials, as far as routes need them."""

    identity: str
    name: str | None = None


class Person(EngineRoom):
    """The engine of one identity in one room, as its session has it, with gates and losses.

    Verbs are called by the names of `EngineRoom`'s methods: ``stage_request``, ``take``; ``room_token`` is the way in.
    """

    def __init__(
        self, engine: RoomEngine, identity: str, room: str, type: UTDStreamType, *, name: str | None = None
    ) -> None:
        self.engine = engine
        self.rooms = RoomApi(cast("Any", self), "memory://engine")
        self.gates: dict[str, asyncio.Event] = {}
        """Verb → what it waits for before it reaches the engine."""
        self.arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Verb → set when it waits at its gate."""
        self.lose_request: set[str] = set()
        """The next request of these verbs is lost."""
        self.lose_answer: set[str] = set()
        """The next answer to these verbs is lost."""
        self.sent: list[str] = []
        super().__init__(cast("Any", self), cast("Any", self), cast("Any", Signed(identity, name)), room, type)

    def hold(self, verb: str) -> asyncio.Event:
        """Hold the next requests of this verb; set the event to let them go."""
        self.arrived[verb].clear()
        gate = self.gates[verb] = asyncio.Event()
        return gate

    # -- as the portal of `EngineRoom`: a request's thread

    async def in_thread(self, request: Callable[[], T]) -> T:
        verb = cast("Any", request).func.__name__
        self.sent.append(verb)
        return await self.carry(verb, request)

    async def carry(self, verb: str, request: Callable[[], T]) -> T:
        """One request on its way to the engine, and its answer on the way back."""
        gate = self.gates.get(verb)
        if gate is not None:
            self.arrived[verb].set()
            await gate.wait()
        else:
            await asyncio.sleep(0)
        if self.engine.unreachable or verb in self.lose_request:
            self.lose_request.discard(verb)
            raise UTDConnectionError(f"{verb}: nobody answers", outcome_known=False)
        try:
            return request()
        finally:
            await asyncio.sleep(0)
            if verb in self.lose_answer:  # a refusal is an answer too
                self.lose_answer.discard(verb)
                raise UTDConnectionError(f"{verb}: the answer was lost", outcome_known=False) from None

    # -- as the requests of `RoomApi`

    def perform(self, ask: Ask, *, deadline: float | None = None) -> Any:
        return self.engine.apply(ask)

    # -- as the api of `EngineRoom`

    def room_token(
        self,
        who: Any,
        room_name: str,
        type: UTDStreamType,
        role: UTDRole,
        *,
        room_owner_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        seat_mode: str | None = None,
        **seats: Any,
    ) -> UTDTokenResponse:
        return self.engine.way_in(
            who.identity,
            room_name,
            type,
            as_host=role is UTDRole.HOST,
            name=who.name,
            attributes=metadata or {},
            seat_mode=UTDSeatMode(seat_mode) if seat_mode else None,
            **seats,
        )


async def do(method: Any, *args: Any, **kwargs: Any) -> Any:
    """A verb, in its turn, as a facade calls it."""
    async with asyncio.timeout(PATIENCE):
        return await method.__self__.perform(method, *args, **kwargs)


def begin(method: Any, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """A verb that goes on while the test does something else."""
    return asyncio.create_task(do(method, *args, **kwargs))


async def until(holds: Callable[[], object]) -> None:
    """Until something holds; bounded generously."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.001)


class RoomWorld:
    """One engine, persons and their sessions, of one kind; all closed at the end."""

    def __init__(self, *, timing: Timing = SHORT, looks: LookTiming = QUICK_LOOKS, paced: bool = False) -> None:
        self.engine = RoomEngine(paced=paced)
        self.timing, self.looks = timing, looks
        self.persons: dict[str, Person] = {}
        self.sessions: list[EngineRoomSession] = []

    def person(self, identity: str, *, room: str = "room", type: UTDStreamType = STREAM) -> Person:
        """One identity in one room; the same one when asked again."""
        known = self.persons.get(f"{room} {identity}")
        if known is None:
            known = self.persons[f"{room} {identity}"] = Person(self.engine, identity, room, type)
        return known

    def make(self, session: Callable[..., S], person: Person, *, as_host: bool = False, **core: Any) -> S:
        """A session of this class, not in the room yet."""
        made = session(
            engine_room=person,
            as_host=as_host,
            look_timing=self.looks,
            identity=person.identity,
            room_factory=self.engine.media.room_factory,
            timing=self.timing,
            portal_=cast("Any", LoopPortal()),
            **core,
        )
        self.sessions.append(made)
        return made

    async def stream(self, identity: str, *, as_host: bool = False, **core: Any) -> LiveStreamSession:
        """Somebody in the live stream."""
        made = self.make(LiveStreamSession, self.person(identity), as_host=as_host, **core)
        await do(made.join)
        return made

    def heard_by(self, session: EngineRoomSession) -> set[tuple[str, str]]:
        """What others send and this one receives: (identity, source)."""
        room = session._connection.room
        return {(track.identity, track.source.value) for track in room.remote_tracks} if room is not None else set()

    async def close(self) -> None:
        for gate in (gate for person in self.persons.values() for gate in person.gates.values()):
            gate.set()
        self.engine.unreachable = False
        for session in self.sessions:
            await do(session.dispose)
        self.engine.close()
