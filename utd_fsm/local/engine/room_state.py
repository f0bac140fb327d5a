"""A stream or an audio room as the engine keeps it, and what of it others are shown. Values only: no rule, no I/O.

The rows are frozen; the record itself is changed by the rules of one verb, on a copy, and saved whole or not at all
(`rooms`). What others are shown is always made from the record, so nothing can be shown that is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from utd_fsm import room_wire as wire
from utd_fsm.models import NOTHING, ReadOnlyDict, UTDRole, UTDSeatMode, UTDStreamType
from utd_fsm.room_models import (
    UTDBroadcast,
    UTDHand,
    UTDInvitation,
    UTDSeat,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStage,
    UTDStageMember,
)

DEFAULT_SEATS: Final = 8
ATTRIBUTES: Final = ("avatar", "fr", "frt", "cn", "name")
"""What of a person's attributes others are shown (wire contract)."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as its application introduced it, when it came in."""

    identity: str
    name: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class Note:
    """One data message to be sent after the commit: a hint, never the truth."""

    kind: str
    """Its type: ``_seat_update`` and the like (`room_wire`)."""
    content: Mapping[str, Any]
    """Without the type."""
    to: tuple[str, ...] | None = None
    """Identities; None is all. Never empty: a note to nobody is not made."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a verb says besides what it did to the record."""

    answer: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    removed: tuple[str, ...] = ()
    """Who is put out of the media room."""


@dataclass(frozen=True, slots=True)
class SeatRow:
    """One seat: a state of the machine `Seat`, and who sits there."""

    state: str = "free"
    who: Person | None = None
    reserved_for: str | None = None

    @property
    def identity(self) -> str | None:
        """Who sits there."""
        return None if self.who is None else self.who.identity


@dataclass(slots=True)
class RoomRecord:
    """One room. Whoever has it from the store or from `Changed` only reads it.

    A person's standing is nowhere written twice: it sits, asks, or is invited, because it is in that list.
    """

    name: str
    type: UTDStreamType
    owner: str | None = None
    """The host; None until somebody claims the room, and then for good."""
    version: int = 0
    """Grows by one with every commit."""
    roles: dict[str, UTDRole] = field(default_factory=dict)
    """Those that the owner gave; everybody else is audience."""
    comments_locked: bool = False

    # audio room
    mode: UTDSeatMode = UTDSeatMode.FREE
    mode_id: int | str | None = None
    host_seat: int = 0
    seats: list[SeatRow] = field(default_factory=list)
    """Empty until they are set up."""
    requests: list[UTDSpeakerRequest] = field(default_factory=list)
    invitations: list[UTDInvitation] = field(default_factory=list)
    all_muted: bool = False
    last_id: int = 0
    """Of requests and invitations together; never used again."""

    # live stream
    stage: list[UTDStageMember] = field(default_factory=list)
    hands: list[UTDHand] = field(default_factory=list)
    live: UTDBroadcast = UTDBroadcast.WAITING

    versions: dict[str, int] = field(default_factory=dict)
    """Part of the room's metadata → the room's version at its last change."""

    def copy(self) -> RoomRecord:
        """One that can be changed while this stays as it is."""
        return replace(
            self,
            roles=dict(self.roles),
            seats=list(self.seats),
            requests=list(self.requests),
            invitations=list(self.invitations),
            stage=list(self.stage),
            hands=list(self.hands),
            versions=dict(self.versions),
        )

    # --- who stands where

    def seat_of(self, identity: str) -> int | None:
        """The index of somebody's seat."""
        return next((i for i, seat in enumerate(self.seats) if seat.identity == identity), None)

    def request_of(self, identity: str) -> UTDSpeakerRequest | None:
        """Somebody's open request to speak."""
        return next((one for one in self.requests if one.identity == identity), None)

    def invitation_of(self, identity: str) -> UTDInvitation | None:
        """Somebody's open invitation."""
        return next((one for one in self.invitations if one.identity == identity), None)

    def is_on_stage(self, identity: str) -> bool:
        """Whether somebody is on the stage; the host needs no place there."""
        return any(one.identity == identity for one in self.stage)

    def has_hand_up(self, identity: str) -> bool:
        """Whether somebody's hand is up."""
        return any(one.identity == identity for one in self.hands)

    def moderators(self) -> tuple[str, ...]:
        """The host and the admins."""
        admins = [who for who, given in self.roles.items() if given is UTDRole.ADMIN and who != self.owner]
        return tuple(admins) if self.owner is None else (self.owner, *admins)

    def involved(self) -> frozenset[str]:
        """Everybody who sits, asks, is invited, is on stage or has a hand up: whom `Rooms.gone` would change."""
        lists = (self.requests, self.invitations, self.stage, self.hands)
        sitting = {seat.identity for seat in self.seats if seat.identity is not None}
        return frozenset(sitting.union(*({one.identity for one in rows} for rows in lists)))


# ------------------------------------------------------------------------------------------------- what others see


def role(room: RoomRecord, identity: str) -> UTDRole:
    """Somebody's role: the owner is host, always; audience is whoever was given none."""
    return UTDRole.HOST if identity == room.owner else room.roles.get(identity, UTDRole.AUDIENCE)


def entitled(room: RoomRecord, identity: str) -> bool:
    """Whether somebody may publish: who sits, in an audio room; the host and who is on stage, in a stream.

    An admin as such may not, and the host of an audio room only on a seat.
    """
    if room.type is UTDStreamType.AUDIO_ROOM:
        return room.seat_of(identity) is not None
    return identity == room.owner or room.is_on_stage(identity)


