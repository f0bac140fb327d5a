"""Audio rooms on rooms in memory, with the engine's own rules: seats, requests, invitations, moderation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from utd_fsm import room_wire, signals
from utd_fsm.errors import UTDConflictError, UTDInputError, UTDPermissionError, UTDStateError
from utd_fsm.models import UTDSeatMode
from utd_fsm.room_models import UTDSeatGrid
from utd_fsm.sessions.audio_room import AudioRoomSession
from utd_fsm.sessions.looks import LookTiming

from .audio_world import all_agree, audible, enter, heard_are, lobby, microphone, person, sitting, state, told
from .room_world import RoomWorld, do, until

# ------------------------------------------------------------------------------------------------------ the plain way


async def test_who_takes_a_seat_speaks_and_who_leaves_it_does_not(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob")
    assert bob.seats.value.count == 4  # with the first snapshot in
    await do(host.take_seat, 0)
    await do(ann.take_seat, 2)
    assert ann.seats.value.my_seat == 2
    assert microphone(ann) == "on"
    assert audible(rooms) == {"host", "ann"}
    await do(ann.move_seat, 1)
    assert sitting(ann.seats.value) == {0: "host", 1: "ann"}
    assert audible(rooms) == {"host", "ann"}
    await do(ann.leave_seat)
    assert ann.seats.value.my_seat is None
    await heard_are(rooms, "host")
    await all_agree(rooms)
    assert {"setup", "take", "move", "leave"} <= set(host._happened)


async def test_the_microphone_is_off_before_the_engine_hears_of_the_leaving(rooms: RoomWorld) -> None:
    _, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    gate = person(rooms, "ann").hold("leave")
    leaving = asyncio.create_task(do(ann.leave_seat))
    await person(rooms, "ann").arrived["leave"].wait()
    await heard_are(rooms)
    assert state(ann) == "leaving"
    assert sitting(ann.seats.value) == {1: "ann"}  # never ahead of the engine
    gate.set()
    await leaving
    assert state(ann) == "listener"


@pytest.mark.parametrize("auto_unmute", [False, True])
async def test_an_approved_speaker_is_heard_only_if_that_was_asked_for(rooms: RoomWorld, auto_unmute: bool) -> None:
    (host,) = await lobby(rooms, mode="request")
    ann = await enter(rooms, "ann", auto_unmute=auto_unmute)
    request = await do(ann.request_to_speak)
    assert ann.pending_requests.value == (request,)
    await until(lambda: host.pending_requests.value == (request,))
    assert await do(host.approve_speaker, request) == 1  # seat 0 is the host's
    assert sitting(host.seats.value) == {1: "ann"}
    assert host.pending_requests.value == ()
    await until(lambda: ann.seats.value.my_seat == 1 and ann.can_publish.value)
    if auto_unmute:
        await heard_are(rooms, "ann")
    else:
        await rooms.engine.media.settled()
        assert microphone(ann) == "off"
        await do(ann.set_microphone, True)
        assert audible(rooms) == {"ann"}


async def test_a_request_is_taken_back_or_turned_down(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann", mode="request")
    await do(ann.request_to_speak)
    await do(ann.cancel_request)
    assert ann.pending_requests.value == ()
    request = await do(ann.request_to_speak)
    await until(lambda: host.pending_requests.value)
    await do(host.reject_speaker, request.id)
    await until(lambda: state(ann) == "listener")
    with pytest.raises(UTDStateError, match="request_to_speak"):
        await do(ann.cancel_request)


async def test_an_invitation_is_told_once_and_accepted(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob", mode="request")
    with told(signals.invited, ann) as to_ann, told(signals.invited, bob) as to_bob:
        invitation = await do(host.invite_to_speak, "ann", 3)
        await until(lambda: ann.invitations.value == (invitation,))
        rooms.engine.put_right()  # the same again
        await do(host.lock_seat, 2)  # and once more, in another version
        await until(lambda: ann.seats.value.seats[2].locked)
        assert await do(ann.accept_invitation) == 3
        await asyncio.to_thread(signals.drain)
        assert [one["invitation"] for one in to_ann] == [invitation]
        assert to_bob == []
    assert microphone(ann) == "on"
    assert ann.invitations.value == ()
    await all_agree(rooms)


async def test_an_invitation_is_declined(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    with pytest.raises(UTDStateError, match="invite_to_speak"):
        await do(ann.accept_invitation)
    invitation = await do(host.invite_to_speak, "ann")
    await until(lambda: ann.invitations.value)
    await do(ann.decline_invitation, invitation)
    assert ann.invitations.value == ()
    with pytest.raises(UTDStateError):
        await do(ann.decline_invitation, invitation.id)


# ------------------------------------------------------------------------------------------------------- moderation


async def test_seats_are_kicked_locked_and_swapped(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob")
    await do(ann.take_seat, 1)
    await do(bob.take_seat, 2)
    await until(lambda: sitting(host.seats.value) == {1: "ann", 2: "bob"})
    await do(host.swap_seats, 1, 2)
    assert sitting(host.seats.value) == {1: "bob", 2: "ann"}
    await heard_are(rooms, "ann", "bob")
    await do(host.kick_seat, 2)
    await heard_are(rooms, "bob")
    await do(host.lock_seat, 1)  # evicts
    assert host.seats.value.seats[1].locked
    await heard_are(rooms)
    await until(lambda: bob.seats.value.my_seat is None)
    with pytest.raises(UTDStateError, match="locked"):
        await do(bob.take_seat, 1)
    await do(host.unlock_seat, 1)
    await until(lambda: 1 in bob.seats.value.free_seats())
    await do(bob.take_seat, 1)
    await heard_are(rooms, "bob")
    await all_agree(rooms)
    assert {"swap", "leave", "lock", "unlock"} <= set(bob._happened)


async def test_a_muted_seat_is_silent_until_a_moderator_and_its_speaker_say_otherwise(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    await until(lambda: sitting(host.seats.value))
    await do(host.mute_seat, 1)
    await heard_are(rooms)
    await until(lambda: microphone(ann) == "muted")
    with pytest.raises(UTDPermissionError, match="unmute_seat"):
        await do(ann.set_microphone, True)
    assert audible(rooms) == set()
    await do(host.unmute_seat, 1)
    await until(lambda: not ann.seats.value.seats[1].muted)
    assert microphone(ann) == "muted"  # nobody but oneself switches it on
    await do(ann.set_microphone, True)
    await heard_are(rooms, "ann")


async def test_a_muted_seat_counts_although_the_media_server_mutes_nothing(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    await do(ann.take_seat, 1)
    rooms.engine.granting = False  # nobody touches the track
    await until(lambda: sitting(host.seats.value))
    await do(host.mute_seat, 1)
    await heard_are(rooms)


async def test_all_are_muted_and_those_who_sit_down_later_too(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob")
    await do(host.take_seat, 0)
    await do(ann.take_seat, 1)
    await do(host.mute_all)
    await heard_are(rooms, "host")
    await until(lambda: bob.seats.value.all_muted)
    await do(bob.take_seat, 2)
    assert bob.seats.value.my_seat == 2
    assert microphone(bob) == "off"
    await do(host.mute_all, False)
    await until(lambda: not any(seat.muted for seat in bob.seats.value.seats))
    await do(bob.set_microphone, True)
    await heard_are(rooms, "host", "bob")


async def test_an_admin_moderates_but_not_the_host(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob")
    await do(host.take_seat, 0)
    await do(bob.take_seat, 1)
    await do(host.promote, "ann")
    await until(lambda: ann.role is not None and room_wire.is_moderator(ann.role))
    await until(lambda: sitting(ann.seats.value) == {0: "host", 1: "bob"})
    for verb in (ann.kick_seat, ann.lock_seat, ann.mute_seat):
        with pytest.raises(UTDPermissionError, match="host"):
            await do(verb, 0)
    await do(ann.mute_seat, 1)
    await heard_are(rooms, "host")


async def test_seats_are_set_up_again(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob", seats=8)
    await do(ann.take_seat, 7)
    await do(bob.take_seat, 1)
    grid = await do(host.setup_seats, 4, UTDSeatMode.REQUEST, "small")
    assert (grid.count, grid.mode, grid.mode_id) == (4, UTDSeatMode.REQUEST, "small")
    assert sitting(grid) == {1: "bob"}
    await heard_are(rooms, "bob")
    assert await do(ann.get_seats) == ann.seats.value
    await all_agree(rooms)


# ---------------------------------------------------------------------------------------------- what is refused here

Refused = tuple[str, str, tuple[Any, ...], type[Exception], str]
REFUSED: list[Refused] = [
    ("ann", "take_seat", (-1,), UTDInputError, "index"),
    ("ann", "take_seat", (True,), UTDInputError, "index"),
    ("ann", "take_seat", (4,), UTDInputError, "0 to 3"),
    ("ann", "take_seat", (0,), UTDPermissionError, "reserved"),
    ("ann", "take_seat", (2,), UTDStateError, "taken by bob"),
    ("ann", "take_seat", (3,), UTDStateError, "locked"),
    ("bob", "take_seat", (1,), UTDStateError, "move_seat"),
    ("ann", "leave_seat", (), UTDStateError, "take_seat"),
    ("ann", "move_seat", (1,), UTDStateError, "take_seat"),
    ("bob", "move_seat", (2,), UTDStateError, "yours"),
    ("bob", "move_seat", (3,), UTDStateError, "locked"),
    ("ann", "request_to_speak", (), UTDStateError, "take_seat"),
    ("ann", "accept_invitation", ("7",), UTDInputError, "invitation"),
    ("ann", "setup_seats", (4,), UTDPermissionError, "promote"),
    ("ann", "kick_seat", (2,), UTDPermissionError, "host and admins"),
    ("ann", "mute_all", (), UTDPermissionError, "host and admins"),
    ("ann", "approve_speaker", (1,), UTDPermissionError, "host and admins"),
    ("ann", "invite_to_speak", ("bob",), UTDPermissionError, "host and admins"),
    ("host", "setup_seats", (0,), UTDInputError, "1 to 100"),
    ("host", "setup_seats", (8, "open"), UTDInputError, "seat_mode"),
    ("host", "kick_seat", (1,), UTDStateError, "taken seats: 2"),
    ("host", "mute_seat", (1,), UTDStateError, "nobody"),
    ("host", "unlock_seat", (2,), UTDStateError, "kick_seat"),
    ("host", "lock_seat", (9,), UTDInputError, "0 to 3"),
    ("host", "swap_seats", (1, 1), UTDInputError, "two different"),
    ("host", "swap_seats", (2, 3), UTDStateError, "unlock_seat"),
    ("host", "invite_to_speak", ("bob",), UTDStateError, "seated"),
    ("host", "invite_to_speak", ("ann", 2), UTDStateError, "occupied"),
    ("host", "invite_to_speak", ("",), UTDInputError, "identity"),
    ("host", "reject_speaker", (0,), UTDInputError, "request"),
    ("host", "mute_all", ("yes",), UTDInputError, "muted"),
    ("ann", "set_camera", (True,), UTDStateError, "no video"),
    ("ann", "set_microphone", (True,), UTDPermissionError, "seat"),
    ("host", "set_microphone", (True,), UTDPermissionError, "seat"),  # nor does a host speak without one
]


async def test_what_cannot_be_is_refused_before_anything_is_sent(rooms: RoomWorld) -> None:
    host, ann, bob = await lobby(rooms, "ann", "bob")
    await do(bob.take_seat, 2)
    await do(host.lock_seat, 3)
    await all_agree(rooms)
    sessions = {"host": host, "ann": ann, "bob": bob}
    for who, verb, args, error, says in REFUSED:
        sent, before = list(person(rooms, who).sent), (state(sessions[who]), sessions[who].seats.value)
        with pytest.raises(error, match=says) as caught:
            await do(getattr(sessions[who], verb), *args)
        assert person(rooms, who).sent == sent, (verb, "sent something")
        assert (state(sessions[who]), sessions[who].seats.value) == before
        assert caught.value.status_code is None  # type: ignore[attr-defined]


async def test_in_request_mode_only_the_host_takes_a_seat(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann", mode="request")
    with pytest.raises(UTDPermissionError, match="request_to_speak"):
        await do(ann.take_seat, 1)
    await do(host.take_seat, 1)
    await do(ann.request_to_speak)
    with pytest.raises(UTDStateError, match="cancel_request"):
        await do(ann.request_to_speak)


async def test_without_seats_and_outside_of_the_room(rooms: RoomWorld) -> None:
    host = await enter(rooms, "host", as_host=True)
    with pytest.raises(UTDStateError, match="setup_seats"):
        await do(host.take_seat, 0)
    await do(host.leave)
    for verb in (host.get_seats, host.leave_seat, host.mute_all, host.setup_seats):
        with pytest.raises(UTDStateError, match="not in the room"):
            await do(verb)


async def test_what_the_engine_refuses_is_told_with_its_words_and_looked_after(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann", mode="request")
    request = await do(ann.request_to_speak)
    rooms.engine.telling = False
    await do(ann.cancel_request)
    with pytest.raises(UTDConflictError, match="no open request"):
        await do(host.approve_speaker, request)
    assert host.pending_requests.value == ()  # it looked


# ------------------------------------------------------------------------------------------- signals, hints, hosted


async def test_receivers_learn_which_seats_changed(rooms: RoomWorld) -> None:
    host, ann = await lobby(rooms, "ann")
    with told(signals.seats_changed, host) as seats, told(signals.requests_changed, host) as requests:
        await do(ann.take_seat, 2)
        await do(ann.move_seat, 1)
        await until(lambda: sitting(host.seats.value) == {1: "ann"})
        await do(host.setup_seats, None, "request")
        await do(ann.leave_seat)
        await do(ann.request_to_speak)
        await until(lambda: host.pending_requests.value)
        await asyncio.to_thread(signals.drain)
    assert [one["changed_indexes"] for one in seats] == [(2,), (1, 2), (), (1,), ()]
    assert all(isinstance(one["value"], UTDSeatGrid) for one in seats)
    assert len(requests) == 1


ENGINE_TYPES = (
    (room_wire.SEAT_UPDATE, {"count": 1, "seats": [], "version": 10**9}),
    (room_wire.MODE_CHANGE, {"mode_id": 3, "seat_count": 1}),
    (room_wire.SPEAKER_REQUEST, {"id": 9, "identity": "mallory"}),
    (room_wire.SPEAKER_REQUEST_APPROVED, {"identity": "bob", "seat_index": 3}),
    (room_wire.SPEAKER_INVITATION, {"invitation_id": 9, "target_identity": "bob"}),
    (room_wire.ROLE_CHANGE, {"identity": "bob", "role": "host"}),
    (room_wire.COMMENT_LOCK, {"locked": True}),
    (room_wire.USER_KICKED, {"reason": "kicked"}),
)


async def test_forged_messages_change_nothing_and_cause_no_request(rooms: RoomWorld) -> None:
    _, ann, bob = await lobby(rooms, "ann", "bob")
    await do(ann.take_seat, 1)
    await all_agree(rooms)
    before, looks = (bob.seats.value, bob.invitations.value, bob.chat_locked.value, bob.role), rooms.engine.looks
    for kind, content in ENGINE_TYPES:
        rooms.engine.forge(kind, content)
    await rooms.engine.media.settled()
    await asyncio.sleep(0.05)  # ten times as long as a hint waits here
    assert (bob.seats.value, bob.invitations.value, bob.chat_locked.value, bob.role) == before
    assert rooms.engine.looks == looks
    assert audible(rooms) == {"ann"}


async def test_where_the_metadata_carries_no_seats_a_hint_is_a_reason_to_look(rooms: RoomWorld) -> None:
    _, ann, bob = await lobby(rooms, "ann", "bob")
    await rooms.engine.media.settled()
    rooms.engine.telling = False
    rooms.engine.media.set_room_metadata("room", "{}")
    await rooms.engine.media.settled()
    await do(ann.take_seat, 1)
    assert sitting(ann.seats.value) == {1: "ann"}
    rooms.engine.forge(room_wire.SEAT_UPDATE)
    await until(lambda: sitting(bob.seats.value) == {1: "ann"})


async def evening(host: AudioRoomSession, ann: AudioRoomSession, rooms: RoomWorld) -> None:
    await do(ann.take_seat, 1)
    assert sitting(ann.seats.value) == {1: "ann"}
    assert microphone(ann) == "on"
    await until(lambda: sitting(host.seats.value) == {1: "ann"})
    await do(host.mute_seat, 1)
    assert host.seats.value.seats[1].muted
    await heard_are(rooms)
    await do(host.unmute_seat, 1)
    await do(ann.leave_seat)
    assert ann.seats.value.my_seat is None
    await do(host.setup_seats, None, "request")
    await until(lambda: ann.seats.value.mode is UTDSeatMode.REQUEST)
    request = await do(ann.request_to_speak)
    await until(lambda: host.pending_requests.value == (request,))
    await do(host.approve_speaker, request)
    await until(lambda: state(ann) == "seated")
    await do(ann.set_microphone, True)
    await heard_are(rooms, "ann")
    await do(host.kick_seat, 1)
    await heard_are(rooms)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("versions", [True, False])
async def test_engines_that_answer_less(rooms: RoomWorld, short: bool, versions: bool) -> None:
    rooms.engine.short, rooms.engine.versions = short, versions
    host, ann = await lobby(rooms, "ann")
    await evening(host, ann, rooms)


async def test_a_short_answer_is_looked_after(rooms: RoomWorld) -> None:
    host, _ = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.telling, rooms.engine.short = False, True
    await do(host.lock_seat, 2)
    assert host.seats.value.seats[2].locked


async def test_without_versions_an_answer_that_metadata_overtook_is_asked_for_again(rooms: RoomWorld) -> None:
    rooms.engine.short, rooms.engine.versions = True, False
    host, ann = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.telling = False
    await do(host.lock_seat, 3)
    who = person(rooms, "ann")
    real, times = who.seats, 0

    async def overtaken(*, key: str | None = None) -> UTDSeatGrid:
        nonlocal times
        times += 1
        answer = await real(key=key)
        if times == 1:
            rooms.engine.tell(index=-2)  # of the lock; it says nothing of the seat just taken
            await rooms.engine.media.settled()
        return answer

    who.seats = overtaken  # type: ignore[method-assign]
    await do(ann.take_seat, 1)
    assert times == 2
    assert (state(ann), microphone(ann), sitting(ann.seats.value)) == ("seated", "on", {1: "ann"})


async def test_metadata_of_before_the_seats_were_set_up_are_no_first_snapshot(rooms: RoomWorld) -> None:
    """They follow the engine: whoever joins right after the seats were set up may find older ones."""
    host = await enter(rooms, "host", as_host=True)
    rooms.engine.telling = False
    await do(host.setup_seats, 4, "free")
    late = await enter(rooms, "late")
    assert late.seats.value.count == 4
    await do(late.take_seat, 1)


async def test_without_seats_in_the_metadata_the_first_snapshot_is_asked_for(rooms: RoomWorld) -> None:
    rooms.engine.shown = lambda room: "{}"  # type: ignore[method-assign]
    host = await enter(rooms, "host", as_host=True)
    await do(host.setup_seats, 3)
    ann = await enter(rooms, "ann")
    assert ann.seats.value.count == 3
    await do(ann.take_seat, 1)
    await until(lambda: sitting(host.seats.value) == {1: "ann"})  # `_seat_update` was the hint
    assert audible(rooms) == {"ann"}


async def test_metadata_that_come_answer_the_hint_before_them() -> None:
    rooms = RoomWorld(looks=LookTiming(debounce=0.2, jitter=0.0))
    _, ann = await lobby(rooms, "ann")
    await rooms.engine.media.settled()
    rooms.engine.media.set_room_metadata("room", "{}")
    rooms.engine.forge(room_wire.SEAT_UPDATE)
    await rooms.engine.media.settled()
    assert ann._looks._task is not None
    looks = rooms.engine.looks
    rooms.engine.tell()
    await asyncio.sleep(0.4)
    assert rooms.engine.looks == looks
    await rooms.close()


async def test_metadata_that_cannot_be_read_is_a_reason_to_look(rooms: RoomWorld) -> None:
    _, ann, bob = await lobby(rooms, "ann", "bob")
    rooms.engine.telling = False
    await do(ann.take_seat, 1)
    rooms.engine.media.set_room_metadata("room", '{"_seats": {"seats": 3}}')
    await until(lambda: sitting(bob.seats.value) == {1: "ann"})
