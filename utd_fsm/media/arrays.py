"""Sound and pictures as numpy arrays: checked, converted, resampled, scaled. Pure but for the resampler's own memory.

Imports numpy; ``livekit`` loads when something has to be resampled, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from utd_fsm.errors import UTDInputError
from utd_fsm.media.frames import RATE

if TYPE_CHECKING:
    from utd_fsm.room import Pixels, Samples

FULL_SCALE = 32767
LEAST_RATE, MOST_RATE = 8_000, 192_000
MOST_CHANNELS = 2


def checked_sound(array: object, channels: int, what: str) -> Samples:
    """The caller's sound as int16 of shape (n, channels): a copy, so that the caller may reuse the array.

    Args:
        array: int16, or a float dtype from -1 to 1; shape (n, channels), or (n,) where there is one channel.
        channels: 1 or 2.
        what: names the argument in errors.

    Raises:
        UTDInputError: not an array, another dtype, another shape, or floats that are not numbers from -1 to 1.
    """
    allowed = "allowed: a numpy array of int16, or of floats from -1 to 1, "
    allowed += "of shape (n,) or (n, 1)" if channels == 1 else f"of shape (n, {channels})"
    if not isinstance(array, np.ndarray):
        raise UTDInputError(f"{what}: got {type(array).__name__}; {allowed}")
    shaped = array.reshape(-1, 1) if array.ndim == 1 and channels == 1 else array
    if shaped.ndim != 2 or shaped.shape[1] != channels:
        raise UTDInputError(f"{what}: shape {array.shape}; {allowed}")
    if shaped.dtype == np.int16:
        return shaped.astype(np.int16, copy=True)
    if shaped.dtype.kind != "f":
        raise UTDInputError(f"{what}: dtype {array.dtype}; {allowed}")
    # Comparing this way round refuses NaN too.
    if shaped.size and not bool(np.all(np.abs(shaped) <= 1.0)):
        raise UTDInputError(f"{what}: values outside -1 to 1 (or not numbers); {allowed}; divide by the largest first")
    return np.rint(shaped.astype(np.float64) * FULL_SCALE).astype(np.int16)


def checked_pixels(array: object, what: str, *, size: tuple[int, int] | None = None) -> Pixels:
    """The caller's picture as uint8 of shape (height, width, 3): a copy.

    Args:
        array: uint8, RGB.
        what: names the argument in errors.
        size: (width, height) it must have; None allows any.

    Raises:
        UTDInputError: not an array, another dtype, another shape, or empty.
    """
    shape = "(height, width, 3)" if size is None else f"({size[1]}, {size[0]}, 3)"
    allowed = f"allowed: a numpy array of uint8 of shape {shape}, RGB"
    if not isinstance(array, np.ndarray):
        raise UTDInputError(f"{what}: got {type(array).__name__}; {allowed}")
    if array.dtype != np.uint8:
        raise UTDInputError(f"{what}: dtype {array.dtype}; {allowed}")
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise UTDInputError(f"{what}: shape {array.shape}; {allowed}")
    if size is not None and array.shape[:2] != (size[1], size[0]):
        raise UTDInputError(f"{what}: shape {array.shape}; {allowed}")
    return np.array(array, dtype=np.uint8, order="C", copy=True)


def mono(samples: Samples) -> Samples:
    """One channel of shape (n, 1): the mean of what there are."""
    if samples.shape[1] == 1:
        return samples
    both: Samples = np.rint(samples.astype(np.int32).mean(axis=1, keepdims=True)).astype(np.int16)
    return both


def saturated(mixed: npt.NDArray[Any]) -> Samples:
    """A sum of sounds as int16: what is too loud is cut off, and never wraps around."""
    cut: Samples = np.clip(np.rint(mixed), -FULL_SCALE - 1, FULL_SCALE).astype(np.int16)
    return cut


def fitted(pixels: Pixels, width: int, height: int) -> Pixels:
    """The picture scaled to fit into `width` by `height`, its proportions kept, black bars where it does not fill it.

    Nearest neighbour: meant for sources whose pictures now and then have another size, not as a scaler of films.
    """
    from_height, from_width = pixels.shape[:2]
    if (from_width, from_height) == (width, height):
        return pixels
    scale = min(width / from_width, height / from_height)
    to_width = min(width, max(1, round(from_width * scale)))
    to_height = min(height, max(1, round(from_height * scale)))
    rows = np.arange(to_height) * from_height // to_height
    columns = np.arange(to_width) * from_width // to_width
    out = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - to_height) // 2, (width - to_width) // 2
    out[top : top + to_height, left : left + to_width] = pixels[rows[:, None], columns]
    return out


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """The picture in just this size: each new pixel the weighted mean of those around it (a triangle filter).

    Slow and smooth, for pictures that are scaled once: text stays readable.
    """
    by_rows = _resized_rows(pixels, height)
    return np.ascontiguousarray(_resized_rows(by_rows.swapaxes(0, 1), width).swapaxes(0, 1))


def _resized_rows(pixels: Pixels, count: int) -> Pixels:
    before = pixels.shape[0]
    if before == count:
        return pixels
    scale = before / count
    reach = max(1.0, scale)
    middles = (np.arange(count) + 0.5) * scale
    first = np.floor(middles - reach + 0.5).astype(np.int64)
    out = np.zeros((count, *pixels.shape[1:]), dtype=np.float32)
    total = np.zeros(count, dtype=np.float32)
    for offset in range(int(np.ceil(2 * reach)) + 1):
        taken = first + offset
        weight = np.maximum(0.0, 1.0 - np.abs(taken + 0.5 - middles) / reach).astype(np.float32)
        out += weight[:, None, None] * pixels[np.clip(taken, 0, before - 1)]
        total += weight
    out /= total[:, None, None]
    return np.rint(out).astype(np.uint8)


class Resampler:
    """Mono sound of any rate to 48 kHz, piece by piece without a seam.

    LiveKit's own (SoX), measured from 8 to 192 kHz: within 3 of 32767 of the true sine, the length exact. It holds back
    about 10 to 70 ms until `flush`. One thread at a time.
    """

    def __init__(self, rate: int) -> None:
        self._native: Any = None
        if rate != RATE:
            from livekit import rtc

            self._native = rtc.AudioResampler(rate, RATE, quality=rtc.AudioResamplerQuality.MEDIUM)

    def push(self, samples: Samples) -> Samples:
        """What can be told after this piece of shape (n, 1); may be empty."""
        if self._native is None or not len(samples):
            return samples
        return self._joined(self._native.push(bytearray(samples.tobytes())))

    def flush(self) -> Samples:
        """The rest, after the last piece."""
        return self._joined(self._native.flush() if self._native is not None else [])

    @staticmethod
    def _joined(frames: list[Any]) -> Samples:
        parts = [np.frombuffer(frame.data, dtype=np.int16) for frame in frames]
        return np.concatenate(parts).reshape(-1, 1) if parts else np.empty((0, 1), dtype=np.int16)
