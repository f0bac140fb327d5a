"""A LiveKit room without a call: two participants, a tone one way and a message the other.

    python examples/room_by_itself.py --room lobby

`UTDRoom` takes a URL and a token from wherever you have them. Here they come from the engine's token route; with a
LiveKit server of your own they come from its `livekit-api` package.
"""

from __future__ import annotations

import argparse
import sys
import threading

import numpy as np
import requests
from options import parse, parser

from utd_fsm import UTDRoom, UTDStreamException, signals
from utd_fsm.media import Tone


def way_in(given: argparse.Namespace, identity: str, *, host: bool) -> tuple[str, str]:
    """The media server's URL and a token for one participant. Hosts may publish, the audience may not."""
    answer = requests.post(
        f"{given.engine}/api/v1/token",
        json={
            "identity": identity,
            "room_name": given.room,
            "type": "live_stream",
            "role": "host" if host else "audience",
            "room_owner_id": "speaker",
        },
        headers={"X-App-Id": given.app_id, "X-App-Key": given.app_key},
        timeout=(5, 8),
    )
    answer.raise_for_status()
    content = answer.json()
    return content["url"], content["token"]


def main() -> int:
    known = parser(__doc__)
    known.add_argument("--room", default="example-room", help="name of the room")
    known.add_argument("--seconds", type=float, default=1.0, help="how long to listen")
    given = parse(known)

    with UTDRoom() as speaker, UTDRoom() as listener:
        speaker.connect(*way_in(given, "speaker", host=True))
        listener.connect(*way_in(given, "listener", host=False))

        # Receivers run on the signals thread. This one lives as long as its name does: signals hold them weakly.
        arrived = threading.Event()

        def on_data(room: UTDRoom, *, data: bytes, identity: str | None, **extra: object) -> None:
            print(f"{identity or 'somebody'} sent {data!r}")
            arrived.set()

        signals.data_received.connect(on_data, sender=speaker, weak=False)

        speaker.set_microphone(True, source=Tone(440))
        heard = [frame.samples for frame in listener.listen("speaker", seconds=given.seconds)]
        print(f"heard {sum(map(len, heard)) / 48_000:.1f} s, at most {np.abs(np.concatenate(heard)).max()}")

        listener.send_data(b"thank you", to=["speaker"])
        if not arrived.wait(timeout=10):
            print("the message did not arrive")
            return 1

        # Whatever LiveKit can do and this package does not wrap: on the loop thread, with the live object.
        name = listener.run(lambda room: room.name)
        print(f"in {name}: {[one.identity for one in listener.remote_participants.value]}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
