"""Who else is in the live streams and audio rooms of an example: a host for its viewers, an audience for its host.

What an example joins is read out of its code. Where it hosts, vera is there: she raises her hand, or asks to speak, and
speaks at 660 Hz when she may. Where it does not, host1 is there: live with pictures and 440 Hz, or on seat 0 of 8, and
gives everybody what it asks for. Both use the public API only, on threads of their own, until the example is over.
"""

from __future__ import annotations

import ast
import contextlib
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from utd_fsm import (
    UTDAudioRoomSession,
    UTDClosedError,
    UTDConnectionError,
    UTDLiveStreamSession,
    UTDPermissionError,
    UTDStateError,
    UTDStreamClient,
)
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine

HOST, VIEWER = "host1", "vera"
PATIENCE = 60.0
LEAVES = 5.0
"""Seconds for whoever leaves by itself; whoever still waits then is ended with its client."""
STAYS = 3.0
"""Seconds for which a stream goes on that its example only watches."""
_OVER = (UTDStateError, UTDPermissionError, UTDClosedError, UTDConnectionError)
"""What somebody meets whose wish came too late: put off the stage or out of the room, or the example is over."""


def joins(code: str) -> Iterator[tuple[str, str, bool]]:
    """Each ``join_…`` of the code: ``live_stream`` or ``audio_room``, the room's name, whether as host."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("join_"):
            room = node.args[1]
            assert isinstance(room, ast.Constant), "an example names its room"
            assert isinstance(room.value, str)
            as_host = any(one.arg == "as_host" for one in node.keywords)
            yield node.func.attr.removeprefix("join_"), room.value, as_host


class Cast:
    """Everybody beside the example itself, from before it begins until after it has ended."""

    def __init__(self, engine: LocalEngine, code: str) -> None:
        self._engine = engine
        self._code = code
        self._over = threading.Event()
        self._failed: list[BaseException] = []

    @contextlib.contextmanager
    def present(self) -> Iterator[None]:
        """Raises: whatever went wrong with somebody, unless the example failed itself."""
        joined: dict[tuple[str, str], set[bool]] = {}
        for kind, room, as_host in joins(self._code):
            joined.setdefault((kind, room), set()).add(as_host)
        threads = []
        with ExitStack() as stack:
            for (kind, room), sides in joined.items():
                if len(sides) == 2:  # it brings its own company
                    continue
                as_host = True in sides
                client = stack.enter_context(self._engine.client())
                ready = threading.Event()
                part = getattr(self, f"_{'guest' if as_host else 'host'}_of_{kind}")
                threads.append(threading.Thread(target=self._play, args=(part, client, room, ready), name=room))
                threads[-1].start()
                if not as_host:
                    assert ready.wait(PATIENCE), f"the host of {room} did not come"
            try:
                yield
            finally:
                self._over.set()
                if sys.exc_info()[0] is None:  # else they may wait for what no longer comes: closing ends that
                    for thread in threads:
                        thread.join(LEAVES)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self._failed, self._failed

    def _play(self, part: Callable[..., None], client: UTDStreamClient, room: str, ready: threading.Event) -> None:
        try:
            part(client, room, ready)
        except BaseException as error:  # told in the example's own thread
            if not (self._over.is_set() and isinstance(error, _OVER)):
                self._failed.append(error)
        finally:
            ready.set()

    # ------------------------------------------------------------------------------------------------- a live stream

    def _guest_of_live_stream(self, client: UTDStreamClient, room: str, ready: threading.Event) -> None:
        """Raises a hand once the stream is on, and speaks on stage."""
        stream = client.join_live_stream(VIEWER, room, name="Vera", microphone=Tone(660))
        while stream.broadcast.value == "ended" and not self._over.wait(0.1):  # an earlier example's
            stream.leave()
            stream.join()
        with stream:
            ready.set()
            stream.broadcast.wait_for("live", timeout=PATIENCE)
            with contextlib.suppress(*_OVER):
                stream.request_stage()
                stream.can_publish.wait_for(True, timeout=PATIENCE)
                stream.set_microphone(True)
            self._over.wait(PATIENCE)

    def _host_of_live_stream(self, client: UTDStreamClient, room: str, ready: threading.Event) -> None:
        """Brings whoever asks on stage; ends the stream when its first guest leaves the stage, or after a while."""
        with join_live(client, room) as stream:
            ready.set()
            if "request_stage" in self._code:
                hand = stream.hands.wait_for(lambda hands: hands, timeout=PATIENCE)[0]
                with contextlib.suppress(*_OVER):
                    stream.invite_to_stage(hand.identity)
                    stream.stage.wait_for(lambda stage: not stage, timeout=PATIENCE)
            else:
                self._over.wait(STAYS)
            if "wait_until_ended" not in self._code:
                self._over.wait(PATIENCE)

    # ------------------------------------------------------------------------------------------------- an audio room

    def _guest_of_audio_room(self, client: UTDStreamClient, room: str, ready: threading.Event) -> None:
        """Asks to speak where one has to, and accepts whatever it is offered."""
        with client.join_audio_room(VIEWER, room, name="Vera", microphone=Tone(660), auto_unmute=True) as audience:
            ready.set()
            grid = audience.seats.wait_for(lambda grid: grid.count, timeout=PATIENCE)
            with contextlib.suppress(*_OVER):
                if grid.mode == "request" and "invite_to_speak" not in self._code:
                    audience.request_to_speak()
                elif "invite_to_speak" in self._code:
                    audience.invitations.wait_for(lambda invitations: invitations, timeout=PATIENCE)
                    audience.accept_invitation()
                else:
                    audience.take_seat(grid.free_seats()[0])
            self._over.wait(PATIENCE)

    def _host_of_audio_room(self, client: UTDStreamClient, room: str, ready: threading.Event) -> None:
        """Says yes to whoever asks to speak; where the example waits for it, invites whoever comes."""
        asks = re.search(r"request_to_speak|invitation", self._code)
        with open_room(client, room, "request" if asks else "free") as lobby:
            ready.set()
            if "invitation" in self._code:
                others = lobby.remote_participants.wait_for(lambda others: others, timeout=PATIENCE)
                lobby.invite_to_speak(others[0].identity)
            elif asks:
                request = lobby.pending_requests.wait_for(lambda requests: requests, timeout=PATIENCE)[0]
                lobby.approve_speaker(request)
            self._over.wait(PATIENCE)


def join_live(client: UTDStreamClient, room: str) -> UTDLiveStreamSession:
    """host1, live."""
    picture = TestPattern(320, 240, 15)
    stream = client.join_live_stream(HOST, room, as_host=True, name="Host", microphone=Tone(440), camera=picture)
    stream.go_live()
    return stream


def open_room(client: UTDStreamClient, room: str, mode: str) -> UTDAudioRoomSession:
    """host1, on seat 0 of 8."""
    lobby = client.join_audio_room(
        HOST, room, as_host=True, name="Host", seat_count=8, seat_mode=mode, microphone=Tone(440)
    )
    lobby.take_seat(0)
    return lobby


def prepared(engine: LocalEngine, wants: set[str], stack: ExitStack) -> dict[str, Any]:
    """The sessions that a block uses without joining: of a stream ``live`` (host1's) and ``viewer`` (vera's), of an
    audio room in request mode ``lobby`` (host1's, who sits) and ``listener`` (vera's)."""
    names: dict[str, Any] = {}
    room = f"room-{secrets.token_hex(4)}"
    if {"live", "viewer"} & wants:
        host, guest = (stack.enter_context(engine.client()) for _ in range(2))
        names["live"] = stack.enter_context(join_live(host, room))
        names["viewer"] = stack.enter_context(
            guest.join_live_stream(VIEWER, room, name="Vera", microphone=Tone(660), camera=TestPattern(320, 240, 15))
        )
        names["viewer"].broadcast.wait_for("live", timeout=PATIENCE)
    if {"lobby", "listener"} & wants:
        host, guest = (stack.enter_context(engine.client()) for _ in range(2))
        names["lobby"] = stack.enter_context(open_room(host, f"{room}-a", "request"))
        names["listener"] = stack.enter_context(
            guest.join_audio_room(VIEWER, f"{room}-a", name="Vera", microphone=Tone(660))
        )
    return names
