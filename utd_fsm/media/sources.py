"""What a microphone or `play` can send: recipes of sound.

A source is a recipe: a value that says how, and is opened afresh by each session that sends it, so that one object may
serve many sessions. Opening is quick and runs no code of the caller's; reading may block, and so belongs to the thread
that a `utd_fsm.media.outgoing.Microphone` keeps for it, never to the loop. What is read is always mono at 48 kHz.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from utd_fsm import validation
from utd_fsm.errors import UTDInputError
from utd_fsm.media import wav
from utd_fsm.media.arrays import FULL_SCALE, LEAST_RATE, MOST_CHANNELS, MOST_RATE, Resampler, checked_sound, mono
from utd_fsm.media.frames import RATE
from utd_fsm.media.iterables import Claim, OneShot

if TYPE_CHECKING:
    from utd_fsm.room import Samples


class AudioReader(ABC):
    """One opening of an `AudioSource`. Read by one thread at a time; closed from any."""

    @abstractmethod
    def read(self, n: int) -> Samples:
        """The next `n` samples, int16 of shape (n, 1) at 48 kHz; fewer only when the source is finished. May block.

        Raises:
            Exception: whatever the caller's own iterable raises.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Give back what it holds; a `read` that waits returns. Idempotent."""


class AudioSource(ABC):
    """A recipe of sound."""

    @abstractmethod
    def open(self) -> AudioReader:
        """A new reading from the beginning. Quick; runs no code of the caller's. Any thread.

        Raises:
            UTDStateError: it can be read only once, and was.
        """


def require_audio_source(source: object, what: str = "source") -> AudioSource:
    """The source itself.

    Raises:
        UTDInputError: it is something else.
    """
    if isinstance(source, AudioSource):
        return source
    raise UTDInputError(
        f"{what}: got {type(source).__name__}; "
        "allowed: Silence, Tone, WavFile, AudioFrames or AudioFeed of utd_fsm.media"
    )


def check_rate(value: object, what: str = "sample_rate") -> int:
    """A sample rate that can be converted: 8000 to 192,000 Hz."""
    return validation.integer(value, what, least=LEAST_RATE, most=MOST_RATE)


def check_channels(value: object, what: str = "channels") -> int:
    """1 or 2."""
    return validation.integer(value, what, least=1, most=MOST_CHANNELS)


class _Generated(AudioReader):
    """Sound that is computed, for a length or for ever."""

    def __init__(self, make: Callable[[int, int], Samples], seconds: float | None) -> None:
        self._make = make
        self._left = math.inf if seconds is None else round(seconds * RATE)
        self._at = 0

    def read(self, n: int) -> Samples:
        n = int(min(n, self._left))
        made = self._make(self._at, n)
        self._at += n
        self._left -= n
        return made


class Silence(AudioSource):
    """Nothing to be heard, while the track is there.

    Args:
        seconds: its length, more than 0; None never ends.

    Raises:
        UTDInputError: not a length.
    """

    def __init__(self, *, seconds: float | None = None) -> None:
        self.seconds = validation.seconds(seconds)

    def open(self) -> AudioReader:
        return _Generated(lambda _, n: np.zeros((n, 1), dtype=np.int16), self.seconds)

    def __repr__(self) -> str:
        return "Silence()" if self.seconds is None else f"Silence(seconds={self.seconds:g})"


class Tone(AudioSource):
    """A sine.

    Args:
        hz: frequency, 1 to 24,000.
        amplitude: 0 (silent) to 1 (full scale).
        seconds: its length, more than 0; None never ends.

    Raises:
        UTDInputError: an argument is out of its range.
    """

    def __init__(self, hz: float, amplitude: float = 0.3, *, seconds: float | None = None) -> None:
        self.hz = validation.number(hz, "hz", least=1, most=RATE / 2, unit="Hz")
        self.amplitude = validation.number(amplitude, "amplitude", least=0, most=1)
        self.seconds = validation.seconds(seconds)

    def open(self) -> AudioReader:
        return _Generated(self._make, self.seconds)

    def _make(self, at: int, n: int) -> Samples:
        # The phase is taken modulo a turn before it is scaled, so that it stays exact after hours.
        turns = np.mod((at + np.arange(n, dtype=np.float64)) * (self.hz / RATE), 1.0)
        return np.rint(np.sin(2 * np.pi * turns) * (self.amplitude * FULL_SCALE)).astype(np.int16).reshape(-1, 1)

    def __repr__(self) -> str:
        length = "" if self.seconds is None else f", seconds={self.seconds:g}"
        return f"Tone({self.hz:g}, amplitude={self.amplitude:g}{length})"


class _Converting(AudioReader):
    """Turns pieces of any rate, size and number of channels into what `read` is asked for."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: Resampler | None = None
        self._pieces: list[Samples] = []
        self._ready = 0
        self._over = False

    @abstractmethod
    def _more(self) -> Samples | None:
        """The next piece in the source's own rate; None when there is none."""

    def read(self, n: int) -> Samples:
        if self._resampler is None:
            self._resampler = Resampler(self._rate)
        while self._ready < n and not self._over:
            piece = self._more()
            if piece is None:
                self._over = True
                self._keep(self._resampler.flush())
            else:
                self._keep(self._resampler.push(mono(piece)))
        joined = np.concatenate(self._pieces) if self._pieces else np.empty((0, 1), dtype=np.int16)
        taken, rest = joined[:n], joined[n:]
        self._pieces, self._ready = [rest], len(rest)
        return taken

    def _keep(self, samples: Samples) -> None:
        self._pieces.append(samples)
        self._ready += len(samples)


