"""What one session shows, across the publications it has: a camera or screen that keeps its place. Loop thread only.

It sends `fps` pictures a second as long as it is attached and not paused: black before `start`, then the source's, the
last one again while there is no newer one and after its end. A steady rate lets whoever joins late see it at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from utd_fsm.errors import UTDClosedError, UTDStreamException
from utd_fsm.media.arrays import fitted
from utd_fsm.media.pulling import CLOSE_LIMIT, RETRY, Puller, Tasks, close_within
from utd_fsm.media.video_sources import TestPattern, VideoReader, VideoSource, require_video_source

if TYPE_CHECKING:
    from utd_fsm.room import Pixels, Publication

_log = logging.getLogger("utd_fsm.media")

_PULLED_AHEAD = 2
_STALL = 0.5


def default_view() -> VideoSource:
    """What is shown where nobody gave a source. The log says so: others may take it for a real picture."""
    _log.warning("no camera was given: a test pattern is shown; pass camera=… or set_camera(True, source=…)")
    return TestPattern()


class Camera:
    """One session's outgoing picture.

    Its size is that of its first source, since the track is published with it; pictures of a later one are scaled.

    Args:
        tasks: the portal.
        source: what is shown from `start` on; None is a `TestPattern`, and the log says so once.

    Raises:
        UTDInputError: not a `VideoSource`.
        UTDStateError: the source can be read only once, and was.
    """

    def __init__(self, tasks: Tasks, source: VideoSource | None = None) -> None:
        self._tasks = tasks
        self._publication: Publication | None = None
        self._started = False
        self._paused = False
        self._closed = False
        self._epoch = 0
        self._pumps: set[asyncio.Task[Any]] = set()
        self._retired: list[Puller[Any]] = []
        self._source: VideoSource | None = None
        self._view: Puller[Pixels] | None = None
        source = default_view() if source is None else source
        require_video_source(source)
        self.width, self.height = source.width, source.height
        """Pixels; what to publish with."""
        self.fps: float = source.fps
        """Pictures a second."""
        self.underruns = 0
        """Pictures that were shown again because a source that had begun had nothing newer ready."""
        self._picture: Pixels = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        self.set_source(source)

    def set_source(self, source: VideoSource) -> None:
        """Show this from now on. The track stays as it is; the last picture stays until the first new one.

        Raises:
            UTDInputError: not a `VideoSource`; the old one stays.
            UTDStateError: the source can be read only once, and was; the old one stays.
            UTDClosedError: the camera is closed.
        """
        self._refuse_when_closed()
        if source is self._source and self._view is not None and not self._view.begun:
            return  # asked for again before any of it was sent: what can be read only once must not be refused
        view = _pull(require_video_source(source), self.width, self.height)
        if self._view is not None:
            self._retire(self._view)
        self._source, self._view, self.fps = source, view, source.fps
        self._update()

    @property
    def started(self) -> bool:
        """Whether the source is shown; black goes out before."""
        return self._started

    def attach(self, publication: Publication) -> None:
        """A publish epoch begins: send here from now on."""
        self._refuse_when_closed()
        self._publication = publication
        self._update(anew=True)

    def detach(self) -> None:
        """It is over: nothing is sent and nothing pulled."""
        self._publication = None
        self._update(anew=True)

    def start(self) -> None:
        """Show the source from here on (in a call: it is active and the other has subscribed). Idempotent."""
        self._started = True
        self._update()

    def pause(self) -> None:
        """Muted, or the link is down: nothing is sent and nothing pulled. Idempotent."""
        if not self._paused:
            self._paused = True
            self._update(anew=True)

    def resume(self) -> None:
        """Go on where it was. Idempotent."""
        if self._paused:
            self._paused = False
            self._update(anew=True)

    async def aclose(self) -> None:
        """End it: within a second nothing is sent and nothing pulled any more. Idempotent."""
        self._closed = True
        self.detach()
        if self._view is not None:
            self._retire(self._view)
            self._view = None
        for pump in self._pumps:
            pump.cancel()  # it is asleep until the next picture; capturing one does not wait
        await close_within(CLOSE_LIMIT, self._pumps, self._retired)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise UTDClosedError("this session's camera is closed")

    def _retire(self, puller: Puller[Any]) -> None:
        puller.close()
        self._retired = [old for old in self._retired if old.pulling]
        self._retired.append(puller)

    def _update(self, *, anew: bool = False) -> None:
        visible = self._publication is not None and not self._paused
        if self._view is not None:
            if visible and self._started:
                self._view.run()
            else:
                self._view.rest()
        if anew:
            self._epoch += 1
            if visible and self._publication is not None:
                pump = self._tasks.spawn(self._pump(self._publication, self._epoch), name="utd-fsm-cam-pump")
                self._pumps.add(pump)
                pump.add_done_callback(self._pumps.discard)

    async def _pump(self, publication: Publication, epoch: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        refused = False
        while epoch == self._epoch and not publication.closed:
            try:
                await publication.capture(self._next())
            except UTDStreamException as error:
                if not refused:
                    _log.warning("the camera's track takes no pictures: %s", error)
                refused = True
                due = loop.time() + RETRY
            due += 1 / self.fps
            if due < loop.time() - _STALL:
                due = loop.time()  # after a stall no burst makes up for what nobody saw
            await asyncio.sleep(max(0.0, due - loop.time()))

    def _next(self) -> Pixels:
        view = self._view
        if view is not None and self._started:
            picture = view.take()
            if picture is not None:
                self._picture = picture
            elif view.begun and not view.over:
                self.underruns += 1
        return self._picture


def _pull(source: VideoSource, width: int, height: int) -> Puller[Pixels]:
    reader = source.open()

    def read() -> tuple[Pixels | None, bool]:
        return _read(reader, width, height)

    return Puller(read, reader.close, name="utd-fsm-cam", capacity=_PULLED_AHEAD, what=repr(source))


def _read(reader: VideoReader, width: int, height: int) -> tuple[Pixels | None, bool]:
    picture = reader.read()
    return (None, True) if picture is None else (fitted(picture, width, height), False)
