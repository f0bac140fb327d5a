"""The engine and the media server as child processes: start, stop, kill, and again on the same ports, keys and data.

Each is a sibling of the other, so that one can be killed while the other goes on, and each dies with this process.
Secrets travel in the environment, never in arguments. What a child wrote is kept, scrubbed, for the error that says
why it did not start. No server's code is imported here. Every method may be called from any thread.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Final

from utd_fsm.errors import UTDConnectionError, UTDInputError, UTDStateError
from utd_fsm.scrub import scrub

from .engine.settings import EngineSettings
from .leash import PARENT_PID
from .ports import free_port

READY_WITHIN: Final = 60.0
"""Seconds a child has until it must be ready; a crowded machine needs some of them."""
STOP_WITHIN: Final = 4.0
"""Seconds a child has to stop by itself before it is killed."""
LIVEKIT_VERSION: Final = "1.13.5"
_KEPT_LINES: Final = 200
_TRIES: Final = 5


class ChildProcess(ABC):
    """One server in a child process."""

    what: str = "child"
    """Its name in messages."""

    def __init__(self, *secret: str) -> None:
        self._secrets = secret
        self._lock = threading.RLock()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._said_ready = threading.Event()
        self._inner_pid: int | None = None
        self._has_run = False

    # --- what each server does its own way

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _environment(self) -> dict[str, str]: ...

    def _is_ready(self) -> bool:
        return self._said_ready.is_set()

    # --- public

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's own process id, while it runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        return self._inner_pid or process.pid

    @property
    def output(self) -> str:
        """The last lines it wrote, without tokens and keys."""
        return scrub("\n".join(self._lines), *self._secrets)

    def start(self) -> None:
        """Start it, and wait until it is ready. Nothing, if it runs.

        Raises: UTDConnectionError: it did not become ready; the message ends with what it wrote last.
        """
        with self._lock:
            if self.running:
                return
            for left in reversed(range(_TRIES)):
                self._spawn()
                if self._wait_until_ready():
                    self._has_run = True
                    return
                self.stop(hard=True)
                taken = "cannot listen" in self.output or "address already in use" in self.output
                if not (taken and left and self._has_run):  # its own port comes free again, somebody else's doesn't
                    break
                time.sleep(0.3)
            tail = "\n".join(self.output.splitlines()[-8:])
            raise UTDConnectionError(f"the {self.what} did not become ready on this machine; it wrote:\n{tail}")

    def stop(self, *, hard: bool = False) -> None:
        """Stop it; idempotent.

        Args:
            hard: kill -9, as a crash would. Otherwise it is asked, twice, and killed after `STOP_WITHIN` seconds.
        """
        with self._lock:
            process = self._process
            if process is None:
                return
            deadline = time.monotonic() + STOP_WITHIN
            if hard:
                self._signal(signal.SIGKILL)
            else:
                self._signal(signal.SIGTERM)
                if not _ended(process, STOP_WITHIN / 4):
                    # livekit-server waits for its participants at the first and goes at the second (fact 39)
                    self._signal(signal.SIGTERM)
            if not _ended(process, max(0.5, deadline - time.monotonic())):
                self._signal(signal.SIGKILL)
                process.kill()
                process.wait()
            if self._reader is not None:
                self._reader.join(timeout=5)
            if process.stdout is not None:
                process.stdout.close()
            self._process = self._reader = None

    def restart(self, *, hard: bool = False) -> None:
        """Stop it and start it again: same ports, keys and data.

        Raises: UTDConnectionError: it did not come back.
        """
        with self._lock:
            self.stop(hard=hard)
            self.start()

    # --- machinery

    def _spawn(self) -> None:
        self._lines.clear()
        self._said_ready = threading.Event()
        self._inner_pid = None
        self._process = process = subprocess.Popen(
            self._command(),
            env={**_environment(), **self._environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop our children
        )
        self._reader = threading.Thread(
            target=self._read, args=(process, self._said_ready), name=f"output of the {self.what}", daemon=True
        )
        self._reader.start()

    def _read(self, process: subprocess.Popen[str], said_ready: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            if text.startswith("pid ") and self._inner_pid is None and text[4:].isdigit():
                self._inner_pid = int(text[4:])
                continue
            self._lines.append(text)
            if text.startswith("ready "):
                said_ready.set()

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self.running:
            if self._is_ready():
                return True
            self._said_ready.wait(0.02)
        return False

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def _environment() -> dict[str, str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", PARENT_PID: str(os.getpid())}
    home = Path(__file__).resolve().parents[2]
    if home.name not in ("site-packages", "dist-packages"):  # a checkout: the child is to find it from anywhere
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))
    return environment


def _ended(process: subprocess.Popen[str], within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


class EngineProcess(ChildProcess):
    """A local engine.

    Args:
        settings: port 0 takes a free one, and keeps it.
    """

    what = "engine"

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings if settings.port else replace(settings, port=free_port(settings.host))
        super().__init__(
            settings.app_key, settings.app_secret or "", settings.livekit_secret, settings.webhook_secret or ""
        )

    @property
    def base_url(self) -> str:
        """The root that clients are given."""
        return f"http://{self.settings.host}:{self.settings.port}"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "utd_fsm.local.engine", "--with-parent"]

    def _environment(self) -> dict[str, str]:
        return self.settings.to_env()


class MediaProcess(ChildProcess):
    """A media server on loopback, with keys of its own.

    Args:
        kind: ``embedded`` (this project's, from pip alone) or ``livekit-server`` (a real one).
        webhook_url: where it tells what happens.
        key: API key; None makes one.
        secret: its secret, at least 32 characters; None makes one.
        binary: the livekit-server to run; None looks for one, see `find_livekit_server`.

    Raises:
        UTDInputError: an unknown kind, or no livekit-server on this machine.
    """

    def __init__(
        self,
        kind: str,
        *,
        webhook_url: str | None = None,
        key: str | None = None,
        secret: str | None = None,
        binary: str | Path | None = None,
    ) -> None:
        if kind not in ("embedded", "livekit-server"):
            raise UTDInputError(f"media must be 'embedded', 'livekit-server' or a ws:// URL, got {kind!r}")
        self.kind = kind
        self.what = "embedded media server" if kind == "embedded" else "livekit-server"
        self.key = key or "key" + secrets.token_hex(6)
        self.secret = secret or secrets.token_hex(24)
        self._webhook_url = webhook_url
        self._binary = find_livekit_server(binary) if kind == "livekit-server" else None
        if kind == "livekit-server" and self._binary is None:
            raise UTDInputError(
                "no livekit-server found: give its path, set UTD_LIVEKIT_SERVER, put livekit-server on PATH, or run "
                "scripts/install-livekit-server (it needs Go); media='embedded' needs none"
            )
        self._port = free_port()
        self._udp_port = free_port()
        super().__init__(self.secret)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"ws://127.0.0.1:{self._port}"

    def _command(self) -> list[str]:
        if self._binary is not None:
            # the leash: a foreign program does not watch its parent by itself
            return [sys.executable, "-m", "utd_fsm.local.leash", "--", str(self._binary)]
        command = [sys.executable, "-m", "utd_fsm.local.media_server", "--port", str(self._port), "--with-parent"]
        return command if self._webhook_url is None else [*command, "--webhook-url", self._webhook_url]

    def _environment(self) -> dict[str, str]:
        if self._binary is None:
            return {"UTD_MEDIA_KEY": self.key, "UTD_MEDIA_SECRET": self.secret}
        return {"LIVEKIT_CONFIG": json.dumps(self._config())}

    def _config(self) -> dict[str, object]:
        """Loopback alone, facts 19 and 39. JSON is YAML."""
        config: dict[str, object] = {
            "port": self._port,
            "bind_addresses": ["127.0.0.1"],
            "keys": {self.key: self.secret},
            "rtc": {
                "tcp_port": 0,
                "udp_port": self._udp_port,
                "use_external_ip": False,
                "enable_loopback_candidate": True,
                "node_ip": "127.0.0.1",
                "ips": {"includes": ["127.0.0.1/32"]},
            },
            "logging": {"level": "warn"},
        }
        if self._webhook_url is not None:
            config["webhook"] = {"api_key": self.key, "urls": [self._webhook_url]}
        return config

    def _is_ready(self) -> bool:
        if self._binary is None:
            return super()._is_ready()
        probe = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
        try:
            probe.request("GET", "/")
            return probe.getresponse().status == 200
        except (http.client.HTTPException, OSError):
            return False
        finally:
            probe.close()


class ExternalMedia:
    """A media server that somebody else runs: known by its URL and keys, neither started nor stopped."""

    kind = "external"
    running = True

    def __init__(self, url: str, key: str | None, secret: str | None) -> None:
        if not (key and secret):
            raise UTDInputError("a media server's URL needs livekit_key and livekit_secret beside it")
        self.url = url
        self.key = key
        self.secret = secret

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self, *, hard: bool = False) -> None:
        """Raises: UTDStateError: it isn't ours."""
        raise UTDStateError("this media server was given by its URL: whoever started it stops it", event="stop")

    restart = stop


def find_livekit_server(binary: str | Path | None = None) -> Path | None:
    """The livekit-server to run: the one given, ``UTD_LIVEKIT_SERVER``, one on PATH, or the installed one.

    Raises: UTDInputError: the one that was given, or named in the environment, isn't there.
    """
    named = binary or os.environ.get("UTD_LIVEKIT_SERVER")
    if named:
        path = Path(named).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise UTDInputError(f"no livekit-server at {path}: it must be an executable file")
        return path
    on_path = shutil.which("livekit-server")
    if on_path:
        return Path(on_path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installed = cache / "utd-fsm" / f"livekit-server-{LIVEKIT_VERSION}" / "livekit-server"
    return installed if os.access(installed, os.X_OK) else None
