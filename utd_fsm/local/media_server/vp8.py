"""VP8's payload descriptor (RFC 7741, 4.2): where a key frame begins, and numbers that stay continuous over layers.

A receiver orders frames by the picture id and the temporal base index in the descriptor, not by time. The layers of one
camera may count alike, so a key frame of another layer can carry a number that the receiver has just seen: it then
drops it as a repetition and decodes what follows against the wrong picture. `Numbering` gives the frames numbers of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the descriptor at the start of a payload says.

    Attributes:
        starts_frame: this is a frame's first packet.
        length: its bytes; the frame's own bytes follow.
        picture: the picture id, or None.
        picture_at: where it is; meaningless where there is none.
        picture_bits: 7 or 15.
        base: the temporal base index, or None.
        base_at: where it is.
    """

    starts_frame: bool
    length: int
    picture: int | None = None
    picture_at: int = 0
    picture_bits: int = 7
    base: int | None = None
    base_at: int = 0


def parse(payload: bytes) -> Descriptor | None:
    """Reads the descriptor; None where the payload ends inside it."""
    try:
        first = payload[0]
        starts = bool(first & 0x10) and not first & 0x07
        if not first & 0x80:
            return Descriptor(starts, 1)
        flags, at = payload[1], 2
        picture = base = None
        picture_at = base_at = 0
        bits = 7
        if flags & 0x80:
            picture_at, picture = at, payload[at] & 0x7F
            at += 1
            if payload[picture_at] & 0x80:
                picture, bits = picture << 8 | payload[at], 15
                at += 1
        if flags & 0x40:
            base_at, base = at, payload[at]
            at += 1
        if flags & 0x30:
            at += 1
        return Descriptor(starts, at, picture, picture_at, bits, base, base_at)
    except IndexError:
        return None


def starts_key_frame(payload: bytes) -> bool:
    """Does this payload begin a key frame? Its first byte behind the descriptor says so (RFC 7741, 4.3)."""
    found = parse(payload)
    return found is not None and found.starts_frame and found.length < len(payload) and not payload[found.length] & 1


class Numbering:
    """Picture ids and base indices of one outgoing stream, without a jump where its layer changes."""

    def __init__(self) -> None:
        self._picture: int | None = None
        self._base: int | None = None
        self._picture_offset = self._base_offset = 0

    def switch(self, payload: bytes) -> None:
        """The next packets come from another layer, of which this is the first payload."""
        found = parse(payload)
        if found is None:
            return
        if found.picture is not None and self._picture is not None:
            self._picture_offset = self._picture + 1 - found.picture
        if found.base is not None and self._base is not None:
            self._base_offset = self._base + 1 - found.base

    def apply(self, payload: bytes, *, newest: bool) -> bytes:
        """The payload under our numbers, of the same length.

        Args:
            payload: as it came in.
            newest: it is no straggler, so the numbering goes on from it.
        """
        found = parse(payload)
        if found is None or (found.picture is None and found.base is None):
            return payload
        changed = bytearray(payload)
        if found.picture is not None:
            number = (found.picture + self._picture_offset) & ((1 << found.picture_bits) - 1)
            if found.picture_bits == 15:
                changed[found.picture_at] = 0x80 | number >> 8
                changed[found.picture_at + 1] = number & 0xFF
            else:
                changed[found.picture_at] = number
            self._picture = number if newest else self._picture
        if found.base is not None:
            number = (found.base + self._base_offset) & 0xFF
            changed[found.base_at] = number
            self._base = number if newest else self._base
        return bytes(changed)
