"""api.md and behaviour.md, Audio room: each sentence, on a real engine with real media."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.calling import WAIT, fresh, in_thread
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import all_agree, ask_to_speak, audio_room, listens_to
from utd_fsm import (
    UTDAudioRoomSession,
    UTDEngineError,
    UTDInputError,
    UTDInvitation,
    UTDPermissionError,
    UTDRole,
    UTDSeatGrid,
    UTDSeatMode,
    UTDSpeakerRequest,
    UTDStateError,
    UTDStreamClient,
    UTDTimeoutError,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


def sees_seat(session: UTDAudioRoomSession, identity: str, index: int | None) -> UTDSeatGrid:
    """Wait until somebody sits there; None: nowhere."""
    return session.seats.wait_for(lambda grid: grid.seat_of(identity) == index, timeout=WAIT)


# -------------------------------------------------------------------------------------------------------- the page


def test_the_page_word_by_word(engine: LocalEngine) -> None:
    host1, vera, lobby = fresh("host1"), fresh("vera"), fresh("lobby")
    with (
        engine.client() as client,
        engine.client() as other,
        client.join_audio_room(host1, lobby, as_host=True, seat_count=8, seat_mode="request") as room,
    ):
        listener = other.join_audio_room(vera, lobby, name="Vera", microphone=Tone(660))
        room.take_seat(0)
        assert room.seats.value.my_seat == 0
        assert room.can_publish.value
        asked = in_thread(listener.request_to_speak)
        request = room.pending_requests.wait_for(lambda requests: requests, timeout=60)[0]
        assert isinstance(request, UTDSpeakerRequest)
        assert isinstance(request.id, int)
        assert asked.result(WAIT) == request
        assert (request.identity, request.name) == (vera, "Vera")
        assert request.created_at is not None
        assert room.approve_speaker(request.id) == 1
        grid = room.seats.value
        assert isinstance(grid, UTDSeatGrid)
        assert (grid.count, grid.mode, len(grid.seats), grid.requests) == (8, UTDSeatMode.REQUEST, 8, ())
        assert isinstance(grid.version, int)
        assert grid.raw["version"] == grid.version
        assert grid.seats[1].occupant == vera
        assert grid.seats[2].occupant is None
        assert (grid.my_seat, grid.free_seats()) == (0, (2, 3, 4, 5, 6, 7))
        assert room.pending_requests.value == ()
        mine = sees_seat(listener, vera, 1)
        assert (mine.my_seat, mine.seats[1].name) == (1, "Vera")
        assert 0 not in mine.free_seats()


# ------------------------------------------------------------------------------------------------- one's own deeds


def test_take_seat_returns_seated_and_heard(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as scene:
        vera = scene["vera"]
        with pytest.raises(UTDPermissionError):  # at once: nothing says that a listener will be granted it
            vera.set_microphone(True)
        vera.take_seat(2)
        assert vera.seats.value.my_seat == 2
        assert vera.can_publish.value
        all_agree(scene, {"vera": 2}, speaking=["vera"])
        for name in ("will", "host"):
            listens_to(scene, name, "vera")
        before = vera.seats.value
        with pytest.raises(UTDStateError) as seated:
            vera.take_seat(3)
        assert set(seated.value.allowed) == {"move_seat", "leave_seat"}
        for act in (vera.request_to_speak, vera.accept_invitation, vera.decline_invitation, vera.cancel_request):
            with pytest.raises(UTDStateError):
                act()
        assert vera.seats.value == before
        vera.leave_seat()
        assert vera.seats.value.my_seat is None
        all_agree(scene, {}, speaking=[])
        with pytest.raises(UTDStateError):
            vera.leave_seat()
        with pytest.raises(UTDPermissionError):
            vera.set_microphone(True)


def test_seats_that_cannot_be_taken(engine: LocalEngine, way: Way) -> None:
    there = way()
    with audio_room(engine, "vera", "will", ways={"vera": there}) as scene:
        vera = scene["vera"]
        scene["will"].take_seat(1)
        scene["host"].lock_seat(2)
        vera.seats.wait_for(lambda grid: grid.seats[2].locked and grid.seats[1].occupant, timeout=WAIT)
        assert vera.seats.value.free_seats() == (3,)
        assert scene["host"].seats.value.free_seats() == (0, 3)
        assert vera.seats.value.seats[0].reserved_for == scene.id("host")
        sent = len(there.state.seen)
        for index, kind in ((0, UTDPermissionError), (1, UTDStateError), (2, UTDStateError), (4, UTDInputError)):
            with pytest.raises(kind) as error:
                vera.take_seat(index)
            assert not isinstance(error.value, UTDEngineError)
        assert len(there.state.seen) == sent
        vera.take_seat(3)
        for index, kind in ((0, UTDPermissionError), (1, UTDStateError), (2, UTDStateError), (3, UTDStateError)):
            with pytest.raises(kind):
                vera.move_seat(index)
        all_agree(scene, {"will": 1, "vera": 3}, speaking=["vera", "will"])


def test_moving_keeps_the_sound(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as scene:
        vera = scene["vera"]
        with pytest.raises(UTDStateError):
            vera.move_seat(3)
        vera.take_seat(1)
        versions = [vera.seats.value.version]
        with scene["will"].listen(scene.id("vera"), timeout=WAIT) as frames:
            next(iter(frames))
            vera.move_seat(3)
            versions.append(vera.seats.value.version)
            assert vera.seats.value.my_seat == 3
            assert next(iter(frames)).identity == scene.id("vera")
        assert versions[1] == (versions[0] or 0) + 1  # one step
        all_agree(scene, {"vera": 3}, speaking=["vera"])
        scene["host"].mute_seat(3)
        vera.seats.wait_for(lambda grid: grid.seats[3].muted, timeout=WAIT)
        vera.move_seat(2)  # a mute goes along
        assert vera.seats.value.seats[2].muted
        all_agree(scene, {"vera": 2}, speaking=[])


def test_an_accepted_invitation_is_ones_own_deed(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", mode="request") as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        with pytest.raises(UTDPermissionError):
            vera.take_seat(1)
        for act in (vera.accept_invitation, vera.decline_invitation, vera.cancel_request):
            with pytest.raises(UTDStateError):
                act()
        made = host.invite_to_speak(scene.id("vera"), 2)
        assert isinstance(made, UTDInvitation)
        assert (made.identity, made.inviter, made.seat_index) == (scene.id("vera"), scene.id("host"), 2)
        assert vera.invitations.wait_for(lambda some: some, timeout=WAIT) == (made,)
        assert host.invitations.value == will.invitations.value == ()
        with pytest.raises(UTDStateError):
            host.invite_to_speak(scene.id("vera"))
        with pytest.raises(UTDEngineError) as not_mine:
            will.accept_invitation(made.id)
        assert not_mine.value.status_code == 403
        assert vera.accept_invitation() == 2
        assert vera.invitations.value == ()
        all_agree(scene, {"vera": 2}, speaking=["vera"])
        listens_to(scene, "will", "vera")
        second = host.invite_to_speak(scene.id("will"))
        assert second.seat_index is None
        will.invitations.wait_for(lambda some: some, timeout=WAIT)
        will.decline_invitation(second)
        assert will.invitations.value == ()
        with pytest.raises(UTDStateError):
            will.accept_invitation(second)
        host.seats.wait_for(lambda grid: not grid.invitations, timeout=WAIT)
        third = host.invite_to_speak(scene.id("will"))
        will.invitations.wait_for(lambda some: some, timeout=WAIT)
        assert will.accept_invitation(third.id) == 1
        all_agree(scene, {"vera": 2, "will": 1}, speaking=["vera", "will"])


@pytest.mark.parametrize("auto_unmute", [False, True])
def test_being_approved_turns_the_microphone_on_only_where_that_was_asked(
    engine: LocalEngine, auto_unmute: bool
) -> None:
    with audio_room(engine, "vera", mode="request", auto_unmute=auto_unmute) as scene:
        host, vera = scene["host"], scene["vera"]
        request = ask_to_speak(scene, "vera")
        assert vera.pending_requests.value == (request,)
        with pytest.raises(UTDStateError) as again:
            vera.request_to_speak()
        assert again.value.allowed == ("cancel_request",)
        assert host.approve_speaker(request) == 1
        sees_seat(vera, scene.id("vera"), 1)
        vera.can_publish.wait_for(True, timeout=WAIT)
        all_agree(scene, {"vera": 1}, speaking=["vera"] if auto_unmute else [])
        if auto_unmute:
            listens_to(scene, "host", "vera")
        else:
            with pytest.raises(UTDTimeoutError):  # never as a surprise
                next(iter(host.listen(scene.id("vera"), timeout=0.5)))
            vera.set_microphone(True)
            listens_to(scene, "host", "vera")


def test_requests_oldest_first_rejected_and_taken_back(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", "xena", mode="request") as scene:
        host = scene["host"]
        asked = [ask_to_speak(scene, name) for name in ("will", "xena", "vera")]
        assert host.pending_requests.value == tuple(asked)
        assert host.seats.value.requests == tuple(asked)
        assert scene["vera"].pending_requests.wait_for(lambda some: len(some) == 3, timeout=WAIT) == tuple(asked)
        host.reject_speaker(asked[0].id)
        assert host.pending_requests.value == tuple(asked[1:])
        scene["will"].pending_requests.wait_for(tuple(asked[1:]), timeout=WAIT)
        scene["xena"].cancel_request()
        assert scene["xena"].pending_requests.value == (asked[2],)
        host.pending_requests.wait_for((asked[2],), timeout=WAIT)
        for gone in asked[:2]:
            for act in (host.approve_speaker, host.reject_speaker):
                with pytest.raises(UTDStateError):
                    act(gone)
        with pytest.raises(UTDStateError):
            scene["will"].cancel_request()
        again = scene["will"].request_to_speak()
        assert again.id > asked[2].id
        all_agree(scene, {}, speaking=[])


def test_no_seat_is_free(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", seats=2, mode="request") as scene:
        scene["host"].lock_seat(1)
        request = ask_to_speak(scene, "vera")
        with pytest.raises(UTDStateError) as full:
            scene["host"].approve_speaker(request)
        assert full.value.code == "no_free_seat"
        assert scene["host"].pending_requests.value == (request,)
        scene["host"].unlock_seat(1)
        assert scene["host"].approve_speaker(request) == 1


# ----------------------------------------------------------------------------------------------------- arranging seats


def test_only_hosts_seed_seats(engine: LocalEngine, way: Way) -> None:
    there = way()
    with UTDStreamClient(engine.app_id, engine.app_key, base_url=there.url) as client:
        given: tuple[dict[str, Any], ...] = ({"seat_count": 4}, {"seat_mode": "free"}, {"mode_id": 7})
        for seats in given:
            with pytest.raises(UTDInputError):
                client.join_audio_room(fresh("vera"), fresh("lobby"), **seats)
        assert there.state.seen == []
        assert client.identity is None
    with audio_room(engine, "vera", seats=4) as scene, engine.client() as client:
        second = client.join_audio_room(fresh("pretender"), scene.room, as_host=True, seat_count=9, seat_mode="request")
        assert (second.is_host, second.role) == (False, UTDRole.AUDIENCE)
        assert (second.seats.value.count, second.seats.value.mode) == (4, "free")
        with pytest.raises(UTDPermissionError):
            second.setup_seats(9)


def test_setup_and_get_seats_return_the_grid(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", seats=3) as scene:
        host, vera = scene["host"], scene["vera"]
        vera.take_seat(1)
        scene["will"].take_seat(2)
        grid = host.setup_seats(2, UTDSeatMode.REQUEST, "evening")
        assert host.seats.value == grid
        assert grid.raw["seat_count"] == 2  # the engine's own words
        assert (grid.count, grid.mode, grid.mode_id) == (2, "request", "evening")
        assert grid.seats[1].occupant == scene.id("vera")
        sees_seat(scene["will"], scene.id("will"), None)  # its seat is no more
        all_agree(scene, {"vera": 1}, speaking=["vera"])
        asked = vera.get_seats()
        assert asked == vera.seats.value
        assert asked.raw["seat_count"] == 2
        ask_to_speak(scene, "will")
        grid = host.setup_seats(seat_mode="free")
        assert (grid.count, grid.mode, grid.requests) == (2, "free", ())
        scene["will"].pending_requests.wait_for((), timeout=WAIT)
        with pytest.raises(UTDStateError):
            scene["will"].request_to_speak()
        for listener in (vera, scene["will"]):
            with pytest.raises(UTDPermissionError):
                listener.setup_seats(5)


def test_a_hundred_seats(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", seats=100) as scene:
        vera = scene["vera"]
        assert (vera.seats.value.count, len(vera.seats.value.seats)) == (100, 100)
        assert vera.seats.value.free_seats() == tuple(range(1, 100))
        vera.take_seat(99)
        with pytest.raises(UTDInputError):
            scene["host"].mute_seat(100)
        scene["host"].swap_seats(99, 50)
        sees_seat(vera, scene.id("vera"), 50)
        all_agree(scene, {"vera": 50}, speaking=["vera"])


def test_a_room_without_seats_and_the_defaults(engine: LocalEngine) -> None:
    with engine.client() as a, engine.client() as b:
        room, vera = fresh("lobby"), fresh("vera")
        early = b.join_audio_room(vera, room)  # before there is a host
        assert early.is_host is False
        assert early.seats.value.my_seat is None
        if early.seats.value.count == 0:
            for act in (lambda: early.take_seat(0), early.request_to_speak):
                with pytest.raises(UTDStateError):
                    act()
        host = a.join_audio_room(fresh("host"), room, as_host=True)
        assert host.is_host
        if host.seats.value.count == 0:
            host.setup_seats()
        assert (host.seats.value.count, host.seats.value.mode) == (8, "free")
        early.seats.wait_for(lambda grid: grid.count == 8, timeout=WAIT)
        early.take_seat(1)
