"""Microphones that end with their test, and the tasks behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.media.helpers import (
    Tasks,
    forget_earlier_threads,
    pulling_threads,
    until,
)
from utd_fsm.media.outgoing import Microphone


@pytest.fixture(autouse=True)
def threads_of_this_test() -> None:
    """Other files' threads are none of this test's business."""
    forget_earlier_threads()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    assert made.errors == []


@pytest.fixture
async def make(tasks: Tasks) -> AsyncIterator[Callable[..., Microphone]]:
    made: list[Microphone] = []

    def microphone(source: Any = None) -> Microphone:
        made.append(Microphone(tasks, source))
        return made[-1]

    yield microphone
    for each in made:
        if each._publication is not None:
            each._publication.close()  # type: ignore[attr-defined]
        await each.aclose()
    await until(lambda: not pulling_threads(), "the end of the threads")
    await until(lambda: not tasks.tasks, "the end of the pumps")
