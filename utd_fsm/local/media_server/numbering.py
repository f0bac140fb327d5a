"""Sequence numbers of an outgoing stream of which packets are left out on purpose, and what was sent under them."""

from __future__ import annotations

_REMEMBERED = 600
_DROPPED_AT_ONCE = 200
_HALF = 0x8000


class SentPackets:
    """The last packets of one outgoing stream, for those who missed one."""

    def __init__(self) -> None:
        self._packets: dict[int, bytes] = {}

    def add(self, sequence: int, packet: bytes) -> None:
        self._packets[sequence] = packet
        if len(self._packets) > _REMEMBERED:
            for old in list(self._packets)[:_DROPPED_AT_ONCE]:
                del self._packets[old]

    def get(self, sequence: int) -> bytes | None:
        return self._packets.get(sequence)

    def clear(self) -> None:
        self._packets.clear()


class Renumbering:
    """Closes the gaps that leaving out makes, and keeps those of losses: only these are worth asking for again."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._out: int | None = None
        self._missing: dict[int, int] = {}

    def begin(self, sequence: int) -> None:
        """The packet that came in under this number is placed next, behind whatever went out before."""
        self._newest = (sequence - 1) & 0xFFFF
        if self._out is None:
            self._out = self._newest
        self._missing.clear()

    def is_late(self, sequence: int) -> bool:
        """A straggler, or a repetition: packets behind it were placed already."""
        return self._newest is not None and not 0 < (sequence - self._newest) & 0xFFFF < _HALF

    def place(self, sequence: int, *, keep: bool) -> int | None:
        """The number under which a packet goes out.

        Args:
            sequence: under which it came in.
            keep: it is to be forwarded.

        Returns:
            Its number. None where it has none: it is left out, was placed before, or nothing was begun. A straggler
            gets the number that was kept free for it, forwarded or not: without it, the receiver would go on asking.
        """
        if self._newest is None or self._out is None:
            return None
        if self.is_late(sequence):
            return self._missing.pop(sequence, None)
        lost = ((sequence - self._newest) & 0xFFFF) - 1
        if lost <= _REMEMBERED:  # of more than that none can be had again
            for step in range(1, lost + 1):
                self._out = (self._out + 1) & 0xFFFF
                self._missing[(self._newest + step) & 0xFFFF] = self._out
            for old in list(self._missing)[:-_REMEMBERED]:
                del self._missing[old]
        self._newest = sequence
        if not keep:
            return None
        self._out = (self._out + 1) & 0xFFFF
        return self._out

    def came_as(self, outgoing: int) -> int | None:
        """The incoming number of a packet that is missing under an outgoing one."""
        return next((sequence for sequence, out in self._missing.items() if out == outgoing), None)
