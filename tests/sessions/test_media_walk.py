"""The drivers against their executable spec: random runs of the searched media product, made with real sessions.

The model (tests/machines/search/media.py) says what can happen in each state and where the two machines are after it.
Here each move is made to happen to a real session with a scripted Room, and the machines have to be where the model's
are: after every step, in every interleaving that the model allows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.machines.search.media import Media, World
from tests.sessions.scripted import Feeding, LoopPortal, Nobody, ScriptedRoom, TimerLoop, turns
from utd_fsm.errors import UTDConnectionError, UTDPermissionError
from utd_fsm.models import UTDStreamType, UTDTrackSource
from utd_fsm.room import (
    Disconnected,
    LeaveReason,
    PermissionChanged,
    Reconnected,
    Reconnecting,
    RoomOptions,
)
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.timing import Timing

MIC = UTDTrackSource.MICROPHONE

# Lengths that tell the timers apart; the loop's time stands still.
TIMES = Timing(
    attempt=2.0,
    tries=100_000,
    pause=1.0,
    longest_pause=1.0,
    grace=3.0,
    tier=1e6,
    grant=4.0,
    settle=5.0,
    echo=6.0,
    look=7.0,
    farewell=8.0,
    first_reading=0.0,
)

LEFT_OUT = {
    "session: third try failed",  # the model's tries have no number; tried in test_connection
}


class WalkSession(BaseSession):
    """A session whose engine says yes to everything: what may happen is the model's business."""

    def __init__(self) -> None:
        self.rooms: list[ScriptedRoom] = []
        super().__init__(
            kind=UTDStreamType.AUDIO_CALL,
            room_factory=self._make,
            timing=TIMES,
            portal_=LoopPortal(),  # type: ignore[arg-type]
        )
        self.feeding = Feeding()

    def _make(self, post: Any, options: RoomOptions) -> ScriptedRoom:
        self.rooms.append(ScriptedRoom(post, options))
        return self.rooms[-1]

    def _open_listening(self) -> None:
        self._listening = Nobody()  # type: ignore[assignment]

    async def _ticket(self, reason: str) -> tuple[str, str]:
        return "memory://nowhere", "token"

    async def _enable(self, source: UTDTrackSource) -> None:
        driver = self._sources[source]
        driver.media = self.feeding
        await driver.enable()


