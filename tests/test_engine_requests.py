"""One request until it is decided: what is tried again, what a 401 means, and whether the outcome is known."""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest

from tests.engine_answers import APP_KEY, BEARER, CALL_ID, KEY, TICKET, api_for, engine, record, session
from tests.http_stub import Reply, Seen, http_stub
from utd_fsm import http_pool
from utd_fsm.engine_api import Credentials, EngineApi
from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDInputError,
    UTDProtocolError,
    UTDStreamException,
    UTDTimeoutError,
)

CREATED = Reply(201, json={**record(), **TICKET})


def script(*replies: Reply) -> Callable[[Seen], Reply]:
    """One reply after another; the last one for ever."""
    left = list(replies)

    def answer(_: Seen) -> Reply:
        return left.pop(0) if len(left) > 1 else left[0]

    return engine(answer)


@contextmanager
def client(*replies: Reply, **options: Any) -> Iterator[tuple[EngineApi, Credentials, list[Seen]]]:
    """A signed-in client of an engine that replies so."""
    with http_stub(script(*replies)) as stub:
        api = api_for(stub.url, **options)
        cred = api.authenticate("alice")
        stub.seen.clear()
        yield api, cred, stub.seen
        api.close()


def create(api: EngineApi, cred: Credentials, **options: Any) -> Any:
    return api.create_call(cred, "bob", "audio_call", key=KEY, **options)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.mark.parametrize(
    "bad",
    [
        Reply(502),
        Reply(503, json={"message": "starting"}),
        Reply(504),
        Reply(429, json={"message": "too many"}, headers={"Retry-After": "0"}),
        Reply(reset=True),
        Reply(length=1000, json={"call_id": CALL_ID}),
        Reply(raw=b""),
    ],
)
@pytest.mark.parametrize("verb", ["get", "post"])
def test_what_may_do_better_is_tried_again_with_the_same_key(bad: Reply, verb: str) -> None:
    good = Reply(json=record()) if verb == "get" else CREATED
    with client(bad, bad, good) as (api, cred, seen):
        call = api.call(cred, CALL_ID) if verb == "get" else create(api, cred).call
        assert call.call_id == CALL_ID
        assert len(seen) == 3
        assert {request.headers.get("idempotency-key") for request in seen} == {None if verb == "get" else KEY}


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500, 501])
def test_a_refusal_is_final(status: int) -> None:
    with client(Reply(status, json={"message": "no"}), CREATED) as (api, cred, seen):
        with pytest.raises(UTDEngineError):
            create(api, cred)
        assert len(seen) == 1


def test_it_gives_up_after_a_few_tries() -> None:
    with client(Reply(503, json={"message": "starting"})) as (api, cred, seen):
        with pytest.raises(UTDEngineError, match="starting") as caught:
            api.call(cred, CALL_ID)
        assert len(seen) == 5
    assert caught.value.status_code == 503


def test_retry_after_is_a_lower_bound() -> None:
    too_many = Reply(429, json={"message": "too many"}, headers={"Retry-After": "1"})
    with client(too_many, CREATED) as (api, cred, seen):
        started = time.monotonic()
        create(api, cred)
        assert time.monotonic() - started >= 1
        assert len(seen) == 2


@pytest.mark.parametrize("spelling", ["seconds", "date"])
def test_a_retry_after_that_does_not_fit_is_told_at_once(spelling: str) -> None:
    wait = "60" if spelling == "seconds" else formatdate(time.time() + 60, usegmt=True)
    with client(Reply(429, json={"message": "too many"}, headers={"Retry-After": wait})) as (api, cred, seen):
        with pytest.raises(UTDEngineError) as caught:
            create(api, cred, deadline=20)
        assert len(seen) == 1
    assert caught.value.is_rate_limited
    assert caught.value.retry_after == pytest.approx(60, abs=20)


def test_a_long_pause_is_the_callers_to_make() -> None:
    with client(Reply(429, json={"message": "too many"}, headers={"Retry-After": "6"})) as (api, cred, seen):
        with pytest.raises(UTDEngineError) as caught:
            create(api, cred, deadline=3600)
        assert len(seen) == 1
    assert caught.value.retry_after == 6


