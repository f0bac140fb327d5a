"""For tests of what is built on this package. Floor 7; each name loads its module at first use.

`local_engine`: a real engine with a real media server, for the length of a `with` (`utd_fsm.testing.engine`).
`Peer`: somebody to call, made by ``engine.peer(…)`` (`utd_fsm.testing.peer`).
`strict_signals` and `wait_for_signal`: signals in tests (`utd_fsm.testing.signals`).
`MemoryServer` and `MemoryRoom`: media rooms without a network (`utd_fsm.testing.memory_room`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from utd_fsm.testing.engine import LocalEngine as LocalEngine
    from utd_fsm.testing.engine import local_engine as local_engine
    from utd_fsm.testing.memory_room import MemoryRoom as MemoryRoom
    from utd_fsm.testing.memory_room import MemoryServer as MemoryServer
    from utd_fsm.testing.peer import Peer as Peer
    from utd_fsm.testing.signals import strict_signals as strict_signals
    from utd_fsm.testing.signals import wait_for_signal as wait_for_signal

# Where each public name lives. Nothing is imported before it is asked for: a test of one part must not load them all.
_HOMES = {
    "LocalEngine": "utd_fsm.testing.engine",
    "local_engine": "utd_fsm.testing.engine",
    "MemoryRoom": "utd_fsm.testing.memory_room",
    "MemoryServer": "utd_fsm.testing.memory_room",
    "Peer": "utd_fsm.testing.peer",
    "strict_signals": "utd_fsm.testing.signals",
    "wait_for_signal": "utd_fsm.testing.signals",
}

__all__ = ["LocalEngine", "MemoryRoom", "MemoryServer", "Peer", "local_engine", "strict_signals", "wait_for_signal"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
