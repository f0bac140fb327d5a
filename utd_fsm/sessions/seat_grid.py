"""The grid of an audio room as one participant knows it: the newest snapshot, what led to it, what is refused by it.

Pure: no I/O, no asyncio, no clock. One writer (`GridFold`) replaces the snapshot by its number; what lies between two
of them is explained by the verb table of `utd_fsm.machines.seat`, or is a resync. The refusals mirror the engine's
rules, so that an answer is clear and at once; the engine has the last word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from utd_fsm.errors import UTDInputError, UTDPermissionError, UTDStateError
from utd_fsm.models import UTDSeatMode
from utd_fsm.room_models import UTDInvitation, UTDSeat, UTDSeatGrid

RESYNC: Final = "resync"
"""No single verb leads from one grid to the other: versions were missed."""
NOTHING_MOVED: Final = "nothing"
"""Only what the machines know nothing of changed: a name, an avatar, the version."""


def standing_of(grid: UTDSeatGrid, identity: str | None) -> str:
    """Where a person stands: a state of the machine `SpeakerRecord`."""
    if identity is None:
        return "listener"
    if grid.seat_of(identity) is not None:
        return "seated"
    if any(one.identity == identity for one in grid.invitations):
        return "invited"
    if any(one.identity == identity for one in grid.requests):
        return "requested"
    return "listener"


def state_of(seat: UTDSeat) -> str:
    """A seat's state: one of the machine `Seat`."""
    if seat.identity is not None:
        return "muted" if seat.muted else "occupied"
    return "locked" if seat.locked else "free"


# ------------------------------------------------------------------------------------------------- what happened


def explain(before: UTDSeatGrid, after: UTDSeatGrid) -> str:
    """Which verb of the engine leads from one grid to the other, in one version.

    Returns:
        ``take``, ``approve``, ``accept``, ``leave`` (kicked and gone as well), ``move`` (a swap with an empty seat as
        well), ``swap``, ``lock``, ``unlock``, ``mute``, ``unmute``, ``mute_all``, ``request``, ``dismiss`` (of a
        request or an invitation, by whomever), ``invite``, ``setup``; `NOTHING_MOVED`, or `RESYNC` where it takes more
        than one.
    """
    if _arrangement(before) != _arrangement(after):
        return "setup" if _is_setup(before, after) else RESYNC
    asked, asks = _people(before.requests), _people(after.requests)
    bidden, bids = _people(before.invitations), _people(after.invitations)
    was_seated = {seat.identity for seat in before.seats if seat.identity is not None}
    moved = [
        (old, new)
        for old, new in zip(before.seats, after.seats, strict=True)
        if (state_of(old), old.identity) != (state_of(new), new.identity)
    ]
    lists_moved = (asked, bidden) != (asks, bids)
    if before.all_muted != after.all_muted or len(moved) > 2:
        return "mute_all" if not lists_moved and _is_mute_all(moved, after) else RESYNC
    if not moved:
        return _of_lists(asked, asks, bidden, bids, was_seated)
    if len(moved) == 1:
        (old, new) = moved[0]
        who = new.identity
        if state_of(old) == "free" and who is not None:
            return _of_sitting(new, after, was_seated, (asked, asks), (bidden, bids))
        return RESYNC if lists_moved else _of_one_seat(old, new)
    if lists_moved:
        return RESYNC
    if _is_exchange(moved):
        return "move" if any(old.identity is None for old, _ in moved) else "swap"
    return "mute_all" if _is_mute_all(moved, after) else RESYNC


def _arrangement(grid: UTDSeatGrid) -> tuple[object, ...]:
    return grid.count, len(grid.seats), grid.mode, grid.mode_id, tuple(seat.reserved_for for seat in grid.seats)


def _people(rows: Iterable[object]) -> Counter[str]:
    return Counter(str(getattr(row, "identity", "")) for row in rows)


