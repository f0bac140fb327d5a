"""What is heard of one identity's calls, for everybody who follows them: one socket per `Credentials`, shared.

On the loop thread. The socket runs while somebody listens. What a poll finds is published here as well, so that a
listener need not know which channel told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .credentials import Credentials
from .engine_socket import EngineSocket, LoopPortal, SocketState
from .models import UTDCall

log = logging.getLogger("utd_fsm.socket")


@dataclass(eq=False, slots=True)
class _Listener:
    call_id: str | None
    on_call: Callable[[UTDCall], None]
    on_look: Callable[[str], None] | None


SocketFactory = Callable[..., EngineSocket]


class CallFeed:
    """Fans out what one socket hears. Get it with `feed_of`. Loop thread only.

    Args:
        portal: where the socket runs.
        cred: whose calls.
        socket: makes the socket (tests give one with shorter times).
    """

    def __init__(self, portal: LoopPortal, cred: Credentials, *, socket: SocketFactory = EngineSocket) -> None:
        self.portal = portal
        self._cred = cred
        self._make = socket
        self._socket: EngineSocket | None = None
        self._listeners: list[_Listener] = []

    @property
    def ready(self) -> bool:
        """Whether every change is heard at once: nobody needs to poll."""
        return self._socket is not None and self._socket.running and self._socket.state is SocketState.READY

    @property
    def running(self) -> bool:
        """Whether there is a socket already: what it told before, a new listener has not heard."""
        return self._socket is not None and self._socket.running

    @property
    def offered(self) -> bool:
        """Whether there is a socket to be had at all."""
        return bool(self._cred.ws_url) and (self._socket is None or self._socket.state is not SocketState.UNUSABLE)

    def listen(
        self,
        on_call: Callable[[UTDCall], None],
        *,
        call_id: str | None = None,
        on_look: Callable[[str], None] | None = None,
    ) -> Callable[[], None]:
        """Hear of calls from now on.

        Args:
            on_call: called with each record heard; the same one may come more than once, and older ones too.
            call_id: only this call; None for all.
            on_look: called with a reason when the engine should be asked: the socket is back, or may have missed some.

        Returns:
            A function that ends it; may be called twice.
        """
        listener = _Listener(call_id, on_call, on_look)
        self._listeners.append(listener)
        if self.offered and (self._socket is None or not self._socket.running):
            self._socket = self._make(self.portal, self._cred, self.publish, self._socket_became, on_resync=self._look)
            self._socket.start()

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                if not self._listeners:
                    self._stop()

        return end

    def publish(self, call: UTDCall) -> None:
        """Tell the listeners what was heard of a call, by whatever channel."""
        for listener in list(self._listeners):
            if listener.call_id in (None, call.call_id) and listener in self._listeners:
                try:
                    listener.on_call(call)
                except Exception:
                    log.exception("a listener failed on a call; the others still hear of it")

    def _look(self, why: str) -> None:
        for listener in list(self._listeners):
            if listener.on_look is not None:
                try:
                    listener.on_look(why)
                except Exception:
                    log.exception("a listener failed to look")

    def _socket_became(self, state: SocketState) -> None:
        # Ready: what ended while nobody listened is not in the snapshot. Lost: begin to poll.
        if state in (SocketState.READY, SocketState.WAITING, SocketState.UNUSABLE):
            self._look(f"the socket is {state.value}")

    def _stop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None and socket.running:
            self.portal.spawn(socket.stop(), name="engine-socket-stop")


def feed_of(portal: LoopPortal, cred: Credentials) -> CallFeed:
    """The one feed of these credentials. Loop thread only."""
    # A forked child has another portal, and its parent's feed is none of its business.
    if cred.feed is None or cred.feed.portal is not portal:
        cred.feed = CallFeed(portal, cred)
    return cred.feed
