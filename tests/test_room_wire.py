"""What the engine says about streams and audio rooms: both spellings, round trips, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.room_answers import AT, BAN, BANS, GRID, STAGE
from utd_fsm import room_wire as rw
from utd_fsm.errors import UTDProtocolError
from utd_fsm.models import UTDRole, UTDSeatMode
from utd_fsm.room_models import (
    RoomState,
    UTDBan,
    UTDBroadcast,
    UTDHand,
    UTDInvitation,
    UTDRoleChange,
    UTDSeat,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStage,
    UTDStageMember,
)

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
maybe = st.none() | names
versions = st.none() | st.integers(0, 10**12)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
attributes = st.dictionaries(st.sampled_from(["avatar", "fr", "frt", "cn"]), names, max_size=2)
ids = st.integers(1, 2**53)


@st.composite
def grids(draw: st.DrawFn) -> UTDSeatGrid:
    count = draw(st.integers(0, 12))
    sitting = draw(st.lists(maybe, min_size=count, max_size=count, unique_by=lambda who: who or object()))
    seats = tuple(
        UTDSeat(
            index,
            identity,
            locked=draw(st.booleans()),
            muted=draw(st.booleans()),
            reserved_for=draw(maybe),
            name=draw(maybe),
            attributes=draw(attributes),
        )
        for index, identity in enumerate(sitting)
    )
    return UTDSeatGrid(
        count=count,
        mode=draw(st.sampled_from(UTDSeatMode)),
        seats=seats,
        requests=tuple(draw(st.lists(st.builds(UTDSpeakerRequest, ids, names, moments, maybe), max_size=3))),
        invitations=tuple(
            draw(
                st.lists(
                    st.builds(UTDInvitation, ids, names, maybe, st.none() | st.integers(0, 99), moments), max_size=3
                )
            )
        ),
        version=draw(versions),
        mode_id=draw(st.none() | st.integers(0, 2**53) | names),
        all_muted=draw(st.booleans()),
        viewer=draw(maybe),
    )


stages = st.builds(
    UTDStage,
    st.lists(st.builds(UTDStageMember, names, maybe, st.none() | st.sampled_from(UTDRole)), max_size=4).map(tuple),
    st.none() | st.lists(st.builds(UTDHand, names, maybe, moments), max_size=4).map(tuple),
    versions,
)


def through_json(content: Any) -> Any:
    return json.loads(json.dumps(content))


# --- round trips


@pytest.mark.parametrize("realtime", [True, False], ids=["metadata", "get"])
@given(grid=grids())
def test_a_grid_comes_back_as_it_was(realtime: bool, grid: UTDSeatGrid) -> None:
    said = through_json(rw.seats_json(grid, realtime=realtime))
    assert rw.read_seats(said, "test", viewer=grid.viewer) == grid


@given(grid=grids())
def test_both_spellings_say_the_same(grid: UTDSeatGrid) -> None:
    realtime, get = rw.seats_json(grid, realtime=True), rw.seats_json(grid, realtime=False)
    assert {"count", "mode"} <= set(realtime)
    assert {"seat_count", "seat_mode"} <= set(get)
    assert {"seat_count", "seat_mode"} & set(realtime) == set()
    for one, other in zip(realtime["seats"], get["seats"], strict=True):
        assert one["index"] == other["seat_index"]
        assert one["identity"] == other["occupant_identity"]
        assert isinstance(one["locked"], bool)
        assert other["locked"] in (0, 1)
        assert not isinstance(other["locked"], bool)
    assert rw.read_seats(realtime, "test", viewer=grid.viewer) == rw.read_seats(get, "test", viewer=grid.viewer)


@given(stage=stages)
def test_a_stage_comes_back_as_it_was(stage: UTDStage) -> None:
    assert rw.read_stage(through_json(rw.stage_json(stage)), "test") == stage


@given(st.sampled_from(UTDBroadcast), st.integers(0))
def test_where_a_stream_is_comes_back_as_it_was(state: UTDBroadcast, version: int) -> None:
    assert rw.read_live(through_json(rw.live_json(state, version)), "test") == (state, version)


@given(st.booleans(), st.integers(0))
def test_the_comment_lock_comes_back_as_it_was(locked: bool, version: int) -> None:
    assert rw.read_comments(through_json(rw.comments_json(locked, version)), "test") == (locked, version)
    assert rw.read_comments(locked, "test") == (locked, None)


@given(st.builds(UTDBan, ids | names, names, maybe, attributes, maybe, maybe, moments, moments))
def test_a_ban_comes_back_as_it_was(ban: UTDBan) -> None:
    assert rw.read_ban(through_json(rw.ban_json(ban)), "test") == ban


@given(grids(), stages, st.sampled_from(UTDBroadcast), st.booleans(), st.integers(0))
def test_a_rooms_metadata_come_back_as_they_were(
    grid: UTDSeatGrid, stage: UTDStage, live: UTDBroadcast, locked: bool, version: int
) -> None:
    content = {
        rw.META_SEATS: rw.seats_json(grid, realtime=True),
        rw.META_STAGE: rw.stage_json(stage),
        rw.META_LIVE: rw.live_json(live, version),
        rw.META_COMMENTS: rw.comments_json(locked, version),
        "an application's own": 1,
    }
    state = rw.read_room_state(json.dumps(content), viewer=grid.viewer)
    assert state == RoomState(grid, stage, live, version, locked, version)


# --- what is read


def test_a_grid_as_get_spells_it() -> None:
    grid = rw.read_seats(GRID, "GET seats", viewer="bob")
    assert (grid.count, grid.mode, grid.mode_id, grid.version) == (3, UTDSeatMode.REQUEST, "party", 12)
    host, alice, locked = grid.seats
    assert (host.occupant, host.reserved_for, host.name) == ("host1", "host1", "Host")
    assert (alice.identity, alice.muted, dict(alice.attributes)) == ("alice", True, {"avatar": "a.png"})
    assert (locked.is_empty, locked.locked) == (True, True)
    assert grid.requests == (UTDSpeakerRequest(4, "bob", TEN),)
    assert grid.invitations == (UTDInvitation(5, "carol", "host1", 2, TEN),)
    assert (grid.my_seat, grid.seat_of("alice"), grid.free_seats()) == (None, 1, ())
    assert grid.raw == GRID


@pytest.mark.parametrize("alias", ["identity", "occupant_identity", "participant_identity", "user_id"])
def test_identities_by_any_name(alias: str) -> None:
    grid = rw.read_seats({"seats": [{"index": 0, alias: "alice"}], "requests": [{"id": 1, alias: "bob"}]}, "test")
    assert (grid.seats[0].identity, grid.requests[0].identity) == ("alice", "bob")
    assert rw.read_stage({"stage": [{alias: "carol"}]}, "test").members[0].identity == "carol"
    assert rw.read_identities({"data": [{alias: "dave"}]}, "test") == ("dave",)


def test_what_is_left_out() -> None:
    assert rw.read_seats({}, "test") == UTDSeatGrid()
    grid = rw.read_seats({"count": 3, "seats": [{"index": 1, "identity": ""}]}, "test")
    assert grid.seats == (UTDSeat(0), UTDSeat(1), UTDSeat(2))
    assert rw.read_seats({"seats": [{"index": 0}, {"index": 1}]}, "test").count == 2
    assert rw.read_stage({"stage": []}, "test") == UTDStage(hands=None)
    assert rw.read_stage({"stage": [], "hands": []}, "test") == UTDStage(hands=())
    assert rw.read_live({}, "test") == (None, None)
    assert rw.read_comments({}, "test") == (None, None)
    assert rw.read_requests({}, "test") == ()
    assert rw.read_grid({"seat_index": 3}, "test") is None
    page = rw.read_ban_page({"data": [BAN]}, "test")
    assert (page.page, page.per_page, page.total, page.total_pages) == (1, 1, 1, 1)


def test_the_name_may_stand_among_the_attributes() -> None:
    seat = rw.read_seats({"seats": [{"index": 0, "identity": "a", "attributes": {"name": "Alice"}}]}, "test").seats[0]
    assert seat.name == "Alice"


def test_bans_and_roles() -> None:
    page = rw.read_ban_page(BANS, "test")
    assert (page.bans[0].id, page.bans[0].banned_at, page.bans[0].expires_at) == (9, TEN, None)
    change = rw.read_role({"participant_identity": "bob", "role": "admin"}, "test")
    assert change == UTDRoleChange("bob", UTDRole.ADMIN, None)
    assert {role for role in UTDRole if rw.is_moderator(role)} == {UTDRole.ADMIN, UTDRole.HOST}
    assert not rw.is_moderator(None)


@pytest.mark.parametrize("metadata", ["", "[]", "7", "null", '"text"', "{}", '{"theme": "dark"}'])
def test_metadata_without_a_part_of_the_engines_say_nothing(metadata: str) -> None:
    assert rw.read_room_state(metadata) == RoomState()


@pytest.mark.parametrize("metadata", ["{", "[" * 100_000, "\x00", "[1"])
def test_metadata_that_are_no_json_are_malformed(metadata: str) -> None:
    with pytest.raises(UTDProtocolError) as caught:
        rw.read_room_state(metadata)
    assert (caught.value.route, caught.value.field) == ("room metadata", "body")


def test_a_participants_metadata() -> None:
    assert rw.role_of('{"role": "host"}') is UTDRole.HOST
    assert rw.may_have_video_effects('{"videoEffects": true}')
    for odd in ("", "{", "[]", "[" * 100_000, '{"role": "owner"}', '{"role": 7}', '{"role": ["host"]}'):
        assert rw.role_of(odd) is None
    for odd in ("", "{", "[]", "[" * 100_000, '{"videoEffects": 1}', '{"videoEffects": "true"}'):
        assert not rw.may_have_video_effects(odd)


@given(st.text())
def test_a_participants_metadata_never_raise(text: str) -> None:
    rw.role_of(text)
    rw.may_have_video_effects(text)


def test_data_messages() -> None:
    said = json.loads(rw.message_json(rw.USER_BANNED, {"reason": "Lärm", "room_name": None}))
    assert said == {"type": "_banned", "reason": "Lärm", "room_name": None}
    assert json.loads(rw.message_json(rw.LIVE_ENDED)) == {"type": "_live_ended"}


# --- what is refused


def seat(**other: Any) -> dict[str, Any]:
    return {"seats": [{"index": 0, **other}]}


MALFORMED: list[tuple[Callable[[Any, str], Any], Any, str]] = [
    (rw.read_seats, None, "body"),
    (rw.read_seats, [], "body"),
    (rw.read_seats, {"seats": {}}, "seats"),
    (rw.read_seats, {"seats": [7]}, "seats[0]"),
    (rw.read_seats, {"seats": [{}]}, "seats[0].index"),
    (rw.read_seats, {"seats": [{"index": -1}]}, "seats[0].index"),
    (rw.read_seats, {"seats": [{"seat_index": "0"}]}, "seats[0].seat_index"),
    (rw.read_seats, {"seats": [{"index": True}]}, "seats[0].index"),
    (rw.read_seats, {"count": 1, "seats": [{"index": 1}]}, "seats"),
    (rw.read_seats, {"seats": [{"index": 0}, {"index": 0}]}, "seats"),
    (rw.read_seats, {"seats": [{"index": 0, "identity": "a"}, {"index": 1, "identity": "a"}]}, "seats"),
    (rw.read_seats, {"count": 101}, "count"),
    (rw.read_seats, {"seat_count": -1}, "count"),
    (rw.read_seats, {"count": "8"}, "count"),
    (rw.read_seats, {"mode": "both"}, "mode"),
    (rw.read_seats, {"seat_mode": 1}, "seat_mode"),
    (rw.read_seats, {"version": "1"}, "version"),
    (rw.read_seats, {"all_muted": "no"}, "all_muted"),
    (rw.read_seats, seat(identity=7), "seats[0].identity"),
    (rw.read_seats, seat(locked=2), "seats[0].locked"),
    (rw.read_seats, seat(muted="yes"), "seats[0].muted"),
    (rw.read_seats, seat(reserved_for=1), "seats[0].reserved_for"),
    (rw.read_seats, seat(name=["a"]), "seats[0].name"),
    (rw.read_seats, seat(attributes=[1]), "seats[0].attributes"),
    (rw.read_seats, {"requests": [{"identity": "bob"}]}, "requests[0].id"),
    (rw.read_seats, {"requests": [{"id": 1}]}, "requests[0].identity"),
    (rw.read_seats, {"requests": [{"id": 1, "identity": "bob", "created_at": "soon"}]}, "requests[0].created_at"),
    (rw.read_seats, {"invitations": [{"id": 1}]}, "invitations[0].target_identity"),
    (rw.read_seats, {"invitations": [{"id": "1", "identity": "bob"}]}, "invitations[0].id"),
    (rw.read_grid, {"grid": 7}, "body"),
    (rw.read_requests, {"requests": {}}, "requests"),
    (rw.read_requests, {"data": 1}, "data"),
    (rw.read_requests, {"data": [{"id": 1.5, "identity": "bob"}]}, "data[0].id"),
    (rw.read_stage, {}, "stage"),
    (rw.read_stage, {"stage": {}}, "stage"),
    (rw.read_stage, {"stage": [{}]}, "stage[0].identity"),
    (rw.read_stage, {"stage": [{"identity": "a", "role": "boss"}]}, "stage[0].role"),
    (rw.read_stage, {"stage": [], "hands": 1}, "hands"),
    (rw.read_stage, {"stage": [], "hands": [{"identity": "a", "raised_at": []}]}, "hands[0].raised_at"),
    (rw.read_live, {"state": "paused"}, "state"),
    (rw.read_live, {"version": 1.0}, "version"),
    (rw.read_live, "live", "body"),
    (rw.read_comments, {"locked": "yes"}, "locked"),
    (rw.read_comments, 1, "body"),
    (rw.read_role, {"identity": "bob"}, "role"),
    (rw.read_role, {"role": "admin"}, "identity"),
    (rw.read_role, {"identity": "bob", "role": "owner"}, "role"),
    (rw.read_role, {"identity": "bob", "role": "admin", "previous_role": "x"}, "previous_role"),
    (rw.read_identities, {"participants": 3}, "participants"),
    (rw.read_identities, {"participants": ["bob"]}, "participants[0]"),
    (rw.read_ban, {**BAN, "id": None}, "id"),
    (rw.read_ban, {**BAN, "id": True}, "id"),
    (rw.read_ban, {**BAN, "identity": ""}, "identity"),
    (rw.read_ban, {**BAN, "expires_at": "never"}, "expires_at"),
    (rw.read_ban_page, {}, "data"),
    (rw.read_ban_page, {"data": [{**BAN, "id": []}]}, "data[0].id"),
    (rw.read_ban_page, {"data": [], "pagination": {"total": "3"}}, "pagination.total"),
]


@pytest.mark.parametrize(("read", "data", "field"), MALFORMED)
def test_what_is_malformed_is_refused_by_route_and_field(
    read: Callable[[Any, str], Any], data: Any, field: str
) -> None:
    with pytest.raises(UTDProtocolError) as caught:
        read(data, "GET /rooms/:room/test")
    assert (caught.value.route, caught.value.field) == ("GET /rooms/:room/test", field)
    assert "nothing was changed" in caught.value.message


@pytest.mark.parametrize(
    ("part", "value", "field"),
    [
        ("_seats", {"seats": 1}, "seats"),
        ("_stage", {}, "stage"),
        ("_live", {"state": 1}, "state"),
        ("_comments_locked", "yes", "body"),
    ],
)
def test_a_malformed_part_of_the_metadata_is_named(part: str, value: Any, field: str) -> None:
    whole = {"_seats": rw.seats_json(rw.read_seats(GRID, ""), realtime=True), "_stage": STAGE, part: value}
    with pytest.raises(UTDProtocolError) as caught:
        rw.read_room_state(json.dumps(whole))
    assert (caught.value.route, caught.value.field) == (f"room metadata {part}", field)


def test_nothing_that_is_read_can_be_changed() -> None:
    grid = rw.read_seats(GRID, "test")
    for held in (
        grid.raw,
        grid.seats[1].attributes,
        rw.read_stage(STAGE, "test").raw,
        rw.read_ban(BAN, "t").attributes,
    ):
        with pytest.raises(TypeError):
            held["x"] = 1  # type: ignore[index]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6) | st.just(AT),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "seats",
                    "index",
                    "identity",
                    "requests",
                    "id",
                    "stage",
                    "hands",
                    "state",
                    "version",
                    "count",
                    "locked",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["_seats", "_stage", "_live", "_comments_locked"]), JSON), JSON)
def test_whatever_the_metadata_say_is_a_state_or_malformed(parts: dict[str, Any], other: Any) -> None:
    for content in (parts, other):
        try:
            rw.read_room_state(json.dumps(content))
        except UTDProtocolError as error:
            assert error.route
            assert error.field
            assert error.message.isprintable()