def is_muted(room: RoomRecord, identity: str) -> bool:
    """Whether somebody sits on a seat that a moderator muted."""
    index = room.seat_of(identity)
    return index is not None and room.seats[index].state == "muted"


def seats_of(room: RoomRecord) -> UTDSeatGrid:
    """The grid, with nobody's view in particular."""
    return UTDSeatGrid(
        count=len(room.seats),
        mode=room.mode,
        seats=tuple(_seat(index, row) for index, row in enumerate(room.seats)),
        requests=tuple(room.requests),
        invitations=tuple(room.invitations),
        version=room.versions.get(wire.META_SEATS, room.version),
        mode_id=room.mode_id,
        all_muted=room.all_muted,
    )


def _seat(index: int, row: SeatRow) -> UTDSeat:
    return UTDSeat(
        index=index,
        identity=row.identity,
        locked=row.state == "locked",
        muted=row.state == "muted",
        reserved_for=row.reserved_for,
        name=None if row.who is None else row.who.name,
        attributes=NOTHING if row.who is None else row.who.attributes,
    )


def stage_of(room: RoomRecord) -> UTDStage:
    """The stage and the hands."""
    return UTDStage(
        members=tuple(replace(one, role=role(room, one.identity)) for one in room.stage),
        hands=tuple(room.hands),
        version=room.versions.get(wire.META_STAGE, room.version),
    )


def live_of(room: RoomRecord) -> dict[str, Any]:
    """Where the stream is: ``{state, version}``."""
    return wire.live_json(room.live, room.versions.get(wire.META_LIVE, room.version))


def comments_of(room: RoomRecord) -> dict[str, Any]:
    """The comment lock: ``{locked, version}``."""
    return wire.comments_json(room.comments_locked, room.versions.get(wire.META_COMMENTS, room.version))


def parts(room: RoomRecord) -> dict[str, dict[str, Any]]:
    """The room's metadata: only what a room of its type has."""
    comments = {wire.META_COMMENTS: comments_of(room)}
    if room.type is UTDStreamType.AUDIO_ROOM:
        return {wire.META_SEATS: wire.seats_json(seats_of(room), realtime=True), **comments}
    return {wire.META_STAGE: wire.stage_json(stage_of(room)), wire.META_LIVE: live_of(room), **comments}


def metadata(room: RoomRecord) -> str:
    """The room's metadata as LiveKit is given them: compact JSON."""
    return _compact(parts(room))


def participant_metadata(room: RoomRecord, identity: str, app_id: str) -> str:
    """A participant's metadata as LiveKit is given them: role and application."""
    return _compact({wire.META_ROLE: role(room, identity).value, "appId": app_id})


def _compact(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------------ for the store


def dump(room: RoomRecord) -> str:
    """All of a record but its name, type and owner, which the store keeps beside it."""
    return _compact(
        {
            "version": room.version,
            "roles": {who: given.value for who, given in room.roles.items()},
            "comments_locked": room.comments_locked,
            "mode": room.mode.value,
            "mode_id": room.mode_id,
            "host_seat": room.host_seat,
            "seats": [[row.state, _person_out(row.who), row.reserved_for] for row in room.seats],
            "requests": [[one.id, one.identity, _out(one.created_at), one.name] for one in room.requests],
            "invitations": [
                [one.id, one.identity, one.inviter, one.seat_index, _out(one.created_at)] for one in room.invitations
            ],
            "all_muted": room.all_muted,
            "last_id": room.last_id,
            "stage": [[one.identity, one.name] for one in room.stage],
            "hands": [[one.identity, one.name, _out(one.raised_at)] for one in room.hands],
            "live": room.live.value,
            "versions": room.versions,
        }
    )


def load(name: str, type_: str, owner: str | None, state: str | None) -> RoomRecord:
    """The inverse of `dump`; without a state, a room that nothing has happened in."""
    room = RoomRecord(name, UTDStreamType(type_), owner)
    if state is None:
        return room
    kept: dict[str, Any] = json.loads(state)
    return replace(
        room,
        version=kept["version"],
        roles={who: UTDRole(given) for who, given in kept["roles"].items()},
        comments_locked=kept["comments_locked"],
        mode=UTDSeatMode(kept["mode"]),
        mode_id=kept["mode_id"],
        host_seat=kept["host_seat"],
        seats=[SeatRow(state, _person_in(who), reserved) for state, who, reserved in kept["seats"]],
        requests=[UTDSpeakerRequest(n, who, _in(at), name) for n, who, at, name in kept["requests"]],
        invitations=[UTDInvitation(n, who, by, seat, _in(at)) for n, who, by, seat, at in kept["invitations"]],
        all_muted=kept["all_muted"],
        last_id=kept["last_id"],
        stage=[UTDStageMember(who, name) for who, name in kept["stage"]],
        hands=[UTDHand(who, name, _in(at)) for who, name, at in kept["hands"]],
        live=UTDBroadcast(kept["live"]),
        versions=kept["versions"],
    )


def _person_out(who: Person | None) -> list[Any] | None:
    return None if who is None else [who.identity, who.name, dict(who.attributes)]


def _person_in(kept: list[Any] | None) -> Person | None:
    return None if kept is None else Person(kept[0], kept[1], ReadOnlyDict(kept[2]))


def _out(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _in(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
