"""The public names and signatures, which applications rely on: a change here is one for them and for CHANGELOG.md.

What is pinned may grow: a new name is added here on purpose, and none disappears by accident.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import utd_fsm
from tests.pinned_members import MEMBERS, PROPERTY
from utd_fsm import aio, client, errors, media, observable, signals, streams, testing, webhooks

TOP = [
    "Observable",
    "UTDAudioRoomSession",
    "UTDBan",
    "UTDBanPage",
    "UTDBroadcast",
    "UTDCall",
    "UTDCallPage",
    "UTDCallSession",
    "UTDCallStatus",
    "UTDChatMessage",
    "UTDClosedError",
    "UTDConflictError",
    "UTDConnectionError",
    "UTDConnectionState",
    "UTDEngineError",
    "UTDForbiddenError",
    "UTDHand",
    "UTDInputError",
    "UTDInvitation",
    "UTDLiveStreamSession",
    "UTDParticipant",
    "UTDPermissionError",
    "UTDProtocolError",
    "UTDRecording",
    "UTDRole",
    "UTDRoleChange",
    "UTDRoom",
    "UTDRoomEvent",
    "UTDSeat",
    "UTDSeatGrid",
    "UTDSeatMode",
    "UTDSpeaker",
    "UTDSpeakerRequest",
    "UTDStage",
    "UTDStageMember",
    "UTDStateError",
    "UTDStreamClient",
    "UTDStreamException",
    "UTDStreamType",
    "UTDTimeoutError",
    "UTDTokenResponse",
    "UTDTrack",
    "UTDTrackSource",
    "UTDWebhook",
    "UTDWouldBlockError",
    "__version__",
    "signals",
    "webhooks",
]
MODULES = ["aio", "media", "signals", "testing", "webhooks"]

ERRORS: dict[str, tuple[str, ...]] = {
    "UTDStreamException": ("Exception",),
    "UTDInputError": ("UTDStreamException", "ValueError"),
    "UTDStateError": ("UTDStreamException",),
    "UTDPermissionError": ("UTDStreamException", "PermissionError"),
    "UTDTimeoutError": ("UTDStreamException", "TimeoutError"),
    "UTDConnectionError": ("UTDStreamException", "ConnectionError"),
    "UTDEngineError": ("UTDStreamException",),
    "UTDConflictError": ("UTDEngineError", "UTDStateError"),
    "UTDForbiddenError": ("UTDEngineError", "UTDPermissionError"),
    "UTDProtocolError": ("UTDStreamException",),
    "UTDWouldBlockError": ("UTDStreamException", "RuntimeError"),
    "UTDClosedError": ("UTDStreamException",),
}

SIGNALS = [
    "banned",
    "broadcast_changed",
    "call_status_changed",
    "can_publish_changed",
    "chat_locked_changed",
    "chat_received",
    "connection_changed",
    "data_received",
    "hands_changed",
    "incoming_call",
    "invited",
    "remote_participants_changed",
    "requests_changed",
    "role_changed",
    "seats_changed",
    "speakers_changed",
    "stage_changed",
    "webhook_received",
]

MEDIA: dict[str, str] = {
    "AudioFeed": "(sample_rate=48000, channels=1, *, seconds=1.0)",
    "AudioFrame": "(samples, sample_rate, channels, identity, timestamp, dropped=0)",
    "AudioFrames": "(iterable, sample_rate, channels)",
    "Image": "(path_or_array, *, width=None, height=None, fps=5)",
    "Silence": "(*, seconds=None)",
    "TestPattern": "(width=640, height=360, fps=15)",
    "Tone": "(hz, amplitude=0.3, *, seconds=None)",
    "VideoFeed": "(width, height, fps=15)",
    "VideoFrame": "(pixels, identity, timestamp, dropped=0)",
    "VideoFrames": "(iterable, fps, *, width=None, height=None)",
    "WavFile": "(path, loop=False)",
}
MEDIA_BASES = ["AudioSource", "VideoSource"]

TESTING = ["LocalEngine", "MemoryRoom", "MemoryServer", "Peer", "local_engine", "strict_signals", "wait_for_signal"]
LOCAL_ENGINE = [
    "app_id",
    "app_key",
    "base_url",
    "client",
    "livekit_key",
    "livekit_secret",
    "livekit_url",
    "media",
    "peer",
    "restart",
    "start",
    "stop",
    "webhook_secret",
]
LOCAL_ENGINE_ARGUMENTS = ["media", "ring_timeout", "max_call", "rate_limit", "webhook_url", "webhook_secret"]
PEER_ARGUMENTS = ["on_call", "microphone", "camera", "hang_up_after", "name", "device_id"]

OBSERVABLE = ["changed", "updates", "value", "wait_for"]


def signature_of(function: Any) -> str:
    """Its signature without annotations, as one writes it in a page."""
    whole = inspect.signature(function)
    empty = inspect.Parameter.empty
    kept = [one.replace(annotation=empty) for name, one in whole.parameters.items() if name != "self"]
    return str(whole.replace(parameters=kept, return_annotation=inspect.Signature.empty)).replace('"', "'")


def member(cls: type, name: str) -> str:
    found = inspect.getattr_static(cls, name)
    return PROPERTY if isinstance(found, property) else signature_of(found)


def members(cls: type) -> dict[str, str]:
    public = {name: member(cls, name) for name in dir(cls) if not name.startswith("_")}
    if "__init__" in vars(cls):
        public["__init__"] = member(cls, "__init__")
    return public


def test_top_level_names() -> None:
    assert sorted(utd_fsm.__all__) == TOP
    for name in TOP:
        assert getattr(utd_fsm, name) is not None
    for name in MODULES:
        assert inspect.ismodule(getattr(utd_fsm, name))
    assert set(TOP) | set(MODULES) <= set(dir(utd_fsm))


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="UTDConference"):
        _ = utd_fsm.UTDConference


@pytest.mark.parametrize(("name", "bases"), ERRORS.items())
def test_error_tree(name: str, bases: tuple[str, ...]) -> None:
    assert tuple(base.__name__ for base in getattr(errors, name).__bases__) == bases
    assert getattr(utd_fsm, name) is getattr(errors, name)


def test_no_other_error() -> None:
    found = {
        name
        for name, one in vars(errors).items()
        if inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == errors.__name__
    }
    assert found == set(ERRORS)


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (errors.UTDStreamException("x"), "message status_code code call_id is_banned is_forbidden is_rate_limited"),
        (errors.UTDStreamException("x"), "is_feature_disabled"),
        (errors.UTDStateError("x"), "state event allowed"),
        (errors.UTDTimeoutError("x"), "outcome_known"),
        (errors.UTDConnectionError("x"), "outcome_known"),
        (errors.UTDEngineError("x"), "status_code code retry_after"),
        (errors.UTDConflictError("x"), "status_code code retry_after state event allowed"),
        (errors.UTDProtocolError("x"), "route field"),
    ],
)
def test_error_fields(error: errors.UTDStreamException, fields: str) -> None:
    assert [name for name in fields.split() if not hasattr(error, name)] == []


def test_signals() -> None:
    found = sorted(name for name, one in vars(signals).items() if isinstance(one, signals.UTDSignal))
    assert found == SIGNALS
    assert set(SIGNALS) | {"drain"} <= set(signals.__all__)
    assert signature_of(signals.drain) == "(timeout=30.0)"


@pytest.mark.parametrize(("name", "signature"), MEDIA.items())
def test_media(name: str, signature: str) -> None:
    assert signature_of(getattr(media, name).__init__) == signature


def test_no_other_media() -> None:
    assert sorted(media.__all__) == sorted([*MEDIA, *MEDIA_BASES])


def test_testing_names() -> None:
    assert sorted(testing.__all__) == sorted(TESTING)
    given = inspect.signature(testing.local_engine).parameters
    assert [name for name in LOCAL_ENGINE_ARGUMENTS if name not in given] == []
    given = inspect.signature(testing.Peer.__init__).parameters
    assert [name for name in PEER_ARGUMENTS if name not in given] == []
    assert signature_of(testing.wait_for_signal) == "(signal, sender=None, timeout=5.0)"
    engine = testing.local_engine()  # not entered: nothing starts
    assert [name for name in LOCAL_ENGINE if not hasattr(engine, name)] == []
    assert [name for name in ("start", "stop", "restart") if not hasattr(engine.media, name)] == []
    engine.close()


def test_webhook_functions() -> None:
    assert signature_of(webhooks.parse) == signature_of(webhooks.deliver) == "(body, headers, secret)"


@pytest.mark.parametrize("name", MEMBERS)
def test_members_of_the_blocking_facade(name: str) -> None:
    assert members(getattr(client, name)) == MEMBERS[name]
    assert getattr(utd_fsm, name) is getattr(client, name)


@pytest.mark.parametrize("name", MEMBERS)
def test_members_of_the_awaitable_facade(name: str) -> None:
    """The same names with the same signatures."""
    assert members(getattr(aio, name)) == MEMBERS[name]


@pytest.mark.parametrize("cls", [observable.Observable, observable.AsyncObservable])
def test_observables(cls: type) -> None:
    assert [name for name in OBSERVABLE if not hasattr(cls, name)] == []
    assert member(cls, "wait_for") == "(wanted, timeout=30.0)"
    assert member(cls, "updates") == "(timeout=None)"


@pytest.mark.parametrize("cls", [streams.Stream, streams.AsyncStream])
def test_streams(cls: type) -> None:
    closing = "close" if cls is streams.Stream else "aclose"
    assert [name for name in ("dropped", "get", closing) if not hasattr(cls, name)] == []
