"""Damaged, hostile or merely strange input: nobody but its sender notices."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from livekit import api
from livekit.protocol import models, rtc

from tests.local.media_server.studio import KEY, SECRET, Studio, token, who
from tests.local.media_server.test_rtp import packet
from tests.local.media_server.test_sdp import OFFER
from utd_fsm.local.media_server import MediaServer, signal_requests, signalling
from utd_fsm.local.media_server.auth import Keys
from utd_fsm.local.media_server.peer import Peer
from utd_fsm.local.media_server.room import Room

anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


async def _peer(server: MediaServer, *, single: bool = True, identity: str = "mallory") -> Peer:
    claims = Keys(KEY, SECRET).join_claims(None, token(identity))
    room = server.find_room("room") or server.open_room("room", None)
    return room.join(claims, single_connection=single, auto_subscribe=True, client=models.ClientInfo())


def _request(**fields: Any) -> bytes:
    return rtc.SignalRequest(**fields).SerializeToString()


_OFFER_LINES = OFFER.split("\n")
_descriptions = st.one_of(
    st.text(max_size=80),
    st.just(OFFER),
    st.integers(0, len(_OFFER_LINES)).map(lambda count: "\n".join(_OFFER_LINES[:count])),
    st.sets(st.integers(0, len(_OFFER_LINES)), max_size=6).map(
        lambda gone: "\n".join(line for number, line in enumerate(_OFFER_LINES) if number not in gone)
    ),
)
_candidates = st.sampled_from(
    ["", "{", "[]", "1", '{"candidate": 5}', '{"candidate": "candidate:x y"}', '{"candidate": null}']
)
_requests = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda sdp: _request(offer=rtc.SessionDescription(sdp=sdp)), _descriptions),
    st.builds(lambda sdp: _request(answer=rtc.SessionDescription(sdp=sdp)), _descriptions),
    st.builds(
        lambda text, target: _request(trickle=rtc.TrickleRequest(candidateInit=text, target=target)),
        _candidates,
        st.sampled_from([rtc.PUBLISHER, rtc.SUBSCRIBER]),
    ),
    st.builds(
        lambda cid, kind, source: _request(add_track=rtc.AddTrackRequest(cid=cid, type=kind, source=source)),
        st.sampled_from(["camera-id", "microphone-id", ""]),
        st.sampled_from([models.AUDIO, models.VIDEO, models.DATA]),
        st.sampled_from([models.CAMERA, models.MICROPHONE, models.UNKNOWN]),
    ),
    st.builds(
        lambda sid, quality: _request(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], quality=quality)),
        st.text(max_size=5),
        st.sampled_from([models.LOW, models.MEDIUM, models.HIGH, models.OFF]),
    ),
)


@pytest.mark.parametrize("single", [True, False])
async def test_no_sequence_of_requests_stops_the_server(caplog: pytest.LogCaptureFixture, single: bool) -> None:
    """Fixed seeds by hypothesis would need its own loop: the examples are drawn up front, then played on one server."""
    stories: list[list[bytes]] = []

    @anything
    @given(st.lists(_requests, max_size=8))
    def draw(story: list[bytes]) -> None:
        stories.append(story)

    draw()
    server = MediaServer(key=KEY, secret=SECRET)
    await server.start()
    try:
        with caplog.at_level(logging.ERROR, "utd_fsm"):
            for number, story in enumerate(stories):
                peer = await _peer(server, single=single, identity=f"mallory{number % 3}")
                for raw in story:
                    await signal_requests.handle(peer, raw)
                await asyncio.sleep(0)
        failed = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert not failed, failed[0].exc_info or failed[0].getMessage()
        room = server.find_room("room")
        assert isinstance(room, Room)
        assert len(room.members()) == 3
    finally:
        await server.stop(hard=True)


async def test_no_packet_stops_the_relay() -> None:
    """Random bytes as RTP, RTCP and data of a participant that has published and is subscribed to."""
    packets: list[bytes] = []
    shaped = st.builds(
        packet, st.binary(max_size=20), payload_type=st.sampled_from([96, 111, 5]), ssrc=st.sampled_from([1234, 7, 8]),
        sequence=st.integers(0, 65_535), extension=st.binary(max_size=20), profile=st.sampled_from([0xBEDE, 0x1000]),
    )  # fmt: skip

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.binary(max_size=60), shaped))
    def draw(data: bytes) -> None:
        packets.append(data)

    draw()
    server = MediaServer(key=KEY, secret=SECRET)
    await server.start()
    try:
        peer, other = await _peer(server), await _peer(server, identity="other")
        for cid, kind, source in (
            ("camera-id", models.VIDEO, models.CAMERA),
            ("microphone-id", models.AUDIO, models.MICROPHONE),
        ):
            peer.publisher.add_track(rtc.AddTrackRequest(cid=cid, type=kind, source=source))
        other.info.state = models.ParticipantInfo.ACTIVE
        await peer.on_offer(OFFER, 1)
        assert len(peer.publisher.tracks) == 2
        for downstream in other.subscriber.downstreams.values():
            downstream.begin()
        assert other.subscriber.downstreams
        for data in packets:
            await peer.publishing._on_rtp(data, 0)
            await peer.publishing._on_rtcp(data)
            await other.publishing._on_rtcp(data)
            for label in ("_reliable", "_lossy", "_data_track", "x"):
                peer.on_data(peer.publishing, label, data)
        assert any(stream.received for track in peer.publisher.tracks.values() for stream in track.streams.values())
    finally:
        await server.stop(hard=True)


@given(st.binary(max_size=200), st.sampled_from(["plain", "base64", "wrapped", "gzip"]))
def test_no_join_request_does_more_than_fail_to_parse(data: bytes, how: str) -> None:
    text = {
        "plain": lambda: data.decode("latin-1"),
        "base64": lambda: base64.urlsafe_b64encode(data).decode(),
        "wrapped": lambda: base64.urlsafe_b64encode(
            rtc.WrappedJoinRequest(join_request=data).SerializeToString()
        ).decode(),
        "gzip": lambda: base64.urlsafe_b64encode(
            rtc.WrappedJoinRequest(join_request=data, compression=rtc.WrappedJoinRequest.GZIP).SerializeToString()
        ).decode(),
    }[how]()
    try:
        signalling.read_join("/rtc/v1", {"join_request": text})
    except signalling.BadJoin:
        pass


def test_join_requests_in_every_wrapping() -> None:
    request = rtc.JoinRequest(participant_sid="PA_x", reconnect=True)
    raw = request.SerializeToString()
    for wrapped in (
        rtc.WrappedJoinRequest(join_request=raw),
        rtc.WrappedJoinRequest(join_request=gzip.compress(raw), compression=rtc.WrappedJoinRequest.GZIP),
    ):
        text = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
        for given_text in (text, text.rstrip("=")):
            join = signalling.read_join("/rtc/v1", {"join_request": given_text})
            assert (join.sid, join.resume, join.single_connection) == ("PA_x", True, True)


def test_a_join_request_that_unpacks_to_too_much_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 5_000_000)
    wrapped = rtc.WrappedJoinRequest(join_request=bomb, compression=rtc.WrappedJoinRequest.GZIP)
    text = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
    with pytest.raises(signalling.BadJoin):
        signalling.read_join("/rtc/v1", {"join_request": text})


@pytest.mark.media
async def test_others_go_on_while_one_sends_nonsense(house: Studio) -> None:
    alice, bob = await house.join("alice"), await house.join("bob")
    async with aiohttp.ClientSession(house.url) as http:
        async with http.ws_connect("/rtc", params={"access_token": token("mallory")}) as link:
            await link.receive()
            for data in (b"", b"\xff" * 100, b"\x0a\x05hello", rtc.SignalRequest().SerializeToString()):
                await link.send_bytes(data)
            await link.send_str("text")
            ping = rtc.SignalRequest(ping_req=rtc.Ping(timestamp=7))
            await link.send_bytes(ping.SerializeToString())
            while True:
                message = rtc.SignalResponse.FromString((await link.receive()).data)
                if message.WhichOneof("message") == "pong_resp":
                    assert message.pong_resp.last_ping_timestamp == 7
                    break
        query = {"access_token": token("x"), "join_request": "%"}
        async with http.get("/rtc/v1", params=query, headers=_UPGRADE) as answer:
            assert answer.status == 400
    await alice.me.publish_data(b"still here")
    await bob.event("data_received", lambda p: p.data == b"still here")


_UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "x" * 22 + "==",
}


async def test_what_a_participant_claims_of_its_identity_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packet on the wire names another sender, in each of the four places: the server puts the true one in."""
    server = MediaServer(key=KEY, secret=SECRET)
    await server.start()
    try:
        mallory, other = await _peer(server), await _peer(server, identity="other")
        sent: list[models.DataPacket] = []
        monkeypatch.setattr(other, "send_data", lambda _label, raw: sent.append(models.DataPacket.FromString(raw)))
        user = models.UserPacket(payload=b"x", participant_identity="engine", participant_sid="PA_engine")
        forged = models.DataPacket(participant_identity="engine", participant_sid="PA_engine", user=user)
        mallory.on_data(mallory.publishing, "_reliable", forged.SerializeToString())
        (packet,) = sent
        assert {packet.participant_identity, packet.user.participant_identity} == {"mallory"}
        assert {packet.participant_sid, packet.user.participant_sid} == {mallory.sid}
    finally:
        await server.stop(hard=True)


