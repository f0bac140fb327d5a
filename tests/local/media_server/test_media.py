"""Sound, pictures and data between real clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol import models

from tests.local.media_server.studio import PATIENCE, Studio, who

pytestmark = pytest.mark.media


async def test_two_hear_each_other(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    low, high = await house.tone(alice, 440), await house.tone(bob, 660)
    heard_by_bob, heard_by_alice = await asyncio.gather(
        bob.hears(await bob.subscribed(low.sid)), alice.hears(await alice.subscribed(high.sid))
    )
    assert abs(heard_by_bob[0] - 440) < 2
    assert abs(heard_by_alice[0] - 660) < 2
    assert heard_by_bob[1] > 2000


async def test_the_two_signalling_versions_meet_in_one_room(house: Studio) -> None:
    alice, bob = await house.join("alice", single=True), await house.join("bob", single=False)
    low, high = await house.tone(alice, 440), await house.tone(bob, 660)
    assert abs((await bob.hears(await bob.subscribed(low.sid)))[0] - 440) < 2
    assert abs((await alice.hears(await alice.subscribed(high.sid)))[0] - 660) < 2


async def test_one_who_joins_later_hears_who_was_there(house: Studio, single: bool) -> None:
    speakers = [await house.join(f"speaker{n}", single=single) for n in range(3)]
    tones = {f"speaker{n}": 300.0 + 100 * n for n in range(3)}
    sids = {s.identity: (await house.tone(s, tones[s.identity])).sid for s in speakers}
    late = await house.join("late", single=single)
    tracks = {identity: await late.subscribed(sid) for identity, sid in sids.items()}
    heard = await asyncio.gather(*(late.hears(track) for track in tracks.values()))
    for identity, found in zip(tracks, heard, strict=True):
        assert abs(found[0] - tones[identity]) < 2


async def test_a_picture_arrives(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    camera = await house.picture(alice, simulcast=False)
    stream = rtc.VideoStream(await bob.subscribed(camera.sid), capacity=2)
    try:
        async with asyncio.timeout(PATIENCE):
            event = await anext(aiter(stream))
    finally:
        await stream.aclose()
    assert (event.frame.width, event.frame.height) == (320, 180)


async def test_simulcast_layers_follow_the_subscribers_wish(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    camera = await house.picture(
        alice, width=1280, height=720, simulcast=True, video_codec=rtc.VideoCodec.VP8,
        video_encoding=rtc.VideoEncoding(max_bitrate=3_000_000, max_framerate=15),
    )  # fmt: skip
    track = await bob.subscribed(camera.sid)
    publication = bob.room.remote_participants["alice"].track_publications[camera.sid]
    assert publication.simulcasted
    await _sizes_follow(publication, track)
    assert await _layer_mode(house, "alice") == models.VideoLayer.ONE_SPATIAL_LAYER_PER_STREAM


@pytest.mark.parametrize("codec", [rtc.VideoCodec.VP9, rtc.VideoCodec.AV1], ids=["VP9", "AV1"])
async def test_spatial_layers_follow_the_subscribers_wish(house: Studio, single: bool, codec: Any) -> None:
    """Three layers in one stream. A second subscriber, who wants everything, keeps getting everything."""
    alice, bob, carol = [await house.join(name, single=single) for name in ("alice", "bob", "carol")]
    camera = await house.picture(
        alice, width=1280, height=720, simulcast=True, video_codec=codec, scalability_mode="L3T3_KEY",
        video_encoding=rtc.VideoEncoding(max_bitrate=3_000_000, max_framerate=15),
    )  # fmt: skip
    track = await bob.subscribed(camera.sid)
    await _sizes_follow(bob.room.remote_participants["alice"].track_publications[camera.sid], track)
    assert await _layer_mode(house, "alice") == models.VideoLayer.MULTIPLE_SPATIAL_LAYERS_PER_STREAM
    stream = rtc.VideoStream(await carol.subscribed(camera.sid), capacity=2)
    try:
        await _size(stream, 1280)
    finally:
        await stream.aclose()


async def _sizes_follow(publication: rtc.RemoteTrackPublication, track: Any) -> None:
    """Asks for one quality after the other, and waits until its pictures come."""
    stream = rtc.VideoStream(track, capacity=2)
    try:
        for quality, width in ((0, 320), (2, 1280), (1, 640)):
            publication.set_video_quality(rtc.VideoQuality.ValueType(quality))
            await _size(stream, width)
    finally:
        await stream.aclose()


async def _size(stream: rtc.VideoStream, width: int) -> None:
    """Five pictures of that width in a row: a layer that stays."""
    count = 0
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            count = count + 1 if event.frame.width == width else 0
            if count == 5:
                return
    raise AssertionError("the stream ended")


async def _layer_mode(house: Studio, identity: str) -> models.VideoLayer.Mode:
    """What others are told of how a participant's only track carries its layers."""
    info = await house.lk.room.get_participant(who(identity))
    return info.tracks[0].codecs[0].video_layer_mode


