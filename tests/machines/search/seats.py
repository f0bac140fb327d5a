"""The seats product: people, each with a view of its own standing, the engine's grid and records, and a moderator.

The engine's verbs are lists of steps on seats and persons, all or none, as the machines' rules have them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from tests.machines.search.model import Edge, Violation
from tests.machines.search.standings import Standings, World

EVICTS_THE_SEAT = "lock evicts the seat, not the person"


class Chair(NamedTuple):
    """One seat: its machine, who sits, and beside them the facts that say what the machine must be in."""

    state: str = "free"
    who: int | None = None
    locked: bool = False
    muted: bool = False


class Engine(NamedTuple):
    """The engine's half: the grid, and the record of each person (those with a view first, then the strangers)."""

    seats: tuple[Chair, ...]
    people: tuple[str, ...]


Step: TypeAlias = tuple[str, int, str, int | None]
"""("seat", index, event, who sits down) or ("person", index, event, None)"""


def seat(i: int, event: str, who: int | None = None) -> Step:
    """One step of a seat."""
    return "seat", i, event, who


def person(u: int, event: str) -> Step:
    """One step of a person."""
    return "person", u, event, None


class Seats(Standings[Engine]):
    """Seats, people and a moderator over the worst network.

    Args:
        seats: how many.
        strangers: people without a view; what they do, the engine handles at once.
        mode: "free" or "request", the grid's seat mode.
        mutes: whether the moderator mutes seats.
    """

    view, record = "Speaker", "SpeakerRecord"
    wishes = {
        "request": ("requesting", frozenset({"requested", "invited", "seated"})),
        "withdraw": ("withdrawing", frozenset({"listener", "seated"})),
        "take": ("taking", frozenset({"seated"})),
        "leave": ("leaving", frozenset({"listener", "requested", "invited"})),
    }

    def __init__(
        self,
        *,
        seats: int = 2,
        strangers: int = 0,
        mode: str = "request",
        mutes: bool = True,
        people: int = 1,
        depth: int = 2,
        ghosts: bool = True,
        mistake: str | None = None,
        cut: Collection[Edge] = (),
        turn: Mapping[Edge, str] | None = None,
    ) -> None:
        self.seats, self.strangers, self.mode, self.mutes = seats, strangers, mode, mutes
        self.takes = tuple(f"take {i}" for i in range(seats))
        self.intentions = {
            "request": ("request",),
            "withdraw": ("dismiss",),
            "leave": ("leave",),
            "take": ("accept", *self.takes),
        }
        super().__init__(people=people, depth=depth, ghosts=ghosts, mistake=mistake, cut=cut, turn=turn)

    def at_first(self) -> Engine:
        return Engine((Chair(),) * self.seats, (self.first,) * (self.people + self.strangers))

    def standing(self, engine: Engine, u: int) -> str:
        return engine.people[u]

    # ------------------------------------------------------------------------------------------------- verbs as steps

    def transact(self, engine: Engine, *steps: Step) -> Engine | None:
        """All the steps of one verb, or none."""
        seats, people = list(engine.seats), list(engine.people)
        for kind, i, event, sits in steps:
            if kind == "person":
                if not self.can(self.record, people[i], event):
                    return None
                people[i] = self.step(self.record, people[i], event)
                continue
            state, who, locked, muted = seats[i]
            if not self.can("Seat", state, event):
                return None
            if event in {"take", "vacate"}:
                who, muted = sits, False
            elif event in {"lock", "unlock"}:
                locked = event == "lock"
            else:
                muted = event == "mute"
            seats[i] = Chair(self.step("Seat", state, event), who, locked, muted)
        return Engine(tuple(seats), tuple(people))

    def seat_of(self, engine: Engine, u: int) -> int | None:
        """Where a person sits."""
        return next((i for i, chair in enumerate(engine.seats) if chair.who == u), None)

    def sit(self, engine: Engine, u: int, i: int | None) -> Engine | None:
        """take, approve, accept: on seat `i`, or on the first that is free."""
        if i is None:
            i = next((j for j, chair in enumerate(engine.seats) if chair.state == "free"), None)
        return None if i is None else self.transact(engine, person(u, "sit"), seat(i, "take", u))

    def unseat(self, engine: Engine, u: int) -> Engine | None:
        """leave, kick, gone."""
        i = self.seat_of(engine, u)
        return None if i is None else self.transact(engine, person(u, "unseat"), seat(i, "vacate"))

    def move_to(self, engine: Engine, u: int, j: int) -> Engine | None:
        """move: a mute goes with the person."""
        i = self.seat_of(engine, u)
        if i is None or engine.seats[j].state != "free":
            return None
        mute = [seat(j, "mute")] if engine.seats[i].state == "muted" else []
        return self.transact(engine, seat(i, "vacate"), seat(j, "take", u), *mute, person(u, "move"))

    def swap(self, engine: Engine, i: int, j: int) -> Engine | None:
        """swap of two seats that are taken."""
        u, v = engine.seats[i].who, engine.seats[j].who
        if u is None or v is None:
            return None
        steps = [seat(i, "vacate"), seat(j, "vacate"), seat(j, "take", u), seat(i, "take", v)]
        steps += [seat(to, "mute") for was, to in ((i, j), (j, i)) if engine.seats[was].state == "muted"]
        return self.transact(engine, *steps, person(u, "move"), person(v, "move"))

    def lock(self, engine: Engine, i: int) -> Engine | None:
        """lock: evicts whoever sits there first."""
        who = engine.seats[i].who
        if who is None:
            return self.transact(engine, seat(i, "lock"))
        evicted = [] if self.mistake == EVICTS_THE_SEAT else [person(who, "unseat")]
        return self.transact(engine, seat(i, "vacate"), *evicted, seat(i, "lock"))

    # ------------------------------------------------------------------------------------------------------ who may

    def apply(self, engine: Engine, u: int, verb: str) -> Engine | None:
        name, _, i = verb.partition(" ")
        if name == "request":
            return self.transact(engine, person(u, "request")) if self.mode == "request" else None
        if name == "dismiss":
            return self.transact(engine, person(u, "dismiss"))
        if name == "take":
            return self.sit(engine, u, int(i)) if self.mode == "free" else None
        if name == "accept":
            return self.sit(engine, u, None) if engine.people[u] == "invited" else None
        return self.unseat(engine, u)

    def others(self, engine: Engine) -> Iterator[tuple[str, Engine | None]]:
        for u in range(self.people + self.strangers):
            yield from self._about(engine, u)
        for i, chair in enumerate(engine.seats):
            yield f"moderator: lock {i}", self.lock(engine, i)
            yield f"moderator: unlock {i}", self.transact(engine, seat(i, "unlock"))
            if chair.who is None:
                continue
            yield f"moderator: kick {i}", self.unseat(engine, chair.who)
            if self.mutes:
                yield f"moderator: mute {i}", self.transact(engine, seat(i, "mute"))
                yield f"moderator: unmute {i}", self.transact(engine, seat(i, "unmute"))
            for j in range(i):
                yield f"moderator: swap {j} {i}", self.swap(engine, i, j)

    def _about(self, engine: Engine, u: int) -> Iterator[tuple[str, Engine | None]]:
        who, standing = f"U{u + 1}", engine.people[u]
        if standing == "requested":
            yield f"moderator: approve {who}", self.sit(engine, u, None)
            yield f"moderator: reject {who}", self.transact(engine, person(u, "dismiss"))
        if standing in {"listener", "requested"}:
            yield f"moderator: invite {who}", self.transact(engine, person(u, "invite"))
        if standing == "invited":
            yield f"engine: {who} left the room", self.transact(engine, person(u, "dismiss"))
        for j in range(self.seats):
            yield f"{who} moves to {j}", self.move_to(engine, u, j)
        if u >= self.people:
            for verb in ("request", "dismiss", "accept", "leave", *self.takes):
                yield f"{who}: {verb}", self.apply(engine, u, verb)

    # ------------------------------------------------------------------------------------------------- what must hold

    def check(self, s: World[Engine]) -> None:
        seats, people = s.engine
        for u, standing in enumerate(people):
            n = sum(chair.who == u for chair in seats)
            if n != (standing == "seated"):
                raise Violation(f"U{u + 1} is {standing} and has {n} seats")
        for chair in seats:
            taken = "muted" if chair.muted else "occupied"
            if chair.state != ("locked" if chair.locked else "free" if chair.who is None else taken):
                raise Violation(f"a seat is not what it should be: {chair}")
        super().check(s)
