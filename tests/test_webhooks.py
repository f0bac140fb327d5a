"""Webhooks: what is signed is read, everything else is refused, and receivers run inside the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utd_fsm import signals, webhooks
from utd_fsm.errors import UTDInputError, UTDPermissionError, UTDProtocolError
from utd_fsm.models import UTDWebhook

SECRET = "callback-secret"
CALL = {"call_id": "call_" + "0" * 24, "caller_identity": "alice", "callee_identity": "bob", "type": "audio_call"}
BODY = json.dumps({"event": "call_initiated", "call": CALL, "news": 1}).encode()


def headers(body: bytes = BODY, *, family: str = "Stream", secret: str = SECRET, **other: str) -> dict[str, str]:
    return {
        f"X-UTD-{family}-Event": "call_initiated",
        f"X-UTD-{family}-Signature": webhooks.sign(body, secret),
        f"X-UTD-{family}-Attempt": "2",
        **other,
    }


class Spelled(Mapping[str, str]):
    """A mapping such as a web framework's, which is no dict."""

    def __init__(self, content: dict[str, str]) -> None:
        self.content = content

    def __getitem__(self, key: str) -> str:
        return self.content[key]

    def __iter__(self) -> Any:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


@pytest.mark.parametrize("family", ["Stream", "Voice"])
@pytest.mark.parametrize(
    "spelling",
    [
        lambda h: h,
        lambda h: {name.lower(): value for name, value in h.items()},
        lambda h: {name.upper(): value for name, value in h.items()},
        lambda h: (
            {"HTTP_" + name.upper().replace("-", "_"): value for name, value in h.items()} | {"wsgi.input": object()}
        ),
        lambda h: Spelled(h),
        lambda h: list(h.items()),
        lambda h: [(name.lower().encode(), value.encode()) for name, value in h.items()],
    ],
)
def test_both_families_in_every_spelling(family: str, spelling: Any) -> None:
    webhook = webhooks.parse(BODY, spelling(headers(family=family)), SECRET)
    assert webhook == UTDWebhook("call_initiated", 2, call=CALL, raw=json.loads(BODY))


def test_a_secret_may_be_bytes_and_an_attempt_may_be_missing() -> None:
    given_headers = headers()
    del given_headers["X-UTD-Stream-Attempt"], given_headers["X-UTD-Stream-Event"]
    webhook = webhooks.parse(BODY, given_headers, SECRET.encode())
    assert (webhook.event, webhook.attempt) == ("call_initiated", 1)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "0" * 64,
        webhooks.sign(BODY, "other"),
        webhooks.sign(BODY + b" ", SECRET),
        "ä\udc80",
    ],
)
def test_a_wrong_signature_is_refused(signature: str) -> None:
    with pytest.raises(UTDPermissionError) as caught:
        webhooks.parse(BODY, headers() | {"X-UTD-Stream-Signature": signature}, SECRET)
    assert SECRET not in str(caught.value)
    assert caught.value.is_forbidden


def test_a_missing_signature_is_refused() -> None:
    with pytest.raises(UTDPermissionError):
        webhooks.parse(BODY, {}, SECRET)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_one_changed_byte_is_refused(index: int, change: int) -> None:
    body = bytearray(BODY)
    body[index] ^= change
    with pytest.raises(UTDPermissionError):
        webhooks.parse(bytes(body), headers(), SECRET)


@pytest.mark.parametrize("attempt", ["0", "7", "-1", "1.5", "x", "٣", "1" * 50])
def test_attempts_are_one_to_six(attempt: str) -> None:
    with pytest.raises(UTDProtocolError) as caught:
        webhooks.parse(BODY, headers() | {"X-UTD-Stream-Attempt": attempt}, SECRET)
    assert caught.value.field == "X-UTD-Stream-Attempt"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"<", "body"),
        (b"\xff", "body"),
        (b"[" * 100_000, "body"),
        (b"[]", "body"),
        (b"{}", "event"),
        (b'{"event": 7}', "event"),
        (b'{"event": "room_started"}', "event"),  # the header, which nobody signed, says something else
        (b'{"event": "call_initiated", "call": []}', "call"),
    ],
)
def test_signed_and_malformed(body: bytes, field: str) -> None:
    with pytest.raises(UTDProtocolError) as caught:
        webhooks.parse(body, headers(body), SECRET)
    assert (caught.value.route, caught.value.field) == ("webhook", field)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.dictionaries(st.text(max_size=5), x)))
def test_whatever_is_signed(content: Any) -> None:
    body = json.dumps({"event": "call_initiated", "room": content, "call": content}).encode()
    try:
        assert webhooks.parse(body, headers(body), SECRET).event == "call_initiated"
    except UTDProtocolError as error:
        assert error.route == "webhook"


@pytest.mark.parametrize(
    ("body", "given_headers", "secret"),
    [
        (BODY, headers(), ""),
        (BODY, headers(), b""),
        (BODY, headers(), None),
        (BODY.decode(), headers(), SECRET),
        (None, headers(), SECRET),
        (json.loads(BODY), headers(), SECRET),
        (BODY, None, SECRET),
        (BODY, ["x"], SECRET),
        (b" " * (webhooks.MAX_BODY + 1), headers(), SECRET),
    ],
)
def test_bad_arguments(body: Any, given_headers: Any, secret: Any) -> None:
    with pytest.raises(UTDInputError):
        webhooks.parse(body, given_headers, secret)


def test_receivers_run_inside_the_request_and_their_errors_come_out() -> None:
    heard: list[tuple[str, UTDWebhook, threading.Thread]] = []

    def receiver(sender: str, *, webhook: UTDWebhook, **extra: Any) -> None:
        heard.append((sender, webhook, threading.current_thread()))
        if webhook.attempt == 2:
            raise RuntimeError("the database is away")

    with signals.webhook_received.connected_to(receiver, sender="call_initiated"):
        with pytest.raises(RuntimeError, match="database"):
            webhooks.deliver(BODY, headers(), SECRET)
        again = webhooks.deliver(BODY, headers() | {"X-UTD-Stream-Attempt": "3"}, SECRET)
        with pytest.raises(UTDPermissionError):
            webhooks.deliver(BODY, {}, SECRET)
    assert again.attempt == 3
    assert [(sender, thread) for sender, _, thread in heard] == [("call_initiated", threading.current_thread())] * 2
