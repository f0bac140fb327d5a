"""Malformed engine answers never move a machine; where a verb was answered so, the error names route and field."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.acceptance.bad_engine import BadEngine, bad_engine, junk
from tests.http_stub import Reply
from tests.integration.calling import WAIT, fresh, in_thread, ring, signed_in, until
from utd_fsm import (
    UTDCall,
    UTDCallSession,
    UTDCallStatus,
    UTDClosedError,
    UTDProtocolError,
    UTDStreamClient,
    UTDTimeoutError,
)
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

OTHER = "call_" + "0" * 24
S = UTDCallStatus


@contextmanager
def parties(
    engine: LocalEngine,
) -> Iterator[tuple[BadEngine, BadEngine, UTDCallSession, UTDCallSession, UTDStreamClient, UTDStreamClient]]:
    """Both behind an engine of their own that may misbehave."""
    with (
        bad_engine(engine) as a,
        bad_engine(engine) as b,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=a.url) as caller,
        UTDStreamClient(engine.app_id, engine.app_key, base_url=b.url) as callee,
    ):
        caller.authenticate(fresh("alice"))
        callee.authenticate(fresh("bob"))
        with caller.call_session("audio_call") as call, callee.call_session("audio_call") as answer:
            yield a, b, call, answer, caller, callee
            a.mend()
            b.mend()


def refused(act: Callable[[], object], route: str, name: str) -> UTDProtocolError:
    with pytest.raises(UTDProtocolError) as wrong:
        act()
    assert wrong.value.route == route, name
    assert wrong.value.field, name
    return wrong.value


def step(call_id: str = OTHER) -> list[tuple[str, Reply]]:
    good = {"call_id": call_id, "status": "active"}
    return [*junk(**good), ("another call", Reply(json={**good, "call_id": OTHER}))]


def test_signing_in(engine: LocalEngine) -> None:
    with bad_engine(engine) as bad, UTDStreamClient(engine.app_id, engine.app_key, base_url=bad.url) as client:
        answers = [(n, r) for n, r in junk(user_token="t") if n != "user_token 'flying\\ud800'"]
        for name, reply in answers:
            bad.spoil("POST", "/auth/session", reply)
            refused(lambda: client.authenticate("alice"), "POST /auth/session", name)
            assert client.identity is None
            bad.mend()
        client.authenticate("alice")
        for name, reply in answers[:6]:
            bad.spoil("POST", "/auth/session", reply)
            refused(lambda: client.authenticate("bob"), "POST /auth/session", name)
            assert client.identity == "alice"
            bad.mend()


def test_asking_without_a_session(engine: LocalEngine) -> None:
    with parties(engine) as (bad, _, call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        record = {"call_id": incoming.call_id, "type": "audio_call", "status": "active"}
        record |= {"caller_identity": "a", "callee_identity": "b"}
        for name, reply in [*junk(**record), ("another", Reply(json={**record, "call_id": OTHER}))]:
            bad.spoil("GET", "/calls/*", reply)
            refused(lambda: caller.get_call(incoming), "GET /calls/:id", name)
            bad.mend()
        for name, reply in junk(data=[record]):
            bad.spoil("GET", "/calls", reply)
            if name != "data []":
                refused(lambda: caller.calls(), "GET /calls", name)
            bad.mend()
        for name, reply in step(incoming.call_id):
            bad.spoil("POST", "/calls/*/end", reply)
            refused(lambda: caller.end_call(incoming), "POST /calls/:id/end", name)
            bad.mend()
        assert call.status.value is answer.status.value is S.RINGING


@pytest.mark.parametrize("applied", [False, True])
def test_a_start(engine: LocalEngine, applied: bool) -> None:
    """Nothing moves; a call that the engine made all the same is found by its key, and ended."""
    with parties(engine) as (bad, _, call, _, caller, callee):
        assert callee.identity
        good: dict[str, Any] = {"call_id": OTHER, "token": "t", "url": "ws://127.0.0.1:1"}
        whole = [one for one in junk(**good) if "flying" not in one[0]]
        for name, reply in whole[:: 4 if applied else 1]:
            bad.spoil("POST", "/calls", reply, applied=applied)
            error = refused(lambda: call.start(str(callee.identity)), "POST /calls", name)
            assert call.status.value in (None, S.ENDED) if applied else call.status.value is None, name
            assert not call.connected.value
            bad.mend()
            if applied:
                until(lambda: caller.calls().calls[0].status is S.ENDED, "it is ended")
                until(lambda e=error: e.call_id is not None, "the error learns the id")  # type: ignore[misc]
        assert call.start(callee.identity).status is S.INITIATING


@pytest.mark.parametrize("applied", [False, True])
def test_ringing(engine: LocalEngine, applied: bool) -> None:
    with parties(engine) as (_, bad, call, answer, caller, callee):
        assert callee.identity
        call.start(callee.identity)
        incoming = callee.wait_for_call()
        assert incoming is not None
        for name, reply in step(incoming.call_id)[:: 5 if applied else 1]:
            bad.spoil("POST", "/calls/*/ringing", reply, applied=applied)
            refused(lambda: answer.ringing(incoming), "POST /calls/:id/ringing", name)
            # The session has looked: it is where the engine is.
            assert answer.status.value is (S.RINGING if applied else S.INITIATING), name
            bad.mend()
        assert caller.get_call(incoming).status is (S.RINGING if applied else S.INITIATING)
        answer.accept(incoming)


def test_an_accept_that_was_not_applied(engine: LocalEngine) -> None:
    """It goes on ringing, and may be accepted."""
    with parties(engine) as (_, bad, call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        good: dict[str, Any] = {"call_id": incoming.call_id, "token": "t", "url": "ws://127.0.0.1:1"}
        answers = [one for one in junk(**good) if "flying" not in one[0] and not one[0].startswith(("call_id", "no c"))]
        for name, reply in answers:
            bad.spoil("POST", "/calls/*/accept", reply)
            error = refused(lambda: answer.accept(incoming), "POST /calls/:id/accept", name)
            assert error.call_id == incoming.call_id
            assert call.status.value is answer.status.value is S.RINGING, name
            bad.mend()
        assert caller.get_call(incoming).status is S.RINGING
        answer.accept(incoming)
        assert call.wait_for_answer() is S.ACTIVE


def test_an_accept_that_was_applied_is_given_back(engine: LocalEngine) -> None:
    with parties(engine) as (_, bad, call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        bad.spoil("POST", "/calls/*/accept", Reply(json={"token": ""}), applied=True)
        error = refused(lambda: answer.accept(incoming), "POST /calls/:id/accept", "token")
        assert error.call_id == incoming.call_id
        assert call.wait_until_ended(timeout=WAIT).end_reason == "callee_hangup"
        assert answer.wait_until_ended(timeout=WAIT).status is S.ENDED


def test_an_accept_that_does_not_say_that_it_is_active(engine: LocalEngine) -> None:
    """A yes that says it still rings is none."""

    def still_ringing(body: bytes) -> Reply:
        return Reply(json={**json.loads(body), "status": "ringing", "version": 2})

    with parties(engine) as (_, bad, call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        bad.spoil("POST", "/calls/*/accept", still_ringing, applied=True)
        try:
            answer.accept(incoming)
        except UTDProtocolError as error:
            assert (error.route, error.field) == ("POST /calls/:id/accept", "status")
        else:  # the socket was faster than the answer, which then is no news
            answer.end()
        assert call.wait_until_ended(timeout=WAIT).end_reason == "callee_hangup"
        answer.wait_until_ended(timeout=WAIT)


@pytest.mark.parametrize("who", ["caller", "callee"])
@pytest.mark.parametrize("applied", [False, True])
def test_an_end(engine: LocalEngine, who: str, applied: bool) -> None:
    with parties(engine) as (a, b, call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        answer.accept(incoming)
        call.wait_for_answer(timeout=WAIT)
        bad, mine = (a, call) if who == "caller" else (b, answer)
        bad.spoil("POST", "/calls/*/end", Reply(json={"call_id": 5}), applied=applied)
        if applied:  # the socket may be faster than the answer: then it is over, and nothing is wrong
            with contextlib.suppress(UTDProtocolError):
                mine.end()
        else:
            refused(mine.end, "POST /calls/:id/end", "call_id")
        assert not mine.connected.value
        assert mine.status.value is (S.ENDED if applied else S.ACTIVE)
        bad.mend()
        # It is told again in the background, until the engine agrees.
        assert mine.wait_until_ended(timeout=WAIT).end_reason == f"{who}_hangup"
        assert mine.end() == caller.get_call(incoming)


@pytest.mark.parametrize("how", ["reject", "busy"])
def test_declining(engine: LocalEngine, how: str) -> None:
    with parties(engine) as (_, bad, call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        bad.spoil("POST", f"/calls/*/{how}", Reply(body=b"no JSON"))
        refused(lambda: getattr(answer, how)(incoming), f"POST /calls/:id/{how}", "body")
        assert answer.status.value is S.RINGING
        bad.mend()
        assert call.wait_until_ended(timeout=WAIT).status == ("rejected" if how == "reject" else "busy")
        assert answer.wait_until_ended(timeout=WAIT).status == call.status.value


def frames(incoming: UTDCall) -> list[str | bytes]:
    """Frames about a call that are none."""
    record = {
        "call_id": incoming.call_id,
        "type": "audio_call",
        "status": "ended",
        "caller_identity": incoming.caller_identity,
        "callee_identity": incoming.callee_identity,
        "version": 99,
    }
    made: list[str | bytes] = [
        "",
        "hello",
        "[]",
        "null",
        "7",
        "{}",
        b"\x00\xff",
        '{"event":5}',
        '{"event":"call.state"}',
    ]
    datas: tuple[Any, ...] = (None, [], "x", {}, {"calls": 5})
    wrongs: tuple[Any, ...] = (None, [], {}, "", "flying")
    for event in ("call.state", "call.snapshot", "call.incoming", "call_state", "snapshot", "call"):
        made += [json.dumps({"event": event, "data": data, "seq": 1}) for data in datas]
        for field in record:
            for wrong in wrongs:
                spoilt = {**record, field: wrong}
                if (field == "version" and wrong is None) or (field.endswith("identity") and wrong == "flying"):
                    continue  # engines without versions are allowed, and so are names
                made += [
                    json.dumps({"event": event, "data": data, "seq": 2, "channel": "calls"})
                    for data in (spoilt, {"call": spoilt}, {"calls": [spoilt]})
                ]
    return made


def test_socket_frames_in_every_state(engine: LocalEngine) -> None:
    with parties(engine) as (a, b, call, answer, _, callee):
        assert callee.identity

        def fuzz(incoming: UTDCall) -> None:
            before = call.status.value, answer.status.value, call.connected.value, answer.connected.value
            for frame in frames(incoming):
                a.frames.say(frame)
                b.frames.say(frame)
            with pytest.raises(UTDTimeoutError):
                callee.wait_for_call(timeout=0.3)
            assert (call.status.value, answer.status.value, call.connected.value, answer.connected.value) == before

        coming = in_thread(callee.wait_for_call)
        call.start(callee.identity)
        incoming = coming.result(WAIT)
        assert incoming is not None
        fuzz(incoming)
        assert a.frames.listeners or b.frames.listeners
        answer.ringing(incoming)
        call.status.wait_for(S.RINGING, timeout=WAIT)
        fuzz(incoming)
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is S.ACTIVE
        fuzz(incoming)
        call.end()
        answer.wait_until_ended(timeout=WAIT)
        fuzz(incoming)
        with pytest.raises(UTDClosedError):
            callee.close()
            callee.call_session("audio_call")


def test_looks_in_every_state(engine: LocalEngine) -> None:
    """What the sessions ask for by themselves is garbage: nothing moves, and the sockets go on telling."""
    with parties(engine) as (a, b, call, answer, caller, callee), signed_in(engine, str(caller.identity)) as judge:
        for bad in (a, b):
            bad.spoil("GET", "/calls*", Reply(json={"status": "ended", "data": [{"status": "ended"}]}))
        assert callee.identity
        call.start(callee.identity)
        incoming = callee.wait_for_call(timeout=WAIT)
        assert incoming is not None
        answer.ringing(incoming)
        call.status.wait_for(S.RINGING, timeout=WAIT)
        answer.accept(incoming)
        assert call.wait_for_answer(timeout=WAIT) is S.ACTIVE
        assert judge.get_call(incoming).status is S.ACTIVE
        call.end()
        assert answer.wait_until_ended(timeout=WAIT).end_reason == "caller_hangup"
