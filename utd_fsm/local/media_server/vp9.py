"""VP9's payload descriptor (RFC 9628, 4.2): which spatial layer a packet belongs to, and where a key picture begins.

Pure functions. What the descriptor says is never encrypted, so this holds for end-to-end encrypted tracks, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the descriptor at the start of a payload says.

    Attributes:
        starts_frame: this is the first packet of its layer's frame.
        ends_frame: this is the last one.
        predicted: the frame needs earlier pictures.
        spatial: its spatial layer, 0-7; 0 where the stream has no layers.
    """

    starts_frame: bool
    ends_frame: bool
    predicted: bool
    spatial: int = 0

    @property
    def starts_key_picture(self) -> bool:
        """The lowest layer of a picture that needs no other begins here."""
        return self.starts_frame and not self.predicted and self.spatial == 0


def parse(payload: bytes) -> Descriptor | None:
    """Reads the descriptor; None where the payload ends inside it."""
    try:
        first, at = payload[0], 1
        if first & 0x80:  # a picture id, of 7 or 15 bits
            at += 2 if payload[at] & 0x80 else 1
        spatial = payload[at] >> 1 & 0x07 if first & 0x20 else 0
    except IndexError:
        return None
    return Descriptor(bool(first & 0x08), bool(first & 0x04), bool(first & 0x40), spatial)


def starts_key_frame(payload: bytes) -> bool:
    """Does this payload begin a key picture?"""
    found = parse(payload)
    return found is not None and found.starts_key_picture
