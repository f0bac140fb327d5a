"""RTCP: what is written reads back, and nothing that comes in makes a reader raise."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from utd_fsm.local.media_server import rtcp
from utd_fsm.local.media_server.tracks import IncomingStream

u32 = st.integers(0, 2**32 - 1)
u16 = st.integers(0, 65_535)


@given(u32, st.lists(u16, max_size=40))
def test_nacks_read_back(ssrc: int, sequences: list[int]) -> None:
    (part,) = rtcp.parts(rtcp.nack(ssrc, sequences))
    assert (part.kind, part.count) == (rtcp.TRANSPORT_FEEDBACK, rtcp.GENERIC_NACK)
    assert rtcp.media_ssrc(part) == ssrc
    assert rtcp.nacked(part) == sequences


def test_a_nack_with_a_mask() -> None:
    data = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, 2, 65_535, 0b1000_0000_0000_0001)
    (part,) = rtcp.parts(data)
    assert rtcp.nacked(part) == [65_535, 0, 15]


def test_key_frame_requests() -> None:
    (loss,) = rtcp.parts(rtcp.picture_loss(77))
    assert rtcp.asks_for_key_frame(loss)
    assert rtcp.media_ssrc(loss) == 77
    (fir,) = rtcp.parts(struct.pack("!BBHIIII", 0x84, 206, 4, 1, 0, 78, 1 << 24))
    assert rtcp.asks_for_key_frame(fir)
    assert rtcp.media_ssrc(fir) == 78
    (estimate,) = rtcp.parts(rtcp.bitrate_estimate([1, 2], 8_000_000))
    assert not rtcp.asks_for_key_frame(estimate)


@given(st.integers(1_000, 2**40), st.lists(u32, max_size=5))
def test_bitrate_estimates(bits: int, ssrcs: list[int]) -> None:
    data = rtcp.bitrate_estimate(ssrcs, bits)
    name, count, high, low = struct.unpack_from("!4sBBH", data, 12)
    assert (name, count) == (b"REMB", len(ssrcs))
    found = ((high & 3) << 16 | low) << (high >> 2)
    assert found <= bits < found * 1.0001 + 1
    assert len(list(rtcp.parts(data))) == 1


@given(st.integers(1, 70))
def test_any_number_of_report_blocks(count: int) -> None:
    block = rtcp.report_block(9, fraction=64, lost=3, highest=100, last_report=5, delay=6)
    parts = list(rtcp.parts(rtcp.receiver_reports([block] * count)))
    assert sum(part.count for part in parts) == count
    assert [lost for part in parts for lost in rtcp.fractions_lost(part)] == [(9, 0.25)] * count


def test_a_relayed_sender_report_has_our_ssrc_and_clock() -> None:
    report = struct.pack("!BBHIQIIIIIIIII", 0x81, 200, 12, 5, 0x1122334455667788, 2**32 - 1, 7, 8, 1, 2, 3, 4, 5, 6)
    (part,) = rtcp.parts(report)
    assert rtcp.sender_report_middle(part) == 0x33445566
    relayed = rtcp.relayed_sender_report(part, ssrc=42, timestamp_offset=2)
    assert relayed == struct.pack("!BBHIQIII", 0x80, 200, 6, 42, 0x1122334455667788, 1, 7, 8)


@given(st.binary(max_size=120))
def test_no_bytes_at_all_make_a_reader_raise(data: bytes) -> None:
    for part in rtcp.parts(data):
        rtcp.media_ssrc(part)
        rtcp.nacked(part)
        rtcp.asks_for_key_frame(part)
        rtcp.sender_report_middle(part)
        rtcp.relayed_sender_report(part, ssrc=1, timestamp_offset=2)
        assert all(0 <= lost < 1 for _, lost in rtcp.fractions_lost(part))


@given(st.integers(0, 65_535), st.integers(1, 300), st.sets(st.integers(1, 299)))
def test_a_stream_counts_what_it_lost(first: int, count: int, lost: set[int]) -> None:
    stream = IncomingStream("", 9)
    arrived = [n for n in range(count) if n not in lost]
    for n in arrived:
        stream.saw((first + n) & 0xFFFF, 1.0)
    block, fraction = stream.report(2.0)
    expected = arrived[-1] + 1
    missing = expected - len(arrived)
    ssrc, packed, highest = struct.unpack_from("!III", block)
    assert (ssrc, packed & 0xFFFFFF, highest) == (9, missing, first + arrived[-1])
    assert abs(fraction - missing / expected) < 1e-9
    assert stream.report(3.0)[1] == 0


def test_a_request_for_a_thousand_packets_fits_into_a_datagram() -> None:
    asked = rtcp.nack(7, range(65_000, 66_000))
    assert len(asked) < 1_300
    (part,) = rtcp.parts(asked)
    assert rtcp.nacked(part) == [number & 0xFFFF for number in range(65_000, 65_000 + rtcp.MOST_ASKED)]
