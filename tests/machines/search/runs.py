"""What is searched, with which bounds; the seeded mistakes; the single-edge mutants of the tables.

Quick runs are the default; the whole ones (`WHOLE`) and the mutants stand behind the marker ``exhaustive``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from tests.machines.search import air, desk, media, seats, standings
from tests.machines.search import call_engine as engine
from tests.machines.search.air import Air
from tests.machines.search.call import Call
from tests.machines.search.desk import Desk, Merged
from tests.machines.search.media import Media
from tests.machines.search.model import MACHINES, TABLES, Edge, Model, explore
from tests.machines.search.seats import Seats
from tests.machines.search.stage import Stage

Make: TypeAlias = Callable[..., Model[Any]]
"""Makes a product; takes ``mistake``, ``cut`` and ``turn``."""

CALLER_ALONE = partial(Call, live=("C",))
DEVICE_ALONE = partial(Call, live=("B1",))
CALLER_AND_DEVICE = partial(Call, live=("C", "B1"))
TWO_DEVICES = partial(Call, live=("B1", "B2"))
TWO_VIEWERS = partial(Stage, people=2)
ONE_SEAT = partial(Seats, seats=1, mutes=False)
FREE = partial(Seats, mode="free")
NEIGHBOUR = partial(FREE, strangers=1, depth=1, ghosts=False)
TWO_SPEAKERS = partial(Seats, people=2, depth=1, ghosts=False)
NO_LIVE = partial(Air, keeps=False)

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
    "stage: host x 1 viewer, lag 3": partial(Stage, depth=3),
    "stage: host x 2 viewers, lag 2; no ghosts": partial(TWO_VIEWERS, ghosts=False),
    "broadcast: host x _live x list x a viewer's connection": Air,
    "broadcast: the same, an engine that keeps no _live": NO_LIVE,
    "seats: 2 seats x 1 person, mutes, request": Seats,
    "seats: 2 seats x 1 person, mutes, free": FREE,
    "seats: 2 seats x 1 person + 1 stranger, mutes, free, lag 1; no ghosts": NEIGHBOUR,
    "seats: 1 seat x 2 people, free, lag 1; no ghosts": partial(TWO_SPEAKERS, seats=1, mode="free"),
    "desk: seat x speaker x grant x microphone": Desk,
}

WHOLE: dict[str, Make] = {
    "call: caller x device x engine; a second device does anything": partial(CALLER_AND_DEVICE, ghosts=1),
    "call: the same, ghosts of every request at once": partial(CALLER_AND_DEVICE, touches=0),
    "call: two devices x engine; the caller does anything": partial(TWO_DEVICES, touches=0),
    "call: caller x two devices x engine": partial(Call, ghosts=1, late_looks=False, touches=0, deaths=False),
    "call: caller x device x engine without versions": partial(CALLER_AND_DEVICE, touches=0, by_rank=True),
    "stage: host x 2 viewers, lag 1": partial(TWO_VIEWERS, depth=1),
    "seats: 2 seats x 1 person + 2 strangers, free": partial(FREE, strangers=2, mutes=False),
    "seats: 2 seats x 1 person + 2 strangers, request": partial(Seats, strangers=2, mutes=False),
    "seats: 2 seats x 1 person + 1 stranger, mutes, request": partial(Seats, strangers=1),
    "seats: 2 seats x 2 people, mutes, free, lag 1; no ghosts": partial(TWO_SPEAKERS, mode="free"),
    "seats: 2 seats x 2 people, request, lag 1; no ghosts": partial(TWO_SPEAKERS, mutes=False),
    "seats: 2 seats x 2 people + 1 stranger, free, lag 1; no ghosts": partial(
        TWO_SPEAKERS, mode="free", mutes=False, strangers=1
    ),
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


def _seeded(make: Make, mistake: str, shortest: int, says: str, where: str = "") -> Mistake:
    return Mistake(where + mistake, partial(make, mistake=mistake), shortest, says)


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
    _seeded(Stage, standings.NO_VERSION_CHECK, 3, "U1 has heard everything and is in audience", "stage: "),
    _seeded(Stage, standings.LATE_ANSWER_DROPPED, 5, "U1 is in asking, and nothing is under way", "stage: "),
    _seeded(Stage, standings.UNORDERED, 6, "a ask given up long ago undoes a newer request", "stage: "),
    _without(Stage, "StageMember", "asking", "saw_on_stage", 2),
    _without(Stage, "StageMember", "lowering", "saw_on_stage", 5),
    _without(Stage, "StageMember", "lowering", "saw_hand_up", 11),
    _turned(
        Stage, "old news ends lowering", ("StageMember", "lowering", "saw_hand_up"), "hand_up", 12, "U1 is in hand_up"
    ),
    _turned(
        Stage,
        "lowering outlives being added",
        ("StageMember", "lowering", "saw_on_stage"),
        "lowering",
        6,
        "U1 is in lowering",
    ),
    _turned(
        Stage,
        "a hand that lapses stays up",
        ("StageMember", "lowering", "lapsed"),
        "hand_up",
        4,
        "what lapses in lowering",
    ),
    _seeded(Air, air.DEPARTURES, 5, "the stream counts as host_away; meant is on_air"),
    _seeded(Air, air.LAST_WORD, 3, "the stream counts as on_air; meant is off_air"),
    _seeded(Air, air.NO_VERSION_CHECK, 4, "the stream counts as host_away; meant is on_air"),
    _seeded(Air, air.OWN_CLOCK, 6, "over by the viewer's clock"),
    _seeded(Air, air.NOT_BEGUN, 2, "the stream counts as on_air; meant is off_air"),
    _without(Air, "Broadcast", "off_air", "saw_away", 3),
    _turned(
        Air,
        "joining while the host is away shows live",
        ("Broadcast", "off_air", "saw_away"),
        "on_air",
        3,
        "the stream counts as on_air; meant is host_away",
    ),
    _turned(
        Air,
        "a host that is back is not",
        ("Broadcast", "host_away", "saw_host"),
        "host_away",
        5,
        "the stream counts as host_away; meant is on_air",
    ),
    _seeded(Seats, standings.NO_VERSION_CHECK, 3, "U1 has heard everything and is in listener", "seats: "),
    _seeded(Seats, standings.LATE_ANSWER_DROPPED, 5, "U1 is in requesting, and nothing is under way", "seats: "),
    _seeded(Seats, standings.UNORDERED, 6, "a request given up long ago undoes a newer request", "seats: "),
    _without(Seats, "Speaker", "withdrawing", "saw_seated", 5),
    _seeded(Seats, seats.EVICTS_THE_SEAT, 4, "U1 is seated and has 0 seats"),
    _turned(
        NEIGHBOUR,
        "a seat that is taken can be taken",
        ("Seat", "occupied", "take"),
        "occupied",
        3,
        "U1 is seated and has 0",
    ),
    _seeded(Desk, desk.LEAVING_WAITS, 4, "leaving the seat, and the microphone is waiting"),
    _seeded(Desk, desk.SEATED_UNMUTES, 2, "the microphone is waiting, and nobody asked for it"),
    _seeded(Desk, desk.MUTED_SEAT_IGNORED, 7, "heard from a muted seat"),
    Mistake("the grant merged into the speaker", Merged, 2, "undeclared: Merged gets saw_grant in taking"),
)

JUDGES: dict[str, tuple[Make, ...]] = {
    "OutgoingCall": (CALLER_ALONE,),
    "IncomingCall": (DEVICE_ALONE,),
    "Connection": (Media,),
    "Source": (Media,),
    "StageMember": (Stage,),
    "Broadcast": (Air, NO_LIVE),
    "Seat": (FREE, NEIGHBOUR),
    "Speaker": (ONE_SEAT, partial(ONE_SEAT, mode="free")),
}
"""Machine → the small products that judge its single-edge mutants."""

ENOUGH = 30_000
"""More states than any judge has: a mutant that reaches so many grows without bound."""


@dataclass(frozen=True)
class Mutant:
    """One edge removed (`target` is None) or led elsewhere."""

    edge: Edge
    target: str | None

    def found(self) -> str | None:
        """What one of its judges says against it; None if nothing: the mutant is alive."""
        change = {"cut": {self.edge}} if self.target is None else {"turn": {self.edge: self.target}}
        for make in JUDGES[self.edge[0]]:
            try:
                violation = explore(make(**change), limit=ENOUGH).violation
            except OverflowError:
                return "something grows without bound"
            if violation:
                return violation
        return None


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