async def test_mute_silences_and_unmute_brings_back(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    microphone = await house.tone(alice, 440)
    track = await bob.subscribed(microphone.sid)
    await bob.hears(track, 0.3)
    assert isinstance(microphone.track, rtc.LocalAudioTrack)
    microphone.track.mute()
    await bob.event("track_muted", lambda _who, pub: pub.sid == microphone.sid)
    server_side = await house.lk.room.get_participant(who("alice"))
    assert [found.muted for found in server_side.tracks] == [True]
    microphone.track.unmute()
    await bob.event("track_unmuted", lambda _who, pub: pub.sid == microphone.sid)
    assert abs((await bob.hears(track))[0] - 440) < 2


async def test_unpublished_and_published_again(house: Studio, single: bool) -> None:
    """The section is used again, for a track with a new sid and another sound."""
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    first = await house.tone(alice, 440)
    await bob.hears(await bob.subscribed(first.sid), 0.3)
    await alice.me.unpublish_track(first.sid)
    await bob.event("track_unpublished", lambda pub, _who: pub.sid == first.sid)
    await bob.event("track_unsubscribed", lambda _track, pub, _who: pub.sid == first.sid)
    second = await house.tone(alice, 550)
    assert second.sid != first.sid
    assert abs((await bob.hears(await bob.subscribed(second.sid)))[0] - 550) < 2


async def test_a_track_is_received_only_by_who_wants_it(house: Studio, single: bool) -> None:
    alice = await house.join("alice", single=single)
    bob = await house.join("bob", single=single, auto_subscribe=False)
    microphone = await house.tone(alice, 440)
    await bob.event("track_published", lambda pub, _who: pub.sid == microphone.sid)
    assert not bob.seen("track_subscribed")
    publication = bob.room.remote_participants["alice"].track_publications[microphone.sid]
    publication.set_subscribed(True)
    assert abs((await bob.hears(await bob.subscribed(microphone.sid)))[0] - 440) < 2
    publication.set_subscribed(False)
    await bob.event("track_unsubscribed", lambda _track, pub, _who: pub.sid == microphone.sid)


async def test_a_publisher_chooses_who_may_subscribe(house: Studio) -> None:
    alice, bob, carol = [await house.join(name) for name in ("alice", "bob", "carol")]
    alice.me.set_track_subscription_permissions(
        allow_all_participants=False,
        participant_permissions=[rtc.ParticipantTrackPermission(participant_identity="bob", allow_all=True)],
    )
    microphone = await house.tone(alice, 440)
    await bob.subscribed(microphone.sid)
    await carol.event("track_published", lambda pub, _who: pub.sid == microphone.sid)
    assert not carol.seen("track_subscribed")
    alice.me.set_track_subscription_permissions(allow_all_participants=True)
    await carol.subscribed(microphone.sid)


async def test_data_carries_the_senders_identity(house: Studio, single: bool) -> None:
    alice, bob, carol = [await house.join(name, single=single) for name in ("alice", "bob", "carol")]
    await alice.until(lambda: alice.sees("bob") and alice.sees("carol"))
    await alice.me.publish_data(b"to all", topic="t")
    for other in (bob, carol):
        (packet,) = await other.event("data_received", lambda p: p.data == b"to all")
        assert packet.participant is not None
        assert packet.participant.identity == "alice"
        assert packet.topic == "t"
    await alice.me.publish_data(b"to bob", destination_identities=["bob"])
    await alice.me.publish_data(b"to carol", destination_identities=["carol"])
    await bob.event("data_received", lambda p: p.data == b"to bob")
    await carol.event("data_received", lambda p: p.data == b"to carol")
    assert [p.data for (p,) in bob.seen("data_received")] == [b"to all", b"to bob"]
    assert [p.data for (p,) in carol.seen("data_received")] == [b"to all", b"to carol"]


async def test_data_keeps_its_order_and_its_size(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    sent = [bytes([n]) * (1 if n else 60_000) for n in range(100)]
    for data in sent:
        await alice.me.publish_data(data, reliable=True)
    await bob.event("data_received", lambda p: p.data == sent[-1])
    assert [p.data for (p,) in bob.seen("data_received")] == sent


async def test_text_streams_and_rpc(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    text: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    reading: list[asyncio.Future[None]] = []

    async def read(reader: rtc.TextStreamReader, identity: str) -> None:
        text.set_result((await reader.read_all(), identity))

    bob.room.register_text_stream_handler(
        "chat", lambda reader, identity: reading.append(asyncio.ensure_future(read(reader, identity)))
    )

    async def upper(data: rtc.RpcInvocationData) -> str:
        return data.payload.upper()

    bob.me.register_rpc_method("upper", upper)
    await alice.me.send_text("x" * 50_000, topic="chat")
    async with asyncio.timeout(PATIENCE):
        assert await text == ("x" * 50_000, "alice")
    assert await alice.me.perform_rpc(destination_identity="bob", method="upper", payload="hello") == "HELLO"


async def test_who_speaks_is_told_and_who_falls_silent(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    microphone = await house.tone(alice, 440)

    def speaks(speakers: list[rtc.Participant]) -> bool:
        return [speaker.identity for speaker in speakers] == ["alice"]

    await bob.event("active_speakers_changed", speaks)
    newcomer = await house.join("newcomer", single=single)
    await newcomer.event("active_speakers_changed", speaks)
    assert isinstance(microphone.track, rtc.LocalAudioTrack)
    microphone.track.mute()
    await bob.event("active_speakers_changed", lambda speakers: speakers == [])


async def test_connection_quality_is_told(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    for client in (alice, bob):
        for identity in ("alice", "bob"):
            await client.event(
                "connection_quality_changed",
                lambda of, quality, wanted=identity: (
                    of.identity == wanted and quality == rtc.ConnectionQuality.QUALITY_EXCELLENT
                ),
            )
