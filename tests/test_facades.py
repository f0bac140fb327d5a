"""The generated facades: as the core classes say, the same members in both, and ordinary methods for a reader."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from utd_fsm import aio, client

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("UTDStreamClient", "UTDCallSession", "UTDRoom")


def members(cls: type[Any]) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers_static(cls) if not name.startswith("_") and name != "mro"}


def test_nothing_has_drifted() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_facades.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_both_have_the_same_members(name: str) -> None:
    blocking, awaitable = members(getattr(client, name)), members(getattr(aio, name))
    assert blocking.keys() == awaitable.keys()
    for member, value in blocking.items():
        other = awaitable[member]
        assert isinstance(value, property) == isinstance(other, property), member
        if callable(value):
            ours, theirs = inspect.signature(value), inspect.signature(other)
            assert list(ours.parameters.values()) == list(theirs.parameters.values()), member


@pytest.mark.parametrize("module", [client, aio])
@pytest.mark.parametrize("name", NAMES)
def test_every_member_is_documented(module: Any, name: str) -> None:
    cls = getattr(module, name)
    assert inspect.getdoc(cls)
    for member, value in members(cls).items():
        assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", NAMES)
def test_verbs_and_waits_have_a_finite_default_timeout(name: str) -> None:
    """Blocking forever must be asked for. What plays, records or follows until something ends is the exception."""
    endless = {"play", "record", "updates"}
    for member, value in members(getattr(client, name)).items():
        if callable(value) and "timeout" in inspect.signature(value).parameters and member not in endless:
            default = inspect.signature(value).parameters["timeout"].default
            assert isinstance(default, float), member
            assert default > 0, member
