"""Live streams on rooms in memory, with the engine's own rules: host, viewers, stage and hands."""

from __future__ import annotations

from utd_fsm.room_models import UTDBroadcast

from .room_world import RoomWorld, do, until


async def test_an_evening_as_a_viewer_sees_it(rooms: RoomWorld) -> None:
    host = await rooms.stream("host", as_host=True)
    ann = await rooms.stream("ann")
    bob = await rooms.stream("bob")
    assert host.is_host and not ann.is_host
    assert ann.broadcast.value is UTDBroadcast.WAITING
    await do(host.go_live)
    assert host.broadcast.value is UTDBroadcast.LIVE
    await until(lambda: ann.broadcast.value is UTDBroadcast.LIVE)
    await until(lambda: rooms.heard_by(ann) == {("host", "microphone"), ("host", "camera")})
    await do(ann.request_stage)
    assert [hand.identity for hand in ann.hands.value] == ["ann"]
    await until(lambda: [hand.identity for hand in host.hands.value] == ["ann"])
    await do(host.invite_to_stage, "ann")
    assert [one.identity for one in host.stage.value] == ["ann"]
    assert host.hands.value == ()
    await until(lambda: ann.can_publish.value)
    await do(ann.set_microphone, True)
    await until(lambda: ("ann", "microphone") in rooms.heard_by(bob))
    await do(host.remove_from_stage, "ann")
    await until(lambda: ("ann", "microphone") not in rooms.heard_by(bob))
    await until(lambda: ann.stage.value == ())
    await do(host.end_live)
    assert host.broadcast.value is UTDBroadcast.ENDED
    assert await ann.wait_until_ended() is UTDBroadcast.ENDED
    assert await bob.wait_until_ended() is UTDBroadcast.ENDED
