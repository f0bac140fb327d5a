"""Real servers for the Django project of the tests: started, asked over HTTP, and ended by their ids."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from utd_fsm.testing import LocalEngine

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 40.0
"""Seconds; costs nothing where things work."""


def unused_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(engine: LocalEngine, database: Path, **more: str) -> dict[str, str]:
    """What the project's settings read."""
    return {
        **os.environ,
        "HOME": str(database.parent),  # where newer gunicorns put a socket
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "tests.django_site.settings",
        "SITE_DATABASE": str(database),
        "SITE_ENGINE": engine.base_url,
        "SITE_APP_ID": engine.app_id,
        "SITE_APP_KEY": engine.app_key,
        "SITE_WEBHOOK_SECRET": engine.webhook_secret or "none",
        **more,
    }


class Server:
    """A process that was started, and its output."""

    def __init__(self, command: list[str], env: dict[str, str], port: int = 0) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        """What it has written so far."""
        return "".join(self.lines)

    def until(self, text: str) -> None:
        """Wait until it has written this."""
        wait_for(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def until_it_answers(self) -> None:
        """Wait until it serves."""

        def answers() -> bool:
            assert self.process.poll() is None, self.output
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{self.url}/process/", timeout=PATIENCE).ok
            return False

        wait_for(answers)

    def post(self, path: str, body: dict[str, Any], timeout: float = PATIENCE) -> requests.Response:
        """One request, on a connection of its own."""
        return requests.post(self.url + path, json=body, timeout=timeout, headers={"Connection": "close"})

    def get(self, path: str, **query: str) -> Any:
        """What it answers, read."""
        answer = requests.get(self.url + path, params=query, timeout=PATIENCE, headers={"Connection": "close"})
        answer.raise_for_status()
        return answer.json()

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status. It is killed, and fails the test, when that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end\n{self.output}") from None
        self._close()
        return self.process.returncode

    def kill(self) -> None:
        """End it whatever it does, with the workers it has."""
        for pid in [*children(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._close()

    def _close(self) -> None:
        self._reader.join(5)  # it ends when the last worker does
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()


def children(pid: int) -> list[int]:
    """The processes that it started and that live."""
    with contextlib.suppress(FileNotFoundError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def wait_for(condition: Any) -> None:
    """Until it is true."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str], port: int = 0) -> Iterator[Server]:
    """A server for the length of a ``with``; it is ended with SIGTERM, in good order."""
    server = Server(command, env, port)
    try:
        yield server
        status = server.stop()
        assert status == 0, server.output
    except BaseException:
        print(server.output)
        raise
    finally:
        if server.process.poll() is None:
            server.kill()


@contextlib.contextmanager
def gunicorn(
    *options: str, engine: LocalEngine, database: Path, timeout: int = 60, workers: int = 2, **env: str
) -> Iterator[Server]:
    """A real gunicorn that serves the project."""
    port = unused_port()
    command = ["-m", "gunicorn", "tests.django_site.wsgi:application", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", str(workers), "--timeout", str(timeout), "--graceful-timeout", "30", *options]
    with running(command, environment(engine, database, **env), port) as server:
        server.until_it_answers()
        yield server
