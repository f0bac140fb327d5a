"""The module-level signals: their names, how they are connected, and how the signals thread delivers them."""

from __future__ import annotations

import functools
import gc
import logging
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import blinker
import pytest

from tests.processes import run_python
from utd_fsm import signals
from utd_fsm.dispatcher import Dispatcher, dispatcher
from utd_fsm.errors import UTDInputError, UTDTimeoutError, UTDWouldBlockError
from utd_fsm.portal import portal
from utd_fsm.signal import UTDSignal, UTDWeakReceiverWarning

WAIT = 30.0

NAMES = [
    "incoming_call",
    "call_status_changed",
    "connection_changed",
    "can_publish_changed",
    "remote_participants_changed",
    "speakers_changed",
    "broadcast_changed",
    "stage_changed",
    "hands_changed",
    "seats_changed",
    "requests_changed",
    "chat_locked_changed",
    "invited",
    "role_changed",
    "chat_received",
    "data_received",
    "banned",
    "webhook_received",
]


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


seen_by_the_module: list[Any] = []


def receive_for_the_module(sender: object, **payload: Any) -> None:
    seen_by_the_module.append((sender, payload))


@pytest.fixture(autouse=True)
def _forget() -> None:
    seen_by_the_module.clear()


@pytest.mark.parametrize("name", NAMES)
def test_every_signal_is_there_named_and_documented(name: str) -> None:
    signal = getattr(signals, name)
    assert isinstance(signal, blinker.NamedSignal)
    assert signal.name == name
    assert "``" in (signal.__doc__ or "")
    assert "thread" in (signal.__doc__ or "")
    assert name in signals.__all__


def test_no_signal_is_there_that_is_not_listed() -> None:
    assert {name for name, value in vars(signals).items() if isinstance(value, blinker.Signal)} == set(NAMES)


# connecting


def test_a_lambda_and_a_local_function_are_warned_about(signal: UTDSignal) -> None:
    def local(sender: object, **extra: Any) -> None: ...

    for receiver in (lambda *_, **__: None, local, functools.partial(receive_for_the_module)):
        with pytest.warns(UTDWeakReceiverWarning, match=r"tested\.connect.*weak=False") as caught:
            signal.connect(receiver)
        assert caught[0].filename == __file__
    assert issubclass(UTDWeakReceiverWarning, UserWarning)


def test_what_is_held_is_not_warned_about(signal: UTDSignal) -> None:
    class Local:
        def method(self, sender: object, **extra: Any) -> None: ...

        def __call__(self, sender: object, **extra: Any) -> None: ...

    local = Local()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        signal.connect(lambda *_, **__: None, weak=False)
        signal.connect(receive_for_the_module)
        signal.connect(local.method)
        signal.connect(local)


def test_the_weak_default_is_blinkers(signal: UTDSignal, delivery: Dispatcher) -> None:
    with pytest.warns(UTDWeakReceiverWarning):
        signal.connect(lambda *_, **__: None)
    gc.collect()
    assert not signal.receivers


async def _coroutine_function(sender: object, **extra: Any) -> None: ...


class _AwaitableCall:
    async def __call__(self, sender: object, **extra: Any) -> None: ...

    async def method(self, sender: object, **extra: Any) -> None: ...


@pytest.mark.parametrize(
    "receiver",
    [
        _coroutine_function,
        functools.partial(_coroutine_function, x=1),
        _AwaitableCall(),
        _AwaitableCall().method,
        "receive",
        None,
    ],
)
def test_what_could_never_be_called_is_refused(signal: UTDSignal, receiver: Any) -> None:
    for weak in (True, False):
        with pytest.raises(UTDInputError, match=r"tested\.connect"):
            signal.connect(receiver, weak=weak)
    assert not signal.receivers


def test_the_mend_for_a_coroutine_function_is_in_the_message(signal: UTDSignal) -> None:
    with pytest.raises(UTDInputError, match="run_coroutine_threadsafe"):
        signal.connect(_coroutine_function)


