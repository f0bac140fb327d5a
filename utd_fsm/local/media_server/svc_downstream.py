"""A subscription to a stream with spatial layers in it (SVC): those above the wanted one are left out.

Down at the next picture, up at a key picture only, because a layer's frames need those before them. What goes out has
no gaps in its sequence numbers, and the marker on the last packet of each picture that is left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from livekit.protocol import models

from . import rtcp, rtp
from .downstream import Downstream, SimulcastDownstream
from .layering import Part
from .numbering import Renumbering, SentPackets

if TYPE_CHECKING:
    from .peer import Peer
    from .tracks import IncomingStream, Track

_NOTHING, _EVERYTHING = -1, 7
_PICTURES = 64


class SvcDownstream(Downstream):
    """A subscription to the lower layers of one stream, or to all of them.

    Attributes:
        current: the highest spatial layer that is forwarded; -1 until a key picture came, 7 for all.
    """

    def __init__(self, peer: Peer, track: Track) -> None:
        super().__init__(peer, track)
        self.current = _NOTHING
        self._limits: dict[int, int] = {}
        self._numbers = Renumbering()
        self._sent = SentPackets()

    @property
    def target(self) -> int:
        """The highest layer the subscriber wants."""
        return _EVERYTHING if self.wanted >= models.HIGH else max(0, self.wanted)

    def settings_changed(self, *, disabled: bool, quality: int) -> None:
        if disabled:
            self.current = _NOTHING
            self._limits.clear()
        super().settings_changed(disabled=disabled, quality=quality)
        if self.target > self.current:
            self.tick(time.monotonic())

    def relay(self, stream: IncomingStream, data: bytes, now: float, part: Part | None = None) -> None:
        if not self.ready or self.paused:
            return
        sequence = rtp.sequence_of(data)
        limit = self._limit(part, sequence, rtp.timestamp_of(data)) if part is not None else _NOTHING
        if self.current == _NOTHING:
            return
        keep = part is not None and part.spatial <= limit and not rtp.is_padding(data)
        place = self._numbers.place(sequence, keep=keep)
        if place is None:
            return
        if keep and part is not None:
            payload = bytes(data[rtp.payload_offset(data) :])
            ends_picture = part.ends_frame and part.spatial == limit
        else:
            payload, ends_picture = b"", False
        packet = rtp.rewritten(
            data,
            payload,
            payload_type=self.payload_type,
            sequence=place,
            timestamp=rtp.timestamp_of(data),
            ssrc=self.track.ssrc,
            marker=ends_picture,
        )
        if not payload:
            packet = rtp.padding(packet)
        elif part is not None and part.descriptor is not None and self.descriptor_extension:
            packet = rtp.with_extension(packet, self.descriptor_extension, part.descriptor)
        self._sent.add(place, packet)
        self.peer.send_rtp(packet)

    def _limit(self, part: Part, sequence: int, timestamp: int) -> int:
        """The highest layer to forward of this packet's picture: decided by its first packet, the same for all."""
        if timestamp in self._limits:
            return self._limits[timestamp]
        if self.current != _NOTHING and self._numbers.is_late(sequence):
            return self.current
        if part.starts_key:
            if self.current == _NOTHING:
                self._numbers.begin(sequence)
            self.current = self.target
        self.current = min(self.current, self.target)
        if self.current != _NOTHING:
            self._limits[timestamp] = self.current
            if len(self._limits) > _PICTURES:
                del self._limits[next(iter(self._limits))]
        return self.current

    def retransmit(self, sequences: list[int]) -> None:
        """From what was sent; only what never came in is asked for again."""
        missing = []
        for sequence in sequences:
            packet = self._sent.get(sequence)
            incoming = self._numbers.came_as(sequence) if packet is None else None
            if packet is not None:
                self.peer.send_rtp(packet)
            elif incoming is not None:
                missing.append(incoming)
        stream = self.source(time.monotonic())
        if missing and stream is not None:
            self.track.owner.publisher.send_rtcp(rtcp.nack(stream.ssrc, missing))

    def tick(self, now: float) -> None:
        """Where more is wanted than comes, a key frame is asked for until it does."""
        if self.ready and not self.paused and self.current < self.target:
            self.request_key_frame()


def make_downstream(peer: Peer, track: Track) -> Downstream:
    """The kind of subscription this track needs."""
    if track.is_simulcast:
        return SimulcastDownstream(peer, track)
    return SvcDownstream(peer, track) if track.layering is not None else Downstream(peer, track)
