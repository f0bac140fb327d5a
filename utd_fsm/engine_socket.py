"""The engine's socket: one identity's calls, as they change, over one WebSocket that comes back by itself.

On the loop thread. It passes on what it hears and decides nothing about calls. Whatever the other side sends, nothing
is raised out of here: a frame that is none is counted and dropped, and a look at the engine is asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from . import validation, wire
from .credentials import Credentials
from .errors import UTDInputError, UTDProtocolError, UTDStreamException
from .models import UTDCall
from .scrub import foreign

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

T = TypeVar("T")

log = logging.getLogger("utd_fsm.socket")

PING_INTERVAL: Final = 20.0
MISSED_PINGS: Final = 2
BACKOFF: Final = (0.5, 30.0)
OPEN_TIMEOUT: Final = 10.0
STEADY: Final = 10.0
"""Seconds a connection must have stood before the next wait for one begins at the shortest again."""

# Close codes that mean "not with this bearer": the engine's own, WebSocket's policy violation, IANA's Unauthorized.
_UNAUTHORIZED: Final = frozenset({4401, 4001, 3000, 1008})


class LoopPortal(Protocol):
    """What is needed of the portal here and in the modules that follow calls."""

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]: ...

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class SocketState(StrEnum):
    """Where a socket is."""

    OFF = "off"
    """Not started, or stopped."""
    CONNECTING = "connecting"
    """A connection is being made; nothing is heard."""
    READY = "ready"
    """Every change is heard; the snapshot has just been passed on."""
    WAITING = "waiting"
    """Lost; the next try comes by itself."""
    UNUSABLE = "unusable"
    """The engine offers none, or one that may not be used (plain ws to another machine)."""


class _Refused(Exception):
    """The engine does not take the bearer."""


class EngineSocket:
    """The socket of one signed-in identity. Loop thread only.

    Args:
        portal: runs its task, and the renewal of the bearer in a REST thread.
        cred: whose calls; its ``ws_url`` and bearer are read anew for every connection.
        on_call: called with each call heard of, those of a snapshot too. May hear the same twice.
        on_state: called with each new state.
        on_resync: called with a reason when something may have been missed (a gap in ``seq``, a malformed frame).
        ping_interval: seconds between pings (wire contract: 20).
        missed_pings: how many unanswered ones mean that the connection is dead (wire contract: 2).
        backoff: shortest and longest wait before another connection, seconds; jittered.
        open_timeout: seconds for the handshake, and again for the engine's ``ready``.
        steady: seconds after which a connection counts as one that held.
    """

    def __init__(
        self,
        portal: LoopPortal,
        cred: Credentials,
        on_call: Callable[[UTDCall], None],
        on_state: Callable[[SocketState], None] | None = None,
        *,
        on_resync: Callable[[str], None] | None = None,
        ping_interval: float = PING_INTERVAL,
        missed_pings: int = MISSED_PINGS,
        backoff: tuple[float, float] = BACKOFF,
        open_timeout: float = OPEN_TIMEOUT,
        steady: float = STEADY,
    ) -> None:
        self._portal = portal
        self._cred = cred
        self._on_call = on_call
        self._on_state = on_state
        self._on_resync = on_resync
        self._ping_interval = ping_interval
        self._missed_pings = missed_pings
        self._backoff = backoff
        self._open_timeout = open_timeout
        self._steady = steady
        self._task: asyncio.Task[None] | None = None
        self._state = SocketState.OFF
        self._seq: int | None = None
        self._ready_at: float | None = None
        self.malformed = 0
        """Frames that were none, since it was made."""
        self.connections = 0
        """How often it became ready."""

    @property
    def state(self) -> SocketState:
        """Where it is."""
        return self._state

    @property
    def running(self) -> bool:
        """Whether it is connected, or will be by itself."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Connect, and stay connected until `stop`. Idempotent."""
        if not self.running:
            self._task = self._portal.spawn(self._run(), name="engine-socket")

    async def stop(self, timeout: float = 2.0) -> None:
        """Close it. Returns within about `timeout` seconds even if the other side does not answer. Idempotent."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=timeout)
        self._become(SocketState.OFF)

    def __repr__(self) -> str:
        return f"<EngineSocket of {self._cred.identity!r}: {self._state.value}>"

    # --- connecting, again and again

    async def _run(self) -> None:
        tries, renewed = 0, False
        loop = asyncio.get_running_loop()
        while True:
            self._become(SocketState.CONNECTING)
            self._ready_at, info, refused = None, self._cred.info, False
            try:
                await self._connection()
            except UTDInputError as error:
                log.warning("the engine's socket is not used, calls are polled: %s", error)
                self._become(SocketState.UNUSABLE)
                return
            except _Refused:
                refused = True
            except Exception as error:  # noqa: BLE001 - whatever a network, a proxy or a library does, it comes back
                log.debug("the engine's socket was lost: %s", foreign(f"{type(error).__name__}: {error}"))
            self._become(SocketState.WAITING)
            if self._ready_at is not None:
                renewed = False
                if loop.time() - self._ready_at >= self._steady:
                    tries = 0
            if refused and not renewed:
                renewed = True
                if await self._renew(info):
                    continue
            await asyncio.sleep(self._delay(tries))
            tries += 1

    async def _renew(self, info: Any) -> bool:
        try:
            await self._portal.in_thread(lambda: self._cred.renew(info, budget=20.0))
        except UTDStreamException as error:
            log.warning("the bearer of %r could not be renewed: %s", self._cred.identity, error)
            return False
        return True

    def _delay(self, tries: int) -> float:
        first, most = self._backoff
        longest: float = min(most, first * 2 ** (min(tries, 30) + 1))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret

    async def _connection(self) -> None:
        """One connection, from its handshake to its end.

        Raises:
            UTDInputError: there is no URL that may be used.
            _Refused: not with this bearer.
            Exception: lost, in whatever way.
        """
        from websockets.exceptions import ConnectionClosed, InvalidStatus

        url = validation.socket_url(self._cred.ws_url)
        try:
            async with _connect(url, self._open_timeout) as socket:
                pinging: asyncio.Task[None] | None = None
                try:
                    async with asyncio.timeout(self._open_timeout):
                        await self._enter(socket)
                    pinging = asyncio.create_task(self._ping(socket), name="engine-socket-ping")
                    async for message in socket:
                        self._take(message)
                except asyncio.CancelledError:
                    # Stopped: say so to the other side, in a word and not in a handshake that a second cancel would
                    # leave half done, with the connection open for ever.
                    await _hang_up(socket)
                    raise
                finally:
                    if pinging is not None:
                        pinging.cancel()
                # `async for` ends without a word when the other side closed in order, whatever it meant by it.
                if socket.close_code in _UNAUTHORIZED:
                    raise _Refused
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code in _UNAUTHORIZED:
                raise _Refused from None
            raise
        except InvalidStatus as error:
            if error.response.status_code == 401:
                raise _Refused from None
            raise

    async def _enter(self, socket: ClientConnection) -> None:
        """Say who this is, and wait for the snapshot."""
        await socket.send(json.dumps(wire.frame_json(wire.SOCKET_AUTH, {"token": self._cred.bearer})))
        while True:
            frame = self._frame(await socket.recv())
            if frame is not None and frame[0] == wire.SOCKET_READY:
                break
        _, _, data, self._seq = frame
        self.connections += 1
        self._ready_at = asyncio.get_running_loop().time()
        rows = data.get(wire.SOCKET_CALLS)
        for row in rows if isinstance(rows, list) else []:
            self._call(row, "socket ready")
        self._become(SocketState.READY)

    async def _ping(self, socket: ClientConnection) -> None:
        """Ping at intervals, and cut the connection when nobody answers."""
        missed = 0
        answer: asyncio.Future[float] | None = None
        while True:
            await asyncio.sleep(self._ping_interval)
            if answer is not None:
                missed = 0 if answer.done() else missed + 1
            if missed >= self._missed_pings:
                break
            try:
                async with asyncio.timeout(self._ping_interval):
                    answer = asyncio.ensure_future(await socket.ping())
            except TimeoutError:
                break
            except Exception:  # noqa: BLE001 - closed meanwhile; the reader knows it too, and says why
                return
        log.debug("the engine's socket answered no ping")
        socket.transport.abort()

    # --- frames

    def _take(self, message: str | bytes) -> None:
        frame = self._frame(message)
        if frame is None:
            return
        event, _, data, seq = frame
        if seq is not None:
            if self._seq is not None and seq > self._seq + 1:
                self._ask_for_a_look(f"{seq - self._seq - 1} frames were missed")
            self._seq = seq if self._seq is None else max(seq, self._seq)
        if event == wire.SOCKET_CALL:
            self._call(data, "socket call")

    def _frame(self, message: str | bytes) -> tuple[str, str | None, Any, int | None] | None:
        try:
            # Frames are text (wire contract); a binary one is refused as anything else that is not JSON.
            return wire.read_frame(json.loads(message if isinstance(message, str) else ""))
        except (ValueError, RecursionError, UTDProtocolError) as error:
            self._malformed(error)
            return None

    def _call(self, row: object, route: str) -> None:
        try:
            call = wire.read_call(row, route)
        except UTDProtocolError as error:
            self._malformed(error)
            return
        try:
            self._on_call(call)
        except Exception:
            log.exception("what follows calls failed on one; the socket goes on")

    def _malformed(self, error: Exception) -> None:
        self.malformed += 1
        # The first one is worth a warning; an engine that sends nothing else must not fill a disk with them.
        level = logging.WARNING if self.malformed == 1 else logging.DEBUG
        log.log(level, "a malformed frame of the engine was dropped: %s", foreign(str(error)))
        self._ask_for_a_look("a malformed frame")

    def _ask_for_a_look(self, why: str) -> None:
        if self._on_resync is not None:
            with suppress(Exception):
                self._on_resync(why)

    def _become(self, state: SocketState) -> None:
        if state is self._state:
            return
        self._state = state
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:
                log.exception("what follows the socket's state failed; the socket goes on")


async def _hang_up(socket: ClientConnection) -> None:
    try:
        async with asyncio.timeout(1):
            await socket.close()
    except (TimeoutError, OSError):
        pass
    finally:
        socket.transport.abort()


def _connect(url: str, open_timeout: float) -> Any:
    """A connection to be: no redirect is followed, nothing that it sends is logged."""
    from websockets.asyncio.client import connect

    class Connect(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            # The bearer is sent right after the handshake: it goes to the host the engine named, and to no other.
            return exc

    class Quiet(logging.LoggerAdapter[logging.Logger]):
        # At DEBUG the library writes every frame into the log, the one with the bearer too.
        def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
            return level > logging.DEBUG and super().isEnabledFor(level)

    return Connect(
        url,
        open_timeout=open_timeout,
        close_timeout=1,
        max_size=wire.SOCKET_MAX_BYTES,
        ping_interval=None,
        proxy=None if validation.is_loopback(urlsplit(url).hostname) else True,
        logger=Quiet(log, {}),
    )
