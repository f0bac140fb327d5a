"""The portal within one process: own results, own errors, timeouts, refusals, leases."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from utd_fsm.errors import UTDClosedError, UTDInputError, UTDStateError, UTDTimeoutError, UTDWouldBlockError
from utd_fsm.portal import Portal, _Call, portal

WAIT = 30.0  # an upper bound that costs nothing when things work


@pytest.fixture
def held() -> Iterator[Portal]:
    lease = portal().hold()
    yield portal()
    lease.release()


async def number(n: int = 1) -> int:
    await asyncio.sleep(0)
    return n


class Slow:
    """Work that lasts until it is cancelled, and tells."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def in_a_thread(fn: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(fn())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def test_a_call_returns_its_own_result_and_raises_its_own_error(held: Portal) -> None:
    async def refuse() -> None:
        raise KeyError("mine")

    assert held.call(lambda: number(7), what="seven") == 7
    with pytest.raises(KeyError, match="mine"):
        held.call(refuse, what="a refusal")


def test_a_call_frees_its_error_without_the_collector(held: Portal) -> None:
    class Marker(Exception):
        gone = threading.Event()

        def __del__(self) -> None:
            self.gone.set()

    async def refuse() -> None:
        raise Marker

    gc.disable()
    try:
        with pytest.raises(Marker) as info:
            held.call(refuse, what="a refusal")
        del info
        held.call(number, what="one more turn of the loop")
        assert Marker.gone.wait(WAIT)
    finally:
        gc.enable()


def test_a_timeout_cancels_the_work_and_says_that_the_outcome_is_unknown(held: Portal) -> None:
    slow = Slow()
    with pytest.raises(UTDTimeoutError, match=r"dialling bob took longer than 0\.2 s.*unknown") as info:
        held.call(slow, timeout=0.2, what="dialling bob")
    assert info.value.outcome_known is False
    assert slow.cancelled.wait(WAIT)


def test_a_timeout_of_zero_never_runs_into_the_next_call(held: Portal) -> None:
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    for n in range(200):
        try:
            held.call(lambda n=n: note(n), timeout=0, what="at once or never")  # type: ignore[misc]
        except UTDTimeoutError:
            continue
        assert ran[-1] == n
    assert held.call(lambda: number(5), what="five") == 5


def test_a_timeout_of_the_works_own_is_passed_on_as_it_is(held: Portal) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError) as info:
        held.call(impatient, timeout=WAIT, what="impatient work")
    assert not isinstance(info.value, UTDTimeoutError)


@pytest.mark.parametrize("timeout", [math.nan, -1, -0.001, "5", True, b"1"])
def test_a_wrong_timeout_is_refused_and_nothing_runs(held: Portal, timeout: Any) -> None:
    ran: list[int] = []

    async def note() -> None:
        ran.append(1)

    with pytest.raises(UTDInputError, match="timeout: "):
        held.call(note, timeout=timeout, what="x")
    held.call(number, what="one more turn of the loop")
    assert ran == []


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 5])
def test_a_long_timeout_is_no_limit(held: Portal, timeout: float | None) -> None:
    assert held.call(number, timeout=timeout, what="x") == 1


def test_a_blocking_call_on_the_loop_thread_is_refused(held: Portal) -> None:
    async def inside() -> int:
        with pytest.raises(UTDWouldBlockError, match=r"call\.end.*loop thread.*utd_fsm\.aio"):
            held.call(number, what="call.end()")
        assert held.on_loop_thread
        return await held.acall(number, timeout=1, what="the mend")

    assert held.call(inside, what="inside") == 1
    assert not held.on_loop_thread


async def test_a_blocking_call_under_a_running_event_loop_is_refused(held: Portal) -> None:
    with pytest.raises(UTDWouldBlockError, match=r"event loop is running.*await.*asyncio\.to_thread.*sync_to_async"):
        held.call(number, what="call.start()")
    assert await asyncio.to_thread(held.call, number, what="the mend") == 1


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_task_raises_reaches_the_caller_and_the_loop_goes_on(
    held: Portal, exception: type[BaseException]
) -> None:
    async def leave() -> None:
        raise exception(3)

    thread = held.call(lambda: here(), what="the thread")
    with pytest.raises(exception):
        held.call(leave, what="leaving")
    assert held.call(lambda: here(), what="the thread") is thread


async def here() -> threading.Thread:
    return threading.current_thread()


