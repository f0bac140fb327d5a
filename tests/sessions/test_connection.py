"""The Connection driver on rooms in memory: tries, given-up tries, drops, removals, the 60 s."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from utd_fsm.errors import (
    UTDClosedError,
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDPermissionError,
    UTDStateError,
    UTDTimeoutError,
)
from utd_fsm.machines.base import Step
from utd_fsm.room import DataReceived, Disconnected, LeaveReason, Room, RoomEvent, RoomOptions
from utd_fsm.sessions.connection import ConnectionDriver, Look, TicketReason, is_refusal
from utd_fsm.sessions.timing import Timing
from utd_fsm.testing import MemoryServer

from .conftest import SHORT

ROOM, ME = "room", "me"


class Rig:
    """A driver, a memory server, and what the driver told its owner."""

    def __init__(self, timing: Timing = SHORT, *, look: Look | None = None) -> None:
        self.server = MemoryServer(paced=False)
        self.reasons: list[TicketReason] = []
        self.steps: list[Step] = []
        self.shown: list[str] = []
        self.events: list[RoomEvent] = []
        self.rooms: list[Room] = []
        self.ticket: Callable[[TicketReason], Awaitable[tuple[str, str]]] = self.good_ticket
        self.on_change: Callable[[Step], None] = lambda step: None

        def make(post: Callable[[RoomEvent], None], options: RoomOptions) -> Room:
            room = self.server.room_factory(post, options)
            self.rooms.append(room)
            return room

        async def ticket(reason: TicketReason) -> tuple[str, str]:
            self.reasons.append(reason)
            return await self.ticket(reason)

        def changed(step: Step) -> None:
            self.steps.append(step)
            self.shown.append(self.driver.public)
            self.on_change(step)

        self.driver = ConnectionDriver(
            make,
            RoomOptions(),
            ticket=ticket,
            on_change=changed,
            on_event=self.events.append,
            before_removal=look,
            timing=timing,
        )

    async def good_ticket(self, reason: TicketReason) -> tuple[str, str]:
        return self.server.url, self.server.token(ME, ROOM)

    @property
    def path(self) -> list[str]:
        return [step.after for step in self.steps]

    async def until(self, state: str) -> None:
        async with asyncio.timeout(20):
            while self.driver.state != state:
                await asyncio.sleep(0.001)

    async def passed(self, state: str) -> None:
        """It is, or was, in this state (rejoining may last one turn of the loop only)."""
        async with asyncio.timeout(20):
            while state not in self.path:
                await asyncio.sleep(0.001)

    @property
    def here(self) -> bool:
        """Whether the server lists us."""
        return ROOM in self.server.rooms and ME in self.server.rooms[ROOM].seats


@contextlib.asynccontextmanager
async def rig(timing: Timing = SHORT, *, look: Look | None = None) -> AsyncIterator[Rig]:
    made = Rig(timing, look=look)
    try:
        yield made
    finally:
        made.server.joining.set()
        await made.driver.dispose()
        await asyncio.wait_for(made.driver.reaped(), 20)
        assert not made.here, "disposed, and the server still lists us"


async def test_join_and_leave() -> None:
    async with rig() as r:
        await r.driver.join()
        assert r.driver.state == "connected"
        assert r.driver.age is None
        assert r.here
        await r.driver.leave()
        assert r.path == ["connecting", "connected", "disconnected"]
        assert r.driver.room is None
        assert not r.here
        await r.driver.leave()
        await r.driver.join()
        assert r.reasons == ["join", "join"]
        assert len(r.rooms) == 2, "a Room is never used again"


async def test_join_is_refused_when_in_or_disposed() -> None:
    async with rig() as r:
        await r.driver.join()
        with pytest.raises(UTDStateError) as refused:
            await r.driver.join()
        assert refused.value.state == "connected"
        await r.driver.dispose()
        await r.driver.dispose()
        with pytest.raises(UTDClosedError):
            await r.driver.join()


async def test_a_failed_try_is_followed_by_another() -> None:
    async with rig() as r:
        r.server.refuse_next(UTDConnectionError("no"), UTDEngineError("full", 500))
        await r.driver.join()
        assert r.reasons == ["join", "retry", "retry"]
        assert r.driver.epoch == 3
        assert r.driver.state == "connected"


async def test_the_third_failure_ends_it_and_is_raised() -> None:
    async with rig() as r:
        r.server.refuse_next(UTDConnectionError("1"), UTDConnectionError("2"), UTDConnectionError("3"))
        with pytest.raises(UTDConnectionError, match="3"):
            await r.driver.join()
        assert r.path == ["connecting", "disconnected"]
        assert r.steps[-1].event == "tries_over"
        await r.driver.join()
        assert r.driver.state == "connected"


@pytest.mark.parametrize(
    "error", [UTDPermissionError("no", 401), UTDForbiddenError("User is banned", 403), UTDEngineError("gone", 404)]
)
async def test_a_refusal_ends_the_trying_at_once(error: Exception) -> None:
    async with rig() as r:
        r.server.refuse_next(error)
        with pytest.raises(type(error)) as raised:
            await r.driver.join()
        assert raised.value is error
        assert r.reasons == ["join"]
        assert r.path == ["connecting", "disconnected"]
        assert r.steps[-1].event == "saw_removed"


def test_what_is_a_refusal() -> None:
    assert is_refusal(UTDEngineError("conflict", 409))
    for patience in (408, 425, 429, 500, 503, None):
        assert not is_refusal(UTDEngineError("later", patience))
    assert not is_refusal(UTDConnectionError("unreachable"))
    assert not is_refusal(UTDTimeoutError("late"))


async def test_a_ticket_that_cannot_be_had_is_a_failed_try() -> None:
    async with rig() as r:
        answers: list[Exception | None] = [UTDConnectionError("engine away"), KeyError("a fault of the owner"), None]

        async def ticket(reason: TicketReason) -> tuple[str, str]:
            answer = answers.pop(0)
            if answer is not None:
                raise answer
            return await r.good_ticket(reason)

        r.ticket = ticket
        await r.driver.join()
        assert r.reasons == ["join", "retry", "retry"]


async def test_a_room_that_cannot_even_be_made_is_a_failed_try() -> None:
    def broken(post: Callable[[RoomEvent], None], options: RoomOptions) -> Room:
        raise ImportError("libnative.so: cannot open shared object file")

    rig = Rig()
    driver = ConnectionDriver(
        broken,
        RoomOptions(),
        ticket=rig.good_ticket,
        on_change=rig.steps.append,
        on_event=rig.events.append,
        timing=SHORT,
    )
    async with asyncio.timeout(20):
        with pytest.raises(UTDConnectionError, match="cannot open shared object"):
            await driver.join()
    assert driver.state == "disconnected"
    assert len([step for step in rig.steps if step.after == "disconnected"]) == 1


async def test_a_refused_ticket_is_raised() -> None:
    async with rig() as r:

        async def ticket(reason: TicketReason) -> tuple[str, str]:
            raise UTDForbiddenError("User is banned", 403)

        r.ticket = ticket
        with pytest.raises(UTDForbiddenError):
            await r.driver.join()
        assert r.driver.state == "disconnected"


async def test_a_ticket_that_does_not_come_is_a_failed_try() -> None:
    async with rig(replace(SHORT, attempt=0.02)) as r:

        async def ticket(reason: TicketReason) -> tuple[str, str]:
            await asyncio.Event().wait()
            raise AssertionError

        r.ticket = ticket
        with pytest.raises(UTDTimeoutError):
            await r.driver.join()
        assert len(r.reasons) == 3


# ------------------------------------------------------------------------------------------------------ given-up tries


async def test_a_try_that_times_out_is_given_up_and_reaped_not_cancelled() -> None:
    async with rig(replace(SHORT, attempt=0.02)) as r:
        r.server.joining.clear()
        with pytest.raises(UTDTimeoutError):
            await r.driver.join()
        assert r.driver.state == "disconnected"
        assert r.driver.given_up == 3
        assert not r.here
        joins: list[object] = []

        def told(room: object, event: RoomEvent) -> tuple[RoomEvent, ...]:
            joins.append(room)
            return (event,)

        r.server.hook = told
        # They join after all: the shielded connect was never cancelled, and each is taken down.
        r.server.joining.set()
        await asyncio.wait_for(r.driver.reaped(), 20)
        assert r.driver.given_up == 0
        assert not r.here
        assert joins, "none of them joined: the test shows nothing"


async def test_given_up_tries_outlive_dispose() -> None:
    async with rig(replace(SHORT, attempt=20)) as r:
        r.server.joining.clear()
        joining = asyncio.create_task(r.driver.join())
        while not r.rooms:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await r.driver.dispose()
        with pytest.raises(UTDClosedError):
            await joining
        assert r.driver.given_up == 1
        r.server.joining.set()
        await asyncio.wait_for(r.driver.reaped(), 20)
        assert not r.here


async def _with_a_stray(r: Rig) -> Room:
    """Connected by the second try, while the first, given up, still hangs at the server's gate."""
    first_gate, r.server.joining = r.server.joining, asyncio.Event()
    joining = asyncio.create_task(r.driver.join())
    while r.driver.given_up == 0:
        await asyncio.sleep(0.001)
    stray = r.rooms[0]
    r.server.joining, held = first_gate, r.server.joining
    r.server.joining.set()
    await joining
    assert r.driver.state == "connected"
    assert r.driver.given_up == 1
    r.release = held.set  # type: ignore[attr-defined]
    return stray


