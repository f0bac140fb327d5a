"""`LiveKitRoom`: the room protocol over LiveKit's client. Floor 4; see also `livekit_events` and `livekit_tracks`.

May import the protocol, errors, models and `scrub`; ``livekit`` itself is imported inside functions and loaded ahead by
`warm_up`. Loop thread only. Every rule that looks odd stands on a measured fact, named where it is kept.

A native call, once begun, is never cancelled (fact 1): it runs in a task of its own, which the cancellation of the
caller does not reach, and whose result is then undone.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
)
from utd_fsm.livekit_events import Background, LiveKitEvents, read_participant, read_permission
from utd_fsm.livekit_log import scrub_logger
from utd_fsm.livekit_tracks import (
    SOURCE_NUMBERS,
    LiveKitAudioPublication,
    LiveKitPublication,
    LiveKitRemoteTrack,
    LiveKitVideoPublication,
)
from utd_fsm.models import UTDParticipant, UTDTrackSource
from utd_fsm.room import MAX_DATA_BYTES, LeaveReason, Permission, RoomEvent, RoomOptions
from utd_fsm.scrub import scrub

if TYPE_CHECKING:
    from livekit import rtc

log = logging.getLogger("utd_fsm.room")

LEAVE_LIMIT = 10.0
"""Seconds `disconnect` waits for LiveKit (whose link may be dead) before it goes on without it."""

GONE_LIMIT = 0.5
"""The same for a room that was lost, or that we were sent out of."""

_STATUS = re.compile(r"error: (\d{3})\b")

T = TypeVar("T")
PublicationT = TypeVar("PublicationT", bound=LiveKitPublication)

# Held here and not by their rooms: an event loop keeps only weak references to its tasks, and a room whose join was
# given up may be referenced by nothing but the task that will leave it (fact 8: dropping it does not disconnect).
_background = Background()


EXIT_PAUSE = 0.1
"""Seconds that LiveKit's native threads have at exit, after its library was disposed, to come out of a callback."""

_loaded = False
"""Whether LiveKit's client is imported, its native library mapped, and its log scrubbed. Stays true after a fork."""

_begun_in: int | None = None
"""The process in which the native library runs."""


def _load() -> None:
    global _loaded
    from livekit.rtc._ffi_client import get_ffi_lib

    scrub_logger("livekit")  # a refused join is logged with its whole token (fact 25)
    get_ffi_lib()
    _loaded = True


def _begin() -> None:
    global _begun_in
    from livekit.rtc._ffi_client import FfiClient

    if FfiClient._instance is None:
        # Registered before LiveKit's own, and so run after it: a native thread that is inside a callback when the
        # interpreter goes away aborts the process.
        atexit.register(time.sleep, EXIT_PAUSE)
    client = FfiClient.instance
    if client._pid != os.getpid():
        raise UTDClosedError(
            "LiveKit was in use in the parent process when it forked, and its native library does not survive that "
            "(LiveKit fact 9). Join rooms and make calls in the forked processes only, or start them with spawn."
        )
    _begun_in = os.getpid()


async def warm_up() -> None:
    """Load LiveKit's native library off the loop thread: half a second the first time. Idempotent.

    It is loaded and not begun: beginning starts its threads, takes a millisecond, and is what no fork survives. So a
    client may sign in before its process forks (a web server that loads the application first).
    """
    if not _loaded:
        await asyncio.to_thread(_load)


async def settled(limit: float = LEAVE_LIMIT) -> None:
    """Wait until every background step of this event loop's rooms is done: given-up joins left, streams freed.

    To be awaited before the loop is closed, after the rooms were left (fact 8).

    Args:
        limit: seconds after which it returns all the same.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit
    while (tasks := [task for task in _background.tasks if task.get_loop() is loop]) and loop.time() < until:
        await asyncio.wait(tasks, timeout=until - loop.time())


def connect_error(text: str, token: str) -> UTDStreamException:
    """The error for a failed join, from LiveKit's text, which is all it gives (fact 25)."""
    text = scrub(text, token)
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    if status == 401:
        return UTDPermissionError(f"the media server does not accept the token: {text}", status)
    if status == 403:
        return UTDForbiddenError(f"the media server refused the join: {text}", status)
    if status is not None:
        hint = " (a full room answers 500)" if status == 500 else ""
        return UTDEngineError(f"the media server refused the join{hint}: {text}", status)
    return UTDConnectionError(f"the media server cannot be reached: {text}")


