"""The searches: all that can happen between caller, devices and engine, and between a source and its connection."""

from __future__ import annotations

import pytest

from tests.machines.search.model import TABLES, Edge, explore
from tests.machines.search.runs import (
    ENOUGH,
    EQUIVALENT,
    JUDGES,
    MISTAKES,
    NO_LIVE,
    QUICK,
    WHOLE,
    Make,
    Mistake,
    mutants,
)

SLOWLY_JUDGED = {"OutgoingCall", "IncomingCall", "Connection", "Source"}

RESULTS: dict[str, set[Edge]] = {}
"""Search → the edges it took."""


def taken(name: str, make: Make) -> set[Edge]:
    """Search one product; its properties must hold. Searched once, however many tests ask."""
    if name not in RESULTS:
        model = make()
        found = explore(model)
        assert found.violation is None, "\n".join([found.violation or "", *found.trace])
        assert found.states > (40 if make is NO_LIVE else 500)
        assert 0 < found.settles_in <= 7
        RESULTS[name] = model.used
    return RESULTS[name]


@pytest.mark.parametrize("name", QUICK)
def test_everything_holds(name: str) -> None:
    taken(name, QUICK[name])


def test_every_declared_edge_is_taken_somewhere() -> None:
    used = set().union(*(taken(name, make) for name, make in QUICK.items()))
    assert {(name, *edge) for name, rows in TABLES.items() for edge in rows} - used == set()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_seeded_mistake_is_found_by_its_shortest_run(mistake: Mistake) -> None:
    found = explore(mistake.make())
    assert found.violation is not None
    assert found.violation.startswith(mistake.says)
    assert len(found.trace) == mistake.shortest, "\n".join(found.trace)


@pytest.mark.parametrize("name", JUDGES)
def test_the_judges_themselves_hold_and_are_small(name: str) -> None:
    """Else every mutant would be found, for the wrong reason."""
    for make in JUDGES[name]:
        found = explore(make(), limit=ENOUGH // 2)
        assert found.violation is None


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WHOLE)
def test_everything_holds_without_the_smaller_bounds(name: str) -> None:
    taken(name, WHOLE[name])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name in SLOWLY_JUDGED else ()) for name in JUDGES]
)
def test_every_edge_that_is_missing_or_leads_elsewhere_is_found(name: str) -> None:
    alive = {mutant for mutant in mutants(name) if mutant.found() is None}
    assert alive == {mutant for mutant in EQUIVALENT if mutant.edge[0] == name}
