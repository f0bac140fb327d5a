"""`UTDRoom` against a media server alone: tokens made with livekit-api, no engine asked."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from livekit import api

from tests.integration.calling import CALLER_HZ, WAIT, fresh, heard_hz, until
from utd_fsm import (
    UTDInputError,
    UTDPermissionError,
    UTDRoom,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
    signals,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media


def token(engine: LocalEngine, identity: str, room: str, *, lifetime: float = 600, most: int = 0, **grants: Any) -> str:
    """A way in, by the media server's own key."""
    made = (
        api.AccessToken(engine.livekit_key, engine.livekit_secret)
        .with_identity(identity)
        .with_ttl(dt.timedelta(seconds=lifetime))
        .with_grants(api.VideoGrants(room_join=True, room=room, **grants))
    )
    if most:
        made = made.with_room_config(api.RoomConfiguration(max_participants=most))
    return str(made.to_jwt())


def test_two_in_a_room(engine: LocalEngine) -> None:
    """Sound, data, who is there, LiveKit's own events, and whatever else LiveKit can do."""
    name = fresh("lobby")
    heard: list[tuple[bytes, str | None, str | None, bool]] = []
    arrived = threading.Semaphore(0)

    def receive(
        room: object, *, data: bytes, identity: str | None, topic: str | None, reliable: bool, **extra: object
    ) -> None:
        heard.append((data, identity, topic, reliable))
        arrived.release()

    with UTDRoom() as one, UTDRoom(adaptive_stream=True, dynacast=True) as two:
        with pytest.raises(UTDStateError):
            one.send_data(b"too early")
        one.connect(engine.livekit_url, token(engine, "one", name))
        assert one.connected.value
        assert one.local_participant is not None
        assert one.local_participant.identity == "one"
        with one.events.listen(timeout=WAIT) as events:
            two.connect(engine.livekit_url, token(engine, "two", name), auto_subscribe=True)
            two.set_microphone(True, source=Tone(CALLER_HZ))
            seen = []
            for event in events:
                seen.append(event.name)
                if event.name == "track_subscribed":
                    break
        assert "participant_connected" in seen
        assert events.dropped == 0
        others = one.remote_participants.wait_for(lambda others: others and others[0].tracks, timeout=WAIT)
        assert [other.identity for other in others] == ["two"]

        signals.data_received.connect(receive, sender=two, weak=False)
        one.send_data(b"hello", destination_identities=["two"], topic="greeting")
        assert arrived.acquire(timeout=WAIT)
        until(lambda: two.remote_participants.value, "the sender is listed")
        one.send_data(b"all of you", reliable=True)
        assert arrived.acquire(timeout=WAIT)
        assert heard[0][0] == b"hello"
        assert heard[0][2:] == ("greeting", True)
        assert heard[1][:2] == (b"all of you", "one")
        with pytest.raises(UTDInputError):
            one.send_data(b"x" * (60 * 1024 + 1))

        measured = list(one.listen("two", seconds=0.5, timeout=WAIT))
        assert measured[0].identity == "two"
        until(lambda: abs((heard_in(one) or 0) - CALLER_HZ) <= 2, "the tone is heard")

        assert one.run(lambda room: room.name) == name

        async def sid(room: Any) -> str:
            return str(await room.sid)

        assert one.run(sid).startswith("RM_")
        with pytest.raises(ZeroDivisionError):
            one.run(lambda room: 1 / 0)
        loop_thread = one.run(lambda room: threading.current_thread().name)
        assert loop_thread == "utd-fsm-loop"

        two.disconnect()
        one.remote_participants.wait_for((), timeout=WAIT)
        two.connect(engine.livekit_url, token(engine, "two", name))  # and again, with the same object
        one.remote_participants.wait_for(lambda others: len(others) == 1, timeout=WAIT)
    signals.data_received.disconnect(receive, sender=two)


def heard_in(room: UTDRoom) -> float | None:
    """What a room without a call is saying."""
    return heard_hz(room, "two")


def test_refused_tokens_say_so_without_the_token(engine: LocalEngine) -> None:
    name = fresh("closed")
    grants = api.VideoGrants(room_join=True, room=name)
    wrong_key = api.AccessToken("nobody", "x" * 40).with_identity("x").with_grants(grants)
    for bad in (wrong_key.to_jwt(), token(engine, "late", name, lifetime=-3600), "not a token"):
        with UTDRoom() as room:
            with pytest.raises(UTDStreamException) as refused:
                room.connect(engine.livekit_url, bad)
            assert isinstance(refused.value, UTDPermissionError), refused.value
            assert bad not in str(refused.value)
            assert "eyJ" not in repr(refused.value)
            assert not room.connected.value
            room.connect(engine.livekit_url, token(engine, "in", name))  # a refusal is no end


def test_a_full_room(engine: LocalEngine) -> None:
    name = fresh("full")
    with UTDRoom() as one, UTDRoom() as two:
        one.connect(engine.livekit_url, token(engine, "one", name, most=1))
        with pytest.raises(UTDStreamException) as full:
            two.connect(engine.livekit_url, token(engine, "two", name, most=1))
        assert full.value.status_code == 500
        assert one.connected.value


def test_no_grant_no_microphone(engine: LocalEngine) -> None:
    """A listener waits for a grant that does not come, publishes nothing, and hears all the same."""
    name = fresh("stage")
    with UTDRoom() as speaker, UTDRoom() as listener:
        speaker.connect(engine.livekit_url, token(engine, "two", name))
        speaker.set_microphone(True, source=Tone(CALLER_HZ))
        listener.connect(engine.livekit_url, token(engine, "listener", name, can_publish=False))
        assert listener.can_publish.value is False
        with pytest.raises((UTDPermissionError, UTDTimeoutError)):
            listener.set_microphone(True, timeout=0.5)
        until(lambda: abs((heard_in(listener) or 0) - CALLER_HZ) <= 2, "the tone is heard")
        assert listener.local_participant is not None
        assert listener.local_participant.tracks == ()
