"""Grants, what the room service may change, and what everybody is told of it (LiveKit facts, 28-29)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import api, rtc
from livekit.rtc.participant import PublishTrackError

from tests.local.media_server.studio import Studio, who

pytestmark = pytest.mark.media

NOTICED = 0.3
"""Seconds after which something that must not come would have come: it is sent at once or never."""


async def test_a_lost_grant_takes_the_tracks_away_and_the_publisher_is_not_told_of_them(
    house: Studio, single: bool
) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    microphone = await house.tone(alice, 440)
    await bob.subscribed(microphone.sid)
    await house.permit("alice", can_publish=False)
    await bob.event("track_unpublished", lambda pub, _who: pub.sid == microphone.sid)
    (_, permission) = await alice.event("participant_permissions_changed")
    assert not permission.can_publish
    assert "local_track_unpublished" not in alice.names()
    assert not (await house.lk.room.get_participant(who("alice"))).tracks


async def test_a_grant_lets_a_listener_publish(house: Studio, single: bool) -> None:
    alice = await house.join("alice", single=single, can_publish=False)
    bob = await house.join("bob", single=single)
    assert not alice.me.permissions.can_publish
    await house.permit("alice")
    await alice.event("participant_permissions_changed", lambda _who, permission: permission.can_publish)
    microphone = await house.tone(alice, 440)
    assert abs((await bob.hears(await bob.subscribed(microphone.sid)))[0] - 440) < 2


async def test_publishing_without_the_grant_is_refused(house: Studio) -> None:
    alice = await house.join("alice", can_publish=False)
    with pytest.raises(PublishTrackError):
        await house.tone(alice, 440)


async def test_only_the_granted_sources_may_be_published(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    microphone, camera = await house.tone(alice, 440), await house.picture(alice)
    await bob.subscribed(camera.sid)
    await house.permit("alice", can_publish_sources=[api.TrackSource.MICROPHONE])
    await bob.event("track_unpublished", lambda pub, _who: pub.sid == camera.sid)
    left = await house.lk.room.get_participant(who("alice"))
    assert [track.sid for track in left.tracks] == [microphone.sid]


async def test_a_token_can_restrict_the_sources(house: Studio) -> None:
    alice = await house.join("alice", can_publish_sources=["microphone"])
    await house.tone(alice, 440)
    with pytest.raises(PublishTrackError):
        await house.picture(alice)


async def test_who_may_not_subscribe_receives_nothing_until_it_may(house: Studio, single: bool) -> None:
    alice = await house.join("alice", single=single)
    bob = await house.join("bob", single=single, can_subscribe=False)
    microphone = await house.tone(alice, 440)
    await bob.event("track_published", lambda pub, _who: pub.sid == microphone.sid)
    await asyncio.sleep(NOTICED)
    assert "track_subscribed" not in bob.names()
    await house.permit("bob")
    assert abs((await bob.hears(await bob.subscribed(microphone.sid)))[0] - 440) < 2
    await house.permit("bob", can_subscribe=False)
    # As with livekit-server, the client gives no event for a subscription that the server took away.
    assert _receives(house, "bob") == []


async def test_data_without_the_grant_is_dropped_silently(house: Studio) -> None:
    alice, bob = await house.join("alice", can_publish_data=False), await house.join("bob")
    await alice.me.publish_data(b"forbidden")
    await house.permit("alice")
    await alice.event("participant_permissions_changed")
    await alice.me.publish_data(b"allowed")
    await bob.event("data_received", lambda p: p.data == b"allowed")
    assert len(bob.seen("data_received")) == 1


async def test_an_equal_permission_gives_no_event(house: Studio) -> None:
    alice = await house.join("alice")
    before = await house.lk.room.get_participant(who("alice"))
    assert (await house.permit("alice")).version == before.version
    changed = await house.permit("alice", can_publish_sources=[api.TrackSource.MICROPHONE])
    assert changed.version > before.version
    await alice.event("participant_permissions_changed")
    assert alice.names().count("participant_permissions_changed") == 1


async def test_not_found_before_the_join(house: Studio) -> None:
    for room in ("nowhere", "room"):
        with pytest.raises(api.TwirpError) as refused:
            await house.permit("alice", room)
        assert refused.value.code == "not_found"
        await house.join("bob")


async def test_metadata_name_and_attributes(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    update = house.lk.room.update_participant
    room, identity = "room", "alice"
    await update(api.UpdateParticipantRequest(room=room, identity=identity, metadata='{"role":"host"}'))
    await bob.event("participant_metadata_changed", lambda _who, _old, new: new == '{"role":"host"}')
    await update(api.UpdateParticipantRequest(room=room, identity=identity, metadata="", name="Alicia"))
    await bob.event("participant_name_changed", lambda _who, _old, new: new == "Alicia")
    await update(api.UpdateParticipantRequest(room=room, identity=identity, attributes={"hand": "up"}))
    await alice.event("participant_attributes_changed")
    await update(api.UpdateParticipantRequest(room=room, identity=identity, attributes={"hand": ""}))
    await alice.until(lambda: not alice.me.attributes.get("hand"))
    found = await house.lk.room.get_participant(who("alice"))
    assert (found.metadata, found.name, dict(found.attributes)) == ('{"role":"host"}', "Alicia", {})
    assert bob.names().count("participant_metadata_changed") == 1


async def test_own_attributes_need_the_grant(house: Studio, single: bool) -> None:
    alice = await house.join("alice", single=single, can_update_own_metadata=True)
    mallory = await house.join("mallory", single=single, can_update_own_metadata=False)
    await alice.me.set_attributes({"hand": "up"})
    await mallory.me.set_attributes({"role": "host"})
    await mallory.until(lambda: mallory.room.remote_participants["alice"].attributes == {"hand": "up"})
    assert not (await house.lk.room.get_participant(who("mallory"))).attributes


async def test_room_metadata_arrives_in_order(house: Studio) -> None:
    alice = await house.join("alice")
    for version in range(50):
        await house.lk.room.update_room_metadata(api.UpdateRoomMetadataRequest(room="room", metadata=str(version)))
    await alice.event("room_metadata_changed", lambda _old, new: new == "49")
    assert [new for _, new in alice.seen("room_metadata_changed")] == [str(version) for version in range(50)]
    late = await house.join("late")
    assert late.room.metadata == "49"


async def test_engine_data_has_no_sender(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    send = house.lk.room.send_data
    kind = api.DataPacket.Kind.RELIABLE
    await send(api.SendDataRequest(room="room", data=b"to bob", kind=kind, destination_identities=["bob"]))
    await send(api.SendDataRequest(room="room", data=b"to all", kind=kind, topic="news"))
    (packet,) = await alice.event("data_received", lambda p: p.data == b"to all")
    assert packet.participant is None
    assert packet.topic == "news"
    await bob.event("data_received", lambda p: p.data == b"to all")
    assert [p.data for (p,) in bob.seen("data_received")] == [b"to bob", b"to all"]
    assert len(alice.seen("data_received")) == 1


async def test_a_hidden_participant_is_not_seen_and_its_data_has_no_sender(house: Studio) -> None:
    alice, ghost = await house.join("alice"), await house.join("ghost", hidden=True)
    await ghost.until(lambda: ghost.sees("alice"))
    await ghost.me.publish_data(b"boo")
    (packet,) = await alice.event("data_received")
    assert packet.participant is None
    assert not alice.sees("ghost")
    await house.permit("ghost", hidden=False)
    await alice.event("participant_connected", lambda found: found.identity == "ghost")
    await house.permit("ghost", hidden=True)
    await alice.event("participant_disconnected", lambda found: found.identity == "ghost")


async def test_removal_says_so(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    await alice.until(lambda: alice.sees("bob"))
    await house.lk.room.remove_participant(who("bob"))
    (reason,) = await bob.event("disconnected")
    assert reason == rtc.DisconnectReason.PARTICIPANT_REMOVED
    (gone,) = await alice.event("participant_disconnected")
    assert gone.identity == "bob"
    with pytest.raises(api.TwirpError, match="participant does not exist"):
        await house.lk.room.get_participant(who("bob"))


async def test_the_server_mutes_and_does_not_unmute(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    microphone = await house.tone(alice, 440)
    await bob.subscribed(microphone.sid)
    request = {"room": "room", "identity": "alice", "track_sid": microphone.sid}
    await house.lk.room.mute_published_track(api.MuteRoomTrackRequest(**request, muted=True))
    await bob.event("track_muted")
    await alice.until(lambda: microphone.publication.muted)
    with pytest.raises(api.TwirpError) as refused:
        await house.lk.room.mute_published_track(api.MuteRoomTrackRequest(**request, muted=False))
    assert refused.value.code == "failed_precondition"


async def test_the_service_subscribes_and_unsubscribes(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    microphone = await house.tone(alice, 440)
    await bob.subscribed(microphone.sid)
    request: dict[str, Any] = {"room": "room", "identity": "bob", "track_sids": [microphone.sid]}
    await house.lk.room.update_subscriptions(api.UpdateSubscriptionsRequest(**request, subscribe=False))
    assert _receives(house, "bob") == []
    await house.lk.room.update_subscriptions(api.UpdateSubscriptionsRequest(**request, subscribe=True))
    assert _receives(house, "bob") == [microphone.sid]
    assert abs((await bob.hears(bob.seen("track_subscribed")[-1][0]))[0] - 440) < 2


def _receives(house: Studio, identity: str) -> list[str]:
    """The tracks that the server forwards to a participant."""
    room = house.server.find_room("room")
    peer = room.get(identity) if room is not None else None
    assert peer is not None
    return list(peer.subscriber.downstreams)
