"""What every declared machine has in common: the base class, its table, and the light object that runs it.

Pure. No machine, step or runner here does I/O, sleeps, logs, holds a timer or calls back: entering a state *means*
something (a request goes out, a track is taken down), and whoever sent the event does it, from the `Step` it got back.

The declared class is the single source. `Runner` runs the table taken from it (`table`), because the library takes 100
to 400 µs for a transition and 0.4 to 0.9 ms for an instance, by machine; the tests try every state and event on both
and find them equal, and benchmarks/machine_step.py measures both.
Nothing here is thread-safe: one thread owns a machine, the loop thread in a client, the writer's in the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, TypeVar

from statemachine import Event, State, StateChart
from statemachine.exceptions import InvalidDefinition, TransitionNotAllowed
from statemachine.transition_list import TransitionList

from utd_fsm.errors import UTDInputError, UTDStateError

OBSERVED: Final = "saw_"
"""How the name of every observation begins; what follows is a state of the record, or what LiveKit said."""
BY_AND_MEANING: Final = " — "
"""Stands between who causes an event and what it means, in the event's name."""


class Machine(StateChart[Any]):
    """The base of all declared machines: flat, without guards, actions or timers.

    The four flags are written out because `StateChart`'s defaults ignore unknown events and swallow errors. Machines
    are not sent to through the library outside the tests: `start` gives what runs them.
    """

    allow_event_without_transition = False
    catch_errors_as_events = False
    atomic_configuration_update = True
    enable_self_transition_entries = False

    PENDING: ClassVar[frozenset[str]] = frozenset()
    """States that are left without the user's help: a request or a try is under way."""
    STALE: ClassVar[frozenset[tuple[str, str]]] = frozenset()
    """(state, observation) that cannot be news there. Dropped; if a version claims that it is news, look."""
    PUBLIC: ClassVar[Mapping[str, str | None]] = MappingProxyType({})
    """State → the status shown to the application. A state without an entry shows what was shown before it."""
    RANK: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Standing → how far along it is: the order of snapshots that carry no version. Empty: a version is needed."""


M = TypeVar("M", bound=Machine)
M_co = TypeVar("M_co", bound=Machine, covariant=True)


def stay(*states: State) -> TransitionList:
    """Declared, and nothing changes: it is known already, or the machine waits for its own request."""
    edges = TransitionList()
    for state in states:
        edges.add_transitions(state.to(state, internal=True))
    return edges


def event(transitions: TransitionList, by: str, means: str) -> Event:
    """Declare one event.

    Args:
        transitions: where it leads.
        by: who causes it, as "who: how"; several separated by "; ".
        means: what it says, in half a sentence. Both go into the drawn tables, neither may contain " — ".
    """
    return Event(transitions, name=by + BY_AND_MEANING + means)


@dataclass(frozen=True, slots=True)
class Step:
    """One event that a machine took. The effects of the state entered are the sender's to carry out."""

    before: str
    """The state it was taken in."""
    event: str
    """The event, by its declared name."""
    after: str
    """The state it led to; equal to `before` where the event is declared and changes nothing."""

    @property
    def changed(self) -> bool:
        """Whether the machine is now in another state. Only then is anything entered."""
        return self.before != self.after


@cache
def table(cls: type[Machine]) -> Mapping[tuple[str, str], str]:
    """The whole machine: (state, event) → the state it leads to, in the order of declaration.

    Raises: InvalidDefinition: the class is not a flat machine without guards and actions, or gives two targets for
    one event.
    """
    rows: dict[tuple[str, str], str] = {}
    for state in cls.states:
        if state.states or state.parallel:
            raise InvalidDefinition(f"{cls.__name__}.{state.id} has states inside; declared machines are flat.")
        for transition in state.transitions:
            if list(transition.cond) or list(transition.validators) or transition.target is None:
                raise InvalidDefinition(f"{cls.__name__}.{state.id}: declared edges have no guards, and a target.")
            for name in map(str, transition.events):
                if rows.setdefault((state.id, name), transition.target.id) != transition.target.id:
                    raise InvalidDefinition(f"{cls.__name__}: two targets for {name} in {state.id}.")
    return MappingProxyType(rows)


@cache
def events(cls: type[Machine]) -> tuple[str, ...]:
    """The names of all declared events, in the order of declaration."""
    return tuple(name for name, value in vars(cls).items() if isinstance(value, Event))


@cache
def observations(cls: type[Machine]) -> tuple[str, ...]:
    """The declared events that are observations (`saw_…`)."""
    return tuple(name for name in events(cls) if name.startswith(OBSERVED))


