"""api.md and behaviour.md, Audio room: each sentence, on a real engine with real media."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.scenes import hears
from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import all_agree, ask_to_speak, audio_room, listens_to
from tests.processes import run_python
from utd_fsm import (
    UTDAudioRoomSession,
    UTDClosedError,
    UTDConnectionError,
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
from utd_fsm.media import TestPattern, Tone
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
        for seats in ({"seat_count": 4}, {"seat_mode": "free"}):
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


# ------------------------------------------------------------------------------------------------------- moderation


def test_muted_seats(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as scene:
        host, vera = scene["host"], scene["vera"]
        host.take_seat(0)
        vera.take_seat(1)
        host.mute_seat(1)
        assert host.seats.value.seats[1].muted
        all_agree(scene, {"host": 0, "vera": 1}, speaking=["host"])
        with pytest.raises(UTDPermissionError):
            vera.set_microphone(True)
        host.unmute_seat(1)
        vera.seats.wait_for(lambda grid: not grid.seats[1].muted, timeout=WAIT)
        all_agree(scene, {"host": 0, "vera": 1}, speaking=["host"])  # it switches its microphone on itself
        vera.set_microphone(True)
        listens_to(scene, "will", "vera")
        host.mute_all()
        all_agree(scene, {"host": 0, "vera": 1}, speaking=["host"])
        scene["will"].take_seat(2)  # also for those who sit down later
        assert scene["will"].seats.value.seats[2].muted
        all_agree(scene, {"host": 0, "vera": 1, "will": 2}, speaking=["host"])
        with pytest.raises(UTDPermissionError):
            scene["will"].set_microphone(True)
        host.mute_all(False)
        assert not any(seat.muted for seat in host.seats.value.seats)
        scene["will"].seats.wait_for(lambda grid: not grid.all_muted, timeout=WAIT)
        scene["will"].set_microphone(True)
        all_agree(scene, {"host": 0, "vera": 1, "will": 2}, speaking=["host", "will"])


def test_kicked_locked_and_swapped(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", seats=5) as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        vera.take_seat(1)
        will.take_seat(2)
        host.swap_seats(1, 2)
        assert (host.seats.value.seats[1].occupant, host.seats.value.seats[2].occupant) == (
            scene.id("will"),
            scene.id("vera"),
        )
        all_agree(scene, {"will": 1, "vera": 2}, speaking=["vera", "will"])
        host.mute_seat(1)
        host.swap_seats(1, 3)  # with an empty seat it is a move, and the mute goes with the person
        assert host.seats.value.seats[3].muted
        all_agree(scene, {"will": 3, "vera": 2}, speaking=["vera"])
        host.kick_seat(2)
        all_agree(scene, {"will": 3}, speaking=[])
        assert vera.connected.value
        with pytest.raises(UTDPermissionError):
            vera.set_microphone(True)
        vera.take_seat(2)  # a lost seat is no ban
        host.lock_seat(2)  # evicts first
        assert host.seats.value.seats[2].locked
        assert host.seats.value.seats[2].occupant is None
        sees_seat(vera, scene.id("vera"), None)
        with pytest.raises(UTDStateError):
            vera.take_seat(2)
        host.lock_seat(2)  # locked already is no error
        for act in (
            lambda: host.kick_seat(4),
            lambda: host.mute_seat(4),
            lambda: host.unmute_seat(4),
            lambda: host.unlock_seat(3),
            lambda: host.swap_seats(2, 3),
            lambda: host.swap_seats(1, 4),
            lambda: host.invite_to_speak(scene.id("vera"), 2),
            lambda: host.invite_to_speak(scene.id("vera"), 3),
            lambda: host.invite_to_speak(scene.id("will")),
        ):
            with pytest.raises(UTDStateError):
                act()
        host.unlock_seat(2)
        vera.seats.wait_for(lambda grid: not grid.seats[2].locked, timeout=WAIT)
        vera.take_seat(2)
        all_agree(scene, {"will": 3, "vera": 2}, speaking=["vera"])


def test_a_listener_moderates_nobody_and_an_admin_not_the_host(engine: LocalEngine, way: Way) -> None:
    there = way()
    with audio_room(engine, "vera", "will", mode="request", ways={"vera": there}) as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        host.take_seat(0)
        sees_seat(vera, scene.id("host"), 0)
        acts: list[Callable[[UTDAudioRoomSession], object]] = [
            lambda one: one.kick_seat(0),
            lambda one: one.lock_seat(0),
            lambda one: one.mute_seat(0),
            lambda one: one.unmute_seat(0),
            lambda one: one.swap_seats(0, 1),
            lambda one: one.kick(scene.id("host")),
            lambda one: one.ban(scene.id("host")),
            lambda one: one.mute_participant(scene.id("host")),
            lambda one: one.promote(scene.id("will")),
        ]
        sent = len(there.state.seen)
        more: list[Callable[[UTDAudioRoomSession], object]] = [
            lambda one: one.unlock_seat(1),
            lambda one: one.mute_all(),
            lambda one: one.lock_chat(),
            lambda one: one.approve_speaker(1),
            lambda one: one.reject_speaker(1),
            lambda one: one.invite_to_speak(scene.id("will")),
            lambda one: one.setup_seats(3),
            lambda one: one.bans(),
        ]
        for act in acts + more:
            with pytest.raises(UTDPermissionError):
                act(vera)
        assert len(there.state.seen) == sent
        host.promote(scene.id("vera"))
        vera.roles.wait_for(lambda roles: roles[scene.id("vera")] == "admin", timeout=WAIT)
        for act in acts:
            with pytest.raises(UTDPermissionError):
                act(vera)
        assert len(there.state.seen) == sent
        assert vera.can_publish.value is False  # moderates, and speaks from a seat like anybody
        with pytest.raises(UTDPermissionError):
            vera.take_seat(1)
        request = ask_to_speak(scene, "will")
        vera.pending_requests.wait_for((request,), timeout=WAIT)
        assert vera.approve_speaker(request) == 1
        vera.mute_seat(1)
        vera.lock_chat()
        assert vera.chat_locked.value
        assert vera.bans().bans == ()
        vera.kick(scene.id("will"))
        will.connection.wait_for("force_exit", timeout=WAIT)
        all_agree(scene, {"host": 0}, speaking=["host"])


def test_banned_in_three_ways_is_out_at_once(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", mode="request") as scene, engine.client() as client:
        host, vera = scene["host"], scene["vera"]
        host.approve_speaker(ask_to_speak(scene, "vera"))
        sees_seat(vera, scene.id("vera"), 1)
        vera.set_microphone(True)
        waiting = in_thread(lambda: vera.seats.wait_for(lambda grid: grid.my_seat == 3, timeout=None))
        host.ban(scene.id("vera"), reason="noise", duration=60)
        with pytest.raises(UTDConnectionError):
            waiting.result(WAIT)
        sees_seat(host, scene.id("vera"), None)
        vera.connection.wait_for("force_exit", timeout=WAIT)
        assert (vera.seats.value.my_seat, vera.can_publish.value) == (None, False)
        for act in (
            lambda: vera.take_seat(1),
            vera.request_to_speak,
            vera.get_seats,
            lambda: vera.set_microphone(True),
        ):
            with pytest.raises(UTDStateError):
                act()
        for join in (vera.join, lambda: client.join_audio_room(scene.id("vera"), scene.room)):
            with pytest.raises(UTDPermissionError) as out:
                join()
            assert out.value.is_banned
        with pytest.raises(UTDEngineError):
            host.invite_to_speak(scene.id("vera"))
        all_agree(scene, {}, speaking=[])


# ------------------------------------------------------------------------------------------------- leaving, sources


def test_set_camera_is_refused(engine: LocalEngine, way: Way) -> None:
    there = way()
    with audio_room(engine, "vera", ways={"vera": there}) as scene:
        scene["vera"].take_seat(1)
        sent = len(there.state.seen)
        acts: list[Callable[[], object]] = [
            lambda: scene["vera"].set_camera(True),
            lambda: scene["vera"].set_camera(True, source=TestPattern(64, 64, 5)),
            lambda: scene["vera"].set_screen(True, source=TestPattern(64, 64, 5)),
        ]
        for act in acts:
            with pytest.raises(UTDStateError):
                act()
        assert len(there.state.seen) == sent
        all_agree(scene, {"vera": 1}, speaking=["vera"])


@pytest.mark.parametrize("how", ["leave", "with", "dispose"])
def test_leaving_gives_back_seat_and_request(engine: LocalEngine, tmp_path: Path, how: str) -> None:
    with audio_room(engine, "vera", "will", seats=4) as scene:
        host, vera = scene["host"], scene["vera"]
        vera.take_seat(1)
        recording = in_thread(lambda: scene["will"].record(tmp_path / "a.wav", identity=scene.id("vera"), timeout=WAIT))
        mine = in_thread(lambda: vera.record(tmp_path / "b.wav", timeout=WAIT))
        listens_to(scene, "will", "vera")
        if how == "with":
            with vera:
                pass
        else:
            getattr(vera, how)()
        assert vera.seats.value.my_seat is None
        assert vera.can_publish.value is False
        assert mine.result(WAIT).ended_by in ("left", "closed")
        sees_seat(host, scene.id("vera"), None)
        all_agree(scene, {}, speaking=[])
        assert not recording.done()  # who leaves is a gap to those who stay
        scene["will"].leave()
        assert recording.result(WAIT).seconds > 0.3
        if how == "leave":
            vera.join()
            assert vera.seats.value.my_seat is None
            vera.take_seat(2)
            all_agree(scene, {"vera": 2}, speaking=["vera"])
        else:
            with pytest.raises(UTDClosedError):
                vera.take_seat(1)


def test_a_host_who_leaves_keeps_its_room(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", mode="request") as scene:
        host = scene["host"]
        host.take_seat(0)
        host.mute_all()
        host.leave()
        sees_seat(scene["vera"], scene.id("host"), None)
        scene["vera"].request_to_speak()
        host.join()
        assert host.is_host
        assert (host.seats.value.count, host.seats.value.mode, host.seats.value.all_muted) == (4, "request", True)
        assert len(host.pending_requests.value) == 1
        host.take_seat(0)
        listens_to(scene, "vera", "host")


def test_one_identity_twice(engine: LocalEngine) -> None:
    """The second device puts the first out; that is no ban, and the seat stays the person's."""
    with audio_room(engine, "vera", "will") as scene, engine.client() as client:
        vera = scene["vera"]
        vera.take_seat(1)
        again = client.join_audio_room(scene.id("vera"), scene.room, microphone=Tone(880))
        vera.connection.wait_for("force_exit", timeout=WAIT)
        assert again.connected.value
        if again.seats.value.my_seat == 1:
            again.can_publish.wait_for(True, timeout=WAIT)
            again.set_microphone(True)
        else:
            again.take_seat(1)
        hears(scene["will"], 880, scene.id("vera"))
        vera.leave()  # says nothing for the other device
        assert again.seats.value.my_seat == 1
        until(lambda: scene["host"].seats.value.seat_of(scene.id("vera")) == 1, "still seated")


def test_the_interpreters_exit_gives_the_seat_back(engine: LocalEngine) -> None:
    with audio_room(engine) as scene:
        who = fresh("vera")
        code = f"""
from utd_fsm import UTDStreamClient
client = UTDStreamClient({engine.app_id!r}, {engine.app_key!r}, base_url={engine.base_url!r})
room = client.join_audio_room({who!r}, {scene.room!r})
room.take_seat(1)
print(room.seats.value.my_seat)
"""
        assert run_python(code, timeout=60)[0].strip() == "1"
        sees_seat(scene["host"], who, None)
        scene["host"].remote_participants.wait_for((), timeout=WAIT)


def test_speakers_are_typed(engine: LocalEngine) -> None:
    with audio_room(engine, "vera") as scene:
        scene["vera"].take_seat(1)
        speakers = scene["host"].speakers.wait_for(lambda some: some, timeout=WAIT)
        assert isinstance(speakers, tuple)
        assert speakers[0].identity == scene.id("vera")
        assert 0 < speakers[0].level <= 1
        assert speakers[0].since > 0
