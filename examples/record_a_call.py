"""Call somebody and record what they say into a WAV file, until they hang up or the time is over.

python examples/record_a_call.py bob --to bob.wav --seconds 10
"""

from __future__ import annotations

import sys
from pathlib import Path

from options import client, parse, parser

from utd_fsm import UTDCallStatus, UTDStreamException, UTDStreamType
from utd_fsm.media import Tone


def main() -> int:
    known = parser(__doc__)
    known.add_argument("callee", help="whom to call")
    known.add_argument("--as", dest="identity", default="recorder", help="who calls")
    known.add_argument("--to", type=Path, default=Path("recording.wav"), help="the file; replaced if it is there")
    known.add_argument("--seconds", type=float, default=5.0, help="how much at most")
    given = parse(known)

    with client(given) as phone:
        phone.authenticate(given.identity)
        with phone.call_session(UTDStreamType.AUDIO_CALL) as call:
            call.start(given.callee)
            if call.wait_for_answer(timeout=60) is not UTDCallStatus.ACTIVE:
                print(f"no conversation: {call.status.value}")
                return 1
            # A beep tells them that they are recorded. It goes out while the recording runs.
            beep = call.start_playing(Tone(1000, seconds=0.3))
            # Returns when the seconds are over, or the call is: a hang-up does not raise, it ends the file.
            recording = call.record(given.to, seconds=given.seconds)
            beep.stop()
        print(f"{recording.path}: {recording.seconds:.2f} s, ended by {recording.ended_by}, {recording.dropped} lost")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
