"""The host of a stream drops and returns or does not; and what two want of one stage at the same time.

All agree at the end: engine, media server, whoever asked and a bystander.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.conftest import Engines
from tests.integration.gate_proxy import At, GateProxy
from tests.integration.room_scenes import (
    TONES,
    UPDATE_PARTICIPANT,
    Asker,
    Scene,
    bring_on_stage,
    engine_behind_gates,
    in_media,
    listens_to,
    live_stream,
    own_standing,
    stage_agrees,
)
from tests.integration.scripts import Program
from utd_fsm import (
    UTDBroadcast,
    UTDLiveStreamSession,
    UTDPermissionError,
    UTDStateError,
    UTDStreamClient,
    UTDTimeoutError,
    signals,
)
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
ADD, REMOVE = "/rooms/*/stage/add", "/rooms/*/stage/remove"
REQUEST, LEAVE = "/rooms/*/stage/request", "/rooms/*/stage/leave"
SHORT = {"party_grace": 3.0, "host_blink": 0.5}
LONG = {"party_grace": 60.0, "host_blink": 0.5}

HOST = """
c = client()
s = c.join_live_stream(sys.argv[1], sys.argv[2], as_host=True, microphone=Tone(440))
say(s.broadcast.value)
if sys.argv[3] == "go live":
    s.go_live(with_video=False)
