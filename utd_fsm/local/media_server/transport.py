"""One bundled connection to one client: ICE, DTLS-SRTP and data channels, on aiortc's ORTC classes.

The only module that touches private names of aiortc 1.16 and aioice 0.13 (the version is pinned for their sake): the
packet hooks of `RTCDtlsTransport`, its SRTP sessions, and the connection behind `RTCIceTransport`. It knows nothing of
rooms, tracks or signalling: what arrives is handed to a `TransportOwner`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import pylibsrtp
from aiortc import (
    RTCCertificate,
    RTCDataChannel,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
    RTCSctpTransport,
)
from aiortc.rtcsctptransport import RTCSctpCapabilities
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

from . import rtp
from .sdp import Section
from .settings import MAX_MESSAGE_SIZE

_log = logging.getLogger("utd_fsm.local.media_server.transport")

_certificate: RTCCertificate | None = None


def _shared_certificate() -> RTCCertificate:
    """One certificate a process: making one costs some milliseconds, and this is no place for secrecy among rooms."""
    global _certificate
    if _certificate is None:
        _certificate = RTCCertificate.generateCertificate()
    return _certificate


class TransportOwner(Protocol):
    """Who is told what arrives. All of it on the event loop, none of it may raise."""

    def on_rtp(self, transport: Transport, data: bytes) -> None: ...
    def on_rtcp(self, transport: Transport, data: bytes) -> None: ...
    def on_data(self, transport: Transport, label: str, data: bytes) -> None: ...
    def on_channel_open(self, transport: Transport, label: str) -> None: ...
    def on_connected(self, transport: Transport) -> None: ...
    def on_failed(self, transport: Transport) -> None: ...


class Transport:
    """ICE, DTLS and SCTP under one description.

    Args:
        owner: who is told what arrives.
        spawn: starts a background task whose errors are logged and that ends with the server.
        controlling: our ICE role; the side that offers controls.
        host: the one local address that candidates are gathered on (loopback unless asked otherwise).
        name: for the log.
    """

    def __init__(
        self,
        owner: TransportOwner,
        spawn: Callable[[Any], asyncio.Task[Any]],
        *,
        controlling: bool,
        host: str,
        name: str,
    ) -> None:
        self._owner = owner
        self._spawn = spawn
        self._host = host
        self.name = name
        self._gatherer = RTCIceGatherer(iceServers=[])
        self._ice = RTCIceTransport(self._gatherer)
        ice: Any = self._ice
        self._connection = ice._connection
        self._connection.ice_controlling = controlling
        # While a client restarts ICE, checks under both generations of its name arrive: ours alone decides.
        self._connection._valid_username = lambda name: name.partition(":")[0] == self._connection.local_username
        self._dtls = RTCDtlsTransport(self._ice, [_shared_certificate()])
        hooks: Any = self._dtls
        hooks._handle_rtp_data = self._on_rtp
        hooks._handle_rtcp_data = self._on_rtcp
        self._dtls.on("statechange", self._on_dtls_state)
        self._sctp: RTCSctpTransport | None = None
        self._channels: dict[str, RTCDataChannel] = {}
        self._gathering = asyncio.Lock()
        self._waiting: list[RTCIceCandidate] = []
        self._remote_name: str | None = None
        self._started = False
        self._accepting = False
        self._closed = False

    @property
    def connected(self) -> bool:
        return not self._closed and self._dtls.state == "connected"

    async def local_lines(self, setup: str) -> tuple[list[str], list[str]]:
        """The SDP lines every section of ours shares, and the candidates that close it.

        Args:
            setup: our DTLS role, ``active`` or ``actpass``.
        """
        await self._gather()
        ours = self._gatherer.getLocalParameters()
        fingerprint = next(f for f in self._dtls.getLocalParameters().fingerprints if f.algorithm == "sha-256")
        candidates = [f"a=candidate:{candidate_to_sdp(c)}" for c in self._gatherer.getLocalCandidates()]
        return [
            "c=IN IP4 0.0.0.0",
            f"a=ice-ufrag:{ours.usernameFragment}",
            f"a=ice-pwd:{ours.password}",
            "a=ice-options:trickle",
            f"a=fingerprint:sha-256 {fingerprint.value}",
            f"a=setup:{setup}",
        ], [*candidates, "a=end-of-candidates"]

    async def _gather(self) -> None:
        """Candidates of one address only: aioice itself would take every interface but loopback."""
        connection = self._connection
        async with self._gathering:
            if not connection._local_candidates_start and not self._closed:
                connection._local_candidates_start = True
                found = await connection.get_component_candidates(component=1, addresses=[self._host])
                connection._local_candidates += found
                connection._local_candidates_end = True

    def start(self, section: Section, role: str, sctp_port: int | None) -> None:
        """Begins to connect, or follows the client's ICE restart.

        Args:
            section: a section of the client's description that has its ICE and DTLS lines.
            role: our DTLS role, ``client`` or ``server``.
            sctp_port: the client's, where its description has a data section.
        """
        name, password, fingerprint = section.get("ice-ufrag"), section.get("ice-pwd"), section.get("fingerprint")
        if not name or not password or self._closed:
            return
        if self._started:
            if name != self._remote_name:  # the client's credentials are new, ours stay
                self._remote_name = self._connection.remote_username = name
                self._connection.remote_password = password
                _log.debug("%s: ICE restart", self.name)
            return
        words = (fingerprint or "").split()
        if len(words) != 2:
            return
        self._started = True
        self._remote_name = name
        self._dtls._set_role(role)
        ice = RTCIceParameters(usernameFragment=name, password=password)
        dtls = RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint(words[0], words[1])])
        self._spawn(self._connect(ice, dtls, sctp_port))

    async def _connect(self, ice: RTCIceParameters, dtls: RTCDtlsParameters, sctp_port: int | None) -> None:
        self._accepting = True
        for candidate in self._waiting:
            await self._ice.addRemoteCandidate(candidate)
        self._waiting.clear()
        await self._ice.start(ice)
        if self._ice.state == "completed":
            await self._dtls.start(dtls)
        if self._dtls.state != "connected":
            _log.info("%s: not connected (ICE %s, DTLS %s)", self.name, self._ice.state, self._dtls.state)
            if not self._closed:
                self._owner.on_failed(self)
            return
        if sctp_port is not None:
            self._sctp = RTCSctpTransport(self._dtls)
            self._sctp.on("datachannel", self._on_channel)
            await self._sctp.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_SIZE), sctp_port)
        if not self._closed:
            self._owner.on_connected(self)

    async def add_candidate(self, line: str, mid: str | None) -> None:
        """A trickled candidate of the client; one that does not parse is left out, as a browser does."""
        try:
            candidate = candidate_from_sdp(line.partition(":")[2] if line.startswith("candidate:") else line)
            candidate.sdpMid = mid or "0"
            if self._accepting:
                await self._ice.addRemoteCandidate(candidate)
            else:
                self._waiting.append(candidate)
        except (ValueError, AssertionError, IndexError) as error:
            _log.debug("%s: candidate left out: %r", self.name, error)

    def send_rtp(self, data: bytes) -> bool:
        """Encrypts and sends one packet; False where there is no connection. Never suspends: this is the hot path."""
        srtp: Any = self._dtls._tx_srtp
        if srtp is None or not self.connected:
            return False
        try:
            return self._send(srtp.protect(data))
        except (pylibsrtp.Error, ValueError) as error:  # the latter for one that is too long
            _log.debug("%s: packet left out: %s", self.name, error)
            return False

    def send_rtcp(self, data: bytes) -> bool:
        """As `send_rtp`, for RTCP."""
        srtp: Any = self._dtls._tx_srtp
        if srtp is None or not data or not self.connected:
            return False
        try:
            return self._send(srtp.protect_rtcp(data))
        except (pylibsrtp.Error, ValueError) as error:
            _log.debug("%s: report left out: %s", self.name, error)
            return False

    def _send(self, packet: bytes) -> bool:
        """Drives aioice's coroutine by hand: for host candidates it never suspends, and a task a packet is dear."""
        sending = self._ice._send(packet)
        try:
            sending.send(None)
        except StopIteration:
            return True
        except ConnectionError:
            return False
        sending.close()
        return False

    def send_data(self, label: str, data: bytes) -> bool:
        """Sends on the client's own channel of that label; False where it is not open."""
        channel = self._channels.get(label)
        if channel is None or channel.readyState != "open" or self._closed:
            return False
        channel.send(data)
        return True

    def has_channel(self, label: str) -> bool:
        channel = self._channels.get(label)
        return channel is not None and channel.readyState == "open"

    async def close(self, *, silently: bool = False) -> None:
        """Frees the sockets. May be called twice.

        Args:
            silently: without the messages by which the client would learn of it at once.
        """
        if self._closed:
            return
        self._closed = True
        if not silently:
            await self._say_goodbye()
        async with self._gathering:  # sockets that are just being opened are closed, too
            await self._ice.stop()
        if silently:
            await self._say_goodbye()  # into the void: it also ends the timers of both

    async def _say_goodbye(self) -> None:
        try:
            if self._sctp is not None:
                await self._sctp.stop()
            await self._dtls.stop()
        except ConnectionError as error:
            _log.debug("%s: while closing: %r", self.name, error)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        label = channel.label
        self._channels[label] = channel

        def on_message(message: bytes | str) -> None:
            self._owner.on_data(self, label, message.encode() if isinstance(message, str) else message)

        channel.on("message", on_message)
        self._owner.on_channel_open(self, label)

    def _on_dtls_state(self) -> None:
        if self._dtls.state in ("closed", "failed") and not self._closed:
            _log.debug("%s: DTLS %s", self.name, self._dtls.state)

    async def _on_rtp(self, data: bytes, arrival_time_ms: int) -> None:
        try:
            if rtp.is_rtp(data):
                self._owner.on_rtp(self, data)
        except Exception:  # noqa: BLE001 - escaping, it would end the loop that receives, and with it the link
            _log.exception("%s: a packet failed", self.name)

    async def _on_rtcp(self, data: bytes) -> None:
        try:
            self._owner.on_rtcp(self, data)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("%s: a report failed", self.name)
