"""One room: who is in it, what each is told of the others, and when it closes.

Everything runs on the server's event loop; a change is complete before anything else happens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

from livekit.api.access_token import Claims
from livekit.protocol import models, rtc
from livekit.protocol import room as room_protocol

from .auth import Keys
from .data import DataRelay
from .peer import Peer
from .pulse import Pulse
from .settings import DEPARTURE_TIMEOUT, EMPTY_TIMEOUT, JOIN_TIMEOUT, RESUME_WINDOW, new_sid
from .tracks import Track
from .webhooks import Webhooks

_log = logging.getLogger("utd_fsm.local.media_server.room")


class Host(Protocol):
    """What a room needs of the server that holds it."""

    keys: Keys
    webhooks: Webhooks
    media_host: str

    def spawn(self, work: Coroutine[Any, Any, None], *, finish: bool = False) -> asyncio.Task[None]: ...
    def room_closed(self, room: Room) -> None: ...


class Room:
    """A live room.

    Args:
        host: the server.
        name: its name; the server has no other room of that name.
        config: limits given by ``CreateRoom`` or by the first token; zero or empty means the default.
    """

    def __init__(
        self,
        host: Host,
        name: str,
        config: room_protocol.RoomConfiguration | room_protocol.CreateRoomRequest | None = None,
    ) -> None:
        now = time.time()
        self.name = name
        self.keys = host.keys
        self.media_host = host.media_host
        self.spawn = host.spawn
        self.data = DataRelay(self)
        self.info = models.Room(
            sid=new_sid("RM_"),
            name=name,
            creation_time=int(now),
            creation_time_ms=int(now * 1000),
            empty_timeout=(config.empty_timeout if config else 0) or EMPTY_TIMEOUT,
            departure_timeout=(config.departure_timeout if config else 0) or DEPARTURE_TIMEOUT,
            max_participants=config.max_participants if config else 0,
            metadata=config.metadata if config else "",
        )
        self._host = host
        self._peers: dict[str, Peer] = {}
        self._closing: asyncio.TimerHandle | None = None
        self._closed = self._silent = False
        self._pulse = Pulse(self)
        self._beating = host.spawn(self._pulse.run())
        self.event("room_started")
        self._close_later(self.info.empty_timeout)

    # -- who is here

    def members(self) -> list[Peer]:
        return list(self._peers.values())

    def get(self, identity: str) -> Peer | None:
        return self._peers.get(identity)

    def others(self, peer: Peer) -> list[Peer]:
        return [other for other in self._peers.values() if other is not peer]

    def visible_to(self, peer: Peer) -> list[Peer]:
        """The others that it may know of."""
        return [other for other in self.others(peer) if not other.info.permission.hidden]

    def tracks(self) -> Iterator[Track]:
        for peer in self.members():
            yield from list(peer.publisher.tracks.values())

    def is_full_for(self, identity: str) -> bool:
        """Would this identity be one too many? One that is here already always gets in again (LiveKit facts, 32)."""
        limit = self.info.max_participants
        return bool(limit) and identity not in self._peers and len(self._peers) >= limit

    # -- coming and going

    def join(self, claims: Claims, *, single_connection: bool, auto_subscribe: bool, client: models.ClientInfo) -> Peer:
        """A new participant. An older one of the same identity is shown out first (LiveKit facts, 37)."""
        old = self._peers.get(claims.identity)
        if old is not None:
            self.leave(old, models.DUPLICATE_IDENTITY, rtc.LeaveRequest.DISCONNECT)
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        peer = Peer(self, claims, single_connection=single_connection, auto_subscribe=auto_subscribe, client=client)
        self._peers[peer.identity] = peer
        self._count()
        peer.expiry = asyncio.get_running_loop().call_later(
            JOIN_TIMEOUT, lambda: self.leave(peer, models.JOIN_FAILURE, rtc.LeaveRequest.RECONNECT)
        )
        self.spawn(peer.write())
        self.participant_changed(peer, to_itself=False)
        return peer

    def media_is_up(self, peer: Peer) -> None:
        """Its connection stands: from now on it counts as joined."""
        if peer.is_active or self._peers.get(peer.identity) is not peer:
            return
        if peer.expiry is not None and peer.link is not None:
            peer.expiry.cancel()
            peer.expiry = None
        peer.info.state = models.ParticipantInfo.ACTIVE
        self.participant_changed(peer)
        self.event("participant_joined", peer)
        peer.subscriber.reconsider_all()
        self._pulse.welcome(peer)

    def link_lost(self, peer: Peer) -> None:
        """Its signalling link went without a `leave`: it may come back for a while (LiveKit facts, 42)."""
        peer.link = None
        peer.quality.link(up=False)
        if peer.expiry is not None:
            peer.expiry.cancel()
        peer.expiry = asyncio.get_running_loop().call_later(
            RESUME_WINDOW, lambda: self.leave(peer, models.CONNECTION_TIMEOUT)
        )

    def leave(self, peer: Peer, reason: models.DisconnectReason, action: rtc.LeaveRequest.Action | None = None) -> None:
        """Takes a participant out.

        Args:
            peer: one of ours; another, or one that left already, is ignored.
            reason: why, as others and webhooks are told.
            action: what it is told to do; None says nothing to it.
        """
        if self._peers.get(peer.identity) is not peer:
            return
        was_active = peer.is_active
        del self._peers[peer.identity]
        for track in list(peer.publisher.tracks.values()):
            peer.publisher.unpublish(track, tell_owner=False)
        peer.info.state = models.ParticipantInfo.DISCONNECTED
        peer.info.disconnect_reason = reason
        self._count()
        self.participant_changed(peer)
        if action is not None:
            peer.send(leave=rtc.LeaveRequest(action=action, reason=reason))
        self.spawn(peer.close(silently=self._silent), finish=True)
        self.event("participant_left" if was_active else "participant_connection_aborted", peer)
        if not self._peers:
            self._close_later(self.info.departure_timeout)

    def _count(self) -> None:
        self.info.num_participants = len(self._peers)
        self.info.num_publishers = sum(1 for peer in self._peers.values() if peer.publisher.tracks)

    # -- what everybody is told

    def participant_changed(self, peer: Peer, *, to_itself: bool = True) -> None:
        """Tells everybody who may know of it how this participant is now."""
        peer.info.version += 1
        update = rtc.ParticipantUpdate(participants=[peer.full_info()])
        for other in self.others(peer):
            if not peer.info.permission.hidden:
                other.send(update=update)
        if to_itself and self._peers.get(peer.identity) is peer:
            peer.send(update=update)

    def track_published(self, track: Track) -> None:
        """A track's section was answered, or the SSRC of one without an announced SSRC is known now."""
        if not track.announced:
            track.announced = True
            self._count()
            self.participant_changed(track.owner)
            self.event("track_published", track.owner, track)
        for other in self.others(track.owner):
            other.subscriber.reconsider(track)

    def track_unpublished(self, track: Track) -> None:
        for other in self.others(track.owner):
            other.subscriber.forget(track)
        self._count()
        if track.owner.info.state != models.ParticipantInfo.DISCONNECTED:
            self.participant_changed(track.owner)
        self.event("track_unpublished", track.owner, track)

    def set_metadata(self, metadata: str) -> None:
        """New room metadata, told to everybody in one step, so that updates arrive in order."""
        self.info.metadata = metadata
        for peer in self.members():
            peer.send(room_update=rtc.RoomUpdate(room=self.info))

    def update_participant(self, peer: Peer, request: room_protocol.UpdateParticipantRequest) -> None:
        """``UpdateParticipant``, with LiveKit's semantics (LiveKit facts, 28): what is left out stays, "" cannot clear
        the metadata, a permission replaces the old one as a whole, and what changes nothing is told to nobody."""
        changed = self.set_attributes(peer, request.metadata, request.name, dict(request.attributes))
        if request.HasField("permission") and request.permission != peer.info.permission:
            self._set_permission(peer, request.permission)
        elif changed:
            self.participant_changed(peer)
            peer.send_token()

    def set_attributes(self, peer: Peer, metadata: str, name: str, attributes: dict[str, str]) -> bool:
        """Applies what is not empty (an attribute's "" removes it); True where anything changed. Tells nobody."""
        before = peer.info.SerializeToString(deterministic=True)
        if metadata:
            peer.info.metadata = metadata
        if name:
            peer.info.name = name
        for key, value in attributes.items():
            if value:
                peer.info.attributes[key] = value
            else:
                peer.info.attributes.pop(key, None)
        return peer.info.SerializeToString(deterministic=True) != before

    def _set_permission(self, peer: Peer, permission: models.ParticipantPermission) -> None:
        was_hidden = peer.info.permission.hidden
        peer.info.permission.CopyFrom(permission)
        peer.publisher.enforce_permission()
        if permission.hidden and not was_hidden:
            gone = peer.full_info()
            gone.state = models.ParticipantInfo.DISCONNECTED
            for other in self.others(peer):
                other.send(update=rtc.ParticipantUpdate(participants=[gone]))
        self.participant_changed(peer)
        peer.subscriber.reconsider_all()
        peer.send_token()

    # -- the end

    def _close_later(self, seconds: float) -> None:
        if self._closed:
            return
        if self._closing is not None:
            self._closing.cancel()
        self._closing = asyncio.get_running_loop().call_later(seconds, self.close)

    def close(self, reason: models.DisconnectReason = models.ROOM_CLOSED, *, tell: bool = True) -> None:
        """Shows everybody out and ends the room. May be called twice.

        Args:
            reason: what they are told.
            tell: False for a server that vanishes: no messages, no webhooks.
        """
        if self._closed:
            return
        self._closed = True
        self._silent = not tell
        for peer in self.members():
            self.leave(peer, reason, rtc.LeaveRequest.DISCONNECT if tell else None)
        if self._closing is not None:
            self._closing.cancel()
        self._beating.cancel()
        self._host.room_closed(self)
        self.event("room_finished")

    def event(self, name: str, peer: Peer | None = None, track: Track | None = None) -> None:
        """Sends a webhook about this room as it is now."""
        if self._silent:
            return
        self._host.webhooks.send(
            name, self.info, peer.full_info() if peer is not None else None, track.info if track is not None else None
        )
