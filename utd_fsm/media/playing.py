"""One sound that is played by a microphone: its handle, and how it ends. Loop thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from utd_fsm.errors import UTDInputError, UTDStreamException

if TYPE_CHECKING:
    from utd_fsm.media.pulling import Puller
    from utd_fsm.room import Samples


class PlayingCore:
    """A sound under way, from `Microphone.start_playing`."""

    def __init__(
        self, puller: Puller[Samples], *, over: bool, duck: float, on_stop: Callable[[PlayingCore], None]
    ) -> None:
        self.over = over
        """Whether it is mixed over the microphone's own source, or replaces it meanwhile."""
        self.duck = duck
        """What the source is multiplied with meanwhile."""
        self.tail = 0
        """Samples that must still be sent after its last one before that is out."""
        self._puller = puller
        self._on_stop = on_stop
        self._done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def puller(self) -> Puller[Samples]:
        """What is played."""
        return self._puller

    @property
    def done(self) -> bool:
        """Whether it is over, in whatever way."""
        return self._done.done()

    async def wait(self) -> bool:
        """Wait until its last sample is out. Cancelling the wait leaves the sound alone.

        Returns:
            True when it was played to its end, False when it was stopped.

        Raises:
            UTDInputError: its iterable raised (the cause), or gave something that is no sound.
            UTDClosedError: the microphone was closed before it was out.
        """
        return await asyncio.shield(self._done)

    async def stop(self) -> None:
        """End it now; what is already on its way (about 0.1 s) is still heard. Idempotent."""
        self.stop_now()

    def stop_now(self) -> None:
        """`stop`, without awaiting."""
        if not self._done.done():
            self._on_stop(self)
            self._end(result=False)

    def finish(self) -> None:
        """Its last sample is out."""
        error = self._puller.error
        if error is None:
            self._end(result=True)
            return
        failure = UTDInputError(f"the source that was played raised {type(error).__name__}: {error}")
        if isinstance(error, UTDStreamException):
            failure = UTDInputError(str(error))
        failure.__cause__ = error
        self.fail(failure)

    def fail(self, error: UTDStreamException) -> None:
        """It comes to no end of its own."""
        self._puller.close()
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # retrieved: perhaps nobody waits

    def _end(self, *, result: bool) -> None:
        self._puller.close()
        if not self._done.done():
            self._done.set_result(result)
