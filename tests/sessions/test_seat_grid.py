"""The grid's fold against the declared machines, stepped one by one through the verb table: all steps or none.

The oracle here is a table of its own: it starts the machines `Seat` and `SpeakerRecord` in the states that a grid says,
takes the steps of every instance of every verb, and reads the grids that come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utd_fsm.errors import UTDInputError, UTDPermissionError, UTDStateError
from utd_fsm.machines.base import start
from utd_fsm.machines.seat import Seat
from utd_fsm.machines.speaker import Speaker, SpeakerRecord
from utd_fsm.models import UTDSeatMode
from utd_fsm.observe import Snapshot, fold
from utd_fsm.room_models import UTDInvitation, UTDSeat, UTDSeatGrid, UTDSpeakerRequest
from utd_fsm.sessions import seat_grid
from utd_fsm.sessions.seat_grid import NOTHING_MOVED, RESYNC, GridFold, explain, standing_of, state_of

HOST, PEOPLE = "host", ("host", "ann", "bob", "cyd")
SEATS = 3

Step = tuple[str, str | int, str, str | None]
"""("person", who, event, None) or ("seat", index, event, who sits down)"""


def stepped(grid: UTDSeatGrid, *steps: Step) -> UTDSeatGrid | None:
    """The grid after all steps; None where one of them is not declared."""
    seats = list(grid.seats)
    asks = {one.identity: one for one in grid.requests}
    bids = {one.identity: one for one in grid.invitations}
    sits = {seat.identity for seat in seats} - {None}
    number = 1 + max([0, *(one.id for one in grid.requests), *(one.id for one in grid.invitations)])
    people = {who: start(SpeakerRecord, standing_of(grid, who)) for who in PEOPLE}
    for kind, which, event, sitter in steps:
        try:
            if kind == "person":
                who = str(which)
                state = people[who].send(event).after
                asks = {key: one for key, one in asks.items() if key != who or state == "requested"}
                bids = {key: one for key, one in bids.items() if key != who or state == "invited"}
                if event == "request":
                    asks[who] = UTDSpeakerRequest(number, who)
                elif event == "invite":
                    bids[who] = UTDInvitation(number, who, HOST)
                elif event == "sit":
                    sits.add(who)
                elif event == "unseat":
                    sits.discard(who)
                continue
            index = int(which)
            state = start(Seat, state_of(seats[index])).send(event).after
        except UTDStateError:
            return None
        taken = state in ("occupied", "muted")
        sitting = (sitter if event == "take" else seats[index].identity) if taken else None
        seats[index] = UTDSeat(index, sitting, locked=state == "locked", muted=state == "muted")
    now = replace(
        grid,
        seats=tuple(seats),
        requests=tuple(asks.values()),
        invitations=tuple(bids.values()),
        version=(grid.version or 0) + 1,
    )
    for who in PEOPLE:
        assert people[who].state == standing_of(now, who), "the steps of the verb table keep seat and person together"
    assert {seat.identity for seat in seats} - {None} == sits
    return now


def mute_if(index: int, muted: bool) -> tuple[Step, ...]:
    return (("seat", index, "mute", None),) if muted else ()


def verbs(grid: UTDSeatGrid) -> Iterator[tuple[str, UTDSeatGrid]]:
    """Every instance of every verb that is possible now: by which name it may be explained, and what it leads to."""
    for name, steps in _verbs(grid):
        after = stepped(grid, *steps)
        if after is not None:
            yield name, after
    sitting = [seat.index for seat in grid.seats if seat.identity is not None]
    for spared in (frozenset[str](), {HOST}, {HOST, "ann"}):
        muted = [i for i in sitting if grid.seats[i].identity not in spared]
        after = stepped(replace(grid, all_muted=True), *(("seat", i, "mute", None) for i in muted))
        assert after is not None
        yield "mute_all", after
    after = stepped(replace(grid, all_muted=False), *(("seat", i, "unmute", None) for i in sitting))
    assert after is not None
    yield "mute_all", after


def _verbs(grid: UTDSeatGrid) -> Iterator[tuple[str, tuple[Step, ...]]]:
    where = {seat.identity: seat for seat in grid.seats if seat.identity is not None}
    for who in PEOPLE:
        standing = standing_of(grid, who)
        sits = {"requested": "approve", "invited": "accept"}.get(standing, "take")
        for i in range(len(grid.seats)):
            for muted in {grid.all_muted, False}:  # the host is spared
                yield sits, (("person", who, "sit", None), ("seat", i, "take", who), *mute_if(i, muted))
            if who in where:
                old = where[who]
                took = ("seat", i, "take", who)
                yield "move", (
                    ("seat", old.index, "vacate", None), took, *mute_if(i, old.muted), ("person", who, "move", None)
                )  # fmt: skip
        yield "request", (("person", who, "request", None),)
        yield "dismiss", (("person", who, "dismiss", None),)
        yield "invite", (("person", who, "invite", None),)
        if who in where:
            yield "leave", (("person", who, "unseat", None), ("seat", where[who].index, "vacate", None))
    for seat in grid.seats:
        i = seat.index
        sitter = seat.identity
        evicted: tuple[Step, ...] = () if sitter is None else (
            ("seat", i, "vacate", None), ("person", sitter, "unseat", None)
        )  # fmt: skip
        yield "lock", (*evicted, ("seat", i, "lock", None))
        for name in ("unlock", "mute", "unmute"):
            yield name, (("seat", i, name, None),)
        for other in grid.seats[:i]:
            if sitter is not None and other.identity is not None:
                yield (
                    "swap",
                    (
                        ("seat", i, "vacate", None),
                        ("seat", other.index, "vacate", None),
                        ("seat", other.index, "take", sitter),
                        ("seat", i, "take", other.identity),
                        *mute_if(other.index, seat.muted),
                        *mute_if(i, other.muted),
                        ("person", sitter, "move", None),
                        ("person", other.identity, "move", None),
                    ),
                )


def abstract(grid: UTDSeatGrid) -> object:
    """What the machines know of a grid."""
    asks, bids = ({one.identity for one in rows} for rows in (grid.requests, grid.invitations))
    return tuple((state_of(seat), seat.identity) for seat in grid.seats), asks, bids, grid.all_muted


EMPTY = UTDSeatGrid(SEATS, UTDSeatMode.REQUEST, tuple(UTDSeat(i) for i in range(SEATS)), version=0, viewer="ann")


@st.composite
def histories(draw: st.DrawFn, longest: int = 12) -> list[UTDSeatGrid]:
    """Grids, each one verb after the one before."""
    grids = [EMPTY]
    for _ in range(draw(st.integers(0, longest))):
        grids.append(draw(st.sampled_from([after for _, after in verbs(grids[-1])])))
    return grids


@given(histories())
@settings(deadline=None, max_examples=60)
def test_every_single_step_is_explained_by_its_verb(grids: list[UTDSeatGrid]) -> None:
    before = grids[-1]
    for name, after in verbs(before):
        said = explain(before, after)
        allowed = {name}
        if abstract(before) == abstract(after):
            allowed = {NOTHING_MOVED}
        elif name == "mute_all" and before.all_muted == after.all_muted:
            allowed |= {"mute", "unmute"}  # of a single seat: the same thing
        assert said in allowed, (name, said)


@given(histories(), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_what_is_explained_is_one_step_away_and_everything_else_is_a_resync(
    grids: list[UTDSeatGrid], apart: int
) -> None:
    before, after = grids[max(0, len(grids) - 1 - apart)], grids[-1]
    reachable = {NOTHING_MOVED: [abstract(before)]}
    for name, one in verbs(before):
        reachable.setdefault(name, []).append(abstract(one))
        if name == "mute_all":
            reachable.setdefault("mute", []).append(abstract(one))
            reachable.setdefault("unmute", []).append(abstract(one))
    said = explain(before, after)
    if said == RESYNC:
        assert all(abstract(after) not in some for some in reachable.values())
    elif said == "mute_all":  # whom a moderator spares is whoever it is: any set of them
        assert [one.identity for one in before.seats] == [one.identity for one in after.seats]
    else:
        assert abstract(after) in reachable[said]


@given(histories(), st.randoms(use_true_random=False), st.sampled_from(PEOPLE))
@settings(deadline=None, max_examples=80)
def test_however_grids_arrive_the_fold_ends_where_the_machines_are(
    grids: list[UTDSeatGrid], random: object, who: str
) -> None:
    heard = [*grids, *grids]
    random.shuffle(heard)  # type: ignore[attr-defined]
    grid_fold, view, known = GridFold(who), start(Speaker), None
    newest = -1
    for grid in heard:
        version = grid.version or 0
        news = grid_fold.fold(grid, version)
        known = fold(view, known, Snapshot(version, standing_of(grid, who)))
        assert (news is not None) == (version > newest)
        newest = max(newest, version)
        assert grid_fold.grid == grids[newest]
        assert view.state == standing_of(grids[newest], who)
        if news is not None:
            assert news.standing == view.state
    assert grid_fold.grid == grids[-1]


def test_each_invitation_is_new_once() -> None:
    invited = replace(EMPTY, invitations=(UTDInvitation(5, "ann"), UTDInvitation(6, "bob")), version=1)
    grid_fold = GridFold("ann")
    first = grid_fold.fold(invited, 1)
    assert first is not None
    assert [one.id for one in first.invitations] == [5]
    again = grid_fold.fold(replace(invited, version=2), 2)
    assert again is not None
    assert again.invitations == ()


def seated(**where: int) -> UTDSeatGrid:
    seats = list(EMPTY.seats)
    for who, index in where.items():
        seats[index] = replace(seats[index], identity=who)
    return replace(EMPTY, seats=tuple(seats))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (replace(EMPTY, seats=(UTDSeat(0, locked=True), *EMPTY.seats[1:])), seated(ann=0)),  # locked → occupied
        (
            replace(EMPTY, seats=(UTDSeat(0, locked=True), *EMPTY.seats[1:])),
            replace(seated(), seats=(UTDSeat(0, "ann", muted=True), *EMPTY.seats[1:])),  # locked → muted
        ),
        (seated(ann=0), seated(bob=0)),  # one left and one sat down
        (seated(), seated(ann=0, bob=1)),
        (seated(ann=0, bob=1), seated()),
        (seated(ann=0, bob=1), seated(bob=0, cyd=1)),
        (seated(ann=0, bob=1), seated(cyd=0, ann=1)),
        (seated(ann=0), replace(seated(), seats=(UTDSeat(0, "bob", muted=True), *EMPTY.seats[1:]), all_muted=False)),
        (
            replace(EMPTY, seats=(UTDSeat(0, "ann", muted=True), UTDSeat(1, "bob", muted=True), EMPTY.seats[2])),
            replace(
                seated(ann=0),
                seats=(UTDSeat(0, "ann"), UTDSeat(1, "bob", muted=True), EMPTY.seats[2]),
                requests=(UTDSpeakerRequest(1, "cyd"),),
            ),
        ),
        (
            replace(
                EMPTY,
                seats=(UTDSeat(0, "ann", muted=True), UTDSeat(1, "bob", muted=True), EMPTY.seats[2]),
                all_muted=True,
            ),
            replace(EMPTY, seats=(UTDSeat(0, "ann"), UTDSeat(1, "bob", muted=True), EMPTY.seats[2])),
        ),
        (seated(), replace(seated(), seats=(UTDSeat(0, "ann", muted=True), *EMPTY.seats[1:]))),  # nobody is muted
        (seated(ann=0), replace(seated(ann=0), all_muted=True, requests=(UTDSpeakerRequest(1, "bob"),))),
        (seated(ann=0), replace(seated(), requests=(UTDSpeakerRequest(1, "ann"),))),
        (replace(EMPTY, requests=(UTDSpeakerRequest(1, "ann"),)), seated(bob=0)),  # whose request went where?
        (seated(ann=0), replace(seated(ann=0), requests=(UTDSpeakerRequest(1, "ann"),))),  # who sits does not ask
        (replace(EMPTY, count=2, seats=EMPTY.seats[:2]), replace(seated(ann=2))),
    ],
)
def test_what_no_verb_does_is_a_resync(before: UTDSeatGrid, after: UTDSeatGrid) -> None:
    assert explain(before, after) == RESYNC


def test_setting_up_again_is_explained() -> None:
    before = replace(seated(ann=0, bob=2), requests=(UTDSpeakerRequest(1, "cyd"),))
    smaller = replace(before, count=2, seats=before.seats[:2])
    assert explain(before, smaller) == "setup"
    assert explain(smaller, replace(smaller, mode=UTDSeatMode.FREE, requests=())) == "setup"
    assert explain(smaller, replace(smaller, mode_id="other")) == "setup"
    assert explain(UTDSeatGrid(), EMPTY) == "setup"
    assert explain(smaller, replace(smaller, mode_id="other", requests=())) == RESYNC  # and one was dismissed
    assert explain(before, replace(smaller, seats=(smaller.seats[1], smaller.seats[0]))) == RESYNC


def test_a_name_or_an_avatar_is_nothing_to_the_machines() -> None:
    before = seated(ann=0)
    renamed = replace(before, seats=(replace(before.seats[0], name="Ann"), *before.seats[1:]))
    assert explain(before, renamed) == NOTHING_MOVED


# ------------------------------------------------------------------------------------------------------ the refusals

FREE = replace(EMPTY, mode=UTDSeatMode.FREE)
LOCKED = replace(FREE, seats=(FREE.seats[0], replace(FREE.seats[1], locked=True), FREE.seats[2]))
RESERVED = replace(FREE, seats=(replace(FREE.seats[0], reserved_for=HOST), *FREE.seats[1:]))
TAKEN = replace(seated(bob=2), mode=UTDSeatMode.FREE)


@pytest.mark.parametrize(
    ("grid", "index", "error", "says"),
    [
        (UTDSeatGrid(viewer="ann"), 0, UTDStateError, "setup_seats"),
        (FREE, 3, UTDInputError, "0 to 2"),
        (EMPTY, 0, UTDPermissionError, "request_to_speak"),
        (LOCKED, 1, UTDStateError, "free seats: 0, 2"),
        (TAKEN, 2, UTDStateError, "bob"),
        (RESERVED, 0, UTDPermissionError, "reserved"),
    ],
)
def test_a_seat_that_cannot_be_taken(grid: UTDSeatGrid, index: int, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        seat_grid.refuse_taking(grid, index, is_host=False)


def test_what_may_be_taken() -> None:
    seat_grid.refuse_taking(FREE, 2, is_host=False)
    seat_grid.refuse_taking(EMPTY, 0, is_host=True)
    seat_grid.refuse_taking(replace(RESERVED, viewer=HOST), 0, is_host=True)


def test_the_other_refusals_name_the_mend() -> None:
    with pytest.raises(UTDStateError, match="take_seat"):
        seat_grid.refuse_requesting(FREE)
    with pytest.raises(UTDStateError, match="taken seats: 2"):
        seat_grid.refuse_empty(TAKEN, 0, "kick_seat")
    with pytest.raises(UTDStateError, match="kick_seat"):
        seat_grid.refuse_unlocking(TAKEN, 2)
    with pytest.raises(UTDInputError, match="two different"):
        seat_grid.refuse_swap(TAKEN, 2, 2)
    with pytest.raises(UTDStateError, match="unlock_seat"):
        seat_grid.refuse_swap(LOCKED, 0, 1)
    with pytest.raises(UTDStateError, match="nobody sits"):
        seat_grid.refuse_swap(FREE, 0, 1)
    with pytest.raises(UTDStateError, match="seated already"):
        seat_grid.refuse_inviting(TAKEN, "bob", None)
    with pytest.raises(UTDPermissionError, match="reserved"):
        seat_grid.refuse_inviting(RESERVED, "ann", 0)
    with pytest.raises(UTDStateError, match="locked"):
        seat_grid.refuse_inviting(LOCKED, "ann", 1)
    assert seat_grid.refuse_swap(TAKEN, 0, 2) == ("bob",)
    assert seat_grid.refuse_empty(TAKEN, 2, "kick_seat") == "bob"
