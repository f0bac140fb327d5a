"""kill -9 in the middle of everything loses nothing that was answered, and nothing is ever half done."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import requests

from utd_fsm import wire

from .support import Site, User, running, somebody

KILLS = 10
WORKERS = 6
RANK = {"initiating": 1, "ringing": 2, "active": 3, "ended": 4, "rejected": 4, "busy": 4, "missed": 4}


class Worker(threading.Thread):
    """A pair of users in calls, one after the other, that repeats each request until it has its answer."""

    def __init__(self, site: Site, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.alice, self.bob = site.user(somebody("a")), site.user(somebody("b"))
        self.stop = stop
        self.answered: dict[str, list[dict[str, Any]]] = {}
        self.machine = str(uuid.uuid4())  # keys are counted for each identity apart
        self.count = dict.fromkeys((self.alice.identity, self.bob.identity), 0)
        self.repeats = 0
        self.fault: str | None = None

    def certainly(self, user: User, path: str, **body: Any) -> requests.Response:
        """The answer to one request, however often the engine dies meanwhile."""
        self.count[user.identity] += 1
        key = f"{self.machine}:{self.count[user.identity]}"
        while True:
            try:
                return user.ask("POST", path, json=body, key=key)
            except requests.RequestException:
                self.repeats += 1
                self.stop.wait(0.02)

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.one_call()
        except Exception as error:
            self.fault = repr(error)

    def one_call(self) -> None:
        created = self.certainly(
            self.alice, wire.CALLS, caller_identity=self.alice.identity, callee_identity=self.bob.identity,
            type="audio_call",
        )  # fmt: skip
        assert created.status_code == 201, created.text
        call_id = created.json()["call_id"]
        seen = self.answered[call_id] = [created.json()]
        for user, route in ((self.bob, wire.CALL_RINGING), (self.bob, wire.CALL_ACCEPT), (self.alice, wire.CALL_END)):
            answer = self.certainly(user, route.replace("{id}", call_id), identity=user.identity)
            assert answer.status_code == 200, answer.text
            seen.append(answer.json())


def test_ten_kills_with_traffic_lose_no_call_and_double_none(tmp_path: Path) -> None:
    with running(db=str(tmp_path / "engine.db")) as site:
        stop = threading.Event()
        workers = [Worker(site, stop) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for _ in range(KILLS):
            before = sum(len(worker.answered) for worker in workers)
            while sum(len(worker.answered) for worker in workers) < before + 2 * WORKERS:
                assert all(worker.fault is None for worker in workers), [worker.fault for worker in workers]
                stop.wait(0.005)
            site.process.restart(hard=True)
        stop.set()
        for worker in workers:
            worker.join(60)
            assert not worker.is_alive()
            assert worker.fault is None
        assert sum(worker.repeats for worker in workers) >= KILLS / 2  # the kills did hit requests
        for worker in workers:
            rows: list[dict[str, Any]] = []
            while page := worker.alice.ask(
                "GET", wire.CALLS, params={"per_page": 100, "page": len(rows) // 100 + 1}
            ).json()["data"]:
                rows += page
            kept = {row["call_id"]: row for row in rows}
            assert set(kept) == set(worker.answered)  # no call lost, none made twice
            for call_id, answers in worker.answered.items():
                assert [answer["version"] for answer in answers] == [1, 2, 3, 4]
                assert [RANK[answer["status"]] for answer in answers] == [1, 2, 3, 4]
                last = {name: value for name, value in answers[-1].items() if name not in ("token", "url")}
                assert kept[call_id] == last
