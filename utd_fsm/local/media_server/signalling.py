"""The websocket endpoints `/rtc` (two connections) and `/rtc/v1` (one): joining, resuming, and the reading loop.

What a request inside an open link does is in `signal_requests`.
"""

from __future__ import annotations

import base64
import binascii
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import WSMsgType, web
from google.protobuf.message import DecodeError
from livekit.api.access_token import Claims
from livekit.protocol import models, rtc
from livekit.protocol import room as room_protocol

from . import signal_requests
from .auth import Keys, Unauthorized
from .peer import Peer
from .room import Room
from .sdp import RELAYED
from .settings import PING_INTERVAL, PING_TIMEOUT, SERVER_INFO, SERVER_VERSION, SIGNAL_SILENCE

_log = logging.getLogger("utd_fsm.local.media_server.signalling")

_MAX_JOIN_REQUEST = 1_048_576
_MAX_SIGNAL = 1_048_576
_CLOSE_TIMEOUT = 1.0


class Rooms(Protocol):
    """What signalling needs of the server."""

    keys: Keys

    def find_room(self, name: str) -> Room | None: ...
    def open_room(self, name: str, config: room_protocol.RoomConfiguration | None) -> Room: ...


class BadJoin(Exception):
    """The join request does not parse."""


@dataclass(frozen=True)
class Join:
    """What a client asks for when it connects, whichever version it speaks."""

    single_connection: bool
    auto_subscribe: bool = True
    resume: bool = False
    sid: str = ""
    client: models.ClientInfo = field(default_factory=models.ClientInfo)
    request: rtc.JoinRequest = field(default_factory=rtc.JoinRequest)


def read_join(path: str, query: Mapping[str, str]) -> Join:
    """The wishes in a connection's URL.

    Raises:
        BadJoin: `/rtc/v1` without a join request that parses.
    """
    if not path.startswith("/rtc/v1"):
        protocol = query.get("client_protocol", "")
        return Join(
            single_connection=False,
            auto_subscribe=query.get("auto_subscribe", "1") in ("1", "true"),
            resume=query.get("reconnect", "") in ("1", "true"),
            sid=query.get("sid", ""),
            client=models.ClientInfo(client_protocol=int(protocol) if protocol.isdigit() else 0),
        )
    try:
        text = query["join_request"].rstrip("=")
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if not packed:
            raise ValueError("empty")
        wrapped = rtc.WrappedJoinRequest.FromString(packed)
        raw = wrapped.join_request
        if wrapped.compression == rtc.WrappedJoinRequest.GZIP:
            raw = _gunzip(raw)
        request = rtc.JoinRequest.FromString(raw)
    except (KeyError, binascii.Error, DecodeError, OSError, EOFError, ValueError, zlib.error) as error:
        raise BadJoin("join_request is missing or cannot be decoded") from error
    return Join(
        single_connection=True,
        auto_subscribe=request.connection_settings.auto_subscribe,
        resume=request.reconnect,
        sid=request.participant_sid,
        client=request.client_info,
        request=request,
    )