class Walk:
    """One run: the model's state, and the session that has to follow it."""

    def __init__(self) -> None:
        self.model = Media()
        self.world = self.model.initial
        self.session = WalkSession()
        self.tasks: list[asyncio.Task[Any]] = []
        self.stray: ScriptedRoom | None = None
        self.trace: list[str] = []

    @property
    def room(self) -> ScriptedRoom:
        return self.session.rooms[-1]

    @property
    def loop(self) -> TimerLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TimerLoop)
        return loop

    def background(self, coro: Any) -> None:
        task = asyncio.create_task(coro)
        # What these verbs raise when they are overtaken is tried elsewhere; here the machines count.
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        self.tasks.append(task)

    def choices(self) -> list[tuple[str, World]]:
        return [
            (label, after)
            for _, label, after in self.model.moves(self.world)
            if label not in LEFT_OUT and not (label == "the try times out and is given up" and self.world.stray)
        ]

    async def make(self, label: str, after: World) -> None:
        self.trace.append(label)
        before, self.world = self.world, after
        self.happen(label, before)
        await turns()
        if before.stray == "in" and after.stray is None:
            await self._bury_stray()
        self._skip_what_never_began()
        await self._check(before)

    def happen(self, label: str, before: World) -> None:
        session, driver = self.session, self.session._sources[MIC]
        match label:
            case "application: connect":
                self.background(session._join())
            case "application: leave":
                session._connection.leave_now()
            case "application: dispose":
                session._connection.dispose_now()
            case "application: enable":
                self.background(session._enable(MIC))
            case "application: mute":
                self.background(driver.mute())
            case "session: stop":
                driver.stop_now()
            case "LiveKit: joined, with the grant" | "LiveKit: joined, without the grant":
                self.room.grant("with the" in label)
                self._joining(self.room).set_result(None)
            case "the try fails":
                self._joining(self.room).set_exception(UTDConnectionError("not reachable"))
            case "the try times out and is given up":
                self.stray = self.room
                self.stray.leaving = asyncio.get_running_loop().create_future()
                assert self.loop.fire(TIMES.attempt) == 1
            case "the server will not have us":
                self._joining(self.room).set_exception(UTDPermissionError("no", 401))
            case "session: next try":
                assert self.loop.fire(0.8, 1.2) == 1
            case "the given-up try fails after all":
                assert self.stray is not None
                self._joining(self.stray).set_exception(UTDConnectionError("not reachable"))
                assert self.stray.leaving is not None
                self.stray.leaving.set_result(None)
            case "the given-up try joins after all":
                assert self.stray is not None
                if before.holder == "cur":
                    self.room.post(Disconnected(LeaveReason.DUPLICATE_IDENTITY))
                self._joining(self.stray).set_result(None)
            case "the reaper disconnects the given-up try":
                pass  # done by `make`
            case "LiveKit: reconnecting":
                self.room.post(Reconnecting())
            case "LiveKit: dropped" | "LiveKit: gives up":
                self.room.post(Disconnected(LeaveReason.LOST))
            case "LiveKit: reconnected":
                self.room.grant(before.perm)
                self.room.post(Reconnected())
            case "LiveKit: reconnected to a server that has forgotten grants":
                self.room.grant(False)
                self.room.post(Reconnected())
            case "LiveKit: removed":
                self.room.post(Disconnected(LeaveReason.REMOVED))
            case "60 s since the drop":
                assert self.loop.fire(TIMES.grace) == 1
            case "LiveKit: permission given" | "LiveKit: permission taken":
                self.room.grant(label.endswith("given"))
                self.room.post(PermissionChanged(self.room.permission))
            case "timer: 10 s without the grant":
                assert self.loop.fire(TIMES.grant) == 1, "the 10 s do not run"
            case "moderator: mutes the track":
                self.room.moderator_mutes(MIC)
            case "publish done" | "the overtaken publish is done, and taken down" | "unpublish done":
                self.room.finish_call()
            case "publish refused":
                self.room.finish_call(UTDPermissionError("refused"))
            case "publish broke with the connection" | "the overtaken publish fails":
                self.room.finish_call(UTDConnectionError("broke"))
            case _ if label.startswith("engine: "):
                pass  # books of the engine: the session hears of them by the permission
            case _:
                raise AssertionError(f"the walk does not know the move {label!r}")

    @staticmethod
    def _joining(room: ScriptedRoom) -> asyncio.Future[None]:
        assert room.joining is not None, "no connect is under way"
        return room.joining

    async def _bury_stray(self) -> None:
        assert self.stray is not None
        if self.stray.leaving is not None and not self.stray.leaving.done():
            self.stray.leaving.set_result(None)
        await turns()
        self.loop.fire(TIMES.echo)
        await turns()
        self.stray = None

    def _skip_what_never_began(self) -> None:
        """A publish that was overtaken in the queue is not begun at all: to the model it fails at once."""
        while self.world.ops[:1] == ("p",) and (self.room.call is None or self.room.call[0] != "publish"):
            self.world = self.world._replace(ops=self.world.ops[1:])

    async def _check(self, before: World) -> None:
        world, session = self.world, self.session
        self.model.check(world)
        story = f"\n{before}\n{world}\n" + "\n".join(self.trace)
        is_now = session._connection.state, session._sources[MIC].state
        assert is_now == (world.conn, world.src), f"is {is_now}, the model's are {(world.conn, world.src)}{story}"
        if world.room in ("in", "blip"):
            expected = {"P": "publish", "p": "publish", "U": "unpublish", "u": "unpublish", None: None}
            call = self.room.call[0] if self.room.call else None
            head = world.ops[0] if world.ops else None
            assert call == expected[head], f"under way on the Room is {call}, the model's calls are {world.ops}{story}"
            track = self.room.tracks.get(MIC)
            if not world.ops:
                pub = None if track is None else "muted" if track.muted else "hot"
                assert pub == world.pub, f"published is {pub}, the model's is {world.pub}{story}"
        heard = session.feeding.sends
        assert heard == (is_now == ("connected", "on")), f"sound is {'' if heard else 'not '}sent{story}"
        counts = is_now == ("connected", "waiting")
        assert self.loop.running(TIMES.grant) == counts, f"the 10 s {'do not ' if counts else ''}run{story}"
        away = world.was and world.room != "in"
        assert self.loop.running(TIMES.grace) == away, f"the 60 s {'do not ' if away else ''}run{story}"
        assert session.can_publish.value is False or world.room is not None

    async def end(self) -> None:
        self.session._connection.dispose_now()
        for room in self.session.rooms:
            if room.joining is not None and not room.joining.done():
                room.joining.set_exception(UTDConnectionError("over"))
            if room.leaving is not None and not room.leaving.done():
                room.leaving.set_result(None)
            if room.call is not None:
                room.finish_call(UTDConnectionError("over"))
        await turns()
        self.loop.fire(TIMES.echo)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.session._connection.reaped()


