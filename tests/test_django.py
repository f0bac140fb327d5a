"""A Django project that calls, answers and hears webhooks, under real servers: as its users would run it.

The project is `tests.django_site`; docs/django.md shows it, word for word.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.django_servers import PATIENCE, ROOT, Server, environment, gunicorn, unused_port, wait_for
from tests.doc_blocks import blocks_of
from utd_fsm import UTDCall, UTDStreamClient, webhooks
from utd_fsm.testing import LocalEngine, local_engine

pytestmark = pytest.mark.media

SITE = ROOT / "tests" / "django_site"
SERVERS = {
    "sync": ["--worker-class", "sync"],
    "sync, preload": ["--worker-class", "sync", "--preload"],
    "gthread": ["--worker-class", "gthread", "--threads", "4"],
    "gthread, preload": ["--worker-class", "gthread", "--threads", "4", "--preload"],
}


@pytest.fixture(scope="module")
def hook_port() -> int:
    return unused_port()


@pytest.fixture(scope="module")
def engine(hook_port: int) -> Iterator[LocalEngine]:
    hook = f"http://127.0.0.1:{hook_port}/hooks/utd/"
    with local_engine(media="embedded", ring_timeout=30, webhook_url=hook) as running, ExitStack() as peers:
        for n in range(3):
            peers.enter_context(running.peer(f"bob{n}"))
        yield running


class Watcher:
    """Asks the engine what became of somebody's calls, as this somebody."""

    def __init__(self, engine: LocalEngine, stack: ExitStack) -> None:
        self._engine = engine
        self._stack = stack
        self._clients: dict[str, UTDStreamClient] = {}

    def of(self, identity: str) -> UTDStreamClient:
        if identity not in self._clients:
            client = self._clients[identity] = self._stack.enter_context(self._engine.client())
            client.authenticate(identity)
        return self._clients[identity]


@pytest.fixture(scope="module")
def watcher(engine: LocalEngine) -> Iterator[Watcher]:
    with ExitStack() as stack:
        yield Watcher(engine, stack)


@pytest.fixture(scope="module")
def database(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("django") / "site.sqlite3"
    command = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "-v", "0"]
    subprocess.run(command, cwd=ROOT, env=environment(engine, path), check=True, timeout=60)
    return path


@pytest.fixture(scope="module", params=list(SERVERS.values()), ids=list(SERVERS))
def site(request: pytest.FixtureRequest, engine: LocalEngine, database: Path) -> Iterator[Server]:
    """One gunicorn of each kind, with two workers; it ends in good order, and quickly."""
    with gunicorn(*request.param, engine=engine, database=database) as server:
        yield server
    assert "Traceback" not in server.output
    assert "SIGKILL" not in server.output
    assert "SIGABRT" not in server.output


class Waiting:
    """A request that is under way, and the call it has begun."""

    def __init__(self, site: Server, watcher: Watcher, caller: str, *, to: str, path: str = "/call/") -> None:
        self._client = watcher.of(caller)
        pool = ThreadPoolExecutor(1)
        self.answer = pool.submit(site.post, path, {"from": caller, "to": to})
        pool.shutdown(wait=False)
        wait_for(lambda: self.answer.done() or self._begun())
        assert not self.answer.done(), self.answer.result().text
        self.call = self._begun()[0]

    def _begun(self) -> tuple[UTDCall, ...]:
        return self._client.calls(status="initiating").calls

    def broke_off(self) -> bool:
        """Whether the request had no good end: newer gunicorns still answer 500, older ones close the connection."""
        try:
            return self.answer.result(PATIENCE).status_code == 500
        except requests.ConnectionError:
            return True

    def record(self) -> UTDCall:
        return self._client.get_call(self.call)


def over(call: Waiting) -> UTDCall:
    """The record, once the engine says that the call is over."""
    wait_for(lambda: call.record().status.is_terminal)
    return call.record()


# ------------------------------------------------------------------------------------------- gunicorn, four kinds of it


def test_a_view_starts_a_call_and_waits_for_the_answer(site: Server) -> None:
    answer = site.post("/call/", {"from": "alice", "to": "bob0"})
    assert (answer.status_code, answer.json()["status"]) == (200, "active"), answer.text
    assert answer.json()["end_reason"] == "caller_hangup"


def test_three_at_once_in_two_workers(site: Server) -> None:
    with ThreadPoolExecutor(3) as pool:
        asked = [{"from": f"caller{n}", "to": f"bob{n}"} for n in range(3)]
        answers = list(pool.map(lambda body: site.post("/call/", body), asked))
    assert [answer.json().get("status") for answer in answers] == ["active"] * 3, [answer.text for answer in answers]
    assert len({answer.json()["call_id"] for answer in answers}) == 3


