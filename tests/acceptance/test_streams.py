"""api.md and behaviour.md, Live stream: each sentence, on a real engine with real media."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.acceptance.bad_engine import bad_engine
from tests.acceptance.scenes import hears, pitch
from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import bring_on_stage, listens_to, live_stream, stage_agrees
from tests.processes import run_python
from utd_fsm import (
    UTDBroadcast,
    UTDClosedError,
    UTDConnectionError,
    UTDConnectionState,
    UTDEngineError,
    UTDHand,
    UTDLiveStreamSession,
    UTDPermissionError,
    UTDRole,
    UTDStageMember,
    UTDStateError,
    UTDStreamClient,
    UTDTimeoutError,
)
from utd_fsm.media import AudioFrames, TestPattern, Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
B = UTDBroadcast


def air(session: UTDLiveStreamSession) -> str:
    """Where the stream is, as it is shown at this moment."""
    return session.broadcast.value


def alive(client: UTDStreamClient) -> tuple[object, ...]:
    """The client's sessions at this moment."""
    return client.sessions


class Mine(Exception):
    """Raised by a body."""


# -------------------------------------------------------------------------------------------------------- the page


def test_the_page_word_by_word(engine: LocalEngine) -> None:
    host1, vera, show = fresh("host1"), fresh("vera"), fresh("show")
    with engine.client() as client, engine.client() as other:
        with client.join_live_stream(
            host1, show, as_host=True, microphone=Tone(440), camera=TestPattern(320, 240, 10)
        ) as live:
            viewer = other.join_live_stream(vera, show, name="Vera", microphone=Tone(660))
            assert (live.is_host, viewer.is_host) == (True, False)
            assert (live.room_name, live.type, viewer.room_name) == (show, "live_stream", show)
            assert air(live) == air(viewer) == B.WAITING
            live.go_live(with_video=True)
            assert air(live) == B.LIVE  # a verb's effect is there when it returns
            viewer.broadcast.wait_for("live", timeout=WAIT)
            hears(viewer, 440, host1)
            frame = next(iter(viewer.watch(host1, timeout=WAIT)))
            assert (frame.pixels.shape, frame.identity) == ((240, 320, 3), host1)
            assert isinstance(frame.pixels, np.ndarray)

            viewer.request_stage()
            assert [hand.identity for hand in viewer.hands.value] == [vera]
            hand = live.hands.wait_for(lambda hands: hands, timeout=60)[0]
            assert isinstance(hand, UTDHand)
            assert (hand.identity, hand.name) == (vera, "Vera")
            assert hand.raised_at is not None
            live.invite_to_stage(hand.identity)
            assert live.stage.value == (UTDStageMember(vera, "Vera", UTDRole.AUDIENCE),)
            assert live.hands.value == ()
            viewer.can_publish.wait_for(True, timeout=60)
            viewer.set_microphone(True)
            hears(live, 660, vera)
            live.remove_from_stage(hand.identity)
            assert not live.stage.value
            viewer.can_publish.wait_for(False, timeout=WAIT)
            assert viewer.stage.value == ()
            live.end_live()
            assert air(live) == B.ENDED
        assert viewer.wait_until_ended() is B.ENDED
        assert viewer.connected.value  # it is still in the room: leave it
        viewer.leave()
        assert not viewer.connected.value


