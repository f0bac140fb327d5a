"""Data messages: from one participant, or from the room service, to the others.

The sender's identity is what the server knows, never what the packet claims. A packet of the room service, or of a
hidden participant, has no sender (LiveKit facts, 20, 38).
"""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from livekit.protocol import models

if TYPE_CHECKING:
    from .peer import Peer
    from .room import Room

_log = logging.getLogger("utd_fsm.local.media_server.data")

RELIABLE, LOSSY = "_reliable", "_lossy"
"""The labels of the two data channels every client opens."""


class DataRelay:
    """The data messages of one room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def relay(self, sender: Peer, label: str, raw: bytes) -> None:
        """A message as it came from a client. Without the permission it is dropped silently, as LiveKit does (29)."""
        if label not in (RELIABLE, LOSSY) or not sender.info.permission.can_publish_data:
            return
        try:
            packet = models.DataPacket.FromString(raw)
        except DecodeError:
            _log.info("%s: a data message that is none was dropped", sender.identity)
            return
        if label == RELIABLE and packet.sequence:
            if packet.sequence <= sender.last_sequence:  # sent again after a resume
                return
            sender.last_sequence = packet.sequence
        wanted = set(packet.destination_identities)
        if packet.WhichOneof("value") == "user":
            wanted |= set(packet.user.destination_identities) | set(packet.user.destination_sids)
        hidden = sender.info.permission.hidden
        packet.participant_identity = "" if hidden else sender.identity
        packet.participant_sid = "" if hidden else sender.sid
        if packet.WhichOneof("value") == "user":
            packet.user.participant_identity = packet.participant_identity
            packet.user.participant_sid = packet.participant_sid
        self._deliver(packet, label, wanted, sender)

    def from_server(
        self, payload: bytes, *, topic: str, reliable: bool, destinations: AbstractSet[str], nonce: bytes
    ) -> None:
        """A message of the room service.

        Args:
            payload: its bytes.
            topic: "" for none.
            reliable: on which channel.
            destinations: identities and sids; empty means everybody.
            nonce: the caller's, passed on; may be empty.
        """
        user = models.UserPacket(payload=payload, nonce=nonce)
        if topic:
            user.topic = topic
        kind = models.DataPacket.RELIABLE if reliable else models.DataPacket.LOSSY
        self._deliver(models.DataPacket(kind=kind, user=user), RELIABLE if reliable else LOSSY, destinations, None)

    def _deliver(self, packet: models.DataPacket, label: str, wanted: AbstractSet[str], sender: Peer | None) -> None:
        raw = packet.SerializeToString()
        for peer in self._room.members():
            if peer is not sender and (not wanted or peer.identity in wanted or peer.sid in wanted):
                peer.send_data(label, raw)
