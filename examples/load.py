"""Many calls at once, each between two identities of its own, all in this process.

    python examples/load.py --calls 10 --seconds 5

One identity holds one call (a rule of the engine), so N calls take 2 N identities. `utd-fsm engine` runs everything on
one core and allows 120 requests a minute and address: it is for development, and its limits are what you will measure.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from options import client, parse, parser

from utd_fsm import UTDCallStatus, UTDStreamClient, UTDStreamException, UTDStreamType
from utd_fsm.media import Tone


@dataclass
class Outcome:
    """What became of one call."""

    heard_after: float | None = None
    """Seconds from start() to the first sound, on the caller's side."""
    problem: str | None = None


def answer(phone: UTDStreamClient) -> None:
    """One callee: takes one call, speaks, and stays until the other hangs up."""
    incoming = phone.wait_for_call(timeout=60)
    if incoming is None:
        return
    with phone.call_session(incoming.type, microphone=Tone(660)) as call:
        call.ringing(incoming)
        call.accept(incoming)
        call.wait_until_ended()


def place(phone: UTDStreamClient, callee: str, seconds: float, ready: threading.Barrier) -> Outcome:
    """One caller, in its own thread."""
    outcome = Outcome()
    try:
        with phone.call_session(UTDStreamType.AUDIO_CALL, microphone=Tone(440)) as call:
            ready.wait(timeout=60)  # all at the same time
            began = time.monotonic()
            call.start(callee)
            status = call.wait_for_answer(timeout=60)
            if status is not UTDCallStatus.ACTIVE:
                outcome.problem = f"not answered: {status}"
                return outcome
            for frame in call.listen(seconds=seconds):
                if outcome.heard_after is None and np.abs(frame.samples).max() > 1000:
                    outcome.heard_after = frame.timestamp - began
            if outcome.heard_after is None:
                outcome.problem = "heard nothing"
    except UTDStreamException as error:
        outcome.problem = f"{type(error).__name__}: {error}"
    return outcome


def main() -> int:
    known = parser(__doc__)
    known.add_argument("--calls", type=int, default=5, help="how many at once")
    known.add_argument("--seconds", type=float, default=3.0, help="how long each talks")
    given = parse(known)

    with ExitStack() as stack, ThreadPoolExecutor(2 * given.calls) as pool:
        callers: list[UTDStreamClient] = []
        callees: list[UTDStreamClient] = []
        for number in range(given.calls):
            for side, identity in ((callers, f"caller-{number}"), (callees, f"callee-{number}")):
                phone = stack.enter_context(client(given))
                phone.authenticate(identity, receive_calls=side is callees)
                side.append(phone)
        ready = threading.Barrier(given.calls)
        answering = [pool.submit(answer, phone) for phone in callees]
        placing = [
            pool.submit(place, phone, f"callee-{number}", given.seconds, ready) for number, phone in enumerate(callers)
        ]
        outcomes = [call.result() for call in placing]
        for phone in callees:
            phone.close()  # whoever still waits for a call gets None
        problems = [outcome.problem for outcome in outcomes if outcome.problem]
        problems += [str(error) for error in (one.exception() for one in answering) if error is not None]

    times = [1000 * outcome.heard_after for outcome in outcomes if outcome.heard_after is not None]
    print(f"{len(times)} of {given.calls} calls were heard")
    if times:
        print(f"from start() to the first sound: median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
