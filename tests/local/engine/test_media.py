"""The engine and a real media server, with the real LiveKit client in the rooms: on both back ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit import api, rtc
from livekit.protocol import models

from tests.media_servers import KINDS, Kind, MediaServers
from utd_fsm import wire
from utd_fsm.testing import LocalEngine, local_engine

from .support import Site, User, somebody

pytestmark = pytest.mark.media
GRACE = 5.0


def on(kind: Kind, grace: float) -> LocalEngine:
    """An engine on this kind of media server; a missing livekit-server is a visible skip."""
    MediaServers.require(kind)
    return local_engine(kind, party_grace=grace, reconcile_every=1)


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    """An engine on each kind in turn."""
    with on(request.param, GRACE) as one:
        yield one


@pytest.fixture
def site(engine: LocalEngine) -> Site:
    return Site(engine.process)


async def until(condition: Callable[[], Any], *, within: float = 60) -> None:
    """Until it is true; blocking conditions do not hold up the loop."""
    async with asyncio.timeout(within):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


class Guest:
    """One real client in one room."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.gone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.permitted = asyncio.Event()
        self.reconnected = asyncio.Event()
        self.room.on("disconnected", self._disconnected)
        self.room.on("participant_permissions_changed", lambda *_: self.permitted.set())
        self.room.on("reconnected", lambda *_: self.reconnected.set())

    def _disconnected(self, reason: int) -> None:
        if not self.gone.done():
            self.gone.set_result(reason)

    async def reason(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.gone), 60)


@asynccontextmanager
async def inside(url: str, token: str) -> AsyncIterator[Guest]:
    """A client in the room; left at the end."""
    guest = Guest()
    try:
        await guest.room.connect(url, token)
        yield guest
    finally:
        await guest.room.disconnect()


def forged(engine: LocalEngine, room: str, identity: str, **grants: Any) -> str:
    """A token the engine has not given, as an old or a stolen key's might be."""
    return (
        api.AccessToken(engine.livekit_key, engine.livekit_secret)
        .with_identity(identity)
        .with_grants(api.VideoGrants(room_join=True, room=room, **grants))
        .to_jwt()
    )


async def rooms(engine: LocalEngine) -> list[str]:
    async with api.LiveKitAPI(engine.livekit_url, engine.livekit_key, engine.livekit_secret, failover=False) as lk:
        return [room.name for room in (await lk.room.list_rooms(api.ListRoomsRequest())).rooms]


async def members(engine: LocalEngine, room: str) -> list[str]:
    async with api.LiveKitAPI(engine.livekit_url, engine.livekit_key, engine.livekit_secret, failover=False) as lk:
        answer = await lk.room.list_participants(api.ListParticipantsRequest(room=room))
        return sorted(each.identity for each in answer.participants)


async def settled(check: Callable[[], Awaitable[bool]], *, within: float = 60) -> None:
    async with asyncio.timeout(within):
        while not await check():
            await asyncio.sleep(0.05)


class Call:
    """An answered call and its tokens."""

    def __init__(self, site: Site) -> None:
        self.alice, self.bob = site.pair()
        created = self.alice.create(self.bob.identity, type="video_call").json()
        self.id: str = created["call_id"]
        self.url: str = created["url"]
        self.tokens = {
            self.alice.identity: created["token"],
            self.bob.identity: self.bob.do(wire.CALL_ACCEPT, self.id).json()["token"],
        }

    def status(self) -> str:
        return self.alice.status(self.id)

    def end(self) -> None:
        assert self.alice.do(wire.CALL_END, self.id).status_code == 200

    @asynccontextmanager
    async def both_inside(self) -> AsyncIterator[tuple[Guest, Guest]]:
        async with (
            inside(self.url, self.tokens[self.alice.identity]) as hers,
            inside(self.url, self.tokens[self.bob.identity]) as his,
        ):
            yield hers, his


async def test_a_finished_calls_room_is_gone_and_stays_gone(engine: LocalEngine, site: Site) -> None:
    call = Call(site)
    async with call.both_inside() as (hers, his):
        await asyncio.to_thread(call.end)
        assert await hers.reason() == await his.reason() == models.DisconnectReason.ROOM_DELETED
    await settled(lambda: _is_gone(engine, call.id))
    # an old token still opens the door, for as long as it takes the engine to hear of it
    try:
        async with inside(call.url, call.tokens[call.alice.identity]) as again:
            assert await again.reason() in (
                models.DisconnectReason.ROOM_DELETED, models.DisconnectReason.PARTICIPANT_REMOVED,
            )  # fmt: skip
    except rtc.ConnectError:
        pass  # thrown out while it was still joining
    await settled(lambda: _is_gone(engine, call.id))


async def _is_gone(engine: LocalEngine, room: str) -> bool:
    return room not in await rooms(engine)


