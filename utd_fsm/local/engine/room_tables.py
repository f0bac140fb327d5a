"""The part of the engine's memory that is about streams and audio rooms. No rule of the domain lives here.

A room's type and owner are columns, the rest of its record is one JSON text: it is read and written whole, in one
transaction. Who came in, who is in the media room, and bans have tables of their own, because they are asked for across
rooms, and because thousands who only listen must not be written anew with every change of a seat.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from utd_fsm.models import ReadOnlyDict
from utd_fsm.room_models import UTDBan

from .room_state import Person, RoomRecord, dump, load
from .tables import Tables, moment_of, text_of

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rooms (name TEXT PRIMARY KEY, type TEXT NOT NULL, owner TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rooms_of_owner ON rooms (owner);
CREATE TABLE IF NOT EXISTS room_states (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS room_people (
    room TEXT NOT NULL, identity TEXT NOT NULL, name TEXT, attributes TEXT NOT NULL, PRIMARY KEY (room, identity)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS room_people_by_identity ON room_people (identity);
CREATE TABLE IF NOT EXISTS occupants (
    room TEXT NOT NULL, identity TEXT NOT NULL, sid TEXT NOT NULL, joined_at REAL NOT NULL, dropped_at REAL,
    PRIMARY KEY (room, identity)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bans (
    id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL, name TEXT, attributes TEXT NOT NULL, room TEXT,
    reason TEXT, banned_at TEXT NOT NULL, expires_at TEXT
);
CREATE INDEX IF NOT EXISTS bans_of_identity ON bans (identity);
"""

_IN_FORCE: Final = "(expires_at IS NULL OR expires_at > ?)"


@dataclass(frozen=True, slots=True)
class Occupant:
    """One person's place in the media room of a stream or an audio room, as LiveKit last told."""

    room: str
    identity: str
    sid: str
    joined_at: float
    """Epoch seconds, LiveKit's clock."""
    dropped_at: float | None
    """Epoch seconds, ours; None while it is there."""


