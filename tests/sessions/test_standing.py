"""One's own standing: what is heard is folded, a wish is seen to its end, whichever way that comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from utd_fsm.errors import (
    UTDConflictError,
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
)
from utd_fsm.machines import StageMember
from utd_fsm.machines.base import Step
from utd_fsm.observe import Snapshot
from utd_fsm.sessions.standing import LONGEST_PAUSE, Standing

from .scripted import turns
from .test_call_walk import VirtualLoop

LOST = UTDConnectionError("the answer was lost", outcome_known=False)


class Desk:
    """An engine's record of one viewer, and whoever asks it; what it answers is the test's to say."""

    def __init__(self) -> None:
        self.version = 1
        self.standing = "audience"
        self.steps: list[Step] = []
        self.keys: list[str] = []
        self.looks = 0
        self.look_fails: list[UTDStreamException] = []
        self.view = Standing(StageMember, look=self.look, on_step=self.steps.append)

    @property
    def now(self) -> Snapshot:
        return Snapshot(self.version, self.standing)

    @property
    def path(self) -> list[str]:
        return [step.after for step in self.steps]

    def become(self, standing: str, *, tell: bool = False) -> Snapshot:
        self.version, self.standing = self.version + 1, standing
        if tell:
            self.view.observe(self.now)
        return self.now

    async def look(self, key: str) -> Snapshot:
        self.looks += 1
        self.keys.append(key)
        await asyncio.sleep(0)
        if self.look_fails:
            raise self.look_fails.pop(0)
        return self.now

    def sends(
        self, standing: str | None = None, *, answer: bool | None = True, error: BaseException | None = None
    ) -> Callable[[str], Awaitable[Snapshot | None]]:
        """A request: what it makes of the record, and how it comes home."""

        async def send(key: str) -> Snapshot | None:
            self.keys.append(key)
            await asyncio.sleep(0)
            if standing is not None:
                self.become(standing)
            if error is not None:
                raise error
            return self.now if answer else None

        return send


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


def run(loop: VirtualLoop, test: Callable[[Desk], Awaitable[Any]]) -> None:
    async def whole() -> None:
        desk = Desk()
        await test(desk)
        numbers = [int(key.rpartition(":")[2]) for key in desk.keys]
        assert numbers == sorted(set(numbers)), "each request and each look has a higher number than all before it"
        desk.view.close()

    loop.run_until_complete(whole())


def test_a_yes(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        await desk.view.wish("raise_hand", desk.sends("hand_up"))
        assert desk.path == ["asking", "hand_up"]
        assert desk.looks == 0

    run(loop, test)


def test_a_short_yes_is_a_look(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        await desk.view.wish("raise_hand", desk.sends("hand_up", answer=False))
        assert (desk.view.state, desk.looks) == ("hand_up", 1)

    run(loop, test)


def test_a_yes_that_leaves_the_record_where_it_was_falls_back(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:  # an engine that keeps no hands
        await desk.view.wish("raise_hand", desk.sends())
        assert desk.path == ["asking", "audience"]

    run(loop, test)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("error", [LOST, UTDTimeoutError("late", outcome_known=False)])
def test_unknown_is_looked_at_and_the_caller_told(loop: VirtualLoop, applied: bool, error: UTDStreamException) -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(type(error)):
            await desk.view.wish("raise_hand", desk.sends("hand_up" if applied else None, error=error))
        assert desk.view.state == ("hand_up" if applied else "audience")
        assert desk.looks == 1

    run(loop, test)


@pytest.mark.parametrize("error", [UTDConflictError("no"), UTDForbiddenError("no", 403), UTDEngineError("no", 500)])
def test_a_no_is_looked_at_too(loop: VirtualLoop, error: UTDStreamException) -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(type(error)):
            await desk.view.wish("raise_hand", desk.sends("on_stage", error=error))
        assert desk.path == ["asking", "on_stage"], "somebody was faster"

    run(loop, test)


def test_what_never_left_needs_no_look(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        desk.become("on_stage", tell=True)
        with pytest.raises(UTDConnectionError):
            await desk.view.wish("step_down", desk.sends(error=UTDConnectionError("no route", outcome_known=True)))
        assert desk.path == ["on_stage", "stepping_down", "on_stage"], "audience is never shown in between"
        assert desk.looks == 0

    run(loop, test)


def test_an_engine_out_of_reach_is_asked_until_it_answers_and_the_next_wish_waits(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        desk.look_fails = [LOST] * 8
        with pytest.raises(UTDConnectionError):
            await desk.view.wish("raise_hand", desk.sends("hand_up", error=LOST))
        assert desk.view.state == "asking"
        with pytest.raises(UTDStateError):
            desk.view.view.send("raise_hand")
        begun = loop.time()
        await desk.view.wish("lower_hand", desk.sends("audience"))
        assert desk.path == ["asking", "hand_up", "lowering", "audience"]
        assert 5 < loop.time() - begun <= 8 * LONGEST_PAUSE
        assert desk.looks == 9

    run(loop, test)


def test_a_busy_engine_is_left_in_peace_for_as_long_as_it_says(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        desk.look_fails = [LOST, UTDEngineError("slower", 429, retry_after=30.0)]
        with pytest.raises(UTDConnectionError):
            await desk.view.wish("raise_hand", desk.sends("hand_up", error=LOST))
        await desk.view.settled()
        assert desk.view.state == "hand_up"
        assert loop.time() >= 30

    run(loop, test)


@pytest.mark.parametrize("status", [403, 404])
def test_where_there_is_no_standing_any_more_it_falls_back(loop: VirtualLoop, status: int) -> None:
    async def test(desk: Desk) -> None:
        gone = UTDForbiddenError("banned", 403) if status == 403 else UTDEngineError("gone", 404)
        desk.look_fails = [gone, gone]
        with pytest.raises(UTDConnectionError):
            await desk.view.wish("raise_hand", desk.sends(error=LOST))
        await desk.view.settled()
        assert desk.view.state == "audience"

    run(loop, test)


def test_interrupted_it_is_settled_in_the_background(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def send(key: str) -> Snapshot | None:
            desk.keys.append(key)
            desk.become("hand_up")
            await never
            return None

        wishing = asyncio.ensure_future(desk.view.wish("raise_hand", send))
        await turns(3)
        wishing.cancel()
        await asyncio.gather(wishing, return_exceptions=True)
        await desk.view.settled()
        assert desk.path == ["asking", "hand_up"]

    run(loop, test)


def test_old_news_changes_nothing(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        old = desk.become("hand_up", tell=True)
        desk.become("on_stage", tell=True)
        for _ in range(3):
            desk.view.observe(old)
            desk.view.observe(desk.now)
        assert desk.path == ["hand_up", "on_stage"]

    run(loop, test)


@pytest.mark.parametrize("heard", ["before", "during", "after"])
def test_answer_and_metadata_come_in_any_order(loop: VirtualLoop, heard: str) -> None:
    async def test(desk: Desk) -> None:
        if heard == "before":
            desk.become("hand_up", tell=True)
            desk.become("audience", tell=True)

        async def send(key: str) -> Snapshot | None:
            desk.keys.append(key)
            answer = desk.become("hand_up")
            if heard == "during":
                desk.become("on_stage", tell=True)
            return answer

        await desk.view.wish("raise_hand", send)
        if heard == "after":
            desk.become("on_stage", tell=True)
        assert desk.view.state == desk.standing

    run(loop, test)


def test_news_that_overtakes_a_lost_wish_is_where_it_falls_back_to(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        desk.become("hand_up", tell=True)

        async def send(key: str) -> Snapshot | None:
            desk.keys.append(key)
            desk.become("on_stage", tell=True)  # taken on stage while the hand was being lowered
            raise UTDConflictError("is on stage: leave it instead")

        with pytest.raises(UTDConflictError):
            await desk.view.wish("lower_hand", send)
        assert desk.path == ["hand_up", "lowering", "on_stage"]

    run(loop, test)


def test_a_wish_that_is_not_declared_sends_nothing(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(UTDStateError):
            await desk.view.wish("step_down", desk.sends("audience"))
        assert (desk.keys, desk.path) == ([], [])

    run(loop, test)


def test_a_seal_is_a_look_with_a_number(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        given_up = desk.view.order.next()
        desk.keys.append(given_up)
        desk.view.seal()
        desk.view.seal()
        await desk.view.settled()
        assert desk.looks == 1
        assert desk.path == []

    run(loop, test)


def test_who_waits_when_the_room_is_left_is_told_so(loop: VirtualLoop) -> None:
    async def test(desk: Desk) -> None:
        desk.look_fails = [LOST] * 100
        with pytest.raises(UTDConnectionError):
            await desk.view.wish("raise_hand", desk.sends(error=LOST))
        waiting = asyncio.ensure_future(desk.view.wish("raise_hand", desk.sends("hand_up")))
        await turns(3)
        desk.view.close()
        desk.view.close()
        with pytest.raises(UTDStateError, match="left"):
            await waiting
        looks = desk.looks
        await asyncio.sleep(100)
        assert desk.looks == looks, "nothing is settled any more"

    run(loop, test)
