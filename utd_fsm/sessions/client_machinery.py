"""What a client does when nobody asks: holds its sessions, the loop thread and the ears for calls, and ends them.

Loop thread, except where a member says otherwise. What a person can ask of a client is in `client`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from utd_fsm import validation
from utd_fsm.errors import UTDClosedError, UTDStateError, UTDStreamException
from utd_fsm.incoming import IncomingCalls
from utd_fsm.models import UTDCall, UTDStreamType, UTDTokenResponse
from utd_fsm.portal import Lease, portal
from utd_fsm.room import RoomOptions
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.engine_room import EngineRoomSession
from utd_fsm.sessions.engine_rooms import EngineRoom
from utd_fsm.sessions.room import livekit_room

if TYPE_CHECKING:
    from utd_fsm.engine_api import Credentials, EngineApi
    from utd_fsm.room import RoomFactory
    from utd_fsm.sessions.timing import Timing

log = logging.getLogger("utd_fsm.client")

T = TypeVar("T")
R = TypeVar("R", bound=EngineRoomSession)

GOODBYE = 5.0
"""Seconds that all sessions together have to end when the client is disposed."""


@dataclass(frozen=True, slots=True)
class WayIn:
    """A way into a room, and the engine's routes there."""

    kind: UTDStreamType
    engine_room: EngineRoom
    ticket: UTDTokenResponse
    as_host: bool


