"""Who hears whom: everybody sends a tone of its own, and what each one receives is measured.

Nothing here asks for a state: whoever is heard was heard in received samples, and whoever isn't was silent for a whole
`WINDOW`. Public names of the package only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from utd_fsm import UTDStreamException
from utd_fsm.cli.demo_run import Crew
from utd_fsm.media import AudioFrame
from utd_fsm.media.measure import dominant_hz
from utd_fsm.streams import Stream

RATE: Final = 16_000
"""Samples a second: enough for the highest tone, and cheap for many listeners."""
WINDOW: Final = 1.0
"""Seconds that are measured at a time."""
SETTLES_WITHIN: Final = 10.0
"""Seconds until what is heard must be as expected; a crowded machine needs some of them."""
TOLERANCE_HZ: Final = 5.0
_LOUD: Final = 600
"""The peak of 20 ms, of 32,767, above which it is sound and no silence: tones are sent at 9,830."""
_STEADY: Final = 0.7
"""The part of a window that must sound where somebody is heard; packets may come late."""


def tone_hz(number: int) -> float:
    """The tone of a participant: 110 Hz apart, so that none is taken for another. 60 fit below `RATE` / 2."""
    return 300.0 + 110.0 * number


class Hears(Protocol):
    """A session that can be listened to."""

    def listen(
        self,
        identity: str | None = None,
        *,
        seconds: float | None = None,
        timeout: float | None = 30.0,
        sample_rate: int = 48000,
        channels: int = 1,
    ) -> Stream[AudioFrame]: ...


@dataclass(frozen=True)
class Sound:
    """What came of one participant's track in a while."""

    identity: str
    hz: float
    seconds: float


class Ear:
    """Listens to everybody in a room for as long as the ``with`` lasts, on a thread of its own."""

    def __init__(self, identity: str, session: Hears) -> None:
        self._stream = session.listen(timeout=None, sample_rate=RATE)
        self._lock = threading.Lock()
        self._pieces: dict[str, deque[tuple[float, Any]]] = {}
        self._thread = threading.Thread(target=self._listen, name=f"demo-ear-{identity}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for frame in self._stream:
                if np.abs(frame.samples).max(initial=0) > _LOUD:
                    self._keep(frame)
        except UTDStreamException:
            return  # the room was lost or closed: from here on it hears nothing, and is measured so

    def _keep(self, frame: AudioFrame) -> None:
        with self._lock:
            kept = self._pieces.setdefault(frame.identity, deque())
            kept.append((frame.timestamp, frame.samples[:, 0]))
            while kept[0][0] < frame.timestamp - 3 * WINDOW:
                kept.popleft()

    def heard(self, since: float, until: float) -> tuple[Sound, ...]:
        """What sounded between two moments (``time.monotonic()``), by participant."""
        with self._lock:
            pieces = {
                who: [samples for at, samples in kept if since <= at < until] for who, kept in self._pieces.items()
            }
        sounds = []
        for who, parts in pieces.items():
            samples = np.concatenate(parts) if parts else np.empty(0, dtype=np.int16)
            hz = dominant_hz(samples, RATE)  # None for less than 50 ms
            if hz is not None:
                sounds.append(Sound(who, hz, len(samples) / RATE))
        return tuple(sounds)

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()
        self._thread.join(5.0)


Heard = Mapping[str, Mapping[str, float]]
"""Listener → whom it heard → the tone in Hz."""


class Ears:
    """Everybody's ears.

    Args:
        crew: who acts.
        tones: whose tone is which, in Hz.
    """

    def __init__(self, crew: Crew, tones: Mapping[str, float]) -> None:
        self._crew = crew
        self._tones = tones
        self._ears: dict[str, Ear] = {}

    @contextmanager
    def of(self, identity: str, session: Hears) -> Iterator[None]:
        """Let somebody listen, for the length of the body."""
        ear = self._ears[identity] = Ear(identity, session)
        try:
            yield
        finally:
            del self._ears[identity]
            ear.close()

    def measure(self, expected: Mapping[str, Collection[str]]) -> Heard:
        """Listen until everybody hears exactly whom it should, for a whole window, or `SETTLES_WITHIN` is over.

        The window begins when this is called, at the earliest.

        Args:
            expected: listener → whom it should hear.

        Returns:
            What was heard in the last window, as expected or not; whoever has no ear is missing.

        Raises:
            UTDStreamException: all was given up meanwhile.
        """
        limit = time.monotonic() + SETTLES_WITHIN
        self._crew.pause(WINDOW)
        while True:
            self._crew.pause(0.2)
            until = time.monotonic() - 0.1  # what arrived just now may be on its way to the ear
            ears = dict(self._ears)
            sounds = {one: ears[one].heard(until - WINDOW, until) for one in expected if one in ears}
            heard = {one: {self._name(sound): sound.hz for sound in every} for one, every in sounds.items()}
            steady = all(sound.seconds >= _STEADY * WINDOW for one in sounds.values() for sound in one)
            if (steady and is_as_expected(heard, expected)) or time.monotonic() >= limit:
                return heard

    def _name(self, sound: Sound) -> str:
        """Whose tone it is, which is whom one hears, whoever the track is said to be of."""
        found = [who for who, hz in self._tones.items() if abs(hz - sound.hz) <= TOLERANCE_HZ]
        name = found[0] if found else f"{sound.hz:.0f} Hz"
        return name if name == sound.identity else f"{name} in the track of {sound.identity}"


def is_as_expected(heard: Heard, expected: Mapping[str, Collection[str]]) -> bool:
    """Whether everybody heard exactly whom it should."""
    return not differences(heard, expected)


def differences(heard: Heard, expected: Mapping[str, Collection[str]]) -> list[str]:
    """What was not as expected, in words; empty where all was."""
    return [
        f"{one} heard {_list(heard[one])} instead of {_list(others)}" if one in heard else f"{one} did not listen"
        for one, others in expected.items()
        if one not in heard or set(heard[one]) != set(others)
    ]


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
