"""RTP packets as bytes (RFC 3550, 8285): what is in a header, and the few rewritings a relay needs.

Pure functions without state or I/O. Callers check a packet once with `is_rtp`; after that none of these raises,
whatever the payload holds. Extensions and payloads are somebody else's bytes, so their ends are always checked.
"""

from __future__ import annotations

import struct

from . import vp8, vp9

AUDIO_LEVEL_URI = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
ABS_SEND_TIME_URI = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
MID_URI = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID_URI = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID_URI = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"

_FIXED = 12
_ONE_BYTE_PROFILE = 0xBEDE
_TWO_BYTE_PROFILE = 0x1000
_STAP_A, _FU_A = 24, 28
_IDR, _SPS = 5, 7


def is_rtp(data: bytes) -> bool:
    """True where the fixed header, the contributing sources and the extension block all fit into `data`."""
    if len(data) < _FIXED or data[0] >> 6 != 2:
        return False
    offset = _FIXED + 4 * (data[0] & 0x0F)
    if not data[0] & 0x10:
        return offset <= len(data)
    return offset + 4 <= len(data) and payload_offset(data) <= len(data)


def payload_offset(data: bytes) -> int:
    """Where the payload of a packet that passed `is_rtp` begins."""
    offset = _FIXED + 4 * (data[0] & 0x0F)
    if data[0] & 0x10:
        offset += 4 + 4 * int.from_bytes(data[offset + 2 : offset + 4], "big")
    return offset


def ssrc_of(data: bytes) -> int:
    return int.from_bytes(data[8:12], "big")


def sequence_of(data: bytes) -> int:
    return int.from_bytes(data[2:4], "big")


def timestamp_of(data: bytes) -> int:
    return int.from_bytes(data[4:8], "big")


def payload_type_of(data: bytes) -> int:
    return data[1] & 0x7F


def marker_of(data: bytes) -> bool:
    return bool(data[1] & 0x80)


def is_padding(data: bytes) -> bool:
    """True where a packet that passed `is_rtp` carries nothing: senders probe the connection with such ones."""
    size = len(data) - payload_offset(data)
    return size == 0 or bool(data[0] & 0x20 and data[-1] >= size)


def header_extension(data: bytes, wanted: int) -> bytes | None:
    """The value of one header extension.

    Args:
        data: a packet that passed `is_rtp`.
        wanted: the id negotiated for it, 1-255; 0 means that it was not negotiated.

    Returns:
        Its bytes, or None where the packet does not carry it (or carries a damaged block).
    """
    if not wanted or not data[0] & 0x10:
        return None
    position = _FIXED + 4 * (data[0] & 0x0F)
    one_byte = int.from_bytes(data[position : position + 2], "big") == _ONE_BYTE_PROFILE
    end = payload_offset(data)
    position += 4
    while position < end:
        head = data[position]
        if head == 0:  # padding
            position += 1
            continue
        if one_byte:
            found, length = head >> 4, (head & 0x0F) + 1
            if found == 15:  # reserved: everything after it is to be ignored
                return None
            position += 1
        else:
            if position + 1 >= end:
                return None
            found, length = head, data[position + 1]
            position += 2
        if found == wanted:
            return bytes(data[position : position + length]) if position + length <= end else None
        position += length
    return None


def audio_level(data: bytes, extension: int) -> int | None:
    """Loudness of an audio packet in dB below full scale, 0 (loudest) to 127 (silence), or None (RFC 6464)."""
    value = header_extension(data, extension)
    return value[0] & 0x7F if value else None


def starts_key_frame(codec: str, data: bytes) -> bool:
    """Does this packet begin a key frame?

    Args:
        codec: the codec's name; one of the four that are relayed.
        data: a packet that passed `is_rtp`.
    """
    payload = data[payload_offset(data) :]
    try:
        return _KEY_FRAMES.get(codec.upper(), _h264_key)(payload)
    except IndexError:
        return False


def _av1_key(payload: bytes) -> bool:
    """AV1's aggregation header: a new coded video sequence begins here, and not in the middle of a unit."""
    return bool(payload[0] & 0x08) and not payload[0] & 0x80


def _h264_key(payload: bytes) -> bool:
    """RFC 6184: a parameter set or an IDR slice, alone, aggregated or as the first fragment."""
    kind = payload[0] & 0x1F
    if kind == _STAP_A:
        position = 1
        while position + 2 < len(payload):
            if payload[position + 2] & 0x1F in (_IDR, _SPS):
                return True
            position += 2 + int.from_bytes(payload[position : position + 2], "big")
        return False
    if kind == _FU_A:
        return bool(payload[1] & 0x80) and payload[1] & 0x1F in (_IDR, _SPS)
    return kind in (_IDR, _SPS)


_KEY_FRAMES = {"VP8": vp8.starts_key_frame, "VP9": vp9.starts_key_frame, "AV1": _av1_key}


def without_extensions(data: bytes) -> bytes:
    """The packet without its header extensions: their ids mean something else, or nothing, on another connection.

    A MID that is forwarded would even put the packet into the wrong section of the receiver (LiveKit facts, 41).
    """
    if not data[0] & 0x10:
        return bytes(data)
    sources_end = _FIXED + 4 * (data[0] & 0x0F)
    return bytes((data[0] & 0xEF,)) + data[1:sources_end] + data[payload_offset(data) :]


def with_payload_type(data: bytes, payload_type: int) -> bytes:
    """The packet under another payload type, its marker bit kept."""
    if data[1] & 0x7F == payload_type:
        return data
    return data[:1] + bytes((data[1] & 0x80 | payload_type,)) + data[2:]


def rewritten(
    data: bytes,
    payload: bytes,
    *,
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    marker: bool = False,
) -> bytes:
    """`payload` under a header of our own, without sources and extensions; padding as in `data`.

    The marker bit is set where `data` has it, or `marker` says so.
    """
    head = struct.pack(
        "!BBHII",
        0x80 | (data[0] & 0x20),
        data[1] & 0x80 | marker << 7 | payload_type,
        sequence & 0xFFFF,
        timestamp & 0xFFFFFFFF,
        ssrc,
    )
    return head + payload


def padding(data: bytes) -> bytes:
    """A packet of nothing but one byte of padding, under the same header: it fills a place in the numbering."""
    head = data[: payload_offset(data)]
    return bytes((head[0] | 0x20, head[1] & 0x7F)) + head[2:] + b"\x01"


def with_extension(data: bytes, number: int, value: bytes) -> bytes:
    """The packet with one header extension.

    Args:
        data: a packet that has none, as `rewritten` makes it.
        number: the extension's id, 1-255.
        value: at most 255 bytes; beyond 16, or with an id beyond 14, it gets a two-byte header (RFC 8285, 4.3).
    """
    short = number < 15 and 0 < len(value) <= 16
    profile = _ONE_BYTE_PROFILE if short else _TWO_BYTE_PROFILE
    block = bytes((number << 4 | len(value) - 1,) if short else (number, len(value))) + value
    block += bytes(-len(block) % 4)
    start = payload_offset(data)
    return (
        bytes((data[0] | 0x10,)) + data[1:start] + struct.pack("!HH", profile, len(block) // 4) + block + data[start:]
    )
