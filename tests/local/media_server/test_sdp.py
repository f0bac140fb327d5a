"""Session descriptions: what libwebrtc writes, what we answer, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm.local.media_server import sdp
from utd_fsm.local.media_server.dependency import URI as DEPENDENCY_URI
from utd_fsm.local.media_server.rtp import AUDIO_LEVEL_URI, MID_URI, RID_URI

OFFER = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:abcd
a=ice-pwd:secretsecretsecretsecret
a=fingerprint:sha-256 AA:BB
a=setup:actpass
a=mid:0
a=sctp-port:5000
m=audio 9 UDP/TLS/RTP/SAVPF 63 111 0
a=mid:1
a=sendonly
a=msid:- microphone-id
a=rtpmap:63 red/48000/2
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=rtcp-fb:111 nack
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:0 PCMU/8000
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:mid
a=ssrc:1234 cname:x
m=video 9 UDP/TLS/RTP/SAVPF 96 97 100 102
a=mid:2
a=sendrecv
a=msid:stream camera-id
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=rtpmap:100 H264/90000
a=fmtp:100 packetization-mode=0;profile-level-id=42001f
a=rtpmap:102 H264/90000
a=fmtp:102 packetization-mode=1;profile-level-id=42e01f
a=extmap:4/recvonly urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=extmap:12 urn:3gpp:video-orientation
a=rid:f send
a=rid:q send
a=rid:h send
a=simulcast:send f;q;h
"""


def offer() -> tuple[sdp.Section, sdp.Section, sdp.Section]:
    data, audio, video = sdp.parse(OFFER.replace("\n", "\r\n"))
    return data, audio, video


def test_what_a_section_says() -> None:
    data, audio, video = offer()
    assert (data.kind, data.mid, data.sctp_port) == ("application", "0", 5000)
    assert (audio.kind, audio.direction, audio.sends, audio.track_id, audio.ssrc) == (
        "audio", "sendonly", True, "microphone-id", 1234,
    )  # fmt: skip
    assert audio.extension(AUDIO_LEVEL_URI) == 1
    assert (video.direction, video.track_id, video.ssrc) == ("sendrecv", "camera-id", 0)
    assert (video.extension(MID_URI), video.extension(RID_URI)) == (4, 10)
    assert video.rids == ["f", "q", "h"]
    assert sdp.lowest_first(video.rids) == ["q", "h", "f"]
    assert audio.rids == []


def test_the_choice_of_a_codec() -> None:
    _, audio, video = offer()
    opus = sdp.choose_codec(audio)
    assert opus is not None
    assert opus.lines() == [
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-fb:111 nack",
        "a=fmtp:111 minptime=10;useinbandfec=1",
    ]
    vp8, h264 = sdp.choose_codec(video), sdp.choose_codec(video, "h264")
    assert vp8 is not None
    assert h264 is not None
    assert (vp8.payload_type, h264.payload_type) == (96, 100)
    assert sdp.choose_codec(video, "AV1") == vp8
    exact = sdp.Codec(33, "H264/90000", parameters="packetization-mode=1;profile-level-id=42e01f")
    found = sdp.match_codec(video, exact)
    assert found is not None
    assert found.payload_type == 102
    assert sdp.match_codec(video, sdp.Codec(33, "VP9/90000")) is None
    (plain,) = sdp.parse("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=rtpmap:0 PCMU/8000\n")
    assert sdp.choose_codec(plain) is None


def test_stereo_is_added_once() -> None:
    codec = sdp.Codec(111, "opus/48000/2", parameters="minptime=10").with_parameter("stereo=1")
    assert codec.parameters == "minptime=10;stereo=1"
    assert codec.with_parameter("stereo=1") is codec


@pytest.mark.parametrize(("index", "kept"), [(1, ["1"]), (2, ["4/recvonly", "10"])])
def test_extensions_that_an_answer_keeps(index: int, kept: list[str]) -> None:
    """Of video the three that name layers and sections, of audio never (LiveKit facts, 41)."""
    lines = offer()[index].extension_lines()
    assert [line.split(":", 1)[1].split()[0] for line in lines] == kept


def test_the_dependency_descriptor_is_kept_where_it_is_wanted() -> None:
    """With leave to use long extensions: libwebrtc sends none of it where it cannot send a key frame's."""
    text = f"m=video 9 UDP/TLS/RTP/SAVPF 45\na=extmap:12 {DEPENDENCY_URI}\na=extmap:4 {MID_URI}\n"
    (section,) = sdp.parse(text)
    kept = section.extension_lines(dependencies=True)
    assert kept == [f"a=extmap:4 {MID_URI}", "a=extmap-allow-mixed", f"a=extmap:12 {DEPENDENCY_URI}"]
    assert section.extension_lines() == [f"a=extmap:4 {MID_URI}"]
    (without,) = sdp.parse(f"m=video 9 UDP/TLS/RTP/SAVPF 45\na=extmap:4 {MID_URI}\n")
    assert without.extension_lines(dependencies=True) == [f"a=extmap:4 {MID_URI}"]


def test_an_answer_reads_back() -> None:
    data, audio, video = offer()
    transport = ["c=IN IP4 0.0.0.0", "a=ice-ufrag:x", "a=setup:active"]
    opus, vp8 = sdp.choose_codec(audio), sdp.choose_codec(video)
    assert opus is not None
    assert vp8 is not None
    text = sdp.description(
        [
            sdp.data_section(data, transport, 1000),
            sdp.media_section("audio", "1", opus, "sendonly", transport, sdp.source_lines("PA_x", "TR_y", 99)),
            sdp.media_section("video", "2", vp8, "recvonly", transport, sdp.simulcast_lines(video.rids)),
            sdp.rejected_section(video, transport),
        ],
        ["0", "1", "2"],
    )
    assert text.endswith("\r\n")
    first, second, third, fourth = sdp.parse(text)
    assert first.sctp_port == 5000
    assert (second.ssrc, second.track_id, second.get("ice-ufrag")) == (99, "TR_y", "x")
    assert third.get("simulcast") == "recv f;q;h"
    assert third.all("rid") == ["f recv", "q recv", "h recv"]
    assert fourth.media.split()[1] == "0"
    assert fourth.direction == "inactive"


_WORDS = st.sampled_from(
    ["m=audio 9 X 111 a", "m=video", "m=", "a=rtpmap:111 opus/48000", "a=rtpmap:", "a=rtpmap:111", "a=fmtp:111",
     "a=extmap:", "a=extmap:x y", "a=extmap:1", "a=rid:f", "a=rid:f send", "a=simulcast:", "a=ssrc:", "a=ssrc:x y",
     "a=msid:", "a=sctp-port:x", "a=mid", "a=rtcp-fb:111", "", "a=", "\r", "a=sendonly"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=15).map("\n".join)))
def test_no_text_at_all_makes_a_reader_raise(text: str) -> None:
    for section in sdp.parse(text):
        _ = (section.kind, section.mid, section.direction, section.track_id, section.ssrc, section.rids)
        _ = (section.sctp_port, section.formats, section.extension(MID_URI), section.extension_lines())
        codec = sdp.choose_codec(section, "VP8")
        if codec is not None:
            assert sdp.match_codec(section, codec) is not None
        sdp.rejected_section(section, [])
