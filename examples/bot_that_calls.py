"""Call somebody, say something, listen for a while, hang up.

utd-fsm engine                                   # one terminal
python examples/bot_that_answers.py --as bob     # another
python examples/bot_that_calls.py bob            # a third
"""

from __future__ import annotations

import sys

from options import client, parse, parser

from utd_fsm import UTDCallStatus, UTDStreamException, UTDStreamType
from utd_fsm.media import AudioSource, Tone, WavFile


def main() -> int:
    known = parser(__doc__)
    known.add_argument("callee", help="whom to call")
    known.add_argument("--as", dest="identity", default="alice", help="who calls")
    known.add_argument("--say", metavar="FILE.wav", help="what to say; a tone of one second unless given")
    known.add_argument("--seconds", type=float, default=3.0, help="how long to listen afterwards")
    given = parse(known)
    words: AudioSource = WavFile(given.say) if given.say else Tone(440, seconds=1)

    with client(given) as phone:
        phone.authenticate(given.identity, name=given.identity.title())
        with phone.call_session(UTDStreamType.AUDIO_CALL) as call:
            # Returns once the engine has the call and our microphone (silence, for now) is published.
            record = call.start(given.callee, callee_name=given.callee.title(), metadata={"from": "an example"})
            print(f"{record.call_id}: calling {given.callee}")

            # A busy callee, a rejection and no answer are statuses, not exceptions.
            answer = call.wait_for_answer(timeout=60)
            if answer is not UTDCallStatus.ACTIVE:
                print(f"no conversation: {answer}")
                return 1

            call.play(words, timeout=120)  # returns when the last sample is out
            loudest = max((int(abs(frame.samples).max()) for frame in call.listen(seconds=given.seconds)), default=0)
            print(f"heard {given.callee}, at most {loudest / 32767:.0%} of full scale")

            final = call.end()  # leaving the `with` would do it too
            print(f"{call.end_reason}, {call.duration or 0:.1f} s, engine says {final.status if final else 'nothing'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
