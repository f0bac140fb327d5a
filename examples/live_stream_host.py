"""Host a live stream: go on air, and give everybody who raises a hand a turn on stage.

utd-fsm engine                                    # one terminal
python examples/live_stream_host.py show          # another
python examples/viewer_recorder.py show --to show.wav   # a third
"""

from __future__ import annotations

import sys
import time

from options import client, parse, parser

from utd_fsm import UTDLiveStreamSession, UTDStateError, UTDStreamException, UTDTimeoutError
from utd_fsm.media import AudioSource, TestPattern, Tone, WavFile


def give_a_turn(live: UTDLiveStreamSession, guest: str, seconds: float) -> None:
    """Bring a viewer on stage, hear it for a while, and take it off again."""
    live.invite_to_stage(guest)
    print(f"{guest} is on stage, with {len(live.hands.value)} hands still up")
    try:
        # The seconds count from the first sound; who says nothing for 5 s has had its turn.
        loudest = max(int(abs(frame.samples).max()) for frame in live.listen(guest, seconds=seconds, timeout=5))
        print(f"heard {guest}, at most {loudest / 32767:.0%} of full scale")
    except UTDTimeoutError:
        print(f"{guest} says nothing")
    try:
        live.remove_from_stage(guest)
    except UTDStateError:
        print(f"{guest} has left the stage already")  # a lost race, not a fault


def main() -> int:
    known = parser(__doc__)
    known.add_argument("room", help="name of the stream")
    known.add_argument("--as", dest="identity", default="host1", help="who hosts")
    known.add_argument("--play", metavar="FILE.wav", help="what is heard; a tone unless given")
    known.add_argument("--seconds", type=float, default=30.0, help="how long to stay on air")
    known.add_argument("--turn", type=float, default=5.0, help="how long a guest may speak")
    given = parse(known)
    sound: AudioSource = WavFile(given.play, loop=True) if given.play else Tone(440)

    with client(given) as studio:
        joined = studio.join_live_stream(
            given.identity, given.room, as_host=True, name="Host", microphone=sound, camera=TestPattern(640, 360, 15)
        )
        # Leaving this `with` ends the stream; leaving it by an exception gives us 60 s to come back.
        with joined as live:
            if not live.is_host:
                print(f"{given.room} belongs to somebody else")
                return 1
            live.go_live()
            print(f"{given.room} is on air", flush=True)
            until = time.monotonic() + given.seconds
            while (left := until - time.monotonic()) > 0:
                try:
                    hands = live.hands.wait_for(lambda hands: hands, timeout=left)
                except UTDTimeoutError:
                    break
                give_a_turn(live, hands[0].identity, given.turn)  # the oldest first
            live.end_live()
            print(f"{given.room} has {live.broadcast.value}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
