"""The blocking Observable: its value, its waits, its updates, its announcements, and the slips it refuses."""

from __future__ import annotations

import asyncio
import gc
import math
import operator
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from utd_fsm import signals
from utd_fsm.errors import UTDClosedError, UTDInputError, UTDStateError, UTDTimeoutError, UTDWouldBlockError
from utd_fsm.observable import AsyncObservable, Observable
from utd_fsm.portal import portal
from utd_fsm.signal import UTDSignal

WAIT = 30.0


def ended() -> UTDStateError:
    return UTDStateError("the call has ended")


@pytest.fixture
def status() -> Observable[str]:
    return Observable("idle", name="status of call 7")


def start(fn: Callable[[], Any]) -> queue.SimpleQueue[Any]:
    """Run ``fn`` in a thread; its result, or what it raised, comes out of the queue."""
    outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(fn())
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=work, daemon=True).start()
    return outcome


def subscribed(observable: Observable[Any], readers: int = 1) -> None:
    until = time.monotonic() + WAIT
    while len(observable._feeds) < readers:
        assert time.monotonic() < until
        time.sleep(0.001)


# slips


def test_a_truth_value_and_a_comparison_are_refused_with_the_mend(status: Observable[str]) -> None:
    slips: list[Callable[[], Any]] = [
        lambda: bool(status),
        lambda: operator.not_(status),
        lambda: status == "idle",
        lambda: status != "idle",
        lambda: "idle" == status,  # noqa: SIM300
        lambda: status == status,
    ]
    for slip in slips:
        with pytest.raises(TypeError, match=r"did you mean \.value\?"):
            slip()


def test_it_is_hashable_by_identity_and_shows_its_name(status: Observable[str]) -> None:
    other = Observable("idle", name="another")
    assert {status: 1, other: 2}[status] == 1
    assert repr(status) == "<Observable status of call 7>"


def test_the_value_cannot_be_assigned(status: Observable[str]) -> None:
    with pytest.raises(AttributeError):
        status.value = "active"  # type: ignore[misc]


# waiting


def test_a_wait_looks_at_the_current_value_first(status: Observable[str]) -> None:
    assert status.wait_for("idle", timeout=0) == "idle"
    assert status.wait_for(lambda value: value.startswith("id"), timeout=0) == "idle"


def test_a_wait_sees_a_value_however_short_it_lasted(status: Observable[str]) -> None:
    outcome = start(lambda: status.wait_for("ringing", timeout=WAIT))
    subscribed(status)
    for value in ("dialling", "ringing", "active", "ended"):
        status.set(value)
    assert outcome.get(timeout=WAIT) == "ringing"
    assert not status._feeds


def test_the_predicate_runs_in_the_waiters_thread_and_sees_every_value_once(status: Observable[str]) -> None:
    seen: list[tuple[str, str]] = []

    def predicate(value: str) -> bool:
        seen.append((value, threading.current_thread().name))
        return value == "ended"

    outcome = start(lambda: (status.wait_for(predicate, timeout=WAIT), threading.current_thread().name))
    subscribed(status)
    for value in ("dialling", "active", "ended"):
        status.set(value)
    value, name = outcome.get(timeout=WAIT)
    assert seen == [(value, name) for value in ("idle", "dialling", "active", "ended")]


def test_what_a_predicate_raises_reaches_its_caller_alone(status: Observable[str]) -> None:
    def predicate(value: str) -> bool:
        raise KeyError(value)

    with pytest.raises(KeyError):
        status.wait_for(predicate)
    assert not status._feeds


def test_a_wait_that_times_out_says_what_it_found_and_changes_nothing(status: Observable[str]) -> None:
    with pytest.raises(
        UTDTimeoutError, match=r"status of call 7 did not become .* within 0\.05 s; it is 'idle'"
    ) as info:
        status.wait_for("active", timeout=0.05)
    assert info.value.outcome_known is True
    assert status.value == "idle"
    assert not status._feeds


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UTDTimeoutError) as info:
        Observable("x" * 10_000, name="grid").wait_for("y", timeout=0)
    assert len(str(info.value)) < 400


@pytest.mark.parametrize("timeout", [math.nan, -1, "5", True])
def test_wrong_timeouts_are_refused(status: Observable[str], timeout: Any) -> None:
    with pytest.raises(UTDInputError):
        status.wait_for("idle", timeout=timeout)
    with pytest.raises(UTDInputError):
        status.updates(timeout=timeout)


