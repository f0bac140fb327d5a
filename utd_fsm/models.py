"""What the SDK's users hold in their hands: enums and frozen values. No I/O; imports nothing of the package.

Enums are ``StrEnum`` with the engine's wire values, so a plain string is as good as a member wherever one is asked for.
Values are immutable and safe in any thread; what shows a token leaves it out of its ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn


class ReadOnlyDict(dict[str, Any]):
    """A dict nobody changes: prints, pickles and goes into JSON like one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadOnlyDict, (dict(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset((key, repr(value)) for key, value in self.items()))


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError("this is a snapshot and cannot be changed; copy it with dict(...) first")


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(ReadOnlyDict, _name, _refuse)


NOTHING: Mapping[str, Any] = ReadOnlyDict()


class UTDStreamType(StrEnum):
    """What a session is about."""

    AUDIO_CALL = "audio_call"
    """1:1, microphones only."""
    VIDEO_CALL = "video_call"
    """1:1, microphones and cameras."""
    LIVE_STREAM = "live_stream"
    """A host, a stage, any number of viewers."""
    AUDIO_ROOM = "audio_room"
    """A grid of seats, any number of listeners; audio only."""

    @property
    def is_call(self) -> bool:
        """Whether it is a 1:1 call."""
        return self in (UTDStreamType.AUDIO_CALL, UTDStreamType.VIDEO_CALL)

    @property
    def has_video(self) -> bool:
        """Whether a camera may be published."""
        return self in (UTDStreamType.VIDEO_CALL, UTDStreamType.LIVE_STREAM)


class UTDCallStatus(StrEnum):
    """Where a call is, as the engine keeps it. ``None`` stands for "no call yet"."""

    INITIATING = "initiating"
    """Created; no device of the callee rings yet."""
    RINGING = "ringing"
    """A device of the callee rings."""
    ACTIVE = "active"
    """Answered, by exactly one device."""
    ENDED = "ended"
    """Hung up, cancelled or cut; ``end_reason`` tells which."""
    REJECTED = "rejected"
    """The callee declined."""
    BUSY = "busy"
    """The callee was on another call."""
    MISSED = "missed"
    """Nobody answered within the ring timeout."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return self not in (UTDCallStatus.INITIATING, UTDCallStatus.RINGING, UTDCallStatus.ACTIVE)


class UTDConnectionState(StrEnum):
    """A session's place in its media room."""

    DISCONNECTED = "disconnected"
    """Not in the room and not trying."""
    CONNECTING = "connecting"
    """Up to three tries of 15 s."""
    CONNECTED = "connected"
    """In the room."""
    RECONNECTING = "reconnecting"
    """The link broke; up to 60 s to come back."""
    FORCE_EXIT = "force_exit"
    """Out against the application's will: removed, or away for more than 60 s."""


class UTDRole(StrEnum):
    """Roles, low to high; the owner of a room stands apart from them (wire contract)."""

    VISITOR = "visitor"
    AUDIENCE = "audience"
    GUEST = "guest"
    ADMIN = "admin"
    HOST = "host"


class UTDSeatMode(StrEnum):
    """How a seat of an audio room is come by."""

    FREE = "free"
    """Whoever takes a free seat has it."""
    REQUEST = "request"
    """A moderator approves."""


class UTDTrackSource(StrEnum):
    """What a track carries."""

    MICROPHONE = "microphone"
    CAMERA = "camera"
    SCREEN = "screen"
    SCREEN_AUDIO = "screen_audio"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class UTDCall:
    """One call, as the engine keeps it: a snapshot, not a live object.

    The room token of a create or accept answer is not part of it.
    """

    call_id: str
    """``call_`` and 24 hex digits; the name of the media room too."""
    type: UTDStreamType
    status: UTDCallStatus
    caller_identity: str
    callee_identity: str
    caller_name: str | None = None
    callee_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """What the caller passed to ``start``; read-only."""
    room_name: str | None = None
    initiated_at: datetime | None = None
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    """``caller_hangup``, ``callee_hangup``, ``caller_cancelled``, ``max_duration``, ``engine_shutdown``,
    ``connection_lost``, or, told by the SDK itself, ``answered_elsewhere``, ``unreachable``."""
    duration: float | None = None
    """Seconds from the answer to the end; None while unknown."""
    ring_duration: float | None = None
    """Seconds it rang."""
    answered_by: str | None = None
    """``device_id`` of the device that answered (ours: else two devices could both believe that they won)."""
    version: int | None = None
    """Grows with every step of this call; None from an engine that sends none (the status' rank then orders)."""


@dataclass(frozen=True, slots=True)
class UTDCallPage:
    """One page of calls, newest first."""

    calls: tuple[UTDCall, ...]
    page: int
    per_page: int
    total: int
    total_pages: int


@dataclass(frozen=True, slots=True)
class UTDCallTicket:
    """A call and the way into its media room: what a create, an accept or a rejoin answers."""

    call: UTDCall
    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UTDTokenResponse:
    """The answer of ``POST /token``."""

    token: str = field(repr=False)
    url: str
    room_name: str
    user_token: str | None = field(default=None, repr=False)
    ws_url: str | None = None


@dataclass(frozen=True, slots=True)
class UTDSessionInfo:
    """The answer of ``POST /auth/session``. A null flag means unknown, not false."""

    user_token: str = field(repr=False)
    ws_url: str | None = None
    signaling_enabled: bool | None = None
    messaging_enabled: bool | None = None
    limits: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class UTDTrack:
    """One track somebody publishes."""

    sid: str
    source: UTDTrackSource
    kind: str
    """``audio`` or ``video``."""
    muted: bool = False
    width: int = 0
    """Pixels; 0 for audio."""
    height: int = 0
    """Pixels; 0 for audio."""


@dataclass(frozen=True, slots=True)
class UTDParticipant:
    """Somebody in the room, as the media server last told."""

    identity: str
    name: str = ""
    sid: str = ""
    metadata: str = ""
    """Written by the server only; JSON with ``role`` for engine rooms."""
    attributes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    can_publish: bool = False
    tracks: tuple[UTDTrack, ...] = ()


@dataclass(frozen=True, slots=True)
class UTDSpeaker:
    """Somebody who is heard right now."""

    identity: str
    level: float
    """Loudness, 0 to 1."""
    since: float
    """Monotonic seconds at which it began to speak."""


@dataclass(frozen=True, slots=True)
class UTDData:
    """One data message of a participant or the server. A hint, never the truth (a missing sender proves nothing)."""

    data: bytes
    identity: str | None
    topic: str | None
    reliable: bool


@dataclass(frozen=True, slots=True)
class UTDChatMessage:
    """One chat message of a participant."""

    text: str
    identity: str | None
    """Who sent it, as LiveKit says; None where it does not, which proves nothing."""
    claimed_identity: str | None = None
    """Who sent it, as the message itself says: anybody can claim anything."""
    name: str | None = None
    """The sender's name, as the message itself says."""
    sent_at: datetime | None = None
    """By the sender's clock."""
    message_id: str | None = None
    user_data: Any = None
    """Whatever the sender's application added; JSON."""


@dataclass(frozen=True, slots=True)
class UTDRoomEvent:
    """One of LiveKit's own room events, under LiveKit's own name."""

    name: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class UTDRecording:
    """A finished recording."""

    path: Path
    seconds: float
    """Length of the file."""
    dropped: int
    """Frames that were lost before they could be written."""
    ended_by: str
    """``seconds``, ``stopped``, ``call_ended``, ``left`` or ``closed``."""


@dataclass(frozen=True, slots=True)
class UTDWebhook:
    """One webhook of the engine, its signature already verified."""

    event: str
    attempt: int
    """1 to 6."""
    room: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    participant: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    track: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    call: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    raw: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """The whole body, read-only."""
