"""Every argument check: what it takes, what it refuses, and that the refusal says what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm import validation as v
from utd_fsm.errors import UTDInputError
from utd_fsm.models import UTDCall, UTDCallStatus, UTDRole, UTDSeatMode, UTDStreamType, UTDWebhook
from utd_fsm.room_models import UTDInvitation, UTDSpeakerRequest
from utd_fsm.wire import read_call

from .engine_answers import CALL_ID, record

LOOP: list[Any] = []
LOOP.append(LOOP)

ACCEPTED: list[tuple[Callable[..., Any], Any, Any]] = [
    (v.identity, "alice", "alice"),
    (v.identity, "Zoë 👩‍🚀/ä b", "Zoë 👩‍🚀/ä b"),
    (v.identity, "x" * 255, "x" * 255),
    (v.room_name, "lobby #1", "lobby #1"),
    (v.optional_name, None, None),
    (v.optional_name, "", None),
    (v.optional_name, "Alice", "Alice"),
    (v.metadata, None, {}),
    (v.metadata, {"order": 17, "a": [1, {"b": None}]}, {"order": 17, "a": [1, {"b": None}]}),
    (v.timeout, None, None),
    (v.timeout, 0, 0.0),
    (v.timeout, 2.5, 2.5),
    (v.timeout, np.float32(1.5), 1.5),
    *((v.timeout, endless, None) for endless in (math.inf, 1e10, 10**400)),
    (v.seconds, 0.1, 0.1),
    (v.boolean, True, True),
    (v.stream_type, "voice", UTDStreamType.AUDIO_CALL),
    (v.stream_type, "live_stream", UTDStreamType.LIVE_STREAM),
    (v.stream_type, UTDStreamType.VIDEO_CALL, UTDStreamType.VIDEO_CALL),
    (v.call_type, "video", UTDStreamType.VIDEO_CALL),
    (v.data, b"", b""),
    (v.data, bytearray(b"ab"), b"ab"),
    (v.data, memoryview(b"abc"), b"abc"),
    (v.data, b"x" * v.MAX_DATA, b"x" * v.MAX_DATA),
    (v.to, None, ()),
    (v.to, [], ()),
    (v.to, ["bob", "carol", "bob"], ("bob", "carol")),
    (v.to, (name for name in ("bob",)), ("bob",)),
    (v.call_id, CALL_ID, CALL_ID),
    (v.call_id, read_call(record(), "test"), CALL_ID),
    (v.call_id, UTDWebhook("call_initiated", 1, call={"call_id": CALL_ID}), CALL_ID),
    (v.role, "admin", UTDRole.ADMIN),
    (v.role, UTDRole.HOST, UTDRole.HOST),
    (v.seat_mode, "request", UTDSeatMode.REQUEST),
    (v.seat_index, 0, 0),
    (v.seat_index, np.int64(99), 99),
    (v.seat_count, 1, 1),
    (v.seat_count, 100, 100),
    (v.mode_id, None, None),
    (v.mode_id, 0, 0),
    (v.mode_id, "party", "party"),
    (v.request_id, 1, 1),
    (v.request_id, UTDSpeakerRequest(4, "bob"), 4),
    (v.invitation_id, 2**53 - 1, 2**53 - 1),
    (v.invitation_id, UTDInvitation(5, "bob"), 5),
    (v.reason, None, None),
    (v.reason, "", None),
    (v.reason, "x" * 500, "x" * 500),
    (v.ban_duration, None, None),
    (v.ban_duration, 1, 1),
    (v.ban_duration, 59.1, 60),
    (v.ban_duration, v.MAX_BAN, v.MAX_BAN),
    (v.app_id, "1234567890", "1234567890"),
    (v.app_key, "A1" * 16, "A1" * 16),
    (v.app_key, "pk_live_abcdefgh", "pk_live_abcdefgh"),
    (v.idempotency_key, "task-1:2", "task-1:2"),
    (v.device_id, "phone", "phone"),
    (v.base_url, "https://engine.udt-stream.com/", "https://engine.udt-stream.com"),
    (v.base_url, "http://127.0.0.1:8090", "http://127.0.0.1:8090"),
    (v.base_url, "http://127.3.2.1:8090", "http://127.3.2.1:8090"),
    (v.base_url, "http://localhost", "http://localhost"),
    (v.base_url, "http://[::1]:8090", "http://[::1]:8090"),
    (v.socket_url, "wss://engine.example.com/socket?v=1", "wss://engine.example.com/socket?v=1"),
    (v.socket_url, "ws://[::1]:1/socket", "ws://[::1]:1/socket"),
]


NO_NAMES = (
    "", " ", "a ", "\ta", "a\nb", "a\0", "a\x7f", "a\x9b", "a\u2028b", "\ud800", ".", "..", "x" * 256, None, 7, b"a",
)  # fmt: skip


def many(check: Callable[..., Any], *values: Any) -> list[tuple[Callable[..., Any], Any]]:
    return [(check, value) for value in values]


REFUSED: list[tuple[Callable[..., Any], Any]] = [
    *many(v.identity, *NO_NAMES),
    *many(v.room_name, *NO_NAMES),
    *many(v.optional_name, " ", "a\r", "x" * 256, 3, b""),
    (v.metadata, "{}"),
    (v.metadata, [1]),
    (v.metadata, {1: 2}),
    (v.metadata, {"a": {1: 2}}),
    (v.metadata, {"a": math.nan}),
    (v.metadata, {"a": {1, 2}}),
    (v.metadata, {"a": LOOP}),
    (v.metadata, {"a": b"a"}),
    (v.metadata, {"a": "\ud800"}),
    (v.metadata, {"a": "x" * v.MAX_METADATA}),
    *many(v.timeout, -1, -0.001, math.nan, -math.inf, "3", True, []),
    *many(v.seconds, 0, -1, "1", math.nan),
    *many(v.boolean, 1, 0, "yes", None),
    *many(v.stream_type, "", "AUDIO_CALL", "chat", None, 3),
    *many(v.call_type, "live_stream", UTDStreamType.AUDIO_ROOM, None),
    *many(v.data, "text", None, [1], 3),
    *many(v.data, b"x" * (v.MAX_DATA + 1), memoryview(b"x" * 70000)),
    *many(v.to, "bob", b"bob", {"bob": 1}, 3),
    (v.to, ["bob", ""]),
    (v.to, [None]),
    (v.to, ["a\nb"]),
    (v.to, ["x"] * 1001),
    *many(v.call_id, "", "call_", "x", CALL_ID + "0", CALL_ID.upper(), CALL_ID + "\n", "../calls", None, 3, b"x"),
    (v.call_id, UTDWebhook("user_online", 1)),
    (v.call_id, UTDWebhook("call_ended", 1, call={"call_id": 7})),
    *many(v.role, "", "owner", "ADMIN", None, 3),
    *many(v.seat_mode, "", "both", None, True),
    *many(v.seat_index, -1, 100, True, 1.0, "1", None, 10**400),
    *many(v.seat_count, 0, 101, True, None),
    *many(v.mode_id, "", " ", "x" * 101, "a\nb", -1, True, 1.5, b"a", [1], 2**53),
    *many(v.request_id, 0, -1, True, "4", None, 1.0, 2**53, UTDInvitation(5, "bob"), UTDSpeakerRequest(0, "bob")),
    *many(v.invitation_id, 0, True, "5", None, UTDSpeakerRequest(4, "bob")),
    *many(v.reason, " ", "a\n", "x" * 501, 3, b""),
    *many(v.ban_duration, 0, 0.5, -1, math.nan, math.inf, "60", True, v.MAX_BAN + 1, 10**400),
    *many(v.app_id, "", "123", "12345678901", "123456789x", "\uff11" * 10, 1234567890, None),
    *many(v.app_key, "", "short", "g" * 32, "pk_live_", "pk_live_abc def gh", None, 5),
    *many(v.idempotency_key, "", "a b", "a\n", "ä", "x" * 201, None),
    *many(v.device_id, "", "x" * 101, None),
    *many(
        v.base_url,
        "", "engine.example.com", "//engine", "ftp://x", "http://engine.example.com", "http://10.0.0.1",
        "http://127.0.0.1.evil.com", "http://localhost.evil.com", "http://0.0.0.0", "http://[::2]",
        "https://user:secret@x", "https://@x", "https://x/api/v1", "https://x?a=1", "https://x#a", "https://x/?",
        "https://x:0", "https://x:99999", "https://x:port", "https://", "https://x y", " https://x", "https://x\n",
        "https://x\\@y", "HTTPS", None, 3, b"https://x", "https://[::1",
    ),
    *many(v.socket_url, "", None, "https://x", "ws://x/", "wss://u:p@x", "wss://x/#a", "ws://1.2.3.4"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "value", "expected"), ACCEPTED)
def test_accepts(check: Callable[..., Any], value: Any, expected: Any) -> None:
    assert check(value) == expected


@pytest.mark.parametrize(("check", "value"), REFUSED)
def test_refuses_and_says_what_is_allowed(check: Callable[..., Any], value: Any) -> None:
    with pytest.raises(UTDInputError, match="allowed: ") as caught:
        check(value)
    assert caught.value.message.isprintable()


@given(st.text())
def test_an_identity_is_refused_or_kept_as_it_is(text: str) -> None:
    try:
        assert v.identity(text) == text
    except UTDInputError:
        return
    assert 0 < len(text) <= 255
    assert text == text.strip()
    text.encode()


@given(st.text() | st.from_regex(r"https?://[^\s]{0,20}"))
def test_a_url_is_refused_or_safe(text: str) -> None:
    try:
        url = v.base_url(text)
    except UTDInputError:
        return
    assert url.startswith("https://") or v.is_loopback(url.split("://")[1].rsplit(":", 1)[0].strip("[]"))


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
def test_no_check_raises_anything_else(value: Any) -> None:
    for check in {check for check, *_ in ACCEPTED}:
        try:
            check(value)
        except UTDInputError:
            pass


def test_the_key_and_a_url_are_not_repeated_in_the_error() -> None:
    for check, value in (
        (v.app_key, "secret-key"),
        (v.base_url, "https://user:hunter2@x"),
        (v.socket_url, "ws://x?t=abc"),
    ):
        with pytest.raises(UTDInputError) as caught:
            check(value)
        assert value not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_metadata_is_a_copy_that_nobody_changes() -> None:
    mine = {"a": [1]}
    kept = v.metadata(mine)
    mine["a"].append(2)
    assert kept == {"a": [1]}
    with pytest.raises(TypeError):
        kept["a"] = 3  # type: ignore[index]


def test_ranges() -> None:
    assert v.integer(np.int64(3), "index", least=0, most=99) == 3
    assert v.optional_integer(None, "seat_count", least=1, most=100) is None
    assert v.number(0.2, "duck", least=0, most=1) == 0.2
    for wrong in (-1, 100, True, 1.0, "1", None):
        with pytest.raises(UTDInputError, match="a whole number from 0 to 99"):
            v.integer(wrong, "index", least=0, most=99)
    for wrong in (-0.1, 1.1, math.nan, math.inf, True, "1", None, 10**400):
        with pytest.raises(UTDInputError, match="a number from 0 to 1"):
            v.number(wrong, "duck", least=0, most=1)


def test_an_optional_value_is_none_or_checked() -> None:
    assert v.optional(v.seat_index, None, "seat_index") is None
    assert v.optional(v.seat_index, 3, "seat_index") == 3
    with pytest.raises(UTDInputError, match=r"^seat_index: 100; allowed: a whole number from 0 to 99"):
        v.optional(v.seat_index, 100, "seat_index")


def test_enum_takes_members_and_wire_values() -> None:
    assert v.enum(UTDSeatMode, "request", "seat_mode") is UTDSeatMode.REQUEST
    assert v.enum(UTDCallStatus, UTDCallStatus.BUSY, "status") is UTDCallStatus.BUSY
    with pytest.raises(UTDInputError, match="seat_mode: 'both'; allowed: 'free', 'request'"):
        v.enum(UTDSeatMode, "both", "seat_mode")


def test_what_is_named_in_the_message_is_what_the_caller_called_it() -> None:
    with pytest.raises(UTDInputError, match=r"^callee: "):
        v.identity("", "callee")
    with pytest.raises(UTDInputError, match=r"^to\[1\]: empty"):
        v.to(["bob", ""])


def test_a_call_is_as_good_as_its_id() -> None:
    call = read_call(record(), "test")
    assert isinstance(call, UTDCall)
    assert v.call_id(call) == call.call_id
