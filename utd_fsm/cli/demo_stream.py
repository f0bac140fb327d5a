"""``utd-fsm demo stream``: a host on air, viewers, one who comes on stage and is taken off it; and who heard whom.

Written as a user would write it: one thread for each participant, public names only. Everything it reports was measured
from received samples and pictures; that the sessions say the same is asked beside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from utd_fsm import UTDBroadcast, UTDLiveStreamSession, UTDStageMember, signals
from utd_fsm.cli.demo_ears import Ears, Heard, differences, tone_hz
from utd_fsm.cli.demo_run import WITHIN, Crew, Report, Show, run_demo
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine

HOST: Final = "host"
ROOM: Final = "demo-stream"
LIMIT: Final = 150.0
"""Seconds until it is given up."""
PICTURES: Final = 10
"""So many pictures of the host must be seen by everybody."""
_DARK: Final = 20.0
"""Mean brightness, of 255, below which a picture is black."""


class StreamDemo:
    """The story of one stream: what all threads share."""

    def __init__(self, engine: LocalEngine, show: Show, viewers: int) -> None:
        self.show = show
        self.crew = Crew(engine, show, limit=LIMIT)
        self.viewers = [f"viewer-{number}" for number in range(1, viewers + 1)]
        self.guest = self.viewers[0]
        self.tones = {who: tone_hz(number) for number, who in enumerate((HOST, *self.viewers))}
        self.ears = Ears(self.crew, self.tones)
        self.stages: dict[str, list[list[str]]] = {}
        self.pictures = dict.fromkeys(self.viewers, 0)
        self.on_stage: Heard = {}
        self.after_removal: Heard | None = None
        self.differences: dict[str, str] = {}
        self._open = threading.Event()
        self._watching = {who: threading.Event() for who in self.viewers}
        self._may_ask = threading.Event()
        self._over = threading.Event()

    # ------------------------------------------------------------------------------------------- who does what

    def host(self) -> None:
        """The host's thread."""
        say = Tone(self.tones[HOST])
        with (
            self.crew.client() as client,
            client.join_live_stream(
                HOST, ROOM, as_host=True, name="Host", microphone=say, camera=TestPattern(320, 240, 15)
            ) as live,
            self.present(HOST, live),
        ):
            self._open.set()
            live.go_live(with_video=True)
            self.show(HOST, f"is live, with video and {say.hz:g} Hz")
            for who, sees in self._watching.items():
                self.crew.wait(sees, f"{who} sees the host")
            everybody_hears_the_host = {HOST: [], **{who: [HOST] for who in self.viewers}}
            self.hear("live", everybody_hears_the_host)

            self._may_ask.set()
            hand = live.hands.wait_for(lambda hands: bool(hands), timeout=WITHIN)[0]
            self.show(HOST, f"invites {hand.identity} to the stage")
            live.invite_to_stage(hand.identity)
            with_guest = {**everybody_hears_the_host, **{who: [HOST, self.guest] for who in self.viewers}}
            with_guest |= {HOST: [self.guest], self.guest: [HOST]}
            self.on_stage = self.hear("on stage", with_guest)

            self.show(HOST, f"removes {hand.identity} from the stage")
            live.remove_from_stage(hand.identity)
            self.after_removal = self.hear("after the removal", everybody_hears_the_host)
            self.show(HOST, "leaves")
        self.hear("after the host left", {who: [] for who in self.viewers})
        self._over.set()

    def viewer(self, identity: str) -> None:
        """A viewer's thread."""
        self.crew.wait(self._open, "the host opens the stream")
        say = Tone(self.tones[identity])
        name = identity.capitalize()
        with (
            self.crew.client() as client,
            client.join_live_stream(identity, ROOM, name=name, microphone=say) as live,
            self.present(identity, live),
        ):
            live.broadcast.wait_for(UTDBroadcast.LIVE, timeout=WITHIN)
            self.watch(identity, live)
            if identity == self.guest:
                self.come_on_stage(live, say)
            end = live.wait_until_ended(timeout=2 * WITHIN)
            self.show(identity, f"the stream is {end.value}")
            self.crew.wait(self._over, "the host's absence is listened to")

    def come_on_stage(self, live: UTDLiveStreamSession, say: Tone) -> None:
        """Raise a hand, publish when the engine lets me, stay until it doesn't."""
        self.crew.wait(self._may_ask, "everybody hears the host")
        live.request_stage()
        self.show(self.guest, "raises a hand")
        live.can_publish.wait_for(True, timeout=WITHIN)
        live.set_microphone(True)
        self.show(self.guest, f"is on stage, and says {say.hz:g} Hz")
        live.can_publish.wait_for(False, timeout=WITHIN)
        self.show(self.guest, "may not publish any more")

    def watch(self, identity: str, live: UTDLiveStreamSession) -> None:
        """Look at the host's camera until there were enough pictures that are not black."""
        limit = time.monotonic() + WITHIN
        with live.watch(HOST, timeout=WITHIN) as pictures:
            for picture in pictures:
                if picture.pixels.mean() > _DARK:
                    self.pictures[identity] += 1
                if self.pictures[identity] >= PICTURES or time.monotonic() >= limit:
                    break
        self.show(identity, f"sees the host: {self.pictures[identity]} pictures")
        self._watching[identity].set()

    @contextmanager
    def present(self, identity: str, live: UTDLiveStreamSession) -> Iterator[None]:
        """Listen, and note every change of the stage, while the body runs."""
        noted = self.stages[identity] = [names(live.stage.value)]

        def on_stage(observable: object, *, value: tuple[UTDStageMember, ...], **extra: object) -> None:
            noted.append(names(value))

        live.stage.changed.connect(on_stage)
        try:
            with self.ears.of(identity, live):
                yield
        finally:
            signals.drain(10.0)  # what was announced is on its way to the receiver, on the signals thread
            live.stage.changed.disconnect(on_stage)

    # --------------------------------------------------------------------------------------- what came of it

    def hear(self, moment: str, expected: Mapping[str, list[str]]) -> Heard:
        """Measure, and say what was not as expected."""
        heard = self.ears.measure(expected)
        wrong = differences(heard, expected)
        if wrong:
            self.differences[moment] = "; ".join(wrong)
        told = f"[red]{escape(self.differences[moment])}[/]" if wrong else "[green]everybody hears whom it should[/]"
        self.show("measured", f"{moment}: {told}")
        return heard

    def run(self, media: str) -> Report:
        """All of it, and the report."""
        parts: dict[str, Callable[[], None]] = {
            HOST: self.host,
            **{who: partial(self.viewer, who) for who in self.viewers},
        }
        self.crew.run(parts)
        wanted = [[], [self.guest], []]
        unlike = [who for who in self.tones if self.stages.get(who) != wanted]
        if unlike and not self.crew.errors:
            self.differences["stage"] = f"not shown as {wanted} to {', '.join(unlike)}"
        dark = [who for who, seen in self.pictures.items() if seen < PICTURES]
        if dark and not self.crew.errors:
            self.differences["pictures"] = f"too few, or black, at {', '.join(dark)}"
        errors = {**self.crew.errors, **self.differences}
        after = self.after_removal
        report: Report = {
            "ok": after is not None and not errors,
            "media": media,
            "stage_history": self.stages.get(HOST, []),
            "heard": {who: hertz(self.on_stage.get(who, {})) for who in self.viewers},
            # null where it did not come that far: an empty object would be good news
            "after_removal_heard": None
            if after is None
            else {who: hertz(heard) for who, heard in after.items() if any(self.guest in name for name in heard)},
            "viewers": len(self.viewers),
        }
        if errors:
            report["errors"] = errors
        return report


