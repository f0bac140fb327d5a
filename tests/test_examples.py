"""Each program of examples/ runs as its reader would run it: a process of its own, an engine, somebody to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.doc_blocks import ROOT
from utd_fsm import UTDStreamType
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine, local_engine

EXAMPLES = ROOT / "examples"
LIMIT = 90

pytestmark = pytest.mark.media


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with local_engine(media="embedded") as running:
        yield running


def start(engine: LocalEngine, name: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """The example as a child, told of the engine by its environment."""
    environment = {
        **os.environ,
        "UTD_ENGINE_URL": engine.base_url,
        "UTD_APP_ID": engine.app_id,
        "UTD_APP_KEY": engine.app_key,
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str], status: int = 0) -> str:
    """What it printed, once it has ended with this exit status."""
    try:
        out, err = child.communicate(timeout=LIMIT)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    assert child.returncode == status, f"{out}\n{err}"
    assert "Traceback" not in err, err
    return out


def until_it_waits(child: subprocess.Popen[str], lines: int = 1) -> str:
    """Read until it says that it waits for calls; it then ends by itself, or is ended by `finish`."""
    watchdog = threading.Timer(LIMIT, child.kill)
    watchdog.start()
    try:
        assert child.stdout is not None
        return "".join(child.stdout.readline() for _ in range(lines))
    finally:
        watchdog.cancel()


def speak_to(engine: LocalEngine, callee: str) -> int:
    """Call somebody, say 440 Hz for a while; how loud the loudest thing was that came back."""
    with engine.client() as client:
        client.authenticate("tester")
        with client.call_session(UTDStreamType.AUDIO_CALL, microphone=Tone(440)) as call:
            call.start(callee)
            assert call.wait_for_answer(timeout=60) == "active"
            return max((int(np.abs(frame.samples).max()) for frame in call.listen(seconds=2)), default=0)


def test_bot_that_calls(engine: LocalEngine, tmp_path: Path) -> None:
    with engine.peer("bob", microphone=Tone(660)) as bob:
        out = finish(start(engine, "bot_that_calls.py", "bob", "--seconds", "1", folder=tmp_path))
    assert "calling bob" in out
    assert "heard bob, at most 3" in out  # a Tone is at 30 % of full scale
    assert "caller_hangup" in out
    assert bob.errors == []


@pytest.mark.parametrize(("what", "said"), [("reject", "rejected"), ("busy", "busy")])
def test_bot_that_calls_somebody_who_does_not_want_to(
    engine: LocalEngine, tmp_path: Path, what: str, said: str
) -> None:
    with engine.peer("bob", on_call=what):
        out = finish(start(engine, "bot_that_calls.py", "bob", folder=tmp_path), status=1)
    assert f"no conversation: {said}" in out


def test_bot_that_calls_without_an_engine(engine: LocalEngine, tmp_path: Path) -> None:
    """The error is one line that says what is wrong, and no traceback."""
    child = start(engine, "bot_that_calls.py", "bob", "--engine", "http://127.0.0.1:9", folder=tmp_path)
    _, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 1
    assert "UTDConnectionError" in err
    assert "Traceback" not in err


def test_bot_that_answers(engine: LocalEngine, tmp_path: Path) -> None:
    bot = start(engine, "bot_that_answers.py", "--as", "echo", "--calls", "1", folder=tmp_path)
    assert "echo waits" in until_it_waits(bot)
    assert speak_to(engine, "echo") > 3000, "nothing came back"
    out = finish(bot)
    assert "tester calls" in out
    assert "ended (caller_hangup)" in out


def test_record_a_call(engine: LocalEngine, tmp_path: Path) -> None:
    with engine.peer("bob", microphone=Tone(660)):
        out = finish(start(engine, "record_a_call.py", "bob", "--to", "b.wav", "--seconds", "1.5", folder=tmp_path))
    assert "ended by seconds" in out
    with wave.open(str(tmp_path / "b.wav"), "rb") as file:
        assert (file.getframerate(), file.getnchannels()) == (48_000, 1)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert len(samples) == pytest.approx(1.5 * 48_000, abs=4800)
    assert np.abs(samples).max() > 3000


def test_video_call(engine: LocalEngine, tmp_path: Path) -> None:
    with engine.peer("bob", microphone=Tone(660), camera=TestPattern(320, 240, 15)):
        out = finish(start(engine, "video_call.py", "bob", "--seconds", "1", "--picture", "b.ppm", folder=tmp_path))
    assert "from bob" in out
    header, size, *_ = (tmp_path / "b.ppm").read_bytes()[:40].split(b" ")
    assert header == b"P6"
    assert int(size) > 0


def test_load(engine: LocalEngine, tmp_path: Path) -> None:
    out = finish(start(engine, "load.py", "--calls", "3", "--seconds", "3", folder=tmp_path))
    assert "3 of 3 calls were heard" in out


def test_aio_bot(engine: LocalEngine, tmp_path: Path) -> None:
    desks = start(engine, "aio_bot.py", "--as", "desk-1", "--as", "desk-2", "--calls", "1", folder=tmp_path)
    assert until_it_waits(desks, lines=2).count("waits for calls") == 2
    assert speak_to(engine, "desk-1") > 3000
    assert speak_to(engine, "desk-2") > 3000
    out = finish(desks)
    assert out.count("ended, heard") == 2


def test_room_by_itself(engine: LocalEngine, tmp_path: Path) -> None:
    out = finish(start(engine, "room_by_itself.py", "--room", "lobby", folder=tmp_path))
    assert "listener sent b'thank you'" in out
    assert "in lobby: ['speaker']" in out


def test_live_stream_host(engine: LocalEngine, tmp_path: Path) -> None:
    host = start(engine, "live_stream_host.py", "show", "--seconds", "8", "--turn", "1", folder=tmp_path)
    assert "show is on air" in until_it_waits(host)
    with engine.client() as client, client.join_live_stream("vera", "show", microphone=Tone(660)) as live:
        live.request_stage()
        live.can_publish.wait_for(True, timeout=30)
        live.set_microphone(True)
        assert max(int(np.abs(frame.samples).max()) for frame in live.listen("host1", seconds=0.5)) > 3000
        live.can_publish.wait_for(False, timeout=30)
        assert live.wait_until_ended(timeout=60) == "ended"
    out = finish(host)
    assert "vera is on stage, with 0 hands still up" in out
    assert "heard vera, at most" in out
    assert "show has ended" in out


def test_viewer_recorder(engine: LocalEngine, tmp_path: Path) -> None:
    with engine.client() as client, client.join_live_stream("host2", "evening", as_host=True) as live:
        recorder = start(engine, "viewer_recorder.py", "evening", "--to", "e.wav", folder=tmp_path)
        assert "evening is waiting" in until_it_waits(recorder)
        live.go_live(with_video=False)
        live.play(Tone(440, seconds=2))
        live.end_live()
        out = finish(recorder)
    assert "stream ended" in out
    with wave.open(str(tmp_path / "e.wav"), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert len(samples) > 48_000
    assert np.abs(samples).max() > 3000


def test_host_an_audio_room(engine: LocalEngine, tmp_path: Path) -> None:
    """Two ask for the one seat beside the host's: the second gets it when the first one's time is over."""
    options = ["--seats", "2", "--turn", "1", "--seconds", "12"]
    host = start(engine, "host_an_audio_room.py", "parlour", *options, folder=tmp_path)
    said = until_it_waits(host, lines=4)  # two seats, the host on the first one, open
    assert "parlour is open" in said
    with (
        engine.client() as one,
        engine.client() as two,
        one.join_audio_room("vera", "parlour", microphone=Tone(660), auto_unmute=True) as vera,
        two.join_audio_room("will", "parlour", microphone=Tone(880), auto_unmute=True) as will,
    ):
        vera.request_to_speak()
        will.seats.wait_for(lambda grid: grid.seat_of("vera") == 1, timeout=30)
        will.request_to_speak()
        assert max(int(np.abs(frame.samples).max()) for frame in will.listen("vera", seconds=0.3)) > 3000
        will.seats.wait_for(lambda grid: grid.my_seat == 1, timeout=30)
        assert max(int(np.abs(frame.samples).max()) for frame in vera.listen("will", seconds=0.3)) > 3000
        vera.seats.wait_for(lambda grid: grid.free_seats() == (1,), timeout=30)
    out = said + finish(host)
    assert "seat 1: vera" in out
    assert "seat 1: will" in out
    assert out.index("seat 1: vera") < out.index("seat 1: will")


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name != "options.py" and path.name not in text] == []