def test_waits_raise_at_once_when_the_value_can_no_longer_come(status: Observable[str]) -> None:
    outcomes = [start(lambda: status.wait_for("active", timeout=None)) for _ in range(3)]
    subscribed(status, 3)
    status.set("ended")
    status.finish(ended)
    errors = [outcome.get(timeout=WAIT) for outcome in outcomes]
    assert [type(error) for error in errors] == [UTDStateError] * 3
    assert len({id(error) for error in errors}) == 3
    with pytest.raises(UTDStateError, match="the call has ended"):
        status.wait_for("active", timeout=None)


def test_the_last_value_still_counts_when_it_is_the_one(status: Observable[str]) -> None:
    outcome = start(lambda: status.wait_for("ended", timeout=None))
    subscribed(status)
    status.set("ended")
    status.finish(ended)
    assert outcome.get(timeout=WAIT) == "ended"
    assert status.wait_for("ended", timeout=0) == "ended"
    assert status.finished


def test_it_can_be_reopened_for_a_second_call(status: Observable[str]) -> None:
    status.set("ended")
    status.finish(ended)
    status.reopen()
    outcome = start(lambda: status.wait_for("active", timeout=WAIT))
    subscribed(status)
    assert not status.finished
    status.set("active")
    assert outcome.get(timeout=WAIT) == "active"


def test_a_wait_that_is_told_of_the_end_keeps_it_although_a_second_call_begins(status: Observable[str]) -> None:
    gate, looked = threading.Event(), threading.Event()

    def predicate(value: str) -> bool:
        looked.set()
        gate.wait(WAIT)
        return value == "active"

    outcome = start(lambda: status.wait_for(predicate, timeout=WAIT))
    assert looked.wait(WAIT)
    status.finish(ended)
    status.reopen()
    status.set("active")
    gate.set()
    assert isinstance(outcome.get(timeout=WAIT), UTDStateError)


async def test_waiting_under_an_event_loop_is_refused(status: Observable[str]) -> None:
    with pytest.raises(UTDWouldBlockError, match=r"status of call 7\.wait_for.*await"):
        status.wait_for("idle")
    with pytest.raises(UTDWouldBlockError, match=r"status of call 7\.updates"):
        status.updates()


def test_waiting_on_the_loop_thread_is_refused(status: Observable[str]) -> None:
    async def wait() -> None:
        status.wait_for("idle")

    with pytest.raises(UTDWouldBlockError, match="loop thread"):
        portal().call(wait, what="x")


def test_a_receiver_may_wait(status: Observable[str]) -> None:
    outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def receive(_: object, *, value: str, **extra: Any) -> None:
        if value == "ringing":
            outcome.put(status.wait_for("active", timeout=WAIT))

    status.changed.connect(receive)
    status.set("ringing")
    subscribed(status)
    status.set("active")
    assert outcome.get(timeout=WAIT) == "active"


# updates


def test_updates_give_the_current_value_and_every_change_until_the_end(status: Observable[str]) -> None:
    outcome = start(lambda: list(status.updates()))
    subscribed(status)
    for value in ("dialling", "dialling", "active", "ended"):
        status.set(value)
    status.finish(ended)
    assert outcome.get(timeout=WAIT) == ["idle", "dialling", "active", "ended"]
    assert list(status.updates()) == ["ended"]


def test_a_gap_longer_than_the_timeout_raises(status: Observable[str]) -> None:
    updates = status.updates(timeout=0.05)
    assert next(updates) == "idle"
    status.set("active")
    assert next(updates) == "active"
    with pytest.raises(UTDTimeoutError, match=r"did not change within 0\.05 s; it is 'active'"):
        next(updates)
    assert not status._feeds


def test_the_time_a_caller_takes_is_not_a_gap(status: Observable[str]) -> None:
    updates = status.updates(timeout=0.2)
    assert next(updates) == "idle"
    status.set("active")
    time.sleep(0.3)
    assert next(updates) == "active"


def test_closing_or_dropping_updates_unsubscribes(status: Observable[str]) -> None:
    updates = status.updates()
    assert not status._feeds
    next(updates)
    assert len(status._feeds) == 1
    updates.close()
    assert not status._feeds
    for value in status.updates():
        assert value == "idle"
        break
    gc.collect()
    assert not status._feeds


