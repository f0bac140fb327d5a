"""The desk product: one speaker in a connected room, its seat, the grant, and its microphone.

Grid and grant reach the speaker by two ways, in either order. The session's driver (what a new standing or a muted seat
means for the microphone) is modelled here as the machines' rules demand it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from tests.machines.search.model import PENDING, SYSTEM, Edge, Model, Move, Violation

LEAVING_WAITS = "leaving waits for the engine before it stops the microphone"
SEATED_UNMUTES = "whoever is seated is unmuted"
MUTED_SEAT_IGNORED = "a muted seat does not silence who publishes later"

ENTITLED = frozenset({"taking", "seated"})
"""Standings in which the grant can come, so that enable may wait for it."""
DEPTH = 2


class World(NamedTuple):
    """One state of the product: `speaker` and `src` are the machines."""

    seat: str = "listener"
    """What the engine says: listener, seated, muted (seated on a muted seat)."""
    speaker: str = "listener"
    lag: tuple[str, ...] = ()
    """What the engine said since `known`."""
    known: str = "listener"
    request: str | None = None
    """None, out, unk: the request of the pending intention."""
    perm: bool = False
    """The permission at the server."""
    grant: bool = False
    """The permission as the Room knows it."""
    src: str = "off"
    pub: str | None = None
    """What the Room publishes: None, hot, muted."""
    ops: tuple[str, ...] = ()
    """Calls under way on the Room: P publish, p publish that was overtaken, U unpublish."""
    wish: bool = False
    """The microphone was asked for, and nobody took it away."""


class Desk(Model[World]):
    """Seat x speaker x grant x microphone."""

    def __init__(
        self, *, mistake: str | None = None, cut: Collection[Edge] = (), turn: Mapping[Edge, str] | None = None
    ) -> None:
        super().__init__(mistake=mistake, cut=cut, turn=turn)
        self.initial = World()

    # ------------------------------------------------------------------------------------------------------ the driver

    def source(self, s: World, event: str) -> World:
        """Step the microphone, then do what the step asks for."""
        old, new, ops, pub = s.src, self.step("Source", s.src, event), s.ops, s.pub
        if new == old:
            return s
        if old == "publishing" and event != "published":
            ops = tuple("p" if op == "P" else op for op in ops)
        if new == "publishing":
            if not s.grant:
                raise Violation("publishes without the grant")
            ops += ("P",)
        if new == "stopping":
            ops += ("U",)
        if (old, new) == ("on", "muted"):
            pub = "muted"
        if (old, new) == ("muted", "on"):
            pub = "hot"
        return s._replace(src=new, ops=ops, pub=pub)

    def stands(self, s: World, speaker: str) -> World:
        """The view of the standing has moved: a microphone without a seat, or leaving it, stops."""
        s = s._replace(speaker=speaker)
        waits = self.mistake == LEAVING_WAITS and speaker == "leaving"
        if speaker not in ENTITLED and not waits:
            s = self.source(s, "stop")._replace(wish=False)
        if self.mistake == SEATED_UNMUTES and speaker == "seated" and s.src == "off":
            s = self.source(s, "enable")
            s = self.source(s, "saw_clear") if s.grant else s
        return s

    def silenced(self, s: World) -> World:
        """A muted seat silences whoever sits there, also whoever publishes later."""
        if s.known == "muted" and s.src == "on" and self.mistake != MUTED_SEAT_IGNORED:
            return self.source(s, "saw_muted")._replace(wish=False)
        return s

    def saw(self, known: str) -> str:
        """What the grid is to the view."""
        return "saw_listener" if known == "listener" else "saw_seated"

    def hears(self, s: World, i: int) -> World:
        """The i-th grid of the lag; what is older is stale from now on."""
        known = s.lag[i]
        speaker = self.step("Speaker", s.speaker, self.saw(known))
        request = s.request if speaker == s.speaker else None
        s = s._replace(known=known, lag=s.lag[i + 1 :], request=request)
        return self.silenced(self.stands(s, speaker))

    def over(self, s: World) -> World:
        """The request is over, and the engine has been heard since."""
        if s.speaker not in PENDING["Speaker"]:
            return s._replace(request=None)
        neutral = self.step("Speaker", s.speaker, "lapsed")
        return self.stands(s._replace(request=None), self.step("Speaker", neutral, self.saw(s.known)))

    def granted(self, s: World) -> World:
        """The Room has the server's permission."""
        s = s._replace(grant=s.perm, wish=s.wish and (s.perm or s.src == "waiting"))
        return self.silenced(self.source(s, "saw_clear" if s.perm else "saw_revoked"))

    def grid(self, s: World, seat: str) -> World:
        """The engine has a new grid."""
        last = s.lag[-1] if s.lag else s.known
        return s._replace(seat=seat, lag=(*s.lag, seat)[-DEPTH:] if seat != last else s.lag)

    # ----------------------------------------------------------------------------------------------------------- moves

    def move(self, kind: str, label: str, then: Callable[[], World]) -> Move[World]:
        """One move, named before it is made."""
        self.doing = label
        return kind, label, then()

    def moves(self, s: World) -> Iterator[Move[World]]:
        yield from self._application_moves(s)
        yield from self._request_moves(s)
        yield from self._engine_moves(s)
        yield from self._call_moves(s)

    def _application_moves(self, s: World) -> Iterator[Move[World]]:
        for wish in ("take", "leave"):
            if self.can("Speaker", s.speaker, wish):
                yield self.move("user", f"application: {wish}_seat", partial(self._wishes, s, wish))
        may = (s.speaker in ENTITLED or s.grant) and s.speaker != "leaving" and s.known != "muted"
        if may and self.can("Source", s.src, "enable"):
            yield self.move("user", "application: set_microphone(True)", lambda: self._enable(s))
        if self.can("Source", s.src, "mute"):
            label = "application: set_microphone(False)"
            yield self.move("user", label, lambda: self.source(s, "mute")._replace(wish=False))

    def _wishes(self, s: World, wish: str) -> World:
        return self.stands(s, self.step("Speaker", s.speaker, wish))._replace(request="out")

    def _enable(self, s: World) -> World:
        s = self.source(s._replace(wish=True), "enable")
        return self.silenced(self.source(s, "saw_clear") if s.grant else s)

    def _request_moves(self, s: World) -> Iterator[Move[World]]:
        if s.request == "out":
            verb, seat = ("take", "seated") if s.speaker == "taking" else ("leave", "listener")
            if (verb == "take") == (s.seat == "listener"):
                handled = self.grid(s, seat)._replace(request="unk")
                yield SYSTEM, f"engine handles {verb}", handled
            else:
                yield SYSTEM, f"engine refuses {verb}", s._replace(request="unk")
            yield "net", f"{verb} is lost", s._replace(request="unk")
        if s.request == "unk":
            label = "the answer, or a look"
            yield self.move(SYSTEM, label, lambda: self.over(self.hears(s, len(s.lag) - 1) if s.lag else s))
        for i, seat in enumerate(s.lag):
            yield self.move(SYSTEM, f"hears {seat}", partial(self.hears, s, i))

    def _engine_moves(self, s: World) -> Iterator[Move[World]]:
        for seat in ("listener", "seated", "muted"):
            if seat != s.seat and (s.seat, seat) != ("listener", "muted"):
                yield "mod", f"moderator: {s.seat} -> {seat}", self.grid(s, seat)
        may = s.seat != "listener"
        if s.perm != may:
            yield SYSTEM, f"engine: {'grants' if may else 'revokes'}", s._replace(perm=may)
        if s.grant != s.perm:
            label = f"LiveKit: permission {'given' if s.perm else 'taken'}"
            yield self.move(SYSTEM, label, lambda: self.granted(s))
        if s.src == "waiting" and not s.grant:
            label = "timer: 10 s without the grant"
            yield self.move(SYSTEM, label, lambda: self.source(s, "wait_over")._replace(wish=False))

    def _call_moves(self, s: World) -> Iterator[Move[World]]:
        """Calls on the Room come home, one after the other."""
        if not s.ops:
            return
        op, rest = s.ops[0], s._replace(ops=s.ops[1:])
        if op == "P":
            if s.perm:
                hot = rest._replace(pub="hot")
                yield self.move(SYSTEM, "publish done", lambda: self.silenced(self.source(hot, "published")))
            label = "publish refused"
            yield self.move(SYSTEM, label, lambda: self.source(rest, "publish_failed")._replace(wish=False))
        elif op == "p":
            yield SYSTEM, "the overtaken publish ends, and is taken down", rest._replace(pub=None)
        else:
            gone = rest._replace(pub=None)
            yield self.move(SYSTEM, "unpublish done", lambda: self.source(gone, "unpublished"))

    # ------------------------------------------------------------------------------------------------- what must hold

    def check(self, s: World) -> None:
        if s.src in {"waiting", "publishing", "on"} and not s.wish:
            raise Violation(f"the microphone is {s.src}, and nobody asked for it")
        if s.speaker == "leaving" and s.src not in {"off", "stopping"}:
            raise Violation(f"leaving the seat, and the microphone is {s.src}")
        if s.pub == "hot" and "U" not in s.ops:
            if s.src != "on":
                raise Violation(f"a live track that nobody owns: the source is {s.src}")
            if s.known == "muted":
                raise Violation("heard from a muted seat")
        told = not (s.lag or s.grant or s.perm)
        if told and s.seat == s.speaker == "listener" and s.src not in {"off", "stopping"}:
            raise Violation(f"a listener whose microphone is {s.src}")

    def pending(self, s: World) -> bool:
        return s.speaker in PENDING["Speaker"] or s.src in PENDING["Source"]

    def quiet(self, s: World) -> bool:
        return False


