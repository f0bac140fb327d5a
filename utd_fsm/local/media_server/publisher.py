"""A participant as a sender: the tracks it announced, the sections that carry them, and the packets that arrive."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from livekit.protocol import models, rtc

from . import auth, rtcp, rtp, sdp
from .sdp import Section
from .settings import new_sid
from .tracks import IncomingStream, Track

if TYPE_CHECKING:
    from .peer import Peer

_log = logging.getLogger("utd_fsm.local.media_server.publisher")


class Publisher:
    """The sending side of one participant.

    Attributes:
        tracks: what it publishes, by sid.
        pending: what it asked to publish and has not offered yet, by its own id (`cid`).
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.tracks: dict[str, Track] = {}
        self.pending: dict[str, Track] = {}
        self._streams: dict[int, tuple[Track, IncomingStream]] = {}

    # -- signalling

    def add_track(self, request: rtc.AddTrackRequest) -> None:
        """``AddTrackRequest``: names the track, or refuses it by the permission."""
        peer = self._peer
        if not auth.may_publish(peer.info.permission, request.source):
            # As livekit-server; its Python client only notices by its own time-out of 10 s (LiveKit facts, 5).
            peer.send(
                request_response=rtc.RequestResponse(
                    reason=rtc.RequestResponse.NOT_ALLOWED,
                    message="does not have permission to publish",
                    add_track=request,
                )
            )
            return
        info = models.TrackInfo(
            sid=new_sid("TR_"),
            type=request.type,
            name=request.name,
            muted=request.muted,
            width=request.width,
            height=request.height,
            source=request.source,
            disable_dtx=request.disable_dtx,
            disable_red=True,
            stereo=request.stereo,
            stream=request.stream,
            encryption=request.encryption,
        )
        info.layers.extend(request.layers)
        info.audio_features.extend(request.audio_features)
        info.packet_trailer_features.extend(request.packet_trailer_features)
        preferred = request.simulcast_codecs[0].codec.removeprefix("video/") if request.simulcast_codecs else None
        if request.simulcast_codecs:
            codec = request.simulcast_codecs[0]
            info.codecs.add(mime_type=f"video/{preferred}", cid=codec.cid or request.cid, layers=codec.layers)
        self.pending[request.cid] = Track(info, request.cid, peer, preferred=preferred or None)
        peer.send(track_published=rtc.TrackPublishedResponse(cid=request.cid, track=info))

    def answer(self, section: Section, transport: list[str], candidates: list[str]) -> tuple[list[str], Track | None]:
        """Our answer to a section in which the client sends, or has stopped sending.

        Returns:
            The section's lines, and the track that became known through it.
        """
        known = next((t for t in self.tracks.values() if t.info.mid == section.mid and t.cid == section.track_id), None)
        pending = self.pending.get(section.track_id) if section.sends else None
        track = pending or known
        codec = sdp.choose_codec(section, track.preferred if track else None)
        if codec is None:
            return sdp.rejected_section(section, transport), None
        if track is not None and track.info.stereo and track.kind == "audio":
            codec = codec.with_parameter("stereo=1")
        layers = sdp.simulcast_lines(section.rids) if section.sends else []
        lines = sdp.media_section(
            section.kind,
            section.mid,
            codec,
            "recvonly" if section.sends else "inactive",
            transport,
            [*section.extension_lines(dependencies=codec.name.upper() == "AV1"), *layers, *candidates],
        )
        if pending is None:
            return lines, None
        del self.pending[section.track_id]
        pending.negotiated(section, codec)
        self.tracks[pending.sid] = pending
        return lines, pending

    def offered(self, sections: list[Section]) -> None:
        """The client's new offer is answered: what it no longer sends is unpublished."""
        sending = {section.track_id for section in sections if section.sends}
        for track in [track for track in self.tracks.values() if track.cid not in sending]:
            self.unpublish(track, tell_owner=False)

    def announce(self, track: Track) -> None:
        """Tells the room of a track whose section was answered."""
        if track.ssrc and not track.is_simulcast:
            self._register(track, "", track.ssrc)
        self._peer.room.track_published(track)

    def unpublish(self, track: Track, *, tell_owner: bool) -> None:
        """Takes a track out of the room.

        Args:
            track: one of ours; another is ignored.
            tell_owner: send ``track_unpublished``, where the server decided it and not the client.
        """
        if self.tracks.pop(track.sid, None) is None:
            return
        self._streams = {ssrc: found for ssrc, found in self._streams.items() if found[0] is not track}
        if tell_owner:
            self._peer.send(track_unpublished=rtc.TrackUnpublishedResponse(track_sid=track.sid))
        self._peer.room.track_unpublished(track)

    def mute(self, sid: str, muted: bool) -> bool:
        """Marks a track muted or not, pending ones too; False where there is no such track."""
        track = self.tracks.get(sid) or next((t for t in self.pending.values() if t.sid == sid), None)
        if track is None:
            return False
        if track.info.muted != muted:
            track.info.muted = muted
            if sid in self.tracks:
                self._peer.room.participant_changed(self._peer)
            for downstream in track.downstreams.values():
                if not muted:
                    downstream.request_key_frame()
        return True

    def enforce_permission(self) -> None:
        """After a change of the permission: what is no longer allowed is unpublished."""
        permission = self._peer.info.permission
        for track in list(self.tracks.values()):
            if not auth.may_publish(permission, track.info.source):
                self.unpublish(track, tell_owner=True)
        for cid in [cid for cid, t in self.pending.items() if not auth.may_publish(permission, t.info.source)]:
            del self.pending[cid]

    # -- packets

    def on_rtp(self, data: bytes) -> None:
        """One decrypted packet from the client."""
        found = self._streams.get(rtp.ssrc_of(data)) or self._learn(data)
        if found is None:
            return
        track, stream = found
        now = time.monotonic()
        stream.saw(rtp.sequence_of(data), now)
        if track.info.muted:
            return
        if track.level_extension:
            level = rtp.audio_level(data, track.level_extension)
            if level is not None:
                track.levels.add(level)
        if not track.downstreams:
            return
        part = track.layering.read(data) if track.layering is not None else None
        bare = rtp.without_extensions(data)
        for downstream in list(track.downstreams.values()):
            downstream.relay(stream, bare, now, part)

    def on_sender_report(self, part: rtcp.Part) -> None:
        found = self._streams.get(part.sender_ssrc)
        middle = rtcp.sender_report_middle(part)
        if found is None or middle is None:
            return
        track, stream = found
        stream.saw_sender_report(middle, time.monotonic())
        for downstream in track.downstreams.values():
            downstream.relay_sender_report(stream, part)

    def _learn(self, data: bytes) -> tuple[Track, IncomingStream] | None:
        """The first packet of an unknown SSRC: its header extensions say which layer of which track it is."""
        for track in self.tracks.values():
            rid = track.claims(data)
            if rid is None:
                continue
            ssrc = rtp.ssrc_of(data)
            _log.debug("%s: layer %r of %s arrives", self._peer.identity, rid, track.sid)
            found = self._register(track, rid, ssrc)
            if not track.ssrc:
                track.ssrc = ssrc
                self._peer.room.track_published(track)
            return found
        return None

    def _register(self, track: Track, rid: str, ssrc: int) -> tuple[Track, IncomingStream]:
        stream = track.streams[rid] = IncomingStream(rid, ssrc)
        found = self._streams[ssrc] = (track, stream)
        return found

    # -- towards the client

    def send_rtcp(self, data: bytes) -> None:
        """Feedback for what the client sends."""
        self._peer.publishing.send_rtcp(data)

    def send_reports(self, now: float, bits_per_second: int) -> float:
        """A receiver report over everything that arrives, and a constant estimate: there is no congestion control.

        Returns:
            The largest share of packets lost on any of its streams since the last report (0-1).
        """
        streams = [stream for track in self.tracks.values() for stream in track.streams.values() if stream.received]
        reports = [stream.report(now) for stream in streams]
        if not reports:
            return 0.0
        self.send_rtcp(rtcp.receiver_reports([block for block, _ in reports]))
        video = [s.ssrc for track in self.tracks.values() if track.kind == "video" for s in track.streams.values()]
        if video:
            self.send_rtcp(rtcp.bitrate_estimate(video[:255], bits_per_second))
        return max(fraction for _, fraction in reports)
