"""Many threads at one portal: everybody's own result, one order that all agree on, nothing left over."""

from __future__ import annotations

import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from utd_fsm.errors import UTDTimeoutError
from utd_fsm.loop_thread import ReentrantLock
from utd_fsm.portal import Portal, portal

THREADS = 8
OPERATIONS = 2_000


@dataclass(frozen=True, slots=True)
class Operation:
    """One call as its caller saw it: when it was asked and answered, and what the loop says of its place."""

    asked: int
    answered: int
    seq: int
    expected: int
    new: int
    swapped: bool
    found: int


class Register:
    """A number on the loop thread, changed by compare-and-swap; every step has its place in the loop's order."""

    def __init__(self) -> None:
        self.seq = 0
        self.value = 0

    async def swap(self, expected: int, new: int) -> tuple[int, bool, int]:
        self.seq += 1
        found = self.value
        if found == expected:
            self.value = new
        return self.seq, found == expected, found


def check_linearizable(history: list[Operation]) -> None:
    """One pass in the order of the loop: each answer is that of a register used by one thread alone, and no operation
    stands behind one that was asked only after it had been answered."""
    history = sorted(history, key=lambda operation: operation.seq)
    assert [operation.seq for operation in history] == list(range(1, len(history) + 1))
    value, latest_asked = 0, 0
    for operation in history:
        assert operation.answered > latest_asked, f"{operation} stands behind one asked at {latest_asked}"
        latest_asked = max(latest_asked, operation.asked)
        assert operation.found == value
        assert operation.swapped == (operation.expected == value)
        if operation.swapped:
            value = operation.new


@pytest.fixture
def held() -> Iterator[Portal]:
    lease = portal().hold()
    yield portal()
    lease.release()


@pytest.fixture
def impatient_interpreter() -> Iterator[None]:
    """Threads take turns every few microseconds, so that they meet in the middle of things."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def run_all(targets: list[threading.Thread]) -> None:
    for thread in targets:
        thread.start()
    for thread in targets:
        thread.join(100)
        assert not thread.is_alive()


@pytest.mark.usefixtures("impatient_interpreter")
def test_eight_threads_get_their_own_results_in_one_order(held: Portal) -> None:
    register = Register()
    histories: list[list[Operation]] = [[] for _ in range(THREADS)]
    barrier = threading.Barrier(THREADS)

    def caller(index: int) -> None:
        dice = random.Random(index)
        history = histories[index]
        found = 0
        barrier.wait()
        for step in range(OPERATIONS):
            expected = found if dice.random() < 0.8 else -1
            new = (index + 1) * 1_000_000 + step
            asked = time.perf_counter_ns()
            seq, swapped, found = held.call(
                lambda expected=expected, new=new: register.swap(expected, new),  # type: ignore[misc]
                what="a swap",
            )
            history.append(Operation(asked, time.perf_counter_ns(), seq, expected, new, swapped, found))
            if swapped:
                found = new

    run_all([threading.Thread(target=caller, args=(index,)) for index in range(THREADS)])
    assert all(len(history) == OPERATIONS for history in histories)
    for history in histories:
        assert [operation.seq for operation in history] == sorted(operation.seq for operation in history)
    check_linearizable([operation for history in histories for operation in history])


def test_the_check_itself_finds_a_wrong_answer_and_a_wrong_order() -> None:
    good = [Operation(1, 4, 1, 0, 10, True, 0), Operation(2, 6, 2, 10, 20, True, 10)]
    check_linearizable(good)
    with pytest.raises(AssertionError):
        check_linearizable([good[0], Operation(2, 6, 2, 10, 20, True, 99)])
    with pytest.raises(AssertionError):  # the second was answered before the first was asked
        check_linearizable([Operation(7, 9, 1, 0, 10, True, 0), Operation(2, 6, 2, 10, 20, True, 10)])


@pytest.mark.usefixtures("impatient_interpreter")
def test_calls_and_timeouts_that_meet_give_everybody_an_answer(held: Portal) -> None:
    answers: list[int] = []

    async def number(n: int) -> int:
        return n

    def caller(index: int) -> None:
        dice = random.Random(index)
        for n in range(500):
            try:
                answer = held.call(lambda n=n: number(n), timeout=dice.choice((0, 1e-5, 1e-4, 30)), what="x")  # type: ignore[misc]
            except UTDTimeoutError:
                continue
            assert answer == n
            answers.append(answer)

    run_all([threading.Thread(target=caller, args=(index,)) for index in range(THREADS)])
    assert answers
    assert held.call(lambda: number(1), what="x") == 1


@pytest.mark.usefixtures("impatient_interpreter")
def test_the_loop_ends_and_begins_under_everybodys_feet_and_nobody_loses_a_call() -> None:
    """Leases come and go in eight threads: the end of a run meets calls and leases at every point."""
    done = [0] * THREADS

    async def number(n: int) -> int:
        return n

    def caller(index: int) -> None:
        dice = random.Random(index)
        for n in range(150):
            lease = portal().hold()
            assert portal().call(lambda n=n: number(n), what="x") == n  # type: ignore[misc]
            if dice.random() < 0.2:
                time.sleep(0.001)
            lease.release()
            if dice.random() < 0.3:
                assert portal().call(lambda n=n: number(-n), what="x") == -n  # type: ignore[misc]
            done[index] += 1

    run_all([threading.Thread(target=caller, args=(index,)) for index in range(THREADS)])
    assert done == [150] * THREADS


class MeddlingLock:
    """The portal's lock, which lets something happen at the very moment when the loop thread decides to end."""

    def __init__(self, lock: ReentrantLock, meddle: Callable[[], None]) -> None:
        self._lock = lock
        self._meddle: Callable[[], None] | None = meddle

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        meddle = self._meddle
        if not blocking and meddle is not None:
            self._meddle = None
            meddle()
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_a_call_that_comes_as_the_loop_decides_to_end_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Portal()
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()

    async def number() -> int:
        return 6

    def call() -> None:
        try:
            answers.put(own.call(number, what="a call at the last moment"))
        except BaseException as error:
            answers.put(error)

    def meddle() -> None:
        run = own._run
        assert run is not None
        threading.Thread(target=call).start()
        while not run._inbox:
            time.sleep(0.001)

    monkeypatch.setattr(own, "lock", MeddlingLock(own.lock, meddle))
    own.hold().release()
    assert answers.get(timeout=30) == 6


