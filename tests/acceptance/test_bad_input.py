"""behaviour.md, Bad input: every public argument is checked before anything is sent, and every state stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.integration.calling import fresh, ring, signed_in, two
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDCallStatus, UTDInputError, UTDRoom, UTDStreamClient
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
S = UTDCallStatus

IDENTITIES: list[Any] = [None, "", " ", "a\nb", "a\x00", "\u2028", " alice", "x" * 256, ".", "..", b"bob", 7, ["bob"]]
NAMES: list[Any] = [" ", "a\nb", "x" * 256, 7, b"Bob"]
CALL_IDS: list[Any] = [
    None,
    "",
    "call_",
    "call_xyz",
    "call_" + "0" * 23,
    "../calls",
    "call_" + "G" * 24,
    7,
    b"call_",
    {},
]
METADATA: list[Any] = [[], "x", {1: 2}, {"a": math.nan}, {"a": object()}, {"a": "x" * 20_000}]
KEYS: list[Any] = ["", " ", "a b", "x" * 201, "\n", "schlüssel", 7]


def refused(act: Any, *args: Any, **kwargs: Any) -> None:
    """The error says what was wrong and what is allowed."""
    with pytest.raises(UTDInputError) as wrong:
        act(*args, **kwargs)
    assert isinstance(wrong.value, ValueError)
    text = str(wrong.value)
    assert any(word in text for word in ("allowed", "give", "use", "leave", "pass")), text


@pytest.mark.parametrize(
    "arguments",
    [
        *((bad, "a" * 32, {}) for bad in (None, "", "123", "12345678901", "abcdefghij", 1234567890)),
        *(("1234567890", bad, {}) for bad in (None, "", "a" * 31, "g" * 32, 7)),
        *(
            ("1234567890", "a" * 32, {"base_url": bad})
            for bad in ("", "x", "ftp://a", "http://example.com", "https://u:p@a", "https://a/path", "https://a?b", 7)
        ),
        ("1234567890", "a" * 32, {"token_base_url": "http://example.com"}),
    ],
    ids=repr,
)
def test_a_client(arguments: tuple[Any, Any, dict[str, Any]]) -> None:
    app_id, app_key, others = arguments
    refused(UTDStreamClient, app_id, app_key, **others)


def test_signing_in_and_asking(engine: LocalEngine, way: Way) -> None:
    there = way()
    with UTDStreamClient(engine.app_id, engine.app_key, base_url=there.url) as client:
        for bad in IDENTITIES:
            refused(client.authenticate, bad)
        for bad in NAMES:
            refused(client.authenticate, "alice", name=bad)
        for bad in ("", " ", "x" * 101, 7):
            refused(client.authenticate, "alice", device_id=bad)
        for bad in ("yes", 1, None):
            refused(client.authenticate, "alice", receive_calls=bad)
        assert client.identity is None
        assert there.state.seen == []
        client.authenticate(fresh("alice"))
        for bad in CALL_IDS:
            refused(client.get_call, bad)
            refused(client.end_call, bad)
        flying: list[Any] = ["", "flying", 7, []]
        counts: list[Any] = [0, -1, 1.5, "1", None, True]
        times: list[Any] = ["yesterday", 7, []]
        wrong: list[dict[str, Any]] = [
            *({"status": bad} for bad in flying),
            *({"type": bad} for bad in ("", "fax", "live_stream", 7)),
            *({"identity": bad} for bad in IDENTITIES if bad is not None),
            *({name: bad} for name in ("page", "per_page") for bad in counts),
            {"per_page": 101},
            *({name: bad} for name in ("start_date", "end_date") for bad in times),
        ]
        for arguments in wrong:
            refused(client.calls, **arguments)
        for arguments in (
            {"type": "live_stream"},
            {"type": None},
            {"type": "audio_call", "microphone": "hello.wav"},
            {"type": "audio_call", "microphone": TestPattern(320, 240, 15)},
            {"type": "audio_call", "camera": TestPattern(320, 240, 15)},
            {"type": "video_call", "camera": Tone(440)},
            {"type": "video_call", "adaptive_stream": "yes"},
            {"type": "video_call", "dynacast": 1},
        ):
            refused(client.call_session, **arguments)
        assert there.paths() == ["/auth/session"]
        assert there.paths("GET") == []
        assert client.sessions == ()


def test_the_verbs_of_a_call_before_there_is_one(engine: LocalEngine, way: Way) -> None:
    there = way()
    with signed_in(engine, fresh("alice"), there) as client, client.call_session("audio_call") as call:
        before = repr(call)
        for bad in [*IDENTITIES, client.identity]:
            refused(call.start, bad)
        for bad in NAMES:
            refused(call.start, "bob", callee_name=bad)
        for bad in METADATA:
            refused(call.start, "bob", metadata=bad)
        for bad in KEYS:
            refused(call.start, "bob", idempotency_key=bad)
        for bad in CALL_IDS:
            for verb in (call.ringing, call.accept, call.reject, call.busy):
                refused(verb, bad)
        assert repr(call) == before
        assert call.call_id.value is call.status.value is None
        assert there.paths() == ["/auth/session"]
        assert there.paths("GET") == []


def test_in_a_call(engine: LocalEngine, way: Way) -> None:
    there = way()
    with two(engine, caller_way=there) as (call, answer, caller, callee):
        answer.accept(ring(call, answer, caller, callee))
        call.wait_for_answer()
        call.remote_participants.wait_for(lambda others: others and others[0].tracks)
        before = call.call, call.connection.value, call.remote_participants.value, len(there.paths())
        c: Any = call
        recipients: list[Any] = ["bob", 7, [""], ["a\nb"], [7], {"bob": 1}]
        texts: list[Any] = ["text", None, 7, ["x"], b"x" * (60 * 1024 + 1)]
        wrong: list[partial[Any]] = [
            *(partial(c.send_data, bad) for bad in texts),
            *(partial(c.send_data, b"x", to=bad) for bad in recipients),
            partial(c.send_data, b"x", reliable="yes"),
            *(partial(c.set_microphone, bad) for bad in ("on", 1, None)),
            *(partial(c.set_microphone, True, source=bad) for bad in ("a.wav", 7, TestPattern(64, 64, 5))),
            *(partial(c.listen, bad) for bad in IDENTITIES if bad is not None),
            *(partial(c.listen, seconds=bad) for bad in (0, -1, "1", math.nan, True)),
            *(partial(c.listen, sample_rate=bad) for bad in (0, 7999, 1e5, "48000")),
            *(partial(c.listen, channels=bad) for bad in (0, 3, "1")),
            *(partial(c.record, "x.wav", seconds=bad) for bad in (0, -1, "1")),
            partial(c.record, 7),
            partial(c.play, "hello.wav"),
            partial(c.play, Tone(440), duck=2),
            partial(c.play, Tone(440), over="yes"),
            partial(c.start_playing, None),
            partial(c.send_chat, ""),
            partial(c.send_chat, 7),
            partial(c.end, timeout=-1),
            partial(c.wait_until_ended, timeout="soon"),
        ]
        for act in wrong:
            refused(act)
        assert (call.call, call.connection.value, call.remote_participants.value, len(there.paths())) == before
        # One who is not listed is not refused: the list lags.
        call.send_data(b"x", to=["somebody"])
        call.send_data(b"x" * 60 * 1024, to=[])


@pytest.mark.parametrize(
    ("url", "token"),
    [*((bad, "t") for bad in ("", "x", "ftp://a", None, 7)), *(("ws://127.0.0.1", b) for b in ("", None, 7))],
)  # fmt: skip
def test_a_room_by_itself(url: Any, token: Any) -> None:
    with UTDRoom() as room:
        refused(room.connect, url, token)
        assert not room.connected.value
    for wrong in ({"adaptive_stream": "yes"}, {"dynacast": 1}):
        refused(UTDRoom, **wrong)
