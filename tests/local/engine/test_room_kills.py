"""Streams and audio rooms when the engine or the media server is killed: nothing is lost, and all is put right."""

from __future__ import annotations

import asyncio

import pytest
from livekit.protocol import models

from tests.media_servers import KINDS, Kind
from utd_fsm import room_wire as rw

from .room_client import NEVER, PATIENCE, do, inside, on, permission
from .room_support import audio_room, stream
from .support import Site

pytestmark = pytest.mark.media


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_of_the_media_server(kind: Kind) -> None:
    engine = on(kind, party_grace=60, reconcile_every=NEVER)
    await do(engine.__enter__)
    try:
        site = Site(engine.process)
        world = audio_room(site)
        ann, bob, admin = world.guest(), world.guest(), await do(world.admin)
        async with inside(ann) as hers, inside(bob) as his, inside(admin) as admins:
            everybody = (hers, his, admins)
            await do(ann.well, rw.SEAT_TAKE, index=1)
            await do(bob.well, rw.SEAT_TAKE, index=2)
            await his.until(lambda: hers.may_publish and his.may_publish)
            # nothing is decided meanwhile: what LiveKit has forgotten, and no token has, is told again
            truth = rw.read_seats(await do(world.host.grid), "GET seats")
            for one in everybody:
                await one.until(lambda: one.state.seats == truth)  # noqa: B023 - waited for here
            await do(engine.media.restart, hard=True)
            await asyncio.wait_for(asyncio.gather(*(one.reconnected.wait() for one in everybody)), PATIENCE)
            for one in everybody:
                await one.until(lambda: one.state.seats == truth)  # noqa: B023
                one.reconnected.clear()
            assert hers.may_publish
            assert his.may_publish
            await do(engine.media.stop, hard=True)
            # decided while nobody could be told: one grant goes, one comes, and the room has changed
            await do(world.host.well, rw.SEAT_KICK, index=2)
            await do(admin.well, rw.SEAT_TAKE, index=3)
            await do(world.host.well, rw.COMMENTS, method="PUT", locked=True)
            truth = rw.read_seats(await do(world.host.grid), "GET seats")
            await do(engine.media.start)
            await asyncio.wait_for(asyncio.gather(*(one.reconnected.wait() for one in everybody)), PATIENCE)
            for one in everybody:
                await one.until(lambda: one.state.seats is not None)  # noqa: B023 - waited for here
                await one.until(lambda: one.state.seats == truth and one.state.comments_locked)  # noqa: B023
            await hers.until(lambda: hers.may_publish and not his.may_publish and admins.may_publish)
            assert (hers.role, admins.role) == ("audience", "admin")
            assert not (await permission(engine, world.name, bob.identity)).can_publish
            # and what is decided from now on is told
            await do(bob.well, rw.SEAT_TAKE, index=4)
            await his.until(lambda: his.may_publish)
    finally:
        await do(engine.close)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_of_the_engine(kind: Kind) -> None:
    engine = on(kind)
    await do(engine.__enter__)
    try:
        site = Site(engine.process)
        room, air = audio_room(site, seat_mode="request"), stream(site)
        ann, bob, vic, wim = room.guest(), room.guest(), air.guest(), air.guest()
        async with (
            inside(room.host) as hosts,
            inside(ann) as hers,
            inside(bob) as his,
            inside(vic),
            inside(wim) as wims,
        ):
            async with inside(air.host):
                await do(air.host.well, rw.LIVE_START)
                request = (await do(ann.well, rw.SPEAKERS_REQUEST))["request_id"]
                await do(room.host.well, rw.SPEAKER_APPROVE, id=request)
                await do(bob.well, rw.SPEAKERS_REQUEST)
                await do(vic.well, rw.STAGE_REQUEST)
                await do(air.host.well, rw.STAGE_ADD, target_identity=wim.identity)
                await wims.until(lambda: wims.may_publish)
                await hers.until(lambda: hers.may_publish)
                before = await do(room.host.grid), await do(air.host.stage)
                await do(engine.restart, hard=True)
                assert (await do(room.host.grid), await do(air.host.stage)) == before
                # decided now, by an engine that has heard no join
                await do(room.host.well, rw.SEAT_KICK, index=1)
                await hers.until(lambda: not hers.may_publish)
                await his.until(lambda: his.state.seats is not None and his.state.seats.seats[1].is_empty)
                await do(room.host.well, rw.SEAT_TAKE, index=0)
                await hosts.until(lambda: hosts.state.seats is not None and hosts.state.seats.requests)
            # the host drops, and the engine is killed while its time runs
            await wims.until(lambda: wims.state.live == "host_away")
            await do(engine.restart, hard=True)
            await wims.until(lambda: wims.state.live == "ended")
            await wims.until(lambda: not wims.may_publish)  # the stage is cleared with it
            # somebody who goes while the engine is down is missed when it is back
            await do(engine.stop, hard=True)
            await hers.room.disconnect()
            await his.room.disconnect()
            await do(engine.start)
            await hosts.until(lambda: hosts.state.seats is not None and hosts.state.seats.requests == ())
    finally:
        await do(engine.close)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_decided_while_nothing_was_heard_is_put_right_at_the_start(kind: Kind) -> None:
    """The engine is down while somebody who is banned comes, and one who sits comes with an older token."""
    engine = on(kind, party_grace=60)
    await do(engine.__enter__)
    try:
        site = Site(engine.process)
        world = audio_room(site)
        ann, eve = world.guest(), world.guest()
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await do(world.host.well, rw.BAN, identity=eve.identity, room_name=world.name)
        await do(engine.stop, hard=True)
        async with inside(ann) as hers, inside(eve) as eves:
            assert not hers.may_publish
            await do(engine.start)
            assert await eves.reason() == models.DisconnectReason.PARTICIPANT_REMOVED
            await hers.until(lambda: hers.may_publish)
            await hers.until(lambda: hers.state.seats is not None and hers.state.seats.seat_of(ann.identity) == 1)
    finally:
        await do(engine.close)
