"""The awaitable Observable, awaited in event loops that are not the package's own."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from utd_fsm.errors import UTDInputError, UTDStateError, UTDTimeoutError
from utd_fsm.observable import AsyncObservable
from utd_fsm.portal import Portal, portal

WAIT = 30.0


def ended() -> UTDStateError:
    return UTDStateError("the call has ended")


@pytest.fixture
def status() -> AsyncObservable[str]:
    return AsyncObservable("idle", name="status of call 7")


@pytest.fixture
def held() -> Iterator[Portal]:
    lease = portal().hold()
    yield portal()
    lease.release()


async def set_all(status: AsyncObservable[Any], *values: Any) -> None:
    for value in values:
        status.set(value)


async def subscribed(status: AsyncObservable[Any]) -> None:
    async with asyncio.timeout(WAIT):
        while not status._feeds:
            await asyncio.sleep(0.001)


async def test_a_wait_looks_at_the_current_value_first(status: AsyncObservable[str]) -> None:
    assert await status.wait_for("idle", timeout=WAIT) == "idle"
    assert await status.wait_for(lambda value: value == "idle", timeout=0) == "idle"


async def test_a_wait_sees_a_value_however_short_it_lasted(status: AsyncObservable[str], held: Portal) -> None:
    task = asyncio.create_task(status.wait_for("ringing", timeout=WAIT))
    await subscribed(status)
    await held.acall(lambda: set_all(status, "dialling", "ringing", "active"), timeout=WAIT, what="x")
    assert await task == "ringing"
    assert not status._feeds


async def test_a_wait_times_out_and_is_told_of_the_end(status: AsyncObservable[str]) -> None:
    with pytest.raises(UTDTimeoutError, match="status of call 7 did not become") as info:
        await status.wait_for("active", timeout=0.02)
    assert info.value.outcome_known is True
    assert not status._feeds
    task = asyncio.create_task(status.wait_for("active", timeout=None))
    await subscribed(status)
    status.finish(ended)
    with pytest.raises(UTDStateError, match="the call has ended"):
        await task
    with pytest.raises(UTDStateError, match="the call has ended"):
        await status.wait_for("active")
    assert [value async for value in status.updates()] == ["idle"]


async def test_a_cancelled_wait_unsubscribes(status: AsyncObservable[str]) -> None:
    task = asyncio.create_task(status.wait_for("active", timeout=None))
    await subscribed(status)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not status._feeds


async def test_a_cancelled_reader_of_updates_unsubscribes(status: AsyncObservable[str]) -> None:
    got: list[str] = []

    async def read() -> None:
        async for value in status.updates():
            got.append(value)  # noqa: PERF401

    task = asyncio.create_task(read())
    await subscribed(status)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not status._feeds
    assert got == ["idle"]


async def test_breaking_out_of_updates_unsubscribes(status: AsyncObservable[str]) -> None:
    async for value in status.updates():
        assert value == "idle"
        break
    gc.collect()
    async with asyncio.timeout(WAIT):
        while status._feeds:
            await asyncio.sleep(0.001)


async def test_a_gap_longer_than_the_timeout_raises_and_wrong_ones_are_refused(status: AsyncObservable[str]) -> None:
    updates = status.updates(timeout=0.02)
    assert await anext(updates) == "idle"
    with pytest.raises(UTDTimeoutError, match="did not change"):
        await anext(updates)
    with pytest.raises(UTDInputError):
        await status.wait_for("idle", timeout=-1)
    with pytest.raises(UTDInputError):
        status.updates(timeout=float("nan"))


async def test_it_may_be_awaited_on_the_loop_thread_too(status: AsyncObservable[str], held: Portal) -> None:
    async def change_and_wait() -> str:
        waiter = asyncio.ensure_future(status.wait_for("active", timeout=WAIT))
        await asyncio.sleep(0)
        status.set("active")
        return await waiter

    assert await held.acall(change_and_wait, timeout=WAIT, what="x") == "active"


def test_no_value_is_skipped_in_any_of_four_loops(held: Portal) -> None:
    last = 5_000
    counter = AsyncObservable(0, name="counter")
    ready = threading.Barrier(5)
    failures: list[BaseException] = []

    async def follow(index: int) -> None:
        await asyncio.to_thread(ready.wait, WAIT)
        newest = 0
        while newest < last:
            expected = None
            async for value in counter.updates(timeout=WAIT):
                assert value == expected if expected is not None else value >= newest
                newest, expected = value, value + 1
                if value == last or value % (300 + index) == 0:
                    break

    def reader(index: int) -> None:
        try:
            asyncio.run(follow(index))
        except BaseException as error:
            failures.append(error)

    async def count() -> None:
        for n in range(1, last + 1):
            counter.set(n)
            if n % 50 == 0:
                await asyncio.sleep(0)

    threads = [threading.Thread(target=reader, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    ready.wait(WAIT)
    held.call(count, timeout=100, what="counting")
    for thread in threads:
        thread.join(WAIT)
    assert failures == []
    assert not counter._feeds


def test_a_reader_whose_loop_was_closed_under_it_costs_nobody_anything(status: AsyncObservable[str]) -> None:
    loop = asyncio.new_event_loop()
    updates = status.updates()
    assert loop.run_until_complete(anext(updates)) == "idle"
    loop.close()
    assert len(status._feeds) == 1
    assert status.set("active")
    assert not status._feeds


async def test_it_refuses_the_same_slips(status: AsyncObservable[str]) -> None:
    with pytest.raises(TypeError, match=r"did you mean \.value\?"):
        bool(status)
    with pytest.raises(TypeError, match=r"did you mean \.value\?"):
        _ = status == "idle"
