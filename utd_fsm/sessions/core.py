"""What holds a session together: its connection, sources, the others, what it hears, and the rules between them.

Loop thread only. Connection left means sources stopped; dropped means blocked; after a return the records are read
again before the sources are told what the grant looks like. What a subclass adds goes into the hooks (`SessionHooks`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from utd_fsm import signals, validation
from utd_fsm.dispatcher import dispatcher
from utd_fsm.errors import UTDClosedError, UTDConnectionError, UTDInputError, UTDStateError, UTDStreamException
from utd_fsm.models import UTDChatMessage, UTDConnectionState, UTDParticipant, UTDSpeaker, UTDStreamType, UTDTrackSource
from utd_fsm.observable import AsyncObservable, BaseObservable, Observable
from utd_fsm.portal import Lease, portal
from utd_fsm.room import (
    DataReceived,
    Disconnected,
    LeaveReason,
    LocalMetadataChanged,
    LocalTrackMuted,
    LocalTrackSubscribed,
    ParticipantsChanged,
    PermissionChanged,
    Raw,
    Room,
    RoomEvent,
    RoomFactory,
    RoomMetadataChanged,
    RoomOptions,
    SpeakersChanged,
    TextReceived,
    TrackAdded,
    TrackRemoved,
)
from utd_fsm.sessions.connection import ConnectionDriver
from utd_fsm.sessions.events import RoomEventsCore
from utd_fsm.sessions.hooks import SessionHooks
from utd_fsm.sessions.messages import Forged, Hint, Own, route, route_text
from utd_fsm.sessions.others import Others, speakers
from utd_fsm.sessions.sources import Sources, check_recipe
from utd_fsm.sessions.timing import Timing
from utd_fsm.sessions.turns import Turns

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step
    from utd_fsm.media import AudioSource, VideoSource
    from utd_fsm.media.incoming import Listening
    from utd_fsm.portal import Portal
    from utd_fsm.signal import UTDSignal

_log = logging.getLogger("utd_fsm.session")

_OUT = frozenset({"disconnected", "force_exit", "closed"})
_BACK_SOON = frozenset({"reconnecting", "rejoining"})


class SessionCore(SessionHooks):
    """The machinery of a session, without anything a person can ask of it."""

    connection: BaseObservable[UTDConnectionState]
    connected: BaseObservable[bool]
    can_publish: BaseObservable[bool]
    remote_participants: BaseObservable[tuple[UTDParticipant, ...]]
    speakers: BaseObservable[tuple[UTDSpeaker, ...]]
    events: RoomEventsCore

    def __init__(
        self,
        *,
        kind: UTDStreamType | None,
        identity: str | None = None,
        room_factory: RoomFactory,
        options: RoomOptions | None = None,
        asynchronous: bool = False,
        microphone: AudioSource | None = None,
        camera: VideoSource | None = None,
        timing: Timing | None = None,
        portal_: Portal | None = None,
        on_disposed: Callable[[Any], None] | None = None,
    ) -> None:
        """Any thread.

        Args:
            kind: what the session is about; None for the room by itself.
            identity: who the session is, where that is known before the room is joined.
            room_factory: makes a Room for each try.
            options: how rooms are joined.
            asynchronous: whether the Observables are the awaitable ones.
            microphone: what the microphone sends; None is silence.
            camera: what the camera sends; None is the test pattern.
            timing: seconds.
            portal_: the portal; None is this process's.
            on_disposed: called with the session once it is disposed, on the loop thread.

        Raises:
            UTDInputError: a source that is none, or a camera where there is no video.
        """
        self.pid = os.getpid()
        self.public: object = self
        self.identity = identity
        self._type = kind
        self._portal = portal_ or portal()
        self._timing = timing or Timing()
        self._flavour: type[BaseObservable[Any]] = AsyncObservable if asynchronous else Observable
        self._seq = itertools.count(1)
        self._observables: list[BaseObservable[Any]] = []
        self._turns = Turns()
        self._lease: Lease | None = None
        self._listening: Listening | None = None
        self._settling: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None
        self._tracks: set[str] = set()
        self._disposed = False
        self._on_disposed = on_disposed
        if camera is not None and kind is not None and not kind.has_video:
            raise UTDInputError(f"camera: there is no video in a session of type {kind}; leave it out")
        self.events = RoomEventsCore()
        self.connection = self._observable(UTDConnectionState.DISCONNECTED, "connection", signals.connection_changed)
        self.connected = self._observable(False, "connected")
        self.can_publish = self._observable(False, "can_publish", signals.can_publish_changed)
        nobody: tuple[UTDParticipant, ...] = ()
        self.remote_participants = self._observable(nobody, "remote_participants", signals.remote_participants_changed)
        silence: tuple[UTDSpeaker, ...] = ()
        self.speakers = self._observable(silence, "speakers", signals.speakers_changed)
        self._of_a_stay: tuple[BaseObservable[Any], ...] = (self.can_publish, self.remote_participants, self.speakers)
        self._others = Others(self._others_changed, self._timing)
        self._sources = Sources(
            self._portal,
            self._timing,
            microphone=microphone,
            camera=camera,
            entitled=lambda source: self._entitled(source),
            refusal=lambda source: self._refusal(source),
            on_change=lambda source, step: self._on_source(source, step),
        )
        self._sources.starts_at_once = kind is None or not kind.is_call
        self._options = options or RoomOptions()
        self._connection = ConnectionDriver(
            room_factory,
            self._options,
            ticket=lambda reason: self._ticket(reason),
            on_change=self._connection_changed,
            on_event=self._room_event,
            before_removal=self._look_first,
            timing=self._timing,
        )

    # ------------------------------------------------------------------------------------------ Observables, signals

    def _observable(self, value: Any, name: str, signal: UTDSignal | None = None, **extra: Any) -> BaseObservable[Any]:
        """An Observable of this session, numbered with its others, finished with them."""
        made = self._flavour(
            value, name=name, signal=signal, sender=self.public, next_seq=self._seq.__next__, extra=extra or None
        )
        self._observables.append(made)
        return made

    def _finish_observables(self, error: Callable[[], UTDStreamException]) -> None:
        """No value will come any more: who waits for one gets ``error()``."""
        for observable in self._observables:
            if not observable.finished:
                observable.finish(error)

    def _tell_who_waits(self, state: str) -> None:
        """Nothing that this stay in the room could show comes any more: who waits for it is told so.

        After a force_exit also who begins to wait, until the next join; after leaving, the session is as at first.
        """
        if state == "connecting":
            for observable in (self.connected, *self._of_a_stay):
                observable.reopen()
        elif state == "force_exit":
            for observable in (self.connected, *self._of_a_stay):
                observable.finish(self._why_out)
        elif state == "disconnected":
            for observable in self._of_a_stay:
                observable.finish(self._why_out)
                observable.reopen()

    def _emit(self, signal: UTDSignal, **payload: Any) -> None:
        """Announce with a module-level signal; the sender is the public session."""
        dispatcher().emit(signal, self.public, **payload)

    # --------------------------------------------------------------------------------------------------- in and out

    async def _join(self) -> None:
        """Be in the room. Raises what the tries raised; cancelled, it has left."""
        if self._disposed:
            raise UTDClosedError("the session is disposed; make a new one")
        if self._connection.state in _OUT:
            if self._lease is None or self._lease.released:
                self._lease = self._portal.hold()
            self._open_listening()
        await self._connection.join()

    async def _leave_room(self) -> None:
        """Out of the room: sources stop, streams end. Idempotent; the session may `_join` again."""
        await self._connection.leave()

    async def _enable(self, source: UTDTrackSource) -> None:
        """Switch a source on from inside another verb (start, accept, go_live). Raises as `set_microphone`."""
        await self._sources.enable(source)

    async def _switch(self, source: UTDTrackSource, enabled: bool, recipe: Any) -> None:
        check_recipe(source, recipe)
        if not validation.boolean(enabled, "enabled"):
            await self._sources.disable(source)
            return
        if self._connection.state in _OUT or self._connection.state == "connecting":
            raise UTDStateError(
                f"the {source} can be switched on in a room only; the session is {self._connection.public}",
                state=self._connection.public,
                event=f"set_{source}",
            )
        await self._sources.enable(source, recipe)

    def _stop_sources(self, error: UTDStreamException | None = None) -> None:
        """Hung up, stepped down, unseated: every track comes down, at once."""
        self._sources.stop_all(error)

    def _start_source(self, source: UTDTrackSource) -> None:
        """From now on this source is pulled (in a call: it is active, and the other has subscribed)."""
        self._sources.start(source)

    def _start_listening(self) -> None:
        """From now on the readers' timeouts count (in a call: it is active)."""
        if self._listening is not None:
            self._listening.start_now()

    def _heard(self, what: str) -> Listening:
        if self._disposed:
            raise UTDClosedError(f"{what}: the session is disposed; make a new one")
        if self._listening is None:
            raise UTDStateError(f"{what}: there is no call or room to hear; join first", event=what)
        return self._listening

    def _refuse_video(self, what: str) -> None:
        if self._type is not None and not self._type.has_video:
            raise UTDStateError(
                f"{what}: there is no video in a session of type {self._type}; use video_call or live_stream",
                state=str(self._type),
                event=what,
            )

    async def _send_data(self, data: object, reliable: object, to: tuple[str, ...], topic: object = None) -> None:
        content, kept = validation.data(data), validation.boolean(reliable, "reliable")
        name = None if topic is None else validation.optional_name(topic, "topic")
        room = await self._up("send_data")
        await room.send_data(content, reliable=kept, to=to, topic=name)

    async def _up(self, what: str) -> Room:
        """The Room, once its link is up: waits while it is mended, refuses when nobody mends it."""
        waited = False
        while (room := self._connection.room) is None or self._connection.state != "connected":
            if self._connection.state not in _BACK_SOON:
                if waited:
                    raise UTDConnectionError(f"{what}: the connection was lost; nothing was sent")
                raise UTDStateError(f"{what}: not in the room; join first", state=self._connection.public, event=what)
            waited = True
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
        return room

    # ------------------------------------------------------------------------------------------------ the connection

    def _connection_changed(self, step: Step) -> None:
        state = step.after
        if state == "connected":
            self._show_connection()
            self._arrived()
        else:
            self._stop_settling()
            if state == "reconnecting":
                self._others.away()
                self._sources.link_lost()
            elif state == "rejoining":
                self._others.away()
                self._sources.room_lost()
                self._forget_tracks()
            elif state in _OUT and step.before not in _OUT:
                self._gone(state)
            self._show_connection()
            self._tell_who_waits(state)
        news, self._news = self._news, None
        if news is not None:
            news.set()
        self._on_connection(step)

    def _show_connection(self) -> None:
        public = UTDConnectionState(self._connection.public)
        # Both first, then who waits and the receivers: nobody sees one without the other.
        for announce in (
            self.connection.prepare(public),
            self.connected.prepare(public is UTDConnectionState.CONNECTED),
        ):
            if announce is not None:
                announce()

    def _arrived(self) -> None:
        """In the room, for the first time or again: read everything, the sources' way last."""
        room, age = self._connection.room, self._connection.age
        assert room is not None
        self._forget_tracks(keep={track.sid for track in room.remote_tracks})
        for track in room.remote_tracks:
            self._add_track(track)
        if self._sources.starts_at_once:
            self._start_listening()
        self._others.back(room.participants)
        if room.metadata:
            self._on_room_metadata(room.metadata)
        if room.local is not None and room.local.metadata:
            self._on_local_metadata(room.local.metadata)
        if age is not None and age >= self._timing.tier:
            self._settling = asyncio.create_task(self._settle(age), name="utd-fsm-resync")
        else:
            self._read_grant()

    async def _settle(self, age: float) -> None:
        """Away for long: the engine's records first, what may be published after them."""
        try:
            async with asyncio.timeout(self._timing.look):
                await self._resync(age)
        except Exception as error:  # noqa: BLE001 - what the room says still counts
            _log.info("reading the engine again after a return failed: %s", type(error).__name__)
        self._settling = None
        if self._connection.state == "connected":
            self._read_grant()

    def _stop_settling(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()

    def _read_grant(self) -> None:
        room = self._connection.room
        if room is not None:
            self.can_publish.set(room.permission.can_publish)
            self._sources.room_joined(room)

    def _gone(self, state: str) -> None:
        """Out for good, or until the next `_join`."""
        error = self._why_out()
        self._sources.room_left(error)
        self._forget_tracks()
        listening, self._listening = self._listening, None
        if listening is not None:
            in_call = self._type is not None and self._type.is_call
            listening.finish(ended_by="closed" if state == "closed" else "call_ended" if in_call else "left")
        self._others.gone()
        self.speakers.set(())
        self.can_publish.set(False)
        lease, self._lease = self._lease, None
        if lease is not None:
            # Given-up tries and goodbyes outlive the stay, and need the loop.
            self._portal.spawn(self._release(lease), name="utd-fsm-last-goodbye")

    async def _release(self, lease: Lease) -> None:
        try:
            await self._connection.reaped()
        finally:
            lease.release()

    def _why_out(self) -> UTDStreamException:
        state, why = self._connection.state, self._connection.removed_for
        if state == "closed":
            return UTDClosedError("the session is disposed")
        if state == "force_exit":
            if why is None:
                return UTDConnectionError(f"the connection was lost for more than {self._timing.grace:g} s")
            return UTDConnectionError(f"the room does not have this session any more ({why})")
        return UTDStateError("the session has left the room", state=state)

    # ------------------------------------------------------------------------------------------- what the room says

    def _room_event(self, event: RoomEvent) -> None:
        match event:
            case Raw(raw):
                self.events.tell(raw)
            case ParticipantsChanged():
                self._read_others()
            case PermissionChanged(permission):
                if self._connection.state == "connected" and self._settling is None:
                    self.can_publish.set(permission.can_publish)
                    self._sources.reading(permission)
            case SpeakersChanged(levels):
                self.speakers.set(speakers(levels, self.speakers.value, time.monotonic()))
            case TrackAdded(track):
                self._add_track(track)
            case TrackRemoved(sid):
                self._remove_track(sid)
            case LocalTrackMuted(source, muted):
                self._sources[source].muted_by_other(muted)
            case LocalTrackSubscribed(source):
                self._on_track_subscribed(source)
            case DataReceived():
                self._data(event)
            case TextReceived():
                self._chat(route_text(event))
            case RoomMetadataChanged(metadata):
                self._on_room_metadata(metadata)
            case LocalMetadataChanged(metadata):
                self._on_local_metadata(metadata)
            case Disconnected():
                # Sent away, and the owner looks first: the Room is dead all the same.
                self._sources.room_left(UTDConnectionError("the room does not have this session any more"))
            case _:
                pass

    def _data(self, event: DataReceived) -> None:
        what = route(event, self.PARTICIPANTS_MAY)
        if not self.ENGINE:
            # The application's, whatever it looks like; a chat message is told as one beside that.
            if isinstance(what, UTDChatMessage):
                self._chat(what)
            what = Own()
        match what:
            case Hint(kind, content, identity):
                self._on_hint(kind, content, identity)
            case Forged(kind):
                _log.info("dropped: a participant sent a message of the engine's type %.40r", kind)
            case UTDChatMessage():
                self._chat(what)
            case _:
                self._emit(
                    signals.data_received,
                    data=event.data,
                    identity=event.identity,
                    topic=event.topic,
                    reliable=event.reliable,
                )

    def _chat(self, message: UTDChatMessage) -> None:
        if self._lets_through(message):
            self._emit(signals.chat_received, message=message)

    def _read_others(self) -> None:
        room = self._connection.room
        if room is not None:
            self._others.read(room.participants)

    def _others_changed(self, others: tuple[UTDParticipant, ...]) -> None:
        if self.remote_participants.set(others):
            self._on_participants(others)

    def _open_listening(self) -> None:
        if self._listening is None:
            from utd_fsm.media.incoming import Listening

            self._listening = Listening(self._portal, adaptive=self._options.adaptive_stream)

    def _add_track(self, track: Any) -> None:
        if self._listening is not None and track.sid not in self._tracks:
            self._tracks.add(track.sid)
            self._listening.add(track)

    def _remove_track(self, sid: str) -> None:
        if sid in self._tracks:
            self._tracks.discard(sid)
            if self._listening is not None:
                self._listening.remove(sid)

    def _forget_tracks(self, keep: set[str] | None = None) -> None:
        for sid in self._tracks - (keep or set()):
            self._remove_track(sid)

    async def _look_first(self, why: LeaveReason | UTDStreamException) -> None:
        await self._before_removal(why if isinstance(why, LeaveReason) else None)
