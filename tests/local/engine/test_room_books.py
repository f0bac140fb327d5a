"""What the engine makes of LiveKit's webhooks about streams and audio rooms: signed ones, made by hand.

Nobody is on the media server. "Nothing happens" is checked against another room, in which the same time has passed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from utd_fsm import room_wire as rw
from utd_fsm.testing import LocalEngine, local_engine

from .room_support import World, audio_room, stream
from .support import Site, until
from .test_livekit_books import LONG, Media

GRACE = 0.5
BLINK = 0.7


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    """Half a second to come back in; whoever never came has all the time."""
    with local_engine(party_grace=GRACE, host_blink=BLINK, join_grace=LONG, reconcile_every=LONG) as one:
        yield one


@pytest.fixture
def site(engine: LocalEngine) -> Site:
    return Site(engine.process)


@pytest.fixture
def media(engine: LocalEngine) -> Media:
    return Media(engine)


def live(world: World) -> tuple[str, int]:
    """Where a stream is, and the version of its last change."""
    state = rw.read_room_state(world.guest().claims()["roomConfig"]["metadata"])
    return str(state.live), state.live_version or 0


def a_seat_is_lost(site: Site, media: Media) -> None:
    """Until somebody who dropped just now has lost its seat."""
    world = audio_room(site)
    ann = world.guest()
    media.tell("participant_joined", world.name, ann.identity, "PA_clock")
    ann.well(rw.SEAT_TAKE, index=1)
    media.tell("participant_left", world.name, ann.identity, "PA_clock")
    until(lambda: not world.host.sitting())


def test_who_dropped_keeps_its_place_for_its_grace(site: Site, media: Media) -> None:
    world = audio_room(site)
    ann = world.guest()
    media.tell("participant_joined", world.name, ann.identity, "PA_1", joined_at=1000)
    ann.well(rw.SEAT_TAKE, index=1)
    dropped = time.time()
    media.tell("participant_left", world.name, ann.identity, "PA_1")
    until(lambda: not world.host.sitting())
    assert time.time() >= dropped + GRACE


def test_old_news_and_strangers_change_nothing(site: Site, media: Media) -> None:
    world = audio_room(site)
    ann = world.guest()
    media.tell("participant_joined", world.name, ann.identity, "PA_new", joined_at=3000)
    ann.well(rw.SEAT_TAKE, index=1)
    media.tell("participant_joined", world.name, ann.identity, "PA_old", joined_at=2000)
    media.tell("participant_left", world.name, ann.identity, "PA_old")
    media.tell("participant_left", world.name, "a-stranger", "PA_new")
    media.tell("participant_left", "a-room-of-nobody", ann.identity, "PA_new")
    media.tell("room_finished", world.name)
    media.tell("an_event_of_tomorrow", world.name, ann.identity, "PA_new")
    a_seat_is_lost(site, media)
    assert world.host.sitting() == {1: ann.identity}


def test_a_hosts_reconnect_is_no_absence() -> None:
    with local_engine(party_grace=LONG, host_blink=BLINK, join_grace=LONG, reconcile_every=LONG) as engine:
        site, media = Site(engine.process), Media(engine)
        there, away = stream(site), stream(site)
        for world in (there, away):
            media.tell("participant_joined", world.name, world.host.identity, "PA_1", joined_at=1000)
            world.host.well(rw.LIVE_START)
        before = live(there)
        media.tell("participant_left", there.name, there.host.identity, "PA_1")
        media.tell("participant_left", away.name, away.host.identity, "PA_1")
        time.sleep(BLINK / 7)  # what a full reconnect takes
        media.tell("participant_joined", there.name, there.host.identity, "PA_2", joined_at=1001)
        until(lambda: live(away)[0] == "host_away")
        assert live(there) == before
        media.tell("participant_joined", away.name, away.host.identity, "PA_2", joined_at=1001)
        until(lambda: live(away)[0] == "live")


def test_a_host_that_stays_away_ends_its_stream(site: Site, media: Media) -> None:
    world = stream(site)
    viewer = world.guest()
    media.tell("participant_joined", world.name, world.host.identity, "PA_1")
    world.host.well(rw.LIVE_START)
    world.host.well(rw.STAGE_ADD, target_identity=viewer.identity)
    media.tell("participant_left", world.name, world.host.identity, "PA_1")
    until(lambda: live(world)[0] == "ended")
    assert viewer.on_stage() == []


def test_a_media_server_that_cannot_be_asked_means_that_nobody_is_gone() -> None:
    with local_engine(party_grace=GRACE, host_blink=BLINK, join_grace=LONG, reconcile_every=LONG) as engine:
        site, media = Site(engine.process), Media(engine)
        world, air = audio_room(site), stream(site)
        ann = world.guest()
        media.tell("participant_joined", world.name, ann.identity, "PA_1")
        media.tell("participant_joined", air.name, air.host.identity, "PA_1")
        engine.media.stop(hard=True)
        ann.well(rw.SEAT_TAKE, index=1)
        air.host.well(rw.LIVE_START)
        media.tell("participant_left", world.name, ann.identity, "PA_1")
        media.tell("participant_left", air.name, air.host.identity, "PA_1")
        time.sleep(GRACE + BLINK + 0.5)  # nothing is to happen, and nothing tells when it has not
        assert world.host.sitting() == {1: ann.identity}
        assert live(air)[0] == "live"
        engine.media.start()
        until(lambda: not world.host.sitting())
        until(lambda: live(air)[0] == "ended")
