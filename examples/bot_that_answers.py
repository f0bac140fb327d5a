"""Answer every call and say back what is heard: an echo.

    python examples/bot_that_answers.py --as bob

One call at a time: the engine lets one identity hold one call, and tells a second caller that it is busy.
"""

from __future__ import annotations

import sys

from options import client, parse, parser

from utd_fsm import UTDCall, UTDStreamClient, UTDStreamException
from utd_fsm.media import AudioFeed


def talk(phone: UTDStreamClient, incoming: UTDCall) -> None:
    """One call, from the ringing to its end."""
    echo = AudioFeed(sample_rate=48_000, channels=1)  # a microphone made of arrays
    with phone.call_session(incoming.type, microphone=echo) as call:
        call.ringing(incoming)
        call.accept(incoming)
        for frame in call.listen():  # ends when the call does
            echo.push(frame.samples)  # never blocks; too much at once drops the oldest
        over = call.wait_until_ended()
        print(f"{over.call_id}: {over.status} ({call.end_reason}) after {call.duration or 0:.1f} s", flush=True)


def main() -> int:
    known = parser(__doc__)
    known.add_argument("--as", dest="identity", default="bob", help="who answers")
    known.add_argument("--calls", type=int, default=0, help="stop after so many; 0 goes on until Ctrl-C")
    given = parse(known)

    with client(given) as phone:
        phone.authenticate(given.identity)
        print(f"{given.identity} waits for calls", flush=True)
        for number, incoming in enumerate(phone.incoming_calls, start=1):
            print(f"{incoming.call_id}: {incoming.caller_identity} calls", flush=True)
            try:
                talk(phone, incoming)
            except UTDStreamException as error:
                # Cancelled while it rang, answered on another device, connection lost: the next one may be fine.
                print(f"{incoming.call_id}: {type(error).__name__}: {error}", flush=True)
            if number == given.calls:
                break
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
