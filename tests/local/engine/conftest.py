"""Engines for the tests of the engine: one shared process for what needs no setting of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .support import Backend, Site, running


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A shared engine, without a media server; tests keep to identities of their own."""
    with running() as one:
        yield one


@pytest.fixture
def backend() -> Iterator[Backend]:
    """The application's backend."""
    one = Backend()
    yield one
    one.close()
