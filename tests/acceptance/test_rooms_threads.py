"""api.md, Waiting, Threads, Errors, in streams and audio rooms: each sentence."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import all_agree, audio_room, bring_on_stage, live_stream, stage_agrees
from tests.processes import run_python
from utd_fsm import (
    UTDAudioRoomSession,
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamClient,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]


def queued(session: UTDAudioRoomSession) -> int:
    """How many verbs run or wait for their turn."""
    return sum(len(queue) for queue in session._core._turns._lanes.values())


def alive(client: UTDStreamClient) -> tuple[object, ...]:
    """The client's sessions at this moment."""
    return client.sessions


# ------------------------------------------------------------------------------------------------------------ waiting


def test_a_wait_that_times_out_changes_nothing(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        vera = scene["vera"]
        for wait in (
            lambda: vera.wait_until_ended(timeout=0.1),
            lambda: vera.broadcast.wait_for("ended", timeout=0.1),
            lambda: vera.stage.wait_for(lambda stage: stage, timeout=0.1),
            lambda: list(vera.hands.updates(timeout=0.1)),
        ):
            with pytest.raises(UTDTimeoutError) as late:
                wait()
            assert late.value.outcome_known
        stage_agrees(scene, [], speaking=["host"])


def test_wait_for_sees_every_value_and_runs_the_predicate_in_the_waiters_thread(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        threads, values = set(), []

        def look(hands: tuple[object, ...]) -> bool:
            threads.add(threading.current_thread().name)
            values.append(len(hands))
            return len(values) == 5

        waiting = in_thread(lambda: scene["vera"].hands.wait_for(look, timeout=WAIT))
        until(lambda: values, "it waits")
        for _ in range(2):
            scene["vera"].request_stage()
            scene["vera"].lower_hand()
        assert waiting.result(WAIT) == ()
        assert values == [0, 1, 0, 1, 0]
        assert threads == {"test-party"}


@pytest.mark.parametrize("how", ["ban", "kick", "leave", "dispose", "twice"])
def test_a_wait_ends_at_once_when_the_value_can_no_longer_come(engine: LocalEngine, how: str) -> None:
    with audio_room(engine, "vera") as scene, engine.client() as client:
        vera = scene["vera"]
        waits: list[Callable[[], object]] = [
            lambda: vera.seats.wait_for(lambda grid: grid.my_seat == 3, timeout=None),
            lambda: vera.invitations.wait_for(lambda some: some, timeout=None),
            lambda: vera.pending_requests.wait_for(lambda some: some, timeout=None),
            lambda: [grid for grid in vera.seats.updates(timeout=None) if grid.my_seat == 3],
        ]
        waiting = [in_thread(wait) for wait in waits]
        until(lambda: vera.seats._feeds and vera.invitations._feeds and vera.pending_requests._feeds, "they wait")
        if how in ("ban", "kick"):
            getattr(scene["host"], how)(scene.id("vera"))
        elif how == "twice":
            client.join_audio_room(scene.id("vera"), scene.room)
        else:
            getattr(vera, how)()
        kind = {"leave": UTDStateError, "dispose": UTDClosedError}.get(how, UTDConnectionError)
        for one in waiting[:3]:
            with pytest.raises(UTDStreamException) as ended:
                one.result(WAIT)
            assert isinstance(ended.value, kind | UTDStateError), how
        assert waiting[3].result(WAIT) == []
        if how in ("ban", "kick", "twice", "dispose"):  # and whoever begins to wait afterwards
            with pytest.raises(kind):
                vera.seats.wait_for(lambda grid: grid.my_seat == 3, timeout=None)


# ---------------------------------------------------------------------------------------------------- one at a time


def test_verbs_run_in_the_order_of_the_calls(engine: LocalEngine, way: Way) -> None:
    there = way()
    with audio_room(engine, "vera", ways={"vera": there}) as scene:
        vera = scene["vera"]
        gate = there.hold("POST", "/rooms/*/take")
        first = in_thread(lambda: vera.take_seat(1))
        gate.reached()
        second = in_thread(lambda: vera.move_seat(2))
        until(lambda: queued(vera) == 2, "it stands in the queue")
        third = in_thread(vera.leave_seat)
        until(lambda: queued(vera) == 3, "and so does the third")
        assert not second.done()
        assert vera.seats.value.my_seat is None
        gate.open()
        for one in (first, second, third):
            one.result(WAIT)
        sent = [path.rsplit("/", 1)[1] for path in there.paths() if "/seats/" in path]
        assert sent == ["take", "move", "leave"]
        all_agree(scene, {}, speaking=[])


@pytest.mark.parametrize("by", ["leave", "dispose"])
@pytest.mark.parametrize("at", ["request", "answer"])
def test_leaving_overtakes(engine: LocalEngine, way: Way, by: str, at: Any) -> None:
    there = way()
    with audio_room(engine, "vera", ways={"vera": there}) as scene:
        vera = scene["vera"]
        gate = there.hold("POST", "/rooms/*/take", at=at)
        running = in_thread(lambda: vera.take_seat(1))
        gate.reached()
        waiting = in_thread(lambda: vera.set_microphone(True))
        until(lambda: queued(vera) == 2, "it stands in the queue")
        overtaker = in_thread(getattr(vera, by))
        for overtaken in (running, waiting):
            with pytest.raises((UTDStateError, UTDClosedError)):
                overtaken.result(WAIT)
        overtaker.result(WAIT)
        gate.open()
        assert not vera.connected.value
        until(lambda: scene.eye.seats(scene.room).seat_of(scene.id("vera")) is None, "the seat is given back")
        all_agree(scene, {}, speaking=[])


def test_a_verb_that_times_out_is_cancelled(engine: LocalEngine, way: Way) -> None:
    """Nothing of it is heard, and the session finds out what became of it."""
    there = way()
    with audio_room(engine, "vera", ways={"vera": there}) as scene:
        vera = scene["vera"]
        gate = there.hold("POST", "/rooms/*/take", at="answer")
        with pytest.raises(UTDTimeoutError) as late:
            vera.take_seat(1, timeout=0.5)
        assert late.value.outcome_known is False
        gate.open()
        vera.seats.wait_for(lambda grid: grid.my_seat == 1, timeout=WAIT)
        all_agree(scene, {"vera": 1}, speaking=[])  # seated, as the engine says; silent, as was given up
        vera.set_microphone(True)
        all_agree(scene, {"vera": 1}, speaking=["vera"])
        gate = there.hold("POST", "/rooms/*/leave")
        with pytest.raises(UTDTimeoutError):
            vera.leave_seat(timeout=0.5)
        gate.cut()
        until(lambda: vera.seats.value.my_seat == scene.eye.seats(scene.room).seat_of(scene.id("vera")), "it knows")
        vera.get_seats()


@pytest.mark.parametrize("kind", ["stream", "room"])
def test_a_join_that_times_out_leaves_nobody_behind(engine: LocalEngine, way: Way, kind: str) -> None:
    there = way()
    with UTDStreamClient(engine.app_id, engine.app_key, base_url=there.url) as client:
        join: Any = client.join_live_stream if kind == "stream" else client.join_audio_room
        gate = there.hold("POST", "/token", at="answer")
        who, room = fresh("vera"), fresh("room")
        with pytest.raises(UTDTimeoutError):
            join(who, room, timeout=0.3)
        gate.open()
        assert alive(client) == ()
        with join(who, room) as session:
            assert alive(client) == (session,)


def test_ctrl_c(engine: LocalEngine, way: Way) -> None:
    """In a wait it changes nothing, in a verb it cancels it."""
    there = way()
    with audio_room(engine, "vera", ways={"vera": there}) as scene:
        vera = scene["vera"]

        def interrupt(when: Callable[[], object]) -> None:
            def run() -> None:
                when()
                os.kill(os.getpid(), signal.SIGINT)

            in_thread(run)

        interrupt(lambda: threading.Event().wait(0.2))
        with pytest.raises(KeyboardInterrupt):
            vera.seats.wait_for(lambda grid: grid.my_seat == 3, timeout=None)
        assert vera.connected.value
        gate = there.hold("POST", "/rooms/*/take")
        interrupt(gate.reached)
        with pytest.raises(KeyboardInterrupt):
            vera.take_seat(1)
        gate.cut()
        until(lambda: scene.eye.seats(scene.room).seat_of(scene.id("vera")) is None, "it does not sit")
        vera.take_seat(2)
        all_agree(scene, {"vera": 2}, speaking=["vera"])


# -------------------------------------------------------------------------------------------------------- many threads


def test_verbs_from_eight_threads(engine: LocalEngine) -> None:
    """Each call gets one outcome, everything can be asked, and at the end all agree."""
    with audio_room(engine, "vera", "will", seats=6) as scene:
        host, vera = scene["host"], scene["vera"]

        def use(number: int) -> list[str]:
            outcomes = []
            for turn in range(4):
                acts: list[Callable[[], object]] = [
                    lambda: vera.take_seat(1 + number % 5),
                    vera.leave_seat,
                    lambda: vera.move_seat(1 + (number + 1) % 5),
                    lambda: host.mute_seat(1 + number % 5),
                    lambda: host.lock_seat(5),
                    lambda: host.unlock_seat(5),
                    lambda: vera.send_chat(f"{number}"),
                    lambda: vera.get_seats(),
                    lambda: repr((vera, vera.seats, scene.clients["vera"].sessions, vera.seats.value)),
                ]
                try:
                    acts[(number * 5 + turn * 3) % len(acts)]()
                    outcomes.append("done")
                except (UTDStateError, UTDPermissionError) as error:
                    outcomes.append(type(error).__name__)
            return outcomes

        outcomes = [one.result(WAIT) for one in [in_thread(lambda n=n: use(n)) for n in range(8)]]  # type: ignore[misc]
        assert [len(one) for one in outcomes] == [4] * 8
        assert "done" in itertools.chain(*outcomes)
        host.mute_all(False)
        grid = scene.eye.seats(scene.room)
        if grid.seat_of(scene.id("vera")) is not None:
            vera.seats.wait_for(lambda grid: grid.my_seat is not None, timeout=WAIT)
            vera.leave_seat()
        all_agree(scene, {}, speaking=[])


def test_many_joins_of_one_client_at_once(engine: LocalEngine) -> None:
    room = fresh("show")
    with engine.client() as client:
        host = client.join_live_stream(fresh("host"), room, True)
        people = [fresh("v") for _ in range(6)]
        joins = [in_thread(lambda who=who: client.join_live_stream(who, room)) for who in people]  # type: ignore[misc]
        sessions = [one.result(WAIT) for one in joins]
        assert len(alive(client)) == 7
        raised = [in_thread(one.request_stage) for one in sessions]
        for one in raised:
            one.result(WAIT)
        hands = host.hands.wait_for(lambda hands: len(hands) == 6, timeout=WAIT)
        assert {hand.identity for hand in hands} == set(people)
        client.dispose()
        client.dispose()
        assert alive(client) == ()
    assert not any(one.connected.value for one in sessions)


def test_the_last_of_many_leaves(engine: LocalEngine) -> None:
    """Leaving from eight threads, while verbs run."""
    with live_stream(engine, "vera") as scene:
        bring_on_stage(scene, "vera")
        vera = scene["vera"]
        acts: list[Callable[[], object]] = [vera.leave_stage, vera.request_stage, vera.refresh_stage, vera.leave]
        acts += [vera.dispose, vera.leave, vera.dispose, vera.close]
        running = [in_thread(act) for act in acts]
        for one in running:
            try:
                one.result(WAIT)
            except UTDStreamException as error:
                assert isinstance(error, UTDStateError | UTDClosedError)
        assert not vera.connected.value
        stage_agrees(scene, [], speaking=["host"])


# -------------------------------------------------------------------------------------------------------------- forking

CHILD = """
import os, signal, sys
from utd_fsm import UTDStreamClient, UTDClosedError
signal.alarm(60)
client = UTDStreamClient({app_id!r}, {app_key!r}, base_url={base_url!r})
live = client.join_live_stream({host!r}, {show!r}, True)
room = client.join_audio_room({vera!r}, {lobby!r}, True, seat_count=4)
live.go_live(with_video=False)
room.take_seat(0)
pid = os.fork()
if not pid:
    told = []
    for act in (live.end_live, live.leave, live.dispose, live.wait_until_ended, live.join, live.request_stage,
                room.leave_seat, room.leave, room.get_seats, lambda: room.seats.wait_for(lambda grid: False),
                lambda: room.listen(), lambda: room.set_microphone(False)):
        try:
            act()
            told.append("nothing")
        except UTDClosedError:
            pass
        except Exception as error:
            told.append(repr(error))
    with live, room:
        pass
    told.append(client.sessions)
    told.append(client.calls().total)
    try:  # LiveKit's library does not survive a fork where it was in use: that is said, and nothing hangs
        client.join_audio_room({will!r}, {lobby!r})
    except UTDClosedError as error:
        told.append("spawn" in str(error))
    print(told, flush=True)
    client.close()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(live.broadcast.value, room.get_seats().my_seat, client.sessions == (live, room), live.connected.value)
client.close()
"""


def test_after_a_fork(engine: LocalEngine) -> None:
    """The client works with fresh pools, the parent's sessions are closed there, the exit sends nothing for them."""
    names = {name: fresh(name) for name in ("host", "show", "vera", "lobby", "will")}
    code = CHILD.format(app_id=engine.app_id, app_key=engine.app_key, base_url=engine.base_url, **names)
    child, parent = run_python(code, timeout=100)[0].splitlines()
    assert child == "[(), 0, True]"
    assert parent == "live 0 True True"


# --------------------------------------------------------------------------------------------------------------- errors


def test_errors_pickle_with_their_fields(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", mode="request") as scene, engine.client() as client:
        host, vera = scene["host"], scene["vera"]
        host.ban(scene.id("will"), reason="noise")
        scene["will"].connection.wait_for("force_exit", timeout=WAIT)
        acts: list[Callable[[], object]] = [
            lambda: vera.take_seat(1),
            vera.leave_seat,
            lambda: vera.kick_seat(0),
            lambda: vera.take_seat(101),
            lambda: host.approve_speaker(10**6),
            lambda: host.unban("nobody"),
            lambda: client.join_audio_room(scene.id("will"), scene.room),
            lambda: client.join_live_stream(fresh("x"), scene.room),
            scene["will"].request_to_speak,
            lambda: vera.seats.wait_for(lambda grid: False, timeout=0),
        ]
        for act in acts:
            with pytest.raises(UTDStreamException) as raised:
                act()
            error = raised.value
            again = pickle.loads(pickle.dumps(error))
            assert type(again) is type(error)
            assert (str(again), again.status_code, again.code) == (str(error), error.status_code, error.code)
            assert (again.is_banned, again.is_forbidden) == (error.is_banned, error.is_forbidden)
            for field in ("state", "event", "allowed", "details", "outcome_known", "route", "field", "retry_after"):
                assert getattr(again, field, None) == getattr(error, field, None)


def test_a_race_is_caught_the_same_way_whichever_side_notices(engine: LocalEngine, way: Way) -> None:
    """409 is a UTDStateError, 403 a UTDPermissionError: here by a grid that lags, which sends what is refused there."""
    there = way()
    with audio_room(engine, "vera", "will", ways={"vera": there}) as scene:
        gate = there.hold("POST", "/rooms/*/take")
        late = in_thread(lambda: scene["vera"].take_seat(1))
        gate.reached()
        scene["will"].take_seat(1)
        gate.open()
        with pytest.raises(UTDStateError) as there_refused:
            late.result(WAIT)
        assert isinstance(there_refused.value, UTDEngineError)
        assert there_refused.value.status_code == 409
        with pytest.raises(UTDStateError) as here_refused:
            scene["vera"].take_seat(1)
        assert not isinstance(here_refused.value, UTDEngineError)
        all_agree(scene, {"will": 1}, speaking=["will"])
