"""RTP packets: known ones, and anything at all."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm.local.media_server import rtp, vp8
from utd_fsm.local.media_server.downstream import SimulcastDownstream
from utd_fsm.local.media_server.sdp import Codec
from utd_fsm.local.media_server.tracks import IncomingStream


def packet(
    payload: bytes = b"x",
    *,
    payload_type: int = 96,
    sequence: int = 1,
    timestamp: int = 2,
    ssrc: int = 3,
    extension: bytes = b"",
    profile: int = 0xBEDE,
    sources: tuple[int, ...] = (),
    marker: bool = False,
) -> bytes:
    """A packet with these fields; `extension` is padded to whole words."""
    first = 0x80 | (0x10 if extension else 0) | len(sources)
    head = struct.pack("!BBHII", first, marker << 7 | payload_type, sequence, timestamp, ssrc)
    head += b"".join(struct.pack("!I", source) for source in sources)
    if extension:
        extension += b"\0" * (-len(extension) % 4)
        head += struct.pack("!HH", profile, len(extension) // 4) + extension
    return head + payload


ONE_BYTE = bytes([0x10, 0x85]) + b"\0" + bytes([0x31]) + b"ab"
"""Id 1: one byte 0x85 (voice, 5 dB); a padding byte; id 3: two bytes."""
TWO_BYTE = bytes([1, 1, 0x85, 0, 3, 2]) + b"ab"


@pytest.mark.parametrize(("extension", "profile"), [(ONE_BYTE, 0xBEDE), (TWO_BYTE, 0x1000)])
def test_header_extensions(extension: bytes, profile: int) -> None:
    data = packet(b"payload", extension=extension, profile=profile, sources=(7, 8))
    assert rtp.is_rtp(data)
    assert rtp.header_extension(data, 3) == b"ab"
    assert rtp.header_extension(data, 2) is None
    assert rtp.header_extension(data, 0) is None
    assert rtp.audio_level(data, 1) == 5
    assert data[rtp.payload_offset(data) :] == b"payload"


def test_an_extension_longer_than_its_block_is_not_read() -> None:
    assert rtp.header_extension(packet(extension=bytes([0x1F, 1, 2, 3])), 1) is None
    assert rtp.header_extension(packet(extension=bytes([1, 200, 1, 2]), profile=0x1000), 1) is None
    assert rtp.header_extension(packet(extension=bytes([0, 0, 0, 1]), profile=0x1000), 1) is None


def test_without_extensions_keeps_the_rest() -> None:
    data = packet(b"payload", extension=ONE_BYTE, sources=(7,), marker=True, sequence=9)
    assert rtp.without_extensions(data) == packet(b"payload", sources=(7,), marker=True, sequence=9)
    assert rtp.without_extensions(packet()) == packet()


def test_rewriting() -> None:
    data = packet(b"payload", extension=ONE_BYTE, sources=(7,), marker=True)
    made = rtp.rewritten(data, b"payload", payload_type=100, sequence=65_537, timestamp=2**32 + 5, ssrc=42)
    assert made == packet(b"payload", payload_type=100, sequence=1, timestamp=5, ssrc=42, marker=True)
    assert rtp.with_payload_type(packet(marker=True), 111) == packet(marker=True, payload_type=111)


@pytest.mark.parametrize(
    ("codec", "payload", "key"),
    [
        ("VP8", bytes([0x10, 0x00]), True),
        ("VP8", bytes([0x10, 0x01]), False),
        ("VP8", bytes([0x00, 0x00]), False),  # not the start of the partition
        ("VP8", bytes([0x11, 0x00]), False),  # another partition
        ("VP8", bytes([0x90, 0xF0, 0x81, 0x02, 0x03, 0x04, 0x00]), True),  # long picture id, TL0PICIDX, TID
        ("VP8", bytes([0x90, 0x80, 0x01, 0x01]), False),
        ("VP8", b"\x90", False),
        ("H264", bytes([0x67]), True),
        ("H264", bytes([0x65]), True),
        ("H264", bytes([0x61]), False),
        ("H264", bytes([0x7C, 0x85]), True),  # FU-A, first fragment of an IDR slice
        ("H264", bytes([0x7C, 0x05]), False),
        ("H264", bytes([0x78, 0, 2, 0x61, 0, 0, 1, 0x65]), True),  # STAP-A with an IDR slice in it
        ("H264", bytes([0x78, 0, 1, 0x61]), False),
        ("H264", b"", False),
        ("AV1", bytes([0x28, 1]), True),
        ("AV1", bytes([0x88, 1]), False),  # the rest of a unit
        ("AV1", bytes([0x10, 1]), False),
        ("AV1", b"", False),
    ],
)
def test_key_frames(codec: str, payload: bytes, key: bool) -> None:
    assert rtp.starts_key_frame(codec, packet(payload)) is key


@given(st.binary(max_size=80), st.integers(0, 255))
def test_no_bytes_at_all_make_a_reader_raise(data: bytes, extension: int) -> None:
    if rtp.is_rtp(data):
        assert rtp.payload_offset(data) <= len(data)
        value = rtp.header_extension(data, extension)
        assert value is None or value in data
        rtp.audio_level(data, extension)
        rtp.is_padding(data)
        filler = rtp.padding(data)
        assert rtp.is_rtp(filler)
        assert rtp.is_padding(filler)
        for codec in ("VP8", "H264", "VP9", "AV1"):
            rtp.starts_key_frame(codec, data)
        bare = rtp.without_extensions(data)
        assert rtp.is_rtp(bare)
        assert not bare[0] & 0x10
        assert rtp.is_rtp(rtp.rewritten(data, b"", payload_type=96, sequence=1, timestamp=2, ssrc=3))


@given(st.binary(min_size=1, max_size=255), st.integers(1, 255), st.lists(st.integers(0, 9), max_size=3))
def test_an_extension_that_is_put_in_reads_back(value: bytes, number: int, sources: list[int]) -> None:
    bare = packet(b"payload", sources=tuple(sources), marker=True)
    data = rtp.with_extension(bare, number, value)
    assert rtp.is_rtp(data)
    assert rtp.header_extension(data, number) == value
    assert rtp.without_extensions(data) == bare


@given(st.binary(max_size=40), st.binary(max_size=30))
def test_nor_do_damaged_extension_blocks(extension: bytes, payload: bytes) -> None:
    for profile in (0xBEDE, 0x1000):
        data = packet(payload, extension=extension, profile=profile)
        assert rtp.is_rtp(data)
        for wanted in range(17):
            rtp.header_extension(data, wanted)
        assert rtp.without_extensions(data) == packet(payload)


class Receiver:
    """A subscriber that keeps what it is sent."""

    identity = "bob"

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send_rtp(self, data: bytes) -> None:
        self.packets.append(data)


class Publisher:
    """A publisher that keeps the feedback it is sent."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.publisher = self

    def send_rtcp(self, data: bytes) -> None:
        self.asked.append(data)


