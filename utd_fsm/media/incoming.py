"""What one session hears and sees: fans the remote tracks out to whoever listens, watches or records. Loop thread only.

Each track is read once for each form (rate and channels) that somebody wants, however many want it, and not at all when
nobody does. Every reader has its own copy and its own bounded queue. A stream is cut in the very step that removes its
track, because the media section behind it is reused for somebody else (LiveKit fact 34).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from utd_fsm import validation
from utd_fsm.errors import UTDInputError, UTDStateError, UTDStreamException
from utd_fsm.media.frames import AudioFrame, VideoFrame, mark_audio, mark_video
from utd_fsm.media.pulling import Tasks
from utd_fsm.media.recording import RecorderCore
from utd_fsm.media.sources import check_channels, check_rate
from utd_fsm.models import UTDTrackSource
from utd_fsm.streams import Feed

if TYPE_CHECKING:
    import numpy.typing as npt

    from utd_fsm.room import Frames, RemoteTrack

AUDIO_WAITING = 50
"""Frames of 20 ms that wait for a slow listener, for each track it hears: 1 s."""

F = TypeVar("F", AudioFrame, VideoFrame)

_Form = tuple[int, int] | None
"""(sample rate, channels) of sound; None for pictures."""


@dataclass(eq=False)
class _Sink:
    """Somebody who wants tracks: which, in which form, and what to do with a piece of one."""

    wants: Callable[[RemoteTrack], bool]
    form: _Form
    put: Callable[[RemoteTrack, npt.NDArray[Any], float], None]
    lose: Callable[[int], None]
    joined: Callable[[int], None] = lambda count: None
    """Told how many tracks it hears, whenever that changes."""
    size: tuple[int, int] | None = None


@dataclass(eq=False)
class _Listener(Generic[F]):
    """A feed that is open, and what must end with it."""

    feed: Feed[F]
    sink: _Sink | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Tap:
    """One stream of one track, shared by all who want it in this form."""

    track: RemoteTrack
    frames: Frames[Any]
    sinks: list[_Sink] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        """Hand out what comes, until stopped or the track ends."""
        lost = 0
        async for array in self.frames:
            if self.stopped:
                return
            now = time.monotonic()
            more = self.frames.dropped - lost
            lost += more
            if self.track.muted and self.track.kind == "audio" and not array.any():
                continue  # LiveKit goes on with zeros while nothing comes: a mute is a gap, and its last sound passes
            last = len(self.sinks) - 1
            for index, sink in enumerate(tuple(self.sinks)):
                if more:
                    sink.lose(more)
                # The stream's own array goes to the last one, copies to the others.
                sink.put(self.track, array if index == last and array.flags.writeable else array.copy(), now)


class Listening:
    """The fan-out of one session's remote tracks, from joining a room to leaving it.

    Args:
        tasks: the portal.
        adaptive: whether video that nobody watches is paused, and the largest size watched picks the layer.
    """

    def __init__(self, tasks: Tasks, *, adaptive: bool = True) -> None:
        self._tasks = tasks
        self._adaptive = adaptive
        self._loop = asyncio.get_running_loop()
        self._tracks: dict[str, RemoteTrack] = {}
        self._taps: dict[tuple[str, _Form], _Tap] = {}
        self._sinks: list[_Sink] = []
        self._listeners: list[_Listener[Any]] = []
        self._recorders: dict[RecorderCore, _Sink] = {}
        self._wanted: dict[str, tuple[bool, tuple[int, int] | None]] = {}
        self._started = False
        self._finished = False
        self._closing: set[asyncio.Task[Any]] = set()

    # --------------------------------------------------------------------------------------------- what the room says

    def add(self, track: RemoteTrack) -> None:
        """A track was subscribed: whoever wants it hears it from now on."""
        if self._finished:
            return
        self.remove(track.sid)
        self._tracks[track.sid] = track
        for sink in self._sinks:
            if sink.wants(track):
                self._tap(track, sink)
                self._tell(sink)
        self._want(track)

    def remove(self, sid: str) -> None:
        """A track is gone: nothing more of it is delivered after this call, and its streams are closed. Idempotent."""
        track = self._tracks.pop(sid, None)
        self._wanted.pop(sid, None)
        if track is None:
            return
        for key in [key for key in self._taps if key[0] == sid]:
            self._stop(key)

    def start_now(self) -> None:
        """The call is answered (or a room joined): timeouts count and recordings run from now on. Idempotent."""
        if self._started:
            return
        self._started = True
        for listener in self._listeners:
            listener.feed.arm()
        for recorder in list(self._recorders):
            recorder.begin()

    def finish(self, error: UTDStreamException | None = None, ended_by: str = "call_ended") -> None:
        """Call or room ended: streams end after what is queued, recordings are completed. Idempotent.

        Args:
            error: what the streams raise at their end; None lets them end quietly. Recordings never raise it.
            ended_by: what the recordings say: ``call_ended``, ``left`` or ``closed``.
        """
        self._finished = True
        for recorder in list(self._recorders):
            recorder.end(ended_by)
        for listener in self._listeners:
            if listener.timer is not None:
                listener.timer.cancel()
            listener.feed.finish(error)
        self._listeners, self._sinks = [], []
        for sid in list(self._tracks):
            self.remove(sid)

    async def aclose(self) -> None:
        """`finish`, and wait until the streams behind it are closed."""
        self.finish(ended_by="closed")
        while self._closing:
            await asyncio.wait(set(self._closing))

    # ------------------------------------------------------------------------------------------------- who wants what

    def audio(
        self,
        identity: str | None = None,
        *,
        seconds: float | None = None,
        timeout: float | None = 30.0,
        sample_rate: int = 48_000,
        channels: int = 1,
        source: UTDTrackSource | str = UTDTrackSource.MICROPHONE,
    ) -> Feed[AudioFrame]:
        """Hear one participant, or everybody interleaved.

        At most 1 s of each track waits for the reader; then the oldest is dropped, and the next frame tells how many.

        Args:
            identity: whom; None is everybody.
            seconds: it ends so long after the first frame came, by the clock; None never.
            timeout: the longest gap; None is no limit. It counts from `start_now` on.
            sample_rate: Hz, 8000 to 192,000.
            channels: 1 or 2.
            source: ``microphone`` or ``screen_audio``.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: call or room is over.
        """
        self._refuse_when_finished("listen")
        kind = _one_of(source, UTDTrackSource.MICROPHONE, UTDTrackSource.SCREEN_AUDIO)
        form = check_rate(sample_rate), check_channels(channels)
        length = validation.seconds(seconds)
        listener = self._listener(AUDIO_WAITING, timeout, f"the sound of {identity or 'everybody'}", mark_audio)
        feed = listener.feed

        def put(track: RemoteTrack, samples: npt.NDArray[Any], at: float) -> None:
            if length is not None and listener.timer is None:
                listener.timer = self._loop.call_later(length, self._end, listener)
            feed.put(AudioFrame(samples, *form, track.identity, at))

        def joined(count: int) -> None:
            feed.capacity = max(feed.capacity, AUDIO_WAITING * count)

        self._open(listener, _Sink(_wants("audio", identity, kind), form, put, feed.lose, joined))
        return feed

    def video(
        self,
        identity: str | None = None,
        *,
        source: UTDTrackSource | str = UTDTrackSource.CAMERA,
        size: tuple[int, int] | None = None,
        timeout: float | None = 30.0,
    ) -> Feed[VideoFrame]:
        """See one participant, or everybody interleaved. Only the newest picture waits for the reader.

        Args:
            identity: whom; None is everybody.
            source: ``camera`` or ``screen``.
            size: (width, height) in pixels that is enough; None is the largest there is.
            timeout: the longest gap; None is no limit. It counts from `start_now` on.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: call or room is over.
        """
        self._refuse_when_finished("watch")
        kind = _one_of(source, UTDTrackSource.CAMERA, UTDTrackSource.SCREEN)
        listener = self._listener(1, timeout, f"the {kind} of {identity or 'everybody'}", mark_video)
        feed = listener.feed

        def put(track: RemoteTrack, pixels: npt.NDArray[Any], at: float) -> None:
            feed.put(VideoFrame(pixels, track.identity, at))

        self._open(listener, _Sink(_wants("video", identity, kind), None, put, feed.lose, size=size))
        return feed

    def record(
        self,
        path: str | os.PathLike[str],
        *,
        seconds: float | None = None,
        identity: str | None = None,
        timeout: float | None = None,
    ) -> RecorderCore:
        """Record one participant, or everybody mixed, into a WAV file: 16 bit, 48 kHz, mono.

        The file begins when this is called (before the answer: at the answer), and has silence wherever nobody is
        heard; what this session itself sends is not in it.

        Args:
            path: of the file, which ends in ``.wav``; an existing one is replaced.
            seconds: its length; None is until the end.
            identity: whom; None is everybody.
            timeout: the longest gap in which nobody's sound comes; None is no limit.

        Raises:
            UTDInputError: an argument is wrong, or the file cannot be made.
            UTDStateError: call or room is over.
        """
        self._refuse_when_finished("record")
        recorder = RecorderCore(
            path,
            seconds=validation.seconds(seconds),
            timeout=validation.timeout(timeout),
            on_end=self._recorded,
        )

        def put(track: RemoteTrack, samples: npt.NDArray[Any], at: float) -> None:
            recorder.put(track.sid, samples, at)

        sink = _Sink(_wants("audio", identity, None), (48_000, 1), put, recorder.lose)
        self._recorders[recorder] = sink
        if self._started:
            recorder.begin()
        self._join(sink)
        return recorder

    # ------------------------------------------------------------------------------------------------------- inside

    def _refuse_when_finished(self, what: str) -> None:
        if self._finished:
            raise UTDStateError(f"{what}: the call or room is over; listen in the next one")

    def _listener(self, capacity: int, timeout: float | None, what: str, mark: Callable[[F, int], F]) -> _Listener[F]:
        def closed() -> None:  # in the thread that closes the reader, or drops it
            try:
                self._loop.call_soon_threadsafe(self._drop, listener)
            except RuntimeError:
                return  # the loop is gone, and everything here with it

        limit = validation.timeout(timeout)
        feed = Feed(capacity, timeout=limit, on_close=closed, what=what, mark=mark, armed=self._started)
        listener: _Listener[F] = _Listener(feed)
        return listener

    def _open(self, listener: _Listener[Any], sink: _Sink) -> None:
        listener.sink = sink
        self._listeners.append(listener)
        self._join(sink)

    def _join(self, sink: _Sink) -> None:
        self._sinks.append(sink)
        for track in self._tracks.values():
            if sink.wants(track):
                self._tap(track, sink)
                self._want(track)
        self._tell(sink)

    def _drop(self, listener: _Listener[Any]) -> None:
        """Its reader is closed."""
        if listener.timer is not None:
            listener.timer.cancel()
        if listener in self._listeners:
            self._listeners.remove(listener)
        if listener.sink is not None:
            self._part(listener.sink)

    def _end(self, listener: _Listener[Any]) -> None:
        """Its seconds are over."""
        listener.feed.finish()
        self._drop(listener)

    def _recorded(self, recorder: RecorderCore) -> None:
        sink = self._recorders.pop(recorder, None)
        if sink is not None:
            self._part(sink)

    def _part(self, sink: _Sink) -> None:
        """It wants nothing any more; what nobody wants is not read any more."""
        if sink in self._sinks:
            self._sinks.remove(sink)
        for key, tap in list(self._taps.items()):
            if sink in tap.sinks:
                tap.sinks.remove(sink)
                if not tap.sinks:
                    self._stop(key)
                self._want(tap.track)

    def _tap(self, track: RemoteTrack, sink: _Sink) -> None:
        key = track.sid, sink.form
        tap = self._taps.get(key)
        if tap is None:
            frames = (
                track.video() if sink.form is None else track.audio(sample_rate=sink.form[0], channels=sink.form[1])
            )
            tap = self._taps[key] = _Tap(track, frames)
            self._tasks.spawn(tap.run(), name=f"utd-fsm-tap-{track.sid}")
        tap.sinks.append(sink)

    def _stop(self, key: tuple[str, _Form]) -> None:
        tap = self._taps.pop(key)
        tap.stopped = True
        tap.sinks.clear()
        closing = self._tasks.spawn(tap.frames.aclose(), name=f"utd-fsm-untap-{key[0]}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _tell(self, sink: _Sink) -> None:
        sink.joined(sum(1 for tap in self._taps.values() if sink in tap.sinks))

    def _want(self, track: RemoteTrack) -> None:
        """Tell the track whether anybody watches it, and how large, where that has changed."""
        if track.kind != "video" or not self._adaptive or track.sid not in self._tracks:
            return
        tap = self._taps.get((track.sid, None))
        sizes = [sink.size for sink in tap.sinks] if tap is not None else []
        known = [size for size in sizes if size is not None]
        # Somebody who named no size wants the largest.
        largest = (max(w for w, _ in known), max(h for _, h in known)) if known and len(known) == len(sizes) else None
        wanted = bool(sizes), largest
        if self._wanted.get(track.sid) != wanted:
            self._wanted[track.sid] = wanted
            track.set_wanted(*wanted)


def _one_of(source: UTDTrackSource | str, *allowed: UTDTrackSource) -> UTDTrackSource:
    if source not in allowed:
        raise UTDInputError(f"source: {source!r}; allowed: {' or '.join(repr(str(one)) for one in allowed)}")
    return UTDTrackSource(source)


def _wants(kind: str, identity: str | None, source: UTDTrackSource | None) -> Callable[[RemoteTrack], bool]:
    """Which tracks somebody wants. One of unknown source counts as a microphone or camera: other clients name none."""

    def wants(track: RemoteTrack) -> bool:
        if track.kind != kind or (identity is not None and track.identity != identity):
            return False
        if source is None or track.source is source:
            return True
        return track.source is UTDTrackSource.UNKNOWN and source in (UTDTrackSource.MICROPHONE, UTDTrackSource.CAMERA)

    return wants
