"""What every part of the engine's memory stands on: one connection, rows, moments as text. No table lives here."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any


def text_of(moment: datetime | None) -> str | None:
    """Sortable: always UTC, always six digits."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


def moment_of(text: str | None) -> datetime | None:
    """The inverse of `text_of`."""
    return None if text is None else datetime.fromisoformat(text)


class Tables:
    """Some tables of one database; `Store` opens it and begins and ends its transactions."""

    _db: sqlite3.Connection

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self._db.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
        return row
