"""What machine this is, told to the engine with sessions, calls and tokens. Collected once; never raises.

No host name and no serial number: only what names a kind of machine.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .wire import DEVICE_FACTS

_UNFIT = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff]+")
_MODEL_FILES = ("/sys/devices/virtual/dmi/id/product_name", "/proc/device-tree/model")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Kind of machine, operating system and SDK version, each capped to the engine's length."""

    model: str
    """At most 100 characters."""
    os: str
    """At most 50."""
    os_version: str
    """At most 20."""
    app_version: str
    """At most 20; the SDK's own version."""

    def fields(self) -> dict[str, str]:
        """The fields of ``POST /token``, without those that are unknown."""
        facts = {
            "device_model": self.model,
            "os": self.os,
            "os_version": self.os_version,
            "app_version": self.app_version,
        }
        return {name: value for name, value in facts.items() if value}


@cache
def device_facts() -> DeviceFacts:
    """The facts of this machine. Any thread; the first call reads two small files at most, the others nothing."""
    return DeviceFacts(
        model=_fit("device_model", _model),
        os=_fit("os", platform.system),
        os_version=_fit("os_version", _os_version),
        app_version=_fit("app_version", _app_version),
    )


def _fit(name: str, read: Callable[[], str]) -> str:
    try:
        return _UNFIT.sub(" ", str(read())).strip()[: DEVICE_FACTS[name]].strip()
    except Exception:  # noqa: BLE001 - a fact that cannot be read is left out; no call may fail for it
        return ""


def _model() -> str:
    for name in _MODEL_FILES:
        try:
            model = Path(name).read_bytes()[:200].decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            continue
        if model:
            return model
    return platform.machine()


def _os_version() -> str:
    return (platform.mac_ver()[0] if platform.system() == "Darwin" else "") or platform.release()


def _app_version() -> str:
    from utd_fsm import __version__

    return __version__
