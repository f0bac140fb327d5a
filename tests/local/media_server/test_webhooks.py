"""Webhooks, received as an application would: with LiveKit's own `WebhookReceiver` (LiveKit facts, 35-36)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from livekit import api, rtc
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from tests.local.media_server.studio import KEY, PATIENCE, SECRET, Client, Studio, studio, token, who

pytestmark = pytest.mark.media


class Receiver:
    """An application's endpoint: verifies every event; `answers` decides the status of the nth request."""

    def __init__(self) -> None:
        self.events: list[WebhookEvent] = []
        self.times: list[float] = []
        self.content_types: set[str] = set()
        self.requests = 0
        self.answers: Callable[[int], int] = lambda _number: 200
        self._verifier = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
        self._arrived = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.times.append(time.monotonic())
        self.content_types.add(request.headers["Content-Type"])
        event = self._verifier.receive((await request.read()).decode(), request.headers["Authorization"])
        status = self.answers(self.requests)
        if status == 200:
            self.events.append(event)
        self._arrived.set()
        return web.Response(status=status)

    def names(self) -> list[str]:
        return [event.event for event in self.events]

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._arrived.clear()
                await self._arrived.wait()

    async def event(self, name: str, matches: Callable[[WebhookEvent], bool] = lambda _: True) -> WebhookEvent:
        await self.until(lambda: any(e.event == name and matches(e) for e in self.events))
        return next(e for e in self.events if e.event == name and matches(e))


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Receiver, Studio]]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with studio(webhook_url=f"http://127.0.0.1:{runner.addresses[0][1]}/hook") as house:
            yield receiver, house
    finally:
        await runner.cleanup()


async def test_the_whole_story_of_a_room_in_order(single: bool) -> None:
    async with listening() as (receiver, house):
        config = api.RoomConfiguration(departure_timeout=1)
        alice = await house.join("alice", single=single, config=config, can_publish_sources=["microphone"])
        microphone = await house.tone(alice, 440)
        await receiver.event("track_published")  # one taken back before its offer was never published
        await alice.me.unpublish_track(microphone.sid)
        await receiver.event("track_unpublished")
        await alice.room.disconnect()
        await receiver.event("room_finished")
    assert receiver.names() == [
        "room_started", "participant_joined", "track_published", "track_unpublished", "participant_left",
        "room_finished",
    ]  # fmt: skip
    started, joined, published, unpublished, left, finished = receiver.events
    assert {event.room.sid for event in receiver.events} == {started.room.sid}
    assert started.room.name == "room"
    assert joined.participant.identity == "alice"
    assert joined.participant.state == models.ParticipantInfo.ACTIVE
    assert list(joined.participant.permission.can_publish_sources) == [models.MICROPHONE]
    assert published.track.sid == unpublished.track.sid == microphone.sid
    assert published.participant.sid == left.participant.sid == joined.participant.sid
    assert left.participant.disconnect_reason == models.CLIENT_INITIATED
    assert finished.room.num_participants == 0
    assert len({event.id for event in receiver.events}) == len(receiver.events)
    assert all(abs(event.created_at - time.time()) < 60 for event in receiver.events)
    assert receiver.content_types == {"application/webhook+json"}


async def test_the_reasons_of_leaving() -> None:
    async with listening() as (receiver, house):
        for name in ("removed", "double", "deleted"):
            await house.join(name)
        await house.join("double")
        await house.lk.room.remove_participant(who("removed"))
        await house.lk.room.delete_room(api.DeleteRoomRequest(room="room"))
        await receiver.event("room_finished")
        left = [
            (e.participant.identity, e.participant.disconnect_reason)
            for e in receiver.events
            if e.event == "participant_left"
        ]
    assert left == [
        ("double", models.DUPLICATE_IDENTITY),
        ("removed", models.PARTICIPANT_REMOVED),
        ("deleted", models.ROOM_DELETED),
        ("double", models.ROOM_DELETED),
    ]
    assert receiver.names()[-1] == "room_finished"


async def test_a_resume_sends_nothing_and_a_full_reconnect_a_leave_and_a_join() -> None:
    async with listening() as (receiver, house):
        alice = await house.join("alice")
        await receiver.event("participant_joined")
        await alice.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
        await alice.event("reconnected")
        assert receiver.names() == ["room_started", "participant_joined"]
        old = receiver.events[-1].participant.sid
        await alice.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
        await receiver.event("participant_joined", lambda event: event.participant.sid != old)
        left = await receiver.event("participant_left")
        assert (left.participant.sid, left.participant.disconnect_reason) == (old, models.CLIENT_INITIATED)


async def test_one_who_goes_before_media_is_up_has_not_joined(single: bool) -> None:
    import aiohttp

    async with listening() as (receiver, house):
        async with aiohttp.ClientSession(house.url) as http:
            link = await http.ws_connect("/rtc", params={"access_token": token("alice")})
            await link.receive()
            room = house.server.find_room("room")
            assert room is not None
            await link.close()
            peer = room.get("alice")
            assert peer is not None
            room.leave(peer, models.CLIENT_INITIATED)
        await receiver.event("participant_connection_aborted")
    assert "participant_joined" not in receiver.names()
    assert "participant_left" not in receiver.names()


async def test_a_5xx_is_tried_again_and_holds_back_the_same_room_only() -> None:
    async with listening() as (receiver, house):
        receiver.answers = lambda number: 503 if number == 1 else 200
        await house.lk.room.create_room(api.CreateRoomRequest(name="slow"))
        await receiver.until(lambda: receiver.requests == 1)
        await house.lk.room.delete_room(api.DeleteRoomRequest(room="slow"))
        await house.lk.room.create_room(api.CreateRoomRequest(name="other"))
        await receiver.event("room_finished", lambda event: event.room.name == "slow")
    found = [(event.room.name, event.event) for event in receiver.events]
    assert found[0] == ("other", "room_started")
    assert found[1:3] == [("slow", "room_started"), ("slow", "room_finished")]
    assert receiver.times[2] - receiver.times[0] >= 0.9


async def test_a_404_is_final() -> None:
    async with listening() as (receiver, house):
        receiver.answers = lambda number: 404 if number == 1 else 200
        await house.lk.room.create_room(api.CreateRoomRequest(name="room"))
        await house.lk.room.delete_room(api.DeleteRoomRequest(room="room"))
        await receiver.event("room_finished")
    assert receiver.names() == ["room_finished"]
    assert receiver.requests == 2


async def test_nobody_listens() -> None:
    """An endpoint that is not there keeps nobody from talking."""
    async with studio(webhook_url="http://127.0.0.1:9/hook") as house:
        alice, bob = await house.join("alice"), await house.join("bob")
        await alice.me.publish_data(b"x")
        await bob.event("data_received")
        assert isinstance(alice, Client)
