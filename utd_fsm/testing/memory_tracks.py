"""Tracks of the memory room: arrays go from a publication to its subscribers' streams. Floor 7; loop thread only.

There is no codec: what arrives is what was captured, resampled and cut into frames of 20 ms. See `memory_room`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from utd_fsm.errors import UTDInputError
from utd_fsm.livekit_tracks import AUDIO_QUEUE_MS, AUDIO_WAITING, FRAME_MS, check_pixels, check_samples
from utd_fsm.models import UTDTrack, UTDTrackSource

if TYPE_CHECKING:
    import numpy.typing as npt

    from utd_fsm.room import Pixels, Samples

T = TypeVar("T")


@dataclass(eq=False)
class Track:
    """A track as the server keeps it: what is published, and who listens."""

    sid: str
    source: UTDTrackSource
    kind: Literal["audio", "video"]
    owner: str
    width: int = 0
    height: int = 0
    simulcast: bool = False
    sample_rate: int = 48000
    muted: bool = False
    live: bool = True
    """False once the server took it down, which its publisher is not told (LiveKit fact 4)."""
    subscribed: bool = False
    listeners: list[MemoryRemoteTrack] = field(default_factory=list)

    @property
    def described(self) -> UTDTrack:
        """As it is listed with its participant."""
        return UTDTrack(self.sid, self.source, self.kind, self.muted, self.width, self.height)


class MemoryFrames(Generic[T]):
    """A bounded queue of frames; ends when its track goes, and drops the oldest for a slow reader."""

    def __init__(
        self, convert: Callable[[npt.NDArray[Any]], list[T]], capacity: int, on_end: Callable[[], None]
    ) -> None:
        self.dropped = 0
        self._convert = convert
        self._waiting: deque[T] = deque()
        self._capacity = capacity
        self._on_end = on_end
        self._news = asyncio.Event()
        self._ended = False

    def put(self, frame: npt.NDArray[Any]) -> None:
        """Take one captured frame."""
        if self._ended:
            return
        for piece in self._convert(frame):
            if len(self._waiting) >= self._capacity:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(piece)
        if self._waiting:
            self._news.set()

    def end(self) -> None:
        """Stop delivery now."""
        if not self._ended:
            self._ended = True
            self._waiting.clear()
            self._news.set()
            self._on_end()

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


class Cutter:
    """Turns captured sound of one rate and channel count into frames of 20 ms of another, keeping the remainder."""

    def __init__(self, rate_in: int, rate_out: int, channels_out: int) -> None:
        self._step = rate_in / rate_out
        self._length = rate_out * FRAME_MS // 1000
        self._channels = channels_out
        self._source = np.empty((0, channels_out), dtype=np.float64)
        self._position = 0.0
        self._ready = np.empty((0, channels_out), dtype=np.int16)

    def __call__(self, frame: npt.NDArray[Any]) -> list[Samples]:
        if frame.shape[1] != self._channels:
            frame = np.repeat(frame.mean(axis=1, keepdims=True), self._channels, axis=1)
        new = frame.astype(np.int16) if self._step == 1.0 else self._resample(frame)
        self._ready = np.concatenate([self._ready, new])
        count = len(self._ready) // self._length
        pieces = [self._ready[n * self._length : (n + 1) * self._length].copy() for n in range(count)]
        self._ready = self._ready[count * self._length :]
        return pieces

    def _resample(self, frame: npt.NDArray[Any]) -> Samples:
        """Linear interpolation, continuous from frame to frame: good enough to tell a tone by its pitch."""
        self._source = np.concatenate([self._source, frame.astype(np.float64)])
        count = max(0, int((len(self._source) - 1 - self._position) / self._step) + 1) if len(self._source) > 1 else 0
        at = self._position + np.arange(count) * self._step
        whole = np.minimum(at.astype(np.int64), len(self._source) - 2)
        share = (at - whole)[:, None]
        new = self._source[whole] * (1 - share) + self._source[whole + 1] * share if count else self._source[:0]
        self._position += count * self._step
        used = min(int(self._position), max(len(self._source) - 1, 0))
        self._source = self._source[used:]
        self._position -= used
        return np.rint(new).astype(np.int16)


class MemoryRemoteTrack:
    """A subscribed track of somebody else."""

    def __init__(self, track: Track, *, adaptive: bool) -> None:
        self._track = track
        self._rate = track.sample_rate
        self._adaptive = adaptive
        self._streams: list[MemoryFrames[Any]] = []
        self._gone = False
        self._sent = not (adaptive and track.kind == "video")
        self._stride = 1
        self.sid = track.sid
        self.identity = track.owner
        self.source = track.source
        self.kind: Literal["audio", "video"] = track.kind
        self.muted = track.muted
        track.listeners.append(self)

    def audio(self, *, sample_rate: int = 48000, channels: int = 1) -> MemoryFrames[Samples]:
        if self.kind != "audio":
            raise UTDInputError(f"track {self.sid} carries video; use video()")
        return self._reading(Cutter(self._rate, sample_rate, channels), AUDIO_WAITING)

    def video(self) -> MemoryFrames[Pixels]:
        if self.kind != "video":
            raise UTDInputError(f"track {self.sid} carries audio; use audio()")

        def layer(frame: npt.NDArray[Any]) -> list[Pixels]:
            return [frame[:: self._stride, :: self._stride].copy()]

        return self._reading(layer, 1)

    def _reading(self, convert: Callable[[npt.NDArray[Any]], list[T]], capacity: int) -> MemoryFrames[T]:
        frames: MemoryFrames[T] = MemoryFrames(convert, capacity, lambda: self._stopped(frames))
        self._streams.append(frames)
        if self._gone:
            frames.end()
        elif self._adaptive:
            self._sent = True
        return frames

    def _stopped(self, frames: MemoryFrames[Any]) -> None:
        if frames in self._streams:
            self._streams.remove(frames)
        if self._adaptive and not self._streams and self.kind == "video":
            self._sent = False

    def set_wanted(self, wanted: bool, size: tuple[int, int] | None = None) -> None:
        if self._gone or self.kind != "video":
            return
        self._sent = wanted
        if wanted and self._track.simulcast:
            share = 1.0 if size is None else max(size[0] / self._track.width, size[1] / self._track.height)
            self._stride = 4 if share <= 0.25 else 2 if share <= 0.5 else 1

    def put(self, frame: npt.NDArray[Any]) -> None:
        """Take one captured frame from the publisher."""
        if self._sent and not self._gone:
            for stream in list(self._streams):
                stream.put(frame)

    def end(self) -> None:
        """It is gone: all its streams end in this step."""
        self._gone = True
        if self in self._track.listeners:
            self._track.listeners.remove(self)
        for stream in list(self._streams):
            stream.end()


class MemoryPublication:
    """A published track of the memory room."""

    def __init__(
        self,
        track: Track,
        *,
        channels: int,
        paced: bool,
        reachable: Callable[[], bool],
        on_mute: Callable[[Track], None],
    ) -> None:
        self.track = track
        self.source = track.source
        self.closed = False
        self._rate = track.sample_rate
        self._channels = channels
        self._paced = paced
        self._reachable = reachable
        self._on_mute = on_mute
        self._muted = False
        self._sent_until = 0.0

    @property
    def sid(self) -> str:
        return self.track.sid

    @property
    def muted(self) -> bool:
        return self._muted

    async def set_muted(self, muted: bool) -> None:
        if self.closed or muted == self._muted:
            return
        self._muted = self.track.muted = muted
        self._on_mute(self.track)

    def saw_muted(self, muted: bool) -> bool:
        """Fold the server's word on it; returns whether it was news."""
        news = muted != self._muted
        self._muted = muted
        return news

    async def capture(self, frame: npt.NDArray[Any]) -> None:
        if self.closed:
            return
        if self.track.kind == "audio":
            check_samples(frame, self._channels)
            await self._pace(len(frame) / self._rate)
        else:
            check_pixels(frame)
        if self._is_heard():
            for listener in list(self.track.listeners):
                listener.put(frame)

    def _is_heard(self) -> bool:
        return not self.closed and not self._muted and self.track.live and self._reachable()

    async def _pace(self, seconds: float) -> None:
        """Make the caller wait as a queue of 100 ms would; without pacing, only let others run."""
        if not self._paced:
            await asyncio.sleep(0)
            return
        now = asyncio.get_running_loop().time()
        self._sent_until = max(self._sent_until, now) + seconds
        await asyncio.sleep(max(0.0, self._sent_until - now - AUDIO_QUEUE_MS / 1000))

    async def drained(self) -> None:
        if self._paced and not self.closed and self.track.kind == "audio":
            await asyncio.sleep(max(0.0, self._sent_until - asyncio.get_running_loop().time()))

    def close(self) -> None:
        """End it here. Idempotent."""
        self.closed = True