async def test_a_muted_track_is_not_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its publisher still sends."""
    server = MediaServer(key=KEY, secret=SECRET)
    await server.start()
    try:
        peer, other = await _peer(server), await _peer(server, identity="other")
        other.info.state = models.ParticipantInfo.ACTIVE
        peer.publisher.add_track(rtc.AddTrackRequest(cid="microphone-id", type=models.AUDIO, source=models.MICROPHONE))
        await peer.on_offer(OFFER, 1)
        (downstream,) = other.subscriber.downstreams.values()
        downstream.begin()
        sent: list[bytes] = []
        monkeypatch.setattr(other, "send_rtp", sent.append)
        sound = packet(payload_type=111, ssrc=1234, extension=b"\x10\x05")
        peer.on_rtp(peer.publishing, sound)
        assert sent == [packet(payload_type=111, ssrc=1234)]
        assert peer.publisher.mute(downstream.track.sid, True)
        peer.on_rtp(peer.publishing, sound)
        assert len(sent) == 1
        assert peer.publisher.mute(downstream.track.sid, False)
        peer.on_rtp(peer.publishing, sound)
        assert len(sent) == 2
    finally:
        await server.stop(hard=True)


@pytest.mark.media
async def test_an_unknown_sid_is_sent_to_a_full_reconnect(house: Studio) -> None:
    async with aiohttp.ClientSession(house.url) as http:
        query: dict[str, Any] = {"access_token": token("alice"), "reconnect": "1", "sid": "PA_unknown"}
        async with http.ws_connect("/rtc", params=query) as link:
            message = rtc.SignalResponse.FromString((await link.receive()).data)
            assert message.leave.action == rtc.LeaveRequest.RECONNECT
            assert message.leave.reason == models.STATE_MISMATCH
    with pytest.raises(api.TwirpError):
        await house.lk.room.get_participant(who("alice"))
