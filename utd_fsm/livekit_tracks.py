"""Tracks over LiveKit's client: what we publish, and what we receive. Floor 4; the room itself is in `livekit_room`.

May import the protocol, errors and models. ``livekit`` is imported inside functions, ``numpy`` with this module, so
this module is itself imported only when a room is made. Loop thread only.

Rules that stand on measured facts: a LocalTrack and its rtc source are made anew for every publication and never used
twice (fact 33); a stream of a remote track is cut in the very step that says the track is gone, because its media
section is reused for somebody else (fact 34); streams are bounded and always closed (fact 11).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np

from utd_fsm.errors import UTDConnectionError, UTDInputError
from utd_fsm.models import UTDTrackSource
from utd_fsm.scrub import scrub

if TYPE_CHECKING:
    import numpy.typing as npt
    from livekit import rtc

    from utd_fsm.room import Pixels, Samples

log = logging.getLogger("utd_fsm.room")

AUDIO_QUEUE_MS = 100
"""What the native source queues before `capture` makes its caller wait; the delay a mute or a new source has."""
FRAME_MS = 20
AUDIO_WAITING = 1000 // FRAME_MS
"""Frames of received audio that wait for a slow reader: 1 s."""
MUTE_SPACING = 0.1
"""Seconds between a mute and the next unmute of one track; only a second one that soon waits."""
WISH_SPACING = 0.05
"""Seconds between two requests about one track (paused or not, how large); only a second one that soon waits."""
_NO_LAYERS = 0, 0
CLOSE_LIMIT = 5.0
"""Seconds that freeing a stream may take before it is left alone."""

# The numbers of livekit's TrackSource; spelt here so that naming a source needs no import of the native library.
SOURCES: dict[int, UTDTrackSource] = {
    0: UTDTrackSource.UNKNOWN,
    1: UTDTrackSource.CAMERA,
    2: UTDTrackSource.MICROPHONE,
    3: UTDTrackSource.SCREEN,
    4: UTDTrackSource.SCREEN_AUDIO,
}
SOURCE_NUMBERS: dict[UTDTrackSource, int] = {source: number for number, source in SOURCES.items()}

T = TypeVar("T")
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
"""Starts a background step of the room and holds on to it."""


def check_samples(frame: npt.NDArray[Any], channels: int) -> None:
    """Refuse what is not int16 of shape (n, channels).

    Raises:
        UTDInputError: another dtype or shape.
    """
    if frame.dtype != np.int16 or frame.ndim != 2 or frame.shape[1] != channels:
        raise UTDInputError(
            f"audio must be int16 of shape (n, {channels}); got {frame.dtype} of shape {frame.shape}. "
            "Convert it with astype and reshape."
        )


def check_pixels(frame: npt.NDArray[Any]) -> None:
    """Refuse what is not uint8 of shape (height, width, 3).

    Raises:
        UTDInputError: another dtype or shape.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise UTDInputError(
            f"video must be uint8 of shape (height, width, 3), RGB; got {frame.dtype} of shape {frame.shape}."
        )