def test_a_waiting_view_learns_that_another_request_ended_its_call(site: Server, watcher: Watcher) -> None:
    waiting = Waiting(site, watcher, "dora", to="nobody")
    listed = site.get("/calls/", of="dora")["calls"]
    assert [waiting.call.call_id, "initiating"] in listed
    ended = site.post(f"/calls/{waiting.call.call_id}/end/", {"as": "dora"}).json()
    assert (ended["status"], ended["end_reason"]) == ("ended", "caller_cancelled")
    answer = waiting.answer.result(PATIENCE).json()
    assert (answer["status"], answer["end_reason"]) == ("ended", "caller_cancelled")


def test_two_calls_of_one_identity_are_one_too_many(site: Server, watcher: Watcher) -> None:
    """The engine's rule, whether both views are in one worker, on one client, or not; the first call is not harmed."""
    waiting = Waiting(site, watcher, "finn", to="nobody")
    second = site.post("/call/", {"from": "finn", "to": "bob1"})
    assert (second.status_code, second.json()["error"]) == (409, "UTDConflictError"), second.text
    assert waiting.record().status == "initiating"
    assert not waiting.answer.done()
    site.post(f"/calls/{waiting.call.call_id}/end/", {"as": "finn"})
    assert waiting.answer.result(PATIENCE).status_code == 200


def test_receivers_write_to_the_database_on_the_signals_thread(site: Server) -> None:
    """Two calls, one after the other: the connection that the first one used is closed by then."""
    for _ in range(2):
        call_id = site.post("/call/", {"from": "gina", "to": "bob1"}).json()["call_id"]
        wait_for(partial(noted, site, call_id, "status", "ended"))
        found = of_kind(site, call_id, "status")
        assert {thread for _, thread in found} == {"utd-fsm-signals"}
        # A callee as quick as this one may have answered before the caller has heard of the ringing.
        assert [text for text, _ in found if text != "ringing"] == ["initiating", "active", "ended"]


def test_an_asynchronous_view_works_and_a_blocking_one_in_it_is_refused(site: Server) -> None:
    """Under WSGI, each request has an event loop of its own; the client is the same."""
    for _ in range(2):
        answer = site.post("/async/call/", {"from": "hugo", "to": "bob2"})
        assert (answer.status_code, answer.json()["status"]) == (200, "active"), answer.text
    refused = site.post("/async/call-and-block/", {"from": "hugo", "to": "bob2"})
    assert (refused.status_code, refused.json()["error"]) == (500, "UTDWouldBlockError")
    assert "utd_fsm.aio" in refused.json()["message"]


@pytest.mark.parametrize("kind", ["gthread", "gthread, preload"])
def test_a_view_that_moderates_a_room(kind: str, engine: LocalEngine, database: Path) -> None:
    """Three at once, in one worker: each in its turn. The banned one is put out, and the user who hosts is not."""
    room = f"lobby-{len(kind)}"
    with (
        gunicorn(*SERVERS[kind], engine=engine, database=database, workers=1) as site,
        engine.client() as one,
        engine.client() as two,
        one.join_audio_room("rosa", room, as_host=True, seat_count=2) as host,
        two.join_audio_room("sam", room) as guest,
    ):
        refused = site.post(f"/rooms/{room}/ban/", {"identity": "sam"})
        assert (refused.status_code, refused.json()["error"]) == (403, "UTDPermissionError"), refused.text
        host.promote("moderator")
        with ThreadPoolExecutor(3) as pool:
            asked = [{"identity": who, "reason": "spam", "seconds": 60} for who in ("sam", "tom", "uma")]
            answers = list(pool.map(lambda body: site.post(f"/rooms/{room}/ban/", body), asked))
        assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
        guest.connection.wait_for("force_exit", timeout=PATIENCE)
        assert {ban.identity for ban in host.bans().bans} == {"sam", "tom", "uma"}
        assert host.connection.value == "connected"


def test_bad_input_and_a_wrong_id_are_told_as_such(site: Server) -> None:
    assert site.post("/call/", {"from": "alice", "to": ""}).status_code == 400
    assert site.post("/calls/nonsense/end/", {"as": "alice"}).status_code == 400
    unknown = site.post(f"/calls/call_{'0' * 24}/end/", {"as": "alice"})
    assert (unknown.status_code, unknown.json()["error"]) == (502, "UTDEngineError")


