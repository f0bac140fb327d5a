"""`MemoryServer`: a media server that is an object. Floor 7; loop thread only; see `memory_room` for how to use it.

It keeps to what was measured of LiveKit's server and client; the numbers in the comments are those facts. What it
cannot show: codecs, loss, latency, speakers by themselves (`speak` tells who is heard).

Every change is told to each client as a snapshot of the room at that moment, delivered in order on the next turns of
the event loop and never inside the caller's step. The client compares and posts what differs, so that a client
whose link was down catches up in the same way in which it follows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from utd_fsm.errors import UTDConnectionError, UTDEngineError, UTDPermissionError
from utd_fsm.models import ReadOnlyDict, UTDParticipant, UTDTrackSource
from utd_fsm.room import (
    DataReceived,
    LeaveReason,
    LocalTrackSubscribed,
    Permission,
    RoomEvent,
    RoomFactory,
    SpeakersChanged,
)
from utd_fsm.testing.memory_tracks import Track

if TYPE_CHECKING:
    from utd_fsm.testing.memory_room import MemoryRoom

Hook = Callable[["MemoryRoom", RoomEvent], Iterable[RoomEvent]]
"""Says what is posted instead of an event: nothing (dropped), itself twice, another; to delay, keep it and
`MemoryRoom.deliver` it later."""

EVERYTHING = Permission(can_publish=True, can_subscribe=True, can_publish_data=True)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one client would learn at one moment."""

    permission: Permission
    metadata: str
    everyone: tuple[UTDParticipant, ...]
    tracks: tuple[tuple[str, Track], ...]
    """With their sids at that moment."""


@dataclass(eq=False)
class Seat:
    """One participant, as the server keeps it."""

    identity: str
    name: str
    sid: str
    metadata: str
    attributes: Mapping[str, str]
    permission: Permission
    first_permission: Permission
    """What its token said when it joined: what a server that has forgotten everything goes back to."""
    token_permission: Permission
    """What the token says that the client holds now; the server signs a new one at each change it can deliver (30)."""
    client: MemoryRoom | None
    auto_subscribe: bool
    announced: bool = True
    link_up: bool = True
    tracks: dict[str, Track] = field(default_factory=dict)

    @property
    def described(self) -> UTDParticipant:
        """As others see it."""
        return UTDParticipant(
            identity=self.identity,
            name=self.name,
            sid=self.sid,
            metadata=self.metadata,
            attributes=ReadOnlyDict(self.attributes),
            can_publish=self.permission.can_publish,
            tracks=tuple(track.described for track in self.tracks.values() if track.live),
        )


@dataclass(eq=False)
class RoomState:
    """One room, as the server keeps it."""

    name: str
    metadata: str = ""
    max_participants: int = 0
    seats: dict[str, Seat] = field(default_factory=dict)


