"""What stage and seats have in common: people who follow the engine's record of their own standing.

Some people in a room, each with a view of its own standing; the engine; moderators who do anything at any time. Every
view is driven here by the fold and the end of a request as `utd_fsm.observe` has them; `test_standings` shows that the
shipped functions do the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

from tests.machines.search.model import MACHINES, PENDING, SYSTEM, Edge, Model, Move, Violation

E = TypeVar("E")

NO_VERSION_CHECK = "no version check"
LATE_ANSWER_DROPPED = "an answer that comes late is dropped"
UNORDERED = "requests carry no order"

OLD = "old"
"""The age of an answer or look that tells nothing new."""

Request: TypeAlias = tuple[str, str | int | None]
"""("out", verb) under way; ("ans", age) its answer under way, age = how many newer standings there are, or `OLD`;
("no", None) refused; ("unk", None) outcome unknown; ("look", age) a look under way."""

UNKNOWN: Request = ("unk", None)


class Person(NamedTuple):
    """One person: its view's machine, and beside it the facts that say what the machine must be in."""

    state: str
    known: str
    """The newest standing it knows."""
    lag: tuple[str, ...] = ()
    """The standings it has not heard of yet, oldest first; the newest is the truth. Any may be heard, older ones are
    then stale; more than `depth` are lost."""
    request: Request | None = None
    ghost: tuple[str, bool] | None = None
    """A request given up by its sender and still on its way, and whether a newer one of the same sender was handled."""
    wish: str | None = None
    """The intention that nobody answered yet."""


class World(NamedTuple, Generic[E]):
    """One state of the product."""

    engine: E
    people: tuple[Person, ...]


