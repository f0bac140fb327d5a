"""What every session has: a place in a media room, sources it sends, others it hears, messages. (Interface first.)

Loop thread only. A session decides; its drivers (`connection`, `publishing`) carry out; the facades only pass on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utd_fsm.models import UTDConnectionState, UTDParticipant, UTDSpeaker, UTDStreamType, UTDTrackSource
from utd_fsm.sessions.marks import stream, verb

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step
    from utd_fsm.room import LeaveReason

T = TypeVar("T")


class BaseSession:
    """The part of a core session that calls, streams, audio rooms and the room by itself share.

    For the facade: `perform` runs one verb in its turn; `public` is what signals name as their sender (the facade
    sets itself). Observables: `connection`, `connected`, `can_publish`, `remote_participants`, `speakers`.

    For subclasses, hooks (all on the loop thread): `_ticket`, `_entitled`, `_refusal`, `_resync`, `_before_removal`,
    `_on_connection`, `_on_room_metadata`, `_on_local_metadata`, `_on_participants`, `_on_hint`,
    `_on_track_subscribed`; and `_join`, `_leave_room` to go in and out.
    """

    public: object
    connection: Any  # Observable[UTDConnectionState]
    connected: Any  # Observable[bool]
    can_publish: Any  # Observable[bool]
    remote_participants: Any  # Observable[tuple[UTDParticipant, ...]]
    speakers: Any  # Observable[tuple[UTDSpeaker, ...]]
    events: Any  # RoomEvents: .listen(timeout=None) -> Feed[UTDRoomEvent]

    # -- properties
    @property
    def type(self) -> UTDStreamType | None: ...
    @property
    def local_participant(self) -> UTDParticipant | None: ...
    @property
    def room(self) -> Any: ...

    # -- verbs (timeouts are the facade's)
    @verb()
    async def set_microphone(self, enabled: bool, *, source: Any = None) -> None: ...
    @verb()
    async def set_camera(self, enabled: bool, *, source: Any = None) -> None: ...
    @verb()
    async def set_screen(self, enabled: bool, *, source: Any = None) -> None: ...
    @verb(lane="messages")
    async def send_data(self, data: bytes, reliable: bool = True, to: Sequence[str] | None = None) -> None: ...
    @verb(lane="messages")
    async def send_chat(self, text: str, *, user_data: Any = None, to: Sequence[str] | None = None) -> None: ...
    @verb(lane=None)
    async def run(self, fn: Callable[[Any], Any]) -> Any: ...
    @verb(overtakes=True)
    async def leave(self) -> None: ...
    @verb(overtakes=True)
    async def dispose(self) -> None: ...

    # -- media
    @stream()
    def listen(self, identity: str | None = None, *, seconds: float | None = None, timeout: float | None = 30.0,
               sample_rate: int = 48000, channels: int = 1) -> Any: ...  # Feed[AudioFrame]
    @stream()
    def watch(self, identity: str | None = None, *, source: str = "camera", size: tuple[int, int] | None = None,
              timeout: float | None = 30.0) -> Any: ...  # Feed[VideoFrame]
    @verb(timeout=None, lane=None)
    async def record(self, path: str | Path, *, seconds: float | None = None, identity: str | None = None) -> Any: ...
    @stream()
    def start_recording(self, path: str | Path, *, identity: str | None = None) -> Any: ...
    @verb(timeout=None, lane=None)
    async def play(self, source: Any, *, over: bool = False, duck: float = 0.2) -> None: ...
    @stream()
    def start_playing(self, source: Any, *, over: bool = False, duck: float = 0.2) -> Any: ...

    # -- for the facade
    async def perform(self, method: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Run one marked method in its turn: lanes one at a time in the order of calls; overtakers at once.

        What is overtaken raises UTDStateError (UTDClosedError when by dispose). After dispose: UTDClosedError.
        """
        raise NotImplementedError

    # -- for subclasses: going in and out
    async def _join(self) -> None:
        """Open the media objects and join (tickets from `_ticket`). Raises what the tries raised."""
    async def _leave_room(self) -> None:
        """Sources stop, the connection leaves, streams end. Idempotent; the session may `_join` again."""
    async def _enable(self, source: UTDTrackSource) -> None:
        """The unqueued core of set_microphone(True) for use inside other verbs (start, accept, go_live)."""
    def _stop_sources(self) -> None:
        """Hung up, stepped down, unseated: every source's `stop`, at once."""
    def _emit(self, signal: Any, **payload: Any) -> None:
        """Emit a module-level signal with `public` as sender."""

    # -- for subclasses: hooks
    async def _ticket(self, reason: str) -> tuple[str, str]:
        """(url, token) for one try; reason: "join", "retry", "rejoin"."""
        raise NotImplementedError
    def _entitled(self, source: UTDTrackSource) -> bool: ...
    def _refusal(self, source: UTDTrackSource) -> Exception | None: ...
    async def _resync(self, age: float) -> None: ...
    async def _before_removal(self, reason: LeaveReason | None) -> None: ...
    def _on_connection(self, step: Step) -> None: ...
    def _on_room_metadata(self, metadata: str) -> None: ...
    def _on_local_metadata(self, metadata: str) -> None: ...
    def _on_participants(self, participants: tuple[UTDParticipant, ...]) -> None: ...
    def _on_hint(self, type: str, data: Mapping[str, Any], identity: str | None) -> None: ...  # noqa: A002
    def _on_track_subscribed(self, source: UTDTrackSource) -> None: ...


_USED = (UTDConnectionState, UTDSpeaker)
