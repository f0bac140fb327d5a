"""Who is speaking, from the loudness that clients put into every audio packet (RFC 6464). No I/O.

The thresholds are livekit-server's defaults: a window of 400 ms, in which at least 40 % of the packets are louder than
-35 dB, makes a speaker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW = 0.4
"""Seconds over which loudness is judged; also how often speakers are told."""
_ACTIVE_LEVEL = 35
_MIN_SHARE = 0.4
_SILENCE = 127
_EXPECTED = WINDOW / 0.02


@dataclass
class LevelMeter:
    """Loudness of one audio track over the running window."""

    _heard: list[int] = field(default_factory=list)

    def add(self, level: int) -> None:
        """One packet's level, in dB below full scale (0-127)."""
        if len(self._heard) < 200:
            self._heard.append(level)

    def take(self) -> float:
        """Ends the window.

        Returns:
            Loudness 0-1, linear; 0.0 where nobody speaks.
        """
        heard, self._heard = self._heard, []
        loud = [level for level in heard if level <= _ACTIVE_LEVEL]
        if not loud or len(loud) < _MIN_SHARE * max(_EXPECTED, len(heard)):
            return 0.0
        return float(10 ** (-(sum(loud) / len(loud)) / 20))


def rounded(level: float) -> float:
    """Loudness in steps of 1/8, so that small wobbles are not told to everybody."""
    return max(0.125, round(level * 8) / 8) if level > 0 else 0.0
