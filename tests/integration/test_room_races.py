"""Two want something else of one seat at the same time: each order is forced, and all agree at the end.

A gate holds a request before the engine sees it, or the engine's answer before its client does. Engine, media server,
whoever asked and a bystander then say the same of the seats, of who stands where, and of who is heard.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.integration.calling import WAIT, in_thread, until
from tests.integration.gate_proxy import At, GateProxy
from tests.integration.room_scenes import (
    UPDATE_PARTICIPANT,
    Scene,
    all_agree,
    ask_to_speak,
    audio_room,
    engine_behind_gates,
    listens_to,
    own_standing,
)
from utd_fsm import UTDAudioRoomSession, UTDPermissionError, UTDSeatGrid, UTDStateError, UTDTimeoutError, signals
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
Room = Scene[UTDAudioRoomSession]
TAKE, LEAVE, MOVE = "/rooms/*/seats/*/take", "/rooms/*/seats/leave", "/rooms/*/seats/move"
KICK, LOCK = "/rooms/*/seats/*/kick", "/rooms/*/seats/*/lock"
REQUEST, APPROVE = "/rooms/*/speakers/request", "/rooms/*/speakers/requests/*/approve"


def is_refused(wish: Future[Any], state: type[Exception] = UTDStateError) -> None:
    """It raised this, and nothing else."""
    assert isinstance(error := wish.exception(WAIT), state), error


@contextmanager
def versions_of(session: UTDAudioRoomSession) -> Iterator[list[int]]:
    """The version of each grid that a session shows meanwhile."""
    shown: list[int] = []

    def note(sender: object, *, value: UTDSeatGrid, **extra: object) -> None:
        if sender is session:
            shown.append(value.version or 0)

    with signals.seats_changed.connected_to(note):
        yield shown
        signals.drain(WAIT)


# ------------------------------------------------------------------------------------------------------ the same seat


@pytest.mark.parametrize("first", ["vera", "will"])
def test_two_take_the_same_seat(engine: LocalEngine, way: Way, first: str) -> None:
    second = "will" if first == "vera" else "vera"
    ways = {name: way() for name in ("vera", "will")}
    with audio_room(engine, "vera", "will", "xena", ways=ways) as room:
        gates = {name: ways[name].hold("POST", TAKE) for name in ways}
        takes = {name: in_thread(partial(room[name].take_seat, 1)) for name in ways}
        for gate in gates.values():
            gate.reached()
        gates[first].open()
        takes[first].result(WAIT)
        gates[second].open()
        is_refused(takes[second])
        all_agree(room, {first: 1}, speaking={first})
        listens_to(room, "xena", first)
        room[second].take_seat(2)
        all_agree(room, {first: 1, second: 2}, speaking={first, second})


def test_two_take_the_same_seat_at_once(engine: LocalEngine, way: Way) -> None:
    ways = {name: way() for name in ("vera", "will")}
    with audio_room(engine, "vera", "will", ways=ways) as room:
        gates = [each.hold("POST", TAKE) for each in ways.values()]
        takes = {name: in_thread(partial(room[name].take_seat, 1)) for name in ways}
        for gate in gates:
            gate.reached()
        for gate in gates:
            gate.open()
        won = [name for name, take in takes.items() if take.exception(WAIT) is None]
        assert len(won) == 1
        is_refused(next(take for name, take in takes.items() if name not in won))
        all_agree(room, {won[0]: 1}, speaking=won)


def test_locked_before_the_take_arrives(engine: LocalEngine, way: Way) -> None:
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        gate = here.hold("POST", TAKE)
        taking = in_thread(lambda: room["vera"].take_seat(1))
        gate.reached()
        room["host"].lock_seat(1)
        gate.open()
        is_refused(taking)
        assert all_agree(room, {}, speaking=()).seats[1].locked


def test_taken_before_the_lock_arrives(engine: LocalEngine, way: Way) -> None:
    """The lock evicts: whoever sat there is not heard any more."""
    there = way()
    with audio_room(engine, "vera", "will", ways={"host": there}) as room:
        gate = there.hold("POST", LOCK)
        locking = in_thread(lambda: room["host"].lock_seat(1))
        gate.reached()
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])
        gate.open()
        locking.result(WAIT)
        assert all_agree(room, {}, speaking=()).seats[1].locked


def test_locked_while_the_taker_does_not_know_that_it_sits(engine: LocalEngine, way: Way) -> None:
    """The engine has seated it, and its answer comes after the eviction: it is no news any more."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        gate = here.hold("POST", TAKE, at="answer")
        taking = in_thread(lambda: room["vera"].take_seat(1))
        gate.reached()
        room["host"].lock_seat(1)
        room["vera"].seats.wait_for(lambda grid: grid.seats[1].locked, timeout=WAIT)
        gate.open()
        is_refused(taking)
        assert all_agree(room, {}, speaking=()).seats[1].locked


