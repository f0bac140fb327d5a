"""A start that is repeated with its key, as a redelivered task does it: the same call, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from utd_fsm import UTDCallStatus, UTDConnectionState
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with local_engine() as running:
        yield running


def test_a_call_that_is_over_is_not_joined_again(engine: LocalEngine) -> None:
    """The engine answers a repeat with its first answer, whose ticket leads into a room that is gone."""
    with engine.peer("bob"), engine.client() as client:
        client.authenticate("alice")
        with client.call_session("audio_call") as call:
            first = call.start("bob", idempotency_key="order-17")
            assert call.wait_for_answer() is UTDCallStatus.ACTIVE
        for _ in range(3):
            with client.call_session("audio_call") as call:
                seen: list[UTDConnectionState] = []
                call.connection.changed.connect(lambda _, *, value, seen=seen, **__: seen.append(value))
                again = call.start("bob", idempotency_key="order-17")
                assert (again.call_id, again.status) == (first.call_id, UTDCallStatus.ENDED)
                assert call.wait_for_answer() is UTDCallStatus.ENDED
                assert call.end_reason == "caller_hangup"
            assert UTDConnectionState.CONNECTED not in seen
        assert client.calls().total == 1


def test_who_declines_at_once_makes_no_start_raise(engine: LocalEngine) -> None:
    """The room of a declined call may be deleted while the caller joins it: that is a status and not a fault."""
    with (
        engine.peer("dan", on_call="busy"),
        engine.peer("eve", on_call="reject"),
        engine.client() as client,
    ):
        client.authenticate("carol")
        for callee, status in [("dan", UTDCallStatus.BUSY), ("eve", UTDCallStatus.REJECTED)] * 5:
            with client.call_session("audio_call") as call:
                call.start(callee)
                assert call.wait_for_answer() is status
