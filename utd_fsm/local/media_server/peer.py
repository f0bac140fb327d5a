"""One participant: its permission and metadata, its signalling link, its connections, and its two sides.

Owned by its `Room`, on the event loop. Signalling requests come in through `signal_requests`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from livekit import api
from livekit.api.access_token import Claims
from livekit.protocol import models, rtc

from . import auth, rtcp, sdp
from .publisher import Publisher
from .quality import QualityMeter
from .settings import MAX_MESSAGE_SIZE, MAX_WAITING_DATA, new_sid
from .subscriber import AnsweringSubscriber, OfferingSubscriber
from .transport import Transport

if TYPE_CHECKING:
    from .room import Room

_log = logging.getLogger("utd_fsm.local.media_server.peer")


class Link(Protocol):
    """The websocket as a participant sees it."""

    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self) -> Any: ...


class Peer:
    """A participant of a room.

    Args:
        room: where it is.
        claims: its verified token.
        single_connection: it speaks `/rtc/v1`.
        auto_subscribe: it receives every track unless it says otherwise.
        client: what it told of itself, or None.
    """

    def __init__(
        self,
        room: Room,
        claims: Claims,
        *,
        single_connection: bool,
        auto_subscribe: bool,
        client: models.ClientInfo | None = None,
    ) -> None:
        now = time.time()
        self.room = room
        self.claims = claims
        self.identity = claims.identity
        self.sid = new_sid("PA_")
        self.info = models.ParticipantInfo(
            sid=self.sid,
            identity=claims.identity,
            name=claims.name or "",
            metadata=claims.metadata or "",
            state=models.ParticipantInfo.JOINED,
            joined_at=int(now),
            joined_at_ms=int(now * 1000),
            kind=auth.kind_of(claims),
            attributes=claims.attributes or {},
            permission=auth.permission_of(claims.video or api.VideoGrants()),
        )
        if client is not None:
            self.info.client_protocol = client.client_protocol
            self.info.capabilities.extend(client.capabilities)
        self.publisher = Publisher(self)
        self.subscriber: OfferingSubscriber | AnsweringSubscriber = (
            AnsweringSubscriber(self, auto_subscribe=auto_subscribe)
            if single_connection
            else OfferingSubscriber(self, auto_subscribe=auto_subscribe)
        )
        self.quality = QualityMeter()
        self.single_connection = single_connection
        self.last_sequence = 0
        self.said_leave: models.DisconnectReason | None = None
        self.link: Link | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.publishing = self._transport("publisher", controlling=False)
        self._receiving: Transport | None = self.publishing if single_connection else None
        self._allowed: rtc.SubscriptionPermission | None = None
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting_data: list[bytes] = []
        self._gone = False

    def __repr__(self) -> str:
        return f"<Peer {self.identity} {self.sid} in {self.room.name}>"

    # -- the signalling link

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.room.spawn(work)

    def send(self, **message: Any) -> None:
        """Queues one ``SignalResponse``; order is kept. While the link is down messages are lost: a resume repeats
        what matters."""
        if not self._gone:
            self._outbox.put_nowait(rtc.SignalResponse(**message).SerializeToString())

    async def write(self) -> None:
        """Sends what is queued until the participant is gone, then closes the link."""
        while (message := await self._outbox.get()) is not None:
            link = self.link
            if link is None:
                continue
            try:
                await link.send_bytes(message)
            except (ConnectionError, RuntimeError) as error:
                _log.debug("%s: link is down: %r", self.identity, error)
        if self.link is not None:
            await self.link.close()

    def send_token(self) -> None:
        """The token for its next reconnect, which carries what was changed since it joined (LiveKit facts, 23, 42)."""
        self.send(refresh_token=self.room.keys.refreshed(self.claims, self.info))

    @property
    def is_active(self) -> bool:
        """Joined, and media is up."""
        return self.info.state == models.ParticipantInfo.ACTIVE and not self._gone

    @property
    def is_gone(self) -> bool:
        return self._gone

    def full_info(self) -> models.ParticipantInfo:
        """What others and the room service are told of it."""
        info = models.ParticipantInfo()
        info.CopyFrom(self.info)
        info.tracks.extend(track.info for track in self.publisher.tracks.values() if track.announced)
        info.is_publisher = bool(info.tracks)
        return info

    # -- negotiation

    async def on_offer(self, text: str, number: int) -> None:
        """The client's offer: what it sends and, with a single connection, the sections it receives on."""
        sections = sdp.parse(text)
        if not sections:
            return
        if self._gone:
            return
        lines, candidates = await self.publishing.local_lines("active")
        if self._gone:  # left, or was shown out, while the candidates were gathered
            return
        answers: list[list[str]] = []
        fresh = []
        carried: dict[str, str] = {}
        for section in sections:
            if section.kind == "application":
                answers.append([*sdp.data_section(section, lines, MAX_MESSAGE_SIZE), *candidates])
            elif isinstance(self.subscriber, AnsweringSubscriber) and section.direction == "recvonly":
                answer, sid = self.subscriber.answer(section, lines, candidates)
                answers.append(answer)
                if sid is not None:
                    carried[section.mid] = sid
            else:
                answer, track = self.publisher.answer(section, lines, candidates)
                answers.append(answer)
                if track is not None:
                    fresh.append(track)
        text = sdp.description(answers, [section.mid for section in sections])
        self.send(answer=rtc.SessionDescription(type="answer", sdp=text, id=number, mid_to_track_id=carried))
        data = next((section for section in sections if section.kind == "application"), None)
        self.publishing.start(sections[0], "client", data.sctp_port if data is not None else None)
        self.publisher.offered(sections)
        for track in fresh:
            self.publisher.announce(track)
        if isinstance(self.subscriber, AnsweringSubscriber):
            self.subscriber.offered()

    def on_answer(self, text: str) -> None:
        """The client's answer to an offer of ours."""
        if isinstance(self.subscriber, OfferingSubscriber):
            self.subscriber.on_answer(text)

    def receiving_transport(self) -> Transport:
        """The connection it receives on; made at first need where it is one of its own."""
        if self._receiving is None:
            self._receiving = self._transport("subscriber", controlling=True)
        return self._receiving

    def transport(self, target: int) -> Transport | None:
        """The connection a trickled candidate is for."""
        return self.publishing if self.single_connection or target == rtc.PUBLISHER else self._receiving

    def _transport(self, role: str, *, controlling: bool) -> Transport:
        name = f"{self.identity} {role}"
        return Transport(self, self.spawn, controlling=controlling, host=self.room.media_host, name=name)

    # -- subscription permission of the publisher

    def set_subscription_permission(self, allowed: rtc.SubscriptionPermission) -> None:
        """Who may receive this participant's tracks; tells those whose answer changed."""
        before = {
            (o.identity, t.sid): self.lets_subscribe(o, t) for o in self.room.others(self) for t in self._tracks()
        }
        self._allowed = None if allowed.all_participants else allowed
        for other in self.room.others(self):
            for track in self._tracks():
                allows = self.lets_subscribe(other, track)
                if allows != before[other.identity, track.sid]:
                    other.send(
                        subscription_permission_update=rtc.SubscriptionPermissionUpdate(
                            participant_sid=self.sid, track_sid=track.sid, allowed=allows
                        )
                    )
                other.subscriber.reconsider(track)

    def lets_subscribe(self, other: Peer, track: Any) -> bool:
        if self._allowed is None:
            return True
        return any(
            (entry.participant_identity == other.identity or entry.participant_sid == other.sid)
            and (entry.all_tracks or track.sid in entry.track_sids)
            for entry in self._allowed.track_permissions
        )

    def _tracks(self) -> list[Any]:
        return list(self.publisher.tracks.values())

    # -- media and data

    def send_rtp(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.send_rtp(data)

    def send_rtcp(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.send_rtcp(data)

    def send_data(self, label: str, data: bytes) -> None:
        """On the client's own channel; reliable data waits for a channel that is not open yet."""
        sent = self.publishing.send_data(label, data)
        if not sent and label == "_reliable" and len(self._waiting_data) < MAX_WAITING_DATA:
            self._waiting_data.append(data)

    def on_rtp(self, transport: Transport, data: bytes) -> None:
        if transport is self.publishing and not self._gone:
            self.publisher.on_rtp(data)

    def on_rtcp(self, transport: Transport, data: bytes) -> None:
        for part in rtcp.parts(data):
            if part.kind == rtcp.SENDER_REPORT:
                self.publisher.on_sender_report(part)
            if part.kind in (rtcp.SENDER_REPORT, rtcp.RECEIVER_REPORT):
                for _, lost in rtcp.fractions_lost(part):
                    self.quality.lost(lost)
            elif part.kind in (rtcp.TRANSPORT_FEEDBACK, rtcp.PAYLOAD_FEEDBACK):
                self._on_feedback(part)

    def _on_feedback(self, part: rtcp.Part) -> None:
        ssrc = rtcp.media_ssrc(part)
        downstream = next((d for d in self.subscriber.downstreams.values() if d.track.ssrc == ssrc), None)
        if downstream is None:
            return
        if rtcp.asks_for_key_frame(part):
            downstream.request_key_frame(gap=0.2)
        elif part.kind == rtcp.TRANSPORT_FEEDBACK and part.count == rtcp.GENERIC_NACK:
            downstream.retransmit(rtcp.nacked(part))

    def on_data(self, transport: Transport, label: str, data: bytes) -> None:
        if not self._gone:
            self.room.data.relay(self, label, data)

    def on_channel_open(self, transport: Transport, label: str) -> None:
        if label == "_reliable":
            waiting, self._waiting_data = self._waiting_data, []
            for data in waiting:
                transport.send_data(label, data)

    def on_connected(self, transport: Transport) -> None:
        if self._gone:
            return
        if transport is self.publishing:
            self.room.media_is_up(self)
        if transport is self._receiving:
            self.subscriber.refresh()

    def on_failed(self, transport: Transport) -> None:
        """Nothing to do: the client sees the same and reconnects, or its link's silence ends it."""

    async def close(self, *, silently: bool = False) -> None:
        """The end of this participant: what is queued still goes out, then link and connections are closed.

        Args:
            silently: its connections just stop, as those of a killed process do.
        """
        if self._gone:
            return
        self._gone = True
        if self.expiry is not None:
            self.expiry.cancel()
        self._outbox.put_nowait(None)
        self.subscriber.close()
        for transport in {self.publishing, self._receiving}:
            if transport is not None:
                try:
                    await transport.close(silently=silently)
                except (ConnectionError, OSError, RuntimeError) as error:
                    _log.debug("%s: while closing: %r", self.identity, error)