async def test_our_own_given_up_try_is_not_another_sign_in() -> None:
    """It joins after all and throws our second try out as a duplicate: that is a drop, and we come back."""
    async with rig(replace(SHORT, attempt=0.05)) as r:
        await _with_a_stray(r)
        r.release()  # type: ignore[attr-defined]
        await r.passed("rejoining")
        await r.until("connected")
        assert "force_exit" not in r.path
        await asyncio.wait_for(r.driver.reaped(), 20)
        assert r.driver.state == "connected"
        assert r.here


async def test_news_of_the_duplicate_may_come_after_the_reaper_is_done() -> None:
    async with rig(replace(SHORT, attempt=0.05, echo=5.0)) as r:
        await _with_a_stray(r)
        held: list[tuple[object, RoomEvent]] = []

        def hold(room: object, event: RoomEvent) -> tuple[RoomEvent, ...]:
            if isinstance(event, Disconnected) and event.reason is LeaveReason.DUPLICATE_IDENTITY:
                held.append((room, event))
                return ()
            return (event,)

        r.server.hook = hold
        r.release()  # type: ignore[attr-defined]
        while not held:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # the reaper disconnects the stray meanwhile
        assert r.driver.state == "connected"
        # MemoryRoom posts nothing once it is over, so the late news is put in by hand.
        r.driver._heard(r.driver.epoch, held[0][1])
        await r.until("connected")
        assert "force_exit" not in r.path
        assert "rejoining" in r.path
        r.driver._timing = SHORT


