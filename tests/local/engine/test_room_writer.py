"""The one writer a room: an engine whose way to the media server is slow, and breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from livekit.protocol import models

from tests.media_servers import KINDS, MediaServerProcess, MediaServers
from utd_fsm import room_wire as rw

from .room_client import do, inside
from .room_support import Member, audio_room
from .support import Site, running

pytestmark = pytest.mark.media


class SlowWay:
    """A proxy for RoomService: an older update of a room's metadata takes longer than a newer one, and it may break."""

    def __init__(self, onward: str) -> None:
        self.broken = False
        self.updates = self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        way = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with way._lock:
                    is_update = self.path.endswith("/UpdateRoomMetadata")
                    way.updates += is_update
                    way.at_once += is_update
                    way.most_at_once = max(way.most_at_once, way.at_once)
                    pause = max(0.0, 0.4 - 0.1 * way.updates) if is_update else 0.0
                time.sleep(pause)
                status, content = 503, b"{}"
                if not way.broken:
                    headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
                    answer = requests.post(onward + self.path, data=body, headers=headers, timeout=30)
                    status, content = answer.status_code, answer.content
                with way._lock:
                    way.at_once -= is_update
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", "application/json" if status >= 400 else "application/protobuf")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"ws://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Site, SlowWay, str]]:
    """An engine behind a slow way; no webhook reaches it."""
    MediaServers.require(request.param)
    media = await do(MediaServerProcess(request.param).start)
    way = SlowWay(media.http_url)
    engine = running(
        media_url=way.url, livekit_key=media.key, livekit_secret=media.secret, reconcile_every=3600,
        db=str(tmp_path / "engine.db"),
    )  # fmt: skip
    try:
        yield await do(engine.__enter__), way, media.url
    finally:
        await do(engine.__exit__, None, None, None)
        way.close()
        media.stop()


def at(member: Member, url: str) -> Member:
    """The same one, past the slow way."""
    member.url = url
    return member


async def test_updates_never_overtake_one_another(world: tuple[Site, SlowWay, str]) -> None:
    site, way, url = world
    room = audio_room(site, seat_count=30)
    guests = [await do(room.guest) for _ in range(25)]
    async with inside(at(room.host, url)) as hosts:
        for index, one in enumerate(guests):
            await do(one.well, rw.SEAT_TAKE, index=1 + index)
            await asyncio.sleep(0.02)
        truth = rw.read_seats(await do(room.host.grid), "GET seats")
        await hosts.until(lambda: hosts.state.seats == truth)
        assert way.most_at_once == 1
        assert hosts.versions() == sorted(hosts.versions())
        assert way.updates < len(guests)  # several commits are one update


async def test_what_cannot_be_told_is_told_later(world: tuple[Site, SlowWay, str]) -> None:
    site, way, url = world
    room = audio_room(site)
    ann = at(room.guest(), url)
    async with inside(ann) as hers:
        way.broken = True
        await do(ann.well, rw.SEAT_TAKE, index=1)
        before = way.updates
        await hers.until(lambda: way.updates >= before + 2)  # it is tried, and again
        assert not hers.may_publish
        way.broken = False
        await hers.until(lambda: hers.may_publish)
        assert hers.state.seats is not None
        assert hers.state.seats.seat_of(ann.identity) == 1  # the metadata come first
        await hers.until(lambda: rw.SEAT_UPDATE in hers.kinds())


async def test_a_start_puts_every_room_right(world: tuple[Site, SlowWay, str]) -> None:
    """By LiveKit's lists alone: nothing was ever heard of these rooms."""
    site, way, url = world
    room = audio_room(site)
    ann, bob, eve = (at(room.guest(), url) for _ in range(3))
    await do(bob.well, rw.SEAT_TAKE, index=2)
    granted = at(await do(room.guest, bob.identity), url)
    async with inside(ann) as hers, inside(granted) as his, inside(eve) as eves:
        assert his.may_publish
        way.broken = True
        await do(ann.well, rw.SEAT_TAKE, index=1)
        await do(room.host.well, rw.SEAT_KICK, index=2)
        await do(room.host.well, rw.BAN, identity=eve.identity, room_name=room.name)
        await do(site.process.restart, hard=True)
        way.broken = False
        assert await eves.reason() == models.DisconnectReason.PARTICIPANT_REMOVED
        await hers.until(lambda: hers.may_publish and not his.may_publish)
        truth = rw.read_seats(await do(ann.grid), "GET seats")
        await hers.until(lambda: hers.state.seats == truth)