class RoomTables(Tables):
    """Rooms, who came in, who is there, who is banned."""

    # --- records

    def room(self, name: str) -> RoomRecord | None:
        """One room; a copy of one's own."""
        row = self._row(
            "SELECT rooms.name, type, owner, state FROM rooms LEFT JOIN room_states USING (name) WHERE name = ?", name
        )
        return None if row is None else load(*row)

    def save_room(self, room: RoomRecord) -> None:
        """Write one room, new or not."""
        self._db.execute("INSERT OR REPLACE INTO rooms VALUES (?, ?, ?)", (room.name, room.type, room.owner))
        self._db.execute("INSERT OR REPLACE INTO room_states VALUES (?, ?)", (room.name, dump(room)))

    def room_names(self) -> list[str]:
        """All rooms there ever were."""
        return [str(row[0]) for row in self._rows("SELECT name FROM rooms ORDER BY name")]

    def rooms_owned(self, identity: str) -> list[str]:
        """The names of somebody's own rooms."""
        return [str(row[0]) for row in self._rows("SELECT name FROM rooms WHERE owner = ? ORDER BY name", identity)]

    # --- who came in

    def person(self, room: str, identity: str) -> Person | None:
        """Somebody as it was introduced when it came in; None if it never did."""
        row = self._row("SELECT * FROM room_people WHERE room = ? AND identity = ?", room, identity)
        return None if row is None else Person(identity, row["name"], ReadOnlyDict(json.loads(row["attributes"])))

    def set_person(self, room: str, who: Person) -> None:
        """Write how somebody was introduced."""
        self._db.execute(
            "INSERT OR REPLACE INTO room_people VALUES (?, ?, ?, ?)",
            (room, who.identity, who.name, json.dumps(who.attributes)),
        )

    def rooms_entered(self, identity: str) -> list[str]:
        """The names of all rooms that somebody ever came into."""
        sql = "SELECT room FROM room_people JOIN rooms ON room = rooms.name WHERE identity = ? ORDER BY room"
        return [str(row[0]) for row in self._rows(sql, identity)]

    # --- who is in their media rooms

    def occupants(self, room: str) -> dict[str, Occupant]:
        """Who is in this media room, or dropped and may come back, by identity."""
        rows = self._rows("SELECT * FROM occupants WHERE room = ? ORDER BY joined_at, identity", room)
        return {row["identity"]: Occupant(*row) for row in rows}

    def occupied(self) -> list[str]:
        """The names of all rooms that somebody is in, or dropped from and may come back to."""
        return [str(row[0]) for row in self._rows("SELECT DISTINCT room FROM occupants")]

    def set_occupant(self, occupant: Occupant) -> None:
        """Write one person's place."""
        self._db.execute(
            "INSERT OR REPLACE INTO occupants VALUES (?, ?, ?, ?, ?)",
            (occupant.room, occupant.identity, occupant.sid, occupant.joined_at, occupant.dropped_at),
        )

    def drop_occupant(self, room: str, identity: str) -> None:
        """Somebody is gone for good."""
        self._db.execute("DELETE FROM occupants WHERE room = ? AND identity = ?", (room, identity))

    # --- bans

    @staticmethod
    def _ban(row: sqlite3.Row) -> UTDBan:
        return UTDBan(
            id=row["id"],
            identity=row["identity"],
            name=row["name"],
            attributes=ReadOnlyDict(json.loads(row["attributes"])),
            room_name=row["room"],
            reason=row["reason"],
            banned_at=moment_of(row["banned_at"]),
            expires_at=moment_of(row["expires_at"]),
        )

    def add_ban(
        self, who: Person, room: str | None, reason: str | None, banned_at: datetime, expires_at: datetime | None
    ) -> UTDBan:
        """A new ban, in the place of one for the same identity and room."""
        self._db.execute("DELETE FROM bans WHERE identity = ? AND room IS ?", (who.identity, room))
        cursor = self._db.execute(
            "INSERT INTO bans (identity, name, attributes, room, reason, banned_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (who.identity, who.name, json.dumps(who.attributes), room, reason, text_of(banned_at), text_of(expires_at)),
        )
        row = self._row("SELECT * FROM bans WHERE id = ?", cursor.lastrowid)
        assert row is not None
        return self._ban(row)

    def ban_in_force(self, identity: str, room: str | None, at: datetime) -> UTDBan | None:
        """The ban that keeps somebody out of this room (None: out of everywhere): the widest, if there are two."""
        sql = f"SELECT * FROM bans WHERE identity = ? AND (room IS NULL OR room = ?) AND {_IN_FORCE}"  # noqa: S608
        row = self._row(f"{sql} ORDER BY room IS NOT NULL, id LIMIT 1", identity, room, text_of(at))
        return None if row is None else self._ban(row)

    def lift_ban(self, identity: str, room: str | None, at: datetime) -> UTDBan | None:
        """Delete the ban for exactly this room, or for exactly everywhere; None where none was in force."""
        row = self._row(
            f"SELECT * FROM bans WHERE identity = ? AND room IS ? AND {_IN_FORCE}",  # noqa: S608
            identity, room, text_of(at),
        )  # fmt: skip
        if row is None:
            return None
        self._db.execute("DELETE FROM bans WHERE id = ?", (row["id"],))
        return self._ban(row)

    def ban_page(
        self, at: datetime, page: int, per_page: int, *, room: str | None = None, owner: str | None = None
    ) -> tuple[list[UTDBan], int]:
        """One page of the bans in force, newest first, and how many there are: all of them, those of one room, or those
        that hold everywhere with those in the rooms of one owner."""
        where, values = [_IN_FORCE], [text_of(at)]
        if room is not None:
            where.append("room = ?")
            values.append(room)
        elif owner is not None:
            where.append("(room IS NULL OR room IN (SELECT name FROM rooms WHERE owner = ?))")
            values.append(owner)
        clauses = " AND ".join(where)
        total = self._row(f"SELECT count(*) FROM bans WHERE {clauses}", *values)  # noqa: S608 - clauses are constants
        sql = f"SELECT * FROM bans WHERE {clauses} ORDER BY id DESC LIMIT ? OFFSET ?"  # noqa: S608
        bans: list[Any] = self._rows(sql, *values, per_page, (page - 1) * per_page)
        return [self._ban(row) for row in bans], int(total[0]) if total else 0
