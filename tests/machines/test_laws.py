"""The laws that hold for all machines, checked on the tables of the shipped classes."""

from __future__ import annotations

from inspect import isfunction

import pytest

from tests.machines.search.model import FINAL, PENDING
from utd_fsm.machines import ALL, VIEW_OF, CallRecord, IncomingCall, Machine, OutgoingCall, observations, table

EVERY = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
VIEWS = pytest.mark.parametrize("cls", VIEW_OF, ids=lambda cls: cls.__name__)


def states(cls: type[Machine]) -> set[str]:
    return {state.id for state in cls.states}


@EVERY
def test_every_observation_is_declared_or_stale_or_comes_too_late(cls: type[Machine]) -> None:
    for state in states(cls):
        for observation in observations(cls):
            declared = (state, observation) in table(cls)
            stale = (state, observation) in cls.STALE
            assert declared + stale + (state in FINAL[cls.__name__]) == 1, (state, observation)


@EVERY
def test_what_a_class_says_of_its_states_is_about_its_states(cls: type[Machine]) -> None:
    assert states(cls) >= cls.PENDING
    assert states(cls) >= set(cls.PUBLIC)
    assert {(state, seen) for state in states(cls) for seen in observations(cls)} >= cls.STALE
    assert not cls.PUBLIC or states(cls) - set(cls.PUBLIC) <= cls.PENDING


@EVERY
def test_final_states_are_left_by_nothing(cls: type[Machine]) -> None:
    assert not {state for state, _ in table(cls)} & FINAL[cls.__name__]


@EVERY
def test_no_machine_has_callbacks(cls: type[Machine]) -> None:
    """Nothing happens inside a step: no machine has a method that could be taken for one of the library's callbacks."""
    assert not [name for each in (cls, Machine) for name, value in vars(each).items() if isfunction(value)]


@VIEWS
def test_a_view_has_the_states_of_its_record_and_one_pending_state_for_each_wish(cls: type[Machine]) -> None:
    record = VIEW_OF[cls]
    extra = {OutgoingCall: {"idle", "lost"}, IncomingCall: {"idle", "lost", "elsewhere"}}[cls]
    assert states(cls) == states(record) | cls.PENDING | extra
    seen = {name.removeprefix("saw_") for name in observations(cls)}
    assert seen == states(record) | ({"elsewhere"} & extra)
    assert set(cls.RANK) == seen


@VIEWS
def test_a_pending_view_refuses_other_wishes(cls: type[Machine]) -> None:
    """One wish at a time; only hanging up and declining overtake."""
    wishes = {"dial", "accept", "decline", "hang_up"}
    for state in cls.PENDING:
        assert {event for here, event in table(cls) if here == state and event in wishes} <= {"hang_up", "decline"}
    assert not {event for here, event in table(cls) if here == "ending" and event in wishes}


@VIEWS
def test_every_pending_state_hears_that_its_request_is_over(cls: type[Machine]) -> None:
    lapses = {state: table(cls)[state, "lapsed"] for state in cls.PENDING}
    assert lapses == {state: "ending" if state == "ending" else "idle" for state in cls.PENDING}
    assert {state for state, event in table(cls) if event == "lapsed"} == cls.PENDING
    assert {state for state, event in table(cls) if event == "give_up"} == cls.PENDING


def reachable() -> dict[str, set[str]]:
    """Status → the statuses the record can show from there on."""
    reach = {state: {state} for state in states(CallRecord)}
    for _ in reach:
        for (state, _event), target in table(CallRecord).items():
            reach[state] |= reach[target]
    return reach


@VIEWS
def test_what_is_shown_is_always_a_path_of_the_record(cls: type[Machine]) -> None:
    """Along every run of a view, whatever it hears in whatever legal order, status never jumps."""
    reach, changes = reachable(), 0
    seen: set[tuple[str, str | None, str | None]] = set()
    todo: list[tuple[str, str | None, str | None]] = [("idle", None, None)]  # state, shown, newest status heard
    while todo:
        state, shown, heard = todo.pop()
        if (state, shown, heard) in seen:
            continue
        seen.add((state, shown, heard))
        for (source, event), target in table(cls).items():
            if source != state or (event == "lapsed" and target == "idle" and heard):
                continue  # what lapses with something known is folded on before anything is shown
            news = heard
            if event.startswith("saw_"):
                news = {"elsewhere": "active"}.get(event[4:], event[4:])
                if heard and news not in reach[heard]:
                    continue
            now = cls.PUBLIC.get(target, shown)
            assert shown is None or now in reach[shown], (state, event, target, shown, now)
            changes += now != shown
            todo.append((target, shown if now is None else now, news))
    assert changes > 20


def test_pending_states_are_what_the_searches_take_for_pending() -> None:
    assert {name for name, pending in PENDING.items() if pending} == {
        "OutgoingCall",
        "IncomingCall",
        "Connection",
        "Source",
    }
