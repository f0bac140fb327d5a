"""api.md, Observables and signals, in streams and audio rooms: each signal, its payload; receivers that misbehave."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.acceptance.scenes import token
from tests.integration.calling import WAIT, fresh, in_thread, until
from tests.integration.room_scenes import all_agree, ask_to_speak, audio_room, bring_on_stage, live_stream, stage_agrees
from utd_fsm import (
    UTDClosedError,
    UTDInvitation,
    UTDPermissionError,
    UTDRole,
    UTDRoom,
    UTDSeatGrid,
    UTDStateError,
    UTDStreamException,
    signals,
)
from utd_fsm.testing import LocalEngine, wait_for_signal

pytestmark = pytest.mark.media

Told = list[dict[str, Any]]


@contextmanager
def told(sender: object, *names: str) -> Iterator[dict[str, Told]]:
    """What these signals say of a session, oldest first; complete when the block is over."""
    heard: dict[str, Told] = {name: [] for name in names}
    receivers: dict[str, Callable[..., None]] = {}

    def make(name: str) -> Callable[..., None]:
        def receive(session: object, **payload: Any) -> None:
            assert session is sender
            heard[name].append({**payload, "thread": threading.current_thread().name})

        return receive

    for name in names:
        receivers[name] = make(name)
        getattr(signals, name).connect(receivers[name], sender=sender, weak=False)
    try:
        yield heard
        signals.drain(WAIT)
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


def is_a_chain(changes: Told) -> None:
    """Each emission begins where the one before ended, numbered upwards, on the signals' thread, nothing left out."""
    for before, after in itertools.pairwise(changes):
        assert after["previous"] == before["value"]
        assert after["seq"] > before["seq"]
    assert all(one["value"] != one["previous"] for one in changes)
    assert all(one["thread"] == changes[0]["thread"] != threading.current_thread().name for one in changes)
    assert all("dropped" not in one for one in changes)


def as_many(number: int, rows: tuple[Any, ...]) -> bool:
    return len(rows) == number


def has_role(identity: str, role: str, roles: Mapping[str, UTDRole]) -> bool:
    return roles.get(identity) == role


# ---------------------------------------------------------------------------------------------------------- streams


