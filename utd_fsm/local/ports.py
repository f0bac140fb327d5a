"""Free ports of this machine that stay free while a server restarts.

They lie below the range the operating system hands out for outgoing connections, so that none of those takes a port in
the moment its server is down. No port is given out twice by one process.
"""

from __future__ import annotations

import random
import socket
import threading
from typing import Final

from utd_fsm.errors import UTDConnectionError

_LOW: Final = 20_000
_HIGH: Final = 32_000
_given: set[int] = set()
_lock = threading.Lock()


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens, neither TCP nor UDP. Any thread.

    Raises: UTDConnectionError: a hundred tries found none.
    """
    with _lock:
        for _ in range(100):
            port = random.randrange(_LOW, _HIGH)  # noqa: S311 - any will do
            if port not in _given and _is_free(host, port):
                _given.add(port)
                return port
    raise UTDConnectionError(f"no free port on {host} between {_LOW} and {_HIGH}")


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
