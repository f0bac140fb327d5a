"""Ears tell tones from silence, and whose tone it is, whatever is claimed of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import pytest

from utd_fsm.cli import demo_ears
from utd_fsm.cli.demo_ears import RATE, Ears, differences, tone_hz
from utd_fsm.cli.demo_run import Crew, Show
from utd_fsm.media import AudioFrame
from utd_fsm.streams import Feed, Stream
from utd_fsm.testing import LocalEngine

TONES = {who: tone_hz(number) for number, who in enumerate(("host", "ann", "ben"))}


class Air:
    """What one listener receives: tones of others, in real time, as a session's `listen` gives them."""

    def __init__(self) -> None:
        self.sounds: dict[str, float] = {}
        self._feed: Feed[AudioFrame] = Feed(200, what="the air")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def listen(
        self,
        identity: str | None = None,
        *,
        seconds: float | None = None,
        timeout: float | None = 30.0,
        sample_rate: int = 48000,
        channels: int = 1,
    ) -> Stream[AudioFrame]:
        assert (identity, seconds, sample_rate, channels) == (None, None, RATE, 1)
        self._thread.start()
        return self._feed.stream

    def _send(self) -> None:
        at, piece = 0, RATE // 50
        began = time.monotonic()
        while not self._stop.wait(max(0.0, began + at / RATE - time.monotonic())):
            for who, hz in dict(self.sounds).items():
                turns = (at + np.arange(piece)) * hz / RATE
                samples = np.rint(9830 * np.sin(2 * np.pi * turns)).astype(np.int16).reshape(-1, 1)
                self._feed.put(AudioFrame(samples, RATE, 1, who, time.monotonic()))
            at += piece

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self._feed.finish()


@contextmanager
def listening(*who: str) -> Iterator[tuple[Ears, dict[str, Air]]]:
    ears, air = Ears(Crew(LocalEngine(), Show(as_json=True), limit=60.0), TONES), {one: Air() for one in who}
    with ExitStack() as stack:
        for one in who:
            stack.enter_context(ears.of(one, air[one]))
            stack.callback(air[one].stop)
        yield ears, air


def test_who_is_heard_and_at_how_many_hertz() -> None:
    with listening("host", "ann") as (ears, air):
        air["host"].sounds = {"ann": TONES["ann"], "ben": TONES["ben"]}
        heard = ears.measure({"host": ["ann", "ben"], "ann": []})
    assert set(heard["host"]) == {"ann", "ben"}
    assert heard["host"]["ben"] == pytest.approx(TONES["ben"], abs=1)
    assert heard["ann"] == {}


def test_what_falls_silent_is_waited_for() -> None:
    with listening("ann") as (ears, air):
        air["ann"].sounds = {"host": TONES["host"], "ben": TONES["ben"]}
        assert set(ears.measure({"ann": ["host", "ben"]})["ann"]) == {"host", "ben"}
        timer = threading.Timer(0.7, lambda: air["ann"].sounds.pop("ben"))
        timer.start()
        assert set(ears.measure({"ann": ["host"]})["ann"]) == {"host"}


def test_somebody_who_goes_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 1.5)
    expected = {"ann": ["host"]}
    with listening("ann") as (ears, air):
        air["ann"].sounds = {"host": TONES["host"], "ben": TONES["ben"]}
        heard = ears.measure(expected)
    assert differences(heard, expected) == ["ann heard ben, host instead of host"]


def test_a_tone_in_the_wrong_track_is_not_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that outlives its track delivers another's voice (LiveKit fact 34)."""
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 1.5)
    with listening("ann") as (ears, air):
        air["ann"].sounds = {"host": TONES["ben"], "ben": 1234.0}
        heard = ears.measure({"ann": ["host", "ben"]})
    assert set(heard["ann"]) == {"ben in the track of host", "1234 Hz in the track of ben"}


def test_whoever_does_not_listen_is_no_good_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 1.5)
    with listening("ann") as (ears, _):
        assert differences(ears.measure({"ann": [], "ben": []}), {"ann": [], "ben": []}) == ["ben did not listen"]


def test_tones_are_apart_and_below_half_the_rate() -> None:
    tones = [tone_hz(number) for number in range(31)]
    assert min(b - a for a, b in pairwise(tones)) > 10 * demo_ears.TOLERANCE_HZ
    assert tones[-1] < RATE / 2


def test_a_moment_of_sound_is_not_being_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 3.0)
    with listening("ann") as (ears, air):
        air["ann"].sounds = {"host": TONES["host"]}
        threading.Timer(0.4, air["ann"].sounds.clear).start()
        assert ears.measure({"ann": ["host"]}) == {"ann": {}}


def test_what_was_heard_before_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 1.5)
    with listening("ann") as (ears, air):
        air["ann"].sounds = {"host": TONES["host"]}
        assert set(ears.measure({"ann": ["host"]})["ann"]) == {"host"}
        air["ann"].sounds = {}
        assert ears.measure({"ann": ["host"]}) == {"ann": {}}
