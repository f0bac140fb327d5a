"""The call product: the caller's view, the views of two devices of the callee, and the engine.

Every view is driven here by the fold and the end of a request as `utd_fsm.observe` has them, over the tables, so that a
million worlds stay cheap; `test_observe` shows that the shipped functions do the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from tests.machines.search.call_engine import (
    CALLEE_ENDS,
    CALLER,
    FRESH,
    NO_DEVICE,
    NO_SEAL,
    NO_VERSION_CHECK,
    PARTIES,
    Engine,
    History,
    Party,
    World,
)
from tests.machines.search.model import FINAL, MACHINES, PENDING, SYSTEM, Edge, Move, Violation

VIEW: Final = {CALLER: "OutgoingCall", "B1": "IncomingCall", "B2": "IncomingCall"}
VERB: Final = {"dial": "create", "accept": "accept", "decline": "reject"}
WISH: Final = {"dial": "call", "accept": "in", "decline": "out"}
UNKNOWN: Final = ("unk", None)


class Call(Engine):
    """Caller, devices and engine over the worst network.

    Args:
        late_looks: a look may itself arrive late or be lost (else it is answered at once).
        deaths: processes of the parties may die, and others take their places.
        by_rank: the engine gives no versions; snapshots are ordered by the rank of their status.
    """

    def __init__(
        self,
        *,
        live: tuple[str, ...] = PARTIES,
        ghosts: int = 9,
        late_looks: bool = True,
        touches: int = 1,
        deaths: bool = True,
        by_rank: bool = False,
        mistake: str | None = None,
        cut: Collection[Edge] = (),
        turn: Mapping[Edge, str] | None = None,
    ) -> None:
        super().__init__(live=live, ghosts=ghosts, touches=touches, mistake=mistake, cut=cut, turn=turn)
        self.late_looks, self.deaths, self.by_rank = late_looks, deaths, by_rank
        self._numbers: dict[Party, int] = {}

    def canonical(self, s: World) -> World:
        """The callee's two devices are interchangeable."""
        if len(self.live) < len(PARTIES):
            return s
        numbers = self._numbers
        if numbers.setdefault(s.first, len(numbers)) <= numbers.setdefault(s.second, len(numbers)):
            return s
        other = {"B1": "B2", "B2": "B1"}
        history = tuple(entry._replace(device=other.get(entry.device or "", entry.device)) for entry in s.history)
        ghosts = frozenset((other.get(who, who), verb) for who, verb in s.ghosts)
        return World(history, s.caller, s.second, s.first, ghosts, s.restarted)

    # ------------------------------------------------------------------------------------------------------- one view

    def age(self, history: History, n: int) -> int:
        """What says that a snapshot is newer."""
        entry = history[n - 1]
        return MACHINES["CallRecord"].RANK[entry.status] if self.by_rank else entry.version

    def observation(self, history: History, n: int, me: str) -> str:
        """What the n-th entry is to `me` (`observe.event_of`)."""
        entry = history[n - 1]
        elsewhere = entry.status == "active" and me not in (CALLER, entry.device)
        return "saw_elsewhere" if elsewhere and self.mistake != NO_DEVICE else f"saw_{entry.status}"

    def see(self, me: str, party: Party, n: int, history: History) -> Party:
        """`observe.fold`: one snapshot into one view."""
        view, known = VIEW[me], party.known
        if party.state in FINAL[view]:
            return party
        if self.mistake != NO_VERSION_CHECK and known and self.age(history, n) <= self.age(history, known):
            return party
        event = self.observation(history, n, me)
        if (party.state, event) in MACHINES[view].STALE:
            raise Violation(f"stale, and claims to be news: {view} gets {event} in {party.state}")
        new = self.step(view, party.state, event)
        if new in FINAL[view]:
            if new == "lost" or (new == "elsewhere") != (event == "saw_elsewhere"):
                raise Violation(f"{me} sees {event[4:]}, and is in {new}")
            return Party(new, 0, None, None)
        request, wish = party.request, party.wish
        if new != party.state:
            request = ("out", "end") if new == "ending" else None
        if wish == "call" or (wish == "in" and event == "saw_active"):
            wish = None
        return Party(new, n, request, wish)

    def over(self, me: str, party: Party, history: History) -> Party:
        """`observe.request_over`: the request is over, and the engine has been heard since."""
        view, known = VIEW[me], party.known
        if party.state not in PENDING[view]:
            return party._replace(request=None)
        new = self.step(view, party.state, "lapsed")
        if new in PENDING[view]:
            return Party(new, known, ("out", self.verb(me, known, history)), party.wish)
        if new != "idle":
            raise Violation(f"what lapses in {party.state} leaves {new}, not idle")
        if known:
            new = self.step(view, new, self.observation(history, known, me))
        if new in FINAL[view]:
            return Party(new, 0, None, None)
        return Party(new, known, None, "out" if party.wish == "out" else None)

    def heard(self, me: str, party: Party, n: int, history: History) -> Party:
        """An answer or a look comes home: fold it; if the request still stands, it is over."""
        new = self.see(me, party, n, history) if n else party
        return self.over(me, new, history) if new.request == party.request else new

    def verb(self, me: str, known: int, history: History) -> str:
        """What hanging up sends: before the answer a callee rejects."""
        if me == CALLER or self.mistake == CALLEE_ENDS:
            return "end"
        return "end" if known and history[known - 1].status == "active" else "reject"

    def meant(self, me: str, party: Party, history: History) -> str:
        """What a view is: the newest standing it knows, and at most one wish."""
        if not party.known:
            out = "ending" if me != CALLER else "withdrawing" if party.request else "idle"
            return {None: "idle", "call": "dialing", "in": "accepting", "out": out}[party.wish]
        newest = self.observation(history, party.known, me)[4:]
        return {None: newest, "call": newest, "in": "accepting", "out": "ending"}[party.wish]

    # ---------------------------------------------------------------------------------------------------------- moves

    def moves(self, s: World) -> Iterator[Move[World]]:
        for me in PARTIES:
            if me in self.live:
                yield from self._person_moves(s, me)
                yield from self._news_moves(s, me)
                yield from self._request_moves(s, me)
                party = s.party(me)
                if self.deaths and party != FRESH and party.state not in FINAL[VIEW[me]]:
                    dead = self.put(self.settled(s, me, None), me, FRESH)
                    yield "fault", f"{me}: the process dies, another takes its place", dead
            else:
                yield from self.absent_moves(s, me)
        yield from self.engine_moves(s)
        yield from self.crash_moves(s)

    def settled(self, s: World, me: str, request: object) -> World:
        """A request whose wish is settled, or overtaken by another `request`, may still be on its way."""
        old = s.party(me).request
        if old and old[0] == "out" and request != old:
            return self.haunted(s, me, str(old[1]))
        return s

    def _person_moves(self, s: World, me: str) -> Iterator[Move[World]]:
        view, party = VIEW[me], s.party(me)
        for intention in ("dial",) if me == CALLER else ("accept", "decline"):
            if not self.can(view, party.state, intention):
                continue
            if s.history if intention == "dial" else not s.history:
                continue
            if intention == "dial" and (me, "create") in s.ghosts:
                continue
            self.doing = f"{me}: application: {intention}"
            new = self._intend(me, party.state, intention)
            sent = Party(new, party.known, ("out", VERB[intention]), WISH[intention])
            yield "user", self.doing, self.put(self.settled(s, me, None), me, sent)
        if self.can(view, party.state, "hang_up"):
            self.doing = f"{me}: application: hang_up"
            new = self._intend(me, party.state, "hang_up")
            if new == "withdrawing":
                yield "user", self.doing, self.put(s, me, Party(new, party.known, party.request, "out"))
            else:
                sent = Party(new, party.known, ("out", self.verb(me, party.known, s.history)), "out")
                yield "user", self.doing, self.put(self.settled(s, me, None), me, sent)

    def _intend(self, me: str, state: str, intention: str) -> str:
        new = self.step(VIEW[me], state, intention)
        if new in FINAL[VIEW[me]]:
            raise Violation(f"an intention ends in {new}")
        return new

    def _news_moves(self, s: World, me: str) -> Iterator[Move[World]]:
        """The network brings something that was once said."""
        party = s.party(me)
        first = 1 if self.mistake == NO_VERSION_CHECK else party.known + 1
        for n in range(first, len(s.history) + 1):
            entry = s.history[n - 1]
            self.doing = f"{me} hears v{entry.version} {entry.status}" + (f" by {entry.device}" if entry.device else "")
            new = self.see(me, party, n, s.history)
            yield SYSTEM, self.doing, self.put(self.settled(s, me, new.request), me, new)

    def _request_moves(self, s: World, me: str) -> Iterator[Move[World]]:
        party = s.party(me)
        if party.request is None:
            return
        kind, arg = party.request
        unknown = party._replace(request=UNKNOWN)
        if kind == "out":
            verb = str(arg)
            self.doing = doing = f"engine handles {verb} of {me}"
            for after, answer in self.apply(s, verb, me):
                yield SYSTEM, f"{doing} ({answer})", self.put(after, me, party._replace(request=("ans", answer)))
            yield "net", f"{verb} of {me} is lost", self.put(s, me, unknown)
            if self.ghosts:
                label = f"{me} gives up waiting for {verb}, which is still on its way"
                yield "net", label, self.put(self.haunted(s, me, verb), me, unknown)
        elif kind == "ans":
            self.doing = f"{me} gets the answer ({arg})"
            yield SYSTEM, self.doing, self.put(s, me, self._answered(s, me, arg))
            yield "net", f"the answer ({arg}) to {me} is lost", self.put(s, me, unknown)
        elif kind == "unk":
            yield from self._look_moves(s, me)
        else:
            self.doing = f"{me} sees what it looked for ({arg})"
            yield SYSTEM, self.doing, self.put(s, me, self.heard(me, party, int(arg or 0), s.history))
            yield "net", f"the look of {me} is lost", self.put(s, me, unknown)

    def _answered(self, s: World, me: str, answer: str | int | None) -> Party:
        party = s.party(me)
        if answer == "busy":
            return Party(self.step(VIEW[me], party.state, "saw_busy"), 0, None, None)
        if answer == "no":
            return self.over(me, party, s.history)
        if answer == 0:
            return party._replace(request=UNKNOWN)
        return self.heard(me, party, int(answer or 0), s.history)

    def _look_moves(self, s: World, me: str) -> Iterator[Move[World]]:
        """The outcome is unknown: look, which seals what was sent before; or give up."""
        party = s.party(me)
        sealed = s
        if self.mistake != NO_SEAL:
            sealed = s._replace(ghosts=frozenset(ghost for ghost in s.ghosts if ghost[0] != me))
        self.doing = f"{me} looks"
        if self.late_looks:
            looking = party._replace(request=("look", len(s.history)))
            yield SYSTEM, self.doing, self.put(sealed, me, looking)
        else:
            yield SYSTEM, self.doing, self.put(sealed, me, self.heard(me, party, len(s.history), s.history))
        if self.can(VIEW[me], party.state, "give_up"):
            self.doing = f"{me}: nobody to ask for 60 s"
            if self.step(VIEW[me], party.state, "give_up") != "lost":
                raise Violation("gave up, and goes on")
            yield "fault", self.doing, self.put(s, me, Party("lost", 0, None, None))

    # ------------------------------------------------------------------------------------------------- what must hold

    def agrees(self, me: str, state: str, history: History) -> bool:
        """Whether a view that has heard everything and waits for nothing may be in `state`."""
        if state == "lost" or (not history and state in {"idle", "busy"}):
            return True
        if not history:
            return False
        now = history[-1]
        if state == "elsewhere":
            return now.device != me and (now.status == "active" or now.status in FINAL["CallRecord"])
        if state == "ending":
            return now.status not in FINAL["CallRecord"]
        return state == now.status and (now.status != "active" or me in (CALLER, now.device))

    def check(self, s: World) -> None:
        if s.first.state == s.second.state == "active":
            raise Violation("two devices believe that they answered")
        for me in self.live:
            self._check_view(me, s.party(me), s.history)

    def _check_view(self, me: str, party: Party, history: History) -> None:
        view, state = VIEW[me], party.state
        said = history[-1] if history else None
        if party.known > len(history):
            raise Violation(f"{me} knows of a step the engine has lost")
        if party.known == len(history) and state not in PENDING[view] and not self.agrees(me, state, history):
            raise Violation(f"{me} has heard everything and is in {state}; the engine says {said}")
        if state not in FINAL[view] and state != self.meant(me, party, history):
            raise Violation(f"{me} is in {state}, but knows {party.known} and wants {party.wish}")
        looked = self.see(me, party, len(history), history) if history else party
        if party.request and looked.state in PENDING[view]:
            looked = self.over(me, looked._replace(request=UNKNOWN), history)
        if not self.agrees(me, looked.state, history):
            raise Violation(f"after a look {me} is in {looked.state}; the engine says {said}")

    def pending(self, s: World) -> bool:
        return any(s.party(me).state in PENDING[VIEW[me]] for me in PARTIES)

    def quiet(self, s: World) -> bool:
        return (not s.history or s.history[-1].status in FINAL["CallRecord"]) and not self.pending(s)
