"""A still picture as a source: a logo, a slide, "camera off". Floor 4.

Imports numpy; Pillow (extra ``media``) loads when a file is given, and not before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utd_fsm.errors import UTDInputError
from utd_fsm.media.arrays import checked_pixels, fitted, resized
from utd_fsm.media.video_sources import (
    LEAST_SIDE,
    MOST_SIDE,
    VideoReader,
    VideoSource,
    check_fps,
    check_side,
)

if TYPE_CHECKING:
    from utd_fsm.room import Pixels

LONGEST_SIDE = 1920
"""Pixels of the longer side, where no size is asked for: a photograph is not sent as it came from its camera."""

MOST_PIXELS = 50_000_000
"""Of a file: one that claims more is refused before it is decoded."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded. Not everything Pillow knows: it hands EPS to a program outside."""

_ALLOWED = "allowed: a picture file that can be read (PNG, JPEG, WebP, GIF, BMP, TIFF or PPM)"


class Image(VideoSource):
    """A still picture, sent again and again so that whoever joins late sees it too.

    It is read, decoded and scaled once, here, in the caller's thread; a file may change or go away afterwards. What is
    transparent becomes black, a photograph is turned as its camera says, and of an animation the first picture counts.

    Args:
        path_or_array: a file (PNG, JPEG, WebP, GIF, BMP, TIFF, PPM; needs Pillow, the extra ``media``), or a numpy
            array, uint8, shape (height, width, 3), RGB, which is copied and needs nothing more.
        width: pixels, even, 16 to 4096. With only one of the two, the other follows from the picture's proportions;
            with both, the picture is scaled into them, its proportions kept, with black bars. With neither, it keeps
            its size (one row or column less where that is odd), at most 1920 pixels at its longer side.
        height: the same.
        fps: how often a second it is sent, 1 to 60. Few are enough: a picture that stands costs next to nothing, and
            its first repetitions make it sharp.

    Raises:
        UTDInputError: an argument is out of its range; the file cannot be read, or is no picture; Pillow is missing.
    """

    def __init__(
        self,
        path_or_array: str | os.PathLike[str] | Any,
        *,
        width: int | None = None,
        height: int | None = None,
        fps: float = 5,
    ) -> None:
        self.fps = check_fps(fps)
        wide = None if width is None else check_side(width, "width")
        high = None if height is None else check_side(height, "height")
        self.path: Path | None = None
        """The file; None for an array."""
        if isinstance(path_or_array, str | os.PathLike):
            self.path = Path(path_or_array)
            pixels = _decoded(self.path)
        else:
            pixels = _own(path_or_array)
        self._picture = _sized(pixels, wide, high)
        self._picture.flags.writeable = False  # many sessions may send it
        self.height, self.width = self._picture.shape[:2]

    def open(self) -> VideoReader:
        return _ImageReader(self._picture)

    def __repr__(self) -> str:
        what = "array" if self.path is None else repr(str(self.path))
        return f"Image({what}, width={self.width}, height={self.height}, fps={self.fps:g})"


class _ImageReader(VideoReader):
    """Gives the picture once: what sends it repeats the last one by itself."""

    def __init__(self, picture: Pixels) -> None:
        self._picture: Pixels | None = picture

    def read(self) -> Pixels | None:
        picture, self._picture = self._picture, None
        return picture


def _own(array: object) -> Pixels:
    try:
        return checked_pixels(array, "path_or_array")
    except UTDInputError as error:
        raise UTDInputError(f"{error}; or a path to a picture file") from None


def _decoded(path: Path) -> Pixels:
    import numpy as np

    try:
        from PIL import Image as Pillow
        from PIL import ImageOps, UnidentifiedImageError
    except ImportError:
        raise UTDInputError(
            f"{path}: picture files are read by Pillow, which is not installed; allowed without it: a numpy array. "
            "Install it with: pip install 'utd-fsm[media]'"
        ) from None
    try:
        with path.open("rb") as file, Pillow.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise UTDInputError(
                    f"{path}: {opened.width} x {opened.height} pixels; allowed: at most {MOST_PIXELS:,} pixels"
                )
            # To colours first: turning an animation or a palette loses what they are.
            turned = ImageOps.exif_transpose(opened)
            if turned.mode.startswith("I"):  # grey of 16 bit, which Pillow would cut off at 255
                turned = Pillow.fromarray((np.clip(np.asarray(turned), 0, 65_535) >> 8).astype(np.uint8))
            coloured = turned.convert("RGBA")
            ground = Pillow.new("RGBA", coloured.size, (0, 0, 0, 255))
            return np.array(Pillow.alpha_composite(ground, coloured).convert("RGB"), dtype=np.uint8)
    except UTDInputError:
        raise
    except UnidentifiedImageError:
        raise UTDInputError(f"{path}: not a picture of a form that is supported; {_ALLOWED}") from None
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise UTDInputError(f"{path}: too large; allowed: at most {MOST_PIXELS:,} pixels") from error
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise UTDInputError(f"{path}: {why}; {_ALLOWED}") from error
    except Exception as error:  # a damaged file makes a decoder raise anything: SyntaxError, struct.error, EOFError
        raise UTDInputError(f"{path}: damaged ({type(error).__name__}: {error}); {_ALLOWED}") from error


def _sized(pixels: Pixels, width: int | None, height: int | None) -> Pixels:
    """In the size that is sent."""
    from_height, from_width = pixels.shape[:2]
    if width is not None and height is not None:
        share = min(width / from_width, height / from_height)
        inner = resized(pixels, _least(from_width * share, width), _least(from_height * share, height))
        return fitted(inner, width, height) if inner.shape[:2] != (height, width) else inner
    if width is not None:
        share = width / from_width
    elif height is not None:
        share = height / from_height
    else:
        share = min(1.0, LONGEST_SIDE / max(from_width, from_height))
    if share == 1.0:
        pixels = pixels[: from_height // 2 * 2, : from_width // 2 * 2].copy()
        to_width, to_height = pixels.shape[1], pixels.shape[0]
    else:
        to_width = width if width is not None else _even(from_width * share)
        to_height = height if height is not None else _even(from_height * share)
    for side, what in ((to_width, "width"), (to_height, "height")):
        if not LEAST_SIDE <= side <= MOST_SIDE:
            raise UTDInputError(
                f"{what}: a picture of {from_width} x {from_height} pixels would be sent with a {what} of {side}; "
                f"allowed: {LEAST_SIDE} to {MOST_SIDE}. Give both width and height, and it gets bars"
            )
    return resized(pixels, to_width, to_height)


def _least(side: float, most: int) -> int:
    return min(most, max(1, round(side)))


def _even(side: float) -> int:
    return 2 * round(side / 2)
