"""What is heard and seen: one piece of somebody's sound, one picture. Plain values; nothing here does I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utd_fsm.room import Pixels, Samples

RATE = 48_000
"""Samples a second of everything that is sent and recorded."""
CHUNK = RATE // 50
"""Samples of 20 ms: the piece in which sound is pulled, sent and heard."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """20 ms of one participant's sound.

    The array is this reader's own: it may be kept and written to.
    """

    samples: Samples
    """int16, shape (n, channels)."""
    sample_rate: int
    """Samples a second in each channel."""
    channels: int
    """1 or 2."""
    identity: str
    """Whose sound it is."""
    timestamp: float
    """Monotonic seconds (``time.monotonic()``) at which it arrived."""
    dropped: int = 0
    """Frames of this stream that were lost right before this one, because they were not read in time."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One picture of one participant. The array is this reader's own: it may be kept and written to."""

    pixels: Pixels
    """uint8, shape (height, width, 3), RGB."""
    identity: str
    """Whose picture it is."""
    timestamp: float
    """Monotonic seconds (``time.monotonic()``) at which it arrived."""
    dropped: int = 0
    """Pictures that came since the last one read and were replaced by this newer one."""

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[0])


def mark_audio(frame: AudioFrame, lost: int) -> AudioFrame:
    """The frame, telling that `lost` more were lost before it."""
    return replace(frame, dropped=frame.dropped + lost)


def mark_video(frame: VideoFrame, lost: int) -> VideoFrame:
    """The frame, telling that `lost` more were lost before it."""
    return replace(frame, dropped=frame.dropped + lost)
