"""Every verb about a live stream or an audio room, as routes and the media books use them.

A verb works on a copy of the record by the rules of `seat_rules`, `stage_rules` or `moderation`; it is refused and
nothing has changed, or the copy is saved whole and the room's version has grown by one. No request, token, timer or
socket is known here. The caller of everything here holds the store's transaction, and sends and removes
(`Changed.notes`, `Changed.removed`) only after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from utd_fsm import room_wire
from utd_fsm.models import ReadOnlyDict, UTDRole, UTDSeatMode, UTDStreamType

from . import moderation, seat_rules, stage_rules
from .refusal import Refused
from .room_bans import RoomBans
from .room_keeping import Changed, as_said, must_be
from .room_state import (
    ATTRIBUTES,
    Note,
    Person,
    RoomRecord,
    Said,
    comments_of,
    entitled,
    is_muted,
    live_of,
    metadata,
    participant_metadata,
    role,
    seats_of,
    stage_of,
)

__all__ = [
    "Changed",
    "Note",
    "RoomRecord",
    "Rooms",
    "comments_of",
    "entitled",
    "is_muted",
    "live_of",
    "metadata",
    "participant_metadata",
    "role",
    "seats_of",
    "stage_of",
]

AUDIO: Final = UTDStreamType.AUDIO_ROOM
STREAM: Final = UTDStreamType.LIVE_STREAM
MAX_ATTRIBUTE: Final = 512
"""Characters of one attribute of a person; a longer one is left out, since a hundred travel with every grid."""


def _with_grid(room: RoomRecord, said: Said) -> Mapping[str, Any]:
    return {**said.answer, room_wire.GRID: room_wire.seats_json(seats_of(room), realtime=False)}


def _stage(room: RoomRecord, _said: Said) -> Mapping[str, Any]:
    return room_wire.stage_json(stage_of(room))


def _live(room: RoomRecord, _said: Said) -> Mapping[str, Any]:
    return live_of(room)


def _comments(room: RoomRecord, _said: Said) -> Mapping[str, Any]:
    return comments_of(room)


class Rooms(RoomBans):
    """The records of all streams and audio rooms, changed by the rules only.

    Every verb raises `Refused`: 404 ``not_found``, 409 ``other_type`` and ``illegal_transition``, 403 to whoever may
    not, and what its rule names besides. `actor` is who does it, `target` on whom; identities are not checked against
    any bearer here, and nobody is asked whether it is banned: `check_ban` is the route's to call.
    """

    # --- coming in

    def enter(
        self,
        name: str,
        type: UTDStreamType,
        identity: str,
        *,
        claims_host: bool,
        owner_id: str | None,
        display: str | None,
        attributes: Mapping[str, Any],
        seat_count: int | None = None,
        seat_mode: UTDSeatMode | None = None,
        host_seat: int | None = None,
        mode_id: int | str | None = None,
    ) -> Changed:
        """Somebody is let in: ``POST /token``. The room is made if it is new; who claims it first owns it for good.

        Args:
            name, type: the room. identity: who wants in.
            claims_host: it asks for the role of host. owner_id: whom it names as the owner.
            display: its name; None leaves the name it had. attributes: of these only `ATTRIBUTES` that are text are
                kept; none at all leaves those it had.
            seat_count, seat_mode, host_seat, mode_id: the seats, counted only from the owner of an audio room, and only
                before they are set up.

        Returns: answer ``{"role": …}``.

        Raises: Refused: 403 ``banned``; 409 ``other_type``; 422 for seats that cannot be.
        """
        self.check_ban(identity, name)
        before = self.find(name)
        room = RoomRecord(name, type) if before is None else before.copy()
        must_be(room, type)
        if room.owner is None:
            claimed = claims_host and owner_id in (None, identity)
            _own(room, identity if claimed else owner_id)
        who = self._introduced(room, identity, display, attributes)
        if type is AUDIO and identity == room.owner and not room.seats:
            if host_seat is not None:
                room.host_seat = host_seat
            if seat_count is not None or seat_mode is not None:
                seats = seat_rules.setup(room, seat_count, seat_mode, mode_id)
                if host_seat is not None and room.host_seat != host_seat:
                    told = f"host_seat: must be one of the {seats.answer['seat_count']} seats, from 0"
                    raise Refused(422, told, "validation")
        if type is UTDStreamType.LIVE_STREAM and claims_host and identity == room.owner:
            there = self._store.occupants(name).get(identity)
            if there is None or there.dropped_at is not None:
                # It comes for the next show, to which others may come early.
                stage_rules.live(room, "open")
        self._store.set_person(name, who)
        return self._save(before, room, Said({"role": role(room, identity).value}), as_said)

    # --- the stage of a stream; answers: the stage, or where the stream is

    def ask(self, name: str, actor: str) -> Changed:
        """A viewer raises its hand."""
        return self._on_stage(name, lambda room: stage_rules.ask(room, self._person(room, actor), self._now()))

    def lower(self, name: str, actor: str) -> Changed:
        """A viewer takes its hand down."""
        return self._on_stage(name, lambda room: stage_rules.lower(room, actor))

    def step_down(self, name: str, actor: str) -> Changed:
        """A member leaves the stage."""
        return self._on_stage(name, lambda room: stage_rules.step_down(room, actor))

    def add(self, name: str, actor: str, target: str) -> Changed:
        """A moderator takes somebody on stage. Refused besides: 403 ``target_banned``."""
        return self._on_stage(name, lambda room: stage_rules.add(room, actor, self._invitable(room, actor, target)))

    def remove(self, name: str, actor: str, target: str) -> Changed:
        """A moderator takes somebody off the stage."""
        return self._on_stage(name, lambda room: stage_rules.remove(room, actor, target))

    def start_live(self, name: str, actor: str) -> Changed:
        """The host goes live."""
        return self._verb(name, STREAM, lambda room: stage_rules.start_live(room, actor), _live)

    def end_live(self, name: str, actor: str) -> Changed:
        """The host ends the stream; the stage is empty then, and all hands are down."""
        return self._verb(name, STREAM, lambda room: stage_rules.end_live(room, actor), _live)

    # --- the seats of an audio room; answers: what was done, and the grid

    def setup(
        self, name: str, actor: str, count: int | None, mode: UTDSeatMode | None, mode_id: int | str | None
    ) -> Changed:
        """A moderator sets up the seats, the first time or again; None is what it was, or 8 free seats."""
        return self._on_seats(name, lambda room: seat_rules.setup_by(room, actor, count, mode, mode_id))

    def take(self, name: str, actor: str, index: int) -> Changed:
        """Somebody sits down."""
        return self._on_seats(name, lambda room: seat_rules.take(room, self._person(room, actor), index))

    def leave(self, name: str, actor: str) -> Changed:
        """Somebody gives its seat back."""
        return self._on_seats(name, lambda room: seat_rules.leave(room, actor))

    def move(self, name: str, actor: str, index: int) -> Changed:
        """Somebody changes to a free seat."""
        return self._on_seats(name, lambda room: seat_rules.move(room, actor, index))

    def kick(self, name: str, actor: str, index: int) -> Changed:
        """A moderator takes a seat away from whoever sits there."""
        return self._on_seats(name, lambda room: seat_rules.kick(room, actor, index))

    def lock(self, name: str, actor: str, index: int) -> Changed:
        """A moderator closes a seat."""
        return self._on_seats(name, lambda room: seat_rules.lock(room, actor, index))

    def unlock(self, name: str, actor: str, index: int) -> Changed:
        """A moderator opens a seat."""
        return self._on_seats(name, lambda room: seat_rules.unlock(room, actor, index))

    def mute(self, name: str, actor: str, index: int) -> Changed:
        """A moderator silences whoever sits on a seat."""
        return self._on_seats(name, lambda room: seat_rules.mute(room, actor, index, True))

    def unmute(self, name: str, actor: str, index: int) -> Changed:
        """A moderator lets whoever sits on a seat be heard again."""
        return self._on_seats(name, lambda room: seat_rules.mute(room, actor, index, False))

    def swap(self, name: str, actor: str, a: int, b: int) -> Changed:
        """A moderator swaps two seats."""
        return self._on_seats(name, lambda room: seat_rules.swap(room, actor, a, b))

    def mute_all(self, name: str, actor: str, muted: bool) -> Changed:
        """A moderator silences all who sit or will sit down, or no longer."""
        return self._on_seats(name, lambda room: seat_rules.mute_all(room, actor, muted))

    # --- who speaks; answers: what was done, and the grid

    def request(self, name: str, actor: str) -> Changed:
        """Somebody asks to speak."""
        return self._on_seats(name, lambda room: seat_rules.request(room, self._person(room, actor), self._now()))

    def cancel(self, name: str, actor: str) -> Changed:
        """Somebody takes its request back."""
        return self._on_seats(name, lambda room: seat_rules.cancel(room, actor))

    def approve(self, name: str, actor: str, request_id: int) -> Changed:
        """A moderator gives whoever asked the first free seat."""
        return self._on_seats(
            name, lambda room: seat_rules.approve(room, actor, request_id, lambda who: self._person(room, who))
        )

    def reject(self, name: str, actor: str, request_id: int) -> Changed:
        """A moderator refuses a request."""
        return self._on_seats(name, lambda room: seat_rules.reject(room, actor, request_id))

    def invite(self, name: str, actor: str, target: str, seat_index: int | None) -> Changed:
        """A moderator invites somebody to sit. Refused besides: 403 ``target_banned``."""

        def rule(room: RoomRecord) -> Said:
            self._invitable(room, actor, target)
            return seat_rules.invite(room, actor, target, seat_index, self._now())

        return self._on_seats(name, rule)

    def accept(self, name: str, actor: str, invitation_id: int) -> Changed:
        """The invited one sits down."""
        return self._on_seats(name, lambda room: seat_rules.accept(room, self._person(room, actor), invitation_id))

    def decline(self, name: str, actor: str, invitation_id: int) -> Changed:
        """The invited one says no."""
        return self._on_seats(name, lambda room: seat_rules.decline(room, actor, invitation_id))

    # --- moderation

    def set_role(self, name: str, actor: str, target: str, role: UTDRole) -> Changed:
        """The owner gives somebody a role. Answer: ``{identity, role, previous_role}``."""
        return self._verb(name, None, lambda room: moderation.set_role(room, actor, target, role), as_said)

    def lock_comments(self, name: str, actor: str, locked: bool) -> Changed:
        """A moderator closes the chat, or opens it. Answer: ``{locked, version}``."""
        return self._verb(name, None, lambda room: moderation.lock_comments(room, actor, locked), _comments)

    def kick_out(self, name: str, actor: str, target: str) -> Changed:
        """A moderator puts somebody out of the room. Answer: ``{identity}``."""
        return self._verb(name, None, lambda room: moderation.kick_out(room, actor, target), as_said)

    def may_mute(self, name: str, actor: str, target: str) -> RoomRecord:
        """The room, if `actor` may mute the tracks of `target` there."""
        room = self.get(name)
        moderation.may_act_on(room, actor, target)
        return room

    # --- the engine itself; not `changed` where it is no longer so

    def gone(self, name: str, identity: str) -> Changed:
        """Somebody vanished and did not come back."""
        return self._verb(name, None, lambda room: moderation.clear(room, identity), as_said)

    def host_away(self, name: str) -> Changed:
        """The host of a stream that is live dropped."""
        return self._verb(name, STREAM, lambda room: stage_rules.live(room, "away"), _live)

    def host_back(self, name: str) -> Changed:
        """The host who was away is back."""
        return self._verb(name, STREAM, lambda room: stage_rules.live(room, "back"), _live)

    def live_over(self, name: str) -> Changed:
        """The host who was away did not come back."""
        return self._verb(name, STREAM, lambda room: stage_rules.live(room, "over"), _live)

    # --- how a verb runs

    def _on_stage(self, name: str, rule: Callable[[RoomRecord], Said]) -> Changed:
        return self._verb(name, STREAM, rule, _stage)

    def _on_seats(self, name: str, rule: Callable[[RoomRecord], Said]) -> Changed:
        return self._verb(name, AUDIO, rule, _with_grid)

    # --- persons

    def _introduced(
        self, room: RoomRecord, identity: str, display: str | None, attributes: Mapping[str, Any]
    ) -> Person:
        """A person's name and attributes as they are from now on, also wherever it already sits or stands."""
        known = self._person(room, identity)
        shown = {
            key: attributes[key]
            for key in ATTRIBUTES
            if isinstance(attributes.get(key), str) and len(attributes[key]) <= MAX_ATTRIBUTE
        }
        who = Person(identity, display or known.name, ReadOnlyDict(shown) if shown else known.attributes)
        room.seats = [replace(row, who=who) if row.identity == identity else row for row in room.seats]
        room.requests = [replace(one, name=who.name) if one.identity == identity else one for one in room.requests]
        room.stage = [replace(one, name=who.name) if one.identity == identity else one for one in room.stage]
        room.hands = [replace(one, name=who.name) if one.identity == identity else one for one in room.hands]
        return who


def _own(room: RoomRecord, owner: str | None) -> None:
    """The room has an owner now: whatever it was as a viewer, it is its host."""
    if owner is not None:
        stage_rules.clear(room, owner)
        room.roles.pop(owner, None)
        room.owner = owner
        seat_rules.reserve_host_seat(room)