async def test_without_a_given_up_try_a_duplicate_is_another_sign_in() -> None:
    async with rig() as r:
        await r.driver.join()
        other = r.server.room_factory(lambda event: None, RoomOptions())
        await other.connect(r.server.url, r.server.token(ME, ROOM))
        await r.until("force_exit")
        assert r.driver.removed_for is LeaveReason.DUPLICATE_IDENTITY
        assert r.reasons == ["join"], "two devices must not throw each other out for ever"
        await other.disconnect()


# ------------------------------------------------------------------------------------------------ leaving on the way


@pytest.mark.parametrize("how", ["leave", "dispose"])
async def test_leaving_while_a_try_hangs(how: str) -> None:
    async with rig() as r:
        r.server.joining.clear()
        joining = asyncio.create_task(r.driver.join())
        while not r.rooms:
            await asyncio.sleep(0)
        await getattr(r.driver, how)()
        with pytest.raises(UTDStateError if how == "leave" else UTDClosedError):
            await joining
        assert r.driver.state == ("disconnected" if how == "leave" else "closed")
        r.server.joining.set()
        await asyncio.wait_for(r.driver.reaped(), 20)
        assert not r.here


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_join_gives_up_wherever_it_is(turns: int) -> None:
    async with rig() as r:
        joining = asyncio.create_task(r.driver.join())
        for _ in range(turns):
            await asyncio.sleep(0)
        if joining.cancel():
            with pytest.raises(asyncio.CancelledError):
                await joining
            assert r.driver.state == "disconnected"
        else:
            await r.driver.leave()  # it was home by then
        await asyncio.wait_for(r.driver.reaped(), 20)
        await r.server.settled()
        assert not r.here
        await r.driver.join()
        assert r.here


