"""Who gets an incoming call: one waiter each, first come first served, by socket or by polling, nothing swallowed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.callee import WAIT, a_call, bob, call_id, more_than, on_loop, until
from tests.http_stub import Reply
from utd_fsm import signals
from utd_fsm.call_feed import feed_of
from utd_fsm.errors import UTDClosedError, UTDTimeoutError
from utd_fsm.incoming import IncomingTiming
from utd_fsm.models import UTDCall
from utd_fsm.portal import portal


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    lease = portal().hold()
    yield
    lease.release()


both_ways = pytest.mark.parametrize("socket", [True, False], ids=["socket", "polling"])


@both_ways
def test_a_call_that_rings_is_handed_over(socket: bool) -> None:
    async def test() -> None:
        async with bob(socket=socket) as (other, incoming, _, _):
            waiting = asyncio.create_task(incoming.next(WAIT))
            await until(lambda: incoming.listening)
            await other.tell(1)
            call = await waiting
            assert call is not None
            assert (call.call_id, call.caller_identity) == (call_id(1), "alice")

    on_loop(test)


@both_ways
def test_what_already_rings_is_handed_over_too(socket: bool) -> None:
    async def test() -> None:
        async with bob(socket=socket) as (other, incoming, _, _):
            other.set(1, "ringing")
            other.set(2, "active")
            other.set(3, "ended")
            other.set(4, caller_identity="bob", callee_identity="alice")
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(1)
            with pytest.raises(UTDTimeoutError):
                await incoming.next(0.2)

    on_loop(test)


def test_nothing_listens_until_somebody_asks() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, _, _):
            await asyncio.sleep(0.2)
            assert not incoming.listening
            assert other.connections == []
            assert other.polls() == []
            incoming.start()
            incoming.start()
            await until(lambda: other.connections)
            assert incoming.listening

    on_loop(test)


@both_ways
def test_each_call_goes_to_exactly_one_waiter_first_come_first_served(socket: bool) -> None:
    async def test() -> None:
        async with bob(socket=socket) as (other, incoming, _, _):
            got: list[tuple[int, str]] = []

            async def wait(number: int) -> None:
                call = await incoming.next(WAIT)
                assert call is not None
                got.append((number, call.call_id))

            waiters = []
            for number in range(4):
                waiters.append(asyncio.create_task(wait(number)))
                await asyncio.sleep(0)
            for number in range(4):
                await other.tell(number, initiated_at=1_000_000 + number)
                if socket:
                    await other.tell(number, "ringing", version=2)  # the same call once more
                await until(partial(more_than, got, number))
            await asyncio.gather(*waiters)
            assert got == [(number, call_id(number)) for number in range(4)]

    on_loop(test)


def test_snapshot_poll_and_frame_are_one_call() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, api, cred):
            heard: list[UTDCall] = []

            def receiver(sender: object, *, call: UTDCall, **extra: Any) -> None:
                assert sender is incoming
                heard.append(call)

            with signals.incoming_call.connected_to(receiver):
                other.set(1)
                assert await incoming.next(WAIT)
                await other.tell(1, "ringing", version=2)
                await other.tell(1, "initiating", version=1)
                feed = feed_of(portal(), cred)
                feed.publish((await portal().in_thread(lambda: api.calls(cred))).calls[0])
                other.connections[-1].transport.abort()
                await until(lambda: len(other.connections) == 2)
                await other.tell(2)
                call = await incoming.next(WAIT)
                assert call is not None
                assert call.call_id == call_id(2)
                await until(lambda: len(heard) == 2)
                await asyncio.sleep(0.1)
            assert [call.call_id for call in heard] == [call_id(1), call_id(2)]

    on_loop(test)


def test_the_sender_of_the_signal_is_the_client() -> None:
    async def test() -> None:
        client = object()
        heard: list[object] = []

        def receiver(sender: object, **payload: Any) -> None:
            heard.append(sender)

        async with bob(sender=client) as (other, incoming, _, _):
            with signals.incoming_call.connected_to(receiver, sender=client):
                incoming.start()
                other.set(1)
                await until(lambda: heard)
        assert heard == [client]

    on_loop(test)


def test_one_that_no_longer_rings_is_skipped() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, _, _):
            incoming.start()
            await until(lambda: other.connections)
            for number in (1, 2, 3):
                await other.tell(number)
            await other.tell(1, "missed", version=2)
            await other.tell(2, "active", version=2)
            await until(lambda: len(incoming._queue) == 1)
            # Old news of one that is over, and was never heard of before.
            await other.tell(4, "ended", version=3)
            await other.tell(4, "ringing", version=2)
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(3)
            with pytest.raises(UTDTimeoutError):
                await incoming.next(0.2)

    on_loop(test)


def test_one_that_waited_long_is_looked_at_before_it_is_handed_over() -> None:
    async def test() -> None:
        async with bob(timing=IncomingTiming(poll=0.02, socket_first=5.0, fresh=0.0)) as (other, incoming, _, _):
            incoming.start()
            await until(lambda: other.connections)
            for number in (1, 2, 3):
                await other.tell(number)
            await until(lambda: len(incoming._queue) == 3)
            other.set(1, "ended", version=2)  # and the frame that told of it was lost
            del other.calls[call_id(2)]
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(3)
            assert f"/api/v1/calls/{call_id(1)}" in other.polls()

    on_loop(test)


def test_who_cannot_be_asked_about_is_handed_over_all_the_same() -> None:
    async def test() -> None:
        async with bob(timing=IncomingTiming(poll=0.02, socket_first=5.0, fresh=0.0)) as (other, incoming, _, _):
            incoming.start()
            await until(lambda: other.connections)
            await other.tell(1)
            await until(lambda: incoming._queue)
            other.fail = Reply(500)
            assert await incoming.next(WAIT)

    on_loop(test)


def test_a_wait_that_times_out_changes_nothing() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, _, _):
            with pytest.raises(UTDTimeoutError, match=r"no call came within 0\.05 s"):
                await incoming.next(0.05)
            with pytest.raises(UTDTimeoutError):
                await incoming.next(0)
            assert not incoming._waiters
            await until(lambda: other.connections)
            await other.tell(1)
            assert await incoming.next(WAIT)

    on_loop(test)


def test_a_waiter_that_goes_away_swallows_no_call() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, _, _):
            first = asyncio.create_task(incoming.next(WAIT))
            second = asyncio.create_task(incoming.next(WAIT))
            await until(lambda: len(incoming._waiters) == 2)
            await until(lambda: other.connections)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await other.tell(1)
            call = await second
            assert call is not None
            assert call.call_id == call_id(1)

            # The call is assigned, and the waiter is cancelled before it ever runs again.
            third = asyncio.create_task(incoming.next(WAIT))
            await until(lambda: incoming._waiters)
            incoming._feed.publish(a_call(2))
            third.cancel()
            await asyncio.gather(third, return_exceptions=True)
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(2)

            # Its caller was interrupted when it already had it.
            incoming.give_back(call)
            again = await incoming.next(WAIT)
            assert again is not None
            assert again.call_id == call_id(2)

    on_loop(test)


def test_a_waiter_that_goes_away_while_its_call_is_looked_at() -> None:
    async def test() -> None:
        async with bob(timing=IncomingTiming(poll=0.02, socket_first=5.0, fresh=0.0)) as (other, incoming, _, _):
            incoming.start()
            await until(lambda: other.connections)
            await other.tell(1)
            await until(lambda: incoming._queue)
            other.gate = threading.Event()
            waiter = asyncio.create_task(incoming.next(WAIT))
            await until(lambda: f"/api/v1/calls/{call_id(1)}" in other.polls())
            waiter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiter
            other.gate.set()
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(1)

    on_loop(test)


def test_a_closed_client_gives_none() -> None:
    async def test() -> None:
        async with bob() as (_, incoming, _, _):
            waiters = [asyncio.create_task(incoming.next(WAIT)) for _ in range(3)]
            await until(lambda: len(incoming._waiters) == 3)
            incoming.close()
            incoming.close()
            assert await asyncio.gather(*waiters) == [None] * 3
            assert await incoming.next(WAIT) is None
            assert not incoming.listening
            with pytest.raises(UTDClosedError):
                incoming.start()

    on_loop(test)


def test_the_queue_is_bounded_and_drops_the_oldest() -> None:
    async def test() -> None:
        async with bob(capacity=3) as (other, incoming, _, _):
            incoming.start()
            await until(lambda: other.connections)
            for number in range(5):
                await other.tell(number)
            await until(lambda: incoming.dropped == 2)
            calls = [await incoming.next(WAIT) for _ in range(3)]
            assert [call.call_id for call in calls if call] == [call_id(number) for number in (2, 3, 4)]

    on_loop(test)


def test_polling_takes_over_while_the_socket_is_away() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, _, cred):
            incoming.start()
            await until(lambda: other.connections)
            feed = feed_of(portal(), cred)
            await until(lambda: feed.ready)
            assert feed._socket is not None
            feed._socket._backoff = (30.0, 30.0)
            other.connections.pop().transport.abort()
            await until(lambda: not feed.ready)
            other.set(1)
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(1)

    on_loop(test)


def test_a_gap_in_the_frames_is_looked_after() -> None:
    async def test() -> None:
        async with bob() as (other, incoming, _, cred):
            incoming.start()
            await until(lambda: feed_of(portal(), cred).ready and other.polls())
            other.set(1)  # its frame is lost
            other.seq += 1
            await other.tell(2, "ended", version=3)
            call = await incoming.next(WAIT)
            assert call is not None
            assert call.call_id == call_id(1)

    on_loop(test)


def test_polling_survives_an_engine_in_trouble_and_honours_what_it_asks(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with bob(socket=False) as (other, incoming, _, _):
            other.fail = Reply(500, json={"message": "broken"})
            incoming.start()
            await until(lambda: len(other.polls()) >= 3)
            other.set(1)
            other.fail = None
            assert await incoming.next(WAIT)

    on_loop(test)
    warnings = [r for r in caplog.records if r.name == "utd_fsm.calls" and r.levelname == "WARNING"]
    assert len(warnings) == 1  # and not one a poll


def test_polls_stay_far_from_the_engines_limit() -> None:
    # 120 requests a minute are allowed: at one poll a second, each asking for one status and each third for two.
    timing = IncomingTiming()
    assert 60 / (timing.poll * 0.75) * 4 / 3 < 120
