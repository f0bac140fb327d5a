"""The engine's books about the media rooms of streams and audio rooms: who is there, who is gone, what LiveKit lacks.

After each commit, at every join and at every start of a room LiveKit is told what it does not have (`room_push`); one
who is banned is removed again whenever it comes. What is heard is compared with the books, and where time decides, with
LiveKit's own list: a ``participant_left`` is nobody's leave (a full reconnect sends one, fact 35), and a media server
that cannot be asked means that nothing is known, so nobody is gone. One writer a room, in the order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from utd_fsm.models import UTDStreamType
from utd_fsm.room_models import UTDBroadcast

from .media_api import MediaApi, MediaUnreachableError
from .media_work import ASK_AGAIN, Background, Recent, Timers, Writers
from .refusal import Refused
from .room_push import RoomPush
from .rooms import Changed, RoomRecord, Rooms
from .settings import EngineSettings
from .store import Occupant, Store
from .tokens import Tokens

log = logging.getLogger("utd_fsm.engine.media")

FAREWELL: Final = 0.25
"""Seconds between the note that says why and the removal, which would overtake it."""
MEDIA_BACK: Final = 5.0
"""Seconds a host may take to come back to a room that has been made again, before its stream shows it as away."""
NEVER_THERE: Final = ""
"""The sid of somebody who has a place in the room's state and has not been seen in the media room."""
_ON_AIR: Final = (UTDBroadcast.LIVE, UTDBroadcast.HOST_AWAY)


