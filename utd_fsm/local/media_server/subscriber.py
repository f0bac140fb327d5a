"""A participant as a receiver: what it subscribes to, and the media sections that carry it.

Under `/rtc` the server offers the sections on a connection of their own (`OfferingSubscriber`). Under `/rtc/v1` there
is one connection and only the client offers, so the server asks it for empty sections and fills them in its answers
(`AnsweringSubscriber`). Nothing is forwarded before the client can know the section (LiveKit facts, 41).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit.protocol import models, rtc

from . import sdp
from .dependency import URI as DEPENDENCY_URI
from .downstream import Downstream
from .sdp import Codec, Section
from .svc_downstream import make_downstream

if TYPE_CHECKING:
    from .peer import Peer
    from .tracks import Track

_log = logging.getLogger("utd_fsm.local.media_server.subscriber")

_ANSWER_TRAVEL = 0.06
"""Seconds a client is given to apply our answer: nothing tells us when it has."""
_FIRST_PAYLOAD_TYPE = 96


@dataclass(eq=False)
class Slot:
    """One media section towards the client: sections are never removed, only emptied and filled again."""

    mid: str
    kind: str
    codec: Codec | None = None
    track: Track | None = None


class Subscriber:
    """What both ways have in common: who may and wants to receive what."""

    def __init__(self, peer: Peer, *, auto_subscribe: bool) -> None:
        self.peer = peer
        self.slots: list[Slot] = []
        self.downstreams: dict[str, Downstream] = {}
        self._auto_subscribe = auto_subscribe
        self._choices: dict[str, bool] = {}

    def choose(self, sid: str, wanted: bool) -> None:
        """``UpdateSubscription``: the client's own word on one track, which outlives the default."""
        self._choices[sid] = wanted

    def reconsider(self, track: Track) -> None:
        """Subscribes or unsubscribes, as permission, the publisher's own list and the client's choice say."""
        owner = track.owner
        wanted = (
            owner is not self.peer
            and self.peer.is_active
            and self.peer.info.permission.can_subscribe
            and owner.lets_subscribe(self.peer, track)
            and self._choices.get(track.sid, self._auto_subscribe)
            and track.sid in owner.publisher.tracks
            and track.codec is not None
            and track.ssrc != 0
        )
        if wanted and track.sid not in self.downstreams:
            downstream = make_downstream(self.peer, track)
            self.downstreams[track.sid] = track.downstreams[self.peer.identity] = downstream
            self._add(track)
            owner.send(track_subscribed=rtc.TrackSubscribed(track_sid=track.sid))
        elif not wanted and track.sid in self.downstreams:
            self._drop(track)

    def reconsider_all(self) -> None:
        for track in self.peer.room.tracks():
            self.reconsider(track)

    def forget(self, track: Track) -> None:
        """The track is gone from the room."""
        self._choices.pop(track.sid, None)
        if track.sid in self.downstreams:
            self._drop(track)

    def _drop(self, track: Track) -> None:
        self.downstreams.pop(track.sid, None)
        track.downstreams.pop(self.peer.identity, None)
        for slot in self.slots:
            if slot.track is track:
                slot.track = None
        self._remove(track)

    def close(self) -> None:
        """The participant leaves: nothing is forwarded to it any more."""
        for downstream in self.downstreams.values():
            downstream.track.downstreams.pop(self.peer.identity, None)
        self.downstreams.clear()

    def refresh(self) -> None:
        """The connection came up: whatever was asked for before it did was lost."""
        for downstream in self.downstreams.values():
            if downstream.ready:
                downstream.request_key_frame(gap=0)

    def resume(self) -> None:
        """The signalling link is back: what was under way on the lost one is said again."""
        raise NotImplementedError

    def _add(self, track: Track) -> None:
        raise NotImplementedError

    def _remove(self, track: Track) -> None:
        raise NotImplementedError

    def _source_lines(self, track: Track) -> list[str]:
        return sdp.source_lines(track.owner.sid, track.sid, track.ssrc)


