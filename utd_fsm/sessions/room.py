"""The session of a media room by itself: a URL and a token, no engine. Loop thread only.

The facades are `utd_fsm.client.UTDRoom` and `utd_fsm.aio.UTDRoom`. The rules are those of every session
(`BaseSession`), but for two: nobody tells whether a grant will come, so a source that is switched on waits for it; and
data messages are the application's, whatever they look like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from utd_fsm import validation
from utd_fsm.errors import UTDInputError, UTDStateError
from utd_fsm.room import Room, RoomEvent, RoomFactory, RoomOptions
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.connection import TicketReason
from utd_fsm.sessions.marks import verb

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step
    from utd_fsm.portal import Portal
    from utd_fsm.sessions.timing import Timing

_SCHEMES = ("ws", "wss", "http", "https")


class RoomSession(BaseSession):
    """A LiveKit room by itself: connect with a URL and a token from wherever you have them.

    A context manager: leaving it disconnects and disposes. Any thread may use it.
    """

    ENGINE: ClassVar[bool] = False

    def __init__(
        self,
        *,
        adaptive_stream: bool = False,
        dynacast: bool = False,
        asynchronous: bool = False,
        _room_factory: RoomFactory | None = None,
        _timing: Timing | None = None,
        _portal: Portal | None = None,
    ) -> None:
        """Nothing is connected yet. Any thread.

        Args:
            adaptive_stream: video that nobody watches is not sent here, and ``watch(size=…)`` picks the layer.
            dynacast: layers of our own video that nobody receives are not encoded.
        """
        super().__init__(
            kind=None,
            room_factory=_room_factory or livekit_room,
            options=RoomOptions(
                adaptive_stream=validation.boolean(adaptive_stream, "adaptive_stream"),
                dynacast=validation.boolean(dynacast, "dynacast"),
            ),
            asynchronous=asynchronous,
            timing=_timing,
            portal_=_portal,
        )
        self._livekit = _room_factory is None
        self._way_in: tuple[str, str] | None = None
        self._forget_exit: Callable[[], None] | None = None

    @verb()
    async def connect(self, url: str, token: str, auto_subscribe: bool = True) -> None:
        """Join: three tries of 15 s. Returns in the room.

        When the link is lost for good, the session joins again by itself, with the same token, for 60 s; a token that
        has expired meanwhile ends that. Then, or when it is removed, ``connection`` becomes FORCE_EXIT.

        Args:
            url: the media server, ``wss://…`` or ``ws://…`` (``https`` and ``http`` are the same).
            token: an access token for the room.
            auto_subscribe: whether everybody's tracks are received; otherwise none, until they are subscribed on the
                LiveKit object (`run`).

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: already in a room, or on the way; or left meanwhile.
            UTDPermissionError: the server does not accept the token.
            UTDEngineError: the server refused otherwise: no such room, the room is full.
            UTDConnectionError: the server could not be reached.
        """
        # Rooms of other makes, as tests have them, have addresses of their own.
        way_in = _checked_url(url) if self._livekit else url, _checked_token(token)
        validation.boolean(auto_subscribe, "auto_subscribe")
        state = self._connection.state
        if state not in ("disconnected", "force_exit"):
            raise UTDStateError(
                f"connect: the session is {self._connection.public}; disconnect() first, or use another UTDRoom",
                state=state,
                event="connect",
            )
        self._way_in = way_in
        self._connection.auto_subscribe = auto_subscribe
        await self._join()

    @verb(overtakes=True)
    async def disconnect(self) -> None:
        """Leave the room; idempotent. It may be connected again. What it overtakes raises `UTDStateError`."""
        await self._leave_room()

    @verb(lane="messages")
    async def send_data(
        self,
        data: bytes,
        reliable: bool = True,
        to: Sequence[str] | None = None,
        *,
        destination_identities: Sequence[str] | None = None,
        topic: str | None = None,
    ) -> None:
        """Send a data message. While the link is mended it waits for the link.

        Args:
            data: at most 60 KiB.
            reliable: repeated until it arrives, in order; otherwise sent once.
            to: identities; None and an empty list are everybody. Who is not listed yet is not refused: the list lags.
            destination_identities: the same, under LiveKit's name for it.
            topic: a name for the kind of message, up to 255 characters.

        Raises:
            UTDInputError: an argument is wrong.
            UTDStateError: not in the room.
            UTDConnectionError: the link was lost for good meanwhile.
        """
        if destination_identities is not None and to is not None:
            raise UTDInputError("destination_identities and to: both are given; allowed: one of them")
        who = validation.to(destination_identities, "destination_identities") or validation.to(to)
        await self._send_data(data, reliable, who, topic)

    def lost(self, name: str, result: object) -> None:
        """Whoever gave up a connect is told that it was cancelled: so it is, also when it came home just then."""
        if name == "connect":
            self._connection.leave_now()

    def describe(self) -> str:
        """For the repr."""
        me = self.local_participant
        return f"{self.connection.value}{f' as {me.identity}' if me is not None else ''}"

    async def _ticket(self, reason: TicketReason) -> tuple[str, str]:
        assert self._way_in is not None
        return self._way_in

    def _on_connection(self, step: Step) -> None:
        if step.after == "connecting" and self._forget_exit is None:
            self._forget_exit = self._portal.at_exit(self.dispose)
        elif step.after in ("disconnected", "force_exit", "closed") and self._forget_exit is not None:
            self._forget_exit()
            self._forget_exit = None


def _checked_url(url: object) -> str:
    allowed = "allowed: ws:// or wss:// (or http, https), a host, no user name and no password"
    if not isinstance(url, str):
        raise UTDInputError(f"url: got {type(url).__name__}; {allowed}")
    try:
        parts = urlsplit(url)
        fine = parts.scheme in _SCHEMES and bool(parts.hostname) and "@" not in parts.netloc
        fine = fine and (parts.port is None or parts.port > 0) and url.isprintable() and " " not in url
    except ValueError:
        fine = False
    if not fine:
        # Not repeated: it may hold a token.
        raise UTDInputError(f"url: not the address of a media server; {allowed}")
    return url


def _checked_token(token: object) -> str:
    if not isinstance(token, str):
        raise UTDInputError(f"token: got {type(token).__name__}; allowed: an access token, as a string")
    if not token.strip() or not token.isprintable():
        raise UTDInputError("token: empty, or with characters that no token has; allowed: an access token, as a string")
    return token


def livekit_room(post: Callable[[RoomEvent], None], options: RoomOptions) -> Room:
    """The room factory of production. ``livekit`` loads here, at first use."""
    from utd_fsm.livekit_room import LiveKitRoom

    return LiveKitRoom(post, options)
