"""Verbs in their turn."""

from __future__ import annotations

import asyncio

import pytest

from tests.sessions.scripted import turns
from utd_fsm.errors import UTDClosedError, UTDStateError
from utd_fsm.sessions.turns import Turns


async def test_one_at_a_time_in_the_order_of_the_calls() -> None:
    queue, said = Turns(), []
    running = 0

    async def verb(number: int) -> int:
        nonlocal running
        running += 1
        assert running == 1, "two verbs at the same time"
        said.append(number)
        await turns(3)
        running -= 1
        return number

    results = await asyncio.gather(*(queue.in_turn("session", "v", lambda n=n: verb(n)) for n in range(10)))  # type: ignore[misc]
    assert said == results == list(range(10))


async def test_lanes_do_not_wait_for_each_other() -> None:
    queue, gate = Turns(), asyncio.Event()
    slow = asyncio.create_task(queue.in_turn("session", "slow", gate.wait))
    await turns()

    async def quick() -> str:
        return "quick"

    assert await queue.in_turn("messages", "quick", quick) == "quick"
    gate.set()
    await slow


@pytest.mark.parametrize(("closes", "error"), [(False, UTDStateError), (True, UTDClosedError)])
async def test_an_overtaker_cancels_what_runs_and_what_waits(closes: bool, error: type[Exception]) -> None:
    queue, unwound = Turns(), []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append("hangs")

    async def never() -> None:
        raise AssertionError("it was overtaken before it began")

    async def end() -> str:
        assert unwound == ["hangs"], "what is overtaken unwinds first"
        return "ended"

    running = asyncio.create_task(queue.in_turn("session", "start", hangs))
    waiting = asyncio.create_task(queue.in_turn("session", "set_microphone", never))
    await turns()
    assert await queue.at_once("end", end, closes=closes) == "ended"
    for task, name in ((running, "start"), (waiting, "set_microphone")):
        with pytest.raises(error, match=rf"{name}\(\) was overtaken by end\(\)"):
            await task


async def test_what_is_called_during_an_overtaker_waits_for_it() -> None:
    queue, gate, said = Turns(), asyncio.Event(), []

    async def leave() -> None:
        await gate.wait()
        said.append("left")

    async def join() -> None:
        said.append("joined")

    leaving = asyncio.create_task(queue.at_once("leave", leave))
    await turns()
    joining = asyncio.create_task(queue.in_turn("session", "join", join))
    await turns()
    assert said == []
    gate.set()
    await asyncio.gather(leaving, joining)
    assert said == ["left", "joined"]


async def test_a_cancelled_caller_cancels_its_verb_and_lets_the_next_go() -> None:
    queue = Turns()
    cancelled = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def quick() -> str:
        return "next"

    first = asyncio.create_task(queue.in_turn("session", "first", hangs))
    second = asyncio.create_task(queue.in_turn("session", "second", hangs))
    third = asyncio.create_task(queue.in_turn("session", "third", quick))
    await turns()
    second.cancel()
    await turns()
    first.cancel()
    assert await third == "next"
    assert cancelled == [True]
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_lets_the_next_go() -> None:
    queue = Turns()

    async def fails() -> None:
        raise UTDStateError("no")

    async def quick() -> str:
        return "next"

    with pytest.raises(UTDStateError):
        await queue.in_turn("session", "fails", fails)
    assert await queue.in_turn("session", "quick", quick) == "next"


@pytest.mark.parametrize("steps", range(6))
async def test_who_is_overtaken_in_the_moment_its_turn_comes_never_begins(steps: int) -> None:
    queue, gate, began = Turns(), asyncio.Event(), []

    async def second() -> None:
        began.append("second")

    async def end() -> None:
        pass

    one = asyncio.create_task(queue.in_turn("session", "first", gate.wait))
    two = asyncio.create_task(queue.in_turn("session", "second", second))
    await turns()
    gate.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    early = bool(began)
    await queue.at_once("end", end)
    await asyncio.gather(one, two, return_exceptions=True)
    assert early or isinstance(two.exception(), UTDStateError)
    assert bool(began) == early
