"""What looks like a secret is hidden, what does not is left alone, and a second time changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm.scrub import HIDDEN, foreign, scrub

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl_-x"
KEY = "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"


@pytest.mark.parametrize(
    "text",
    [
        f"invalid token: {JWT}",
        f"wss://media.example.com/rtc?access_token={JWT}&auto_subscribe=1",
        "wss://media.example.com/rtc?access_token=opaque-secret&x=1",
        "rtc/v1?join_request=opaque-secret",
        f"Authorization: Bearer {JWT}",
        "authorization: bearer opaque-secret",
        "Bearer opaque-secret, and more",
        "Authorization%3A%20Bearer%20opaque-secret",
        "bearer " + "x" * 20,
        "{'user_token': 'opaque-secret'}",
        '{"token":"opaque-secret"}',
        "app_key=opaque-secret",
        f"X-App-Key: {KEY}",
        f"the key {KEY} is unknown",
        "the key pk_live_0123456789 is unknown",
        JWT[:20],
    ],
)
def test_hides(text: str) -> None:
    clean = scrub(text)
    assert HIDDEN in clean
    assert "xxxx" not in clean
    for secret in (JWT, "opaque-secret", KEY, "0123456789", JWT[:20]):
        assert secret not in clean


@pytest.mark.parametrize(
    "text",
    [
        "the token is malformed",
        "call_0123456789abcdef01234567 ended",
        "could not connect: Connection refused (os error 111)",
        "a secret was refused",
        "the bearer belongs to another identity",
        "the bearer expired.",
        "",
    ],
)
def test_leaves_alone(text: str) -> None:
    assert scrub(text) == text


def test_hides_what_it_is_told_to_hide() -> None:
    assert scrub("it was hunter2 and hunter2", "", "hunter2") == f"it was {HIDDEN} and {HIDDEN}"


@given(
    st.text() | st.lists(st.sampled_from(["token", "=", ":", " ", "Bearer ", "abc", JWT, KEY, "'", '"'])).map("".join)
)
def test_twice_is_once_and_no_token_survives(text: str) -> None:
    clean = scrub(text)
    assert scrub(clean) == clean
    assert JWT not in clean


def test_foreign_texts_are_one_printable_line_of_a_bounded_length() -> None:
    text = foreign(f"first\r\nsecond\x1b[31m {JWT} " + "x" * 1000, 60)
    assert text.isprintable()
    assert len(text) == 60
    assert "first second" in text
