"""Live streams with engines that keep, carry or answer less than ours does, and what a hint is worth then."""

from __future__ import annotations

import asyncio

from utd_fsm import room_wire as rw
from utd_fsm.room_models import UTDBroadcast

from .room_world import RoomWorld, do, until
from .test_live_stream import names, on_stage, source, state

LIVE, WAITING, ENDED = UTDBroadcast.LIVE, UTDBroadcast.WAITING, UTDBroadcast.ENDED


async def test_an_engine_with_short_answers_is_asked_again(rooms: RoomWorld) -> None:
    rooms.engine.short = True
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    await do(host.go_live)
    assert host.broadcast.value is LIVE
    await do(ann.request_stage)
    assert names(ann.hands.value) == ["ann"]
    await do(host.invite_to_stage, "ann")
    assert names(host.stage.value) == ["ann"]
    await until(lambda: state(ann) == "on_stage")
    await do(ann.leave_stage)
    assert state(ann) == "audience"


async def test_where_metadata_say_it_all_a_hint_is_no_request_at_all(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    looks = rooms.engine.looks
    for _ in range(50):
        rooms.engine.forge(rw.STAGE_UPDATE, {"stage": [{"identity": "mallory"}], "version": 10**9})
        rooms.engine.forge(rw.STAGE_REQUESTED, {"identity": "ann"})
        rooms.engine.forge(rw.ROLE_CHANGE, {"identity": "ann", "role": "admin"})
        rooms.engine.forge(rw.COMMENT_LOCK, {"locked": True})
    await rooms.engine.media.settled()
    await asyncio.sleep(0.05)
    assert rooms.engine.looks == looks
    assert (host.stage.value, host.hands.value, ann.stage.value, ann.chat_locked.value) == ((), (), (), False)
    assert ann.role == "audience"


async def test_an_engine_whose_metadata_has_no_stage_is_looked_at(rooms: RoomWorld) -> None:
    rooms.engine.carries_stage = False
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    assert rooms.engine.looks == 2, "one for each first snapshot"
    await do(ann.request_stage)
    await until(lambda: names(host.hands.value) == ["ann"])
    await do(host.invite_to_stage, "ann")
    await until(lambda: state(ann) == "on_stage")


async def test_an_engine_that_does_not_keep_the_state_is_gone_live_with(rooms: RoomWorld) -> None:
    rooms.engine.keeps_live = rooms.engine.knows_live = False
    host = await rooms.stream("host", as_host=True)
    assert host.broadcast.value == WAITING
    await do(host.go_live)
    assert host.broadcast.value == LIVE
    ann = await rooms.stream("ann")
    assert ann.broadcast.value == LIVE
    await do(host.end_live)
    assert host.broadcast.value == ENDED
    assert await ann.wait_until_ended() is ENDED


async def test_hands_of_an_engine_that_keeps_none(rooms: RoomWorld) -> None:
    rooms.engine.keeps_hands = False
    host = await rooms.stream("host", as_host=True)
    ann, bob = await rooms.stream("ann"), await rooms.stream("bob")
    await do(ann.request_stage)
    assert state(ann) == "audience", "nothing hangs"
    await until(lambda: names(host.hands.value) == ["ann"])
    seq = host.hands._state.number
    for who in ("ann", "ann", "nobody", 7, None):
        rooms.engine.forge(rw.STAGE_REQUESTED, {"identity": who})
    await rooms.engine.media.settled()
    assert (names(host.hands.value), host.hands._state.number) == (["ann"], seq)
    rooms.engine.forge(rw.STAGE_REQUESTED, {"identity": "bob", "name": "Bob"})
    await until(lambda: names(host.hands.value) == ["ann", "bob"])
    assert ann.hands.value == (), "only the host and admins are told"
    await do(host.invite_to_stage, "ann")
    assert names(host.hands.value) == ["bob"]
    await do(bob.leave)
    await until(lambda: host.hands.value == ())


async def test_an_engine_without_versions_is_followed_by_its_metadata(rooms: RoomWorld) -> None:
    rooms.engine.versions = rooms.engine.keeps_hands = False
    host, ann = await on_stage(rooms)
    assert names(host.stage.value) == ["ann"]
    await do(host.remove_from_stage, "ann")
    await until(lambda: state(ann) == "audience" and source(ann) == "off")
    assert host.stage.value == ()
    await do(host.end_live)
    assert await ann.wait_until_ended() is ENDED
