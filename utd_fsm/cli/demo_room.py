"""``utd-fsm demo room``: an audio room whose seats are asked for, given, taken away, locked, swapped and muted.

Written as a user would write it: one thread for each participant, public names only. After each step everybody's ears
are measured, and must hear exactly those who sit unmuted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from utd_fsm import UTDAudioRoomSession, UTDSeatGrid, UTDSpeakerRequest, UTDTimeoutError
from utd_fsm.cli.demo_ears import Ears, Heard, differences, tone_hz
from utd_fsm.cli.demo_run import WITHIN, Crew, Report, Show, run_demo
from utd_fsm.media import Tone
from utd_fsm.testing import LocalEngine

HOST: Final = "host"
ROOM: Final = "demo-room"
LIMIT: Final = 200.0
"""Seconds until it is given up."""
HOSTS_SEAT, FIRST_SEAT, NEXT_SEAT, INVITED_SEAT = 0, 1, 2, 3


class RoomDemo:
    """The story of one room: what all threads share.

    The first listener asks and is approved, the second is invited, the third asks and is approved after the first was
    kicked off its seat and that was locked; where there is no third, the first asks again. The rest only listen.
    """

    def __init__(self, engine: LocalEngine, show: Show, *, seats: int, listeners: int) -> None:
        self.show = show
        self.seats = seats
        self.crew = Crew(engine, show, limit=LIMIT)
        self.listeners = [f"listener-{number}" for number in range(1, listeners + 1)]
        self.first, self.invited = self.listeners[:2]
        self.next = self.listeners[2] if listeners > 2 else self.first
        self.tones = {who: tone_hz(number) for number, who in enumerate((HOST, *self.listeners))}
        self.ears = Ears(self.crew, self.tones)
        self.rooms: dict[str, UTDAudioRoomSession] = {}
        self.steps: list[Report] = []
        self.differences: dict[str, str] = {}
        self._open = threading.Event()
        self._present = {who: threading.Event() for who in self.listeners}
        self._may_ask = threading.Event()
        self._may_ask_again = threading.Event()
        self._done = False
        self._over = threading.Event()

    # ------------------------------------------------------------------------------------------- who does what

    def host(self) -> None:
        """The host's thread: it directs."""
        say = Tone(self.tones[HOST])
        with (
            self.crew.client() as client,
            client.join_audio_room(
                HOST, ROOM, as_host=True, name="Host", seat_count=self.seats, seat_mode="request", microphone=say
            ) as room,
            self.ears.of(HOST, room),
        ):
            self.rooms[HOST] = room
            self._open.set()
            for who, present in self._present.items():
                self.crew.wait(present, f"{who} is in the room")
            room.take_seat(HOSTS_SEAT)
            self.show(HOST, f"has {self.seats} seats in request mode, sits on seat {HOSTS_SEAT}, says {say.hz:g} Hz")
            self.after("seeded", {HOSTS_SEAT: HOST})
            self.give_seats(room)
            self.take_and_change_seats(room)
            self._done = True
            self._over.set()

    def give_seats(self, room: UTDAudioRoomSession) -> None:
        """Requests, an approval, an invitation."""
        self._may_ask.set()
        requests = self.requests_of(room, {self.first, self.next})
        self.after("requested", {HOSTS_SEAT: HOST})

        self.show(HOST, f"approves {self.first}")
        room.approve_speaker(requests[self.first].id)
        self.after("approved", {HOSTS_SEAT: HOST, FIRST_SEAT: self.first})

        self.show(HOST, f"invites {self.invited} to seat {INVITED_SEAT}")
        room.invite_to_speak(self.invited, INVITED_SEAT)
        room.seats.wait_for(lambda grid: grid.seat_of(self.invited) is not None, timeout=WITHIN)
        self.after("invited", {HOSTS_SEAT: HOST, FIRST_SEAT: self.first, INVITED_SEAT: self.invited})

    def take_and_change_seats(self, room: UTDAudioRoomSession) -> None:
        """A kick, a lock and what it means for the next one, a swap, a mute."""
        self.show(HOST, f"kicks {self.first} off seat {FIRST_SEAT}")
        room.kick_seat(FIRST_SEAT)
        self.after("kicked", {HOSTS_SEAT: HOST, INVITED_SEAT: self.invited})

        self.show(HOST, f"locks seat {FIRST_SEAT}")
        room.lock_seat(FIRST_SEAT)
        locked = {FIRST_SEAT}
        self.after("locked", {HOSTS_SEAT: HOST, INVITED_SEAT: self.invited}, locked)

        self._may_ask_again.set()
        request = self.requests_of(room, {self.next})[self.next]
        self.show(HOST, f"approves {self.next}, who gets the first seat that is free and not locked")
        room.approve_speaker(request.id)
        seated = {HOSTS_SEAT: HOST, NEXT_SEAT: self.next, INVITED_SEAT: self.invited}
        self.after("approved past the lock", seated, locked)

        self.show(HOST, f"swaps seats {NEXT_SEAT} and {INVITED_SEAT}")
        room.swap_seats(NEXT_SEAT, INVITED_SEAT)
        seated = {HOSTS_SEAT: HOST, NEXT_SEAT: self.invited, INVITED_SEAT: self.next}
        self.after("swapped", seated, locked)

        self.show(HOST, f"mutes seat {INVITED_SEAT}, {self.next}'s")
        room.mute_seat(INVITED_SEAT)
        self.after("muted", seated, locked, {INVITED_SEAT})

    def requests_of(self, room: UTDAudioRoomSession, wanted: Collection[str]) -> dict[str, UTDSpeakerRequest]:
        """The open requests, once all of these have asked."""
        requests = room.pending_requests.wait_for(
            lambda requests: {request.identity for request in requests} >= set(wanted), timeout=WITHIN
        )
        return {request.identity: request for request in requests}

    def listener(self, identity: str) -> None:
        """A listener's thread."""
        self.crew.wait(self._open, "the host opens the room")
        name = identity.capitalize()
        with (
            self.crew.client() as client,
            client.join_audio_room(identity, ROOM, name=name, microphone=Tone(self.tones[identity])) as room,
            self.ears.of(identity, room),
        ):
            self.rooms[identity] = room
            self._present[identity].set()
            if identity == self.invited:
                self.accept(room)
            if identity in (self.first, self.next):
                self.ask_and_speak(identity, room, self._may_ask)
            if self.first == self.next == identity:
                self.ask_and_speak(identity, room, self._may_ask_again)
            self.crew.wait(self._over, "the host is done", timeout=LIMIT)

    def ask_and_speak(self, identity: str, room: UTDAudioRoomSession, may_ask: threading.Event) -> None:
        """Ask; once seated, switch the microphone on: being approved does not."""
        self.crew.wait(may_ask, "the moment to ask", timeout=LIMIT)
        room.request_to_speak()
        self.show(identity, "requests to speak")
        grid = room.seats.wait_for(lambda grid: grid.my_seat is not None, timeout=LIMIT)
        room.set_microphone(True)
        self.show(identity, f"sits on seat {grid.my_seat}, and says {self.tones[identity]:g} Hz")

    def accept(self, room: UTDAudioRoomSession) -> None:
        """Take the seat I am invited to; the microphone is on then."""
        invitation = room.invitations.wait_for(lambda invitations: bool(invitations), timeout=LIMIT)[-1]
        room.accept_invitation(invitation)
        told = f"accepts, sits on seat {room.seats.value.my_seat}, and says {self.tones[self.invited]:g} Hz"
        self.show(self.invited, told)

    # --------------------------------------------------------------------------------------- what came of it

    def after(
        self, step: str, seated: Mapping[int, str], locked: Collection[int] = (), muted: Collection[int] = ()
    ) -> None:
        """Look at the grid, measure who is heard, and note both, and whatever is not as promised.

        Args:
            step: what was done.
            seated: seat → who must sit there, and nobody anywhere else.
            locked: the seats that must be locked.
            muted: the seats that must be muted.
        """
        grid = self.rooms[HOST].seats.value
        wrong = grid_differences(grid, self.seats, seated, locked, muted)
        expected = audible_by(grid, list(self.tones))
        heard = self.ears.measure(expected)
        wrong += differences(heard, expected)
        for who, room in self.rooms.items():
            try:
                room.seats.wait_for(lambda theirs: theirs.seats == grid.seats, timeout=5.0)
            except UTDTimeoutError:
                wrong.append(f"{who} shows other seats than the host did")
        self.steps.append({"step": step, "grid": seats_of(grid), "audible": names(heard)})
        if wrong:
            self.differences[step] = "; ".join(wrong)
        told = f"[red]{escape('; '.join(wrong))}[/]" if wrong else "[green]everybody hears those who sit unmuted[/]"
        self.show("measured", f"{step}: {told}")

    def run(self, media: str) -> Report:
        """All of it, and the report."""
        parts: dict[str, Callable[[], None]] = {
            HOST: self.host,
            **{who: partial(self.listener, who) for who in self.listeners},
        }
        self.crew.run(parts)
        errors = {**self.crew.errors, **self.differences}
        report: Report = {"ok": self._done and not errors, "media": media, "steps": self.steps}
        if errors:
            report["errors"] = errors
        return report


