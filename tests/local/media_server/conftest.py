from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.local.media_server.studio import Studio, studio


@pytest.fixture
async def house() -> AsyncIterator[Studio]:
    """A media server in the test's loop."""
    async with studio() as made:
        yield made


@pytest.fixture(params=[True, False], ids=["one-connection", "two-connections"])
def single(request: pytest.FixtureRequest) -> bool:
    """Both versions of the signalling: `/rtc/v1` with one peer connection, `/rtc` with two."""
    return bool(request.param)
