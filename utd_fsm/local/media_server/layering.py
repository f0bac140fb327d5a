"""Spatial layers inside a single stream (SVC): to which one a packet belongs. VP9 and AV1 have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from . import dependency, rtp, vp9


@dataclass(frozen=True, slots=True)
class Part:
    """What a packet is of its picture.

    Attributes:
        spatial: its layer, 0 for the lowest.
        ends_frame: it is the last packet of that layer's frame.
        starts_key: it is the first packet of a picture that needs no other: all layers may be had from here on.
        descriptor: its dependency descriptor, for a receiver that knows it; None where it has none.
    """

    spatial: int
    ends_frame: bool
    starts_key: bool
    descriptor: bytes | None = None


class Layering(Protocol):
    """Reads one track's packets in the order of their arrival."""

    def read(self, data: bytes) -> Part | None:
        """What this packet is, its header extensions still on; None where that can't be said."""


class Vp9Layering:
    """Out of the payload descriptor."""

    def read(self, data: bytes) -> Part | None:
        found = vp9.parse(data[rtp.payload_offset(data) :])
        return Part(found.spatial, found.ends_frame, found.starts_key_picture) if found is not None else None


class DependencyLayering:
    """Out of the dependency descriptor; a packet without one belongs to the only layer.

    Args:
        codec: the codec's name.
        extension: the id negotiated for the descriptor; 0 where it was not.
    """

    def __init__(self, codec: str, extension: int) -> None:
        self._codec = codec
        self._extension = extension
        self._structure: dependency.Structure | None = None

    def read(self, data: bytes) -> Part | None:
        value = rtp.header_extension(data, self._extension)
        if value is None:
            return Part(0, rtp.marker_of(data), rtp.starts_key_frame(self._codec, data))
        found = dependency.parse(value)
        if found is None:
            return None
        if found.structure is not None:
            self._structure = found.structure
        spatial = self._structure.layer(found.template) if self._structure is not None else None
        if spatial is None:
            return None
        starts_key = found.structure is not None and found.starts_frame and spatial == 0
        return Part(spatial, found.ends_frame, starts_key, value)


def make_layering(codec: str, extension: int) -> Layering | None:
    """What reads the layers of a stream of that codec; None where it can have none.

    Args:
        codec: its name.
        extension: the id of the dependency descriptor, 0 where it was not negotiated.
    """
    name = codec.upper()
    if name == "VP9":
        return Vp9Layering()
    return DependencyLayering(name, extension) if name == "AV1" else None
