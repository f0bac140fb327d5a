"""The demonstration's promise to scripts: with --json, stdout is one JSON object, whatever goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utd_fsm.cli.demo_call import run_demo_call


def test_a_folder_that_cannot_be_made_is_reported_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "a-file"
    taken.touch()
    status = run_demo_call(media="embedded", video=False, seconds=1.0, record=taken, as_json=True)
    assert status != 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert str(taken) in report["error"]
