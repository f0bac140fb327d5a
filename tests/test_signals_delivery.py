"""How the signals thread delivers: in order, each receiver by itself, bounded, and to nobody who came too late."""

from __future__ import annotations

import functools
import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from utd_fsm import signals
from utd_fsm.dispatcher import Dispatcher, dispatcher
from utd_fsm.errors import UTDInputError, UTDTimeoutError, UTDWouldBlockError
from utd_fsm.portal import portal
from utd_fsm.signal import UTDSignal

WAIT = 30.0


@pytest.fixture
def signal() -> UTDSignal:
    return UTDSignal("tested")


@pytest.fixture
def delivery() -> Iterator[Dispatcher]:
    """A dispatcher of the test's own."""
    delivery = Dispatcher(limit=5)
    yield delivery
    delivery.stop()
    assert delivery.join(WAIT)


@pytest.fixture
def _impatient_interpreter() -> Iterator[None]:
    """Threads take turns every few microseconds, so that they meet in the middle of things."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


class Sender: ...


async def _coroutine_function(sender: object, **extra: Any) -> None: ...


seen_by_the_module: list[Any] = []


def receive_for_the_module(sender: object, **payload: Any) -> None:
    seen_by_the_module.append((sender, payload))


@pytest.fixture(autouse=True)
def _forget() -> None:
    seen_by_the_module.clear()


def test_receivers_get_what_is_emitted_after_they_connected_and_before_they_left(
    signal: UTDSignal, delivery: Dispatcher
) -> None:
    gate, blocked = threading.Event(), threading.Event()
    early: list[int] = []
    late: list[int] = []

    def receive_early(sender: object, *, n: int) -> None:
        early.append(n)
        blocked.set()
        gate.wait(WAIT)

    def receive_late(sender: object, *, n: int) -> None:
        late.append(n)

    signal.connect(receive_early, weak=False)
    delivery.emit(signal, None, n=1)
    assert blocked.wait(WAIT)
    delivery.emit(signal, None, n=2)
    signal.connect(receive_late, weak=False)
    delivery.emit(signal, None, n=3)
    signal.disconnect(receive_early)
    gate.set()
    delivery.drain(WAIT)
    assert early == [1]
    assert late == [3]


def test_order_is_kept_and_nothing_is_lost(signal: UTDSignal) -> None:
    delivery = Dispatcher()
    got: dict[Sender, list[int]] = {Sender(): [] for _ in range(4)}

    def receive(sender: Sender, *, n: int) -> None:
        got[sender].append(n)

    signal.connect(receive, weak=False)

    def emit(sender: Sender) -> None:
        for n in range(1_000):
            assert delivery.emit(signal, sender, n=n)

    threads = [threading.Thread(target=emit, args=(sender,)) for sender in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    delivery.drain(WAIT)
    assert all(numbers == list(range(1_000)) for numbers in got.values())
    delivery.stop()
    assert delivery.join(WAIT)


@pytest.mark.parametrize("exception", [KeyError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_receiver_that_raises_costs_nobody_a_signal(
    signal: UTDSignal, delivery: Dispatcher, caplog: pytest.LogCaptureFixture, exception: type[BaseException]
) -> None:
    got: list[int] = []
    errors: list[tuple[Any, ...]] = []

    def the_bad_one(sender: object, *, n: int) -> None:
        raise exception("its own affair")

    def broken_hook(*_: object) -> None:
        raise KeyError("a broken hook")

    signal.connect(the_bad_one, weak=False)
    for _ in range(3):
        signal.connect(lambda sender, *, n: got.append(n), weak=False)

    def hook(*told: object) -> None:
        errors.append(told)

    signals.on_receiver_error.extend([broken_hook, hook])
    try:
        for n in range(3):
            delivery.emit(signal, "sender", n=n)
        delivery.drain(WAIT)
    finally:
        signals.on_receiver_error.remove(hook)
        signals.on_receiver_error.remove(broken_hook)
    assert got == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert "the_bad_one" in caplog.text
    assert "tested" in caplog.text
    assert [(type(error), receiver, at, sender) for error, receiver, at, sender in errors] == [
        (exception, the_bad_one, signal, "sender")
    ] * 3


def test_a_receiver_that_can_not_even_be_named_costs_nobody_a_signal(
    signal: UTDSignal, delivery: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad:
        def __call__(self, sender: object) -> None:
            raise KeyError("its own affair")

        def __repr__(self) -> str:
            raise RuntimeError("no repr either")

    got: list[object] = []
    signal.connect(Bad(), weak=False)
    signal.connect(got.append, weak=False)
    delivery.emit(signal, 1)
    delivery.emit(signal, 2)
    delivery.drain(WAIT)
    assert got == [1, 2]
    assert "Bad of signal tested raised" in caplog.text


def test_a_receiver_that_returns_a_coroutine_is_an_error(
    signal: UTDSignal, delivery: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    signal.connect(lambda sender, **extra: _coroutine_function(sender), weak=False)
    delivery.emit(signal, None)
    delivery.drain(WAIT)
    assert "nobody awaits" in caplog.text


def test_a_slow_receiver_is_logged_by_name_while_it_blocks(
    signal: UTDSignal, delivery: Dispatcher, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utd_fsm.dispatcher.SLOW_RECEIVER", 0.02)
    gate, begun = threading.Event(), threading.Event()

    def the_slow_one(sender: object, **extra: Any) -> None:
        begun.set()
        gate.wait(WAIT)

    signal.connect(the_slow_one, weak=False)
    delivery.emit(signal, None)
    assert begun.wait(WAIT)
    with pytest.raises(UTDTimeoutError, match=r"within 0\.1 s.*the_slow_one is running"):
        delivery.drain(0.1)
    assert "the_slow_one has taken" in caplog.text
    delivery.emit(signal, None)
    gate.set()
    delivery.drain(WAIT)
    assert caplog.text.count("the_slow_one has taken") == 1


def test_a_full_queue_drops_counts_and_tells(
    signal: UTDSignal, delivery: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    gate, begun = threading.Event(), threading.Event()
    other = UTDSignal("another")
    got: list[tuple[str, str, int, int]] = []

    def receive(sender: str, *, n: int, dropped: int = 0, name: str = "tested") -> None:
        got.append((name, sender, n, dropped))
        begun.set()
        gate.wait(WAIT)

    signal.connect(receive, weak=False)
    other.connect(functools.partial(receive, name="another"), weak=False)
    delivery.emit(signal, "alice", n=0)
    assert begun.wait(WAIT)
    for n in range(1, 6):
        assert delivery.emit(signal, "alice", n=n)
    for n in range(6, 9):
        assert not delivery.emit(signal, "alice", n=n)
    assert not delivery.emit(other, "bob", n=9)
    assert delivery.emit(signal, "alice", n=10, drop_ok=False)  # what must arrive does, and tells what was lost
    assert delivery.dropped == 4
    gate.set()
    delivery.drain(WAIT)
    delivery.emit(signal, "alice", n=11)
    delivery.emit(other, "bob", n=12)
    delivery.emit(other, "bob", n=13)
    delivery.drain(WAIT)
    assert got == [
        *(("tested", "alice", n, 0) for n in range(6)),
        ("tested", "alice", 10, 3),
        ("tested", "alice", 11, 0),
        ("another", "bob", 12, 1),
        ("another", "bob", 13, 0),
    ]
    assert caplog.text.count("more are dropped") == 1


def test_a_muted_signal_reaches_nobody(signal: UTDSignal, delivery: Dispatcher) -> None:
    got: list[object] = []
    signal.connect(lambda sender, **extra: got.append(sender), weak=False)
    with signal.muted():
        delivery.emit(signal, 1)
        delivery.drain(WAIT)
    delivery.emit(signal, 2)
    delivery.drain(WAIT)
    assert got == [2]


def test_drain_from_a_receiver_is_refused(signal: UTDSignal) -> None:
    refused: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def receive(sender: object, **extra: Any) -> None:
        try:
            signals.drain()
        except BaseException as error:
            refused.put(error)

    signal.connect(receive, weak=False)
    dispatcher().emit(signal, None)
    error = refused.get(timeout=WAIT)
    assert isinstance(error, UTDWouldBlockError)
    assert "receiver" in str(error)
    signals.drain(WAIT)


async def test_drain_under_an_event_loop_is_refused() -> None:
    with pytest.raises(UTDWouldBlockError, match=r"drain.*event loop"):
        signals.drain()


def test_drain_with_nothing_to_wait_for_returns_and_bad_timeouts_are_refused() -> None:
    signals.drain(WAIT)
    signals.drain(WAIT)
    with pytest.raises(UTDInputError):
        signals.drain(-1)


def test_a_receiver_may_call_back_in_and_close_from_inside(signal: UTDSignal) -> None:
    lease = portal().hold()
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def number() -> int:
        return 5

    def receive(sender: object, **extra: Any) -> None:
        got.put(portal().call(number, timeout=WAIT, what="from a receiver"))
        lease.release()
        got.put(threading.current_thread().name)

    signal.connect(receive, weak=False)

    async def emit() -> None:
        dispatcher().emit(signal, None)

    portal().call(emit, what="emitting")
    assert got.get(timeout=WAIT) == 5
    assert got.get(timeout=WAIT) == "utd-fsm-signals"


def test_the_thread_ends_and_begins_under_everybodys_feet_and_no_signal_is_lost(signal: UTDSignal) -> None:
    delivery = Dispatcher()
    got: list[int] = []
    signal.connect(lambda sender, *, n: got.append(n), weak=False)
    for n in range(2_000):
        delivery.emit(signal, None, n=n)
        delivery.stop()
        if n % 3 == 0:
            delivery.drain(WAIT)
    delivery.drain(WAIT)
    assert got == list(range(2_000))
    delivery.stop()
    assert delivery.join(WAIT)


class MeddlingQueue(queue.SimpleQueue[Any]):
    """A queue that lets something happen just after it was found empty."""

    meddle: Callable[[], object] | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return super().get(block, timeout)
        except queue.Empty:
            meddle, self.meddle = self.meddle, None
            if meddle is not None:
                meddle()
            raise


def test_a_signal_that_comes_as_the_thread_decides_to_end_is_delivered(
    signal: UTDSignal, delivery: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: queue.SimpleQueue[int] = queue.SimpleQueue()
    signal.connect(lambda sender, *, n: got.put(n), weak=False)
    meddling = MeddlingQueue()
    meddling.meddle = lambda: delivery.emit(signal, None, n=2)
    monkeypatch.setattr(delivery, "_queue", meddling)
    delivery.emit(signal, None, n=1)
    delivery.stop()
    assert [got.get(timeout=WAIT), got.get(timeout=WAIT)] == [1, 2]


@pytest.mark.usefixtures("_impatient_interpreter")
def test_connecting_while_others_connect_leave_and_are_collected(signal: UTDSignal, delivery: Dispatcher) -> None:
    """blinker's books are walked without a lock of its own: ours keeps them whole."""
    failures: list[BaseException] = []

    class Receiver:
        def receive(self, sender: object, **extra: Any) -> None: ...

    def come_and_go() -> None:
        try:
            for _ in range(100):
                senders = [Sender() for _ in range(20)]
                receivers = [Receiver() for _ in range(20)]
                for receiver, sender in zip(receivers, senders, strict=True):
                    signal.connect(receiver.receive, sender=sender)
                for receiver in receivers[::2]:
                    signal.disconnect(receiver.receive)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        delivery.emit(signal, Sender())
        threads[0].join(0.001)
    assert failures == []
    delivery.drain(WAIT)


def test_nothing_is_logged_when_all_goes_well(
    signal: UTDSignal, delivery: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    signal.connect(receive_for_the_module)
    with caplog.at_level(logging.INFO):
        delivery.emit(signal, None, n=1)
        delivery.drain(WAIT)
    assert seen_by_the_module == [(None, {"n": 1})]
    assert caplog.text == ""