def of_kind(site: Server, call_id: str, kind: str) -> list[list[str]]:
    """What was noted of a call: text and thread."""
    found = site.get("/notes/", call_id=call_id)["notes"]
    return [[text, thread] for known, text, thread in found if known == kind]


def noted(site: Server, call_id: str, kind: str, text: str) -> bool:
    return text in [one for one, _ in of_kind(site, call_id, kind)]


# ------------------------------------------------------------------------------------------------- the ends of a worker


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_worker_that_is_asked_to_stop_finishes_the_view_that_waits(
    kind: str, engine: LocalEngine, database: Path, watcher: Watcher
) -> None:
    with gunicorn(*SERVERS[kind], engine=engine, database=database, workers=1) as site:
        waiting = Waiting(site, watcher, "ida", to="late")
        site.process.send_signal(signal.SIGTERM)
        site.until("Handling signal: term")
        with engine.peer("late"):
            answer = waiting.answer.result(PATIENCE)
        assert answer.json()["status"] == "active"
        assert over(waiting).end_reason == "caller_hangup"
    assert "SIGKILL" not in site.output


def test_a_sync_worker_that_gunicorn_aborts_hangs_up(engine: LocalEngine, database: Path, watcher: Watcher) -> None:
    """The wait is longer than --timeout: the worker is lost, and the callee does not go on ringing."""
    with gunicorn(*SERVERS["sync"], engine=engine, database=database, workers=1, timeout=2) as site:
        before = site.get("/process/")["pid"]
        waiting = Waiting(site, watcher, "jana", to="nobody")
        assert over(waiting).end_reason == "caller_cancelled"
        assert waiting.broke_off()
        site.until_it_answers()
        assert site.get("/process/")["pid"] != before
        assert site.post("/call/", {"from": "jana", "to": "bob0"}).json()["status"] == "active"


def test_a_sync_worker_that_is_told_to_quit_hangs_up(engine: LocalEngine, database: Path, watcher: Watcher) -> None:
    with gunicorn(*SERVERS["sync"], engine=engine, database=database, workers=1) as site:
        waiting = Waiting(site, watcher, "karl", to="nobody")
        site.process.send_signal(signal.SIGQUIT)
        assert over(waiting).end_reason == "caller_cancelled"
        assert waiting.broke_off()


@pytest.mark.parametrize("kind", ["sync", "gthread, preload"])
def test_workers_that_serve_one_request_each(kind: str, engine: LocalEngine, database: Path) -> None:
    """--max-requests 1: no thread of the SDK holds up a worker's end."""
    with gunicorn(*SERVERS[kind], "--max-requests", "1", engine=engine, database=database, workers=1) as site:
        for _ in range(3):
            answer = site.post("/call/", {"from": "lena", "to": "bob2"})
            assert answer.json()["status"] == "active"
        wait_for(lambda: site.output.count("Booting worker") >= 4)
    assert "SIGKILL" not in site.output


@pytest.mark.parametrize("kind", ["sync, preload", "gthread, preload"])
def test_a_client_that_signed_in_before_the_workers_were_forked(kind: str, engine: LocalEngine, database: Path) -> None:
    with gunicorn(*SERVERS[kind], engine=engine, database=database, SITE_EAGER="mona") as site:
        for _ in range(4):
            answer = site.post("/call/", {"from": "mona", "to": "bob0"})
            assert (answer.status_code, answer.json()["status"]) == (200, "active"), answer.text
        with ThreadPoolExecutor(4) as pool:
            listed = list(pool.map(lambda _: site.get("/calls/", of="mona")["total"], range(8)))
        assert len(set(listed)) == 1
    assert "Traceback" not in site.output
    assert "DeprecationWarning" not in site.output


# ---------------------------------------------------------------------------------------- webhooks, the bot, other ways


