"""The broadcast product: the host, the engine's `_live`, LiveKit's list of participants, and one viewer's connection.

What the session tells the machine is modelled here as the machine's rules demand it: the pair of what is listed and the
newest `_live`, never the news by itself. The two are heard in any order and late; `_live` may skip, and is ordered by
its version; the list is true at a join and after a reconnect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from tests.machines.search.model import SYSTEM, Edge, Model, Move, Violation

DEPARTURES = "departures seen while reconnecting count"
LAST_WORD = "what was heard last counts, list or `_live`"
NO_VERSION_CHECK = "no version check of `_live`"
OWN_CLOCK = "the viewer's own 60 s end a stream whose engine keeps its own"
NOT_BEGUN = "a listed host counts before the stream has begun"

DEPTH = 3
"""How many values of `_live`, and changes of the list, a viewer may lag behind; older ones are lost."""

SAYS = {"waiting": "saw_no_host", "live": "saw_host", "host_away": "saw_away", "ended": "saw_over"}
"""What `_live` would be by itself."""


class World(NamedTuple):
    """One state of the product. `air` is the machine."""

    live: str | None
    """The engine's `_live`; None: it keeps none."""
    host: bool = False
    """LiveKit has the host in the room."""
    link: str = "out"
    """The viewer: out (not joined yet), up, down (reconnecting)."""
    listed: bool = False
    """The viewer's Room lists the host."""
    late: tuple[bool, ...] = ()
    """Changes of the list on their way, in order."""
    known: str | None = None
    """The newest `_live` that the viewer knows."""
    lag: tuple[str, ...] = ()
    """Values of `_live` that it has not heard of yet; any may be heard, older ones are then stale."""
    seen: bool = False
    """The viewer has known the stream as begun, with its host there or away."""
    told: bool = False
    """It has been told that the stream is over."""
    air: str = "off_air"


