"""What api.md says of errors, checked from outside: each kind provoked on a real engine where one can be."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import pytest

import utd_fsm
from tests.acceptance.scenes import WAIT, joined
from tests.http_stub import Reply, http_stub
from tests.integration.calling import fresh, in_thread, ring, signed_in, talking, two
from utd_fsm import (
    UTDCallStatus,
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDInputError,
    UTDPermissionError,
    UTDProtocolError,
    UTDRoom,
    UTDStateError,
    UTDStreamClient,
    UTDStreamException,
    UTDTimeoutError,
    UTDWouldBlockError,
    errors,
)
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media


# ------------------------------------------------------------------------------------------------------------- the tree


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        ("UTDInputError", ValueError),
        ("UTDStateError", UTDStreamException),
        ("UTDPermissionError", PermissionError),
        ("UTDTimeoutError", TimeoutError),
        ("UTDConnectionError", ConnectionError),
        ("UTDEngineError", UTDStreamException),
        ("UTDProtocolError", UTDStreamException),
        ("UTDWouldBlockError", RuntimeError),
        ("UTDClosedError", UTDStreamException),
    ],
)
def test_the_tree_is_exported_at_the_top_and_each_is_what_python_would_raise(kind: str, also: type) -> None:
    made = getattr(utd_fsm, kind)
    assert made is getattr(errors, kind)
    error = made("what was wrong", 418, "teapot")
    assert isinstance(error, UTDStreamException)
    assert isinstance(error, also)
    assert (error.message, error.status_code, error.code, str(error)) == (
        "what was wrong",
        418,
        "teapot",
        "what was wrong",
    )
    assert made("alone").status_code is None
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is made
    assert vars(again) == vars(error)


def test_what_it_is() -> None:
    assert UTDStreamException("user is banned", 403).is_banned
    assert not UTDStreamException("you may not", 403).is_banned
    assert UTDStreamException("you may not", 403).is_forbidden
    assert not UTDStreamException("banned", 409).is_forbidden
    assert UTDStreamException("slower", 429).is_rate_limited
    assert UTDStreamException("audio rooms are not enabled", 403).is_feature_disabled
    assert not UTDStreamException("no", 403).is_feature_disabled


def pickled(error: UTDStreamException, *fields: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for field in ("status_code", "code", "call_id", *fields):
        assert getattr(again, field) == getattr(error, field), field


# ----------------------------------------------------------------------------------------------------- from the engine


def test_a_409_is_a_state_error_too(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        with signed_in(engine, fresh("other")) as other:
            other.authenticate(callee.identity or "", device_id="another-device")
            with other.call_session("audio_call") as elsewhere:
                elsewhere.accept(incoming)
                with pytest.raises(UTDStateError) as lost:
                    answer.accept(incoming)
                assert lost.value.state
                assert lost.value.call_id == incoming.call_id
                pickled(lost.value, "state", "event", "allowed")


def test_accepting_what_was_cancelled_says_the_engines_state(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee):
        incoming = ring(call, answer, caller, callee)
        call.end()
        with signed_in(engine, fresh("x")) as late:
            late.authenticate(callee.identity or "", device_id="late")
            with late.call_session("audio_call") as session, pytest.raises(UTDStateError) as over:
                session.accept(incoming.call_id)
        assert over.value.state == "ended"


def test_a_403_is_a_permission_error_too(engine: LocalEngine) -> None:
    with two(engine) as (call, answer, caller, callee), signed_in(engine, fresh("eve")) as eve:
        incoming = ring(call, answer, caller, callee)
        with eve.call_session("audio_call") as session, pytest.raises(UTDPermissionError) as refused:
            session.accept(incoming.call_id)
        assert isinstance(refused.value, UTDEngineError)
        assert isinstance(refused.value, PermissionError)
        assert (refused.value.status_code, refused.value.is_forbidden, refused.value.is_banned) == (403, True, False)
        pickled(refused.value, "retry_after")
        assert call.status.value is UTDCallStatus.RINGING


def test_a_404_is_an_engine_error(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("ann")) as ann, pytest.raises(UTDEngineError) as refused:
        ann.get_call("call_" + "0" * 24)
    assert refused.value.status_code == 404
    assert not isinstance(refused.value, (UTDStateError, UTDPermissionError))


def test_a_wrong_key_is_refused(engine: LocalEngine) -> None:
    with UTDStreamClient(engine.app_id, "0" * 32, base_url=engine.base_url) as client:
        with pytest.raises(UTDEngineError) as refused:
            client.authenticate("ann")
        assert refused.value.status_code in (401, 403)
        assert "0" * 32 not in str(refused.value)


def test_a_429_says_how_long() -> None:
    with local_engine(media="embedded", rate_limit=5) as strict, signed_in(strict, "ann") as ann:
        with pytest.raises(UTDEngineError) as limited:
            for _ in range(20):
                ann.calls()
        assert limited.value.status_code == 429
        assert limited.value.is_rate_limited
        assert limited.value.retry_after is not None
        assert limited.value.retry_after > 0
        pickled(limited.value, "retry_after")


def test_an_engine_that_is_away_is_a_connection_error() -> None:
    with local_engine(media="embedded") as engine, signed_in(engine, "ann") as ann:
        engine.stop(hard=True)
        with pytest.raises((UTDConnectionError, UTDTimeoutError)) as away:
            ann.calls(timeout=5)
        assert isinstance(away.value, (ConnectionError, TimeoutError))
        pickled(away.value, "outcome_known")
        engine.start()
        assert ann.calls().total == 0


def test_a_malformed_answer_names_route_and_field() -> None:
    with (
        http_stub(lambda seen: Reply(json={"data": 7})) as stub,
        UTDStreamClient("1234567890", "a" * 32, base_url=stub.url) as client,
        pytest.raises(UTDProtocolError) as malformed,
    ):
        client.authenticate("ann")
    assert malformed.value.route
    assert "session" in malformed.value.route
    assert malformed.value.field
    pickled(malformed.value, "route", "field")


@pytest.mark.parametrize(
    ("text", "banned", "disabled"),
    [("User is banned until tomorrow", True, False), ("Calls are not enabled for this app", False, True)],
)
def test_why_it_was_forbidden(text: str, banned: bool, disabled: bool) -> None:
    with (
        http_stub(lambda seen: Reply(403, json={"message": text})) as stub,
        UTDStreamClient("1234567890", "a" * 32, base_url=stub.url) as client,
        pytest.raises(UTDPermissionError) as refused,
    ):
        client.authenticate("ann")
    assert isinstance(refused.value, UTDEngineError)
    assert (refused.value.is_banned, refused.value.is_feature_disabled) == (banned, disabled)
    assert refused.value.is_forbidden


def test_an_unknown_outcome_is_said() -> None:
    gate = threading.Event()
    with (
        http_stub(lambda seen: Reply(json={}, gate=gate)) as stub,
        UTDStreamClient("1234567890", "a" * 32, base_url=stub.url) as client,
    ):
        with pytest.raises(UTDTimeoutError) as late:
            client.authenticate("ann", timeout=0.5)
        assert late.value.outcome_known is False
        pickled(late.value, "outcome_known")
        gate.set()


# ------------------------------------------------------------------------------------------------------- from our side


def test_a_wrong_argument_sends_nothing_and_changes_nothing() -> None:
    with http_stub(lambda seen: Reply(500)) as stub:
        with UTDStreamClient("1234567890", "a" * 32, base_url=stub.url) as client:
            for identity in ("", " \n", "x" * 300, 7, None):
                with pytest.raises(UTDInputError, match="identity"):
                    client.authenticate(identity)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="allowed"):
                client.call_session("live_stream")
            with pytest.raises(UTDInputError):
                client.call_session("telepathy")
        assert stub.seen == []


def test_a_state_error_names_state_event_and_what_is_allowed(engine: LocalEngine) -> None:
    with talking(engine) as (call, _, _, _):
        with pytest.raises(UTDStateError) as busy:
            call.start(fresh("somebody"))
        assert busy.value.event == "start"
        assert busy.value.state
        assert "end" in busy.value.allowed
        pickled(busy.value, "state", "event", "allowed")
        assert call.status.value is UTDCallStatus.ACTIVE


async def test_a_blocking_call_where_an_event_loop_runs_names_the_mend(engine: LocalEngine) -> None:
    room = UTDRoom()
    blocking: list[Callable[[], object]] = [
        lambda: room.connect(engine.livekit_url, "token"),
        lambda: room.connected.wait_for(True),
        lambda: UTDStreamClient(engine.app_id, engine.app_key, base_url=engine.base_url).authenticate("ann"),
    ]
    for call in blocking:
        with pytest.raises(UTDWouldBlockError) as refused:
            call()
        assert isinstance(refused.value, RuntimeError)
        assert "aio" in str(refused.value)
        pickled(refused.value)


def test_what_is_closed_says_so(engine: LocalEngine) -> None:
    with signed_in(engine, fresh("ann")) as client:
        session = client.call_session("audio_call")
    for refused in (
        lambda: client.authenticate("ann"),
        lambda: client.calls(),
        lambda: client.call_session("audio_call"),
        lambda: session.start("bob"),
        lambda: session.listen(),
    ):
        with pytest.raises(UTDClosedError) as closed:
            refused()
        pickled(closed.value)
    client.close()
    client.dispose()
    session.close()
    with joined(engine, "ann", fresh("room")) as room:
        waiting = in_thread(lambda: room.remote_participants.wait_for(lambda some: some, timeout=None))
        room.close()
        with pytest.raises(UTDClosedError):
            waiting.result(WAIT)
        with pytest.raises(UTDClosedError):
            room.send_data(b"x")