@pytest.mark.parametrize("wait", ["-5", "nan", "inf", "soon", "", "9" * 400])
def test_a_retry_after_that_says_nothing_is_none(wait: str) -> None:
    too_many = Reply(429, json={"message": "too many"}, headers={"Retry-After": wait})
    with client(too_many) as (api, cred, _), pytest.raises(UTDEngineError) as caught:
        create(api, cred, deadline=0.2)
    assert caught.value.retry_after is None


def test_nobody_there() -> None:
    api = api_for(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UTDConnectionError, match=r"POST /auth/session .*refused.*nothing was sent") as caught:
        api.authenticate("alice", deadline=1)
    assert caught.value.outcome_known


def test_an_engine_that_comes_back_in_time() -> None:
    port = free_port()
    held: list[socket.socket] = []

    def come_back() -> None:
        server = socket.create_server(("127.0.0.1", port))
        held.append(server)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"user_token":"abc"}')

    timer = threading.Timer(0.4, come_back)
    timer.start()
    assert api_for(f"http://127.0.0.1:{port}").authenticate("alice").bearer == "abc"
    timer.join()
    held[0].close()


@pytest.mark.parametrize("lost", [Reply(reset=True), Reply(raw=b""), Reply(length=1000, json={"call_id": CALL_ID})])
def test_a_lost_answer_leaves_the_outcome_unknown(lost: Reply) -> None:
    with client(lost) as (api, cred, _):
        with pytest.raises(UTDConnectionError, match="may have applied it") as caught:
            create(api, cred, deadline=1)
        assert not caught.value.outcome_known
        with pytest.raises(UTDConnectionError) as looked:
            api.call(cred, CALL_ID, deadline=1)
        assert looked.value.outcome_known  # a look changes nothing


def test_an_engine_that_does_not_answer() -> None:
    with client(Reply(gate=threading.Event()), read_timeout=0.2) as (api, cred, _):
        with pytest.raises(UTDTimeoutError) as caught:
            create(api, cred, deadline=1)
        assert not caught.value.outcome_known
        with pytest.raises(UTDTimeoutError) as looked:
            api.call(cred, CALL_ID, deadline=1)
        assert looked.value.outcome_known


def test_the_deadline_cuts_the_read_timeout_short() -> None:
    with client(Reply(gate=threading.Event())) as (api, cred, seen):
        started = time.monotonic()
        with pytest.raises(UTDTimeoutError):
            create(api, cred, deadline=0.3)
        assert time.monotonic() - started < 6  # and not the 8 s of a read
        assert len(seen) == 1
        with pytest.raises(UTDTimeoutError, match="no time was left") as caught:
            create(api, cred, deadline=0)
        assert caught.value.outcome_known
        assert len(seen) == 1


def test_a_body_that_trickles_is_cut_off() -> None:
    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(2000):
                try:
                    connection.sendall(b"[")
                except OSError:
                    return
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        api = api_for(f"http://127.0.0.1:{server.getsockname()[1]}", connect_timeout=0.2, read_timeout=0.2)
        with pytest.raises(UTDTimeoutError):
            api.authenticate("alice", deadline=0.2)
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("later", [Reply(429, json={"message": "too many"}), Reply(503, json={"message": "away"})])
def test_once_lost_the_outcome_stays_unknown(later: Reply) -> None:
    with client(Reply(reset=True), later) as (api, cred, seen):
        with pytest.raises(UTDStreamException) as caught:
            create(api, cred, deadline=2)
        assert len(seen) > 1
    if later.status == 429:
        # A 429 to a repeat does not say what became of the first.
        assert isinstance(caught.value, UTDConnectionError)
        assert not caught.value.outcome_known
        assert caught.value.is_rate_limited
    else:
        assert caught.value.status_code == 503


def test_once_lost_and_then_gone_is_unknown() -> None:
    with http_stub(engine(Reply(reset=True))) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")

        def go_away(seen: Seen) -> Reply:
            stub._server.socket.close()
            return Reply(reset=True)

        stub.answer = go_away
        with pytest.raises(UTDConnectionError) as caught:
            create(api, cred, deadline=2)
    assert not caught.value.outcome_known


