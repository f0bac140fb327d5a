"""The room by itself, and with it what every session has, on rooms in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.sessions.conftest import SHORT
from tests.sessions.scripted import LoopPortal, turns
from utd_fsm import signals
from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDInputError,
    UTDPermissionError,
    UTDStateError,
    UTDTimeoutError,
)
from utd_fsm.media import Silence, TestPattern, Tone
from utd_fsm.models import UTDConnectionState, UTDParticipant, UTDRoomEvent, UTDStreamType, UTDTrackSource
from utd_fsm.room import LeaveReason, Permission, Raw, RoomOptions
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.others import Others
from utd_fsm.sessions.room import RoomSession
from utd_fsm.sessions.timing import Timing
from utd_fsm.testing import MemoryServer

ROOM = "room"
LISTENER = Permission(can_publish=False, can_subscribe=True, can_publish_data=True)


class House:
    """A memory server and the sessions in it."""

    def __init__(self) -> None:
        self.server = MemoryServer(paced=True)
        self.sessions: list[BaseSession] = []

    def session(self, timing: Timing = SHORT, **options: Any) -> RoomSession:
        made = RoomSession(
            _room_factory=self.server.room_factory,
            _timing=timing,
            _portal=LoopPortal(),  # type: ignore[arg-type]
            asynchronous=True,
            **options,
        )
        self.sessions.append(made)
        return made

    async def join(
        self, identity: str, permission: Permission | None = None, timing: Timing = SHORT, **options: Any
    ) -> RoomSession:
        made = self.session(timing, **options)
        token = self.server.token(identity, ROOM, *(() if permission is None else (permission,)))
        await made.perform(made.connect, self.server.url, token)
        await self.settled()
        return made

    async def settled(self) -> None:
        await turns(10)
        await self.server.settled()
        await turns(10)


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[House]:
    made = House()
    try:
        yield made
    finally:
        for session in made.sessions:
            await session.perform(session.dispose)
            await session._connection.reaped()
        await asyncio.sleep(0)
        assert not any(room.seats for room in made.server.rooms.values()), "somebody was left behind"


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def state(session: BaseSession) -> str:
    return session.connection.value.value


def names(session: BaseSession) -> list[str]:
    return [one.identity for one in session.remote_participants.value]


# ------------------------------------------------------------------------------------------------------ in and out


async def test_when_a_verb_returns_the_observables_show_it() -> None:
    async with house() as h:
        bob = await h.join("bob")
        ann = h.session()
        assert state(ann) == "disconnected"
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
        assert state(ann) == "connected"
        assert (ann.connected.value, ann.can_publish.value, names(ann)) == (True, True, ["bob"])
        assert ann.local_participant is not None
        assert ann.local_participant.identity == "ann"
        await h.settled()
        assert names(bob) == ["ann"]
        await ann.perform(ann.disconnect)
        await eventually(lambda: names(bob) == [])
        assert (ann.connected.value, ann.can_publish.value, names(ann)) == (False, False, [])
        assert ann.local_participant is None
        assert state(ann) == "disconnected"
        await ann.perform(ann.disconnect)
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
        assert state(ann) == "connected"


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("", "t"),
        ("ftp://host", "t"),
        ("wss://", "t"),
        ("wss://user:s3cret@host", "t"),
        ("wss://ho st", "t"),
        ("wss://host:99999", "t"),
        (7, "t"),
        ("wss://host", ""),
        ("wss://host", "a\nb"),
        ("wss://host", None),
    ],
)
async def test_bad_addresses_are_refused_and_never_repeated(url: Any, token: Any) -> None:
    session = RoomSession(_portal=LoopPortal(), asynchronous=True)  # type: ignore[arg-type]
    with pytest.raises(UTDInputError) as refused:
        await session.perform(session.connect, url, token)
    assert "s3cret" not in str(refused.value)
    assert session.connection.value is UTDConnectionState.DISCONNECTED


async def test_connecting_twice_is_refused() -> None:
    async with house() as h:
        ann = await h.join("ann")
        with pytest.raises(UTDStateError, match="disconnect"):
            await ann.perform(ann.connect, h.server.url, h.server.token("ann", "elsewhere"))
        assert ann._way_in == (h.server.url, h.server.token("ann", ROOM))


async def test_a_refused_token_is_raised() -> None:
    async with house() as h:
        ann = h.session()
        with pytest.raises(UTDPermissionError):
            await ann.perform(ann.connect, h.server.url, "not a token")
        assert ann.connection.value is UTDConnectionState.DISCONNECTED
        with pytest.raises(UTDStateError):
            ann.listen()


async def test_disposed_is_closed() -> None:
    async with house() as h:
        ann = await h.join("ann")
        waiting = asyncio.create_task(ann.can_publish.wait_for(False, timeout=20))  # type: ignore[attr-defined]
        await turns()
        gone: list[object] = []
        ann._on_disposed = gone.append
        await ann.perform(ann.dispose)
        await ann.perform(ann.dispose)
        assert gone == [ann]
        assert await waiting is False
        with pytest.raises(UTDClosedError):
            await ann.perform(ann.set_microphone, True)
        with pytest.raises(UTDClosedError):
            await ann.perform(ann.disconnect)
        with pytest.raises(UTDClosedError):
            await ann.connected.wait_for(True, timeout=20)  # type: ignore[attr-defined]
        assert ann._lease is None


async def test_connection_and_connected_change_together() -> None:
    async with house() as h:
        ann = h.session()
        seen: list[tuple[str, bool]] = []
        for observable in (ann.connection, ann.connected):
            observable._feeds[lambda _: seen.append((state(ann), ann.connected.value))] = None
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
        await ann.perform(ann.disconnect)
    assert {connected for where, connected in seen if where == "connected"} == {True}
    assert {connected for where, connected in seen if where != "connected"} == {False}


async def test_waiters_of_a_stay_are_told_that_it_is_over() -> None:
    async with house() as h:
        ann = await h.join("ann", LISTENER)
        waiting = asyncio.create_task(ann.can_publish.wait_for(True, timeout=20))  # type: ignore[attr-defined]
        await turns()
        await ann.perform(ann.disconnect)
        with pytest.raises(UTDStateError, match="left"):
            await waiting
        again = asyncio.create_task(ann.can_publish.wait_for(True, timeout=20))  # type: ignore[attr-defined]
        await turns()
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
        assert await again is True


async def test_force_exit_tells_those_who_wait_to_be_connected() -> None:
    async with house() as h:
        ann = await h.join("ann", timing=replace(SHORT, grace=0.1))
        h.server.stop()
        await eventually(lambda: not ann.connected.value)
        for _ in "during", "after":
            with pytest.raises(UTDConnectionError, match="lost"):
                await ann.connected.wait_for(True, timeout=20)  # type: ignore[attr-defined]
        assert ann.connection.value is UTDConnectionState.FORCE_EXIT
        h.server.start()
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
        assert await ann.connected.wait_for(True, timeout=20) is True  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------- others, speakers


async def test_others_who_seem_to_leave_while_the_link_is_mended_stay_until_it_is_settled() -> None:
    async with house() as h:
        shown: list[list[str]] = []
        ann = await h.join("ann")
        bob, cid = await h.join("bob"), await h.join("cid")
        await h.settled()
        assert names(ann) == ["bob", "cid"]
        follow = ann.remote_participants
        before = follow.set

        def show(value: Any, **extra: Any) -> bool:
            shown.append([one.identity for one in value])
            return before(value, **extra)

        follow.set = show  # type: ignore[method-assign]
        h.server.cut(ROOM, "ann")
        await eventually(lambda: ann.connection.value is UTDConnectionState.RECONNECTING)
        await cid.perform(cid.disconnect)
        h.server.mend(ROOM, "ann", full=True)
        await eventually(lambda: ann.connected.value)
        assert ["bob", "cid"] in [*shown, names(ann)], "gone before it was settled"
        await eventually(lambda: names(ann) == ["bob"])
        assert [] not in shown
        assert names(bob) == ["ann"]


async def test_who_seems_to_leave_right_before_or_after_a_reconnect_stays_until_it_is_settled() -> None:
    """LiveKit says that everybody left, and then that it reconnects (measured on a full reconnect)."""
    shown: list[list[str]] = []
    others = Others(lambda them: shown.append([one.identity for one in them]), replace(SHORT, settle=0.3))
    bob, cid, dan = (UTDParticipant(name) for name in ("bob", "cid", "dan"))
    others.back([bob, cid])
    others.read([])
    others.away()
    others.read([])
    await asyncio.sleep(0.1)
    assert shown == [["bob", "cid"], ["bob", "cid"]]
    others.back([cid])
    others.read([])
    others.read([dan, bob])
    await asyncio.sleep(0.1)
    assert shown[-1] == ["bob", "cid", "dan"], "it is not settled yet"
    await eventually(lambda: shown[-1] == ["bob", "dan"])
    others.read([dan])
    assert shown[-1] == ["bob", "dan"]
    await eventually(lambda: shown[-1] == ["dan"])
    others.gone()
    assert shown[-1] == []
    assert [] not in shown[:-1]


async def test_speakers_keep_since_when_they_speak() -> None:
    async with house() as h:
        ann = await h.join("ann")
        h.server.speak(ROOM, {"bob": 0.5})
        await h.settled()
        (first,) = ann.speakers.value
        h.server.speak(ROOM, {"bob": 0.7, "cid": 0.9})
        await h.settled()
        assert [(one.identity, one.level) for one in ann.speakers.value] == [("cid", 0.9), ("bob", 0.7)]
        assert ann.speakers.value[1].since == first.since
        h.server.speak(ROOM, {})
        await h.settled()
        assert ann.speakers.value == ()


# ------------------------------------------------------------------------------------------------------------ sources


async def test_what_the_microphone_sends_is_heard() -> None:
    async with house() as h:
        ann, bob = await h.join("ann"), await h.join("bob", LISTENER)
        frames = bob.listen("ann", timeout=20).async_stream
        await ann.perform(ann.set_microphone, True, source=Tone(440))
        heard = [await frames.get() for _ in range(30)]
        assert {one.identity for one in heard} == {"ann"}
        assert max(int(np.abs(one.samples).max()) for one in heard) > 5000
        driver = ann._sources[UTDTrackSource.MICROPHONE]
        publication = driver.publication
        await ann.perform(ann.set_microphone, True, source=Silence())
        assert driver.publication is publication, "replacing a source does not publish anew"
        await ann.perform(ann.set_microphone, False)
        assert driver.state == "muted"
        await bob.perform(bob.disconnect)
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(frames)


async def test_play_and_record(tmp_path: Path) -> None:
    async with house() as h:
        ann, bob = await h.join("ann"), await h.join("bob")
        with pytest.raises(UTDStateError, match="set_microphone"):
            await ann.perform(ann.play, Tone(440, seconds=0.1))
        await ann.perform(ann.set_microphone, True)
        recording = asyncio.create_task(bob.perform(bob.record, tmp_path / "a.wav", identity="ann"))
        await turns()
        await ann.perform(ann.play, Tone(440, seconds=0.2))
        await bob.perform(bob.disconnect)
        done = await recording
        assert done.ended_by == "left"
        assert done.path.stat().st_size > 44


async def test_a_camera_and_a_screen() -> None:
    async with house() as h:
        ann, bob = await h.join("ann"), await h.join("bob")
        pictures = bob.watch("ann", timeout=20).async_stream
        await ann.perform(ann.set_camera, True)
        assert (await pictures.get()).pixels.shape == (360, 640, 3)
        with pytest.raises(UTDInputError, match="screen"):
            await ann.perform(ann.set_screen, True)
        await ann.perform(ann.set_screen, True, source=TestPattern(320, 180))
        screen = bob.watch("ann", source="screen", size=(100, 100), timeout=20).async_stream
        assert (await screen.get()).pixels.shape == (180, 320, 3)
        await ann.perform(ann.set_screen, False)
        assert ann._sources[UTDTrackSource.SCREEN].state == "off", "a screen is taken down"
        await ann.perform(ann.set_camera, False)
        assert ann._sources[UTDTrackSource.CAMERA].state == "muted", "a camera is muted"


async def test_no_grant_is_a_timeout_and_a_source_that_is_not_allowed_too() -> None:
    async with house() as h:
        ann = await h.join("ann", LISTENER)
        with pytest.raises(UTDTimeoutError, match="permission"):
            await ann.perform(ann.set_microphone, True)
        h.server.grant(ROOM, "ann", UTDTrackSource.CAMERA)
        await h.settled()
        assert ann.can_publish.value is True
        with pytest.raises(UTDTimeoutError):
            await ann.perform(ann.set_microphone, True)
        await ann.perform(ann.set_camera, True)


async def test_a_grant_that_comes_is_used_and_one_that_is_taken_stops() -> None:
    async with house() as h:
        ann = await h.join("ann", LISTENER, replace(SHORT, grant=20))
        enabling = asyncio.create_task(ann.perform(ann.set_microphone, True))
        await turns()
        h.server.grant(ROOM, "ann")
        await enabling
        h.server.revoke(ROOM, "ann")
        await eventually(lambda: ann._sources[UTDTrackSource.MICROPHONE].state == "off")
        assert ann.can_publish.value is False
        assert h.server.rooms[ROOM].seats["ann"].tracks == {}
        h.server.grant(ROOM, "ann")
        await h.settled()
        assert ann._sources[UTDTrackSource.MICROPHONE].state == "off"


async def test_a_server_that_was_restarted_and_forgot_the_grant() -> None:
    """MemoryRoom says that it is back before it says what the server has forgotten, as LiveKit may."""
    async with house() as h:
        ann = await h.join("ann", LISTENER, replace(SHORT, grant=20, first_reading=20))
        h.server.grant(ROOM, "ann")
        await h.settled()
        await ann.perform(ann.set_microphone, True)
        h.server.restart()
        await eventually(lambda: ann._sources[UTDTrackSource.MICROPHONE].state == "waiting")
        h.server.grant(ROOM, "ann")
        await eventually(lambda: ann._sources[UTDTrackSource.MICROPHONE].state == "on")
        assert len(h.server.rooms[ROOM].seats["ann"].tracks) == 1


async def test_what_was_on_is_on_again_in_the_next_room() -> None:
    async with house() as h:
        ann = await h.join("ann")
        await ann.perform(ann.set_microphone, True, source=Tone(440))
        await ann.perform(ann.set_camera, True)
        h.server.lose(ROOM, "ann")
        await eventually(lambda: ann._connection.epoch > 1 and ann.connected.value)
        for source in (UTDTrackSource.MICROPHONE, UTDTrackSource.CAMERA):
            await eventually(lambda source=source: ann._sources[source].state == "on")  # type: ignore[misc]
        assert len(h.server.rooms[ROOM].seats["ann"].tracks) == 2


async def test_sources_need_a_room() -> None:
    async with house() as h:
        ann = h.session()
        with pytest.raises(UTDStateError, match="room"):
            await ann.perform(ann.set_microphone, True)
        await ann.perform(ann.set_microphone, False)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.set_microphone("yes"),
        lambda s: s.set_microphone(True, source=440),
        lambda s: s.set_microphone(True, source=TestPattern()),
        lambda s: s.set_camera(True, source=Tone(440)),
        lambda s: s.send_data("text"),
        lambda s: s.send_data(b"x" * (60 * 1024 + 1)),
        lambda s: s.send_data(b"", to=["bob", ""]),
        lambda s: s.send_data(b"", to="bob"),
        lambda s: s.send_data(b"", reliable=1),
        lambda s: s.send_data(b"", to=["a"], destination_identities=["b"]),
        lambda s: s.send_chat(""),
        lambda s: s.send_chat(7),
        lambda s: s.send_chat("hi", user_data=object()),
        lambda s: s.play("hello.wav"),
    ],
)
async def test_bad_arguments_change_nothing(call: Callable[[RoomSession], Awaitable[None]]) -> None:
    async with house() as h:
        ann = await h.join("ann")
        with pytest.raises(UTDInputError):
            await call(ann)
        assert ann._sources[UTDTrackSource.MICROPHONE].state == "off"


def test_bad_ears_are_refused() -> None:
    async def tries() -> None:
        async with house() as h:
            ann = await h.join("ann")
            for call in (
                lambda: ann.listen(""),
                lambda: ann.listen(seconds=0),
                lambda: ann.listen(sample_rate=100),
                lambda: ann.watch(source="nose"),
                lambda: ann.watch(size=(0, 1)),
                lambda: ann.watch(size=7),  # type: ignore[arg-type]
            ):
                with pytest.raises(UTDInputError):
                    call()

    asyncio.run(tries())


# ----------------------------------------------------------------------------------------------------------- messages


@contextlib.contextmanager
def heard(signal: signals.UTDSignal, session: BaseSession) -> Any:
    """What a signal says of this session; in order, on the signals thread."""
    got: list[dict[str, Any]] = []

    def receiver(sender: object, **payload: Any) -> None:
        got.append(payload)

    signal.connect(receiver, session.public, weak=False)
    try:
        yield got
    finally:
        signal.disconnect(receiver, session.public)


async def test_data_goes_to_those_named() -> None:
    async with house() as h:
        ann, bob, cid = await h.join("ann"), await h.join("bob"), await h.join("cid")
        with heard(signals.data_received, bob) as to_bob, heard(signals.data_received, cid) as to_cid:
            await ann.perform(ann.send_data, b"all")
            await ann.perform(ann.send_data, b"bob", False, destination_identities=["bob"])
            await ann.perform(ann.send_data, b"cid", to=["cid"], topic="things")
            await eventually(lambda: len(to_bob) == 2 and len(to_cid) == 2)
        assert [one["data"] for one in to_bob] == [b"all", b"bob"]
        assert to_cid[1] == {"data": b"cid", "identity": "ann", "topic": "things", "reliable": True}


async def test_data_waits_for_the_link_and_is_refused_without_a_room() -> None:
    async with house() as h:
        ann, bob = await h.join("ann"), await h.join("bob")
        h.server.cut(ROOM, "ann")
        await eventually(lambda: not ann.connected.value)
        with heard(signals.data_received, bob) as got:
            sending = asyncio.create_task(ann.perform(ann.send_data, b"late"))
            await turns()
            assert not sending.done()
            h.server.mend(ROOM, "ann")
            await sending
            await eventually(lambda: len(got) == 1)
        h.server.cut(ROOM, "ann")
        await eventually(lambda: not ann.connected.value)
        sending = asyncio.create_task(ann.perform(ann.send_data, b"too late"))
        await turns()
        h.server.remove(ROOM, "ann")
        ann._connection._grace_over()
        with pytest.raises(UTDConnectionError, match="lost"):
            await sending
        with pytest.raises(UTDStateError, match="not in the room"):
            await ann.perform(ann.send_data, b"no")


async def test_engine_types_mean_nothing_in_a_room_by_itself() -> None:
    async with house() as h:
        ann, bob = await h.join("ann"), await h.join("bob")
        with heard(signals.data_received, bob) as got, heard(signals.chat_received, bob) as chat:
            await ann.perform(ann.send_data, b'{"type": "_banned"}')
            await ann.perform(ann.send_chat, "hello")
            await eventually(lambda: len(got) == 2 and len(chat) == 1)
        assert chat[0]["message"].text == "hello"  # a chat message is told as one, beside being data like all others


class EngineSession(BaseSession):
    """A session of an engine: it counts hints and may send `_live_ended`."""

    PARTICIPANTS_MAY = frozenset({"_live_ended"})

    def __init__(self, h: House, identity: str, timing: Timing = SHORT, kind: str = "live_stream") -> None:
        super().__init__(
            kind=UTDStreamType(kind),
            identity=identity,
            room_factory=h.server.room_factory,
            timing=timing,
            portal_=LoopPortal(),  # type: ignore[arg-type]
            asynchronous=True,
        )
        self.house = h
        self.hints: list[tuple[str, str | None]] = []
        self.entitled = True
        self.order: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.looks: list[object] = []
        h.sessions.append(self)

    async def _ticket(self, reason: str) -> tuple[str, str]:
        return self.house.server.url, self.house.server.token(self.identity or "", ROOM)

    def _on_hint(self, kind: str, content: Any, identity: str | None) -> None:
        self.hints.append((kind, identity))

    def _entitled(self, source: UTDTrackSource) -> bool:
        return self.entitled

    def _on_room_metadata(self, metadata: str) -> None:
        self.order.append(f"metadata {metadata}")

    async def _before_removal(self, reason: object) -> None:
        self.looks.append(reason)
        await self.gate.wait()

    async def _resync(self, age: float) -> None:
        self.order.append("resync")
        await self.gate.wait()
        self.order.append("resynced")


async def test_engine_messages_are_hints_and_forgeries_are_dropped() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob")
        await bob._join()
        ann = await h.join("ann")
        with heard(signals.data_received, bob) as got, heard(signals.chat_received, bob) as chat:
            h.server.send_data(ROOM, b'{"type": "_seat_update"}')
            await ann.send_data(b'{"type": "_banned"}')
            await ann.send_data(b'{"type": "_live_ended"}')
            await ann.send_data(b'{"type": "mine"}')
            await ann.send_data(b'{"type": "_banned"}', topic="mine")
            await ann.send_data(b"\xff\xfe")
            await ann.send_chat("hello", user_data={"n": 1})
            await eventually(lambda: len(got) == 3 and len(chat) == 1)
        assert bob.hints == [("_seat_update", None), ("_live_ended", "ann")]
        assert [one["data"] for one in got] == [b'{"type": "mine"}', b'{"type": "_banned"}', b"\xff\xfe"]
        message = chat[0]["message"]
        assert (message.text, message.identity, message.claimed_identity) == ("hello", "ann", "ann")
        assert message.user_data == {"n": 1}
        assert message.sent_at is not None


async def test_a_chat_message_claims_what_it_likes() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob")
        await bob._join()
        ann = await h.join("ann")
        forged = {"roomChat": {"message": "chatMessage", "senderUserId": "host", "text": "hi", "timestamp": 1e30}}
        with heard(signals.chat_received, bob) as chat:
            await ann.send_data(json.dumps(forged).encode())
            await eventually(lambda: len(chat) == 1)
        message = chat[0]["message"]
        assert (message.identity, message.claimed_identity, message.sent_at) == ("ann", "host", None)


async def test_livekits_own_events() -> None:
    async with house() as h:
        ann = await h.join("ann")
        feed, other = ann.events.listen(timeout=20), ann.events.listen()
        stream, closed = feed.async_stream, other.async_stream
        await h.join("bob")
        assert (await stream.get()).name == "participant_connected"
        closed.close()
        await h.join("cid")
        assert len(ann.events._feeds) == 1
        for number in range(1005):
            ann._room_event(Raw(UTDRoomEvent(f"event {number}")))
        assert stream.dropped > 0


# -------------------------------------------------------------------------------------------------------------- verbs


async def test_leave_overtakes_and_dispose_closes() -> None:
    async with house() as h:
        ann = await h.join("ann", LISTENER, replace(SHORT, grant=20))
        first = asyncio.create_task(ann.perform(ann.set_microphone, True))
        second = asyncio.create_task(ann.perform(ann.set_camera, True))
        await turns()
        await ann.perform(ann.disconnect)
        for task in (first, second):
            with pytest.raises(UTDStateError, match="overtaken by disconnect"):
                await task
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM, LISTENER))
        third = asyncio.create_task(ann.perform(ann.set_microphone, True))
        await turns()
        await ann.perform(ann.dispose)
        with pytest.raises(UTDClosedError):
            await third


async def test_disconnect_overtakes_a_connect() -> None:
    async with house() as h:
        ann = h.session(replace(SHORT, attempt=20))
        h.server.joining.clear()
        connecting = asyncio.create_task(ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM)))
        await turns()
        await ann.perform(ann.disconnect)
        with pytest.raises(UTDStateError):
            await connecting
        assert ann.connection.value is UTDConnectionState.DISCONNECTED
        h.server.joining.set()
        await ann._connection.reaped()
        assert ROOM not in h.server.rooms or not h.server.rooms[ROOM].seats


async def test_run_reaches_the_rooms_own_object() -> None:
    async with house() as h:
        ann = h.session()
        with pytest.raises(UTDStateError, match="not in the room"):
            await ann.perform(ann.run, lambda room: room)
        ann = await h.join("ann")

        async def awaited(room: object) -> str:
            await asyncio.sleep(0)
            return "awaited"

        assert await ann.perform(ann.run, lambda room: "called") == "called"
        assert await ann.perform(ann.run, awaited) == "awaited"
        with pytest.raises(ZeroDivisionError):
            await ann.perform(ann.run, lambda room: 1 // 0)


async def test_signals_name_the_public_session() -> None:
    async with house() as h:
        ann = h.session()
        facade = object()
        ann.publish_as(facade)
        with heard(signals.connection_changed, ann) as got:
            await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
            await ann.perform(ann.disconnect)
            await eventually(lambda: len(got) == 3)
        assert [one["value"] for one in got] == ["connecting", "connected", "disconnected"]
        seqs = [one["seq"] for one in got]
        assert seqs == sorted(seqs)


# ------------------------------------------------------------------------------------------------- with an engine


async def test_after_a_long_absence_the_engine_is_asked_before_the_sources_hear() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob", replace(SHORT, tier=0.05))
        await bob._join()
        await bob._enable(UTDTrackSource.MICROPHONE)
        h.server.set_room_metadata(ROOM, "1")
        await h.settled()
        bob.gate.clear()
        h.server.cut(ROOM, "bob")
        await eventually(lambda: not bob.connected.value)
        await asyncio.sleep(0.08)
        h.server.revoke(ROOM, "bob")
        h.server.mend(ROOM, "bob")
        await eventually(lambda: "resync" in bob.order)
        await h.settled()
        assert bob._sources[UTDTrackSource.MICROPHONE].state == "on", "told before the engine was asked"
        assert bob.can_publish.value is True
        bob.gate.set()
        await eventually(lambda: bob._sources[UTDTrackSource.MICROPHONE].state == "waiting")
        assert bob.order == ["metadata 1", "metadata 1", "resync", "resynced"]


async def test_after_a_short_absence_metadata_is_enough() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob", replace(SHORT, tier=20))
        await bob._join()
        h.server.set_room_metadata(ROOM, "1")
        await h.settled()
        h.server.cut(ROOM, "bob")
        await eventually(lambda: not bob.connected.value)
        h.server.mend(ROOM, "bob")
        await eventually(lambda: bob.connected.value)
        assert bob.order == ["metadata 1", "metadata 1"]


async def test_a_link_that_breaks_in_the_resync_begins_it_anew() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob", replace(SHORT, tier=0))
        await bob._join()
        bob.gate.clear()
        h.server.cut(ROOM, "bob")
        await eventually(lambda: not bob.connected.value)
        h.server.mend(ROOM, "bob")
        await eventually(lambda: bob.order == ["resync"])
        h.server.cut(ROOM, "bob")
        await eventually(lambda: not bob.connected.value)
        bob.gate.set()
        await turns()
        assert bob.order == ["resync"], "the first one was given up"
        h.server.mend(ROOM, "bob")
        await eventually(lambda: bob.order == ["resync", "resync", "resynced"])


async def test_nothing_is_sent_while_the_owner_looks_after_a_removal() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob")
        await bob._join()
        await bob._enable(UTDTrackSource.MICROPHONE)
        bob.gate.clear()
        h.server.delete_room(ROOM)
        await eventually(lambda: bob.looks == [LeaveReason.ROOM_DELETED])
        assert state(bob) == "connected", "force_exit must not flash up before the look is over"
        assert bob._sources[UTDTrackSource.MICROPHONE].state == "off"
        with pytest.raises(UTDStateError):
            await bob.perform(bob.run, lambda room: room)
        bob.gate.set()
        await eventually(lambda: state(bob) == "force_exit")


async def test_the_loop_is_held_until_the_last_goodbye_and_what_feeds_is_closed() -> None:
    async with house() as h:
        ann = await h.join("ann")
        held = cast("LoopPortal", ann._portal)
        assert held.held == 1
        await ann.perform(ann.set_microphone, True, source=Tone(440))
        media = ann._sources._media[UTDTrackSource.MICROPHONE]
        await ann.perform(ann.disconnect)
        await eventually(lambda: held.held == 0)
        assert media._closed
        await ann.perform(ann.connect, h.server.url, h.server.token("ann", ROOM))
        assert held.held == 1
        await ann.perform(ann.set_microphone, True)
        assert ann._sources._media[UTDTrackSource.MICROPHONE] is not media, "opened afresh for each stay"


async def test_no_video_in_audio_sessions() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob", kind="audio_room")
        await bob._join()
        for call in (bob.set_camera, bob.set_screen):
            with pytest.raises(UTDStateError, match="video"):
                await bob.perform(call, True)
        with pytest.raises(UTDInputError, match="camera"):
            BaseSession(
                kind=UTDStreamType.AUDIO_CALL,
                camera=TestPattern(),
                room_factory=h.server.room_factory,
                portal_=LoopPortal(),  # type: ignore[arg-type]
            )


async def test_refused_at_once_when_nothing_says_that_the_grant_will_come() -> None:
    async with house() as h:
        bob = EngineSession(h, "bob")
        await bob._join()
        h.server.revoke(ROOM, "bob")
        await h.settled()
        bob.entitled = False
        with pytest.raises(UTDPermissionError):
            await bob.perform(bob.set_microphone, True)


async def test_the_options_reach_the_room() -> None:
    seen: list[RoomOptions] = []

    async with house() as h:

        def factory(post: Any, options: RoomOptions) -> Any:
            seen.append(options)
            return h.server.room_factory(post, options)

        ann = RoomSession(
            adaptive_stream=True,
            dynacast=True,
            asynchronous=True,
            _room_factory=factory,
            _timing=SHORT,
            _portal=LoopPortal(),  # type: ignore[arg-type]
        )
        h.sessions.append(ann)
        await ann.connect(h.server.url, h.server.token("ann", ROOM), auto_subscribe=False)
        assert (seen[0].adaptive_stream, seen[0].dynacast) == (True, True)
        assert h.server.rooms[ROOM].seats["ann"].auto_subscribe is False


async def test_wherever_a_connect_is_interrupted_nobody_is_left_in_the_room() -> None:
    """Also in the very step in which it comes home: its caller is told that it was cancelled."""

    def gone(made: House, session: RoomSession) -> bool:
        room = made.server.rooms.get(ROOM)
        return not session.connected.value and (room is None or not room.seats)

    for steps in range(25):
        async with house() as made:
            session = made.session()
            token = made.server.token("me", ROOM)
            interrupted = asyncio.create_task(session.perform(session.connect, made.server.url, token))
            for _ in range(steps):
                await asyncio.sleep(0)
            interrupted.cancel()
            await asyncio.wait({interrupted})
            if interrupted.cancelled():
                await eventually(lambda session=session, made=made: gone(made, session))  # type: ignore[misc]
