"""The contract of a room, run on the memory room and on LiveKit's client against each media server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import numpy as np
import pytest

from tests.media_servers import KINDS, MediaServers
from tests.room_backends import (
    LISTENER,
    PATIENCE,
    PUBLISHER,
    Backend,
    LiveKitBackend,
    MemoryBackend,
    Painter,
    Singer,
    hear,
    only,
    track_of,
)
from utd_fsm.errors import (
    UTDConnectionError,
    UTDEngineError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
)
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import (
    CHAT_TOPIC,
    MAX_DATA_BYTES,
    DataReceived,
    Disconnected,
    LeaveReason,
    LocalMetadataChanged,
    LocalTrackMuted,
    LocalTrackSubscribed,
    ParticipantsChanged,
    Permission,
    PermissionChanged,
    Raw,
    Reconnected,
    Reconnecting,
    RoomMetadataChanged,
    RoomOptions,
    TextReceived,
    TrackAdded,
    TrackRemoved,
)

pytestmark = pytest.mark.media

MICROPHONE, CAMERA, SCREEN = UTDTrackSource.MICROPHONE, UTDTrackSource.CAMERA, UTDTrackSource.SCREEN


@pytest.fixture(params=["memory", *KINDS])
async def backend(request: pytest.FixtureRequest, media_servers: MediaServers) -> AsyncIterator[Backend]:
    made: Backend = MemoryBackend() if request.param == "memory" else LiveKitBackend(media_servers.get(request.param))
    yield made
    await made.close()


# -- joining


async def test_a_join_returns_with_everything_known(backend: Backend) -> None:
    first, inbox = await backend.join("first", only(PUBLISHER, MICROPHONE), metadata='{"role":"host"}')
    assert first.connected
    assert first.permission == only(PUBLISHER, MICROPHONE)
    assert first.permission.allows(MICROPHONE)
    assert not first.permission.allows(CAMERA)
    assert first.local is not None
    assert (first.local.identity, first.local.metadata, first.local.can_publish) == ("first", '{"role":"host"}', True)
    assert first.participants == ()

    second, _ = await backend.join("second", LISTENER)
    assert [one.identity for one in second.participants] == ["first"]
    assert second.participants[0].metadata == '{"role":"host"}'
    assert not second.permission.can_publish
    await inbox.until(lambda: [one.identity for one in first.participants] == ["second"])
    assert inbox.of(ParticipantsChanged)
    assert not inbox.of(Disconnected)


async def test_participants_are_listed_oldest_first(backend: Backend) -> None:
    for name in ("a", "b"):
        await backend.join(name)
    last, inbox = await backend.join("c")
    await backend.join("d")
    await inbox.until(lambda: len(last.participants) == 3)
    assert [one.identity for one in last.participants] == ["a", "b", "d"]


async def test_a_room_object_is_one_try(backend: Backend) -> None:
    room, inbox = await backend.join("a")
    with pytest.raises(UTDStateError):
        await room.connect(backend.url, backend.token("a"))
    await room.disconnect()
    await room.disconnect()
    assert not room.connected
    assert inbox.of(Disconnected) == [Disconnected(LeaveReason.ASKED)]
    with pytest.raises(UTDStateError):
        await room.connect(backend.url, backend.token("a"))


async def test_leaving_before_joining_and_after_failing_is_tolerated(backend: Backend) -> None:
    room, inbox = backend.room()
    await room.disconnect()
    room, inbox = backend.room()
    with pytest.raises(UTDPermissionError):
        await room.connect(backend.url, "garbage")
    await room.disconnect()
    assert inbox.events == []
    assert not room.connected
    assert room.local is None
    assert room.permission == Permission(can_publish=False, can_subscribe=False, can_publish_data=False)


async def test_a_refused_token_says_so_and_shows_no_token(backend: Backend) -> None:
    room, _ = backend.room()
    token = backend.token("a")
    forged = token.replace('"server"', '"nobody"') if token.startswith("{") else token[:-8] + "AAAAAAAA"
    with pytest.raises(UTDPermissionError) as refused:
        await room.connect(backend.url, forged)
    assert refused.value.status_code == 401
    assert forged not in str(refused.value)
    assert "eyJ" not in str(refused.value)
    assert refused.value.__context__ is None, "LiveKit's own error holds the token"


async def test_an_unreachable_server_is_a_connection_error(backend: Backend) -> None:
    room, inbox = backend.room()
    with pytest.raises(UTDConnectionError):
        await room.connect("ws://127.0.0.1:9", backend.token("a"))
    assert inbox.events == []


async def test_a_full_room_answers_500_and_lets_the_same_identity_in_again(backend: Backend) -> None:
    await backend.join("a", max_participants=2)
    await backend.join("b", max_participants=2)
    third, _ = backend.room()
    with pytest.raises(UTDEngineError) as refused:
        await third.connect(backend.url, backend.token("c", max_participants=2))
    assert refused.value.status_code == 500
    again, _ = await backend.join("b", max_participants=2)
    assert again.connected


async def test_a_cancelled_join_goes_on_and_is_undone(backend: Backend) -> None:
    _, watching = await backend.join("watcher")
    room, inbox = backend.room()
    joining = asyncio.create_task(room.connect(backend.url, backend.token("quitter")))
    await asyncio.sleep(0)
    if isinstance(backend, LiveKitBackend):
        while room.native is None:  # the native join must have begun, or there is nothing to undo
            await asyncio.sleep(0.001)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    if isinstance(backend, LiveKitBackend):
        from livekit import rtc

        async with asyncio.timeout(PATIENCE):
            while room.native.isconnected() or not room.native._local_participant:
                await asyncio.sleep(0.01)
        assert room.native.connection_state == rtc.ConnectionState.CONN_DISCONNECTED
    async with asyncio.timeout(PATIENCE):
        while "quitter" in await backend.present():
            await asyncio.sleep(0.05)
    assert not room.connected
    assert not watching.of(Disconnected)
    assert not inbox.of(PermissionChanged)


async def test_leaving_during_the_join_undoes_it(backend: Backend) -> None:
    await backend.join("watcher")
    room, inbox = backend.room()
    joining = asyncio.create_task(room.connect(backend.url, backend.token("quitter")))
    await asyncio.sleep(0)
    await room.disconnect()
    with pytest.raises(UTDConnectionError):
        await joining
    assert not room.connected
    async with asyncio.timeout(PATIENCE):
        while "quitter" in await backend.present():
            await asyncio.sleep(0.05)
    assert len(inbox.of(Disconnected)) <= 1


# -- being sent away


async def test_the_same_identity_throws_the_older_one_out(backend: Backend) -> None:
    old, inbox = await backend.join("a")
    new, newer = await backend.join("a")
    assert (await inbox.wait(Disconnected)).reason is LeaveReason.DUPLICATE_IDENTITY
    assert not old.connected
    assert new.connected
    await old.disconnect()
    assert len(inbox.of(Disconnected)) == 1
    assert not newer.of(Disconnected)


async def test_removal_says_so_once(backend: Backend) -> None:
    room, inbox = await backend.join("a")
    await backend.remove("a")
    assert (await inbox.wait(Disconnected)).reason is LeaveReason.REMOVED
    assert LeaveReason.REMOVED.is_final
    await room.disconnect()
    assert len(inbox.of(Disconnected)) == 1
    assert isinstance([event for event in inbox.events if not isinstance(event, Raw)][-1], Disconnected)
    with pytest.raises(UTDConnectionError):
        await room.send_data(b"x")
    with pytest.raises(UTDConnectionError):
        await room.publish_audio(MICROPHONE)
    await room.unpublish(MICROPHONE)


async def test_deleting_the_room_says_so_to_all(backend: Backend) -> None:
    _, first = await backend.join("a")
    _, second = await backend.join("b")
    await backend.delete_room()
    for inbox in (first, second):
        assert (await inbox.wait(Disconnected)).reason is LeaveReason.ROOM_DELETED


# -- what the server writes


async def test_room_metadata_arrives_in_order(backend: Backend) -> None:
    room, inbox = await backend.join("a")
    for number in range(10):
        await backend.set_room_metadata(f"version {number}")
    await inbox.until(lambda: room.metadata == "version 9")
    await inbox.wait(RoomMetadataChanged, lambda event: event.metadata == "version 9")
    assert [event.metadata for event in inbox.of(RoomMetadataChanged)] == [f"version {n}" for n in range(10)]


async def test_participant_metadata_arrives_at_itself_and_the_others(backend: Backend) -> None:
    own, mine = await backend.join("a")
    other, theirs = await backend.join("b")
    await backend.set_metadata("a", '{"role":"admin"}')
    assert (await mine.wait(LocalMetadataChanged)).metadata == '{"role":"admin"}'
    assert own.local is not None
    assert own.local.metadata == '{"role":"admin"}'
    await theirs.until(lambda: any(one.metadata == '{"role":"admin"}' for one in other.participants))
    assert not theirs.of(LocalMetadataChanged)


async def test_a_grant_arrives_as_a_copy_and_an_equal_one_not_at_all(backend: Backend) -> None:
    room, inbox = await backend.join("a", LISTENER)
    granted = Permission(can_publish=True, sources=frozenset({MICROPHONE}))
    await backend.permit("a", granted)
    assert (await inbox.wait(PermissionChanged)).permission == granted
    assert room.permission == granted
    await backend.permit("a", granted)
    await backend.permit("a", LISTENER)
    await inbox.wait(PermissionChanged, lambda event: event.permission == LISTENER)
    assert [event.permission for event in inbox.of(PermissionChanged)] == [granted, LISTENER]


async def test_a_grant_to_another_is_no_news_of_ours(backend: Backend) -> None:
    room, inbox = await backend.join("a", LISTENER)
    await backend.join("b", LISTENER)
    await inbox.until(lambda: len(room.participants) == 1)
    await backend.permit("b", PUBLISHER)
    await inbox.until(lambda: room.participants[0].can_publish)
    assert not inbox.of(PermissionChanged)


# -- publishing and listening


async def test_sound_goes_from_one_to_another(backend: Backend) -> None:
    speaker, mine = await backend.join("speaker")
    listener, theirs = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    assert speaker.publications(MICROPHONE) == (publication.sid,)
    assert speaker.publications(CAMERA) == ()
    track = await track_of(theirs, "speaker")
    assert (track.sid, track.kind, track.source, track.muted) == (publication.sid, "audio", MICROPHONE, False)
    assert [one.sid for one in listener.remote_tracks] == [publication.sid]
    assert (await mine.wait(LocalTrackSubscribed)).source is MICROPHONE
    async with Singer(publication, 440):
        await asyncio.gather(hear(track, 440), hear(track, 440, sample_rate=16000, channels=2))
    with pytest.raises(UTDInputError):
        track.video()
    await publication.drained()


async def test_what_is_captured_is_checked(backend: Backend) -> None:
    room, _ = await backend.join("a")
    audio = await room.publish_audio(MICROPHONE)
    with pytest.raises(UTDInputError):
        await audio.capture(np.zeros((960, 2), dtype=np.int16))
    with pytest.raises(UTDInputError):
        await audio.capture(np.zeros((960, 1), dtype=np.float32))
    video = await room.publish_video(CAMERA, width=64, height=48)
    with pytest.raises(UTDInputError):
        await video.capture(np.zeros((48, 64, 4), dtype=np.uint8))
    await video.drained()


async def test_a_picture_keeps_its_colours(backend: Backend) -> None:
    actor, _ = await backend.join("actor")
    _, inbox = await backend.join("viewer")
    publication = await actor.publish_video(CAMERA, width=320, height=240, simulcast=False)
    track = await track_of(inbox, "actor")
    assert track.kind == "video"
    stream = track.video()
    async with Painter(publication, 320, 240, (250, 0, 60)), asyncio.timeout(PATIENCE):
        while (frame := await anext(stream)).shape != (240, 320, 3):
            pass
    assert frame.dtype == np.uint8
    assert np.abs(frame[120, 160].astype(int) - (250, 0, 60)).max() < 25
    frame[0, 0] = 0  # one's own, and writable
    await stream.aclose()
    with pytest.raises(UTDInputError):
        track.audio()


async def test_unwanted_video_is_not_sent_and_comes_back(backend: Backend) -> None:
    actor, _ = await backend.join("actor")
    _, inbox = await backend.join("viewer", options=RoomOptions(adaptive_stream=True))
    publication = await actor.publish_video(CAMERA, width=320, height=240, simulcast=False)
    track = await track_of(inbox, "actor")
    async with Painter(publication, 320, 240, (0, 200, 0)), asyncio.timeout(PATIENCE):
        stream = track.video()
        await anext(stream)
        track.set_wanted(False)
        quiet = 0
        while quiet < 3:  # what was under way still arrives; then nothing does
            try:
                async with asyncio.timeout(0.5):
                    await anext(stream)
                quiet = 0
            except TimeoutError:
                quiet += 1
        track.set_wanted(True, (320, 240))
        await anext(stream)
        await stream.aclose()
    assert not inbox.of(TrackRemoved)


async def test_tracks_present_at_the_join_are_told_of(backend: Backend) -> None:
    speaker, _ = await backend.join("speaker")
    publication = await speaker.publish_audio(MICROPHONE)
    _, inbox = await backend.join("late")
    track = await track_of(inbox, "speaker")
    assert track.sid == publication.sid
    async with Singer(publication, 600):
        await hear(track, 600)
    assert len(inbox.of(TrackAdded)) == 1


async def test_without_auto_subscribe_no_track_comes(backend: Backend) -> None:
    speaker, _ = await backend.join("speaker")
    publication = await speaker.publish_audio(MICROPHONE)
    room, inbox = backend.room()
    await room.connect(backend.url, backend.token("quiet"), auto_subscribe=False)
    await inbox.until(lambda: bool(room.participants and room.participants[0].tracks))
    assert room.participants[0].tracks[0].sid == publication.sid
    await backend.set_room_metadata("a marker that comes after whatever was to come")
    await inbox.wait(RoomMetadataChanged)
    assert not inbox.of(TrackAdded)


async def test_unpublishing_ends_the_others_streams(backend: Backend) -> None:
    speaker, _ = await backend.join("speaker")
    _, inbox = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    track = await track_of(inbox, "speaker")
    stream = track.audio()
    async with Singer(publication, 440), asyncio.timeout(PATIENCE):
        await anext(stream)
        await speaker.unpublish(MICROPHONE)
        await speaker.unpublish(MICROPHONE)
        assert publication.closed
        assert speaker.publications(MICROPHONE) == ()
        await inbox.wait(TrackRemoved, lambda event: event.sid == track.sid)
        async for _ in stream:
            pass
    await publication.capture(np.zeros((960, 1), dtype=np.int16))
    await publication.set_muted(True)

    again = await speaker.publish_audio(MICROPHONE)
    assert again.sid != publication.sid
    async with Singer(again, 500):
        await hear(await track_of(inbox, "speaker", since=len(inbox.events) - 1), 500)


async def test_leaving_ends_the_others_streams(backend: Backend) -> None:
    speaker, _ = await backend.join("speaker")
    listener, inbox = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    track = await track_of(inbox, "speaker")
    stream = track.audio()
    await speaker.disconnect()
    assert publication.closed
    async with asyncio.timeout(PATIENCE):
        async for _ in stream:
            pass
    await inbox.until(lambda: listener.participants == ())
    assert listener.remote_tracks == ()
    assert [event.sid for event in inbox.of(TrackRemoved)] == [track.sid]


async def test_ones_own_leaving_ends_ones_streams(backend: Backend) -> None:
    speaker, _ = await backend.join("speaker")
    await speaker.publish_audio(MICROPHONE)
    listener, inbox = await backend.join("listener")
    stream = (await track_of(inbox, "speaker")).audio()
    await listener.disconnect()
    async with asyncio.timeout(PATIENCE):
        async for _ in stream:
            pass
    assert inbox.of(TrackRemoved)
    assert isinstance(inbox.events[-1], Disconnected)


async def test_nobodys_stream_carries_anothers_voice(backend: Backend) -> None:
    first, _ = await backend.join("first")
    second, _ = await backend.join("second")
    _, inbox = await backend.join("listener")
    publication = await first.publish_audio(MICROPHONE)
    old = (await track_of(inbox, "first")).audio()
    async with Singer(publication, 440), asyncio.timeout(PATIENCE):
        await anext(old)
    await first.unpublish(MICROPHONE)
    await inbox.wait(TrackRemoved)
    other = await second.publish_audio(MICROPHONE)
    async with Singer(other, 880):
        await hear(await track_of(inbox, "second"), 880)
        with pytest.raises(StopAsyncIteration):
            await anext(old)


async def test_publishing_without_the_grant_is_refused_at_once(backend: Backend) -> None:
    room, inbox = await backend.join("a", only(PUBLISHER, MICROPHONE))
    with pytest.raises(UTDPermissionError):
        async with asyncio.timeout(9):  # LiveKit itself would take 10 s to say so
            await room.publish_video(CAMERA, width=64, height=48)
    await backend.permit("a", LISTENER)
    await inbox.wait(PermissionChanged)
    with pytest.raises(UTDPermissionError):
        await room.publish_audio(MICROPHONE)


async def test_a_revoked_publisher_unpublishes_by_itself_and_can_come_back(backend: Backend) -> None:
    speaker, mine = await backend.join("speaker")
    _, theirs = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    track = await track_of(theirs, "speaker")
    async with Singer(publication, 440):
        await hear(track, 440)
        await backend.permit("speaker", LISTENER)
        assert not (await mine.wait(PermissionChanged)).permission.can_publish
        await theirs.wait(TrackRemoved, lambda event: event.sid == track.sid)
        assert speaker.publications(MICROPHONE) == (publication.sid,)  # LiveKit does not tell the publisher
        assert not publication.closed
        await speaker.unpublish(MICROPHONE)
        assert speaker.publications(MICROPHONE) == ()
    for hertz in (500, 700):
        await backend.permit("speaker", PUBLISHER)
        await mine.until(lambda: speaker.permission.can_publish)
        since = len(theirs.events)
        again = await speaker.publish_audio(MICROPHONE)
        async with Singer(again, hertz):
            await hear(await track_of(theirs, "speaker", since=since), hertz)
        await backend.permit("speaker", LISTENER)
        await mine.until(lambda: not speaker.permission.can_publish)
        await speaker.unpublish(MICROPHONE)


async def test_only_a_moderators_mute_is_told(backend: Backend) -> None:
    speaker, mine = await backend.join("speaker")
    listener, theirs = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    track = await track_of(theirs, "speaker")
    for muted in (True, False, True):  # with no pause between
        await publication.set_muted(muted)
    await theirs.until(lambda: track.muted)
    await asyncio.gather(publication.set_muted(False), publication.set_muted(True))
    assert publication.muted
    await backend.set_room_metadata("a marker after the toggling")
    await theirs.wait(RoomMetadataChanged)
    assert track.muted
    await publication.set_muted(True)
    await publication.set_muted(False)
    await theirs.until(lambda: not track.muted)
    assert not listener.participants[0].tracks[0].muted
    assert not mine.of(LocalTrackMuted)
    await backend.mute("speaker", publication.sid)
    assert await mine.wait(LocalTrackMuted) == LocalTrackMuted(MICROPHONE, True)
    assert publication.muted
    await theirs.until(lambda: track.muted)
    await backend.set_room_metadata("a marker: LiveKit says it twice, and the second time mutes again")
    await mine.wait(RoomMetadataChanged, lambda event: "twice" in event.metadata)
    await publication.set_muted(False)
    await theirs.until(lambda: not track.muted)
    await backend.set_room_metadata("a marker after the mutes")
    await mine.wait(RoomMetadataChanged, lambda event: event.metadata == "a marker after the mutes")
    assert len(mine.of(LocalTrackMuted)) == 1


async def test_a_cancelled_publish_is_taken_down(backend: Backend) -> None:
    room, _ = await backend.join("a")
    watcher, inbox = await backend.join("watcher")
    if isinstance(backend, MemoryBackend):
        backend.server.publishing.clear()
    publishing = asyncio.create_task(room.publish_audio(MICROPHONE))
    await asyncio.sleep(0.001)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    if isinstance(backend, MemoryBackend):
        backend.server.publishing.set()
    screen = await room.publish_video(SCREEN, width=64, height=48)
    await inbox.until(
        lambda: [track.source for one in watcher.participants for track in one.tracks] == [SCREEN],
    )
    async with asyncio.timeout(PATIENCE):
        while room.publications(MICROPHONE) != ():
            await asyncio.sleep(0.01)
    assert room.publications(SCREEN) == (screen.sid,)


# -- messages


async def test_data_arrives_with_topic_and_sender(backend: Backend) -> None:
    sender, _ = await backend.join("sender")
    receiver, inbox = await backend.join("receiver")
    _, bystander = await backend.join("bystander")
    await inbox.until(lambda: {one.identity for one in receiver.participants} == {"sender", "bystander"})
    await bystander.until(lambda: True)
    await sender.send_data(b"to all", topic="news")
    await sender.send_data(b"to one", to=["receiver"])
    await sender.send_data(b"quick", reliable=False, to=["receiver"])
    assert await inbox.wait(DataReceived, lambda event: event.data == b"to all") == DataReceived(
        b"to all", "sender", "news", True
    )
    assert await inbox.wait(DataReceived, lambda event: event.data == b"to one") == DataReceived(
        b"to one", "sender", None, True
    )
    assert not (await inbox.wait(DataReceived, lambda event: event.data == b"quick")).reliable
    await backend.send_data(b"from the server", "_engine")
    for box in (inbox, bystander):
        said = await box.wait(DataReceived, lambda event: event.data == b"from the server")
        assert said == DataReceived(b"from the server", None, "_engine", True)
    assert [event.data for event in bystander.of(DataReceived)] == [b"to all", b"from the server"]


async def test_data_may_go_to_somebody_not_listed(backend: Backend) -> None:
    room, _ = await backend.join("a")
    await room.send_data(b"x", to=["nobody"])
    with pytest.raises(UTDInputError):
        await room.send_data(bytes(MAX_DATA_BYTES + 1))
    await room.send_data(bytes(MAX_DATA_BYTES))


async def test_text_carries_its_sender_even_before_he_is_listed(backend: Backend) -> None:
    _, inbox = await backend.join("receiver")
    sender, _ = await backend.join("sender")
    texts = ["short", "ü" * 20_000, "last"]
    for text in texts:
        await sender.send_text(text, topic=CHAT_TOPIC, to=["receiver"])
    await sender.send_text("nobody listens", topic="elsewhere")
    await inbox.until(lambda: len(inbox.of(TextReceived)) == 3)
    assert inbox.of(TextReceived) == [TextReceived(text, "sender", CHAT_TOPIC) for text in texts]


async def test_a_senders_texts_come_in_order_whatever_their_length(backend: Backend) -> None:
    _, inbox = await backend.join("receiver")
    sender, _ = await backend.join("sender")
    texts = [secrets.token_hex(10_000 if number % 2 else 1) for number in range(60)]
    for text in texts:
        await sender.send_text(text, topic=CHAT_TOPIC)
    await inbox.until(lambda: len(inbox.of(TextReceived)) == len(texts))
    assert [event.text for event in inbox.of(TextReceived)] == texts


async def test_data_without_the_grant_is_dropped_without_a_word(backend: Backend) -> None:
    mute, _ = await backend.join("mute", Permission(can_publish=False, can_publish_data=False))
    sender, _ = await backend.join("sender")
    _, inbox = await backend.join("receiver")
    await mute.send_data(b"forbidden")
    await sender.send_data(b"allowed")
    await inbox.wait(DataReceived, lambda event: event.data == b"allowed")
    assert [event.data for event in inbox.of(DataReceived)] == [b"allowed"]


# -- the link


async def test_a_full_reconnect_keeps_the_publication_under_another_name(backend: Backend) -> None:
    speaker, mine = await backend.join("speaker")
    listener, theirs = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    before = publication.sid
    await track_of(theirs, "speaker")
    await mine.until(lambda: len(speaker.participants) == 1)
    await backend.full_reconnect(speaker)
    await mine.wait(Reconnecting)
    await mine.wait(Reconnected)
    assert speaker.connected
    await mine.until(lambda: publication.sid != before)
    assert not publication.closed
    assert speaker.publications(MICROPHONE) == (publication.sid,)
    await theirs.until(lambda: [track.sid for track in listener.remote_tracks] == [publication.sid])
    async with Singer(publication, 440):
        await hear(listener.remote_tracks[0], 440)
    await mine.until(lambda: [one.identity for one in speaker.participants] == ["listener"])
    assert not mine.of(Disconnected)
    await speaker.unpublish(MICROPHONE)
    await theirs.until(lambda: listener.remote_tracks == ())


async def test_livekits_own_events_come_under_their_names(backend: Backend) -> None:
    _, inbox = await backend.join("a")
    await backend.set_room_metadata("new")
    raw = await inbox.wait(Raw, lambda event: event.event.name == "room_metadata_changed")
    assert raw.event.args[-1] == "new"