def test_system_exit_in_a_task_of_its_own_is_logged_and_the_loop_goes_on(
    held: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def start() -> threading.Thread:
        held.spawn(leave(), name="the leaver")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return threading.current_thread()

    thread = held.call(start, what="start")
    assert held.call(here, what="the thread") is thread
    assert "SystemExit" in caplog.text
    assert "the leaver" in caplog.text


def test_work_that_is_cancelled_from_inside_tells_its_caller(held: Portal) -> None:
    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    with pytest.raises(UTDClosedError, match="joining was cancelled"):
        held.call(cancel_myself, what="joining")


def test_work_does_not_run_in_the_callers_context(held: Portal) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    request.set("a web request")

    async def read() -> str:
        return request.get()

    assert held.call(read, what="reading") == "none"


# post and acall


def test_a_posted_future_has_the_result_or_the_error(held: Portal) -> None:
    async def refuse() -> None:
        raise KeyError("mine")

    assert held.post(lambda: number(3)).result(WAIT) == 3
    assert isinstance(held.post(refuse).exception(WAIT), KeyError)


def test_a_posted_future_can_be_cancelled(held: Portal) -> None:
    slow = Slow()
    future = held.post(slow)
    assert slow.begun.wait(WAIT)
    assert future.cancel()
    assert slow.cancelled.wait(WAIT)
    assert future.cancelled()


def test_what_is_cancelled_before_it_begins_never_begins(held: Portal) -> None:
    gate, blocked = threading.Event(), threading.Event()

    async def block_the_loop() -> None:
        blocked.set()
        gate.wait(WAIT)

    blocker = held.post(block_the_loop)
    assert blocked.wait(WAIT)
    slow = Slow()
    future = held.post(slow)
    assert future.cancel()
    gate.set()
    blocker.result(WAIT)
    held.call(number, what="one more turn of the loop")
    assert not slow.begun.is_set()


def test_what_is_cancelled_between_its_task_and_its_first_step_is_settled(held: Portal) -> None:
    slow = Slow()
    work = _Call(slow, "dialling")

    async def at_that_moment() -> None:
        run = held._own("the test")
        run._inbox.append(work)
        run._take_in()
        work.cancelled = True
        run._cancel(work)

    held.call(at_that_moment, what="x")
    assert work.gate.acquire(timeout=WAIT)
    assert isinstance(work.error, UTDClosedError)
    assert not slow.begun.is_set()


def test_posting_from_the_loop_thread_works(held: Portal) -> None:
    async def inside() -> int:
        return await asyncio.wrap_future(held.post(lambda: number(4)))

    assert held.call(inside, what="inside") == 4


async def test_acall_from_another_loop_runs_on_the_loop_thread(held: Portal) -> None:
    async def refuse() -> None:
        raise KeyError("mine")

    assert (await held.acall(here, timeout=WAIT, what="the thread")).name == "utd-fsm-loop"
    with pytest.raises(KeyError, match="mine"):
        await held.acall(refuse, timeout=WAIT, what="a refusal")


async def test_acall_times_out_like_call(held: Portal) -> None:
    slow = Slow()
    with pytest.raises(UTDTimeoutError, match="dialling bob") as info:
        await held.acall(slow, timeout=0.2, what="dialling bob")
    assert info.value.outcome_known is False
    assert await asyncio.to_thread(slow.cancelled.wait, WAIT)


async def test_a_timeout_of_the_awaited_works_own_is_passed_on(held: Portal) -> None:
    async def impatient() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as info:
        await held.acall(impatient, timeout=WAIT, what="impatient work")
    assert not isinstance(info.value, UTDTimeoutError)


async def test_a_cancelled_await_cancels_the_work(held: Portal) -> None:
    slow = Slow()
    task = asyncio.create_task(held.acall(slow, timeout=None, what="dialling"))
    assert await asyncio.to_thread(slow.begun.wait, WAIT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(slow.cancelled.wait, WAIT)


def test_acall_whose_loop_is_closed_under_it_harms_nobody(held: Portal) -> None:
    gate = threading.Event()

    async def later() -> None:
        while not gate.is_set():
            await asyncio.sleep(0.001)

    async def begin() -> None:
        task = asyncio.create_task(held.acall(later, timeout=None, what="later"))
        await asyncio.sleep(0.01)
        task.get_coro().close()  # as when its loop is stopped in the middle
        task.cancel()

    asyncio.run(begin())
    gate.set()
    assert held.call(number, what="x") == 1


# spawn, in_thread, loop


def test_spawned_tasks_are_held_and_their_errors_logged(held: Portal, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    async def fail() -> None:
        raise KeyError("mine")

    async def start() -> None:
        held.spawn(work(), name="work")
        gc.collect()
        await asyncio.wait([held.spawn(fail(), name="the failing one")])

    held.call(start, what="start")
    assert done.wait(WAIT)
    held.call(number, what="one more turn of the loop")
    assert "the failing one" in caplog.text
    assert "KeyError" in caplog.text


def test_what_belongs_to_the_loop_thread_is_refused_elsewhere(held: Portal) -> None:
    with pytest.raises(UTDStateError, match="loop thread"):
        _ = held.loop
    with pytest.raises(UTDStateError, match="loop thread"):
        held.spawn(number(), name="x")

    async def where() -> bool:
        return held.loop is asyncio.get_running_loop()

    assert held.call(where, what="where")


def test_blocking_work_runs_in_a_rest_thread_and_not_on_the_loop(held: Portal) -> None:
    def name() -> str:
        return threading.current_thread().name

    def refuse() -> None:
        raise SystemExit(3)

    def stop() -> None:
        raise StopIteration

    assert held.call(lambda: held.in_thread(name), what="x").startswith("utd-fsm-rest-")
    with pytest.raises(SystemExit):
        held.call(lambda: held.in_thread(refuse), what="x")
    with pytest.raises(RuntimeError, match="StopIteration"):
        held.call(lambda: held.in_thread(stop), what="x")
    assert held.call(lambda: held.in_thread(name), what="x").startswith("utd-fsm-rest-")


def test_rest_threads_are_few_and_work_waits_for_its_turn(held: Portal) -> None:
    gate, lock, running, most = threading.Event(), threading.Lock(), 0, 0
    full = threading.Event()

    def request() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 8:
                full.set()
        gate.wait(WAIT)
        with lock:
            running -= 1

    async def many() -> None:
        await asyncio.gather(*(held.in_thread(request) for _ in range(30)))

    future = held.post(many)
    assert full.wait(WAIT)
    assert held.call(number, what="the loop is free meanwhile") == 1
    gate.set()
    future.result(WAIT)
    assert most == 8


def test_a_cancelled_await_leaves_the_thread_alone(held: Portal) -> None:
    begun, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def request() -> None:
        begun.set()
        gate.wait(WAIT)
        ended.set()

    with pytest.raises(UTDTimeoutError):
        held.call(lambda: held.in_thread(request), timeout=0.2, what="a request")
    assert begun.is_set()
    gate.set()
    assert ended.wait(WAIT)
    assert held.call(lambda: held.in_thread(number_of_one), what="x") == 1


def number_of_one() -> int:
    return 1


def test_a_name_lookup_runs_in_our_threads(held: Portal) -> None:
    async def look_up() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, threading.current_thread)

    assert held.call(look_up, what="a look-up").name.startswith("utd-fsm-rest-")


def test_the_pid_is_this_process() -> None:
    assert portal().pid == os.getpid()


def test_nothing_is_logged_when_all_goes_well(held: Portal, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        held.call(number, what="x")
    assert caplog.text == "" or "asyncio" in {record.name for record in caplog.records}


def _typed(held: Portal) -> Awaitable[int]:
    """Only for the type checkers: results keep their types through every way in."""
    a: int = held.call(number, what="x")
    b: concurrent.futures.Future[int] = held.post(number)
    del a, b
    return held.acall(number, timeout=None, what="x")


def test_a_result_that_comes_as_its_wait_is_given_up_is_told_to_be_lost() -> None:
    lost: list[int] = []
    told = threading.Event()

    def note(result: int) -> None:
        lost.append(result)
        told.set()

    async def slow() -> int:
        time.sleep(0.3)  # the loop cannot hear meanwhile that the wait was given up
        return 7

    with pytest.raises(UTDTimeoutError):
        portal().call(slow, timeout=0.05, what="slow()", lost=note)
    assert told.wait(20)

    async def from_another_loop() -> None:
        told.clear()
        with pytest.raises(UTDTimeoutError):
            await portal().acall(slow, timeout=0.05, what="slow()", lost=note)

    asyncio.run(from_another_loop())
    assert told.wait(20)
    assert lost == [7, 7]

    async def quick() -> int:
        return 8

    assert portal().call(quick, what="quick()", lost=note) == 8
    assert lost == [7, 7]
