"""Fixtures that several test folders share."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.media_servers import KINDS, MediaServerProcess, MediaServers

# A run that was started in the background ignores Ctrl-C, and so would every process that its tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# LiveKit's native threads end a little after their rooms: one that is inside a callback when the interpreter goes away
# aborts it.
atexit.register(time.sleep, 1.0)

# No deadlines: speed is not what these tests are about, and the machine may be busy. In CI the same examples each time,
# so that a change is judged by what it changed; everywhere else new ones, which is how mistakes are found.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def media_servers() -> Iterator[MediaServers]:
    """Media servers by kind, started when first asked for and shared by the whole run: use rooms of your own."""
    servers = MediaServers()
    yield servers
    servers.close()


@pytest.fixture(scope="session", params=KINDS)
def media_server(request: pytest.FixtureRequest, media_servers: MediaServers) -> MediaServerProcess:
    """Each kind of media server in turn; LiveKit's own is skipped, visibly, where it is not installed."""
    return media_servers.get(request.param)
