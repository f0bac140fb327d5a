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
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from utd_fsm.models import UTDCall, UTDCallStatus

from .calls import CONNECTION_LOST
from .media_api import MediaApi, MediaUnreachableError
from .settings import EngineSettings
from .store import Party, Store
from .tokens import permission, same, sources_of
from .webhooks_out import Webhooks

log = logging.getLogger("utd_fsm.engine.media")

CALL_ROOM: Final = re.compile(r"call_[0-9a-f]{24}")
PASSED_ON: Final = frozenset(
    ("room_started", "room_finished", "participant_joined", "participant_left", "track_published", "track_unpublished")
)
"""What of LiveKit's webhooks the application's backend is told, too."""
ASK_AGAIN: Final = 2.0
"""Seconds until a media server that could not be asked is asked again."""
MID_JOIN: Final = 2.0
"""Seconds a room's deletion waits for a join under way."""
_REMEMBER: Final = 4096


class Recent:
    """The newest few of a set."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, item: str) -> bool:
        return item in self._items

    def add(self, item: str) -> bool:
        """Whether it was new."""
        new = item not in self._items
        self._items[item] = None
        while len(self._items) > _REMEMBER:
            self._items.popitem(last=False)
        return new


class Books:
    """Belongs to the event loop.

    Args:
        cut: ends a call with a reason, if it isn't over (`service`).
    """

    def __init__(
        self, settings: EngineSettings, store: Store, hooks: Webhooks, cut: Callable[[str, str], object]
    ) -> None:
        self._settings = settings
        self._store = store
        self._hooks = hooks
        self._cut = cut
        self._media: MediaApi | None = None
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._events = Recent()
        self._gone_sids = Recent()
        self._started = time.time()

    def start(self) -> None:
        """Begin, with a look at every room. On the loop."""
        self._started = time.time()
        self._media = MediaApi(self._settings)
        for call in self._store.open_calls():
            self._arm(call)
        self._spawn(self._every(), "media-reconcile")

    async def aclose(self) -> None:
        """Stop; nothing is deleted or cut by stopping."""
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._media is not None:
            await self._media.aclose()

    # --- what happens

    def call_changed(self, call: UTDCall) -> None:
        """A finished call's room is deleted; an answered one's parties are expected."""
        if call.status.is_terminal:
            self._disarm(call.call_id)
            self._spawn(self._clear(call.call_id), "media-clear")
        else:
            self._arm(call)

    def heard(self, event: WebhookEvent) -> None:
        """One webhook of LiveKit, its signature verified. Returns at once; a repeat is dropped."""
        if event.id and not self._events.add(event.id):
            return
        if event.event == "participant_left":
            self._gone_sids.add(event.participant.sid)
        self._pass_on(event)
        if CALL_ROOM.fullmatch(event.room.name):
            self._spawn(self._heard(event), f"media-{event.event}")

    def _pass_on(self, event: WebhookEvent) -> None:
        if event.event not in PASSED_ON:
            return
        room = event.room
        parts: dict[str, dict[str, Any]] = {
            "room": {"name": room.name, "sid": room.sid, "participant_count": room.num_participants}
        }
        if event.HasField("participant"):
            parts["participant"] = {"identity": event.participant.identity, "name": event.participant.name}
        if event.HasField("track"):
            kind = "video" if event.track.type == models.TrackType.VIDEO else "audio"
            parts["track"] = {"type": kind, "width": event.track.width, "height": event.track.height}
        with self._store.transaction():
            self._hooks.note(event.event, f"room:{room.name}", **parts)
        self._hooks.wake()

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
            await self._api.set_permission(call.call_id, who.identity, wanted)

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
        self._disarm(call.call_id)
        due = self._due(call)
        if wait is None and not due:
            return
        pause = wait if wait is not None else max(0.0, min(due.values()) - time.time()) + 0.01
        loop = asyncio.get_running_loop()
        self._timers[call.call_id] = loop.call_later(pause, self._timer, call.call_id)

    def _disarm(self, call_id: str) -> None:
        timer = self._timers.pop(call_id, None)
        if timer is not None:
            timer.cancel()

    def _timer(self, call_id: str) -> None:
        self._timers.pop(call_id, None)
        self._spawn(self._look_at(call_id), "media-look")

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

    # --- machinery

    @property
    def _api(self) -> MediaApi:
        assert self._media is not None, "start() first"
        return self._media

    @asynccontextmanager
    async def _writing(self, room: str) -> AsyncIterator[None]:
        """One writer a room, in the order of arrival."""
        lock, users = self._locks.get(room, (asyncio.Lock(), 0))
        self._locks[room] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[room]
            if users == 1:
                del self._locks[room]
            else:
                self._locks[room] = lock, users - 1

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MediaUnreachableError):
            log.info("%s: %s; the next comparison of the rooms will see to it", task.get_name(), error)
        elif error is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