say("there")
s.broadcast.wait_for(lambda value: False, timeout=600)
"""


@contextmanager
def shown_by(*sessions: UTDLiveStreamSession) -> Iterator[list[list[str]]]:
    """Every state of the stream that each session shows meanwhile."""
    lists: list[list[str]] = [[str(one.broadcast.value)] for one in sessions]

    def note(sender: object, *, value: UTDBroadcast, **extra: object) -> None:
        for one, list_ in zip(sessions, lists, strict=True):
            if one is sender:
                list_.append(str(value))

    with signals.broadcast_changed.connected_to(note):
        yield lists
        signals.drain(WAIT)


@contextmanager
def watched(engine: LocalEngine) -> Iterator[tuple[Scene[UTDLiveStreamSession], Program]]:
    """A stream whose host is a process of its own, live; seen by vera and will."""
    scene: Scene[UTDLiveStreamSession] = Scene(engine, fresh("show"), Asker(engine))
    scene.names["host"] = fresh("host")
    with (
        Program(engine, HOST, scene.id("host"), scene.room, "go live") as host,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as vera,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url) as will,
    ):
        host.expect("waiting")
        host.expect("there")
        for name, client in (("vera", vera), ("will", will)):
            scene.clients[name], scene.names[name] = client, fresh(name)
            scene.people[name] = client.join_live_stream(scene.id(name), scene.room, microphone=Tone(TONES[name]))
            scene[name].broadcast.wait_for(UTDBroadcast.LIVE, timeout=WAIT)
        yield scene, host


# ----------------------------------------------------------------------------------------------------- the host drops


@pytest.mark.parametrize("returns", ["with sound", "with nothing"])
def test_the_host_dies_and_returns_in_time(engines: Engines, media: str, returns: str) -> None:
    """Killed; its viewers see it away; a new process of the same host is back, whether it sends anything or not."""
    engine = engines.get(media, **LONG)
    with watched(engine) as (show, host), shown_by(show["vera"], show["will"]) as shown:
        listens_to(show, "will", "host")
        host.process.kill()
        for name in ("vera", "will"):
            show[name].broadcast.wait_for(UTDBroadcast.HOST_AWAY, timeout=WAIT)
        stage_agrees(show, [], speaking=[], broadcast=UTDBroadcast.HOST_AWAY)
        again = "go live" if returns == "with sound" else "be there"
        with Program(engine, HOST, show.id("host"), show.room, again) as back:
            assert back.line() in ("host_away", "live")
            back.expect("there")
            for name in ("vera", "will"):
                show[name].broadcast.wait_for(UTDBroadcast.LIVE, timeout=WAIT)
            stage_agrees(show, [], speaking=["host"] if returns == "with sound" else [])
            if returns == "with sound":
                listens_to(show, "will", "host")
    assert shown == [["live", "host_away", "live"]] * 2


def test_the_host_dies_and_does_not_return_in_time(engines: Engines, media: str) -> None:
    """Ended for all; the stage is cleared, and who was on it is not heard any more. The host begins a new one."""
    engine = engines.get(media, **SHORT)
    with live_stream(engine, "vera", "will") as kept, watched(engine) as (show, host):
        other = in_thread(lambda: show["will"].wait_until_ended(timeout=WAIT))
        with shown_by(show["vera"], show["will"]) as shown:
            host.process.kill()
            for name in ("vera", "will"):
                assert show[name].wait_until_ended(timeout=WAIT) is UTDBroadcast.ENDED
            assert other.result(WAIT) is UTDBroadcast.ENDED
            stage_agrees(show, [], speaking=[], broadcast=UTDBroadcast.ENDED)
        assert shown == [["live", "host_away", "ended"]] * 2
        with pytest.raises(UTDStateError):
            show["vera"].request_stage()
        stage_agrees(kept, [], speaking=["host"])  # another stream is another matter
        with Program(engine, HOST, show.id("host"), show.room, "go live") as back:
            back.expect("waiting")  # its host has come for another one
            back.expect("there")
            assert show["vera"].broadcast.value is UTDBroadcast.ENDED  # joined again for the next one
            show["vera"].leave()
            show["vera"].join(timeout=WAIT)
            show["vera"].broadcast.wait_for(UTDBroadcast.LIVE, timeout=WAIT)
            listens_to(show, "vera", "host")


def test_the_link_of_the_host_is_cut_and_mended(engines: Engines, media: str, way: Way) -> None:
    """It comes back by itself within the grace, and is heard again."""
    engine = engines.get(media)
    here = way()
    with GateProxy(engine.media.url.replace("ws", "http", 1)) as line:
        here.rewrite("POST", "/token", lambda answer: answer.update(url=line.url.replace("http", "ws", 1)))
        with live_stream(engine, "vera", "will", ways={"host": here}) as show:
            bring_on_stage(show, "vera")
            line.down()
            show["host"].connection.wait_for("reconnecting", timeout=WAIT)
            line.up()
            show["host"].connection.wait_for("connected", timeout=WAIT)
            stage_agrees(show, ["vera"], speaking=["host", "vera"])
            listens_to(show, "will", "host")
            listens_to(show, "will", "vera")
            show["host"].remove_from_stage(show.id("vera"))
            stage_agrees(show, [], speaking=["host"])


def test_the_engine_is_away_while_the_host_is(engines: Engines, media: str) -> None:
    """An engine that is killed meanwhile notices when it is back, and ends the stream all the same."""
    engine = engines.get(media, **SHORT)
    with watched(engine) as (show, host):
        engine.stop(hard=True)
        host.process.kill()
        until(lambda: show.id("host") not in in_media(engine, show.room), "the media server has noticed")
        engine.start()
        assert show["vera"].wait_until_ended(timeout=WAIT) is UTDBroadcast.ENDED
        stage_agrees(show, [], speaking=[], broadcast=UTDBroadcast.ENDED)


@pytest.mark.parametrize("how", ["normally", "by an exception"])
def test_the_host_leaves_its_with(engines: Engines, media: str, how: str) -> None:
    """Normally: ended at once. By an exception: away, and ended only by the grace."""
    engine = engines.get(media, **(LONG if how == "normally" else SHORT))
    with live_stream(engine, "vera", "will") as show:
        bring_on_stage(show, "vera")
        with shown_by(show["vera"], show["will"]) as shown:
            if how == "normally":
                with show["host"]:
                    pass
            else:
                with pytest.raises(ZeroDivisionError), show["host"]:
                    raise ZeroDivisionError
            for name in ("vera", "will"):
                assert show[name].wait_until_ended(timeout=WAIT) is UTDBroadcast.ENDED
            stage_agrees(show, [], speaking=[], broadcast=UTDBroadcast.ENDED)
        ending = ["live", "ended"] if how == "normally" else ["live", "host_away", "ended"]
        assert shown == [ending] * 2


# ------------------------------------------------------------------------------------------------------------ the stage


def test_invited_before_the_hand_is_lowered(engine: LocalEngine, way: Way) -> None:
    here = way()
    with live_stream(engine, "vera", "will", ways={"vera": here}) as show:
        show["vera"].request_stage()
        gate = here.hold("DELETE", REQUEST)
        lowering = in_thread(show["vera"].lower_hand)
        gate.reached()
        show["host"].invite_to_stage(show.id("vera"))
        gate.open()
        assert isinstance(lowering.exception(WAIT), UTDStateError)
        stage_agrees(show, ["vera"], speaking=["host"])
        show["vera"].set_microphone(True)
        stage_agrees(show, ["vera"], speaking=["host", "vera"])


def test_the_hand_is_lowered_before_the_invitation_arrives(engine: LocalEngine, way: Way) -> None:
    """A host may bring anybody on stage, hand or none."""
    there = way()
    with live_stream(engine, "vera", "will", ways={"host": there}) as show:
        show["vera"].request_stage()
        gate = there.hold("POST", ADD)
        inviting = in_thread(lambda: show["host"].invite_to_stage(show.id("vera")))
        gate.reached()
        show["vera"].lower_hand()
        gate.open()
        inviting.result(WAIT)
        stage_agrees(show, ["vera"], speaking=["host"])


@pytest.mark.parametrize("first", ["remove", "leave"])
def test_removed_and_stepping_down_at_once(engine: LocalEngine, way: Way, first: str) -> None:
    """Silent from its own word on; whoever came second is told that it was so already."""
    here, there = way(), way()
    with live_stream(engine, "vera", "will", ways={"vera": here, "host": there}) as show:
        bring_on_stage(show, "vera")
        stage_agrees(show, ["vera"], speaking=["host", "vera"])
        gates = {"remove": there.hold("POST", REMOVE), "leave": here.hold("POST", LEAVE)}
        wishes = {
            "remove": in_thread(lambda: show["host"].remove_from_stage(show.id("vera"))),
            "leave": in_thread(show["vera"].leave_stage),
        }
        for gate in gates.values():
            gate.reached()
        until(lambda: show.sending() == {"host"}, "it is silent before anybody has answered")
        gates[first].open()
        wishes.pop(first).result(WAIT)
        for gate in gates.values():
            gate.open()
        assert isinstance(next(iter(wishes.values())).exception(WAIT), UTDStateError)
        stage_agrees(show, [], speaking=["host"])


def test_removed_while_it_waits_for_the_grant(media: str) -> None:
    """On stage, and the grant stands at a gate; the removal is committed first. Nobody is heard."""
    with engine_behind_gates(media) as (engine, gates), live_stream(engine, "vera", "will") as show:
        gate = gates.hold("POST", UPDATE_PARTICIPANT, times=None)
        show["host"].invite_to_stage(show.id("vera"))
        gate.reached()
        until(lambda: own_standing(show["vera"]) == "on_stage", "it knows that it is on stage")
        publishing = in_thread(lambda: show["vera"].set_microphone(True))
        show["host"].remove_from_stage(show.id("vera"))
        gate.cut()
        assert isinstance(publishing.exception(WAIT), UTDPermissionError)
        stage_agrees(show, [], speaking=["host"])


def test_ended_while_somebody_publishes(engine: LocalEngine) -> None:
    """The stage is cleared with the end, and everybody falls silent."""
    with live_stream(engine, "vera", "will") as show:
        bring_on_stage(show, "vera", "will")
        stage_agrees(show, ["vera", "will"], speaking=["host", "vera", "will"])
        show["host"].end_live()
        for one in show.people.values():
            assert one.wait_until_ended(timeout=WAIT) is UTDBroadcast.ENDED
        stage_agrees(show, [], speaking=[], broadcast=UTDBroadcast.ENDED)
        with pytest.raises((UTDStateError, UTDPermissionError)):
            show["vera"].set_microphone(True)


def test_ended_while_somebody_asks(engine: LocalEngine, way: Way) -> None:
    here = way()
    with live_stream(engine, "vera", "will", ways={"vera": here}) as show:
        gate = here.hold("POST", REQUEST, at="answer")
        asking = in_thread(show["vera"].request_stage)
        gate.reached()
        show["host"].end_live()
        show["vera"].wait_until_ended(timeout=WAIT)
        gate.open()
        assert asking.exception(WAIT) is None or isinstance(asking.exception(WAIT), UTDStateError)
        stage_agrees(show, [], speaking=[], broadcast=UTDBroadcast.ENDED)


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_the_answer_to_a_raised_hand_is_lost(engine: LocalEngine, way: Way, times: int | None) -> None:
    """Whether it is told or not: what is shown is what the engine has."""
    here = way()
    with live_stream(engine, "vera", "will", ways={"vera": here}) as show:
        lost = here.cut("POST", REQUEST, times=times)
        error = in_thread(lambda: show["vera"].request_stage(timeout=WAIT)).exception(2 * WAIT)
        assert error is None or not getattr(error, "outcome_known", True), error
        assert times is None or error is None
        stage_agrees(show, [], hands=["vera"], speaking=["host"])
        lost.open()
        show["vera"].lower_hand()
        stage_agrees(show, [], speaking=["host"])


def test_a_stage_answer_that_is_older_than_what_was_heard(engine: LocalEngine, way: Way) -> None:
    here = way()
    with live_stream(engine, "vera", "will", ways={"vera": here}) as show:
        gate = here.hold("GET", "/rooms/*/stage", at="answer")
        looking = in_thread(show["vera"].refresh_stage)
        gate.reached()
        show["host"].invite_to_stage(show.id("will"))
        show["vera"].stage.wait_for(lambda stage: len(stage) == 1, timeout=WAIT)
        gate.open()
        assert [one.identity for one in looking.result(WAIT)] == [show.id("will")]
        stage_agrees(show, ["will"], speaking=["host"])


@pytest.mark.parametrize("at", ["request", "answer"])
def test_a_raised_hand_that_is_given_up(engine: LocalEngine, way: Way, at: At) -> None:
    """The request is sealed by a look if it had not arrived; if it had, the hand is up, for everybody."""
    here = way()
    with live_stream(engine, "vera", "will", ways={"vera": here}) as show:
        gate = here.hold("POST", REQUEST, at=at)
        with pytest.raises(UTDTimeoutError):
            show["vera"].request_stage(timeout=0.5)
        gate.reached()
        settled = "audience" if at == "request" else "hand_up"
        until(lambda: own_standing(show["vera"]) == settled, "the end of its request is known")
        gate.open()
        until(lambda: [one for one in here.state.seen if one.path.endswith("/request")], "it was answered")
        stage_agrees(show, [], hands=["vera"] if at == "answer" else [], speaking=["host"])


@pytest.mark.parametrize("at", ["request", "answer"])
def test_leaving_overtakes_a_raised_hand(engine: LocalEngine, way: Way, at: At) -> None:
    here = way()
    with live_stream(engine, "vera", "will", ways={"vera": here}) as show:
        gate = here.hold("POST", REQUEST, at=at)
        asking = in_thread(show["vera"].request_stage)
        gate.reached()
        show["vera"].leave(timeout=WAIT)
        assert isinstance(asking.exception(WAIT), UTDStateError)
        gate.open()
        until(lambda: [one for one in here.state.seen if one.path.endswith("/request")], "it was answered")
        stage_agrees(show, [], speaking=["host"])
