"""The core of a client: one identity, one HTTP layer, and the sessions that live on it.

Loop thread, except where a member says otherwise. The facades are `utd_fsm.client.UTDStreamClient` and its namesake in
`utd_fsm.aio`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from utd_fsm import validation
from utd_fsm.call_watch import CallWatch
from utd_fsm.engine_api import EngineApi
from utd_fsm.errors import UTDConflictError, UTDInputError
from utd_fsm.models import UTDCall, UTDCallPage, UTDCallStatus, UTDSeatMode, UTDStreamType, UTDTrackSource
from utd_fsm.observe import Order
from utd_fsm.portal import Deadline, portal
from utd_fsm.room import RoomOptions
from utd_fsm.sessions.audio_room import AudioRoomSession
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.call import CallSession
from utd_fsm.sessions.client_machinery import ClientMachinery, warm_up
from utd_fsm.sessions.engine_calls import EngineCalls
from utd_fsm.sessions.live_stream import LiveStreamSession
from utd_fsm.sessions.marks import plain, verb, wait
from utd_fsm.sessions.room import livekit_room
from utd_fsm.sessions.sources import check_recipe

if TYPE_CHECKING:
    from utd_fsm.engine_api import Credentials
    from utd_fsm.media import AudioSource, VideoSource
    from utd_fsm.room import RoomFactory
    from utd_fsm.sessions.timing import Timing


class ClientCore(ClientMachinery):
    """One application's way to the engine: signs an identity in, makes sessions, hears who calls.

    One HTTP layer is shared by all its sessions. Any thread. A context manager; leaving it ends the sessions and frees
    everything. After a ``fork`` the child's client works, with fresh connections; the sessions made before do not.
    """

    def __init__(
        self,
        app_id: str,
        app_key: str,
        *,
        base_url: str | None = None,
        token_base_url: str | None = None,
        asynchronous: bool = False,
        _room_factory: RoomFactory | None = None,
        _timing: Timing | None = None,
    ) -> None:
        """Sends nothing and starts nothing yet.

        Args:
            app_id: 10 digits.
            app_key: 32 hex digits, or ``pk_live_…``. Publishable: it identifies and is not secret.
            base_url: the engine's root, for instance ``http://127.0.0.1:8090``; ``/api/v1`` is added. None is UTD's
                hosted engine. Plain http only on loopback. It stands for both of the engine's hosts.
            token_base_url: the root of the token host, where it is another one.

        Raises:
            UTDInputError: an argument is wrong.
        """
        super().__init__(
            EngineApi(app_id, app_key, base_url=base_url, token_base_url=token_base_url),
            asynchronous=asynchronous,
            room_factory=_room_factory,
            timing=_timing,
        )

    # ------------------------------------------------------------------ identity

    @property
    def identity(self) -> str | None:
        """Who is signed in; None before `authenticate`. Any thread."""
        return self._credentials.identity if self._credentials else None

    @property
    def device_id(self) -> str | None:
        """This device's id, a fresh uuid unless one was given; None before `authenticate`. Any thread."""
        return self._credentials.device_id if self._credentials else None

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The sessions that are connected or in a call, oldest first. Any thread."""
        if self.pid != os.getpid():
            return ()  # they are the parent's
        return tuple(session for session in self._known() if session.is_alive)

    @verb()
    async def authenticate(
        self,
        identity: str,
        name: str | None = None,
        device_id: str | None = None,
        *,
        receive_calls: bool = False,
    ) -> str:
        """Sign an identity in: mints its bearer, which the client attaches to every request from now on.

        Sessions keep the identity they were made with.

        Args:
            identity: who, 1 to 255 characters, no control characters.
            name: shown to others.
            device_id: tells this device from others of the same identity; a fresh uuid unless given.
            receive_calls: listen for incoming calls at once, for the ``incoming_call`` signal. Otherwise nothing
                listens before somebody asks (`wait_for_call`, `incoming_calls`), so that a web worker takes no calls
                by accident.

        Returns:
            The bearer. Keep it out of logs.

        Raises:
            UTDInputError: an argument is wrong; nothing was sent.
            UTDEngineError: the engine refused: 401 credentials, 403 suspended or banned, 429 too many.
            UTDConnectionError: the engine could not be reached.
        """
        who = validation.identity(identity)
        shown = validation.optional_name(name)
        device = validation.device_id(device_id) if device_id is not None else None
        validation.boolean(receive_calls, "receive_calls")
        self._open()
        warming = portal().spawn(warm_up(), name="utd-warm-up") if self._room_factory is None else None
        credentials = await portal().in_thread(partial(self._api.authenticate, who, name=shown, device_id=device))
        if warming is not None:
            # The native library takes half a second to load: here it costs nobody a call.
            await asyncio.shield(warming)
        self._refuse_closed()  # meanwhile
        before = self._incoming
        self._incoming, self._credentials = None, credentials
        if before is not None:
            if before.listening and before.identity == who:
                self._hearing().inherit(before)
            before.close()
        if receive_calls:
            self._hearing().start()
        return credentials.bearer

    # ------------------------------------------------------------------ sessions

    @plain()
    def call_session(
        self,
        type: UTDStreamType | str,
        *,
        microphone: AudioSource | None = None,
        camera: VideoSource | None = None,
        adaptive_stream: bool = False,
        dynacast: bool = False,
    ) -> CallSession:
        """A session for 1:1 calls. Any thread; nothing is sent.

        Args:
            type: ``audio_call`` or ``video_call``.
            microphone: what the session says; silence unless given. A recipe, opened afresh.
            camera: what it shows, in video calls; the test pattern unless given.
            adaptive_stream: video that nobody watches is not received, and who watches chooses the layer.
            dynacast: LiveKit's dynacast.

        Raises:
            UTDInputError: the type is no call, or an audio call was given a camera.
            UTDStateError: nobody is signed in.
            UTDClosedError: the client is closed.
        """
        kind = validation.call_type(type)
        self._refuse_closed()
        credentials = self._signed_in("call_session")
        session = CallSession(
            kind,
            engine=EngineCalls(portal(), self._api, credentials),
            watch=partial(_follow, self._api, credentials),
            identity=credentials.identity,
            microphone=microphone,
            camera=camera,
            options=_options(adaptive_stream, dynacast),
            asynchronous=self._asynchronous,
            room_factory=self._room_factory or livekit_room,
            timing=self._timing,
            on_life=self._hold,
            on_disposed=self._hold,
        )
        self._open()
        self._sessions[next(self._made)] = session
        return session

    @verb()
    async def join_live_stream(
        self,
        identity: str,
        room_name: str,
        as_host: bool = False,
        name: str | None = None,
        device_id: str | None = None,
        *,
        microphone: AudioSource | None = None,
        camera: VideoSource | None = None,
        adaptive_stream: bool = False,
        dynacast: bool = False,
    ) -> LiveStreamSession:
        """Join a live stream. Returns with the first snapshot of its stage in; nothing is published yet.

        The identity is signed in for this session; who is signed in with `authenticate` stays as it was, and a client
        where nobody is becomes this identity.

        Args:
            identity: who, 1 to 255 characters.
            room_name: which stream, 1 to 255 characters.
            as_host: be its owner and host. The first one who asks is; who asks later is audience (see ``is_host``).
            name: shown to others.
            device_id: tells this device from others of the same identity; the client's own unless given.
            microphone: what the session says, once it may publish; silence unless given.
            camera: what it shows; the test pattern unless given.
            adaptive_stream: video that nobody watches is not received, and who watches chooses the layer.
            dynacast: LiveKit's dynacast.

        Raises:
            UTDInputError: an argument is wrong; nothing was sent.
            UTDPermissionError: banned (``is_banned``), or otherwise not let in.
            UTDStateError: the room is of another type (409).
            UTDEngineError: the engine refused otherwise.
            UTDConnectionError: engine or media server could not be reached.
        """
        options = _options(adaptive_stream, dynacast)
        check_recipe(UTDTrackSource.MICROPHONE, microphone)
        check_recipe(UTDTrackSource.CAMERA, camera)
        way = await self._enter(UTDStreamType.LIVE_STREAM, identity, room_name, as_host, name, device_id)
        session = LiveStreamSession(**self._room_session(way, options), microphone=microphone, camera=camera)
        return await self._joined(session)

    @verb()
    async def join_audio_room(
        self,
        identity: str,
        room_name: str,
        as_host: bool = False,
        name: str | None = None,
        device_id: str | None = None,
        *,
        seat_count: int | None = None,
        seat_mode: UTDSeatMode | str | None = None,
        mode_id: int | str | None = None,
        microphone: AudioSource | None = None,
        auto_unmute: bool = False,
        dynacast: bool = False,
    ) -> AudioRoomSession:
        """Join an audio room. Returns with the first snapshot of its seats in; nobody sits down by joining.

        Args:
            identity: who, 1 to 255 characters.
            room_name: which room, 1 to 255 characters.
            as_host: be its owner and host. The first one who asks is; who asks later is audience (see ``is_host``).
            name: shown to others.
            device_id: tells this device from others of the same identity; the client's own unless given.
            seat_count: hosts only: set up so many seats, 1 to 100, unless there are seats already.
            seat_mode: hosts only: ``free`` or ``request``, as ``seat_count``.
            mode_id: hosts only: the application's own name for this arrangement of seats.
            microphone: what the session says, once it sits; silence unless given.
            auto_unmute: the microphone goes on by itself when a request to speak is approved.
            dynacast: LiveKit's dynacast.

        Raises: as `join_live_stream`; `UTDInputError` also for seats given without ``as_host``.
        """
        options = _options(False, dynacast)
        validation.boolean(auto_unmute, "auto_unmute")
        check_recipe(UTDTrackSource.MICROPHONE, microphone)
        seeds = any(one is not None for one in (seat_count, seat_mode, mode_id))
        if seeds and not validation.boolean(as_host, "as_host"):
            raise UTDInputError(
                "seat_count, seat_mode and mode_id: only the host sets up the seats; allowed: with as_host=True"
            )
        seats = {
            "seat_count": validation.optional_integer(seat_count, "seat_count", least=1, most=100),
            "seat_mode": None if seat_mode is None else validation.seat_mode(seat_mode),
            "mode_id": validation.mode_id(mode_id),
        }
        way = await self._enter(UTDStreamType.AUDIO_ROOM, identity, room_name, as_host, name, device_id, **seats)
        session = AudioRoomSession(**self._room_session(way, options), microphone=microphone, auto_unmute=auto_unmute)
        return await self._joined(session)

    # ------------------------------------------------------------------ calls without a session

    @verb()
    async def get_call(self, call: str | UTDCall) -> UTDCall:
        """The record of a call.

        Args:
            call: the call or its id.

        Raises:
            UTDInputError: not a call id.
            UTDEngineError: the engine refused; 404 where it knows no such call.
        """
        call_id = validation.call_id(call)
        return await portal().in_thread(self._api.call, self._signed_in("get_call"), call_id)

    @verb()
    async def calls(
        self,
        *,
        status: UTDCallStatus | str | None = None,
        type: UTDStreamType | str | None = None,
        identity: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> UTDCallPage:
        """A page of calls, newest first.

        Args:
            status: only calls with this status.
            type: only audio calls, or only video calls.
            identity: only calls of this caller or callee; the signed-in identity unless given.
            start_date: only calls initiated at or after this time.
            end_date: only calls initiated before this time.
            page: 1 or more.
            per_page: 1 to 100.

        Raises:
            UTDInputError: an argument is wrong; nothing was sent.
            UTDEngineError: the engine refused.
        """
        credentials = self._signed_in("calls")
        return await portal().in_thread(
            partial(
                self._api.calls,
                credentials,
                status=validation.enum(UTDCallStatus, status, "status") if status is not None else None,
                type=validation.call_type(type) if type is not None else None,
                identity=validation.identity(identity) if identity is not None else credentials.identity,
                start_date=start_date,
                end_date=end_date,
                page=validation.integer(page, "page", least=1, most=1_000_000),
                per_page=validation.integer(per_page, "per_page", least=1, most=100),
            )
        )

    @verb()
    async def end_call(self, call: str | UTDCall) -> UTDCall:
        """End a call from a process that has no session for it. A call that is over already is left as it is.

        Args:
            call: the call or its id.

        Returns:
            The record.

        Raises:
            UTDInputError: not a call id.
            UTDStateError: this identity cannot end it now: a callee rejects before the answer, and only the device that
                answered ends after it.
            UTDEngineError: the engine refused.
        """
        call_id = validation.call_id(call)
        credentials = self._signed_in("end_call")
        try:
            return await portal().in_thread(partial(self._api.end, credentials, call_id, key=Order().next()))
        except UTDConflictError:
            record = await portal().in_thread(self._api.call, credentials, call_id)
            if not record.status.is_terminal:
                raise
            return record

    # ------------------------------------------------------------------ incoming calls

    @wait(timeout=30.0)
    async def wait_for_call(self, timeout: float | None = 30.0) -> UTDCall | None:
        """Wait for the next call that rings for this identity. Each call goes to one waiter, first come first served.

        Args:
            timeout: seconds, or None for no limit.

        Returns:
            The call; None when the client is closed, or closed meanwhile.

        Raises:
            UTDTimeoutError: nobody called.
            UTDStateError: nobody is signed in.
        """
        deadline = Deadline(timeout)
        if self._closed:
            return None
        self._signed_in("wait_for_call")
        self._open()
        while True:
            call = await self._hearing().next(deadline.left())
            if call is not None or self._closed:
                return call
            # Signed in again meanwhile: whoever waits goes on waiting, in the same order, as who it is now.

    # ------------------------------------------------------------------ the end

    @verb(timeout=30.0)
    async def dispose(self) -> None:
        """Stop listening, end the sessions (5 s at most), free the HTTP pools. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop_hearing()  # first: who is interrupted while sessions end must not go on taking calls
        await self._end_sessions()
        self._api.close()
        if self._farewell is not None:
            self._farewell()

    # ------------------------------------------------------------------ small things


def _options(adaptive_stream: object, dynacast: object) -> RoomOptions:
    return RoomOptions(
        adaptive_stream=validation.boolean(adaptive_stream, "adaptive_stream"),
        dynacast=validation.boolean(dynacast, "dynacast"),
    )


def _follow(
    api: EngineApi, credentials: Credentials, call_id: str, callback: Callable[[UTDCall], None]
) -> Callable[[], None]:
    return CallWatch(portal(), api, credentials, call_id, callback).close
