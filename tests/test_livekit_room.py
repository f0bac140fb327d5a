"""What the LiveKit adapter does beyond the contract of a room: errors, scrubbing, isolation, cheap imports, forks."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.media_servers import MediaServerProcess, MediaServers
from tests.room_backends import LISTENER, PATIENCE, PUBLISHER, Inbox, LiveKitBackend, Singer, hear, track_of
from utd_fsm.errors import (
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDPermissionError,
)
from utd_fsm.livekit_events import leave_reason
from utd_fsm.livekit_log import ScrubFilter, scrub_logger
from utd_fsm.livekit_room import LiveKitRoom, connect_error, settled, warm_up
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import (
    CHAT_TOPIC,
    Disconnected,
    LeaveReason,
    LocalTrackSubscribed,
    PermissionChanged,
    Raw,
    Reconnecting,
    RoomMetadataChanged,
    RoomOptions,
    TextReceived,
    TrackAdded,
)

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhIn0.F3ND0xXABNLXHNTFxhTcRuVnCfHU2FCpS2k5BpEB5Q8"
MICROPHONE = UTDTrackSource.MICROPHONE


# The texts are those of livekit 1.2.1 against livekit-server 1.13.5 and the embedded server.
@pytest.mark.parametrize(
    ("text", "kind", "status"),
    [
        ("engine: signal failure: transport connection error: IO error: Connection refused (os error 111)",
         UTDConnectionError, None),
        (f"engine: signal failure: client error: 401 Unauthorized - invalid token: {JWT}, error: signature is invalid",
         UTDPermissionError, 401),
        ("engine: signal failure: handshake error: 401 Unauthorized", UTDPermissionError, 401),
        ("engine: signal failure: client error: 403 Forbidden", UTDForbiddenError, 403),
        ("engine: signal failure: client error: 404 Not Found - requested room does not exist", UTDEngineError, 404),
        ("engine: signal failure: handshake error: 500 Internal Server Error", UTDEngineError, 500),
        ("engine: signal failure: ws://h/rtc?access_token=opaque&x=1 timed out", UTDConnectionError, None),
    ],
)  # fmt: skip
def test_a_failed_join_is_told_apart_by_its_text(text: str, kind: type[Exception], status: int | None) -> None:
    error = connect_error(text, "opaque-token")
    assert type(error) is kind
    assert error.status_code == status
    assert "eyJ" not in str(error)
    assert "opaque" not in str(error)


def test_a_token_that_is_no_jwt_is_hidden_too() -> None:
    assert "s3cret" not in str(connect_error("client error: 401 - invalid token: s3cret", "s3cret"))


def test_reasons_in_our_words() -> None:
    from livekit import rtc

    names: dict[str, int] = dict(rtc.DisconnectReason.items())
    assert leave_reason(names["DUPLICATE_IDENTITY"]) is LeaveReason.DUPLICATE_IDENTITY
    assert leave_reason(names["PARTICIPANT_REMOVED"]) is LeaveReason.REMOVED
    assert leave_reason(names["ROOM_DELETED"]) is LeaveReason.ROOM_DELETED
    assert leave_reason(names["UNKNOWN_REASON"]) is LeaveReason.LOST
    assert leave_reason(names["CONNECTION_TIMEOUT"]) is LeaveReason.LOST
    assert leave_reason(names["STATE_MISMATCH"]) is LeaveReason.STATE_MISMATCH
    assert leave_reason(names["SERVER_SHUTDOWN"]) is LeaveReason.SERVER_SHUTDOWN
    assert leave_reason(names["USER_REJECTED"]) is LeaveReason.UNKNOWN
    assert leave_reason(999) is LeaveReason.UNKNOWN
    assert {reason for reason in LeaveReason if reason.is_final} == {
        LeaveReason.ASKED,
        LeaveReason.DUPLICATE_IDENTITY,
        LeaveReason.REMOVED,
        LeaveReason.ROOM_DELETED,
    }


def test_log_records_lose_their_tokens(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("livekit.test_of_scrubbing")
    scrub_logger(logger.name)
    scrub_logger(logger.name)
    assert len(logger.filters) == 1
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.info("joining %s with %s", "ws://h/rtc?access_token=abc", JWT)
        logger.info("nothing to hide: %d", 7)
        try:
            raise RuntimeError(f"invalid token: {JWT}")
        except RuntimeError:
            logger.exception("failed")
    assert JWT not in caplog.text
    assert "abc" not in caplog.text
    assert "nothing to hide: 7" in caplog.text
    assert "RuntimeError" in caplog.text
    logger.filters.clear()


@pytest.mark.media
async def test_the_native_log_of_a_refused_join_holds_no_token(
    media_server: MediaServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    backend = LiveKitBackend(media_server)
    await warm_up()
    assert any(isinstance(present, ScrubFilter) for present in logging.getLogger("livekit").filters)
    token = backend.token("a")[:-6] + "AAAAAA"
    room, _ = backend.room()
    with caplog.at_level(logging.DEBUG, logger="livekit"):
        with pytest.raises(UTDPermissionError) as refused:
            await room.connect(backend.url, token)
        async with asyncio.timeout(PATIENCE):
            while "error while connecting" not in caplog.text:  # native lines come in batches, later than the error
                await asyncio.sleep(0.01)
    await backend.close()
    assert "401" in caplog.text
    for part in token.split("."):
        assert part not in caplog.text
        assert part not in str(refused.value)


async def test_warming_up_is_idempotent() -> None:
    await warm_up()
    began = time.monotonic()
    for _ in range(10):
        await warm_up()
    assert time.monotonic() - began < 5


def test_the_protocol_loads_neither_livekit_nor_numpy() -> None:
    code = "import sys, utd_fsm.room, utd_fsm.testing; print([m for m in ('livekit', 'numpy') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_the_adapter_loads_livekit_only_at_its_first_use() -> None:
    code = "import sys, utd_fsm.livekit_room; print('livekit' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "False"


_FORK = """
import asyncio, os, signal, sys
from utd_fsm.livekit_room import LiveKitRoom, warm_up
from utd_fsm.errors import UTDStreamException
signal.alarm(50)
def join():
    try:
        asyncio.run(LiveKitRoom(print).connect("ws://127.0.0.1:9", "t"))
    except UTDStreamException as error:
        print(type(error).__name__, error, flush=True)
