"""A LiveKit-compatible media server from pip alone, for development and tests.

It speaks what LiveKit's clients (Python, browser, and the rest of the family) speak with default options: both versions
of the signalling, audio, video with simulcast or with spatial layers (SVC: VP9 and AV1), data, text and byte streams,
RPC, end-to-end encryption (which it only relays), the RoomService calls of `livekit-api`, and LiveKit's webhooks.

**What it is not.** One process and one event loop, so some dozens of participants at most; one local address, loopback
unless asked otherwise; no TURN and no TCP fallback; no congestion control (every sender is allowed a constant 8 Mbit/s)
and no dynacast; no choice of temporal layers; no backup codecs; no data tracks; no recording, ingress, SIP or agents;
nothing is persisted. Production is a LiveKit server: same clients, other URL.

From the inside::

    server = MediaServer(key="devkey", secret="…")
    url = await server.start()      # http://127.0.0.1:<a free port>
    await server.stop()

As a child process: ``python -m utd_fsm.local.media_server --port 0``, see `utd_fsm.local.media_server.__main__`.

How it is put together: `server` (HTTP, start and stop) → `signalling` and `signal_requests` (websockets),
`room_service` (twirp), `webhooks` → `room` → `peer` → `publisher`, `subscriber`, `tracks`, `svc_downstream` →
`downstream`, `transport` (the one module with private names of aiortc), `layering`, `numbering`, and the pure functions
of `sdp`, `rtp`, `rtcp`, `vp8`, `vp9`, `dependency`.
"""

from __future__ import annotations

from .server import MediaServer

__all__ = ["MediaServer"]
