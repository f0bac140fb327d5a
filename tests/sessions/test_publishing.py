"""The Source driver by itself: what `enable` promises, the order of calls on a Room, what is sent when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.sessions.conftest import SHORT
from tests.sessions.scripted import Feeding, ScriptedRoom, turns
from utd_fsm.errors import UTDConnectionError, UTDPermissionError, UTDStateError, UTDStreamException, UTDTimeoutError
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import RoomOptions
from utd_fsm.sessions.publishing import SourceDriver
from utd_fsm.sessions.timing import Timing

MIC = UTDTrackSource.MICROPHONE


class Rig:
    """A driver in a scripted room."""

    def __init__(self, timing: Timing = SHORT) -> None:
        self.entitled = True
        self.refused: UTDStreamException | None = None
        self.room = ScriptedRoom(lambda event: None, RoomOptions())
        self.feeding = Feeding()
        self.states: list[str] = []
        self.driver = SourceDriver(
            MIC,
            publish=lambda room: room.publish_audio(MIC),
            entitled=lambda: self.entitled,
            refusal=lambda: self.refused,
            on_change=lambda step: self.states.append(step.after),
            timing=timing,
        )
        self.driver.media = self.feeding

    def join(self, granted: bool, room: ScriptedRoom | None = None) -> None:
        self.room = room or self.room
        self.room.grant(granted)
        self.driver.room_joined(self.room, granted)

    def permission(self, granted: bool) -> None:
        self.room.grant(granted)
        self.driver.reading(granted)

    def enable(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.driver.enable())

    async def publish(self) -> None:
        await turns()
        assert self.room.call is not None
        assert self.room.call[0] == "publish"
        self.room.finish_call()
        await turns()

    async def take_down(self) -> None:
        await turns()
        assert self.room.call is not None
        assert self.room.call[0] == "unpublish"
        self.room.finish_call()
        await turns()

    async def on(self) -> None:
        self.join(True)
        enabling = self.enable()
        await self.publish()
        await enabling
        assert self.driver.state == "on"


async def test_enable_returns_when_it_is_on() -> None:
    r = Rig()
    r.join(True)
    enabling = r.enable()
    await turns()
    assert r.driver.state == "publishing"
    assert not enabling.done()
    assert not r.feeding.sends
    await r.publish()
    await enabling
    assert r.driver.state == "on"
    assert r.feeding.publication is r.driver.publication
    assert r.feeding.sends
    await r.driver.enable()
    assert r.room.published == 1


async def test_it_waits_for_the_grant() -> None:
    r = Rig()
    r.join(False)
    enabling = r.enable()
    await turns()
    assert r.driver.state == "waiting"
    assert r.room.call is None
    r.permission(True)
    await r.publish()
    await enabling


async def test_the_grant_that_does_not_come_is_a_timeout() -> None:
    r = Rig(replace(SHORT, grant=0.02))
    r.join(False)
    with pytest.raises(UTDTimeoutError, match="permission"):
        await r.enable()
    assert r.driver.state == "off"


async def test_the_ten_seconds_run_only_while_connected() -> None:
    r = Rig(replace(SHORT, grant=0.05))
    r.join(False)
    enabling = r.enable()
    await turns()
    r.driver.link_lost()
    await asyncio.sleep(0.15)
    assert r.driver.state == "waiting"
    r.join(False)
    with pytest.raises(UTDTimeoutError):
        await enabling


async def test_refused_at_once_when_the_grant_cannot_come() -> None:
    r = Rig()
    r.join(False)
    r.entitled = False
    with pytest.raises(UTDPermissionError, match="not granted"):
        await r.driver.enable()
    assert r.driver.state == "off"
    # Granted is granted, whatever the records say.
    r.permission(True)
    enabling = r.enable()
    await r.publish()
    await enabling


async def test_a_further_reason_refuses_too_also_when_muted() -> None:
    r = Rig()
    await r.on()
    r.driver.muted_by_other()
    r.refused = UTDPermissionError("your seat is muted")
    with pytest.raises(UTDPermissionError, match="seat"):
        await r.driver.enable()
    assert r.driver.state == "muted"
    r.refused = None
    await r.driver.enable()
    assert r.driver.state == "on"


async def test_a_second_enable_joins_the_wait() -> None:
    r = Rig()
    r.join(False)
    first, second = r.enable(), r.enable()
    await turns()
    r.permission(True)
    await r.publish()
    await asyncio.gather(first, second)
    assert r.room.published == 1


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_enable_withdraws_the_wish(granted: bool) -> None:
    r = Rig()
    r.join(granted)
    enabling = r.enable()
    await turns()
    enabling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await enabling
    if granted:
        assert r.driver.state == "stopping"
        await r.publish()
        # The late publish is taken down by who made it, and then once more by the stop that was queued.
        await r.take_down()
        await r.take_down()
    assert r.driver.state == "off"
    assert r.room.tracks == {}
    assert not r.feeding.sends


async def test_a_cancelled_enable_leaves_the_wish_of_another() -> None:
    r = Rig()
    r.join(False)
    first, second = r.enable(), r.enable()
    await turns()
    first.cancel()
    await turns()
    assert r.driver.state == "waiting"
    second.cancel()
    await turns()
    assert r.driver.state == "off"


async def test_a_cancelled_enable_leaves_a_source_that_was_on_before_the_drop() -> None:
    r = Rig()
    await r.on()
    r.driver.room_lost()
    assert r.driver.state == "waiting"
    joining = r.enable()
    await turns()
    joining.cancel()
    await turns()
    assert r.driver.state == "waiting", "the wish is older than the call that was cancelled"


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (lambda r: r.driver.stop_now(), UTDStateError),
        (lambda r: r.driver.stop_now(UTDConnectionError("gone")), UTDConnectionError),
        (lambda r: r.driver.room_left(), UTDStateError),
        (lambda r: r.permission(False), UTDPermissionError),
        (lambda r: r.room.finish_call(UTDPermissionError("refused")), UTDPermissionError),
        (lambda r: r.room.finish_call(RuntimeError("a fault")), UTDConnectionError),
    ],
)
async def test_what_comes_between_is_raised(deed: Any, error: type[Exception]) -> None:
    r = Rig()
    r.join(True)
    enabling = r.enable()
    await turns()
    deed(r)
    with pytest.raises(error):
        await enabling
    assert r.driver.state in ("off", "stopping")


async def test_enable_while_stopping_waits_for_off() -> None:
    r = Rig()
    await r.on()
    stopping = asyncio.create_task(r.driver.stop())
    await turns()
    assert r.driver.state == "stopping"
    assert not r.feeding.sends, "silent before the Room has answered"
    enabling = r.enable()
    await turns()
    assert not enabling.done()
    await r.take_down()
    await stopping
    await r.publish()
    await enabling
    assert r.states == ["waiting", "publishing", "on", "stopping", "off", "waiting", "publishing", "on"]


async def test_mute_keeps_the_track() -> None:
    r = Rig()
    await r.on()
    await r.driver.mute()
    publication = r.driver.publication
    assert publication is not None
    assert publication.muted
    assert not r.feeding.sends
    await r.driver.mute()
    await r.driver.enable()
    assert r.driver.publication is publication
    assert not publication.muted
    assert r.feeding.sends
    assert r.room.published == 1


async def test_a_moderator_mutes_and_only_we_unmute() -> None:
    r = Rig()
    await r.on()
    r.room.tracks[MIC].muted = True
    r.driver.muted_by_other()
    await turns()
    assert r.driver.state == "muted"
    assert not r.feeding.sends
    # An unmute from outside is undone: the application did not ask to be heard.
    r.room.tracks[MIC].muted = False
    r.driver.muted_by_other(False)
    await turns()
    assert r.room.tracks[MIC].muted
    await r.driver.enable()
    assert not r.room.tracks[MIC].muted


async def test_a_revoked_grant_takes_the_track_down_and_regaining_it_does_nothing() -> None:
    r = Rig()
    await r.on()
    r.permission(False)
    assert r.driver.state == "stopping"
    assert not r.feeding.sends
    await r.take_down()
    r.permission(True)
    await turns()
    assert r.driver.state == "off"
    assert r.room.call is None


async def test_a_grant_missing_at_the_first_reading_after_a_reconnect_may_come_back() -> None:
    r = Rig()
    await r.on()
    r.driver.link_lost()
    assert r.driver.state == "on"
    assert not r.feeding.sends
    r.join(False)
    assert r.driver.state == "waiting"
    await r.take_down()
    r.permission(True)
    await r.publish()
    assert r.driver.state == "on"
    assert r.feeding.sends


async def test_a_grant_that_falls_right_after_a_return_belongs_to_the_first_reading() -> None:
    r = Rig(replace(SHORT, first_reading=0.1))
    await r.on()
    r.driver.link_lost()
    r.join(True)
    r.permission(False)
    assert r.driver.state == "waiting"
    await r.take_down()
    r.permission(True)
    await r.publish()
    assert r.driver.state == "on"
    await asyncio.sleep(0.12)
    r.permission(False)
    assert r.driver.state == "stopping"


async def test_livekits_own_reconnect_changes_nothing() -> None:
    r = Rig()
    await r.on()
    r.driver.link_lost()
    r.join(True)
    await turns()
    assert r.driver.state == "on"
    assert r.feeding.sends
    assert r.room.published == 1


async def test_a_dead_room_is_followed_by_a_publish_in_the_next() -> None:
    r = Rig()
    await r.on()
    r.driver.room_lost()
    assert r.driver.state == "waiting"
    assert r.feeding.publication is None
    r.join(True, ScriptedRoom(lambda event: None, RoomOptions()))
    await r.publish()
    assert r.driver.state == "on"


async def test_what_was_muted_is_off_in_the_next_room() -> None:
    r = Rig()
    await r.on()
    await r.driver.mute()
    r.driver.room_lost()
    assert r.states[-2:] == ["stopping", "off"]
    r.join(True, ScriptedRoom(lambda event: None, RoomOptions()))
    await turns()
    assert r.driver.state == "off"


async def test_a_publish_under_way_in_a_dead_room_comes_home_to_nobody() -> None:
    r = Rig()
    r.join(True)
    enabling = r.enable()
    await turns()
    old = r.room
    r.driver.room_lost()
    r.join(True, ScriptedRoom(lambda event: None, RoomOptions()))
    old.finish_call()
    await turns()
    assert r.driver.state == "publishing"
    assert r.feeding.publication is None
    await r.publish()
    await enabling
    assert r.driver.publication is r.room.tracks[MIC]


async def test_publishing_first_removes_what_the_room_still_lists() -> None:
    """LiveKit publishes again by itself after a full reconnect."""
    r = Rig()
    r.join(True)
    republished = asyncio.create_task(r.room.publish_audio(MIC))
    await turns()
    r.room.finish_call()
    await republished
    enabling = r.enable()
    await r.take_down()
    await r.publish()
    await enabling
    assert list(r.room.tracks.values()) == [r.driver.publication]


async def test_mutes_and_stops_queue_behind_a_publish() -> None:
    r = Rig()
    r.join(True)
    enabling = r.enable()
    await turns()
    muting = asyncio.create_task(r.driver.mute())
    await turns()
    assert r.driver.state == "stopping", "a publish under way that is not wanted any more is taken down"
    with pytest.raises(UTDStateError):
        await enabling
    await r.publish()
    await r.take_down()
    await r.take_down()
    await muting
    assert r.driver.state == "off"


async def test_new_media_goes_on_where_the_track_is() -> None:
    r = Rig()
    await r.on()
    other = Feeding()
    r.driver.media = other
    assert r.feeding.publication is None
    assert other.sends
    await r.driver.mute()
    third = Feeding()
    r.driver.media = third
    assert third.publication is not None
    assert not third.sends


async def test_unpublish_that_fails_does_not_hang() -> None:
    r = Rig()
    await r.on()
    stopping = asyncio.create_task(r.driver.stop())
    await turns()
    r.room.finish_call(UTDConnectionError("hiccup"))
    await stopping
    assert r.driver.state == "off"
