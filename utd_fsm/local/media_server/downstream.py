"""One subscriber of one track: which packets it gets, and under which numbers.

`Downstream` relays a single stream as it is. `SimulcastDownstream` makes one continuous stream out of whichever layer
the subscriber wants: one SSRC; sequence numbers, timestamps and picture ids without a jump; switched on key frames only
(LiveKit facts, 41). Layers inside a single stream are `svc_downstream`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from livekit.protocol import models

from . import rtcp, rtp, vp8
from .numbering import SentPackets

if TYPE_CHECKING:
    from .layering import Part
    from .peer import Peer
    from .tracks import IncomingStream, Track

_KEY_FRAME_GAP = 0.4
_VIDEO_CLOCK = 90_000


class Downstream:
    """A subscription to a track of one stream.

    Args:
        peer: the subscriber.
        track: what it subscribes to.

    Attributes:
        payload_type: under which this subscriber's description receives the track.
        descriptor_extension: the id under which it knows the dependency descriptor, 0 where it does not.
        paused: the subscriber has no use for it at present.
    """

    def __init__(self, peer: Peer, track: Track) -> None:
        self.peer = peer
        self.track = track
        self.payload_type = track.codec.payload_type if track.codec else 0
        self.descriptor_extension = 0
        self.paused = False
        self.wanted = int(models.HIGH)
        self.ready = False
        self._asked_at = 0.0

    def begin(self) -> None:
        """The subscriber knows the section: packets may flow from now on, and video starts with a key frame."""
        if not self.ready:
            self.ready = True
            self.request_key_frame()

    def settings_changed(self, *, disabled: bool, quality: int) -> None:
        """``UpdateTrackSettings`` of the subscriber."""
        resumed = self.paused and not disabled
        self.paused, self.wanted = disabled, quality
        if resumed:
            self.request_key_frame()

    def relay(self, stream: IncomingStream, data: bytes, now: float, part: Part | None = None) -> None:
        """One packet of the track, its header extensions already off.

        Args:
            stream: the one it came in.
            data: the packet.
            now: when, on the monotonic clock, in seconds.
            part: what it is of its picture, where the stream may have layers in it.
        """
        if self.ready and not self.paused:
            self.peer.send_rtp(rtp.with_payload_type(data, self.payload_type))

    def relay_sender_report(self, stream: IncomingStream, part: rtcp.Part) -> None:
        report = rtcp.relayed_sender_report(part, ssrc=self.track.ssrc, timestamp_offset=self._timestamp_offset(stream))
        if self.ready and report is not None:
            self.peer.send_rtcp(report)

    def _timestamp_offset(self, stream: IncomingStream) -> int:
        return 0

    def source(self, now: float) -> IncomingStream | None:
        """The stream this subscriber is, or is about to be, fed from."""
        return self.track.streams.get("")

    def request_key_frame(self, gap: float = _KEY_FRAME_GAP) -> None:
        """Asks the publisher, at most once in `gap` seconds."""
        now = time.monotonic()
        stream = self.source(now)
        if self.track.kind == "video" and stream is not None and now - self._asked_at > gap:
            self._asked_at = now
            self.track.owner.publisher.send_rtcp(rtcp.picture_loss(stream.ssrc))

    def retransmit(self, sequences: list[int]) -> None:
        """The subscriber missed these packets: the publisher has them."""
        stream = self.source(time.monotonic())
        if stream is not None and sequences:
            self.track.owner.publisher.send_rtcp(rtcp.nack(stream.ssrc, sequences))

    def tick(self, now: float) -> None:
        """Four times a second."""


class SimulcastDownstream(Downstream):
    """A subscription to one of several layers."""

    def __init__(self, peer: Peer, track: Track) -> None:
        super().__init__(peer, track)
        self.current: IncomingStream | None = None
        self._sequence_offset = self._stamp_offset = 0
        self._sequence = self._stamp = 0
        self._sent_at = 0.0
        self._cache = SentPackets()
        self._is_vp8 = track.codec is not None and track.codec.name.upper() == "VP8"
        self._numbering = vp8.Numbering()

    def target(self, now: float) -> IncomingStream | None:
        """The wanted layer, or where its sender switched it off, the next lower one that arrives, or any that does."""
        ranked = self.track.ranked()
        alive = [stream for stream in ranked if stream.alive(now)]
        if not alive:
            return None
        highest = len(self.track.rids) - 1
        wanted = highest if self.wanted >= models.HIGH else min(self.wanted, highest)
        ranks = {stream.rid: self.track.rids.index(stream.rid) for stream in alive}
        below = [stream for stream in alive if ranks[stream.rid] <= wanted]
        return below[-1] if below else alive[0]

    def source(self, now: float) -> IncomingStream | None:
        return self.target(now) or self.current

    def settings_changed(self, *, disabled: bool, quality: int) -> None:
        if self.paused and not disabled:
            # Begun anew with a key frame: the numbers then go on without a gap, which the subscriber would take for
            # hundreds of lost packets.
            self.current = None
        super().settings_changed(disabled=disabled, quality=quality)
        if not disabled and self.target(time.monotonic()) is not self.current:
            self.request_key_frame()

    def _timestamp_offset(self, stream: IncomingStream) -> int:
        return self._stamp_offset

    def relay_sender_report(self, stream: IncomingStream, part: rtcp.Part) -> None:
        if stream is self.current:
            super().relay_sender_report(stream, part)

    def relay(self, stream: IncomingStream, data: bytes, now: float, part: Part | None = None) -> None:
        if self.paused or not self.ready or (stream is not self.current and not self._switch(stream, data, now)):
            return
        sequence = (rtp.sequence_of(data) + self._sequence_offset) & 0xFFFF
        stamp = (rtp.timestamp_of(data) + self._stamp_offset) & 0xFFFFFFFF
        newest = not self._sent_at or ((sequence - self._sequence) & 0xFFFF) < 0x8000
        if newest:
            self._sequence, self._stamp, self._sent_at = sequence, stamp, now
        payload = bytes(data[rtp.payload_offset(data) :])
        if self._is_vp8:
            payload = self._numbering.apply(payload, newest=newest)
        packet = rtp.rewritten(
            data,
            payload,
            payload_type=self.payload_type,
            sequence=sequence,
            timestamp=stamp,
            ssrc=self.track.ssrc,
        )
        self._cache.add(sequence, packet)
        self.peer.send_rtp(packet)

    def _switch(self, stream: IncomingStream, data: bytes, now: float) -> bool:
        """Should this packet of another layer begin the new one? Only where it is wanted and starts a key frame."""
        if stream is not self.target(now):
            return False
        if self.track.codec is None or not rtp.starts_key_frame(self.track.codec.name, data):
            self.request_key_frame()
            return False
        if self.current is None and not self._sent_at:
            self._sequence_offset = self._stamp_offset = 0
        else:
            elapsed = max(_VIDEO_CLOCK // 1000, int((now - self._sent_at) * _VIDEO_CLOCK))
            self._sequence_offset = (self._sequence + 1 - rtp.sequence_of(data)) & 0xFFFF
            self._stamp_offset = (self._stamp + elapsed - rtp.timestamp_of(data)) & 0xFFFFFFFF
        if self._is_vp8:
            self._numbering.switch(bytes(data[rtp.payload_offset(data) :]))
        self.current = stream
        self._cache.clear()
        return True

    def retransmit(self, sequences: list[int]) -> None:
        """From the cache; only what it does not hold is asked for again."""
        missing = []
        for sequence in sequences:
            packet = self._cache.get(sequence)
            if packet is not None:
                self.peer.send_rtp(packet)
            else:
                missing.append((sequence - self._sequence_offset) & 0xFFFF)
        if missing and self.current is not None:
            self.track.owner.publisher.send_rtcp(rtcp.nack(self.current.ssrc, missing))

    def tick(self, now: float) -> None:
        """Where another layer than the current one is wanted, its key frame is asked for until it comes."""
        target = self.target(now)
        if self.ready and not self.paused and target is not None and target is not self.current:
            self.request_key_frame()
