"""The rules of the seats of an audio room: who may do what, and which steps of the verb table it takes.

Every function works on the caller's copy of the record, which the caller throws away if it raises `Refused`. Pure: no
I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from utd_fsm import room_wire
from utd_fsm.models import UTDSeatMode
from utd_fsm.room_models import UTDInvitation, UTDSpeakerRequest
from utd_fsm.wire import ILLEGAL_TRANSITION

from .refusal import Refused
from .room_rights import must_moderate, must_spare_host
from .room_state import DEFAULT_SEATS, Note, Person, RoomRecord, Said, SeatRow
from .seat_steps import (
    PersonStep,
    SeatStep,
    Sitter,
    apply,
    dismisses,
    locks,
    moves,
    rises,
    sits,
    standing,
    swaps,
)

REQUEST_MODE: Final = "request_mode"
NO_FREE_SEAT: Final = "no_free_seat"
RESERVED: Final = "reserved"
NOT_INVITED: Final = "not_invited"
NO_SUCH_SEAT: Final = "no_such_seat"
MAX_MODE_ID: Final = 100


# ------------------------------------------------------------------------------------------------ asked before steps


def _row(room: RoomRecord, index: int) -> SeatRow:
    if not room.seats:
        raise Refused(409, "this room has no seats yet: its host or an admin sets them up", ILLEGAL_TRANSITION)
    if not 0 <= index < len(room.seats):
        raise Refused(404, f"no seat {index}: this room has the seats 0 to {len(room.seats) - 1}", NO_SUCH_SEAT)
    return room.seats[index]


def sitter(room: RoomRecord, index: int) -> Sitter | None:
    """Who sits on this seat.

    Raises: Refused: 404, there is no such seat; 409, there are none yet.
    """
    row = _row(room, index)
    return None if row.who is None else Sitter(row.who, index, row.state == "muted")


def _own(room: RoomRecord, identity: str) -> Sitter:
    index = room.seat_of(identity)
    one = None if index is None else sitter(room, index)
    if one is None:
        raise Refused(409, "not possible: does not sit; take a seat first", ILLEGAL_TRANSITION)
    return one


def _must_be_for(room: RoomRecord, index: int, identity: str) -> None:
    if _row(room, index).reserved_for not in (None, identity):
        raise Refused(403, f"seat {index} is reserved for somebody else: take another", RESERVED)


def _first_free(room: RoomRecord, identity: str) -> int:
    for index, row in enumerate(room.seats):
        if row.state == "free" and row.reserved_for in (None, identity):
            return index
    raise Refused(409, "no free seat: one must be left, or unlocked, first", NO_FREE_SEAT)


def _sit(room: RoomRecord, who: Person, index: int | None) -> int:
    """Sit down, on the first free seat where no other is named."""
    if index is None:
        index = _first_free(room, who.identity)
    _must_be_for(room, index, who.identity)
    apply(room, sits(who, index, muted=room.all_muted and who.identity != room.owner))
    return index


# ------------------------------------------------------------------------------------------------------ about seats


def reserve_host_seat(room: RoomRecord) -> None:
    """The host's seat is the host's, and no other is."""
    for index, row in enumerate(room.seats):
        wanted = room.owner if index == room.host_seat else None
        if wanted is not None or row.reserved_for == room.owner:
            room.seats[index] = replace(row, reserved_for=wanted)


def setup(room: RoomRecord, count: int | None, mode: UTDSeatMode | None, mode_id: int | str | None) -> Said:
    """The seats are set up, or set up again; None is what it was. Whoever has a seat that still exists keeps it."""
    if count is not None and not 1 <= count <= room_wire.MAX_SEATS:
        raise Refused(422, f"seat_count: must be 1 to {room_wire.MAX_SEATS}", "validation")
    if isinstance(mode_id, str) and len(mode_id) > MAX_MODE_ID:
        raise Refused(422, f"mode_id: at most {MAX_MODE_ID} characters", "validation")
    before = len(room.seats), room.mode, room.mode_id
    count = count or len(room.seats) or DEFAULT_SEATS
    room.mode = mode or room.mode
    room.mode_id = room.mode_id if mode_id is None else mode_id
    for index in range(count, len(room.seats)):
        one = sitter(room, index)
        if one is not None:
            apply(room, rises(one))
    apply(room, dismisses(one.identity for one in room.invitations if (one.seat_index or 0) >= count))
    if room.mode is UTDSeatMode.FREE:
        apply(room, dismisses(one.identity for one in room.requests))
    assert all(row.who is None for row in room.seats[count:]), "a seat is taken away from under somebody"
    room.seats = [*room.seats[:count], *(SeatRow() for _ in range(len(room.seats), count))]
    if room.host_seat >= count:
        room.host_seat = 0
    reserve_host_seat(room)
    now = {"seat_count": count, "seat_mode": room.mode.value, "mode_id": room.mode_id}
    news = (count, room.mode, room.mode_id) != before
    return Said(now, (Note(room_wire.MODE_CHANGE, now),) if news else ())


def setup_by(
    room: RoomRecord, actor: str, count: int | None, mode: UTDSeatMode | None, mode_id: int | str | None
) -> Said:
    """A moderator sets up the seats."""
    must_moderate(room, actor)
    return setup(room, count, mode, mode_id)


def take(room: RoomRecord, who: Person, index: int) -> Said:
    """Somebody sits down by itself."""
    _row(room, index)
    waits = room.mode is UTDSeatMode.REQUEST and who.identity != room.owner
    if waits and standing(room, who.identity) != "seated":
        raise Refused(403, "seats are given on request here: ask to speak, and a moderator approves", REQUEST_MODE)
    return Said({"seat_index": _sit(room, who, index)})


def leave(room: RoomRecord, actor: str) -> Said:
    """Somebody gives its seat back."""
    one = _own(room, actor)
    apply(room, rises(one))
    return Said({"seat_index": one.index})


def move(room: RoomRecord, actor: str, index: int) -> Said:
    """Somebody changes to another seat."""
    one = _own(room, actor)
    _must_be_for(room, index, actor)
    if index == one.index:
        raise Refused(409, f"not possible: sits on seat {index} already", ILLEGAL_TRANSITION)
    apply(room, moves(one, index))
    return Said({"from": one.index, "to": index})


def swap(room: RoomRecord, actor: str, a: int, b: int) -> Said:
    """Two change seats; with an empty seat it is a move."""
    must_moderate(room, actor)
    if a == b:
        raise Refused(422, "b: must be another seat than a", "validation")
    first, second = sitter(room, a), sitter(room, b)
    for one, target in ((first, b), (second, a)):
        if one is not None:
            must_spare_host(room, actor, one.who.identity)
            _must_be_for(room, target, one.who.identity)
    if first is not None and second is not None:
        apply(room, swaps(first, second))
    elif first is not None:
        apply(room, moves(first, b))
    elif second is not None:
        apply(room, moves(second, a))
    else:
        raise Refused(409, f"not possible: nobody sits on seat {a} or seat {b}", ILLEGAL_TRANSITION)
    return Said({"a": a, "b": b})


def _acted_on(room: RoomRecord, actor: str, index: int) -> Sitter | None:
    """Who sits on the seat that a moderator acts on."""
    must_moderate(room, actor)
    one = sitter(room, index)
    must_spare_host(room, actor, None if one is None else one.who.identity)
    return one


def kick(room: RoomRecord, actor: str, index: int) -> Said:
    """A moderator takes somebody's seat away."""
    one = _acted_on(room, actor, index)
    apply(room, (SeatStep(index, "vacate"),) if one is None else rises(one))
    return Said({"seat_index": index, "identity": None if one is None else one.who.identity})


