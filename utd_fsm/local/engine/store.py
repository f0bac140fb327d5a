"""The engine's memory: SQLite, one connection, one thread. No rule of the domain lives here.

It runs on the event loop's own thread. A transaction is tens of microseconds, because a commit is a write without an
fsync (WAL, ``synchronous=NORMAL``), and one thread makes every verb one indivisible step without a lock. NORMAL is
enough for the promise that a killed process loses nothing: what was written lies with the operating system, and only
a machine that loses its power can lose the last commits, never the database's consistency.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from utd_fsm.models import ReadOnlyDict, UTDCall, UTDCallStatus, UTDStreamType

from .room_tables import SCHEMA as _ROOM_SCHEMA
from .room_tables import Occupant as Occupant
from .room_tables import RoomTables
from .tables import moment_of, text_of

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    call_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    caller_identity TEXT NOT NULL,
    caller_name TEXT,
    callee_identity TEXT NOT NULL,
    callee_name TEXT,
    metadata TEXT NOT NULL,
    initiated_at TEXT NOT NULL,
    ringing_at TEXT,
    answered_at TEXT,
    ended_at TEXT,
    end_reason TEXT,
    answered_by TEXT,
    version INTEGER NOT NULL,
    create_key TEXT,
    room_cleared INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS calls_of_caller ON calls (caller_identity, initiated_at);
CREATE INDEX IF NOT EXISTS calls_of_callee ON calls (callee_identity, initiated_at);
CREATE INDEX IF NOT EXISTS calls_open ON calls (status) WHERE status IN ('initiating', 'ringing', 'active');
CREATE INDEX IF NOT EXISTS calls_by_key ON calls (caller_identity, create_key) WHERE create_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS calls_to_clear ON calls (room_cleared) WHERE room_cleared = 0;
CREATE TABLE IF NOT EXISTS parties (
    call_id TEXT NOT NULL, identity TEXT NOT NULL, sid TEXT NOT NULL, joined_at REAL NOT NULL, dropped_at REAL,
    PRIMARY KEY (call_id, identity)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS request_keys (
    identity TEXT NOT NULL, uuid TEXT NOT NULL, n INTEGER NOT NULL, fingerprint TEXT, status INTEGER, answer TEXT,
    at REAL NOT NULL, PRIMARY KEY (identity, uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhooks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL,
    attempt INTEGER NOT NULL, due REAL NOT NULL
);
"""

OPEN: Final = tuple(status.value for status in UTDCallStatus if not status.is_terminal)
_OPEN_SQL: Final = ", ".join(f"'{status}'" for status in OPEN)


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one moment to the other, never negative; None where one is missing."""
    return None if start is None or end is None else max(0.0, round((end - start).total_seconds(), 3))


@dataclass(frozen=True, slots=True)
class Party:
    """One party's place in a call's room, as LiveKit last told."""

    call_id: str
    identity: str
    sid: str
    joined_at: float
    """Epoch seconds, LiveKit's clock."""
    dropped_at: float | None
    """Epoch seconds, ours; None while it is there."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook that is still to be delivered."""

    id: int
    event: str
    subject: str
    body: str
    attempt: int
    """The attempt that comes next, from 1."""
    due: float
    """Epoch seconds."""