async def test_leaving_between_two_tries() -> None:
    async with rig(replace(SHORT, pause=20)) as r:
        r.server.refuse_next(UTDConnectionError("no"))
        joining = asyncio.create_task(r.driver.join())
        while not r.steps or len(r.rooms) < 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        await r.driver.leave()
        with pytest.raises(UTDStateError):
            await joining
        assert len(r.rooms) == 1


# ------------------------------------------------------------------------------------------------- drops and returns


async def test_livekit_mends_the_link_by_itself() -> None:
    async with rig() as r:
        await r.driver.join()
        room = r.driver.room
        r.server.cut(ROOM, ME)
        await r.until("reconnecting")
        assert r.driver.public == "reconnecting"
        assert r.driver.room is room
        r.server.mend(ROOM, ME)
        await r.until("connected")
        assert r.driver.room is room
        assert r.driver.age is not None
        assert r.reasons == ["join"]


async def test_a_dead_room_is_joined_again_with_a_fresh_ticket() -> None:
    async with rig() as r:
        await r.driver.join()
        r.server.cut(ROOM, ME)
        await r.until("reconnecting")
        r.server.lose(ROOM, ME)
        await r.passed("rejoining")
        await r.until("connected")
        assert r.shown == ["connecting", "connected", "reconnecting", "reconnecting", "connected"]
        assert r.reasons == ["join", "rejoin"]
        assert len(r.rooms) == 2
        assert r.path == ["connecting", "connected", "reconnecting", "rejoining", "connected"]


async def test_rejoining_goes_on_until_it_succeeds() -> None:
    async with rig() as r:
        await r.driver.join()
        r.server.refuse_next(*(UTDConnectionError("away") for _ in range(5)))
        r.server.lose(ROOM, ME)
        await r.passed("rejoining")
        await r.until("connected")
        assert r.reasons == ["join", *["rejoin"] * 6]


async def test_the_grace_runs_from_the_drop_and_ends_in_force_exit() -> None:
    async with rig(replace(SHORT, grace=0.1)) as r:
        await r.driver.join()
        r.server.stop()
        await r.until("reconnecting")
        dropped_at = r.driver.dropped_at
        r.server.lose(ROOM, ME)
        await r.passed("rejoining")
        assert r.driver.dropped_at == dropped_at, "the grace must not begin anew when LiveKit gives up"
        await r.until("force_exit")
        assert r.steps[-1].event == "grace_over"
        assert r.driver.removed_for is None
        tries = len(r.reasons)
        r.server.start()
        await asyncio.sleep(0.05)
        assert len(r.reasons) == tries, "no try may follow a force_exit"
        await r.driver.join()
        assert r.driver.state == "connected"


async def test_the_grace_ends_livekits_own_trying_too() -> None:
    async with rig(replace(SHORT, grace=0.05)) as r:
        await r.driver.join()
        r.server.cut(ROOM, ME)
        await r.until("force_exit")
        assert r.path[-2:] == ["reconnecting", "force_exit"]


async def test_a_return_stops_the_grace() -> None:
    async with rig(replace(SHORT, grace=0.1)) as r:
        await r.driver.join()
        r.server.cut(ROOM, ME)
        await r.until("reconnecting")
        r.server.mend(ROOM, ME)
        await r.until("connected")
        await asyncio.sleep(0.15)
        assert r.driver.state == "connected"


@pytest.mark.parametrize("deed", ["remove", "delete_room"])
async def test_a_removal_is_final(deed: str) -> None:
    async with rig() as r:
        await r.driver.join()
        if deed == "remove":
            r.server.remove(ROOM, ME)
        else:
            r.server.delete_room(ROOM)
        await r.until("force_exit")
        assert r.reasons == ["join"]
        assert r.driver.removed_for in (LeaveReason.REMOVED, LeaveReason.ROOM_DELETED)


async def test_a_refusal_to_a_rejoin_is_a_removal() -> None:
    async with rig() as r:
        await r.driver.join()
        refused = UTDEngineError("no such call", 404)
        r.server.refuse_next(UTDConnectionError("not yet"), refused)
        r.server.lose(ROOM, ME)
        await r.until("force_exit")
        assert r.steps[-1].event == "saw_removed"
        assert r.driver.removed_for is refused


async def test_a_disconnect_that_was_asked_on_the_room_itself_is_leaving() -> None:
    async with rig() as r:
        await r.driver.join()
        await r.rooms[0].disconnect()
        await r.until("disconnected")
        assert r.steps[-1].event == "leave"
        assert r.reasons == ["join"]