class OfferingSubscriber(Subscriber):
    """The server offers, on a connection of its own: the signalling of `/rtc`."""

    def __init__(self, peer: Peer, *, auto_subscribe: bool) -> None:
        super().__init__(peer, auto_subscribe=auto_subscribe)
        self._payload_types: dict[tuple[str, str | None], int] = {}
        self._offering = False
        self._stale = False

    def _add(self, track: Track) -> None:
        slot = next((slot for slot in self.slots if slot.track is None and slot.kind == track.kind), None)
        if slot is None:
            slot = Slot(str(len(self.slots)), track.kind)
            self.slots.append(slot)
        assert track.codec is not None
        slot.track = track
        slot.codec = self._own(track.codec)
        self.downstreams[track.sid].payload_type = slot.codec.payload_type
        self._negotiate()

    def _own(self, codec: Codec) -> Codec:
        """The codec under a number of ours: publishers choose theirs freely, a bundle allows each one meaning."""
        key = (codec.mapping, codec.parameters)
        number = self._payload_types.setdefault(key, _FIRST_PAYLOAD_TYPE + len(self._payload_types))
        return Codec(number, codec.mapping, codec.feedback, codec.parameters)

    def _remove(self, track: Track) -> None:
        self._negotiate()

    def resume(self) -> None:
        if self._offering:
            self._offering = False
            self._negotiate()

    def _negotiate(self) -> None:
        """One offer at a time; what changes meanwhile goes into the next one."""
        if self._offering:
            self._stale = True
            return
        self._offering = True
        self.peer.spawn(self._offer())

    async def _offer(self) -> None:
        await asyncio.sleep(0)  # changes of the same moment share one offer
        self._stale = False
        if self.peer.is_gone:
            return
        transport = self.peer.receiving_transport()
        lines, candidates = await transport.local_lines("actpass")
        sections = []
        for slot in self.slots:
            assert slot.codec is not None
            source = self._source_lines(slot.track) if slot.track is not None else []
            direction = "sendonly" if slot.track is not None else "inactive"
            layers = sdp.dependency_lines(sdp.OUR_DEPENDENCY_ID) if slot.codec.name.upper() == "AV1" else []
            extra = [*layers, *source, *candidates]
            sections.append(sdp.media_section(slot.kind, slot.mid, slot.codec, direction, lines, extra))
        text = sdp.description(sections, [slot.mid for slot in self.slots])
        self.peer.send(offer=rtc.SessionDescription(type="offer", sdp=text))

    def on_answer(self, text: str) -> None:
        """The client's answer: what it receives from now on may flow."""
        sections = sdp.parse(text)
        if not sections:
            return
        role = "server" if sections[0].get("setup") == "active" else "client"
        self.peer.receiving_transport().start(sections[0], role, None)
        self._offering = False
        receiving = {section.mid: section for section in sections if section.direction in ("recvonly", "sendrecv")}
        for slot in self.slots:
            if slot.track is not None and slot.mid in receiving and slot.track.sid in self.downstreams:
                downstream = self.downstreams[slot.track.sid]
                downstream.descriptor_extension = receiving[slot.mid].extension(DEPENDENCY_URI)
                downstream.begin()
        if self._stale:
            self._negotiate()


class AnsweringSubscriber(Subscriber):
    """The client offers, the server asks it for sections and fills them: the signalling of `/rtc/v1`."""

    def __init__(self, peer: Peer, *, auto_subscribe: bool) -> None:
        super().__init__(peer, auto_subscribe=auto_subscribe)
        self._waiting: dict[str, list[Track]] = {"audio": [], "video": []}
        self._requested = {"audio": 0, "video": 0}
        self._asking = False

    def _add(self, track: Track) -> None:
        self._waiting[track.kind].append(track)
        self._ask()

    def _remove(self, track: Track) -> None:
        if track in self._waiting[track.kind]:
            self._waiting[track.kind].remove(track)
        self._ask()

    def resume(self) -> None:
        self._requested = {"audio": 0, "video": 0}
        if any(self._waiting.values()):
            self._ask()

    def _ask(self) -> None:
        """Changes of the same moment share one request."""
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._require)

    def _require(self) -> None:
        """Asks for as many further sections as are missing; with none missing it still makes the client offer again."""
        self._asking = False
        missing = {}
        for kind, waiting in self._waiting.items():
            free = sum(1 for slot in self.slots if slot.kind == kind and slot.track is None)
            missing[kind] = max(0, len(waiting) - free - self._requested[kind])
            self._requested[kind] += missing[kind]
        self.peer.send(
            media_sections_requirement=rtc.MediaSectionsRequirement(
                num_audios=missing["audio"], num_videos=missing["video"]
            )
        )

    def answer(self, section: Section, transport: list[str], candidates: list[str]) -> tuple[list[str], str | None]:
        """Our answer to a section in which the client only receives.

        Returns:
            The section's lines, and the sid of the track that it carries.
        """
        slot = next((slot for slot in self.slots if slot.mid == section.mid), None)
        if slot is None:
            slot = Slot(section.mid, section.kind)
            self.slots.append(slot)
            self._requested[section.kind] = max(0, self._requested.get(section.kind, 0) - 1)
        if slot.track is None:
            slot.track = self._next(section)
        if slot.track is not None and slot.track.codec is not None:
            slot.codec = sdp.match_codec(section, slot.track.codec)
        codec = slot.codec or sdp.choose_codec(section)
        if codec is None:
            return sdp.rejected_section(section, transport), None
        track = slot.track
        if track is not None:
            self.downstreams[track.sid].payload_type = codec.payload_type
            self.downstreams[track.sid].descriptor_extension = section.extension(DEPENDENCY_URI)
            asyncio.get_running_loop().call_later(_ANSWER_TRAVEL, self.downstreams[track.sid].begin)
        source = self._source_lines(track) if track is not None else []
        direction = "sendonly" if track is not None else "inactive"
        extra = [*section.extension_lines(dependencies=True), *source, *candidates]
        lines = sdp.media_section(section.kind, section.mid, codec, direction, transport, extra)
        return lines, track.sid if track is not None else None

    def _next(self, section: Section) -> Track | None:
        """The first waiting track that this section's codecs can receive."""
        waiting = self._waiting.get(section.kind, [])
        for track in list(waiting):
            waiting.remove(track)
            if track.codec is not None and sdp.match_codec(section, track.codec) is not None:
                return track
            _log.info("%s: no common codec for %s", self.peer.identity, track.sid)
            self.downstreams.pop(track.sid, None)
            track.downstreams.pop(self.peer.identity, None)
            self.peer.send(
                subscription_response=rtc.SubscriptionResponse(
                    track_sid=track.sid, err=models.SubscriptionError.SE_CODEC_UNSUPPORTED
                )
            )
        return None

    def offered(self) -> None:
        """The client's offer is answered: whatever still waits is asked for again."""
        if any(self._waiting.values()):
            self._ask()
