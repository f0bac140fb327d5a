"""What a room does by the clock: reports to publishers, key frames for layer switches, speakers, connection quality."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from livekit.protocol import models, rtc

from . import quality, speakers

if TYPE_CHECKING:
    from .peer import Peer
    from .room import Room

_log = logging.getLogger("utd_fsm.local.media_server.pulse")

_STEP = 0.2
_REPORTS_EVERY = 1.0
_BITS_PER_SECOND = 8_000_000
"""What every publisher may send. A constant: there is no congestion control here."""


class Pulse:
    """The clock of one room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._levels: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled, when the room closes. A step that fails is logged and the next one still comes."""
        step = 0
        while True:
            await asyncio.sleep(_STEP)
            step += 1
            if not self._room.members() and not self._levels:
                continue
            try:
                self._step(step, time.monotonic())
            except Exception:  # noqa: BLE001
                _log.exception("a step of room %s failed", self._room.name)

    def welcome(self, newcomer: Peer) -> None:
        """Tells one who has just joined what the others were told before."""
        if self._levels:
            newcomer.send(speakers_changed=_speakers(self._levels))
        told = [
            rtc.ConnectionQualityInfo(
                participant_sid=peer.sid, quality=peer.quality.told, score=quality.score(peer.quality.told)
            )
            for peer in self._room.visible_to(newcomer)
            if peer.quality.told is not None
        ]
        if told:
            newcomer.send(connection_quality=rtc.ConnectionQualityUpdate(updates=told))

    def _step(self, step: int, now: float) -> None:
        for track in self._room.tracks():
            for downstream in list(track.downstreams.values()):
                downstream.tick(now)
        if step % round(_REPORTS_EVERY / _STEP) == 0:
            for peer in self._room.members():
                peer.quality.lost(peer.publisher.send_reports(now, _BITS_PER_SECOND))
        if step % round(speakers.WINDOW / _STEP) == 0:
            self._tell_speakers()
        if step % round(quality.INTERVAL / _STEP) == 0:
            self._tell_quality()

    def _tell_speakers(self) -> None:
        """Only what changed, to everybody; one who fell silent is told with level 0."""
        levels: dict[str, float] = {}
        for peer in self._room.members():
            tracks = [track for track in peer.publisher.tracks.values() if track.kind == "audio"]
            level = max((track.levels.take() for track in tracks), default=0.0)
            if level > 0 and not peer.info.permission.hidden:
                levels[peer.sid] = speakers.rounded(level)
        changed = {sid: level for sid, level in levels.items() if self._levels.get(sid) != level}
        changed |= {sid: 0.0 for sid in self._levels if sid not in levels}
        self._levels = levels
        if changed:
            message = _speakers(changed)
            for peer in self._room.members():
                peer.send(speakers_changed=message)

    def _tell_quality(self) -> None:
        """Only what changed, of itself and of those that it may know of."""
        updates: dict[str, rtc.ConnectionQualityInfo] = {}
        for peer in self._room.members():
            judged = peer.quality.judge()
            if peer.is_active and judged != peer.quality.told:
                peer.quality.told = judged
                updates[peer.sid] = rtc.ConnectionQualityInfo(
                    participant_sid=peer.sid,
                    quality=judged,
                    score=quality.score(judged),
                )
        if not updates:
            return
        for peer in self._room.members():
            seen = [peer, *self._room.visible_to(peer)]
            told = [updates[other.sid] for other in seen if other.sid in updates]
            if told:
                peer.send(connection_quality=rtc.ConnectionQualityUpdate(updates=told))


def _speakers(levels: dict[str, float]) -> rtc.SpeakersChanged:
    infos = [models.SpeakerInfo(sid=sid, level=level, active=level > 0) for sid, level in levels.items()]
    return rtc.SpeakersChanged(speakers=infos)
