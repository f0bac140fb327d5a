"""What one step of a machine costs: ours against an enum and a dict, against `transitions`, against the library itself.

All in one process and one run, in alternating slices, so that whatever else the machine does hits all of them. Every
contender takes the same five steps of a call (dial, saw_initiating, saw_ringing, saw_active, and saw_active once more)
from a fresh object; making the object is measured apart. The ratio is of the medians of the slices.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from transitions import Machine as TransitionsMachine

from utd_fsm.machines import OutgoingCall, start, table

SLICES = 15
STEPS = ("dial", "saw_initiating", "saw_ringing", "saw_active", "saw_active")
LAST = "active"
OURS = "utd_fsm"


class State(Enum):
    """The states as one would write them by hand."""

    IDLE = "idle"
    DIALING = "dialing"
    WITHDRAWING = "withdrawing"
    INITIATING = "initiating"
    RINGING = "ringing"
    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"
    REJECTED = "rejected"
    BUSY = "busy"
    MISSED = "missed"
    LOST = "lost"


BY_HAND = {(State(state), event): State(target) for (state, event), target in table(OutgoingCall).items()}


class ByHand:
    """The least that can be written: an enum, a dict, and an error for what is not in it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.IDLE

    def send(self, event: str) -> State:
        """Take one event."""
        try:
            self.state = BY_HAND[self.state, event]
        except KeyError:
            raise ValueError(f"{event} in {self.state}") from None
        return self.state


def _transitions() -> Any:
    """The same table in `transitions`."""
    edges = [
        {"trigger": event, "source": state, "dest": target if target != state else None}
        for (state, event), target in table(OutgoingCall).items()
    ]
    states = [state.id for state in OutgoingCall.states]
    return TransitionsMachine(states=states, initial="idle", transitions=edges, auto_transitions=False)


def _drive_transitions(machine: Any) -> str:
    for event in STEPS:
        machine.trigger(event)
    return str(machine.state)


def _drive_sending(machine: Any) -> str:
    for event in STEPS:
        machine.send(event)
    state = getattr(machine, "state", None) or machine.current_state_value
    return str(getattr(state, "value", state))


CONTENDERS: dict[str, tuple[Callable[[], Any], Callable[[Any], str], int]] = {
    # name: (make one, drive one through STEPS, how many a slice)
    OURS: (lambda: start(OutgoingCall), _drive_sending, 2_000),
    "enum + dict": (ByHand, _drive_sending, 2_000),
    "transitions": (_transitions, _drive_transitions, 20),
    "python-statemachine": (OutgoingCall, _drive_sending, 10),
}


def _slice(name: str) -> tuple[float, float]:
    """(seconds a step, seconds an object) in one slice."""
    make, drive, count = CONTENDERS[name]
    begin = time.perf_counter()
    machines = [make() for _ in range(count)]
    made = time.perf_counter()
    ends = [drive(machine) for machine in machines]
    done = time.perf_counter()
    if set(ends) != {LAST}:
        raise AssertionError(f"{name} ended in {set(ends)}")
    return (done - made) / count / len(STEPS), (made - begin) / count


def run() -> list[tuple[str, float, str]]:
    """(name, ours divided by theirs, the medians) for a step and for an object of each contender."""
    for name in CONTENDERS:
        _slice(name)  # warm
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(SLICES):
        for name in CONTENDERS:
            samples[name].append(_slice(name))
    rows = []
    for i, what in enumerate(("machine step", "machine object")):
        median = {name: statistics.median(sample[i] for sample in taken) * 1e6 for name, taken in samples.items()}
        ours = median.pop(OURS)
        for name, theirs in median.items():
            rows.append((f"{what} against {name}", ours / theirs, f"{ours:.2f} µs against {theirs:.2f} µs"))
    return rows


if __name__ == "__main__":
    for name, ratio, note in run():
        print(f"{name:44} {ratio:8.4f}  {note}")
