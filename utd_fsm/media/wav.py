"""WAV files: read the header and the samples of any PCM width, write a file that is valid at every moment.

Blocking file I/O: never called on the loop thread but to open and check. The standard ``wave`` module would not do:
before Python 3.12 it refuses the extensible header that most 24-bit files have, and its writer leaves a wrong length
behind when the process is killed.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from utd_fsm.errors import UTDInputError
from utd_fsm.media.arrays import FULL_SCALE, LEAST_RATE, MOST_CHANNELS, MOST_RATE
from utd_fsm.media.frames import RATE

if TYPE_CHECKING:
    from utd_fsm.room import Samples

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_NAMES = {2: "Microsoft ADPCM", 6: "A-law", 7: "µ-law", 17: "IMA ADPCM", 49: "GSM 6.10", 80: "MPEG", 85: "MP3"}
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
MOST_BYTES = 0xFFFFFFFF - _HEADER.size
"""Bytes of sound that the length fields of a WAV file can tell: 12 hours at 48 kHz mono."""


@dataclass(frozen=True, slots=True)
class WavFormat:
    """What a WAV file's header says, and where its sound lies."""

    rate: int
    channels: int
    width: int
    """Bytes of one sample."""
    is_float: bool
    begin: int
    """Offset of the first sample."""
    size: int
    """Bytes of sound that are really there, whole samples only."""


def read_format(file: BinaryIO, path: Path) -> WavFormat:
    """Find the sound in an open WAV file.

    Raises:
        UTDInputError: not a WAV file, compressed, or of a form that is not supported; the path is named.
    """

    def refuse(wrong: str) -> UTDInputError:
        return UTDInputError(
            f"{path}: {wrong}; allowed: WAV, PCM of 8, 16, 24 or 32 bit (or float), 1 or 2 channels, "
            f"{LEAST_RATE} to {MOST_RATE} Hz. Convert it, for instance: ffmpeg -i in -ac 1 -ar 48000 out.wav"
        )

    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise refuse("not a WAV file")
    form: tuple[int, int, int, int, int, int] | None = None
    tag = 0
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        begin = file.tell()
        if name == b"fmt ":
            body = file.read(min(size, 40))
            if len(body) < 16:
                raise refuse("its header is cut off")
            form = struct.unpack("<HHIIHH", body[:16])
            tag = form[0]
            if tag == _EXTENSIBLE and len(body) >= 26:
                (tag,) = struct.unpack("<H", body[24:26])
        elif name == b"data":
            if form is None:
                raise refuse("its sound comes before its format")
            _, channels, rate, _, align, bits = form
            width = align // channels if channels else 0
            if tag not in (_PCM, _FLOAT):
                raise refuse(f"compressed ({_NAMES.get(tag, f'format {tag}')})")
            if not 1 <= channels <= MOST_CHANNELS:
                raise refuse(f"{channels} channels")
            if not LEAST_RATE <= rate <= MOST_RATE:
                raise refuse(f"{rate} Hz")
            if width not in ((4, 8) if tag == _FLOAT else (1, 2, 3, 4)) or align != width * channels:
                raise refuse(f"{bits} bit")
            # A length that was never filled in (0 or all ones, from a pipe or a killed writer) means: to the end.
            there = max(0, end - begin)
            size = there if size in (0, 0xFFFFFFFF) else min(size, there)
            return WavFormat(rate, channels, width, tag == _FLOAT, begin, size - size % align)
        file.seek(begin + size + size % 2)
    raise refuse("there is no sound in it" if form is not None else "its header is cut off")


def decode(raw: bytes, form: WavFormat) -> Samples:
    """Samples of any width as int16 of shape (n, channels)."""
    if form.is_float:
        values = np.frombuffer(raw, dtype="<f4" if form.width == 4 else "<f8")
        # Files of floats may overshoot, and may hold anything: NaN becomes silence.
        told = np.clip(np.nan_to_num(values, nan=0.0), -1.0, 1.0)
        flat: Samples = np.rint(told * FULL_SCALE).astype(np.int16)
    elif form.width == 1:
        flat = (np.frombuffer(raw, dtype=np.uint8).astype(np.int16) - 128) << 8
    elif form.width == 2:
        flat = np.frombuffer(raw, dtype="<i2").astype(np.int16)
    else:
        # Little-endian: the upper two bytes of a sample are its 16 most significant bits.
        parts = np.frombuffer(raw, dtype=np.uint8).reshape(-1, form.width)
        flat = np.ascontiguousarray(parts[:, -2:]).view("<i2").reshape(-1).astype(np.int16)
    return flat.reshape(-1, form.channels)


class WavWriter:
    """Appends 16-bit mono sound at 48 kHz to a new WAV file.

    The header is written again after every piece, and after its samples: whoever copies the file, or finds it after a
    kill -9, has a valid one. An existing file is replaced. One thread at a time.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self.samples = 0
        """Samples written so far."""
        try:
            self._write_header()
        except OSError:
            self._file.close()
            raise

    def write(self, samples: Samples) -> int:
        """Append; returns how many samples still fitted into what a WAV file can hold.

        Raises:
            OSError: the disk is full, or the file is gone.
        """
        room = MOST_BYTES // 2 - self.samples
        fitting = samples[:room]
        raw = memoryview(fitting.astype("<i2").tobytes())
        self._file.seek(_HEADER.size + self.samples * 2)
        while raw:
            raw = raw[self._file.write(raw) :]
        self.samples += len(fitting)
        self._write_header()
        return len(fitting)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def _write_header(self) -> None:
        size = self.samples * 2
        self._file.seek(0)
        self._file.write(
            _HEADER.pack(
                b"RIFF", _HEADER.size - 8 + size, b"WAVE", b"fmt ", 16, _PCM, 1, RATE, RATE * 2, 2, 16, b"data", size
            )
        )