# --- redirects, garbage, sizes


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_bearer_stays_here(status: int) -> None:
    with http_stub(Reply(json=record())) as elsewhere:
        moved = Reply(status, headers={"Location": f"{elsewhere.url}/api/v1/calls/{CALL_ID}"})
        with client(moved) as (api, cred, seen):
            for ask in (lambda: api.call(cred, CALL_ID), lambda: create(api, cred)):
                with pytest.raises(UTDProtocolError, match="redirect") as caught:
                    ask()
                assert caught.value.field == "Location"
            assert len(seen) == 2
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"{", b"nul", b'"\\ud800"', b"NaN", b'{"a": Infinity}', b"[" * 100_000, b"\xff\xfe", b"9" * 10_000],
)
def test_garbage_names_the_route(body: bytes) -> None:
    with client(Reply(body=body)) as (api, cred, seen):
        with pytest.raises(UTDProtocolError) as caught:
            create(api, cred)
        assert caught.value.route == "POST /calls"
        assert caught.value.field == "body"
        assert len(seen) == 1


def test_an_answer_of_a_senseless_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "MAX_BODY", 1000)
    with client(Reply(body=b" " * 5000)) as (api, cred, _):
        with pytest.raises(UTDProtocolError, match="more than 1000 bytes") as caught:
            create(api, cred)
        assert caught.value.field == "body"


def test_a_body_that_is_not_packed_as_it_says() -> None:
    garbled = Reply(body=b"not gzip", headers={"Content-Encoding": "gzip"})
    with client(garbled) as (api, cred, _), pytest.raises(UTDProtocolError, match="packed"):
        create(api, cred)


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\0" * 999],
)
def test_what_is_no_http(raw: bytes) -> None:
    told = (UTDConnectionError, UTDProtocolError, UTDTimeoutError)
    with client(Reply(raw=raw)) as (api, cred, _), pytest.raises(told):
        create(api, cred, deadline=1)


# --- the bearer


def engine_that_forgot(calls_before: int = 0) -> Callable[[Seen], Reply]:
    """Mints bearer-1, bearer-2, …, and takes only the newest after it forgot the first."""
    minted: list[str] = []
    lock = threading.Lock()

    def answer(seen: Seen) -> Reply:
        with lock:
            if seen.path.endswith("/auth/session"):
                minted.append(f"bearer-{len(minted) + 1}")
                return Reply(json=session(minted[-1]))
            good = len(minted) > 1 and seen.headers.get("authorization") == f"Bearer {minted[-1]}"
        return Reply(json=record()) if good else Reply(401, json={"message": "expired"})

    return answer


@pytest.mark.parametrize("bearer", ["top-secret\nX-Other: 1", "top secret", " top-secret", "top-sécret"])
def test_a_bearer_that_cannot_stand_in_a_header_is_refused_and_not_repeated(bearer: str) -> None:
    with http_stub(lambda _: Reply(json=session(bearer))) as stub:
        api = api_for(stub.url)
        with pytest.raises(UTDProtocolError) as caught:
            api.authenticate("alice")
        api.close()
    assert caught.value.field == "user_token"
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_headers_that_cannot_be_sent_are_a_failure_and_not_repeated() -> None:
    pool = http_pool.HttpPool()
    result = pool.send("GET", "http://127.0.0.1:1/", headers={"Authorization": "Bearer top\nsecret"})
    assert isinstance(result, http_pool.Failure)
    assert (result.sent, result.again) == (False, False)
    assert "secret" not in result.what


def test_a_refused_bearer_is_minted_again_once() -> None:
    with http_stub(engine_that_forgot()) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice", name="Alice", device_id="phone")
        assert api.call(cred, CALL_ID).call_id == CALL_ID
        assert stub.paths() == [
            "POST /auth/session", f"GET /calls/{CALL_ID}", "POST /auth/session", f"GET /calls/{CALL_ID}",
        ]  # fmt: skip
        assert stub.seen[0].body == stub.seen[2].body  # the same person on the same device
        assert cred.bearer == "bearer-2"


