"""Leases: what holds the loop thread, and what happens to everybody when the last one goes."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.test_portal import WAIT, Slow, in_a_thread, number
from utd_fsm.errors import UTDClosedError
from utd_fsm.portal import Portal, portal


@pytest.fixture
def held() -> Iterator[Portal]:
    lease = portal().hold()
    yield portal()
    lease.release()


def of_the_package() -> list[str]:
    ours = ("utd-fsm-loop", "utd-fsm-signals", "utd-fsm-rest")  # sources have threads of their own, elsewhere
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + WAIT
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def test_the_threads_end_with_the_last_lease_and_come_back_at_the_next_use() -> None:
    assert eventually(lambda: not of_the_package())
    first, second = portal().hold(), portal().hold()
    portal().call(lambda: portal().in_thread(time.sleep, 0), what="x")
    first.release()
    first.release()
    assert "utd-fsm-loop" in of_the_package()
    second.release()
    assert of_the_package() == []
    third = portal().hold()
    assert portal().call(number, what="x") == 1
    third.release()
    assert of_the_package() == []


def test_use_without_a_lease_ends_by_itself() -> None:
    assert portal().call(number, what="x") == 1
    assert eventually(lambda: not of_the_package())


def test_whoever_waits_when_the_last_lease_goes_is_told() -> None:
    lease = portal().hold()
    slow = Slow()
    waiter = in_a_thread(lambda: portal().call(slow, timeout=None, what="waiting for bob"))
    assert slow.begun.wait(WAIT)
    lease.release()
    with pytest.raises(UTDClosedError, match=r"waiting for bob.*closed"):
        waiter.result(WAIT)
    assert slow.cancelled.is_set()
    assert of_the_package() == []


def test_whoever_is_nearly_done_when_the_last_lease_goes_gets_its_result() -> None:
    lease = portal().hold()
    begun = threading.Event()

    async def nearly() -> int:
        begun.set()
        await asyncio.sleep(0.05)
        return 9

    waiter = in_a_thread(lambda: portal().call(nearly, timeout=None, what="nearly done"))
    assert begun.wait(WAIT)
    lease.release()
    assert waiter.result(WAIT) == 9


def test_the_last_lease_may_be_released_on_the_loop_thread() -> None:
    lease = portal().hold()

    async def release() -> int:
        lease.release()
        await asyncio.sleep(0.01)
        return 2

    assert portal().call(release, what="the release") == 2
    assert eventually(lambda: not of_the_package())


async def test_the_last_lease_may_be_released_in_an_event_loop() -> None:
    lease = portal().hold()
    await portal().acall(number, timeout=WAIT, what="x")
    lease.release()
    assert await asyncio.to_thread(eventually, lambda: not of_the_package())


def test_spawned_tasks_are_cancelled_at_the_end_and_may_tidy_up() -> None:
    lease = portal().hold()
    tidy = threading.Event()

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert portal().loop.is_running()
            await asyncio.sleep(0.01)
            tidy.set()

    async def start() -> None:
        portal().spawn(background(), name="background")
        await asyncio.sleep(0)

    portal().call(start, what="start")
    lease.release()
    assert tidy.is_set()


def test_a_task_that_will_not_be_cancelled_is_abandoned_and_named(caplog: pytest.LogCaptureFixture) -> None:
    lease = portal().hold()

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def start() -> None:
        portal().spawn(stubborn(), name="the stubborn one")
        await asyncio.sleep(0)

    portal().call(start, what="start")
    lease.release()
    assert eventually(lambda: not of_the_package())
    assert "the stubborn one" in caplog.text
    gc.collect()
    assert "destroyed" not in caplog.text


def test_a_farewell_is_taken_back_as_often_as_one_likes(held: Portal) -> None:
    async def farewell() -> None: ...

    take_back = held.at_exit(farewell)
    take_back()
    take_back()