async def test_what_an_older_room_says_never_comes_through() -> None:
    async with rig() as r:
        await r.driver.join()
        old = r.driver.epoch
        r.server.lose(ROOM, ME)
        await r.passed("rejoining")
        await r.until("connected")
        r.events.clear()
        before = list(r.steps)
        for event in (Disconnected(LeaveReason.REMOVED), DataReceived(b"x", "bob", None, True)):
            r.driver._heard(old, event)
        assert r.steps == before
        assert r.events == []


async def test_what_the_room_says_before_join_returns_is_not_lost() -> None:
    """Data, and even a removal, that arrives between the server's yes and our next turn."""
    async with rig() as r:

        def at_once(room: object, event: RoomEvent) -> tuple[RoomEvent, ...]:
            return (event,)

        r.server.hook = at_once
        bob = r.server.room_factory(lambda event: None, RoomOptions())
        await bob.connect(r.server.url, r.server.token("bob", ROOM))
        joining = asyncio.create_task(r.driver.join())
        while not r.here:
            await asyncio.sleep(0)
        r.server.send_data(ROOM, b"early")
        r.server.remove(ROOM, ME)
        await joining
        await r.until("force_exit")
        assert r.path == ["connecting", "connected", "force_exit"]
        assert DataReceived(b"early", None, None, True) in r.events
        await bob.disconnect()


# --------------------------------------------------------------------------------------- a look before a removal counts


async def test_the_owner_looks_before_a_removal_counts() -> None:
    looked: list[object] = []
    gate = asyncio.Event()

    async def look(why: object) -> None:
        looked.append(why)
        await gate.wait()

    async with rig(look=look) as r:
        await r.driver.join()
        r.server.delete_room(ROOM)
        while not looked:
            await asyncio.sleep(0.001)
        assert r.driver.state == "connected", "nothing is shown before the look is over"
        assert r.driver.room is None
        assert r.events[-1] == Disconnected(LeaveReason.ROOM_DELETED)
        gate.set()
        await r.until("force_exit")
        assert looked == [LeaveReason.ROOM_DELETED]


async def test_who_leaves_in_the_look_never_sees_a_force_exit() -> None:
    """The engine deletes the room of every finished call: the look finds it ended, and the call leaves."""

    async def look(why: object) -> None:
        r.driver.leave_now()

    async with rig(look=look) as r:
        await r.driver.join()
        r.server.delete_room(ROOM)
        await r.until("disconnected")
        await asyncio.sleep(0.02)
        assert r.path == ["connecting", "connected", "disconnected"]


async def test_a_look_that_hangs_or_fails_does_not_stop_a_removal() -> None:
    async def hang(why: object) -> None:
        await asyncio.Event().wait()

    async with rig(replace(SHORT, look=0.03), look=hang) as r:
        await r.driver.join()
        r.server.remove(ROOM, ME)
        await r.until("force_exit")

    async def fail(why: object) -> None:
        raise UTDConnectionError("engine away")

    async with rig(look=fail) as r:
        await r.driver.join()
        r.server.remove(ROOM, ME)
        await r.until("force_exit")


# ------------------------------------------------------------------------------------------------------- its owner


async def test_the_owner_may_leave_inside_each_step() -> None:
    for state in ("connecting", "connected", "reconnecting", "rejoining"):
        async with rig() as r:
            r.on_change = lambda step, state=state: r.driver.leave_now() if step.after == state else None  # type: ignore[misc]
            with contextlib.suppress(UTDStateError):
                await r.driver.join()
            if state in ("reconnecting", "rejoining"):
                r.server.cut(ROOM, ME)
                await asyncio.sleep(0.01)
                if state == "rejoining":
                    r.server.lose(ROOM, ME)
            await r.until("disconnected")
            await asyncio.wait_for(r.driver.reaped(), 20)
            await asyncio.sleep(0.03)
            assert r.driver.state == "disconnected", state
            assert r.driver.room is None, state


async def test_age_tells_how_long_it_was_away() -> None:
    async with rig() as r:
        await r.driver.join()
        r.server.cut(ROOM, ME)
        await r.until("reconnecting")
        await asyncio.sleep(0.1)
        r.server.mend(ROOM, ME)
        await r.until("connected")
        assert r.driver.age is not None
        assert r.driver.age >= 0.09
        assert r.driver.dropped_at is None
