"""``python -m utd_fsm.local.media_server``: one line on stdout, secrets by the environment, and an end in time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest
from livekit import api

from tests.local.media_server.studio import KEY, PATIENCE, SECRET, Client, token

COMMAND = [sys.executable, "-m", "utd_fsm.local.media_server"]


@contextmanager
def started(*arguments: str, config: str | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process once it is ready, and its URL."""
    environment = dict(os.environ)
    if config is None:
        environment |= {"UTD_MEDIA_KEY": KEY, "UTD_MEDIA_SECRET": SECRET}
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        if config is not None:
            process.stdin.write(config + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        assert re.fullmatch(r"ready http://127\.0\.0\.1:\d+\n", line), (line, process.poll())
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.media
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_within_a_second_and_says_nothing_more(number: signal.Signals) -> None:
    with started("--port", "0") as (process, url):
        alice = await Client("alice").connect(url, token("alice"))
        await alice.event("token_refreshed")
        began = time.monotonic()
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
        took = time.monotonic() - began
        assert process.returncode == 0
        assert (out, errors) == ("", "")
        assert took < 5, "it stops at once; the bound is wide because the machine may be busy"
        await alice.event("disconnected")
        await alice.room.disconnect()


async def test_the_config_on_stdin_and_the_same_port_again() -> None:
    config = json.dumps({"key": KEY, "secret": SECRET})
    with started("--config-stdin", config=config) as (first, url):
        first.kill()
        first.wait(PATIENCE)
    port = url.rpartition(":")[2]
    with started("--config-stdin", "--port", port, config=config) as (_, again):
        assert again == url
        lk = api.LiveKitAPI(url, KEY, SECRET)
        assert not (await lk.room.list_rooms(api.ListRoomsRequest())).rooms
        await lk.aclose()


def test_it_ends_with_its_parent() -> None:
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'utd_fsm.local.media_server',"
        " '--with-parent'], stdout=subprocess.PIPE, text=True); print(p.pid, p.stdout.readline(), flush=True)"
    )
    environment = dict(os.environ) | {"UTD_MEDIA_KEY": KEY, "UTD_MEDIA_SECRET": SECRET}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    pid = int(found.stdout.split()[0])
    deadline = time.monotonic() + PATIENCE
    while _runs(pid):
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_a_secret_it_says_what_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UTD_MEDIA")}
    found = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert "UTD_MEDIA_SECRET" in found.stderr
    assert found.stdout == ""


def test_a_taken_port_is_an_error_in_one_line() -> None:
    with started() as (_, url):
        environment = dict(os.environ) | {"UTD_MEDIA_KEY": KEY, "UTD_MEDIA_SECRET": SECRET}
        found = subprocess.run(
            [*COMMAND, "--port", url.rpartition(":")[2]], env=environment, capture_output=True, text=True, timeout=60
        )
    assert found.returncode == 1
    assert found.stdout == ""
    assert "cannot listen" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.media
async def test_no_token_and_no_secret_in_anything_it_prints() -> None:
    """With everything logged, through a join, a refusal and a resume."""
    with started("-v") as (process, url):
        good, bad = token("alice"), api.AccessToken(KEY, "x" * 40).with_identity("m").to_jwt()
        alice = await Client("alice").connect(url, good)
        async with aiohttp.ClientSession(url) as http:
            for path in ("/rtc/validate", "/rtc", "/rtc/v1"):
                async with http.get(path, params={"access_token": bad, "join_request": "%%"}) as answer:
                    assert bad not in await answer.text()
        await alice.room.disconnect()
        process.terminate()
        out, errors = process.communicate(timeout=PATIENCE)
    assert "alice joined room" in errors
    for secret in (SECRET, good, bad, "eyJ"):
        assert secret not in out + errors
