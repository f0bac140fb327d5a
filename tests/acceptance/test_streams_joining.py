"""api.md and behaviour.md, Live stream: who joins, leaves, is put out, and under which names; with real media."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.bad_engine import bad_engine
from tests.acceptance.scenes import hears
from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.room_scenes import bring_on_stage, listens_to, live_stream, stage_agrees
from tests.processes import run_python
from utd_fsm import (
    UTDBroadcast,
    UTDClosedError,
    UTDConnectionError,
    UTDConnectionState,
    UTDEngineError,
    UTDLiveStreamSession,
    UTDPermissionError,
    UTDRole,
    UTDStateError,
    UTDStreamClient,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

B = UTDBroadcast


def air(session: UTDLiveStreamSession) -> str:
    """Where the stream is, as it is shown at this moment."""
    return session.broadcast.value


def alive(client: UTDStreamClient) -> tuple[object, ...]:
    """The client's sessions at this moment."""
    return client.sessions


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
