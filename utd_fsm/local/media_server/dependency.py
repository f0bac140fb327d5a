"""The dependency descriptor, a header extension (AV1 RTP specification, appendix A): a packet's layer, unencrypted.

Only as much of it is read as tells the spatial layer. Which frame needs which other is left to the receiver: a relay
that forwards every layer up to some spatial one leaves no frame behind without what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

URI = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

_MANDATORY = 3
_TEMPLATES = 64
_SPATIAL_LAYERS = 4
_SAME, _NEXT_SPATIAL, _NO_MORE = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Structure:
    """The part of a template dependency structure that names layers.

    Attributes:
        offset: the id of its first template, 0-63.
        spatial: the spatial layer of each template, in order.
    """

    offset: int
    spatial: tuple[int, ...]

    def layer(self, template: int) -> int | None:
        """The spatial layer of a frame with that template id; None where the structure has no such template."""
        index = (template - self.offset) % _TEMPLATES
        return self.spatial[index] if index < len(self.spatial) else None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What one packet says of itself.

    Attributes:
        starts_frame: this is the first packet of its layer's frame.
        ends_frame: this is the last one.
        template: the id of the frame's template, to be looked up in the last structure.
        structure: a new one, which comes with each key frame's first packet; None otherwise.
    """

    starts_frame: bool
    ends_frame: bool
    template: int
    structure: Structure | None = None


class _Bits:
    """Reads a number of bits at a time, most significant first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits. Raises IndexError behind the end."""
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)


def parse(value: bytes) -> Descriptor | None:
    """Reads the extension's value; None where it is damaged."""
    if len(value) < _MANDATORY:
        return None
    structure = None
    if len(value) > _MANDATORY:
        bits = _Bits(value[_MANDATORY:])
        try:
            has_structure = bits.take(5) & 0x10
            structure = _structure(bits) if has_structure else None
        except IndexError:
            return None
    return Descriptor(bool(value[0] & 0x80), bool(value[0] & 0x40), value[0] & 0x3F, structure)


def _structure(bits: _Bits) -> Structure:
    """Its head and the layers of its templates. Raises IndexError where it ends too early or exceeds its limits."""
    offset = bits.take(6)
    bits.take(5)  # the number of decode targets
    layers: list[int] = []
    spatial = 0
    step = _SAME
    while step != _NO_MORE:
        layers.append(spatial)
        step = bits.take(2)
        spatial += step == _NEXT_SPATIAL
        if len(layers) > _TEMPLATES or spatial >= _SPATIAL_LAYERS:
            raise IndexError
    return Structure(offset, tuple(layers))
