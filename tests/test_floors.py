"""Imports go down the floors only, and importing the package loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import utd_fsm

PACKAGE = Path(utd_fsm.__file__).parent

FLOORS: dict[str, int] = {
    # 1: what the wire says, as values
    "errors": 1,
    "models": 1,
    "room_models": 1,
    "wire": 1,
    "room_wire": 1,
    "scrub": 1,
    "validation": 1,
    "device": 1,
    # 2: the machines and the fold
    "machines": 2,
    "observe": 2,
    # 3: threads and announcements
    "waiting": 3,
    "signal": 3,
    "dispatcher": 3,
    "observable": 3,
    "signals": 3,
    "workers": 3,
    "loop_thread": 3,
    "portal": 3,
    "streams": 3,
    # 4: the outside: engine, media room, sound and pictures
    "refusals": 4,
    "http_pool": 4,
    "credentials": 4,
    "engine_requests": 4,
    "engine_api": 4,
    "engine_rooms": 4,
    "engine_socket": 4,
    "call_feed": 4,
    "call_watch": 4,
    "incoming": 4,
    "webhooks": 4,
    "room": 4,
    "livekit_log": 4,
    "livekit_events": 4,
    "livekit_tracks": 4,
    "livekit_room": 4,
    "media": 4,
    # 5: sessions
    "sessions": 5,
    # 6: facades
    "facade": 6,
    "client": 6,
    "aio": 6,
    # 7: what stands on it
    "cli": 7,
    "testing": 7,
    "local": 7,
}
LAZY = frozenset({"__init__"})  # re-exports by name, at first use


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The top-level modules of the package that a file imports, with the line; also inside functions."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(inside[: len(inside) - node.level]) if node.level else ""
            whole = ".".join(part for part in (base, node.module or "") if part)
            names = [f"{whole}.{alias.name}" for alias in node.names] if whole == "utd_fsm" else [whole]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "utd_fsm" and len(parts) > 1:
                yield parts[1], node.lineno


FILES = sorted(path for path in PACKAGE.rglob("*.py") if module_of(path) not in LAZY)


def test_every_module_has_a_floor() -> None:
    assert {module_of(path) for path in FILES} - set(FLOORS) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = FLOORS[module_of(path)]
    upward = [
        f"line {line}: {name} (floor {FLOORS[name]}) from floor {here}"
        for name, line in imported(path)
        if FLOORS.get(name, 0) > here
    ]
    assert not upward


def test_the_local_engine_knows_no_client() -> None:
    """The engine is the other side of the wire: it may share the wire and the machines, never a session."""
    forbidden = {"sessions", "client", "aio", "facade", "engine_api"}
    for path in (PACKAGE / "local").rglob("*.py"):
        assert not forbidden & {name for name, _ in imported(path)}, path


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["livekit", "numpy", "requests", "statemachine", "websockets", "aiortc", "fastapi", "asyncio", "tenacity"]
    code = f"import sys, utd_fsm; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_importing_starts_nothing() -> None:
    code = (
        "import threading, utd_fsm, utd_fsm.client, utd_fsm.aio, utd_fsm.signals, utd_fsm.media\n"
        "print(threading.active_count())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "1"