def test_a_viewers_own_verbs(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will") as scene:
        host, vera = scene["host"], scene["vera"]
        vera.request_stage()
        assert [one.identity for one in vera.hands.value] == [scene.id("vera")]
        with pytest.raises(UTDStateError) as again:
            vera.request_stage()
        assert again.value.allowed == ("lower_hand",)
        vera.lower_hand()
        assert vera.hands.value == ()
        for act in (vera.lower_hand, vera.leave_stage):
            with pytest.raises(UTDStateError):
                act()
        host.hands.wait_for((), timeout=WAIT)
        vera.request_stage()
        host.invite_to_stage(scene.id("vera"))
        vera.can_publish.wait_for(True, timeout=WAIT)
        stage = vera.stage.wait_for(lambda stage: stage, timeout=WAIT)  # the grant may be faster
        assert [one.identity for one in stage] == [scene.id("vera")]
        stage_agrees(scene, ["vera"], speaking=["host"])  # on stage switches nothing on
        vera.set_microphone(True)
        vera.set_camera(True, source=TestPattern(320, 240, 10))
        vera.set_screen(True, source=TestPattern(160, 120, 5))
        listens_to(scene, "will", "vera")
        assert next(iter(scene["will"].watch(scene.id("vera"), timeout=WAIT))).pixels.shape == (240, 320, 3)
        screen = next(iter(scene["will"].watch(scene.id("vera"), source="screen", timeout=WAIT)))
        assert screen.pixels.shape == (120, 160, 3)
        vera.leave_stage()
        assert vera.stage.value == ()
        stage_agrees(scene, [], speaking=["host"])
        scene["will"].remote_participants.wait_for(
            lambda others: not next(one for one in others if one.identity == scene.id("vera")).tracks, timeout=WAIT
        )
        for switch in (vera.set_microphone, vera.set_camera, vera.set_screen):
            with pytest.raises(UTDPermissionError):
                switch(True)


def test_a_viewer_is_refused_at_once_and_nothing_is_sent(
    engine: LocalEngine, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    there, used = way(), []

    def opened() -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.int16]]]:
        used.append(1)
        yield np.zeros((480, 1), np.int16)

    with live_stream(engine, "vera", ways={"vera": there}) as scene:
        vera = scene["vera"]
        before = len(there.state.seen)
        someone = scene.id("host")
        acts: list[Callable[[], object]] = [
            vera.go_live,
            vera.end_live,
            lambda: vera.invite_to_stage("x"),
            lambda: vera.remove_from_stage("x"),
            lambda: vera.promote("x"),
            lambda: vera.demote(someone),
            lambda: vera.set_role("x", "guest"),
            lambda: vera.kick("x"),
            lambda: vera.ban("x"),
            lambda: vera.unban("x"),
            lambda: vera.bans(),
            lambda: vera.lock_chat(),
            lambda: vera.mute_participant("x"),
            lambda: vera.set_microphone(True),
            lambda: vera.set_microphone(True, source=AudioFrames(opened(), 48_000, 1)),
            lambda: vera.set_camera(True),
            lambda: vera.set_screen(True, source=TestPattern(64, 64, 5)),
        ]
        for act in acts:
            with pytest.raises(UTDPermissionError):
                act()
        assert len(there.state.seen) == before
        assert not used  # a source that may not be heard is not opened
        assert not [one for one in caplog.records if "test pattern" in one.getMessage()]
        stage_agrees(scene, [], speaking=["host"])


