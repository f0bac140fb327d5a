"""Somebody to call in a test: a second party that answers by itself, on a real client and real media.

Floor 7, the public blocking API only: a peer is what a user would have written by hand.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from utd_fsm.errors import UTDInputError, UTDStreamException, UTDTimeoutError
from utd_fsm.models import UTDCall

if TYPE_CHECKING:
    from utd_fsm.client import UTDCallSession, UTDStreamClient
    from utd_fsm.media import AudioSource, VideoSource

_log = logging.getLogger("utd_fsm.testing")

OnCall = Literal["accept", "ring", "reject", "busy", "ignore"]
_CHOICES: Final = ("accept", "ring", "reject", "busy", "ignore")


class Peer:
    """A party that waits for calls on a thread of its own. Made by ``engine.peer(…)``; a context manager.

    Args:
        client: a fresh client; the peer signs in, and closes it at the end.
        identity: who it is.
        on_call: what it does with a call: ``accept`` (rings first), ``ring`` and no more, ``reject``, ``busy``,
            ``ignore``, or a function that is given the session and the call and decides by itself.
        microphone: what it says; silence unless given.
        camera: what it shows in video calls.
        hang_up_after: seconds after accepting; None leaves that to the other side.
        name: shown to others.
        device_id: as `UTDStreamClient.authenticate`.
    """

    def __init__(
        self,
        client: UTDStreamClient,
        identity: str,
        *,
        on_call: OnCall | Callable[[UTDCallSession, UTDCall], object] = "accept",
        microphone: AudioSource | None = None,
        camera: VideoSource | None = None,
        hang_up_after: float | None = None,
        name: str | None = None,
        device_id: str | None = None,
    ) -> None:
        if not callable(on_call) and on_call not in _CHOICES:
            raise UTDInputError(f"on_call is {on_call!r}: give one of {', '.join(_CHOICES)}, or a function")
        self.client = client
        self.identity = identity
        self.errors: list[BaseException] = []
        """What went wrong while it handled calls, oldest first."""
        self._on_call = on_call
        self._microphone = microphone
        self._camera = camera
        self._hang_up_after = hang_up_after
        self._name = name
        self._device_id = device_id
        self._handled: queue.Queue[UTDCallSession] = queue.Queue()
        self._thread: threading.Thread | None = None

    def wait_for_session(self, timeout: float | None = 30.0) -> UTDCallSession:
        """The session of the next call it has accepted, rung, rejected or been busy for, as soon as that is done.

        Raises:
            UTDTimeoutError: no call came in time.
        """
        try:
            return self._handled.get(timeout=timeout)
        except queue.Empty:
            raise UTDTimeoutError(f"{self.identity}: no call was handled within {timeout} s") from None

    def __enter__(self) -> Self:
        """Sign in and begin to wait; calls made after this are heard."""
        try:
            self.client.authenticate(self.identity, name=self._name, device_id=self._device_id, receive_calls=True)
        except BaseException:
            self.client.close()
            raise
        self._thread = threading.Thread(target=self._wait_for_calls, name=f"utd-peer-{self.identity}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its client, which ends its calls."""
        self.client.close()
        if self._thread is not None:
            self._thread.join(10.0)

    def _wait_for_calls(self) -> None:
        handlers: list[threading.Thread] = []
        for call in self.client.incoming_calls:
            # Each call on a thread of its own: a second one that comes meanwhile is heard too.
            handler = threading.Thread(target=self._handle, args=(call,), name=f"utd-peer-{self.identity}", daemon=True)
            handler.start()
            handlers.append(handler)
        for handler in handlers:
            handler.join(10.0)

    def _handle(self, call: UTDCall) -> None:
        if self._on_call == "ignore":
            return
        try:
            camera = self._camera if call.type.has_video else None
            session = self.client.call_session(call.type, microphone=self._microphone, camera=camera)
            with session:
                self._act(session, call)
                self._handled.put(session)
                if session.call is not None and not session.call.status.is_terminal:
                    self._stay(session)
        except UTDStreamException as error:
            _log.info("peer %s: %s", self.identity, error)
            self.errors.append(error)
        except Exception as error:  # noqa: BLE001 - told in `errors`
            _log.exception("peer %s", self.identity)
            self.errors.append(error)

    def _act(self, session: UTDCallSession, call: UTDCall) -> None:
        if callable(self._on_call):
            self._on_call(session, call)
            return
        match self._on_call:
            case "accept":
                session.ringing(call)
                session.accept(call)
            case "ring":
                session.ringing(call)
            case "reject":
                session.reject(call)
            case "busy":
                session.busy(call)

    def _stay(self, session: UTDCallSession) -> None:
        """In the call until it is over, or its time is."""
        try:
            session.wait_until_ended(timeout=self._hang_up_after)
        except UTDTimeoutError:
            session.end()
