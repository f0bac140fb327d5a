"""Streams: order, bounds, ends and timeouts, between threads and event loops. No test here waits by sleeping."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDInputError,
    UTDStateError,
    UTDTimeoutError,
    UTDWouldBlockError,
)
from utd_fsm.streams import Feed

LONG = 60.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def until(true: Callable[[], bool]) -> None:
    """Wait for another thread to have come somewhere that only it can tell."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


def waiting_in(feed: Feed[int]) -> bool:
    return bool(feed._line.changed._waiters)  # type: ignore[attr-defined]


def test_items_come_in_order_and_the_iteration_ends_after_the_queued_ones() -> None:
    feed: Feed[int] = Feed(10, what="numbers")
    stream = feed.stream
    for number in range(5):
        feed.put(number)
    feed.finish()
    feed.put(99)
    assert list(stream) == [0, 1, 2, 3, 4]
    assert stream.dropped == 0
    assert stream.closed
    with pytest.raises(UTDClosedError, match="numbers is over"):
        stream.get()


def test_a_full_queue_drops_the_oldest_and_the_next_item_tells_how_many() -> None:
    feed: Feed[tuple[int, int]] = Feed(3, what="numbers", mark=lambda item, lost: (item[0], lost))
    stream = feed.stream
    for number in range(7):
        feed.put((number, 0))
    assert stream.dropped == feed.dropped == 4
    assert stream.get() == (4, 4)
    assert stream.get() == (5, 0)
    for number in range(7, 10):
        feed.put((number, 0))
    feed.lose(2)
    assert stream.get() == (7, 3)  # 6 was dropped here, two more before they came
    assert stream.dropped == 7


def test_an_error_follows_what_was_queued_before_it() -> None:
    feed: Feed[int] = Feed(3, what="numbers")
    stream = feed.stream
    feed.put(1)
    feed.finish(UTDConnectionError("lost"))
    feed.finish()  # the first end counts
    assert next(stream) == 1
    for _ in range(2):
        with pytest.raises(UTDConnectionError, match="lost"):
            next(stream)


def test_an_orderly_looking_error_is_still_an_error() -> None:
    feed: Feed[int] = Feed(3, what="numbers")
    stream = feed.stream
    feed.finish(UTDClosedError("the client was closed"))
    with pytest.raises(UTDClosedError, match="the client was closed"):
        next(stream)


def test_nothing_in_time_raises_and_the_stream_stays_open() -> None:
    feed: Feed[int] = Feed(3, timeout=0.01, what="the sound of bob")
    stream = feed.stream
    with pytest.raises(UTDTimeoutError, match=r"nothing came from the sound of bob for 0\.01 s") as caught:
        next(stream)
    assert caught.value.outcome_known
    assert not stream.closed
    feed.put(1)
    assert next(stream) == 1
    with pytest.raises(UTDTimeoutError, match=r"0\.02"):
        stream.get(timeout=0.02)


def test_the_timeout_does_not_count_before_it_is_armed(pool: ThreadPoolExecutor) -> None:
    feed: Feed[int] = Feed(3, timeout=0.05, what="numbers", armed=False)
    stream = feed.stream
    reading = pool.submit(stream.get)
    until(lambda: waiting_in(feed))
    with pytest.raises(TimeoutError):
        reading.result(0.2)  # four times the timeout: it does not run
    feed.arm()
    with pytest.raises(UTDTimeoutError):
        reading.result(LONG)


def test_a_wait_that_began_long_before_the_arming_has_its_whole_timeout() -> None:
    feed: Feed[int] = Feed(3, timeout=10, what="numbers", armed=False)
    line = feed.stream._line
    long_ago = time.monotonic() - 100
    assert line.remaining(long_ago, 10) is None
    feed.arm()
    left = line.remaining(long_ago, 10)
    assert left is not None
    assert 0 < left <= 10


def test_putting_wakes_a_waiting_thread(pool: ThreadPoolExecutor) -> None:
    feed: Feed[int] = Feed(3, what="numbers")
    stream = feed.stream
    reading = pool.submit(stream.get)
    until(lambda: waiting_in(feed))
    feed.put(7)
    assert reading.result(LONG) == 7


def test_closing_ends_an_iteration_in_another_thread(pool: ThreadPoolExecutor) -> None:
    closings: list[str] = []
    feed: Feed[int] = Feed(3, what="numbers", on_close=lambda: closings.append(threading.current_thread().name))
    stream = feed.stream
    reading = pool.submit(list, stream)
    until(lambda: waiting_in(feed))
    stream.close()
    stream.close()
    assert reading.result(LONG) == []
    assert closings == [threading.current_thread().name]
    assert feed.closed
    feed.put(1)
    with pytest.raises(UTDClosedError, match="was closed"):
        stream.get()


def test_leaving_a_with_closes_and_forgets_what_is_queued() -> None:
    closings: list[None] = []
    feed: Feed[int] = Feed(3, what="numbers", on_close=lambda: closings.append(None))
    with feed.stream as stream:
        feed.put(1)
    assert closings == [None]
    assert list(stream) == []


def test_dropping_the_last_reference_closes() -> None:
    closings: list[None] = []
    feed: Feed[int] = Feed(3, what="numbers", on_close=lambda: closings.append(None))
    stream = feed.stream
    assert feed.stream is stream
    del stream
    gc.collect()
    assert closings == [None]
    assert feed.closed


def test_a_broken_on_close_reaches_the_log_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("seeded")

    feed: Feed[int] = Feed(3, what="numbers", on_close=broken)
    feed.stream.close()
    assert "closing numbers failed" in caplog.text