@pytest.fixture
def _impatient_interpreter() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_impatient_interpreter")
def test_no_value_is_skipped_or_repeated_under_load() -> None:
    """Eight readers come at any moment, follow, leave and come again, while one writer runs through 20,000 values."""
    last = 20_000
    counter = Observable(0, name="counter")
    lease = portal().hold()
    barrier = threading.Barrier(9)

    def follow(index: int) -> int:
        dice = random.Random(index)
        barrier.wait(WAIT)
        newest = 0
        subscriptions = 0
        while newest < last:
            subscriptions += 1
            expected = None
            for value in counter.updates(timeout=WAIT):
                if expected is None:
                    assert value >= newest
                else:
                    assert value == expected
                newest, expected = value, value + 1
                if value == last or dice.random() < 0.01:
                    break
            seen = counter.wait_for(lambda value, least=newest: value >= least, timeout=WAIT)  # type: ignore[misc]
            assert seen >= newest
        return subscriptions

    outcomes = [start(lambda index=index: follow(index)) for index in range(8)]  # type: ignore[misc]

    async def count() -> None:
        for n in range(1, last + 1):
            counter.set(n)
            if n % 20 == 0:
                await asyncio.sleep(0)

    barrier.wait(WAIT)
    portal().call(count, timeout=100, what="counting")
    subscriptions = [outcome.get(timeout=WAIT) for outcome in outcomes]
    assert all(isinstance(number, int) for number in subscriptions), subscriptions
    assert not counter._feeds
    lease.release()


class MeddlingFeeds(dict[Any, None]):
    """The observable's books, which let a change happen just before or just after a reader subscribes."""

    def __init__(self, meddle: Callable[[], object], before: bool) -> None:
        super().__init__()
        self._meddle = meddle
        self._before = before

    def __setitem__(self, key: Any, value: None) -> None:
        if self._before:
            self._meddle()
        super().__setitem__(key, value)
        if not self._before:
            self._meddle()


@pytest.mark.parametrize("before", [True, False])
def test_a_change_at_the_very_moment_of_subscribing_is_seen_once(status: Observable[str], before: bool) -> None:
    status._feeds = MeddlingFeeds(lambda: status.set("active"), before)
    updates = status.updates(timeout=0.05)
    assert next(updates) == "active"
    with pytest.raises(UTDTimeoutError):
        next(updates)


@pytest.mark.parametrize("before", [True, False])
async def test_the_awaitable_one_sees_it_once_too(before: bool) -> None:
    status = AsyncObservable("idle", name="status")
    status._feeds = MeddlingFeeds(lambda: status.set("active"), before)
    updates = status.updates(timeout=0.05)
    assert await anext(updates) == "active"
    with pytest.raises(UTDTimeoutError):
        await anext(updates)


# announcing


def test_a_change_is_announced_to_its_receivers_and_to_the_package() -> None:
    session = object()
    numbers = iter(range(41, 100))
    announced = UTDSignal("announced")
    status: Observable[str] = Observable(
        "idle", name="status", signal=announced, sender=session, next_seq=lambda: next(numbers), extra={"call_id": "c1"}
    )
    got: list[tuple[object, dict[str, Any]]] = []

    def receive(sender: object, **payload: Any) -> None:
        got.append((sender, payload))

    status.changed.connect(receive)
    announced.connect(receive, weak=False)
    assert status.set("dialling") is True
    assert status.set("dialling") is False
    assert status.set("active", changed_indexes=(1,)) is True
    signals.drain(WAIT)
    first = {"value": "dialling", "previous": "idle", "seq": 41, "call_id": "c1"}
    second = {"value": "active", "previous": "dialling", "seq": 42, "call_id": "c1", "changed_indexes": (1,)}
    assert [payload for _, payload in got] == [first, first, second, second]
    assert [sender is status for sender, _ in got] == [True, False, True, False]
    assert [sender is session for sender, _ in got] == [False, True, False, True]


def test_changed_holds_lambdas_and_local_functions(status: Observable[str]) -> None:
    got: list[str] = []

    def local() -> None:
        status.changed.connect(lambda observable, *, value, **extra: got.append(value))

    local()
    gc.collect()
    status.set("active")
    signals.drain(WAIT)
    assert got == ["active"]
    assert status.changed is status.changed


def test_changed_without_a_number_from_the_session_counts_by_itself(status: Observable[str]) -> None:
    got: list[int] = []
    status.changed.connect(lambda observable, *, seq, **extra: got.append(seq))
    for value in "abc":
        status.set(value)
    signals.drain(WAIT)
    assert got == [1, 2, 3]


def test_a_finished_observable_without_more_to_say_is_closed(status: Observable[str]) -> None:
    status.finish(lambda: UTDClosedError("the client is closed"))
    with pytest.raises(UTDClosedError, match="the client is closed"):
        status.wait_for("active")
