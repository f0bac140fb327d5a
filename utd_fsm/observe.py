"""How what was heard becomes steps of a view: the versioned, idempotent fold, and the end of a request.

Pure: no I/O, no asyncio, no threads, no clock. Whatever channel something came by (a REST answer, a socket frame, room
metadata), it passes through `fold`, so that news may come late, twice or in any order and the view still ends where the
engine is. What a view is, always: the newest standing it knows, and at most one wish.

The laws (numbers as in the machines' design): 3 observations and versions, 4 the end of a request, 5 one wish at a time
and its order. The tests search them against a network that loses, repeats, delays and reorders without bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from utd_fsm.errors import UTDInputError, UTDProtocolError
from utd_fsm.models import UTDCallStatus

if TYPE_CHECKING:
    from utd_fsm.machines.base import Machine, Runner
    from utd_fsm.models import UTDCall

_OBSERVED: Final = "saw_"

Party = Literal["caller", "callee"]


class Contradiction(UTDProtocolError):
    """A snapshot claims to be news and cannot be. Nothing moved: take one look at the engine and fold that.

    Never reaches an application unless a second look contradicts as well.
    """


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a view needs to know of one state of its record."""

    version: int | None
    """Grows with every step of the record; None from an engine that sends none."""
    standing: str
    """What the view may call it after ``saw_``: a state of the record, or ``elsewhere``."""


def is_newer(view: Runner[Machine], snapshot: Snapshot, known: Snapshot | None) -> bool:
    """Whether `snapshot` is news to who knows `known`: by version, or where one of them has none by the standing's
    rank.

    Raises:
        UTDProtocolError: no version, and the machine's standings have no rank. Room metadata may then be folded in its
            order of arrival: number the arrivals, and use the numbers as versions.
    """
    if known is None:
        return True
    if snapshot.version is not None and known.version is not None:
        return snapshot.version > known.version
    rank = view.machine.RANK
    if not rank:
        name = view.machine.__name__
        raise UTDProtocolError(f"A snapshot for {name} came without a version and cannot be ordered.", field="version")
    return rank[snapshot.standing] > rank[known.standing]


def fold(view: Runner[Machine], known: Snapshot | None, snapshot: Snapshot) -> Snapshot | None:
    """Fold one snapshot into one view. Belongs to the thread that owns the view.

    What is not newer than what is known changes nothing, final states absorb, and so folding twice is folding once.

    Args:
        view: the view's machine; takes at most one step.
        known: what the last fold returned; None at first.
        snapshot: what was heard.

    Returns:
        What is known now: give it to the next fold.

    Raises:
        Contradiction: the snapshot claims to be news and cannot be. Nothing moved; look.
        UTDProtocolError: the standing is none this view knows, or there is no way to order it. Nothing moved.
    """
    if view.is_final:
        return known
    seen = _OBSERVED + snapshot.standing
    name = view.machine.__name__
    if not (view.can(seen) or (view.state, seen) in view.machine.STALE):
        raise UTDProtocolError(f"{name} knows no standing {snapshot.standing!r}.", field="status")
    if not is_newer(view, snapshot, known):
        return known
    if not view.can(seen):
        raise Contradiction(
            f"{name} is {view.state} (version {known.version if known else None}) and is told {snapshot.standing} "
            f"(version {snapshot.version}) as news; look at the engine again.",
            field="status",
        )
    view.send(seen)
    return snapshot


def request_over(view: Runner[Machine], known: Snapshot | None, heard: Snapshot | None) -> Snapshot | None:
    """The view's request is over: granted, refused or unknown. Whichever it was, this follows.

    The reason of a refusal goes into the caller's exception, not into the machine. A view that is still pending
    afterwards (``ending``) sends its request again. Read `public` only after it returns.

    Args: view: the view's machine; takes at most three steps. known: what the last fold returned. heard: the snapshot
    of the answer; after an unknown outcome, a 409 or a 404, the snapshot of a look *begun after* the request's end.
    May be older than what is known. None where there is none (the look found no record).

    Returns:
        What is known now.

    Raises:
        Contradiction: as `fold`; the request is then not over for the view: look, and call this again with that.
        UTDProtocolError: as `fold`.
    """
    if heard is not None:
        known = fold(view, known, heard)
    if view.is_pending:
        view.send("lapsed")
        if known is not None and not view.is_pending:
            view.send(_OBSERVED + known.standing)
    return known


def event_of(record: UTDCall, device_id: str, role: Party, *, won: bool = False) -> str:
    """Which observation a call's record is to one of its parties.

    To a device of the callee an active call is ``saw_active`` only if it is the one that answered, else
    ``saw_elsewhere``: without `answered_by` two devices could both believe that they won.

    Args:
        record: the engine's record.
        device_id: this client's device.
        role: which party this device is.
        won: this is the yes to our own accept. Counts only where the engine names no device in `answered_by`.
    """
    if role == "callee" and record.status is UTDCallStatus.ACTIVE:
        mine = won if record.answered_by is None else record.answered_by == device_id
        if not mine:
            return _OBSERVED + "elsewhere"
    return _OBSERVED + record.status.value


def snapshot_of(record: UTDCall, device_id: str, role: Party, *, won: bool = False) -> Snapshot:
    """A call's record as `fold` takes it. Arguments as in `event_of`."""
    return Snapshot(record.version, event_of(record, device_id, role, won=won).removeprefix(_OBSERVED))


class Order:
    """Numbers the requests of one machine: ``Idempotency-Key: <uuid of the machine>:<n>``, n growing from 1.

    The engine keeps the highest n of each uuid: it answers a repeat of it with the first answer, and refuses a lower
    one. A repeat therefore sends `last` again, a new wish (and a look, which so seals whatever was sent before it)
    sends `next()`. Moderation is not a wish about oneself and carries no order. Belongs to the thread that owns the
    machine.
    """

    __slots__ = ("_n", "name")

    name: str
    """What identifies the machine: a fresh uuid, or the application's own idempotency key."""

    def __init__(self, name: str | None = None) -> None:
        """
        Args:
            name: 1 to 200 visible ASCII characters; None makes a uuid.

        Raises:
            UTDInputError: the name cannot stand in a header.
        """
        name = str(uuid4()) if name is None else name
        if not (0 < len(name) <= 200 and name.isascii() and name.isprintable() and " " not in name):
            raise UTDInputError("An idempotency key is 1 to 200 visible ASCII characters; None has one made.")
        self.name = name
        self._n = 0

    def next(self) -> str:
        """The key of a new request: higher than all before it."""
        self._n += 1
        return f"{self.name}:{self._n}"

    @property
    def last(self) -> str | None:
        """The key of the newest request, to repeat it; None before the first."""
        return f"{self.name}:{self._n}" if self._n else None

    @staticmethod
    def parse(key: str) -> tuple[str, int]:
        """A key as the engine reads it: (name, n). A key without a number is a name with n = 0, never ordered.

        A number is at most 18 ASCII digits without a leading zero.
        """
        name, _, digits = key.rpartition(":")
        if name and re.fullmatch("[1-9][0-9]{0,17}", digits):
            return name, int(digits)
        return key, 0
