"""What a publisher sends: one `IncomingStream` per SSRC, one `Track` over one stream or several simulcast layers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit.protocol import models

from . import dependency, rtcp, rtp, sdp
from .layering import Layering, make_layering
from .sdp import Codec, Section
from .speakers import LevelMeter

if TYPE_CHECKING:
    from .downstream import Downstream
    from .peer import Peer

ALIVE = 1.0
"""Seconds without a packet after which a simulcast layer counts as switched off by its sender."""


class IncomingStream:
    """One SSRC as it arrives: what a receiver report needs, and whether it is alive.

    Args:
        rid: the layer's name; "" where the track has one stream only.
        ssrc: the publisher's.
    """

    def __init__(self, rid: str, ssrc: int) -> None:
        self.rid = rid
        self.ssrc = ssrc
        self.received = 0
        self.last_arrival = 0.0
        self._highest = -1
        self._first = 0
        self._report_middle = 0
        self._report_at = 0.0
        self._reported = (0, 0)

    def saw(self, sequence: int, now: float) -> None:
        """Counts a packet, with 16-bit sequence numbers unrolled."""
        if self._highest < 0:
            self._highest = self._first = sequence
        else:
            ahead = (sequence - self._highest) & 0xFFFF
            if ahead < 0x8000:
                self._highest += ahead
        self.received += 1
        self.last_arrival = now

    def saw_sender_report(self, middle: int, now: float) -> None:
        self._report_middle, self._report_at = middle, now

    def alive(self, now: float) -> bool:
        return now - self.last_arrival < ALIVE

    def report(self, now: float) -> tuple[bytes, float]:
        """A block for a receiver report, and the share of packets lost since the last one (0-1)."""
        expected = self._highest - self._first + 1
        last_expected, last_received = self._reported
        self._reported = (expected, self.received)
        wanted = expected - last_expected
        fraction = max(0.0, min(1.0, 1 - (self.received - last_received) / wanted)) if wanted > 0 else 0.0
        delay = int((now - self._report_at) * 65536) if self._report_middle else 0
        block = rtcp.report_block(
            self.ssrc,
            fraction=min(255, int(fraction * 256)),
            lost=max(0, expected - self.received),
            highest=self._highest,
            last_report=self._report_middle,
            delay=delay,
        )
        return block, fraction


@dataclass(eq=False)
class Track:
    """One published track.

    Attributes:
        info: what others are told of it.
        cid: the publisher's own id of it.
        owner: who publishes it.
        preferred: the codec its publisher asked for, or None.
        codec: what it sends; None until its section was answered.
        ssrc: under which subscribers get it; 0 until known.
        rids: its simulcast layers, lowest first; empty where there is one stream only.
        layering: what tells the spatial layers inside its only stream apart; None where its codec has none.
        streams: its incoming streams by rid ("" for the only one).
        downstreams: its subscribers by identity.
    """

    info: models.TrackInfo
    cid: str
    owner: Peer
    preferred: str | None = None
    codec: Codec | None = None
    ssrc: int = 0
    rids: list[str] = field(default_factory=list)
    layering: Layering | None = None
    streams: dict[str, IncomingStream] = field(default_factory=dict)
    downstreams: dict[str, Downstream] = field(default_factory=dict)
    levels: LevelMeter = field(default_factory=LevelMeter)
    announced: bool = False
    _mid_extension: int = 0
    _rid_extension: int = 0
    level_extension: int = 0

    @property
    def sid(self) -> str:
        return self.info.sid

    @property
    def kind(self) -> str:
        return "audio" if self.info.type == models.AUDIO else "video"

    @property
    def is_simulcast(self) -> bool:
        return bool(self.rids)

    def ranked(self) -> list[IncomingStream]:
        """The layers that have arrived so far, lowest first."""
        return [self.streams[rid] for rid in self.rids if rid in self.streams]

    def negotiated(self, section: Section, codec: Codec) -> None:
        """The publisher's section was answered: everything its packets are recognised by is known now."""
        self.codec = codec
        self._mid_extension, self._rid_extension = section.extension(rtp.MID_URI), section.extension(rtp.RID_URI)
        self.level_extension = section.extension(rtp.AUDIO_LEVEL_URI) if self.kind == "audio" else 0
        rids = section.rids
        self.rids = sdp.lowest_first(rids) if len(rids) > 1 else []
        if self.kind == "video" and not self.rids:
            self.layering = make_layering(codec.name, section.extension(dependency.URI))
        # Simulcast subscribers see one stream made of many: it needs an SSRC that none of its layers has.
        self.ssrc = secrets.randbelow(2**31) + 1 if self.rids else section.ssrc
        self.info.mid = section.mid
        self.info.simulcast = self.is_simulcast
        self.info.mime_type = f"{self.kind}/{codec.name}"
        del self.info.codecs[:]
        self.info.codecs.add(
            mime_type=self.info.mime_type,
            mid=section.mid,
            cid=self.cid,
            layers=self.info.layers,
            video_layer_mode=self._layer_mode(),
        )

    def _layer_mode(self) -> models.VideoLayer.Mode:
        if self.rids:
            return models.VideoLayer.ONE_SPATIAL_LAYER_PER_STREAM
        several = self.layering is not None and len(self.info.layers) > 1
        return models.VideoLayer.MULTIPLE_SPATIAL_LAYERS_PER_STREAM if several else models.VideoLayer.MODE_UNUSED

    def claims(self, data: bytes) -> str | None:
        """Does this packet of an unknown SSRC belong here? Its layer's rid ("" for the only stream), or None."""
        if self.codec is None or rtp.payload_type_of(data) != self.codec.payload_type:
            return None
        mid = rtp.header_extension(data, self._mid_extension)
        if mid is not None and mid != self.info.mid.encode():
            return None
        if self.rids:
            rid = (rtp.header_extension(data, self._rid_extension) or b"").decode("ascii", "replace")
            return rid if rid in self.rids else None
        return "" if self.ssrc == 0 else None