class LiveKitPublication:
    """What audio and video publications share: name, mute, end."""

    def __init__(self, source: UTDTrackSource, track: Any, spawn: Spawn) -> None:
        self.source = source
        self.closed = False
        self._track = track
        self._spawn = spawn
        self._publication: rtc.LocalTrackPublication | None = None
        self._muted = False
        self._own_mutes: deque[bool] = deque()
        self._muting = asyncio.Lock()
        self._next_mute = 0.0

    def published(self, publication: rtc.LocalTrackPublication) -> None:
        """Take over what LiveKit answered."""
        self._publication = publication

    @property
    def sid(self) -> str:
        # Read anew: after a full reconnect LiveKit changes it in place (fact 23).
        return self._publication.sid if self._publication is not None else ""

    @property
    def track(self) -> Any:
        """LiveKit's local track."""
        return self._track

    @property
    def muted(self) -> bool:
        return self._muted

    async def set_muted(self, muted: bool) -> None:
        # LiveKit's client may send two that follow at once in the wrong order, and the server is then left with the
        # older one: others hear nothing of a microphone that is on (measured: 1 in 20, none in 120 with 30 ms between).
        async with self._muting:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._next_mute - loop.time()))
            if self.closed or muted == self._muted:
                return
            self._next_mute = loop.time() + MUTE_SPACING
            self._muted = muted
            self._own_mutes.append(muted)
            if muted:
                self._track.mute()
            else:
                self._track.unmute()

    def saw_muted(self, muted: bool) -> bool:
        """Fold LiveKit's word on it; returns whether somebody else did it.

        Our own mute comes back as one event, a moderator's as two, some milliseconds apart. While our own is still to
        come back, the other's is older than it and means nothing; after that it is the truth, a second event too: it
        then really muted the track again (both measured on both servers).
        """
        if self._own_mutes:
            if muted in self._own_mutes:
                while self._own_mutes.popleft() != muted:
                    pass
            return False
        if muted == self._muted:
            return False
        self._muted = muted
        return True

    def link_mended(self) -> None:
        """What was to come back may have been lost with the link."""
        self._own_mutes.clear()

    async def drained(self) -> None:
        """Nothing waits in a track without a queue."""

    def close(self) -> None:
        """End it here; the server's end is the room's matter. Idempotent."""
        self.closed = True


class LiveKitAudioPublication(LiveKitPublication):
    """A published audio track and the native source that feeds it."""

    def __init__(self, source: UTDTrackSource, spawn: Spawn, *, sample_rate: int, channels: int) -> None:
        from livekit import rtc

        self._rtc = rtc
        self._sample_rate = sample_rate
        self._channels = channels
        self._feed = rtc.AudioSource(sample_rate, channels, queue_size_ms=AUDIO_QUEUE_MS)
        self._capturing = 0
        super().__init__(source, rtc.LocalAudioTrack.create_audio_track(str(source), self._feed), spawn)

    async def capture(self, frame: npt.NDArray[Any]) -> None:
        if self.closed:
            return
        check_samples(frame, self._channels)
        if not len(frame):
            return
        native = self._rtc.AudioFrame(
            np.ascontiguousarray(frame).tobytes(), self._sample_rate, self._channels, len(frame)
        )
        self._capturing += 1
        try:
            await self._feed.capture_frame(native)
        except Exception as error:  # noqa: BLE001 (LiveKit raises a bare Exception)
            if not self.closed:
                raise UTDConnectionError(f"the audio track took no more sound: {scrub(str(error))}") from None
        finally:
            self._capturing -= 1
            if self.closed and not self._capturing:
                self._spawn(self._feed.aclose())

    async def drained(self) -> None:
        if not self.closed:
            await self._feed.wait_for_playout()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self._feed.clear_queue()  # lets go whoever waits in drained()
        if not self._capturing:  # freed under a capture, its answer would never come
            self._spawn(self._feed.aclose())


class LiveKitVideoPublication(LiveKitPublication):
    """A published video track and the native source that feeds it."""

    def __init__(self, source: UTDTrackSource, spawn: Spawn, *, width: int, height: int) -> None:
        from livekit import rtc

        self._rtc = rtc
        self._feed = rtc.VideoSource(width, height, is_screencast=source is UTDTrackSource.SCREEN)
        super().__init__(source, rtc.LocalVideoTrack.create_video_track(str(source), self._feed), spawn)

    async def capture(self, frame: npt.NDArray[Any]) -> None:
        if self.closed:
            return
        check_pixels(frame)
        height, width = frame.shape[:2]
        pixels = np.ascontiguousarray(frame).tobytes()
        # Synchronous, about 1 ms for 640x360: the native side converts to I420 itself.
        self._feed.capture_frame(self._rtc.VideoFrame(width, height, self._rtc.VideoBufferType.RGB24, pixels))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._spawn(self._feed.aclose())


