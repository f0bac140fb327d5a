"""Two sides want something else of one call at the same time: each order is forced, and all agree at the end.

A gate holds a request before the engine sees it, or the engine's answer before its client does; a paused socket keeps
the client from hearing it another way. Both kinds of media server.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import pytest

from tests.integration.calling import (
    CALLER_HZ,
    WAIT,
    agreed,
    fresh,
    hear_each_other,
    hears,
    in_thread,
    ring,
    signed_in,
    talking,
    two,
    until,
)
from tests.integration.conftest import Engines
from tests.integration.gate_proxy import GateProxy
from utd_fsm import UTDCallStatus, UTDStateError, UTDStreamClient
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]
ACCEPT, END, CREATE = "/calls/*/accept", "/calls/*/end", "/calls"


def is_over(client: UTDStreamClient, call_id: str) -> bool:
    """For the engine."""
    return client.get_call(call_id).status.is_terminal


# ------------------------------------------------------------------------------------------------- accept and cancel


@pytest.mark.parametrize("told", [True, False], ids=["socket tells", "socket is late"])
def test_cancelled_before_the_accept_arrives(engine: LocalEngine, way: Way, told: bool) -> None:
    here = way()
    with two(engine, callee_way=here) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        if not told:
            here.frames.clear()
        gate = here.hold("POST", ACCEPT)
        accepting = in_thread(lambda: answer.accept(incoming))
        gate.reached()
        call.end()
        gate.open()
        with pytest.raises(UTDStateError) as refused:
            accepting.result(WAIT)
        assert refused.value.state == "ended"
        assert refused.value.call_id == incoming.call_id
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "caller_cancelled", call, answer, client=caller)


@pytest.mark.parametrize("told", [True, False], ids=["socket tells", "socket is late"])
def test_hung_up_before_the_callee_learns_that_it_has_answered(engine: LocalEngine, way: Way, told: bool) -> None:
    """The engine has applied the accept, and the caller, who does not know, cancels: it is a hang-up then."""
    here, there = way(), way()
    with two(engine, caller_way=there, callee_way=here) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        there.frames.clear()
        if not told:
            here.frames.clear()
        gate = here.hold("POST", ACCEPT, at="answer")
        accepting = in_thread(lambda: answer.accept(incoming))
        gate.reached()
        assert call.status.value is UTDCallStatus.RINGING
        call.end()
        gate.open()
        try:
            accepting.result(WAIT)
        except UTDStateError as over:
            assert over.state == "ended"
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_hung_up_while_the_callee_joins_and_nothing_tells(local: LocalEngine, local_way: Way) -> None:
    """A join that hangs, as it does when its room was deleted in the middle of it, and a silent socket: the session
    looks for itself, before the next try."""
    here = local_way()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        here.rewrite("POST", ACCEPT, lambda answer: answer.update(url=f"ws://127.0.0.1:{silent.getsockname()[1]}"))
        with two(local, callee_way=here) as (call, answer, caller, callee):
            incoming = ring(call, answer, caller, callee)
            here.frames.clear()
            accepting = in_thread(lambda: answer.accept(incoming))
            assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
            answer.connection.wait_for("connecting", timeout=WAIT)
            call.end()
            with pytest.raises(UTDStateError) as refused:
                accepting.result(WAIT)
            assert refused.value.state == "ended"
            assert not [path for path in here.paths() if path.endswith("/token")]
            agreed(local, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_a_cancel_under_way_while_the_callee_answers(engine: LocalEngine, way: Way) -> None:
    """The caller is gone for good, even if its end arrives long after the answer."""
    there = way()
    with two(engine, caller_way=there) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        gate = there.hold("POST", END)
        ending = in_thread(call.end)
        gate.reached()
        answer.accept(incoming)
        assert answer.status.value is UTDCallStatus.ACTIVE
        assert not call.connected.value
        gate.open()
        ending.result(WAIT)
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)


def test_rejected_and_cancelled_at_once(engine: LocalEngine, way: Way) -> None:
    """Whoever came second is told what the first one did."""
    here, there = way(), way()
    for first, second, status, reason in (
        (here, there, UTDCallStatus.REJECTED, None),
        (there, here, UTDCallStatus.ENDED, "caller_cancelled"),
    ):
        with two(engine, caller_way=there, callee_way=here) as (call, answer, caller, callee):
            incoming = ring(call, answer, caller, callee)
            gates = {here: here.hold("POST", "/calls/*/reject"), there: there.hold("POST", END)}
            both = in_thread(partial(answer.reject, incoming)), in_thread(call.end)
            for gate in gates.values():
                gate.reached()
            gates[first].open()
            until(partial(is_over, caller, incoming.call_id), "the first one has won")
            gates[second].open()
            for done in both:
                done.result(WAIT)
            agreed(engine, incoming.call_id, status, reason, call, answer, client=caller)


# ------------------------------------------------------------------------------------------- accept and ring timeout


def test_nobody_answered_in_time_and_then_the_accept_arrives(engines: Engines, media: str) -> None:
    engine = engines.get(media, ring_timeout=2.0)
    with GateProxy(engine.base_url) as here, two(engine, callee_way=here) as (call, answer, caller, callee):
        here.frames.clear()  # it would tell of the timeout
        assert callee.identity
        started = call.start(callee.identity)
        gate = here.hold("POST", ACCEPT)
        accepting = in_thread(lambda: answer.accept(started.call_id))
        gate.reached()
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.MISSED
        gate.open()
        with pytest.raises(UTDStateError) as refused:
            accepting.result(WAIT)
        assert refused.value.state == "missed"
        agreed(engine, started.call_id, UTDCallStatus.MISSED, None, call, answer, client=caller)
        assert call.duration is None


def test_answered_just_before_the_ring_timeout(engines: Engines, media: str) -> None:
    """The callee learns of its accept after the timeout would have struck: the call is active and stays it."""
    engine = engines.get(media, ring_timeout=2.0)
    with GateProxy(engine.base_url) as here, two(engine, callee_way=here) as (call, answer, caller, callee):
        assert callee.identity
        started = call.start(callee.identity)
        assert started.initiated_at is not None
        here.frames.clear()
        gate = here.hold("POST", ACCEPT, at="answer")
        accepting = in_thread(lambda: answer.accept(started.call_id))
        gate.reached()
        assert call.wait_for_answer(timeout=WAIT) is UTDCallStatus.ACTIVE
        # another call of nobody else's, created later, is missed first: the time of this one is over for certain
        with signed_in(engine, fresh("eve")) as eve, eve.call_session("audio_call") as later:
            later.start(fresh("nobody"))
            assert later.wait_for_answer(timeout=WAIT) is UTDCallStatus.MISSED
        gate.open()
        accepting.result(WAIT)
        hear_each_other(call, answer)
        answer.end()
        agreed(engine, started.call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)


# ------------------------------------------------------------------------------------------------------ both hang up


@pytest.mark.parametrize("first", ["caller", "callee", "nobody"])
def test_both_hang_up(engine: LocalEngine, way: Way, first: str) -> None:
    there, here = way(), way()
    with talking(engine, caller_way=there, callee_way=here) as (call, answer, caller, _):
        call_id = call.call_id.value
        assert call_id
        gates = {"caller": there.hold("POST", END), "callee": here.hold("POST", END)}
        both = in_thread(call.end), in_thread(answer.end)
        for gate in gates.values():
            gate.reached()
        if first in gates:
            gates.pop(first).open()
            until(lambda: caller.get_call(call_id).status.is_terminal, "the first has hung up")
        for gate in gates.values():
            gate.open()
        for done in both:
            done.result(WAIT)
        reason = {"caller": "caller_hangup", "callee": "callee_hangup"}.get(first) or call.end_reason
        agreed(engine, call_id, UTDCallStatus.ENDED, reason, call, answer, client=caller)


# ------------------------------------------------------------------------------------------------------- two devices


@pytest.mark.parametrize("told", [True, False], ids=["socket tells", "socket is late"])
def test_two_devices_accept_and_the_second_is_told(engine: LocalEngine, way: Way, told: bool) -> None:
    late = way()
    bob = fresh("bob")
    with (
        signed_in(engine, fresh("alice")) as caller,
        signed_in(engine, bob) as first,
        signed_in(engine, bob, late) as second,
        caller.call_session("audio_call", microphone=Tone(CALLER_HZ)) as call,
        first.call_session("audio_call", microphone=Tone(660)) as winner,
        second.call_session("audio_call", microphone=Tone(880)) as loser,
    ):
        incoming = ring(call, winner, caller, first)
        assert second.wait_for_call(timeout=WAIT)
        loser.ringing(incoming)
        if not told:
            late.frames.clear()
        gate = late.hold("POST", ACCEPT)
        accepting = in_thread(lambda: loser.accept(incoming))
        gate.reached()
        winner.accept(incoming)
        gate.open()
        with pytest.raises(UTDStateError) as refused:
            accepting.result(WAIT)
        assert refused.value.state == "answered_elsewhere"
        assert loser.status.wait_for(UTDCallStatus.ENDED, timeout=WAIT)
        assert loser.end_reason == "answered_elsewhere"
        loser.end()  # over for this device: the other's call is not touched
        hears(call, 660)
        hears(winner, CALLER_HZ)
        assert caller.get_call(incoming).answered_by == first.device_id
        winner.end()
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "callee_hangup", call, winner, client=caller)


def test_two_devices_accept_at_once(engine: LocalEngine, way: Way) -> None:
    ways = way(), way()
    bob = fresh("bob")
    with (
        signed_in(engine, fresh("alice")) as caller,
        signed_in(engine, bob, ways[0]) as one,
        signed_in(engine, bob, ways[1]) as other,
        caller.call_session("audio_call", microphone=Tone(CALLER_HZ)) as call,
        one.call_session("audio_call", microphone=Tone(660)) as here,
        other.call_session("audio_call", microphone=Tone(660)) as there,
    ):
        incoming = ring(call, here, caller, one)
        gates = [each.hold("POST", ACCEPT) for each in ways]
        tries = [in_thread(partial(device.accept, incoming)) for device in (here, there)]
        for gate in gates:
            gate.reached()
        for gate in gates:
            gate.open()
        errors = [done.exception(WAIT) for done in tries]
        assert sum(error is None for error in errors) == 1, errors
        lost = next(error for error in errors if error is not None)
        assert isinstance(lost, UTDStateError)
        assert lost.state == "answered_elsewhere"
        winner, loser = (here, there) if errors[0] is None else (there, here)
        hear_each_other(call, winner)
        assert loser.wait_until_ended(timeout=WAIT).end_reason == "answered_elsewhere"
        call.end()
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, winner, client=caller)


def test_one_device_rejects_what_the_other_has_answered(engine: LocalEngine, way: Way) -> None:
    late = way()
    bob = fresh("bob")
    with (
        signed_in(engine, fresh("alice")) as caller,
        signed_in(engine, bob) as first,
        signed_in(engine, bob, late) as second,
        caller.call_session("audio_call", microphone=Tone(CALLER_HZ)) as call,
        first.call_session("audio_call", microphone=Tone(660)) as winner,
        second.call_session("audio_call") as loser,
    ):
        incoming = ring(call, winner, caller, first)
        late.frames.clear()
        gate = late.hold("POST", "/calls/*/reject")
        rejecting = in_thread(lambda: loser.reject(incoming))
        gate.reached()
        winner.accept(incoming)
        gate.open()
        rejecting.result(WAIT)
        assert loser.end_reason == "answered_elsewhere"
        hear_each_other(call, winner)
        call.end()
        agreed(engine, incoming.call_id, UTDCallStatus.ENDED, "caller_hangup", call, winner, client=caller)


# -------------------------------------------------------------------------------------------------------------- busy


def test_a_busy_callee_does_not_notice(local: LocalEngine) -> None:
    with (
        talking(local) as (call, answer, caller, callee),
        signed_in(local, fresh("carol")) as third,
        third.call_session("audio_call") as other,
    ):
        assert callee.identity
        assert other.start(callee.identity).status is UTDCallStatus.BUSY
        assert other.wait_for_answer() is UTDCallStatus.BUSY
        assert other.status.value is UTDCallStatus.BUSY
        assert other.wait_until_ended().status is UTDCallStatus.BUSY
        assert other.end() is not None
        assert other.duration is None
        hear_each_other(call, answer)
        call_id = call.call_id.value
        assert call_id
        answer.end()
        agreed(local, call_id, UTDCallStatus.ENDED, "callee_hangup", call, answer, client=caller)
        # the same session calls again, now that nobody is busy
        assert other.start(callee.identity).status is UTDCallStatus.INITIATING
        assert other.end()


def test_two_call_one_another_at_once(local: LocalEngine, local_way: Way) -> None:
    """One of the two calls stands, the other is busy; nobody is left hanging."""
    ways = local_way(), local_way()
    with two(local, caller_way=ways[0], callee_way=ways[1]) as (one, other, alice, bob):
        gates = [each.hold("POST", CREATE) for each in ways]
        assert alice.identity
        assert bob.identity
        starts = [
            in_thread(lambda: one.start(bob.identity or "")),
            in_thread(lambda: other.start(alice.identity or "")),
        ]
        for gate in gates:
            gate.reached()
        for gate in gates:
            gate.open()
        records = [done.result(WAIT) for done in starts]
        assert sorted(record.status for record in records) == [UTDCallStatus.BUSY, UTDCallStatus.INITIATING]
        stands = one if records[0].status is UTDCallStatus.INITIATING else other
        call_id = stands.call_id.value
        assert call_id
        stands.end()
        agreed(local, call_id, UTDCallStatus.ENDED, "caller_cancelled", stands, client=alice)


def test_two_call_the_same_one_at_once(local: LocalEngine, local_way: Way) -> None:
    ways = local_way(), local_way()
    bob = fresh("bob")
    with (
        signed_in(local, fresh("alice"), ways[0]) as alice,
        signed_in(local, fresh("carol"), ways[1]) as carol,
        alice.call_session("audio_call") as one,
        carol.call_session("audio_call") as other,
    ):
        gates = [each.hold("POST", CREATE) for each in ways]
        starts = [in_thread(partial(call.start, bob)) for call in (one, other)]
        for gate in gates:
            gate.reached()
        for gate in gates:
            gate.open()
        states = sorted(done.result(WAIT).status for done in starts)
        assert states == [UTDCallStatus.BUSY, UTDCallStatus.INITIATING]
