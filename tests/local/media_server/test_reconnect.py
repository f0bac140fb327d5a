"""Links that break: resume, full reconnect, and a server that comes back (LiveKit facts, 23, 30, 42)."""

from __future__ import annotations

import asyncio

import pytest
from livekit import api, rtc

from tests.local.media_server.studio import KEY, PATIENCE, SECRET, Studio, who
from utd_fsm.local.media_server import MediaServer

pytestmark = pytest.mark.media


async def test_a_resume_keeps_everything(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    microphone, answer = await house.tone(alice, 440), await house.tone(bob, 660)
    track = await bob.subscribed(microphone.sid)
    await bob.hears(track, 0.2)
    sid = alice.me.sid
    await alice.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
    await alice.event("reconnected")
    assert alice.me.sid == sid
    assert abs((await bob.hears(track))[0] - 440) < 2
    assert abs((await alice.hears(await alice.subscribed(answer.sid)))[0] - 660) < 2
    assert "participant_disconnected" not in bob.names()
    await house.lk.room.update_room_metadata(api.UpdateRoomMetadataRequest(room="room", metadata="after"))
    await alice.event("room_metadata_changed", lambda _old, new: new == "after")
    await bob.me.publish_data(b"after", destination_identities=["alice"])
    await alice.event("data_received", lambda p: p.data == b"after")


async def test_what_changed_while_the_link_was_down_is_told_at_the_resume(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    await alice.until(lambda: alice.sees("bob"))
    peer = house.server.find_room("room").get("alice")  # type: ignore[union-attr]
    assert peer is not None
    link, peer.link = peer.link, None  # everything sent from now on is lost, as on a dead link
    await house.lk.room.update_room_metadata(api.UpdateRoomMetadataRequest(room="room", metadata="missed"))
    await house.permit("alice", can_publish=False)
    microphone = await house.tone(bob, 660)
    peer.link = link
    await alice.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
    await alice.event("reconnected")
    await alice.event("room_metadata_changed", lambda _old, new: new == "missed")
    await alice.until(lambda: not alice.me.permissions.can_publish)
    assert abs((await alice.hears(await alice.subscribed(microphone.sid)))[0] - 660) < 2


async def test_a_full_reconnect_publishes_again_under_a_new_sid(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    microphone = await house.tone(alice, 440)
    first = microphone.sid
    await bob.subscribed(first)
    sid = alice.me.sid
    await alice.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
    await alice.event("reconnected")
    assert alice.me.sid != sid
    (track, publication, _) = await bob.event("track_subscribed", lambda _track, pub, _who: pub.sid != first)
    assert abs((await bob.hears(track))[0] - 440) < 2
    await alice.until(lambda: publication.sid in alice.me.track_publications)


async def test_a_full_reconnect_comes_back_with_what_was_granted_since(house: Studio) -> None:
    """The refreshed token carries the permission, metadata and attributes of now, not those of the join."""
    alice = await house.join("alice", can_publish=False)
    await house.permit("alice")
    request = api.UpdateParticipantRequest(room="room", identity="alice", metadata="m", attributes={"a": "1"})
    await house.lk.room.update_participant(request)
    await alice.until(lambda: alice.me.permissions.can_publish and alice.me.metadata == "m")
    await alice.until(lambda: alice.names().count("token_refreshed") >= 3)
    await alice.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
    await alice.event("reconnected")
    found = await house.lk.room.get_participant(who("alice"))
    assert (found.permission.can_publish, found.metadata, dict(found.attributes)) == (True, "m", {"a": "1"})


@pytest.mark.parametrize("hard", [True, False], ids=["killed", "stopped"])
async def test_a_server_that_restarts_on_the_same_port(house: Studio, single: bool, hard: bool) -> None:
    """Killed, the clients come back by themselves and are heard again, with the room's limits from their tokens;
    stopped, they are told so and stay away."""
    config = api.RoomConfiguration(max_participants=2)
    alice = await house.join("alice", single=single, config=config)
    bob = await house.join("bob", single=single, config=config)
    microphone = await house.tone(alice, 440)
    first = microphone.sid
    await bob.subscribed(first)
    port = int(house.url.rpartition(":")[2])
    await house.server.stop(hard=hard)
    again = MediaServer(key=KEY, secret=SECRET)
    assert await again.start(port=port) == house.url
    house.server = again
    if not hard:
        for client in (alice, bob):
            assert await client.event("disconnected") == (rtc.DisconnectReason.SERVER_SHUTDOWN,)
        return
    for client in (alice, bob):
        await client.event("reconnected")
    (track, _, _) = await bob.event("track_subscribed", lambda _track, pub, _who: pub.sid != first)
    assert abs((await bob.hears(track))[0] - 440) < 2
    (room,) = (await house.lk.room.list_rooms(api.ListRoomsRequest())).rooms
    assert room.max_participants == 2


async def test_a_link_that_is_lost_for_good_ends_the_participant(
    house: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utd_fsm.local.media_server.room.RESUME_WINDOW", 0.5)
    alice, bob = await house.join("alice"), await house.join("bob")
    await bob.until(lambda: bob.sees("alice"))
    room = house.server.find_room("room")
    assert room is not None
    peer = room.get("alice")
    assert peer is not None
    room.link_lost(peer)
    (gone,) = await bob.event("participant_disconnected")
    assert gone.identity == "alice"
    async with asyncio.timeout(PATIENCE):
        while room.get("alice") is peer:
            await asyncio.sleep(0.05)
    await alice.room.disconnect()