def _is_setup(before: UTDSeatGrid, after: UTDSeatGrid) -> bool:
    """Who sits on a seat that still exists stays; a change to free mode may dismiss the requests."""
    kept = all(
        (state_of(old), old.identity) == (state_of(new), new.identity)
        for old, new in zip(before.seats, after.seats, strict=False)
    )
    new_seats_free = all(state_of(seat) == "free" for seat in after.seats[len(before.seats) :])
    asked, asks = _people(before.requests), _people(after.requests)
    dismissed = not asks and after.mode is UTDSeatMode.FREE
    invited = _people(after.invitations) <= _people(before.invitations)
    return kept and new_seats_free and (asked == asks or dismissed) and invited


def _is_mute_all(moved: list[tuple[UTDSeat, UTDSeat]], after: UTDSeatGrid) -> bool:
    """Muting spares the host and whoever said so; the end of it spares nobody."""
    if not after.all_muted and any(seat.muted for seat in after.seats):
        return False
    step = ("occupied", "muted") if after.all_muted else ("muted", "occupied")
    return all(old.identity == new.identity and (state_of(old), state_of(new)) == step for old, new in moved)


def _is_exchange(moved: list[tuple[UTDSeat, UTDSeat]]) -> bool:
    """Two seats changed places, mutes with the persons; neither is locked."""
    (a, new_a), (b, new_b) = moved
    here, there = (state_of(a), a.identity), (state_of(b), b.identity)
    open_ = "locked" not in (here[0], there[0])
    return open_ and (state_of(new_a), new_a.identity) == there and (state_of(new_b), new_b.identity) == here


def _of_lists(
    asked: Counter[str], asks: Counter[str], bidden: Counter[str], bids: Counter[str], seated: set[str]
) -> str:
    fewer_asks, more_asks = asked - asks, asks - asked
    fewer_bids, more_bids = bidden - bids, bids - bidden
    sizes = tuple(part.total() for part in (fewer_asks, more_asks, fewer_bids, more_bids))
    if sizes == (0, 0, 0, 0):
        return NOTHING_MOVED
    new = next(iter(more_asks or more_bids), "")
    if sizes == (0, 1, 0, 0) and new not in seated | set(asked) | set(bidden):
        return "request"
    if sizes in ((1, 0, 0, 0), (0, 0, 1, 0)):
        return "dismiss"
    if sizes in ((0, 0, 0, 1), (1, 0, 0, 1)) and new not in seated | set(bidden):
        # Whoever asked and is invited instead asks no longer.
        return "invite" if fewer_asks == Counter({new: 1} if new in asked else {}) else RESYNC
    return RESYNC


def _of_sitting(
    seat: UTDSeat,
    after: UTDSeatGrid,
    was_seated: set[str],
    requests: tuple[Counter[str], Counter[str]],
    invitations: tuple[Counter[str], Counter[str]],
) -> str:
    who = seat.identity or ""
    if who in was_seated or (seat.muted and not after.all_muted):
        return RESYNC
    for listed, remaining in (requests, invitations):
        if listed - Counter({who: listed[who]}) != remaining:
            return RESYNC
    return "approve" if who in requests[0] else "accept" if who in invitations[0] else "take"


_ONE_SEAT: Final = {
    ("occupied", "free"): "leave",
    ("muted", "free"): "leave",
    ("free", "locked"): "lock",
    ("occupied", "locked"): "lock",
    ("muted", "locked"): "lock",
    ("locked", "free"): "unlock",
    ("occupied", "muted"): "mute",
    ("muted", "occupied"): "unmute",
}


def _of_one_seat(old: UTDSeat, new: UTDSeat) -> str:
    if old.identity is not None and new.identity not in (None, old.identity):
        return RESYNC  # somebody left and somebody else sat down
    return _ONE_SEAT.get((state_of(old), state_of(new)), RESYNC)


# ------------------------------------------------------------------------------------------------------- the fold


