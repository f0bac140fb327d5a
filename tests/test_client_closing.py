"""A client that is closed hears of nothing any more, however the closing went."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine_answers import APP_ID, APP_KEY, page, session
from tests.http_stub import HttpStub, Reply, Seen, http_stub
from utd_fsm import UTDStreamClient
from utd_fsm.errors import UTDClosedError, UTDTimeoutError
from utd_fsm.portal import portal
from utd_fsm.sessions.call import CallSession
from utd_fsm.sessions.marks import verb

PATIENCE = 20.0


class Engine:
    """Signs in when it is let, and has no calls."""

    def __init__(self) -> None:
        self.signing_in = threading.Event()
        self.may_sign_in = threading.Event()
        self.may_sign_in.set()

    def __call__(self, seen: Seen) -> Reply:
        if seen.path == "/api/v1/auth/session":
            self.signing_in.set()
            return Reply(json=session(), gate=self.may_sign_in)
        return Reply(json=page())


@pytest.fixture
def engine() -> Iterator[tuple[Engine, HttpStub]]:
    made = Engine()
    lease = portal().hold()  # another client's: the loop thread outlives the one that is closed
    with http_stub(made) as stub:
        yield made, stub
    lease.release()


def listeners() -> list[str]:
    """The tasks that ask for incoming calls."""

    async def look() -> list[str]:
        run = portal().loop.run  # type: ignore[attr-defined]
        return [task.get_name() for task in run.tasks if task.get_name() == "incoming-calls" and not task.cancelling()]

    return portal().call(look, what="looking at the tasks")


def test_a_close_that_is_interrupted_stops_listening(
    engine: tuple[Engine, HttpStub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()

    @verb(overtakes=True)
    async def dispose(self: CallSession) -> None:
        hanging.set()
        await asyncio.Event().wait()

    client = UTDStreamClient(APP_ID, APP_KEY, base_url=engine[1].url)
    client.authenticate("alice", receive_calls=True)
    client.call_session("audio_call")
    assert listeners()
    monkeypatch.setattr(CallSession, "dispose", dispose)
    with pytest.raises(UTDTimeoutError):
        client.dispose(timeout=0.2)
    assert hanging.is_set()
    assert listeners() == []


def test_signing_in_to_a_client_that_is_closed_meanwhile_is_refused(engine: tuple[Engine, HttpStub]) -> None:
    rules, stub = engine
    rules.may_sign_in.clear()
    client = UTDStreamClient(APP_ID, APP_KEY, base_url=stub.url)
    with ThreadPoolExecutor(1) as pool:
        signing_in = pool.submit(client.authenticate, "alice", receive_calls=True)
        assert rules.signing_in.wait(PATIENCE)
        client.close()
        rules.may_sign_in.set()
        with pytest.raises(UTDClosedError):
            signing_in.result(PATIENCE)
    assert listeners() == []
    assert client.identity is None


def test_threads_that_find_themselves_in_a_forked_child_together_share_one_beginning(
    engine: tuple[Engine, HttpStub],
) -> None:
    client = UTDStreamClient(APP_ID, APP_KEY, base_url=engine[1].url)
    client.authenticate("alice")
    core = client._core
    assert core._lease is not None
    core._lease.release()
    core.pid = -1  # as if all of this had been in the parent
    first = client.call_session("audio_call")
    lease = core._lease
    assert lease is not None
    core.after_fork()  # a second thread, which looked at the pid before the first had changed it
    second = client.call_session("audio_call")
    assert core._lease is lease
    assert {first._core, second._core} == set(core._known())
    client.close()
    assert lease.released