# How often a move is taken beside the others (4 unless said): without it most runs end before they get anywhere.
WEIGHTS = {
    "application: enable": 12,
    "LiveKit: joined, with the grant": 12,
    "LiveKit: permission given": 12,
    "LiveKit: reconnected": 8,
    "publish done": 8,
    "engine: grants": 12,
    "engine: entitled": 8,
    "engine: no longer entitled": 1,
    "session: stop": 2,
    "application: leave": 1,
    "LiveKit: removed": 1,
    "the server will not have us": 1,
    "60 s since the drop": 1,
    "timer: 10 s without the grant": 2,
}


def weighted(moves: list[tuple[str, World]]) -> list[tuple[str, World]]:
    """The moves, each as often as it weighs. Disposing ends a run and is left to its last step."""
    return [move for move in moves for _ in range(WEIGHTS.get(move[0], 4)) if move[0] != "application: dispose"]


def walk(numbers: Iterable[int], *, dispose: bool = False) -> tuple[list[str], set[tuple[str, str]]]:
    """Make a run of the model happen to a session; the numbers choose the moves.

    Returns:
        What happened, and the pairs of states that were seen.
    """
    loop = TimerLoop()
    seen: set[tuple[str, str]] = set()

    async def run() -> list[str]:
        made = Walk()
        try:
            for number in numbers:
                moves = weighted(made.choices())
                await made.make(*moves[number % len(moves)])
                seen.add((made.world.conn, made.world.src))
            if dispose:
                await made.make(*next(move for move in made.choices() if move[0] == "application: dispose"))
        finally:
            await made.end()
        return made.trace

    try:
        return loop.run_until_complete(run()), seen
    finally:
        loop.close()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 10_000), max_size=60), st.booleans())
def test_the_session_is_where_the_model_is(numbers: list[int], dispose: bool) -> None:
    walk(numbers, dispose=dispose)


def long_run(seed: int) -> tuple[list[str], set[tuple[str, str]]]:
    chance = random.Random(seed)
    return walk((chance.randrange(10_000) for _ in range(200)), dispose=seed % 2 == 0)


@pytest.mark.parametrize("seed", range(60))
def test_long_runs(seed: int) -> None:
    """As above, and longer."""
    long_run(seed)


def test_the_long_runs_get_around() -> None:
    """Every move and every pair of states comes up in them: otherwise they would show little."""
    moves: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for seed in range(60):
        trace, seen = long_run(seed)
        moves.update(trace)
        pairs |= seen
    assert len(moves) == 36, sorted(moves)
    assert len(pairs) == 17, sorted(pairs)
