"""A recording under way: what is heard goes into a WAV file that is valid at every moment.

The loop thread hands pieces over and never touches the disk after the file was opened; a thread of the recording's own
mixes and writes. That thread finishes the file even when the loop is gone; when the process is killed, the file holds
what was written until then, which lags by about half a second.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from utd_fsm.errors import UTDInputError, UTDStreamException, UTDTimeoutError
from utd_fsm.media.frames import RATE
from utd_fsm.media.timeline import Timeline
from utd_fsm.media.wav import MOST_BYTES, WavWriter
from utd_fsm.models import UTDRecording

if TYPE_CHECKING:
    from utd_fsm.room import Samples

_log = logging.getLogger("utd_fsm.media")

WAITING = 1000
"""Pieces that wait for a slow disk: 20 s of one track. More are dropped and counted."""
_IDLE = 0.2
_GRACE = 0.06
_FULL = MOST_BYTES // 2


def open_wav(path: str | os.PathLike[str]) -> tuple[WavWriter, Path]:
    """Make the file of a recording; an existing one is replaced.

    Raises:
        UTDInputError: no path to a ``.wav`` file, its folder is missing, or it cannot be written.
    """
    allowed = "allowed: the path of a .wav file in a folder that is there and can be written to"
    if not isinstance(path, str | os.PathLike):
        raise UTDInputError(f"path: got {type(path).__name__}; {allowed}")
    where = Path(path)
    if where.suffix.lower() != ".wav":
        raise UTDInputError(f"path: {where}: a recording is a WAV file; {allowed}")
    if not where.parent.is_dir():
        raise UTDInputError(f"path: {where}: there is no folder {where.parent}; {allowed}")
    try:
        return WavWriter(where), where
    except OSError as error:
        raise UTDInputError(f"path: {where}: {error.strerror or type(error).__name__}; {allowed}") from error
    except ValueError as error:
        raise UTDInputError(f"path: {error}; {allowed}") from error


class RecorderCore:
    """One recording. Made by `Listening.record`. Loop thread only, but it may be a later loop that waits.

    Raises:
        UTDInputError: as `open_wav`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        seconds: float | None,
        timeout: float | None,
        on_end: Callable[[RecorderCore], None],
    ) -> None:
        self._file, self.path = open_wav(path)
        self.dropped = 0
        """Frames that were lost before they could be written."""
        self._seconds = seconds
        self._timeout = timeout
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []
        self._began: float | None = None
        self._ended: float | None = None
        self._ended_by = ""
        self._error: UTDStreamException | None = None
        self._last = 0.0
        self._queue: queue.Queue[tuple[str, Samples, float] | None] = queue.Queue(WAITING)
        self._result: concurrent.futures.Future[UTDRecording] = concurrent.futures.Future()

    # -------------------------------------------------------------------------------------------- for the loop thread

    def begin(self) -> None:
        """The clock runs from now on. Idempotent."""
        if self._began is not None or self._ended is not None:
            return
        self._began = self._last = time.monotonic()
        threading.Thread(target=self._record, args=(self._began,), name="utd-fsm-rec", daemon=True).start()
        if self._seconds is not None:
            # The last pieces are still on their way when the time is over.
            self._timers.append(self._loop.call_later(self._seconds + _GRACE, self.end, "seconds"))
        if self._timeout is not None:
            self._timers.append(self._loop.call_later(self._timeout, self._watch, self._timeout))

    def put(self, track: str, samples: Samples, at: float) -> None:
        """One piece of a track, int16 of shape (n, 1) at 48 kHz, that arrived at this monotonic time. Never waits."""
        if self._began is None or self._ended is not None:
            return
        self._last = at
        try:
            self._queue.put_nowait((track, samples, at - self._began))
        except queue.Full:
            self.dropped += 1

    def lose(self, count: int) -> None:
        """Frames were lost before they came here."""
        self.dropped += count

    def end(self, ended_by: str, error: UTDStreamException | None = None) -> None:
        """It is over; the file is finished in the background. Idempotent."""
        if self._ended is not None:
            return
        self._ended = time.monotonic()
        self._ended_by, self._error = ended_by, error
        for timer in self._timers:
            timer.cancel()
        if self._began is None:
            self._began = self._ended
            threading.Thread(target=self._record, args=(self._began,), name="utd-fsm-rec", daemon=True).start()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass  # the thread looks at `_ended` as well, once it has written what waits
        self._on_end(self)

    def _watch(self, timeout: float) -> None:
        left = self._last + timeout - time.monotonic()
        if left > 0:
            self._timers.append(self._loop.call_later(left, self._watch, timeout))
            return
        late = f"nothing was heard for {timeout:g} s; {self.path} holds what came before"
        self.end("stopped", UTDTimeoutError(late))

    # -------------------------------------------------------------------------------------------------- for everybody

    async def wait(self) -> UTDRecording:
        """Wait until it is over and the file is complete. Cancelling the wait leaves the recording alone.

        Raises:
            UTDTimeoutError: a gap was longer than ``timeout``; the file holds what came before.
            UTDStreamException: the file could not be written any more (the cause tells why).
        """
        return await asyncio.shield(asyncio.wrap_future(self._result))

    async def stop(self) -> UTDRecording:
        """End it, and return what was recorded. Idempotent: later calls return the same. Raises as `wait`."""
        self.end("stopped")
        return await self.wait()

    # ------------------------------------------------------------------------------------------------- its own thread

    def _record(self, began: float) -> None:
        try:
            limit = _FULL if self._seconds is None else round(self._seconds * RATE)
            timeline = Timeline(self._file.write, min(limit, _FULL))
            self._take_down(timeline, began)
            timeline.finish((self._ended or time.monotonic()) - began)
            self._file.close()
        except BaseException as error:  # noqa: BLE001 - a full disk, or anything: whoever waits must hear of it
            self._file.close()
            failure = UTDStreamException(f"{self.path} could not be written any more: {error}")
            failure.__cause__ = error
            self._result.set_exception(failure)
            self._from_thread("closed")
            return
        seconds = timeline.written / RATE
        if self._error is not None:
            self._result.set_exception(self._error)
        else:
            self._result.set_result(UTDRecording(self.path, seconds, self.dropped, self._ended_by))

    def _take_down(self, timeline: Timeline, began: float) -> None:
        """Write pieces until the end; silence too, so that the file grows with the clock."""
        while timeline.written < _FULL:
            try:
                item = self._queue.get(timeout=_IDLE)
            except queue.Empty:
                if self._ended is not None:
                    return
                timeline.advance(time.monotonic() - began)
                continue
            if item is None:
                return
            track, samples, at = item
            if not timeline.add(track, samples, at):
                self.dropped += 1
            timeline.advance(at)
        _log.warning("%s is as long as a WAV file can be; its recording ends", self.path)
        self._from_thread("file_full")
        while self._ended is None:
            self._queue.get()

    def _from_thread(self, ended_by: str) -> None:
        try:
            self._loop.call_soon_threadsafe(self.end, ended_by)
        except RuntimeError:  # the loop is gone, and with it whoever would have put more
            self._ended = self._ended or time.monotonic()
