"""The engine socket: each user's own calls, as they change.

Frames are ``{"event", "data", "seq"}`` (wire contract). A connection authenticates with its bearer, gets ``ready``
with a snapshot of its open calls, then every change of them. Subscribing and taking the snapshot are one step of the
loop, so nothing falls between them. A reader that is too slow is thrown out; it comes back and gets a new snapshot.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import WebSocket, WebSocketDisconnect

from utd_fsm import wire
from utd_fsm.models import UTDCall

from .auth import Auth, Who
from .refusal import Refused
from .store import Store
from .webhooks_out import Webhooks

log = logging.getLogger("utd_fsm.engine.socket")

AUTH_WITHIN: Final = 10.0
"""Seconds a connection may stay unknown."""
QUEUE: Final = 1000
"""Frames that may wait for a slow reader."""

UNAUTHORIZED: Final = 4401
MALFORMED: Final = 4400
TOO_SLOW: Final = 1013


class _Connection:
    """One open socket: what is to be sent, numbered."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.seq = 0
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUE + 1)

    def put(self, event: str, data: Mapping[str, Any]) -> None:
        """Queue one frame; None, at the end of a full queue, says that the reader was too slow."""
        if self.queue.qsize() >= QUEUE:
            if self.queue.qsize() == QUEUE:
                self.queue.put_nowait(None)
            return
        self.seq += 1
        self.queue.put_nowait(json.dumps(wire.frame_json(event, data, seq=self.seq)))


class Hub:
    """All open sockets, by identity. Belongs to the event loop."""

    def __init__(self, auth: Auth, store: Store, hooks: Webhooks) -> None:
        self._auth = auth
        self._store = store
        self._hooks = hooks
        self._open: dict[str, set[_Connection]] = {}

    def call_changed(self, call: UTDCall) -> None:
        """Tell both parties. After the commit, never before."""
        record = wire.call_json(call)
        for identity in (call.caller_identity, call.callee_identity):
            for connection in self._open.get(identity, ()):
                connection.put(wire.SOCKET_CALL, record)

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from its handshake to its end."""
        await socket.accept()
        try:
            who = await asyncio.wait_for(self._authenticated(socket), AUTH_WITHIN)
        except TimeoutError:
            await socket.close(UNAUTHORIZED, "no auth frame came in time")
            return
        except WebSocketDisconnect:
            return
        except Refused as refusal:
            await socket.close(UNAUTHORIZED if refusal.status == 401 else MALFORMED, refusal.message[:120])
            return
        assert who.identity is not None
        connection = _Connection(who.identity)
        calls = [wire.call_json(call) for call in self._store.open_calls(who.identity)]
        connection.put(wire.SOCKET_READY, {"identity": who.identity, wire.SOCKET_CALLS: calls})
        self._enter(connection)
        writer = asyncio.create_task(self._write(socket, connection), name="engine-socket-writer")
        try:
            await self._read(socket, connection)
        finally:
            self._leave(connection)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _authenticated(self, socket: WebSocket) -> Who:
        frame = await _receive(socket)
        if frame.get("event") != wire.SOCKET_AUTH:
            raise Refused(401, "the first frame must be auth", "no_bearer")
        data = frame.get("data")
        token = data.get("token") if isinstance(data, dict) else None
        if not isinstance(token, str):
            raise Refused(401, "auth: token is missing", "no_bearer")
        return self._auth.bearer(token)

    async def _read(self, socket: WebSocket, connection: _Connection) -> None:
        try:
            while True:
                frame = await _receive(socket)
                if frame.get("event") == wire.SOCKET_PING:
                    connection.put(wire.SOCKET_PONG, {})
        except WebSocketDisconnect:
            pass
        except Refused as refusal:
            await socket.close(MALFORMED, refusal.message[:120])
        except RuntimeError:
            log.debug("socket closed while it was read")

    @staticmethod
    async def _write(socket: WebSocket, connection: _Connection) -> None:
        try:
            while (text := await connection.queue.get()) is not None:
                await socket.send_text(text)
            await socket.close(TOO_SLOW, "too slow: connect again for a fresh snapshot")
        except (WebSocketDisconnect, RuntimeError):
            log.debug("socket closed while it was written to")

    def _enter(self, connection: _Connection) -> None:
        mine = self._open.setdefault(connection.identity, set())
        mine.add(connection)
        if len(mine) == 1:
            self._present(connection.identity, online=True)
        for other in self._others(connection.identity):
            connection.put(wire.SOCKET_PRESENCE, {"identity": other, "online": other in self._open})

    def _leave(self, connection: _Connection) -> None:
        mine = self._open.get(connection.identity, set())
        mine.discard(connection)
        if not mine:
            self._open.pop(connection.identity, None)
            self._present(connection.identity, online=False)

    def _present(self, identity: str, *, online: bool) -> None:
        with self._store.transaction():
            event = "user_online" if online else "user_offline"
            self._hooks.note(event, f"user:{identity}", participant={"identity": identity, "name": identity})
        self._hooks.wake()
        for other in self._others(identity):
            for connection in self._open.get(other, ()):
                connection.put(wire.SOCKET_PRESENCE, {"identity": identity, "online": online})

    def _others(self, identity: str) -> set[str]:
        """Those with whom this identity has an open call."""
        calls = self._store.open_calls(identity)
        return {each for call in calls for each in (call.caller_identity, call.callee_identity)} - {identity}


async def _receive(socket: WebSocket) -> dict[str, Any]:
    """One frame.

    Raises: Refused: not a JSON object; WebSocketDisconnect.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005)
    text = message.get("text")
    if text is None:
        raise Refused(422, "frames are JSON text", "validation")
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(422, "the frame is not JSON", "validation") from None
    if not isinstance(frame, dict):
        raise Refused(422, "a frame is an object", "validation")
    return frame
