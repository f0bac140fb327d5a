"""Nothing that a whole run prints, logs, shows or raises holds a token or a key.

The engine runs as a program of its own and the two parties as another, both with debug logging of everything; whatever
they write goes into one file. The parties put their bearers into another, so that the test knows what to look for.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.calling import WAIT
from tests.integration.scripts import ROOT
from tests.integration.test_command_line import UTD_FSM
from utd_fsm import wire
from utd_fsm.local.ports import free_port
from utd_fsm.local.processes import MediaProcess

pytestmark = pytest.mark.media

PARTIES = r"""
import datetime, json, logging, os, pickle, sys, traceback, warnings
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from livekit import api
from utd_fsm import *
from utd_fsm import signals
from utd_fsm.media import Tone

given = json.loads(os.environ["GIVEN"])
wanted = {}

def show(*things):
    for thing in things:
        print(repr(thing), str(thing), flush=True)
        if isinstance(thing, BaseException):
            print(ascii(pickle.dumps(thing)), vars(thing))
            traceback.print_exception(thing)
        for name in ("call", "status", "call_id", "connection", "events", "local_participant", "sessions", "_core"):
            if hasattr(thing, name):
                print(name, repr(getattr(thing, name)))

def fails(fn, *arguments, **named):
    try:
        fn(*arguments, **named)
    except UTDStreamException as error:
        show(error)
        return
    raise SystemExit(f"{fn} did not fail")

@signals.call_status_changed.connect
def on_status(session, **what):
    show(session, what)

def client(key=given["app_key"]):
    return UTDStreamClient(given["app_id"], key, base_url=given["base_url"])

with client() as alice, client() as bob:
    wanted["bearers"] = [alice.authenticate("alice"), bob.authenticate("bob", receive_calls=True)]
    with open(given["wanted"], "w") as file:
        json.dump(wanted, file)
    show(alice, bob, alice._core._credentials, alice._core._api)
    with alice.call_session("audio_call", microphone=Tone(440)) as call, \
            bob.call_session("audio_call", microphone=Tone(660)) as answer:
        show(call.start("bob", metadata={"order": 17}))
        show(call)
        incoming = bob.wait_for_call(60)
        show(incoming, answer.ringing(incoming), answer.accept(incoming), call.wait_for_answer(60))
        for frame in call.listen(timeout=60):
            break
        call.send_data(b"hello")
        show(call.room, call._core._driver.ticket, call._core, answer, alice.get_call(incoming), alice.calls())
        fails(call.start, "carol")
        fails(answer.accept, "call_" + "0" * 24)
        show(call.end(), answer.wait_until_ended(60))
        fails(answer.accept, incoming)
        show(call, answer, alice.sessions)

with client("0" * 32) as wrong:
    fails(wrong.authenticate, "alice")
    fails(wrong.join_live_stream, "alice", "show")
    fails(wrong.join_audio_room, "alice", "lobby")

told = (signals.seats_changed, signals.stage_changed, signals.banned, signals.chat_received, signals.role_changed,
        signals.connection_changed, signals.invited, signals.broadcast_changed)

def on_room(session, **what):
    show(session, what)

for signal in told:
    signal.connect(on_room)

with client() as hosts, client() as guests:
    for join, room in (("join_live_stream", "show"), ("join_audio_room", "lobby")):
        host = getattr(hosts, join)("host", room, True, microphone=Tone(440))
        vera = getattr(guests, join)("vera", room, microphone=Tone(660))
        for session in (host, vera):
            engine_room = session._core._engine_room
            wanted["bearers"].append(engine_room._credentials.bearer)
            show(session, engine_room, engine_room._credentials, session.room, session._core._connection)
        with open(given["wanted"], "w") as file:
            json.dump(wanted, file)
        if room == "show":
            host.go_live()
            vera.request_stage()
            host.hands.wait_for(lambda hands: hands, timeout=60)
            host.invite_to_stage("vera")
            vera.can_publish.wait_for(True, timeout=60)
            vera.set_microphone(True)
            show(host.stage.value, host.hands.value, host.refresh_stage(), vera.remote_participants.value)
            fails(vera.go_live)
            fails(guests.join_audio_room, "vera", "show")
            host.end_live()
            fails(vera.request_stage)
        else:
            show(host.setup_seats(4, "request"), host.get_seats(), host.get_seats().raw)
            host.take_seat(0)
            vera.seats.wait_for(lambda grid: grid.count == 4, timeout=60)
            show(vera.request_to_speak())
            fails(vera.take_seat, 1)
            fails(host.approve_speaker, 77)
            show(host.approve_speaker(host.pending_requests.wait_for(lambda some: some, timeout=60)[0]))
        vera.send_chat("hello")
        show(host.promote("vera"), host.roles.value, host.lock_chat())
        fails(host.unban, "nobody")
        host.kick("vera")
        vera.connection.wait_for("force_exit", timeout=60)
        vera.join()
        show(host.ban("vera", reason="noise"), host.bans())
        vera.connection.wait_for("force_exit", timeout=60)
        fails(vera.seats.wait_for if room == "lobby" else vera.stage.wait_for, 5)
        fails(vera.join)
        fails(getattr(guests, join), "vera", room)
        show(hosts.sessions, guests.sessions, host, vera)
        host.leave()
        host.dispose()
        fails(host.join)

