"""How a session follows its own call: by the one socket that all share, or by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest

from tests.callee import Engine, bob, call_id, is_at, on_loop, until
from utd_fsm.call_watch import CallWatch, WatchTiming
from utd_fsm.engine_api import Credentials, EngineApi
from utd_fsm.errors import UTDEngineError, UTDStreamException
from utd_fsm.incoming import IncomingCalls
from utd_fsm.models import UTDCall, UTDCallStatus
from utd_fsm.portal import portal


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    lease = portal().hold()
    yield
    lease.release()


def follow(
    other: tuple[Engine, IncomingCalls, EngineApi, Credentials], number: int, *, active: float = 0.1
) -> tuple[CallWatch, list[UTDCall], list[UTDStreamException]]:
    heard: list[UTDCall] = []
    errors: list[UTDStreamException] = []
    timing = WatchTiming(ringing=0.05, active=active, quiet=60.0, backoff=0.2)
    watch = CallWatch(
        portal(), other[2], other[3], call_id(number), heard.append, on_error=errors.append, timing=timing
    )
    return watch, heard, errors


def test_a_session_hears_of_its_own_call_and_of_no_other() -> None:
    async def test() -> None:
        async with bob() as all_of_it:
            other = all_of_it[0]
            other.set(1)
            watch, heard, _ = follow(all_of_it, 1)
            await until(lambda: other.connections)
            await other.tell(2)
            await other.tell(1, "active", version=2)
            await until(lambda: heard and heard[-1].status is UTDCallStatus.ACTIVE)
            assert {call.call_id for call in heard} == {call_id(1)}
            watch.close()
            watch.close()
            await until(lambda: other.connections[0].state.name == "CLOSED")

    on_loop(test)


def test_without_a_socket_it_asks_until_the_call_is_over() -> None:
    async def test() -> None:
        async with bob(socket=False) as all_of_it:
            other = all_of_it[0]
            other.set(1)
            _, heard, _ = follow(all_of_it, 1)
            for version, status in enumerate(("ringing", "active", "ended"), 2):
                other.set(1, status, version=version)
                await until(partial(is_at, heard, status))
            polls = len(other.polls())
            await asyncio.sleep(0.3)
            assert len(other.polls()) <= polls + 1  # one may have been under way

    on_loop(test)


def test_what_ended_while_the_socket_was_away_is_found_when_it_is_back() -> None:
    async def test() -> None:
        async with bob() as all_of_it:
            other = all_of_it[0]
            other.set(1, "active", version=2)
            _, heard, _ = follow(all_of_it, 1, active=60.0)  # a poll would come too late
            await until(lambda: len(other.connections) == 1 and len(heard) >= 2)  # the snapshot, and a first look
            await asyncio.sleep(0.3)
            other.set(1, "ended", version=3)  # and it is in no snapshot any more
            other.connections[0].transport.abort()
            await until(lambda: heard[-1].status is UTDCallStatus.ENDED)

    on_loop(test)


def test_trouble_is_told_and_survived() -> None:
    async def test() -> None:
        async with bob(socket=False) as all_of_it:
            other = all_of_it[0]
            watch, heard, errors = follow(all_of_it, 1)
            await until(lambda: errors)
            assert isinstance(errors[0], UTDEngineError)
            assert errors[0].status_code == 404
            other.set(1)
            await until(lambda: heard)
            watch.close()

    on_loop(test)


def test_all_who_follow_share_one_socket() -> None:
    async def test() -> None:
        async with bob() as all_of_it:
            other, incoming, *_ = all_of_it
            incoming.start()
            watches = [follow(all_of_it, number)[0] for number in range(5)]
            await until(lambda: other.connections)
            await asyncio.sleep(0.1)
            assert len(other.connections) == 1
            for watch in watches:
                watch.close()
            await asyncio.sleep(0.1)
            assert other.connections[0].state.name == "OPEN"  # somebody still listens

    on_loop(test)
