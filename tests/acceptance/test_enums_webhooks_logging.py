"""What api.md says of enums, webhooks and logging, checked from outside."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import os
import queue
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest

import utd_fsm
from tests.acceptance.scenes import WAIT, until
from tests.http_stub import HttpStub, Reply, Seen, http_stub
from tests.integration.calling import fresh, ring, signed_in, talking, two
from utd_fsm import (
    UTDCallStatus,
    UTDPermissionError,
    UTDProtocolError,
    UTDRole,
    UTDSeatMode,
    UTDStreamType,
    UTDWebhook,
    signals,
    webhooks,
)
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media


# -------------------------------------------------------------------------------------------------------------- enums


def test_enums_are_strings_with_wire_values_and_upper_case_members() -> None:
    for kind in (UTDStreamType, UTDCallStatus, UTDRole, UTDSeatMode):
        assert issubclass(kind, StrEnum)
        for member in kind:
            assert member.name == member.name.upper()
            assert member.value == member.name.lower()
            assert member == member.value
            assert str(member) == f"{member}" == member.value
            assert json.dumps(member) == f'"{member.value}"'
            assert kind(member.value) is member
    assert [one.value for one in UTDStreamType] == ["audio_call", "video_call", "live_stream", "audio_room"]
    assert {one.value for one in UTDSeatMode} == {"free", "request"}


def test_what_they_know() -> None:
    assert {one for one in UTDStreamType if one.is_call} == {"audio_call", "video_call"}
    assert {one for one in UTDStreamType if one.has_video} == {"video_call", "live_stream"}
    assert {one for one in UTDCallStatus if not one.is_terminal} == {"initiating", "ringing", "active"}
    assert {one for one in UTDCallStatus if one.is_terminal} == {"ended", "rejected", "busy", "missed"}


def test_plain_strings_are_accepted(engine: LocalEngine) -> None:
    with talking(engine) as (call, _, caller, _):
        assert call.type is UTDStreamType.AUDIO_CALL
        assert call.status.wait_for("active", timeout=WAIT) is UTDCallStatus.ACTIVE
        page = caller.calls(status="active", type="audio_call", identity=caller.identity)
        assert [one.call_id for one in page.calls] == [call.call_id.value]
        assert caller.call_session("video_call").type is UTDStreamType.VIDEO_CALL


# ----------------------------------------------------------------------------------------------------------- webhooks


class Backend:
    """An application's backend: verifies what comes, as its page says, and keeps it."""

    def __init__(self, stub: HttpStub) -> None:
        self.stub = stub
        self.secret = ""
        self.got: queue.Queue[tuple[UTDWebhook, Seen]] = queue.Queue()
        stub.answer = self.answer

    def answer(self, seen: Seen) -> Reply:
        self.got.put((webhooks.parse(seen.raw, seen.headers, self.secret), seen))
        return Reply(json={})

    def next(self) -> tuple[UTDWebhook, Seen]:
        return self.got.get(timeout=WAIT)


@pytest.fixture(scope="module")
def backend() -> Iterator[tuple[Backend, LocalEngine]]:
    with http_stub(lambda seen: Reply()) as stub:
        made = Backend(stub)
        with local_engine(media="embedded", webhook_url=f"{stub.url}/hook", webhook_secret="s3cret") as engine:
            made.secret = "s3cret"
            assert engine.webhook_secret == "s3cret"
            yield made, engine


def test_the_engine_tells_the_backend_and_parse_reads_it(backend: tuple[Backend, LocalEngine]) -> None:
    receiver, engine = backend
    with two(engine) as (call, answer, caller, callee):
        answer.accept(ring(call, answer, caller, callee))
        call.wait_for_answer(timeout=WAIT)
        call.end()
        call_id = call.call_id.value
    calls: list[UTDWebhook] = []
    while not calls or calls[-1].event != "call_ended":
        webhook, seen = receiver.next()
        assert isinstance(webhook, UTDWebhook)
        assert webhook.attempt == 1
        assert webhook.raw["event"] == webhook.event == seen.headers["x-utd-stream-event"]
        if webhook.event.startswith("call_"):
            calls.append(webhook)
    assert [one.event for one in calls] == ["call_initiated", "call_ringing", "call_accepted", "call_ended"]
    assert {one.call["call_id"] for one in calls} == {call_id}
    assert calls[-1].call["caller_identity"] == caller.identity
    assert calls[-1].call["duration_seconds"] >= 0


