"""The search: every state a product can reach, its invariants, deadlocks, and whether what is pending settles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from utd_fsm.machines import ALL, Machine, observations, table

S = TypeVar("S", bound=Hashable)

Edge: TypeAlias = tuple[str, str, str]
"""(machine, state, event)"""
Move: TypeAlias = tuple[str, str, S]
"""(kind, what happens, the state after it)"""

SYSTEM = "system"
"""The engine, LiveKit and our own driver doing their work. All other kinds (user, net, fault, …) need not happen."""

MACHINES: Mapping[str, type[Machine]] = {cls.__name__: cls for cls in ALL}
TABLES = {name: dict(table(cls)) for name, cls in MACHINES.items()}
FINAL = {name: frozenset(state.id for state in cls.states if state.final) for name, cls in MACHINES.items()}
PENDING = {name: cls.PENDING for name, cls in MACHINES.items()}
OBSERVATIONS = {name: frozenset(observations(cls)) for name, cls in MACHINES.items()}


class Violation(Exception):
    """A property does not hold here."""


class Model(Generic[S]):
    """One product: an initial state, the moves from each, and what must hold in all of them.

    Args:
        mistake: a seeded mistake, by the text the model knows it under.
        cut: edges to take out of the tables.
        turn: edges to lead elsewhere, or to add.
    """

    initial: S
    doing: str
    """What `moves` is at; the last step of the trace when a move itself violates something."""

    def __init__(
        self, *, mistake: str | None = None, cut: Collection[Edge] = (), turn: Mapping[Edge, str] | None = None
    ) -> None:
        self.mistake = mistake
        self.used: set[Edge] = set()
        self.doing = ""
        self.tables = {
            name: {key: target for key, target in rows.items() if (name, *key) not in cut}
            for name, rows in TABLES.items()
        }
        for (name, state, event), target in (turn or {}).items():
            self.tables[name][state, event] = target

    def step(self, name: str, state: str, event: str) -> str:
        """One step of one machine."""
        target = self.tables[name].get((state, event))
        if target is None:
            raise Violation(f"undeclared: {name} gets {event} in {state}")
        self.used.add((name, state, event))
        return target

    def can(self, name: str, state: str, event: str) -> bool:
        """Whether a machine declares an event in a state."""
        return (state, event) in self.tables[name]

    def moves(self, s: S) -> Iterator[Move[S]]:
        """All that can happen in `s`."""
        raise NotImplementedError

    def check(self, s: S) -> None:
        """Raise `Violation` unless everything that must hold in `s` does."""

    def pending(self, s: S) -> bool:
        """Whether something is under way that must settle without the user."""
        raise NotImplementedError

    def quiet(self, s: S) -> bool:
        """Whether it is right that nothing can happen in `s`."""
        raise NotImplementedError

    def canonical(self, s: S) -> S:
        """One of several states that are the same but for names. Not used while a mistake is seeded."""
        return s


@dataclass
class Found:
    """What a search found."""

    states: int
    edges: int
    violation: str | None
    trace: list[str]
    """The shortest run to the violation; empty without one."""
    settles_in: int
    """System moves from the furthest pending state to the nearest settled one."""


@dataclass
class _Graph(Generic[S]):
    """What was reached: parents for the trace, and the system's moves for the question whether everything settles."""

    states: list[S]
    parents: list[tuple[int, str] | None]
    system: list[tuple[int, int]]
    edges: int = 0

    def trace(self, at: int) -> list[str]:
        steps = []
        while (parent := self.parents[at]) is not None:
            at, step = parent
            steps.append(step)
        return steps[::-1]


def explore(model: Model[S], limit: int = 4_000_000) -> Found:
    """Search the whole product.

    Raises:
        OverflowError: more than `limit` states.
    """
    graph = _Graph([model.initial], [None], [])
    at, violation, last = _reach(model, graph, limit)
    settles_in = 0
    if violation is None:
        at, violation, settles_in = _settles(model, graph)
    trace = graph.trace(at) + [last] * bool(last) if violation else []
    return Found(len(graph.states), graph.edges, violation, trace, settles_in)


def _reach(model: Model[S], graph: _Graph[S], limit: int) -> tuple[int, str | None, str]:
    """Reach all states, in order of distance. → (where, which violation, the move that made it)"""
    states, index = graph.states, {model.initial: 0}
    same: Callable[[S], S] | None = None
    if not model.mistake and type(model).canonical is not Model.canonical:
        same = model.canonical
    i = 0
    while i < len(states):
        s = states[i]
        try:
            model.check(s)
        except Violation as violation:
            return i, str(violation), ""
        idle = True
        try:
            for kind, label, reached in model.moves(s):
                idle = False
                t = same(reached) if same else reached
                if t == s:
                    continue
                graph.edges += 1
                j = index.get(t)
                if j is None:
                    j = index[t] = len(states)
                    states.append(t)
                    graph.parents.append((i, label))
                if kind == SYSTEM:
                    graph.system.append((i, j))
        except Violation as violation:
            return i, str(violation), model.doing
        if idle and not model.quiet(s):
            return i, "deadlock: nothing can happen, and something is unfinished", ""
        i += 1
        if i > limit:
            raise OverflowError(f"{type(model).__name__}: more than {limit} states")
    return 0, None, ""


def _settles(model: Model[S], graph: _Graph[S]) -> tuple[int, str | None, int]:
    """Whether system moves alone, in whatever order, settle everything that is pending."""
    n = len(graph.states)
    pending = bytearray(model.pending(s) for s in graph.states)
    before: dict[int, list[int]] = {}
    for source, target in graph.system:
        before.setdefault(target, []).append(source)
    distance = {i: 0 for i in range(n) if not pending[i]}
    queue = deque(distance)
    while queue:
        i = queue.popleft()
        for j in before.get(i, ()):
            if j not in distance:
                distance[j] = distance[i] + 1
                queue.append(j)
    for i in range(n):
        if i not in distance:
            return i, f"never settles without the user: {graph.states[i]}", 0
    # … and by any moves of the system: there is no round among pending states.
    after: dict[int, list[int]] = {}
    open_in = [0] * n
    for source, target in graph.system:
        if pending[source] and pending[target]:
            after.setdefault(source, []).append(target)
            open_in[target] += 1
    queue = deque(i for i in range(n) if pending[i] and not open_in[i])
    left = sum(pending)
    while queue:
        left -= 1
        for j in after.get(queue.popleft(), ()):
            open_in[j] -= 1
            if not open_in[j]:
                queue.append(j)
    if left:
        i = next(i for i in range(n) if pending[i] and open_in[i])
        return i, f"may go round for ever without settling: {graph.states[i]}", 0
    return 0, None, max(distance.values(), default=0)
