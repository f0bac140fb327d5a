"""For tests of what is built on this package. Floor 7; each name loads its module at first use.

`local_engine`: a real engine with a real media server, for the length of a `with` (`utd_fsm.testing.engine`).
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

# Where each public name lives. Nothing is imported before it is asked for: a test of one part must not load them all.
_HOMES = {
    "LocalEngine": "utd_fsm.testing.engine",
    "local_engine": "utd_fsm.testing.engine",
    "MemoryRoom": "utd_fsm.testing.memory_room",
    "MemoryServer": "utd_fsm.testing.memory_room",
}

__all__ = ["LocalEngine", "MemoryRoom", "MemoryServer", "local_engine"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
