"""``utd-fsm demo stream`` and ``demo room``: on both media servers, and not fooled where state and media differ."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.calling import WAIT, until
from tests.integration.scripts import ROOT
from tests.integration.test_command_line import UTD_FSM, one_object, utd_fsm
from utd_fsm import UTDAudioRoomSession, UTDLiveStreamSession
from utd_fsm.cli import demo_ears
from utd_fsm.cli.demo_room import run_demo_room
from utd_fsm.cli.demo_stream import run_demo_stream

pytestmark = pytest.mark.media

HOST_HZ, GUEST_HZ = 300.0, 410.0


def demo(*arguments: str) -> dict[str, Any]:
    """A demonstration that must succeed; its report."""
    done = utd_fsm("demo", *arguments, "--json")
    report = one_object(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["ok"] is True
    return report


# -------------------------------------------------------------------------------------------------------- stream


def test_demo_stream(media: str) -> None:
    report = demo("stream", "--media", media)
    assert set(report) == {"ok", "media", "stage_history", "heard", "after_removal_heard", "viewers"}
    assert report["media"] == media
    assert report["stage_history"] == [[], ["viewer-1"], []]
    assert report["heard"] == {
        "viewer-1": [pytest.approx(HOST_HZ, abs=2)],
        "viewer-2": [pytest.approx(HOST_HZ, abs=2), pytest.approx(GUEST_HZ, abs=2)],
        "viewer-3": [pytest.approx(HOST_HZ, abs=2), pytest.approx(GUEST_HZ, abs=2)],
    }
    assert report["after_removal_heard"] == {}
    assert report["viewers"] == 3


def test_demo_stream_with_one_viewer() -> None:
    report = demo("stream", "--viewers", "1")
    assert list(report["heard"]) == ["viewer-1"]


# ---------------------------------------------------------------------------------------------------------- room


def test_demo_room(media: str) -> None:
    report = demo("room", "--media", media)
    assert set(report) == {"ok", "media", "steps"}
    steps = {step["step"]: step for step in report["steps"]}
    assert list(steps) == [
        "seeded",
        "requested",
        "approved",
        "invited",
        "kicked",
        "locked",
        "approved past the lock",
        "swapped",
        "muted",
    ]
    for step in report["steps"]:
        assert set(step) == {"step", "grid", "audible"}
        assert [seat["index"] for seat in step["grid"]] == list(range(8))
        speaking = {seat["identity"] for seat in step["grid"] if seat["identity"] and not seat["muted"]}
        assert set(step["audible"]) == {"host", *(f"listener-{number}" for number in range(1, 5))}
        for who, heard in step["audible"].items():
            assert set(heard) == speaking - {who}, step["step"]
    assert seated(steps["requested"]) == ["host"]
    assert seated(steps["approved"]) == ["host", "listener-1"]
    assert seated(steps["invited"]) == ["host", "listener-1", None, "listener-2"]
    assert seated(steps["kicked"]) == ["host", None, None, "listener-2"]
    assert [seat["index"] for seat in steps["locked"]["grid"] if seat["locked"]] == [1]
    assert seated(steps["approved past the lock"]) == ["host", None, "listener-3", "listener-2"]
    assert seated(steps["swapped"]) == ["host", None, "listener-2", "listener-3"]
    assert [seat["identity"] for seat in steps["muted"]["grid"] if seat["muted"]] == ["listener-3"]


def seated(step: dict[str, Any]) -> list[str | None]:
    """Who sits on which seat, without the empty ones at the end."""
    found = [seat["identity"] for seat in step["grid"]]
    while found and found[-1] is None:
        found.pop()
    return found


def test_demo_room_of_the_smallest_size() -> None:
    """Without a third listener the first one asks again."""
    report = demo("room", "--seats", "4", "--listeners", "2")
    assert seated(report["steps"][-1]) == ["host", None, "listener-2", "listener-1"]


# ------------------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize(("command", "last"), [("stream", "leaves"), ("room", "mutes seat 3")])
def test_demo_for_people(command: str, last: str) -> None:
    done = utd_fsm("demo", command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last in done.stdout
    assert "300 Hz" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["stream", "room"])
def test_what_cannot_be_promised_is_no_success(command: str) -> None:
    done = utd_fsm(
        "demo", command, "--json", "--media", "ws://127.0.0.1:9", LIVEKIT_API_KEY="k", LIVEKIT_API_SECRET="s"
    )
    assert done.returncode == 1, done.stderr
    assert one_object(done.stdout)["ok"] is False
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "moment"), [("stream", "is on stage"), ("room", "accepts, sits on seat")])
def test_ctrl_c_ends_it_and_leaves_no_process(command: str, moment: str) -> None:
    """As a terminal does it: the whole group is told."""
    process = subprocess.Popen(
        [UTD_FSM, "demo", command, "--json"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(2 * WAIT, process.kill)
    watchdog.start()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                break
        children = descendants(process.pid)
        assert len(children) >= 2, "an engine and a media server"
        os.killpg(process.pid, signal.SIGINT)
        out, rest = process.communicate(timeout=WAIT)
    finally:
        watchdog.cancel()
        process.kill()
    assert process.returncode == 130, rest
    report = one_object(out)
    assert (report["ok"], report["error"]) == (False, "interrupted")
    assert "Traceback" not in rest
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "every child is gone")


def descendants(pid: int) -> set[int]:
    """The processes below one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


# ---------------------------------------------------------------------------------------- they are not fooled


def test_a_removal_that_does_not_silence_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 5.0)
    monkeypatch.setattr(UTDLiveStreamSession, "remove_from_stage", lambda self, identity: None)
    assert run_demo_stream(media="embedded", viewers=2, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["after_removal_heard"]["viewer-2"] == [
        pytest.approx(HOST_HZ, abs=2),
        pytest.approx(GUEST_HZ, abs=2),
    ]
    assert report["after_removal_heard"]["host"] == [pytest.approx(GUEST_HZ, abs=2)]


def test_a_seat_without_a_voice_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The grid is right at every step, and nobody hears the one who is approved."""
    monkeypatch.setattr(demo_ears, "SETTLES_WITHIN", 5.0)
    monkeypatch.setattr(UTDAudioRoomSession, "set_microphone", lambda self, enabled: None)
    assert run_demo_room(media="embedded", seats=4, listeners=2, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert "listener-2 heard host instead of host, listener-1" in report["errors"]["approved"]
    approved = next(step for step in report["steps"] if step["step"] == "approved")
    assert seated(approved) == ["host", "listener-1"]
    assert approved["audible"]["listener-2"] == ["host"]
