"""The order of what is heard of one part of a room, where the engine numbers it and where it does not.

Pure. An engine that sends versions is believed by them. Where one sends none, only room metadata may be folded, in
their order of arrival, and an answer only if no metadata came since it was asked for (machines, law 3).
"""

from __future__ import annotations


class Arrivals:
    """Gives each snapshot a number that grows with its newness."""

    def __init__(self) -> None:
        self._count = 0

    def metadata(self, version: int | None) -> int:
        """The number of what room metadata just said."""
        if version is not None:
            return version
        self._count += 1
        return self._count

    def mark(self) -> int:
        """Before a request is sent: give it to `answer`."""
        return self._count

    def answer(self, version: int | None, mark: int) -> int | None:
        """The number of an answer's snapshot; None where it may be older than what is known."""
        if version is not None:
            return version
        if mark != self._count:
            return None
        self._count += 1
        return self._count
