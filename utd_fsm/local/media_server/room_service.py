"""LiveKit's RoomService over twirp: what `livekit.api.LiveKitAPI(...).room` calls, in protobuf or JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from livekit.api.access_token import Claims
from livekit.protocol import models, rtc
from livekit.protocol import room as room_protocol

from . import signal_requests
from .auth import Keys, Unauthorized
from .peer import Peer
from .room import Room

_log = logging.getLogger("utd_fsm.local.media_server.room_service")

_STATUS = {
    "malformed": 400,
    "invalid_argument": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "bad_route": 404,
    "failed_precondition": 412,
    "internal": 500,
}


class Rooms(Protocol):
    """What the service needs of the server."""

    keys: Keys
    remote_unmute: bool

    def find_room(self, name: str) -> Room | None: ...
    def rooms(self) -> list[Room]: ...
    def open_room(
        self, name: str, config: room_protocol.RoomConfiguration | room_protocol.CreateRoomRequest | None
    ) -> Room: ...


class TwirpError(Exception):
    """A refusal with one of twirp's codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RoomService:
    """The handler of ``POST /twirp/livekit.RoomService/{method}``.

    Args:
        rooms: the server.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._methods: dict[str, tuple[Callable[[], Message], Callable[[Claims, Any], Message]]] = {
            "CreateRoom": (room_protocol.CreateRoomRequest, self._create_room),
            "ListRooms": (room_protocol.ListRoomsRequest, self._list_rooms),
            "DeleteRoom": (room_protocol.DeleteRoomRequest, self._delete_room),
            "ListParticipants": (room_protocol.ListParticipantsRequest, self._list_participants),
            "GetParticipant": (room_protocol.RoomParticipantIdentity, self._get_participant),
            "RemoveParticipant": (room_protocol.RoomParticipantIdentity, self._remove_participant),
            "MutePublishedTrack": (room_protocol.MuteRoomTrackRequest, self._mute_published_track),
            "UpdateParticipant": (room_protocol.UpdateParticipantRequest, self._update_participant),
            "UpdateSubscriptions": (room_protocol.UpdateSubscriptionsRequest, self._update_subscriptions),
            "SendData": (room_protocol.SendDataRequest, self._send_data),
            "UpdateRoomMetadata": (room_protocol.UpdateRoomMetadataRequest, self._update_room_metadata),
        }

    async def handle(self, request: web.Request) -> web.Response:
        """One call. Every change is made before the answer is written."""
        is_json = request.content_type == "application/json"
        try:
            claims = self._claims(request)
            name = request.match_info["method"]
            if name not in self._methods:
                raise TwirpError("bad_route", f"no handler for RoomService/{name} in this server")
            make, method = self._methods[name]
            answer = method(claims, self._parse(make(), await request.read(), is_json))
        except TwirpError as error:
            return web.json_response({"code": error.code, "msg": str(error)}, status=_STATUS[error.code])
        except Exception:  # noqa: BLE001
            _log.exception("a call failed")
            return web.json_response({"code": "internal", "msg": "internal error"}, status=500)
        if is_json:
            return web.Response(text=json_format.MessageToJson(answer), content_type="application/json")
        return web.Response(body=answer.SerializeToString(), content_type="application/protobuf")

    def _claims(self, request: web.Request) -> Claims:
        try:
            return self._rooms.keys.claims(request.headers.get("Authorization"), None)
        except Unauthorized as error:
            raise TwirpError("unauthenticated", str(error)) from None

    @staticmethod
    def _parse(message: Message, body: bytes, is_json: bool) -> Message:
        try:
            if is_json:
                json_format.Parse(body, message, ignore_unknown_fields=True)
            else:
                message.ParseFromString(body)
        except (DecodeError, json_format.ParseError) as error:
            raise TwirpError("malformed", "the request cannot be decoded") from error
        return message

    # -- what a token must allow

    @staticmethod
    def _require(allowed: bool | None) -> None:
        if not allowed:
            raise TwirpError("unauthenticated", "permissions denied")

    def _require_admin(self, claims: Claims, name: str) -> None:
        video = claims.video
        self._require(video is not None and video.room_admin and (not video.room or video.room == name))

    def _room(self, claims: Claims, name: str) -> Room:
        """The room of a call that needs the admin grant for it."""
        self._require_admin(claims, name)
        room = self._rooms.find_room(name)
        if room is None:
            raise TwirpError("not_found", "requested room does not exist")
        return room

    def _participant(self, claims: Claims, name: str, identity: str) -> tuple[Room, Peer]:
        try:
            room = self._room(claims, name)
        except TwirpError as error:
            if error.code != "not_found":
                raise
            raise TwirpError("not_found", "participant does not exist") from None
        peer = room.get(identity)
        if peer is None:
            raise TwirpError("not_found", "participant does not exist")
        return room, peer

    # -- rooms

    def _create_room(self, claims: Claims, request: room_protocol.CreateRoomRequest) -> models.Room:
        """On a live room this silently changes nothing, as LiveKit's does (LiveKit facts, 31)."""
        self._require(claims.video is not None and claims.video.room_create)
        if not request.name:
            raise TwirpError("invalid_argument", "name is required")
        return (self._rooms.find_room(request.name) or self._rooms.open_room(request.name, request)).info

    def _list_rooms(self, claims: Claims, request: room_protocol.ListRoomsRequest) -> room_protocol.ListRoomsResponse:
        self._require(claims.video is not None and claims.video.room_list)
        wanted = set(request.names)
        found = [room.info for room in self._rooms.rooms() if not wanted or room.name in wanted]
        return room_protocol.ListRoomsResponse(rooms=found)

    def _delete_room(
        self, claims: Claims, request: room_protocol.DeleteRoomRequest
    ) -> room_protocol.DeleteRoomResponse:
        self._require(claims.video is not None and claims.video.room_create)
        room = self._rooms.find_room(request.room)
        if room is None:
            raise TwirpError("not_found", "requested room does not exist")
        room.close(models.ROOM_DELETED)
        return room_protocol.DeleteRoomResponse()

    def _update_room_metadata(self, claims: Claims, request: room_protocol.UpdateRoomMetadataRequest) -> models.Room:
        room = self._room(claims, request.room)
        room.set_metadata(request.metadata)
        return room.info

    def _send_data(self, claims: Claims, request: room_protocol.SendDataRequest) -> room_protocol.SendDataResponse:
        if len(request.nonce) not in (0, 16):
            raise TwirpError(
                "invalid_argument", f"nonce should be 16-bytes or not present, got: {len(request.nonce)} bytes"
            )
        self._room(claims, request.room).data.from_server(
            request.data,
            topic=request.topic,
            reliable=request.kind == models.DataPacket.RELIABLE,
            destinations={*request.destination_identities, *request.destination_sids},
            nonce=request.nonce,
        )
        return room_protocol.SendDataResponse()

    # -- participants

    def _list_participants(
        self, claims: Claims, request: room_protocol.ListParticipantsRequest
    ) -> room_protocol.ListParticipantsResponse:
        """Of a room that does not exist: nobody, as livekit-server answers it (and not ``not_found``)."""
        self._require_admin(claims, request.room)
        room = self._rooms.find_room(request.room)
        members = room.members() if room is not None else []
        return room_protocol.ListParticipantsResponse(participants=[peer.full_info() for peer in members])

    def _get_participant(
        self, claims: Claims, request: room_protocol.RoomParticipantIdentity
    ) -> models.ParticipantInfo:
        return self._participant(claims, request.room, request.identity)[1].full_info()

    def _remove_participant(
        self, claims: Claims, request: room_protocol.RoomParticipantIdentity
    ) -> room_protocol.RemoveParticipantResponse:
        room, peer = self._participant(claims, request.room, request.identity)
        room.leave(peer, models.PARTICIPANT_REMOVED, rtc.LeaveRequest.DISCONNECT)
        return room_protocol.RemoveParticipantResponse()

    def _update_participant(
        self, claims: Claims, request: room_protocol.UpdateParticipantRequest
    ) -> models.ParticipantInfo:
        room, peer = self._participant(claims, request.room, request.identity)
        room.update_participant(peer, request)
        return peer.full_info()

    def _mute_published_track(
        self, claims: Claims, request: room_protocol.MuteRoomTrackRequest
    ) -> room_protocol.MuteRoomTrackResponse:
        _, peer = self._participant(claims, request.room, request.identity)
        track = peer.publisher.tracks.get(request.track_sid)
        if track is None:  # livekit-server answers without a track, too
            return room_protocol.MuteRoomTrackResponse()
        if not request.muted and not self._rooms.remote_unmute:
            raise TwirpError("failed_precondition", "remote unmute not enabled")
        peer.send(mute=rtc.MuteTrackRequest(sid=track.sid, muted=request.muted))
        peer.publisher.mute(track.sid, request.muted)
        return room_protocol.MuteRoomTrackResponse(track=track.info)

    def _update_subscriptions(
        self, claims: Claims, request: room_protocol.UpdateSubscriptionsRequest
    ) -> room_protocol.UpdateSubscriptionsResponse:
        _, peer = self._participant(claims, request.room, request.identity)
        wanted = set(request.track_sids).union(*(entry.track_sids for entry in request.participant_tracks))
        signal_requests.update_subscriptions(peer, wanted, request.subscribe)
        return room_protocol.UpdateSubscriptionsResponse()