@pytest.mark.parametrize("first", ["move", "take"])
def test_one_moves_to_the_seat_that_another_takes(engine: LocalEngine, way: Way, first: str) -> None:
    ways = {name: way() for name in ("vera", "will")}
    with audio_room(engine, "vera", "will", "xena", ways=ways) as room:
        room["vera"].take_seat(1)
        gates = {"move": ways["vera"].hold("POST", MOVE), "take": ways["will"].hold("POST", TAKE)}
        wishes = {
            "move": in_thread(lambda: room["vera"].move_seat(2)),
            "take": in_thread(lambda: room["will"].take_seat(2)),
        }
        for gate in gates.values():
            gate.reached()
        gates[first].open()
        wishes.pop(first).result(WAIT)
        for gate in gates.values():
            gate.open()
        is_refused(next(iter(wishes.values())))
        if first == "move":
            all_agree(room, {"vera": 2}, speaking=["vera"])
        else:
            all_agree(room, {"vera": 1, "will": 2}, speaking=["vera", "will"])
        listens_to(room, "xena", "vera")


# ------------------------------------------------------------------------------------------------- approve and cancel


def test_approved_before_the_cancel_arrives(engine: LocalEngine, way: Way) -> None:
    here = way()
    with audio_room(engine, "vera", "will", mode="request", ways={"vera": here}) as room:
        request = ask_to_speak(room, "vera")
        gate = here.hold("DELETE", REQUEST)
        cancelling = in_thread(room["vera"].cancel_request)
        gate.reached()
        assert room["host"].approve_speaker(request) == 1
        gate.open()
        is_refused(cancelling)
        all_agree(room, {"vera": 1}, speaking=())  # seated by others: the microphone is its own decision
        room["vera"].set_microphone(True)
        all_agree(room, {"vera": 1}, speaking=["vera"])


def test_cancelled_before_the_approval_arrives(engine: LocalEngine, way: Way) -> None:
    there = way()
    with audio_room(engine, "vera", "will", mode="request", ways={"host": there}, auto_unmute=True) as room:
        request = ask_to_speak(room, "vera")
        gate = there.hold("POST", APPROVE)
        approving = in_thread(lambda: room["host"].approve_speaker(request))
        gate.reached()
        room["vera"].cancel_request()
        gate.open()
        is_refused(approving)
        all_agree(room, {}, speaking=())


def test_approved_and_the_answer_to_the_request_comes_later(engine: LocalEngine, way: Way) -> None:
    """What the answer says of the request is old by then: it sits, and by `auto_unmute` it speaks."""
    here = way()
    with audio_room(engine, "vera", "will", mode="request", ways={"vera": here}, auto_unmute=True) as room:
        gate = here.hold("POST", REQUEST, at="answer")
        asking = in_thread(room["vera"].request_to_speak)
        gate.reached()
        asked = room["host"].pending_requests.wait_for(lambda rows: rows, timeout=WAIT)
        room["host"].approve_speaker(asked[0])
        room["vera"].seats.wait_for(lambda grid: grid.my_seat == 1, timeout=WAIT)
        gate.open()
        assert asking.result(WAIT).id == asked[0].id
        all_agree(room, {"vera": 1}, speaking=["vera"])


# ----------------------------------------------------------------------------------------------------- kick and leave


def test_left_before_the_kick_arrives(engine: LocalEngine, way: Way) -> None:
    there = way()
    with audio_room(engine, "vera", "will", ways={"host": there}) as room:
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])
        gate = there.hold("POST", KICK)
        kicking = in_thread(lambda: room["host"].kick_seat(1))
        gate.reached()
        room["vera"].leave_seat()
        gate.open()
        is_refused(kicking)
        all_agree(room, {}, speaking=())


def test_kicked_before_the_leave_arrives(engine: LocalEngine, way: Way) -> None:
    """It is silent from the moment it asked, whoever of the two was first."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])
        gate = here.hold("POST", LEAVE)
        leaving = in_thread(room["vera"].leave_seat)
        gate.reached()
        until(lambda: not room.sending(), "its microphone is off before the engine has heard of it")
        room["host"].kick_seat(1)
        gate.open()
        is_refused(leaving)
        all_agree(room, {}, speaking=())


def test_kicked_and_another_sits_there_before_the_leave_arrives(engine: LocalEngine, way: Way) -> None:
    """The late leave is about its own place, and not about a seat: the other one stays."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        room["vera"].take_seat(1)
        gate = here.hold("POST", LEAVE)
        leaving = in_thread(room["vera"].leave_seat)
        gate.reached()
        room["host"].kick_seat(1)
        room["will"].seats.wait_for(lambda grid: grid.seats[1].is_empty, timeout=WAIT)
        room["will"].take_seat(1)
        gate.open()
        is_refused(leaving)
        all_agree(room, {"will": 1}, speaking=["will"])


# ------------------------------------------------------------------------------ revoked while the grant is waited for