class Mixed(NamedTuple):
    """One state of `Merged`."""

    view: str = "listener"
    seat: bool = False
    """Seated, at the engine."""
    heard: bool = False
    """Seated, as the grid was heard."""
    grant: bool = False
    """The grant, as it was heard."""


class Merged(Model[Mixed]):
    """Why `Source` is apart: a speaker that also waits for the grant. Grid and grant overtake each other."""

    TABLE = {
        ("listener", "take"): "taking",
        ("taking", "saw_seated"): "waiting",
        ("taking", "saw_listener"): "taking",
        ("taking", "saw_revoked"): "taking",
        ("listener", "saw_seated"): "waiting",
        ("listener", "saw_listener"): "listener",
        ("listener", "saw_revoked"): "listener",
        ("waiting", "saw_seated"): "waiting",
        ("waiting", "saw_grant"): "live",
        ("waiting", "saw_listener"): "listener",
        ("waiting", "saw_revoked"): "waiting",
        ("live", "saw_seated"): "live",
        ("live", "saw_revoked"): "waiting",
        ("live", "saw_listener"): "listener",
    }

    def __init__(
        self, *, mistake: str | None = None, cut: Collection[Edge] = (), turn: Mapping[Edge, str] | None = None
    ) -> None:
        super().__init__(mistake=mistake, cut=cut, turn=turn)
        self.tables["Merged"] = dict(self.TABLE)
        self.initial = Mixed()

    def moves(self, s: Mixed) -> Iterator[Move[Mixed]]:
        if self.can("Merged", s.view, "take"):
            self.doing = "application: take_seat"
            yield "user", self.doing, s._replace(view=self.step("Merged", s.view, "take"), seat=True)
        if s.seat:
            yield "mod", "moderator: kick", s._replace(seat=False)
        if s.heard != s.seat:
            self.doing = "hears the grid"
            view = self.step("Merged", s.view, "saw_seated" if s.seat else "saw_listener")
            yield SYSTEM, self.doing, s._replace(view=view, heard=s.seat)
        if s.grant != s.seat:
            self.doing = "hears of the grant"
            view = self.step("Merged", s.view, "saw_grant" if s.seat else "saw_revoked")
            yield SYSTEM, self.doing, s._replace(view=view, grant=s.seat)

    def pending(self, s: Mixed) -> bool:
        return s.view in {"taking", "waiting"}

    def quiet(self, s: Mixed) -> bool:
        return False