def audible_by(grid: UTDSeatGrid, everybody: Collection[str]) -> dict[str, list[str]]:
    """Whom each one must hear by what the grid says: those who sit unmuted, but not itself."""
    speaking = [seat.identity for seat in grid.seats if seat.identity is not None and not seat.muted]
    return {who: [one for one in speaking if one != who] for who in everybody}


def grid_differences(
    grid: UTDSeatGrid, count: int, seated: Mapping[int, str], locked: Collection[int], muted: Collection[int]
) -> list[str]:
    """What of a grid is not as it must be, in words; empty where all is."""
    wrong = [] if len(grid.seats) == count else [f"{len(grid.seats)} seats instead of {count}"]
    for seat in grid.seats:
        wanted = seated.get(seat.index), seat.index in locked, seat.index in muted
        if (seat.identity, seat.locked, seat.muted) != wanted:
            wrong.append(f"seat {seat.index}: {seat.identity}, locked {seat.locked}, muted {seat.muted}; not {wanted}")
    return wrong


def seats_of(grid: UTDSeatGrid) -> list[dict[str, Any]]:
    """The seats for the report, by index."""
    return [
        {"index": seat.index, "identity": seat.identity, "locked": seat.locked, "muted": seat.muted}
        for seat in grid.seats
    ]