def test_one_end_is_one_kind() -> None:
    feed: Feed[int] = Feed(3, what="numbers")
    stream = feed.stream
    with pytest.raises(UTDStateError, match="already read as a Stream"):
        _ = feed.async_stream
    assert "numbers" in repr(stream)
    other: Feed[int] = Feed(3, what="numbers")
    awaitable = other.async_stream
    with pytest.raises(UTDStateError, match="already read as an AsyncStream"):
        _ = other.stream
    assert not awaitable.closed


def test_a_capacity_of_nothing_is_refused_and_it_can_grow() -> None:
    with pytest.raises(UTDInputError):
        Feed[int](0, what="numbers")
    feed: Feed[int] = Feed(1, what="numbers")
    stream = feed.stream
    feed.capacity = 3
    for number in range(3):
        feed.put(number)
    feed.finish()
    assert list(stream) == [0, 1, 2]


def test_many_producers_and_readers_lose_and_double_nothing(pool: ThreadPoolExecutor) -> None:
    feed: Feed[int] = Feed(100_000, what="numbers")
    stream = feed.stream
    readers = [pool.submit(list, stream) for _ in range(4)]

    def produce(begin: int) -> None:
        for number in range(begin, begin + 2000):
            feed.put(number)

    for producer in [pool.submit(produce, begin) for begin in range(0, 8000, 2000)]:
        producer.result(LONG)
    feed.finish()
    read = [reader.result(LONG) for reader in readers]
    assert sorted(number for part in read for number in part) == list(range(8000))
    for part in read:
        for begin in range(0, 8000, 2000):
            mine = [number for number in part if begin <= number < begin + 2000]
            assert mine == sorted(mine)


async def test_blocking_in_a_running_loop_is_refused_at_once() -> None:
    feed: Feed[int] = Feed(3, what="the sound of bob")
    stream = feed.stream
    feed.put(1)
    with pytest.raises(UTDWouldBlockError, match="reading the sound of bob"):
        next(stream)


async def test_async_iteration_on_the_same_loop_and_from_another_thread(pool: ThreadPoolExecutor) -> None:
    feed: Feed[int] = Feed(10, what="numbers")
    async with feed.async_stream as stream:
        feed.put(1)
        assert await anext(stream) == 1
        reading = asyncio.ensure_future(stream.get())
        await asyncio.sleep(0)
        pool.submit(feed.put, 2).result(LONG)
        assert await asyncio.wait_for(reading, LONG) == 2
        feed.put(3)
        feed.finish()
        assert [number async for number in stream] == [3]
    assert stream.closed


async def test_async_timeouts_closing_and_errors() -> None:
    feed: Feed[int] = Feed(10, timeout=0.01, what="numbers", armed=False)
    stream = feed.async_stream
    reading = asyncio.ensure_future(stream.get())
    done, _ = await asyncio.wait({reading}, timeout=0.05)
    assert not done
    feed.arm()
    with pytest.raises(UTDTimeoutError):
        await reading
    with pytest.raises(UTDTimeoutError):
        await stream.get(0)
    waiting = asyncio.ensure_future(stream.get(timeout=None))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(UTDClosedError):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    other: Feed[int] = Feed(10, what="numbers")
    reader = other.async_stream
    other.finish(UTDConnectionError("lost"))
    with pytest.raises(UTDConnectionError):
        await anext(reader)


async def test_a_cancelled_read_loses_nothing_and_another_reader_is_woken() -> None:
    feed: Feed[int] = Feed(10, what="numbers")
    stream = feed.async_stream
    first, second = asyncio.ensure_future(stream.get()), asyncio.ensure_future(stream.get())
    await asyncio.sleep(0)
    feed.put(1)
    first.cancel()
    assert await asyncio.wait_for(second, LONG) == 1
    assert not feed._line._waiters


def test_an_async_reader_works_in_every_event_loop() -> None:
    feed: Feed[int] = Feed(10, what="numbers")
    stream = feed.async_stream

    async def read() -> int:
        loop = asyncio.get_running_loop()
        loop.call_soon(feed.put, 5)
        return await stream.get()

    assert [asyncio.run(read()) for _ in range(2)] == [5, 5]


def test_a_reader_whose_loop_is_closed_hinders_nobody() -> None:
    feed: Feed[int] = Feed(10, what="numbers")
    stream = feed.async_stream

    async def abandon() -> None:
        with stream._line.changed:
            stream._line.await_change(asyncio.get_running_loop())

    asyncio.run(abandon())
    feed.put(1)

    async def read() -> int:
        return await stream.get()

    assert asyncio.run(read()) == 1


def _read_in_child(feed: Feed[int], answers: multiprocessing.SimpleQueue[str]) -> None:
    try:
        feed.stream.get(timeout=1)
    except UTDClosedError as error:
        answers.put(str(error))
    else:
        answers.put("read")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_even_when_the_lock_was_held() -> None:
    fork = multiprocessing.get_context("fork")
    closings: list[None] = []
    feed: Feed[int] = Feed(3, what="numbers", on_close=lambda: closings.append(None))
    stream = feed.stream
    feed.put(1)
    answers = fork.SimpleQueue()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with stream._line.changed:
            held.set()
            release.wait(LONG)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(LONG)
    child = fork.Process(target=_read_in_child, args=(feed, answers))
    child.start()
    child.join(LONG)
    release.set()
    holder.join(LONG)
    assert child.exitcode == 0
    assert "forked" in answers.get()
    assert stream.get() == 1
    assert closings == []
