"""Draws the declared machines: for each a Mermaid picture and its complete transition table, from the classes that run.

Plain functions over files of one folder, no command line here. The text depends on nothing but the declarations: it
is the same byte for byte on every machine and under every hash seed, so that a difference is a difference of the
machines.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from utd_fsm import machines
from utd_fsm.errors import UTDInputError
from utd_fsm.machines import Machine, events, table
from utd_fsm.machines.base import BY_AND_MEANING

_MARK = "Generated from the declared machines by `utd-fsm diagram --write`. Do not edit: change the class."
_STYLES = (
    "classDef pending fill:#fff3cd,stroke:#b58105,color:#4a3500,stroke-dasharray:5 3",
    "classDef final fill:#e9ecef,stroke:#6c757d,color:#343a40,stroke-width:2px",
    "classDef steady fill:#e7f1ff,stroke:#2f6fb5,color:#0b2e57",
    "classDef box fill:#fcfcfd,stroke:#adb5bd,color:#6c757d",
)
_LEGEND = """\
Dashed and yellow: *pending*, left without the user's help. Grey: *final*. An edge from a box leads from every state in
it, one from "any state" from every other state, save those it excepts. Events that are declared and change nothing are
not drawn; the table has them all."""


def slug(cls: type[Machine]) -> str:
    """The name of a machine's files: `OutgoingCall` → ``outgoing_call``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


def mermaid(cls: type[Machine]) -> str:
    """The picture of one machine, as a Mermaid ``stateDiagram-v2``.

    States that nearly every other state leads to would drown the picture in arrows. If they are final, the others are
    boxed, and one arrow leaves the box, with the exceptions on it. In a machine without an end, one arrow comes from a
    box "any state".
    """
    return "\n".join(_mermaid_lines(cls)) + "\n"


def _mermaid_lines(cls: type[Machine]) -> Iterator[str]:
    final = [state.id for state in cls.states if state.final]
    others = [state.id for state in cls.states if not state.final]
    single, wide = _edges(cls, others, final)
    origin = "not_over" if final else "any_state"
    inside = [f"[*] --> {next(state.id for state in cls.states if state.initial)}"]
    inside += [f"{source} --> {target} : {_label(on)}" for source, target, on in single if target not in final]
    yield "stateDiagram-v2"
    yield "    direction LR"
    boxes = [origin] if wide else []
    if wide and final:
        yield from _box(origin, f"{cls.__name__}, not over", inside, "LR")
    else:
        yield from (f"    {line}" for line in inside)
    if len(final) > 1:
        boxes.append("over")
        yield from _box("over", "over", final, "TB")
    if wide and not final:
        yield f'    state "any state" as {origin}'
    for without, target, on in wide:
        yield f"    {origin} --> {target} : {_label([*on, *(f'unless {state}' for state in without)])}"
    yield from (f"    {source} --> {target} : {_label(on)}" for source, target, on in single if target in final)
    yield from (f"    {style}" for style in _STYLES)
    pending = [name for name in others if name in cls.PENDING]
    steady = [name for name in others if name not in cls.PENDING]
    for style, members in (("pending", pending), ("final", final), ("steady", steady), ("box", boxes)):
        if members:
            yield f"    class {','.join(members)} {style}"


def _box(name: str, title: str, lines: Iterable[str], direction: str) -> Iterator[str]:
    yield f'    state "{title}" as {name} {{'
    yield f"        direction {direction}"
    yield from (f"        {line}" for line in lines)
    yield "    }"


def _label(on: Iterable[str]) -> str:
    return "<br/>".join(on)


Edge = tuple[str, str, list[str]]
Wide = tuple[tuple[str, ...], str, list[str]]


def _edges(cls: type[Machine], others: list[str], final: list[str]) -> tuple[list[Edge], list[Wide]]:
    """The arrows to draw: (source, target, events), and (other states it does not leave from, target, events)."""
    rows = {key: target for key, target in table(cls).items() if key[0] != target}
    single: dict[tuple[str, str], list[str]] = {}
    wide: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name in events(cls):
        targets = {rows[state, name]: None for state in others if (state, name) in rows}
        for target in targets:
            sources = [state for state in others if rows.get((state, name)) == target]
            without = tuple(state for state in others if state not in {*sources, target})
            at_the_end = target in final and len(sources) > 1 and len(without) <= 1
            if at_the_end or (not final and len(sources) > 3 and len(without) <= 2):
                wide.setdefault((without, target), []).append(name)
            else:
                for source in sources:
                    single.setdefault((source, target), []).append(name)
    return [(*key, on) for key, on in single.items()], [(*key, on) for key, on in wide.items()]


