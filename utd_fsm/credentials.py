"""Who a session acts as: one signed-in identity with its bearer, shared by all sessions that were made with it.

The bearer is minted again when the engine refuses it, once however many threads found out. It shows nowhere: not in the
repr, not in an error, not in a pickle.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import UTDInputError, UTDTimeoutError
from .models import UTDSessionInfo

if TYPE_CHECKING:
    from .call_feed import CallFeed


class Credentials:
    """One signed-in identity. Made by `EngineApi.authenticate`; any thread may use it.

    Args:
        identity: who; checked.
        name: display name, or None.
        device_id: which device of that identity this is.
        info: the engine's answer.
        mint: asks the engine for a new answer, within a budget of seconds.
    """

    __slots__ = (
        "__weakref__",
        "_info",
        "_lock",
        "_mint",
        "device_id",
        "feed",
        "identity",
        "name",
    )

    identity: str
    name: str | None
    device_id: str
    feed: CallFeed | None
    """What is heard of this identity's calls; `call_feed.feed_of` keeps it here, one for all its sessions."""

    def __init__(
        self,
        identity: str,
        *,
        name: str | None,
        device_id: str,
        info: UTDSessionInfo,
        mint: Callable[[float | None], UTDSessionInfo],
    ) -> None:
        self.identity = identity
        self.name = name
        self.device_id = device_id
        self.feed = None
        self._info = info
        self._mint = mint
        self._lock = threading.Lock()
        _alive.add(self)

    @property
    def bearer(self) -> str:
        """The newest bearer. Not for logs."""
        return self._info.user_token

    @property
    def ws_url(self) -> str | None:
        """Where the engine's socket is; None where it offers none."""
        return self._info.ws_url

    @property
    def signaling_enabled(self) -> bool | None:
        """Whether the engine signals calls; None when it did not say."""
        return self._info.signaling_enabled

    @property
    def info(self) -> UTDSessionInfo:
        """The newest answer of ``POST /auth/session``."""
        return self._info

    def renew(self, refused: UTDSessionInfo, *, budget: float | None = None) -> None:
        """Mint the bearer again, unless another thread already replaced the one that was refused.

        Args:
            refused: the answer (`info`) whose bearer the engine refused.
            budget: seconds this may take, including the wait for a thread that is at it.

        Raises:
            UTDTimeoutError: another thread's attempt takes longer than `budget`.
            UTDStreamException: what the engine answered to the attempt.
        """
        if not self._lock.acquire(timeout=-1 if budget is None else max(budget, 0.0)):
            raise UTDTimeoutError("the bearer could not be renewed in time; nothing was sent with the old one")
        try:
            if self._info is refused:
                self._info = self._mint(budget)
        finally:
            self._lock.release()

    def __repr__(self) -> str:
        return f"Credentials(identity={self.identity!r}, device_id={self.device_id!r})"

    def __reduce__(self) -> NoReturn:
        raise UTDInputError("credentials hold a bearer and are not pickled; authenticate again in the other process")

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self.feed = None


_alive: weakref.WeakSet[Credentials] = weakref.WeakSet()


def _after_fork(*_: Any) -> None:
    for credentials in list(_alive):
        credentials._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
