"""What a kind of session adds to `SessionCore`: hooks, all called on the loop thread, each harmless by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from utd_fsm.errors import UTDStreamException
    from utd_fsm.machines.base import Step
    from utd_fsm.models import UTDChatMessage, UTDParticipant, UTDTrackSource
    from utd_fsm.room import LeaveReason
    from utd_fsm.sessions.connection import TicketReason


class SessionHooks:
    """Overridden by sessions. Those that are no coroutines must not raise."""

    ENGINE: ClassVar[bool] = True
    """Whether data messages of the engine's types mean anything here."""
    PARTICIPANTS_MAY: ClassVar[frozenset[str]] = frozenset()
    """Engine types that a known participant may send."""

    async def _ticket(self, reason: TicketReason) -> tuple[str, str]:
        """(url, token) for one try. A refusal ends the trying; anything else it raises counts as a failed try."""
        raise NotImplementedError

    def _entitled(self, source: UTDTrackSource) -> bool:
        """Whether the grant may be expected although it is not there: what the engine's record says."""
        return True

    def _refusal(self, source: UTDTrackSource) -> UTDStreamException | None:
        """A further reason why a source may not be switched on, for instance a muted seat."""
        return None

    async def _resync(self, age: float) -> None:
        """Back after 15 s or more (``age``): ask the engine. The sources hear of the grant after it."""

    async def _before_removal(self, reason: LeaveReason | None) -> None:
        """Sent away (None: the engine gave no ticket any more): look at the record before that becomes force_exit."""

    def _on_connection(self, step: Step) -> None:
        """The connection's machine moved; sources and Observables know already."""

    def _on_source(self, source: UTDTrackSource, step: Step) -> None:
        """A source's machine moved."""

    def _on_room_metadata(self, metadata: str) -> None:
        """The room's metadata, after each join and each change."""

    def _on_local_metadata(self, metadata: str) -> None:
        """This participant's metadata, after each join and each change."""

    def _on_participants(self, others: tuple[UTDParticipant, ...]) -> None:
        """The others changed; not called for what is said of them while the link is mended."""

    def _on_hint(self, kind: str, content: Mapping[str, Any], identity: str | None) -> None:
        """An engine message: at most a reason to look. ``identity`` is None unless a participant may send it."""

    def _lets_through(self, message: UTDChatMessage) -> bool:
        """Whether a chat message is told: not while the chat is locked, for instance."""
        return True

    def _on_track_subscribed(self, source: UTDTrackSource) -> None:
        """Somebody subscribed to a track of ours."""
