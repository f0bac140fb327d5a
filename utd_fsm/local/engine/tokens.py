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

from utd_fsm.models import UTDCall, UTDStreamType
from utd_fsm.room_wire import META_VIDEO_EFFECTS

from .rooms import RoomRecord, entitled, metadata, participant_metadata
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
LONGEST_IN_TOKEN: Final = 4000
"""Bytes of room metadata in a token: clients send it in a header or a URL, and proxies cut those at 8 kB."""
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
            json.dumps({"role": "caller" if is_caller else "callee", "appId": self._settings.app_id}),
            may_publish=True,
            sources=sources_of(call.type),
            config=config,
        )

    def for_room(self, record: RoomRecord, identity: str, display: str | None) -> str:
        """The way into a stream or an audio room: whoever is entitled may publish from the start, and the room that a
        first token makes has its metadata from its first moment, unless they are too long to travel in a token."""
        shown = metadata(record)
        return self._mint(
            identity,
            display,
            record.name,
            self.room_metadata(record, identity),
            may_publish=entitled(record, identity),
            sources=sources_of(record.type),
            config=room.RoomConfiguration(
                departure_timeout=max(REJOIN, math.ceil(self._settings.party_grace) + 10),
                empty_timeout=300,
                metadata=shown if len(json.dumps(shown)) <= LONGEST_IN_TOKEN else "",
            ),
        )

    def room_metadata(self, record: RoomRecord, identity: str) -> str:
        """What a participant's metadata are to be in a stream or an audio room."""
        claims = json.loads(participant_metadata(record, identity, self._settings.app_id))
        if self._settings.video_effects:
            claims[META_VIDEO_EFFECTS] = True
        return json.dumps(claims, ensure_ascii=False, separators=(",", ":"))

    def _mint(
        self, identity: str, display: str | None, name: str, metadata: str, *, may_publish: bool,
        sources: tuple[str, ...], config: room.RoomConfiguration,
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
            .with_metadata(metadata)
            .with_grants(grants)
            .with_room_config(config)
            .with_ttl(timedelta(seconds=self._settings.token_ttl))
            .to_jwt()
        )
