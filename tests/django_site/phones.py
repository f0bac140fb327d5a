"""The clients of this process, one for each identity; a forked worker goes on with them on connections of its own."""

from __future__ import annotations

import threading

from django.conf import settings

from utd_fsm import UTDStreamClient, aio

_clients: dict[str, UTDStreamClient] = {}
_lock = threading.Lock()


def client_for(identity: str) -> UTDStreamClient:
    """The client that calls as this identity, signed in at its first use."""
    with _lock:
        client = _clients.get(identity)
        if client is None:
            client = UTDStreamClient(settings.UTD_APP_ID, settings.UTD_APP_KEY, base_url=settings.UTD_ENGINE)
            _clients[identity] = client
        if client.identity is None:
            client.authenticate(identity, timeout=10)
    return client


_awaitable: dict[str, aio.UTDStreamClient] = {}


async def client_to_await_for(identity: str) -> aio.UTDStreamClient:
    """The same for asynchronous code. One client serves every event loop of the process."""
    client = _awaitable.get(identity)
    if client is None:
        client = aio.UTDStreamClient(settings.UTD_APP_ID, settings.UTD_APP_KEY, base_url=settings.UTD_ENGINE)
        _awaitable[identity] = client
    if client.identity is None:
        await client.authenticate(identity, timeout=10)
    return client