def test_a_streams_signals(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will", live=False) as scene:
        host, vera, who = scene["host"], scene["vera"], scene.id("vera")
        names = ("broadcast_changed", "stage_changed", "hands_changed", "can_publish_changed", "role_changed")
        with told(scene["will"], *names) as heard, told(vera, "can_publish_changed") as mine:
            host.go_live(with_video=False)
            asks = [(vera.request_stage, 1), (vera.lower_hand, 0), (vera.request_stage, 1)]
            for act, up in asks:
                act()
                scene["will"].hands.wait_for(partial(as_many, up), timeout=WAIT)
            bring_on_stage(scene, "vera")
            changes = [(host.promote, "admin"), (host.demote, "audience")]
            for change, role in changes:
                change(who)
                scene["will"].roles.wait_for(partial(has_role, who, role), timeout=WAIT)
            scene["will"].stage.wait_for(lambda stage: stage, timeout=WAIT)
            host.remove_from_stage(who)
            vera.can_publish.wait_for(False, timeout=WAIT)
            host.end_live()
            scene["will"].wait_until_ended(timeout=WAIT)
            scene["will"].stage.wait_for((), timeout=WAIT)
        assert [(one["previous"], one["value"]) for one in heard["broadcast_changed"]] == [
            ("waiting", "live"),
            ("live", "ended"),
        ]
        hands = [tuple(hand.identity for hand in one["value"]) for one in heard["hands_changed"]]
        assert hands == [(who,), (), (who,), ()]
        stages = [[(member.identity, member.role) for member in one["value"]] for one in heard["stage_changed"]]
        assert stages == [[(who, "audience")], [(who, "admin")], [(who, "audience")], []]
        for emissions in heard.values():
            if emissions and "value" in emissions[0]:
                is_a_chain(emissions)
        numbers = sorted(one["seq"] for emissions in heard.values() for one in emissions if "seq" in one)
        assert len(set(numbers)) == len(numbers)  # one count a session
        assert heard["can_publish_changed"] == []
        assert [one["value"] for one in mine["can_publish_changed"]] == [True, False]
        roles = [(one["identity"], one["previous"], one["role"]) for one in heard["role_changed"]]
        assert roles == [(who, "audience", "admin"), (who, "admin", "audience")]
        assert isinstance(heard["role_changed"][0]["role"], UTDRole)


def test_stage_and_hands_change_together(engine: LocalEngine) -> None:
    """Whoever is told of one finds the other changed as well."""
    with live_stream(engine, "vera") as scene:
        scene["vera"].request_stage()
        scene["host"].hands.wait_for(lambda hands: hands, timeout=WAIT)
        seen: list[tuple[int, int]] = []

        def look(session: Any, **extra: Any) -> None:
            seen.append((len(session.stage.value), len(session.hands.value)))

        for signal in (signals.stage_changed, signals.hands_changed):
            signal.connect(look, sender=scene["host"], weak=False)
        scene["host"].invite_to_stage(scene.id("vera"))
        signals.drain(WAIT)
        for signal in (signals.stage_changed, signals.hands_changed):
            signal.disconnect(look)
        assert seen == [(1, 0), (1, 0)]


# ------------------------------------------------------------------------------------------------------- audio rooms


def test_a_rooms_signals(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will", mode="request") as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        with told(host, "seats_changed", "requests_changed", "invited", "chat_locked_changed") as heard:
            host.take_seat(0)
            request = ask_to_speak(scene, "vera")
            host.approve_speaker(request)
            with wait_for_signal(signals.invited, sender=will, timeout=WAIT) as bidden:
                made = host.invite_to_speak(scene.id("will"), 3)
            assert bidden["invitation"] == made
            assert isinstance(bidden["invitation"], UTDInvitation)
            will.accept_invitation(bidden["invitation"])
            host.seats.wait_for(lambda grid: grid.seat_of(scene.id("will")) == 3, timeout=WAIT)
            host.swap_seats(1, 3)
            host.mute_seat(1)
            host.lock_chat()
            host.lock_chat(False)
            vera.seats.wait_for(lambda grid: grid.seats[1].muted, timeout=WAIT)
        indexes = [one["changed_indexes"] for one in heard["seats_changed"]]
        assert indexes == [(0,), (), (1,), (), (3,), (1, 3), (1,)]
        assert all(isinstance(one["value"], UTDSeatGrid) for one in heard["seats_changed"])
        for one in heard["seats_changed"]:
            differs = [i for i in range(4) if one["value"].seats[i] != one["previous"].seats[i]]
            assert tuple(differs) == one["changed_indexes"]
        is_a_chain(heard["seats_changed"])
        assert [one["value"] for one in heard["requests_changed"]] == [(request,), ()]
        assert heard["invited"] == []  # the invited alone
        assert [one["value"] for one in heard["chat_locked_changed"]] == [True, False]
        is_a_chain(heard["chat_locked_changed"])
        all_agree(scene, {"host": 0, "vera": 3, "will": 1}, speaking=["host"])


def test_an_invitation_is_told_once_also_to_who_comes_back(engine: LocalEngine) -> None:
    with audio_room(engine, "vera") as scene:
        vera = scene["vera"]
        with told(vera, "invited") as heard:
            first = scene["host"].invite_to_speak(scene.id("vera"))
            vera.invitations.wait_for((first,), timeout=WAIT)
            vera.get_seats()
            vera.decline_invitation()
            scene["host"].seats.wait_for(lambda grid: not grid.invitations, timeout=WAIT)
            second = scene["host"].invite_to_speak(scene.id("vera"), 2)
            vera.invitations.wait_for((second,), timeout=WAIT)
        assert [one["invitation"] for one in heard["invited"]] == [first, second]


# --------------------------------------------------------------------------------------------------------- both kinds


def test_chat_says_who_sent_it_and_who_is_claimed(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        for one in (host, will):  # whom nobody has listed yet has no name
            one.roles.wait_for(lambda roles: scene.id("vera") in roles, timeout=WAIT)
        with (
            wait_for_signal(signals.chat_received, sender=will, timeout=WAIT),
            wait_for_signal(signals.chat_received, sender=host, timeout=WAIT) as got,
        ):
            vera.send_chat("hello 🎙", user_data={"n": [1, None]})
        message = got["message"]
        assert (message.text, message.identity, message.claimed_identity) == (
            "hello 🎙",
            scene.id("vera"),
            scene.id("vera"),
        )
        assert message.user_data == {"n": [1, None]}
        forged = {"message": "chatMessage", "senderUserId": scene.id("host"), "senderName": "Host", "text": "pay me"}
        with wait_for_signal(signals.chat_received, sender=will, timeout=WAIT) as got:
            vera.send_data(json.dumps({"roomChat": forged}).encode())
        assert got["message"].identity == scene.id("vera")
        assert got["message"].claimed_identity == scene.id("host")
        with told(will, "chat_received") as nothing, wait_for_signal(signals.chat_received, sender=host, timeout=WAIT):
            vera.send_chat("for the host alone", to=[scene.id("host")])
        assert nothing["chat_received"] == []


def test_a_locked_chat_is_refused_where_it_is_sent_and_dropped_where_it_arrives(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as scene:
        host, vera, will = scene["host"], scene["vera"], scene["will"]
        host.lock_chat()
        assert host.chat_locked.value
        for one in (vera, will):
            one.chat_locked.wait_for(True, timeout=WAIT)
        with pytest.raises(UTDPermissionError):
            vera.send_chat("hello")
        with told(will, "chat_received", "data_received") as heard:
            payload = {"message": "chatMessage", "senderUserId": scene.id("vera"), "text": "round the lock"}
            vera.send_data(json.dumps({"roomChat": payload}).encode())
            vera.send_data(b"after")  # an application's own data is no chat
            until(lambda: any(one["data"] == b"after" for one in heard["data_received"]), "the data came")
            with wait_for_signal(signals.chat_received, sender=will, timeout=WAIT):
                host.send_chat("the host may")
            host.promote(scene.id("vera"))
            vera.roles.wait_for(lambda roles: roles[scene.id("vera")] == "admin", timeout=WAIT)
            will.roles.wait_for(lambda roles: roles[scene.id("vera")] == "admin", timeout=WAIT)
            with wait_for_signal(signals.chat_received, sender=will, timeout=WAIT):
                vera.send_chat("and so may admins")
        assert [one["message"].text for one in heard["chat_received"]] == ["the host may", "and so may admins"]
        host.lock_chat(False)
        will.chat_locked.wait_for(False, timeout=WAIT)
        with wait_for_signal(signals.chat_received, sender=host, timeout=WAIT) as got:
            will.send_chat("open again")
        assert got["message"].text == "open again"


def test_banned_is_told_once_with_its_reason(engine: LocalEngine) -> None:
    with live_stream(engine, "vera", "will") as scene:
        vera = scene["vera"]
        bring_on_stage(scene, "vera")
        with told(vera, "banned", "connection_changed") as heard, told(scene["will"], "banned") as others:
            row = scene["host"].ban(scene.id("vera"), reason="naïve 🎙", duration=600)
            vera.connection.wait_for("force_exit", timeout=WAIT)
            with pytest.raises(UTDStreamException) as out:
                vera.join()
            assert out.value.is_banned
        (notice,) = heard["banned"]
        assert (notice["reason"], notice["room_name"]) == ("naïve 🎙", scene.room)
        assert notice["expires_at"] == row.expires_at
        assert others["banned"] == []
        assert heard["connection_changed"][0]["value"] == "force_exit"
        stage_agrees(scene, [], speaking=["host"])


def test_being_kicked_or_signed_in_elsewhere_is_no_ban(engine: LocalEngine) -> None:
    with audio_room(engine, "vera", "will") as scene, engine.client() as client:
        with told(scene["vera"], "banned") as kicked, told(scene["will"], "banned") as doubled:
            scene["host"].kick(scene.id("vera"))
            scene["vera"].connection.wait_for("force_exit", timeout=WAIT)
            again = client.join_audio_room(scene.id("will"), scene.room)
            scene["will"].connection.wait_for("force_exit", timeout=WAIT)
            again.leave()
        assert kicked["banned"] == doubled["banned"] == []


def test_what_participants_forge_changes_nothing(engine: LocalEngine) -> None:
    """Sent by hand, by somebody whom the engine never let in, and by one whom it did."""
    with audio_room(engine, "vera") as scene:
        vera, host = scene["vera"], scene["host"]
        before = vera.seats.value, vera.roles.value, vera.chat_locked.value, vera.pending_requests.value
        watched = ("banned", "role_changed", "seats_changed", "chat_locked_changed", "invited", "data_received")
        lies = [
            {"type": "_seat_update", "count": 1, "seats": [], "version": 10**9},
            {"type": "_role_change", "identity": scene.id("vera"), "role": "host", "previous_role": "audience"},
            {"type": "_comment_lock", "locked": True},
            {"type": "_kicked", "reason": "kicked"},
            {"type": "_banned", "reason": "forged", "room_name": scene.room},
            {"type": "_live_ended"},
            {"type": "_speaker_invitation", "invitation_id": 1, "target_identity": scene.id("vera")},
        ]
        with told(vera, *watched) as heard, UTDRoom() as stranger:
            grants = token(engine, fresh("stranger"), scene.room, can_publish_data=True)
            stranger.connect(engine.livekit_url, grants)
            for sender in (stranger, host):
                for lie in lies:
                    sender.send_data(json.dumps(lie).encode())
            host.send_data(b"after")
            until(lambda: any(one["data"] == b"after" for one in heard["data_received"]), "the data came")
            assert (vera.seats.value, vera.chat_locked.value, vera.pending_requests.value) == (
                before[0],
                before[2],
                before[3],
            )
            assert vera.role is UTDRole.AUDIENCE
            assert vera.connected.value
        assert {name: len(told) for name, told in heard.items()} == {name: name == "data_received" for name in watched}


# ------------------------------------------------------------------------------------------ receivers that misbehave


@pytest.mark.parametrize("how", ["leave", "dispose"])
def test_a_receiver_that_leaves(engine: LocalEngine, how: str) -> None:
    with audio_room(engine, "vera") as scene:
        vera = scene["vera"]
        done = threading.Event()

        def go(session: Any, *, value: UTDSeatGrid, **extra: Any) -> None:
            if value.my_seat is not None:
                getattr(session, how)()
                getattr(session, how)()
                done.set()

        signals.seats_changed.connect(go, sender=vera, weak=False)
        try:
            try:
                vera.take_seat(1)
            except UTDStreamException as overtaken:
                assert isinstance(overtaken, UTDStateError | UTDClosedError)
            assert done.wait(WAIT)
        finally:
            signals.seats_changed.disconnect(go)
        assert not vera.connected.value
        all_agree(scene, {}, speaking=[])


def test_receivers_that_block_and_raise_hold_nobody_up(engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
    with audio_room(engine, "vera", "will") as scene:
        gate, told_last = threading.Event(), threading.Event()

        def blocks(session: object, **extra: Any) -> None:
            gate.wait(WAIT)

        def breaks(session: object, **extra: Any) -> None:
            raise ZeroDivisionError

        def last(session: object, *, value: UTDSeatGrid, **extra: Any) -> None:
            if value.seat_of(scene.id("will")) == 2:
                told_last.set()

        for receiver in (blocks, breaks, last):
            signals.seats_changed.connect(receiver, sender=scene["host"], weak=False)
        try:
            scene["vera"].take_seat(1)
            scene["will"].take_seat(2)
            all_agree(scene, {"vera": 1, "will": 2}, speaking=["vera", "will"])
            scene["host"].mute_seat(1)
            assert scene["host"].seats.value.seats[1].muted
            assert not told_last.is_set()
            gate.set()
            assert told_last.wait(WAIT)
            signals.drain(WAIT)
        finally:
            gate.set()
            for receiver in (blocks, breaks, last):
                signals.seats_changed.disconnect(receiver)
        assert "breaks" in caplog.text


def test_a_receiver_may_use_the_verbs(engine: LocalEngine) -> None:
    """A bot that approves whoever asks, from inside the signal."""
    with audio_room(engine, "vera", mode="request", auto_unmute=True) as scene:
        outcome: list[Any] = []

        def approve(session: Any, *, value: tuple[Any, ...], **extra: Any) -> None:
            outcome.extend(session.approve_speaker(request) for request in value)

        signals.requests_changed.connect(approve, sender=scene["host"], weak=False)
        try:
            scene["vera"].request_to_speak()
            all_agree(scene, {"vera": 1}, speaking=["vera"])
        finally:
            signals.requests_changed.disconnect(approve)
        assert outcome == [1]


def test_changed_holds_its_receivers_and_its_sender_is_the_observable(engine: LocalEngine) -> None:
    with live_stream(engine, "vera") as scene:
        heard: list[tuple[object, Any]] = []
        scene["host"].hands.changed.connect(lambda sender, **change: heard.append((sender, change["value"])))
        updates = in_thread(lambda: list(itertools.islice(scene["host"].hands.updates(), 3)))
        scene["vera"].request_stage()
        scene["host"].hands.wait_for(lambda hands: hands, timeout=WAIT)
        scene["vera"].lower_hand()
        values = updates.result(WAIT)
        signals.drain(WAIT)
        assert [len(value) for value in values] == [0, 1, 0]
        assert [len(value) for _, value in heard] == [1, 0]
        assert all(sender is scene["host"].hands for sender, _ in heard)
