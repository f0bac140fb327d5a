"""Views of a standing (stage, seats) under the shipped fold: the same as in the searches, world by world."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machines.search.model import PENDING, explore
from tests.machines.search.seats import Seats
from tests.machines.search.stage import Stage
from tests.machines.search.standings import Person, Standings, World
from utd_fsm.errors import UTDProtocolError
from utd_fsm.machines import Machine, Runner, Speaker, StageMember, start
from utd_fsm.observe import Snapshot, fold, request_over

VIEWS = pytest.mark.parametrize("cls", [StageMember, Speaker], ids=lambda cls: cls.__name__)


class Compared(Standings[Any]):
    """A product whose views are compared, in every world, with the shipped `fold` and `request_over`."""

    cls: type[Machine]
    compared = 0

    def check(self, s: World[Any]) -> None:
        super().check(s)
        for person in s.people:
            said = [
                Snapshot(version, standing) for version, standing in enumerate((person.known, *person.lag), start=7)
            ]
            for i, heard in enumerate(said):
                self._folded(person, said[0], heard, self.hear(person, i - 1) if i else person)
                self._ended(person, said[0], heard, self.hear(person, i - 1) if i else person)
            old = Snapshot(said[0].version and said[0].version - 1, self.first)
            self._folded(person, said[0], old, person)
            self._ended(person, said[0], old, person)
            self._ended(person, said[0], None, person)

    def _view(self, person: Person) -> Runner[Machine]:
        return start(self.cls, person.state)

    def _folded(self, person: Person, known: Snapshot, heard: Snapshot, after: Person) -> None:
        view = self._view(person)
        assert fold(view, known, heard) == max(known, heard, key=lambda each: each.version or 0)
        assert view.state == after.state
        self.compared += 1

    def _ended(self, person: Person, known: Snapshot, heard: Snapshot | None, after: Person) -> None:
        view = self._view(person)
        newest = request_over(view, known, heard)
        assert view.state == self.over(after).state
        assert newest is not None
        assert view.state == newest.standing
        assert not view.is_pending
        self.compared += 1


class ComparedStage(Compared, Stage):
    cls = StageMember


class ComparedSeats(Compared, Seats):
    cls = Speaker


@pytest.mark.parametrize(
    "product",
    [ComparedStage(depth=3), ComparedSeats(seats=1, mutes=False), ComparedSeats(seats=1, mutes=False, mode="free")],
    ids=["stage", "seats, request", "seats, free"],
)
def test_the_searches_drive_their_views_as_the_shipped_functions_do(product: Compared) -> None:
    found = explore(product)
    assert found.violation is None
    assert product.compared > 8_000


@VIEWS
def test_from_every_state_the_end_of_a_request_leaves_the_newest_standing(cls: type[Machine]) -> None:
    """Granted, refused or unknown: whatever was wished, whatever was heard, and however late."""
    for state in (each.id for each in cls.states):
        for known in {state} - PENDING[cls.__name__] or {start(cls).state}:
            for standing in (each.id for each in cls.states if each.id not in PENDING[cls.__name__]):
                for version in (1, 5, 9):
                    view = start(cls, state)
                    newest = request_over(view, Snapshot(5, known), Snapshot(version, standing))
                    assert view.state == (standing if version > 5 else known)
                    assert newest == Snapshot(max(version, 5), standing if version > 5 else known)


def test_a_hand_that_is_lowered_while_the_host_takes_it_ends_on_stage() -> None:
    """The answer to the lowering (a 409, so a look) says so; whichever is heard first."""
    for news_first in (False, True):
        view, known = start(StageMember), Snapshot(1, "audience")
        view.send("raise_hand")
        heard = request_over(view, known, Snapshot(2, "hand_up"))
        view.send("lower_hand")
        if news_first:
            heard = fold(view, heard, Snapshot(3, "on_stage"))
        assert request_over(view, heard, Snapshot(3, "on_stage")) == Snapshot(3, "on_stage")
        assert view.state == "on_stage"


def test_a_hand_is_never_seen_up_again_by_old_news_while_it_is_lowered() -> None:
    view, known = start(StageMember, "hand_up"), Snapshot(4, "hand_up")
    view.send("lower_hand")
    assert fold(view, known, Snapshot(4, "hand_up")) == known
    assert fold(view, known, Snapshot(5, "hand_up")) == Snapshot(5, "hand_up")  # somebody else's change of the snapshot
    assert view.state == "lowering"
    request_over(view, Snapshot(5, "hand_up"), Snapshot(6, "audience"))
    assert view.state == "audience"


@VIEWS
def test_a_standing_without_a_version_cannot_be_ordered(cls: type[Machine]) -> None:
    """A GET without one is no news; room metadata is, numbered in its order of arrival."""
    view = start(cls)
    known = fold(view, None, Snapshot(None, view.state))
    with pytest.raises(UTDProtocolError, match="without a version"):
        fold(view, known, Snapshot(None, view.state))
