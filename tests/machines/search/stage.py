"""The stage product: viewers, each with a view of its own standing, the engine's records, and the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.machines.search.standings import Standings


class Engine(NamedTuple):
    """The engine's half: whether the host is there, and the record of each viewer."""

    host: bool
    viewers: tuple[str, ...]


class Stage(Standings[Engine]):
    """Host and viewers. The host (present or away) adds and removes; a viewer who leaves the room loses hand and
    stage."""

    view, record = "StageMember", "StageRecord"
    intentions = {"raise_hand": ("ask",), "lower_hand": ("lower",), "step_down": ("remove",)}
    wishes = {
        "raise_hand": ("asking", frozenset({"hand_up", "on_stage"})),
        "lower_hand": ("lowering", frozenset({"audience", "on_stage"})),
        "step_down": ("stepping_down", frozenset({"audience", "hand_up"})),
    }

    def at_first(self) -> Engine:
        return Engine(True, (self.first,) * self.people)

    def standing(self, engine: Engine, u: int) -> str:
        return engine.viewers[u]

    def apply(self, engine: Engine, u: int, verb: str) -> Engine | None:
        viewers = engine.viewers
        if not self.can(self.record, viewers[u], verb):
            return None
        new = self.step(self.record, viewers[u], verb)
        return Engine(engine.host, (*viewers[:u], new, *viewers[u + 1 :]))

    def others(self, engine: Engine) -> Iterator[tuple[str, Engine | None]]:
        yield "host comes or goes", Engine(not engine.host, engine.viewers)
        for u in range(self.people):
            for verb in ("add", "remove", "lower"):
                if engine.host or verb != "add":
                    yield f"host or engine: {verb} U{u + 1}", self.apply(engine, u, verb)
