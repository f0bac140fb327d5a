"""How loud and how high: what demos and tests measure to say that somebody was heard. Pure; numpy only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def loudness(samples: npt.NDArray[Any]) -> float:
    """Root mean square of int16 samples, 0 to 1."""
    if not samples.size:
        return 0.0
    return float(np.sqrt(np.mean((samples.astype(np.float64) / 32768.0) ** 2)))


def dominant_hz(samples: npt.NDArray[Any], sample_rate: int, *, floor: float = 0.003) -> float | None:
    """The frequency of the strongest tone.

    Args:
        samples: one channel, or several (their mean is taken); half a second or more for a precision of about 0.1 Hz.
        sample_rate: Hz.
        floor: loudness below which there is only silence.

    Returns:
        Hz, or None for silence or too few samples.
    """
    mono = samples.reshape(len(samples), -1).mean(axis=1) if samples.ndim > 1 else samples.astype(np.float64)
    if len(mono) < sample_rate // 20 or loudness(mono) < floor:
        return None
    spectrum = np.abs(np.fft.rfft(mono * np.hanning(len(mono))))
    spectrum[: max(1, int(20 * len(mono) / sample_rate))] = 0.0  # below 20 Hz nothing is a tone
    peak = int(np.argmax(spectrum))
    shift = 0.0
    if 0 < peak < len(spectrum) - 1:
        # A parabola through the logarithms of three bins finds the peak between them.
        left, middle, right = np.log(spectrum[peak - 1 : peak + 2] + 1e-12)
        bend = left - 2 * middle + right
        shift = float(0.5 * (left - right) / bend) if bend else 0.0
    return (peak + shift) * sample_rate / len(mono)
