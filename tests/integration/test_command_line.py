"""``utd-fsm`` as a person types it, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.calling import WAIT
from tests.integration.scripts import ROOT
from utd_fsm.local.ports import free_port

pytestmark = pytest.mark.media

UTD_FSM = str(Path(sys.executable).with_name("utd-fsm"))


def utd_fsm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [UTD_FSM, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * WAIT,
    )


def one_object(text: str) -> dict[str, Any]:
    """Standard output is exactly one JSON object and nothing else."""
    found, end = json.JSONDecoder().raw_decode(text)
    assert text[end:].strip() == ""
    assert isinstance(found, dict)
    return found


def legal(statuses: list[str]) -> bool:
    """The demo's callee rings and answers; a status that passes very quickly may be leapt over."""
    return re.fullmatch(r"(initiating )?(ringing )?active ended", " ".join(statuses)) is not None


def test_demo_call(media: str) -> None:
    demo("--media", media)


def test_demo_of_a_recorded_video_call(tmp_path: Path) -> None:
    result = demo("--video", "--record", str(tmp_path))
    assert min(result["frames_seen"].values()) > 5
    assert len(list(tmp_path.glob("*.wav"))) == 2


def demo(*options: str) -> dict[str, Any]:
    """A demo that must succeed; its report."""
    done = utd_fsm("demo", "call", "--json", "--seconds", "2", *options)
    result = one_object(done.stdout)
    assert done.returncode == 0, done.stderr
    assert result["ok"] is True
    assert result["media"] == (options[1] if options[0] == "--media" else "embedded")
    assert re.fullmatch(r"call_[0-9a-f]{24}", result["call_id"])
    for party, other in (("caller", "callee"), ("callee", "caller")):
        assert abs(result[party]["heard_hz"] - result[other]["sent_hz"]) <= 2
        assert legal(result[party]["statuses"]), result[party]
        assert set(result[party]) >= {"identity", "statuses", "heard_hz", "sent_hz"}
    assert result["setup_ms"] > 0
    assert result["duration_s"] >= 1.5
    assert result["end_reason"] == "caller_hangup"
    return result


def test_demo_call_says_what_it_does_to_people() -> None:
    done = utd_fsm("demo", "call", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert "440" in done.stdout
    assert "660" in done.stdout


def test_what_cannot_be_promised_is_no_success() -> None:
    for media in ("jitsi", "ws://127.0.0.1:9"):
        done = utd_fsm("demo", "call", "--json", "--media", media, LIVEKIT_API_KEY="", LIVEKIT_API_SECRET="")
        assert done.returncode not in (0, None)
        assert one_object(done.stdout)["ok"] is False
        assert "Traceback" not in done.stderr
    assert utd_fsm("demo", "call", "--json", "--seconds", "nonsense").returncode == 2
    assert utd_fsm("engine", "--media", "jitsi").returncode != 0


def test_the_diagrams_are_those_of_the_machines(tmp_path: Path) -> None:
    assert utd_fsm("diagram", "--check").returncode == 0
    assert utd_fsm("diagram", "--write", "--folder", str(tmp_path)).returncode == 0
    assert utd_fsm("diagram", "--check", "--folder", str(tmp_path)).returncode == 0
    drawn = next(tmp_path.glob("*.mmd"))
    drawn.write_text(drawn.read_text() + "\n")
    assert utd_fsm("diagram", "--check", "--folder", str(tmp_path)).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_engine_until_it_is_told_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    """It answers, and is gone with its media server and without a fault."""
    port = free_port()
    process = subprocess.Popen(
        [UTD_FSM, "engine", "--port", str(port), "--db", str(tmp_path / "engine.db")],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(WAIT, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        written = []
        for line in process.stdout:
            written.append(line)
            if line.startswith("ready") or "running on" in line:
                break
        text = "".join(written)
        media = re.search(r"media\s+ws://(127\.0\.0\.1:\d+)", text)
        assert media, text
        assert requests.get(f"http://127.0.0.1:{port}/api/v1/health", timeout=WAIT).json() == {"status": "ok"}
        assert requests.get(f"http://{media[1]}/", timeout=WAIT).status_code < 500
        process.send_signal(number)
        rest, _ = process.communicate(timeout=WAIT)
        assert "Traceback" not in text + rest, text + rest
        assert process.returncode in (0, -number, 128 + number)
        for gone in (f"http://127.0.0.1:{port}/", f"http://{media[1]}/"):
            with pytest.raises(requests.ConnectionError):
                requests.get(gone, timeout=WAIT)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