async def test_a_third_does_not_fit_and_a_stranger_is_removed(engine: LocalEngine, site: Site) -> None:
    call = Call(site)
    token = forged(engine, call.id, "eve")
    async with inside(call.url, call.tokens[call.alice.identity]):
        async with inside(call.url, token) as eve:
            assert await eve.reason() == models.DisconnectReason.PARTICIPANT_REMOVED
        async with inside(call.url, call.tokens[call.bob.identity]):
            with pytest.raises(rtc.ConnectError):
                async with inside(call.url, token):
                    pass
            assert await members(engine, call.id) == sorted((call.alice.identity, call.bob.identity))
    await asyncio.to_thread(call.end)


async def test_a_party_that_comes_with_another_permission_gets_the_books(engine: LocalEngine, site: Site) -> None:
    call = Call(site)
    token = forged(engine, call.id, call.alice.identity, can_publish=False)
    async with inside(call.url, token) as hers:
        async with asyncio.timeout(60):
            while not hers.room.local_participant.permissions.can_publish:
                await hers.permitted.wait()
                hers.permitted.clear()
        sources = list(hers.room.local_participant.permissions.can_publish_sources)
        assert int(models.TrackSource.CAMERA) in map(int, sources)
    await asyncio.to_thread(call.end)


async def test_a_full_reconnect_is_no_hang_up(engine: LocalEngine, site: Site) -> None:
    call, clock = Call(site), Call(site)
    async with call.both_inside() as (hers, _):
        await hers.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
        await asyncio.wait_for(hers.reconnected.wait(), 60)
        # another call's parties drop now: when that one is cut, this one would have been
        async with clock.both_inside():
            pass
        await until(lambda: clock.status() == "ended")
        assert await asyncio.to_thread(call.status) == "active"
    await asyncio.to_thread(call.end)


async def test_a_killed_client_ends_the_call(engine: LocalEngine, site: Site) -> None:
    call = Call(site)
    script = (
        "import asyncio, sys\nfrom livekit import rtc\n"
        "async def main():\n"
        "    room = rtc.Room()\n"
        "    await room.connect(sys.argv[1], sys.stdin.readline().strip())\n"
        "    print('in', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, call.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(call.tokens[call.bob.identity] + "\n")
        process.stdin.flush()
        async with inside(call.url, call.tokens[call.alice.identity]) as hers:
            assert await asyncio.to_thread(process.stdout.readline) == "in\n"
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: call.status() == "ended", within=90)
            assert (await asyncio.to_thread(call.alice.read, call.id))["end_reason"] == "connection_lost"
            assert await hers.reason() == models.DisconnectReason.ROOM_DELETED
    finally:
        process.kill()
        process.communicate()


async def test_a_call_outlives_a_kill_of_the_engine(engine: LocalEngine, site: Site) -> None:
    call = Call(site)
    async with call.both_inside() as (hers, his):
        await asyncio.to_thread(engine.restart, hard=True)
        assert await asyncio.to_thread(call.status) == "active"
        assert await members(engine, call.id) == sorted((call.alice.identity, call.bob.identity))
        assert hers.room.isconnected()
        await asyncio.to_thread(call.end)
        await his.reason()


async def test_a_room_that_came_to_be_while_the_engine_was_down_is_deleted(engine: LocalEngine, site: Site) -> None:
    call = Call(site)
    await asyncio.to_thread(call.end)
    await settled(lambda: _is_gone(engine, call.id))
    await asyncio.to_thread(engine.stop, hard=True)
    try:
        async with inside(call.url, call.tokens[call.alice.identity]) as hers:
            await asyncio.to_thread(engine.start)
            assert await hers.reason() == models.DisconnectReason.ROOM_DELETED
    finally:
        await asyncio.to_thread(engine.start)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_outlives_a_kill_of_the_media_server(kind: Kind) -> None:
    engine = on(kind, 60)
    await asyncio.to_thread(engine.__enter__)
    try:
        call = Call(Site(engine.process))
        async with call.both_inside() as (hers, his):
            await asyncio.to_thread(engine.media.restart, hard=True)
            await asyncio.wait_for(asyncio.gather(hers.reconnected.wait(), his.reconnected.wait()), 60)
            assert await asyncio.to_thread(call.status) == "active"
            assert await members(engine, call.id) == sorted((call.alice.identity, call.bob.identity))
            # the limit came back with the tokens
            with pytest.raises(rtc.ConnectError):
                async with inside(call.url, forged(engine, call.id, somebody())):
                    pass
    finally:
        await asyncio.to_thread(engine.close)


def test_users_are_strangers_to_the_media_servers_own_api(engine: LocalEngine, site: Site) -> None:
    """A call's token opens its room and nothing else."""
    call = Call(site)
    user: User = call.alice
    claims = api.TokenVerifier(engine.livekit_key, engine.livekit_secret).verify(call.tokens[user.identity])
    assert claims.video is not None
    assert not any((claims.video.room_admin, claims.video.room_list, claims.video.room_create))
    call.end()
