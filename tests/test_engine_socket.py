"""The engine's socket against a real WebSocket server: it comes back, signs in again, survives what it is sent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from tests.engine_answers import BEARER, CALL_ID, record
from utd_fsm.credentials import Credentials
from utd_fsm.engine_socket import EngineSocket, SocketState
from utd_fsm.models import UTDCall, UTDSessionInfo
from utd_fsm.portal import portal

WAIT = 20.0


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    lease = portal().hold()
    yield
    lease.release()


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    portal().call(test, timeout=60, what="the test")


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that other tasks of this loop bring about."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.005)


class Engine:
    """The other side: keeps what it was sent, and does what the test says with each connection."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.tokens: list[Any] = []
        self.calls: list[Any] = []
        self.accept: Callable[[Any], bool] = lambda token: True
        self.first: list[Any] = []
        """Sent before ``ready``."""
        self.silent = False
        self.url = ""

    async def __call__(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        frame = json.loads(await connection.recv())
        assert frame["event"] == "auth"
        self.tokens.append(frame["data"]["token"])
        if not self.accept(frame["data"]["token"]):
            await connection.close(4401, "who are you")
            return
        for first in self.first:
            await connection.send(first)
        if not self.silent:
            await self.send({"event": "ready", "data": {"calls": self.calls}, "seq": 1})
        await connection.wait_closed()

    async def send(self, frame: Any) -> None:
        await self.connections[-1].send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    async def call(self, seq: int | None = None, **fields: Any) -> None:
        await self.send({"event": "call", "data": record(**fields), "seq": seq})


class Heard:
    """What a socket passed on."""

    def __init__(self) -> None:
        self.calls: list[UTDCall] = []
        self.states: list[SocketState] = []
        self.looks: list[str] = []


@asynccontextmanager
async def both(
    *, ws_url: str | None = "", mint: Callable[[], UTDSessionInfo] | None = None, **options: Any
) -> AsyncIterator[tuple[Engine, EngineSocket, Heard]]:
    """An engine, a socket that is ready on it, and what it heard."""
    engine = Engine()
    async with serve(engine, "127.0.0.1", 0, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        engine.url = f"ws://127.0.0.1:{port}/socket"

        def renewed(budget: float | None) -> UTDSessionInfo:
            return mint() if mint else UTDSessionInfo(BEARER, ws_url=engine.url)

        info = UTDSessionInfo(BEARER, ws_url=engine.url if ws_url == "" else ws_url)
        cred = Credentials("alice", name=None, device_id="phone", info=info, mint=renewed)
        heard = Heard()
        socket = EngineSocket(
            portal(),
            cred,
            heard.calls.append,
            heard.states.append,
            on_resync=heard.looks.append,
            **{"backoff": (0.01, 0.1), **options},
        )
        socket.start()
        try:
            yield engine, socket, heard
        finally:
            await socket.stop()
    assert socket.state is SocketState.OFF


def test_it_signs_in_and_passes_on_the_snapshot_and_every_frame() -> None:
    async def test() -> None:
        async with both() as (engine, socket, heard):
            await until(lambda: socket.state is SocketState.READY)
            assert engine.tokens == [BEARER]
            await engine.call(2, status="ringing", version=2)
            await engine.send({"event": "presence", "data": {"identity": "bob", "online": True}, "seq": 3})
            await engine.send({"event": "something new", "data": 7, "seq": 4})
            await engine.call(5, status="active", version=3)
            await until(lambda: len(heard.calls) == 2)
            assert [call.status for call in heard.calls] == ["ringing", "active"]
            assert heard.states == [SocketState.CONNECTING, SocketState.READY]
            assert heard.looks == []
            assert socket.malformed == 0

    on_loop(test)


def test_the_snapshot_comes_before_ready_is_told() -> None:
    async def test() -> None:
        async with both() as (engine, socket, heard):
            engine.calls = [record(), "no record", record(call_id="call_" + "f" * 24)]
            await until(lambda: heard.states[-1:] == [SocketState.READY])
            assert [call.call_id for call in heard.calls] == [CALL_ID, "call_" + "f" * 24]
            assert socket.malformed == 1

    on_loop(test)


def test_it_comes_back_with_a_fresh_snapshot() -> None:
    async def test() -> None:
        async with both() as (engine, socket, heard):
            await until(lambda: socket.connections == 1)
            engine.calls = [record("active", version=3)]
            engine.connections[-1].transport.abort()
            await until(lambda: socket.connections == 2)
            await engine.connections[-1].close(1012)
            await until(lambda: socket.connections == 3)
            assert [call.version for call in heard.calls] == [3, 3]
            assert engine.tokens == [BEARER] * 3
            assert heard.states[:5] == ["connecting", "ready", "waiting", "connecting", "ready"]

    on_loop(test)


def test_an_engine_that_is_away_for_a_while() -> None:
    async def test() -> None:
        async with both() as (engine, socket, _):
            await until(lambda: socket.connections == 1)
            port = int(engine.url.split(":")[2].split("/")[0])
            engine.connections[-1].transport.abort()
            # The listening socket of the first server is still there; what counts is a connection that breaks at once.
            engine.accept = lambda token: False
            await until(lambda: len(engine.tokens) > 3)
            engine.accept = lambda token: True
            await until(lambda: socket.connections == 2)
            assert port

    on_loop(test)


def test_a_refused_bearer_is_renewed_once_and_then_waited_with() -> None:
    minted: list[str] = []

    async def test() -> None:
        def mint() -> UTDSessionInfo:
            minted.append(f"bearer-{len(minted) + 2}")
            return UTDSessionInfo(minted[-1], ws_url=engines[0].url)

        engines: list[Engine] = []
        async with both(mint=mint) as (engine, socket, _):
            engines.append(engine)
            await until(lambda: socket.connections == 1)
            engine.accept = lambda token: token == "bearer-2"
            await engine.connections[-1].close(4401, "expired")
            await until(lambda: socket.connections == 2)
            assert engine.tokens[-1] == "bearer-2"
            assert minted == ["bearer-2"]
            engine.accept = lambda token: False
            await engine.connections[-1].close(1008)
            await until(lambda: len(engine.tokens) >= 7)
            # Refused again with a fresh one: it goes on trying, and does not mint each time.
            assert minted == ["bearer-2", "bearer-3"]

    on_loop(test)


def test_two_missed_pings_cut_the_connection() -> None:
    async def test() -> None:
        async with both(ping_interval=0.1) as (engine, socket, _):
            await until(lambda: socket.connections == 1)
            await asyncio.sleep(0.5)
            assert socket.connections == 1  # answered pings keep it
            first = engine.connections[0]
            first.transport.pause_reading()  # it hears no ping any more, and says nothing
            await until(lambda: socket.connections == 2)
            first.transport.abort()

    on_loop(test)


def test_an_engine_that_never_says_ready() -> None:
    async def test() -> None:
        async with both(open_timeout=0.3) as (engine, socket, _):
            await until(lambda: socket.connections == 1)

            tokens = len(engine.tokens)
            engine.first, engine.silent = [json.dumps({"event": "ready?"})], True
            engine.connections[-1].transport.abort()
            await until(lambda: len(engine.tokens) >= tokens + 2)
            engine.silent = False
            await until(lambda: socket.connections == 2)

    on_loop(test)


def test_a_gap_asks_for_a_look() -> None:
    async def test() -> None:
        async with both() as (engine, socket, heard):
            await until(lambda: socket.connections == 1)
            await engine.call(2)
            await engine.call(5, version=4)
            await engine.call(4, version=3)  # late: no gap
            await engine.call(6, version=5)
            await until(lambda: len(heard.calls) == 4)
            assert heard.looks == ["2 frames were missed"]

    on_loop(test)


MALFORMED = [
    "", "{", "[]", "7", "null", b"\x00\xff", b'{"event":"call"}', "[" * 50_000, '{"data":{}}', '{"event":7}',
    '{"event":""}', '{"event":"call","seq":"x","data":{}}', '{"event":"call"}', '{"event":"call","data":[]}',
    json.dumps({"event": "call", "data": record("gone")}),
    json.dumps({"event": "call", "data": {**record(), "version": "2"}}),
    json.dumps({"event": "call", "data": {**record(), "caller_identity": ""}}),
]  # fmt: skip


def test_malformed_frames_are_counted_and_dropped_and_a_look_is_asked_for() -> None:
    async def test() -> None:
        async with both() as (engine, socket, heard):
            await until(lambda: socket.connections == 1)
            for frame in MALFORMED:
                await engine.send(frame)
            await engine.call(2)
            await until(lambda: heard.calls)
            assert socket.malformed == len(MALFORMED)
            assert len(heard.looks) == len(MALFORMED)
            assert len(heard.calls) == 1
            assert socket.connections == 1

    on_loop(test)


def test_a_frame_of_over_a_megabyte_costs_the_connection_and_nothing_else() -> None:
    async def test() -> None:
        async with both() as (engine, socket, heard):
            await until(lambda: socket.connections == 1)
            await engine.send("x" * ((1 << 20) + 10))
            await until(lambda: socket.connections == 2)
            await engine.call(2)
            await until(lambda: heard.calls)

    on_loop(test)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
FRAMES = st.text(max_size=20) | st.binary(max_size=20) | JSON.map(json.dumps) | st.builds(
    lambda event, data, seq: json.dumps({"event": event, "data": data, "seq": seq}),
    st.sampled_from(["call", "ready", "presence", "auth", "x"]),
    JSON | st.fixed_dictionaries({name: JSON | st.just(value) for name, value in record().items()}),
    JSON,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(frame=FRAMES)
def test_no_frame_raises(frame: str | bytes) -> None:
    heard = Heard()
    cred = Credentials(
        "alice", name=None, device_id="phone", info=UTDSessionInfo(BEARER), mint=lambda budget: UTDSessionInfo(BEARER)
    )
    socket = EngineSocket(portal(), cred, heard.calls.append, on_resync=heard.looks.append)
    socket._take(frame)
    assert socket.malformed == len([look for look in heard.looks if look == "a malformed frame"])


def test_a_listener_that_raises_does_not_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        def fail(call: UTDCall) -> None:
            raise RuntimeError("a receiver's own trouble")

        async with both() as (engine, socket, heard):
            await until(lambda: socket.connections == 1)
            socket._on_call = fail
            await engine.call(2)
            await until(lambda: "own trouble" in caplog.text)
            socket._on_call = heard.calls.append
            await engine.call(3)
            await until(lambda: heard.calls)
            assert socket.connections == 1

    on_loop(test)


@pytest.mark.parametrize("ws_url", [None, "ws://engine.example.com/socket", "https://127.0.0.1/", "wss://u:p@x/"])
def test_a_url_that_may_not_be_used_is_not(ws_url: str | None) -> None:
    async def test() -> None:
        async with both(ws_url=ws_url) as (engine, socket, _):
            await until(lambda: socket.state is SocketState.UNUSABLE)
            assert not socket.running
            assert engine.connections == []

    on_loop(test)


def test_a_redirect_is_not_followed() -> None:
    async def test() -> None:
        elsewhere = Engine()
        async with serve(elsewhere, "127.0.0.1", 0) as other:
            away = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/"

            def redirect(connection: ServerConnection, request: Any) -> Any:
                asked.append(request)
                answer = connection.respond(302, "")
                answer.headers["Location"] = away
                return answer

            asked: list[Any] = []
            async with serve(Engine(), "127.0.0.1", 0, process_request=redirect) as server:
                url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
                info = UTDSessionInfo(BEARER, ws_url=url)
                cred = Credentials("alice", name=None, device_id="phone", info=info, mint=lambda budget: info)
                socket = EngineSocket(portal(), cred, print, backoff=(0.01, 0.02))
                socket.start()
                await until(lambda: len(asked) >= 3)
                await socket.stop()
        assert elsewhere.connections == []

    on_loop(test)


def test_stopping_is_bounded_even_if_the_other_side_says_nothing() -> None:
    async def test() -> None:
        async with both() as (engine, socket, _):
            await until(lambda: socket.connections == 1)
            engine.connections[0].transport.pause_reading()
            started = asyncio.get_running_loop().time()
            await socket.stop()
            await socket.stop()
            assert asyncio.get_running_loop().time() - started < 8
            assert not socket.running
            engine.connections[0].transport.abort()

    on_loop(test)


def test_the_bearer_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test() -> None:
        async with both() as (engine, socket, _):
            await until(lambda: socket.connections == 1)
            await engine.call(2)
            engine.connections[-1].transport.abort()
            await until(lambda: socket.connections == 2)
            assert BEARER not in repr(socket)

    on_loop(test)
    ours = [record for record in caplog.records if record.name.startswith("utd_fsm")]
    assert ours
    # The server of this test logs what it receives; the client must not log what it sends.
    # The library cuts long frames in their middle: the beginning of a token counts as well.
    assert not [record for record in ours if BEARER[:8] in record.getMessage()]
