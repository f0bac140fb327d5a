"""The engine, a real media server and the real LiveKit client in streams and audio rooms: on both back ends.

The engine compares its rooms with LiveKit's only where a test says so: what is seen here is done by webhooks and
commits alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol import models

from tests.media_servers import KINDS, Kind
from utd_fsm import room_wire as rw
from utd_fsm.testing import LocalEngine

from .room_client import PATIENCE, Cable, Client, do, inside, on, permission
from .room_support import Member, audio_room, stream, way_in
from .support import Site
from .test_media import forged, members, settled

pytestmark = pytest.mark.media


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    """An engine on each kind in turn."""
    with on(request.param) as one:
        yield one


@pytest.fixture
def site(engine: LocalEngine) -> Site:
    return Site(engine.process)


# ------------------------------------------------------------------------------------------------------------ grants


async def test_a_seat_is_the_right_to_speak(site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    async with inside(ann) as hers:
        assert not hers.may_publish
        for route, more, lose in (
            (rw.SEAT_TAKE, {"index": 1}, lambda: ann.well(rw.SEATS_LEAVE)),
            (rw.SEAT_TAKE, {"index": 2}, lambda: world.host.well(rw.SEAT_KICK, index=2)),
            (rw.SEAT_TAKE, {"index": 3}, lambda: world.host.well(rw.SEAT_LOCK, index=3)),
        ):
            await do(ann.well, route, **more)
            await hers.until(lambda: hers.may_publish)
            assert [int(one) for one in hers.me.permissions.can_publish_sources] == [models.TrackSource.MICROPHONE]
            assert hers.me.permissions.can_subscribe
            assert hers.me.permissions.can_publish_data
            assert not hers.me.permissions.can_update_metadata
            await do(lose)
            await hers.until(lambda: not hers.may_publish)
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await hers.until(lambda: hers.may_publish)
        await do(ann.well, rw.SEATS_MOVE, target_seat=5)  # keeps it
        await hers.until(lambda: hers.state.seats is not None and hers.state.seats.seat_of(ann.identity) == 5)
        assert hers.may_publish


async def test_the_stage_is_the_right_to_be_seen(site: Site) -> None:
    world = stream(site)
    viewer = world.guest()
    async with inside(viewer) as his, inside(world.host) as hosts:
        assert hosts.may_publish
        assert not his.may_publish
        await do(world.host.well, rw.STAGE_ADD, target_identity=viewer.identity)
        await his.until(lambda: his.may_publish)
        assert models.TrackSource.CAMERA in map(int, his.me.permissions.can_publish_sources)
        await do(world.host.well, rw.STAGE_REMOVE, target_identity=viewer.identity)
        await his.until(lambda: not his.may_publish)
        await do(world.host.well, rw.STAGE_ADD, target_identity=viewer.identity)
        await his.until(lambda: his.may_publish)
        await do(viewer.well, rw.STAGE_LEAVE)
        await his.until(lambda: not his.may_publish)
        assert hosts.may_publish


async def test_a_role_is_told_and_is_no_grant(site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    async with inside(ann) as hers, inside(world.host) as hosts:
        assert (hers.role, hosts.role) == ("audience", "host")
        await do(world.host.well, rw.PARTICIPANT_ROLE, method="PUT", id=ann.identity,
                 actor_identity=world.host.identity, role="admin")  # fmt: skip
        await hers.until(lambda: hers.role == "admin")
        assert not hers.may_publish
        await hosts.until(lambda: rw.role_of(hosts.room.remote_participants[ann.identity].metadata) == "admin")
        await hosts.until(lambda: rw.ROLE_CHANGE in hosts.kinds())
        rows = (await do(ann.get, rw.PARTICIPANTS_BY_ROLE, params={"role": "admin"})).json()
        assert rw.read_identities(rows, "by-role") == (ann.identity,)


# ---------------------------------------------------------------------------------------------------------- metadata


async def test_the_rooms_metadata_are_there_from_the_first_moment(site: Site) -> None:
    for count in (8, 100):  # a hundred seats do not travel in a token
        world = audio_room(site, seat_count=count)
        async with inside(world.host) as hosts:
            await hosts.until(lambda: hosts.state.seats is not None)
            grid = hosts.state.seats
            assert grid is not None
            assert grid.count == count
            async with inside(world.guest()) as late:
                assert late.state.seats is not None
                assert late.state.seats.version == grid.version


async def test_fifty_verbs_at_once_and_the_newest_metadata_come_last(site: Site) -> None:
    world = audio_room(site, seat_count=60)
    guests = [await do(world.guest) for _ in range(50)]
    async with inside(world.host) as hosts:
        await asyncio.gather(*(do(one.well, rw.SEAT_TAKE, index=1 + i) for i, one in enumerate(guests)))
        truth = rw.read_seats(await do(world.host.grid), "GET seats")
        await hosts.until(lambda: hosts.state.seats is not None and hosts.state.seats.version == truth.version)
        assert hosts.state.seats is not None
        assert [seat.identity for seat in hosts.state.seats.seats] == [seat.identity for seat in truth.seats]
        await do(world.host.well, rw.COMMENTS, method="PUT", locked=True)
        await hosts.until(lambda: hosts.state.comments_locked)
        assert hosts.versions() == sorted(hosts.versions())
        assert hosts.versions()[-1] == truth.version


async def test_notes_reach_those_they_are_for_and_have_no_sender(site: Site) -> None:
    world = stream(site)
    viewer, other = world.guest(name="Vic"), world.guest()
    async with inside(viewer) as his, inside(other) as others, inside(world.host) as hosts:
        senders: list[Any] = []
        hosts.room.on("data_received", lambda packet: senders.append(packet.participant))
        await do(viewer.well, rw.STAGE_REQUEST)
        await hosts.until(lambda: rw.STAGE_REQUESTED in hosts.kinds())
        asked = next(note for note in hosts.notes if note["type"] == rw.STAGE_REQUESTED)
        assert (asked["identity"], asked["name"]) == (viewer.identity, "Vic")
        await do(world.host.well, rw.STAGE_ADD, target_identity=viewer.identity)
        await others.until(lambda: rw.STAGE_UPDATE in others.kinds())
        await his.until(lambda: rw.STAGE_UPDATE in his.kinds())
        assert rw.STAGE_REQUESTED not in [*his.kinds(), *others.kinds()]
        assert senders
        assert not any(senders)


# ---------------------------------------------------------------------------------------------- out of the room


async def test_who_is_put_out_is_told_and_goes_and_may_come_back(engine: LocalEngine, site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    async with inside(ann) as hers:
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await hers.until(lambda: hers.may_publish)
        await do(world.host.well, rw.PARTICIPANT, method="DELETE", id=ann.identity)
        assert await hers.reason() == models.DisconnectReason.PARTICIPANT_REMOVED
        assert rw.USER_KICKED in hers.kinds()
    again = await do(world.guest, ann.identity)
    async with inside(again) as hers:
        assert not hers.may_publish
        async with inside(world.host):  # what is heard of the room is done, and she is still there
            assert ann.identity in await members(engine, world.name)


async def test_who_is_banned_is_out_and_stays_out(engine: LocalEngine, site: Site) -> None:
    world = stream(site)
    eve = world.guest()
    async with inside(eve) as hers, inside(world.host):
        await do(world.host.well, rw.STAGE_ADD, target_identity=eve.identity)
        await hers.until(lambda: hers.may_publish)
        await do(world.host.well, rw.BAN, identity=eve.identity, room_name=world.name, reason="spam")
        assert await hers.reason() == models.DisconnectReason.PARTICIPANT_REMOVED
        told = next(note for note in hers.notes if note["type"] == rw.USER_BANNED)
        assert (told["room_name"], told["reason"]) == (world.name, "spam")
        assert (await do(way_in, site, eve.identity, world.name, world.type)).status_code == 403
        # her old token opens the door, for as long as it takes the engine to hear of it
        async with inside(eve) as again:
            assert await again.reason() == models.DisconnectReason.PARTICIPANT_REMOVED
        await settled(lambda: _is_not_in(engine, world.name, eve.identity))
        await do(world.host.well, rw.BAN, method="DELETE", identity=eve.identity, room_name=world.name)
        async with inside(await do(world.guest, eve.identity)):
            assert eve.identity in await members(engine, world.name)


async def _is_not_in(engine: LocalEngine, room: str, identity: str) -> bool:
    return identity not in await members(engine, room)


# ------------------------------------------------------------------------------------- back with an older token


async def test_a_change_while_one_was_away_is_put_right_on_its_return(engine: LocalEngine, site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    async with inside(world.host):
        async with inside(ann):
            pass
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await do(world.host.well, rw.PARTICIPANT_ROLE, method="PUT", id=ann.identity,
                 actor_identity=world.host.identity, role="guest")  # fmt: skip
        async with inside(ann) as hers:  # the token of before: it says audience, and no publishing
            await hers.until(lambda: hers.may_publish and hers.role == "guest")
        granted = await do(world.guest, ann.identity)
        assert granted.claims()["video"]["canPublish"] is True
        await do(world.host.well, rw.SEAT_KICK, index=1)
        async with inside(granted) as hers:  # the token of before: it says seated
            await hers.until(lambda: not hers.may_publish)
        stolen = forged(engine, world.name, ann.identity, can_publish=True, can_update_own_metadata=True)
        async with inside(ann, stolen) as hers:
            await hers.until(lambda: not hers.may_publish and hers.role == "guest")
            assert not (await permission(engine, world.name, ann.identity)).can_update_metadata


async def test_a_change_in_the_middle_of_a_full_reconnect(engine: LocalEngine, site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    async with inside(world.host), inside(ann) as hers:
        for _ in range(4):
            hers.reconnected.clear()
            _, answer = await asyncio.gather(
                hers.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT),
                do(ann.well, rw.SEAT_TAKE, index=1),
            )
            assert answer["seat_index"] == 1
            await asyncio.wait_for(hers.reconnected.wait(), PATIENCE)
            await hers.until(lambda: hers.may_publish)
            hers.reconnected.clear()
            await asyncio.gather(
                hers.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT),
                do(world.host.well, rw.SEAT_KICK, index=1),
            )
            await asyncio.wait_for(hers.reconnected.wait(), PATIENCE)
            await hers.until(lambda: not hers.may_publish)
            assert not (await permission(engine, world.name, ann.identity)).can_publish


async def test_a_change_while_the_link_is_down(site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    cable = Cable(ann.url)
    async with cable as url, inside(world.host), inside(Member(**{**vars(ann), "url": url})) as hers:
        for route, more, may in ((rw.SEAT_TAKE, {"index": 1}, True), (rw.SEATS_LEAVE, {}, False)):
            hers.reconnected.clear()
            cable.cut()
            await do(ann.well, route, **more)
            await asyncio.sleep(0.3)  # long enough to be told, and to be told in vain
            assert hers.may_publish is not may
            cable.mend()
            await asyncio.wait_for(hers.reconnected.wait(), PATIENCE)
            await hers.until(lambda: hers.may_publish is may)  # noqa: B023 - waited for here
            truth = (await do(ann.grid))["version"]
            await hers.until(lambda: hers.state.seats is not None and hers.state.seats.version == truth)  # noqa: B023


# -------------------------------------------------------------------------------------------------------- muted


async def test_a_muted_seat_stays_muted(site: Site) -> None:
    world = audio_room(site)
    ann = world.guest()
    async with inside(ann) as hers, inside(world.host) as hosts:
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await hers.until(lambda: hers.may_publish)
        first = await hers.speak()
        await hosts.until(lambda: _microphones(hosts, ann) == [False])
        await do(world.host.well, rw.SEAT_MUTE, index=1)
        await hosts.until(lambda: _microphones(hosts, ann) == [True])
        await hers.until(lambda: first.muted)
        await hers.me.unpublish_track(first.sid)
        await hosts.until(lambda: _microphones(hosts, ann) == [])
        second = await hers.speak()  # she publishes again
        await hosts.until(lambda: _microphones(hosts, ann) == [True])
        await hers.until(lambda: second.muted)
        await do(world.host.well, rw.SEAT_UNMUTE, index=1)
        await hers.until(lambda: hers.state.seats is not None and not hers.state.seats.seats[1].muted)
        await hers.me.unpublish_track(second.sid)
        await hers.speak()
        await hosts.until(lambda: _microphones(hosts, ann) == [False])
        # those who sit down later are covered by "all"
        await do(world.host.well, rw.SEATS_MUTE_ALL, method="PUT", muted=True)
        await hosts.until(lambda: _microphones(hosts, ann) == [True])


async def test_the_route_that_mutes_tracks(site: Site) -> None:
    world = stream(site)
    viewer = world.guest()
    async with inside(viewer) as his, inside(world.host) as hosts:
        await do(world.host.well, rw.STAGE_ADD, target_identity=viewer.identity)
        await his.until(lambda: his.may_publish)
        await his.speak()
        await hosts.until(lambda: _microphones(hosts, viewer) == [False])
        for audio in (False, True):
            await do(world.host.well, rw.PARTICIPANT_MUTE, method="PUT", id=viewer.identity, audio=audio, video=True,
                     muted=True)  # fmt: skip
            await hosts.until(lambda: _microphones(hosts, viewer) == [audio])  # noqa: B023 - waited for here


def _microphones(client: Client, member: Member) -> list[bool]:
    """Of each that somebody publishes, whether it is muted."""
    there = client.room.remote_participants.get(member.identity)
    return [] if there is None else [track.muted for track in there.track_publications.values()]


# --------------------------------------------------------------------------------------------------- going and coming


async def test_a_hosts_full_reconnect_is_no_absence_and_a_drop_is(site: Site) -> None:
    world = stream(site)
    viewer = world.guest()
    async with inside(viewer) as his:
        async with inside(world.host) as hosts:
            await do(world.host.well, rw.LIVE_START)
            await his.until(lambda: his.state.live == "live")
            for _ in range(3):
                hosts.reconnected.clear()
                await hosts.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
                await asyncio.wait_for(hosts.reconnected.wait(), PATIENCE)
        await his.until(lambda: his.state.live == "host_away")
        async with inside(world.host):
            await his.until(lambda: his.state.live == "live")
        await his.until(lambda: his.state.live == "host_away")
        await his.until(lambda: his.state.live == "ended")
        assert [state for state in his.lives() if state != "waiting"] == [
            "live", "host_away", "live", "host_away", "ended",
        ]  # fmt: skip
        async with inside(world.host) as hosts:  # the room is still good
            await do(world.host.well, rw.LIVE_START)
            await his.until(lambda: his.state.live == "live")


async def test_who_does_not_come_back_loses_its_place(site: Site) -> None:
    world, other = audio_room(site), stream(site)
    ann, vic = world.guest(), other.guest()
    async with inside(world.host) as hosts, inside(other.host) as others:
        async with inside(ann), inside(vic):
            await do(ann.well, rw.SEAT_TAKE, index=1)
            await do(vic.well, rw.STAGE_REQUEST)
        async with inside(ann):  # comes back in time, once
            assert await do(world.host.sitting) == {1: ann.identity}
        await hosts.until(lambda: hosts.state.seats is not None and hosts.state.seats.seats[1].is_empty)
        await others.until(lambda: others.state.stage is not None and others.state.stage.hands == ())


@pytest.mark.parametrize("kind", KINDS[:1])
async def test_who_never_comes_loses_its_place_too(kind: Kind) -> None:
    engine = on(kind, party_grace=0.5, join_grace=0.5)
    await do(engine.__enter__)
    try:
        site = Site(engine.process)
        world, other = audio_room(site), stream(site)
        ann = world.guest()
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await do(other.host.well, rw.LIVE_START)
        async with asyncio.timeout(PATIENCE):
            while await do(world.host.sitting):
                await asyncio.sleep(0.05)
            while rw.read_room_state((await do(other.guest)).claims()["roomConfig"]["metadata"]).live != "ended":
                await asyncio.sleep(0.05)
    finally:
        await do(engine.close)
