"""Spatial layers of VP9 and AV1: real packets of libwebrtc, damaged ones, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.local.media_server.test_rtp import packet
from utd_fsm.local.media_server import dependency, layering, rtp, vp9
from utd_fsm.local.media_server.layering import Part

KEY_DESCRIPTOR = bytes.fromhex(
    "c0000180081485214eaaaaa8000600004000100002aa80a8000600004000100002a000a800060000400016d549241b5524906d54923157e0"
    "01974ca864330e222396eca8655304224390eca87753013f00b3027f016704ff02cf"
)
"""Of an AV1 key frame in L3T3_KEY, as libwebrtc sends it: fifteen templates, five of each spatial layer."""
EXTENSION = 13


def av1_packet(descriptor: bytes | None, payload: bytes = b"\x10x", **fields: int) -> bytes:
    """A packet with a dependency descriptor under a two-byte header, or without one."""
    if descriptor is None:
        return packet(payload, **fields)  # type: ignore[arg-type]
    extension = bytes([EXTENSION, len(descriptor)]) + descriptor
    return packet(payload, extension=extension, profile=0x1000, **fields)  # type: ignore[arg-type]


# Without a descriptor's letters: I (picture id), P (predicted), L (layers), F (flexible), B and E (begin, end), V.
@pytest.mark.parametrize(
    ("payload", "spatial", "starts", "ends", "key"),
    [
        ("bef42510500140", 0, True, True, True),  # the four of a key picture in flexible mode, as libwebrtc sends them
        ("b8f42513870202", 1, True, False, False),
        ("b5f42515fb2180", 2, False, True, False),
        ("fdf42750028700", 0, True, True, False),  # and of one that is predicted from others
        ("f9f42832048710", 1, True, False, False),
        ("aa051000", 0, True, False, True),  # a picture id of seven bits, base index behind the layers
        ("0c", 0, True, True, True),  # nothing but the first byte: no layers
    ],
)
def test_vp9_descriptors(payload: str, spatial: int, starts: bool, ends: bool, key: bool) -> None:
    found = vp9.parse(bytes.fromhex(payload))
    assert found is not None
    assert (found.spatial, found.starts_frame, found.ends_frame) == (spatial, starts, ends)
    assert found.starts_key_picture is key
    data = packet(bytes.fromhex(payload))
    assert rtp.starts_key_frame("VP9", data) is key
    assert layering.Vp9Layering().read(data) == Part(spatial, ends, key)


@pytest.mark.parametrize("payload", [b"", b"\xbe", b"\xbe\xf4", b"\xbe\xf4\x25", b"\x20"])
def test_a_vp9_payload_that_ends_too_early(payload: bytes) -> None:
    assert vp9.parse(payload) is None
    assert not vp9.starts_key_frame(payload)
    assert layering.Vp9Layering().read(packet(payload)) is None


def test_the_structure_of_a_real_key_frame() -> None:
    found = dependency.parse(KEY_DESCRIPTOR)
    assert found is not None
    assert (found.starts_frame, found.ends_frame, found.template) == (True, True, 0)
    assert found.structure == dependency.Structure(0, (0,) * 5 + (1,) * 5 + (2,) * 5)


def test_templates_are_counted_from_the_structures_offset() -> None:
    structure = dependency.Structure(62, (0, 0, 1))
    assert [structure.layer(template) for template in (62, 63, 0, 1, 61)] == [0, 0, 1, None, None]


@pytest.mark.parametrize("length", range(3, len(KEY_DESCRIPTOR)))
def test_a_shortened_descriptor_never_invents_a_layer(length: int) -> None:
    found = dependency.parse(KEY_DESCRIPTOR[:length])
    assert found is None or found.structure in (None, dependency.Structure(0, (0,) * 5 + (1,) * 5 + (2,) * 5))


def test_a_structure_beyond_its_limits_is_refused() -> None:
    too_many_layers = bytes([0xC0, 0, 1, 0x80, 0x00, 0b1010_1010, 0b1100_0000])
    assert dependency.parse(too_many_layers) is None
    endless = bytes([0xC0, 0, 1, 0x80]) + bytes(60)
    assert dependency.parse(endless) is None


def test_av1_packets_by_their_descriptor() -> None:
    """The three layers of a key picture, then of one of the next temporal layer; the last in two packets."""
    reader = layering.make_layering("av1", EXTENSION)
    assert reader is not None
    told = [KEY_DESCRIPTOR, *map(bytes.fromhex, ("c50002", "ca0003", "c30004", "c80005", "8d0006", "4d0006"))]
    layers, ends = (0, 1, 2, 0, 1, 2, 2), (True, True, True, True, True, False, True)
    assert [reader.read(av1_packet(descriptor)) for descriptor in told] == [
        Part(layer, end, descriptor is KEY_DESCRIPTOR, descriptor)
        for layer, end, descriptor in zip(layers, ends, told, strict=True)
    ]


def test_av1_before_its_structure_or_with_a_damaged_descriptor_cannot_be_placed() -> None:
    reader = layering.DependencyLayering("AV1", EXTENSION)
    assert reader.read(av1_packet(bytes.fromhex("c50002"))) is None
    reader.read(av1_packet(KEY_DESCRIPTOR))
    assert reader.read(av1_packet(bytes.fromhex("ff0002"))) is None  # no such template
    assert reader.read(av1_packet(bytes.fromhex("c000"))) is None
    assert reader.read(av1_packet(KEY_DESCRIPTOR[:5])) is None


def test_av1_without_descriptors_is_one_layer() -> None:
    reader = layering.DependencyLayering("AV1", 0)
    assert reader.read(packet(b"\x28x", marker=True)) == Part(0, True, True)
    assert reader.read(packet(b"\x10x")) == Part(0, False, False)
    assert reader.read(packet(b"\x88x")) == Part(0, False, False)  # a fragment's rest


def test_codecs_with_and_without_layers() -> None:
    assert isinstance(layering.make_layering("vp9", 0), layering.Vp9Layering)
    assert layering.make_layering("VP8", 5) is None
    assert layering.make_layering("H264", 5) is None


@given(st.binary(max_size=80), st.lists(st.binary(max_size=80), max_size=5))
def test_no_bytes_at_all_make_a_reader_raise(payload: bytes, descriptors: list[bytes]) -> None:
    vp9.parse(payload)
    reader = layering.DependencyLayering("AV1", EXTENSION)
    for descriptor in descriptors:
        found = dependency.parse(descriptor)
        assert found is None or 0 <= found.template < 64
        for data in (av1_packet(descriptor, payload), packet(payload, extension=descriptor, profile=0xBEDE)):
            part = reader.read(data)
            assert part is None or 0 <= part.spatial < 4
            layering.Vp9Layering().read(data)


@given(st.binary(min_size=4, max_size=40))
def test_nor_does_any_structure(rest: bytes) -> None:
    found = dependency.parse(bytes([0xC0, 0, 1, 0x80 | rest[0] & 0x7F]) + rest[1:])
    assert found is None or (found.structure is not None and 1 <= len(found.structure.spatial) <= 64)