def names(stage: tuple[UTDStageMember, ...]) -> list[str]:
    """Who is on it."""
    return [member.identity for member in stage]


def hertz(heard: Mapping[str, float]) -> list[float]:
    """The tones, lowest first."""
    return sorted(round(hz, 2) for hz in heard.values())


def run_demo_stream(*, media: str, viewers: int, as_json: bool) -> int:
    """Run it and report.

    Args:
        media: ``embedded``, ``livekit-server`` or a URL.
        viewers: how many, 1 or more.
        as_json: print one JSON object.

    Returns:
        The exit status: 0 only when everybody heard exactly whom it should at every moment, and saw the host.
    """

    def play(engine: LocalEngine, show: Show) -> Report:
        return StreamDemo(engine, show, viewers).run(media)

    return run_demo(media, play, summary, as_json=as_json)


def summary(report: Report) -> RenderableType:
    """The figures as a table."""
    title = "[green]a stream, heard by all[/]" if report["ok"] else "[red]not as promised[/]"
    grid = Table(title=title, title_justify="left")
    for column in ("viewer", "heard while one was on stage", "of the removed one"):
        grid.add_column(column)
    after: dict[str, Any] | None = report["after_removal_heard"]
    for who, tones in report["heard"].items():
        still = "not measured" if after is None else f"[red]{_told(after[who])}[/]" if who in after else "nothing"
        grid.add_row(who, _told(tones), still)
    stage = " → ".join(", ".join(members) or "nobody" for members in report["stage_history"])
    told = [f"{report['media']} media", f"on stage: {stage or 'not seen'}"]
    told += [f"{who}: {error}" for who, error in report.get("errors", {}).items()]
    grid.caption = escape(", ".join(told))
    return grid


def _told(tones: list[float]) -> str:
    return ", ".join(f"{hz:g} Hz" for hz in tones) or "nothing"
