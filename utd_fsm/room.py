"""A media room as the sessions see it: the protocol, its events, its options. Floor 4.

Two classes keep this protocol: `utd_fsm.livekit_room.LiveKitRoom` over LiveKit's client, and
`utd_fsm.testing.memory_room.MemoryRoom` without any network. One set of contract tests runs on both.

This module may import models and nothing else of the package; neither ``livekit`` nor ``numpy`` loads with it.
Everything here belongs to the loop thread: methods are called there, events are posted there.

One `Room` object is one try to be in a room. It joins once and is never used again after it was left or lost; whoever
wants to come back makes a new one. The events of one room are posted in order, by `post(event)`; an event carries what
changed where that is little, and is otherwise a hint to read the room's properties, which are always copies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from utd_fsm.models import UTDParticipant, UTDRoomEvent, UTDTrackSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples: TypeAlias = npt.NDArray[np.int16]
    """Audio: int16, shape (n, channels)."""
    Pixels: TypeAlias = npt.NDArray[np.uint8]
    """Video: uint8, shape (height, width, 3), RGB."""

FrameT = TypeVar("FrameT", covariant=True)

CHAT_TOPIC = "utd.chat"
"""Topic of chat sent as a text stream (LiveKit fact 38: such a stream names its true sender, a data packet may not)."""

MAX_DATA_BYTES = 60 * 1024
"""What one data message may hold (LiveKit fact 26: more is refused by the client at once)."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What the server lets the local participant do, copied at one moment."""

    can_publish: bool = False
    can_subscribe: bool = True
    can_publish_data: bool = True
    sources: frozenset[UTDTrackSource] = frozenset()
    """The sources that may be published; empty means all of them."""

    def allows(self, source: UTDTrackSource) -> bool:
        """Whether a track of this source may be published."""
        return self.can_publish and (not self.sources or source in self.sources)


class LeaveReason(StrEnum):
    """Why a room was left."""

    ASKED = "asked"
    """We left."""
    DUPLICATE_IDENTITY = "duplicate_identity"
    """The same identity joined again elsewhere (or a given-up try of our own did)."""
    SERVER_SHUTDOWN = "server_shutdown"
    REMOVED = "removed"
    """Thrown out by the server's owner."""
    ROOM_DELETED = "room_deleted"
    STATE_MISMATCH = "state_mismatch"
    """The server no longer knows of us."""
    JOIN_FAILURE = "join_failure"
    LOST = "lost"
    """The link broke and LiveKit gave up."""
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether nobody may come back by himself after it (LiveKit fact 37)."""
        return self in (
            LeaveReason.ASKED,
            LeaveReason.DUPLICATE_IDENTITY,
            LeaveReason.REMOVED,
            LeaveReason.ROOM_DELETED,
        )


class Publication(Protocol):
    """One local track that others can receive, from its publishing to its unpublishing."""

    @property
    def sid(self) -> str:
        """The server's name of the track; changes when LiveKit publishes it again after a full reconnect."""
        ...

    @property
    def source(self) -> UTDTrackSource:
        """What it carries."""
        ...

    @property
    def muted(self) -> bool:
        """Whether it is muted, by us or by a moderator."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it was unpublished or its room is gone; capturing is then a no-op."""
        ...

    async def set_muted(self, muted: bool) -> None:
        """Mute or unmute. A no-op when it already is, or is closed."""
        ...

    async def capture(self, frame: npt.NDArray[Any]) -> None:
        """Send one frame.

        Audio: int16, shape (n, channels), any n; returns when the queue (about 100 ms) has taken it all, and so paces
        the caller. Video: uint8, shape (height, width, 3), RGB; returns at once.

        Raises:
            UTDInputError: another dtype or shape.
        """
        ...

    async def drained(self) -> None:
        """Audio: return when everything captured so far has been sent. Video: return at once."""
        ...


class Frames(Protocol[FrameT]):
    """Frames of one remote track, as they come: an asynchronous iterator with a bounded queue.

    It ends when the track goes, the room is left or `aclose` is called. When the reader is too slow the oldest frames
    are lost and counted.
    """

    @property
    def dropped(self) -> int:
        """Frames lost so far because they were not read in time."""
        ...

    def __aiter__(self) -> AsyncIterator[FrameT]: ...

    async def __anext__(self) -> FrameT: ...

    async def aclose(self) -> None:
        """End it and free what is behind it. Idempotent."""
        ...