class Air(Model[World]):
    """Host x `_live` x list x connection.

    Args:
        keeps: whether the engine keeps `_live`.
    """

    def __init__(
        self,
        *,
        keeps: bool = True,
        mistake: str | None = None,
        cut: Collection[Edge] = (),
        turn: Mapping[Edge, str] | None = None,
    ) -> None:
        super().__init__(mistake=mistake, cut=cut, turn=turn)
        self.initial = World("waiting", lag=("waiting",)) if keeps else World(None)

    # ------------------------------------------------------------------------------------------------------ the viewer

    def tell(self, s: World, event: str) -> World:
        """One observation."""
        seen = s.seen or s.known == "host_away" or (s.listed and s.known != "waiting")
        told = s.told or event in {"saw_over", "grace_over"}
        return s._replace(air=self.step("Broadcast", s.air, event), seen=seen, told=told)

    def pair(self, s: World) -> World:
        """What is listed and the newest `_live`, as one observation."""
        if s.known == "ended":
            return self.tell(s, "saw_over")
        if s.listed and (s.known != "waiting" or self.mistake == NOT_BEGUN):
            return self.tell(s, "saw_host")
        return self.tell(s, "saw_away" if s.known == "host_away" else "saw_no_host")

    def lists(self, s: World, listed: bool) -> World:
        """The list has changed."""
        s = s._replace(listed=listed)
        if self.mistake == LAST_WORD:
            return self.tell(s, "saw_host" if listed else "saw_no_host")
        return self.pair(s)

    def hears(self, s: World, i: int) -> World:
        """The i-th `_live` of the lag; what is older is stale from now on."""
        s = s._replace(known=s.lag[i], lag=s.lag[i + 1 :])
        if self.mistake == LAST_WORD:
            return self.tell(s, SAYS[s.known or "waiting"])
        return self.pair(s)

    def back(self, s: World, known: str | None, lag: tuple[str, ...]) -> World:
        """In the room, or in it again: list and `_live` are read in one."""
        return self.pair(s._replace(link="up", listed=s.host, late=(), known=known, lag=lag))

    def says(self, s: World, live: str) -> World:
        """The engine has a new `_live`."""
        return s._replace(live=live, lag=(*s.lag, live)[-DEPTH:])

    # ----------------------------------------------------------------------------------------------------------- moves

    def move(self, kind: str, label: str, then: Callable[[], World]) -> Move[World]:
        """One move, named before it is made."""
        self.doing = label
        return kind, label, then()

    def moves(self, s: World) -> Iterator[Move[World]]:
        if s.told:
            return
        host = not s.host
        late = (*s.late, host)[-DEPTH:] if s.link == "up" else ()
        yield "mod", f"host {'comes' if host else 'goes'}", s._replace(host=host, late=late)
        yield from self._engine_moves(s)
        yield from {"out": self._join_moves, "up": self._hearing_moves, "down": self._reconnect_moves}[s.link](s)

    def _engine_moves(self, s: World) -> Iterator[Move[World]]:
        if s.live == "waiting":
            yield "user", "host: POST live/start", self.says(s, "live")
        if s.live == "live" and not s.host:
            yield SYSTEM, "engine: the host has dropped", self.says(s, "host_away")
        if s.live == "host_away" and s.host:
            yield SYSTEM, "engine: the host is back", self.says(s, "live")
        if s.live in {"waiting", "live", "host_away"}:
            yield "mod", "host: POST live/end; engine: 60 s are over", self.says(s, "ended")

    def _join_moves(self, s: World) -> Iterator[Move[World]]:
        for i, live in enumerate(s.lag):
            label = f"viewer joins; `_live` says {live}"
            yield self.move("user", label, partial(self.back, s, live, s.lag[i + 1 :]))
        if s.live is None:
            yield self.move("user", "viewer joins", lambda: self.back(s, None, ()))

    def _hearing_moves(self, s: World) -> Iterator[Move[World]]:
        if s.late:
            label = f"viewer: the host is {'' if s.late[0] else 'not '}listed"
            yield self.move(SYSTEM, label, lambda: self.lists(s._replace(late=s.late[1:]), s.late[0]))
        for i, live in enumerate(s.lag):
            label = f"viewer hears `_live` {live}"
            yield self.move(SYSTEM, label, partial(self.hears, s, i))
        if self.mistake == NO_VERSION_CHECK:
            label = "viewer hears `_live` waiting, from long ago"
            yield self.move("net", label, lambda: self.pair(s._replace(known="waiting"))._replace(known=s.known))
        yield "net", "viewer reconnecting", s._replace(link="down", late=())
        yield self.move("mod", "room deleted, or _live_ended of the host", lambda: self.tell(s, "saw_over"))
        if s.air == "host_away":
            asked = s.live is not None and self.mistake != OWN_CLOCK
            label = "60 s without the host" + ", and nobody answers a look" * asked
            yield self.move("timer", label, lambda: self._out_of_grace(s))

    def _out_of_grace(self, s: World) -> World:
        """Where the engine keeps `_live`, a look comes first; hearing that is a move of its own."""
        if self.mistake == OWN_CLOCK and s.live == "live":
            raise Violation("over by the viewer's clock, and the engine says live")
        return self.tell(s, "grace_over")

    def _reconnect_moves(self, s: World) -> Iterator[Move[World]]:
        yield self.move(SYSTEM, "viewer reconnected; `_live` not there yet", lambda: self.back(s, s.known, s.lag))
        if s.lag:
            yield self.move(SYSTEM, "viewer reconnected", lambda: self.back(s, s.lag[-1], ()))
        if s.live == "ended":
            yield self.move(SYSTEM, "viewer: a look says ended", lambda: self.tell(s, "saw_over"))
        yield self.move("mod", "the room is gone", lambda: self.tell(s, "saw_over"))
        if self.mistake == DEPARTURES:
            label = "LiveKit: participant_disconnected for everybody"
            yield self.move("net", label, lambda: self.tell(s, "saw_no_host"))

    # ------------------------------------------------------------------------------------------------- what must hold

    def meant(self, s: World) -> str:
        """What the stream counts as, from the facts."""
        if s.told:
            return "over"
        if s.listed and s.known != "waiting":
            return "on_air"
        return "host_away" if s.seen else "off_air"

    def check(self, s: World) -> None:
        if s.air != self.meant(s):
            raise Violation(f"the stream counts as {s.air}; meant is {self.meant(s)}")
        if s.air == "off_air" and s.known == "host_away":
            raise Violation("the host is known to be away, and the stream counts as off_air")
        if s.link == "up" and not self.pending(s) and not s.told:
            begun = s.live in {None, "live"}
            truth = "on_air" if s.host and begun else "host_away" if s.live == "host_away" else s.air
            if s.air != truth or (not s.host and s.air == "on_air"):
                raise Violation(f"everything has been heard, and the stream counts as {s.air}; it is {truth}")

    def pending(self, s: World) -> bool:
        """There is something to hear, for the viewer or for the engine."""
        if s.told or s.link == "out":
            return False
        behind = s.live == ("live" if not s.host else "host_away")
        return s.link == "down" or bool(s.late or s.lag) or behind

    def quiet(self, s: World) -> bool:
        return s.told
