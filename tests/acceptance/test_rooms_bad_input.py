"""behaviour.md, Bad input, in streams and audio rooms: checked before anything is sent, and every state stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.acceptance.test_bad_input import IDENTITIES, NAMES, refused
from tests.integration.calling import WAIT, fresh
from tests.integration.gate_proxy import GateProxy
from tests.integration.room_scenes import audio_room, live_stream
from utd_fsm import UTDStreamClient
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine

pytestmark = pytest.mark.media

Way = Callable[[], GateProxy]

ROOMS: list[Any] = [None, "", " ", "a\nb", "a\x00", "\u2028", " room", "x" * 256, ".", "..", b"room", 7, ["room"], {}]
DEVICES: list[Any] = ["", " ", "x" * 101, 7]
COUNTS: list[Any] = [0, -1, 101, 1.5, "8", True, []]
REASONS: list[Any] = [7, b"x", "a\x00", "x" * 501, []]
TIMES: list[Any] = [0, -1, math.nan, math.inf, "1", True, [], 1e12]
NAMED: list[Any] = ["", "x" * 101, 1.5, [], True, "a\nb"]
MODES: list[Any] = ["", "first come", 7, [], True]
FLAGS: list[Any] = ["yes", 1, 0, None, []]
INDEXES: list[Any] = [-1, 100, 1.0, "1", None, True, [], 10**30, math.nan]
IDS: list[Any] = [-1, 1.5, "1", True, [], math.nan]
TIMEOUTS: list[Any] = [-1, math.nan, "soon", []]
ROLES: list[Any] = ["", "king", "HOST ", 7, None, [], "host"]
CHAT: list[Any] = ["", None, 7, b"hi", "x" * 16_001, ["hi"]]
DATA: list[Any] = ["text", None, 7, ["x"], b"x" * (60 * 1024 + 1)]
TO: list[Any] = ["bob", 7, [""], ["a\nb"], [7], {"bob": 1}]


def shared(session: Any, identity: str) -> list[partial[Any]]:
    """Wrong calls of what both kinds of rooms have."""
    targets: list[Any] = [
        session.kick,
        session.ban,
        session.unban,
        session.promote,
        session.demote,
        partial(session.set_role, role="guest"),
        session.mute_participant,
    ]
    return [
        *(partial(verb, bad) for verb in targets for bad in IDENTITIES),
        *(partial(session.set_role, identity, bad) for bad in ROLES),
        *(partial(session.mute_participant, identity, audio=bad) for bad in FLAGS),
        *(partial(session.mute_participant, identity, video=bad) for bad in FLAGS),
        partial(session.mute_participant, identity, audio=False, video=False),
        *(partial(session.ban, identity, reason=bad) for bad in REASONS),
        *(partial(session.ban, identity, duration=bad) for bad in TIMES),
        *(partial(session.ban, identity, everywhere=bad) for bad in FLAGS),
        *(partial(session.unban, identity, everywhere=bad) for bad in FLAGS),
        *(partial(session.bans, page=bad) for bad in (0, -1, 1.5, "1", None, True)),
        *(partial(session.bans, per_page=bad) for bad in (0, 101, "20", None, True)),
        *(partial(session.lock_chat, bad) for bad in FLAGS),
        *(partial(session.send_chat, bad) for bad in CHAT),
        *(partial(session.send_chat, "hi", to=bad) for bad in TO),
        *(partial(session.send_chat, "hi", user_data=bad) for bad in (object(), {1, 2}, math.nan)),
        *(partial(session.send_data, bad) for bad in DATA),
        *(partial(session.send_data, b"x", to=bad) for bad in TO),
        *(partial(session.send_data, b"x", reliable=bad) for bad in ("yes", 1, None)),
        *(partial(session.set_microphone, bad) for bad in ("on", 1, None)),
        *(partial(session.set_microphone, True, source=bad) for bad in ("a.wav", 7, TestPattern(64, 64, 5))),
        *(partial(session.listen, bad) for bad in IDENTITIES if bad is not None),
        *(partial(session.listen, seconds=bad) for bad in (0, -1, "1", math.nan, True)),
        *(partial(session.listen, sample_rate=bad) for bad in (0, 7999, 1e5, "48000")),
        *(partial(session.listen, channels=bad) for bad in (0, 3, "1")),
        *(partial(session.record, "x.wav", seconds=bad) for bad in (0, -1, "1")),
        *(partial(session.start_recording, "x.wav", identity=bad) for bad in IDENTITIES if bad is not None),
        partial(session.record, 7),
        *(partial(session.kick, identity, timeout=bad) for bad in TIMEOUTS),
        *(partial(session.leave, timeout=bad) for bad in TIMEOUTS),
        *(partial(session.roles.wait_for, {}, timeout=bad) for bad in TIMEOUTS),
    ]


def all_refused(wrong: list[partial[Any]]) -> None:
    """Every one of them, and all those named that are not."""
    passed = []
    for act in wrong:
        try:
            refused(act)
        except (Exception, pytest.fail.Exception) as error:
            name = getattr(act.func, "__name__", act.func)
            passed.append(f"{name} {act.args!r:.80} {act.keywords}: {error!r:.150}")
    assert not passed, "\n" + "\n".join(passed)


def seen(session: Any) -> tuple[Any, ...]:
    """All that a session shows."""
    names = ("connection", "can_publish", "roles", "chat_locked", "stage", "hands", "broadcast", "seats")
    more = ("pending_requests", "invitations")
    shown = tuple(getattr(session, name).value for name in (*names, *more) if hasattr(session, name))
    return (*shown, repr(session), [one.identity for one in session.remote_participants.value])


def test_joining(engine: LocalEngine, way: Way) -> None:
    there = way()
    with UTDStreamClient(engine.app_id, engine.app_key, base_url=there.url) as client:
        c: Any = client
        bad: Any
        for join in (c.join_live_stream, c.join_audio_room):
            for bad in IDENTITIES:
                refused(join, bad, "room")
            for bad in ROOMS:
                refused(join, "vera", bad)
            for bad in FLAGS:
                refused(join, "vera", "room", bad)
                refused(join, "vera", "room", dynacast=bad)
            for bad in NAMES:
                refused(join, "vera", "room", name=bad)
            for bad in DEVICES:
                refused(join, "vera", "room", device_id=bad)
            for bad in ("hello.wav", 7, TestPattern(64, 64, 5)):
                refused(join, "vera", "room", microphone=bad)
            for bad in TIMEOUTS:
                refused(join, "vera", "room", timeout=bad)
        for bad in FLAGS:
            refused(c.join_live_stream, "vera", "room", adaptive_stream=bad)
            refused(c.join_audio_room, "vera", "room", auto_unmute=bad)
        for bad in ("x.png", 7, Tone(440)):
            refused(c.join_live_stream, "vera", "room", camera=bad)
        for bad in COUNTS:
            refused(c.join_audio_room, "vera", "room", True, seat_count=bad)
        for bad in MODES:
            refused(c.join_audio_room, "vera", "room", True, seat_mode=bad)
        refused(c.join_audio_room, "vera", "room", seat_count=8)
        refused(c.join_audio_room, "vera", "room", seat_mode="free")
        assert client.identity is None
        assert client.sessions == ()
        assert there.state.seen == []
        with pytest.raises(TypeError):
            c.join_audio_room("vera", "room", camera=TestPattern(64, 64, 5))
        assert there.state.seen == []


@pytest.mark.parametrize("who", ["host", "vera"])
def test_in_a_stream(engine: LocalEngine, way: Way, who: str) -> None:
    there = way()
    with live_stream(engine, "vera", ways={who: there}) as scene:
        session: Any = scene[who]
        other = scene.id("vera" if who == "host" else "host")
        session.remote_participants.wait_for(lambda others: others, timeout=WAIT)
        before, sent = seen(session), len(there.state.seen)
        wrong = [
            *shared(session, other),
            *(partial(session.go_live, bad) for bad in FLAGS),
            *(partial(session.go_live, timeout=bad) for bad in TIMEOUTS),
            *(
                partial(verb, bad)
                for verb in (session.invite_to_stage, session.remove_from_stage)
                for bad in IDENTITIES
            ),
            *(partial(session.set_camera, bad) for bad in ("on", 1, None)),
            *(partial(session.set_camera, True, source=bad) for bad in ("a.png", 7, Tone(440))),
            *(partial(session.set_screen, True, source=bad) for bad in ("a.png", 7, Tone(440))),
            *(partial(session.watch, bad) for bad in IDENTITIES if bad is not None),
            *(partial(session.watch, source=bad) for bad in ("", "mirror", 7, None)),
            *(partial(session.watch, size=bad) for bad in (7, (0, 1), (1,), ("a", "b"), (1.5, 2))),
            *(partial(session.request_stage, timeout=bad) for bad in TIMEOUTS),
            *(partial(session.wait_until_ended, timeout=bad) for bad in TIMEOUTS),
            *(partial(session.stage.wait_for, (), timeout=bad) for bad in TIMEOUTS),
        ]
        all_refused(wrong)
        assert seen(session) == before
        assert len(there.state.seen) == sent


@pytest.mark.parametrize("who", ["host", "vera"])
def test_in_an_audio_room(engine: LocalEngine, way: Way, who: str) -> None:
    there = way()
    with audio_room(engine, "vera", mode="request", ways={who: there}) as scene:
        session: Any = scene[who]
        other = scene.id("vera" if who == "host" else "host")
        session.remote_participants.wait_for(lambda others: others, timeout=WAIT)
        before, sent = seen(session), len(there.state.seen)
        indexed = ("take_seat", "move_seat", "kick_seat", "lock_seat", "unlock_seat", "mute_seat", "unmute_seat")
        invited = ("accept_invitation", "decline_invitation")
        wrong = [
            *shared(session, other),
            *(partial(getattr(session, verb), bad) for verb in indexed for bad in INDEXES),
            *(partial(session.swap_seats, bad, 1) for bad in INDEXES),
            *(partial(session.swap_seats, 1, bad) for bad in INDEXES),
            *(partial(session.approve_speaker, bad) for bad in [*IDS, None]),
            *(partial(session.reject_speaker, bad) for bad in [*IDS, None]),
            *(partial(getattr(session, verb), bad) for verb in invited for bad in IDS),
            *(partial(session.invite_to_speak, bad) for bad in IDENTITIES),
            *(partial(session.invite_to_speak, other, bad) for bad in INDEXES if bad is not None),
            *(partial(session.setup_seats, bad) for bad in COUNTS),
            *(partial(session.setup_seats, 4, bad) for bad in MODES),
            *(partial(session.setup_seats, 4, "free", bad) for bad in NAMED),
            *(partial(session.mute_all, bad) for bad in FLAGS),
            *(partial(session.take_seat, 1, timeout=bad) for bad in TIMEOUTS),
            *(partial(session.seats.wait_for, None, timeout=bad) for bad in TIMEOUTS),
        ]
        all_refused(wrong)
        if who == "host":  # what the newest grid shows to be no seat at all
            for verb in ("take_seat", "kick_seat", "lock_seat", "unlock_seat", "mute_seat", "unmute_seat"):
                refused(getattr(session, verb), 4)
            refused(session.swap_seats, 1, 1)
            refused(session.swap_seats, 1, 4)
            refused(session.invite_to_speak, other, 4)
        assert seen(session) == before
        assert len(there.state.seen) == sent


def test_one_who_is_not_listed_is_not_refused(engine: LocalEngine) -> None:
    """The list lags: a good identity is the engine's to judge, and `to` may name whom nobody has seen."""
    with live_stream(engine) as scene:
        scene["host"].send_data(b"x", to=[fresh("somebody")])
        scene["host"].send_chat("hi", to=[fresh("somebody")])
        scene["host"].send_chat("x" * 16_000, user_data={"a": [1, None]}, to=[])
        scene["host"].send_data(b"x" * 60 * 1024)