class MemoryServer:
    """A media server in this process and on this event loop.

    Args:
        name: part of its address, ``memory://name``.
        paced: whether `capture` makes its caller wait as a real microphone does; False runs as fast as it can.
        auto_create: whether joining an unknown room makes it (LiveKit's default), or is a 404.

    Attributes:
        joining: gate that every `connect` passes before it joins: ``clear()`` holds them, ``set()`` lets them go.
        publishing: the same for `publish_audio` and `publish_video`.
        hook: see `Hook`; None posts every event once.
    """

    def __init__(self, name: str = "server", *, paced: bool = True, auto_create: bool = True) -> None:
        self.url = f"memory://{name}"
        self.paced = paced
        self.auto_create = auto_create
        self.rooms: dict[str, RoomState] = {}
        self.hook: Hook | None = None
        self.joining = asyncio.Event()
        self.joining.set()
        self.publishing = asyncio.Event()
        self.publishing.set()
        self.running = True
        self.announcing = True
        self._numbers = itertools.count(1)
        self._refusals: list[Exception] = []
        self._undelivered = 0
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def room_factory(self) -> RoomFactory:
        """What to hand to a session: makes rooms that join here."""
        from utd_fsm.testing.memory_room import MemoryRoom

        return lambda post, options: MemoryRoom(self, post, options)

    def token(
        self,
        identity: str,
        room: str,
        permission: Permission = EVERYTHING,
        *,
        name: str = "",
        metadata: str = "",
        attributes: Mapping[str, str] | None = None,
        max_participants: int = 0,
    ) -> str:
        """A token as the engine would sign it. Any thread."""
        return json.dumps(
            {
                "server": self.url,
                "identity": identity,
                "room": room,
                "name": name,
                "metadata": metadata,
                "attributes": dict(attributes or {}),
                "max_participants": max_participants,
                "can_publish": permission.can_publish,
                "can_subscribe": permission.can_subscribe,
                "can_publish_data": permission.can_publish_data,
                "sources": sorted(permission.sources),
            }
        )

    async def settled(self) -> None:
        """Return when everything that was sent so far has been delivered."""
        while self._undelivered:
            self._settled.clear()
            await self._settled.wait()

    # -- what a test does to it

    def refuse_next(self, *errors: Exception) -> None:
        """Let the next joins fail, each with one of these errors."""
        self._refusals.extend(errors)

    def create_room(self, name: str, *, metadata: str = "", max_participants: int = 0) -> None:
        """Make a room; of one that exists, nothing changes (31)."""
        self.rooms.setdefault(name, RoomState(name, metadata, max_participants))

    def delete_room(self, name: str) -> None:
        """End a room and send everybody away. Raises UTDEngineError 404 for an unknown one, as all verbs here do."""
        room = self._room(name)
        for seat in list(room.seats.values()):
            self._leave(room, seat, LeaveReason.ROOM_DELETED)
        del self.rooms[name]

    def set_room_metadata(self, name: str, metadata: str) -> None:
        """Write the room's metadata; every client hears of it, in order (21)."""
        self._room(name).metadata = metadata
        self._tell(self._room(name))

    def set_metadata(self, name: str, identity: str, metadata: str) -> None:
        """Write a participant's metadata; an empty text means unchanged (28)."""
        seat = self._seat(name, identity)
        seat.metadata = metadata or seat.metadata
        self._tell(self._room(name))

    def set_permission(self, name: str, identity: str, permission: Permission) -> None:
        """Replace a participant's permission as a whole (14). An equal one gives no event (28).

        Tracks that it no longer allows are taken down for the others; their publisher isn't told of that (4).
        """
        seat = self._seat(name, identity)
        seat.permission = permission
        if seat.link_up:
            seat.token_permission = permission
        for track in seat.tracks.values():
            track.live = track.live and permission.allows(track.source)
        self._tell(self._room(name))

    def grant(self, name: str, identity: str, *sources: UTDTrackSource) -> None:
        """Let somebody publish: these sources, or all."""
        permission = self._seat(name, identity).permission
        self.set_permission(name, identity, replace(permission, can_publish=True, sources=frozenset(sources)))

    def revoke(self, name: str, identity: str) -> None:
        """Let somebody publish no more."""
        permission = self._seat(name, identity).permission
        self.set_permission(name, identity, replace(permission, can_publish=False, sources=frozenset()))

    def remove(self, name: str, identity: str) -> None:
        """Throw somebody out. With the same token it may join again (30)."""
        self._leave(self._room(name), self._seat(name, identity), LeaveReason.REMOVED)

    def mute(self, name: str, identity: str, source: UTDTrackSource, muted: bool = True) -> None:
        """Mute somebody's track, as a moderator does."""
        seat = self._seat(name, identity)
        for track in seat.tracks.values():
            if track.source is source:
                track.muted = muted
                if seat.client is not None and seat.link_up:
                    self._schedule(seat.client.saw_muted, track.sid, muted)
        self._tell(self._room(name))

    def send_data(
        self, name: str, data: bytes, *, to: Sequence[str] = (), topic: str | None = None, reliable: bool = True
    ) -> None:
        """A data message from the server, which has no sender."""
        for seat in self._room(name).seats.values():
            if not to or seat.identity in to:
                self.message(seat, DataReceived(data, None, topic, reliable))

    def speak(self, name: str, levels: Mapping[str, float]) -> None:
        """Say who is heard, and how loud (0 to 1)."""
        loudest_first = tuple(sorted(levels.items(), key=lambda item: -item[1]))
        for seat in self._room(name).seats.values():
            self.message(seat, SpeakersChanged(loudest_first))

    def hold_announcements(self) -> None:
        """Do not tell of joins until `announce`. Data of somebody not yet announced has no sender (20, 22)."""
        self.announcing = False

    def announce(self) -> None:
        """Tell of the joins that were held back."""
        self.announcing = True
        for room in self.rooms.values():
            for seat in room.seats.values():
                seat.announced = True
            self._tell(room)

    def cut(self, name: str, identity: str) -> None:
        """Break somebody's link: it starts to reconnect, hears nothing, and the others notice nothing yet."""
        seat = self._seat(name, identity)
        if seat.link_up and seat.client is not None:
            seat.link_up = False
            self._schedule(seat.client.link_broke)

    def mend(self, name: str, identity: str, *, full: bool = False) -> None:
        """Mend it. ``full``: the client joins anew with the token it holds, hears that everybody left and came back,
        and its tracks have new sids; a permission changed while the link was down is undone by it (23, 30)."""
        room = self._room(name)
        seat = self._seat(name, identity)
        if seat.link_up or seat.client is None:
            return
        seat.link_up = True
        if full:
            self._rejoin(seat)
        self._schedule(seat.client.link_mended, self._snapshot(room, seat), full)
        self._tell(room)

    def lose(self, name: str, identity: str, *, noticed: bool = True) -> None:
        """Break somebody's link for good: its client gives up. Unless ``noticed``, the server still lists it (24)."""
        room = self._room(name)
        seat = self._seat(name, identity)
        client, seat.client, seat.link_up = seat.client, None, False
        if client is not None:
            self._schedule(client.over, LeaveReason.LOST)
        if noticed:
            self._leave(room, seat, LeaveReason.LOST)

    def stop(self) -> None:
        """Kill the server: every client starts to reconnect, and joins are refused."""
        self.running = False
        for room in self.rooms.values():
            for seat in list(room.seats.values()):
                self.cut(room.name, seat.identity)

    def start(self, *, forget_grants: bool = True) -> None:
        """Start it again: whoever still tries comes back. It has forgotten the rooms' metadata and limits (23).

        ``forget_grants``: everybody has again what the token of the join said, as when the change could not be signed.
        """
        self.running = True
        for room in self.rooms.values():
            room.metadata, room.max_participants = "", 0
            for seat in room.seats.values():
                if forget_grants:
                    seat.token_permission = seat.first_permission
            for seat in list(room.seats.values()):
                if seat.client is None:
                    del room.seats[seat.identity]
                else:
                    self.mend(room.name, seat.identity, full=True)

    def restart(self, *, forget_grants: bool = True) -> None:
        """`stop` and `start`."""
        self.stop()
        self.start(forget_grants=forget_grants)

    # -- what clients ask of it

    def join(
        self, client: MemoryRoom, url: str, token: str, *, auto_subscribe: bool
    ) -> tuple[RoomState, Seat, Snapshot]:
        """Take a client in, or raise what `Room.connect` raises."""
        if self._refusals:
            raise self._refusals.pop(0)
        if not self.running or url != self.url:
            raise UTDConnectionError(f"the media server cannot be reached: {url}")
        claims = self._claims(token)
        name, identity = claims["room"], claims["identity"]
        room = self.rooms.get(name)
        if room is None:
            if not self.auto_create:
                raise UTDEngineError("the media server refused the join: no such room", 404)
            room = self.rooms[name] = RoomState(name, max_participants=claims["max_participants"])
        before = room.seats.get(identity)
        if before is None and room.max_participants and len(room.seats) >= room.max_participants:
            raise UTDEngineError("the media server refused the join (a full room answers 500)", 500)
        if before is not None:
            self._leave(room, before, LeaveReason.DUPLICATE_IDENTITY)
        permission = Permission(
            can_publish=claims["can_publish"],
            can_subscribe=claims["can_subscribe"],
            can_publish_data=claims["can_publish_data"],
            sources=frozenset(UTDTrackSource(source) for source in claims["sources"]),
        )
        seat = Seat(
            identity=identity,
            name=claims["name"],
            sid=f"PA_{next(self._numbers)}",
            metadata=claims["metadata"],
            attributes=claims["attributes"],
            permission=permission,
            first_permission=permission,
            token_permission=permission,
            client=client,
            auto_subscribe=auto_subscribe,
            announced=self.announcing,
        )
        room.seats[identity] = seat
        self._tell(room, but=seat)
        return room, seat, self._snapshot(room, seat)

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims = json.loads(token)
        except ValueError:
            claims = None
        if not isinstance(claims, dict) or claims.get("server") != self.url:
            raise UTDPermissionError("the media server does not accept the token", 401)
        return claims

    def leave(self, room: RoomState, seat: Seat) -> None:
        """A client goes by itself."""
        if room.seats.get(seat.identity) is seat:
            del room.seats[seat.identity]
            self._tell(room)

    def publish(self, room: RoomState, seat: Seat, track: Track) -> None:
        """Take a track of a client."""
        track.sid = f"TR_{next(self._numbers)}"
        track.live = seat.permission.allows(track.source)
        seat.tracks[track.sid] = track
        seat.announced = True
        self._tell(room)

    def unpublish(self, room: RoomState, seat: Seat, track: Track) -> None:
        """Take a track down."""
        seat.tracks.pop(track.sid, None)
        track.live = False
        self._tell(room)

    def subscribed(self, room: RoomState, track: Track) -> None:
        """A client now receives a track; its publisher is told of the first."""
        seat = room.seats.get(track.owner)
        if not track.subscribed and seat is not None:
            track.subscribed = True
            self.message(seat, LocalTrackSubscribed(track.source))

    def changed(self, room: RoomState) -> None:
        """Something a client did (a mute) is to be told."""
        self._tell(room)

    def message(self, seat: Seat, event: RoomEvent) -> None:
        """Send an event as it is to one client; lost when its link is down."""
        if seat.client is not None and seat.link_up:
            self._schedule(seat.client.message, event)

    # -- inside

    def _room(self, name: str) -> RoomState:
        if name not in self.rooms:
            raise UTDEngineError(f"not_found: no room {name!r}", 404)
        return self.rooms[name]

    def _seat(self, name: str, identity: str) -> Seat:
        seat = self._room(name).seats.get(identity)
        if seat is None:
            raise UTDEngineError(f"not_found: {identity!r} is not in {name!r} (before the join there is nobody)", 404)
        return seat

    def _leave(self, room: RoomState, seat: Seat, reason: LeaveReason) -> None:
        if room.seats.get(seat.identity) is seat:
            del room.seats[seat.identity]
        client, seat.client = seat.client, None
        if client is not None:
            self._schedule(client.over, reason)
        self._tell(room)

    def _rejoin(self, seat: Seat) -> None:
        seat.permission = seat.token_permission
        seat.sid = f"PA_{next(self._numbers)}"
        tracks, seat.tracks = list(seat.tracks.values()), {}
        for track in tracks:
            # The publication lives on under a new sid; for the others it is another track.
            track.sid = f"TR_{next(self._numbers)}"
            track.live, track.subscribed = seat.permission.allows(track.source), False
            seat.tracks[track.sid] = track

    def _snapshot(self, room: RoomState, viewer: Seat) -> Snapshot:
        present = [seat for seat in room.seats.values() if seat is viewer or seat.announced]
        subscribing = viewer.auto_subscribe and viewer.permission.can_subscribe
        tracks = [
            (track.sid, track)
            for seat in room.seats.values()
            if seat is not viewer and subscribing
            for track in seat.tracks.values()
            if track.live
        ]
        return Snapshot(viewer.permission, room.metadata, tuple(seat.described for seat in present), tuple(tracks))

    def _tell(self, room: RoomState, *, but: Seat | None = None) -> None:
        for seat in room.seats.values():
            if seat is not but and seat.client is not None and seat.link_up:
                self._schedule(seat.client.hear, self._snapshot(room, seat))

    def _schedule(self, step: Callable[..., None], *args: Any) -> None:
        self._undelivered += 1

        def run() -> None:
            self._undelivered -= 1
            try:
                step(*args)
            finally:
                if not self._undelivered:
                    self._settled.set()

        asyncio.get_running_loop().call_soon(run)