def test_the_engine_tries_again_when_a_receiver_fails(engine: LocalEngine, database: Path, hook_port: int) -> None:
    port = ["--bind", f"127.0.0.1:{hook_port}"]
    with gunicorn(*SERVERS["gthread"], *port, engine=engine, database=database, SITE_FAIL_ONCE="call_accepted") as site:
        call_id = site.post("/call/", {"from": "nina", "to": "bob1"}).json()["call_id"]
        wait_for(partial(noted, site, call_id, "webhook", "call_accepted 2"))
        wait_for(partial(noted, site, call_id, "webhook", "call_ended 1"))
        assert not noted(site, call_id, "webhook", "call_accepted 1")
        assert noted(site, call_id, "webhook", "call_initiated 1")

        body = b'{"event": "call_ended", "call": {"call_id": "call_x"}}'
        signed = {"X-UTD-Stream-Signature": webhooks.sign(body, engine.webhook_secret or "")}
        hook = f"{site.url}/hooks/utd/"
        assert requests.post(hook, body, timeout=PATIENCE).status_code == 403
        assert requests.post(hook, body + b" ", headers=signed, timeout=PATIENCE).status_code == 403
        assert requests.post(hook, body, headers=signed, timeout=PATIENCE).status_code == 204
        no_event = b"{}"
        signed = {"X-UTD-Stream-Signature": webhooks.sign(no_event, engine.webhook_secret or "")}
        assert requests.post(hook, no_event, headers=signed, timeout=PATIENCE).status_code == 400
        assert requests.get(hook, timeout=PATIENCE).status_code == 405


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_management_command_answers_and_hangs_up_when_it_is_stopped(
    sig: signal.Signals, engine: LocalEngine, database: Path
) -> None:
    desk = f"desk-{sig.name}"
    bot = Server(["-m", "django", "answer_calls", desk], environment(engine, database))
    try:
        with engine.client() as client:
            client.authenticate("olga")
            for stopped in (False, True):
                with client.call_session("audio_call") as call:
                    call.start(desk)
                    assert call.wait_for_answer() == "active"
                    if stopped:
                        bot.process.send_signal(sig)
                        assert call.wait_until_ended(timeout=PATIENCE).end_reason == "callee_hangup"
        status = bot.stop(signal.SIGCONT)
        assert status == (0 if sig is signal.SIGTERM else -signal.SIGINT), bot.output
    finally:
        if bot.process.poll() is None:
            bot.kill()


def test_an_asynchronous_server(engine: LocalEngine, database: Path, watcher: Watcher) -> None:
    port = unused_port()
    command = ["-m", "uvicorn", "tests.django_site.asgi:application", "--port", str(port), "--lifespan", "off"]
    server = Server(command, environment(engine, database), port)
    try:
        server.until_it_answers()
        with ThreadPoolExecutor(3) as pool:
            asked = [{"from": f"async{n}", "to": f"bob{n}"} for n in range(3)]
            answers = list(pool.map(lambda body: server.post("/async/call/", body), asked))
        assert [answer.json().get("status") for answer in answers] == ["active"] * 3
        assert server.post("/call/", {"from": "paul", "to": "bob0"}).json()["status"] == "active"  # in a thread
        refused = server.post("/async/call-and-block/", {"from": "paul", "to": "bob0"})
        assert (refused.status_code, refused.json()["error"]) == (500, "UTDWouldBlockError")

        # The browser goes away: Django cancels the view, and that hangs up.
        with pytest.raises(requests.ReadTimeout):
            server.post("/async/call/", {"from": "quin", "to": "nobody"}, timeout=1.0)
        wait_for(lambda: watcher.of("quin").calls(status="ended").calls)
        assert watcher.of("quin").calls().calls[0].end_reason == "caller_cancelled"
        assert server.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.output, server.output
    finally:
        if server.process.poll() is None:
            server.kill()


def test_the_projects_own_tests_pass(engine: LocalEngine, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "django", "test", "tests.django_site"]
    env = environment(engine, tmp_path / "own.sqlite3")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


def test_the_development_server_with_its_reloader(engine: LocalEngine, database: Path) -> None:
    """Its requests run in threads beside the reloader's; Ctrl-C ends it, with a client signed in."""
    port = unused_port()
    command = ["-m", "django", "runserver", str(port), "-v", "0"]
    server = Server(command, environment(engine, database, SITE_EAGER="rosa"), port)
    try:
        server.until_it_answers()
        assert server.post("/call/", {"from": "rosa", "to": "bob0"}).json()["status"] == "active"
        assert "utd-fsm-loop" in server.get("/process/")["threads"]
        pid = server.get("/process/")["pid"]
        assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        if server.process.poll() is None:
            server.kill()


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_shows_the_project_as_it_is() -> None:
    shown = [
        block
        for block in blocks_of(ROOT / "docs" / "django.md")
        if block.language == "python" and block.not_run is None
    ]
    assert len(shown) >= 8
    for block in shown:
        name, _, code = block.code.partition("\n")
        file = re.fullmatch(r"# (\S+\.py)", name)
        assert file, f"{block}: begins with the name of its file"
        assert code.strip() in (SITE / file[1]).read_text(encoding="utf-8"), f"{block} differs from {file[1]}"
