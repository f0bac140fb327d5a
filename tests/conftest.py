"""Fixtures that several test folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.media_servers import KINDS, MediaServerProcess, MediaServers


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