@dataclass(frozen=True, slots=True)
class GridNews:
    """A grid that is newer than what was known."""

    before: UTDSeatGrid
    grid: UTDSeatGrid
    verb: str
    """What happened: see `explain`. The first grid is a resync."""
    standing: str
    """The viewer's, now."""
    invitations: tuple[UTDInvitation, ...]
    """Those for the viewer that were not seen before."""


class GridFold:
    """The newest grid, and the only one who replaces it.

    Args:
        viewer: whose view it is.
    """

    def __init__(self, viewer: str | None) -> None:
        self.viewer = viewer
        self.grid = UTDSeatGrid(viewer=viewer)
        self.number: int | None = None
        """The version of the grid, or what numbers its arrival; None before the first."""
        self._invitations: set[int] = set()

    def fold(self, grid: UTDSeatGrid, number: int) -> GridNews | None:
        """Take in what was heard, by whatever channel. What is not newer changes nothing: None."""
        before, known = self.grid, self.number
        if known is not None and number <= known:
            return None
        self.grid, self.number = grid, number
        fresh = tuple(one for one in self.mine(grid) if one.id not in self._invitations)
        self._invitations.update(one.id for one in fresh)
        verb = RESYNC if known is None else explain(before, grid)
        return GridNews(before, grid, verb, standing_of(grid, self.viewer), fresh)

    def mine(self, grid: UTDSeatGrid) -> tuple[UTDInvitation, ...]:
        """The open invitations for the viewer, oldest first."""
        return tuple(one for one in grid.invitations if one.identity == self.viewer)


# ---------------------------------------------------------------------------------------------- what is refused here


def seat_at(grid: UTDSeatGrid, index: int, event: str, what: str = "index") -> UTDSeat:
    """The seat of this index.

    Raises:
        UTDStateError: no seats are set up.
        UTDInputError: there is none of this index.
    """
    if not grid.seats:
        raise UTDStateError(
            f"{event}: no seats are set up here; the host or an admin calls setup_seats() first",
            state="no seats",
            event=event,
            allowed=("setup_seats",),
        )
    if index >= len(grid.seats):
        raise UTDInputError(
            f"{event}: {what}: {index}; allowed: 0 to {len(grid.seats) - 1}, since there are {len(grid.seats)} seats"
        )
    return grid.seats[index]


def refuse_sitting(grid: UTDSeatGrid, index: int, event: str) -> None:
    """Whether the viewer could sit on this seat, by the newest grid: empty, open, and not for somebody else.

    Raises:
        UTDStateError: locked or taken, or there are no seats.
        UTDPermissionError: reserved for somebody else.
        UTDInputError: no seat has this index.
    """
    seat = seat_at(grid, index, event)
    if seat.reserved_for not in (None, grid.viewer):
        raise UTDPermissionError(f"{event}: seat {index} is reserved for somebody else; {_free(grid)}")
    if seat.identity is not None:
        whose = "yours already" if seat.identity == grid.viewer else f"taken by {seat.identity}"
        _not_now(grid, seat, event, whose)
    if seat.locked:
        _not_now(grid, seat, event, "locked by a moderator")


def refuse_taking(grid: UTDSeatGrid, index: int, *, is_host: bool) -> None:
    """Whether the viewer, who does not sit yet, may take this seat.

    Raises: as `refuse_sitting`, and `UTDPermissionError` in request mode, but not to the host.
    """
    seat_at(grid, index, "take_seat")
    if grid.mode is UTDSeatMode.REQUEST and not is_host:
        raise UTDPermissionError(
            "take_seat: seats are given on request here; request_to_speak() and be approved, or accept_invitation()"
        )
    refuse_sitting(grid, index, "take_seat")