class _Track:
    """What a `SimulcastDownstream` looks at."""

    kind = "video"
    ssrc = 4242
    rids = ["q", "h", "f"]
    codec = Codec(96, "VP8/90000")

    def __init__(self) -> None:
        self.owner = Publisher()
        self.layers = [IncomingStream(rid, 100 + n) for n, rid in enumerate(self.rids)]

    def ranked(self) -> list[IncomingStream]:
        return [layer for layer in self.layers if layer.received]


KEY, DELTA = bytes([0x10, 0x00]), bytes([0x10, 0x01])


def vp8_frame(*, key: bool, picture: int, base: int) -> bytes:
    """A frame of one packet, with a 15-bit picture id and a base index, as libwebrtc writes them."""
    return bytes([0x90, 0xC0, 0x80 | picture >> 8 & 0x7F, picture & 0xFF, base & 0xFF, 0 if key else 1])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 2)), min_size=1, max_size=80),
    st.tuples(*[st.tuples(st.integers(0, 65_535), st.integers(0, 2**32 - 1)) for _ in range(3)]),
    st.integers(0, 32_767),
)
def test_layer_switches_leave_no_trace_in_the_numbers(
    steps: list[tuple[int, bool, int]], starts: tuple[tuple[int, int], ...], picture: int
) -> None:
    """Whatever layers arrive and are wished for: one SSRC, sequence numbers and picture ids without a gap (though the
    layers count their pictures alike), time that never goes back, and every switch begins with a key frame."""
    receiver, track = Receiver(), _Track()
    downstream = SimulcastDownstream(receiver, track)  # type: ignore[arg-type]
    downstream.begin()
    numbers = [list(start) for start in starts]
    current: list[int | None] = []
    pictures = [0, 0, 0]
    now = 1000.0
    for layer, key, wish in steps:
        now += 0.033
        downstream.settings_changed(disabled=False, quality=wish)
        number = numbers[layer]
        number[0], number[1] = (number[0] + 1) & 0xFFFF, (number[1] + 2970) & 0xFFFFFFFF
        for stream in track.layers:  # all alive: what the test is about is the switching
            stream.last_arrival = now
        track.layers[layer].saw(number[0], now)
        before = len(receiver.packets)
        frame = vp8_frame(key=key, picture=picture + pictures[layer], base=pictures[layer])
        pictures[layer] += 1
        data = packet(frame, sequence=number[0], timestamp=number[1], ssrc=100 + layer)
        downstream.relay(track.layers[layer], data, now)
        if len(receiver.packets) > before:
            if current and current[-1] != layer:
                assert key
            if not current:
                assert key
            current.append(layer)
    sequences = [rtp.sequence_of(data) for data in receiver.packets]
    assert all((later - earlier) & 0xFFFF == 1 for earlier, later in itertools.pairwise(sequences))
    stamps = [rtp.timestamp_of(data) for data in receiver.packets]
    assert all(0 < (later - earlier) & 0xFFFFFFFF < 2**31 for earlier, later in itertools.pairwise(stamps))
    assert {rtp.ssrc_of(data) for data in receiver.packets} <= {4242}
    frames = [vp8.parse(data[12:]) for data in receiver.packets]
    ids = [
        (frame.picture, frame.base)
        for frame in frames
        if frame and frame.picture is not None and frame.base is not None
    ]
    assert len(ids) == len(receiver.packets)
    assert all((b[0] - a[0]) & 0x7FFF == 1 and (b[1] - a[1]) & 0xFF == 1 for a, b in itertools.pairwise(ids))


def test_retransmission_from_the_cache_and_from_the_publisher() -> None:
    receiver, track = Receiver(), _Track()
    downstream = SimulcastDownstream(receiver, track)  # type: ignore[arg-type]
    downstream.begin()
    track.layers[0].saw(10, 1.0)
    track.layers[0].last_arrival = 1e12
    for sequence in (10, 11):
        downstream.relay(track.layers[0], packet(KEY, sequence=sequence), 1.0)
    sent = list(receiver.packets)
    track.owner.asked.clear()
    downstream.retransmit([11, 12])
    assert receiver.packets == [*sent, sent[1]]
    assert [data[-4:-2] for data in track.owner.asked] == [struct.pack("!H", 12)]
