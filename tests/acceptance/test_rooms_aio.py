"""api.md, The same, awaitable, for streams and audio rooms: each sentence."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import utd_fsm
from tests.acceptance.test_aio import made
from tests.integration.calling import WAIT, fresh, in_thread
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDBroadcast, UTDClosedError, UTDPermissionError, UTDStateError, UTDWouldBlockError, aio, signals
from utd_fsm.media import TestPattern, Tone
from utd_fsm.media.measure import dominant_hz
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


@pytest.mark.parametrize("name", ["UTDLiveStreamSession", "UTDAudioRoomSession", "UTDStreamClient"])
def test_the_same_members(name: str) -> None:
    def members(kind: type) -> dict[str, Any]:
        return {one: inspect.getattr_static(kind, one) for one in dir(kind) if not one.startswith("_")}

    blocking, awaitable = members(getattr(utd_fsm, name)), members(getattr(aio, name))
    assert set(blocking) == set(awaitable)
    for one, member in blocking.items():
        assert isinstance(member, property) == isinstance(awaitable[one], property), one
        if inspect.isfunction(member):
            theirs = inspect.signature(awaitable[one]).parameters
            assert list(inspect.signature(member).parameters) == list(theirs), one
            for parameter in inspect.signature(member).parameters.values():
                assert parameter.default == theirs[parameter.name].default, (one, parameter.name)


async def test_a_stream(engine: LocalEngine) -> None:
    show, who = fresh("show"), fresh("vera")
    async with made(engine) as a, made(engine) as b:
        async with a.join_live_stream(
            fresh("host"), show, as_host=True, microphone=Tone(440), camera=TestPattern(320, 240, 10)
        ) as live:
            viewer = await b.join_live_stream(who, show, name="Vera", microphone=Tone(660))
            assert (live.is_host, viewer.is_host, live.room_name) == (True, False, show)
            await live.go_live(with_video=True)
            assert live.broadcast.value is UTDBroadcast.LIVE
            await viewer.broadcast.wait_for("live", timeout=WAIT)
            async for picture in viewer.watch(timeout=WAIT):
                assert picture.pixels.shape == (240, 320, 3)
                break
            await viewer.request_stage()
            hand = (await live.hands.wait_for(lambda hands: hands, timeout=WAIT))[0]
            await live.invite_to_stage(hand.identity)
            await viewer.can_publish.wait_for(True, timeout=WAIT)
            await viewer.set_microphone(True)
            heard: list[Any] = []
            async with live.listen(who, timeout=WAIT) as frames:
                async for frame in frames:
                    heard.append(frame.samples)
                    if sum(map(len, heard)) > 60_000:
                        break
            import numpy as np

            assert dominant_hz(np.concatenate(heard)[-24_000:], 48_000) == pytest.approx(660, abs=2)
            with pytest.raises(UTDPermissionError):
                await viewer.go_live()
            await live.remove_from_stage(who)
            assert live.stage.value == ()
        assert await viewer.wait_until_ended() is UTDBroadcast.ENDED  # the host's block was left normally
        await viewer.leave()
        await viewer.dispose()
        with pytest.raises(UTDClosedError):
            await viewer.join()


async def test_a_room(engine: LocalEngine) -> None:
    lobby, who = fresh("lobby"), fresh("vera")
    async with made(engine) as a, made(engine) as b:
        room = await a.join_audio_room(fresh("host"), lobby, True, seat_count=4, seat_mode="request")
        async with room, b.join_audio_room(who, lobby, microphone=Tone(660)) as vera:
            await room.take_seat(0)
            seen: list[int] = []

            async def follow() -> None:
                seen.extend([len(requests) async for requests in room.pending_requests.updates()])

            following = asyncio.create_task(follow())
            asked = asyncio.create_task(vera.request_to_speak())
            request = (await room.pending_requests.wait_for(lambda requests: requests, timeout=WAIT))[0]
            assert await asked == request
            assert await room.approve_speaker(request) == 1
            grid = await vera.seats.wait_for(lambda grid: grid.my_seat == 1, timeout=WAIT)
            assert grid.seats[0].occupant == a.identity
            await vera.set_microphone(True)
            async for frame in room.listen(timeout=WAIT):
                assert frame.identity == who
                break
            with pytest.raises(UTDStateError):
                await vera.set_camera(True)
            assert (await room.setup_seats(6)).count == 6
            assert (await vera.get_seats()).count == 6
            await room.ban(who, reason="x")
            await vera.connection.wait_for("force_exit", timeout=WAIT)
            await room.leave()
            await following  # left: nothing more comes
            assert seen[:3] == [0, 1, 0]
        assert a.sessions == ()


async def test_await_and_async_with_of_one_join(engine: LocalEngine) -> None:
    async with made(engine) as client:
        joining = client.join_audio_room(fresh("vera"), fresh("lobby"))
        assert client.identity is None  # nothing is sent before it is awaited
        async with joining as room:
            assert room.connected.value
        assert not room.connected.value
        again = await client.join_live_stream(fresh("vera"), fresh("show"))
        async with again:
            assert client.sessions == (again,)
        assert client.sessions == ()


async def test_a_cancelled_await_is_an_interrupted_wait(engine: LocalEngine, way: Way) -> None:
    there = way()
    async with made(engine) as a, made(engine, there) as b:
        host = await a.join_audio_room(fresh("host"), lobby := fresh("lobby"), True, seat_count=4)
        vera = await b.join_audio_room(fresh("vera"), lobby)
        for wait in (vera.seats.wait_for(lambda grid: grid.my_seat == 3), vera.invitations.wait_for(lambda some: some)):
            task = asyncio.ensure_future(wait)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate = there.hold("POST", "/rooms/*/take")
        task = asyncio.ensure_future(vera.take_seat(1))
        await asyncio.to_thread(gate.reached)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.cut()
        await vera.take_seat(2)
        assert vera.seats.value.my_seat == 2
        gate = there.hold("POST", "/token", at="answer")
        joining = asyncio.ensure_future(_join(b, fresh("will"), lobby))
        await asyncio.to_thread(gate.reached)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        gate.open()
        assert b.sessions == (vera,)
        assert [one.identity for one in host.remote_participants.value] == [b.identity]
        # Disposing overtakes.
        gate = there.hold("POST", "/rooms/*/move")
        moving = asyncio.create_task(vera.move_seat(3))
        await asyncio.to_thread(gate.reached)
        disposing = asyncio.create_task(vera.dispose())
        with pytest.raises((UTDClosedError, UTDStateError)):
            await moving
        gate.cut()
        await disposing
        await host.seats.wait_for(lambda grid: not any(seat.occupant for seat in grid.seats), timeout=WAIT)


async def _join(client: aio.UTDStreamClient, who: str, room: str) -> aio.UTDAudioRoomSession:
    return await client.join_audio_room(who, room)


def test_usable_from_any_event_loop(engine: LocalEngine) -> None:
    client = made(engine)
    lobby = fresh("lobby")
    room = asyncio.run(_join(client, fresh("vera"), lobby))
    asyncio.run(room.get_seats())
    waiting = in_thread(lambda: asyncio.run(room.seats.wait_for(lambda grid: grid.count == 5, timeout=WAIT)))
    with engine.client() as other:
        host = other.join_audio_room(fresh("host"), lobby, True)
        host.setup_seats(5)
        assert waiting.result(WAIT).count == 5
        in_thread(lambda: asyncio.run(room.take_seat(1))).result(WAIT)
        host.seats.wait_for(lambda grid: grid.seats[1].occupant == client.identity, timeout=WAIT)
        asyncio.run(room.dispose())
    asyncio.run(client.close())


async def test_the_blocking_one_is_refused_in_a_loop(engine: LocalEngine) -> None:
    client = engine.client()
    with pytest.raises(UTDWouldBlockError):
        client.join_live_stream("vera", "room")
    with pytest.raises(UTDWouldBlockError):
        client.join_audio_room("vera", "room")
    await asyncio.to_thread(client.close)


async def test_signals_name_the_awaitable_session(engine: LocalEngine) -> None:
    senders: list[object] = []

    def receive(session: object, **extra: Any) -> None:
        senders.append(session)

    signals.seats_changed.connect(receive, weak=False)
    try:
        async with made(engine) as client:
            room = await client.join_audio_room(fresh("host"), fresh("lobby"), True, seat_count=2)
            await room.take_seat(0)
            await asyncio.to_thread(signals.drain, WAIT)
            assert room in senders
            assert all(isinstance(one, aio.UTDAudioRoomSession) for one in senders)
    finally:
        signals.seats_changed.disconnect(receive)
