"""What both facades stand on: how a caller's thread, or event loop, reaches a core object on the loop thread.

`client` (blocking) and `aio` (awaitable) are generated from the core classes by ``scripts/generate_facades.py``; the
few things that cannot be, since waiting *is* their meaning, are written here, once per flavour and side by side.
Nothing is decided in a facade.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, cast

from utd_fsm.errors import UTDClosedError, UTDStreamException
from utd_fsm.models import UTDCall, UTDRecording, UTDRoomEvent
from utd_fsm.observable import AsyncObservable, BaseObservable, Observable
from utd_fsm.portal import portal

if TYPE_CHECKING:
    from utd_fsm.media.playing import PlayingCore
    from utd_fsm.media.recording import RecorderCore
    from utd_fsm.streams import AsyncStream, Feed, Stream

log = logging.getLogger("utd_fsm.client")

T = TypeVar("T")
S = TypeVar("S", bound="AwaitableFacade")
P = ParamSpec("P")

GOODBYE = 5.0
"""Seconds that leaving a ``with`` may take."""


class Core(Protocol):
    """What a core object gives its facade."""

    pid: int
    public: object

    async def perform(self, method: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T: ...
    async def leave_with(self, failed: bool) -> None: ...
    def after_fork(self) -> None: ...
    def publish_as(self, public: object) -> None: ...
    def describe(self) -> str: ...
    def tell_call(self, error: UTDStreamException) -> None: ...
    def lost(self, name: str, result: Any) -> None: ...
    def release(self) -> None: ...


class Facade:
    """A public object: a thin shell around one core. Equal to itself only; any thread."""

    _core: Any

    @classmethod
    def _around(cls, core: Any) -> Self:
        """The facade of this core: always the same one."""
        known = core.public
        if isinstance(known, cls):
            return known
        made = cls.__new__(cls)
        made._core = core
        core.publish_as(made)
        return made

    def _check_process(self) -> None:
        if self._core.pid != os.getpid():
            self._core.after_fork()

    def _told(self, error: UTDStreamException) -> UTDStreamException:
        """Say in the error which call it was about, where that is known only now."""
        if error.call_id is None:
            self._core.tell_call(error)
        return error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._core.describe()}>"


# ------------------------------------------------------------------------------------------------------------ blocking


class BlockingFacade(Facade):
    """Posts to the loop thread and waits."""

    def _verb(self, method: Callable[P, Awaitable[T]], limit: float | None, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_process()
        core: Core = self._core
        what = method.__name__
        try:
            return portal().call(
                lambda: core.perform(method, *args, **kwargs),
                timeout=limit,
                what=what,
                lost=lambda result: core.lost(what, result),
            )
        except UTDClosedError:
            if what == "dispose":  # another thread's dispose was first, and took the loop along: it is done
                return cast("T", None)
            raise
        except UTDStreamException as error:
            raise self._told(error)  # noqa: B904 - the same error, told more
        finally:
            if what == "dispose":
                core.release()

    def _wait(self, method: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A wait keeps its own time: when that is over nothing has changed, and the outcome is known."""
        self._check_process()
        core: Core = self._core
        what = method.__name__
        return portal().call(
            lambda: method(*args, **kwargs), timeout=None, what=what, lost=lambda result: core.lost(what, result)
        )

    def _stream(self, method: Callable[P, Feed[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return self._made(method, *args, **kwargs).stream

    def _made(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a plain method on the loop thread."""
        self._check_process()

        async def make() -> T:
            return method(*args, **kwargs)

        return portal().call(make, timeout=30.0, what=method.__name__)

    def _observable(self, core: BaseObservable[T]) -> Observable[T]:
        return cast("Observable[T]", core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave. Errors on the way out are logged and never hide the body's."""
        if self._core.pid != os.getpid():
            return
        try:
            portal().call(
                lambda: self._core.leave_with(kind is not None), timeout=GOODBYE, what="leaving the with block"
            )
        except Exception as goodbye:  # noqa: BLE001 - whatever it is, the body's outcome counts
            log.warning("%r: leaving the with block: %s", self, goodbye)
        finally:
            self._core.release()


class RoomEvents:
    """LiveKit's own events of one session, under LiveKit's own names."""

    def __init__(self, owner: BlockingFacade, listen: Callable[..., Feed[UTDRoomEvent]]) -> None:
        self._owner = owner
        self._listen = listen

    def listen(self, timeout: float | None = None) -> Stream[UTDRoomEvent]:
        """Follow the events from now on, in order.

        Every listener has its own bounded queue and counts in ``dropped`` what it lost. A context manager; dropping it
        unsubscribes. Any thread that may block.

        Args:
            timeout: the longest gap in seconds, or None for no limit.

        Raises:
            UTDTimeoutError: while iterating, a gap was longer.
        """
        return self._owner._stream(self._listen, timeout=timeout)


class RecordingHandle:
    """A recording under way. The file is valid at any moment."""

    def __init__(self, owner: BlockingFacade, core: RecorderCore) -> None:
        self._owner = owner
        self._core = core

    def stop(self, timeout: float | None = 30.0) -> UTDRecording:
        """End it and return what was recorded. Idempotent: a second call returns the same.

        Args:
            timeout: seconds, or None for no limit.
        """
        return portal().call(self._core.stop, timeout=timeout, what="stop")

    def wait(self, timeout: float | None = None) -> UTDRecording:
        """Wait until it ends by itself (the call ended, the room was left).

        Args:
            timeout: seconds, or None for no limit; the recording goes on when it is over.
        """
        return portal().call(self._core.wait, timeout=timeout, what="wait")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class PlayingHandle:
    """Something being played."""

    def __init__(self, owner: BlockingFacade, core: PlayingCore) -> None:
        self._owner = owner
        self._core = core

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the last sample is out, or it was stopped.

        Args:
            timeout: seconds, or None for no limit; it plays on when that is over.
        """
        portal().call(self._core.wait, timeout=timeout, what="wait")

    def stop(self, timeout: float | None = 30.0) -> None:
        """Stop it. Idempotent."""
        portal().call(self._core.stop, timeout=timeout, what="stop")


class IncomingCalls:
    """The calls that ring for this identity, one after the other, each given to exactly one waiter.

    Iterating waits without limit and ends when the client is closed. Nothing listens before the first ``next()``.
    """

    def __init__(self, owner: BlockingFacade, wait_for_call: Callable[..., Awaitable[UTDCall | None]]) -> None:
        self._owner = owner
        self._wait_for_call = wait_for_call

    def __iter__(self) -> Iterator[UTDCall]:
        return self

    def __next__(self) -> UTDCall:
        try:
            call = self._owner._wait(self._wait_for_call, timeout=None)
        except UTDClosedError:
            call = None
        if call is None:
            raise StopIteration
        return call


# ------------------------------------------------------------------------------------------------------------ awaitable


class AwaitableFacade(Facade):
    """Posts to the loop thread and awaits, from whatever event loop its caller has."""

    async def _verb(
        self, method: Callable[P, Awaitable[T]], limit: float | None, /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._check_process()
        core: Core = self._core
        what = method.__name__
        try:
            return await portal().acall(
                lambda: core.perform(method, *args, **kwargs),
                timeout=limit,
                what=what,
                lost=lambda result: core.lost(what, result),
            )
        except UTDClosedError:
            if what == "dispose":  # another thread's dispose was first, and took the loop along: it is done
                return cast("T", None)
            raise
        except UTDStreamException as error:
            raise self._told(error)  # noqa: B904 - the same error, told more
        finally:
            if what == "dispose":
                core.release()

    async def _wait(self, method: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_process()
        core: Core = self._core
        what = method.__name__
        return await portal().acall(
            lambda: method(*args, **kwargs), timeout=None, what=what, lost=lambda result: core.lost(what, result)
        )

    def _stream(self, method: Callable[P, Feed[T]], /, *args: P.args, **kwargs: P.kwargs) -> LateStream[T]:
        self._check_process()

        async def make() -> AsyncStream[T]:
            return method(*args, **kwargs).async_stream

        return LateStream(make, method.__name__)

    async def _made(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_process()

        async def make() -> T:
            return method(*args, **kwargs)

        return await portal().acall(make, timeout=30.0, what=method.__name__)

    def _observable(self, core: BaseObservable[T]) -> AsyncObservable[T]:
        return cast("AsyncObservable[T]", core)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave. Errors on the way out are logged and never hide the body's."""
        if self._core.pid != os.getpid():
            return
        try:
            await portal().acall(
                lambda: self._core.leave_with(kind is not None), timeout=GOODBYE, what="leaving the async with block"
            )
        except Exception as goodbye:  # noqa: BLE001 - whatever it is, the body's outcome counts
            log.warning("%r: leaving the async with block: %s", self, goodbye)
        finally:
            self._core.release()


class Joining(Generic[S]):
    """A session being joined: ``await`` it, or enter it with ``async with``. Nothing is sent before that."""

    def __init__(self, joined: Coroutine[Any, Any, Any], around: Callable[[Any], S]) -> None:
        self._joined = joined
        self._around = around
        self._session: S | None = None

    def __await__(self) -> Generator[Any, None, S]:
        return self._get().__await__()

    async def _get(self) -> S:
        return self._around(await self._joined)

    async def __aenter__(self) -> S:
        self._session = await self._get()
        return await self._session.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.__aexit__(kind, error, trace)


class LateStream(Generic[T]):
    """An asynchronous stream that opens at its first use, since opening it has to reach the loop thread.

    ``async for`` and ``async with``; what opening refuses is raised there. `aclose` is idempotent.
    """

    def __init__(self, make: Callable[[], Awaitable[AsyncStream[T]]], what: str) -> None:
        self._make = make
        self._what = what
        self._opened: AsyncStream[T] | None = None
        self._closed = False

    async def _open(self) -> AsyncStream[T]:
        if self._opened is None:
            self._opened = await portal().acall(self._make, timeout=30.0, what=self._what)
        return self._opened

    @property
    def dropped(self) -> int:
        """Items lost so far because they were not read in time."""
        return self._opened.dropped if self._opened else 0

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        return await (await self._open()).__anext__()

    async def aclose(self) -> None:
        """End it."""
        self._closed = True
        if self._opened is not None:
            await self._opened.aclose()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class AsyncRoomEvents:
    """`RoomEvents`, asynchronous."""

    def __init__(self, owner: AwaitableFacade, listen: Callable[..., Feed[UTDRoomEvent]]) -> None:
        self._owner = owner
        self._listen = listen

    def listen(self, timeout: float | None = None) -> LateStream[UTDRoomEvent]:
        """Follow the events, from the first ``async for`` or ``async with`` on; see `RoomEvents.listen`."""
        return self._owner._stream(self._listen, timeout=timeout)


class AsyncRecordingHandle:
    """`RecordingHandle`, awaitable."""

    def __init__(self, owner: AwaitableFacade, core: RecorderCore) -> None:
        self._owner = owner
        self._core = core

    async def stop(self, timeout: float | None = 30.0) -> UTDRecording:
        """End it and return what was recorded. Idempotent."""
        return await portal().acall(self._core.stop, timeout=timeout, what="stop")

    async def wait(self, timeout: float | None = None) -> UTDRecording:
        """Wait until it ends by itself; the recording goes on when the timeout is over."""
        return await portal().acall(self._core.wait, timeout=timeout, what="wait")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


class AsyncPlayingHandle:
    """`PlayingHandle`, awaitable."""

    def __init__(self, owner: AwaitableFacade, core: PlayingCore) -> None:
        self._owner = owner
        self._core = core

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the last sample is out, or it was stopped."""
        await portal().acall(self._core.wait, timeout=timeout, what="wait")

    async def stop(self, timeout: float | None = 30.0) -> None:
        """Stop it. Idempotent."""
        await portal().acall(self._core.stop, timeout=timeout, what="stop")


class AsyncIncomingCalls:
    """`IncomingCalls`, asynchronous."""

    def __init__(self, owner: AwaitableFacade, wait_for_call: Callable[..., Awaitable[UTDCall | None]]) -> None:
        self._owner = owner
        self._wait_for_call = wait_for_call

    def __aiter__(self) -> AsyncIterator[UTDCall]:
        return self

    async def __anext__(self) -> UTDCall:
        try:
            call = await self._owner._wait(self._wait_for_call, timeout=None)
        except UTDClosedError:
            call = None
        if call is None:
            raise StopAsyncIteration
        return call
