"""VP8's payload descriptor in its forms, and numbers over it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm.local.media_server import vp8


@pytest.mark.parametrize(
    ("payload", "starts", "length", "picture", "base"),
    [
        (bytes([0x10, 0]), True, 1, None, None),
        (bytes([0x00, 0]), False, 1, None, None),
        (bytes([0x11, 0]), False, 1, None, None),
        (bytes([0x90, 0x80, 0x05, 0]), True, 3, 5, None),
        (bytes([0x90, 0x80, 0x81, 0x05, 0]), True, 4, 0x105, None),
        (bytes([0x90, 0xE0, 0x81, 0x05, 0x77, 0xB0, 0]), True, 6, 0x105, 0x77),
        (bytes([0x80, 0x40, 0x77, 0]), False, 3, None, 0x77),
        (bytes([0x90, 0x10, 0x77, 0]), True, 3, None, None),
    ],
)
def test_forms_of_the_descriptor(
    payload: bytes, starts: bool, length: int, picture: int | None, base: int | None
) -> None:
    found = vp8.parse(payload)
    assert found is not None
    assert (found.starts_frame, found.length, found.picture, found.base) == (starts, length, picture, base)


@pytest.mark.parametrize("payload", [b"", b"\x90", b"\x90\x80", b"\x90\x80\x81", b"\x90\xc0\x01"])
def test_a_payload_that_ends_too_early(payload: bytes) -> None:
    assert vp8.parse(payload) is None
    assert not vp8.starts_key_frame(payload)
    assert vp8.Numbering().apply(payload, newest=True) == payload


def test_a_switch_goes_on_where_the_other_layer_was() -> None:
    numbering = vp8.Numbering()
    first = bytes([0x90, 0xC0, 0xFF, 0xFF, 0xFF, 0])
    assert numbering.apply(first, newest=True) == first
    key = bytes([0x90, 0xC0, 0x05, 0x40, 0])  # seven bits, another index
    numbering.switch(key)
    found = vp8.parse(numbering.apply(key, newest=True))
    assert found is not None
    assert (found.picture, found.base) == (0, 0)


def test_a_straggler_does_not_set_the_numbers_back() -> None:
    numbering = vp8.Numbering()
    for picture, newest in ((10, True), (9, False)):
        numbering.apply(bytes([0x90, 0x80, picture, 0]), newest=newest)
    key = bytes([0x90, 0x80, 10, 0])
    numbering.switch(key)
    assert numbering.apply(key, newest=True)[2] == 11


@given(st.lists(st.tuples(st.binary(max_size=12), st.booleans()), max_size=20))
def test_no_payload_at_all_makes_it_raise_or_change_its_length(payloads: list[tuple[bytes, bool]]) -> None:
    numbering = vp8.Numbering()
    for payload, switch in payloads:
        if switch:
            numbering.switch(payload)
        assert len(numbering.apply(payload, newest=True)) == len(payload)
        vp8.starts_key_frame(payload)
