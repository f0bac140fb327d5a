"""What becomes of one's own requests in an audio room: lost and late answers, given up midway, overtaken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from utd_fsm.errors import UTDConflictError, UTDConnectionError, UTDStateError
from utd_fsm.room_models import UTDSeatGrid

from .audio_world import all_agree, audible, heard_are, lobby, microphone, person, sitting, state, true_seats
from .room_world import RoomWorld, begin, do, until


async def test_an_answer_that_was_lost_is_found_by_looking(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    person(rooms, "ann").lose_answer.add("take")
    await do(ann.take_seat, 1)
    assert (state(ann), microphone(ann)) == ("seated", "on")
    person(rooms, "ann").lose_answer.add("leave")
    await do(ann.leave_seat)
    assert state(ann) == "listener"
    await do(host.setup_seats, None, "request")
    await until(lambda: ann.seats.value.mode == "request")
    person(rooms, "ann").lose_answer.add("request")
    request = await do(ann.request_to_speak)
    assert ann.pending_requests.value == (request,)
    await all_agree(rooms)


async def test_a_request_that_was_lost_is_over_too(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    person(rooms, "ann").lose_request.add("take")
    with pytest.raises(UTDConnectionError):
        await do(ann.take_seat, 1)
    assert (state(ann), microphone(ann)) == ("listener", "off")
    await do(ann.take_seat, 1)
    assert audible(rooms) == {"ann"}


async def test_an_engine_out_of_reach_is_asked_until_it_answers(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    rooms.engine.unreachable = True
    with pytest.raises(UTDConnectionError):
        await do(ann.take_seat, 1)
    assert state(ann) == "taking"  # it may have been applied
    rooms.engine.unreachable = False
    await do(ann.take_seat, 2)  # waits until that is known
    assert true_seats(rooms) == {2: "ann"}


async def test_a_take_given_up_midway_is_sealed(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    who = person(rooms, "ann")
    who.hold("take")
    taking = begin(ann.take_seat, 1)
    await who.arrived["take"].wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await until(lambda: state(ann) == "listener")
    key = f"{ann._stay.standing.order.name}:1"
    with pytest.raises(UTDConflictError):  # the request arrives after all, and comes too late
        who.rooms.take(who._credentials, "room", 1, key=key)
    assert true_seats(rooms) == {}
    assert microphone(ann) == "off"


async def test_a_take_given_up_after_the_engine_did_it_is_seated_and_silent(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    rooms.engine.granting = False
    taking = begin(ann.take_seat, 1)
    await until(lambda: microphone(ann) == "waiting")
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    rooms.engine.grant_all()
    await until(lambda: ann.can_publish.value)
    assert (state(ann), microphone(ann)) == ("seated", "off")
    await do(ann.set_microphone, True)
    assert audible(rooms) == {"ann"}


async def test_a_move_whose_answer_was_lost_is_sealed_and_found_by_looking(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    await rooms.engine.media.settled()
    rooms.engine.telling = False
    who = person(rooms, "ann")
    who.lose_answer.add("move")
    await do(ann.move_seat, 2)
    assert sitting(ann.seats.value) == {2: "ann"}
    who.lose_request.add("move")
    with pytest.raises(UTDConnectionError):
        await do(ann.move_seat, 3)
    with pytest.raises(UTDConflictError):  # sealed: it arrives too late
        who.rooms.move(who._credentials, "room", 3, key=f"{ann._stay.standing.order.name}:4")
    assert true_seats(rooms) == {2: "ann"}


async def test_no_sound_while_it_is_unknown_whether_the_seat_is_left(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    rooms.engine.unreachable = True
    with pytest.raises(UTDConnectionError):
        await do(ann.leave_seat)
    assert (state(ann), ann.can_publish.value) == ("leaving", True)
    with pytest.raises(UTDStateError, match="given back"):
        await do(ann.set_microphone, True)
    rooms.engine.unreachable = False
    await until(lambda: state(ann) == "seated")  # it was not; and nothing goes on by itself
    assert audible(rooms) == set()


async def test_sitting_down_that_nobody_waits_for_any_more_is_silent(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    ann.lost("take_seat", None)
    await heard_are(rooms)


async def test_a_host_who_asked_and_leaves_while_it_sits_down_asks_no_more(rooms: RoomWorld) -> None:
    host, _ = await lobby(rooms, "ann", mode="request")
    await do(host.request_to_speak)
    person(rooms, "host").hold("take")
    taking = begin(host.take_seat, 0)
    await person(rooms, "host").arrived["take"].wait()
    await do(host.leave)
    with pytest.raises(UTDStateError):
        await taking
    assert rooms.engine.truth().involved() == frozenset()


async def test_an_answer_that_comes_after_the_room_was_lost(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.telling = False  # the answer would be news
    who = person(rooms, "ann")
    applied, let_go = asyncio.Event(), asyncio.Event()
    real = who.take

    async def slow(index: int, *, key: str) -> Any:
        answer = await real(index, key=key)
        applied.set()
        await let_go.wait()
        return answer

    who.take = slow  # type: ignore[method-assign]
    taking = begin(ann.take_seat, 1)
    await applied.wait()
    rooms.engine.media.delete_room("room")
    await until(lambda: ann.connection.value == "force_exit")
    let_go.set()
    with pytest.raises(UTDConnectionError, match="does not have this session"):
        await taking
    assert ann.seats.value == UTDSeatGrid(viewer="ann")
    assert state(ann) == "listener"


async def test_leaving_the_room_overtakes_a_take(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    gate = person(rooms, "ann").hold("take")
    taking = begin(ann.take_seat, 1)
    await person(rooms, "ann").arrived["take"].wait()
    leaving = begin(ann.leave)
    with pytest.raises(UTDStateError, match="overtaken"):
        await taking
    gate.set()
    await leaving
    assert true_seats(rooms) == {}
    assert ann.seats.value == UTDSeatGrid(viewer="ann")
    assert "ann" not in rooms.engine.media.rooms["room"].seats


@pytest.mark.parametrize("what", ["seat", "request", "invitation"])
async def test_whoever_leaves_gives_back_what_it_had(rooms: RoomWorld, what: str) -> None:
    host, ann = await lobby(rooms, "ann", mode="free" if what == "seat" else "request")
    if what == "seat":
        await do(ann.take_seat, 1)
    elif what == "request":
        await do(ann.request_to_speak)
    else:
        await do(host.invite_to_speak, "ann")
        await until(lambda: ann.invitations.value)
    await do(ann.leave)
    assert rooms.engine.truth().involved() == frozenset()
    assert (state(ann), ann.invitations.value, ann.pending_requests.value) == ("listener", (), ())
    await do(ann.join)
    await all_agree(rooms)
    assert ann.seats.value.count == 4


@pytest.mark.parametrize("what", ["approved", "kicked", "rejected"])
async def test_whoever_leaves_before_it_hears_of_its_standing_leaves_nothing_behind(
    rooms: RoomWorld, what: str
) -> None:
    host, ann = await lobby(rooms, "ann", mode="request")
    request = await do(ann.request_to_speak)
    if what == "kicked":
        await do(host.approve_speaker, request.id)
        await until(lambda: state(ann) == "seated")
    rooms.engine.telling = False
    match what:
        case "approved":
            await do(host.approve_speaker, request.id)
        case "kicked":
            await do(host.kick_seat, 1)
        case _:
            await do(host.reject_speaker, request.id)
    await do(ann.leave)
    assert rooms.engine.truth().involved() == frozenset()


async def test_a_goodbye_that_is_late_undoes_nothing_newer(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    who = person(rooms, "ann")
    who.lose_request.add("leave")
    await do(ann.leave)
    assert true_seats(rooms) == {1: "ann"}  # the engine did not hear it
    late = f"{ann._stay.standing.order.name}:2"
    await do(ann.join)
    await until(lambda: state(ann) == "seated")
    await do(ann.move_seat, 2)
    with pytest.raises(UTDConflictError):
        who.rooms.leave(who._credentials, "room", key=late)
    assert true_seats(rooms) == {2: "ann"}
