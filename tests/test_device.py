"""The facts of the device: within the engine's lengths, printable, and never an error."""

from __future__ import annotations

import platform

import pytest

from utd_fsm.device import device_facts
from utd_fsm.wire import DEVICE_FACTS


@pytest.fixture(autouse=True)
def _afresh() -> None:
    device_facts.cache_clear()


def test_facts_fit() -> None:
    fields = device_facts().fields()
    assert fields["os"] == platform.system()
    assert set(fields) <= set(DEVICE_FACTS)
    for name, value in fields.items():
        assert 0 < len(value) <= DEVICE_FACTS[name]
        assert value.isprintable()


def test_they_are_collected_once() -> None:
    assert device_facts() is device_facts()


def test_what_is_odd_is_cut_and_what_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError("no such fact")

    monkeypatch.setattr(platform, "system", lambda: "Odd\n\0OS" * 50)
    monkeypatch.setattr(platform, "release", fail)
    facts = device_facts()
    assert len(facts.os) <= 50
    assert facts.os.startswith("Odd OS")
    assert facts.os_version == ""
    assert "os_version" not in facts.fields()
    device_facts.cache_clear()


def test_they_hold_no_host_name() -> None:
    assert platform.node() not in device_facts().fields().values()