class RemoteTrack(Protocol):
    """A track of somebody else that we are subscribed to, until its `TrackRemoved`."""

    @property
    def sid(self) -> str:
        """The server's name of the track."""
        ...

    @property
    def identity(self) -> str:
        """Whose track it is."""
        ...

    @property
    def source(self) -> UTDTrackSource:
        """What it carries."""
        ...

    @property
    def kind(self) -> Literal["audio", "video"]:
        """``audio`` or ``video``."""
        ...

    @property
    def muted(self) -> bool:
        """Whether its publisher, or a moderator, has muted it."""
        ...

    def audio(self, *, sample_rate: int = 48000, channels: int = 1) -> Frames[Samples]:
        """Its sound, resampled, in frames of 20 ms; at most 1 s waits for the reader. Each call is a copy of its own.

        Raises:
            UTDInputError: it is a video track.
        """
        ...

    def video(self) -> Frames[Pixels]:
        """Its picture, RGB; only the newest frame waits for the reader. Each call is a copy of its own.

        Raises:
            UTDInputError: it is an audio track.
        """
        ...

    def set_wanted(self, wanted: bool, size: tuple[int, int] | None = None) -> None:
        """Say whether anybody looks at this video, and how large (width, height in pixels).

        Unwanted video stays subscribed but is no longer sent to us; ``size`` picks the smallest simulcast layer that
        covers it (None: the largest). A no-op for audio and for a track that is gone.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The link broke; LiveKit tries to mend it. Until `Reconnected`, what is said of others means nothing (fact 23)."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The link is mended, in the same room object. Read `Room.permission` and `Room.participants` again."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The room is over. Posted exactly once for a room that was joined, and never for one that was not."""

    reason: LeaveReason


@dataclass(frozen=True, slots=True)
class PermissionChanged:
    """What the server lets the local participant do has changed."""

    permission: Permission


@dataclass(frozen=True, slots=True)
class ParticipantsChanged:
    """Something about the others changed: read `Room.participants`."""


@dataclass(frozen=True, slots=True)
class RoomMetadataChanged:
    """The server wrote new metadata of the room."""

    metadata: str


@dataclass(frozen=True, slots=True)
class LocalMetadataChanged:
    """The server wrote new metadata of the local participant."""

    metadata: str


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A data message. A hint, never the truth: ``identity`` None proves nothing (LiveKit fact 20)."""

    data: bytes
    identity: str | None
    topic: str | None
    reliable: bool


@dataclass(frozen=True, slots=True)
class TextReceived:
    """A whole text stream, with its true sender (LiveKit fact 38)."""

    text: str
    identity: str
    topic: str


@dataclass(frozen=True, slots=True)
class SpeakersChanged:
    """Who is heard: (identity, level 0 to 1), the loudest first; the local participant may be among them."""

    levels: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class TrackAdded:
    """A remote track was subscribed."""

    track: RemoteTrack


@dataclass(frozen=True, slots=True)
class TrackRemoved:
    """A remote track is gone: unsubscribed, unpublished, or its publisher left. Its streams have ended."""

    sid: str


@dataclass(frozen=True, slots=True)
class LocalTrackMuted:
    """A moderator muted (or unmuted) a track of ours. Our own `Publication.set_muted` posts nothing."""

    source: UTDTrackSource
    muted: bool


@dataclass(frozen=True, slots=True)
class LocalTrackSubscribed:
    """Somebody subscribed to a track of ours."""

    source: UTDTrackSource


@dataclass(frozen=True, slots=True)
class Raw:
    """One of LiveKit's own events, under its own name and with its own arguments."""

    event: UTDRoomEvent


RoomEvent: TypeAlias = (
    Reconnecting
    | Reconnected
    | Disconnected
    | PermissionChanged
    | ParticipantsChanged
    | RoomMetadataChanged
    | LocalMetadataChanged
    | DataReceived
    | TextReceived
    | SpeakersChanged
    | TrackAdded
    | TrackRemoved
    | LocalTrackMuted
    | LocalTrackSubscribed
    | Raw
)


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """How a room is joined."""

    adaptive_stream: bool = False
    """Video that nobody looks at is not sent to us, and the size looked at picks the layer."""
    dynacast: bool = False
    """Layers of our own video that nobody receives are not encoded."""
    single_peer_connection: bool | None = None
    """One peer connection for both directions, or two; None: two, which is quicker and smaller here: both ends of a
    call hear each other after 149 ms instead of 226 (embedded server) or 328 instead of 351 (LiveKit's), and an idle
    room takes 1 to 2 MB less (medians of 14; LiveKit fact 26 agrees)."""
    text_topics: tuple[str, ...] = (CHAT_TOPIC,)
    """Topics of text streams to receive; streams of other topics are discarded."""


