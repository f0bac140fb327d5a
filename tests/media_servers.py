"""Media servers as child processes, for tests that use the real LiveKit client.

Two kinds: ``embedded``, the package's own, and ``livekit-server``, LiveKit's, wherever `find_livekit_server` finds it.
Tests take them through the fixtures ``media_servers`` and ``media_server`` of conftest.py; one that is not installed
shows as a skip with its reason.
"""

from __future__ import annotations

from typing import Literal, get_args

from utd_fsm.local.processes import MediaProcess, find_livekit_server

Kind = Literal["embedded", "livekit-server"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MISSING = "livekit-server is not installed: run scripts/install-livekit-server (it needs Go), or put one on PATH"


class MediaServerProcess:
    """One media server with keys of its own, which dies as in a crash. `start` again uses the same port."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._process = MediaProcess(kind)
        self.key = self._process.key
        self.secret = self._process.secret
        self.url = self._process.url
        self.http_url = self.url.replace("ws://", "http://", 1)

    def start(self) -> MediaServerProcess:
        """Start it and wait until it answers."""
        self._process.start()
        return self

    def stop(self) -> None:
        """Kill it, as a crash would; idempotent."""
        self._process.stop(hard=True)

    def close(self) -> None:
        """`stop`, under the name of what is not needed any more."""
        self.stop()


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

        if kind == "livekit-server" and find_livekit_server() is None:
            pytest.skip(MISSING)

    def close(self) -> None:
        """End them all."""
        for server in self._running.values():
            server.close()
        self._running.clear()
