"""The search itself finds what it looks for: shown on products small enough to see through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machines.search.model import SYSTEM, Model, Move, Violation, explore


class Toy(Model[str]):
    """States are letters, capital ones pending. Moves: "aB" is a user's, "Ba!" the system's."""

    def __init__(self, moves: str, *, quiet: str = "", never: str = "") -> None:
        super().__init__()
        self.initial = "a"
        self.edges, self.silent, self.never = moves.split(), quiet, never

    def moves(self, s: str) -> Iterator[Move[str]]:
        for edge in self.edges:
            if edge[0] == s:
                self.doing = edge
                if edge[1] == "?":
                    raise Violation("a move went wrong")
                yield SYSTEM if edge.endswith("!") else "user", edge, edge[1]

    def check(self, s: str) -> None:
        if s in self.never:
            raise Violation(f"{s} must not be")

    def pending(self, s: str) -> bool:
        return s.isupper()

    def quiet(self, s: str) -> bool:
        return s in self.silent


def test_a_sound_product_holds() -> None:
    found = explore(Toy("aB BC! Ca! Ba"))
    assert (found.violation, found.trace, found.states, found.edges, found.settles_in) == (None, [], 3, 4, 2)


def test_the_shortest_run_to_a_violation_is_told() -> None:
    found = explore(Toy("aB Bc! cd ad ae ef fg", never="d"))
    assert (found.violation, found.trace) == ("d must not be", ["ad"])


def test_a_move_that_goes_wrong_is_the_last_of_its_run() -> None:
    found = explore(Toy("aB Bc! c?"))
    assert (found.violation, found.trace) == ("a move went wrong", ["aB", "Bc!", "c?"])


def test_a_state_that_nothing_leaves_is_a_deadlock_unless_it_may_be_quiet() -> None:
    assert explore(Toy("ab", quiet="b")).violation is None
    found = explore(Toy("ab"))
    assert found.violation is not None
    assert found.violation.startswith("deadlock")
    assert found.trace == ["ab"]


def test_what_only_the_user_can_settle_is_found() -> None:
    found = explore(Toy("aB Ba"))
    assert found.violation == "never settles without the user: B"
    assert found.trace == ["aB"]


def test_a_round_among_pending_states_is_found_even_if_there_is_a_way_out() -> None:
    found = explore(Toy("aB BC! CB! Ca!"))
    assert found.violation is not None
    assert found.violation.startswith("may go round for ever without settling")


def test_a_product_that_grows_without_bound_is_refused() -> None:
    class Counter(Model[int]):
        initial = 0

        def moves(self, s: int) -> Iterator[Move[int]]:
            yield SYSTEM, "more", s + 1

        def pending(self, s: int) -> bool:
            return False

    with pytest.raises(OverflowError, match="Counter: more than 1000 states"):
        explore(Counter(), limit=1_000)


def test_cutting_and_turning_change_only_the_model() -> None:
    cut = Model[str](cut={("CallRecord", "ringing", "accept")}, turn={("CallRecord", "ended", "ring"): "ringing"})
    assert not cut.can("CallRecord", "ringing", "accept")
    assert cut.step("CallRecord", "ended", "ring") == "ringing"
    assert cut.used == {("CallRecord", "ended", "ring")}
    whole = Model[str]()
    assert whole.can("CallRecord", "ringing", "accept")
    with pytest.raises(Violation, match="undeclared: CallRecord gets ring in ended"):
        whole.step("CallRecord", "ended", "ring")