class Standings(Model[World[E]]):
    """People over the worst network.

    Args:
        people: how many have a view; they may do anything they may wish.
        depth: how many standings a person may lag behind.
        ghosts: whether a request may be applied long after its sender gave up (one a person).
    """

    view: ClassVar[str]
    record: ClassVar[str]
    wishes: ClassVar[Mapping[str, tuple[str, frozenset[str]]]]
    """Intention → its pending state, and the standings that answer it."""
    intentions: Mapping[str, tuple[str, ...]]
    """Intention → the verbs it may send."""

    def __init__(
        self,
        *,
        people: int = 1,
        depth: int = 2,
        ghosts: bool = True,
        mistake: str | None = None,
        cut: Collection[Edge] = (),
        turn: Mapping[Edge, str] | None = None,
    ) -> None:
        super().__init__(mistake=mistake, cut=cut, turn=turn)
        self.people, self.depth, self.ghosts = people, depth, ghosts
        self.ordered = mistake != UNORDERED
        self.first = next(state.id for state in MACHINES[self.record].states if state.initial)
        self.initial = World(self.at_first(), (Person(self.first, self.first),) * people)

    # ------------------------------------------------------------------------------------------------------ the engine

    def at_first(self) -> E:
        """The engine's state at the beginning."""
        raise NotImplementedError

    def standing(self, engine: E, u: int) -> str:
        """What the engine's record of person `u` says."""
        raise NotImplementedError

    def apply(self, engine: E, u: int, verb: str) -> E | None:
        """A verb of person `u` about itself; None if it is refused."""
        raise NotImplementedError

    def others(self, engine: E) -> Iterator[tuple[str, E | None]]:
        """What moderators, and people who are not modelled, can do: (label, the engine after it)."""
        raise NotImplementedError

    def news(self, people: tuple[Person, ...], engine: E) -> World[E]:
        """The engine has changed: everybody has something new to hear, or not."""
        after = []
        for u, (state, known, lag, request, ghost, wish) in enumerate(people):
            now = self.standing(engine, u)
            if now != (lag[-1] if lag else known):
                lag = (*lag, now)[-self.depth :]
                if request and request[0] in {"ans", "look"} and isinstance(age := request[1], int):
                    request = (request[0], age + 1 if age + 1 < len(lag) else OLD)
            after.append(Person(state, known, lag, request, ghost, wish))
        return World(engine, tuple(after))

    # -------------------------------------------------------------------------------------------------------- one view

    def hear(self, person: Person, i: int) -> Person:
        """`observe.fold`: the i-th standing of the lag; what is older is stale from now on."""
        state, _, lag, request, ghost, wish = person
        new = self.step(self.view, state, f"saw_{lag[i]}")
        if new != state and state in PENDING[self.view]:
            if request and request[0] == "out" and self.ghosts and ghost is None:
                ghost = (str(request[1]), False)
            request = None
        known, lag = lag[i], lag[i + 1 :]
        if request and request[0] in {"ans", "look"} and isinstance(request[1], int) and request[1] >= len(lag):
            request = (request[0], OLD)
        return Person(new, known, lag, request, ghost, None if wish and known in self.wishes[wish][1] else wish)

    def over(self, person: Person) -> Person:
        """`observe.request_over`: the request is over, and the engine has been heard since."""
        state = person.state
        if state in PENDING[self.view]:
            neutral = self.step(self.view, state, "lapsed")
            if neutral != self.first:
                raise Violation(f"what lapses in {state} leaves {neutral}, not {self.first}")
            state = self.step(self.view, neutral, f"saw_{person.known}")
        return Person(state, person.known, person.lag, None, person.ghost, None)

    def heard(self, person: Person, *, look: bool = False) -> Person:
        """An answer or a look comes home: fold it unless it is old; if the request still stands, it is over."""
        age = person.request[1] if person.request else OLD
        if age == OLD and not look and self.mistake == LATE_ANSWER_DROPPED:
            return person._replace(request=None)
        after = self.hear(person, len(person.lag) - 1 - age) if isinstance(age, int) else person
        return self.over(after._replace(request=None)) if after.state == person.state else after

    # ----------------------------------------------------------------------------------------------------------- moves

    def put(self, s: World[E], u: int, person: Person) -> World[E]:
        """The same world, with another person `u`."""
        return World(s.engine, (*s.people[:u], person, *s.people[u + 1 :]))

    def moves(self, s: World[E]) -> Iterator[Move[World[E]]]:
        for u, person in enumerate(s.people):
            yield from self._wish_moves(s, u, person)
            yield from self._hearing_moves(s, u, person)
            yield from self._request_moves(s, u, person)
            yield from self._ghost_moves(s, u, person)
        for label, engine in self.others(s.engine):
            if engine is not None and engine != s.engine:
                self.doing = label
                yield "mod", label, self.news(s.people, engine)

    def _wish_moves(self, s: World[E], u: int, person: Person) -> Iterator[Move[World[E]]]:
        for intention, verbs in self.intentions.items():
            if not self.can(self.view, person.state, intention):
                continue
            state = self.step(self.view, person.state, intention)
            for verb in verbs:
                self.doing = f"U{u + 1}: application: {intention} ({verb})"
                wishing = person._replace(state=state, request=("out", verb), wish=intention)
                yield "user", self.doing, self.put(s, u, wishing)

    def _hearing_moves(self, s: World[E], u: int, person: Person) -> Iterator[Move[World[E]]]:
        who, lag = f"U{u + 1}", person.lag
        for i, standing in enumerate(lag):
            age = len(lag) - 1 - i
            self.doing = f"{who} hears {standing}" + f" ({age} steps old)" * bool(age)
            yield SYSTEM, self.doing, self.put(s, u, self.hear(person, i))
        if self.mistake == NO_VERSION_CHECK:
            for old in sorted({person.known, self.first}):
                self.doing = f"{who} hears {old}, from long ago"
                state = self.step(self.view, person.state, f"saw_{old}")
                yield "net", self.doing, self.put(s, u, person._replace(state=state))

    def _request_moves(self, s: World[E], u: int, person: Person) -> Iterator[Move[World[E]]]:
        if person.request is None:
            return
        who, (kind, arg) = f"U{u + 1}", person.request
        unknown = self.put(s, u, person._replace(request=UNKNOWN))
        if kind == "out":
            yield from self._handled(s, u, person, str(arg))
            yield "net", f"{arg} of {who} is lost", unknown
            if self.ghosts and person.ghost is None:
                given_up = person._replace(request=UNKNOWN, ghost=(str(arg), False))
                label = f"{who} gives up waiting for {arg}, which is still on its way"
                yield "net", label, self.put(s, u, given_up)
        elif kind == "ans":
            self.doing = f"{who} gets the answer ({arg})"
            yield SYSTEM, self.doing, self.put(s, u, self.heard(person))
            yield "net", f"the answer to {who} is lost", unknown
        elif kind == "no":
            self.doing = f"{who} gets the refusal (403, 422)"
            yield SYSTEM, self.doing, self.put(s, u, self.over(person))
            yield "net", f"{who}: refused (409, 404) or lost, looks", unknown
        elif kind == "unk":
            kept = None if self.ordered else person.ghost  # a look seals what came before
            looking = person._replace(request=("look", 0 if person.lag else OLD), ghost=kept)
            yield SYSTEM, f"{who} looks", self.put(s, u, looking)
        else:
            self.doing = f"{who} sees what it looked for ({arg})"
            yield SYSTEM, self.doing, self.put(s, u, self.heard(person, look=True))
            yield "net", f"the look of {who} is lost", unknown

    def _handled(self, s: World[E], u: int, person: Person, verb: str) -> Iterator[Move[World[E]]]:
        self.doing = f"engine handles {verb} of U{u + 1}"
        engine = self.apply(s.engine, u, verb)
        ghost = (person.ghost[0], True) if person.ghost else None
        if engine is None:
            refused = person._replace(request=("no", None), ghost=ghost)
            yield SYSTEM, f"{self.doing}: refused", self.put(s, u, refused)
            return
        after = self.news(self.put(s, u, person._replace(request=None, ghost=ghost)).people, engine)
        answer = ("ans", 0 if after.people[u].lag else OLD)
        yield SYSTEM, self.doing, self.put(after, u, after.people[u]._replace(request=answer))

    def _ghost_moves(self, s: World[E], u: int, person: Person) -> Iterator[Move[World[E]]]:
        if person.ghost is None:
            return
        verb, overtaken = person.ghost
        self.doing = f"engine handles {verb} of U{u + 1}, given up long ago"
        after = self.put(s, u, person._replace(ghost=None))
        engine = None if overtaken and self.ordered else self.apply(s.engine, u, verb)
        if engine is None:
            yield "net", self.doing, after
            return
        if overtaken and self.standing(engine, u) != self.standing(s.engine, u):
            raise Violation(f"a {verb} given up long ago undoes a newer request of the same person")
        yield "net", self.doing, self.news(after.people, engine)

    # ------------------------------------------------------------------------------------------------- what must hold

    def check(self, s: World[E]) -> None:
        for u, person in enumerate(s.people):
            state, known, lag, request, _, wish = person
            who, truth = f"U{u + 1}", self.standing(s.engine, u)
            if not lag and state not in PENDING[self.view] and state != truth:
                raise Violation(f"{who} has heard everything and is in {state}; the engine says {truth}")
            if state in PENDING[self.view] and request is None:
                raise Violation(f"{who} is in {state}, and nothing is under way")
            if state != (self.wishes[wish][0] if wish else known):
                raise Violation(f"{who} is in {state}, but knows {known} and wants {wish}")
            looked = self.over(self.hear(person, len(lag) - 1) if lag else person)
            if looked.state != truth:
                raise Violation(f"after a look {who} is in {looked.state}; the engine says {truth}")

    def pending(self, s: World[E]) -> bool:
        return any(person.state in PENDING[self.view] for person in s.people)

    def quiet(self, s: World[E]) -> bool:
        return False
