"""RTCP as bytes (RFC 3550, 4585, 5104): reading compound packets, and the handful the relay writes itself.

Pure functions. Reading stops quietly at the first part that does not fit: a damaged packet is a lost packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

SENDER_REPORT, RECEIVER_REPORT, TRANSPORT_FEEDBACK, PAYLOAD_FEEDBACK = 200, 201, 205, 206
GENERIC_NACK = 1
PICTURE_LOSS, FULL_INTRA_REQUEST, APPLICATION_LAYER = 1, 4, 15
REPORTS_PER_PACKET = 31
MOST_ASKED = 300
"""Packets one request to send again names: it has to fit into a datagram."""
OUR_SSRC = 1
"""The SSRC we report as; we send no media of our own."""

_REPORT_BLOCK = 24
_SENDER_INFO = 28
_FEEDBACK_HEAD = 12


@dataclass(frozen=True, slots=True)
class Part:
    """One packet of a compound.

    Attributes:
        kind: the packet type, for instance 200 for a sender report.
        count: its five-bit count, or the feedback format.
        body: all of its bytes, header included.
    """

    kind: int
    count: int
    body: bytes

    @property
    def sender_ssrc(self) -> int:
        return int.from_bytes(self.body[4:8], "big")


def parts(data: bytes) -> Iterator[Part]:
    """The packets of a compound, in order, up to the first that is damaged."""
    position = 0
    while position + 8 <= len(data) and data[position] >> 6 == 2:
        length = 4 * (int.from_bytes(data[position + 2 : position + 4], "big") + 1)
        if length < 8 or position + length > len(data):
            return
        yield Part(data[position + 1], data[position] & 0x1F, bytes(data[position : position + length]))
        position += length


def media_ssrc(part: Part) -> int | None:
    """Which stream a feedback packet is about; None where it names none."""
    at = 12 if part.kind == PAYLOAD_FEEDBACK and part.count == FULL_INTRA_REQUEST else 8
    if len(part.body) < at + 4:
        return None
    return int.from_bytes(part.body[at : at + 4], "big")


def asks_for_key_frame(part: Part) -> bool:
    return part.kind == PAYLOAD_FEEDBACK and part.count in (PICTURE_LOSS, FULL_INTRA_REQUEST)


def nacked(part: Part) -> list[int]:
    """The sequence numbers a generic NACK asks for again."""
    found: list[int] = []
    for at in range(_FEEDBACK_HEAD, len(part.body) - 3, 4):
        first, mask = struct.unpack_from("!HH", part.body, at)
        found.append(first)
        found += [(first + 1 + bit) & 0xFFFF for bit in range(16) if mask >> bit & 1]
    return found


def fractions_lost(part: Part) -> list[tuple[int, float]]:
    """What a report says of the streams its sender receives: (ssrc, share lost since its last report, 0-1)."""
    start = _SENDER_INFO if part.kind == SENDER_REPORT else 8
    return [
        (int.from_bytes(part.body[at : at + 4], "big"), part.body[at + 4] / 256)
        for at in range(
            start, min(start + part.count * _REPORT_BLOCK, len(part.body) - _REPORT_BLOCK + 1), _REPORT_BLOCK
        )
    ]


def sender_report_middle(part: Part) -> int | None:
    """The middle 32 bits of a sender report's NTP time, which a receiver report echoes."""
    return int.from_bytes(part.body[10:14], "big") if len(part.body) >= _SENDER_INFO else None


def relayed_sender_report(part: Part, *, ssrc: int, timestamp_offset: int) -> bytes | None:
    """A publisher's sender report as its subscriber must see it: their SSRC and RTP clock, no report blocks."""
    if len(part.body) < _SENDER_INFO:
        return None
    timestamp = (int.from_bytes(part.body[16:20], "big") + timestamp_offset) & 0xFFFFFFFF
    return (
        struct.pack("!BBHI", 0x80, SENDER_REPORT, 6, ssrc)
        + part.body[8:16]
        + struct.pack("!I", timestamp)
        + part.body[20:28]
    )


def receiver_reports(blocks: Sequence[bytes]) -> bytes:
    """A compound of receiver reports over any number of 24-byte blocks."""
    packets = []
    for start in range(0, len(blocks), REPORTS_PER_PACKET):
        part = blocks[start : start + REPORTS_PER_PACKET]
        packets.append(
            struct.pack("!BBHI", 0x80 | len(part), RECEIVER_REPORT, 1 + 6 * len(part), OUR_SSRC) + b"".join(part)
        )
    return b"".join(packets)


def report_block(ssrc: int, *, fraction: int, lost: int, highest: int, last_report: int, delay: int) -> bytes:
    """One block of a receiver report. `fraction` in 1/256, `delay` in 1/65536 s."""
    return struct.pack(
        "!IIIIII",
        ssrc,
        (fraction & 0xFF) << 24 | max(0, min(lost, 0x7FFFFF)),
        highest & 0xFFFFFFFF,
        0,
        last_report,
        delay & 0xFFFFFFFF,
    )


def bitrate_estimate(ssrcs: Sequence[int], bits_per_second: int) -> bytes:
    """REMB (draft-alvestrand-rmcat-remb): how much these streams together may send. At most 255 streams."""
    exponent = max(0, bits_per_second.bit_length() - 18)
    mantissa = bits_per_second >> exponent
    head = struct.pack("!BBHII", 0x80 | APPLICATION_LAYER, PAYLOAD_FEEDBACK, 4 + len(ssrcs), OUR_SSRC, 0)
    estimate = struct.pack("!4sBBH", b"REMB", len(ssrcs), exponent << 2 | mantissa >> 16, mantissa & 0xFFFF)
    return head + estimate + b"".join(struct.pack("!I", ssrc) for ssrc in ssrcs)


def picture_loss(ssrc: int) -> bytes:
    """Asks the sender of `ssrc` for a key frame."""
    return struct.pack("!BBHII", 0x80 | PICTURE_LOSS, PAYLOAD_FEEDBACK, 2, OUR_SSRC, ssrc)


def nack(ssrc: int, sequences: Iterable[int]) -> bytes:
    """Asks the sender of `ssrc` for these packets again: the first `MOST_ASKED`, what one datagram holds."""
    wanted = list(sequences)[:MOST_ASKED]
    head = struct.pack("!BBHII", 0x80 | GENERIC_NACK, TRANSPORT_FEEDBACK, 2 + len(wanted), OUR_SSRC, ssrc)
    return head + b"".join(struct.pack("!HH", sequence & 0xFFFF, 0) for sequence in wanted)