def names(heard: Heard) -> dict[str, list[str]]:
    """Listener → whom it heard."""
    return {who: sorted(others) for who, others in heard.items()}


def run_demo_room(*, media: str, seats: int, listeners: int, as_json: bool) -> int:
    """Run it and report.

    Args:
        media: ``embedded``, ``livekit-server`` or a URL.
        seats: 4 to 100.
        listeners: how many beside the host, 2 or more.
        as_json: print one JSON object.

    Returns:
        The exit status: 0 only when after each step the grid was as it must be, and everybody heard exactly those who
        sat there unmuted.
    """

    def play(engine: LocalEngine, show: Show) -> Report:
        return RoomDemo(engine, show, seats=seats, listeners=listeners).run(media)

    return run_demo(media, play, summary, as_json=as_json)


def summary(report: Report) -> RenderableType:
    """The steps as a table."""
    title = "[green]a room, heard as its seats say[/]" if report["ok"] else "[red]not as promised[/]"
    grid = Table(title=title, title_justify="left")
    for column in ("step", "seats", "heard"):
        grid.add_column(column)
    for step in report["steps"]:
        speaking = {seat["identity"] for seat in step["grid"] if seat["identity"] and not seat["muted"]}
        unlike = [
            f"[red]{who}: {', '.join(heard) or 'nobody'}[/]"
            for who, heard in step["audible"].items()
            if set(heard) != speaking - {who}
        ]
        told = unlike or [f"by all: {', '.join(sorted(speaking)) or 'nobody'}"]
        grid.add_row(step["step"], " · ".join(filter(None, map(_told, step["grid"]))), "; ".join(told))
    captions = [f"{report['media']} media", *(f"{who}: {error}" for who, error in report.get("errors", {}).items())]
    grid.caption = escape(", ".join(captions))
    return grid


def _told(seat: Mapping[str, Any]) -> str:
    """One seat, if there is anything to say about it."""
    marks = [mark for mark in ("locked", "muted") if seat[mark]]
    what = " ".join(filter(None, [seat["identity"], f"({', '.join(marks)})" if marks else ""]))
    return f"{seat['index']} {what}" if what else ""
