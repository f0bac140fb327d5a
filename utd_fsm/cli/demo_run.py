"""What the demonstrations share: progress, participants in threads of their own, one way to report.

Written as a user would write it: the blocking client, one thread for each participant, public names only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.markup import escape

from utd_fsm import UTDStreamClient, UTDStreamException, UTDTimeoutError
from utd_fsm.testing import LocalEngine, local_engine

WITHIN: Final = 30.0
"""Seconds that one participant waits for what another does."""
INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it."""
_GOODBYE: Final = 8.0
"""Seconds that everybody has to leave when a demonstration is given up."""

Report = dict[str, Any]


class Show:
    """Progress while it runs: on stdout, or on stderr where stdout belongs to JSON. Any thread."""

    def __init__(self, *, as_json: bool) -> None:
        self.console = Console(stderr=as_json, highlight=False)
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, who: str, text: str) -> None:
        """Say what somebody does; the text is rich markup."""
        with self._lock:
            took = f"[dim]{time.monotonic() - self._began:6.2f} s[/]"
            self.console.print(f"{took}  [bold]{escape(who):11}[/]{text}", soft_wrap=True)


def keys_for(media: str) -> dict[str, Any]:
    """The keys of a media server that runs already, from LiveKit's own environment variables."""
    if "://" not in media:
        return {}
    return {
        "livekit_key": os.environ.get("LIVEKIT_API_KEY"),
        "livekit_secret": os.environ.get("LIVEKIT_API_SECRET"),
    }


class Crew:
    """Participants who act at the same time, each in a thread with a client of its own.

    The first failure, or Ctrl-C, ends it for all: whatever they wait for then raises. Only that first failure is kept,
    since what it causes at the others tells nothing.

    Args:
        engine: where they meet.
        show: progress.
        limit: seconds after which all of it is given up.
    """

    def __init__(self, engine: LocalEngine, show: Show, *, limit: float) -> None:
        self.engine = engine
        self.show = show
        self.errors: dict[str, str] = {}
        self._limit = limit
        self._lock = threading.Lock()
        self._given_up = threading.Event()
        self._clients: list[UTDStreamClient] = []

    @contextmanager
    def client(self) -> Iterator[UTDStreamClient]:
        """A client of one participant; closed after the body, or earlier when all is given up."""
        engine = self.engine
        with UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as client:
            with self._lock:
                self._clients.append(client)
            self.check()
            yield client

    def check(self) -> None:
        """Raise where all was given up."""
        if self._given_up.is_set():
            raise UTDStreamException("given up, as somebody else failed or it was interrupted")

    def pause(self, seconds: float) -> None:
        """Let time pass, unless all is given up."""
        self._given_up.wait(seconds)
        self.check()

    def wait(self, event: threading.Event, what: str, timeout: float = WITHIN) -> None:
        """Wait for what another thread does.

        Raises:
            UTDTimeoutError: it did not come in time.
            UTDStreamException: all was given up.
        """
        limit = time.monotonic() + timeout
        while not event.wait(0.1):
            self.check()
            if time.monotonic() >= limit:
                raise UTDTimeoutError(f"not within {timeout:g} s: {what}")

    def run(self, parts: Mapping[str, Callable[[], None]]) -> None:
        """Let everybody act, each in a thread, until all are done. What failed is in `errors` afterwards."""
        threads = [
            threading.Thread(target=self._act, args=part, name=f"demo-{part[0]}", daemon=True) for part in parts.items()
        ]
        limit = time.monotonic() + self._limit
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) and not self._given_up.is_set():
                if time.monotonic() >= limit:
                    self._fail("demo", UTDTimeoutError(f"not over after {self._limit:g} s"))
                next((thread for thread in threads if thread.is_alive()), threads[0]).join(0.2)
        finally:
            if self._given_up.is_set() or any(thread.is_alive() for thread in threads):
                self._give_up(threads)

    def _act(self, who: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - reported, and the exit status says so
            self._fail(who, error)

    def _fail(self, who: str, error: Exception) -> None:
        with self._lock:
            if self._given_up.is_set():
                return
            self.errors[who] = f"{type(error).__name__}: {error}"
            self._given_up.set()
        self.show(who, f"[red]failed:[/] {escape(self.errors[who])}")

    def _give_up(self, threads: list[threading.Thread]) -> None:
        """Close every client, so that whatever waits on one raises, and see everybody out."""
        self._given_up.set()
        with self._lock:
            clients = list(self._clients)
        closing = [
            threading.Thread(target=_close, args=(client,), name="demo-close", daemon=True) for client in clients
        ]
        for thread in closing:
            thread.start()
        limit = time.monotonic() + _GOODBYE
        for thread in (*closing, *threads):
            thread.join(max(0.0, limit - time.monotonic()))


def _close(client: UTDStreamClient) -> None:
    """Its participant may be closing it, too, and the engine may be gone: all that counts is that its waits end."""
    with suppress(UTDStreamException):
        client.close()


def run_demo(
    media: str, play: Callable[[LocalEngine, Show], Report], table: Callable[[Report], RenderableType], *, as_json: bool
) -> int:
    """Start an engine, let the demonstration play, and report what was observed.

    Args:
        media: ``embedded``, ``livekit-server`` or a URL.
        play: returns the report; its ``ok`` decides the exit status.
        table: what people are shown of it at the end.
        as_json: print the report as the only thing on stdout.

    Returns:
        The exit status: 0 where all was as promised, `INTERRUPTED` after Ctrl-C, otherwise 1.
    """
    show = Show(as_json=as_json)
    status = 1
    played = False
    try:
        show("engine", f"starting, with {escape(media)} media")
        with local_engine(media=media, **keys_for(media)) as engine:
            show("engine", f"listens on {engine.base_url}, media on {engine.livekit_url}")
            report = play(engine, show)
        played = True
        status = 0 if report["ok"] else 1
    except KeyboardInterrupt:
        status, report = INTERRUPTED, {"ok": False, "media": media, "error": "interrupted"}
    except Exception as error:  # noqa: BLE001 - a script that reads the report is told, whatever it was
        known = isinstance(error, UTDStreamException | OSError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        show("engine", f"[red]failed:[/] {escape(why)}")
        report = {"ok": False, "media": media, "error": why}
    if as_json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    elif played:
        show.console.print(table(report))
    return status
