"""What the demonstrations share: one failure ends it for all, and the report is what a script can rely on."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from utd_fsm.cli.demo_run import INTERRUPTED, Crew, Report, Show, run_demo
from utd_fsm.errors import UTDStateError, UTDTimeoutError
from utd_fsm.testing import LocalEngine


@pytest.fixture
def crew() -> Crew:
    """A crew whose engine is never started: what is tested here asks for nothing."""
    return Crew(LocalEngine(), Show(as_json=True), limit=60.0)


def test_all_act_at_the_same_time(crew: Crew) -> None:
    meeting = threading.Barrier(3)
    crew.run({who: lambda: void(meeting.wait(30)) for who in ("a", "b", "c")})
    assert crew.errors == {}


def void(result: object) -> None:
    del result


def test_the_first_failure_ends_it_for_all_and_is_the_one_that_is_told(crew: Crew) -> None:
    never, waits = threading.Event(), threading.Event()

    def patient() -> None:
        waits.set()
        crew.wait(never, "what never comes", timeout=60.0)

    def failing() -> None:
        waits.wait(30)
        raise UTDStateError("no seat is free")

    began = time.monotonic()
    crew.run({"patient": patient, "failing": failing})
    assert crew.errors == {"failing": "UTDStateError: no seat is free"}
    assert time.monotonic() - began < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("demo-")]


def test_a_wait_is_bounded_and_says_for_what(crew: Crew) -> None:
    with pytest.raises(UTDTimeoutError, match="the host opens the room"):
        crew.wait(threading.Event(), "the host opens the room", timeout=0.2)


def test_all_of_it_is_bounded() -> None:
    crew = Crew(LocalEngine(), Show(as_json=True), limit=0.3)
    crew.run({"late": lambda: crew.pause(60.0)})
    assert crew.errors == {"demo": "UTDTimeoutError: not over after 0.3 s"}


def fail(error: BaseException) -> Report:
    raise error


@pytest.mark.media
@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (UTDStateError("no seat is free"), 1, "no seat is free"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
    ],
    ids=["Ctrl-C", "refused", "fault"],
)
def test_whatever_goes_wrong_is_one_object(
    error: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engines: list[LocalEngine] = []

    def play(engine: LocalEngine, show: Show) -> Report:
        engines.append(engine)
        return fail(error)

    assert run_demo("embedded", play, str, as_json=True) == status
    assert json.loads(capsys.readouterr().out) == {"ok": False, "media": "embedded", "error": told}
    assert not engines[0].process.running


@pytest.mark.media
@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_the_report_decides(ok: bool, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    report: dict[str, Any] = {"ok": ok, "media": "embedded", "names": "Zoë"}
    assert run_demo("embedded", lambda engine, show: report, str, as_json=True) == status
    assert json.loads(capsys.readouterr().out) == report
