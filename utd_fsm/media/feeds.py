"""Live sources that the caller pushes into: a microphone and a camera made of arrays.

Pushing never blocks and may happen in any thread, before anybody reads too. Each reader (each session that sends the
feed) has its own bounded queue, out of which the oldest is dropped and counted.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from utd_fsm import validation
from utd_fsm.media.arrays import checked_pixels, checked_sound
from utd_fsm.media.sources import AudioReader, AudioSource, _Converting, check_channels, check_rate
from utd_fsm.media.video_sources import VideoReader, VideoSource, check_fps, check_size

if TYPE_CHECKING:
    from utd_fsm.room import Pixels, Samples


P = TypeVar("P", contravariant=True)


class _Reader(Protocol[P]):
    def add(self, piece: P, /) -> int: ...
    def finish(self) -> None: ...


R = TypeVar("R", bound="_Reader[Any]")


class _Fan(Generic[R]):
    """The readers of one feed. What is pushed before anybody reads goes to one made in advance, for the first."""

    def __init__(self, make: Callable[[], R]) -> None:
        self._lock = threading.Lock()
        self._make = make
        self._readers: weakref.WeakSet[R] = weakref.WeakSet()
        self._early: R | None = make()
        self.closed = False
        self.dropped = 0

    def push(self, piece: Any, size: int) -> int:
        """Give it to everybody; how much the fullest lost for it. All of its `size` when closed."""
        with self._lock:
            if self.closed:
                self.dropped += size
                return size
            lost = [reader.add(piece) for reader in self._all()]
            self.dropped += sum(lost)
            return max(lost, default=0)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            for reader in self._all():
                reader.finish()

    def open(self) -> R:
        with self._lock:
            reader, self._early = self._early or self._make(), None
            if self.closed:
                reader.finish()
            self._readers.add(reader)
            return reader

    def leave(self, reader: R) -> None:
        with self._lock:
            self._readers.discard(reader)

    def _all(self) -> list[R]:
        return [self._early] if self._early else list(self._readers)


class AudioFeed(AudioSource):
    """Sound that the caller pushes as it comes into being.

    What is pushed before anybody reads waits for the first reader, as far as the queue holds; a later reader begins
    with what is pushed from then on. What is pushed faster than it is heard fills the queue and then drops the oldest:
    for speech that is made at once give enough `seconds`, for a device few, since what waits is delay.

    Args:
        sample_rate: 8000 to 192,000.
        channels: 1 or 2 (stereo becomes mono).
        seconds: what each reader's queue holds, 0.02 to 3600.

    Raises:
        UTDInputError: an argument is out of its range.
    """

    def __init__(self, sample_rate: int = 48_000, channels: int = 1, *, seconds: float = 1.0) -> None:
        self.sample_rate = check_rate(sample_rate)
        self.channels = check_channels(channels)
        length = validation.number(seconds, "seconds", least=0.02, most=3600, unit="s")
        self._capacity = round(length * self.sample_rate)
        self._fan = _Fan(lambda: _FeedReader(self))

    @property
    def dropped(self) -> int:
        """Samples (a channel each) lost so far, in all readers together."""
        return self._fan.dropped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fan.closed

    def push(self, samples: object) -> int:
        """Send a piece of sound. Never blocks. Any thread; the array is copied.

        Args:
            samples: int16, or floats from -1 to 1, of shape (n, channels), or (n,) for one channel; any n.

        Returns:
            Samples (a channel each) that were dropped to make room, in the fullest queue; 0 when all is well. After
            `close` everything is.

        Raises:
            UTDInputError: another dtype, shape or range.
        """
        piece = checked_sound(samples, self.channels, "samples")
        return self._fan.push(piece, len(piece))

    def close(self) -> None:
        """No more will come: readers finish what is queued, a `play` of it then returns. Idempotent. Any thread."""
        self._fan.close()

    def open(self) -> AudioReader:
        return self._fan.open()

    def _leave(self, reader: _FeedReader) -> None:
        self._fan.leave(reader)

    def __repr__(self) -> str:
        return f"AudioFeed({self.sample_rate}, {self.channels})"


class _FeedReader(_Converting):
    def __init__(self, feed: AudioFeed) -> None:
        super().__init__(feed.sample_rate)
        self._feed = feed
        self._capacity = feed._capacity
        self._news = threading.Condition()
        self._queue: deque[Samples] = deque()
        self._held = 0
        self._finished = False

    def add(self, piece: Samples) -> int:
        """Queue it; how many of the oldest samples had to go."""
        with self._news:
            if self._finished:
                return 0
            self._queue.append(piece)
            self._held += len(piece)
            lost = over = max(0, self._held - self._capacity)
            while over:
                oldest = self._queue[0]
                if len(oldest) <= over:
                    self._queue.popleft()
                else:
                    self._queue[0] = oldest[over:]
                over -= min(over, len(oldest))
            self._held -= lost
            self._news.notify_all()
            return lost

    def finish(self) -> None:
        with self._news:
            self._finished = True
            self._news.notify_all()

    def _more(self) -> Samples | None:
        with self._news:
            while not self._queue:
                if self._finished:
                    return None
                self._news.wait()
            piece = self._queue.popleft()
            self._held -= len(piece)
            return piece

    def close(self) -> None:
        self._feed._leave(self)
        with self._news:
            self._queue.clear()
            self._held = 0
        self.finish()


class VideoFeed(VideoSource):
    """Pictures that the caller pushes as they come into being. Only the newest waits; it is repeated until the next.

    Args:
        width: pixels, even, 16 to 4096.
        height: pixels, even, 16 to 4096.
        fps: at most so many pictures a second are sent, 1 to 60.

    Raises:
        UTDInputError: an argument is out of its range.
    """

    def __init__(self, width: int, height: int, fps: float = 15) -> None:
        self.width, self.height = check_size(width, height)
        self.fps = check_fps(fps)
        self._fan = _Fan(lambda: _VideoFeedReader(self))

    @property
    def dropped(self) -> int:
        """Pictures replaced by a newer one before they were sent, in all readers together."""
        return self._fan.dropped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fan.closed

    def push(self, pixels: object) -> int:
        """Send a picture. Never blocks. Any thread; the array is copied.

        Args:
            pixels: uint8, shape (height, width, 3), RGB, of just the feed's size.

        Returns:
            1 when it replaced one that no reader had taken yet (or the feed is closed), else 0.

        Raises:
            UTDInputError: another dtype or shape.
        """
        picture = checked_pixels(pixels, "pixels", size=(self.width, self.height))
        return self._fan.push(picture, 1)

    def close(self) -> None:
        """No more will come; the last picture stays. Idempotent. Any thread."""
        self._fan.close()

    def open(self) -> VideoReader:
        return self._fan.open()

    def _leave(self, reader: _VideoFeedReader) -> None:
        self._fan.leave(reader)

    def __repr__(self) -> str:
        return f"VideoFeed({self.width}, {self.height}, fps={self.fps:g})"


class _VideoFeedReader(VideoReader):
    def __init__(self, feed: VideoFeed) -> None:
        self._feed = feed
        self._news = threading.Condition()
        self._newest: Pixels | None = None
        self._finished = False

    def add(self, picture: Pixels) -> int:
        with self._news:
            if self._finished:
                return 0
            lost = int(self._newest is not None)
            self._newest = picture
            self._news.notify_all()
            return lost

    def finish(self) -> None:
        with self._news:
            self._finished = True
            self._news.notify_all()

    def read(self) -> Pixels | None:
        with self._news:
            while self._newest is None:
                if self._finished:
                    return None
                self._news.wait()
            picture, self._newest = self._newest, None
            return picture

    def close(self) -> None:
        self._feed._leave(self)
        with self._news:
            self._newest = None
        self.finish()
