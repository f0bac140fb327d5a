"""Deadlines and timeouts."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from utd_fsm.errors import UTDInputError, UTDTimeoutError
from utd_fsm.waiting import Deadline, check_timeout


@pytest.mark.parametrize("timeout", [math.nan, -1, -math.inf, "5", True, False, [], object()])
def test_what_is_no_number_of_seconds_is_refused_by_name(timeout: Any) -> None:
    with pytest.raises(UTDInputError, match=r"gap: .*0 or more, or None"):
        check_timeout(timeout, "gap")
    with pytest.raises(UTDInputError):
        Deadline(timeout)


@pytest.mark.parametrize(("timeout", "expected"), [(None, None), (math.inf, None), (1e300, None), (0, 0.0), (2.5, 2.5)])
def test_seconds_and_no_limit(timeout: float | None, expected: float | None) -> None:
    assert check_timeout(timeout) == expected


def test_a_deadline_without_a_limit_is_never_over() -> None:
    deadline = Deadline(None)
    assert deadline.left() is None
    assert not deadline.over
    deadline.check("dialling")


def test_a_deadline_counts_down_to_zero_and_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    deadline = Deadline(2)
    assert deadline.left() == 2.0
    now = 101.5
    assert deadline.left() == 0.5
    assert not deadline.over
    deadline.check("dialling")
    now = 103.0
    assert deadline.left() == 0.0
    assert deadline.over
    with pytest.raises(UTDTimeoutError, match=r"^dialling took longer than 2 s$") as info:
        deadline.check("dialling", outcome_known=False)
    assert info.value.outcome_known is False
