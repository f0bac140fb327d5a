"""What LiveKit tells: each webhook once, to the books of calls or to those of rooms, and to the application's backend.

Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from .livekit_books import CALL_ROOM
from .media_work import Recent
from .store import Store
from .webhooks_out import Webhooks

PASSED_ON: Final = frozenset(
    ("room_started", "room_finished", "participant_joined", "participant_left", "track_published", "track_unpublished")
)
"""What of LiveKit's webhooks the application's backend is told, too."""


class MediaNews:
    """Belongs to the event loop.

    Args:
        of_calls: takes news of calls' rooms, and returns at once.
        of_rooms: the same for all other rooms.
    """

    def __init__(
        self, store: Store, hooks: Webhooks, of_calls: Callable[[WebhookEvent], None],
        of_rooms: Callable[[WebhookEvent], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._hooks = hooks
        self._of_calls = of_calls
        self._of_rooms = of_rooms
        self._events = Recent()

    def heard(self, event: WebhookEvent) -> None:
        """One webhook of LiveKit, its signature verified. Returns at once; a repeat is dropped."""
        if event.id and not self._events.add(event.id):
            return
        self._pass_on(event)
        if CALL_ROOM.fullmatch(event.room.name):
            self._of_calls(event)
        else:
            self._of_rooms(event)

    def _pass_on(self, event: WebhookEvent) -> None:
        if event.event not in PASSED_ON:
            return
        room = event.room
        parts: dict[str, dict[str, Any]] = {
            "room": {"name": room.name, "sid": room.sid, "participant_count": room.num_participants}
        }
        if event.HasField("participant"):
            parts["participant"] = {"identity": event.participant.identity, "name": event.participant.name}
        if event.HasField("track"):
            kind = "video" if event.track.type == models.TrackType.VIDEO else "audio"
            parts["track"] = {"type": kind, "width": event.track.width, "height": event.track.height}
        with self._store.transaction():
            self._hooks.note(event.event, f"room:{room.name}", **parts)
        self._hooks.wake()