class ClientMachinery:
    """The part of a client's core that nobody asks for by name."""

    async def dispose(self) -> None:
        """Given by `ClientCore`."""
        raise NotImplementedError

    @property
    def identity(self) -> str | None:
        """Who is signed in; None before. Any thread."""
        return self._credentials.identity if self._credentials else None

    def __init__(
        self,
        api: EngineApi,
        *,
        asynchronous: bool,
        room_factory: RoomFactory | None,
        timing: Timing | None,
    ) -> None:
        """Sends nothing and starts nothing yet.

        Args:
            api: the engine.
            asynchronous: whether the sessions' Observables are the awaitable ones.
            room_factory: makes Rooms; None is LiveKit.
            timing: seconds; None is the design's.
        """
        self._api = api
        self._asynchronous = asynchronous
        self._room_factory = room_factory
        self._timing = timing
        self._credentials: Credentials | None = None
        self._incoming: IncomingCalls | None = None
        # All that somebody still has, in the order of their making; and those that go on even if nobody has them.
        self._sessions: WeakValueDictionary[int, BaseSession] = WeakValueDictionary()
        self._held: set[BaseSession] = set()
        self._made = itertools.count()
        self._lease: Lease | None = None
        self._farewell: Callable[[], None] | None = None
        self._closed = False
        self.pid = os.getpid()
        self.public: object = self
        self.public_of: Callable[[BaseSession], object] = lambda session: session
        """Makes a session's public object, so that its signals name it from the first on."""

    def publish_as(self, public: object) -> None:
        """The facade that signals name as their sender."""
        self.public = public

    def after_fork(self) -> None:
        """In a forked child: the identity stays, connections and sessions are the parent's. Any thread; idempotent.

        Several threads may find themselves in the child at once: only the first one's word counts.
        """
        with portal().lock:
            if self.pid == os.getpid():
                return
            self._incoming = self._lease = self._farewell = None
            self._sessions = WeakValueDictionary()
            self._held = set()
            self.pid = os.getpid()

    async def perform(self, method: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Run a verb; a client's verbs do not wait for one another."""
        return await method(*args, **kwargs)

    async def leave_with(self, failed: bool) -> None:
        """Leave a ``with``."""
        await self.dispose()

    def tell_call(self, error: UTDStreamException) -> None:
        """A client is about no call."""

    def lost(self, name: str, result: Any) -> None:
        """A call that was handed to somebody who had just stopped waiting goes to the next one; a room is left."""
        if name == "wait_for_call" and isinstance(result, UTDCall) and self._incoming is not None:
            self._incoming.give_back(result)
        elif isinstance(result, EngineRoomSession):
            portal().spawn(result.perform(result.dispose), name="utd-nobody-waits")

    def describe(self) -> str:
        """For the repr: never a key, never a bearer."""
        return f"{self.identity or 'not signed in'}{' closed' if self._closed else ''}"

    def release(self) -> None:
        """Let the loop thread end once nobody else holds it. Any thread; a thread that may wait sees it end."""
        if not self._closed:
            return  # interrupted before it began
        with portal().lock:
            lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _known(self) -> list[BaseSession]:
        # One atomic step: another thread may be making one.
        return [session for ref in self._sessions.valuerefs() if (session := ref()) is not None]

    def _hold(self, session: BaseSession) -> None:
        """Keep a session as long as it is connected or in a call, whoever lets go of it; afterwards no longer."""
        if session.is_alive:
            self._held.add(session)
        else:
            self._held.discard(session)

    async def _end_sessions(self) -> None:
        sessions = self._known()
        if not sessions:
            return
        began = time.monotonic()
        done, late = await asyncio.wait(
            [asyncio.ensure_future(session.perform(session.dispose)) for session in sessions], timeout=GOODBYE
        )
        for task in done:
            if not task.cancelled() and isinstance(task.exception(), UTDStreamException):
                log.warning("a session did not end well: %s", task.exception())
        if late:
            log.warning("%d sessions did not end within %.1f s", len(late), time.monotonic() - began)

    async def _enter(
        self,
        kind: UTDStreamType,
        identity: object,
        room_name: object,
        as_host: object,
        name: object,
        device_id: object,
        **seats: Any,
    ) -> WayIn:
        """Sign in and get a way in, in one request."""
        who, room = validation.identity(identity), validation.room_name(room_name)
        host, shown = validation.boolean(as_host, "as_host"), validation.optional_name(name)
        device = None if device_id is None else validation.device_id(device_id)
        self._open()
        warming = portal().spawn(warm_up(), name="utd-warm-up") if self._room_factory is None else None
        enter = partial(self._api.enter_room, who, room, kind, as_host=host, name=shown, device_id=device, **seats)
        credentials, ticket = await portal().in_thread(enter)
        if warming is not None:
            await asyncio.shield(warming)
        self._refuse_closed()  # meanwhile
        if self._credentials is None:
            self._credentials = credentials
        return WayIn(kind, EngineRoom(portal(), self._api, credentials, room, kind), ticket, host)

    def _room_session(self, way: WayIn, options: RoomOptions) -> dict[str, Any]:
        return {
            "engine_room": way.engine_room,
            "ticket": way.ticket,
            "as_host": way.as_host,
            "identity": way.engine_room.identity,
            "options": options,
            "asynchronous": self._asynchronous,
            "room_factory": self._room_factory or livekit_room,
            "timing": self._timing,
            "on_life": self._hold,
            "on_disposed": self._hold,
        }

    async def _joined(self, session: R) -> R:
        self._sessions[next(self._made)] = session
        self.public_of(session)
        try:
            await session.perform(session.join)
        except BaseException:
            await session.perform(session.dispose)
            raise
        return session

    def _hearing(self) -> IncomingCalls:
        if self._incoming is None:
            self._incoming = IncomingCalls(portal(), self._api, self._signed_in("incoming_calls"), sender=self.public)
        return self._incoming

    def _stop_hearing(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.close()

    def _open(self) -> None:
        """Hold the loop thread from the first use on, and have the sessions ended when the interpreter exits."""
        self._refuse_closed()
        if self.pid != os.getpid():
            self.after_fork()  # what it holds is the parent's loop thread
        if self._lease is not None:
            return
        with portal().lock:  # of two threads that are first, one holds it
            self._refuse_closed()
            if self._lease is None:
                self._lease = portal().hold()
                self._farewell = portal().at_exit(self._end_sessions)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UTDClosedError("the client is closed; make a new one")

    def _signed_in(self, event: str) -> Credentials:
        if self._credentials is None:
            raise UTDStateError(
                f"{event}: nobody is signed in; call authenticate(identity) first", state="signed_out", event=event
            )
        return self._credentials


async def warm_up() -> None:
    from utd_fsm.livekit_room import warm_up

    await warm_up()
