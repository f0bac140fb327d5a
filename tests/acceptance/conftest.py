"""One engine with the embedded media server for this folder, and proxies in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.gate_proxy import GateProxy
from utd_fsm.testing import LocalEngine, local_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[LocalEngine]:
    with local_engine(media="embedded") as running:
        yield running


@pytest.fixture
def way(engine: LocalEngine) -> Iterator[Callable[[], GateProxy]]:
    """Makes proxies in front of the engine; they close with the test."""
    made: list[GateProxy] = []

    def make() -> GateProxy:
        made.append(GateProxy(engine.base_url))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
