"""The order of a session's verbs: one at a time in each lane, in the order of the calls; ending ones overtake.

Loop thread only. Knows nothing of what the verbs do. Whoever starts something inside a verb calls the method itself,
not `Turns.run`: a verb that waited for its own lane would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from utd_fsm.errors import UTDClosedError, UTDStateError, UTDStreamException

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Turn:
    name: str
    go: asyncio.Future[None]
    task: asyncio.Task[Any] | None = None
    overtaken: UTDStreamException | None = None


class Turns:
    """The queues of one session."""

    def __init__(self) -> None:
        self._lanes: defaultdict[str, deque[_Turn]] = defaultdict(deque)
        self._overtakers = 0

    async def in_turn(
        self, lane: str, name: str, call: Callable[[], Awaitable[T]], *, lost: Callable[[T], None] | None = None
    ) -> T:
        """Run ``call()`` when all calls before it in this lane are over, and no overtaker is running.

        Cancelled, it leaves the queue, or cancels the call and waits until that has unwound.

        Args:
            lane: which queue.
            name: the call, for errors.
            call: what to do.
            lost: given the result when it came in the very moment in which whoever waits was cancelled.

        Raises:
            UTDStateError, UTDClosedError: it was overtaken. Otherwise what the call raises.
        """
        queue = self._lanes[lane]
        turn = _Turn(name, asyncio.get_running_loop().create_future())
        queue.append(turn)
        self._admit()
        try:
            await turn.go
            if turn.overtaken is not None:  # between its turn's coming and this step
                raise turn.overtaken
            turn.task = asyncio.create_task(cast("Coroutine[Any, Any, T]", call()), name=f"utd-fsm-{name}")
            return cast("T", await turn.task)
        except asyncio.CancelledError:
            task = turn.task
            if lost is not None and task is not None and task.done() and not task.cancelled() and not task.exception():
                lost(task.result())
            me = asyncio.current_task()
            if turn.overtaken is not None and (me is None or not me.cancelling()):
                raise turn.overtaken from None
            raise
        finally:
            queue.remove(turn)
            self._admit()

    async def at_once(self, name: str, call: Callable[[], Awaitable[T]], *, closes: bool = False) -> T:
        """Overtake: cancel what runs and what waits, and run ``call()`` now. Later calls wait until it is over.

        Args:
            name: the overtaker, for the errors of what it overtakes.
            call: what to do; several overtakers may run at the same time.
            closes: what is overtaken raises `UTDClosedError` instead of `UTDStateError`.
        """
        self._overtakers += 1
        try:
            self._cancel_all(name, closes)
            # What is cancelled hears of it first, and so unwinds before anything is taken down under it.
            await asyncio.sleep(0)
            return await call()
        finally:
            self._overtakers -= 1
            self._admit()

    def _cancel_all(self, by: str, closes: bool) -> None:
        for queue in self._lanes.values():
            for turn in queue:
                if turn.overtaken is not None:
                    continue
                text = f"{turn.name}() was overtaken by {by}()"
                turn.overtaken = UTDClosedError(text) if closes else UTDStateError(text, event=turn.name)
                if turn.task is not None:
                    turn.task.cancel()
                else:
                    turn.go.cancel()

    def _admit(self) -> None:
        if self._overtakers:
            return
        for queue in self._lanes.values():
            if queue and not queue[0].go.done():
                queue[0].go.set_result(None)
