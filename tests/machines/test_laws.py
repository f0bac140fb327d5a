"""The laws that hold for all machines, checked on the tables of the shipped classes."""

from __future__ import annotations

from inspect import isfunction

import pytest

from tests.machines.search.model import FINAL, PENDING
from utd_fsm.machines import (
    ALL,
    VIEW_OF,
    Broadcast,
    CallRecord,
    IncomingCall,
    Machine,
    OutgoingCall,
    Speaker,
    StageMember,
    events,
    observations,
    start,
    table,
)

EVERY = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
VIEWS = pytest.mark.parametrize("cls", VIEW_OF, ids=lambda cls: cls.__name__)
CALLS = pytest.mark.parametrize("cls", [OutgoingCall, IncomingCall], ids=lambda cls: cls.__name__)
STANDINGS = pytest.mark.parametrize("cls", [StageMember, Speaker], ids=lambda cls: cls.__name__)

RESULTS = {"lapsed", "give_up"}
"""What a view hears besides observations and intentions."""


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
    extra = {OutgoingCall: {"idle", "lost"}, IncomingCall: {"idle", "lost", "elsewhere"}}.get(cls, set())
    assert states(cls) == states(record) | cls.PENDING | extra
    seen = {name.removeprefix("saw_") for name in observations(cls)}
    assert seen == states(record) | ({"elsewhere"} & extra)
    assert set(cls.RANK) == (seen if record is CallRecord else set())  # the others cannot do without a version


@VIEWS
def test_a_pending_view_refuses_other_wishes(cls: type[Machine]) -> None:
    """One wish at a time; only hanging up and declining overtake."""
    wishes = set(events(cls)) - set(observations(cls)) - RESULTS
    for state in cls.PENDING:
        assert {event for here, event in table(cls) if here == state and event in wishes} <= {"hang_up", "decline"}
    assert not {event for here, event in table(cls) if here == "ending" and event in wishes}


@CALLS
def test_every_pending_state_hears_that_its_request_is_over(cls: type[Machine]) -> None:
    lapses = {state: table(cls)[state, "lapsed"] for state in cls.PENDING}
    assert lapses == {state: "ending" if state == "ending" else "idle" for state in cls.PENDING}
    assert {state for state, event in table(cls) if event == "lapsed"} == cls.PENDING
    assert {state for state, event in table(cls) if event == "give_up"} == cls.PENDING


@STANDINGS
def test_a_standing_falls_back_to_where_it_begins(cls: type[Machine]) -> None:
    """… and what is known is folded from there, so every observation leads out of it to its own state."""
    first = start(cls).state
    lapses = {state: target for (state, event), target in table(cls).items() if event == "lapsed"}
    assert lapses == dict.fromkeys(cls.PENDING, first)
    assert all(table(cls)[first, f"saw_{standing}"] == standing for standing in states(VIEW_OF[cls]))


@STANDINGS
def test_an_observation_of_a_standing_leads_to_it_or_leaves_the_wish_be(cls: type[Machine]) -> None:
    """Whoever wishes nothing is where the engine says; a wish is left by what answers it, and by nothing else."""
    for state in states(cls):
        for standing in states(VIEW_OF[cls]):
            target = table(cls)[state, f"saw_{standing}"]
            assert target == standing or (target == state and state in cls.PENDING)


@STANDINGS
def test_each_wish_of_a_standing_has_a_pending_state_of_its_own(cls: type[Machine]) -> None:
    wishes = set(events(cls)) - set(observations(cls)) - RESULTS
    leads = {wish: {target for (_, event), target in table(cls).items() if event == wish} for wish in wishes}
    assert all(len(targets) == 1 for targets in leads.values())
    assert set().union(*leads.values()) == cls.PENDING
    assert len(wishes) == len(cls.PENDING)


def test_a_broadcast_that_is_over_stays_over_and_only_an_absent_host_runs_out_of_grace() -> None:
    assert {state for state, event in table(Broadcast) if event == "grace_over"} == {"host_away"}
    assert {state for state, event in table(Broadcast) if event == "saw_over"} == states(Broadcast) - {"over"}
    assert not {event for state, event in table(Broadcast) if state == "over"}


def test_what_a_viewer_is_shown_of_a_stream() -> None:
    stream = start(Broadcast)
    shown = [stream.public]
    for name in ("saw_host", "saw_no_host", "saw_host", "saw_away", "saw_over"):
        stream.send(name)
        shown.append(stream.public)
    assert shown == ["waiting", "live", "host_away", "live", "host_away", "ended"]


def test_who_joins_while_the_host_is_away_is_shown_that_and_nothing_before() -> None:
    stream = start(Broadcast)
    assert stream.send("saw_away").changed
    assert stream.public == "host_away"


def reachable() -> dict[str, set[str]]:
    """Status → the statuses the record can show from there on."""
    reach = {state: {state} for state in states(CallRecord)}
    for _ in reach:
        for (state, _event), target in table(CallRecord).items():
            reach[state] |= reach[target]
    return reach


@CALLS
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
        "StageMember",
        "Speaker",
    }