def lock(room: RoomRecord, actor: str, index: int) -> Said:
    """A moderator closes a seat; whoever sits there loses it first."""
    apply(room, locks(index, _acted_on(room, actor, index)))
    return Said({"seat_index": index, "locked": True})


def unlock(room: RoomRecord, actor: str, index: int) -> Said:
    """A moderator opens a seat."""
    _acted_on(room, actor, index)
    apply(room, (SeatStep(index, "unlock"),))
    return Said({"seat_index": index, "locked": False})


def mute(room: RoomRecord, actor: str, index: int, muted: bool) -> Said:
    """A moderator silences whoever sits on a seat, or no longer."""
    _acted_on(room, actor, index)
    apply(room, (SeatStep(index, "mute" if muted else "unmute"),))
    return Said({"seat_index": index, "muted": muted})


def mute_all(room: RoomRecord, actor: str, muted: bool) -> Said:
    """Everybody who sits and, from now on, sits down; never the host, and not the moderator who says so."""
    must_moderate(room, actor)
    spared = {room.owner, actor} if muted else set()
    event = "mute" if muted else "unmute"
    sitting = [i for i, row in enumerate(room.seats) if row.identity is not None and row.identity not in spared]
    apply(room, tuple(SeatStep(index, event) for index in sitting))
    room.all_muted = muted
    return Said({"all_muted": muted})


# --------------------------------------------------------------------------------------------------- about speakers


def _next_id(room: RoomRecord) -> int:
    room.last_id += 1
    return room.last_id


