"""What a grid promises to the ears, and what the demonstration finds wrong with one."""

from __future__ import annotations

from utd_fsm.cli.demo_room import audible_by, grid_differences
from utd_fsm.room_models import UTDSeat, UTDSeatGrid

GRID = UTDSeatGrid(
    count=4,
    seats=(UTDSeat(0, "host"), UTDSeat(1, locked=True), UTDSeat(2, "ann", muted=True), UTDSeat(3, "ben")),
)


def test_everybody_must_hear_who_sits_unmuted_but_not_itself() -> None:
    assert audible_by(GRID, ["host", "ann", "ben", "cleo"]) == {
        "host": ["ben"],
        "ann": ["host", "ben"],
        "ben": ["host"],
        "cleo": ["host", "ben"],
    }


def test_every_seat_is_looked_at() -> None:
    seated = {0: "host", 2: "ann", 3: "ben"}
    assert grid_differences(GRID, 4, seated, {1}, {2}) == []
    assert len(grid_differences(GRID, 8, seated, {1}, {2})) == 1
    assert len(grid_differences(GRID, 4, {**seated, 3: "cleo"}, {1}, {2})) == 1
    assert len(grid_differences(GRID, 4, {0: "host", 2: "ann"}, {1}, {2})) == 1
    assert len(grid_differences(GRID, 4, seated, (), {2})) == 1
    assert len(grid_differences(GRID, 4, seated, {1}, ())) == 1
