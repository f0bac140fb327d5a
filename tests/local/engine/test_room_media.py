"""The engine, a real media server and the real LiveKit client in streams and audio rooms: on both back ends.

The engine compares its rooms with LiveKit's only where a test says so: what is seen here is done by webhooks and
commits alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit import api, rtc
from livekit.protocol import models

from tests.media_servers import KINDS, Kind, MediaServers
from utd_fsm import room_wire as rw
from utd_fsm.room_models import RoomState
from utd_fsm.testing import LocalEngine, local_engine

from .room_support import Member, audio_room, stream, way_in
from .support import Site
from .test_media import forged, members, settled

pytestmark = pytest.mark.media
GRACE = 5.0
NEVER = 3600.0
PATIENCE = 60.0


def on(kind: Kind, **changes: Any) -> LocalEngine:
    """An engine on this kind of media server; a missing livekit-server is a visible skip."""
    MediaServers.require(kind)
    return local_engine(kind, **{"party_grace": GRACE, "reconcile_every": NEVER, **changes})


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    """An engine on each kind in turn."""
    with on(request.param) as one:
        yield one


@pytest.fixture
def site(engine: LocalEngine) -> Site:
    return Site(engine.process)


class Client:
    """One real client in one room, and everything it was told."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.gone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.metadata: list[str] = []
        self.notes: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self.reconnected = asyncio.Event()
        self.room.on("room_metadata_changed", lambda _old, new: self._add(self.metadata, new))
        self.room.on("data_received", lambda packet: self._add(self.notes, json.loads(packet.data)))
        self.room.on("disconnected", self._disconnected)
        self.room.on("reconnected", self._reconnected)
        for event in ("participant_permissions_changed", "participant_metadata_changed", "track_muted",
                      "track_unmuted"):  # fmt: skip
            self.room.on(event, lambda *_: self.heard.set())

    def _add(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self.heard.set()

    def _disconnected(self, reason: int) -> None:
        if not self.gone.done():
            self.gone.set_result(reason)

    def _reconnected(self) -> None:
        self.reconnected.set()
        self.heard.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Until it is so; looked at again at every event."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.heard.clear()
                try:
                    await asyncio.wait_for(self.heard.wait(), 0.2)  # a state may change without an event of its own
                except TimeoutError:
                    continue

    async def reason(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.gone), PATIENCE)

    @property
    def me(self) -> rtc.LocalParticipant:
        return self.room.local_participant

    @property
    def may_publish(self) -> bool:
        return bool(self.me.permissions.can_publish)

    @property
    def role(self) -> str | None:
        return rw.role_of(self.me.metadata)

    @property
    def state(self) -> RoomState:
        """What the room's metadata say now."""
        return rw.read_room_state(self.room.metadata)

    def versions(self) -> list[int]:
        grids = [rw.read_room_state(text).seats for text in self.metadata]
        return [grid.version or 0 for grid in grids if grid is not None]

    def lives(self) -> list[str]:
        """Each state of the stream, as it came."""
        states = [str(rw.read_room_state(text).live) for text in self.metadata]
        return [state for i, state in enumerate(states) if i == 0 or states[i - 1] != state]

    def kinds(self) -> list[str]:
        return [str(note["type"]) for note in self.notes]

    async def speak(self) -> rtc.LocalTrackPublication:
        """Publish a microphone."""
        source = rtc.AudioSource(48_000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        return await self.me.publish_track(track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))


@asynccontextmanager
async def inside(member: Member, token: str | None = None) -> AsyncIterator[Client]:
    """A client in the room; left at the end."""
    client = Client()
    try:
        await client.room.connect(member.url, token or member.token)
        yield client
    finally:
        await client.room.disconnect()


async def do(what: Callable[..., Any], *args: Any, **rest: Any) -> Any:
    """A request, without holding up the loop."""
    return await asyncio.to_thread(what, *args, **rest)


async def permission(engine: LocalEngine, room: str, identity: str) -> models.ParticipantPermission:
    async with api.LiveKitAPI(engine.livekit_url, engine.livekit_key, engine.livekit_secret, failover=False) as lk:
        request = api.RoomParticipantIdentity(room=room, identity=identity)
        return (await lk.room.get_participant(request)).permission


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


class Cable:
    """The wire of one client's signalling, which can be cut."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.partition("://")[2].partition(":")
        self._port = int(port)
        self._links: set[asyncio.StreamWriter] = set()
        self._whole = True
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        """Its own URL."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()

    def cut(self) -> None:
        """Every link breaks, and no new one stands, until `mend`."""
        self._whole = False
        for writer in list(self._links):
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        there, onward = await asyncio.open_connection(self._host, self._port)
        self._links |= {writer, onward}
        await asyncio.gather(self._pass(reader, onward), self._pass(there, writer))
        self._links -= {writer, onward}

    @staticmethod
    async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


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
            while (await do(other.host.well, rw.LIVE_END))["version"] < 3:  # host_away and ended came before
                await asyncio.sleep(0.05)
    finally:
        await do(engine.close)


# ---------------------------------------------------------------------------------------------------------- kills


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