class LiveKitRoom:
    """One try to be in a room of a LiveKit server; see `utd_fsm.room.Room` for the meaning of every member."""

    def __init__(self, post: Callable[[RoomEvent], None], options: RoomOptions | None = None) -> None:
        self._post = post
        self._options = options if options is not None else RoomOptions()
        self._native: rtc.Room | None = None
        self._events: LiveKitEvents | None = None
        self._publications: list[LiveKitPublication] = []
        self._used = False
        self._leaving = False
        self._leave_task: asyncio.Task[Any] | None = None
        self._joined = False

    # -- what it knows

    @property
    def native(self) -> Any:
        return self._native

    @property
    def connected(self) -> bool:
        return self._joined and self._events is not None and not self._events.gone.done()

    @property
    def permission(self) -> Permission:
        if self._native is None or not self._joined:
            return Permission(can_publish=False, can_subscribe=False, can_publish_data=False)
        return read_permission(self._native.local_participant.permissions)

    @property
    def metadata(self) -> str:
        return self._native.metadata if self._native is not None else ""

    @property
    def local(self) -> UTDParticipant | None:
        if self._native is None or not self._joined:
            return None
        return read_participant(self._native.local_participant)

    @property
    def participants(self) -> tuple[UTDParticipant, ...]:
        if self._native is None:
            return ()
        present = sorted(self._native.remote_participants.values(), key=lambda one: one._info.joined_at)
        return tuple(read_participant(participant) for participant in present)

    @property
    def remote_tracks(self) -> tuple[LiveKitRemoteTrack, ...]:
        return tuple(self._events.tracks.values()) if self._events is not None else ()

    def publications(self, source: UTDTrackSource) -> tuple[str, ...]:
        if not self.connected or self._native is None:
            return ()
        number = SOURCE_NUMBERS[source]
        listed = list(self._native.local_participant.track_publications.values())
        return tuple(publication.sid for publication in listed if publication.source == number)

    # -- joining and leaving

    async def connect(self, url: str, token: str, *, auto_subscribe: bool = True) -> None:
        if self._used:
            raise UTDStateError("this room object was used before; every join takes a new one", event="connect")
        self._used = True
        await warm_up()
        if _begun_in != os.getpid():
            _begin()
        from livekit import rtc

        single = self._options.single_peer_connection
        options = rtc.RoomOptions(
            auto_subscribe=auto_subscribe,
            dynacast=self._options.dynacast,
            single_peer_connection=False if single is None else single,
        )
        self._native = native = rtc.Room()
        self._events = LiveKitEvents(native, self._post, self._options, _background.spawn, self._publications)
        joining = _background.spawn(native.connect(url, token, options))
        refused: UTDStreamException | None = None
        try:
            await asyncio.shield(joining)
        except rtc.ConnectError as error:
            self._events.gone.set_result(None)
            refused = connect_error(error.message, token)
        except asyncio.CancelledError:
            if not joining.cancelled():
                self._leaving = True
                _background.spawn(self._reap(joining))
            raise
        if refused is not None:
            raise refused  # here and not above, where LiveKit's error with the token would become its context
        if self._leaving:
            await self._leave()
            raise UTDConnectionError("the room was left while it was being joined")
        self._joined = True
        self._events.joined()

    async def _reap(self, joining: asyncio.Task[None]) -> None:
        """Await a join that nobody waits for any more, and undo it (fact 1)."""
        await asyncio.wait({joining})
        if not joining.cancelled() and joining.exception() is None:
            await self._leave()

    async def disconnect(self) -> None:
        self._leaving = True
        if not self._joined:
            return  # never begun, failed, or under way: then connect(), or its reaper, leaves
        await self._leave()

    async def _leave(self) -> None:
        if self._leave_task is None:
            self._leave_task = _background.spawn(self._disconnect_native())
        await asyncio.shield(self._leave_task)

    async def _disconnect_native(self) -> None:
        assert self._native is not None
        assert self._events is not None
        leaving = _background.spawn(self._native.disconnect())
        # A room that is gone already has nothing left to confirm.
        lost = self._events.gone.done()
        done, _ = await asyncio.wait({leaving}, timeout=GONE_LIMIT if lost else LEAVE_LIMIT)
        if not done and lost:
            leaving.cancel()
        elif not done:
            log.warning("LiveKit did not confirm within %s s that the room was left", LEAVE_LIMIT)
        elif (error := leaving.exception()) is not None:
            log.warning("leaving the room: %s", scrub(str(error)))
        self._events.over(LeaveReason.ASKED)

    async def _while_joined(self, step: asyncio.Task[T], what: str) -> T:
        """The task's result; or an error as soon as the room is gone, since LiveKit then never answers."""
        assert self._events is not None
        racing: set[asyncio.Future[Any]] = {step, self._events.gone}
        await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            step.cancel()  # harmless: the room it asked is gone
            raise UTDConnectionError(f"{what}: the room was left or lost meanwhile")
        return step.result()

    def _participant(self, what: str) -> rtc.LocalParticipant:
        if not self.connected or self._native is None:
            raise UTDConnectionError(f"{what}: not in the room")
        return self._native.local_participant

    # -- publishing

    async def publish_audio(
        self, source: UTDTrackSource, *, sample_rate: int = 48000, channels: int = 1
    ) -> LiveKitAudioPublication:
        from livekit import rtc

        self._check_may_publish(source)
        publication = LiveKitAudioPublication(source, _background.spawn, sample_rate=sample_rate, channels=channels)
        options = rtc.TrackPublishOptions(dtx=False)
        return await self._publish(publication, options)

    async def publish_video(
        self, source: UTDTrackSource, *, width: int, height: int, fps: float = 15, simulcast: bool = True
    ) -> LiveKitVideoPublication:
        from livekit import rtc

        self._check_may_publish(source)
        publication = LiveKitVideoPublication(source, _background.spawn, width=width, height=height)
        options = rtc.TrackPublishOptions(simulcast=simulcast)
        # About a tenth of a bit a pixel, as LiveKit's own presets; without a rate of ours it would assume 30 fps.
        options.video_encoding.max_framerate = fps
        options.video_encoding.max_bitrate = max(200_000, int(width * height * fps * 0.12))
        return await self._publish(publication, options)

    def _check_may_publish(self, source: UTDTrackSource) -> None:
        self._participant(f"publish {source}")
        if not self.permission.allows(source):  # LiveKit would wait 10 s and then fail (fact 5)
            raise UTDPermissionError(f"the server has not granted publishing {source}; wait for the grant first")

    async def _publish(self, publication: PublicationT, options: rtc.TrackPublishOptions) -> PublicationT:
        what = f"publish {publication.source}"
        options.source = SOURCE_NUMBERS[publication.source]  # type: ignore[assignment]
        self._publications.append(publication)
        publishing = _background.spawn(self._publish_native(publication, options))
        try:
            await self._while_joined(publishing, what)
        except asyncio.CancelledError:
            publication.close()
            _background.spawn(self._undo(publishing, publication))
            raise
        except Exception as error:
            self._forget(publication)
            if isinstance(error, UTDStreamException):
                raise
            text = scrub(str(getattr(error, "message", "") or error))
            if self.connected and not self.permission.allows(publication.source):
                raise UTDPermissionError(f"{what}: the grant was taken away meanwhile ({text})") from None
            raise UTDConnectionError(f"{what}: {text}") from None
        assert self._events is not None
        self._events.published(publication)
        return publication

    async def _publish_native(self, publication: LiveKitPublication, options: rtc.TrackPublishOptions) -> None:
        participant = self._participant(f"publish {publication.source}")
        publication.published(await participant.publish_track(publication.track, options))

    async def _undo(self, publishing: asyncio.Task[None], publication: LiveKitPublication) -> None:
        what = "take a cancelled publish down"
        try:
            await self._while_joined(publishing, what)
            await self._while_joined(_background.spawn(self._unpublish_sid(publication.sid)), what)
        finally:
            self._forget(publication)

    def _forget(self, publication: LiveKitPublication) -> None:
        publication.close()
        if publication in self._publications:
            self._publications.remove(publication)

    async def unpublish(self, source: UTDTrackSource) -> None:
        for publication in [own for own in self._publications if own.source is source and own.sid]:
            self._forget(publication)
        if self._events is not None:
            # While LiveKit mends the link it publishes again what is to go, under another sid, and an unpublish that it
            # is asked for then may never be answered (measured). Nothing is sent meanwhile.
            await self._events.not_mending.wait()
        for sid in self.publications(source):
            step = _background.spawn(self._unpublish_sid(sid))
            try:
                await self._while_joined(step, f"unpublish {source}")
            except UTDConnectionError:
                return  # everything went with the room

    async def _unpublish_sid(self, sid: str) -> None:
        from livekit.rtc.participant import UnpublishTrackError

        try:
            await self._participant("unpublish").unpublish_track(sid)
        except UnpublishTrackError as error:  # it was gone already (fact 33)
            log.debug("unpublishing %s: %s", sid, scrub(str(error.message)))

    # -- messages

    async def send_data(
        self, data: bytes, *, reliable: bool = True, to: Sequence[str] = (), topic: str | None = None
    ) -> None:
        if len(data) > MAX_DATA_BYTES:
            raise UTDInputError(f"a data message holds at most {MAX_DATA_BYTES} bytes; this one has {len(data)}")
        participant = self._participant("send data")
        await self._send(
            participant.publish_data(
                data, reliable=reliable, destination_identities=list(to), topic=topic if topic is not None else ""
            ),
            "send data",
        )

    async def send_text(self, text: str, *, topic: str, to: Sequence[str] = ()) -> None:
        participant = self._participant("send text")
        await self._send(participant.send_text(text, topic=topic, destination_identities=list(to)), "send text")

    async def _send(self, coroutine: Coroutine[Any, Any, Any], what: str) -> None:
        # In a task of its own: the native side reads the caller's bytes until it has answered.
        step = _background.spawn(coroutine)
        try:
            await self._while_joined(step, what)
        except UTDStreamException:
            raise
        except Exception as error:  # noqa: BLE001 (LiveKit's are bare Exceptions)
            text = scrub(str(getattr(error, "message", "") or error))
            raise UTDConnectionError(f"{what}: {text}") from None


if TYPE_CHECKING:
    from utd_fsm.room import RoomFactory

    _keeps_the_protocol: RoomFactory = LiveKitRoom
