"""Bans: who may keep whom out, of one room or of everything. The rules in one room are `moderation`'s.

The caller of everything here holds the store's transaction.
"""

from __future__ import annotations

from utd_fsm.room_models import UTDBan

from . import moderation
from .refusal import Refused
from .room_keeping import Changed, RoomKeeper, as_said
from .room_rights import NOT_MODERATOR, must_moderate
from .room_state import Person, RoomRecord


class RoomBans(RoomKeeper):
    """The bans of all rooms."""

    def ban(
        self, actor: str | None, identity: str, room_name: str | None, reason: str | None, duration: float | None
    ) -> tuple[list[Changed], UTDBan]:
        """Keep somebody out, from now on: of one room or, without a name, of everything.

        Args:
            actor: who does it; None is the application's backend, which may do all but ban a host from its own room.
            reason: for the one who is banned. duration: in seconds, above 0; None is for good.

        Returns: what it did in each room that the banned one ever came into (with `removed`), and the ban.
        """
        rooms = self._under_ban(actor, identity, room_name)
        until = moderation.expiry(self._now(), duration)
        known = (self._store.person(name, identity) for name in ([room_name] if room_name else rooms))
        who = next((person for person in known if person is not None), Person(identity))
        ban = self._store.add_ban(who, room_name, reason, self._now(), until)
        return [self._verb(name, None, lambda room: moderation.banned_from(room, ban), as_said) for name in rooms], ban

    def unban(self, actor: str | None, identity: str, room_name: str | None) -> UTDBan:
        """Lift the ban for exactly this room, or for exactly everywhere; returns what it was.

        Raises: Refused: 403; 404 ``not_found``, ``not_banned``.
        """
        self._must_rule(actor, room_name)
        ban = self._store.lift_ban(identity, room_name, self._now())
        if ban is None:
            where = "from that room" if room_name else "everywhere; name the room"
            raise Refused(404, f"is not banned {where}", "not_banned")
        return ban

    def bans(self, actor: str | None, room_name: str | None, page: int, per_page: int) -> tuple[list[UTDBan], int]:
        """One page (from 1) of the bans in force, newest first, and how many there are: of one room; without a name of
        everything, which for an owner is what holds everywhere or in its own rooms."""
        self._must_rule(actor, room_name)
        return self._store.ban_page(self._now(), page, per_page, room=room_name, owner=actor)

    def check_ban(self, identity: str, room: str | None) -> None:
        """Nothing, if `identity` may be in this room; with None, if it may be anywhere.

        Raises: Refused: 403 ``banned``, with the details reason, expires_at and room_name.
        """
        ban = self._store.ban_in_force(identity, room, self._now())
        if ban is not None:
            raise moderation.banned(ban)

    def _invitable(self, room: RoomRecord, actor: str, target: str) -> Person:
        """The target, unless it is banned; only a moderator learns whether it is."""
        must_moderate(room, actor)
        if self._store.ban_in_force(target, room.name, self._now()) is not None:
            raise Refused(403, "that person is banned; lift the ban first", moderation.TARGET_BANNED)
        return self._person(room, target)

    def _must_rule(self, actor: str | None, room_name: str | None) -> RoomRecord | None:
        """The room whose bans a moderator of it may change; without a name, whoever owns a room may."""
        if room_name is not None:
            room = self.get(room_name)
            if actor is not None:
                must_moderate(room, actor)
            return room
        if actor is not None and not self._store.rooms_owned(actor):
            raise Refused(403, "only a backend, or the host of a room, may do that everywhere", NOT_MODERATOR)
        return None

    def _under_ban(self, actor: str | None, identity: str, room_name: str | None) -> list[str]:
        """The rooms a ban would hold in now."""
        room = self._must_rule(actor, room_name)
        if room is not None:
            moderation.may_ban(room, identity)
            return [room.name]
        if actor is not None:
            for name in self._store.rooms_owned(identity):
                moderation.may_ban(self.get(name), identity)
        return self._store.rooms_entered(identity)
