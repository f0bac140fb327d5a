"""Short times and a memory server for the tests of sessions."""

from __future__ import annotations

import pytest

from utd_fsm.sessions.timing import Timing

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
