"""What a person can ask of every session: its sources, what it hears and sees, messages, and the way out.

Loop thread only. The arguments are checked here, before anything is sent; the work is `SessionCore`'s. The facades are
generated from the marked methods of this class and its subclasses.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utd_fsm import validation
from utd_fsm.errors import UTDClosedError, UTDInputError, UTDStateError, UTDStreamException
from utd_fsm.models import UTDConnectionState, UTDParticipant, UTDSpeaker, UTDStreamType, UTDTrackSource
from utd_fsm.observable import BaseObservable
from utd_fsm.sessions.core import SessionCore
from utd_fsm.sessions.events import RoomEventsCore
from utd_fsm.sessions.marks import mark_of, stream, verb, wait
from utd_fsm.sessions.messages import chat_data
from utd_fsm.sessions.sources import check_recipe

if TYPE_CHECKING:
    from utd_fsm.media import AudioFrame, AudioSource, VideoFrame, VideoSource
    from utd_fsm.media.playing import PlayingCore
    from utd_fsm.media.recording import RecorderCore
    from utd_fsm.models import UTDRecording
    from utd_fsm.streams import Feed

T = TypeVar("T")


class BaseSession(SessionCore):
    """The part of a core session that calls, streams, audio rooms and the room by itself share.

    Subclasses give `_ticket` and override the other hooks of `SessionCore` as they need.
    """

    connection: BaseObservable[UTDConnectionState]
    """Where the session is with its media room."""
    connected: BaseObservable[bool]
    """Whether it is in the room, with the link up."""
    can_publish: BaseObservable[bool]
    """Whether the server lets it publish. Kept while the link is mended, False when out."""
    remote_participants: BaseObservable[tuple[UTDParticipant, ...]]
    """The others, oldest first. Who seems to leave while the link is mended stays until it is settled."""
    speakers: BaseObservable[tuple[UTDSpeaker, ...]]
    """Who is heard, the loudest first."""
    events: RoomEventsCore
    """LiveKit's own events, under LiveKit's own names."""

    # ------------------------------------------------------------------------------------------------- what it is

    @property
    def type(self) -> UTDStreamType | None:
        """What the session is about. Any thread."""
        return self._type

    @property
    def local_participant(self) -> UTDParticipant | None:
        """This session's participant as the server last told: identity, metadata, permission; None out of the room.

        Any thread.
        """
        room = self._connection.room
        return room.local if room is not None else None

    @property
    def room(self) -> Any:
        """The live ``livekit.rtc.Room``, which belongs to the loop thread: use it inside `run`. None out of the room.

        After a return to the room it is another object.
        """
        room = self._connection.room
        return room.native if room is not None else None

    @property
    def underruns(self) -> int:
        """How often (in pieces of 20 ms) silence was sent because the microphone's source had nothing ready in time.

        Of the whole session. Silence before a source begins, after its end and while muted does not count. Any thread.
        """
        return self._sources.underruns

    # ------------------------------------------------------------------------------------------------------ sources

    @verb()
    async def set_microphone(self, enabled: bool, *, source: AudioSource | None = None) -> None:
        """Switch the microphone on or off. On: waits for the grant (10 s) and publishes. Off: mutes, the track stays.

        Args:
            enabled: on or off.
            source: what it sends from now on; None keeps what it sent before, at first silence. Replacing the source
                of a microphone that is on does not publish it anew.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: not in the room; or switched off, stopped or left meanwhile.
            UTDPermissionError: the grant cannot come, or was taken away.
            UTDTimeoutError: the grant did not come within 10 s.
        """
        await self._switch(UTDTrackSource.MICROPHONE, enabled, source)

    @verb()
    async def set_camera(self, enabled: bool, *, source: VideoSource | None = None) -> None:
        """Switch the camera on or off, as `set_microphone`. Refused where there is no video.

        Args:
            enabled: on or off.
            source: what it sends from now on; None keeps what it sent before, at first a test pattern.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: an audio call or room; not in the room; or switched off, stopped or left meanwhile.
            UTDPermissionError: the grant cannot come, or was taken away.
            UTDTimeoutError: the grant did not come within 10 s.
        """
        self._refuse_video("set_camera")
        await self._switch(UTDTrackSource.CAMERA, enabled, source)

    @verb()
    async def set_screen(self, enabled: bool, *, source: VideoSource | None = None) -> None:
        """Share a screen, or stop sharing: its track is then taken down. Errors as `set_camera`.

        Args:
            enabled: on or off.
            source: what is shared; needed the first time.
        """
        self._refuse_video("set_screen")
        await self._switch(UTDTrackSource.SCREEN, enabled, source)

    @stream()
    def start_playing(self, source: AudioSource, *, over: bool = False, duck: float = 0.2) -> PlayingCore:
        """Play something into the microphone and do not wait; the handle waits and stops. Arguments as `play`.

        Raises:
            UTDStateError: the microphone is off.
            UTDInputError: an argument is wrong.
        """
        check_recipe(UTDTrackSource.MICROPHONE, source)
        validation.boolean(over, "over")
        validation.number(duck, "duck", least=0, most=1)
        return self._sources.microphone().start_playing(source, over=over, duck=duck)

    @verb(timeout=None, lane=None)
    async def play(self, source: AudioSource, *, over: bool = False, duck: float = 0.2) -> None:
        """Play something into the microphone; returns when the last sample is out. Other verbs may run meanwhile.

        Args:
            source: what to play.
            over: mix it over what the microphone sends; otherwise that waits until it is over.
            duck: with ``over``, how loud the microphone's own source stays, 0 to 1.

        Raises:
            UTDStateError: the microphone is off.
            UTDInputError: an argument is wrong.
        """
        playing = self.start_playing(source, over=over, duck=duck)
        try:
            await playing.wait()
        except asyncio.CancelledError:
            playing.stop_now()
            raise

    # ---------------------------------------------------------------------------------------------------- listening

    @stream()
    def listen(
        self,
        identity: str | None = None,
        *,
        seconds: float | None = None,
        timeout: float | None = 30.0,
        sample_rate: int = 48000,
        channels: int = 1,
    ) -> Feed[AudioFrame]:
        """What is heard, as frames of 20 ms; ends with the room or call, after ``seconds``, or when it is closed.

        Args:
            identity: whom to hear; None interleaves everybody, each frame with its identity.
            seconds: it ends so long after the first frame came, by the clock; None is no limit.
            timeout: the longest gap in seconds, or None for no limit. Before a call is answered it does not count.
            sample_rate: Hz.
            channels: 1 or 2.

        Raises:
            UTDStateError: no call or room.
            UTDInputError: an argument is wrong.
            UTDTimeoutError: while iterating, a gap was longer.
        """
        return self._heard("listen").audio(
            None if identity is None else validation.identity(identity),
            seconds=validation.seconds(seconds),
            timeout=validation.timeout(timeout),
            sample_rate=validation.integer(sample_rate, "sample_rate", least=8000, most=192_000),
            channels=validation.integer(channels, "channels", least=1, most=2),
        )

    @stream()
    def watch(
        self,
        identity: str | None = None,
        *,
        source: str = "camera",
        size: tuple[int, int] | None = None,
        timeout: float | None = 30.0,
    ) -> Feed[VideoFrame]:
        """What is seen, always the newest picture; ends with the room or call, or when it is closed.

        Args:
            identity: whom to see; None is everybody, each frame with its identity.
            source: ``camera`` or ``screen``.
            size: (width, height) that is enough, in pixels, to have a smaller layer sent; None is the largest.
            timeout: the longest gap in seconds, or None for no limit.

        Raises:
            UTDStateError: no call or room.
            UTDInputError: an argument is wrong.
            UTDTimeoutError: while iterating, a gap was longer.
        """
        return self._heard("watch").video(
            None if identity is None else validation.identity(identity),
            source=validation.enum(UTDTrackSource, source, "source"),
            size=_checked_size(size),
            timeout=validation.timeout(timeout),
        )

    @stream()
    def start_recording(self, path: str | Path, *, identity: str | None = None) -> RecorderCore:
        """Record into a WAV file and do not wait; the handle waits and stops. Arguments and errors as `record`."""
        who = None if identity is None else validation.identity(identity)
        return self._heard("start_recording").record(path, identity=who)

    @wait(timeout=None)
    async def record(
        self,
        path: str | Path,
        *,
        seconds: float | None = None,
        identity: str | None = None,
        timeout: float | None = None,
    ) -> UTDRecording:
        """Record into a WAV file, until ``seconds`` are over or the call or room ends. Other verbs may run meanwhile.

        Before a call is answered it waits. A hang-up does not raise.

        Args:
            path: the file, ``.wav``; valid at any moment. Gaps become silence.
            seconds: its length; None is until it ends.
            identity: whom; None mixes everybody.
            timeout: the longest gap in seconds in which nobody's sound comes; None for no limit. Before a call is
                answered it does not count.

        Raises:
            UTDStateError: no call or room.
            UTDInputError: an argument is wrong.
            UTDTimeoutError: a gap was longer; the file holds what came before.
        """
        who = None if identity is None else validation.identity(identity)
        recorder = self._heard("record").record(path, seconds=seconds, identity=who, timeout=timeout)
        try:
            return await recorder.wait()
        except asyncio.CancelledError:
            await recorder.stop()
            raise

    # ----------------------------------------------------------------------------------------------------- messages

    @verb(lane="messages")
    async def send_data(self, data: bytes, reliable: bool = True, to: Sequence[str] | None = None) -> None:
        """Send a data message. While the link is mended it waits for the link.

        Args:
            data: at most 60 KiB.
            reliable: repeated until it arrives, in order; otherwise sent once.
            to: identities; None and an empty list are everybody. Who is not listed yet is not refused.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: not in the room.
            UTDConnectionError: the link was lost for good meanwhile.
        """
        await self._send_data(data, reliable, validation.to(to))

    @verb(lane="messages")
    async def send_chat(self, text: str, *, user_data: Any = None, to: Sequence[str] | None = None) -> None:
        """Send a chat message. Errors as `send_data`.

        Args:
            text: 1 to 16,000 characters.
            user_data: whatever the application adds; JSON.
            to: identities; None and an empty list are everybody.
        """
        who = validation.to(to)
        room = await self._up("send_chat")
        me = room.local
        identity = me.identity if me is not None else self.identity or ""
        content = chat_data(text, identity=identity, name=me.name if me else "", user_data=user_data)
        await room.send_data(content, to=who)

    @verb(lane=None)
    async def run(self, fn: Callable[[Any], Any]) -> Any:
        """Call ``fn(rtc_room)`` on the loop thread, and await it if it is a coroutine function.

        Whatever LiveKit can do and this package does not wrap is one line away. It must not block.

        Args:
            fn: gets the live ``livekit.rtc.Room``.

        Returns:
            What it returned.

        Raises:
            UTDStateError: not in the room. Otherwise what ``fn`` raises.
        """
        if self._connection.room is None:
            raise UTDStateError("run: not in the room; join first", state=self._connection.state, event="run")
        result = fn(self.room)
        return await result if inspect.isawaitable(result) else result

    # ------------------------------------------------------------------------------------------------------ the end

    @verb(overtakes=True)
    async def leave(self) -> None:
        """Leave the room; idempotent. The session may be used again. What it overtakes raises `UTDStateError`."""
        await self._leave_room()

    @verb(overtakes=True)
    async def dispose(self) -> None:
        """Leave and free everything; idempotent. The session cannot be used again: what is called raises
        `UTDClosedError`."""
        first, self._disposed = not self._disposed, True
        try:
            await self._connection.dispose()
        finally:  # also when waiting for the goodbye was interrupted
            if first:
                self.events.finish()
                self._finish_observables(lambda: UTDClosedError("the session is disposed"))
                if self._on_disposed is not None:
                    self._on_disposed(self)

    # ---------------------------------------------------------------------------------------------- for the facades

    def publish_as(self, facade: object) -> None:
        """Be known as this object: signals name it as their sender. Any thread, before anything else is called."""
        self.public = facade
        for observable in self._observables:
            observable.sender = facade

    async def perform(self, method: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Run one marked method in its turn.

        Raises:
            UTDStateError: overtaken by a verb that ends. Otherwise what the method raises.
            UTDClosedError: disposed, before or meanwhile.
        """
        mark, name = mark_of(method), method.__name__
        closes = name == "dispose"

        def call() -> Awaitable[T]:
            # Asked when its turn comes: it may have waited for a dispose to be over.
            if self._disposed and not closes:
                raise UTDClosedError(f"{name}: the session is disposed; make a new one")
            return method(*args, **kwargs)

        if mark is not None and mark.overtakes:
            return await self._turns.at_once(name, call, closes=closes)
        if mark is None or mark.lane is None:
            return await call()
        return await self._turns.in_turn(mark.lane, name, call, lost=lambda result: self.lost(name, result))

    def lost(self, name: str, result: Any) -> None:
        """The method of this name succeeded in the very moment in which its caller gave it up, and will never know."""

    async def leave_with(self, failed: bool) -> None:
        """Leave a ``with``; ``failed`` tells whether its body raised."""
        await self.perform(self.dispose)

    def tell_call(self, error: UTDStreamException) -> None:
        """Say in an error which call it was about, where it was about one. Any thread."""

    def describe(self) -> str:
        """For the repr."""
        return f"{self._type or 'room'} {self.connection.value}"

    def after_fork(self) -> None:
        """A facade found itself in a forked child: this session is the parent's."""
        raise UTDClosedError(
            "this session belongs to the process that this one was forked from: make one in this process"
        )

    def release(self) -> None:
        """After `dispose`, in the thread of whoever asked for it. A session lets the loop go by itself."""

    @property
    def is_alive(self) -> bool:
        """Whether it is in a room, or on its way into one. Any thread."""
        return self.connection.value not in (UTDConnectionState.DISCONNECTED, UTDConnectionState.FORCE_EXIT)


def _checked_size(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise UTDInputError(f"size: {size!r}; allowed: (width, height) in pixels, or None for the largest")
    width, height = (validation.integer(one, "size", least=1, most=16_384) for one in size)
    return width, height