def _gunzip(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    text = unpacker.decompress(raw, _MAX_JOIN_REQUEST)
    if unpacker.unconsumed_tail:
        raise ValueError("join request too large")
    return text


class Signalling:
    """The handlers of `/rtc`, `/rtc/v1` and their `validate`.

    Args:
        rooms: the server.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def validate(self, request: web.Request) -> web.Response:
        """What livekit-client asks after a failed websocket, to learn why."""
        try:
            self._claims(request)
        except Unauthorized as error:
            return web.Response(status=401, text=str(error))
        return web.Response(text="success")

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """A websocket from its first byte to its last."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=404)
        try:
            claims = self._claims(request)
            join = read_join(request.path, request.query)
        except Unauthorized as error:
            return web.Response(status=401, text=str(error))
        except BadJoin as error:
            return web.Response(status=400, text=str(error))
        name = claims.video.room if claims.video else ""
        room = self._rooms.find_room(name)
        if room is not None and not join.resume and room.is_full_for(claims.identity):
            return web.Response(status=500, text="room has exceeded its max participants")
        link = web.WebSocketResponse(
            timeout=_CLOSE_TIMEOUT, receive_timeout=SIGNAL_SILENCE, max_msg_size=_MAX_SIGNAL, compress=False
        )
        await link.prepare(request)
        # Preparing suspends: everything that depends on the room is looked at again from here on.
        room = self._rooms.find_room(name)
        if join.resume:
            peer = room.get(claims.identity) if room is not None else None
            if room is None or peer is None or (join.sid and peer.sid != join.sid):
                return await self._send_away(link)
            await self._resume(room, peer, link)
        else:
            if room is None:
                room = self._rooms.open_room(name, claims.room_config)
            elif room.is_full_for(claims.identity):
                await link.close(code=1011, message=b"room has exceeded its max participants")
                return link
            peer = await self._join(room, claims, join, link)
        await self._read(room, peer, link)
        return link

    def _claims(self, request: web.Request) -> Claims:
        return self._rooms.keys.join_claims(request.headers.get("Authorization"), request.query.get("access_token"))

    async def _send_away(self, link: web.WebSocketResponse) -> web.WebSocketResponse:
        """Unknown here (restarted, removed, expired): only a full reconnect heals it."""
        leave = rtc.LeaveRequest(action=rtc.LeaveRequest.RECONNECT, reason=models.STATE_MISMATCH)
        await link.send_bytes(rtc.SignalResponse(leave=leave).SerializeToString())
        await link.close()
        return link

    async def _join(self, room: Room, claims: Claims, join: Join, link: web.WebSocketResponse) -> Peer:
        peer = room.join(
            claims, single_connection=join.single_connection, auto_subscribe=join.auto_subscribe, client=join.client
        )
        peer.link = link
        codecs = [models.Codec(mime=f"{kind}/{name.lower()}") for kind, names in RELAYED.items() for name in names]
        peer.send(
            join=rtc.JoinResponse(
                room=room.info,
                participant=peer.full_info(),
                other_participants=[other.full_info() for other in room.visible_to(peer)],
                server_version=SERVER_VERSION,
                server_info=SERVER_INFO,
                subscriber_primary=False,
                fast_publish=True,
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_TIMEOUT,
                enabled_publish_codecs=codecs,
            )
        )
        peer.send_token()
        _log.info("%s joined %s", peer.identity, room.name)
        for track in join.request.add_track_requests:
            peer.publisher.add_track(track)
        if join.request.HasField("publisher_offer"):
            await peer.on_offer(join.request.publisher_offer.sdp, join.request.publisher_offer.id)
        return peer

    async def _resume(self, room: Room, peer: Peer, link: web.WebSocketResponse) -> None:
        """The same participant over a new link. The order of the messages is LiveKit's (LiveKit facts, 42)."""
        old, peer.link = peer.link, None
        if peer.expiry is not None and peer.is_active:
            peer.expiry.cancel()
            peer.expiry = None
        peer.quality.link(up=True)
        answer = rtc.ReconnectResponse(server_info=SERVER_INFO, last_message_seq=peer.last_sequence)
        await link.send_bytes(rtc.SignalResponse(reconnect=answer).SerializeToString())
        peer.link = link
        seen = [peer, *room.visible_to(peer)]
        peer.send(update=rtc.ParticipantUpdate(participants=[other.full_info() for other in seen]))
        peer.send(room_update=rtc.RoomUpdate(room=room.info))
        peer.send_token()
        peer.subscriber.resume()
        if old is not None:
            await old.close()
        _log.info("%s resumed in %s", peer.identity, room.name)

    async def _read(self, room: Room, peer: Peer, link: web.WebSocketResponse) -> None:
        """Requests, one after the other, until the link ends one way or another."""
        try:
            while peer.said_leave is None and not peer.is_gone:
                message = await link.receive()
                if message.type is WSMsgType.BINARY:
                    await signal_requests.handle(peer, message.data)
                elif message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                    break
        except (TimeoutError, ConnectionError):
            _log.info("%s: the signalling link fell silent", peer.identity)
        finally:
            if peer.link is link and not peer.is_gone:
                if peer.said_leave is not None:
                    room.leave(peer, peer.said_leave)
                else:
                    room.link_lost(peer)
