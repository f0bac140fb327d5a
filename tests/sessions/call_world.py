"""A world for the tests of call sessions: one engine in memory, a caller, two devices of a callee."""

from __future__ import annotations

import asyncio
from typing import Any

from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType
from utd_fsm.sessions.call import CallSession
from utd_fsm.sessions.call_driver import CallTiming

from .conftest import SHORT
from .memory_engine import Device, MemoryEngine
from .scripted import LoopPortal

PATIENCE = 20.0
QUICK = CallTiming(out_of_reach=0.3, retry_first=0.01, retry_most=0.05)
ACTIVE, ENDED = UTDCallStatus.ACTIVE, UTDCallStatus.ENDED


class World:
    """One engine, a caller, and two devices of a callee."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.sessions: list[CallSession] = []
        self.alice = self.engine.device("alice", "a1")
        self.bob = self.engine.device("bob", "b1")
        self.bob2 = self.engine.device("bob", "b2")

    def session(self, device: Device, kind: UTDStreamType = UTDStreamType.AUDIO_CALL) -> CallSession:
        made = CallSession(
            kind,
            engine=device,
            watch=device.watch,
            call_timing=QUICK,
            identity=device.identity,
            room_factory=self.engine.media.room_factory,
            timing=SHORT,
            portal_=LoopPortal(),
        )
        self.sessions.append(made)
        return made

    async def ringing(self) -> tuple[CallSession, CallSession, str]:
        """A call that rings: caller, callee, id."""
        caller, callee = self.session(self.alice), self.session(self.bob)
        call = await do(caller.start, "bob")
        await do(callee.ringing, call.call_id)
        return caller, callee, call.call_id

    async def talking(self) -> tuple[CallSession, CallSession, str]:
        """A call that was answered."""
        caller, callee, call_id = await self.ringing()
        await do(callee.accept, call_id)
        await until(caller, ACTIVE)
        return caller, callee, call_id

    async def close(self) -> None:
        for session in self.sessions:
            await do(session.dispose)
        self.engine.close()


async def do(method: Any, *args: Any, **kwargs: Any) -> Any:
    """A verb, in its turn, as a facade calls it."""
    async with asyncio.timeout(PATIENCE):
        return await method.__self__.perform(method, *args, **kwargs)


def begin(method: Any, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """A verb that goes on while the test does something else."""
    return asyncio.create_task(do(method, *args, **kwargs))


async def until(session: CallSession, status: UTDCallStatus) -> None:
    async with asyncio.timeout(PATIENCE):
        while session.status.value is not status:
            await asyncio.sleep(0.001)


async def over(session: CallSession) -> UTDCall:
    async with asyncio.timeout(PATIENCE):
        return await session.wait_until_ended()


def in_room(world: World, call_id: str) -> set[str]:
    room = world.engine.media.rooms.get(call_id)
    return set(room.seats) if room else set()
