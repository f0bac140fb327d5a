"""The engine's half of the call product: the record's history, the verbs, and requests that arrive very late."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from tests.machines.search.model import FINAL, Edge, Model, Move, Violation

RECORD = "CallRecord"
CALLER = "C"
PARTIES = (CALLER, "B1", "B2")
"""The caller, and two devices of the callee."""

NO_VERSION_CHECK = "no version check"
NO_DEVICE = "the record does not tell which device answered"
CALLEE_ENDS = "the callee cancels with end, not reject"
ANSWER_BEFORE_COMMIT = "the engine answers before it commits"
VERSIONS_RESTART = "versions start again after a crash"
NO_SEAL = "a look does not seal what came before"


class Entry(NamedTuple):
    """One step of the record."""

    status: str
    device: str | None
    """Who answered, at the step to `active`."""
    version: int


History: TypeAlias = tuple[Entry, ...]
"""All that was ever said: any of it may be heard at any time."""

Request: TypeAlias = tuple[str, str | int | None]
"""("out", verb) under way; ("ans", n) its answer under way: n entries of the history, 0 for 409 and 404, "busy" or "no"
for a refused create; ("unk", None) outcome unknown; ("look", n) a look under way."""


class Party(NamedTuple):
    """One party: its view's machine, and beside it the facts that say what the machine must be in."""

    state: str
    known: int
    """How many entries of the history it has seen (the newest of them counts)."""
    request: Request | None
    wish: str | None
    """call, in or out: what the person wants, as far as nobody answered it."""


class World(NamedTuple):
    """One state of the product."""

    history: History
    caller: Party
    first: Party
    second: Party
    ghosts: frozenset[tuple[str, str]]
    """(party, verb) given up by their senders and still on their way."""
    restarted: bool
    """The engine forgot its versions (only with that mistake seeded)."""

    def party(self, me: str) -> Party:
        return self.caller if me == CALLER else self.first if me == "B1" else self.second


FRESH = Party("idle", 0, None, None)


class Engine(Model[World]):
    """The record, its verbs and its timers. Takes every declared step of `CallRecord` at any time.

    Args:
        live: the parties that are modelled; the others do anything at any time.
        ghosts: how many requests may be on their way after their senders gave them up.
        touches: how many new versions that change nothing the engine may make.
    """

    def __init__(
        self,
        *,
        live: tuple[str, ...] = PARTIES,
        ghosts: int = 9,
        touches: int = 1,
        mistake: str | None = None,
        cut: Collection[Edge] = (),
        turn: Mapping[Edge, str] | None = None,
    ) -> None:
        super().__init__(mistake=mistake, cut=cut, turn=turn)
        self.live, self.ghosts, self.touches = live, ghosts, touches
        self.initial = World((), FRESH, FRESH, FRESH, frozenset(), False)

    def put(self, s: World, me: str, party: Party) -> World:
        """The same world with another `me`."""
        if me == CALLER:
            return World(s.history, party, s.first, s.second, s.ghosts, s.restarted)
        if me == "B1":
            return World(s.history, s.caller, party, s.second, s.ghosts, s.restarted)
        return World(s.history, s.caller, s.first, party, s.ghosts, s.restarted)

    def haunted(self, s: World, me: str, verb: str) -> World:
        """`verb` of `me` is given up, and still on its way."""
        if len(s.ghosts) >= self.ghosts:
            return s
        return s._replace(ghosts=s.ghosts | {(me, verb)})

    def apply(self, s: World, verb: str, me: str | None) -> Iterator[tuple[World, int | str]]:
        """The engine handles one verb. → the world after it, and the answer (see `Request`)."""
        if verb == "create":
            if s.history:
                yield s, 1
            else:
                yield s._replace(history=(Entry("initiating", None, 1),)), 1
                yield s, "busy"
                yield s, "no"
            return
        for event in ("reject", "say_busy") if verb == "reject" else (verb,):
            yield self._transact(s, event, me)

    def _transact(self, s: World, event: str, me: str | None) -> tuple[World, int]:
        if not s.history or not self.can(RECORD, s.history[-1].status, event):
            return s, 0
        now = s.history[-1]
        new = self.step(RECORD, now.status, event)
        if event == "end" and now.status == "active" and me not in (CALLER, now.device):
            raise Violation(f"{me} ended the call that {now.device} answered")
        if new == now.status:
            return s, len(s.history)
        entry = Entry(new, me if new == "active" else None, 1 if s.restarted else now.version + 1)
        return s._replace(history=(*s.history, entry), restarted=False), len(s.history) + 1

    def engine_moves(self, s: World) -> Iterator[Move[World]]:
        """What happens at the engine without a request of a modelled party."""
        for who, verb in s.ghosts:
            self.doing = f"engine handles {verb} of {who}, given up long ago"
            for after, _ in self.apply(s._replace(ghosts=s.ghosts - {(who, verb)}), verb, who):
                yield "net", self.doing, after
        if not s.history:
            return
        now = s.history[-1]
        for event, kind in (("ring", "user"), ("ring_timeout", "engine"), ("cut", "engine")):
            if self.can(RECORD, now.status, event):
                self.doing = f"engine: {event}"
                for after, _ in self.apply(s, event, None):
                    yield kind, self.doing, after
        repeats = len(s.history) - len({entry.status for entry in s.history})
        if not self._over(s) and repeats < self.touches:
            again = now._replace(version=now.version + 1)
            yield "engine", "engine: a new version that changes nothing", s._replace(history=(*s.history, again))

    def absent_moves(self, s: World, me: str) -> Iterator[Move[World]]:
        """A party that is not modelled does anything it may, at any time."""
        for verb in ("create", "end") if me == CALLER else ("accept", "reject", "end"):
            answered_here = bool(s.history) and s.history[-1].device == me
            if (verb == "create" and s.history) or (verb == "end" and me != CALLER and not answered_here):
                continue
            self.doing = f"{me} does {verb}"
            for after, _ in self.apply(s, verb, me):
                if after.history != s.history:
                    yield "user", self.doing, after

    def crash_moves(self, s: World) -> Iterator[Move[World]]:
        """The engine dies and comes back: everything in flight is gone, the record is not."""
        parties = (s.caller, s.first, s.second)
        if not (any(p.request for p in parties) or s.ghosts or s.restarted or self.mistake):
            return
        history = s.history
        if self.mistake == ANSWER_BEFORE_COMMIT and len(history) > 1:
            history = history[:-1]
        forgets = self.mistake == VERSIONS_RESTART and bool(history) and not self._over(s)
        caller, first, second = (p._replace(request=("unk", None) if p.request else None) for p in parties)
        yield "fault", "engine: crash, restart", World(history, caller, first, second, frozenset(), forgets)

    def _over(self, s: World) -> bool:
        return bool(s.history) and s.history[-1].status in FINAL[RECORD]
