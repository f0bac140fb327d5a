"""Media servers as child processes, for tests that use the real LiveKit client.

Two kinds: ``embedded``, the package's own, and ``livekit-server``, LiveKit's, looked for in the environment variable
UTD_LIVEKIT_SERVER and then on PATH. Tests take them through the fixtures ``media_servers`` and ``media_server`` of
conftest.py; one that is not installed shows as a skip with its reason.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

from utd_fsm.local.processes import find_livekit_server

Kind = Literal["embedded", "livekit-server"]
KINDS: tuple[Kind, ...] = get_args(Kind)
START_LIMIT = 60.0
MISSING = "livekit-server is not installed: run scripts/install-livekit-server (it needs Go), or put one on PATH"

_CONFIG = """\
port: {port}
bind_addresses: [127.0.0.1]
keys: {{{key}: {secret}}}
logging: {{level: warn}}
rtc:
  tcp_port: 0
  udp_port: {udp}
  use_external_ip: false
  enable_loopback_candidate: true
  node_ip: 127.0.0.1
  ips: {{includes: [127.0.0.1/32]}}
"""


def livekit_server() -> str | None:
    """The path of LiveKit's server, or None."""
    found = find_livekit_server()
    return str(found) if found else None


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port nobody has at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MediaServerProcess:
    """One media server in a child process, with keys of its own, on loopback. `start` again uses the same port."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.key = "testkey"
        self.secret = secrets.token_hex(24)
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.http_url = f"http://127.0.0.1:{self.port}"
        self._folder = Path(tempfile.mkdtemp(prefix="utd-media-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MediaServerProcess:
        """Start it and wait until it answers."""
        command, stdin = self._command()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert self._process.stdin is not None
        self._process.stdin.write(stdin)
        self._process.stdin.close()
        until = time.monotonic() + START_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"the {self.kind} did not start:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def _command(self) -> tuple[list[str], bytes]:
        if self.kind == "embedded":
            module = [sys.executable, "-m", "utd_fsm.local.media_server", "--port", str(self.port), "--config-stdin"]
            return [*module, "--with-parent"], json.dumps({"key": self.key, "secret": self.secret}).encode() + b"\n"
        path = livekit_server()
        assert path is not None, MISSING
        config = self._folder / "livekit.yaml"
        udp = free_port(socket.SOCK_DGRAM)
        config.write_text(_CONFIG.format(port=self.port, key=self.key, secret=self.secret, udp=udp))
        config.chmod(0o600)
        return [path, "--config", str(config)], b""

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.http_url, timeout=1) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it, as a crash would; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Kill it and take its files away."""
        self.stop()
        with suppress(OSError):
            shutil.rmtree(self._folder)


class MediaServers:
    """The servers of one test run, each started when it is first asked for."""

    def __init__(self) -> None:
        self._running: dict[Kind, MediaServerProcess] = {}

    def get(self, kind: Kind) -> MediaServerProcess:
        """The shared one of this kind. Skips the test where it is not installed."""
        if kind not in self._running:
            self.require(kind)
            self._running[kind] = MediaServerProcess(kind).start()
        return self._running[kind]

    @staticmethod
    def require(kind: Kind) -> None:
        """Skip the test, with the reason, where this kind is not installed."""
        import pytest

        if kind == "livekit-server" and livekit_server() is None:
            pytest.skip(MISSING)

    def close(self) -> None:
        """End them all."""
        for server in self._running.values():
            server.close()
        self._running.clear()