class RoomBooks:
    """Belongs to the event loop.

    Args:
        media: closed by its maker.
        apply: does something in a room in one transaction, and tells these books after it (`service`).
    """

    def __init__(
        self, settings: EngineSettings, store: Store, rooms: Rooms, media: MediaApi, tokens: Tokens,
        apply: Callable[[Callable[[], Changed]], Changed],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._store = store
        self._rooms = rooms
        self._api = media
        self._apply = apply
        self._push = RoomPush(rooms, media, tokens)
        self._writers = Writers()
        self._background = Background()
        self._spawn = self._background.spawn
        self._looks = Timers()
        self._again = Timers()
        self._places: dict[str, dict[str, Occupant]] = {}
        self._queued: set[str] = set()
        self._gone_sids = Recent()
        self._settled: dict[str, float] = {}

    def start(self) -> None:
        """Begin, with a look at every room. On the loop."""
        for name in self._store.occupied():
            self._arm(name)
        self._spawn(self._every(), "rooms-reconcile")

    async def aclose(self) -> None:
        """Stop; nobody is removed by stopping."""
        self._looks.close()
        self._again.close()
        await self._background.aclose()

    # --- what happens

    def told(self, changed: Changed) -> None:
        """A verb was committed: LiveKit is told soon. Returns at once."""
        name = changed.room.name
        self._push.committed(changed)
        self._expect(changed.room)
        self._arm(name)
        for identity in changed.removed:
            place = self._place(name).get(identity)
            self._spawn(self._remove(name, identity, None if place is None else place.sid), "rooms-remove")
        if changed.changed or changed.notes:
            self._write_soon(name)

    def heard(self, event: WebhookEvent) -> None:
        """News of LiveKit about a room that isn't a call's. Returns at once."""
        if event.event == "participant_left":
            self._gone_sids.add(event.participant.sid)
        self._spawn(self._heard(event), f"rooms-{event.event}")

    async def mute(self, name: str, identity: str, *, audio: bool, video: bool) -> None:
        """Silence what somebody publishes now.

        Raises: MediaUnreachableError.
        """
        async with self._writers.writing(name):
            await self._push.mute(name, identity, audio=audio, video=video)

    async def _heard(self, event: WebhookEvent) -> None:
        name, who = event.room.name, event.participant
        async with self._writers.writing(name):
            if self._push.newest(name) is None:
                return  # not ours, or nobody has asked us for a way in
            try:
                if event.event in ("room_started", "participant_joined", "track_published"):
                    self._push.room_is(name, event.room)
                if event.event == "room_started":
                    self._settled[name] = time.time() + MEDIA_BACK
                    await self._look(name)
                elif event.event == "participant_joined":
                    if who.HasField("permission"):
                        await self._is_there(name, who)
                    else:
                        await self._look(name)
                    await self._push.write(name)
                elif event.event == "participant_left":
                    self._left(name, who.identity, who.sid)
                elif event.event == "track_published":
                    await self._push.published(name, who.identity, event.track)
                elif event.event == "room_finished" and not self._place(name):
                    self._places.pop(name, None)
                    self._settled.pop(name, None)
                    self._push.forget(name)
                self._arm(name)
            except MediaUnreachableError:
                self._look_again(name)
                raise

    # --- the rules, all under the room's lock

    async def _is_there(self, name: str, who: models.ParticipantInfo) -> None:
        """Somebody is in the room: written down, or out."""
        try:
            self._rooms.check_ban(who.identity, name)
        except Refused:
            log.info("somebody who is banned came to a room, and is removed")
            await self._api.remove(name, who.identity)
            return
        known = self._place(name).get(who.identity)
        joined = who.joined_at_ms / 1000 if who.joined_at_ms else float(who.joined_at)
        if known is not None and known.sid != who.sid and joined < known.joined_at:
            return  # late news of an older connection
        # a join that is heard after its own leave: it was there, and is gone
        dropped = time.time() if who.sid in self._gone_sids else None
        self._set_place(Occupant(name, who.identity, who.sid, joined, dropped))
        self._push.person_has(name, who)
        if dropped is None:
            for track in who.tracks:
                await self._push.published(name, who.identity, track)
            room = self._push.newest(name)
            if room is not None and who.identity == room.owner and room.live is UTDBroadcast.HOST_AWAY:
                self._apply(lambda: self._rooms.host_back(name))

    def _left(self, name: str, identity: str, sid: str) -> None:
        """A connection is gone; only if it is the current one, the time to come back begins."""
        known = self._place(name).get(identity)
        if known is not None and known.sid == sid and known.dropped_at is None:
            self._set_place(Occupant(name, identity, sid, known.joined_at, time.time()))
            self._push.person_left(name, identity)

    async def _look(self, name: str) -> None:
        """Compare a room with the books; whoever's time is over is gone; tell LiveKit what it lacks."""
        there = await self._api.participants(name)
        for who in there:
            await self._is_there(name, who)
        present = {who.identity for who in there}
        for identity, place in list(self._place(name).items()):
            if identity not in present:
                self._left(name, identity, place.sid)
        moment = time.time()
        for identity, due in self._due(name):
            if due <= moment and identity not in present:
                self._is_gone(name, identity, moment)
        await self._push.write(name)
        self._arm(name)

    def _is_gone(self, name: str, identity: str, moment: float) -> None:
        """Somebody's time is over: a host's to be called there, or anybody's to come back."""
        room = self._push.newest(name)
        place = self._place(name).get(identity)
        if room is None or place is None or place.dropped_at is None:
            return
        is_host = identity == room.owner and room.live in _ON_AIR
        if is_host and room.live is UTDBroadcast.LIVE:
            log.info("the host of a stream is away")
            self._apply(lambda: self._rooms.host_away(name))
        if self._gone_at(place) > moment:
            return
        log.info("somebody has not come back to a room: gone")

        def gone() -> Changed:
            self._store.drop_occupant(name, identity)
            return self._rooms.gone(name, identity)

        self._place(name).pop(identity, None)
        if is_host:
            self._apply(lambda: self._rooms.live_over(name))
        self._apply(gone)

    # --- when

    def _gone_at(self, place: Occupant) -> float:
        """When somebody who dropped is gone for good, in epoch seconds."""
        assert place.dropped_at is not None
        waits = self._settings.party_grace
        return place.dropped_at + (waits + self._settings.join_grace if place.sid == NEVER_THERE else waits)

    def _due(self, name: str) -> list[tuple[str, float]]:
        """Who is missing, and when something follows from it, in epoch seconds."""
        room = self._push.newest(name)
        due: list[tuple[str, float]] = []
        for identity, place in self._place(name).items():
            if place.dropped_at is None:
                continue
            when = self._gone_at(place)
            if room is not None and identity == room.owner and room.live is UTDBroadcast.LIVE:
                blink = self._settings.join_grace if place.sid == NEVER_THERE else self._settings.host_blink
                when = min(when, max(place.dropped_at + blink, self._settled.get(name, 0.0)))
            due.append((identity, when))
        return due

    def _expect(self, room: RoomRecord) -> None:
        """Whoever has a seat, a hand or the air without ever having been seen is expected in the media room."""
        waited_for = set(room.involved())
        if room.owner is not None and room.type is UTDStreamType.LIVE_STREAM and room.live in _ON_AIR:
            waited_for.add(room.owner)
        for identity in waited_for.difference(self._place(room.name)):
            self._set_place(Occupant(room.name, identity, NEVER_THERE, 0.0, time.time()))

    def _arm(self, name: str) -> None:
        """Look again when the next one's time is over."""
        due = self._due(name)
        if due:
            self._looks.set(name, min(when for _, when in due) - time.time() + 0.01, self._struck)
        else:
            self._looks.stop(name)

    def _look_again(self, name: str) -> None:
        """LiveKit could not be asked or told: nothing is known, so nothing is over."""
        self._looks.set(name, ASK_AGAIN, self._struck)

    def _struck(self, name: str) -> None:
        self._spawn(self._look_at(name), "rooms-look")

    async def _look_at(self, name: str) -> None:
        async with self._writers.writing(name):
            try:
                await self._look(name)
            except MediaUnreachableError:
                self._look_again(name)

    def _write_soon(self, name: str) -> None:
        """One write tells of all commits that came before it."""
        if name not in self._queued:
            self._queued.add(name)
            self._spawn(self._write(name), "rooms-write")

    async def _write(self, name: str) -> None:
        async with self._writers.writing(name):
            self._queued.discard(name)
            try:
                await self._push.write(name)
            except MediaUnreachableError:
                self._again.set(name, ASK_AGAIN, self._write_soon)

    async def _remove(self, name: str, identity: str, sid: str | None) -> None:
        """Put somebody out, after the note that says why; one who was kicked and has come again since stays."""
        await asyncio.sleep(FAREWELL)
        until = time.monotonic() + self._settings.party_grace
        while time.monotonic() < until:
            async with self._writers.writing(name):
                place = self._place(name).get(identity)
                came_again = place is not None and place.dropped_at is None and place.sid != sid
                if came_again and sid is not None and not self._is_banned(name, identity):
                    return
                try:
                    await self._api.remove(name, identity)
                except MediaUnreachableError:
                    pass
                else:
                    return
            await asyncio.sleep(ASK_AGAIN)

    def _is_banned(self, name: str, identity: str) -> bool:
        try:
            self._rooms.check_ban(identity, name)
        except Refused:
            return True
        return False

    async def _every(self) -> None:
        """Every room, now and then, and once at the start."""
        while True:
            pause = self._settings.reconcile_every
            try:
                await self.reconcile()
            except MediaUnreachableError as error:
                log.info("rooms not compared: %s", error)
                pause = min(pause, ASK_AGAIN)
            await asyncio.sleep(pause)

    async def reconcile(self) -> None:
        """Compare all rooms with the books.

        Raises: MediaUnreachableError.
        """
        listed = await self._api.rooms()
        for name in {*listed, *self._store.occupied()}:
            async with self._writers.writing(name):
                if self._push.newest(name) is not None:
                    if name in listed:
                        self._push.room_is(name, listed[name])
                        self._push.room_has(name, listed[name].metadata)
                    await self._look(name)

    # --- the places, as the store has them

    def _place(self, name: str) -> dict[str, Occupant]:
        """Who is in a room, or dropped and may come back."""
        if name not in self._places:
            self._places[name] = self._store.occupants(name)
        return self._places[name]

    def _set_place(self, place: Occupant) -> None:
        places = self._place(place.room)
        if places.get(place.identity) != place:
            self._store.set_occupant(place)
            places[place.identity] = place
