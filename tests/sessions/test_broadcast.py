"""Where a stream is: the pair of what the engine keeps and what LiveKit lists. The driver alone, then in sessions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from utd_fsm import room_wire as rw
from utd_fsm.errors import UTDConnectionError, UTDStateError, UTDTimeoutError
from utd_fsm.machines.base import Step
from utd_fsm.models import UTDConnectionState
from utd_fsm.room_models import UTDBroadcast
from utd_fsm.sessions.broadcast import BroadcastDriver
from utd_fsm.sessions.live_stream import LiveStreamSession
from utd_fsm.sessions.timing import Timing

from .room_world import RoomWorld, begin, do, until
from .scripted import TimerLoop, turns

WAITING, LIVE, AWAY, ENDED = UTDBroadcast.WAITING, UTDBroadcast.LIVE, UTDBroadcast.HOST_AWAY, UTDBroadcast.ENDED
SETTLE, GRACE = Timing().settle, Timing().grace


class Air:
    """One driver, a host that is listed or not, and what was shown."""

    def __init__(self) -> None:
        self.listed = False
        self.steps: list[Step] = []
        self.driver = BroadcastDriver(host_listed=lambda: self.listed, on_step=self.steps.append, timing=Timing())

    @property
    def shown(self) -> UTDBroadcast:
        return self.driver.shown

    def host(self, listed: bool) -> None:
        self.listed = listed
        self.driver.read()


@pytest.fixture
def loop() -> Iterator[TimerLoop]:
    made = TimerLoop()
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


def on(loop: TimerLoop, *steps: object) -> None:
    """Run steps inside the loop, as its owner would."""

    async def run() -> None:
        for step in steps:
            assert callable(step)
            step()
            await turns(3)

    loop.run_until_complete(run())


# ---------------------------------------------------------------------------------------------------- the driver alone


def test_waiting_until_it_has_begun_though_the_host_is_there(loop: TimerLoop) -> None:
    air = Air()
    air.listed = True
    on(loop, lambda: air.driver.said(WAITING), air.driver.connected)
    assert air.shown is WAITING
    on(loop, lambda: air.driver.said(LIVE))
    assert air.shown is LIVE


def test_where_nothing_is_kept_presence_alone_decides(loop: TimerLoop) -> None:
    air = Air()
    on(loop, air.driver.connected)
    assert air.shown is WAITING
    on(loop, lambda: air.host(True))
    assert air.shown is LIVE
    on(loop, lambda: air.host(False))
    assert air.shown is AWAY
    assert loop.fire(GRACE) == 1
    assert air.shown is ENDED


def test_who_joins_a_stream_that_is_live_believes_it_before_its_host_is_listed(loop: TimerLoop) -> None:
    air = Air()
    on(loop, lambda: air.driver.said(LIVE), air.driver.connected)
    assert air.shown is LIVE
    on(loop, lambda: loop.fire(SETTLE))
    assert air.shown is AWAY


def test_who_joins_a_stream_that_is_live_and_finds_its_host_is_not_fooled_for_long(loop: TimerLoop) -> None:
    air = Air()
    on(loop, lambda: air.driver.said(LIVE), air.driver.connected, lambda: air.host(True))
    assert loop.running(SETTLE) == 0
    on(loop, lambda: air.host(False))
    assert air.shown is AWAY, "listed once, a departure counts at once"


def test_who_joins_while_the_host_is_away_sees_no_flash_of_live(loop: TimerLoop) -> None:
    air = Air()
    on(loop, lambda: air.driver.said(AWAY), air.driver.connected)
    assert [step.after for step in air.steps] == ["host_away"]


def test_a_host_that_is_back_is_live_before_the_engine_says_so(loop: TimerLoop) -> None:
    air = Air()
    air.listed = True
    on(
        loop,
        air.driver.connected,
        lambda: air.driver.said(LIVE),
        lambda: air.host(False),
        lambda: air.driver.said(AWAY),
    )
    assert air.shown is AWAY
    on(loop, lambda: air.host(True))
    assert air.shown is LIVE
    assert loop.running(GRACE) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_in_which_both_sources_are_heard_changes_nothing(loop: TimerLoop, order: tuple[int, ...]) -> None:
    air = Air()
    news = [
        lambda: air.driver.said(WAITING),
        lambda: air.driver.said(LIVE),
        lambda: air.host(False),
        lambda: air.host(True),
    ]
    # Each source in its own order; between the two any.
    kept = [news[i] for i in sorted(order, key=lambda i: order.index(i))]
    if kept.index(news[0]) < kept.index(news[1]) and kept.index(news[2]) < kept.index(news[3]):
        on(loop, air.driver.connected, *kept)
        assert air.shown is LIVE


def test_nothing_is_read_while_away_and_the_grace_stands_still(loop: TimerLoop) -> None:
    air = Air()
    air.listed = True
    on(loop, air.driver.connected)
    on(loop, air.driver.away, lambda: air.host(False))
    assert air.shown is LIVE
    on(loop, air.driver.connected)
    assert air.shown is AWAY
    assert loop.running(GRACE) == 1
    on(loop, air.driver.away)
    assert loop.running(GRACE) == 0
    on(loop, air.driver.connected, air.driver.close)
    assert loop.running(GRACE) == 0


def test_ended_counts_whenever_it_is_heard_and_is_for_good(loop: TimerLoop) -> None:
    air = Air()
    on(loop, air.driver.connected, air.driver.away, lambda: air.driver.said(ENDED))
    assert air.shown is ENDED
    air.listed = True
    on(loop, air.driver.connected, lambda: air.driver.said(LIVE), air.driver.over)
    assert air.shown is ENDED
    assert [step.after for step in air.steps] == ["over"]


# --------------------------------------------------------------------------------------------------------- in sessions


async def on_air(rooms: RoomWorld) -> tuple[LiveStreamSession, LiveStreamSession]:
    """A host that is live, and a viewer who sees it."""
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    await do(host.go_live)
    await until(lambda: ann.broadcast.value is LIVE)
    return host, ann


def values(session: LiveStreamSession) -> list[UTDBroadcast]:
    """What is shown from now on."""
    seen = [session.broadcast.value]
    session.broadcast._feeds[lambda state: seen.append(state.value)] = None
    return seen


async def test_the_host_drops_and_comes_back(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    seen = values(ann)
    rooms.engine.media.joining.clear()
    rooms.engine.media.lose("room", "host")
    await until(lambda: ann.broadcast.value is AWAY)
    assert rooms.engine.truth().live is AWAY
    rooms.engine.media.joining.set()
    await until(lambda: ann.broadcast.value is LIVE)
    await until(lambda: rooms.heard_by(ann) == {("host", "microphone"), ("host", "camera")})
    assert host.broadcast.value is LIVE
    assert seen == [LIVE, AWAY, LIVE]


async def test_the_host_does_not_come_back(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    await do(host.leave)
    await until(lambda: ann.broadcast.value is AWAY)
    waiting = begin(ann.wait_until_ended)
    await until(lambda: rooms.engine.truth().live is AWAY)
    rooms.engine.live_over()
    assert await waiting is ENDED
    with pytest.raises(UTDStateError, match="ended"):
        await do(ann.request_stage)


async def test_the_grace_ends_it_where_no_engine_does(rooms: RoomWorld) -> None:
    rooms.engine.keeps_live = False
    rooms.timing = replace(rooms.timing, grace=0.05)
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    await until(lambda: ann.broadcast.value is LIVE)
    assert host.broadcast.value is WAITING
    await do(host.leave)
    await until(lambda: ann.broadcast.value is AWAY)
    assert await ann.wait_until_ended() is ENDED


async def test_who_joins_later_sees_where_it_is(rooms: RoomWorld) -> None:
    host, _ = await on_air(rooms)
    late = await rooms.stream("late")
    assert late.broadcast.value is LIVE
    await do(host.leave)
    await until(lambda: rooms.engine.truth().live is AWAY)
    later = await rooms.stream("later")
    assert later.broadcast.value is AWAY
    rooms.engine.live_over()
    last = await rooms.stream("last")
    assert last.broadcast.value is ENDED
    assert await last.wait_until_ended(timeout=0) is ENDED


async def test_only_the_word_of_the_host_itself_ends_it(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    bob = await rooms.stream("bob")
    looks, sent = rooms.engine.looks, len(rooms.person("ann").sent)
    end = rw.message_json(rw.LIVE_ENDED)
    rooms.engine.forge(rw.LIVE_ENDED)  # nobody's: whoever is not announced yet, or who says it is the engine
    await do(bob.send_data, end)  # somebody's who is known, and no host
    mallory = await rooms.engine.intruder()
    await mallory.send_data(end)
    await rooms.engine.media.settled()
    await asyncio.sleep(0.05)
    assert ann.broadcast.value is LIVE
    assert (rooms.engine.looks, len(rooms.person("ann").sent)) == (looks, sent), "not even a request"
    await do(host.send_data, end)
    await until(lambda: ann.broadcast.value is ENDED)
    await mallory.disconnect()


async def test_an_admin_is_no_host(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    bob = await rooms.stream("bob")
    await do(host.promote, "bob")
    await until(lambda: bob.role == "admin")
    await do(bob.send_data, rw.message_json(rw.LIVE_ENDED))
    await rooms.engine.media.settled()
    assert ann.broadcast.value is LIVE


async def test_a_deleted_room_is_an_end_before_it_is_an_exit(rooms: RoomWorld) -> None:
    _, ann = await on_air(rooms)
    seen: list[tuple[UTDBroadcast, UTDConnectionState]] = []
    for observable in (ann.broadcast, ann.connection):
        observable._feeds[lambda _: seen.append((ann.broadcast.value, ann.connection.value))] = None
    rooms.engine.media.delete_room("room")
    await until(lambda: ann.connection.value is UTDConnectionState.FORCE_EXIT)
    assert (LIVE, UTDConnectionState.FORCE_EXIT) not in seen
    assert ann.broadcast.value is ENDED
    assert await ann.wait_until_ended() is ENDED


async def test_a_thrown_out_viewer_is_told_that_it_will_see_no_end(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    waiting = begin(ann.wait_until_ended)
    await do(host.kick, "ann")
    with pytest.raises(UTDConnectionError):
        await waiting
    assert ann.broadcast.finished
    assert ann.broadcast.value is LIVE
    await do(ann.join)
    assert not ann.broadcast.finished
    assert ann.broadcast.value is LIVE


async def test_a_wait_that_times_out_changes_nothing(rooms: RoomWorld) -> None:
    _, ann = await on_air(rooms)
    with pytest.raises(UTDTimeoutError):
        await ann.wait_until_ended(timeout=0.01)
    assert ann.broadcast.value is LIVE
    await do(ann.leave)
    with pytest.raises(UTDStateError):
        await ann.wait_until_ended()


async def test_the_end_finishes_what_waits_for_the_broadcast(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    await do(host.end_live)
    await until(lambda: ann.broadcast.finished)
    assert host.broadcast.finished
    state = ann.broadcast._state.end
    assert state is not None
    assert isinstance(state(), UTDStateError)


async def test_metadata_told_late_twice_and_in_another_order_moves_nothing_back(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    await do(host.invite_to_stage, "ann")
    seen = values(ann)
    rooms.engine.telling = False
    for index in (0, -1, 1, 0, -1, 2):
        rooms.engine.tell(index=index)
        await rooms.engine.media.settled()
        assert ann.broadcast.value is LIVE
        assert [one.identity for one in ann.stage.value] == ["ann"]
    assert seen == [LIVE]


async def test_a_media_restart_is_no_departure(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    seen = values(ann)
    rooms.engine.media.stop()
    await until(lambda: ann.connection.value is UTDConnectionState.RECONNECTING)
    rooms.engine.media.start()
    await rooms.engine.media.settled()
    rooms.engine.put_right()
    await until(lambda: host.connected.value and ann.connected.value)
    await rooms.engine.media.settled()
    await asyncio.sleep(2 * rooms.timing.settle)
    assert seen == [LIVE]


async def test_a_stream_that_begins_again_is_another_for_its_host(rooms: RoomWorld) -> None:
    host, ann = await on_air(rooms)
    await do(host.end_live)
    await until(lambda: ann.broadcast.value is ENDED)
    await do(host.go_live)
    assert host.broadcast.value is LIVE
    await rooms.engine.media.settled()
    assert ann.broadcast.value is ENDED, "over is for good: it joins again"
    await do(ann.leave)
    await do(ann.join)
    assert ann.broadcast.value is LIVE
