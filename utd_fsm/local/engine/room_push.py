"""What LiveKit is told of one stream or audio room: metadata, permissions and roles, mutes, and last the notes.

Whoever calls `RoomPush.write` is alone with the room, so that LiveKit is never told of an older state after a newer one
(fact 21). Each write takes the newest state there is at that moment, and tells only what LiveKit is not known to have.
What it is known to have is forgotten whenever it may have changed by itself: at every join and every start of the room,
because a client may come back with an older token (fact 30).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from livekit.protocol import models

from utd_fsm.models import UTDRole
from utd_fsm.room_wire import message_json

from .media_api import MediaApi, MediaRefusedError
from .rooms import Changed, Note, RoomRecord, Rooms, entitled, is_muted, metadata, role
from .tokens import Tokens, permission, same, sources_of

log = logging.getLogger("utd_fsm.engine.media")

NOTE_LIFE: Final = 10.0
"""Seconds a data message waits for a media server that cannot be reached; it is a hint, and old hints are none."""
_AUDIO: Final = models.TrackType.AUDIO


@dataclass(slots=True)
class Known:
    """What LiveKit is known to have of one room."""

    record: RoomRecord | None = None
    """The newest state, as committed."""
    sid: str = ""
    """Which room of that name: LiveKit makes a new one after a restart, or when all have been gone for long."""
    metadata: str | None = None
    people: dict[str, tuple[bool, str] | None] = field(default_factory=dict)
    """Who is there → whether it may publish, and its metadata; None where that differs from anything we would say."""
    muted: set[str] = field(default_factory=set)
    """Whose microphone has been silenced."""
    notes: deque[tuple[Note, float]] = field(default_factory=deque)


class RoomPush:
    """The writing side. Belongs to the event loop."""

    def __init__(self, rooms: Rooms, media: MediaApi, tokens: Tokens) -> None:
        self._rooms = rooms
        self._media = media
        self._tokens = tokens
        self._known: dict[str, Known] = {}

    def newest(self, name: str) -> RoomRecord | None:
        """The room as last committed; None for one that isn't ours."""
        known = self._known.get(name)
        if known is not None and known.record is not None:
            return known.record
        record = self._rooms.find(name)
        if record is not None:
            self._of(name).record = record
        return record

    def committed(self, changed: Changed) -> None:
        """A verb's commit: to be written soon."""
        known = self._of(changed.room.name)
        known.record = changed.room
        now = time.monotonic()
        known.notes.extend((note, now + NOTE_LIFE) for note in changed.notes)

    # --- what LiveKit says that it has

    def room_is(self, name: str, room: models.Room) -> None:
        """The room, as LiveKit tells it: one that was made anew has forgotten everything it was told."""
        known = self._of(name)
        if known.sid != room.sid:
            known.people.clear()
            known.muted.clear()
            known.sid, known.metadata = room.sid, room.metadata

    def room_has(self, name: str, shown: str) -> None:
        """The room's metadata, as LiveKit lists them."""
        self._of(name).metadata = shown

    def person_has(self, name: str, who: models.ParticipantInfo) -> None:
        """A participant's permission and metadata, as LiveKit tells them."""
        known = self._of(name)
        record = self.newest(name)
        may = who.permission.can_publish
        asked = None if record is None else permission(may_publish=may, sources=sources_of(record.type))
        told = (may, who.metadata) if asked and same(asked, who.permission) else None
        # A webhook may be older than what was told since: where the two differ, it is told again.
        known.people[who.identity] = told if known.people.get(who.identity, told) == told else None
        known.muted.discard(who.identity)

    def person_left(self, name: str, identity: str) -> None:
        """It is not there; when it comes again, nothing is known of it."""
        known = self._of(name)
        known.people.pop(identity, None)
        known.muted.discard(identity)

    def forget(self, name: str) -> None:
        """The room is no more. Its state is kept by the store."""
        self._known.pop(name, None)

    # --- writing

    async def write(self, name: str) -> None:
        """Tell LiveKit what it doesn't have yet. Alone with the room.

        Raises: MediaUnreachableError: what has not been told stays to be told.
        """
        if self.newest(name) is None:
            return
        known = self._of(name)
        await self._write_metadata(name, known)
        await self._write_people(name, known)
        await self._write_mutes(name, known)
        while known.notes:
            note, until = known.notes[0]
            if time.monotonic() < until:
                try:
                    await self._media.send(name, message_json(note.kind, note.content), note.to or ())
                except MediaRefusedError as error:
                    log.warning("a note %s is refused: %s", note.kind, error)
            known.notes.popleft()

    async def _write_metadata(self, name: str, known: Known) -> None:
        assert known.record is not None
        shown = metadata(known.record)
        if shown == known.metadata:
            return
        try:
            await self._media.set_metadata(name, shown)  # of a room that isn't there: its start is heard
        except MediaRefusedError as error:  # too long, perhaps: clients then learn by asking the engine
            log.warning("the metadata of a room, %d characters, are refused: %s", len(shown), error)
        known.metadata = shown

    async def _write_people(self, name: str, known: Known) -> None:
        while (record := known.record) is not None:
            entitled_now, claims = self._entitled(record), dict[UTDRole, str]()
            # one who may publish is told even if its join wasn't heard yet; one who isn't there is told when it comes
            for identity in {*known.people, *entitled_now}:
                given = role(record, identity)
                if given not in claims:
                    claims[given] = self._tokens.room_metadata(record, identity)
                wanted = identity in entitled_now, claims[given]
                if known.people.get(identity, (False, "")) != wanted:
                    allowed = permission(may_publish=wanted[0], sources=sources_of(record.type))
                    await self._media.update(name, identity, allowed, wanted[1])
                    known.people[identity] = wanted
                    if known.record is not record:  # a commit came meanwhile: the rest by the newest state
                        break
            else:
                return

    @staticmethod
    def _entitled(record: RoomRecord) -> set[str]:
        known = set(record.involved()) | ({record.owner} if record.owner is not None else set())
        return {who for who in known if entitled(record, who)}

    async def _write_mutes(self, name: str, known: Known) -> None:
        assert known.record is not None
        record = known.record
        silenced = {who for who in record.involved() if is_muted(record, who)}
        known.muted &= silenced
        for identity in silenced - known.muted:
            await self.mute(name, identity)
            known.muted.add(identity)

    async def mute(self, name: str, identity: str, *, audio: bool = True, video: bool = False) -> None:
        """Silence what somebody publishes now.

        Raises: MediaUnreachableError.
        """
        who = await self._media.participant(name, identity)
        for track in () if who is None else who.tracks:
            if not track.muted and (audio if track.type == _AUDIO else video):
                await self._media.mute(name, identity, track.sid)

    async def published(self, name: str, identity: str, track: models.TrackInfo) -> None:
        """Somebody publishes: a muted seat's microphone is silenced at once."""
        record = self.newest(name)
        if record is not None and track.type == _AUDIO and not track.muted and is_muted(record, identity):
            await self._media.mute(name, identity, track.sid)

    def _of(self, name: str) -> Known:
        return self._known.setdefault(name, Known())
