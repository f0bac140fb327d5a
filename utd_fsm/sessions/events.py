"""LiveKit's own events of one session, handed to whoever listens. Loop thread only, but for the closing of a stream."""

from __future__ import annotations

from typing import Final

from utd_fsm.models import UTDRoomEvent
from utd_fsm.streams import Feed

CAPACITY: Final = 1000
"""Events that wait for one listener; a further one drops the oldest, which is counted."""


class RoomEventsCore:
    """The fan-out: each listener has its own bounded queue."""

    def __init__(self) -> None:
        self._feeds: set[Feed[UTDRoomEvent]] = set()

    def listen(self, timeout: float | None = None) -> Feed[UTDRoomEvent]:
        """A new listener; it hears what comes from now on.

        Args:
            timeout: the longest gap in seconds, or None for no limit.
        """
        # A reader may be closed in any thread: what is closed is swept out here and in `tell`, on the loop thread.
        feed = Feed[UTDRoomEvent](CAPACITY, timeout=timeout, what="the room's events")
        self._feeds = {one for one in self._feeds if not one.closed}
        self._feeds.add(feed)
        return feed

    def tell(self, event: UTDRoomEvent) -> None:
        """Hand one event to everybody."""
        for feed in self._feeds:
            feed.put(event)
        if any(feed.closed for feed in self._feeds):
            self._feeds = {one for one in self._feeds if not one.closed}

    def finish(self) -> None:
        """The session is disposed: the streams end once what is queued has been read."""
        for feed in self._feeds:
            feed.finish()
        self._feeds.clear()
