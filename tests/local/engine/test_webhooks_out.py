"""The application's backend: told in order, signed, six times at most, and not forgotten by a restart."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import sqlite3
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from utd_fsm import wire
from utd_fsm.local.engine.settings import EngineSettings

from .support import Backend, Delivered, Site, running, until

SECRET = "the callback's secret"
DELAYS = (0, 0.05, 0.1, 0.15, 0.2, 0.25)


def engine(backend: Backend, **changes: Any) -> AbstractContextManager[Site]:
    given = {"webhook_url": backend.url, "webhook_secret": SECRET, "webhook_delays": DELAYS}
    return running(**{**given, **changes})


def heard(backend: Backend, call_id: str, count: int) -> bool:
    return len(backend.events(call_id)) == count


def queued_attempts(folder: Path) -> list[int]:
    """The next attempt of every webhook that waits in the engine's file."""
    with closing(sqlite3.connect(folder / "engine.db")) as db:
        return [row[0] for row in db.execute("SELECT attempt FROM webhooks")]


def attempts(seen: list[Delivered]) -> list[int]:
    return [int(each.headers[wire.WEBHOOK_ATTEMPT[0]]) for each in seen]


def test_the_waits_are_the_contracts() -> None:
    assert EngineSettings().webhook_delays == (0, 2, 4, 8, 16, 32)
    assert EngineSettings().webhook_timeout == 5


def test_a_call_is_told_in_order_and_signed(backend: Backend) -> None:
    with engine(backend) as site:
        alice, bob = site.pair()
        for last, route in (("call_ended", wire.CALL_END), ("call_rejected", wire.CALL_REJECT),
                            ("call_busy", wire.CALL_BUSY)):  # fmt: skip
            call_id = alice.call(bob)
            told = ["call_initiated"]
            if route == wire.CALL_END:
                bob.do(wire.CALL_RINGING, call_id)
                bob.do(wire.CALL_RINGING, call_id)
                bob.do(wire.CALL_ACCEPT, call_id)
                told += ["call_ringing", "call_accepted"]
            bob.do(route, call_id)
            told.append(last)
            until(partial(heard, backend, call_id, len(told)))
            assert backend.events(call_id) == told
    for each in backend.seen:
        signature = hmac.new(SECRET.encode(), each.raw, hashlib.sha256).hexdigest()
        assert each.headers[wire.WEBHOOK_SIGNATURE[0]] == f"sha256={signature}"
        assert each.headers[wire.WEBHOOK_EVENT[0]] == each.body["event"]
        call = wire.read_webhook(each.body, "", 1).call
        assert set(call) == {"call_id", "caller_identity", "callee_identity", "type", "duration_seconds"}
    assert attempts(backend.seen) == [1] * len(backend.seen)


def test_what_fails_is_tried_six_times_with_growing_waits(backend: Backend) -> None:
    backend.answers = [500, 503, 302, 500, 500, 500, 200]
    with engine(backend) as site:
        alice, bob = site.pair()
        call_id = alice.call(bob)
        until(lambda: len(backend.seen) >= 6)
        times = [each.at for each in backend.seen]
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert attempts(backend.seen) == [1, 2, 3, 4, 5, 6]
        assert all(wait >= delay * 0.95 for wait, delay in zip(waits, DELAYS[1:], strict=True))
        # a later webhook arrives, so the seventh attempt that must not come would have come before it
        bob.do(wire.CALL_REJECT, call_id)
        until(lambda: len(backend.seen) >= 7)
        assert backend.seen[6].body["event"] == "call_rejected"
    assert len({each.raw for each in backend.seen[:6]}) == 1


@pytest.mark.parametrize("status", [400, 404, 410, 429])
def test_a_4xx_is_not_tried_again(backend: Backend, status: int) -> None:
    backend.answers = [status]
    with engine(backend, webhook_delays=(0, 0, 0)) as site:
        alice, bob = site.pair()
        call_id = alice.call(bob)
        until(lambda: len(backend.seen) == 1)
        alice.do(wire.CALL_END, call_id)
        until(lambda: "call_ended" in backend.events())
    assert backend.events() == ["call_initiated", "call_ended"]


def test_an_answer_that_takes_too_long_counts_as_none(backend: Backend) -> None:
    backend.gate.clear()
    with engine(backend, webhook_timeout=0.2) as site:
        alice, bob = site.pair()
        alice.call(bob)
        until(lambda: len(backend.seen) >= 2)
        backend.gate.set()
    assert attempts(backend.seen)[:2] == [1, 2]


def test_a_slow_backend_delays_no_answer_and_no_other_call(backend: Backend) -> None:
    backend.gate.clear()
    with engine(backend) as site:
        first, second = site.pair()
        call_id = first.call(second)
        until(lambda: len(backend.seen) == 1)
        third, fourth = site.pair()
        other = third.call(fourth)
        until(lambda: backend.events(other) == ["call_initiated"])
        assert first.status(call_id) == "initiating"
        backend.gate.set()


def test_what_was_not_delivered_is_delivered_after_a_kill(backend: Backend, tmp_path: Path) -> None:
    backend.answers = [500]
    with engine(backend, db=str(tmp_path / "engine.db"), webhook_delays=(0, 3600)) as site:
        alice, bob = site.pair()
        call_id = alice.call(bob)
        until(lambda: queued_attempts(tmp_path) == [2])
        site.process.stop(hard=True)
    with engine(backend, db=str(tmp_path / "engine.db"), webhook_delays=(0, 0)) as site:
        # what waits for an hour still waits, and what is new is not held up by it
        alice = site.user(alice.identity)
        alice.do(wire.CALL_END, call_id)
        until(lambda: "call_ended" in backend.events(call_id))
        assert attempts(backend.seen) == [1, 1]


def test_a_kill_before_the_delivery_delays_it(backend: Backend, tmp_path: Path) -> None:
    with engine(backend, db=str(tmp_path / "engine.db"), webhook_delays=(3600,)) as site:
        alice, bob = site.pair()
        alice.call(bob)
        site.process.stop(hard=True)
    assert backend.seen == []
    with closing(sqlite3.connect(tmp_path / "engine.db")) as db, db:
        db.execute("UPDATE webhooks SET due = 0")
    with engine(backend, db=str(tmp_path / "engine.db")):
        until(lambda: backend.events() == ["call_initiated"])


def test_users_come_and_go(backend: Backend) -> None:
    with engine(backend) as site:
        alice = site.user()
        auth = json.dumps({"event": wire.SOCKET_AUTH, "data": {"token": alice.bearer}})
        with connect(alice.ws_url, open_timeout=60, proxy=None) as first:
            first.send(auth)
            first.recv(timeout=60)
            with connect(alice.ws_url, open_timeout=60, proxy=None) as second:
                second.send(auth)
                second.recv(timeout=60)
        until(lambda: "user_offline" in backend.events())
        assert backend.events() == ["user_online", "user_offline"]
        assert backend.seen[0].body["participant"]["identity"] == alice.identity


def test_a_missed_call_is_told(backend: Backend) -> None:
    with engine(backend, ring_timeout=0.2) as site:
        alice, bob = site.pair()
        call_id = alice.call(bob)
        until(lambda: backend.events(call_id) == ["call_initiated", "call_missed"])
