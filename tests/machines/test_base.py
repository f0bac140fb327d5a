"""What holds for running any machine: names are exact, refusals are whole, nothing of it is loaded with the package."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
from statemachine import State
from statemachine.exceptions import InvalidDefinition

from utd_fsm.errors import UTDInputError, UTDStateError
from utd_fsm.machines import ALL, CallRecord, Connection, IncomingCall, Machine, OutgoingCall, Source, start, step
from utd_fsm.machines.base import event, events, observations, table

WIRE: tuple[str, ...] = (
    *("call.ended", "call", "call_ended", "ended", "participant_left", "_banned", "room.connected"),
    *("", " ", "*"),
)


def strange_names(cls: type[Machine]) -> set[str]:
    """Names near the declared ones: prefixes, tokens, other spellings."""
    strange = set(WIRE)
    for name in events(cls):
        strange |= {f"{name}.now", f"{name}.*", f"{name}*", f"call.{name}", name[:-1], f"{name}_", name.upper()}
        strange |= {f" {name}", f"{name} ", name.replace("_", "."), name.removeprefix("saw_")}
    return strange - set(events(cls))


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_only_exact_declared_names_are_events(cls: type[Machine]) -> None:
    machine, runner = cls(), start(cls)
    for name in strange_names(cls):
        assert not runner.can(name)
        with pytest.raises(UTDStateError, match="by their exact declared names"):
            runner.send(name)
        with pytest.raises(UTDStateError, match="by their exact declared names"):
            step(machine, name)
        assert runner.state == machine.current_state_value == cls().current_state_value


def test_the_library_itself_would_take_a_prefix() -> None:
    """Why `step` looks a name up first: the library matches by token."""
    machine = OutgoingCall()
    machine.send("dial.from.the.wire")
    assert machine.current_state_value == "dialing"


def test_a_refusal_says_what_is_allowed() -> None:
    call = start(OutgoingCall)
    call.send("dial")
    with pytest.raises(UTDStateError) as refused:
        call.send("dial")
    assert refused.value.allowed == call.allowed
    assert str(refused.value) == (
        "OutgoingCall does not take 'dial' in state 'dialing'; nothing has changed; allowed in 'dialing': hang_up, "
        "saw_initiating, saw_ringing, saw_active, saw_ended, saw_rejected, saw_busy, saw_missed, lapsed, give_up."
    )


def test_a_final_state_says_so() -> None:
    with pytest.raises(UTDStateError, match="'ended' is final, no event is allowed any more") as refused:
        start(CallRecord, "ended").send("ring")
    assert refused.value.allowed == ()


def test_declared_events_may_be_sent_by_their_class_attribute() -> None:
    call = start(OutgoingCall)
    done = call.send(OutgoingCall.dial)
    assert (done.event, type(done.event)) == ("dial", str)


def test_a_step_tells_whether_anything_was_entered_and_cannot_be_altered() -> None:
    record = start(CallRecord)
    assert record.send("ring").changed
    again = record.send("ring")
    assert not again.changed
    with pytest.raises(FrozenInstanceError):
        again.after = "ended"  # type: ignore[misc]


def test_a_record_goes_on_where_it_was_stored() -> None:
    assert start(CallRecord, "ringing").send("accept").after == "active"
    with pytest.raises(UTDInputError, match="CallRecord has no state 'waiting'; it has initiating, ringing"):
        start(CallRecord, "waiting")


def test_a_pending_state_shows_what_was_shown_before() -> None:
    call = start(IncomingCall)
    shown = []
    for name in ("saw_initiating", "saw_ringing", "accept", "saw_active", "hang_up", "saw_ended"):
        call.send(name)
        shown.append(call.public)
    assert shown == ["initiating", "ringing", "ringing", "active", "active", "ended"]


def test_what_the_application_sees_of_a_connection() -> None:
    connection = start(Connection, "connected")
    shown = [connection.public]
    for name in ("saw_reconnecting", "saw_dropped", "grace_over", "dispose"):
        connection.send(name)
        shown.append(connection.public)
    assert shown == ["connected", "reconnecting", "reconnecting", "force_exit", "disconnected"]


def test_a_runner_names_itself() -> None:
    assert repr(start(Source)) == "<Source off>"


def test_observations_are_told_by_their_names() -> None:
    assert observations(Connection) == ("saw_joined", "saw_reconnecting", "saw_dropped", "saw_removed")


def test_a_machine_with_a_guard_is_no_declared_machine() -> None:
    class Guarded(Machine):
        a = State(initial=True)
        b = State(final=True)
        go = event(a.to(b, cond="may"), "test", "goes")

        def may(self) -> bool:
            return True

    with pytest.raises(InvalidDefinition, match="no guards"):
        table(Guarded)


def test_a_machine_with_two_targets_for_an_event_is_no_declared_machine() -> None:
    class Forked(Machine):
        a = State(initial=True)
        b = State(final=True)
        c = State(final=True)
        go = event(a.to(b) | a.to(c), "test", "goes")

    with pytest.raises(InvalidDefinition, match="two targets for go in a"):
        table(Forked)


def test_the_package_is_imported_without_the_library() -> None:
    code = "import sys, utd_fsm, utd_fsm.observe; sys.exit('statemachine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