class WavFile(AudioSource):
    """A WAV file: PCM of 8, 16, 24 or 32 bit (or float), mono or stereo, 8000 to 192,000 Hz.

    Its header is read and checked here, in the caller's thread; its sound when it is sent. Stereo becomes mono.

    Args:
        path: the file.
        loop: begin again at its end, for ever.

    Raises:
        UTDInputError: no such file, not readable, not a WAV file, or of a form that is not supported.
    """

    def __init__(self, path: str | os.PathLike[str], loop: bool = False) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UTDInputError(f"path: got {type(path).__name__}; allowed: a path to a WAV file")
        self.path = Path(path)
        self.loop = validation.boolean(loop, "loop")
        try:
            with self.path.open("rb") as file:
                self._format = wav.read_format(file, self.path)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise UTDInputError(f"{self.path}: {why}; allowed: a WAV file that can be read") from error
        except ValueError as error:
            if isinstance(error, UTDInputError):
                raise
            raise UTDInputError(f"path: {error}; allowed: a WAV file that can be read") from error

    @property
    def seconds(self) -> float:
        """Its length, once through."""
        return self._format.size / (self._format.rate * self._format.channels * self._format.width)

    def open(self) -> AudioReader:
        return _WavReader(self.path, self.loop)

    def __repr__(self) -> str:
        return f"WavFile({str(self.path)!r}{', loop=True' if self.loop else ''})"


class _WavReader(_Converting):
    """Opens the file at the first read, on the reading thread, and trusts nothing of what was read before."""

    def __init__(self, path: Path, loop: bool) -> None:
        super().__init__(RATE)
        self._path = path
        self._loop = loop
        self._file: BinaryIO | None = None
        self._format: wav.WavFormat | None = None
        self._left = 0
        self._closed = False

    def _more(self) -> Samples | None:
        if self._closed:
            return None
        if self._file is None or self._format is None:
            raise AssertionError("read() opens it")
        step = self._format.channels * self._format.width
        if self._left < step:
            if not self._loop or self._format.size < step:
                return None
            self._file.seek(self._format.begin)
            self._left = self._format.size
        raw = self._file.read(min(self._left, self._format.rate // 10 * step))
        raw = raw[: len(raw) - len(raw) % step]
        # A file that became shorter meanwhile ends where it ends.
        self._left = self._left - len(raw) if raw else 0
        return wav.decode(raw, self._format) if raw else None

    def read(self, n: int) -> Samples:
        if self._file is None and not self._closed:
            self._file = self._path.open("rb")
            self._format = wav.read_format(self._file, self._path)
            self._file.seek(self._format.begin)
            self._left, self._rate = self._format.size, self._format.rate
        samples = super().read(n)
        if self._closed and self._file is not None:
            self._file.close()
        return samples

    def close(self) -> None:
        self._closed = True
        if self._file is not None:
            self._file.close()


class AudioFrames(AudioSource):
    """Sound out of the caller's own iterable, taken as it is needed.

    Each session that sends it iterates anew: over a list, over an object whose ``__iter__`` makes an iterator, or over
    what a function returns. A generator or another iterator can be sent only once; a second session gets
    `UTDStateError`. It is iterated on a thread of its own, and may block there.

    An exception in it is logged, counts as its end (a microphone then sends silence), and `play` of it raises
    `UTDInputError` with that exception as its cause, after what came before was played. The same goes for a piece that
    is no sound.

    Args:
        iterable: numpy arrays, int16 or floats from -1 to 1, of shape (n, channels), or (n,) for one channel; any n.
            Or a function without arguments that returns such an iterable.
        sample_rate: 8000 to 192,000.
        channels: 1 or 2 (stereo becomes mono).

    Raises:
        UTDInputError: not iterable, or a rate or number of channels that is not allowed.
    """

    def __init__(self, iterable: Iterable[Any] | Callable[[], Iterable[Any]], sample_rate: int, channels: int) -> None:
        self._once = OneShot(iterable, "AudioFrames")
        self.sample_rate = check_rate(sample_rate)
        self.channels = check_channels(channels)

    def open(self) -> AudioReader:
        return _FramesReader(self._once.claim(), self.sample_rate, self.channels)

    def __repr__(self) -> str:
        return f"AudioFrames({self._once}, {self.sample_rate}, {self.channels})"


class _FramesReader(_Converting):
    def __init__(self, claim: Claim, rate: int, channels: int) -> None:
        super().__init__(rate)
        self._claim = claim
        self._channels = channels
        self._index = 0

    def _more(self) -> Samples | None:
        for piece in self._claim.items():
            self._index += 1
            return checked_sound(piece, self._channels, f"piece {self._index} of an AudioFrames")
        return None

    def close(self) -> None:
        self._claim.release()
