"""What a camera or a screen can send: recipes of pictures.

As with sound (`utd_fsm.media.sources`), a source is a recipe, opened afresh by each session and read on a thread of its
own. Sizes are even: the encoders halve the resolution of colour.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from utd_fsm import validation
from utd_fsm.errors import UTDInputError
from utd_fsm.media.arrays import checked_pixels, fitted
from utd_fsm.media.iterables import Claim, OneShot

if TYPE_CHECKING:
    from utd_fsm.room import Pixels

LEAST_SIDE, MOST_SIDE = 16, 4096
MOST_FPS = 60


class VideoReader(ABC):
    """One opening of a `VideoSource`. Read by one thread at a time; closed from any."""

    @abstractmethod
    def read(self) -> Pixels | None:
        """The next picture, of the source's size; None when it is finished. May block.

        Raises:
            Exception: whatever the caller's own iterable raises.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Give back what it holds; a `read` that waits returns. Idempotent."""


class VideoSource(ABC):
    """A recipe of pictures."""

    width: int
    """Pixels, even."""
    height: int
    """Pixels, even."""
    fps: float
    """Pictures a second."""

    @abstractmethod
    def open(self) -> VideoReader:
        """A new reading from the beginning. Quick; runs no code of the caller's. Any thread.

        Raises:
            UTDStateError: it can be read only once, and was.
        """


def require_video_source(source: object, what: str = "source") -> VideoSource:
    """The source itself.

    Raises:
        UTDInputError: it is something else.
    """
    if isinstance(source, VideoSource):
        return source
    raise UTDInputError(
        f"{what}: got {type(source).__name__}; allowed: TestPattern, Image, VideoFrames or VideoFeed of utd_fsm.media "
        "(a file or one array: Image(…); many arrays: VideoFrames(…, fps))"
    )


def check_size(width: object, height: object) -> tuple[int, int]:
    """Width and height in pixels: even numbers from 16 to 4096."""
    return check_side(width, "width"), check_side(height, "height")


def check_side(value: object, what: str) -> int:
    """Pixels: an even number from 16 to 4096."""
    side = validation.integer(value, what, least=LEAST_SIDE, most=MOST_SIDE)
    if side % 2:
        raise UTDInputError(f"{what}: {side}; allowed: an even number of pixels from {LEAST_SIDE} to {MOST_SIDE}")
    return side


def check_fps(value: object) -> float:
    """Pictures a second: 1 to 60."""
    return validation.number(value, "fps", least=1, most=MOST_FPS)


_WHITE, _YELLOW, _CYAN, _GREEN = (235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16)
_MAGENTA, _RED, _BLUE = (235, 16, 235), (235, 16, 16), (16, 16, 235)
_COLOURS = (_WHITE, _YELLOW, _CYAN, _GREEN, _MAGENTA, _RED, _BLUE)


class TestPattern(VideoSource):
    """Coloured bars that move, and below them the number of the picture.

    The number stands in the lowest eighth of the picture as 16 blocks, white for 1 and black for 0, the most
    significant at the left; `number_in` reads it back, even after a lossy codec.

    Args:
        width: pixels, even, 16 to 4096.
        height: pixels, even, 16 to 4096.
        fps: pictures a second, 1 to 60.

    Raises:
        UTDInputError: an argument is out of its range.
    """

    __test__ = False  # pytest would take it for a class of tests
    BITS = 16

    def __init__(self, width: int = 640, height: int = 360, fps: float = 15) -> None:
        self.width, self.height = check_size(width, height)
        self.fps = check_fps(fps)

    def open(self) -> VideoReader:
        return _PatternReader(self.width, self.height)

    @classmethod
    def number_in(cls, pixels: Pixels) -> int:
        """The number of a picture of this pattern, modulo 65,536; scaled or recompressed pictures can be read too."""
        height, width = pixels.shape[:2]
        row = pixels[height - max(1, height // 16)].astype(np.int32).sum(axis=1)
        middles = ((np.arange(cls.BITS) + 0.5) * width / cls.BITS).astype(int)
        return sum(1 << (cls.BITS - 1 - index) for index in range(cls.BITS) if row[middles[index]] > 3 * 127)

    def __repr__(self) -> str:
        return f"TestPattern({self.width}, {self.height}, fps={self.fps:g})"


class _PatternReader(VideoReader):
    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._number = 0
        self._step = max(2, width // 80)
        colours = np.array(_COLOURS, dtype=np.uint8)
        # Two widths of bars, once: each picture is a window into it that moves on.
        self._bars = colours[np.arange(2 * width) * len(colours) // width % len(colours)]
        self._bits = np.arange(width) * TestPattern.BITS // width

    def read(self) -> Pixels | None:
        number, self._number = self._number, self._number + 1
        at = number * self._step % self._width
        picture = np.empty((self._height, self._width, 3), dtype=np.uint8)
        picture[:] = self._bars[at : at + self._width]
        ones = (number >> (TestPattern.BITS - 1 - self._bits)) & 1
        picture[-max(2, self._height // 8) :] = (ones * 235).astype(np.uint8)[:, None]
        return picture


class VideoFrames(VideoSource):
    """Pictures out of the caller's own iterable, taken as they are needed, `fps` of them a second.

    What may be iterated once or often, and what an exception in it leads to, is as with `AudioFrames`. A picture of
    another size than the source's is scaled into it, its proportions kept, with black bars.

    Args:
        iterable: numpy arrays, uint8, shape (height, width, 3), RGB; or a function that returns such an iterable.
        fps: pictures a second, 1 to 60.
        width: pixels, even, 16 to 4096. Left out: that of the first picture, where `iterable` is a list or tuple
            (rounded down to an even number), and 640 otherwise.
        height: the same; 360 otherwise.

    Raises:
        UTDInputError: an argument is out of its range.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | Callable[[], Iterable[Any]],
        fps: float,
        *,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        self._once = OneShot(iterable, "VideoFrames")
        self.fps = check_fps(fps)
        if (width is None) != (height is None):
            raise UTDInputError("width and height: only one of them is given; allowed: both, or neither")
        if width is None:
            width, height = 640, 360
            if isinstance(iterable, Sequence) and len(iterable):
                first = checked_pixels(iterable[0], "picture 1 of a VideoFrames")
                height, width = (int(side) // 2 * 2 for side in first.shape[:2])
        self.width, self.height = check_size(width, height)

    def open(self) -> VideoReader:
        return _FramesReader(self._once.claim(), self.width, self.height)

    def __repr__(self) -> str:
        return f"VideoFrames({self._once}, {self.fps:g}, width={self.width}, height={self.height})"


class _FramesReader(VideoReader):
    def __init__(self, claim: Claim, width: int, height: int) -> None:
        self._claim = claim
        self._size = width, height
        self._number = 0

    def read(self) -> Pixels | None:
        for picture in self._claim.items():
            self._number += 1
            return fitted(checked_pixels(picture, f"picture {self._number} of a VideoFrames"), *self._size)
        return None

    def close(self) -> None:
        self._claim.release()