class LiveKitFrames(Generic[T]):
    """A bounded queue between a native stream and one reader.

    The native streams lose frames silently and do not end with their track, so this one pumps, counts and ends.
    """

    def __init__(
        self,
        stream: rtc.AudioStream | rtc.VideoStream,
        convert: Callable[[Any], T],
        capacity: int,
        spawn: Spawn,
        on_end: Callable[[LiveKitFrames[T]], None],
    ) -> None:
        self.dropped = 0
        self._stream = stream
        self._convert = convert
        self._waiting: deque[T] = deque()
        self._capacity = capacity
        self._spawn = spawn
        self._on_end = on_end
        self._news = asyncio.Event()
        self._ended = False
        self._closing: asyncio.Task[Any] | None = None
        self._pump: asyncio.Task[Any] = spawn(self._run())

    async def _run(self) -> None:
        async for event in self._stream:
            if self._ended:
                return
            if len(self._waiting) >= self._capacity:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(self._convert(event.frame))
            self._news.set()
        self.end()

    def end(self) -> None:
        """Stop delivery now, in this step, and free the native stream in the background."""
        if self._ended:
            return
        self._ended = True
        self._waiting.clear()
        self._news.set()
        self._on_end(self)
        self._closing = self._spawn(self._free())

    async def _free(self) -> None:
        self._pump.cancel()
        closing = asyncio.ensure_future(self._stream.aclose())
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_LIMIT)
        if not done:
            log.warning("a native media stream did not close within %s s and is left alone", CLOSE_LIMIT)
        elif (error := closing.exception()) is not None:
            log.warning("closing a native media stream failed: %s", error)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        self.end()
        if self._closing is not None:
            await asyncio.shield(self._closing)


