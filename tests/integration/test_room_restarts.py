"""The engine, or the media server, is killed with -9 and comes back in the middle of a stream and of an audio room.

No seat, stage member, raised hand, request or invitation is lost; later verbs work; whoever was seated or on stage with
the microphone on is heard again by itself, as measured in its tone, and nobody else is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.calling import WAIT, in_thread, until
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import (
    Scene,
    all_agree,
    ask_to_speak,
    audio_room,
    bring_on_stage,
    in_media,
    listens_to,
    live_stream,
    own_standing,
    stage_agrees,
)
from utd_fsm import UTDAudioRoomSession, UTDLiveStreamSession, UTDPermissionError, UTDRole
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
Room = Scene[UTDAudioRoomSession]
Show = Scene[UTDLiveStreamSession]


@contextmanager
def busy_room(engine: LocalEngine) -> Iterator[Room]:
    """Host and vera sit and speak, yuri sits and is silent, will asks, xena is invited; the chat is locked."""
    with audio_room(engine, "vera", "will", "xena", "yuri", seats=6, mode="request") as room:
        room["host"].take_seat(0)
        room["host"].approve_speaker(ask_to_speak(room, "vera"))
        room["vera"].seats.wait_for(lambda grid: grid.my_seat == 1, timeout=WAIT)
        room["vera"].set_microphone(True)
        room["host"].approve_speaker(ask_to_speak(room, "yuri"))
        room["yuri"].seats.wait_for(lambda grid: grid.my_seat == 2, timeout=WAIT)
        room["yuri"].set_microphone(True)
        room["yuri"].set_microphone(False)
        ask_to_speak(room, "will")
        room["host"].invite_to_speak(room.id("xena"), 4)
        room["host"].lock_seat(5)
        room["host"].lock_chat()
        room["host"].promote(room.id("will"))
        room_is_as_it_was(room)
        yield room


def room_is_as_it_was(room: Room) -> None:
    """Everything that `busy_room` made."""
    grid = all_agree(room, {"host": 0, "vera": 1, "yuri": 2}, speaking={"host", "vera"})
    assert grid.seats[5].locked
    assert room.who(one.identity for one in grid.requests) == ["will"]
    assert room.who(one.identity for one in grid.invitations) == ["xena"]
    until(lambda: room["xena"].invitations.value == grid.invitations, "the invited one has its invitation")
    for one in room.people.values():
        one.chat_locked.wait_for(True, timeout=WAIT)
        one.roles.wait_for(
            lambda roles: roles.get(room.id("host")) is UTDRole.HOST and roles.get(room.id("will")) is UTDRole.ADMIN,
            timeout=WAIT,
        )


def room_goes_on(room: Room) -> None:
    """What was begun before is finished: the request is approved, the invitation accepted, somebody leaves."""
    asked = room["host"].pending_requests.value[0]
    assert room["host"].approve_speaker(asked) == 3
    assert room["xena"].accept_invitation() == 4
    room["vera"].leave_seat()
    all_agree(room, {"host": 0, "yuri": 2, "will": 3, "xena": 4}, speaking={"host", "xena"})
    listens_to(room, "vera", "xena")


@contextmanager
def busy_show(engine: LocalEngine) -> Iterator[Show]:
    """The host is live, vera on stage and heard, xena on stage and silent, will has its hand up."""
    with live_stream(engine, "vera", "will", "xena") as show:
        bring_on_stage(show, "vera", "xena")
        show["xena"].set_microphone(False)
        show["will"].request_stage()
        show_is_as_it_was(show)
        yield show


def show_is_as_it_was(show: Show) -> None:
    """Everything that `busy_show` made."""
    stage_agrees(show, ["vera", "xena"], hands=["will"], speaking={"host", "vera"})


def show_goes_on(show: Show) -> None:
    """What was begun before is finished: the hand is answered, somebody steps down, somebody speaks again."""
    bring_on_stage(show, "will")
    show["vera"].leave_stage()
    show["xena"].set_microphone(True)
    stage_agrees(show, ["xena", "will"], speaking={"host", "will", "xena"})
    listens_to(show, "vera", "will")
    show["host"].remove_from_stage(show.id("will"))
    stage_agrees(show, ["xena"], speaking={"host", "xena"})


def all_reconnect(scene: Scene[UTDAudioRoomSession] | Scene[UTDLiveStreamSession]) -> None:
    """Everybody has noticed that the media server is gone."""
    for one in scene.people.values():
        one.connection.wait_for("reconnecting", timeout=WAIT)


# ---------------------------------------------------------------------------------------------------------- the engine


def test_the_engine_is_killed_in_the_middle_of_a_room(engine: LocalEngine) -> None:
    with busy_room(engine) as room:
        before = room.eye.seats(room.room)
        engine.stop(hard=True)
        listens_to(room, "will", "vera")
        engine.start()
        room_is_as_it_was(room)
        assert room.eye.seats(room.room) == before
        listens_to(room, "will", "vera")
        room_goes_on(room)


def test_the_engine_is_killed_in_the_middle_of_a_stream(engine: LocalEngine) -> None:
    with busy_show(engine) as show:
        before = show.eye.stage(show.room)
        engine.stop(hard=True)
        listens_to(show, "will", "vera")
        engine.start()
        show_is_as_it_was(show)
        assert show.eye.stage(show.room) == before
        show_goes_on(show)


def test_somebody_leaves_while_there_is_no_engine(engine: LocalEngine) -> None:
    """Nobody could be told; its seat is not lost to it before the time to come back is over, nor is it heard."""
    with busy_room(engine) as room:
        engine.stop(hard=True)
        room["vera"].dispose()
        engine.start()
        all_agree(room, {"host": 0, "vera": 1, "yuri": 2}, speaking={"host"})
        room["host"].kick_seat(1)
        all_agree(room, {"host": 0, "yuri": 2}, speaking={"host"})


def test_the_engine_is_killed_between_the_take_and_its_answer(engine: LocalEngine, way: Way) -> None:
    """The new one knows what the old one had answered: seated once, and speaking."""
    here = way()
    with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
        applied = here.hold("POST", "/rooms/*/seats/*/take", at="answer")
        taking = in_thread(lambda: room["vera"].take_seat(1))
        applied.reached()
        again = here.hold("POST", "/rooms/*/seats/*/take", times=None)
        engine.stop(hard=True)
        applied.cut()
        again.reached()
        engine.start()
        again.open()
        taking.result(WAIT)
        all_agree(room, {"vera": 1}, speaking=["vera"])
        listens_to(room, "will", "vera")


# ---------------------------------------------------------------------------------------------------- the media server


def test_the_media_server_is_killed_in_the_middle_of_a_room(engine: LocalEngine) -> None:
    with busy_room(engine) as room:
        before = room.eye.seats(room.room)
        engine.media.restart(hard=True)
        all_reconnect(room)
        room_is_as_it_was(room)
        assert room.eye.seats(room.room) == before
        listens_to(room, "will", "vera")
        listens_to(room, "vera", "host")
        room_goes_on(room)


def test_the_media_server_is_killed_in_the_middle_of_a_stream(engine: LocalEngine) -> None:
    with busy_show(engine) as show:
        before = show.eye.stage(show.room)
        engine.media.restart(hard=True)
        all_reconnect(show)
        show_is_as_it_was(show)
        assert show.eye.stage(show.room) == before
        listens_to(show, "will", "vera")
        listens_to(show, "vera", "host")
        show_goes_on(show)


def test_both_are_killed(engine: LocalEngine) -> None:
    with busy_room(engine) as room:
        engine.stop(hard=True)
        engine.media.stop(hard=True)
        all_reconnect(room)
        engine.media.start()
        engine.start()
        room_is_as_it_was(room)
        listens_to(room, "will", "vera")
        room_goes_on(room)


def test_a_seat_that_is_muted_stays_silent_after_a_restart(engine: LocalEngine) -> None:
    with busy_room(engine) as room:
        room["host"].mute_seat(1)
        all_agree(room, {"host": 0, "vera": 1, "yuri": 2}, speaking={"host"})
        engine.media.restart(hard=True)
        all_reconnect(room)
        assert all_agree(room, {"host": 0, "vera": 1, "yuri": 2}, speaking={"host"}).seats[1].muted
        with pytest.raises(UTDPermissionError):
            room["vera"].set_microphone(True)
        room["host"].unmute_seat(1)
        room["vera"].seats.wait_for(lambda grid: not grid.seats[1].muted, timeout=WAIT)
        room["vera"].set_microphone(True)
        all_agree(room, {"host": 0, "vera": 1, "yuri": 2}, speaking={"host", "vera"})
        listens_to(room, "will", "vera")


# ------------------------------------------------------------------------------------------------- while a link is down


def test_kicked_while_the_media_server_is_away(engine: LocalEngine) -> None:
    """Its token still lets it publish, and a restarted media server knows no better: the engine does."""
    with busy_room(engine) as room:
        engine.media.stop(hard=True)
        all_reconnect(room)
        room["host"].kick_seat(1)
        engine.media.start()
        all_agree(room, {"host": 0, "yuri": 2}, speaking={"host"})
        assert own_standing(room["vera"]) == "listener"
        listens_to(room, "vera", "host")
        room["host"].invite_to_speak(room.id("vera"))
        room["vera"].invitations.wait_for(lambda open_: open_, timeout=WAIT)
        room["vera"].accept_invitation()
        listens_to(room, "will", "vera")


def test_removed_from_the_stage_while_the_media_server_is_away(engine: LocalEngine) -> None:
    with busy_show(engine) as show:
        engine.media.stop(hard=True)
        all_reconnect(show)
        show["host"].remove_from_stage(show.id("vera"))
        engine.media.start()
        stage_agrees(show, ["xena"], hands=["will"], speaking={"host"})
        listens_to(show, "vera", "host")


@pytest.mark.parametrize("away", ["briefly", "until it joins anew"])
def test_kicked_while_its_own_link_is_down(engine: LocalEngine, way: Way, away: str) -> None:
    """Fact 30: whoever comes back with an older token comes back with its older grant. It stays revoked."""
    here = way()
    with GateProxy(engine.media.url.replace("ws", "http", 1)) as line:
        here.rewrite("POST", "/token", lambda answer: answer.update(url=line.url.replace("http", "ws", 1)))
        with audio_room(engine, "vera", "will", ways={"vera": here}) as room:
            room["vera"].take_seat(1)
            all_agree(room, {"vera": 1}, speaking=["vera"])
            line.down()
            room["vera"].connection.wait_for("reconnecting", timeout=WAIT)
            room["host"].kick_seat(1)
            if away != "briefly":
                tickets = here.paths("POST").count("/token")
                until(lambda: here.paths("POST").count("/token") > tickets, "it asks for a new way in")
            line.up()
            room["vera"].connection.wait_for("connected", timeout=WAIT)
            all_agree(room, {}, speaking=())
            until(lambda: not in_media(engine, room.room)[room.id("vera")].permission.can_publish, "it may not publish")
            room["vera"].take_seat(2)
            all_agree(room, {"vera": 2}, speaking=["vera"])
            listens_to(room, "will", "vera")