@cache
def allowed(cls: type[Machine], state: str) -> tuple[str, ...]:
    """The events declared in `state`, in the order of declaration; empty in a final state."""
    rows = table(cls)
    return tuple(name for name in events(cls) if (state, name) in rows)


def refusal(cls: type[Machine], state: str, event: str) -> UTDStateError:
    """The error for an event that `state` does not declare. Names what is allowed instead."""
    here = allowed(cls, state)
    if event not in events(cls):
        said = f"{cls.__name__} has no event {event!r}"
        mend = "events are sent by their exact declared names, never by a name from the wire"
    else:
        said = f"{cls.__name__} does not take {event!r} in state {state!r}"
        mend = "nothing has changed"
    what = f"allowed in {state!r}: {', '.join(here)}" if here else f"{state!r} is final, no event is allowed any more"
    return UTDStateError(f"{said}; {mend}; {what}.", state=state, event=event, allowed=here)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A declared class as `Runner` needs it: every step it can ever take, made once."""

    steps: Mapping[tuple[str, str], Step]
    states: frozenset[str]
    final: frozenset[str]
    initial: str


@cache
def _plan(cls: type[Machine]) -> _Plan:
    return _Plan(
        steps={(state, name): Step(state, name, target) for (state, name), target in table(cls).items()},
        states=frozenset(state.id for state in cls.states),
        final=frozenset(state.id for state in cls.states if state.final),
        initial=next(state.id for state in cls.states if state.initial),
    )


class Runner(Generic[M_co]):
    """One running machine: a state, and the table of its declared class. Made by `start`; under 1 µs a step.

    Belongs to one thread. Nothing is ever half done: `send` either moves the state or raises and leaves it.
    """

    __slots__ = ("_plan", "_public", "_state", "machine")

    machine: type[M_co]
    """The declared class."""

    def __init__(self, machine: type[M_co], state: str | None = None) -> None:
        plan = _plan(machine)
        state = plan.initial if state is None else state
        if state not in plan.states:
            known = ", ".join(each.id for each in machine.states)
            raise UTDInputError(f"{machine.__name__} has no state {state!r}; it has {known}.")
        self.machine = machine
        self._plan = plan
        self._state = state
        self._public = machine.PUBLIC.get(state)

    def __repr__(self) -> str:
        return f"<{self.machine.__name__} {self._state}>"

    @property
    def state(self) -> str:
        """The state it is in."""
        return self._state

    @property
    def public(self) -> str | None:
        """The status to show. A state without an entry in `PUBLIC` (a pending one) shows what was shown before.

        Read it after `fold` or `request_over` has returned, not between their steps.
        """
        return self._public

    @property
    def is_final(self) -> bool:
        """Whether no event is declared any more."""
        return self._state in self._plan.final

    @property
    def is_pending(self) -> bool:
        """Whether it will leave its state without the user's help."""
        return self._state in self.machine.PENDING

    @property
    def allowed(self) -> tuple[str, ...]:
        """The events declared in the state it is in."""
        return allowed(self.machine, self._state)

    def can(self, event: str) -> bool:
        """Whether `event` is declared in the state it is in. False for any other name."""
        return (self._state, event) in self._plan.steps

    def send(self, event: str) -> Step:
        """Take one event.

        Args:
            event: the exact name of a declared event. Names from the wire never come here.

        Returns:
            What happened. A declared event that changes nothing gives a step that is not `changed`.

        Raises:
            UTDStateError: not declared in this state; nothing changed. `allowed` and the message name what is.
        """
        step = self._plan.steps.get((self._state, event))
        if step is None:
            raise refusal(self.machine, self._state, event)
        state = step.after
        self._state = state
        shown = self.machine.PUBLIC
        if state in shown:
            self._public = shown[state]
        return step


def start(cls: type[M], state: str | None = None) -> Runner[M]:
    """A running machine of a declared class.

    Args:
        cls: the declared class, for instance `OutgoingCall`.
        state: where to go on, for a record read back from storage; None is the initial state.

    Raises:
        UTDInputError: the class has no such state.
    """
    return Runner(cls, state)


def step(machine: Machine, event: str) -> Step:
    """Take one event on an object of the library itself, under the rules of `Runner.send`.

    This is what `Runner` is measured against; sessions and the engine run a `Runner`.

    Raises:
        UTDStateError: not declared in this state; nothing changed.
    """
    cls, before = type(machine), str(machine.current_state_value)
    if event not in events(cls):
        # The library matches by token prefix: `call.ended` would fire a transition named `call`.
        raise refusal(cls, before, event)
    try:
        machine.send(str(event))
    except TransitionNotAllowed:
        raise refusal(cls, before, event) from None
    return Step(before, str(event), str(machine.current_state_value))
