"""The room's routes, awaited: the same is sent and answered as by the blocking ones, never on the loop thread."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from tests.engine_answers import KEY, TICKET
from tests.http_stub import Reply, Seen
from tests.room_answers import BAN, BANS, ROOM, ROUTES, signed_in
from utd_fsm.models import UTDStreamType
from utd_fsm.portal import portal
from utd_fsm.sessions.engine_rooms import EngineRoom

AWAITED: dict[str, Callable[[EngineRoom], Any]] = {
    "stage": lambda room: room.stage(key=KEY),
    "stage_request": lambda room: room.stage_request(key=KEY),
    "stage_lower": lambda room: room.stage_lower(key=KEY),
    "stage_leave": lambda room: room.stage_leave(key=KEY),
    "stage_add": lambda room: room.stage_add("bob"),
    "stage_remove": lambda room: room.stage_remove("bob"),
    "live_start": lambda room: room.live_start(),
    "live_end": lambda room: room.live_end(),
    "seats": lambda room: room.seats(key=KEY),
    "setup_seats": lambda room: room.setup_seats(count=8, mode="request", mode_id="party"),
    "take": lambda room: room.take(3, key=KEY),
    "leave": lambda room: room.leave(key=KEY),
    "move": lambda room: room.move(4, key=KEY),
    "kick": lambda room: room.kick(3),
    "lock": lambda room: room.lock(3),
    "unlock": lambda room: room.unlock(3),
    "mute": lambda room: room.mute(3),
    "unmute": lambda room: room.unmute(3),
    "swap": lambda room: room.swap(1, 2),
    "mute_all": lambda room: room.mute_all(False),
    "request": lambda room: room.request(key=KEY),
    "cancel": lambda room: room.cancel(key=KEY),
    "requests": lambda room: room.requests(),
    "approve": lambda room: room.approve(4),
    "reject": lambda room: room.reject(4),
    "invite": lambda room: room.invite("bob", 2),
    "accept": lambda room: room.accept(5, key=KEY),
    "decline": lambda room: room.decline(5, key=KEY),
    "remove_participant": lambda room: room.remove_participant("bob"),
    "mute_participant": lambda room: room.mute_participant("bob", audio=True, video=True, muted=True),
    "set_role": lambda room: room.set_role("bob", "admin"),
    "by_role": lambda room: room.by_role("admin"),
    "ban": lambda room: room.ban("bob", reason="noise", duration=60),
    "unban": lambda room: room.unban("bob"),
    "bans": lambda room: room.bans(),
    "lock_comments": lambda room: room.lock_comments(True),
}


def test_awaited_the_same_is_sent_and_answered() -> None:
    def answers(seen: Seen) -> Reply:
        sent = f"{seen.method} {seen.path.split('?')[0].removeprefix('/api/v1')}"
        return Reply(json=next(route.answer for route in ROUTES.values() if route.sent == sent))

    methods = {name for name, _ in inspect.getmembers(EngineRoom, inspect.isfunction) if not name.startswith("_")}
    assert methods == set(AWAITED) | {"way_in"} == set(ROUTES) | {"way_in"}
    with signed_in(answers) as (api, cred, stub):
        room = EngineRoom(portal(), api, cred, ROOM, UTDStreamType.AUDIO_ROOM)
        for name, route in ROUTES.items():

            async def ask(name: str = name) -> Any:
                return await AWAITED[name](room)

            stub.seen.clear()
            answer = portal().call(ask, timeout=60, what="test")
            [seen] = stub.seen
            stub.seen.clear()
            assert answer == route.ask(api, cred), name
            same = stub.seen[0]
            assert (seen.method, seen.path, seen.body, seen.headers) == (
                same.method,
                same.path,
                same.body,
                same.headers,
            ), name


def test_everywhere_is_no_room() -> None:
    with signed_in(Reply(json={**BANS, **BAN})) as (api, cred, stub):
        room = EngineRoom(portal(), api, cred, ROOM, UTDStreamType.AUDIO_ROOM)

        async def ask() -> None:
            await room.ban("bob", everywhere=True)
            await room.unban("bob", everywhere=True)
            await room.bans(everywhere=True)

        portal().call(ask, timeout=60, what="test")
        assert stub.seen[0].body == stub.seen[1].body == {"identity": "bob"}
        assert "room_name" not in stub.seen[2].path


def test_the_way_in_is_asked_for_as_who_one_is() -> None:
    with signed_in(Reply(json={**TICKET, "room_name": ROOM})) as (api, cred, stub):
        room = EngineRoom(portal(), api, cred, ROOM, UTDStreamType.AUDIO_ROOM, metadata={"avatar": "a.png"})

        async def ask() -> None:
            host, viewer = await asyncio.gather(
                room.way_in(as_host=True, seat_count=8, seat_mode="request", mode_id=3, host_seat=1), room.way_in()
            )
            assert host.token == viewer.token == TICKET["token"]

        portal().call(ask, timeout=60, what="test")
        host, viewer = sorted((seen.body for seen in stub.seen), key=lambda body: body["role"], reverse=True)
    assert (host["role"], host["room_owner_id"]) == ("host", "alice")
    assert (host["seat_count"], host["seat_mode"], host["mode_id"], host["host_seat"]) == (8, "request", 3, 1)
    assert viewer["role"] == "audience"
    assert {"room_owner_id", "seat_count"} & set(viewer) == set()
    for body in (host, viewer):
        assert (body["identity"], body["name"], body["device_id"]) == ("alice", "Alice", "phone")
        assert (body["room_name"], body["type"], body["metadata"]) == (ROOM, "audio_room", {"avatar": "a.png"})
