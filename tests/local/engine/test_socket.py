"""The engine socket: nothing before auth, a snapshot, then every change, and no way to break it with bad frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from utd_fsm import wire
from utd_fsm.local.engine import socket as engine_socket
from utd_fsm.local.engine.socket import _Connection

from .support import Site, User, running

WAIT = 60


@contextmanager
def opened(user: User, *, auth: bool = True) -> Iterator[ClientConnection]:
    with connect(user.ws_url, open_timeout=WAIT, proxy=None) as socket:
        if auth:
            say(socket, wire.SOCKET_AUTH, {"token": user.bearer})
        yield socket


def say(socket: ClientConnection, event: str, data: Any) -> None:
    socket.send(json.dumps({"event": event, "data": data}))


def hear(socket: ClientConnection, event: str | None = None) -> dict[str, Any]:
    """The next frame, or the next of this event."""
    while True:
        name, _, data, seq = wire.read_frame(json.loads(socket.recv(timeout=WAIT)))
        if event in (None, name):
            return {"event": name, "data": data, "seq": seq}


def closed(socket: ClientConnection) -> int:
    """The code with which the engine closes."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            socket.recv(timeout=WAIT)
    assert end.value.rcvd is not None
    return end.value.rcvd.code


def test_a_call_is_heard_by_both_as_it_changes(site: Site) -> None:
    alice, bob = site.pair()
    with opened(alice) as hers, opened(bob) as his:
        for socket, user in ((hers, alice), (his, bob)):
            assert hear(socket) == {
                "event": "ready", "data": {"identity": user.identity, wire.SOCKET_CALLS: []}, "seq": 1,
            }  # fmt: skip
        call_id = alice.call(bob)
        bob.do(wire.CALL_RINGING, call_id)
        bob.do(wire.CALL_ACCEPT, call_id)
        alice.do(wire.CALL_END, call_id)
        for socket in (hers, his):
            frames = [hear(socket, wire.SOCKET_CALL) for _ in range(4)]
            calls = [wire.read_call(frame["data"], "socket") for frame in frames]
            assert [call.status for call in calls] == ["initiating", "ringing", "active", "ended"]
            assert [call.version for call in calls] == [1, 2, 3, 4]
            assert [frame["seq"] for frame in frames] == sorted(frame["seq"] for frame in frames)
        assert calls[-1] == wire.read_call(alice.read(call_id), "read")


def test_ready_has_the_open_calls(site: Site) -> None:
    alice, bob = site.pair()
    call_id = alice.call(bob)
    with opened(bob) as his:
        (record,) = hear(his, wire.SOCKET_READY)["data"][wire.SOCKET_CALLS]
        assert wire.read_call(record, "ready") == wire.read_call(alice.read(call_id), "read")
    alice.do(wire.CALL_END, call_id)
    with opened(bob) as his:
        assert hear(his, wire.SOCKET_READY)["data"][wire.SOCKET_CALLS] == []


def test_every_device_hears_and_strangers_do_not(site: Site) -> None:
    alice, bob = site.pair()
    stranger = site.user()
    with opened(bob) as phone, opened(bob) as tablet, opened(stranger) as other:
        for socket in (phone, tablet, other):
            hear(socket, wire.SOCKET_READY)
        call_id = alice.call(bob)
        for socket in (phone, tablet):
            assert hear(socket, wire.SOCKET_CALL)["data"]["call_id"] == call_id
        say(other, wire.SOCKET_PING, {})
        assert hear(other)["event"] == wire.SOCKET_PONG


def test_presence_of_the_other_party(site: Site) -> None:
    alice, bob = site.pair()
    alice.call(bob)
    with opened(alice) as hers:
        assert hear(hers, wire.SOCKET_PRESENCE)["data"] == {"identity": bob.identity, "online": False}
        with opened(bob) as his:
            assert hear(his, wire.SOCKET_PRESENCE)["data"] == {"identity": alice.identity, "online": True}
            assert hear(hers, wire.SOCKET_PRESENCE)["data"] == {"identity": bob.identity, "online": True}
        assert hear(hers, wire.SOCKET_PRESENCE)["data"] == {"identity": bob.identity, "online": False}


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"event": "auth", "data": {"token": "u1.x.y"}}', 4401),
        ('{"event": "auth", "data": {"token": 7}}', 4401),
        ('{"event": "auth", "data": []}', 4401),
        ('{"event": "hello"}', 4401),
        ("{}", 4401),
        ("not json", 4400),
        ("[]", 4400),
        (b"\x00\x01", 4400),
        ("[" * 5000, 4400),
    ],
)
def test_nothing_without_auth(site: Site, first: str | bytes, code: int) -> None:
    with opened(site.user(), auth=False) as socket:
        socket.send(first)
        assert closed(socket) == code


def test_a_malformed_frame_ends_the_connection_and_only_that(site: Site) -> None:
    alice, bob = site.pair()
    with opened(bob) as good, opened(bob) as bad:
        hear(good, wire.SOCKET_READY)
        hear(bad, wire.SOCKET_READY)
        bad.send("nonsense")
        assert closed(bad) == 4400
        alice.call(bob)
        assert hear(good, wire.SOCKET_CALL)["data"]["status"] == "initiating"


def test_unknown_events_are_ignored(site: Site) -> None:
    with opened(site.user()) as socket:
        hear(socket, wire.SOCKET_READY)
        say(socket, "dance", {"x": 1})
        say(socket, wire.SOCKET_PING, None)
        assert hear(socket)["event"] == wire.SOCKET_PONG


def test_a_frame_over_a_megabyte_is_refused(site: Site) -> None:
    with opened(site.user()) as socket:
        hear(socket, wire.SOCKET_READY)
        socket.send("x" * (wire.SOCKET_MAX_BYTES + 1))
        assert closed(socket) == 1009


def test_a_slow_reader_is_thrown_out_not_waited_for() -> None:
    connection = _Connection("slow")
    for number in range(engine_socket.QUEUE + 50):
        connection.put("call", {"number": number})
    frames = [connection.queue.get_nowait() for _ in range(connection.queue.qsize())]
    assert len(frames) == engine_socket.QUEUE + 1
    assert frames[-1] is None
    assert json.loads(frames[0] or "")["seq"] == 1


def test_a_stopping_engine_closes_its_sockets_and_a_new_one_snapshots() -> None:
    with running() as site:
        alice, bob = site.pair()
        with opened(bob) as his:
            hear(his, wire.SOCKET_READY)
            site.process.stop()
            assert closed(his) == 1012
    assert alice.identity != bob.identity
