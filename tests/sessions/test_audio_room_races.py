"""What crosses on the way, in audio rooms: forced by gates, and always ending where the engine is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from utd_fsm import signals
from utd_fsm.errors import (
    UTDConflictError,
    UTDConnectionError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
)
from utd_fsm.room_models import UTDSeatGrid
from utd_fsm.sessions.audio_room import AudioRoomSession

from .audio_world import (
    all_agree,
    audible,
    enter,
    heard_are,
    lobby,
    microphone,
    person,
    sitting,
    state,
    told,
    true_seats,
)
from .conftest import SHORT
from .room_world import RoomWorld, begin, do, until

# --------------------------------------------------------------------------------------------------- grant and grid


async def test_the_grant_may_come_before_the_grid(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann", mode="request")
    request = await do(ann.request_to_speak)
    await until(lambda: host.pending_requests.value)
    rooms.engine.telling = False
    await do(host.approve_speaker, request)
    await until(lambda: ann.can_publish.value)
    assert state(ann) == "requested"
    await do(ann.set_microphone, True)
    assert audible(rooms) == {"ann"}
    rooms.engine.tell()
    await until(lambda: state(ann) == "seated")
    assert audible(rooms) == {"ann"}


async def test_the_grid_may_come_before_the_grant(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    rooms.engine.granting = False
    taking = begin(ann.take_seat, 1)
    await until(lambda: microphone(ann) == "waiting")
    assert state(ann) == "seated"
    rooms.engine.grant_all()
    await taking
    assert audible(rooms) == {"ann"}


async def test_a_seat_lost_while_the_grant_is_waited_for(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    rooms.engine.granting = False
    taking = begin(ann.take_seat, 1)
    await until(lambda: microphone(ann) == "waiting" and sitting(host.seats.value))
    await do(host.kick_seat, 1)
    with pytest.raises(UTDPermissionError, match="seat is lost"):
        await taking
    rooms.engine.media.grant("room", "ann")  # what comes too late starts nothing
    await until(lambda: ann.can_publish.value)
    assert (state(ann), microphone(ann)) == ("listener", "off")
    assert audible(rooms) == set()


async def test_a_grant_taken_away_and_given_again_unmutes_nobody(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    rooms.engine.media.revoke("room", "ann")
    await until(lambda: microphone(ann) == "off")
    rooms.engine.grant_all()
    await until(lambda: ann.can_publish.value)
    assert (state(ann), microphone(ann)) == ("seated", "off")


# --------------------------------------------------------------------------------------------- the order of the news


async def test_an_older_answer_changes_nothing(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    who = person(rooms, "ann")
    asked, let_go = asyncio.Event(), asyncio.Event()
    real = who.seats

    async def slow(*, key: str | None = None) -> UTDSeatGrid:
        answer = await real(key=key)
        asked.set()
        await let_go.wait()
        return answer

    who.seats = slow  # type: ignore[method-assign]
    looking = begin(ann.get_seats)
    await asked.wait()
    await do(host.take_seat, 0)
    await until(lambda: sitting(ann.seats.value) == {0: "host"})
    with told(signals.seats_changed, ann) as seats:
        let_go.set()
        grid = await looking
        await asyncio.to_thread(signals.drain)
    assert sitting(grid) == sitting(ann.seats.value) == {0: "host"}
    assert seats == []


async def test_metadata_late_twice_and_out_of_order(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.telling = False
    first = len(rooms.engine.written["room"])
    await do(host.take_seat, 0)
    await do(host.lock_seat, 3)
    await do(host.move_seat, 1)
    shown: list[Any] = []
    with told(signals.seats_changed, ann) as seats:
        for index in (first + 1, first, first + 1, first + 2, first, first + 2):
            rooms.engine.tell(index=index)
            await rooms.engine.media.settled()
            shown.append((sitting(ann.seats.value), ann.seats.value.seats[3].locked))
        await asyncio.to_thread(signals.drain)
    assert shown == [({0: "host"}, True)] * 3 + [({1: "host"}, True)] * 3
    assert [one["changed_indexes"] for one in seats] == [(0, 3), (0, 1)]
    assert (ann._happened["move"], ann._happened["take"]) == (1, 0)  # two at once are a resync


async def test_an_answer_older_than_what_was_heard_still_ends_the_request(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
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
    await until(lambda: sitting(host.seats.value) == {1: "ann"})
    await do(host.kick_seat, 1)
    await until(lambda: sitting(ann.seats.value) == {} and ann._happened["leave"] == 1)
    let_go.set()
    with pytest.raises(UTDStateError, match="lost again"):
        await taking
    assert (state(ann), microphone(ann)) == ("listener", "off")
    await do(ann.take_seat, 2)


# --------------------------------------------------------------------------------------------------- two at a time


async def both(*verbs: Any) -> list[BaseException | None]:
    """Two verbs at the same time: what each of them raised."""
    done = await asyncio.gather(*verbs, return_exceptions=True)
    return [one if isinstance(one, BaseException) else None for one in done]


async def crossed(
    rooms: RoomWorld, first: tuple[AudioRoomSession, str, str], second: tuple[AudioRoomSession, str, str], *args: Any
) -> list[BaseException | None]:
    """Two verbs, each past its local check and on its way; the first arrives first."""
    gates, tasks = [], []
    for (session, verb, sent), arguments in zip((first, second), args, strict=True):
        who = person(rooms, session.identity or "")
        gates.append(who.hold(sent))
        tasks.append(begin(getattr(session, verb), *arguments))
        await who.arrived[sent].wait()
    gates[0].set()
    await asyncio.wait([tasks[0]])
    gates[1].set()
    for session, _, sent in (first, second):
        del person(rooms, session.identity or "").gates[sent]
    return await both(*tasks)


@pytest.mark.parametrize("winner", [0, 1])
async def test_two_take_the_same_seat(rooms: RoomWorld, winner: int) -> None:
    _, ann, bob = await lobby(rooms, "ann", "bob")
    pair = [(ann, "take_seat", "take"), (bob, "take_seat", "take")]
    raised = await crossed(rooms, pair[winner], pair[1 - winner], (2,), (2,))
    assert raised[0] is None
    assert isinstance(raised[1], UTDConflictError)
    await all_agree(rooms)
    who = ("ann", "bob")[winner]
    assert true_seats(rooms) == {2: who}
    await heard_are(rooms, who)


@pytest.mark.parametrize("lock_first", [True, False])
async def test_take_against_lock(rooms: RoomWorld, lock_first: bool) -> None:
    host, ann = await lobby(rooms, "ann")
    lock, take = (host, "lock_seat", "lock"), (ann, "take_seat", "take")
    raised = await crossed(rooms, *((lock, take) if lock_first else (take, lock)), (2,), (2,))
    assert [type(one) for one in raised] == ([type(None), UTDConflictError] if lock_first else [type(None)] * 2)
    await all_agree(rooms)
    assert true_seats(rooms) == {}
    assert ann.seats.value.seats[2].locked
    await heard_are(rooms)
    assert state(ann) == "listener"


@pytest.mark.parametrize("approve_first", [True, False])
async def test_approve_against_cancel(rooms: RoomWorld, approve_first: bool) -> None:
    (host,) = await lobby(rooms, mode="request")
    ann = await enter(rooms, "ann", auto_unmute=True)
    request = await do(ann.request_to_speak)
    await until(lambda: host.pending_requests.value)
    approve, cancel = (host, "approve_speaker", "approve"), (ann, "cancel_request", "cancel")
    if approve_first:
        raised = await crossed(rooms, approve, cancel, (request,), ())
    else:
        raised = await crossed(rooms, cancel, approve, (), (request,))
    assert raised[0] is None
    assert isinstance(raised[1], UTDConflictError)
    await all_agree(rooms)
    assert state(ann) == ("seated" if approve_first else "listener")
    await rooms.engine.media.settled()
    assert microphone(ann) == "off"  # auto_unmute or not: it did not want to speak any more


@pytest.mark.parametrize("kick_first", [True, False])
async def test_kick_against_leave(rooms: RoomWorld, kick_first: bool) -> None:
    host, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    await until(lambda: sitting(host.seats.value))
    kick, leave = (host, "kick_seat", "kick"), (ann, "leave_seat", "leave")
    raised = await crossed(
        rooms, *((kick, leave) if kick_first else (leave, kick)), *(((1,), ()) if kick_first else ((), (1,)))
    )
    assert raised[0] is None
    assert isinstance(raised[1], UTDConflictError)
    await all_agree(rooms)
    assert (true_seats(rooms), state(ann)) == ({}, "listener")
    await heard_are(rooms)


@pytest.mark.parametrize("move_first", [True, False])
async def test_move_against_take(rooms: RoomWorld, move_first: bool) -> None:
    _, ann, bob = await lobby(rooms, "ann", "bob")
    await do(ann.take_seat, 1)
    await all_agree(rooms)
    move, take = (ann, "move_seat", "move"), (bob, "take_seat", "take")
    raised = await crossed(rooms, *((move, take) if move_first else (take, move)), (2,), (2,))
    assert raised[0] is None
    assert isinstance(raised[1], UTDConflictError)
    await all_agree(rooms)
    assert true_seats(rooms) == ({2: "ann"} if move_first else {1: "ann", 2: "bob"})
    await heard_are(rooms, *true_seats(rooms).values())


async def test_a_moderators_answer_that_was_lost_is_looked_after(rooms: RoomWorld) -> None:
    host, _ = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.telling = False
    person(rooms, "host").lose_answer.add("lock")
    with pytest.raises(UTDConnectionError) as raised:
        await do(host.lock_seat, 2)
    assert not raised.value.outcome_known
    assert host.seats.value.seats[2].locked


async def test_a_moderator_who_gives_up_learns_what_became_of_it(rooms: RoomWorld) -> None:
    host, _ = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.telling = False
    who, applied = person(rooms, "host"), asyncio.Event()
    real = who.lock

    async def endless(index: int) -> Any:
        await real(index)
        applied.set()
        await asyncio.Event().wait()

    who.lock = endless  # type: ignore[method-assign]
    locking = begin(host.lock_seat, 2)
    await applied.wait()
    locking.cancel()
    await until(lambda: host.seats.value.seats[2].locked)


# ------------------------------------------------------------------------------------------- the way back, and out


async def test_after_a_rejoin_who_is_seated_speaks_again_and_nobody_else(rooms: RoomWorld) -> None:
    host, ann, bob, cid = await lobby(rooms, "ann", "bob", "cid")
    for session, index in ((ann, 1), (bob, 2)):
        await do(session.take_seat, index)
    await do(host.take_seat, 0)
    await do(host.set_microphone, False)
    gone = [one.connection for one in (host, ann, bob, cid)]
    for who in ("host", "ann", "bob", "cid"):
        rooms.engine.media.joining.clear()
        rooms.engine.media.lose("room", who)
    await until(lambda: all(one.value == "reconnecting" for one in gone))
    rooms.engine.by_itself(lambda: rooms.engine.rooms.kick("room", "host", 2))
    rooms.engine.media.joining.set()
    await until(lambda: all(one.value == "connected" for one in gone))
    await heard_are(rooms, "ann")
    await all_agree(rooms)
    assert [microphone(one) for one in (host, bob, cid)] == ["off"] * 3


async def test_a_media_server_that_forgets_everything() -> None:
    rooms = RoomWorld(timing=replace(SHORT, first_reading=2.0))  # as in life: what is read after a return is the first
    _, ann, bob = await lobby(rooms, "ann", "bob")
    await do(ann.take_seat, 1)
    rooms.engine.media.stop()
    await until(lambda: ann.connection.value == bob.connection.value == "reconnecting")
    rooms.engine.media.start()
    await until(lambda: ann.connected.value and bob.connected.value)
    rooms.engine.put_right()
    await heard_are(rooms, "ann")
    await all_agree(rooms)
    await rooms.close()


async def test_who_waits_for_a_seat_is_told_that_the_room_was_left(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    errors: list[UTDStreamException] = []

    def wait() -> None:
        try:
            ann.pending_requests.wait_for(lambda requests: bool(requests), timeout=20)  # type: ignore[attr-defined]
        except UTDStreamException as error:
            errors.append(error)

    waiting = asyncio.create_task(asyncio.to_thread(wait))
    await until(lambda: ann.pending_requests._feeds)
    await do(ann.leave)
    await waiting
    assert isinstance(errors[0], UTDStateError)


async def test_banned_from_a_seat(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    with told(signals.banned, ann) as bans:
        await do(host.ban, "ann", reason="noise")
        await until(lambda: not ann.is_alive)
        await asyncio.to_thread(signals.drain)
    assert [one["reason"] for one in bans] == ["noise"]
    assert true_seats(rooms) == {}
    assert ann.seats.value.my_seat is None
    with pytest.raises(UTDPermissionError):
        await enter(rooms, "ann")
