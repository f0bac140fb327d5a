"""Programs that the tests run in processes of their own: what is killed, interrupted, forked, or simply ends.

Each begins with an engine's address in its environment and prints one line for what the test waits for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from tests.integration.calling import WAIT
from utd_fsm.testing import LocalEngine

ROOT = Path(__file__).resolve().parents[2]

BEGIN = """
import os, signal, sys, threading, time
from utd_fsm import *
from utd_fsm.media import Tone
def client():
    return UTDStreamClient(os.environ["APP_ID"], os.environ["APP_KEY"], base_url=os.environ["ENGINE"])
def say(*what):
    print(*what, flush=True)
"""

CALLER = """
c = client(); c.authenticate(sys.argv[1])
call = c.call_session("audio_call", microphone=Tone(440))
say(call.start(sys.argv[2]).call_id)
assert call.wait_for_answer(60) == "active"
say("active")
"""

CALLEE = """
c = client(); c.authenticate(sys.argv[1], receive_calls=True)
say("waits")
incoming = c.wait_for_call(60)
call = c.call_session("audio_call", microphone=Tone(660))
call.accept(incoming)
say("active")
"""

STAY = """
call.wait_until_ended(60)
"""


class Program:
    """One program. A context manager; leaving it kills what still runs.

    Args:
        code: appended to `BEGIN`.
        arguments: ``sys.argv[1:]``.
    """

    def __init__(self, engine: LocalEngine, code: str, *arguments: str, base_url: str | None = None) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ENGINE": base_url or engine.base_url,
            "APP_ID": engine.app_id,
            "APP_KEY": engine.app_key,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", BEGIN + code, *arguments],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that what it forks can be ended with it
        )

    def line(self) -> str:
        """The next line it prints; what it wrote to stderr, as a failure, if it ends instead."""
        watchdog = threading.Timer(WAIT, self._kill)
        watchdog.start()
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, f"it ended: {self.process.communicate(timeout=WAIT)}"
        return line.strip()

    def expect(self, line: str) -> None:
        """The next line is this one."""
        got = self.line()
        assert got == line, got

    def finish(self) -> tuple[int, str, str]:
        """Its exit status, and what it wrote that nobody has read; within a minute."""
        out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._kill()
        self.process.communicate(timeout=WAIT)

    def _kill(self) -> None:
        """It and whatever it forked: a child that lives on holds its pipes, and whoever reads them waits for ever."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