def test_the_host_has_no_hand_to_raise(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        host = scene["host"]
        acts: list[Callable[[], object]] = [
            host.request_stage,
            host.lower_hand,
            host.leave_stage,
            lambda: host.invite_to_stage(scene.id("host")),
            lambda: host.remove_from_stage(scene.id("host")),
        ]
        for act in acts:
            with pytest.raises(UTDStateError):
                act()
        with pytest.raises(UTDStateError):  # 409 of the engine's, or ours: not on stage
            host.remove_from_stage(scene.id("vera"))
        host.go_live(with_video=False)  # idempotent
        stage_agrees(scene, [], speaking=["host"])


# ---------------------------------------------------------------------------------------------- joining and leaving


def test_joining_returns_with_the_first_snapshot_in(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will") as scene:
        bring_on_stage(scene, "vera")
        scene["will"].request_stage()
        scene["host"].lock_chat()
        scene["will"].chat_locked.wait_for(True, timeout=WAIT)  # the media server has it
        scene["host"].promote(scene.id("will"))
        scene["host"].roles.wait_for(lambda roles: roles.get(scene.id("will")) == "admin", timeout=WAIT)
        with engine.client() as client:
            late = client.join_live_stream(fresh("late"), scene.room)
            assert [one.identity for one in late.stage.value] == [scene.id("vera")]
            assert [one.identity for one in late.hands.value] == [scene.id("will")]
            assert isinstance(late.stage.value, tuple)
            assert isinstance(late.hands.value, tuple)
            assert air(late) == B.LIVE
            assert late.chat_locked.value is True
            assert late.role is UTDRole.AUDIENCE
            assert late.connected.value
            assert late.connection.value is UTDConnectionState.CONNECTED
            assert late.can_publish.value is False
            assert late.video_effects_entitled in (True, False)
            assert client.identity == late.local_participant.identity  # type: ignore[union-attr]
            assert alive(client) == (late,)
            assert late.roles.value[scene.id("host")] is UTDRole.HOST
            assert late.roles.value[scene.id("will")] is UTDRole.ADMIN
            with pytest.raises(TypeError):
                late.roles.value["x"] = UTDRole.HOST  # type: ignore[index]
            late.leave()
            assert alive(client) == ()


def test_list_values_are_oldest_first(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will", "xena") as scene:
        for name in ("will", "xena", "vera"):
            scene[name].request_stage()
        wanted = [scene.id(name) for name in ("will", "xena", "vera")]
        assert [one.identity for one in scene["host"].hands.wait_for(lambda hands: len(hands) == 3)] == wanted
        for name in ("vera", "xena", "will"):
            scene["host"].invite_to_stage(scene.id(name))
        assert [one.identity for one in scene["host"].stage.value] == [scene.id(n) for n in ("vera", "xena", "will")]
        assert [one.identity for one in scene["vera"].refresh_stage()] == [
            scene.id(n) for n in ("vera", "xena", "will")
        ]


def test_a_second_host_is_clamped_to_audience(engine: LocalEngine) -> None:
    with live_stream(engine) as scene, engine.client() as client:
        second = client.join_live_stream(fresh("pretender"), scene.room, as_host=True, name="I")
        assert second.is_host is False
        assert second.role is UTDRole.AUDIENCE
        with pytest.raises(UTDPermissionError):
            second.go_live()
        with pytest.raises(UTDPermissionError):
            second.set_microphone(True)
        assert scene["host"].is_host
        # Leaving its `with` normally ends nothing.
        with second:
            pass
        assert air(scene["host"]) == B.LIVE
        stage_agrees(scene, [], speaking=["host"])


def test_one_identity_twice_puts_the_first_out_and_is_no_ban(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene, engine.client() as client:
        first = scene["vera"]
        waiting = in_thread(lambda: first.hands.wait_for(lambda hands: len(hands) == 5, timeout=None))
        again = client.join_live_stream(scene.id("vera"), scene.room)
        assert first.connection.wait_for("force_exit", timeout=WAIT) == "force_exit"
        with pytest.raises(UTDConnectionError):
            waiting.result(WAIT)
        with pytest.raises(UTDConnectionError):
            first.connected.wait_for(True, timeout=None)
        with pytest.raises(UTDStateError) as out:
            first.request_stage()
        assert not out.value.is_banned
        until(lambda: scene.clients["vera"].sessions == (), "a session that was put out is not held")
        again.request_stage()
        assert again.connected.value
        again.leave()
        first.join()  # and back again
        assert first.connected.value
        first.request_stage()


def test_leaving_is_not_the_end_of_the_session(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        vera = scene["vera"]
        vera.request_stage()
        scene["host"].hands.wait_for(lambda hands: len(hands) == 1, timeout=WAIT)
        with pytest.raises(UTDStateError):
            vera.join()  # in the room already
        vera.leave()
        vera.leave()
        assert (vera.hands.value, vera.stage.value, vera.remote_participants.value) == ((), (), ())
        assert vera.connection.value is UTDConnectionState.DISCONNECTED
        scene["host"].hands.wait_for((), timeout=WAIT)  # the hand went with it
        for act in (
            vera.request_stage,
            vera.lower_hand,
            vera.leave_stage,
            vera.refresh_stage,
            vera.wait_until_ended,
            lambda: vera.set_microphone(True),
            lambda: vera.listen(scene.id("host")),
            lambda: vera.watch(scene.id("host")),
            lambda: vera.record("nothing.wav"),
            lambda: vera.send_chat("hello"),
            lambda: vera.send_data(b"x"),
            lambda: vera.kick("x"),
        ):
            with pytest.raises(UTDStateError):
                act()
        assert not Path("nothing.wav").exists()
        vera.join()
        assert air(vera) == B.LIVE
        listens_to(scene, "vera", "host")
        vera.request_stage()
        vera.dispose()
        vera.dispose()
        for act in (vera.join, vera.request_stage, vera.go_live, vera.wait_until_ended, vera.refresh_stage, vera.leave):
            with pytest.raises(UTDClosedError):
                act()
        with pytest.raises(UTDClosedError):
            vera.stage.wait_for(lambda stage: stage, timeout=None)


def test_a_kicked_one_may_come_back(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        vera = scene["vera"]
        bring_on_stage(scene, "vera")
        waiting = in_thread(lambda: vera.broadcast.wait_for("ended", timeout=None))
        ended = in_thread(lambda: vera.wait_until_ended(timeout=None))
        scene["host"].kick(scene.id("vera"))
        assert vera.connection.wait_for("force_exit", timeout=WAIT) == "force_exit"
        for late in (waiting, ended):
            with pytest.raises(UTDConnectionError):
                late.result(WAIT)
        assert vera.can_publish.value is False
        stage_agrees(scene, [], speaking=["host"])
        with pytest.raises(UTDStateError):
            vera.request_stage()
        vera.join()
        assert vera.can_publish.value is False
        vera.request_stage()
        scene["host"].kick(fresh("nobody"))  # who is not here is no error


def test_a_banned_one_may_not(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene, engine.client() as client:
        vera, who = scene["vera"], scene.id("vera")
        bring_on_stage(scene, "vera")
        listening = in_thread(lambda: [frame.identity for frame in vera.listen(scene.id("host"), timeout=WAIT)])
        row = scene["host"].ban(who, reason="because")
        assert (row.identity, row.reason, row.room_name, row.expires_at) == (who, "because", scene.room, None)
        vera.connection.wait_for("force_exit", timeout=WAIT)
        assert set(listening.result(WAIT)) <= {scene.id("host")}
        for join in (vera.join, lambda: client.join_live_stream(who, scene.room)):
            with pytest.raises(UTDPermissionError) as banned:
                join()
            assert banned.value.is_banned
            assert banned.value.status_code == 403
            assert banned.value.details["reason"] == "because"  # type: ignore[attr-defined]
        assert alive(client) == ()
        assert [one.identity for one in scene["host"].bans().bans] == [who]
        stage_agrees(scene, [], speaking=["host"])
        with pytest.raises(UTDEngineError):
            scene["host"].invite_to_stage(who)
        other = client.join_live_stream(who, fresh("elsewhere"))  # only this room
        other.leave()
        scene["host"].unban(who)
        assert scene["host"].bans().bans == ()
        vera.join()
        assert vera.connected.value
        with pytest.raises(UTDEngineError) as none:
            scene["host"].unban(who)
        assert none.value.status_code == 404


def test_banned_everywhere_and_for_a_time(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene, engine.client() as client:
        who = scene.id("vera")
        row = scene["host"].ban(who, everywhere=True, duration=3600)
        assert row.room_name is None
        assert row.expires_at is not None
        assert row.banned_at is not None
        assert 3500 < (row.expires_at - row.banned_at).total_seconds() <= 3601
        scene["vera"].connection.wait_for("force_exit", timeout=WAIT)
        with pytest.raises(UTDPermissionError) as banned:
            client.join_audio_room(who, fresh("elsewhere"))
        assert banned.value.is_banned
        scene["host"].unban(who, everywhere=True)
        client.join_audio_room(who, fresh("elsewhere")).dispose()


# ------------------------------------------------------------------------------------------- how a stream goes and ends


def test_a_normal_exit_of_the_host_ends_the_stream(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        with scene["host"]:
            pass
        assert scene["vera"].wait_until_ended(timeout=WAIT) is B.ENDED
        assert scene["host"].connection.value == "disconnected"
        with pytest.raises(UTDStateError):
            scene["vera"].request_stage()
        with pytest.raises(UTDStateError):  # over is over for whoever waits
            scene["vera"].broadcast.wait_for("live", timeout=None)
        with engine.client() as client:  # who comes later sees the same
            assert air(client.join_live_stream(fresh("late"), scene.room)) == B.ENDED


def test_an_exception_leaves_it_to_the_grace_and_the_host_may_return(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        host, vera = scene["host"], scene["vera"]
        with contextlib.suppress(Mine), host:
            raise Mine
        assert host.connection.value == "disconnected"
        assert vera.broadcast.wait_for(B.HOST_AWAY, timeout=WAIT) is B.HOST_AWAY
        with pytest.raises(UTDTimeoutError):
            vera.wait_until_ended(timeout=0.1)
        with engine.client() as client:  # from another process, with the same identity: back, silent, and live
            back = client.join_live_stream(scene.id("host"), scene.room, as_host=True, microphone=Tone(440))
            assert back.is_host
            vera.broadcast.wait_for(B.LIVE, timeout=WAIT)
            back.broadcast.wait_for(B.LIVE, timeout=WAIT)
            back.go_live(with_video=False)
            listens_to(scene, "vera", "host")
            back.end_live()
            assert vera.wait_until_ended(timeout=WAIT) is B.ENDED


def test_a_host_that_ended_may_begin_again(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        host = scene["host"]
        bring_on_stage(scene, "vera")
        host.end_live()
        host.end_live()  # idempotent
        assert (host.stage.value, host.hands.value) == ((), ())
        assert air(host) == B.ENDED
        assert host.wait_until_ended() is B.ENDED
        scene["vera"].wait_until_ended(timeout=WAIT)
        stage_agrees(scene, [], speaking=[], broadcast=B.ENDED)
        for switch in (host.set_microphone, host.set_camera):
            with pytest.raises(UTDStateError):
                switch(True)
        host.go_live(with_video=False)
        assert air(host) == B.LIVE
        with engine.client() as client:
            late = client.join_live_stream(fresh("late"), scene.room)
            assert air(late) == B.LIVE


def test_end_before_it_began_and_leaving_before_it_began(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", live=False) as scene:
        scene["host"].end_live()
        assert air(scene["host"]) == B.WAITING
        scene["host"].leave()
        with pytest.raises(UTDStateError):
            scene["host"].go_live()
        scene["host"].join()
        assert scene["host"].is_host
        with scene["host"]:
            pass
        assert air(scene["vera"]) == B.WAITING
        with scene.clients["host"].join_live_stream(scene.id("host"), scene.room, as_host=True) as again:
            again.go_live(with_video=False)
            scene["vera"].broadcast.wait_for("live", timeout=WAIT)
        scene["vera"].wait_until_ended(timeout=WAIT)


def test_no_cap_on_who_publishes(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will", "xena", "yuri") as scene:
        bring_on_stage(scene, "vera", "will", "xena", "yuri")
        stage_agrees(scene, ["vera", "will", "xena", "yuri"], speaking=["host", "vera", "will", "xena", "yuri"])
        for name in ("vera", "yuri"):
            listens_to(scene, "host", name)


def test_an_admin_moderates_and_never_gets_the_camera(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will") as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        host.roles.wait_for(lambda roles: scene.id("vera") in roles, timeout=WAIT)  # who is silent is listed late
        change = host.promote(scene.id("vera"))
        assert (change.identity, change.role, change.previous) == (scene.id("vera"), "admin", "audience")
        assert host.roles.value[scene.id("vera")] is UTDRole.ADMIN  # a verb's effect is there when it returns
        vera.roles.wait_for(lambda roles: roles.get(scene.id("vera")) == "admin", timeout=WAIT)
        assert vera.role is UTDRole.ADMIN
        assert not vera.is_host
        assert not vera.can_publish.value
        for act in (
            vera.go_live,
            vera.end_live,
            lambda: vera.set_microphone(True),
            lambda: vera.set_camera(True),
            lambda: vera.promote(scene.id("will")),
            lambda: vera.kick(scene.id("host")),
            lambda: vera.ban(scene.id("host")),
            lambda: vera.mute_participant(scene.id("host")),
            lambda: vera.invite_to_stage(scene.id("vera")),
        ):
            with pytest.raises(UTDPermissionError):
                act()
        will.request_stage()
        vera.hands.wait_for(lambda hands: hands, timeout=WAIT)
        vera.invite_to_stage(scene.id("will"))
        assert [one.identity for one in vera.stage.value] == [scene.id("will")]
        will.can_publish.wait_for(True, timeout=WAIT)
        will.set_microphone(True)
        listens_to(scene, "host", "will")
        vera.mute_participant(scene.id("will"))
        stage_agrees(scene, ["will"], speaking=["host"])
        will.set_microphone(True)  # that was no lock
        stage_agrees(scene, ["will"], speaking=["host", "will"])
        vera.remove_from_stage(scene.id("will"))
        with pytest.raises(UTDStateError):  # it has it already: a 409
            host.promote(scene.id("vera"))
        host.demote(scene.id("vera"))
        assert host.roles.value[scene.id("vera")] is UTDRole.AUDIENCE
        vera.roles.wait_for(lambda roles: roles.get(scene.id("vera")) == "audience", timeout=WAIT)
        with pytest.raises(UTDPermissionError):
            vera.kick(scene.id("will"))


# ------------------------------------------------------------------------------------------------- listening, sources


def test_listening_and_recording_end_with_the_room(engine: LocalEngine, tmp_path: Path) -> None:
    with live_stream(engine, "vera") as scene:
        vera = scene["vera"]
        wav = tmp_path / "a.wav"
        recording = in_thread(lambda: vera.record(wav, timeout=WAIT))
        handle = vera.start_recording(tmp_path / "b.wav", identity=scene.id("host"))
        heard = in_thread(lambda: [frame.identity for frame in vera.listen(timeout=WAIT)])
        listens_to(scene, "vera", "host")
        vera.leave()
        done = recording.result(WAIT)
        assert done.seconds > 0.4
        assert done.ended_by == "left"
        assert handle.wait(WAIT).ended_by == "left"
        assert set(heard.result(WAIT)) == {scene.id("host")}
        assert wav.stat().st_size > 44


def test_listening_ends_when_the_session_is_put_out(engine: LocalEngine, tmp_path: Path) -> None:
    with live_stream(engine, "vera") as scene:
        vera = scene["vera"]
        frames = vera.listen(scene.id("host"), timeout=WAIT)
        assert pitch(frames) == pytest.approx(440, abs=2)
        handle = vera.start_recording(tmp_path / "a.wav")
        reading = in_thread(lambda: sum(1 for _ in frames))
        scene["host"].kick(scene.id("vera"))
        assert reading.result(WAIT) >= 0
        assert handle.wait(WAIT).seconds >= 0


def test_who_is_not_on_stage_any_more_is_a_gap_not_an_end(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will") as scene:
        bring_on_stage(scene, "vera")
        with scene["will"].listen(scene.id("vera"), timeout=WAIT) as frames:
            assert pitch(frames) == pytest.approx(660, abs=2)
            scene["vera"].leave_stage()
            bring_on_stage(scene, "vera")
            assert next(iter(frames)).identity == scene.id("vera")
        with pytest.raises(UTDTimeoutError):
            for _ in scene["host"].listen(fresh("nobody"), timeout=0.3):
                pass


def test_adaptive_stream_and_watching(engine: LocalEngine) -> None:
    with live_stream(engine) as scene, engine.client() as client:
        scene["host"].set_camera(True, source=TestPattern(320, 240, 10))
        viewer = client.join_live_stream(fresh("vera"), scene.room, adaptive_stream=True)
        viewer.remote_participants.wait_for(
            lambda others: any(track.source == "camera" for one in others for track in one.tracks), timeout=WAIT
        )
        for _ in range(2):
            with viewer.watch(scene.id("host"), timeout=WAIT) as frames:
                assert next(iter(frames)).pixels.shape == (240, 320, 3)
        with viewer.watch(timeout=WAIT) as frames:
            assert next(iter(frames)).identity == scene.id("host")


def test_a_replaced_source_and_a_muted_microphone(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        host = scene["host"]
        host.set_microphone(True, source=Tone(880))
        hears(scene["vera"], 880, scene.id("host"))
        host.set_microphone(False)
        stage_agrees(scene, [], speaking=[])
        host.set_microphone(True)
        hears(scene["vera"], 880, scene.id("host"))
        assert air(host) == B.LIVE


# ------------------------------------------------------------------------------------------------ names, other rooms


@pytest.mark.parametrize(
    "name", ["a/b c?d#e%2F&f", "Grüße 世界 🎙", "..%2f..", "x" * 255], ids=["odd", "uni", "dots", "long"]
)
def test_names_of_all_kinds(engine: LocalEngine, name: str) -> None:
    room = name if len(name) == 255 else f"{name} {fresh('r')}"
    host_name, viewer_name = f"hôst/{fresh('h')}", f"vér a?{fresh('v')}"
    with engine.client() as a, engine.client() as b:
        host = a.join_live_stream(host_name, room, True, "Ünï")
        viewer = b.join_live_stream(viewer_name, room, name="世界")
        assert host.room_name == viewer.room_name == room
        assert host.is_host
        viewer.request_stage()
        hand = host.hands.wait_for(lambda hands: hands, timeout=WAIT)[0]
        assert (hand.identity, hand.name) == (viewer_name, "世界")
        host.invite_to_stage(hand.identity)
        host.promote(viewer_name)
        host.remove_from_stage(viewer_name)
        host.ban(viewer_name, reason="naïve 🎙")
        viewer.connection.wait_for("force_exit", timeout=WAIT)
        host.unban(viewer_name)
        assert [one.name for one in viewer.remote_participants.value] in ([], ["Ünï"])


def test_what_is_told_of_oneself(engine: LocalEngine) -> None:
    """Name and device id go along; the client's own device id is one for all its sessions."""
    with (
        bad_engine(engine) as seen,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=seen.url) as client,
    ):
        who, room = fresh("vera"), fresh("show")
        client.join_live_stream(who, room, name="Vera", device_id="phone-1").leave()
        client.join_audio_room(who, fresh("lobby")).leave()
        client.join_audio_room(who, fresh("lobby")).leave()
        bodies = [one.body for one in seen._stub.seen if one.path.endswith("/token")]
        assert [one["identity"] for one in bodies] == [who] * 3
        assert (bodies[0]["name"], bodies[0]["device_id"]) == ("Vera", "phone-1")
        assert bodies[0]["role"] == "audience"
        assert bodies[0]["type"] == "live_stream"
        assert len({one["device_id"] for one in bodies[1:]}) == 1
        for field, most in {"device_model": 100, "os": 50, "os_version": 20, "app_version": 20}.items():
            assert 0 < len(bodies[0][field]) <= most
        assert client.identity == who


def test_a_room_is_of_one_type(engine: LocalEngine) -> None:
    with live_stream(engine) as scene, engine.client() as client:
        with pytest.raises(UTDStateError) as other:
            client.join_audio_room(fresh("vera"), scene.room)
        assert isinstance(other.value, UTDEngineError)
        assert other.value.status_code == 409
        assert alive(client) == ()
        stage_agrees(scene, [], speaking=["host"])


def test_two_rooms_at_once(engine: LocalEngine) -> None:
    """Two sessions of one client, of two types, as two identities, in two rooms."""
    with live_stream(engine) as scene, engine.client() as client:
        vera, will = fresh("vera"), fresh("will")
        stream = client.join_live_stream(vera, scene.room)
        room = client.join_audio_room(will, fresh("lobby"), as_host=True, seat_count=2, microphone=Tone(660))
        assert client.identity == vera  # the first who joined
        assert alive(client) == (stream, room)
        room.take_seat(0)
        hears(stream, 440, scene.id("host"))
        assert [one.identity for one in stream.remote_participants.value] == [scene.id("host")]
        assert room.remote_participants.value == ()
        stream.dispose()
        assert alive(client) == (room,)
        assert room.seats.value.my_seat == 0
        client.dispose()
        assert alive(client) == ()
        with pytest.raises(UTDClosedError):
            room.leave_seat()
        with pytest.raises(UTDClosedError):
            client.join_live_stream(vera, scene.room)


def test_the_interpreters_exit_leaves_the_room(engine: LocalEngine) -> None:
    with live_stream(engine) as scene:
        code = f"""
from utd_fsm import UTDStreamClient
client = UTDStreamClient({engine.app_id!r}, {engine.app_key!r}, base_url={engine.base_url!r})
live = client.join_live_stream({fresh("vera")!r}, {scene.room!r})
live.request_stage()
print(live.broadcast.wait_for("live", timeout=30))
"""
        assert run_python(code, timeout=60)[0].strip() == "live"
        scene["host"].remote_participants.wait_for((), timeout=WAIT)
        assert scene["host"].hands.wait_for((), timeout=WAIT) == ()


def test_a_session_is_nobodys_call(engine: LocalEngine) -> None:
    with live_stream(engine, live=False) as scene:
        assert isinstance(scene["host"], UTDLiveStreamSession)
        assert not hasattr(scene["host"], "start")
        assert scene.room in repr(scene["host"])
        with pytest.raises(TypeError, match=r"did you mean \.value\?"):
            bool(scene["host"].stage)
        with pytest.raises(TypeError, match=r"did you mean \.value\?"):
            assert scene["host"].broadcast == "live"
