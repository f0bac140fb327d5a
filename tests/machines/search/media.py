"""The media product: one session's connection, one of its sources, LiveKit, the engine's entitlement, the user.

The session's driver (what a step asks for, what is told to the machines and when) is modelled here as the machines'
rules demand it; `utd_fsm.sessions` has to do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from tests.machines.search.model import PENDING, SYSTEM, Edge, Model, Move, Violation

LATE_PUBLISH = "a late publish is not taken down"
MISSING_IS_REVOKED = "a grant missing after a reconnect counts as revoked"
OWN_TRY = "our own given-up try is taken for another sign-in"

MAX_CALLS = 3
"""Bounds the calls that pile up on one Room: LiveKit does not begin to reconnect while so many are under way."""


class World(NamedTuple):
    """`conn` and `src` are the machines. The rest are facts, of which the machines know only what is told to them."""

    conn: str = "disconnected"
    src: str = "off"
    room: str | None = None
    """None, out (a try under way), pause (between tries), in, blip (LiveKit tries by itself)."""
    was: bool = False
    """Was in since connect."""
    why: str = "asked"
    """How the session last got out: asked, sent, disposed."""
    stray: str | None = None
    """A try that was given up: None, out, in (it joined after all)."""
    holder: str | None = None
    """Who has our identity at the server: None, cur, stray."""
    perm: bool = False
    """The server's permission."""
    known: bool = False
    """What the Room says of it."""
    entitled: bool = False
    """What the engine's record says (seat, stage, call)."""
    pub: str | None = None
    """What the Room publishes: None, hot, muted."""
    ops: tuple[str, ...] = ()
    """Calls under way on the Room, one at a time: P publish, p publish that was overtaken (another epoch), U unpublish
    and tell, u unpublish quietly."""
    due: bool = False
    """Was on when the connection broke."""
    wish: str | None = None
    """on, mute, None: what the user wants, as far as nobody took it away."""


