"""Access tokens: who may come in as whom, and the fresh token that a client keeps for its next reconnect.

Tokens are checked with LiveKit's own `TokenVerifier`. No token and no part of one ever enters a message or a log
(LiveKit's server puts the whole token into its 401; this one does not).
"""

from __future__ import annotations

from livekit import api
from livekit.api.access_token import Claims
from livekit.protocol import models

_SOURCES: dict[str, models.TrackSource] = {
    "camera": models.CAMERA,
    "microphone": models.MICROPHONE,
    "screen_share": models.SCREEN_SHARE,
    "screen_share_audio": models.SCREEN_SHARE_AUDIO,
}
_KINDS: dict[str, models.ParticipantInfo.Kind] = {
    "ingress": models.ParticipantInfo.INGRESS,
    "egress": models.ParticipantInfo.EGRESS,
    "sip": models.ParticipantInfo.SIP,
    "agent": models.ParticipantInfo.AGENT,
}


class Unauthorized(Exception):
    """The token is missing, does not verify, or does not allow this. The text holds nothing of the token."""


class Keys:
    """The one key pair this server knows.

    Args:
        key: the API key, which tokens name as their issuer.
        secret: what they are signed with; kept out of every repr and log.
    """

    def __init__(self, key: str, secret: str) -> None:
        self.key = key
        self._secret = secret
        self._verifier = api.TokenVerifier(key, secret)

    def __repr__(self) -> str:
        return "Keys(…)"

    def claims(self, authorization: str | None, parameter: str | None) -> Claims:
        """Verifies the token of a request.

        Args:
            authorization: the header, ``Bearer <token>``, or None.
            parameter: the query's ``access_token``, or None.

        Raises:
            Unauthorized: no valid token.
        """
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("invalid authorization header. Must start with Bearer")
        else:
            token = parameter or ""
        if not token:
            raise Unauthorized("no permissions to access the room")
        try:
            return self._verifier.verify(token)
        except Exception as error:  # noqa: BLE001  jwt has a tree of its own; a damaged claim can raise anything
            name = type(error).__name__
            reason = {"ExpiredSignatureError": "token is expired", "InvalidIssuerError": "invalid API key"}.get(name)
            raise Unauthorized(reason or "invalid authorization token") from None

    def join_claims(self, authorization: str | None, parameter: str | None) -> Claims:
        """As `claims`, for a token that must allow joining a named room."""
        claims = self.claims(authorization, parameter)
        if claims.video is None or not claims.video.room_join or not claims.video.room or not claims.identity:
            raise Unauthorized("permissions denied")
        return claims

    def webhook_token(self, sha256: str) -> str:
        """Signs a webhook body's digest (base64), valid for five minutes as LiveKit's are."""
        return api.AccessToken(self.key, self._secret).with_sha256(sha256).to_jwt()

    def refreshed(self, claims: Claims, info: models.ParticipantInfo) -> str:
        """The token of a participant as it is now: what was changed since it joined is in it.

        Limits of the room travel along, so that a room made again after a restart has them (LiveKit facts, 31).
        """
        permission = info.permission
        video = api.VideoGrants(
            room_join=True,
            room=claims.video.room if claims.video else "",
            can_publish=permission.can_publish,
            can_subscribe=permission.can_subscribe,
            can_publish_data=permission.can_publish_data,
            can_update_own_metadata=permission.can_update_metadata,
            can_subscribe_metrics=permission.can_subscribe_metrics,
            can_manage_agent_session=permission.can_manage_agent_session,
            hidden=permission.hidden,
        )
        if permission.can_publish_sources:
            video.can_publish_sources = [
                models.TrackSource.Name(source).lower() for source in permission.can_publish_sources
            ]
        token = (
            api.AccessToken(self.key, self._secret)
            .with_identity(info.identity)
            .with_name(info.name)
            .with_metadata(info.metadata)
            .with_attributes(dict(info.attributes))
            .with_grants(video)
        )
        token.claims.kind = claims.kind
        if claims.room_config is not None:
            token = token.with_room_config(claims.room_config)
        return token.to_jwt()


def permission_of(grants: api.VideoGrants) -> models.ParticipantPermission:
    """What a token's grants allow in the room. Publishing, subscribing and data are allowed unless they are refused."""
    sources = [_SOURCES[name.lower()] for name in grants.can_publish_sources or () if name.lower() in _SOURCES]
    return models.ParticipantPermission(
        can_publish=grants.can_publish is not False,
        can_subscribe=grants.can_subscribe is not False,
        can_publish_data=grants.can_publish_data is not False,
        can_publish_sources=sources,
        hidden=bool(grants.hidden),
        can_update_metadata=bool(grants.can_update_own_metadata),
        can_subscribe_metrics=bool(grants.can_subscribe_metrics),
        can_manage_agent_session=bool(grants.can_manage_agent_session),
    )


def kind_of(claims: Claims) -> models.ParticipantInfo.Kind:
    """Standard, agent, egress and so on, as the token says."""
    return _KINDS.get(claims.kind.lower(), models.ParticipantInfo.STANDARD)


def may_publish(permission: models.ParticipantPermission, source: int) -> bool:
    """May a track of this source be published? An empty list of sources means every one."""
    sources = permission.can_publish_sources
    return permission.can_publish and (not sources or source in sources)
