"""Rooms: who gets in, who is shown out, and when a room ends (LiveKit facts, 31-32, 37)."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from livekit import api, rtc

from tests.local.media_server.studio import KEY, PATIENCE, SECRET, Client, Studio, token, who

pytestmark = pytest.mark.media


async def _gone(house: Studio, name: str = "room") -> None:
    async with asyncio.timeout(PATIENCE):
        while await _names(house, name):
            await asyncio.sleep(0.05)


async def _names(house: Studio, *names: str) -> list[str]:
    return [room.name for room in (await house.lk.room.list_rooms(api.ListRoomsRequest(names=names))).rooms]


async def test_a_second_connection_of_the_same_identity_ends_the_first(house: Studio, single: bool) -> None:
    first, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    await bob.until(lambda: bob.sees("alice"))
    sid = bob.room.remote_participants["alice"].sid
    second = await house.join("alice", single=single)
    (reason,) = await first.event("disconnected")
    assert reason == rtc.DisconnectReason.DUPLICATE_IDENTITY
    await bob.until(lambda: bob.sees("alice") and bob.room.remote_participants["alice"].sid != sid)
    assert second.room.isconnected()
    assert not first.room.isconnected()
    people = (await house.lk.room.list_participants(api.ListParticipantsRequest(room="room"))).participants
    assert sorted(person.identity for person in people) == ["alice", "bob"]


async def test_the_tokens_limits_hold_and_the_same_identity_gets_in_again(house: Studio, single: bool) -> None:
    config = api.RoomConfiguration(max_participants=2, departure_timeout=7, empty_timeout=9, metadata="m")
    await house.join("alice", single=single, config=config)
    await house.join("bob", single=single, config=config)
    (room,) = (await house.lk.room.list_rooms(api.ListRoomsRequest(names=["room"]))).rooms
    assert (room.max_participants, room.departure_timeout, room.empty_timeout, room.metadata) == (2, 7, 9, "m")
    with pytest.raises(rtc.ConnectError, match="500"):
        await Client("carol").connect(house.url, token("carol"), single=single)
    await house.join("bob", single=single, config=config)


async def test_a_long_token_gets_in_and_makes_the_room_with_its_metadata(house: Studio, single: bool) -> None:
    metadata = '"' * 30_000  # in a token each takes almost three bytes
    alice = await house.join("alice", single=single, config=api.RoomConfiguration(metadata=metadata))
    assert alice.room.metadata == metadata
    late = await house.join("late", single=single, config=api.RoomConfiguration(metadata="another"))
    assert late.room.metadata == metadata


async def test_create_room_on_a_live_room_changes_nothing(house: Studio) -> None:
    create = house.lk.room.create_room
    first = await create(api.CreateRoomRequest(name="room", max_participants=2, metadata="first", empty_timeout=60))
    second = await create(api.CreateRoomRequest(name="room", max_participants=9, metadata="second"))
    assert (second.sid, second.max_participants, second.metadata) == (first.sid, 2, "first")


async def test_list_rooms_by_name(house: Studio) -> None:
    for name in ("a", "b", "c"):
        await house.lk.room.create_room(api.CreateRoomRequest(name=name))
    assert sorted(await _names(house)) == ["a", "b", "c"]
    assert await _names(house, "b", "nowhere") == ["b"]


async def test_an_empty_room_closes_after_its_time(house: Studio) -> None:
    await house.lk.room.create_room(api.CreateRoomRequest(name="room", empty_timeout=1))
    assert await _names(house) == ["room"]
    await _gone(house)


async def test_a_room_that_was_left_closes_after_its_time(house: Studio) -> None:
    config = api.RoomConfiguration(departure_timeout=1, empty_timeout=100)
    alice = await house.join("alice", config=config)
    await alice.room.disconnect()
    assert await _names(house) == ["room"]
    await _gone(house)


async def test_who_returns_in_time_keeps_the_room(house: Studio) -> None:
    config = api.RoomConfiguration(departure_timeout=2)
    alice = await house.join("alice", config=config)
    sid = await alice.room.sid
    await alice.room.disconnect()
    again = await house.join("alice", config=config)
    await asyncio.sleep(2.5)
    assert await _names(house) == ["room"]
    assert await again.room.sid == sid


async def test_delete_room_shows_everybody_out(house: Studio, single: bool) -> None:
    alice, bob = await house.join("alice", single=single), await house.join("bob", single=single)
    await house.lk.room.delete_room(api.DeleteRoomRequest(room="room"))
    for client in (alice, bob):
        assert await client.event("disconnected") == (rtc.DisconnectReason.ROOM_DELETED,)
    assert await _names(house) == []
    with pytest.raises(api.TwirpError) as refused:
        await house.lk.room.delete_room(api.DeleteRoomRequest(room="room"))
    assert refused.value.code == "not_found"


async def test_a_room_that_does_not_exist(house: Studio) -> None:
    """As livekit-server: nobody in it, and nothing to change."""
    people = await house.lk.room.list_participants(api.ListParticipantsRequest(room="nowhere"))
    assert not people.participants
    for call in (
        house.lk.room.update_room_metadata(api.UpdateRoomMetadataRequest(room="nowhere", metadata="x")),
        house.lk.room.remove_participant(who("alice", "nowhere")),
        house.lk.room.send_data(api.SendDataRequest(room="nowhere", data=b"x")),
    ):
        with pytest.raises(api.TwirpError) as refused:
            await call
        assert refused.value.code == "not_found"


@pytest.mark.parametrize(
    ("access", "text"),
    [
        (api.AccessToken("other", SECRET), "invalid API key"),
        (api.AccessToken(KEY, "another secret, long enough for HMAC"), "invalid authorization token"),
    ],
)
async def test_a_bad_token_is_a_401_without_the_token(
    house: Studio, single: bool, access: api.AccessToken, text: str
) -> None:
    made = access.with_identity("alice").with_grants(api.VideoGrants(room_join=True, room="room")).to_jwt()
    with pytest.raises(rtc.ConnectError, match=text) as refused:
        await Client("alice").connect(house.url, made, single=single)
    assert "401" in str(refused.value)
    assert made not in str(refused.value)


async def test_what_a_browser_asks(house: Studio) -> None:
    """`validate` after a failed websocket, from a page of any origin, with and without a preflight."""
    good, bad = {"access_token": token("alice")}, {"access_token": "ey.not.one"}
    async with aiohttp.ClientSession(house.url) as http:
        for path in ("/rtc/validate", "/rtc/v1/validate"):
            async with http.get(path, params=good) as answer:
                assert (answer.status, await answer.text()) == (200, "success")
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
            async with http.get(path, params=bad) as answer:
                assert (answer.status, await answer.text()) == (401, "invalid authorization token")
            async with http.get(path) as answer:
                assert answer.status == 401
            async with http.options(
                path, headers={"Origin": "http://x", "Access-Control-Request-Method": "GET"}
            ) as answer:
                assert answer.status == 204
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with http.get("/rtc", params=good) as answer:  # no websocket
            assert answer.status == 404
        async with http.get("/") as answer:
            assert await answer.text() == "OK"


async def test_twirp_refuses_what_a_token_does_not_allow(house: Studio) -> None:
    """And it speaks JSON to who asks in JSON."""
    await house.lk.room.create_room(api.CreateRoomRequest(name="room"))

    async def call(method: str, body: object, **grants: object) -> tuple[int, dict[str, object]]:
        access = api.AccessToken(KEY, SECRET).with_grants(api.VideoGrants(**grants)).to_jwt()  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {access}"}
        path = f"/twirp/livekit.RoomService/{method}"
        async with aiohttp.ClientSession(house.url) as http, http.post(path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    status, body = await call("ListParticipants", {"room": "room"}, room_admin=True, room="other")
    assert (status, body["code"]) == (401, "unauthenticated")
    assert (await call("CreateRoom", {"name": "x"}, room_list=True))[0] == 401
    assert (await call("DeleteRoom", {"room": "room"}, room_admin=True, room="room"))[0] == 401
    assert (await call("ListRooms", {}, room_create=True))[0] == 401
    assert (await call("Nope", {}, room_admin=True))[1]["code"] == "bad_route"
    assert (await call("CreateRoom", {"name": {}}, room_create=True))[1]["code"] == "malformed"
    status, body = await call("ListRooms", {}, room_list=True)
    assert status == 200
    assert isinstance(body["rooms"], list)
    assert [room["name"] for room in body["rooms"]] == ["room"]
