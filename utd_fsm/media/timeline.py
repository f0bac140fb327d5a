"""Puts the pieces of many tracks where they belong in time and mixes them. Pure: no clock, no thread, no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from utd_fsm.media.arrays import saturated
from utd_fsm.media.frames import RATE

if TYPE_CHECKING:
    from utd_fsm.room import Samples

GAP = 0.2
"""Seconds that a piece may be late and still follow the one before it, as networks and schedulers do. More is a gap."""
LATENCY = 0.25
"""Seconds that a stretch stays open for the pieces of other tracks before it is written."""
AHEAD = 5.0
"""Seconds that a track's pieces may run ahead of the clock; what is further ahead is no live sound, and dropped."""


class Timeline:
    """One mono track at 48 kHz, written from its beginning to its end.

    Pieces of one track follow each other seamlessly although they arrive with jitter; where they stop for longer than
    `GAP`, and before the first one, there is silence as long as the clock says. What two tracks say at the same time is
    added, and cut off where it is too loud.

    Args:
        write: is given each finished stretch, in order.
        limit: samples after which nothing is kept; None keeps everything.
    """

    def __init__(self, write: Callable[[Samples], object], limit: int | None = None) -> None:
        self._write = write
        self._limit = limit
        self._ends: dict[str, int] = {}
        self._open: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._filled = 0
        self.written = 0
        """Samples written so far."""

    def add(self, track: str, samples: Samples, at: float) -> bool:
        """Put one piece of a track that had arrived `at` seconds after the beginning; whether it had a place."""
        flat = samples[:, 0]
        by_clock = max(0, round(at * RATE) - len(flat))
        end = self._ends.get(track)
        begin = by_clock if end is None or by_clock - end > GAP * RATE else end
        if begin - by_clock > AHEAD * RATE:
            return False
        begin = max(begin, self.written)  # what is written is written: a late piece comes after it
        self._ends[track] = begin + len(flat)
        offset = begin - self.written
        self._reserve(offset + len(flat))
        self._open[offset : offset + len(flat)] += flat
        self._filled = max(self._filled, offset + len(flat))
        return True

    def advance(self, at: float) -> None:
        """It is `at` seconds after the beginning: write what no piece is expected for any more."""
        self._write_until(round((at - LATENCY) * RATE))

    def finish(self, at: float) -> None:
        """It ended `at` seconds after the beginning: write the rest, with silence up to there."""
        self._write_until(max(round(at * RATE), self.written + self._filled))

    def _reserve(self, size: int) -> None:
        if size > len(self._open):
            grown = np.zeros(max(size, 2 * len(self._open), RATE), dtype=np.int32)
            grown[: len(self._open)] = self._open
            self._open = grown

    def _write_until(self, position: int) -> None:
        if self._limit is not None:
            position = min(position, self._limit)
        # A second at a time: a long silence must not become a long array.
        while (count := min(position - self.written, RATE)) > 0:
            self._reserve(count)
            stretch = saturated(self._open[:count]).reshape(-1, 1)
            self._open[:-count] = self._open[count:].copy()
            self._open[-count:] = 0
            self._filled = max(0, self._filled - count)
            self.written += count
            self._write(stretch)
