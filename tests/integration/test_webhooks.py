"""What the application's backend is told of a whole call: everything, in order, signed, and again after a fault."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.http_stub import Reply, Seen, http_stub
from tests.integration.calling import agreed, talking, until
from utd_fsm import UTDCallStatus, UTDPermissionError, UTDWebhook, signals, webhooks
from utd_fsm.testing import local_engine

pytestmark = pytest.mark.media

SECRET = "the-callback-secret-of-this-test"


class Backend:
    """Verifies what comes, and fails at the first telling of one event."""

    def __init__(self, fails_at: str) -> None:
        self.heard: list[UTDWebhook] = []
        self.failed: list[UTDWebhook] = []
        self.refused: list[BaseException] = []
        self._fails_at = fails_at
        self._lock = threading.Lock()

    def answer(self, seen: Seen) -> Reply:
        try:
            webhook = webhooks.deliver(seen.raw, seen.headers, SECRET)
        except BaseException as error:
            self.refused.append(error)
            return Reply(403)
        with self._lock:
            if webhook.event == self._fails_at and not self.failed:
                self.failed.append(webhook)
                return Reply(500)
            self.heard.append(webhook)
        return Reply(json={})

    def events(self, part: str) -> list[str]:
        with self._lock:
            return [webhook.event for webhook in self.heard if getattr(webhook, part)]


def test_a_whole_call(media: str) -> None:
    backend = Backend(fails_at="call_accepted")
    sent: list[UTDWebhook] = []

    def receive(event: object, *, webhook: UTDWebhook, **extra: object) -> None:
        sent.append(webhook)

    signals.webhook_received.connect(receive, weak=False)
    with (
        http_stub(backend.answer) as stub,
        local_engine(
            media=media, webhook_url=stub.url, webhook_secret=SECRET, webhook_delays=(0, 0.2, 0.4, 1, 1, 1)
        ) as engine,
        talking(engine) as (call, answer, caller, callee),
    ):
        call_id = call.call_id.value
        assert call_id
        call.end()
        ended = agreed(engine, call_id, UTDCallStatus.ENDED, "caller_hangup", call, answer, client=caller)
        until(lambda: "call_ended" in backend.events("call"), "the end is told")
        until(lambda: "call_accepted" in backend.events("call"), "the answer is told again")
        until(lambda: "room_finished" in backend.events("room"), "the room's end is told")
        parties = {caller.identity, callee.identity}
    signals.webhook_received.disconnect(receive)
    assert backend.refused == []
    first = [webhook.event for webhook in sent if webhook.call and webhook.attempt == 1]
    assert first == ["call_initiated", "call_ringing", "call_accepted", "call_ended"]
    assert [webhook.attempt for webhook in backend.failed] == [1]
    assert [webhook.attempt for webhook in backend.heard if webhook.event == "call_accepted"] == [2]
    calls: list[Any] = [webhook.call for webhook in backend.heard if webhook.call]
    assert {told["call_id"] for told in calls} == {call_id}
    assert {frozenset((told["caller_identity"], told["callee_identity"])) for told in calls} == {frozenset(parties)}
    end = next(webhook for webhook in backend.heard if webhook.event == "call_ended")
    assert end.call["duration_seconds"] == pytest.approx(ended.duration, abs=0.01)
    rooms = backend.events("room")
    assert rooms.count("participant_joined") == 2
    assert rooms.count("track_published") == 2
    assert rooms.count("participant_left") == 2
    assert {webhook.room["name"] for webhook in backend.heard if webhook.room} == {call_id}
    assert {webhook.participant["identity"] for webhook in backend.heard if webhook.participant} == parties
    assert [rooms.count(event) for event in ("room_started", "room_finished")] == [1, 1]


def test_another_secret_is_refused() -> None:
    body = b'{"event":"call_ended","call":{"call_id":"call_1"}}'
    headers = {"X-UTD-Stream-Signature": webhooks.sign(body, "another"), "X-UTD-Stream-Attempt": "1"}
    with pytest.raises(UTDPermissionError):
        webhooks.parse(body, headers, SECRET)
