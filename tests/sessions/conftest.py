"""Short times and a memory server for the tests of sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from utd_fsm.sessions.timing import Timing

if TYPE_CHECKING:
    from .call_world import World
    from .room_world import RoomWorld

SHORT = Timing(
    attempt=0.2,
    pause=0.01,
    longest_pause=0.05,
    grace=5.0,
    tier=0.15,
    echo=0.05,
    look=5.0,
    grant=0.2,
    first_reading=0.0,
    farewell=1.0,
    departure=0.02,
    settle=0.1,
)


@pytest.fixture
def timing() -> Timing:
    return SHORT


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A call world of one's own, closed at the end."""
    from .call_world import World

    made = World()
    yield made
    await made.close()


@pytest.fixture
async def rooms() -> AsyncIterator[RoomWorld]:
    """A world of live streams and audio rooms of one's own, closed at the end."""
    from .room_world import RoomWorld

    made = RoomWorld()
    yield made
    await made.close()