class Media(Model[World]):
    """Publish x connection x grant x given-up tries."""

    def __init__(
        self, *, mistake: str | None = None, cut: Collection[Edge] = (), turn: Mapping[Edge, str] | None = None
    ) -> None:
        super().__init__(mistake=mistake, cut=cut, turn=turn)
        self.initial = World()

    # ---------------------------------------------------------------------------------- the driver of the two machines

    def connection(self, s: World, event: str, **facts: Any) -> World:
        """Step the connection."""
        return s._replace(conn=self.step("Connection", s.conn, event), **facts)

    def source(self, s: World, event: str, **facts: Any) -> World:
        """Step the source, then do what the step asks for."""
        old, new = s.src, self.step("Source", s.src, event)
        s = s._replace(**facts) if facts else s
        if new == old:
            return s
        ops, pub = s.ops, s.pub
        if old == "publishing" and event != "published":
            ops = tuple("p" if op == "P" else op for op in ops)
        if new == "publishing":
            if not (s.room == "in" and s.known):
                raise Violation("publishes without connection or grant")
            ops += ("P",)
        elif new == "stopping":
            if not (pub or {"P", "p"} & set(ops)):
                raise Violation("stops what is not there")
            ops += ("U",)
        elif new == "waiting" and old == "on" and pub:
            ops += ("u",)
        elif new == "muted" and pub:
            pub = "muted"
        elif (old, new) == ("muted", "on"):
            pub = "hot"
        return s._replace(src=new, ops=ops, pub=pub, due=s.due and new != "on")

    def way(self, s: World, *, back: bool = False) -> World:
        """Tell the source what the way looks like now. `back`: the first reading after a reconnect or rejoin."""
        if s.room != "in":
            return s
        if s.known:
            s = self.source(s, "saw_clear")
            return s._replace(due=False) if s.src == "on" else s
        if back and not (self.mistake == MISSING_IS_REVOKED and s.src != "waiting"):
            return self.source(s, "saw_blocked", wish=None if s.wish == "mute" else s.wish)
        return self.source(s, "saw_revoked", wish=None)

    def room_gone(self, s: World) -> World:
        """The Room object is dead: its calls come home at once, its publication with them."""
        stopping = "U" in s.ops
        holder = None if s.holder == "cur" else s.holder
        s = s._replace(ops=(), pub=None, known=False, holder=holder, perm=False)
        return self.source(s, "unpublished") if stopping else s

    def out(self, s: World, event: str, why: str) -> World:
        """The session leaves the room for good."""
        s = self.connection(s, event, room=None, was=False, why=why)
        return self.room_gone(self.source(s, "stop", due=False, wish=None))

    def dropped(self, s: World) -> World:
        """The Room died, and nobody sent us away."""
        s = self.connection(s, "saw_dropped", due=s.due or s.src == "on", room="out")
        return self.room_gone(self.source(s, "saw_blocked", wish=None if s.wish == "mute" else s.wish))

    def joined(self, s: World, perm: bool) -> World:
        """In the room, or in it again."""
        stray = None if s.stray == "in" else s.stray
        s = self.connection(s, "saw_joined", room="in", was=True, holder="cur", perm=perm, known=perm, stray=stray)
        return self.way(s, back=True)

    # ---------------------------------------------------------------------------------------------------------- moves

    def move(self, kind: str, label: str, then: Callable[[], World]) -> Move[World]:
        """One move, named before it is made."""
        self.doing = label
        return kind, label, then()

    def moves(self, s: World) -> Iterator[Move[World]]:
        yield from self._application_moves(s)
        yield from self._try_moves(s)
        yield from self._stray_moves(s)
        yield from self._link_moves(s)
        yield from self._grant_moves(s)
        yield from self._call_moves(s)

    def _application_moves(self, s: World) -> Iterator[Move[World]]:
        if self.can("Connection", s.conn, "connect"):
            yield self.move(
                "user", "application: connect", lambda: self.connection(s, "connect", room="out", was=False)
            )
        if s.why != "disposed":
            yield self.move("user", "application: leave", lambda: self.out(s, "leave", "asked"))
            yield self.move("user", "application: dispose", lambda: self.out(s, "dispose", "disposed"))
        if not s.was:
            return
        if self.can("Source", s.src, "enable"):
            yield self.move("user", "application: enable", lambda: self._enable(s))
        if self.can("Source", s.src, "mute"):
            keep = s.wish in {"on", "mute"} and s.pub and not s.ops
            wish = "mute" if keep else None
            yield self.move("user", "application: mute", lambda: self.source(s, "mute", due=False, wish=wish))
        yield self.move("user", "session: stop", lambda: self.source(s, "stop", due=False, wish=None))

    def _enable(self, s: World) -> World:
        s = self.source(s, "enable", wish="on")
        return self.way(s) if s.known else s

    def _try_moves(self, s: World) -> Iterator[Move[World]]:
        if s.room == "out":
            yield self.move(SYSTEM, "LiveKit: joined, without the grant", lambda: self.joined(s, False))
            if s.entitled:
                yield self.move(SYSTEM, "LiveKit: joined, with the grant", lambda: self.joined(s, True))
            yield self.move("net", "the try fails", lambda: self.connection(s, "try_failed", room="pause"))
            given_up = s.stray or "out"
            yield self.move(
                "net",
                "the try times out and is given up",
                lambda: self.connection(s, "try_failed", room="pause", stray=given_up),
            )
            why = "sent" if s.was else "asked"
            yield self.move("mod", "the server will not have us", lambda: self.out(s, "saw_removed", why))
        if s.room == "pause":
            yield self.move(SYSTEM, "session: next try", lambda: s._replace(room="out"))
            if not s.was:
                yield self.move("timer", "session: third try failed", lambda: self.out(s, "tries_over", "asked"))

    def _stray_moves(self, s: World) -> Iterator[Move[World]]:
        if s.stray == "out":
            yield self.move("net", "the given-up try fails after all", lambda: s._replace(stray=None))
            yield self.move("net", "the given-up try joins after all", lambda: self._stray_joins(s))
        if s.stray == "in":
            holder = None if s.holder == "stray" else s.holder
            label = "the reaper disconnects the given-up try"
            yield self.move(SYSTEM, label, lambda: s._replace(stray=None, holder=holder))

    def _stray_joins(self, s: World) -> World:
        after = s._replace(stray="in", holder="stray")
        if s.holder != "cur":
            return after
        if self.mistake == OWN_TRY:
            raise Violation("sent away by our own given-up try")
        return self.dropped(after)

    def _link_moves(self, s: World) -> Iterator[Move[World]]:
        due = s.due or s.src == "on"
        if s.room == "in" and len(s.ops) < MAX_CALLS:
            yield self.move(
                "net", "LiveKit: reconnecting", lambda: self.connection(s, "saw_reconnecting", room="blip", due=due)
            )
        if s.room == "in":
            yield self.move("net", "LiveKit: dropped", lambda: self.dropped(s))
        if s.room == "blip":
            yield self.move(SYSTEM, "LiveKit: reconnected", lambda: self.joined(s, s.perm))
            forgotten = "LiveKit: reconnected to a server that has forgotten grants"
            yield self.move("net", forgotten, lambda: self.joined(s, False))
            yield self.move("net", "LiveKit: gives up", lambda: self.dropped(s))
        if s.room in {"in", "blip"}:
            yield self.move("mod", "LiveKit: removed", lambda: self.out(s, "saw_removed", "sent"))
        if s.was and s.room != "in":
            yield self.move("timer", "60 s since the drop", lambda: self.out(s, "grace_over", "sent"))

    def _grant_moves(self, s: World) -> Iterator[Move[World]]:
        entitled = not s.entitled
        label = f"engine: {'' if entitled else 'no longer '}entitled"
        yield self.move("mod", label, lambda: s._replace(entitled=entitled, due=s.due and entitled))
        if s.holder == "cur" and s.perm != s.entitled:
            label = f"engine: {'grants' if s.entitled else 'revokes'}"
            yield self.move(SYSTEM, label, lambda: s._replace(perm=s.entitled))
        if s.room == "in" and s.known != s.perm:
            label = f"LiveKit: permission {'given' if s.perm else 'taken'}"
            yield self.move(SYSTEM, label, lambda: self.way(s._replace(known=s.perm, due=s.due and s.perm)))
        if s.wish == "on" and s.room == "in" and not s.known:
            label = "timer: 10 s without the grant"
            yield self.move(SYSTEM, label, lambda: self.source(s, "wait_over", due=False, wish=None))
        if s.pub and s.room == "in" and s.holder == "cur":
            yield self.move("mod", "moderator: mutes the track", lambda: self._muted(s))

    def _muted(self, s: World) -> World:
        mine = s.wish == "on" and not s.ops  # what is being replaced is not ours any more
        wish = "mute" if mine else s.wish
        return self.source(s._replace(pub="muted"), "saw_muted", wish=wish, due=s.due and not mine)

    def _call_moves(self, s: World) -> Iterator[Move[World]]:
        """Calls on the Room come home, one after the other."""
        if not s.ops:
            return
        op, rest = s.ops[0], s._replace(ops=s.ops[1:])
        if op == "P":
            if s.perm and s.room == "in":
                hot = rest._replace(pub="hot")
                yield self.move(SYSTEM, "publish done", lambda: self.source(hot, "published"))
            if s.room == "in":
                kind = "net" if s.perm else SYSTEM
                refused = {"due": False, "wish": None}
                yield self.move(kind, "publish refused", lambda: self.source(rest, "publish_failed", **refused))
            else:
                yield self.move(SYSTEM, "publish broke with the connection", lambda: self.source(rest, "saw_blocked"))
        elif op == "p":
            if s.perm:
                ops = rest.ops if self.mistake == LATE_PUBLISH else ("u", *rest.ops)
                label = "the overtaken publish is done, and taken down"
                yield self.move(SYSTEM, label, lambda: rest._replace(pub="hot", ops=ops))
            yield self.move(SYSTEM, "the overtaken publish fails", lambda: rest)
        elif op == "U":
            gone = rest._replace(pub=None)
            yield self.move(SYSTEM, "unpublish done", lambda: self.source(gone, "unpublished"))
        else:
            yield self.move(SYSTEM, "unpublish done", lambda: rest._replace(pub=None))

    # ------------------------------------------------------------------------------------------------- what must hold

    def meant(self, s: World) -> tuple[str, str]:
        """What the machines should be in, from the facts and the wish."""
        if s.why == "disposed":
            conn = "closed"
        elif s.room is None:
            conn = "force_exit" if s.why == "sent" else "disconnected"
        else:
            trying = "rejoining" if s.was else "connecting"
            conn = {"in": "connected", "blip": "reconnecting"}.get(s.room, trying)
        if s.wish == "mute":
            return conn, "muted"
        if s.wish == "on":
            return conn, "publishing" if "P" in s.ops else "on" if s.pub == "hot" and not s.ops else "waiting"
        return conn, "stopping" if "U" in s.ops else "off"

    def check(self, s: World) -> None:
        if s.pub == "hot" and s.src != "on" and not {"U", "u"} & set(s.ops):
            raise Violation(f"a live track that nobody owns: the source is {s.src}")
        if s.room in {None, "out", "pause"} and (s.pub or s.ops or s.holder == "cur"):
            raise Violation(f"out of the room, and publication {s.pub}, calls {s.ops}")
        all_well = s.room == "in" and s.known and not s.ops and s.src != "on"
        if s.due and s.perm and s.entitled and all_well:
            raise Violation(f"was on before the connection broke, all is well again, and the source is {s.src}")
        if s.wish == "on" and all_well:
            raise Violation(f"wanted, the way is clear, nothing is under way, and the source is {s.src}")
        if (s.conn, s.src) != self.meant(s):
            raise Violation(f"connection and source are {s.conn}, {s.src}; meant is {', '.join(self.meant(s))}")

    def pending(self, s: World) -> bool:
        return s.conn in PENDING["Connection"] or s.src in PENDING["Source"]

    def quiet(self, s: World) -> bool:
        return s.why == "disposed"
