"""Drives one declared `Source` machine: a microphone, a camera or a screen, through grants, mutes and lost Rooms.

Loop thread only. It knows the Room it is told of, one publication and what feeds it; nothing of calls, seats or the
connection's machine. Whoever owns it tells it what the way looks like (`room_joined`, `reading`, `link_lost`,
`room_lost`, `room_left`) and what the application wants (`enable`, `mute`, `stop`).

Calls on a Room run one at a time, in a `_Lane` that lives as long as that Room: publishing first removes whatever the
Room still lists (LiveKit fact 33), and a publish that comes home to a finished epoch takes its own track down.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from utd_fsm.errors import (
    UTDConnectionError,
    UTDPermissionError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.machines.base import Step, start
from utd_fsm.machines.source import Source
from utd_fsm.models import UTDTrackSource
from utd_fsm.room import Publication, Room
from utd_fsm.sessions.timing import Timing

_log = logging.getLogger("utd_fsm.publishing")


class Outgoing(Protocol):
    """What feeds a publication: `utd_fsm.media.outgoing.Microphone` or `Camera`. It keeps its place while it waits."""

    def attach(self, publication: Any) -> None:
        """A publish epoch begins."""

    def detach(self) -> None:
        """It is over: nothing is sent and nothing pulled."""

    def pause(self) -> None:
        """Muted, or the link is down: nothing is sent and nothing pulled."""

    def resume(self) -> None:
        """Go on where it was."""


_Kind: TypeAlias = Literal["publish", "unpublish", "clear", "mute"]


@dataclass(slots=True, eq=False)
class _Op:
    """One call on the Room. ``clear`` is an unpublish of which the machine is not told."""

    kind: _Kind
    epoch: int
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Lane:
    """The calls of one source on one Room. Dead with it: what is under way comes home to nobody."""

    room: Room
    ops: deque[_Op] = field(default_factory=deque)
    worker: asyncio.Task[None] | None = None
    dead: bool = False


class SourceDriver:
    """One source of one session.

    Args:
        source: which one.
        publish: publishes a new track of it in the Room given.
        entitled: whether the grant may be expected although it is not there: what the engine's record says.
        refusal: a further reason why it may not be switched on (a muted seat), as the error to raise; None if none.
        on_change: told each step that changed the machine. Must not raise.
        timing: seconds.
    """

    def __init__(
        self,
        source: UTDTrackSource,
        *,
        publish: Callable[[Room], Awaitable[Publication]],
        entitled: Callable[[], bool] = lambda: True,
        refusal: Callable[[], UTDStreamException | None] = lambda: None,
        on_change: Callable[[Step], None] = lambda step: None,
        timing: Timing | None = None,
    ) -> None:
        self.source = source
        self._publish = publish
        self._entitled = entitled
        self._refusal = refusal
        self._on_change = on_change
        self._timing = timing or Timing()
        self._machine = start(Source)
        self._media: Outgoing | None = None
        self._lane: _Lane | None = None
        self._linked = False
        self._granted: bool | None = None
        self._joined_at = 0.0
        self._publication: Publication | None = None
        self._epoch = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._asker: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------------- what it is

    @property
    def state(self) -> str:
        """The machine's state."""
        return self._machine.state

    @property
    def wanted(self) -> bool:
        """Whether it is on, or will be as soon as the way is clear."""
        return self.state in ("waiting", "publishing", "on")

    @property
    def publication(self) -> Publication | None:
        """What is published; None while nothing is."""
        return self._publication

    @property
    def media(self) -> Outgoing | None:
        """What feeds it."""
        return self._media

    @media.setter
    def media(self, media: Outgoing | None) -> None:
        """Give it what feeds it, before `enable`; None takes it away (the owner closes it)."""
        if self._media is not None:
            self._media.detach()
        self._media = media
        if self._publication is not None:
            self._feed(self._publication)

    # ------------------------------------------------------------------------------------------------- intentions

    def refuse_now(self) -> None:
        """Raise what `enable` would raise at once.

        Raises:
            UTDPermissionError: the grant cannot come.
            UTDStateError: not possible now.
        """
        if self.state not in ("on", "stopping"):
            self._refuse()

    async def enable(self) -> None:
        """Be on: wait for the grant (10 s connected without it, at most), publish. Joins a wait that is running.

        Cancelled before it was on, the wish is withdrawn, unless another call waits for it too.

        Raises:
            UTDPermissionError: the grant cannot come, was taken away, or the server refused the track.
            UTDTimeoutError: the grant did not come in time.
            UTDStateError: switched off again meanwhile, or the session left.
        """
        # What is being taken down is gone before anything new is wanted.
        while self.state == "stopping":
            await self._next_change()
        if self.state == "on":
            return
        self._refuse()
        if self.state == "muted":
            self._send("enable")
            await self._settled()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self.state == "off":
            self._asker = waiter
            self._send("enable")
            if self._linked and self._granted:
                self._send("saw_clear")
        try:
            await waiter
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def mute(self) -> None:
        """Be silent; the track stays. Returns when the Room was told."""
        self._send("mute", self._overtaken())
        await self._settled()

    async def stop(self) -> None:
        """Take the track down. Returns when it is."""
        self.stop_now()
        while self.state == "stopping":
            await self._next_change()

    def stop_now(self, error: UTDStreamException | None = None) -> None:
        """Take the track down, in the background; nothing more is sent from now on. Idempotent.

        ``error``: what an `enable` that still waits raises.
        """
        self._send("stop", error or self._overtaken())

    # ----------------------------------------------------------------------------------------------- observations

    def room_joined(self, room: Room, granted: bool) -> None:
        """In the room, for the first time or again; this is the first reading of the grant there.

        Missing, it may only have been forgotten by a server that was restarted: the source waits for it.
        """
        if self._lane is None or self._lane.room is not room:
            self._lane = _Lane(room)
        self._joined_at = asyncio.get_running_loop().time()
        self._linked, self._granted = True, granted
        if self.state == "on" and self._media is not None:
            self._media.resume()
        if granted:
            self._send("saw_clear")
        else:
            self._send("saw_blocked")
        self._watch_grant()

    def reading(self, granted: bool) -> None:
        """A later reading of the grant, while connected. One that falls was taken away.

        Not so right after a return (`Timing.first_reading`): LiveKit may say that it is back before it says what the
        server still knows, so that still belongs to the first reading.
        """
        if not self._linked or granted == self._granted:
            return
        self._granted = granted
        if granted:
            self._send("saw_clear")
        elif asyncio.get_running_loop().time() < self._joined_at + self._timing.first_reading:
            self._send("saw_blocked")
        else:
            lost = UTDPermissionError(f"the permission to publish the {self.source} was taken away")
            self._send("saw_revoked", lost)
        self._watch_grant()

    def link_lost(self) -> None:
        """LiveKit mends the link: on stays on, and nothing is read of the grant until `room_joined`."""
        self._linked = False
        if self._media is not None:
            self._media.pause()
        self._watch_grant()

    def room_lost(self) -> None:
        """The Room is dead and the session tries to come back; the source, if it was on, comes back with it."""
        self._send("saw_blocked")
        self._room_gone()

    def room_left(self, error: UTDStreamException | None = None) -> None:
        """The session is out for good. Idempotent. ``error``: what an `enable` that still waits raises."""
        self._send("stop", error or UTDStateError(f"the session left before the {self.source} was on"))
        self._room_gone()

    def muted_by_other(self, muted: bool = True) -> None:
        """A moderator muted the track, or the seat is muted. Nobody but the application unmutes it again."""
        if muted:
            self._send("saw_muted")
        elif self.state == "muted":
            self._call("mute")

    def _room_gone(self) -> None:
        """The Room is dead: its calls come home at once, its publication with them."""
        lane, self._lane = self._lane, None
        self._linked, self._granted = False, None
        self._end_publication()
        if lane is not None:
            lane.dead = True
            for op in lane.ops:
                _finish(op)
            lane.ops.clear()
        if self.state == "stopping":
            self._send("unpublished")
        self._watch_grant()

    # ----------------------------------------------------------------------------------------------------- the step

    def _send(self, event: str, error: UTDStreamException | None = None) -> None:
        """Step the machine, then do what the state entered asks for. ``error``: why it is not going to be on."""
        if (self.state, event) in Source.STALE:
            return
        step = self._machine.send(event)
        if not step.changed:
            return
        old, new = step.before, step.after
        _log.debug("%s: %s, %s, %s", self.source, old, event, new)
        if old == "publishing" and event != "published":
            self._epoch += 1
        if new == "publishing":
            self._epoch += 1
            self._call("publish")
        elif new == "stopping":
            self._end_publication()
            self._call("unpublish")
        elif new == "waiting" and old == "on":
            self._end_publication()
            self._call("clear")
        elif new == "muted":
            if self._media is not None:
                self._media.pause()
            self._call("mute")
        elif new == "on" and old == "muted":
            if self._media is not None and self._linked:
                self._media.resume()
            self._call("mute")
        self._watch_grant()
        if new not in ("waiting", "publishing"):
            self._tell_waiters(new, error or self._overtaken())
        self._on_change(step)

    def _tell_waiters(self, state: str, error: UTDStreamException) -> None:
        waiters, self._waiters, self._asker = self._waiters, [], None
        for waiter in waiters:
            if waiter.done():
                continue
            if state == "on":
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
                waiter.exception()  # retrieved: its caller may be gone

    def _overtaken(self) -> UTDStreamException:
        return UTDStateError(f"the {self.source} was switched off meanwhile", state=self.state, event="enable")

    def _refuse(self) -> None:
        refused = self._refusal()
        if refused is not None:
            raise refused
        if not self._granted and not self._entitled():
            raise UTDPermissionError(
                f"the {self.source} may not be published: the engine has not granted it, and nothing says that it will "
                "(take a seat, join the stage or answer the call first)"
            )

    def _withdraw(self, waiter: asyncio.Future[None]) -> None:
        others = any(other is not waiter and not other.done() for other in self._waiters)
        if self._asker is waiter and self.state in ("waiting", "publishing"):
            self._asker = next((w for w in self._waiters if w is not waiter), None) if others else None
            if not others:
                self.stop_now()

    def _watch_grant(self) -> None:
        """The 10 s run while it is wanted and we are in the room without the grant, and at no other time."""
        counts = self.state == "waiting" and self._linked and not self._granted
        if counts and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timing.grant, self._wait_over)
        elif not counts and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_over(self) -> None:
        self._timer = None
        late = f"the permission to publish the {self.source} did not come within {self._timing.grant:g} s"
        self._send("wait_over", UTDTimeoutError(late))

    # ------------------------------------------------------------------------------------------- calls on the Room

    def _call(self, kind: _Kind) -> None:
        lane = self._lane
        if lane is None:
            return
        lane.ops.append(_Op(kind, self._epoch, asyncio.get_running_loop().create_future()))
        if lane.worker is None:
            lane.worker = asyncio.create_task(self._work(lane), name=f"utd-fsm-{self.source}")

    async def _work(self, lane: _Lane) -> None:
        try:
            while lane.ops and not lane.dead:
                op = lane.ops[0]
                await self._carry_out(lane, op)
                _finish(op)
                if lane.ops and lane.ops[0] is op:
                    lane.ops.popleft()
        finally:
            lane.worker = None

    async def _carry_out(self, lane: _Lane, op: _Op) -> None:
        if op.kind == "publish":
            await self._carry_out_publish(lane, op)
        elif op.kind == "mute":
            publication = self._publication
            if publication is not None and self.state in ("on", "muted"):
                try:
                    await publication.set_muted(self.state == "muted")
                except Exception as error:  # noqa: BLE001 - the media is paused: silence goes out either way
                    _log.warning("muting the %s failed: %s", self.source, type(error).__name__)
        else:
            await self._take_down(lane)
            if op.kind == "unpublish" and not lane.dead and self.state == "stopping":
                self._send("unpublished")

    async def _carry_out_publish(self, lane: _Lane, op: _Op) -> None:
        if op.epoch != self._epoch:
            return
        try:
            if lane.room.publications(self.source):
                await self._take_down(lane)
                if lane.dead or op.epoch != self._epoch:
                    return
            publication = await self._publish(lane.room)
        except Exception as error:  # noqa: BLE001 - whatever it was, the machine is told and the waiter raises it
            if not lane.dead and op.epoch == self._epoch:
                self._publish_failed(error)
            return
        if lane.dead:
            return
        if op.epoch != self._epoch:
            await self._take_down(lane)
            return
        self._publication = publication
        self._feed(publication)
        self._send("published")

    def _feed(self, publication: Publication) -> None:
        if self._media is not None:
            self._media.attach(publication)
            if self._linked and self.state != "muted":
                self._media.resume()
            else:
                self._media.pause()

    def _publish_failed(self, error: Exception) -> None:
        if not self._linked:
            # It broke with the link, and the way back decides.
            self._send("saw_blocked")
            return
        if not isinstance(error, UTDStreamException):
            _log.error("publishing the %s raised %s", self.source, type(error).__name__)
            error = UTDConnectionError(f"the {self.source} could not be published ({type(error).__name__})")
        self._send("publish_failed", error)

    async def _take_down(self, lane: _Lane) -> None:
        try:
            await lane.room.unpublish(self.source)
        except Exception as error:  # noqa: BLE001 - nothing feeds it any more, and the next publish removes it first
            _log.warning("unpublishing the %s failed: %s", self.source, type(error).__name__)

    def _end_publication(self) -> None:
        self._publication = None
        if self._media is not None:
            self._media.detach()

    async def _settled(self) -> None:
        """Until the calls that are queued now have come home."""
        lane = self._lane
        if lane is not None and lane.ops:
            await asyncio.shield(lane.ops[-1].done)

    async def _next_change(self) -> None:
        """Until what is being taken down is gone."""
        await self._settled()
        await asyncio.sleep(0)


def _finish(op: _Op) -> None:
    if not op.done.done():
        op.done.set_result(None)
