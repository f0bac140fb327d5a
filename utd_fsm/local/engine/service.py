"""The engine's parts tied together, and its one rule of order: a verb is one transaction, and only then is it told.

`Engine.run` and `Engine.run_room` apply a verb, its idempotency key, its webhook and its answer in one transaction.
After the commit, and never before, timers, sockets, webhooks and media rooms hear of it. A kill at any moment therefore
loses no call, seat or stage, and nobody has heard of one that is not kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from utd_fsm import wire
from utd_fsm.models import UTDCall, UTDCallStatus

from . import idempotency
from .auth import Auth
from .calls import MAX_DURATION, Calls, Stepped
from .deadlines import Deadlines
from .idempotency import Answer, Key
from .livekit_books import Books
from .media_api import MediaApi
from .media_news import MediaNews
from .ratelimit import RateLimit
from .refusal import Refused
from .room_books import RoomBooks
from .rooms import Changed, Rooms
from .settings import EngineSettings
from .socket import Hub
from .store import Store
from .tokens import Tokens
from .webhooks_out import Webhooks

log = logging.getLogger("utd_fsm.engine")


class _Outcome(Protocol):
    @property
    def answer(self) -> Answer: ...


D = TypeVar("D", bound=_Outcome)


@dataclass(frozen=True, slots=True)
class Done:
    """What a verb did: its answer, and the call it changed, if any."""

    answer: Answer
    changed: UTDCall | None = None


@dataclass(frozen=True, slots=True)
class RoomDone:
    """What a verb did in streams and audio rooms: its answer, and each room that it was about."""

    answer: Answer
    rooms: tuple[Changed, ...]


def record(call: UTDCall) -> dict[str, Any]:
    """A call as it is answered."""
    return {"id": call.call_id, **wire.call_json(call)}


class Engine:
    """One engine. Belongs to its event loop; `open` and `aclose` bracket its life."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.store = Store(settings.db)
        self.auth = Auth(settings, self.store)
        self.calls = Calls(self.store)
        self.rooms = Rooms(self.store)
        self.tokens = Tokens(settings)
        self.limit = RateLimit(settings.rate_limit)
        self.hooks = Webhooks(settings, self.store)
        self.hub = Hub(self.auth, self.store, self.hooks)
        self.media = MediaApi(settings)
        self.books = Books(settings, self.store, self.media, self.cut)
        self.room_books = RoomBooks(settings, self.store, self.rooms, self.media, self.tokens, self.in_room)
        self.news = MediaNews(self.store, self.hooks, self.books.heard, self.room_books.heard)
        self.deadlines = Deadlines(settings, self._struck)

    def open(self) -> None:
        """Go on where the last run stopped: timers, webhooks, rooms. On the loop."""
        with self.store.transaction():
            self.store.forget_keys(time.time() - idempotency.KEEP)
        for call in self.store.open_calls():
            self.deadlines.call_changed(call)
        self.hooks.wake()
        self.books.start()
        self.room_books.start()

    async def aclose(self) -> None:
        """Stop. Open calls and rooms stay as they are: they go on when the engine is back."""
        self.deadlines.close()
        await self.books.aclose()
        await self.room_books.aclose()
        await self.media.aclose()
        await self.hooks.aclose()
        self.store.close()

    # --- verbs

    def run(
        self, identity: str, key: Key | None, route: str, body: Mapping[str, Any], verb: Callable[[], Done]
    ) -> Answer:
        """Apply one verb of `identity`: once for each key, all or nothing.

        Raises:
            Refused: what the rules said. With a key the refusal is kept too, and repeated as it was.
        """
        with self.store.transaction():
            answer, done = self._once(identity, key, route, body, verb)
            changed = None if done is None else done.changed
            if changed is not None:
                self.hooks.note_call(changed)
        if changed is not None:
            self._tell(changed)
        return answer

    def run_room(
        self, identity: str, key: Key | None, route: str, body: Mapping[str, Any], verb: Callable[[], RoomDone]
    ) -> Answer:
        """As `run`, for a verb about streams and audio rooms."""
        with self.store.transaction():
            answer, done = self._once(identity, key, route, body, verb)
        for changed in () if done is None else done.rooms:
            self.room_books.told(changed)
        return answer

    def in_room(self, event: Callable[[], Changed]) -> Changed:
        """Something that the engine itself does in a room: one transaction, told after its commit.

        Raises:
            Refused: what the rules said.
        """
        with self.store.transaction():
            changed = event()
        self.room_books.told(changed)
        return changed

    def _once(
        self, identity: str, key: Key | None, route: str, body: Mapping[str, Any], verb: Callable[[], D]
    ) -> tuple[Answer, D | None]:
        """The first answer to this request, and what the verb did if it was applied now. Inside the transaction."""
        print_ = idempotency.fingerprint(route, body)
        answer = None if key is None else idempotency.recall(self.store, identity, key, print_)
        if answer is not None:
            return answer, None
        done: D | None = None
        try:
            done = verb()
            answer = done.answer
        except Refused as refusal:
            # rules refuse before they write: committing here keeps the key and nothing else
            answer = Answer(refusal.status, refusal.body())
        if key is not None:
            idempotency.remember(self.store, identity, key, print_, answer, at=time.time())
        return answer, done

    def look(self, identity: str, key: Key | None) -> None:
        """A look with a number seals what was sent before it. Committed before the look is answered."""
        if key is not None:
            with self.store.transaction():
                idempotency.seal(self.store, identity, key, at=time.time())

    def cut(self, call_id: str, reason: str) -> None:
        """The engine itself ends a call; nothing, if it is over."""
        self._by_itself(lambda: self.calls.cut(call_id, reason))

    def _struck(self, call: UTDCall) -> None:
        if call.status is UTDCallStatus.ACTIVE:
            self.cut(call.call_id, MAX_DURATION)
        else:
            self._by_itself(lambda: self.calls.ring_timeout(call.call_id))

    def _by_itself(self, event: Callable[[], Stepped | None]) -> None:
        with self.store.transaction():
            stepped = event()
            if stepped is not None:
                self.hooks.note_call(stepped.call)
        if stepped is not None:
            self._tell(stepped.call)

    def _tell(self, call: UTDCall) -> None:
        """After the commit."""
        self.deadlines.call_changed(call)
        self.hub.call_changed(call)
        self.hooks.wake()
        self.books.call_changed(call)
