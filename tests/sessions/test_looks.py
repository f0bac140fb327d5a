"""Looks that somebody else's word gave reason for: gathered, jittered, spaced, and never a flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from utd_fsm import room_wire as rw
from utd_fsm.errors import UTDConnectionError, UTDForbiddenError, UTDStreamException
from utd_fsm.sessions.looks import Looks, LookTiming

from .room_world import RoomWorld, until
from .scripted import TimerLoop, turns
from .test_call_walk import VirtualLoop

TIMING = LookTiming()
FIRST = (TIMING.debounce, TIMING.debounce + TIMING.jitter)


def spaced(quiet: float) -> tuple[float, float]:
    """Between which two lengths a wait lies that follows a look, with the jitter."""
    return quiet, quiet + TIMING.jitter


class Engine:
    """Counts who looks; a look waits for `gate`, if there is one."""

    def __init__(self) -> None:
        self.looks = 0
        self.news = False
        self.error: UTDStreamException | None = None
        self.gate: asyncio.Event | None = None

    async def look(self) -> bool:
        self.looks += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.news


@pytest.fixture
def loop() -> Iterator[TimerLoop]:
    made = TimerLoop()
    yield made
    pending = asyncio.all_tasks(made)
    for task in pending:
        task.cancel()
    go(made, *[lambda: None] * 3)
    made.close()


def go(loop: TimerLoop, *steps: Callable[[], object]) -> None:
    async def run() -> None:
        for step in steps:
            step()
            await turns(5)

    loop.run_until_complete(run())


def test_hints_that_come_together_are_one_look_after_a_while_of_ones_own(loop: TimerLoop) -> None:
    engine = Engine()
    looks = Looks(engine.look)
    go(loop, *[looks.hint] * 100)
    assert engine.looks == 0
    go(loop, lambda: loop.fire(*FIRST))
    assert engine.looks == 1
    assert loop.fire(0, 1e9) == 0, "nothing follows by itself"


def test_a_thousand_listeners_do_not_ask_at_the_same_moment() -> None:
    loop = VirtualLoop()
    asked: list[float] = []

    async def one() -> bool:
        asked.append(loop.time())
        return True

    async def all_of_them() -> None:
        for _ in range(1000):
            Looks(one).hint()
        await asyncio.sleep(10)

    loop.run_until_complete(all_of_them())
    loop.close()
    assert len(asked) == 1000
    assert min(asked) >= TIMING.debounce
    assert max(asked) <= TIMING.debounce + TIMING.jitter
    busiest = max(sum(1 for at in asked if start <= at < start + 0.1) for start in asked)
    assert busiest < 200, "about fifty in a tenth of a second, never all"


def test_looks_that_bring_nothing_make_the_next_wait_longer(loop: TimerLoop) -> None:
    engine = Engine()
    looks = Looks(engine.look)
    go(loop, looks.hint, lambda: loop.fire(*FIRST))
    for quiet in (20, 40, 80, 160, 300, 300):
        go(loop, looks.hint)
        assert loop.fire(0, quiet - 0.01) == 0
        go(loop, lambda: loop.fire(*spaced(quiet)))  # noqa: B023 - called at once
    assert engine.looks == 7
    engine.news = True
    go(loop, looks.hint, lambda: loop.fire(*spaced(300)))
    go(loop, looks.hint)
    assert loop.fire(*spaced(TIMING.quiet)) == 1, "one that brought something makes it short again"


def test_what_only_the_server_can_write_is_looked_at_soon(loop: TimerLoop) -> None:
    engine = Engine()
    looks = Looks(engine.look)
    go(loop, looks.hint, lambda: loop.fire(*FIRST), looks.soon)
    assert loop.fire(*FIRST) == 1


def test_a_hint_during_a_look_is_another_look(loop: TimerLoop) -> None:
    """The answer under way may be older than what the hint is about."""
    engine = Engine()
    looks = Looks(engine.look)
    go(loop, looks.hint)
    engine.gate = asyncio.Event()
    go(loop, lambda: loop.fire(*FIRST), looks.hint, looks.hint, engine.gate.set)
    assert engine.looks == 1
    go(loop, lambda: loop.fire(*spaced(20)))
    assert engine.looks == 2
    assert loop.fire(0, 1e9) == 0


@pytest.mark.parametrize("refused", [False, True])
def test_a_look_that_the_network_lost_is_owed_and_a_refused_one_is_not(loop: TimerLoop, refused: bool) -> None:
    engine = Engine()
    engine.error = UTDForbiddenError("no", 403) if refused else UTDConnectionError("nobody answers")
    looks = Looks(engine.look)
    go(loop, looks.hint, lambda: loop.fire(*FIRST))
    assert loop.fire(*spaced(20)) == (0 if refused else 1)


def test_closed_is_closed_and_a_later_hint_begins_anew(loop: TimerLoop) -> None:
    engine = Engine()
    looks = Looks(engine.look)
    go(loop, looks.hint, looks.close, looks.close)
    assert loop.fire(0, 1e9) == 0
    go(loop, looks.hint)
    engine.gate = asyncio.Event()
    go(loop, lambda: loop.fire(*FIRST), looks.hint, looks.close, engine.gate.set)
    assert engine.looks == 1
    assert loop.fire(0, 1e9) == 0
    go(loop, looks.hint)
    assert loop.fire(0, 1e9) == 1


def test_ten_thousand_hints_are_a_handful_of_looks() -> None:
    loop = VirtualLoop()
    engine = Engine()
    looks = Looks(engine.look)

    async def flood(seconds: float) -> None:
        for _ in range(10_000):
            looks.hint()
            await asyncio.sleep(seconds / 10_000)

    loop.run_until_complete(flood(10.0))
    assert engine.looks <= 2
    loop.run_until_complete(flood(3600.0))
    assert engine.looks <= 20, "one in five minutes at last, however long it goes on"
    looks.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


async def test_a_flood_in_a_room_whose_metadata_say_nothing_of_the_stage(rooms: RoomWorld) -> None:
    rooms.engine.carries_stage = False
    rooms.looks = LookTiming(debounce=0.01, jitter=0.01, quiet=30.0, longest=60.0)
    host = await rooms.stream("host", as_host=True)
    looks = rooms.engine.looks
    kinds = (rw.STAGE_UPDATE, rw.STAGE_REQUESTED, rw.SEAT_UPDATE, rw.LIVE_ENDED, rw.ROLE_CHANGE, rw.USER_BANNED)
    for number in range(10_000):
        rooms.engine.forge(kinds[number % len(kinds)], {"identity": "host", "version": 10**9})
    await rooms.engine.media.settled()
    await until(lambda: rooms.engine.looks > looks)
    await asyncio.sleep(0.1)
    assert rooms.engine.looks - looks <= 2, "one for the stage, one for the ban"
    assert (host.stage.value, host.broadcast.value, host.connected.value) == ((), "waiting", True)
