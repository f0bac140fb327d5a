"""What api.md says of the room by itself, of data and chat in it, and of the way out; checked from outside."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from livekit import rtc

from tests.acceptance.scenes import WAIT, grant, joined, pitch, sees, server, token, until
from tests.integration.calling import fresh, in_thread
from utd_fsm import (
    UTDConnectionState,
    UTDPermissionError,
    UTDRoom,
    UTDStateError,
    UTDTimeoutError,
    UTDWouldBlockError,
    signals,
)
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine, wait_for_signal

pytestmark = pytest.mark.media


def collect(signal: Any, sender: object) -> tuple[list[dict[str, Any]], Callable[..., None]]:
    """What a signal says from now on; hold the second, which is the receiver."""
    got: list[dict[str, Any]] = []

    def receive(who: object, **payload: Any) -> None:
        got.append(payload)

    signal.connect(receive, sender=sender, weak=False)
    return got, receive


# ------------------------------------------------------------------------------------------- the page as it stands


def test_the_page_as_it_stands(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "bob", name) as bob, joined(engine, "carol", name) as carol:
        to_bob, keep_bob = collect(signals.data_received, bob)
        to_carol, keep_carol = collect(signals.data_received, carol)
        with UTDRoom(adaptive_stream=True, dynacast=True) as room:
            room.connect(engine.livekit_url, token(engine, "alice", name), auto_subscribe=True)
            assert room.connected.value
            events = room.events.listen(timeout=5)
            room.set_microphone(True, source=Tone(440))
            room.set_camera(True)
            room.send_data(b"hello", reliable=True, destination_identities=["bob"])
            room.send_data(b"to all", reliable=False)
            for event in events:
                if event.name == "local_track_published":
                    assert isinstance(event.args, tuple)
                    assert event.args
                    break
            until(lambda: len(to_bob) == 2 and len(to_carol) == 1, "the data arrived")
            assert to_bob[0] == {"data": b"hello", "identity": "alice", "topic": None, "reliable": True}
            assert to_carol == [{"data": b"to all", "identity": "alice", "topic": None, "reliable": False}]
            assert pitch(bob.listen("alice", timeout=WAIT)) == pytest.approx(440, abs=2)
            picture = next(iter(bob.watch("alice", timeout=WAIT)))
            assert picture.identity == "alice"
        assert not room.connected.value
        assert room.local_participant is None
        bob.remote_participants.wait_for(lambda others: "alice" not in [one.identity for one in others], timeout=WAIT)
    signals.data_received.disconnect(keep_bob)
    signals.data_received.disconnect(keep_carol)


# ------------------------------------------------------------------------------------------------------ participants


def test_participants_are_a_tuple_of_frozen_values_oldest_first(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "first", name) as first, joined(engine, "second", name) as second:
        second.set_microphone(True)
        third = UTDRoom()
        with third:
            third.connect(engine.livekit_url, token(engine, "third", name, name="The Third", metadata='{"a": 1}'))
            others = first.remote_participants.wait_for(lambda some: len(some) == 2, timeout=WAIT)
            assert isinstance(others, tuple)
            assert [one.identity for one in others] == ["second", "third"]
            assert [one.identity for one in third.remote_participants.value] == ["first", "second"]
            assert (others[1].name, others[1].metadata, others[1].can_publish) == ("The Third", '{"a": 1}', True)
            assert others[1].attributes == {"made": "by hand"}
            assert others[1].sid.startswith("PA_")
            assert others[1].tracks == ()
            track = sees(first, "second", "microphone").tracks[0]
            assert (track.kind, track.source, track.muted) == ("audio", "microphone", False)
            second.set_microphone(False)
            first.remote_participants.wait_for(lambda some: some[0].tracks[0].muted, timeout=WAIT)
            with pytest.raises(dataclasses.FrozenInstanceError):
                others[0].name = "else"  # type: ignore[misc]
            with pytest.raises(TypeError):
                others[1].attributes["made"] = "else"  # type: ignore[index]
            me = third.local_participant
            assert me is not None
            assert (me.identity, me.name, me.metadata) == ("third", "The Third", '{"a": 1}')
        assert third.remote_participants.value == ()


def test_before_and_after_the_room(engine: LocalEngine) -> None:
    with UTDRoom() as room:
        assert (room.connected.value, room.can_publish.value, room.remote_participants.value) == (False, False, ())
        assert room.local_participant is None
        assert room.room is None
        for refused in (
            lambda: room.run(print),
            lambda: room.send_data(b"x"),
            lambda: room.set_microphone(True),
            room.listen,
            room.watch,
        ):
            with pytest.raises(UTDStateError):
                refused()
        for _ in range(2):  # disconnect() is not the end
            room.connect(engine.livekit_url, token(engine, "ann", fresh("room")))
            assert (room.connected.value, room.can_publish.value) == (True, True)
            room.disconnect()
            room.disconnect()
            assert room.connection.value is UTDConnectionState.DISCONNECTED


def test_a_refused_token_raises_at_once_and_is_not_shown(engine: LocalEngine) -> None:
    bad = token(engine, "ann", "somewhere")[:-6] + "AAAAAA"
    with UTDRoom() as room, pytest.raises(UTDPermissionError) as refused:
        room.connect(engine.livekit_url, bad)
    assert "eyJ" not in f"{refused.value}{refused.value!r}{refused.value.__cause__!r}"


# --------------------------------------------------------------------------------------------------------- the events


def test_every_listener_has_its_own_queue_under_livekits_names(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name) as ann:
        one, two = ann.events.listen(timeout=WAIT), ann.events.listen(timeout=WAIT)
        with joined(engine, "bob", name):
            first = next(event for event in one if event.name == "participant_connected")
            again = next(event for event in two if event.name == "participant_connected")
            assert first.args[0].identity == again.args[0].identity == "bob"
            assert isinstance(first.args[0], rtc.RemoteParticipant)
        one.close()
        assert next(event for event in two if event.name == "participant_disconnected").args
        assert list(one) == []


def test_a_listener_that_sleeps_counts_what_it_lost_and_the_others_lose_nothing(engine: LocalEngine) -> None:
    name = fresh("room")
    count = 1500
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name) as bob:
        asleep, awake = ann.events.listen(timeout=WAIT), ann.events.listen(timeout=WAIT)

        seen: list[int] = []

        def read() -> list[int]:
            for event in awake:
                if event.name == "data_received":
                    seen.append(int(event.args[0].data))
                    if seen[-1] == count - 1:
                        break
            return seen

        reading = in_thread(read)
        for number in range(count):
            bob.send_data(str(number).encode())
            if number % 300 == 299:  # who reads is not outrun, however busy the machine
                until(lambda wanted=number: seen[-1:] == [wanted], "it was read")  # type: ignore[misc]
        assert reading.result(WAIT) == list(range(count))
        assert awake.dropped == 0
        assert asleep.dropped >= count - 1000
        kept = [
            int(event.args[0].data)
            for _, event in zip(range(1000), asleep, strict=False)  # this order: it asks for no further one
            if event.name == "data_received"
        ]
        assert kept == list(range(count))[-len(kept) :]  # the oldest were dropped


def test_a_gap_longer_than_the_timeout_raises(engine: LocalEngine) -> None:
    with (
        joined(engine, "ann", fresh("room")) as ann,
        ann.events.listen(timeout=0.3) as events,
        pytest.raises(UTDTimeoutError),
    ):
        list(events)


def test_dispose_ends_the_listeners(engine: LocalEngine) -> None:
    with joined(engine, "ann", fresh("room")) as ann:
        events = ann.events.listen()
        reading = in_thread(lambda: list(events))
        ann.dispose()
        assert all(event.name for event in reading.result(WAIT))


# --------------------------------------------------------------------------------------------------------- the way out


def test_run_calls_on_the_loop_thread_with_the_live_room(engine: LocalEngine) -> None:
    with joined(engine, "ann", fresh("room")) as ann:
        live = ann.room
        assert isinstance(live, rtc.Room)
        assert ann.run(lambda room: room is live)
        assert ann.run(lambda room: threading.current_thread().name) != threading.current_thread().name
        assert ann.run(lambda room: room.name) == live.name

        async def later(room: rtc.Room) -> tuple[str, str]:
            sid = await room.sid
            return sid, threading.current_thread().name

        sid, where = ann.run(later)
        assert sid.startswith("RM_")
        assert where == ann.run(lambda room: threading.current_thread().name)
        with pytest.raises(ZeroDivisionError):
            ann.run(lambda room: 1 / 0)

        async def fails(room: rtc.Room) -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            ann.run(fails)
        with pytest.raises(UTDWouldBlockError):
            ann.run(lambda room: ann.set_microphone(True))
        with pytest.raises(UTDWouldBlockError):
            ann.run(lambda room: ann.connected.wait_for(False))
        assert ann.connected.value


def test_what_livekit_can_do_and_nobody_wrapped(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name, can_update_own_metadata=True) as ann, joined(engine, "bob", name) as bob:

        async def attributes(room: rtc.Room) -> None:
            await room.local_participant.set_attributes({"mood": "fine"})

        ann.run(attributes)
        bob.remote_participants.wait_for(lambda some: some and some[0].attributes.get("mood") == "fine", timeout=WAIT)


def test_auto_subscribe_false_receives_nothing_until_it_is_asked_for(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name, auto_subscribe=False) as bob:
        ann.set_microphone(True, source=Tone(660))
        sees(bob, "ann", "microphone")
        with bob.listen("ann", timeout=1) as frames, pytest.raises(UTDTimeoutError):
            next(frames)
        bob.run(
            lambda room: [
                one.set_subscribed(True) for one in room.remote_participants["ann"].track_publications.values()
            ]
        )
        assert pitch(bob.listen("ann", timeout=WAIT)) == pytest.approx(660, abs=2)


# ---------------------------------------------------------------------------------------------------------- the grant


def test_publishing_waits_for_the_grant_and_ends_with_it_and_does_not_return_by_itself(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name, can_publish=False) as ann, joined(engine, "bob", name) as bob:
        assert not ann.can_publish.value
        asking = in_thread(lambda: ann.set_microphone(True, source=Tone(440)))
        sees(bob, "ann")
        grant(engine, name, "ann", True)
        asking.result(WAIT)
        assert ann.can_publish.wait_for(True, timeout=WAIT) is True
        assert pitch(bob.listen("ann", timeout=WAIT)) == pytest.approx(440, abs=2)
        with wait_for_signal(signals.can_publish_changed, sender=ann, timeout=WAIT) as lost:
            grant(engine, name, "ann", False)
        assert (lost["value"], lost["previous"]) == (False, True)
        bob.remote_participants.wait_for(lambda some: some[0].tracks == (), timeout=WAIT)
        until(lambda: ann.run(lambda room: list(room.local_participant.track_publications)) == [], "it is unpublished")
        grant(engine, name, "ann", True)
        ann.can_publish.wait_for(True, timeout=WAIT)
        # what comes after is in order with the grant: a message sent now arrives after anything that was published
        with wait_for_signal(signals.data_received, sender=bob, timeout=WAIT):
            ann.send_data(b"back")
        assert ann.run(lambda room: list(room.local_participant.track_publications)) == []
        assert sees(bob, "ann").tracks == ()
        ann.set_microphone(True)
        assert sees(bob, "ann", "microphone")


def test_a_grant_that_does_not_come_is_a_timeout_after_ten_seconds(engine: LocalEngine) -> None:
    with joined(engine, "ann", fresh("room"), can_publish=False) as ann:
        began = time.monotonic()
        with pytest.raises(UTDTimeoutError, match="10 s"):
            ann.set_microphone(True)
        assert time.monotonic() - began >= 9.5
        with pytest.raises(UTDTimeoutError):
            ann.set_camera(True, timeout=0.2)


def test_leaving_while_the_grant_is_waited_for_publishes_nothing(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name, can_publish=False) as ann, joined(engine, "bob", name) as bob:
        asking = in_thread(lambda: ann.set_microphone(True))
        sees(bob, "ann")
        ann.disconnect()
        with pytest.raises(UTDStateError):
            asking.result(WAIT)


# ----------------------------------------------------------------------------------------------------- data and chat


def test_a_chat_message_and_its_fields(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name) as bob:
        sees(bob, "ann")
        with wait_for_signal(signals.chat_received, sender=bob, timeout=WAIT) as emission:
            ann.send_chat("hello", user_data={"n": [1, 2]}, to=["bob"])
        message = emission["message"]
        assert (message.text, message.identity, message.claimed_identity) == ("hello", "ann", "ann")
        assert message.user_data == {"n": [1, 2]}
        assert message.sent_at is not None
        assert message.message_id


def test_who_claims_to_be_somebody_else_is_only_claimed(engine: LocalEngine) -> None:
    name = fresh("room")
    forged = {"roomChat": {"message": "chatMessage", "senderUserId": "host", "senderName": "The Host", "text": "hi"}}
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name) as bob:
        sees(bob, "ann")
        with wait_for_signal(signals.chat_received, sender=bob, timeout=WAIT) as emission:
            ann.send_data(json.dumps(forged).encode())
        message = emission["message"]
        assert (message.identity, message.claimed_identity, message.name) == ("ann", "host", "The Host")


def test_chat_of_a_hidden_participant_has_no_identity(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "bob", name) as bob, joined(engine, "ghost", name, hidden=True) as ghost:
        with wait_for_signal(signals.chat_received, sender=bob, timeout=WAIT) as emission:
            ghost.send_chat("boo")
        assert (emission["message"].identity, emission["message"].claimed_identity) == (None, "ghost")


def test_speakers_are_told_with_level_and_since(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name) as bob:
        began = time.monotonic()
        heard = wait_for_signal(signals.speakers_changed, sender=bob, timeout=WAIT)
        ann.set_microphone(True, source=Tone(440, amplitude=0.8))
        speakers = bob.speakers.wait_for(lambda some: some, timeout=WAIT)
        assert isinstance(speakers, tuple)
        assert speakers[0].identity == "ann"
        assert 0 < speakers[0].level <= 1
        assert began <= speakers[0].since <= time.monotonic()
        assert heard["value"][0].identity == "ann"
        ann.set_microphone(False)
        assert bob.speakers.wait_for((), timeout=WAIT) == ()


# -------------------------------------------------------------------------------------------------------------- video


def test_how_large_it_is_watched_chooses_the_layer(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name, adaptive=True) as bob:
        ann.set_camera(True, source=TestPattern(1280, 720, 15))
        with bob.watch("ann", size=(160, 90), timeout=WAIT) as small:
            assert next(frame for frame in small if frame.width <= 320).identity == "ann"
        with bob.watch("ann", timeout=WAIT) as large:
            assert next(frame for frame in large if frame.width >= 1200).identity == "ann"


def test_video_that_nobody_watches_is_not_sent(engine: LocalEngine) -> None:
    name = fresh("room")
    with joined(engine, "ann", name) as ann, joined(engine, "bob", name, adaptive=True) as bob:
        ann.set_camera(True, source=TestPattern(640, 360, 15))
        sees(bob, "ann", "camera")

        async def received(room: rtc.Room) -> int:
            """Bytes of video that arrived so far."""
            stats = await room.get_rtc_stats()
            total = 0
            for one in stats.subscriber_stats:
                if one.HasField("inbound_rtp") and one.inbound_rtp.stream.kind == "video":
                    total += one.inbound_rtp.inbound.bytes_received
            return total

        with bob.watch("ann", timeout=WAIT) as pictures:
            next(pictures)
            next(pictures)
        first = -1
        limit = time.monotonic() + WAIT
        while True:  # it dries up, once what was on its way has come
            before, first = first, bob.run(received)
            if first == before:
                break
            assert time.monotonic() < limit
            time.sleep(1.0)
        assert first > 0
        with bob.watch("ann", timeout=WAIT) as pictures:  # and it comes again
            assert next(pictures).width


def test_a_participant_who_is_removed_is_a_forced_exit(engine: LocalEngine) -> None:
    from livekit import api

    name = fresh("room")
    with joined(engine, "ann", name) as ann:
        with wait_for_signal(signals.connection_changed, sender=ann, timeout=WAIT) as emission:
            request = api.RoomParticipantIdentity(room=name, identity="ann")
            server(engine, lambda livekit: livekit.room.remove_participant(request))
        assert emission["value"] is UTDConnectionState.FORCE_EXIT
        assert ann.local_participant is None
        assert ann.connected.value is False
