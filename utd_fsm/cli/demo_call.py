"""``utd-fsm demo call``: two blocking callers on a real engine and real media, and a measurement of what they heard.

Written as a user would write it: two threads, public names only. It is the first thing a new user runs, and an
acceptance test of its own: everything it reports was measured from received samples.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from utd_fsm import signals
from utd_fsm.cli.demo_run import Crew, Report, Show, run_demo
from utd_fsm.client import UTDCallSession, UTDStreamClient
from utd_fsm.errors import UTDStreamException
from utd_fsm.machines import CallRecord
from utd_fsm.machines.base import table
from utd_fsm.media import TestPattern, Tone
from utd_fsm.media.measure import dominant_hz
from utd_fsm.models import UTDCallStatus, UTDStreamType
from utd_fsm.testing import LocalEngine

CALLER_HZ, CALLEE_HZ = 440.0, 660.0
TOLERANCE_HZ = 2.0
ANSWER_WITHIN = 30.0
RATE = 48_000


@dataclass
class Party:
    """One side of the call, as it saw and heard it."""

    identity: str
    sent_hz: float
    wants_hz: float
    statuses: list[str] = field(default_factory=list)
    heard_hz: float | None = None
    frames_seen: int = 0
    heard_at: float | None = None
    error: str | None = None
    end_reason: str | None = None
    duration: float | None = None
    call_id: str | None = None

    @property
    def heard_right(self) -> bool:
        return self.heard_hz is not None and abs(self.heard_hz - self.wants_hz) <= TOLERANCE_HZ

    def report(self) -> dict[str, Any]:
        heard = round(self.heard_hz, 2) if self.heard_hz is not None else None
        return {
            "identity": self.identity,
            "statuses": self.statuses,
            "heard_hz": heard,
            "sent_hz": self.sent_hz,
        }


def is_legal(statuses: list[str]) -> bool:
    """Whether these are, in order, statuses that one call can show, ending in ended.

    What is shown may leap over statuses that passed too quickly, so each must be reachable from the one before.
    """
    edges = table(CallRecord)
    reach: dict[str, set[str]] = {}
    for (source, _), target in edges.items():
        reach.setdefault(source, set()).add(target)
    for _ in range(len(reach)):
        for source in reach:
            for target in tuple(reach[source]):
                reach[source] |= reach.get(target, set())
    return bool(statuses) and statuses[-1] == "ended" and all(b in reach.get(a, set()) for a, b in pairwise(statuses))


@contextmanager
def following(call: UTDCallSession, party: Party, show: Show) -> Iterator[None]:
    """Note every status of the call while the body runs, and show it."""

    def on_status(observable: object, *, value: UTDCallStatus | None, **extra: object) -> None:
        if value is not None:
            party.statuses.append(value.value)
            show(party.identity, f"status: {value.value}")

    call.status.changed.connect(on_status)
    try:
        yield
    finally:
        signals.drain(10.0)  # what was announced is on its way to the receiver, on the signals thread
        call.status.changed.disconnect(on_status)


def talk(call: UTDCallSession, party: Party, seconds: float, *, video: bool, record: Path | None, show: Show) -> None:
    """Listen to the other for a while, measure the tone, and with video count the pictures."""
    watcher = None
    if video:
        watcher = threading.Thread(target=watch, args=(call, party, seconds), name=f"watch-{party.identity}")
        watcher.start()
    recording = call.start_recording(record / f"heard-by-{party.identity}.wav") if record else None
    pieces = []
    for frame in call.listen(seconds=seconds, timeout=15.0):
        if party.heard_at is None and np.abs(frame.samples).max() > 1000:
            party.heard_at = time.monotonic()
            show(party.identity, "hears the other side")
        pieces.append(frame.samples)
    if pieces:
        samples = np.concatenate(pieces)[:, 0]
        # The last second or two: what the first packets bring is the jitter buffer finding its depth.
        party.heard_hz = dominant_hz(samples[-2 * RATE :], RATE)
    if recording is not None:
        recording.stop()
    if watcher is not None:
        watcher.join(seconds + 20.0)


def watch(call: UTDCallSession, party: Party, seconds: float) -> None:
    until = time.monotonic() + seconds
    try:
        for _ in call.watch(timeout=15.0):
            party.frames_seen += 1
            if time.monotonic() >= until:
                break
    except UTDStreamException as error:
        party.error = party.error or f"watching: {error}"


def session_for(client: UTDStreamClient, party: Party, *, video: bool) -> UTDCallSession:
    kind = UTDStreamType.VIDEO_CALL if video else UTDStreamType.AUDIO_CALL
    camera = TestPattern(320, 240, 15) if video else None
    return client.call_session(kind, microphone=Tone(party.sent_hz), camera=camera)


class Scene:
    """What both threads share."""

    def __init__(self, engine: LocalEngine, *, video: bool, seconds: float, record: Path | None, show: Show) -> None:
        self.crew = Crew(engine, show, limit=seconds + 4 * ANSWER_WITHIN)
        self.video, self.seconds, self.record, self.show = video, seconds, record, show
        self.caller = Party("alice", CALLER_HZ, CALLEE_HZ)
        self.callee = Party("bob", CALLEE_HZ, CALLER_HZ)
        self.callee_listens = threading.Event()
        self.callee_is_done = threading.Event()
        self.started_at = 0.0

    def call_somebody(self) -> None:
        """The caller's thread."""
        party, show = self.caller, self.show
        with self.crew.client() as client:
            client.authenticate(party.identity, name="Alice")
            self.crew.wait(self.callee_listens, "the callee listens", ANSWER_WITHIN)
            with session_for(client, party, video=self.video) as call, following(call, party, show):
                self.started_at = time.monotonic()
                show(party.identity, f"calls {self.callee.identity}, and will say {party.sent_hz:g} Hz")
                party.call_id = call.start(self.callee.identity, callee_name="Bob").call_id
                answer = call.wait_for_answer(timeout=ANSWER_WITHIN)
                if answer is not UTDCallStatus.ACTIVE:
                    raise UTDStreamException(f"the call was not answered: {answer.value}")
                talk(call, party, self.seconds, video=self.video, record=self.record, show=show)
                self.crew.wait(self.callee_is_done, "the callee has listened", self.seconds + 20.0)
                call.end()
                self.note_end(call, party)

    def answer_calls(self) -> None:
        """The callee's thread."""
        party, show = self.callee, self.show
        with self.crew.client() as client:
            client.authenticate(party.identity, name="Bob")
            self.callee_listens.set()
            incoming = client.wait_for_call(timeout=ANSWER_WITHIN + 10.0)
            if incoming is None:
                raise UTDStreamException("nobody called")
            show(party.identity, f"is called by {incoming.caller_identity}, and will say {party.sent_hz:g} Hz")
            with session_for(client, party, video=self.video) as call, following(call, party, show):
                call.ringing(incoming)
                call.accept(incoming)
                talk(call, party, self.seconds, video=self.video, record=self.record, show=show)
                self.callee_is_done.set()
                call.wait_until_ended(timeout=self.seconds + 30.0)
                self.note_end(call, party)

    def note_end(self, call: UTDCallSession, party: Party) -> None:
        party.end_reason, party.duration = call.end_reason, call.duration
        self.show(party.identity, f"the call is over: {call.end_reason}")

    def run(self, media: str) -> Report:
        """Both, at the same time, each in its own thread; and the report."""
        self.crew.run({self.callee.identity: self.answer_calls, self.caller.identity: self.call_somebody})
        for party in (self.caller, self.callee):
            party.error = self.crew.errors.get(party.identity, party.error)
        return self.result(media)

    def result(self, media: str) -> Report:
        caller, callee = self.caller, self.callee
        both_heard = [party.heard_at for party in (caller, callee) if party.heard_at is not None]
        ok = all(party.heard_right and is_legal(party.statuses) and not party.error for party in (caller, callee))
        ok = ok and not self.crew.errors
        if self.video:
            ok = ok and caller.frames_seen > 0 and callee.frames_seen > 0
        result: Report = {
            "ok": ok,
            "media": media,
            "call_id": caller.call_id,
            "caller": caller.report(),
            "callee": callee.report(),
            "setup_ms": round((max(both_heard) - self.started_at) * 1000) if len(both_heard) == 2 else None,
            "duration_s": round(caller.duration, 2) if caller.duration is not None else None,
            "end_reason": caller.end_reason,
        }
        if self.video:
            result["frames_seen"] = {caller.identity: caller.frames_seen, callee.identity: callee.frames_seen}
        errors = self.crew.errors | {party.identity: party.error for party in (caller, callee) if party.error}
        if errors:
            result["errors"] = errors
        return result