class Store(RoomTables):
    """One database.

    Args:
        path: a file, made with mode 0600 (it holds answers with room tokens in them), or ``:memory:``.
    """

    def __init__(self, path: str) -> None:
        if path != ":memory:":
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA + _ROOM_SCHEMA)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the body, or nothing of it. Committed when it is left without an exception; they don't nest."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- meta

    def meta(self, name: str) -> str | None:
        """A value the engine keeps about itself."""
        row = self._row("SELECT value FROM meta WHERE name = ?", name)
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Keep a value."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # --- calls

    @staticmethod
    def _call(row: sqlite3.Row) -> UTDCall:
        ringing, answered, ended = (moment_of(row[k]) for k in ("ringing_at", "answered_at", "ended_at"))
        return UTDCall(
            call_id=row["call_id"],
            type=UTDStreamType(row["type"]),
            status=UTDCallStatus(row["status"]),
            caller_identity=row["caller_identity"],
            callee_identity=row["callee_identity"],
            caller_name=row["caller_name"],
            callee_name=row["callee_name"],
            metadata=ReadOnlyDict(json.loads(row["metadata"])),
            room_name=row["call_id"],
            initiated_at=moment_of(row["initiated_at"]),
            ringing_at=ringing,
            answered_at=answered,
            ended_at=ended,
            end_reason=row["end_reason"],
            duration=0.0 if ended and answered is None else seconds_between(answered, ended),
            ring_duration=seconds_between(ringing, answered or ended),
            answered_by=row["answered_by"],
            version=row["version"],
        )

    def call(self, call_id: str) -> UTDCall | None:
        """One call."""
        row = self._row("SELECT * FROM calls WHERE call_id = ?", call_id)
        return None if row is None else self._call(row)

    def call_by_key(self, caller: str, key: str) -> UTDCall | None:
        """The call that a create with this idempotency key made."""
        row = self._row("SELECT * FROM calls WHERE caller_identity = ? AND create_key = ?", caller, key)
        return None if row is None else self._call(row)

    def open_calls(self, identity: str | None = None) -> list[UTDCall]:
        """The calls that are not over, oldest first; of one identity, or of all."""
        sql = f"SELECT * FROM calls WHERE status IN ({_OPEN_SQL})"  # noqa: S608 - constants
        if identity is None:
            return [self._call(row) for row in self._rows(sql + " ORDER BY id")]
        sql += " AND (caller_identity = ? OR callee_identity = ?) ORDER BY id"
        return [self._call(row) for row in self._rows(sql, identity, identity)]

    def calls_to_clear(self) -> list[str]:
        """The ids of finished calls whose room is not known to be gone."""
        sql = f"SELECT call_id FROM calls WHERE room_cleared = 0 AND status NOT IN ({_OPEN_SQL})"  # noqa: S608
        return [str(row[0]) for row in self._rows(sql)]

    def set_cleared(self, call_id: str) -> None:
        """The room of a finished call is gone."""
        self._db.execute("UPDATE calls SET room_cleared = 1 WHERE call_id = ?", (call_id,))

    def page(
        self,
        *,
        identity: str | None,
        status: str | None,
        type: str | None,
        start: datetime | None,
        end: datetime | None,
        page: int,
        per_page: int,
    ) -> tuple[list[UTDCall], int]:
        """One page, newest first, and how many there are in all."""
        where: list[str] = []
        values: list[Any] = []
        for clause, value in (("status = ?", status), ("type = ?", type), ("initiated_at >= ?", text_of(start)),
                              ("initiated_at < ?", text_of(end))):  # fmt: skip
            if value is not None:
                where.append(clause)
                values.append(value)
        if identity is not None:
            where.append("(caller_identity = ? OR callee_identity = ?)")
            values += [identity, identity]
        clauses = f" WHERE {' AND '.join(where)}" if where else ""
        total = self._row(f"SELECT count(*) FROM calls{clauses}", *values)  # noqa: S608 - clauses are constants
        sql = f"SELECT * FROM calls{clauses} ORDER BY initiated_at DESC, id DESC LIMIT ? OFFSET ?"  # noqa: S608
        rows = self._rows(sql, *values, per_page, (page - 1) * per_page)
        return [self._call(row) for row in rows], int(total[0]) if total else 0

    def insert_call(self, call: UTDCall, create_key: str | None) -> None:
        """A new call."""
        self._db.execute(
            "INSERT INTO calls (call_id, type, status, caller_identity, caller_name, callee_identity, callee_name,"
            " metadata, initiated_at, version, create_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (call.call_id, call.type, call.status, call.caller_identity, call.caller_name, call.callee_identity,
             call.callee_name, json.dumps(call.metadata), text_of(call.initiated_at), call.version, create_key),
        )  # fmt: skip

    def save_step(self, call: UTDCall) -> UTDCall:
        """Write what a step can change; returns the record as it now reads."""
        self._db.execute(
            "UPDATE calls SET status = ?, ringing_at = ?, answered_at = ?, ended_at = ?, end_reason = ?,"
            " answered_by = ?, version = ? WHERE call_id = ?",
            (call.status, text_of(call.ringing_at), text_of(call.answered_at), text_of(call.ended_at), call.end_reason,
             call.answered_by, call.version, call.call_id),
        )  # fmt: skip
        saved = self.call(call.call_id)
        assert saved is not None
        return saved

    # --- parties

    def parties(self, call_id: str) -> dict[str, Party]:
        """Who has ever joined this call's room, by identity."""
        return {row["identity"]: Party(*row) for row in self._rows("SELECT * FROM parties WHERE call_id = ?", call_id)}

    def set_party(self, party: Party) -> None:
        """Write one party's place."""
        self._db.execute(
            "INSERT OR REPLACE INTO parties VALUES (?, ?, ?, ?, ?)",
            (party.call_id, party.identity, party.sid, party.joined_at, party.dropped_at),
        )

    # --- idempotency keys

    def key(self, identity: str, uuid: str) -> sqlite3.Row | None:
        """The highest request of one client machine: n, fingerprint, status, answer."""
        return self._row("SELECT * FROM request_keys WHERE identity = ? AND uuid = ?", identity, uuid)

    def set_key(
        self, identity: str, uuid: str, n: int, *, at: float, fingerprint: str | None, status: int | None,
        answer: str | None,
    ) -> None:  # fmt: skip
        """Remember the highest request; a look has neither fingerprint nor answer."""
        self._db.execute(
            "INSERT OR REPLACE INTO request_keys VALUES (?, ?, ?, ?, ?, ?, ?)",
            (identity, uuid, n, fingerprint, status, answer, at),
        )

    def forget_keys(self, before: float) -> None:
        """Drop keys that nobody can still repeat."""
        self._db.execute("DELETE FROM request_keys WHERE at < ?", (before,))

    # --- webhooks still to be delivered

    def add_hook(self, event: str, subject: str, body: str, due: float) -> None:
        """Queue one webhook; its first attempt is 1."""
        self._db.execute(
            "INSERT INTO webhooks (event, subject, body, attempt, due) VALUES (?, ?, ?, 1, ?)",
            (event, subject, body, due),
        )

    def hooks(self, after: int = 0) -> Iterable[Hook]:
        """The queued webhooks with a higher id than `after`, oldest first."""
        return [Hook(*row) for row in self._rows("SELECT * FROM webhooks WHERE id > ? ORDER BY id", after)]

    def postpone_hook(self, hook_id: int, attempt: int, due: float) -> None:
        """The next attempt comes later."""
        self._db.execute("UPDATE webhooks SET attempt = ?, due = ? WHERE id = ?", (attempt, due, hook_id))

    def drop_hook(self, hook_id: int) -> None:
        """Delivered, refused, or given up."""
        self._db.execute("DELETE FROM webhooks WHERE id = ?", (hook_id,))
