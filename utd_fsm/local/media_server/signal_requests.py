"""What a client asks for over its open signalling link: one handler a kind of `SignalRequest`.

A request that does not parse, or that fails, is logged and changes nothing else: one client's mistake is never another
one's trouble.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from .peer import Peer

_log = logging.getLogger("utd_fsm.local.media_server.requests")

_RESPONSE_DELAY = 0.02
_SIZE_TOLERANCE = 0.9
"""A layer that is so much of the asked size will do."""


async def handle(peer: Peer, raw: bytes) -> None:
    """One binary message of the link. Never raises (but for cancellation)."""
    try:
        request = rtc.SignalRequest.FromString(raw)
    except DecodeError:
        _log.warning("%s: a request that is none was dropped", peer.identity)
        return
    kind = request.WhichOneof("message")
    handler = _HANDLERS.get(kind or "")
    if handler is None:
        if kind in _NOT_SUPPORTED:
            _log.info("%s: %s is not supported here", peer.identity, kind)
        return
    try:
        result = handler(peer, getattr(request, kind or ""))
        if result is not None:
            await result
    except Exception:  # noqa: BLE001
        _log.exception("%s: %s failed", peer.identity, kind)


def _offer(peer: Peer, offer: rtc.SessionDescription) -> Awaitable[None]:
    return peer.on_offer(offer.sdp, offer.id)


def _answer(peer: Peer, answer: rtc.SessionDescription) -> None:
    peer.on_answer(answer.sdp)


async def _trickle(peer: Peer, trickle: rtc.TrickleRequest) -> None:
    try:
        candidate = json.loads(trickle.candidateInit)
    except ValueError:
        _log.debug("%s: a candidate that is none was dropped", peer.identity)
        return
    transport = peer.transport(trickle.target)
    if transport is not None and isinstance(candidate, dict) and candidate.get("candidate"):
        await transport.add_candidate(str(candidate["candidate"]), candidate.get("sdpMid"))


def _add_track(peer: Peer, request: rtc.AddTrackRequest) -> None:
    peer.publisher.add_track(request)


def _mute(peer: Peer, request: rtc.MuteTrackRequest) -> None:
    peer.publisher.mute(request.sid, request.muted)


def _subscription(peer: Peer, request: rtc.UpdateSubscription) -> None:
    wanted = set(request.track_sids).union(*(entry.track_sids for entry in request.participant_tracks))
    update_subscriptions(peer, wanted, request.subscribe)


def update_subscriptions(peer: Peer, wanted: set[str], subscribe: bool) -> None:
    """Subscribes to, or unsubscribes from, the tracks of these sids; the room service does it too."""
    for sid in wanted:
        peer.subscriber.choose(sid, subscribe)
    for track in peer.room.tracks():
        if track.sid in wanted:
            peer.subscriber.reconsider(track)


def wished_quality(request: rtc.UpdateTrackSettings, info: models.TrackInfo) -> int:
    """The layer that is asked for: by its name, or by a size, which then decides (as LiveKit's server reads it)."""
    if not request.width or not info.height:
        return int(request.quality)
    portrait = info.width < info.height
    asked = (request.width if portrait else request.height) * _SIZE_TOLERANCE
    sides = sorted((layer.width if portrait else layer.height) for layer in info.layers if layer.height)
    return next((rank for rank, side in enumerate(sides[:-1]) if side >= asked), max(0, len(sides) - 1))


def _track_setting(peer: Peer, request: rtc.UpdateTrackSettings) -> None:
    for sid in request.track_sids:
        downstream = peer.subscriber.downstreams.get(sid)
        if downstream is not None:
            quality = wished_quality(request, downstream.track.info)
            downstream.settings_changed(disabled=request.disabled, quality=quality)


def _subscription_permission(peer: Peer, request: rtc.SubscriptionPermission) -> None:
    peer.set_subscription_permission(request)


def _update_metadata(peer: Peer, request: rtc.UpdateParticipantMetadata) -> None:
    allowed = peer.info.permission.can_update_metadata
    if allowed and peer.room.set_attributes(peer, request.metadata, request.name, dict(request.attributes)):
        peer.room.participant_changed(peer)
        peer.send_token()
    reason = rtc.RequestResponse.OK if allowed else rtc.RequestResponse.NOT_ALLOWED
    response = rtc.RequestResponse(request_id=request.request_id, reason=reason)
    # The Python client begins to wait for the response only after it has sent the request: one that comes within
    # the same millisecond is missed, and the call takes its time-out of 5 s.
    asyncio.get_running_loop().call_later(_RESPONSE_DELAY, lambda: peer.send(request_response=response))


def _update_audio_track(peer: Peer, request: rtc.UpdateLocalAudioTrack) -> None:
    track = peer.publisher.tracks.get(request.track_sid)
    if track is not None:
        del track.info.audio_features[:]
        track.info.audio_features.extend(request.features)
        peer.room.participant_changed(peer)


def _update_video_track(peer: Peer, request: rtc.UpdateLocalVideoTrack) -> None:
    track = peer.publisher.tracks.get(request.track_sid)
    if track is not None:
        track.info.width, track.info.height = request.width, request.height
        peer.room.participant_changed(peer)


def _ping(peer: Peer, timestamp: int) -> None:
    peer.send(pong=timestamp)


def _ping_request(peer: Peer, ping: rtc.Ping) -> None:
    peer.send(pong_resp=rtc.Pong(last_ping_timestamp=ping.timestamp, timestamp=int(time.time() * 1000)))


def _sync_state(peer: Peer, state: rtc.SyncState) -> None:
    """After a resume: a track we do not have any more can only be healed by a full reconnect."""
    for published in state.publish_tracks:
        if published.track.sid not in peer.publisher.tracks and published.cid not in peer.publisher.pending:
            _order_full_reconnect(peer)
            return


def _order_full_reconnect(peer: Peer) -> None:
    peer.send(leave=rtc.LeaveRequest(action=rtc.LeaveRequest.RECONNECT, reason=models.STATE_MISMATCH))


def _simulate(peer: Peer, scenario: rtc.SimulateScenario) -> None:
    """The levers of LiveKit's clients for tests."""
    kind = scenario.WhichOneof("scenario")
    if kind in ("leave_request_full_reconnect", "migration"):
        _order_full_reconnect(peer)
    elif kind == "node_failure":
        peer.room.leave(peer, models.STATE_MISMATCH)
    elif kind == "server_leave":
        peer.room.leave(peer, models.SERVER_SHUTDOWN, rtc.LeaveRequest.DISCONNECT)
    elif kind == "speaker_update":
        _pretend_speaking(peer, active=True)
        asyncio.get_running_loop().call_later(scenario.speaker_update, lambda: _pretend_speaking(peer, active=False))


def _pretend_speaking(peer: Peer, *, active: bool) -> None:
    info = models.SpeakerInfo(sid=peer.sid, active=active, level=0.9 if active else 0.0)
    for member in peer.room.members():
        member.send(speakers_changed=rtc.SpeakersChanged(speakers=[info]))


def _leave(peer: Peer, request: rtc.LeaveRequest) -> None:
    peer.said_leave = request.reason or models.CLIENT_INITIATED


def _publish_data_track(peer: Peer, request: rtc.PublishDataTrackRequest) -> None:
    """Data tracks are missing here: refused at once, so that nobody waits for a time-out."""
    peer.send(
        request_response=rtc.RequestResponse(
            reason=rtc.RequestResponse.NOT_ALLOWED,
            message="data tracks are not supported by this server",
            publish_data_track=request,
        )
    )


_Handler = Callable[[Peer, Any], Awaitable[None] | None]
_HANDLERS: dict[str, _Handler] = {
    "offer": _offer,
    "answer": _answer,
    "trickle": _trickle,
    "add_track": _add_track,
    "mute": _mute,
    "subscription": _subscription,
    "track_setting": _track_setting,
    "subscription_permission": _subscription_permission,
    "update_metadata": _update_metadata,
    "update_audio_track": _update_audio_track,
    "update_video_track": _update_video_track,
    "ping": _ping,
    "ping_req": _ping_request,
    "sync_state": _sync_state,
    "simulate": _simulate,
    "leave": _leave,
    "publish_data_track_request": _publish_data_track,
}
_NOT_SUPPORTED = {
    "unpublish_data_track_request",
    "update_data_subscription",
    "store_data_blob_request",
    "get_data_blob_request",
}
