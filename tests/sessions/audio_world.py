"""Audio rooms on a `RoomWorld`: who is in them, and who is heard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from utd_fsm import signals
from utd_fsm.models import UTDStreamType, UTDTrackSource
from utd_fsm.room_models import UTDSeatGrid
from utd_fsm.sessions.audio_room import AudioRoomSession
from utd_fsm.sessions.engine_room import EngineRoomSession
from utd_fsm.sessions.seat_grid import standing_of

from .room_world import Person, RoomWorld, do, until

MICROPHONE = UTDTrackSource.MICROPHONE
AUDIO = UTDStreamType.AUDIO_ROOM


async def enter(world: RoomWorld, identity: str, *, as_host: bool = False, **core: Any) -> AudioRoomSession:
    """Somebody in the audio room."""
    made = world.make(AudioRoomSession, person(world, identity), as_host=as_host, **core)
    await do(made.join)
    return made


def person(world: RoomWorld, identity: str) -> Person:
    """What somebody asks of the engine."""
    return world.person(identity, type=AUDIO)


async def lobby(world: RoomWorld, *others: str, mode: str = "free", seats: int = 4) -> list[AudioRoomSession]:
    """A host who has set up the seats, and others."""
    host = await enter(world, "host", as_host=True)
    await do(host.setup_seats, seats, mode)
    return [host, *[await enter(world, one) for one in others]]


def audible(world: RoomWorld) -> set[str]:
    """Who is heard in the media room, by the media server's books."""
    seats = world.engine.media.rooms["room"].seats
    return {
        who
        for who, seat in seats.items()
        if any(track.live and not track.muted and track.source is MICROPHONE for track in seat.tracks.values())
    }


async def heard_are(world: RoomWorld, *who: str) -> None:
    """Until exactly these are heard."""
    await until(lambda: audible(world) == set(who))


def sitting(grid: UTDSeatGrid) -> dict[int, str]:
    """Index → who sits there."""
    return {seat.index: seat.identity for seat in grid.seats if seat.identity is not None}


def true_seats(world: RoomWorld) -> dict[int, str]:
    """The same by the engine's books."""
    return {i: row.identity for i, row in enumerate(world.engine.truth().seats) if row.identity is not None}


async def all_agree(world: RoomWorld) -> None:
    """Until every session in the room shows what the engine knows, and each view is its record."""
    from utd_fsm.local.engine.rooms import seats_of

    def agree() -> bool:
        truth = seats_of(world.engine.truth())
        rooms = [one for one in world.sessions if isinstance(one, AudioRoomSession) and one.connected.value]
        return all(
            (one.seats.value.seats, one.seats.value.requests, one.seats.value.version)
            == (truth.seats, truth.requests, truth.version)
            and one._stay.standing.state == standing_of(truth, one.identity)
            for one in rooms
        )

    await until(agree)


def state(session: AudioRoomSession) -> str:
    """One's own view."""
    return session._stay.standing.state


def microphone(session: AudioRoomSession) -> str:
    """The machine of its microphone."""
    return session._sources[MICROPHONE].state


@contextlib.contextmanager
def told(signal: signals.UTDSignal, session: EngineRoomSession) -> Iterator[list[dict[str, Any]]]:
    """What a signal says of this session; in order, on the signals thread."""
    got: list[dict[str, Any]] = []

    def receiver(sender: object, **payload: Any) -> None:
        got.append(payload)

    signal.connect(receiver, session.public, weak=False)
    try:
        yield got
    finally:
        signal.disconnect(receiver, session.public)