@pytest.mark.parametrize("grant", ["comes late", "never comes"])
def test_kicked_while_it_waits_for_the_grant(media: str, grant: str) -> None:
    """The engine seats it, and its grant stands at a gate; the kick is committed first. Nobody is heard."""
    with engine_behind_gates(media) as (engine, gates), audio_room(engine, "vera", "will") as room:
        gate = gates.hold("POST", UPDATE_PARTICIPANT, times=None)
        taking = in_thread(lambda: room["vera"].take_seat(1))
        gate.reached()
        until(lambda: own_standing(room["vera"]) == "seated", "it knows that it sits")
        room["host"].seats.wait_for(lambda grid: not grid.seats[1].is_empty, timeout=WAIT)
        room["host"].kick_seat(1)
        if grant == "comes late":
            gate.open()
            error = taking.exception(WAIT)  # the grant and its end come one after the other: it may just have made it
            assert error is None or isinstance(error, UTDPermissionError), error
        else:
            gate.cut()
            is_refused(taking, UTDPermissionError)
        all_agree(room, {}, speaking=())
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])


# --------------------------------------------------------------------------------------------- answers that come late


def test_a_get_answer_that_is_older_than_what_was_heard(engine: LocalEngine, way: Way) -> None:
    here = way()
    with audio_room(engine, "vera", "will", "xena", ways={"vera": here}) as room, versions_of(room["vera"]) as shown:
        gate = here.hold("GET", "/rooms/*/seats", at="answer")
        looking = in_thread(room["vera"].get_seats)
        gate.reached()
        room["will"].take_seat(1)
        newest = room["vera"].seats.wait_for(lambda grid: grid.seats[1].identity == room.id("will"), timeout=WAIT)
        gate.open()
        assert looking.result(WAIT).seat_of(room.id("will")) == 1
        assert (room["vera"].seats.value.version or 0) >= (newest.version or 0)
        all_agree(room, {"will": 1}, speaking=["will"])
        signals.drain(WAIT)
        assert shown == sorted(set(shown)), "no grid was shown after a newer one"


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_the_answer_to_a_take_is_lost(engine: LocalEngine, way: Way, times: int | None) -> None:
    """Asked again under the same key, the engine says the same; where no answer ever comes, a look finds the seat."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        lost = here.cut("POST", TAKE, times=times)
        room["vera"].take_seat(1, timeout=WAIT)
        assert lost.caught >= 1
        all_agree(room, {"vera": 1}, speaking=["vera"])
        lost.open()
        room["vera"].leave_seat()
        all_agree(room, {}, speaking=())


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_the_answer_to_a_leave_is_lost(engine: LocalEngine, way: Way, times: int | None) -> None:
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        room["vera"].take_seat(1)
        lost = here.cut("POST", LEAVE, times=times)
        room["vera"].leave_seat(timeout=WAIT)
        assert lost.caught >= 1
        all_agree(room, {}, speaking=())
        lost.open()
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])


# ---------------------------------------------------------------------------------------------------------- interrupted


def interrupted(room: Room, how: str, gate_reached: Callable[[], None]) -> None:
    """A take that is given up by its caller while its request is under way."""
    if how == "timeout":
        with pytest.raises(UTDTimeoutError):
            room["vera"].take_seat(1, timeout=0.5)
        gate_reached()
        return

    def press() -> None:
        gate_reached()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pressing = in_thread(press)
    with pytest.raises(KeyboardInterrupt):
        room["vera"].take_seat(1)
    pressing.result(WAIT)


@pytest.mark.parametrize("how", ["timeout", "ctrl-c"])
def test_a_take_that_is_given_up_before_it_arrives(engine: LocalEngine, way: Way, how: str) -> None:
    """A look has sealed it: when it arrives at last it is refused, and nobody sits there."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        gate = here.hold("POST", TAKE)
        interrupted(room, how, gate.reached)
        until(lambda: own_standing(room["vera"]) == "listener", "the end of its request is known")
        gate.open()
        until(lambda: [one.status for one in here.state.seen if one.path.endswith("/take")] == [409], "it was refused")
        all_agree(room, {}, speaking=())
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])


@pytest.mark.parametrize("how", ["timeout", "ctrl-c"])
def test_a_take_that_is_given_up_after_it_was_done(engine: LocalEngine, way: Way, how: str) -> None:
    """It sits, as everybody sees, itself included; but it never speaks by surprise."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        gate = here.hold("POST", TAKE, at="answer")
        interrupted(room, how, gate.reached)
        gate.open()
        all_agree(room, {"vera": 1}, speaking=())
        room["vera"].leave_seat()
        room["vera"].take_seat(2)
        all_agree(room, {"vera": 2}, speaking=["vera"])


@pytest.mark.parametrize("at", ["request", "answer"])
def test_leaving_the_room_overtakes_a_take(engine: LocalEngine, way: Way, at: At) -> None:
    """Whether the engine has seated it already or not: nobody sits there at the end, and it can come again."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        gate = here.hold("POST", TAKE, at=at)
        taking = in_thread(lambda: room["vera"].take_seat(1))
        gate.reached()
        room["vera"].leave(timeout=WAIT)
        is_refused(taking)
        gate.open()
        until(lambda: [one for one in here.state.seen if one.path.endswith("/take")], "the take was answered")
        all_agree(room, {}, speaking=())
        assert not room["vera"].connected.value
        room["vera"].join(timeout=WAIT)
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])