class LiveKitRemoteTrack:
    """A subscribed track of somebody else."""

    def __init__(
        self,
        track: rtc.RemoteAudioTrack | rtc.RemoteVideoTrack,
        publication: rtc.RemoteTrackPublication,
        identity: str,
        spawn: Spawn,
        *,
        adaptive: bool,
    ) -> None:
        from livekit import rtc

        self._rtc = rtc
        self._track = track
        self._publication = publication
        self._spawn = spawn
        self._adaptive = adaptive
        self._streams: list[LiveKitFrames[Any]] = []
        self._gone = False
        self._sent = True
        self._wish: tuple[int, int] | None = _NO_LAYERS
        self._named: tuple[int, int] | None = None
        self._later: asyncio.TimerHandle | None = None
        self.sid = publication.sid
        self.identity = identity
        self.source = SOURCES.get(publication.source, UTDTrackSource.UNKNOWN)
        self.kind: Literal["audio", "video"] = "audio" if publication.kind == rtc.TrackKind.KIND_AUDIO else "video"
        if adaptive:
            self.set_wanted(False)

    @property
    def native(self) -> Any:
        """LiveKit's remote track."""
        return self._track

    @property
    def muted(self) -> bool:
        return bool(self._publication.muted)

    def audio(self, *, sample_rate: int = 48000, channels: int = 1) -> LiveKitFrames[Samples]:
        if self.kind != "audio":
            raise UTDInputError(f"track {self.sid} carries video; use video()")

        def convert(frame: rtc.AudioFrame) -> Samples:
            # LiveKit copies each frame into a bytearray of its own, so this view is ours and writable.
            return np.frombuffer(frame.data, dtype=np.int16).reshape(-1, channels)

        stream = self._rtc.AudioStream(
            self._track,
            capacity=AUDIO_WAITING,
            sample_rate=sample_rate,
            num_channels=channels,
            frame_size_ms=FRAME_MS,
        )
        return self._reading(LiveKitFrames(stream, convert, AUDIO_WAITING, self._spawn, self._stopped))

    def video(self) -> LiveKitFrames[Pixels]:
        if self.kind != "video":
            raise UTDInputError(f"track {self.sid} carries audio; use audio()")

        def convert(frame: rtc.VideoFrame) -> Pixels:
            return np.frombuffer(frame.data, dtype=np.uint8).reshape(frame.height, frame.width, 3)

        stream = self._rtc.VideoStream(self._track, capacity=1, format=self._rtc.VideoBufferType.RGB24)
        return self._reading(LiveKitFrames(stream, convert, 1, self._spawn, self._stopped))

    def _reading(self, frames: LiveKitFrames[T]) -> LiveKitFrames[T]:
        self._streams.append(frames)
        if self._gone:
            frames.end()
        elif self._adaptive and self._wish is None:
            # At once, in the largest layer; whoever knows better says so in the same step.
            self._wish = self._layer(None)
            asyncio.get_running_loop().call_soon(self._tell)
        return frames

    def _stopped(self, frames: LiveKitFrames[Any]) -> None:
        if frames in self._streams:
            self._streams.remove(frames)
        if self._adaptive and not self._streams:
            self.set_wanted(False)

    def set_wanted(self, wanted: bool, size: tuple[int, int] | None = None) -> None:
        if self._gone or self.kind != "video":
            return
        self._wish = self._layer(size) if wanted else None
        self._tell()

    def _layer(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """The smallest layer that covers the size: a quarter, a half or the whole of it (LiveKit's presets).

        `_NO_LAYERS` where there are none, or their sizes are not known.
        """
        width, height = self._publication.width, self._publication.height
        if not self._publication.simulcasted or not width or not height:
            return _NO_LAYERS
        share = 1.0 if size is None else max(size[0] / width, size[1] / height)
        parts = 4 if share <= 0.25 else 2 if share <= 0.5 else 1
        return width // parts, height // parts

    def _tell(self) -> None:
        """Bring the server one request nearer to what is wished, and on `WISH_SPACING` later.

        LiveKit's client may send two requests that follow at once in the wrong order (as with mutes), and each of them
        says it all: whether it is paused, and how large. The server is then left with the older one, and a video that
        is watched stays away or comes in the wrong layer. So the size is named first, and it goes on after that.
        """
        if self._later is not None or self._gone:
            return
        wish = self._wish
        if wish is None and self._sent:
            self._enable(False)
            self._named = None  # named again before it goes on: news of the track make LiveKit forget it
        elif wish is not None and wish not in (self._named, _NO_LAYERS):
            self._name(wish)
        elif wish is not None and not self._sent:
            self._enable(True)
        else:
            return
        self._later = asyncio.get_running_loop().call_later(WISH_SPACING, self._tell_again)

    def _tell_again(self) -> None:
        self._later = None
        self._tell()

    # The native library can pause a subscribed track and pick its size, and the Python wrapper shows neither, so these
    # requests are made by hand. Unsubscribing instead would end the track, and take a negotiation to bring it back.
    # `set_video_quality` would do after it goes on, and not before: it would begin with the highest layer each time.

    def _enable(self, enabled: bool) -> None:
        from livekit.rtc._ffi_client import FfiClient
        from livekit.rtc._proto import ffi_pb2

        self._sent = enabled
        request = ffi_pb2.FfiRequest()
        request.enable_remote_track_publication.track_publication_handle = self._publication._ffi_handle.handle
        request.enable_remote_track_publication.enabled = enabled
        FfiClient.instance.request(request)

    def _name(self, size: tuple[int, int]) -> None:
        from livekit.rtc._ffi_client import FfiClient
        from livekit.rtc._proto import ffi_pb2

        self._named = size
        request = ffi_pb2.FfiRequest()
        request.update_remote_track_publication_dimension.track_publication_handle = (
            self._publication._ffi_handle.handle
        )
        request.update_remote_track_publication_dimension.width = size[0]
        request.update_remote_track_publication_dimension.height = size[1]
        FfiClient.instance.request(request)

    def end(self) -> None:
        """It is gone: all its streams end in this step."""
        self._gone = True
        if self._later is not None:
            self._later.cancel()
        for frames in list(self._streams):
            frames.end()
