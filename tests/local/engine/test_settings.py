"""Settings: checked once, carried through an environment unchanged, and silent about their secrets."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from utd_fsm.errors import UTDInputError
from utd_fsm.local.engine.settings import EngineSettings
from utd_fsm.local.ports import free_port

from .support import running


def test_they_come_back_from_an_environment_as_they_were() -> None:
    whole = EngineSettings(
        app_id="0000000007", app_key="123", app_secret="00", host="localhost", port=0, db="/tmp/x y.db",
        media_url="wss://m", livekit_key="k", livekit_secret="true", ring_timeout=1.5, max_call=60, rate_limit=0,
        webhook_url="http://h/", webhook_secret="null", webhook_delays=(0, 0.5), party_grace=1, sole_owner=False,
    )  # fmt: skip
    assert EngineSettings.from_env(whole.to_env()) == whole
    assert EngineSettings.from_env({}) == EngineSettings()


def test_an_environment_may_be_written_by_hand() -> None:
    settings = EngineSettings.from_env({"UTD_ENGINE_APP_KEY": "plain text", "UTD_ENGINE_APP_ID": "1234567890"}, port=7)
    assert (settings.app_key, settings.app_id, settings.port) == ("plain text", "1234567890", 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("app_id", "123"), ("app_id", "12345678901"), ("app_id", "123456789x"), ("app_key", ""), ("port", -1),
        ("port", 65536), ("media_url", "127.0.0.1:7880"), ("livekit_key", ""), ("livekit_secret", ""),
        ("ring_timeout", 0), ("ring_timeout", -1), ("max_call", float("inf")), ("party_grace", float("nan")),
        ("rate_limit", -1), ("webhook_delays", ()), ("webhook_delays", (-1,)), ("webhook_url", "ftp://x"),
        ("webhook_url", "http://x"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(UTDInputError, match=field):
        EngineSettings(**{field: value})


def test_a_malformed_environment_is_told() -> None:
    with pytest.raises(UTDInputError):
        EngineSettings.from_env({"UTD_ENGINE_PORT": "many"})


def test_no_secret_shows() -> None:
    settings = EngineSettings(app_secret="S1", livekit_secret="S2", webhook_url="http://x", webhook_secret="S3")
    assert "S1" not in repr(settings)
    assert "S2" not in repr(settings)
    assert "S3" not in repr(settings)


def test_the_process_says_what_is_wrong_and_leaves() -> None:
    command = [sys.executable, "-m", "utd_fsm.local.engine"]
    done = subprocess.run([*command, "--port", "70000"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "port must be 0 to 65535" in done.stderr
    with running(port=free_port()) as site:
        port = site.process.settings.port
        done = subprocess.run([*command, "--port", str(port)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 3
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