def test_eight_threads_mint_once() -> None:
    with http_stub(engine_that_forgot()) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        barrier = threading.Barrier(8)
        results: list[str] = []

        def ask() -> None:
            barrier.wait(30)
            results.append(api.call(cred, CALL_ID).call_id)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [CALL_ID] * 8
        assert stub.paths().count("POST /auth/session") == 2


def test_a_bearer_that_is_refused_again_is_a_refusal() -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(json=session()) if "auth" in seen.path else Reply(401, json={"message": "who are you"})

    with http_stub(answer) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        with pytest.raises(UTDEngineError, match="who are you") as caught:
            api.call(cred, CALL_ID)
        assert stub.paths().count("POST /auth/session") == 2
    assert caught.value.status_code == 401


def test_one_request_mints_once_however_often_it_is_tried() -> None:
    replies = [Reply(401), Reply(503), Reply(401, json={"message": "who are you"})]

    def answer(seen: Seen) -> Reply:
        return Reply(json=session(f"bearer-{len(stub.seen)}")) if "auth" in seen.path else replies.pop(0)

    with http_stub(answer) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        with pytest.raises(UTDEngineError, match="who are you"):
            api.call(cred, CALL_ID)
        assert stub.paths().count("POST /auth/session") == 2


def test_a_renewal_that_fails_is_what_is_told() -> None:
    def answer(seen: Seen) -> Reply:
        if "auth" in seen.path and len(stub.seen) == 1:
            return Reply(json=session())
        return Reply(403, json={"message": "suspended"}) if "auth" in seen.path else Reply(401)

    with http_stub(answer) as stub:
        api = api_for(stub.url)
        cred = api.authenticate("alice")
        with pytest.raises(UTDEngineError, match="suspended"):
            create(api, cred)
        assert cred.bearer == BEARER


def test_a_renewal_that_another_thread_does_not_finish() -> None:
    with client(Reply(401)) as (api, cred, _), cred._lock:
        with pytest.raises(UTDTimeoutError, match="renewed") as caught:
            create(api, cred, deadline=0.3)
        assert caught.value.outcome_known


# --- closing, secrets


def test_closing_ends_a_wait() -> None:
    with client(Reply(503, headers={"Retry-After": "20"})) as (api, cred, seen):
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                create(api, cred)
            except UTDStreamException as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not seen:
            time.sleep(0.01)
        api.close()
        api.close()
        thread.join(15)
        assert not thread.is_alive()
        assert isinstance(errors[0], UTDClosedError)
        with pytest.raises(UTDClosedError):
            create(api, cred)


@pytest.mark.parametrize(
    "bad", [Reply(reset=True), Reply(401), Reply(500), Reply(302), Reply(body=b"<"), Reply(gate=threading.Event())]
)
def test_no_secret_in_what_is_raised_logged_or_shown(bad: Reply, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with client(bad, read_timeout=0.3) as (api, cred, _):
        with pytest.raises(UTDStreamException) as caught:
            create(api, cred, deadline=1)
        error = caught.value
        shown = [repr(api), repr(cred), repr(api._requests), repr(cred.info), str(error), repr(error), caplog.text]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "/utd_fsm/" in frame.f_code.co_filename:
                shown += [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
    assert error.__cause__ is None
    assert error.__context__ is None
    for text in shown:
        assert BEARER not in text
        assert APP_KEY not in text


def test_credentials_are_not_pickled() -> None:
    import pickle

    with client(CREATED) as (_, cred, _), pytest.raises(UTDInputError):
        pickle.dumps(cred)


def test_threads_share_a_pool() -> None:
    with client(Reply(json=record())) as (api, cred, seen):
        results: list[str] = []

        def work() -> None:
            results.extend(api.call(cred, CALL_ID).call_id for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [CALL_ID] * 160
        assert len(seen) == 160


def test_proxies_and_netrc_of_the_environment_do_not_count_on_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login root password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with client(Reply(json=record())) as (api, cred, seen):
        api.call(cred, CALL_ID)
        assert seen[0].headers["authorization"] == f"Bearer {BEARER}"
