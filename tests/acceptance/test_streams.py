"""api.md and behaviour.md, Live stream: each sentence, on a real engine with real media."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.acceptance.scenes import hears, pitch
from tests.integration.calling import WAIT, fresh, in_thread
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import bring_on_stage, listens_to, live_stream, stage_agrees
from utd_fsm import (
    UTDBroadcast,
    UTDHand,
    UTDLiveStreamSession,
    UTDPermissionError,
    UTDRole,
    UTDStageMember,
    UTDStateError,
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
