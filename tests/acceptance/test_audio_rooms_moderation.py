"""api.md and behaviour.md, Audio room: moderation, and how one leaves; on a real engine with real media."""

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
    UTDPermissionError,
    UTDSeatGrid,
    UTDStateError,
)
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


def sees_seat(session: UTDAudioRoomSession, identity: str, index: int | None) -> UTDSeatGrid:
    """Wait until somebody sits there; None: nowhere."""
    return session.seats.wait_for(lambda grid: grid.seat_of(identity) == index, timeout=WAIT)


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