def test_a_call_that_comes_when_the_loop_has_decided_to_end_goes_to_the_next() -> None:
    own = Portal()
    lease = own.hold()
    run = own._run
    assert run is not None
    lease.release()
    assert run.closed

    async def number() -> int:
        return 6

    own._run = run  # as a thread sees it that read it just before
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(own.call(number, what="a late call")), daemon=True).start()
    time.sleep(0.01)
    own._run = None
    assert answers.get(timeout=30) == 6


def threads_and_descriptors() -> tuple[int, int]:
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads and descriptors in /proc")
def test_fifty_open_and_close_cycles_leave_no_thread_and_no_descriptor() -> None:
    from utd_fsm.observable import Observable

    async def busy(value: Observable[int], n: int) -> None:
        async def background() -> None:
            await portal().in_thread(time.sleep, 60 if n < 0 else 0)

        portal().spawn(background(), name="background")
        await portal().in_thread(time.sleep, 0)
        value.set(n)

    seen: list[int] = []

    def cycle(n: int) -> None:
        lease = portal().hold()
        value = Observable(-1, name="value")
        value.changed.connect(lambda _, *, value, **extra: seen.append(value))
        portal().call(lambda: busy(value, n), what="being busy")
        lease.release()

    settled_by = time.monotonic() + 30
    ours = ("utd-fsm-loop", "utd-fsm-signals", "utd-fsm-rest")
    while any(thread.name.startswith(ours) for thread in threading.enumerate()):
        assert time.monotonic() < settled_by  # what other tests used without a lease lingers for a second
        time.sleep(0.01)
    cycle(0)
    before = threads_and_descriptors()
    for n in range(1, 51):
        cycle(n)
    # Not equal but no more: a thread that another test left to its fate may end meanwhile.
    after = threads_and_descriptors()
    while (after[0] > before[0] or after[1] > before[1]) and time.monotonic() < settled_by:
        time.sleep(0.01)  # a thread that has ended stands in /proc a moment longer
        after = threads_and_descriptors()
    assert after[0] <= before[0]
    assert after[1] <= before[1]
    assert seen == list(range(51))
