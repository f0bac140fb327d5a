"""The limit: counted by identity, told with Retry-After, and nobody else's business."""

from __future__ import annotations

import pytest
import requests

from utd_fsm import wire
from utd_fsm.local.engine.ratelimit import RateLimit
from utd_fsm.local.engine.refusal import Refused

from .support import User, running, somebody


def test_a_bucket_empties_and_refills() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    for _ in range(60):
        limit.take("a")
    with pytest.raises(Refused) as refusal:
        limit.take("a")
    assert refusal.value.retry_after == 1
    limit.take("b")
    now = 1.0
    limit.take("a")
    with pytest.raises(Refused):
        limit.take("a")
    now = 1000.0
    for _ in range(60):
        limit.take("a")


def test_no_limit() -> None:
    limit = RateLimit(0)
    for _ in range(10_000):
        limit.take("a")


def test_forgotten_buckets_are_swept() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    for number in range(10_000):
        limit.take(str(number))
    now = 100.0
    limit.take("one more")
    assert len(limit._buckets) == 1


def test_the_engine_says_when_to_come_back() -> None:
    with running(rate_limit=5) as site:
        alice, bob = site.user(), site.user()
        answers = [alice.ask("GET", wire.CALLS) for _ in range(7)]
        assert [a.status_code for a in answers[:5]] == [200] * 5
        refused = answers[-1]
        assert refused.status_code == 429
        assert 1 <= int(refused.headers[wire.RETRY_AFTER]) <= 12
        assert refused.json()["code"] == wire.RATE_LIMITED
        assert bob.ask("GET", wire.CALLS).status_code == 200
        assert requests.get(site.api + wire.HEALTH, timeout=30).status_code == 200


def test_sessions_are_counted_by_identity_and_device_and_guesses_by_address() -> None:
    with running(rate_limit=3) as site:
        url, one = site.api + wire.AUTH_SESSION, somebody()

        def sign_in(device: str) -> int:
            body = {"identity": one, "device_id": device}
            return requests.post(url, json=body, headers=site.app_headers, timeout=30).status_code

        assert [sign_in("a") for _ in range(4)] == [200, 200, 200, 429]
        assert sign_in("b") == 200
        guesser = User(site, "x", "u1.guess.guess", "")
        assert [guesser.ask("GET", wire.CALLS).status_code for _ in range(4)] == [401, 401, 401, 429]
        assert site.user().ask("GET", wire.CALLS).status_code == 200
