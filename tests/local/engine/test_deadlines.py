"""The clocks of a call: the ring timeout and the longest call, across restarts too."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from utd_fsm import wire

from .support import User, running, until


def is_missed(user: User, call_id: str) -> bool:
    return user.status(call_id) == "missed"


def test_nobody_answers() -> None:
    with running(ring_timeout=0.3) as site:
        alice, bob = site.pair()
        for rings in (False, True):
            call_id = alice.call(bob)
            if rings:
                bob.do(wire.CALL_RINGING, call_id)
            until(partial(is_missed, alice, call_id))
            answer = bob.do(wire.CALL_ACCEPT, call_id)
            assert (answer.status_code, answer.json()["status"]) == (409, "missed")
        assert alice.create(bob.identity).status_code == 201


def test_an_answered_call_is_not_missed_and_ends_at_its_longest() -> None:
    with running(ring_timeout=0.5, max_call=1.5) as site:
        alice, bob = site.pair()
        call_id = alice.call(bob)
        bob.do(wire.CALL_ACCEPT, call_id)
        answered = time.monotonic()
        seen = []
        while (status := alice.status(call_id)) == "active":
            seen.append(status)
            time.sleep(0.05)
        assert time.monotonic() - answered > 1.2
        record = alice.read(call_id)
        assert (record["status"], record["end_reason"]) == ("ended", "max_duration")
        assert record["duration_seconds"] >= 1.4


def test_the_clocks_go_on_after_a_kill(tmp_path: Path) -> None:
    db = str(tmp_path / "engine.db")
    with running(db=db) as site:
        (alice, bob), (carol, dave) = site.pair(), site.pair()
        unanswered = alice.call(bob)
        answered = carol.call(dave)
        dave.do(wire.CALL_ACCEPT, answered)
        site.process.stop(hard=True)
    time.sleep(0.6)
    with running(db=db, ring_timeout=0.5, max_call=0.5, join_grace=60) as site:
        alice, carol = site.user(alice.identity), site.user(carol.identity)
        until(lambda: alice.status(unanswered) == "missed")
        until(lambda: carol.status(answered) == "ended")
        assert carol.read(answered)["end_reason"] == "max_duration"
    with running(db=db, ring_timeout=3600) as site:
        alice = site.user(alice.identity)
        assert alice.status(unanswered) == "missed"


def test_a_stop_ends_no_call(tmp_path: Path) -> None:
    db = str(tmp_path / "engine.db")
    with running(db=db) as site:
        alice, bob = site.pair()
        call_id = alice.call(bob)
        bob.do(wire.CALL_ACCEPT, call_id)
        site.process.restart()
        assert alice.status(call_id) == "active"
