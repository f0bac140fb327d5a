"""Rooms whose every call waits until the test says how it ends, and a loop whose timers fire when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from utd_fsm.errors import UTDConnectionError
from utd_fsm.models import UTDParticipant, UTDTrackSource
from utd_fsm.room import LocalTrackMuted, Permission, RemoteTrack, RoomEvent, RoomOptions


class TimerLoop(asyncio.SelectorEventLoop):
    """Time stands still. A timer fires by `fire`, told apart from the others by how long it was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[float, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return 1000.0

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self._kept.append((when - self.time(), handle))
        return handle

    def running(self, length: float) -> int:
        """How many timers of this length run."""
        return sum(1 for kept in self._kept if abs(kept[0] - length) < 1e-6 and not kept[1].cancelled())

    def fire(self, least: float, most: float | None = None) -> int:
        """Fire all timers of this length (or between these two); how many there were."""
        most = least if most is None else most
        chosen = [kept for kept in self._kept if least - 1e-6 <= kept[0] <= most + 1e-6 and not kept[1].cancelled()]
        self._kept = [kept for kept in self._kept if kept not in chosen and not kept[1].cancelled()]
        for _, handle in chosen:
            handle._run()
            handle.cancel()
        return len(chosen)


class LoopLease:
    """Counts in its portal."""

    def __init__(self, portal: LoopPortal) -> None:
        self.portal, self.released = portal, False
        portal.held += 1

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.portal.held -= 1


class LoopPortal:
    """What a session needs of a portal, on whatever loop runs."""

    def __init__(self) -> None:
        self.held = 0
        """Leases that are not released."""

    def spawn(self, coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(coro, name=name)

    def hold(self) -> LoopLease:
        return LoopLease(self)

    def at_exit(self, fn: Callable[[], Any]) -> Callable[[], None]:
        return lambda: None


class ScriptedPublication:
    """A track; `live` while the room lists it."""

    def __init__(self, room: ScriptedRoom, source: UTDTrackSource, number: int) -> None:
        self.room, self.source, self.sid = room, source, f"TR_{number}"
        self.muted = False

    @property
    def closed(self) -> bool:
        return self.room.tracks.get(self.source) is not self

    async def set_muted(self, muted: bool) -> None:
        self.muted = muted

    async def capture(self, frame: Any) -> None: ...

    async def drained(self) -> None: ...


class ScriptedRoom:
    """A `Room`. ``joining`` is the connect under way, ``call`` the one publish or unpublish under way."""

    native = None
    metadata = ""
    local: UTDParticipant | None = None
    participants: tuple[UTDParticipant, ...] = ()
    remote_tracks: tuple[RemoteTrack, ...] = ()

    def __init__(self, post: Callable[[RoomEvent], None], options: RoomOptions) -> None:
        self.post = post
        self.permission = Permission()
        self.joining: asyncio.Future[None] | None = None
        self.leaving: asyncio.Future[None] | None = None
        self.call: tuple[str, asyncio.Future[None]] | None = None
        self.tracks: dict[UTDTrackSource, ScriptedPublication] = {}
        self.published = 0
        self.dead = False

    @property
    def connected(self) -> bool:
        return not self.dead

    def grant(self, granted: bool) -> None:
        self.permission = Permission(can_publish=granted)

    async def connect(self, url: str, token: str, *, auto_subscribe: bool = True) -> None:
        self.joining = asyncio.get_running_loop().create_future()
        try:
            await self.joining
        except asyncio.CancelledError:
            raise AssertionError("connect was cancelled: it must never be (LiveKit fact 1)") from None

    async def disconnect(self) -> None:
        self.dead = True
        self.tracks.clear()
        if self.leaving is not None:
            await self.leaving

    async def _scripted(self, kind: str) -> None:
        assert self.call is None, f"{kind} while {self.call} is under way: calls on a Room run one at a time"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call = kind, future
        try:
            await future
        finally:
            self.call = None

    def finish_call(self, error: Exception | None = None) -> None:
        assert self.call is not None
        if error is None:
            self.call[1].set_result(None)
        else:
            self.call[1].set_exception(error)

    async def publish_audio(
        self, source: UTDTrackSource, *, sample_rate: int = 48000, channels: int = 1
    ) -> ScriptedPublication:
        assert source not in self.tracks, "published while the room still lists a track of this source"
        assert self.permission.can_publish, "published without the grant"
        assert not self.dead, "published in a dead room"
        await self._scripted("publish")
        self.published += 1
        made = self.tracks[source] = ScriptedPublication(self, source, self.published)
        return made

    async def publish_video(
        self, source: UTDTrackSource, *, width: int, height: int, fps: float = 15, simulcast: bool = True
    ) -> ScriptedPublication:
        return await self.publish_audio(source)

    async def unpublish(self, source: UTDTrackSource) -> None:
        await self._scripted("unpublish")
        self.tracks.pop(source, None)

    def publications(self, source: UTDTrackSource) -> tuple[str, ...]:
        return (self.tracks[source].sid,) if source in self.tracks else ()

    def moderator_mutes(self, source: UTDTrackSource, muted: bool = True) -> None:
        self.tracks[source].muted = muted
        self.post(LocalTrackMuted(source, muted))

    async def send_data(
        self, data: bytes, *, reliable: bool = True, to: Sequence[str] = (), topic: str | None = None
    ) -> None:
        if self.dead:
            raise UTDConnectionError("not in the room")

    async def send_text(self, text: str, *, topic: str, to: Sequence[str] = ()) -> None: ...


class Feeding:
    """What feeds a source; knows whether anything would be heard of it now."""

    def __init__(self) -> None:
        self.publication: ScriptedPublication | None = None
        self.paused = False

    @property
    def sends(self) -> bool:
        return self.publication is not None and not self.paused

    def attach(self, publication: ScriptedPublication) -> None:
        self.publication = publication

    def detach(self) -> None:
        self.publication = None

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def start(self) -> None: ...

    def set_source(self, source: object) -> None: ...

    async def aclose(self, error: Exception | None = None) -> None:
        self.publication = None


class Nobody:
    """Listens to nothing."""

    def add(self, track: object) -> None: ...

    def remove(self, sid: str) -> None: ...

    def start_now(self) -> None: ...

    def finish(self, error: Exception | None = None, ended_by: str = "") -> None: ...


async def turns(count: int = 40) -> None:
    """Let everything that can go on without a timer go on."""
    for _ in range(count):
        await asyncio.sleep(0)
