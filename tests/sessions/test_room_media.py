"""`UTDRoom` as people use it, with LiveKit's real client, on the embedded media server and on LiveKit's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.media_servers import MediaServerProcess, MediaServers
from tests.sessions.places import LONG, Place
from utd_fsm import UTDRoom, UTDStateError, UTDStreamException
from utd_fsm.media import AudioFrame, TestPattern, Tone
from utd_fsm.models import UTDConnectionState

pytestmark = [pytest.mark.media, pytest.mark.timeout(240)]


@pytest.fixture
def place(media_server: MediaServerProcess) -> Iterator[Place]:
    made = Place(media_server)
    yield made
    made.close()


def pitch(frames: list[AudioFrame]) -> float:
    samples = np.concatenate([frame.samples[:, 0] for frame in frames]).astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * 48000 / len(samples))


def sounds(room: UTDRoom, hz: float, identity: str = "ann") -> None:
    """Listen until this tone is heard."""
    heard: list[AudioFrame] = []
    with room.listen(identity, timeout=LONG) as frames:
        for frame in frames:
            if int(np.abs(frame.samples).max()) > 2000:
                heard.append(frame)
            if len(heard) >= 25 and abs(pitch(heard[-25:]) - hz) < 10:
                return


def test_a_room_by_itself(place: Place) -> None:
    bob = place.join("bob")
    with UTDRoom(adaptive_stream=True, dynacast=True) as room, bob.events.listen(timeout=LONG) as events:
        room.connect(place.server.url, place.token("ann"), auto_subscribe=True, timeout=LONG)
        assert room.connected.value
        assert [one.identity for one in room.remote_participants.wait_for(lambda them: them, timeout=LONG)] == ["bob"]
        room.set_microphone(True, source=Tone(440))
        room.set_camera(True, source=TestPattern(320, 180))
        sounds(bob, 440)
        with bob.watch("ann", timeout=LONG) as pictures:
            assert next(pictures).pixels.shape == (180, 320, 3)
        room.set_microphone(True, source=Tone(660))
        sounds(bob, 660)
        room.send_data(b"hello", reliable=True, destination_identities=["bob"])
        for event in events:
            if event.name == "data_received":
                assert event.args[0].data == b"hello"
                break
        assert room.run(lambda rtc: rtc.name) == place.name
        room.disconnect()
        assert not room.connected.value
        assert room.local_participant is None
        with pytest.raises(UTDStateError):
            room.listen()
    bob.remote_participants.wait_for((), timeout=LONG)


def test_the_grant_comes_and_goes(place: Place) -> None:
    ann, bob = place.join("ann", can_publish=False), place.join("bob")
    assert ann.can_publish.value is False
    threading.Timer(0.5, place.permit, ("ann", True)).start()
    ann.set_microphone(True, source=Tone(440), timeout=LONG)
    assert ann.can_publish.value is True
    sounds(bob, 440)
    place.permit("ann", False)
    ann.can_publish.wait_for(False, timeout=LONG)
    bob.remote_participants.wait_for(
        lambda them: [one.tracks for one in them if one.identity == "ann"] == [()], timeout=LONG
    )
    place.permit("ann", True)
    ann.can_publish.wait_for(True, timeout=LONG)
    ann.set_microphone(True, timeout=LONG)
    sounds(bob, 440)


def test_a_full_reconnect_changes_nothing_for_who_listens(place: Place) -> None:
    from livekit import rtc

    ann, bob = place.join("ann"), place.join("bob")
    ann.set_microphone(True, source=Tone(440))
    sounds(bob, 440)
    seen: list[bool] = []
    bob.remote_participants.changed.connect(lambda sender, value, **extra: seen.append(bool(value)))

    async def reconnect(room: Any) -> None:
        await room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)

    away = threading.Thread(target=lambda: bob.run(reconnect, timeout=LONG))
    away.start()
    bob.connection.wait_for(UTDConnectionState.RECONNECTING, timeout=LONG)
    bob.connected.wait_for(True, timeout=LONG)
    away.join(LONG)
    sounds(bob, 440)
    assert all(seen), "ann was gone while bob's link was mended"


def test_being_sent_away_and_signing_in_elsewhere(place: Place) -> None:
    ann = place.join("ann")
    place.join("bob")
    second = place.join("ann")
    ann.connection.wait_for(UTDConnectionState.FORCE_EXIT, timeout=LONG)
    place.admin(lambda api, room: room.remove_participant(api.RoomParticipantIdentity(room=place.name, identity="ann")))
    second.connection.wait_for(UTDConnectionState.FORCE_EXIT, timeout=LONG)
    with pytest.raises(UTDStreamException):
        second.connected.wait_for(True, timeout=LONG)
    ann.connect(place.server.url, place.token("ann"), timeout=LONG)
    assert ann.connected.value


def test_a_refused_token_names_no_token(place: Place) -> None:
    room = UTDRoom()
    place.rooms.append(room)
    token = place.token("ann")[:-4] + "AAAA"
    with pytest.raises(UTDStreamException) as refused:
        room.connect(place.server.url, token, timeout=LONG)
    assert token not in str(refused.value)
    assert refused.value.status_code == 401
    assert room.connection.value is UTDConnectionState.DISCONNECTED


@pytest.mark.parametrize("away", [1.0, pytest.param(22.0, marks=pytest.mark.exhaustive)])
def test_a_server_that_dies_and_comes_back(media_servers: MediaServers, away: float) -> None:
    """After a second LiveKit's client mends it by itself; after 22 s it has given up, and the session joins again."""
    server = MediaServerProcess("embedded").start()
    place = Place(server)
    try:
        ann, bob = place.join("ann"), place.join("bob")
        ann.set_microphone(True, source=Tone(440))
        sounds(bob, 440)
        first = ann.run(id)
        server.stop()
        ann.connection.wait_for(UTDConnectionState.RECONNECTING, timeout=LONG)
        threading.Event().wait(away)
        server.start()
        for room in (ann, bob):
            room.connected.wait_for(True, timeout=LONG)
        sounds(bob, 440)
        assert (ann.run(id) == first) == (away < 10), "it was the other's work to come back"
        assert [one.identity for one in ann.remote_participants.value] == ["bob"]
    finally:
        for room in place.rooms:
            room.dispose()
        server.close()
