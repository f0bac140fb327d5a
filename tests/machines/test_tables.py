"""Every state and every event of every machine, on the library's objects and on ours, against hand-written tables."""

from __future__ import annotations

import pytest

from tests.machines.tables import BY_HAND
from utd_fsm.errors import UTDStateError
from utd_fsm.machines import ALL, Machine, Step, allowed, events, start, step, table

EVERY = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def test_every_machine_has_a_table_written_by_hand() -> None:
    assert set(BY_HAND) == set(ALL)


@EVERY
def test_the_class_declares_what_is_written(cls: type[Machine]) -> None:
    by_hand = BY_HAND[cls]
    assert tuple(state.id for state in cls.states) == by_hand.states
    assert [state.id for state in cls.states if state.initial] == [by_hand.initial]
    assert {state.id for state in cls.states if state.final} == by_hand.final
    assert by_hand.pending == cls.PENDING
    assert events(cls) == by_hand.events
    assert dict(table(cls)) == by_hand.edges


@EVERY
def test_the_librarys_objects_do_what_is_written(cls: type[Machine]) -> None:
    by_hand = BY_HAND[cls]
    for state in by_hand.states:
        for event in by_hand.events:
            machine = cls(start_value=state)
            target = by_hand.edges.get((state, event))
            if target is not None:
                assert step(machine, event) == Step(state, event, target)
                assert machine.current_state_value == target
                assert machine.is_terminated == (target in by_hand.final)
                continue
            with pytest.raises(UTDStateError) as refused:
                step(machine, event)
            assert machine.current_state_value == state
            assert (refused.value.state, refused.value.event) == (state, event)


@EVERY
def test_runners_do_what_is_written(cls: type[Machine]) -> None:
    by_hand = BY_HAND[cls]
    for state in by_hand.states:
        here = tuple(event for event in by_hand.events if (state, event) in by_hand.edges)
        assert allowed(cls, state) == here
        for event in by_hand.events:
            runner = start(cls, state)
            shown = runner.public
            assert runner.can(event) == (event in here)
            assert runner.is_final == (state in by_hand.final)
            assert runner.is_pending == (state in by_hand.pending)
            if event in here:
                target = by_hand.edges[state, event]
                assert runner.send(event) == Step(state, event, target)
                assert runner.state == target
                continue
            with pytest.raises(UTDStateError) as refused:
                runner.send(event)
            assert (runner.state, runner.public) == (state, shown)
            assert (refused.value.state, refused.value.event, refused.value.allowed) == (state, event, here)
            assert all(name in str(refused.value) for name in here)


@EVERY
def test_a_runner_begins_where_the_librarys_object_begins(cls: type[Machine]) -> None:
    assert start(cls).state == cls().current_state_value == BY_HAND[cls].initial