class Room(Protocol):
    """One try to be in a media room. Loop thread only."""

    @property
    def connected(self) -> bool:
        """Whether it was joined and not yet left or lost; stays True while LiveKit reconnects."""
        ...

    @property
    def permission(self) -> Permission:
        """What we may do now; nothing at all before the join."""
        ...

    @property
    def metadata(self) -> str:
        """The room's metadata, as the server last told."""
        ...

    @property
    def local(self) -> UTDParticipant | None:
        """The local participant; None before the join."""
        ...

    @property
    def participants(self) -> tuple[UTDParticipant, ...]:
        """The others, oldest first. Lags up to 3 s for those who publish nothing (LiveKit fact 22)."""
        ...

    @property
    def remote_tracks(self) -> tuple[RemoteTrack, ...]:
        """The tracks we are subscribed to, oldest first."""
        ...

    @property
    def native(self) -> Any:
        """The ``livekit.rtc.Room`` behind it, or None."""
        ...

    async def connect(self, url: str, token: str, *, auto_subscribe: bool = True) -> None:
        """Join. Returns when joined, with those already there listed and their tracks' `TrackAdded` to follow.

        Never cancel it, nor `asyncio.wait_for` it: shield it, and on a timeout let it go on, await it later and then
        `disconnect` (LiveKit fact 1). If it is cancelled all the same, the room does that by itself.

        Raises:
            UTDConnectionError: not reachable, or timed out.
            UTDPermissionError: the server does not accept the token (``status_code`` 401 or 403).
            UTDEngineError: any other refusal: 404 no such room, 500 the room is full. Messages hold no token.
            UTDStateError: this room object was used before.
        """
        ...

    async def disconnect(self) -> None:
        """Leave. Idempotent and tolerant; a join still under way is awaited and undone in the background."""
        ...

    async def publish_audio(
        self, source: UTDTrackSource, *, sample_rate: int = 48000, channels: int = 1
    ) -> Publication:
        """Publish a new audio track.

        Args:
            source: what it carries; the server checks it against the permission.
            sample_rate: Hz of what will be captured.
            channels: 1 or 2.

        Raises:
            UTDPermissionError: the permission does not allow it (checked first, since LiveKit takes 10 s to say so).
            UTDConnectionError: not in the room, or lost meanwhile.
        """
        ...

    async def publish_video(
        self, source: UTDTrackSource, *, width: int, height: int, fps: float = 15, simulcast: bool = True
    ) -> Publication:
        """Publish a new video track of ``width`` by ``height`` pixels.

        Args:
            source: camera or screen; the screen is tuned for text.
            width: pixels.
            height: pixels.
            fps: frames a second, at most.
            simulcast: send smaller layers too, for those who look at it small.

        Raises:
            UTDPermissionError: the permission does not allow it.
            UTDConnectionError: not in the room, or lost meanwhile.
        """
        ...

    async def unpublish(self, source: UTDTrackSource) -> None:
        """Take down everything the room still lists for this source. Idempotent; never fails because it is gone."""
        ...

    def publications(self, source: UTDTrackSource) -> tuple[str, ...]:
        """Sids of the tracks of this source that the room still lists."""
        ...

    async def send_data(
        self, data: bytes, *, reliable: bool = True, to: Sequence[str] = (), topic: str | None = None
    ) -> None:
        """Send a data message to all, or to the identities in ``to`` (which need not be listed yet).

        Without the permission to send data the server drops it without a word (LiveKit fact 29).

        Raises:
            UTDInputError: more than 60 KiB.
            UTDConnectionError: not in the room.
        """
        ...

    async def send_text(self, text: str, *, topic: str, to: Sequence[str] = ()) -> None:
        """Send a text stream, whose receivers learn the true sender. Raises as `send_data` does, of any length."""
        ...


RoomFactory: TypeAlias = Callable[[Callable[[RoomEvent], None], RoomOptions], Room]
"""Makes a room that posts to the function given. Called on the loop thread, inside a coroutine."""
