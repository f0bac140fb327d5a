"""Who may do what in a media room, as LiveKit's tokens and permissions say it.

Every grant is written out, because what a token leaves open LiveKit allows (fact 29); the limits of a room travel in
its tokens, because a restarted media server has forgotten them and its clients make the room anew (fact 31).
"""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Final

from livekit import api
from livekit.protocol import models, room

from utd_fsm.models import UTDCall, UTDRole, UTDStreamType

from .settings import EngineSettings

EVERYTHING: Final = ("microphone", "camera", "screen_share", "screen_share_audio")
AUDIO_ONLY: Final = ("microphone",)
_SOURCES: Final = {
    "microphone": models.TrackSource.MICROPHONE,
    "camera": models.TrackSource.CAMERA,
    "screen_share": models.TrackSource.SCREEN_SHARE,
    "screen_share_audio": models.TrackSource.SCREEN_SHARE_AUDIO,
}
CALL_PARTIES: Final = 2
REJOIN: Final = 70
"""Seconds an empty room stays, at least: a party may come back for 60 (fact 36)."""


def sources_of(type_: UTDStreamType) -> tuple[str, ...]:
    """What may be published in a room of this type."""
    return EVERYTHING if type_.has_video else AUDIO_ONLY


def permission(*, may_publish: bool, sources: tuple[str, ...]) -> models.ParticipantPermission:
    """A whole permission: an update replaces all of it (fact 28)."""
    return models.ParticipantPermission(
        can_subscribe=True,
        can_publish=may_publish,
        can_publish_data=True,
        can_publish_sources=[_SOURCES[name] for name in sources],
        hidden=False,
        can_update_metadata=False,
        can_subscribe_metrics=False,
        can_manage_agent_session=False,
    )


def same(left: models.ParticipantPermission, right: models.ParticipantPermission) -> bool:
    """Whether two permissions allow the same."""
    return (
        left.can_subscribe == right.can_subscribe
        and left.can_publish == right.can_publish
        and left.can_publish_data == right.can_publish_data
        and set(left.can_publish_sources) == set(right.can_publish_sources)
        and left.hidden == right.hidden
        and left.can_update_metadata == right.can_update_metadata
    )


class Tokens:
    """Makes LiveKit tokens with the engine's key."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings

    def for_call(self, call: UTDCall, identity: str) -> str:
        """The way into a call's room, for one of its parties."""
        is_caller = identity == call.caller_identity
        config = room.RoomConfiguration(
            max_participants=CALL_PARTIES,
            departure_timeout=max(REJOIN, math.ceil(self._settings.party_grace) + 10),
            empty_timeout=math.ceil(self._settings.ring_timeout + self._settings.join_grace) + 60,
        )
        return self._mint(
            identity,
            call.caller_name if is_caller else call.callee_name,
            call.call_id,
            "caller" if is_caller else "callee",
            may_publish=True,
            sources=sources_of(call.type),
            config=config,
        )

    def for_room(self, type_: UTDStreamType, name: str, identity: str, display: str | None, role: UTDRole) -> str:
        """The way into a stream or an audio room: only its host may publish from the start."""
        return self._mint(
            identity,
            display,
            name,
            role,
            may_publish=role is UTDRole.HOST,
            sources=sources_of(type_),
            config=room.RoomConfiguration(departure_timeout=REJOIN, empty_timeout=300),
        )

    def _mint(
        self, identity: str, display: str | None, name: str, role: str, *, may_publish: bool, sources: tuple[str, ...],
        config: room.RoomConfiguration,
    ) -> str:  # fmt: skip
        grants = api.VideoGrants(
            room_join=True,
            room=name,
            can_publish=may_publish,
            can_subscribe=True,
            can_publish_data=True,
            can_publish_sources=list(sources),
            can_update_own_metadata=False,
            hidden=False,
            can_subscribe_metrics=False,
            can_manage_agent_session=False,
        )
        return (
            api.AccessToken(self._settings.livekit_key, self._settings.livekit_secret)
            .with_identity(identity)
            .with_name(display or identity)
            .with_metadata(json.dumps({"role": role, "appId": self._settings.app_id}))
            .with_grants(grants)
            .with_room_config(config)
            .with_ttl(timedelta(seconds=self._settings.token_ttl))
            .to_jwt()
        )