def token(identity, secret=given["livekit_secret"], seconds=600):
    made = api.AccessToken(given["livekit_key"], secret).with_identity(identity)
    made = made.with_ttl(datetime.timedelta(seconds=seconds))
    made = made.with_grants(api.VideoGrants(room_join=True, room="secrets"))
    return made.with_room_config(api.RoomConfiguration(max_participants=1)).to_jwt()

for bad in (token("one", secret="x" * 40), token("one", seconds=-3600), token("one")[:-3] + "abc"):
    with UTDRoom() as room:
        fails(room.connect, given["livekit_url"], bad)
        show(room)
with UTDRoom() as one, UTDRoom() as two:
    one.connect(given["livekit_url"], token("one"))
    one.set_microphone(True)
    show(one, one.room)
    fails(two.connect, given["livekit_url"], token("two"))
    fails(two.connect, "ws://127.0.0.1:9", token("two"))
signals.drain(60)
print("the whole run was done")
"""


def start(command: list[str], log: Any, **environment: str) -> subprocess.Popen[bytes]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


@pytest.fixture
def port() -> int:
    """Where the engine will be."""
    return free_port()


@pytest.fixture
def server(media: str, port: int) -> Iterator[MediaProcess]:
    """A media server of this test's own, so that its key is known and no other engine looks after its rooms."""
    made = MediaProcess(media, webhook_url=f"http://127.0.0.1:{port}{wire.PREFIX}{wire.MEDIA_WEBHOOK}")
    made.start()
    yield made
    made.stop()


def test_no_secret_in_anything_a_whole_run_writes(server: MediaProcess, port: int, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.json"
    known = {
        "app_key": secrets.token_hex(16),
        "app_secret": secrets.token_hex(16),
        "webhook_secret": secrets.token_hex(16),
        "livekit_secret": server.secret,
    }
    given = {
        "app_id": "1234567890",
        "app_key": known["app_key"],
        "base_url": f"http://127.0.0.1:{port}",
        "livekit_url": server.url,
        "livekit_key": server.key,
        "livekit_secret": server.secret,
        "wanted": str(wanted),
    }
    with (tmp_path / "engine.log").open("wb") as engine_log, (tmp_path / "parties.log").open("wb") as parties_log:
        engine = start(
            [UTD_FSM, "engine", "--port", str(port), "--media", server.url, "--log", "debug"],
            engine_log,
            LIVEKIT_API_KEY=server.key,
            LIVEKIT_API_SECRET=server.secret,
            UTD_ENGINE_APP_KEY=known["app_key"],
            UTD_ENGINE_APP_SECRET=known["app_secret"],
            UTD_ENGINE_WEBHOOK_URL=f"http://127.0.0.1:{free_port()}/hook",  # nobody is there: failures are logged too
            UTD_ENGINE_WEBHOOK_SECRET=known["webhook_secret"],
        )
        watchdog = threading.Timer(2 * WAIT, engine.kill)
        watchdog.start()
        try:
            parties = start(
                [sys.executable, "-c", "import time, urllib.request as u\n" + WAITS.format(port=port) + PARTIES],
                parties_log,
                GIVEN=json.dumps(given),
            )
            try:
                parties.wait(2 * WAIT)
            finally:
                parties.kill()
                parties.wait()
            engine.terminate()
            engine.wait(WAIT)
        finally:
            watchdog.cancel()
            engine.kill()
            engine.wait()
    told = (tmp_path / "engine.log").read_text(errors="replace")
    shown = (tmp_path / "parties.log").read_text(errors="replace")
    assert parties.returncode == 0, shown[-3000:]
    assert "the whole run was done" in shown
    assert "DEBUG:utd_fsm" in shown
    # `utd-fsm engine` prints its publishable key once, on purpose: in the two lines that are there to be copied.
    banner = [line for line in told.splitlines() if re.match(r"(python|shell) ", line)]
    assert len(banner) == 2
    everything = "\n".join(line for line in (told + shown).splitlines() if line not in banner)
    for bearer in json.loads(wanted.read_text())["bearers"]:
        assert len(bearer) > 20
        assert bearer not in everything
    for name, secret in known.items():
        assert secret not in everything, name
    assert re.findall(r".{0,60}eyJ[\w-]{8}", everything) == []
    assert re.findall(r"(?i).{0,60}bearer [\w.-]{8,}", everything) == []


WAITS = """
for _ in range(600):
    try:
        u.urlopen("http://127.0.0.1:{port}/api/v1/health", timeout=5).close()
        break
    except OSError:
        time.sleep(0.1)
"""