def request(room: RoomRecord, who: Person, now: datetime) -> Said:
    """Somebody asks to speak."""
    if room.mode is not UTDSeatMode.REQUEST:
        raise Refused(409, "not possible: seats are free to take here, nobody is asked", ILLEGAL_TRANSITION)
    apply(room, (PersonStep(who.identity, "request"),))
    one = UTDSpeakerRequest(_next_id(room), who.identity, now, who.name)
    room.requests.append(one)
    told = {"request_id": one.id, **room_wire.request_json(one)}
    to = room.moderators()
    return Said({"request_id": one.id}, (Note(room_wire.SPEAKER_REQUEST, told, to),) if to else ())


def cancel(room: RoomRecord, actor: str) -> Said:
    """Somebody takes its request back."""
    one = room.request_of(actor)
    if one is None:
        raise Refused(409, "not possible: has not asked to speak", ILLEGAL_TRANSITION)
    apply(room, dismisses((actor,)))
    return Said({"request_id": one.id})


def _open_request(room: RoomRecord, actor: str, request_id: int) -> UTDSpeakerRequest:
    """What a moderator is about to answer."""
    must_moderate(room, actor)
    for one in room.requests:
        if one.id == request_id:
            return one
    raise Refused(409, f"not possible: no open request {request_id}; look at the list again", ILLEGAL_TRANSITION)


def approve(room: RoomRecord, actor: str, request_id: int, person: Callable[[str], Person]) -> Said:
    """A moderator grants a request: the first free seat, at once."""
    one = _open_request(room, actor, request_id)
    index = _sit(room, person(one.identity), None)
    told = {"request_id": request_id, "identity": one.identity, "seat_index": index}
    return Said(told, (Note(room_wire.SPEAKER_REQUEST_APPROVED, told, (one.identity,)),))


def reject(room: RoomRecord, actor: str, request_id: int) -> Said:
    """A moderator says no to a request."""
    one = _open_request(room, actor, request_id)
    apply(room, dismisses((one.identity,)))
    told = {"request_id": request_id, "identity": one.identity}
    return Said(told, (Note(room_wire.SPEAKER_REQUEST_REJECTED, told, (one.identity,)),))


def invite(room: RoomRecord, actor: str, target: str, seat_index: int | None, now: datetime) -> Said:
    """A moderator offers somebody a seat; which, is decided now, or by the first that is free at the acceptance."""
    must_moderate(room, actor)
    row = _row(room, 0 if seat_index is None else seat_index)
    apply(room, (PersonStep(target, "invite"),))
    if seat_index is not None:
        _must_be_for(room, seat_index, target)
        if row.state != "free":
            raise Refused(409, f"not possible: seat {seat_index} is {row.state}; offer a free one", ILLEGAL_TRANSITION)
    one = UTDInvitation(_next_id(room), target, actor, seat_index, now)
    room.invitations.append(one)
    told = {"invitation_id": one.id, "inviter_identity": actor, "target_identity": target, "seat_index": seat_index}
    return Said({"invitation_id": one.id}, (Note(room_wire.SPEAKER_INVITATION, told, (target,)),))


def _invitation(room: RoomRecord, actor: str, invitation_id: int) -> UTDInvitation:
    for one in room.invitations:
        if one.id == invitation_id:
            if one.identity != actor:
                raise Refused(403, "only the invited one can answer an invitation", NOT_INVITED)
            return one
    raise Refused(409, f"not possible: no open invitation {invitation_id}", ILLEGAL_TRANSITION)


def _answered(kind: str, one: UTDInvitation, seat_index: int | None) -> tuple[Note, ...]:
    told = {"invitation_id": one.id, "identity": one.identity, "seat_index": seat_index}
    return (Note(kind, told, (one.inviter,)),) if one.inviter is not None else ()


def accept(room: RoomRecord, who: Person, invitation_id: int) -> Said:
    """The invited one sits down, in either mode."""
    one = _invitation(room, who.identity, invitation_id)
    index = _sit(room, who, one.seat_index)
    told = {"invitation_id": one.id, "seat_index": index}
    return Said(told, _answered(room_wire.SPEAKER_INVITATION_ACCEPTED, one, index))


def decline(room: RoomRecord, actor: str, invitation_id: int) -> Said:
    """The invited one says no."""
    one = _invitation(room, actor, invitation_id)
    apply(room, dismisses((actor,)))
    return Said({"invitation_id": one.id}, _answered(room_wire.SPEAKER_INVITATION_DECLINED, one, one.seat_index))


def clear(room: RoomRecord, identity: str) -> None:
    """Somebody is gone: seat, request and invitation with it."""
    here = standing(room, identity)
    if here == "seated":
        apply(room, rises(_own(room, identity)))
    elif here != "listener":
        apply(room, dismisses((identity,)))
