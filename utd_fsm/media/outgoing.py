"""What one session sends, across the publications it has: a microphone that keeps its place. Loop thread only.

A `Microphone` outlives mutes, reconnects and the tracks that carry it. Its source is pulled on a thread of its own, in
pieces of 20 ms, and only while it can be heard: not before `start`, not while paused or detached, not while something
else is played instead. The track paces it (`Publication.capture`); a source that has nothing ready gives silence.
`Camera`, its twin for pictures, is in `utd_fsm.media.camera`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from utd_fsm import validation
from utd_fsm.errors import UTDClosedError, UTDStreamException
from utd_fsm.media.arrays import saturated
from utd_fsm.media.camera import Camera
from utd_fsm.media.frames import CHUNK, RATE
from utd_fsm.media.playing import PlayingCore
from utd_fsm.media.pulling import CLOSE_LIMIT, RETRY, Puller, Tasks, close_within
from utd_fsm.media.sources import AudioReader, AudioSource, require_audio_source

if TYPE_CHECKING:
    from utd_fsm.room import Publication, Samples

__all__ = ["Camera", "Microphone", "PlayingCore"]

_log = logging.getLogger("utd_fsm.media")

QUEUED_CHUNKS = 10
"""Pieces of 20 ms that are pulled ahead."""
TRACK_QUEUE = RATE // 10
"""Samples a track queues before it makes us wait (`Publication.capture`: about 100 ms)."""


class Microphone:
    """One session's outgoing sound: mono, 48 kHz.

    Args:
        tasks: the portal.
        source: what is said from `start` on; None is silence.

    Raises:
        UTDInputError: not an `AudioSource`.
        UTDStateError: the source can be read only once, and was.
    """

    def __init__(self, tasks: Tasks, source: AudioSource | None = None) -> None:
        self._tasks = tasks
        self._publication: Publication | None = None
        self._started = False
        self._paused = False
        self._closed = False
        self._epoch = 0
        self._pumps: set[asyncio.Task[Any]] = set()
        self._pumping: tuple[Publication, asyncio.Task[Any]] | None = None
        self._source: AudioSource | None = None
        self._voice: Puller[Samples] | None = None
        self._retired: list[Puller[Any]] = []
        self._line: list[PlayingCore] = []
        self._overs: list[PlayingCore] = []
        self._ending: list[PlayingCore] = []
        self._gain = 1.0
        self.underruns = 0
        """Pieces of 20 ms of silence that were sent because a source that had begun had nothing ready."""
        self.set_source(source)

    # ------------------------------------------------------------------------------------------------- what it sends

    def set_source(self, source: AudioSource | None) -> None:
        """Send this from now on; None is silence. The track stays as it is. What is being played goes on.

        Raises:
            UTDInputError: not an `AudioSource`; the old one stays.
            UTDStateError: the source can be read only once, and was; the old one stays.
            UTDClosedError: the microphone is closed.
        """
        self._refuse_when_closed()
        if source is not None and source is self._source and self._voice is not None and not self._voice.begun:
            return  # asked for again before any of it was sent: what can be read only once must not be refused
        voice = None if source is None else _pull(require_audio_source(source), log_errors=True)
        if self._voice is not None:
            self._retire(self._voice)
        self._source, self._voice = source, voice
        self._update()

    async def play(self, source: AudioSource, *, over: bool = False, duck: float = 0.2) -> None:
        """Play something once; returns when its last sample is out. Cancelled, it stops playing.

        Arguments and errors as `start_playing` and `PlayingCore.wait`.
        """
        playing = self.start_playing(source, over=over, duck=duck)
        try:
            await playing.wait()
        except asyncio.CancelledError:
            playing.stop_now()
            raise

    def start_playing(self, source: AudioSource, *, over: bool = False, duck: float = 0.2) -> PlayingCore:
        """Play something once, in the background.

        Args:
            source: what to play.
            over: False: it takes the place of the source, which keeps its own place and goes on afterwards; several of
                them are heard one after the other, in the order in which they were asked for. True: it is mixed over
                whatever is heard, at once.
            duck: with `over`, what the rest is multiplied with meanwhile: 0 silences it, 1 leaves it as it is. Of
                several the lowest counts.

        Returns:
            A handle to wait for its end or to stop it.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: the source can be read only once, and was.
            UTDClosedError: the microphone is closed.
        """
        self._refuse_when_closed()
        over = validation.boolean(over, "over")
        duck = validation.number(duck, "duck", least=0, most=1)
        puller = _pull(require_audio_source(source), log_errors=False)
        playing = PlayingCore(puller, over=over, duck=duck, on_stop=self._stopped)
        (self._overs if over else self._line).append(playing)
        self._update()
        return playing

    # ------------------------------------------------------------------------------------------------ when it sends

    @property
    def started(self) -> bool:
        """Whether sources are heard; nothing goes out before."""
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
        """Let sources be heard from here on (in a call: it is active and the other has subscribed). Idempotent."""
        if not self._started:
            self._started = True
            self._update(anew=True)

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

    async def aclose(self, error: UTDStreamException | None = None) -> None:
        """End it: within a second nothing is sent and nothing pulled any more. Idempotent.

        Args:
            error: what a `play` that is under way raises; `UTDClosedError` unless given.
        """
        self._closed = True
        self.detach()
        failure = error or UTDClosedError("the session's microphone was closed before the sound was out")
        for playing in [*self._line, *self._overs, *self._ending]:
            self._retired.append(playing.puller)
            playing.fail(failure)
        self._line, self._overs, self._ending = [], [], []
        if self._voice is not None:
            self._retire(self._voice)
            self._voice = None
        await close_within(CLOSE_LIMIT, self._pumps, self._retired)

    # ------------------------------------------------------------------------------------------------------- inside

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise UTDClosedError("this session's microphone is closed")

    def _retire(self, puller: Puller[Any]) -> None:
        puller.close()
        self._retired = [old for old in self._retired if old.pulling]
        self._retired.append(puller)

    def _stopped(self, playing: PlayingCore) -> None:
        for playings in (self._line, self._overs, self._ending):
            if playing in playings:
                playings.remove(playing)
        self._retire(playing.puller)
        self._update()

    def _update(self, *, anew: bool = False) -> None:
        """Pull what can be heard and nothing else; `anew`: what sends has changed."""
        # Nothing goes out before the start: silence queued in the track would be in the way of the first word.
        audible = self._publication is not None and not self._paused and self._started
        heard: list[Puller[Samples]] = []
        if audible:
            base = self._line[0].puller if self._line else self._voice
            heard = [base] if base is not None else []
            heard += [playing.puller for playing in self._overs]
        for puller in [self._voice, *(playing.puller for playing in self._line + self._overs)]:
            if puller is None:
                continue
            if puller in heard:
                puller.run()
            else:
                puller.rest()
        if anew:
            # The pump of before ends by itself after the piece in hand: cancelling a capture would lose its answer.
            self._epoch += 1
            if audible and self._publication is not None:
                before = self._pumping[1] if self._pumping and self._pumping[0] is self._publication else None
                pump = self._tasks.spawn(self._pump(self._publication, self._epoch, before), name="utd-fsm-mic-pump")
                self._pumping = self._publication, pump
                self._pumps.add(pump)
                pump.add_done_callback(self._pumps.discard)

    async def _pump(self, publication: Publication, epoch: int, before: asyncio.Task[Any] | None) -> None:
        mine: list[PlayingCore] = []
        try:
            if before is not None:
                # A track takes one piece at a time: LiveKit refuses a second capture while one waits for room.
                await asyncio.wait((before,))
            while epoch == self._epoch and not publication.closed:
                chunk, ended = self._mixed()
                mine += ended
                await self._send(publication, epoch, chunk)
                if any(not playing.over for playing in ended):
                    await publication.drained()
                    self._out(mine, everything=True)
                self._out(mine)
            if mine:
                await publication.drained()
        finally:
            self._out(mine, everything=True)

    async def _send(self, publication: Publication, epoch: int, chunk: Samples) -> None:
        """Give the track one piece. One that refuses it is asked again until it is closed or replaced."""
        refused = False
        while not publication.closed:
            try:
                return await publication.capture(chunk)
            except UTDStreamException as error:
                if not refused:
                    _log.warning("the microphone's track takes no sound: %s", error)
                refused = True
            if epoch != self._epoch:
                return None
            await asyncio.sleep(RETRY)
        return None

    def _out(self, ended: list[PlayingCore], *, everything: bool = False) -> None:
        """A piece was sent: those whose last sample is out by now are finished."""
        for playing in list(ended):
            playing.tail -= CHUNK
            if playing.tail <= 0 or everything:
                ended.remove(playing)
                if playing in self._ending:
                    self._ending.remove(playing)
                playing.finish()

    def _mixed(self) -> tuple[Samples, list[PlayingCore]]:
        """The next 20 ms, and what ended with them."""
        base = self._line[0].puller if self._line else self._voice
        gain = min((playing.duck for playing in self._overs), default=1.0)
        mixed = self._taken(base).astype(np.float64)
        if (self._gain, gain) != (1.0, 1.0):
            # Over one piece, not at a stroke: that would click.
            mixed *= np.linspace(self._gain, gain, CHUNK)[:, None]
        self._gain = gain
        for playing in self._overs:
            mixed += self._taken(playing.puller)
        ended = [playing for playing in self._line[:1] + self._overs if playing.puller.over]
        for playing in ended:
            playing.tail = TRACK_QUEUE + 2 * CHUNK  # the track's queue, the piece in hand, and one for the wire
            (self._overs if playing.over else self._line).remove(playing)
            self._ending.append(playing)
        if ended:
            self._update()
        return saturated(mixed), ended

    def _taken(self, puller: Puller[Samples] | None) -> Samples:
        """20 ms of one source; what it has not got is silence."""
        chunk: Samples = np.zeros((CHUNK, 1), dtype=np.int16)
        if puller is None:
            return chunk
        piece = puller.take()
        if piece is not None:
            chunk[: len(piece)] = piece
        elif puller.begun and not puller.over:
            self.underruns += 1
        return chunk


def _pull(source: AudioSource, *, log_errors: bool) -> Puller[Samples]:
    reader = source.open()
    return Puller(
        lambda: _read(reader),
        reader.close,
        name="utd-fsm-mic",
        capacity=QUEUED_CHUNKS,
        what=repr(source),
        log_errors=log_errors,
    )


def _read(reader: AudioReader) -> tuple[Samples | None, bool]:
    chunk = reader.read(CHUNK)
    return (chunk if len(chunk) else None), len(chunk) < CHUNK
