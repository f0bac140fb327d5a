"""Servers as child processes: on the same ports again, gone with their parent, and plain about why they failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from utd_fsm.errors import UTDConnectionError, UTDInputError, UTDStateError
from utd_fsm.local.engine.settings import EngineSettings
from utd_fsm.local.ports import free_port
from utd_fsm.local.processes import EngineProcess, ExternalMedia, MediaProcess, find_livekit_server

SCRIPT = Path(__file__).parents[2] / "scripts" / "install-livekit-server"


def lives(pid: int) -> bool:
    """Whether it runs; a zombie nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.05)


def binary_or_skip(kind: str) -> Path | None:
    if kind == "embedded":
        return None
    binary = find_livekit_server()
    if binary is None:
        pytest.skip("livekit-server is not installed: set UTD_LIVEKIT_SERVER to its path or put it on PATH")
    return binary


@pytest.fixture
def engine() -> EngineProcess:
    return EngineProcess(EngineSettings(port=0, media_url="ws://127.0.0.1:1"))


def healthy(engine: EngineProcess) -> bool:
    return bool(requests.get(engine.base_url + "/api/v1/health", timeout=30).json() == {"status": "ok"})


def test_start_stop_and_again(engine: EngineProcess) -> None:
    assert not engine.running
    engine.start()
    try:
        first = engine.pid
        engine.start()
        assert engine.pid == first
        assert healthy(engine)
        engine.restart(hard=True)
        assert engine.pid != first
        assert healthy(engine)
        engine.restart()
        assert healthy(engine)
    finally:
        engine.stop()
    engine.stop()
    assert engine.pid is None
    with pytest.raises(requests.ConnectionError):
        healthy(engine)


