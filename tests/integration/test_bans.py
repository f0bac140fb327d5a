"""A ban reaches whom it is about in three ways; each time there is one notice, and it counts once the engine says so.

The three ways: the engine's ``_banned`` while connected, the removal, and the 403 to whoever wants in again. The data
message alone is a hint that anybody can forge.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import (
    Asker,
    Scene,
    all_agree,
    audio_room,
    bring_on_stage,
    engine_behind_gates,
    in_media,
    listens_to,
    live_stream,
    stage_agrees,
)
from tests.integration.test_hostile_rooms import A_LOOK, Hostile, everything_arrived, told
from utd_fsm import UTDForbiddenError, UTDStateError, UTDStreamClient, signals
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
REMOVE = "/twirp/livekit.RoomService/RemoveParticipant"
SEND = "/twirp/livekit.RoomService/SendData"


@contextmanager
def notices() -> Iterator[list[tuple[object, str | None, str | None]]]:
    """Each `banned` that any session sends meanwhile: who, why, where."""
    heard: list[tuple[object, str | None, str | None]] = []

    def note(sender: object, *, reason: str | None, room_name: str | None, **extra: Any) -> None:
        heard.append((sender, reason, room_name))

    with signals.banned.connected_to(note):
        yield heard


def one_notice(
    heard: list[tuple[object, str | None, str | None]], who: object, reason: str | None, room: str | None
) -> None:
    """It comes; and after the time of a look there is still just this one."""
    until(lambda: heard, "a notice came")
    time.sleep(A_LOOK)
    signals.drain(WAIT)
    assert heard == [(who, reason, room)]


def is_out(scene: Scene[Any], name: str) -> None:
    """Out against its will, not in the media room, and not let in again."""
    session = scene[name]
    session.connection.wait_for("force_exit", timeout=WAIT)
    until(lambda: scene.id(name) not in in_media(scene.engine, scene.room), "the media server has it no more")
    with pytest.raises(UTDForbiddenError) as refused:
        session.join(timeout=WAIT)
    assert refused.value.is_banned
    assert session.connection.value in ("disconnected", "force_exit")


# ----------------------------------------------------------------------------------------------------- the three ways


@pytest.mark.parametrize("kind", ["audio room", "live stream"])
def test_banned_while_it_speaks(engine: LocalEngine, kind: str) -> None:
    """It loses its place, is told once, is out, and nobody hears it; the others go on."""
    if kind == "audio room":
        with audio_room(engine, "vera", "will") as room, notices() as heard:
            room["host"].take_seat(0)
            room["vera"].take_seat(1)
            room["host"].ban(room.id("vera"), reason="because")
            one_notice(heard, room["vera"], "because", room.room)
            all_agree(room, {"host": 0}, speaking=["host"])
            is_out(room, "vera")
            listens_to(room, "will", "host")
            assert len(heard) == 1
    else:
        with live_stream(engine, "vera", "will") as show, notices() as heard:
            bring_on_stage(show, "vera")
            show["host"].ban(show.id("vera"), reason="because")
            one_notice(heard, show["vera"], "because", show.room)
            stage_agrees(show, [], speaking=["host"])
            is_out(show, "vera")
            listens_to(show, "will", "host")
            assert len(heard) == 1


def test_the_message_comes_and_the_removal_does_not(media: str) -> None:
    """The look that the message gives reason for finds the ban: one notice; and one removal later, none more."""
    with engine_behind_gates(media) as (engine, gates), audio_room(engine, "vera") as room, notices() as heard:
        # The first removal fails: on a busy machine it may come before the message, which waits for it then.
        gates.cut("POST", REMOVE, at="request")
        gate = gates.hold("POST", REMOVE, times=None)
        room["host"].ban(room.id("vera"), reason="by word")
        gate.reached()
        one_notice(heard, room["vera"], "by word", room.room)
        assert room["vera"].connection.value == "connected"
        gate.open()
        is_out(room, "vera")
        one_notice(heard, room["vera"], "by word", room.room)


def test_the_removal_comes_and_the_message_does_not(media: str) -> None:
    with engine_behind_gates(media) as (engine, gates), audio_room(engine, "vera") as room, notices() as heard:
        gate = gates.hold("POST", SEND)
        cut = gates.cut("POST", SEND, at="request", times=None)
        room["host"].ban(room.id("vera"), reason="by removal")
        gate.reached()
        gate.cut()
        is_out(room, "vera")
        one_notice(heard, room["vera"], "by removal", room.room)
        cut.open()


def test_banned_while_its_link_is_down(engine: LocalEngine, way: Way) -> None:
    """Neither word nor removal can reach it: the token it wants for coming back is refused, and that is the notice."""
    here = way()
    with GateProxy(engine.media.url.replace("ws", "http", 1)) as line:
        here.rewrite("POST", "/token", lambda answer: answer.update(url=line.url.replace("http", "ws", 1)))
        with audio_room(engine, "vera", ways={"vera": here}) as room, notices() as heard:
            line.down()
            room["vera"].connection.wait_for("reconnecting", timeout=WAIT)
            room["host"].ban(room.id("vera"), reason="by token")
            one_notice(heard, room["vera"], "by token", room.room)
            line.up()
            is_out(room, "vera")
            one_notice(heard, room["vera"], "by token", room.room)


def test_refused_at_the_door_is_an_error_and_no_notice(local: LocalEngine) -> None:
    """Whoever asks to come in is answered: there is nobody else to tell."""
    with audio_room(local, "vera") as room, notices() as heard:
        room["vera"].leave()
        room["host"].ban(room.id("vera"), reason="because")
        with pytest.raises(UTDForbiddenError) as refused:
            room["vera"].join(timeout=WAIT)
        assert refused.value.is_banned
        assert refused.value.details["reason"] == "because"
        with pytest.raises(UTDForbiddenError) as refused:
            room.clients["vera"].join_audio_room(room.id("vera"), room.room, timeout=WAIT)
        assert refused.value.is_banned
        signals.drain(WAIT)
        assert heard == []


# ------------------------------------------------------------------------------------------------------- what is none


def test_a_forged_ban_is_none(engine: LocalEngine, way: Way) -> None:
    """Without a sender, as in the first moment after a join, it is a reason for one look; with one, it is dropped."""
    here = way()
    with audio_room(engine, "vera", ways={"vera": here}) as room, told() as heard:
        room["vera"].take_seat(1)
        signals.drain(WAIT)
        heard.clear()
        asked = len(here.state.seen)
        with Hostile(engine, room.room, "audio_room") as eve:
            forged = json.dumps({"type": "_banned", "room_name": room.room, "reason": "x", "expires_at": None}).encode()
            eve.join(*[forged] * 100)
            everything_arrived(eve, heard, len(room.people))
            assert len(here.state.seen) - asked <= 1
            eve.send(*[forged] * 100)
            everything_arrived(eve, heard, len(room.people))
        assert len(here.state.seen) - asked <= 1
        assert heard == []
        assert room["vera"].connection.value == "connected"
        all_agree(room, {"vera": 1}, speaking=["vera"])


def test_signed_in_elsewhere_is_no_ban(engine: LocalEngine) -> None:
    """The same identity comes in from another device: the first one is out, and is not told that it is banned."""
    with audio_room(engine, "vera", "will") as room, notices() as heard:
        room["vera"].take_seat(1)
        with UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as other:
            again = other.join_audio_room(room.id("vera"), room.room, timeout=WAIT)
            room["vera"].connection.wait_for("force_exit", timeout=WAIT)
            assert again.seats.value.my_seat == 1
            time.sleep(A_LOOK)
            signals.drain(WAIT)
            assert heard == []
            assert again.connection.value == "connected"


def test_kicked_is_no_ban(engine: LocalEngine) -> None:
    """It loses its seat and is out; it may come back at once."""
    with audio_room(engine, "vera", "will") as room, notices() as heard:
        room["vera"].take_seat(1)
        room["host"].kick(room.id("vera"))
        room["vera"].connection.wait_for("force_exit", timeout=WAIT)
        all_agree(room, {}, speaking=())
        room["vera"].join(timeout=WAIT)
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])
        signals.drain(WAIT)
        assert heard == []


# ---------------------------------------------------------------------------------------------------------- its end


def test_a_ban_is_lifted(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as room, notices() as heard:
        room["host"].ban(room.id("vera"))
        is_out(room, "vera")
        assert [ban.identity for ban in room["host"].bans().bans] == [room.id("vera")]
        room["host"].unban(room.id("vera"))
        assert not room["host"].bans().bans
        room["vera"].join(timeout=WAIT)
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])
        assert len(heard) == 1
        room["host"].ban(room.id("vera"), reason="again")  # a new stay: a new notice
        is_out(room, "vera")
        until(lambda: len(heard) == 2, "a second notice")


def test_a_ban_ends_by_itself(local: LocalEngine) -> None:
    with audio_room(local, "vera") as room:
        ban = room["host"].ban(room.id("vera"), duration=3)
        assert ban.expires_at is not None
        assert ban.banned_at is not None
        is_out(room, "vera")

        def let_in() -> bool:
            try:
                room["vera"].join(timeout=WAIT)
            except UTDForbiddenError as error:
                assert error.is_banned
                return False
            return True

        until(let_in, "it is let in again")
        assert time.time() >= ban.expires_at.timestamp()
        assert not room["host"].bans().bans
        room["vera"].take_seat(1)
        all_agree(room, {"vera": 1}, speaking=["vera"])


def test_banned_everywhere(local: LocalEngine) -> None:
    """Out of every room it is in; of rooms that begin later, too; and let into all of them by one word."""
    with audio_room(local, "vera") as room, live_stream(local, "will") as show, notices() as heard:
        watching = room.clients["vera"].join_live_stream(room.id("vera"), show.room, timeout=WAIT)
        room["host"].ban(room.id("vera"), everywhere=True, reason="all of it")
        for session in (room["vera"], watching):
            session.connection.wait_for("force_exit", timeout=WAIT)
        until(lambda: len(heard) == 2, "each of its sessions is told")
        assert {one[0] for one in heard} == {room["vera"], watching}
        assert {one[1:] for one in heard} == {("all of it", None)}
        with pytest.raises(UTDForbiddenError) as refused:
            room.clients["vera"].join_audio_room(room.id("vera"), fresh("elsewhere"), True, timeout=WAIT)
        assert refused.value.is_banned
        room["host"].unban(room.id("vera"), everywhere=True)
        room["vera"].join(timeout=WAIT)
        watching.join(timeout=WAIT)


def test_a_banned_one_is_refused_by_every_route_and_may_not_be_brought_back(local: LocalEngine) -> None:
    with audio_room(local, "vera") as room:
        vera = Asker(local, room.id("vera"))
        room["host"].ban(room.id("vera"))
        is_out(room, "vera")
        for method, path, body in (
            ("GET", "seats", None),
            ("POST", "seats/1/take", {"identity": vera.identity}),
            ("POST", "speakers/request", {"identity": vera.identity}),
            ("GET", "participants/by-role?role=host", None),
        ):
            status, answer = vera.ask(method, f"/rooms/{room.room}/{path}", body)
            assert (status, answer["code"]) == (403, "banned"), answer
            assert answer["message"].startswith("User is banned")
        with pytest.raises(UTDForbiddenError) as refused:
            room["host"].invite_to_speak(room.id("vera"))
        assert not refused.value.is_banned
        with pytest.raises(UTDStateError):
            room["host"].kick_seat(1)


def test_banned_between_two_verbs(engine: LocalEngine, way: Way) -> None:
    """A take that is under way when its actor is banned: refused, told once, and nobody sits there."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room, notices() as heard:
        gate = here.hold("POST", "/rooms/*/seats/*/take")
        taking = in_thread(lambda: room["vera"].take_seat(1))
        gate.reached()
        room["host"].ban(room.id("vera"), reason="meanwhile")
        gate.open()
        assert taking.exception(WAIT) is not None
        is_out(room, "vera")
        one_notice(heard, room["vera"], "meanwhile", room.room)
        all_agree(room, {}, speaking=())
