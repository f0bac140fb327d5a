"""The module-level signals: their names, how they are connected, and how the signals thread delivers them."""

from __future__ import annotations

import functools
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import blinker
import pytest

from tests.processes import run_python
from utd_fsm import signals
from utd_fsm.dispatcher import Dispatcher
from utd_fsm.errors import UTDInputError
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
