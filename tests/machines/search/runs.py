"""What is searched, with which bounds; the seeded mistakes; the single-edge mutants of the tables.

Quick runs are the default; the whole ones (`WHOLE`) and the mutants stand behind the marker ``exhaustive``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from tests.machines.search import call_engine as engine
from tests.machines.search import media
from tests.machines.search.call import Call
from tests.machines.search.media import Media
from tests.machines.search.model import MACHINES, TABLES, Edge, Model, explore

Make: TypeAlias = Callable[..., Model[Any]]
"""Makes a product; takes ``mistake``, ``cut`` and ``turn``."""

CALLER_ALONE = partial(Call, live=("C",))
DEVICE_ALONE = partial(Call, live=("B1",))
CALLER_AND_DEVICE = partial(Call, live=("C", "B1"))
TWO_DEVICES = partial(Call, live=("B1", "B2"))

QUICK: dict[str, Make] = {
    "call: caller x engine; the devices do anything": CALLER_ALONE,
    "call: device x engine; the caller and another device do anything": DEVICE_ALONE,
    "call: caller x device x engine; no process dies": partial(CALLER_AND_DEVICE, ghosts=1, touches=0, deaths=False),
    "call: the same, processes die, no ghosts": partial(CALLER_AND_DEVICE, ghosts=0, touches=0),
    "call: two devices x engine; looks at once, no process dies": partial(
        TWO_DEVICES, ghosts=1, touches=0, deaths=False, late_looks=False
    ),
    "call: caller x two devices x engine; no ghosts, looks at once, no process dies": partial(
        Call, ghosts=0, touches=0, deaths=False, late_looks=False
    ),
    "call: caller x device x engine without versions; no ghosts": partial(
        CALLER_AND_DEVICE, ghosts=0, touches=0, by_rank=True
    ),
    "media: publish x connection x grant x given-up tries": Media,
}

WHOLE: dict[str, Make] = {
    "call: caller x device x engine; a second device does anything": partial(CALLER_AND_DEVICE, ghosts=1),
    "call: the same, ghosts of every request at once": partial(CALLER_AND_DEVICE, touches=0),
    "call: two devices x engine; the caller does anything": partial(TWO_DEVICES, touches=0),
    "call: caller x two devices x engine": partial(Call, ghosts=1, late_looks=False, touches=0, deaths=False),
    "call: caller x device x engine without versions": partial(CALLER_AND_DEVICE, touches=0, by_rank=True),
}


@dataclass(frozen=True)
class Mistake:
    """One seeded mistake, and what its search must say."""

    name: str
    make: Make
    shortest: int
    """How many steps the shortest run to it has."""
    says: str
    """How the violation found begins."""


def _without(make: Make, name: str, state: str, event: str, shortest: int) -> Mistake:
    cut = partial(make, cut={(name, state, event)})
    says = f"undeclared: {name} gets {event} in {state}"
    return Mistake(f"missing edge: {name} {state}, {event}", cut, shortest, says)


def _seeded(make: Make, mistake: str, shortest: int, says: str) -> Mistake:
    return Mistake(mistake, partial(make, mistake=mistake), shortest, says)


def _turned(make: Make, name: str, edge: Edge, target: str, shortest: int, says: str) -> Mistake:
    return Mistake(name, partial(make, turn={edge: target}), shortest, says)


MISTAKES: tuple[Mistake, ...] = (
    _seeded(CALLER_AND_DEVICE, engine.NO_VERSION_CHECK, 5, "stale, and claims to be news"),
    _seeded(CALLER_AND_DEVICE, engine.NO_DEVICE, 3, "after a look B1 is in active"),
    _seeded(CALLER_AND_DEVICE, engine.CALLEE_ENDS, 6, "B1 ended the call that B2 answered"),
    _seeded(CALLER_AND_DEVICE, engine.ANSWER_BEFORE_COMMIT, 5, "C knows of a step the engine has lost"),
    _seeded(CALLER_AND_DEVICE, engine.VERSIONS_RESTART, 5, "after a look C is in initiating"),
    _seeded(CALLER_AND_DEVICE, engine.NO_SEAL, 7, "C is in initiating, but knows 1 and wants out"),
    _without(CALLER_AND_DEVICE, "OutgoingCall", "ending", "saw_active", 5),
    _without(CALLER_AND_DEVICE, "IncomingCall", "ending", "saw_elsewhere", 4),
    _turned(Media, "publishes before the grant", ("Source", "off", "enable"), "publishing", 3, "publishes without"),
    _seeded(Media, media.LATE_PUBLISH, 8, "a live track that nobody owns"),
    _turned(Media, "regaining the grant unmutes", ("Source", "off", "saw_clear"), "publishing", 3, "connection and"),
    _seeded(Media, media.MISSING_IS_REVOKED, 9, "was on before the connection broke"),
    _without(Media, "Source", "stopping", "saw_clear", 7),
    _seeded(Media, media.OWN_TRY, 5, "sent away by our own given-up try"),
    _without(Media, "Connection", "reconnecting", "saw_dropped", 4),
)

JUDGES: dict[str, Make] = {
    "OutgoingCall": CALLER_ALONE,
    "IncomingCall": DEVICE_ALONE,
    "Connection": Media,
    "Source": Media,
}
"""Machine → the small product that judges its single-edge mutants."""


@dataclass(frozen=True)
class Mutant:
    """One edge removed (`target` is None) or led elsewhere."""

    edge: Edge
    target: str | None

    def found(self) -> str | None:
        """What its judge says against it; None if nothing: the mutant is alive."""
        make = JUDGES[self.edge[0]]
        change = {"cut": {self.edge}} if self.target is None else {"turn": {self.edge: self.target}}
        try:
            return explore(make(**change), limit=30_000).violation
        except OverflowError:
            return "something grows without bound"


EQUIVALENT = frozenset({Mutant(("Source", "off", "saw_muted"), "stopping")})
"""Alive, and rightly so. A source that is off hears of a muted track only while a late publish is being taken down; as
`stopping` it takes it down once more, and is off again."""


def mutants(name: str) -> Iterator[Mutant]:
    """Every single-edge mutant of one machine.

    Intentions and results that may rightly be refused are only led elsewhere; what is observed must be declared, and so
    is also removed.
    """
    states = [state.id for state in MACHINES[name].states]
    for (state, event), target in TABLES[name].items():
        if event.startswith("saw_") or event in {"lapsed", "published", "unpublished"}:
            yield Mutant((name, state, event), None)
        yield from (Mutant((name, state, event), other) for other in states if other != target)
