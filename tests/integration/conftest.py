"""Engines with real media servers, shared by the tests of this folder, and the proof that nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.calling import WAIT, until
from tests.integration.gate_proxy import GateProxy
from utd_fsm.local.processes import MediaProcess, find_livekit_server
from utd_fsm.testing import LocalEngine, local_engine, strict_signals

MISSING = "livekit-server is not installed: run scripts/install-livekit-server, or set UTD_LIVEKIT_SERVER to its path"


class Engines:
    """The engines of one run by media server and settings, each started when it is first asked for."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, tuple[tuple[str, Any], ...]], LocalEngine] = {}

    def get(self, media: str, **settings: Any) -> LocalEngine:
        """A running one. Tests kill engines and media servers; whatever is down comes up again here."""
        key = media, tuple(sorted(settings.items()))
        if key not in self._running:
            engine = local_engine(media=media, **settings)
            engine.__enter__()
            self._running[key] = engine
        engine = self._running[key]
        engine.media.start()
        engine.start()
        return engine

    def close(self) -> None:
        for engine in self._running.values():
            engine.close()
            assert not engine.process.running
            assert not (isinstance(engine.media, MediaProcess) and engine.media.running)


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    made.close()


@pytest.fixture(scope="session", params=["embedded", "livekit-server"])
def media(request: pytest.FixtureRequest) -> str:
    """Each kind of media server in turn; LiveKit's own is skipped, visibly, where it is not installed."""
    if request.param == "livekit-server" and find_livekit_server() is None:
        pytest.skip(MISSING)
    return str(request.param)


@pytest.fixture
def engine(engines: Engines, media: str) -> LocalEngine:
    """An engine on each kind of media server."""
    return engines.get(media)


@pytest.fixture
def local(engines: Engines) -> LocalEngine:
    """An engine on the embedded media server, for what no media server decides."""
    return engines.get("embedded")


@pytest.fixture
def way(engine: LocalEngine) -> Iterator[Callable[[], GateProxy]]:
    """Makes proxies in front of `engine`; they close with the test."""
    yield from _ways(engine)


@pytest.fixture
def local_way(local: LocalEngine) -> Iterator[Callable[[], GateProxy]]:
    """Makes proxies in front of `local`; they close with the test."""
    yield from _ways(local)


def _ways(engine: LocalEngine) -> Iterator[Callable[[], GateProxy]]:
    made: list[GateProxy] = []

    def make() -> GateProxy:
        made.append(GateProxy(engine.base_url))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def _ours() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("utd-fsm") and not thread.name.endswith("-signals")
    ]


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """No receiver raised unheard, and once a test's clients are closed no thread of ours goes on.

    Only the idle signals thread and the readers of what the shared servers write may stay. Whatever still says goodbye
    to the engine holds the loop thread, so its end shows that nothing is under way.
    """
    if "receivers_raise" in request.fixturenames:
        yield
    else:
        with strict_signals(drain=WAIT):
            yield
    until(lambda: not _ours(), f"our threads have ended: {_ours()}")


@pytest.fixture
def receivers_raise() -> None:
    """Asked for by tests whose receivers raise on purpose."""
