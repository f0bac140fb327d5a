"""The call routes for one signed-in device, awaitable: each request runs in a REST thread, never on the loop thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from utd_fsm.models import UTDCall, UTDCallTicket, UTDStreamType

if TYPE_CHECKING:
    from utd_fsm.engine_api import Credentials, EngineApi
    from utd_fsm.portal import Portal

WISH: Final = 15.0
"""Seconds for a create or an accept with all its tries: so long a cancelled verb may still occupy a REST thread."""
REST: Final = 10.0
"""Seconds for anything else: what has to be told is told again by whoever tells it."""


class EngineCalls:
    """`call_driver.CallEngine` over `EngineApi`."""

    def __init__(self, portal: Portal, api: EngineApi, credentials: Credentials) -> None:
        self._portal = portal
        self._api = api
        self._credentials = credentials
        self.device_id = credentials.device_id

    async def create(
        self, callee: str, type: UTDStreamType, *, callee_name: str | None, metadata: Mapping[str, Any] | None, key: str
    ) -> UTDCallTicket:
        return await self._portal.in_thread(
            partial(
                self._api.create_call,
                self._credentials,
                callee,
                type,
                callee_name=callee_name,
                metadata=metadata,
                key=key,
                deadline=WISH,
            )
        )

    async def ring(self, call_id: str) -> UTDCall:
        return await self._portal.in_thread(partial(self._api.ring, self._credentials, call_id, deadline=REST))

    async def accept(self, call_id: str, *, key: str) -> UTDCallTicket:
        return await self._portal.in_thread(
            partial(self._api.accept, self._credentials, call_id, key=key, deadline=WISH)
        )

    async def reject(self, call_id: str, *, key: str) -> UTDCall:
        return await self._portal.in_thread(
            partial(self._api.reject, self._credentials, call_id, key=key, deadline=REST)
        )

    async def busy(self, call_id: str, *, key: str) -> UTDCall:
        request = partial(self._api.busy, self._credentials, call_id, key=key, deadline=REST)
        return await self._portal.in_thread(request)

    async def end(self, call_id: str, *, key: str) -> UTDCall:
        request = partial(self._api.end, self._credentials, call_id, key=key, deadline=REST)
        return await self._portal.in_thread(request)

    async def look(self, call_id: str, *, key: str | None = None) -> UTDCall:
        request = partial(self._api.call, self._credentials, call_id, key=key, deadline=REST)
        return await self._portal.in_thread(request)

    async def find(self, key: str) -> UTDCall | None:
        return await self._portal.in_thread(partial(self._api.call_by_key, self._credentials, key, deadline=REST))

    async def rejoin(self, call_id: str) -> UTDCallTicket:
        return await self._portal.in_thread(partial(self._api.rejoin, self._credentials, call_id, deadline=REST))
