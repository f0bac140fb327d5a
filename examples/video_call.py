"""A video call: show moving pictures made with numpy, and look at the pictures that come back.

python examples/video_call.py bob --picture bob.ppm
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from options import client, parse, parser

from utd_fsm import UTDCallStatus, UTDStreamException, UTDStreamType
from utd_fsm.media import Tone, VideoFrames

WIDTH, HEIGHT, FPS = 320, 240, 15


def fade() -> Iterator[npt.NDArray[np.uint8]]:
    """A colour that moves from blue to red and back: uint8, (height, width, 3), RGB. Pulled on a thread of its own."""
    for number in itertools.count():
        red = abs(number * 8 % 510 - 255)
        picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture[:, :, 0], picture[:, :, 2] = red, 255 - red
        yield picture


def main() -> int:
    known = parser(__doc__)
    known.add_argument("callee", help="whom to call")
    known.add_argument("--as", dest="identity", default="director", help="who calls")
    known.add_argument("--seconds", type=float, default=3.0, help="how long to watch")
    known.add_argument("--picture", type=Path, help="write the last picture there, as a PPM file")
    given = parse(known)

    with client(given) as phone:
        phone.authenticate(given.identity)
        # A function that makes the iterator, so that a second call could begin it anew.
        camera = VideoFrames(fade, fps=FPS, width=WIDTH, height=HEIGHT)
        with phone.call_session(UTDStreamType.VIDEO_CALL, microphone=Tone(440), camera=camera) as call:
            call.start(given.callee)
            if call.wait_for_answer(timeout=60) is not UTDCallStatus.ACTIVE:
                print(f"no conversation: {call.status.value}")
                return 1

            seen, skipped, last = 0, 0, None
            until = time.monotonic() + given.seconds
            with call.watch() as pictures:  # leaving the `with` unsubscribes
                for last in pictures:  # always the newest one; a slow reader skips some
                    seen, skipped = seen + 1, skipped + last.dropped
                    if time.monotonic() >= until:
                        break
        if last is None:
            print("saw nothing")
            return 1
        print(f"saw {seen} pictures of {last.width}x{last.height} from {last.identity}, skipped {skipped}")
        if given.picture:
            header = f"P6 {last.width} {last.height} 255\n".encode()
            given.picture.write_bytes(header + last.pixels.tobytes())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
