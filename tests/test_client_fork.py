"""A client in a forked child: what a pre-forking web server or task queue does to it, each in processes of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.processes import run_python
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media

HEAD = """
import os, signal, sys, time
from utd_fsm import UTDStreamClient, UTDClosedError, UTDStateError
from utd_fsm.portal import portal
signal.alarm(60)
client = UTDStreamClient({app_id!r}, {app_key!r}, base_url={base_url!r})
client.authenticate({identity!r})
def say(*words): print(*words, flush=True)
def fork(work):
    pid = os.fork()
    if pid: return pid
    signal.alarm(60)
    try: work()
    except BaseException as error: say(repr(error))
    sys.exit(0)
def call():
    with client.call_session("audio_call") as session:
        session.start({callee!r})
        say(session.wait_for_answer(30).value)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with local_engine(media="embedded") as running:
        yield running


def run(engine: LocalEngine, code: str, *, identity: str, callee: str) -> list[str]:
    head = HEAD.format(
        app_id=engine.app_id, app_key=engine.app_key, base_url=engine.base_url, identity=identity, callee=callee
    )
    return run_python(head + code, timeout=90)[0].splitlines()


def test_a_client_that_signed_in_before_the_fork_calls_on_both_sides(engine: LocalEngine) -> None:
    with engine.peer("bob"):
        code = """
for n in range(2):
    os.waitpid(fork(call), 0)
call()
client.close()
"""
        assert run(engine, code, identity="alice", callee="bob") == ["active"] * 3


def test_a_child_holds_a_loop_thread_of_its_own_from_its_first_session_on(engine: LocalEngine) -> None:
    code = """
def work():
    session = client.call_session("audio_call")
    first = portal()._run
    session.is_alive, portal().call(lambda: first.loop.run_in_executor(None, int), what="x")
    time.sleep(1.5)                              # a loop that nobody holds ends after a second
    say(portal()._run is first, len(first.leases))
os.waitpid(fork(work), 0)
client.close()
"""
    assert run(engine, code, identity="carol", callee="bob") == ["True 1"]


def test_a_call_that_cannot_begin_in_the_child_is_ended_before_the_child_is(engine: LocalEngine) -> None:
    """Where the parent used LiveKit the child cannot, and says so; the callee does not go on ringing."""
    with engine.peer("dave"):
        code = """
call()
from utd_fsm.sessions.engine_calls import EngineCalls
import asyncio
prompt = EngineCalls.end
async def slow(*args, **kwargs):
    await asyncio.sleep(0.5)                     # the engine takes its time with the end
    return await prompt(*args, **kwargs)
EngineCalls.end = slow
def work():
    try:
        with client.call_session("audio_call") as session:
            session.start({callee!r})
    except UTDClosedError as error:
        say("forked" in str(error), client.get_call(error.call_id).status.value)
os.waitpid(fork(work), 0)
client.close()
""".replace("{callee!r}", "'dave'")
        assert run(engine, code, identity="erin", callee="dave") == ["active", "True ended"]