def refuse_requesting(grid: UTDSeatGrid) -> None:
    """Whether asking for a seat makes sense.

    Raises:
        UTDStateError: seats are free to take, or there are none.
    """
    seat_at(grid, 0, "request_to_speak")
    if grid.mode is UTDSeatMode.FREE:
        raise UTDStateError(
            f"request_to_speak: seats are free to take here; take_seat(index) instead; {_free(grid)}",
            state=grid.mode.value,
            event="request_to_speak",
            allowed=("take_seat",),
        )


def refuse_inviting(grid: UTDSeatGrid, identity: str, index: int | None) -> None:
    """Whether somebody can be invited, to this seat or (None) to any.

    Raises:
        UTDStateError: sits or is invited already; the seat is taken or locked; or there are no seats.
        UTDPermissionError: the seat is reserved for somebody else.
        UTDInputError: no seat has this index.
    """
    event = "invite_to_speak"
    seat = seat_at(grid, 0 if index is None else index, event, "seat_index")
    standing = standing_of(grid, identity)
    if standing in ("seated", "invited"):
        raise UTDStateError(f"{event}: {identity} is {standing} already; nothing to offer", state=standing, event=event)
    if index is not None:
        if seat.reserved_for not in (None, identity):
            raise UTDPermissionError(f"{event}: seat {index} is reserved for somebody else; offer another")
        if state_of(seat) != "free":
            _not_now(grid, seat, event, state_of(seat))


def refuse_empty(grid: UTDSeatGrid, index: int, event: str) -> str:
    """Who sits there.

    Raises:
        UTDStateError: nobody, or there are no seats.
        UTDInputError: no seat has this index.
    """
    seat = seat_at(grid, index, event)
    if seat.identity is None:
        taken = ", ".join(str(one.index) for one in grid.seats if one.identity is not None)
        raise UTDStateError(
            f"{event}: nobody sits on seat {index}; taken seats: {taken or 'none'}", state=state_of(seat), event=event
        )
    return seat.identity


def refuse_unlocking(grid: UTDSeatGrid, index: int) -> None:
    """Whether this seat can be unlocked; one that is open and empty can, and nothing happens.

    Raises:
        UTDStateError: somebody sits there, or there are no seats.
        UTDInputError: no seat has this index.
    """
    seat = seat_at(grid, index, "unlock_seat")
    if seat.identity is not None:
        raise UTDStateError(
            f"unlock_seat: seat {index} is not locked, {seat.identity} sits there; kick_seat({index}) empties it",
            state=state_of(seat),
            event="unlock_seat",
            allowed=("kick_seat",),
        )


def refuse_swap(grid: UTDSeatGrid, a: int, b: int) -> tuple[str, ...]:
    """Who sits on the two seats.

    Raises:
        UTDInputError: the same seat twice, or no seat has such an index.
        UTDStateError: one of them is locked, or nobody sits on either.
    """
    if a == b:
        raise UTDInputError(f"swap_seats: a and b are both {a}; allowed: two different seats")
    seats = seat_at(grid, a, "swap_seats", "a"), seat_at(grid, b, "swap_seats", "b")
    for seat in seats:
        if seat.locked:
            raise UTDStateError(
                f"swap_seats: seat {seat.index} is locked; unlock_seat({seat.index}) first",
                state="locked",
                event="swap_seats",
                allowed=("unlock_seat",),
            )
    sitting = tuple(seat.identity for seat in seats if seat.identity is not None)
    if not sitting:
        raise UTDStateError(
            f"swap_seats: nobody sits on seat {a} or {b}; at least one must be taken", state="free", event="swap_seats"
        )
    return sitting


def _not_now(grid: UTDSeatGrid, seat: UTDSeat, event: str, why: str) -> NoReturn:
    raise UTDStateError(f"{event}: seat {seat.index} is {why}; {_free(grid)}", state=state_of(seat), event=event)


def _free(grid: UTDSeatGrid) -> str:
    free = ", ".join(map(str, grid.free_seats()))
    return f"free seats: {free}" if free else "no seat is free"
