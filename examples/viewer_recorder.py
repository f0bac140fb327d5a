"""Watch a live stream and record what is heard there into a WAV file, until it ends or the time is over.

python examples/viewer_recorder.py show --to show.wav --seconds 60
"""

from __future__ import annotations

import sys
from pathlib import Path

from options import client, parse, parser

from utd_fsm import UTDBroadcast, UTDStreamException, UTDTimeoutError


def main() -> int:
    known = parser(__doc__)
    known.add_argument("room", help="name of the stream")
    known.add_argument("--as", dest="identity", default="recorder", help="who watches")
    known.add_argument("--to", type=Path, default=Path("stream.wav"), help="the file; replaced if it is there")
    known.add_argument("--seconds", type=float, default=30.0, help="how much at most")
    given = parse(known)

    with client(given) as viewer, viewer.join_live_stream(given.identity, given.room) as live:
        print(f"{given.room} is {live.broadcast.value}", flush=True)
        # Raises at once if the stream is over already: the next one is joined anew.
        live.broadcast.wait_for(UTDBroadcast.LIVE, timeout=60)
        # Without an identity it is everybody, mixed: the host, and whoever is on stage.
        with live.start_recording(given.to) as running:
            try:
                live.wait_until_ended(timeout=given.seconds)
            except UTDTimeoutError:
                print("the stream goes on without us")
            recording = running.stop()
        print(f"{recording.path}: {recording.seconds:.2f} s, {recording.dropped} lost, stream {live.broadcast.value}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