def test_every_way_blinker_has_of_connecting_works(signal: UTDSignal, delivery: Dispatcher) -> None:
    got: list[str] = []
    alice, bob = Sender(), Sender()

    def note(word: str) -> Callable[..., None]:
        return lambda sender, **extra: got.append(word)

    signal.connect(note("for all"), weak=False)
    signal.connect(note("for alice"), sender=alice, weak=False)
    signal.connect_via(bob)(note("via bob"))
    with signal.connected_to(note("within")):
        delivery.emit(signal, alice)
        delivery.drain(WAIT)
    assert sorted(got) == ["for alice", "for all", "within"]
    got.clear()
    delivery.emit(signal, bob)
    delivery.drain(WAIT)
    assert sorted(got) == ["for all", "via bob"]


def test_the_decorator_of_the_documents_works(delivery: Dispatcher) -> None:
    decorated = signals.call_status_changed.connect(receive_for_the_module)
    try:
        assert decorated is receive_for_the_module
        session = Sender()
        delivery.emit(signals.call_status_changed, session, value="active", previous="ringing", seq=3)
        delivery.drain(WAIT)
        assert seen_by_the_module == [(session, {"value": "active", "previous": "ringing", "seq": 3})]
    finally:
        signals.call_status_changed.disconnect(receive_for_the_module)


def test_a_webhook_is_sent_where_it_arrives_and_its_receivers_errors_with_it() -> None:
    def refuse(sender: object, *, webhook: object) -> None:
        assert threading.current_thread() is threading.main_thread()
        raise KeyError(webhook)

    with signals.webhook_received.connected_to(refuse), pytest.raises(KeyError):
        signals.webhook_received.send(None, webhook="the webhook")


# delivering


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


# Django


def test_djangos_connections_are_looked_after_around_receivers_and_closed_with_the_thread() -> None:
    out, err = run_python(
        """
        import logging; logging.basicConfig()
        import sys
        from utd_fsm import signals
        from utd_fsm.dispatcher import dispatcher
        assert "django" not in sys.modules
        from django.conf import settings
        import django.db
        def receive(sender, **extra):
            connection = django.db.connections["default"]
            with connection.cursor() as cursor: print(cursor.execute("select 1").fetchone()[0])
            opened.append(connection); raw.append(connection.connection)
        opened, raw = [], []
        signals.invited.connect(receive)
        dispatcher().emit(signals.invited, None); signals.drain(20)   # not configured: the receiver fails, nothing else
        print("unconfigured", len(opened))
        import os, tempfile
        folder = tempfile.TemporaryDirectory()
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(folder.name, "db"), "CONN_MAX_AGE": 0}
        settings.configure(DATABASES={"default": database})
        django.setup()
        dispatcher().emit(signals.invited, None); signals.drain(20)
        print("closed", opened[-1].connection is None)
        opened[-1].settings_dict["CONN_MAX_AGE"] = 600
        dispatcher().emit(signals.invited, None); signals.drain(20)
        print("kept", opened[-1].connection is not None)
        opened[-1].close_at = 0                                       # its age is over while nothing is emitted
        dispatcher().emit(signals.invited, None); signals.drain(20)
        print("a fresh one", raw[-1] is not raw[-2])
        dispatcher().stop(); assert dispatcher().join(20)
        print("closed with the thread", opened[-1].connection is None)
        folder.cleanup()
        """
    )
    assert out.splitlines() == [
        "unconfigured 0",
        "1",
        "closed True",
        "1",
        "kept True",
        "1",
        "a fresh one True",
        "closed with the thread True",
    ]
    assert err.startswith("ERROR:utd_fsm.signals:receiver __main__.receive of signal invited raised")
    assert err.count("ERROR:") == 1


def test_django_is_not_imported_for_its_own_sake() -> None:
    out, _ = run_python(
        """
        import sys
        from utd_fsm import signals
        from utd_fsm.dispatcher import dispatcher
        def receive(sender, **extra): print("received")
        signals.invited.connect(receive)
        dispatcher().emit(signals.invited, None); signals.drain(20)
        print(any(name.startswith(("django", "livekit", "numpy", "requests")) for name in sys.modules))
        """
    )
    assert out == "received\nFalse\n"
