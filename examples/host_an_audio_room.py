"""Host an audio room by itself: whoever asks to speak gets a seat for a while, in the order of asking.

python examples/host_an_audio_room.py lobby --seats 4 --turn 10
"""

from __future__ import annotations

import contextlib
import sys
import time

from options import client, parse, parser

from utd_fsm import UTDAudioRoomSession, UTDSeatGrid, UTDStateError, UTDStreamException, UTDTimeoutError, signals
from utd_fsm.media import Tone


@signals.seats_changed.connect
def on_seats(
    room: UTDAudioRoomSession, *, value: UTDSeatGrid, changed_indexes: tuple[int, ...], **extra: object
) -> None:
    """On the signals thread, after each change; the indexes tell which seats differ."""
    for index in changed_indexes:
        if index < value.count:  # fewer, when the room was left or set up anew
            seat = value.seats[index]
            print(f"seat {index}: {seat.occupant or ('locked' if seat.locked else 'empty')}", flush=True)


class Turns:
    """Who sits, and until when."""

    def __init__(self, room: UTDAudioRoomSession, seconds: float) -> None:
        self.room = room
        self.seconds = seconds
        self.until: dict[str, float] = {}

    def give(self) -> None:
        """Seat whoever asks, as long as a seat is free."""
        for request in self.room.pending_requests.value:
            try:
                self.room.approve_speaker(request)
            except UTDStateError as error:
                if error.code == "no_free_seat":
                    return
                continue  # cancelled meanwhile: a lost race, not a fault
            self.until[request.identity] = time.monotonic() + self.seconds

    def wait_for_news(self, timeout: float) -> None:
        """Until the list of requests changes; not until it has some, since they may wait for a free seat."""
        before = self.room.pending_requests.value
        with contextlib.suppress(UTDTimeoutError):
            self.room.pending_requests.wait_for(lambda now: now != before, timeout=timeout)

    def take_back(self) -> None:
        """Free the seats of those whose time is over."""
        for identity, until in list(self.until.items()):
            if time.monotonic() < until:
                continue
            del self.until[identity]
            index = self.room.seats.value.seat_of(identity)
            if index is not None:
                try:
                    self.room.kick_seat(index)
                except UTDStateError:
                    continue  # left by itself


def main() -> int:
    known = parser(__doc__)
    known.add_argument("room", help="name of the room")
    known.add_argument("--as", dest="identity", default="host1", help="who hosts")
    known.add_argument("--seats", type=int, default=4, help="how many seats, the host's included")
    known.add_argument("--turn", type=float, default=10.0, help="how long one may speak")
    known.add_argument("--seconds", type=float, default=60.0, help="how long the room is hosted")
    given = parse(known)

    with (
        client(given) as desk,
        desk.join_audio_room(given.identity, given.room, as_host=True, microphone=Tone(440)) as room,
    ):
        if not room.is_host:
            print(f"{given.room} belongs to somebody else")
            return 1
        room.setup_seats(given.seats, "request")
        room.take_seat(0)  # seated, and the microphone is on
        print(f"{given.room} is open", flush=True)

        turns = Turns(room, given.turn)
        until = time.monotonic() + given.seconds
        while (left := until - time.monotonic()) > 0:
            turns.give()
            turns.wait_for_news(timeout=min(0.5, left))
            turns.take_back()
        room.mute_all()  # also whoever would sit down after us
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UTDStreamException as error:
        sys.exit(f"{type(error).__name__}: {error}")