def run_demo_call(*, media: str, video: bool, seconds: float, record: Path | None, as_json: bool) -> int:
    """Run it and report.

    Returns:
        The exit status: 0 only when both heard the other's tone within 2 Hz and both lists of statuses are legal.
    """

    def play(engine: LocalEngine, show: Show) -> Report:
        if record is not None:
            record.mkdir(parents=True, exist_ok=True)
        return Scene(engine, video=video, seconds=seconds, record=record, show=show).run(media)

    def told(report: Report) -> RenderableType:
        figures = summary(report)
        return figures if record is None else Group(figures, f"recordings: {record}/heard-by-*.wav")

    return run_demo(media, play, told, as_json=as_json)


def summary(result: Report) -> Table:
    """The figures as a table."""
    title = "[green]a call, heard both ways[/]" if result["ok"] else "[red]not as promised[/]"
    grid = Table(title=f"{title}: {result['call_id']}", title_justify="left")
    for column in ("party", "said", "heard", "statuses"):
        grid.add_column(column)
    for key in ("caller", "callee"):
        party = result[key]
        heard = f"{party['heard_hz']} Hz" if party["heard_hz"] is not None else "nothing"
        grid.add_row(f"{key} {party['identity']}", f"{party['sent_hz']:g} Hz", heard, " → ".join(party["statuses"]))
    told = [f"{result['media']} media"]
    if result["setup_ms"] is not None:
        told.append(f"both hearing {result['setup_ms']} ms after start()")
    if result["duration_s"] is not None:
        told.append(f"{result['duration_s']} s long")
    if result["end_reason"]:
        told.append(result["end_reason"])
    told += [f"{who}: {error}" for who, error in result.get("errors", {}).items()]
    grid.caption = ", ".join(told)
    return grid