asyncio.run(warm_up())
if sys.argv[1] == "used":
    join()
child = os.fork()
if not child:
    signal.alarm(50)
    join()
    os._exit(0)
os.waitpid(child, 0)
join()
"""


def forked(before: str) -> list[str]:
    command = [sys.executable, "-c", _FORK, before]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return shown.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_after_a_fork_from_a_process_that_used_livekit_the_child_is_told_why_not() -> None:
    parent, child, again = forked("used")
    assert child.startswith("UTDClosedError")
    assert "forked" in child
    assert parent.startswith("UTDConnectionError")
    assert again.startswith("UTDConnectionError")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_warming_up_before_a_fork_costs_neither_side_anything() -> None:
    """The native library answers in both: nobody listens on that port, and that is what each is told."""
    child, parent = forked("warm")
    assert child.startswith("UTDConnectionError")
    assert parent.startswith("UTDConnectionError")


@pytest.mark.media
async def test_an_error_in_the_receiver_of_events_stays_there(
    media_servers: MediaServers, caplog: pytest.LogCaptureFixture
) -> None:
    backend = LiveKitBackend(media_servers.get("embedded"))
    heard = Inbox()

    def broken(event: Any) -> None:
        heard(event)
        if isinstance(event, Raw):
            raise TypeError("a receiver's mistake")  # the one error that LiveKit does not swallow

    room = LiveKitRoom(broken)
    backend.rooms.append(room)
    await room.connect(backend.url, backend.token("a"))
    own: list[str] = []
    room.native.on("room_metadata_changed", lambda before, now: own.append(now))
    with caplog.at_level(logging.ERROR, logger="utd_fsm.room"):
        for number in range(3):
            await backend.set_room_metadata(str(number))
        await heard.until(lambda: len([e for e in heard.of(Raw) if e.event.name == "room_metadata_changed"]) == 3)
    assert "a receiver's mistake" in caplog.text
    await asyncio.sleep(0)
    assert own == ["0", "1", "2"]  # the application's own handler was not skipped
    await backend.close()


@pytest.mark.media
async def test_a_permission_once_told_does_not_change(media_server: MediaServerProcess) -> None:
    backend = LiveKitBackend(media_server)
    room, inbox = await backend.join("a", LISTENER)
    await backend.permit("a", PUBLISHER)
    first = await inbox.wait(PermissionChanged)
    kept = room.permission
    await backend.permit("a", LISTENER)
    await inbox.wait(PermissionChanged, lambda event: not event.permission.can_publish)
    assert first.permission.can_publish
    assert kept.can_publish
    await backend.close()


@pytest.mark.media
async def test_a_subscriber_quicker_than_the_publish_answer_is_not_lost(
    media_server: MediaServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    backend = LiveKitBackend(media_server)
    room, inbox = await backend.join("speaker")
    await backend.join("listener")
    for _ in range(5):
        since = len(inbox.events)
        await room.publish_audio(MICROPHONE)
        await inbox.wait(LocalTrackSubscribed, since=since)
        await room.unpublish(MICROPHONE)
    await backend.close()
    assert "KeyError" not in caplog.text


@pytest.mark.media
async def test_a_text_that_never_ends_holds_up_the_next_only_for_a_moment(media_server: MediaServerProcess) -> None:
    backend = LiveKitBackend(media_server)
    _, inbox = await backend.join("receiver")
    sender, _ = await backend.join("sender")
    writer = await sender.native.local_participant.stream_text(topic=CHAT_TOPIC)
    await writer.write("begun and")
    await sender.send_text("whole", topic=CHAT_TOPIC)
    assert (await inbox.wait(TextReceived)).text == "whole"
    await backend.close()
    assert len(inbox.of(TextReceived)) == 1


@pytest.mark.media
@pytest.mark.parametrize("single", [True, False, None])
async def test_one_peer_connection_or_two(media_server: MediaServerProcess, single: bool | None) -> None:
    backend = LiveKitBackend(media_server)
    options = RoomOptions(single_peer_connection=single, dynacast=True)
    speaker, _ = await backend.join("speaker", options=options)
    _, inbox = await backend.join("listener", options=options)
    publication = await speaker.publish_audio(MICROPHONE)
    async with Singer(publication, 440):
        await hear(await track_of(inbox, "speaker"), 440)
    await backend.close()


@pytest.mark.media
async def test_nothing_runs_on_after_everything_was_left(media_servers: MediaServers) -> None:
    backend = LiveKitBackend(media_servers.get("embedded"))
    speaker, _ = await backend.join("speaker")
    _, inbox = await backend.join("listener")
    publication = await speaker.publish_audio(MICROPHONE)
    streams = [(await track_of(inbox, "speaker")).audio() for _ in range(3)]
    async with Singer(publication, 440), asyncio.timeout(PATIENCE):
        for stream in streams:
            await anext(stream)
    await backend.close()
    await settled()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert others == []


@pytest.mark.media
async def test_a_raw_event_names_livekits_own(media_servers: MediaServers) -> None:
    backend = LiveKitBackend(media_servers.get("embedded"))
    room, inbox = await backend.join("a")
    other, _ = await backend.join("b")
    await other.publish_audio(MICROPHONE)
    await inbox.wait(TrackAdded)
    names = [event.event.name for event in inbox.of(Raw)]
    for name in ("participant_connected", "track_published", "track_subscribed"):
        assert name in names
    subscribed = next(event.event for event in inbox.of(Raw) if event.event.name == "track_subscribed")
    assert subscribed.args[2].identity == "b"
    assert room.native.remote_participants["b"] is subscribed.args[2]
    await backend.close()


@pytest.mark.media
@pytest.mark.exhaustive
async def test_a_dead_server_is_given_up_once(media_servers: MediaServers) -> None:
    """LiveKit's own patience: 15 s (fact 7), on a busy machine up to twice that."""
    server = MediaServerProcess("embedded").start()
    try:
        backend = LiveKitBackend(server)
        room, inbox = await backend.join("a")
        publication = await room.publish_audio(MICROPHONE)
        server.stop()
        await inbox.wait(Reconnecting)
        sending = asyncio.create_task(room.send_data(b"x"))
        assert (await inbox.wait(Disconnected, limit=100)).reason is LeaveReason.LOST
        assert publication.closed
        with pytest.raises(UTDConnectionError):
            await sending
        await backend.close()
        assert len(inbox.of(Disconnected)) == 1
        assert not inbox.of(RoomMetadataChanged)
    finally:
        server.close()