def test_a_stop_takes_two_seconds_at_most_with_an_open_request(engine: EngineProcess) -> None:
    engine.start()
    with requests.Session() as session:
        session.get(engine.base_url + "/api/v1/health", timeout=30)
        began = time.monotonic()
        engine.stop()
        assert time.monotonic() - began < 30  # a bound, not a measurement
        assert not engine.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_orderly_end(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "utd_fsm.local.engine", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ready http://127.0.0.1:")
    assert requests.get(line.split()[1] + "/api/v1/health", timeout=30).status_code == 200
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")


def test_why_it_did_not_start_is_in_the_error(tmp_path: Path) -> None:
    secret = "a-secret-that-must-not-show"
    settings = EngineSettings(port=free_port(), db=str(tmp_path / "no" / "such" / "folder"), livekit_secret=secret)
    engine = EngineProcess(settings)
    with pytest.raises(UTDConnectionError, match="engine did not become ready") as error:
        engine.start()
    assert "No such file" in str(error.value) or "unable to open" in str(error.value)
    assert secret not in str(error.value)
    assert not engine.running


def test_a_taken_port_is_told(engine: EngineProcess) -> None:
    engine.start()
    try:
        second = EngineProcess(engine.settings)
        with pytest.raises(UTDConnectionError, match="cannot listen"):
            second.start()
    finally:
        engine.stop()


@pytest.mark.parametrize("kind", ["embedded", "livekit-server"])
def test_a_media_server_keeps_its_place(kind: str) -> None:
    media = MediaProcess(kind, binary=binary_or_skip(kind))
    root = media.url.replace("ws", "http")
    media.start()
    try:
        url, pid = media.url, media.pid
        for hard in (True, False):
            media.restart(hard=hard)
            assert media.url == url
            assert media.pid != pid
            assert requests.get(root, timeout=30).status_code < 500
    finally:
        media.stop(hard=True)
    with pytest.raises(requests.ConnectionError):
        requests.get(root, timeout=30)
    assert pid is not None
    wait_until_gone(pid)


@pytest.mark.parametrize("kind", ["embedded", "livekit-server"])
@pytest.mark.parametrize("end", ["kill", "exit"])
def test_children_die_with_their_parent(kind: str, end: str) -> None:
    binary = binary_or_skip(kind)
    program = (
        "import json, os, sys, time\n"
        "from utd_fsm.testing import local_engine\n"
        "engine = local_engine(sys.argv[1], livekit_binary=sys.argv[2] or None)\n"
        "engine.__enter__()\n"
        "print(json.dumps([engine.process.pid, engine.media.pid]), flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, kind, str(binary or "")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert all(lives(pid) for pid in pids)
        if end == "kill":
            os.kill(parent.pid, signal.SIGKILL)
        else:
            assert parent.stdin is not None
            parent.stdin.close()
        parent.wait(60)
        for pid in pids:
            wait_until_gone(pid)
    finally:
        parent.kill()
        parent.wait()
        for pipe in (parent.stdin, parent.stdout):
            if pipe is not None:
                pipe.close()


def test_no_secret_is_an_argument() -> None:
    media = MediaProcess("embedded")
    media.start()
    try:
        arguments = Path(f"/proc/{media.pid}/cmdline").read_text()
        assert media.secret not in arguments
    finally:
        media.stop(hard=True)


def test_a_foreign_program_on_the_leash_passes_its_status_on() -> None:
    command = [sys.executable, "-m", "utd_fsm.local.leash", "--", sys.executable, "-c", "print('hi'); exit(7)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == "hi" or done.stdout.startswith("pid ")


def test_a_given_url_is_not_ours_to_stop() -> None:
    media = ExternalMedia("ws://example:7880", "k", "s")
    media.start()
    with pytest.raises(UTDStateError, match="whoever started it"):
        media.stop()
    with pytest.raises(UTDStateError):
        media.restart(hard=True)
    with pytest.raises(UTDInputError, match="livekit_key"):
        ExternalMedia("ws://example:7880", "k", None)


def test_an_unknown_media_server_is_refused() -> None:
    with pytest.raises(UTDInputError, match="embedded"):
        MediaProcess("jitsi")


def test_where_a_livekit_server_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def executable(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    monkeypatch.delenv("UTD_LIVEKIT_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_livekit_server() is None
    with pytest.raises(UTDInputError, match="install-livekit-server"):
        MediaProcess("livekit-server")
    installed = executable(tmp_path / "cache" / "utd-fsm" / "livekit-server-1.13.5" / "livekit-server")
    assert find_livekit_server() == installed
    on_path = executable(tmp_path / "bin" / "livekit-server")
    assert find_livekit_server() == on_path
    named = executable(tmp_path / "named")
    monkeypatch.setenv("UTD_LIVEKIT_SERVER", str(named))
    assert find_livekit_server() == named
    given = executable(tmp_path / "given")
    assert find_livekit_server(given) == given
    with pytest.raises(UTDInputError, match="no livekit-server at"):
        find_livekit_server(tmp_path / "nowhere")


def install(tmp_path: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return subprocess.run(["/bin/sh", str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=60)


def tools(tmp_path: Path, go: str | None) -> str:
    """A PATH with what the script needs, and this `go` or none."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("mkdir", "mktemp", "mv", "rm"):
        (folder / name).symlink_to(next(p for p in (Path("/bin", name), Path("/usr/bin", name)) if p.exists()))
    if go is not None:
        (folder / "go").write_text(go)
        (folder / "go").chmod(0o755)
    return str(folder)


def test_the_installer_says_that_go_is_absent(tmp_path: Path) -> None:
    done = install(tmp_path, tools(tmp_path, None))
    assert (done.returncode, done.stdout) == (3, "")
    assert "Go is not installed" in done.stderr


def test_the_installer_builds_once_and_prints_the_path_we_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    go = f"""#!/bin/sh
echo "$@" >> {log}
echo noise
echo binary > "$GOBIN/server"
/bin/chmod +x "$GOBIN/server"
"""
    path = tools(tmp_path, go)
    for _ in range(2):
        done = install(tmp_path, path)
        assert done.returncode == 0, done.stderr
        monkeypatch.delenv("UTD_LIVEKIT_SERVER", raising=False)
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert done.stdout.splitlines() == [str(find_livekit_server())]
    assert log.read_text().splitlines() == ["install github.com/livekit/livekit-server/cmd/server@v1.13.5"]
    assert [entry.name for entry in (tmp_path / "cache" / "utd-fsm" / "livekit-server-1.13.5").iterdir()] == [
        "livekit-server"
    ]


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    done = install(tmp_path, tools(tmp_path, "#!/bin/sh\nexit 1\n"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert list((tmp_path / "cache" / "utd-fsm" / "livekit-server-1.13.5").iterdir()) == []
