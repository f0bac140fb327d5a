"""The rules of a live stream: who is on stage, whose hand is up, and whether the stream is on.

A viewer's standing is stepped on the declared `StageRecord`. The host has no standing of its own: it is on stage,
always. Every function works on the caller's copy of the record, which the caller throws away if it raises `Refused`.
Pure: no I/O, no clock.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from utd_fsm import room_wire
from utd_fsm.machines import StageRecord, start
from utd_fsm.room_models import UTDBroadcast, UTDHand, UTDStageMember
from utd_fsm.wire import ILLEGAL_TRANSITION

from .refusal import Refused
from .room_rights import must_moderate, must_not_serve_itself, must_own
from .room_state import Note, Person, RoomRecord, Said

_WHY: Final = {
    ("on_stage", "ask"): "is on stage already",
    ("audience", "lower"): "has no hand up",
    ("on_stage", "lower"): "is on stage: leave it instead",
    ("audience", "remove"): "is not on stage",
    ("hand_up", "remove"): "is not on stage",
}

LIVE: Final = {
    "start": {
        UTDBroadcast.WAITING: UTDBroadcast.LIVE,
        UTDBroadcast.LIVE: UTDBroadcast.LIVE,
        UTDBroadcast.HOST_AWAY: UTDBroadcast.LIVE,
        UTDBroadcast.ENDED: UTDBroadcast.LIVE,
    },
    "end": dict.fromkeys(UTDBroadcast, UTDBroadcast.ENDED),
    "away": {UTDBroadcast.LIVE: UTDBroadcast.HOST_AWAY},
    "back": {UTDBroadcast.HOST_AWAY: UTDBroadcast.LIVE},
    "over": {UTDBroadcast.HOST_AWAY: UTDBroadcast.ENDED},
    "open": {UTDBroadcast.ENDED: UTDBroadcast.WAITING},
}
"""The stream itself: event → state → state. An event that is not listed changes nothing: it is no longer so."""


def standing(room: RoomRecord, identity: str) -> str:
    """The state of somebody's `StageRecord`."""
    if room.is_on_stage(identity):
        return "on_stage"
    return "hand_up" if room.has_hand_up(identity) else "audience"


def _step(room: RoomRecord, who: Person, event: str, now: datetime | None = None) -> bool:
    """One step of one viewer; whether anything changed.

    Raises: Refused: 409, not declared where it would be taken.
    """
    if who.identity == room.owner:
        raise Refused(409, "not possible: the host is on stage, always", ILLEGAL_TRANSITION)
    runner = start(StageRecord, standing(room, who.identity))
    if not runner.can(event):
        told = f"not possible: this person {_WHY[runner.state, event]}"
        raise Refused(409, told, ILLEGAL_TRANSITION)
    if not runner.send(event).changed:
        return False
    room.hands = [one for one in room.hands if one.identity != who.identity]
    room.stage = [one for one in room.stage if one.identity != who.identity]
    if runner.state == "hand_up":
        room.hands.append(UTDHand(who.identity, who.name, now))
    elif runner.state == "on_stage":
        room.stage.append(UTDStageMember(who.identity, who.name))
    return True


def _must_be_on(room: RoomRecord) -> None:
    if room.live is UTDBroadcast.ENDED:
        raise Refused(409, "not possible: the stream has ended; its host may start it again", ILLEGAL_TRANSITION)


def ask(room: RoomRecord, who: Person, now: datetime) -> Said:
    """A viewer raises its hand; a hand that is up stays up."""
    _must_be_on(room)
    raised = _step(room, who, "ask", now)
    to = room.moderators()
    told = {"identity": who.identity, "name": who.name}
    return Said(notes=(Note(room_wire.STAGE_REQUESTED, told, to),) if raised and to else ())


def lower(room: RoomRecord, actor: str) -> Said:
    """A viewer takes its hand down."""
    _step(room, Person(actor), "lower")
    return Said()


def step_down(room: RoomRecord, actor: str) -> Said:
    """A member leaves the stage."""
    _step(room, Person(actor), "remove")
    return Said()


def add(room: RoomRecord, actor: str, who: Person) -> Said:
    """A moderator takes somebody on stage, asked for or not."""
    must_moderate(room, actor)
    if who.identity != room.owner:  # which stands there always: 409
        must_not_serve_itself(actor, who.identity)
    _must_be_on(room)
    _step(room, who, "add")
    return Said()


def remove(room: RoomRecord, actor: str, target: str) -> Said:
    """A moderator takes somebody off the stage."""
    must_moderate(room, actor)
    _step(room, Person(target), "remove")
    return Said()


def start_live(room: RoomRecord, actor: str) -> Said:
    """The host goes live, the first time or again."""
    must_own(room, actor, "start the stream")
    live(room, "start")
    return Said()


def end_live(room: RoomRecord, actor: str) -> Said:
    """The host ends the stream."""
    must_own(room, actor, "end the stream")
    live(room, "end")
    return Said()


def live(room: RoomRecord, event: str) -> Said:
    """The stream itself goes on; nothing, where it is no longer so. Once ended, nobody is on stage, no hand is up."""
    room.live = LIVE[event].get(room.live, room.live)
    if room.live is UTDBroadcast.ENDED:
        for identity in [*(one.identity for one in room.stage), *(one.identity for one in room.hands)]:
            clear(room, identity)
    return Said()


def clear(room: RoomRecord, identity: str) -> None:
    """Somebody is gone: stage and hand with it."""
    here = standing(room, identity)
    if here != "audience":
        _step(room, Person(identity), "remove" if here == "on_stage" else "lower")
