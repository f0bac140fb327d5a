"""What the media tests share: pitch, pacing by gates, and stand-ins that keep the room's protocols."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from utd_fsm.errors import UTDConnectionError, UTDInputError
from utd_fsm.media import AudioFrames
from utd_fsm.media.outgoing import QUEUED_CHUNKS, Microphone
from utd_fsm.models import UTDTrackSource

if TYPE_CHECKING:
    from utd_fsm.media.pulling import Puller
    from utd_fsm.room import Pixels, Samples

T = TypeVar("T")

LONG = 60.0
"""Seconds after which something will never happen."""


def pitch(samples: npt.NDArray[Any], rate: int = 48_000) -> float:
    """The strongest frequency in Hz, to a small fraction of one."""
    flat = samples.reshape(-1).astype(np.float64)
    windowed = flat * np.hanning(len(flat))
    spectrum = np.abs(np.fft.rfft(windowed, 1 << (len(flat) * 4 - 1).bit_length()))
    peak = int(spectrum.argmax())
    left, top, right = np.log(spectrum[peak - 1 : peak + 2])
    offset = (left - right) / (2 * (left - 2 * top + right))
    return float((peak + offset) * rate / ((len(spectrum) - 1) * 2))


def roughness(samples: npt.NDArray[Any], hz: float, rate: int = 48_000) -> float:
    """The largest jump from sample to sample, as a multiple of what a pure tone as loud has. A click is far over 1."""
    flat = samples.reshape(-1).astype(np.float64)
    purest = 2 * np.abs(flat).max() * np.sin(np.pi * hz / rate)
    return float(np.abs(np.diff(flat)).max() / purest)


async def until(true: Callable[[], object], what: str = "it") -> None:
    """Wait for a thread or a task to have come somewhere."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, f"{what} never came"
        await asyncio.sleep(0.001)


class Tasks:
    """The part of the portal that media uses, on the test's own loop."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.errors: list[BaseException] = []

    def spawn(self, coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)


class FakePublication:
    """A track whose queue has room for as many pieces as the test lets through."""

    source = UTDTrackSource.MICROPHONE
    muted = False

    def __init__(self, sid: str = "TR_fake") -> None:
        self.sid = sid
        self.closed = False
        self.broken = False
        self.frames: list[npt.NDArray[Any]] = []
        self.drains = 0
        self.refusals = 0
        self.capturing = 0
        self.playing_out = asyncio.Event()
        self.playing_out.set()
        self._room = asyncio.Semaphore(0)

    async def set_muted(self, muted: bool) -> None:
        raise AssertionError("the session's matter")

    async def capture(self, frame: npt.NDArray[Any]) -> None:
        if self.broken:
            self.refusals += 1
            raise UTDConnectionError("seeded")
        self.capturing += 1
        # LiveKit's source refuses a capture while another waits for room (InvalidState).
        assert self.capturing == 1, "two captures at once"
        try:
            await self._room.acquire()
        finally:
            self.capturing -= 1
        if not self.closed:
            self.frames.append(frame.copy())

    async def drained(self) -> None:
        self.drains += 1
        await self.playing_out.wait()

    async def let(self, count: int) -> list[npt.NDArray[Any]]:
        """Take `count` more pieces; returns them."""
        before = len(self.frames)
        for _ in range(count):
            self._room.release()
        await until(lambda: len(self.frames) >= before + count, f"piece {before + count}")
        return self.frames[before : before + count]

    def close(self) -> None:
        """Unpublished: whoever captures is let go."""
        self.closed = True
        for _ in range(1000):
            self._room.release()

    @property
    def sound(self) -> Samples:
        """Everything that was sent."""
        return np.concatenate(self.frames)


class FakeFrames(Generic[T]):
    """An asynchronous iterator over what the test puts."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self.dropped = 0
        self.closed = False
        self._queue: deque[T] = deque()
        self._news = asyncio.Event()
        self._on_close = on_close

    def put(self, item: T) -> None:
        self._queue.append(item)
        self._news.set()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._queue:
            if self.closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._queue.popleft()

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self._news.set()
            self._on_close()


class FakeTrack:
    """A remote track that says what the test makes it say, to all its streams."""

    muted = False

    def __init__(
        self,
        sid: str,
        identity: str,
        kind: Literal["audio", "video"] = "audio",
        source: UTDTrackSource | None = None,
    ) -> None:
        self.sid = sid
        self.identity = identity
        self.kind: Literal["audio", "video"] = kind
        self.source = source or (UTDTrackSource.MICROPHONE if kind == "audio" else UTDTrackSource.CAMERA)
        self.opened: list[tuple[int, int]] = []
        self.streams: list[FakeFrames[Any]] = []
        self.wanted: list[tuple[bool, tuple[int, int] | None]] = []

    def audio(self, *, sample_rate: int = 48_000, channels: int = 1) -> FakeFrames[Samples]:
        if self.kind != "audio":
            raise UTDInputError("a video track")
        self.opened.append((sample_rate, channels))
        return self._open()

    def video(self) -> FakeFrames[Pixels]:
        if self.kind != "video":
            raise UTDInputError("an audio track")
        self.opened.append((0, 0))
        return self._open()

    def set_wanted(self, wanted: bool, size: tuple[int, int] | None = None) -> None:
        self.wanted.append((wanted, size))

    def _open(self) -> FakeFrames[Any]:
        frames: FakeFrames[Any] = FakeFrames(lambda: self.streams.remove(frames))
        self.streams.append(frames)
        return frames

    async def say(self, *frames: npt.NDArray[Any]) -> None:
        """Give these to every stream, and let them be delivered."""
        for frame in frames:
            for stream in list(self.streams):
                stream.put(frame)
        for stream in list(self.streams):
            await until(lambda stream=stream: not stream._queue or stream.closed)  # type: ignore[misc]
        await asyncio.sleep(0)


AHEAD = 1
"""Pieces that were mixed before a change: the one in hand."""


def numbered(begin: int = 1, end: int = 10_000) -> Iterator[Samples]:
    """20 ms each, all of one value, which counts up: every piece can be told from its neighbours."""
    for number in range(begin, end):
        yield np.full((960, 1), number, dtype=np.int16)


def counting(begin: int = 1, end: int = 10_000) -> AudioFrames:
    return AudioFrames(lambda: numbered(begin, end), 48_000, 1)


def numbers(frames: list[Any]) -> list[int]:
    """The value of each piece; every piece must be of one value."""
    for frame in frames:
        assert frame.dtype == np.int16
        assert frame.shape == (960, 1)
        assert (frame == frame[0, 0]).all()
    return [int(frame[0, 0]) for frame in frames]


async def filled(puller: Puller[Any] | None, count: int = QUEUED_CHUNKS) -> None:
    assert puller is not None
    await until(lambda: len(puller._queue) >= count or puller._over, "a full queue")


async def hear(mic: Microphone, publication: FakePublication, count: int) -> list[Any]:
    """Let so many pieces out, never faster than the source is pulled."""
    frames: list[Any] = []
    for _ in range(count):
        await filled(mic._voice, 2)
        frames += await publication.let(1)
    return frames


_earlier: set[threading.Thread] = set()


def forget_earlier_threads() -> None:
    """What runs now is not this test's: an iterable of the application that blocks for ever keeps its daemon thread."""
    _earlier.clear()
    _earlier.update(threading.enumerate())


def threads_called(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == name and thread not in _earlier]


def pulling_threads() -> list[str]:
    return threads_called("utd-fsm-mic")