def transition_table(cls: type[Machine]) -> str:
    """The complete table of one machine as Markdown: source, event, guard, target, who causes it, what it means."""
    rows = [("source", "event", "guard", "target", "who causes it", "what it means"), ("---",) * 6]
    causes = {name: str(getattr(cls, name).name).split(BY_AND_MEANING) for name in events(cls)}
    for state in cls.states:
        for name in events(cls):
            target = table(cls).get((state.id, name))
            if target is None:
                continue
            by, means = causes[name]
            if target == state.id:
                means += f"; nothing changes{', what is under way goes on' * (state.id in cls.PENDING)}"
            rows.append((f"`{state.id}`", f"`{name}`", "none", f"`{target}`", by, means))
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |\n" for row in rows)


def page(cls: type[Machine]) -> str:
    """The Markdown page of one machine: its rules, its states, its picture and its table."""
    rules = "\n".join(line.removeprefix("    ") for line in (cls.__doc__ or "").strip().splitlines())
    states = "".join(
        f"| `{state.id}` | {_kind(cls, state.id)} | {_shown(cls, state.id)} | {state.name} |\n" for state in cls.states
    )
    return f"""# {cls.__name__}

<!-- {_MARK} -->

{rules}

```mermaid
{mermaid(cls)}```

{_LEGEND}

## States

| state | kind | status shown | meaning |
| --- | --- | --- | --- |
{states}
## Transitions

Whatever is not in this table is refused, and nothing changes. No machine has guards: what depends on data is asked
before the event is sent.

{transition_table(cls)}"""


def _kind(cls: type[Machine], state: str) -> str:
    declared = next(each for each in cls.states if each.id == state)
    kinds = ("initial" * declared.initial, "final" * declared.final, "pending" * (state in cls.PENDING))
    return ", ".join(kind for kind in kinds if kind)


def _shown(cls: type[Machine], state: str) -> str:
    if not cls.PUBLIC:
        return ""
    if state not in cls.PUBLIC:
        return "what was shown before"
    shown = cls.PUBLIC[state]
    return "none" if shown is None else f"`{shown}`"


def contents() -> dict[str, str]:
    """Every file that belongs into the folder: name → text, for all machines of `utd_fsm.machines.ALL`."""
    files = {"README.md": _index()}
    for cls in machines.ALL:
        files[f"{slug(cls)}.mmd"] = f"%% {_MARK}\n{mermaid(cls)}"
        files[f"{slug(cls)}.md"] = page(cls)
    return files


def _index() -> str:
    rows = "".join(
        f"| [{cls.__name__}]({slug(cls)}.md) | {len(list(cls.states))} | {len(table(cls))} | "
        f"{(cls.__doc__ or '').strip().splitlines()[0]} |\n"
        for cls in machines.ALL
    )
    return f"""# The declared machines

<!-- {_MARK} -->

What is drawn here is what runs and what the tests search. `utd-fsm diagram --check` fails when this folder and the
classes differ.

| machine | states | edges | what it is |
| --- | --- | --- | --- |
{rows}"""


def write(folder: Path | str) -> list[str]:
    """Write every file into `folder` (made if need be), and remove from it what was once generated and no longer is.

    Returns:
        The names of the files that changed, sorted: written or removed.

    Raises:
        UTDInputError: a file would be overwritten that was not generated; nothing was written.
    """
    folder = Path(folder)
    wanted = contents()
    foreign = [name for name in wanted if (folder / name).exists() and not _is_generated(folder / name)]
    if foreign:
        raise UTDInputError(
            f"{folder} holds {', '.join(foreign)}, which was not generated: write into a folder kept for the diagrams."
        )
    folder.mkdir(parents=True, exist_ok=True)
    changed = [name for name in _surplus(folder, wanted) if _is_generated(folder / name)]
    for name in changed:
        (folder / name).unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != text.encode():
            path.write_bytes(text.encode())
            changed.append(name)
    return sorted(changed)


def check(folder: Path | str) -> list[str]:
    """What in `folder` differs from the machines, one line each, sorted; empty when nothing does. Writes nothing.

    Missing and changed files count, and every other ``.md`` or ``.mmd`` file in the folder.
    """
    folder = Path(folder)
    wanted = contents()
    drift = [f"{name}: surplus" for name in _surplus(folder, wanted)]
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            drift.append(f"{name}: missing")
        elif path.read_bytes() != text.encode():
            drift.append(f"{name}: changed")
    return sorted(drift)


def _surplus(folder: Path, wanted: Container[str]) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix in {".md", ".mmd"} and path.name not in wanted)


def _is_generated(path: Path) -> bool:
    return path.is_file() and _MARK.encode() in path.read_bytes()
