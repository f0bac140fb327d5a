"""The engine's books about media rooms: who should be in a call's room, who is, and what to do about the difference.

LiveKit's webhooks and lists are compared with the calls (facts 28 to 37). What it must never do: take a
``participant_left`` for a hang-up (a full reconnect sends one), or end a call because the media server cannot be asked.
One writer a room: whatever is asked of LiveKit about one room happens under that room's lock, in the order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Final

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from utd_fsm.models import UTDCall, UTDCallStatus

from .calls import CONNECTION_LOST
from .media_api import MediaApi, MediaUnreachableError
from .media_work import ASK_AGAIN, Background, Recent, Timers, Writers
from .settings import EngineSettings
from .store import Party, Store
from .tokens import permission, same, sources_of

log = logging.getLogger("utd_fsm.engine.media")

CALL_ROOM: Final = re.compile(r"call_[0-9a-f]{24}")
MID_JOIN: Final = 2.0
"""Seconds a room's deletion waits for a join under way."""


class Books:
    """Belongs to the event loop.

    Args:
        media: closed by its maker.
        cut: ends a call with a reason, if it isn't over (`service`).
    """

    def __init__(
        self, settings: EngineSettings, store: Store, media: MediaApi, cut: Callable[[str, str], object]
    ) -> None:
        self._settings = settings
        self._store = store
        self._cut = cut
        self._api = media
        self._writers = Writers()
        self._writing = self._writers.writing
        self._timers = Timers()
        self._background = Background()
        self._spawn = self._background.spawn
        self._gone_sids = Recent()
        self._started = time.time()

    def start(self) -> None:
        """Begin, with a look at every room. On the loop."""
        self._started = time.time()
        for call in self._store.open_calls():
            self._arm(call)
        self._spawn(self._every(), "media-reconcile")

    async def aclose(self) -> None:
        """Stop; nothing is deleted or cut by stopping."""
        self._timers.close()
        await self._background.aclose()

    # --- what happens

    def call_changed(self, call: UTDCall) -> None:
        """A finished call's room is deleted; an answered one's parties are expected."""
        if call.status.is_terminal:
            self._timers.stop(call.call_id)
            self._spawn(self._clear(call.call_id), "media-clear")
        else:
            self._arm(call)

    def heard(self, event: WebhookEvent) -> None:
        """News of LiveKit about a call's room. Returns at once."""
        if event.event == "participant_left":
            self._gone_sids.add(event.participant.sid)
        self._spawn(self._heard(event), f"media-{event.event}")

    async def _heard(self, event: WebhookEvent) -> None:
        name, who = event.room.name, event.participant
        async with self._writing(name):
            call = self._store.call(name)
            if call is None or call.status.is_terminal:
                if event.event in ("room_started", "participant_joined", "track_published"):
                    await self._remove_stray(name, call)
            elif event.event == "room_started":
                await self._look(call)
            elif event.event == "participant_joined":
                if who.HasField("permission"):
                    await self._is_there(call, who)
                    self._arm(call)
                else:
                    await self._look(call)
            elif event.event == "participant_left":
                self._left(call, who.identity, who.sid)
                self._arm(call)

    # --- the rules, all under the room's lock

    async def _remove_stray(self, name: str, call: UTDCall | None) -> None:
        """A room that has no right to be: its call is over, or was never ours."""
        if call is not None or self._settings.sole_owner:
            await self._delete(name)
            if call is not None:
                self._store.set_cleared(name)

    async def _delete(self, name: str) -> None:
        """Delete a room, but nobody in the middle of a join: LiveKit's client does not notice that, tries three times
        more, 15 s each, and makes the room anew each time (measured on both servers). Once in, it goes at once."""
        until = time.monotonic() + MID_JOIN
        while time.monotonic() < until:
            there = await self._api.participants(name)
            if all(who.state == models.ParticipantInfo.State.ACTIVE for who in there):
                break
            await asyncio.sleep(0.03)
        await self._api.delete_room(name)

    async def _is_there(self, call: UTDCall, who: models.ParticipantInfo) -> None:
        """Somebody is in the room: a party with the right permission, or out."""
        if who.identity not in (call.caller_identity, call.callee_identity):
            log.warning("a stranger in the room of %s is removed", call.call_id)
            await self._api.remove(call.call_id, who.identity)
            return
        known = self._store.parties(call.call_id).get(who.identity)
        joined = who.joined_at_ms / 1000 if who.joined_at_ms else float(who.joined_at)
        if known is not None and known.sid != who.sid and joined < known.joined_at:
            return  # late news of an older connection
        # a join that is heard after its own leave: it was there, and is gone
        dropped = time.time() if who.sid in self._gone_sids else None
        self._store.set_party(Party(call.call_id, who.identity, who.sid, joined, dropped))
        wanted = permission(may_publish=True, sources=sources_of(call.type))
        if not same(wanted, who.permission):
            log.info("the permission of a party of %s differs from the books: applied again", call.call_id)
            await self._api.update(call.call_id, who.identity, wanted)

    def _left(self, call: UTDCall, identity: str, sid: str) -> None:
        """A connection is gone; only if it is the party's current one, its time to come back begins."""
        known = self._store.parties(call.call_id).get(identity)
        if known is not None and known.sid == sid and known.dropped_at is None:
            self._store.set_party(Party(call.call_id, identity, sid, known.joined_at, time.time()))

    async def _look(self, call: UTDCall) -> None:
        """Compare one open call's room with the books, and cut the call if a party's time is over."""
        there = await self._api.participants(call.call_id)
        present = {who.identity for who in there}
        for who in there:
            await self._is_there(call, who)
        parties = self._store.parties(call.call_id)
        for identity, party in parties.items():
            if identity not in present:
                self._left(call, identity, party.sid)
        moment = time.time()
        for identity, due in self._due(call).items():
            if due <= moment and identity not in present:
                log.info("a party of %s is gone for good: cut", call.call_id)
                self._cut(call.call_id, CONNECTION_LOST)
                return
        self._arm(call)

    def _due(self, call: UTDCall) -> dict[str, float]:
        """When each missing party's time is over, in epoch seconds."""
        parties = self._store.parties(call.call_id)
        due: dict[str, float] = {}
        for identity in (call.caller_identity, call.callee_identity):
            party = parties.get(identity)
            if party is not None and party.dropped_at is not None:
                due[identity] = party.dropped_at + self._settings.party_grace
            elif party is None and call.status is UTDCallStatus.ACTIVE:
                assert call.answered_at is not None
                # an engine that was away may have missed the join: it waits anew
                due[identity] = max(call.answered_at.timestamp(), self._started) + self._settings.join_grace
        return due

    async def _clear(self, name: str) -> None:
        async with self._writing(name):
            await self._delete(name)
            self._store.set_cleared(name)

    # --- when

    def _arm(self, call: UTDCall, *, wait: float | None = None) -> None:
        """Look again when the next missing party's time is over."""
        self._timers.stop(call.call_id)
        due = self._due(call)
        if wait is None and not due:
            return
        pause = wait if wait is not None else max(0.0, min(due.values()) - time.time()) + 0.01
        self._timers.set(call.call_id, pause, lambda call_id: self._spawn(self._look_at(call_id), "media-look"))

    async def _look_at(self, call_id: str) -> None:
        async with self._writing(call_id):
            call = self._store.call(call_id)
            if call is None or call.status.is_terminal:
                return
            try:
                await self._look(call)
            except MediaUnreachableError:
                self._arm(call, wait=ASK_AGAIN)  # nothing is known, so nothing is over

    async def _every(self) -> None:
        """Every room, now and then, and once at the start."""
        while True:
            try:
                await self.reconcile()
            except MediaUnreachableError as error:
                log.info("rooms not compared: %s", error)
            await asyncio.sleep(self._settings.reconcile_every)

    async def reconcile(self) -> None:
        """Compare all rooms with the books.

        Raises: MediaUnreachableError.
        """
        for call_id in self._store.calls_to_clear():
            await self._clear(call_id)
        for name in await self._api.rooms():
            if CALL_ROOM.fullmatch(name):
                async with self._writing(name):
                    call = self._store.call(name)
                    if call is None or call.status.is_terminal:
                        await self._remove_stray(name, call)
        for call in self._store.open_calls():
            async with self._writing(call.call_id):
                fresh = self._store.call(call.call_id)
                if fresh is not None and not fresh.status.is_terminal:
                    await self._look(fresh)
