"""What api.md says of `utd_fsm.testing`, checked from outside: engines, peers, signals in tests."""

from __future__ import annotations

import gc
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.scenes import WAIT, joined, until
from tests.integration.calling import fresh, in_thread, signed_in
from utd_fsm import UTDCallStatus, UTDInputError, UTDStreamClient, UTDTimeoutError, UTDWouldBlockError, signals
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine, local_engine, strict_signals, wait_for_signal

pytestmark = pytest.mark.media


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with local_engine(media="embedded", ring_timeout=5) as running:
        yield running


# ---------------------------------------------------------------------------------------------------------- the engine


def test_the_page_as_it_stands() -> None:
    with local_engine(media="embedded", ring_timeout=1) as engine:
        client = UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url)
        with client, engine.peer("bob", on_call="accept", microphone=Tone(660), hang_up_after=0.5) as bob:
            client.authenticate("alice")
            with client.call_session("audio_call") as call:
                call.start("bob")
                assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
                assert call.wait_until_ended(timeout=WAIT).end_reason == "callee_hangup"
        assert bob.errors == []
        with (
            engine.peer("carol", on_call="ring"),
            signed_in(engine, "dave") as dave,
            dave.call_session("audio_call") as call,
        ):
            call.start("carol")
            assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.MISSED  # ring_timeout=1


def test_base_url_is_a_root(engine: LocalEngine) -> None:
    assert engine.base_url.startswith("http://127.0.0.1:")
    assert engine.base_url.count("/") == 2
    with urllib.request.urlopen(f"{engine.base_url}/api/v1/health", timeout=WAIT) as answer:
        assert answer.status == 200
        json.load(answer)


def test_both_come_back_on_the_same_ports_with_the_same_keys_and_data() -> None:
    with local_engine(media="embedded") as engine, signed_in(engine, "alice") as alice:
        before = [engine.base_url, engine.livekit_url, engine.livekit_key, engine.livekit_secret, engine.app_key]
        with alice.call_session("audio_call") as call:
            call_id = call.start("bob").call_id
        engine.restart(hard=True)
        engine.stop(hard=True)
        engine.start()
        engine.media.restart(hard=True)
        engine.media.stop(hard=True)
        engine.media.start()
        after = [engine.base_url, engine.livekit_url, engine.livekit_key, engine.livekit_secret, engine.app_key]
        assert before == after
        assert alice.get_call(call_id).status is UTDCallStatus.ENDED
        with joined(engine, "anybody", "somewhere") as room:
            assert room.connected.value


@pytest.mark.parametrize(
    ("on_call", "status"),
    [("reject", UTDCallStatus.REJECTED), ("busy", UTDCallStatus.BUSY), ("ignore", UTDCallStatus.MISSED)],
)
def test_what_a_peer_does(engine: LocalEngine, on_call: Any, status: UTDCallStatus) -> None:
    who = fresh("bob")
    with (
        engine.peer(who, on_call=on_call),
        signed_in(engine, fresh("alice")) as alice,
        alice.call_session("audio_call") as call,
    ):
        call.start(who)
        assert call.wait_for_answer(timeout=WAIT) is status


# ---------------------------------------------------------------------------------------------------- strict signals


def raises(sender: object, **extra: Any) -> None:
    raise ZeroDivisionError("of a receiver")


def test_strict_signals_raises_again_at_its_exit(engine: LocalEngine) -> None:
    with pytest.raises(ExceptionGroup) as caught, strict_signals(), joined(engine, fresh("ann"), fresh("room")):
        signals.connection_changed.connect(raises)
    signals.connection_changed.disconnect(raises)
    assert caught.value.subgroup(ZeroDivisionError)
    with strict_signals(), joined(engine, fresh("ann"), fresh("room")):
        pass


# --------------------------------------------------------------------------------------------------- wait_for_signal


def test_wait_for_signal_at_the_end_of_a_with(engine: LocalEngine) -> None:
    who = fresh("bob")
    with engine.peer(who), signed_in(engine, fresh("alice")) as alice, alice.call_session("audio_call") as call:
        with wait_for_signal(signals.call_status_changed, sender=call, timeout=WAIT) as emission:
            call.start(who)
        assert emission["value"] is UTDCallStatus.INITIATING
        assert emission["sender"] is call
        assert emission()["previous"] is None
        assert {"value", "previous", "seq"} <= set(emission)


def test_wait_for_signal_as_a_plain_call(engine: LocalEngine) -> None:
    who = fresh("bob")
    with engine.peer(who, on_call="ring") as peer, signed_in(engine, fresh("alice")) as alice:
        ringing = wait_for_signal(signals.incoming_call, peer.client, timeout=WAIT)
        with alice.call_session("audio_call") as call:
            started = in_thread(lambda: call.start(who))
            assert ringing.wait()["call"].call_id == started.result(WAIT).call_id
            assert ringing.arrived


def test_wait_for_signal_hears_only_its_sender_and_only_what_comes_later(engine: LocalEngine) -> None:
    room = fresh("room")
    with joined(engine, fresh("ann"), room) as ann, joined(engine, fresh("bob"), room) as bob:
        ann.send_data(b"too early")
        early = wait_for_signal(signals.data_received, bob, timeout=WAIT)
        assert early["data"] == b"too early"
        mine = wait_for_signal(signals.data_received, ann, timeout=0.2)
        later = wait_for_signal(signals.data_received, bob, timeout=WAIT)
        ann.send_data(b"later")
        assert later()["data"] == b"later"
        with pytest.raises(UTDTimeoutError, match="data_received"):
            mine.wait()
        bob.send_data(b"at last")
        assert mine.wait(timeout=WAIT)["data"] == b"at last"


def test_wait_for_signal_takes_the_changed_of_an_observable(engine: LocalEngine) -> None:
    with joined(engine, fresh("ann"), fresh("room")) as ann:
        with wait_for_signal(ann.connected.changed, timeout=WAIT) as emission:
            ann.disconnect()
        assert (emission["value"], emission["previous"]) == (False, True)


def test_wait_for_signal_times_out_and_lets_go() -> None:
    held = len(signals.banned.receivers)
    with pytest.raises(UTDTimeoutError), wait_for_signal(signals.banned, timeout=0.05):
        pass
    with pytest.raises(KeyError), wait_for_signal(signals.banned, timeout=0.05):
        raise KeyError("the body's own error counts")
    dropped = wait_for_signal(signals.banned, timeout=0.05)
    assert len(signals.banned.receivers) == held + 1
    del dropped
    gc.collect()
    assert len(signals.banned.receivers) == held
    with pytest.raises(UTDInputError):
        wait_for_signal(signals.banned, timeout=-1)


async def test_wait_for_signal_is_refused_where_an_event_loop_runs() -> None:
    emission = wait_for_signal(signals.banned, timeout=5)
    with pytest.raises(UTDWouldBlockError):
        emission.wait()


def test_the_payload_of_a_webhook_is_waited_for_too() -> None:
    emission = wait_for_signal(signals.webhook_received, timeout=WAIT)
    threading.Thread(target=lambda: signals.webhook_received.send("tested", webhook=7)).start()
    until(lambda: emission.arrived, "the signal arrived")
    assert (emission["webhook"], emission["sender"]) == (7, "tested")