@pytest.mark.parametrize("family", ["X-UTD-Stream", "X-UTD-Voice"])
def test_both_families_of_headers(family: str) -> None:
    body = json.dumps({"event": "call_missed", "call": {"call_id": "call_" + "0" * 24}}).encode()
    signature = "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    headers = {f"{family}-Event": "call_missed", f"{family}-Signature": signature, f"{family}-Attempt": "3"}
    webhook = webhooks.parse(body, headers, "secret")
    assert (webhook.event, webhook.attempt) == ("call_missed", 3)
    assert webhook.call["call_id"] == "call_" + "0" * 24
    with pytest.raises(UTDPermissionError):
        webhooks.parse(body + b" ", headers, "secret")
    with pytest.raises(UTDPermissionError):
        webhooks.parse(body, headers, "another")
    with pytest.raises(UTDPermissionError):
        webhooks.parse(body, {}, "secret")
    broken = b"not json"
    signature = "sha256=" + hmac.new(b"secret", broken, hashlib.sha256).hexdigest()
    with pytest.raises(UTDProtocolError):
        webhooks.parse(broken, {f"{family}-Signature": signature}, "secret")


def test_a_receiver_that_raises_makes_the_engine_try_again() -> None:
    events: list[tuple[str, int]] = []
    fails = {"first": True}

    def receive(sender: object, *, webhook: UTDWebhook, **extra: Any) -> None:
        events.append((webhook.event, webhook.attempt))
        if fails.pop("first", False):
            raise RuntimeError("the database is away")

    def answer(seen: Seen) -> Reply:
        try:
            webhooks.deliver(seen.raw, seen.headers, "s3cret")
        except RuntimeError:
            return Reply(500)
        return Reply(200, json={})

    signals.webhook_received.connect(receive, weak=False)
    try:
        with (
            http_stub(answer) as stub,
            local_engine(media="embedded", webhook_url=stub.url, webhook_secret="s3cret") as engine,
            signed_in(engine, fresh("ann")) as ann,
            ann.call_session("audio_call") as call,
        ):
            call.start(fresh("bob"))
            until(lambda: any((event, 2) in events for event, _ in events[:1]), "it was tried again")
    finally:
        signals.webhook_received.disconnect(receive)
    assert events[0][1] == 1
    assert (events[0][0], 2) in events


# ------------------------------------------------------------------------------------------------------------- logging


def test_a_null_handler_and_nothing_configured() -> None:
    code = (
        "import logging, utd_fsm, utd_fsm.media, utd_fsm.aio, utd_fsm.testing, utd_fsm.webhooks\n"
        "root = logging.getLogger('utd_fsm')\n"
        "assert [type(one).__name__ for one in root.handlers] == ['NullHandler'], root.handlers\n"
        "assert root.level == logging.NOTSET and root.propagate\n"
        "assert not logging.getLogger().handlers and logging.getLogger().level == logging.WARNING\n"
        "for name, one in logging.root.manager.loggerDict.items():\n"
        "    if name.startswith('utd_fsm.') and isinstance(one, logging.Logger):\n"
        "        assert not one.handlers and one.level == logging.NOTSET, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_a_call_in_a_process_that_configures_nothing_prints_nothing(engine: LocalEngine) -> None:
    who = fresh("bob")
    code = (
        "import os\n"
        "from utd_fsm import UTDStreamClient\n"
        "key, url, who = os.environ['T_KEY'], os.environ['T_URL'], os.environ['T_WHO']\n"
        "with UTDStreamClient(os.environ['T_APP'], key, base_url=url) as client:\n"
        "    client.authenticate('quiet-' + who)\n"
        "    with client.call_session('audio_call') as call:\n"
        "        call.start(who)\n"
        "        assert call.wait_for_answer(60) == 'active'\n"
        "        for frame in call.listen(seconds=0.5):\n"
        "            pass\n"
    )
    told = {"T_APP": engine.app_id, "T_KEY": engine.app_key, "T_URL": engine.base_url, "T_WHO": who}
    with engine.peer(who):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **told},
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_is_logged_under_one_name_and_no_token_ever(engine: LocalEngine) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with talking(engine) as (call, answer, caller, _):
            call.send_data(b"x")
            shown = f"{call!r}{answer!r}{caller!r}{call.call!r}{call.local_participant!r}{engine!r}"
            call.end()
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    text = written.getvalue()
    assert "utd_fsm." in text
    for secret in (engine.app_key, engine.livekit_secret, "eyJ"):
        assert secret not in text
        assert secret not in shown
    assert not re.search(r"access_token=[^&\s]{8}", text)


def test_the_version_is_there() -> None:
    assert utd_fsm.__version__
