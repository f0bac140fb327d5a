"""How good a participant's connection is, from loss and from silence. No I/O.

A rough measure with livekit-server's four words: it has no notion of bitrates, which nothing limits here.
"""

from __future__ import annotations

import time

from livekit.protocol import models

INTERVAL = 2.0
"""Seconds between two judgements."""
_LOST_AFTER = 8.0
_GOOD_BELOW, _EXCELLENT_BELOW = 0.08, 0.02
_SCORES = {models.LOST: 0.0, models.POOR: 1.5, models.GOOD: 3.5, models.EXCELLENT: 4.8}


class QualityMeter:
    """Judges one participant.

    Attributes:
        told: what the others were last told; None before the first time.
    """

    def __init__(self) -> None:
        self.told: models.ConnectionQuality | None = None
        self._worst = 0.0
        self._link_lost_at: float | None = None

    def lost(self, fraction: float) -> None:
        """A report of packets lost on one stream to or from it (0-1)."""
        self._worst = max(self._worst, fraction)

    def link(self, up: bool) -> None:
        """Its signalling link came or went."""
        self._link_lost_at = None if up else time.monotonic()

    def judge(self) -> models.ConnectionQuality:
        """The quality since the last judgement, one of ``models.ConnectionQuality``."""
        worst, self._worst = self._worst, 0.0
        if self._link_lost_at is not None and time.monotonic() - self._link_lost_at > _LOST_AFTER:
            return models.LOST
        if worst < _EXCELLENT_BELOW:
            return models.EXCELLENT
        return models.GOOD if worst < _GOOD_BELOW else models.POOR


def score(quality: models.ConnectionQuality) -> float:
    """The mean opinion score that goes with a quality."""
    return _SCORES[quality]
