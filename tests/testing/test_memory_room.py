"""What only the memory room can do: hold, drop, repeat, delay, and break links at will."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from tests.room_backends import LISTENER, PUBLISHER, Inbox
from utd_fsm.errors import UTDConnectionError, UTDEngineError, UTDPermissionError
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import (
    DataReceived,
    Disconnected,
    LeaveReason,
    LocalTrackMuted,
    ParticipantsChanged,
    Permission,
    PermissionChanged,
    Raw,
    Reconnected,
    Reconnecting,
    Room,
    RoomEvent,
    RoomMetadataChanged,
    RoomOptions,
    SpeakersChanged,
    TextReceived,
    TrackAdded,
    TrackRemoved,
)
from utd_fsm.testing import MemoryRoom, MemoryServer
from utd_fsm.testing.memory_tracks import Cutter

MICROPHONE, CAMERA = UTDTrackSource.MICROPHONE, UTDTrackSource.CAMERA


@pytest.fixture
async def server() -> MemoryServer:
    return MemoryServer(paced=False)


async def join(
    server: MemoryServer, identity: str, permission: Permission = PUBLISHER, room: str = "show"
) -> tuple[Room, Inbox]:
    inbox = Inbox()
    made = server.room_factory(inbox, RoomOptions())
    await made.connect(server.url, server.token(identity, room, permission))
    return made, inbox


def told(inbox: Inbox) -> list[RoomEvent]:
    """Everything but the raw events."""
    return [event for event in inbox.events if not isinstance(event, Raw)]


async def test_nothing_is_posted_inside_the_step_that_caused_it(server: MemoryServer) -> None:
    _, inbox = await join(server, "a", LISTENER)
    await server.settled()
    server.grant("show", "a")
    assert told(inbox) == []
    await server.settled()
    assert told(inbox) == [PermissionChanged(Permission(can_publish=True))]


async def test_every_step_in_between_is_told(server: MemoryServer) -> None:
    room, inbox = await join(server, "a", LISTENER)
    server.grant("show", "a", MICROPHONE)
    server.revoke("show", "a")
    server.grant("show", "a")
    await server.settled()
    assert [event.permission.can_publish for event in inbox.of(PermissionChanged)] == [True, False, True]
    assert room.permission == PUBLISHER


async def test_a_room_is_deterministic() -> None:
    async def run() -> list[str]:
        server = MemoryServer(paced=False)
        first, inbox = await join(server, "a")
        second, _ = await join(server, "b")
        publication = await second.publish_audio(MICROPHONE)
        server.mute("show", "b", MICROPHONE)
        server.restart()
        await publication.capture(np.zeros((960, 1), dtype=np.int16))
        await second.disconnect()
        server.delete_room("show")
        await server.settled()
        assert not first.connected
        return [type(event).__name__ for event in inbox.events]

    assert await run() == await run()


async def test_joins_are_held_at_the_gate(server: MemoryServer) -> None:
    server.joining.clear()
    room = server.room_factory(Inbox(), RoomOptions())
    joining = asyncio.create_task(room.connect(server.url, server.token("a", "show")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not joining.done()
    assert not room.connected
    server.joining.set()
    await joining
    assert room.connected


async def test_a_given_up_join_still_throws_the_next_try_out_while_it_lasts(server: MemoryServer) -> None:
    server.joining.clear()
    first = server.room_factory(Inbox(), RoomOptions())
    trying = asyncio.create_task(first.connect(server.url, server.token("a", "show")))
    await asyncio.sleep(0)
    server.joining.set()
    second, inbox = await join(server, "a")
    await trying
    await server.settled()
    assert [event.reason for event in inbox.of(Disconnected)] in ([], [LeaveReason.DUPLICATE_IDENTITY])
    assert first.connected != second.connected


async def test_leaving_during_the_join_undoes_it(server: MemoryServer) -> None:
    server.joining.clear()
    room = server.room_factory(Inbox(), RoomOptions())
    joining = asyncio.create_task(room.connect(server.url, server.token("a", "show")))
    await asyncio.sleep(0)
    await room.disconnect()
    server.joining.set()
    with pytest.raises(UTDConnectionError):
        await joining
    assert not room.connected
    assert not server.rooms["show"].seats


async def test_joins_can_be_refused_one_by_one(server: MemoryServer) -> None:
    server.refuse_next(UTDConnectionError("first"), UTDEngineError("second", 500))
    for error in (UTDConnectionError, UTDEngineError):
        with pytest.raises(error):
            await join(server, "a")
    assert (await join(server, "a"))[0].connected


async def test_an_unknown_room_is_a_404_where_rooms_are_not_made_by_joining() -> None:
    server = MemoryServer(auto_create=False)
    with pytest.raises(UTDEngineError) as refused:
        await join(server, "a")
    assert refused.value.status_code == 404
    server.create_room("show", metadata="seats")
    assert (await join(server, "a"))[0].metadata == "seats"


async def test_before_the_join_there_is_nobody_to_grant(server: MemoryServer) -> None:
    server.create_room("show")
    with pytest.raises(UTDEngineError) as refused:
        server.grant("show", "a")
    assert refused.value.status_code == 404


async def test_events_can_be_dropped_repeated_and_delayed(server: MemoryServer) -> None:
    room, inbox = await join(server, "a", LISTENER)
    assert isinstance(room, MemoryRoom)
    held: list[RoomEvent] = []

    def hook(client: MemoryRoom, event: RoomEvent) -> list[RoomEvent]:
        if isinstance(event, Raw):
            return []
        if isinstance(event, PermissionChanged):
            held.append(event)
            return []
        return [event, event] if isinstance(event, RoomMetadataChanged) else [event]

    server.hook = hook
    server.grant("show", "a")
    server.set_room_metadata("show", "new")
    await server.settled()
    assert inbox.events == [RoomMetadataChanged("new"), RoomMetadataChanged("new")]
    assert room.permission == PUBLISHER  # an event is lost, the state isn't
    room.deliver(held[0])
    assert inbox.events[-1] == PermissionChanged(PUBLISHER)


async def test_data_of_somebody_not_yet_announced_has_no_sender_and_text_has(server: MemoryServer) -> None:
    receiver, inbox = await join(server, "receiver")
    server.hold_announcements()
    sender, _ = await join(server, "late")
    await sender.send_data(b"x")
    await sender.send_text("y", topic="utd.chat")
    await server.settled()
    assert inbox.of(DataReceived)[0].identity is None
    assert inbox.of(TextReceived)[0].identity == "late"
    assert not receiver.participants
    server.announce()
    await server.settled()
    assert [one.identity for one in receiver.participants] == ["late"]


async def test_a_short_cut_hides_what_happens_and_catches_up(server: MemoryServer) -> None:
    room, inbox = await join(server, "a", LISTENER)
    await server.settled()
    server.cut("show", "a")
    server.grant("show", "a")
    server.set_room_metadata("show", "new")
    await join(server, "b")
    await server.settled()
    assert told(inbox) == [Reconnecting()]
    assert room.connected
    server.mend("show", "a")
    await server.settled()
    assert room.permission == PUBLISHER
    assert room.metadata == "new"
    assert [one.identity for one in room.participants] == ["b"]
    assert told(inbox)[1] == Reconnected()
    assert {type(event) for event in told(inbox)[2:]} == {PermissionChanged, RoomMetadataChanged, ParticipantsChanged}


async def test_a_full_reconnect_undoes_a_grant_given_while_the_link_was_down(server: MemoryServer) -> None:
    room, inbox = await join(server, "a", LISTENER)
    _, others = await join(server, "b")
    server.cut("show", "a")
    server.grant("show", "a")
    server.mend("show", "a", full=True)
    await server.settled()
    assert room.permission == LISTENER
    assert not inbox.of(PermissionChanged)
    assert [event.event.name for event in others.of(Raw)].count("participant_disconnected") == 1


async def test_a_restart_forgets_and_everybody_seems_to_leave(server: MemoryServer) -> None:
    speaker, mine = await join(server, "speaker", LISTENER)
    listener, theirs = await join(server, "listener", LISTENER)
    server.grant("show", "speaker")
    server.set_room_metadata("show", "seats")
    await server.settled()
    publication = await speaker.publish_audio(MICROPHONE)
    await server.settled()
    before = publication.sid

    server.stop()
    await server.settled()
    assert mine.of(Reconnecting)
    assert theirs.of(Reconnecting)
    with pytest.raises(UTDConnectionError):
        await join(server, "new")
    server.start(forget_grants=False)
    await server.settled()
    assert speaker.permission.can_publish
    assert publication.sid != before
    assert [track.sid for track in listener.remote_tracks] == [publication.sid]
    assert listener.metadata == ""
    assert [event.sid for event in theirs.of(TrackRemoved)] == [before]
    names = [type(event) for event in theirs.events if not isinstance(event, Raw)]
    assert names.index(TrackRemoved) < names.index(Reconnected)

    server.restart(forget_grants=True)
    await server.settled()
    assert not speaker.permission.can_publish
    assert mine.of(PermissionChanged)[-1].permission == LISTENER
    assert speaker.publications(MICROPHONE) == (publication.sid,)  # its publisher is not told
    assert listener.remote_tracks == ()


async def test_a_lost_link_is_noticed_by_the_others_when_the_test_says_so(server: MemoryServer) -> None:
    room, inbox = await join(server, "a")
    other, _ = await join(server, "b")
    server.lose("show", "a", noticed=False)
    await server.settled()
    assert inbox.of(Disconnected) == [Disconnected(LeaveReason.LOST)]
    assert not room.connected
    assert [one.identity for one in other.participants] == ["a"]
    again, _ = await join(server, "a")
    assert again.connected
    server.lose("show", "a")
    await server.settled()
    assert other.participants == ()


async def test_a_removed_one_may_join_again_with_the_same_token(server: MemoryServer) -> None:
    token = server.token("a", "show")
    room = server.room_factory(Inbox(), RoomOptions())
    await room.connect(server.url, token)
    server.remove("show", "a")
    await server.settled()
    again = server.room_factory(Inbox(), RoomOptions())
    await again.connect(server.url, token)
    assert again.connected
    assert not room.connected


async def test_losing_the_grant_while_publishing_is_refused(server: MemoryServer) -> None:
    room, _ = await join(server, "a")
    server.publishing.clear()
    publishing = asyncio.create_task(room.publish_audio(MICROPHONE))
    await asyncio.sleep(0)
    server.revoke("show", "a")
    server.publishing.set()
    with pytest.raises(UTDPermissionError):
        await publishing
    assert room.publications(MICROPHONE) == ()


async def test_leaving_while_publishing_is_a_lost_connection(server: MemoryServer) -> None:
    room, _ = await join(server, "a")
    server.publishing.clear()
    publishing = asyncio.create_task(room.publish_audio(MICROPHONE))
    await asyncio.sleep(0)
    await room.disconnect()
    server.publishing.set()
    with pytest.raises(UTDConnectionError):
        await publishing


async def test_a_mute_during_a_cut_is_told_afterwards(server: MemoryServer) -> None:
    room, inbox = await join(server, "a")
    await room.publish_audio(MICROPHONE)
    await server.settled()
    server.cut("show", "a")
    server.mute("show", "a", MICROPHONE)
    await server.settled()
    assert not inbox.of(LocalTrackMuted)
    server.mend("show", "a")
    await server.settled()
    assert inbox.of(LocalTrackMuted) == [LocalTrackMuted(MICROPHONE, True)]


async def test_speakers_are_told_loudest_first(server: MemoryServer) -> None:
    _, inbox = await join(server, "a")
    server.speak("show", {"quiet": 0.1, "loud": 0.9})
    await server.settled()
    assert inbox.of(SpeakersChanged) == [SpeakersChanged((("loud", 0.9), ("quiet", 0.1)))]


async def test_every_sample_arrives_when_it_is_not_paced(server: MemoryServer) -> None:
    speaker, _ = await join(server, "speaker")
    _, inbox = await join(server, "listener")
    publication = await speaker.publish_audio(MICROPHONE)
    stream = (await inbox.wait(TrackAdded)).track.audio()
    sent = np.arange(48000, dtype=np.int16).reshape(-1, 1)
    for start in range(0, 48000, 700):  # pieces that do not fit a frame
        await publication.capture(sent[start : start + 700])
    got = np.concatenate([await anext(stream) for _ in range(50)])
    assert np.array_equal(got, sent)
    assert stream.dropped == 0


async def test_a_slow_listener_loses_the_oldest_and_it_is_counted(server: MemoryServer) -> None:
    speaker, _ = await join(server, "speaker")
    _, inbox = await join(server, "listener")
    publication = await speaker.publish_audio(MICROPHONE)
    stream = (await inbox.wait(TrackAdded)).track.audio()
    for number in range(60):
        await publication.capture(np.full((960, 1), number, dtype=np.int16))
    assert stream.dropped == 10
    assert int((await anext(stream))[0, 0]) == 10


async def test_a_muted_or_unreachable_publisher_is_not_heard(server: MemoryServer) -> None:
    speaker, _ = await join(server, "speaker")
    _, inbox = await join(server, "listener")
    publication = await speaker.publish_audio(MICROPHONE)
    stream = (await inbox.wait(TrackAdded)).track.audio()
    await publication.set_muted(True)
    await publication.capture(np.full((960, 1), 1, dtype=np.int16))
    await publication.set_muted(False)
    server.cut("show", "speaker")
    await publication.capture(np.full((960, 1), 2, dtype=np.int16))
    server.mend("show", "speaker")
    await publication.capture(np.full((960, 1), 3, dtype=np.int16))
    assert int((await anext(stream))[0, 0]) == 3


async def test_the_size_looked_at_picks_the_layer(server: MemoryServer) -> None:
    actor, _ = await join(server, "actor")
    _, inbox = await join(server, "viewer")
    publication = await actor.publish_video(CAMERA, width=640, height=480)
    track = (await inbox.wait(TrackAdded)).track
    stream = track.video()
    picture = np.zeros((480, 640, 3), dtype=np.uint8)
    for size, shape in (((160, 120), (120, 160, 3)), ((320, 240), (240, 320, 3)), (None, (480, 640, 3))):
        track.set_wanted(True, size)
        await publication.capture(picture)
        assert (await anext(stream)).shape == shape


async def test_sound_is_paced_as_a_microphone_paces() -> None:
    server = MemoryServer(paced=True)
    room, _ = await join(server, "a")
    publication = await room.publish_audio(MICROPHONE)
    began = time.monotonic()
    for _ in range(15):
        await publication.capture(np.zeros((960, 1), dtype=np.int16))
    assert time.monotonic() - began > 0.15  # 300 ms, less the queue of 100
    await publication.drained()
    assert time.monotonic() - began > 0.29


@pytest.mark.parametrize(("rate_in", "rate_out"), [(16000, 48000), (48000, 16000), (44100, 48000), (48000, 44100)])
def test_resampling_keeps_pitch_and_length(rate_in: int, rate_out: int) -> None:
    cut = Cutter(rate_in, rate_out, 1)
    tone = (10000 * np.sin(2 * np.pi * 440 * np.arange(rate_in) / rate_in)).astype(np.int16).reshape(-1, 1)
    frames = [frame for start in range(0, rate_in, 333) for frame in cut(tone[start : start + 333])]
    assert {frame.shape for frame in frames} == {(rate_out // 50, 1)}
    assert 48 <= len(frames) <= 50
    sound = np.concatenate(frames)[:, 0].astype(float)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert abs(np.argmax(spectrum) * rate_out / len(sound) - 440) < 3
    assert np.abs(np.diff(sound)).max() < 10000 * 2 * np.pi * 440 / rate_out * 1.2  # no clicks at the seams


def test_a_token_shows_itself_only_to_its_own_server() -> None:
    async def run() -> None:
        token = MemoryServer("one").token("a", "show")
        other = MemoryServer("other")
        room = other.room_factory(Inbox(), RoomOptions())
        with pytest.raises(UTDPermissionError) as refused:
            await room.connect(other.url, token)
        assert refused.value.status_code == 401

    asyncio.run(run())
