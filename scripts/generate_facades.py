"""Generates `utd_fsm/client.py` (blocking) and `utd_fsm/aio.py` (awaitable) from the marks on the core classes.

    python scripts/generate_facades.py           writes both
    python scripts/generate_facades.py --check   fails and names the file when one has drifted

Signatures and docstrings are read from the source of `utd_fsm/sessions`; type checkers and editors see ordinary
methods, and nothing is written twice.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SESSIONS = ROOT / "utd_fsm" / "sessions"

NARROWS = "  # pyright: ignore[reportIncompatibleVariableOverride]"
"""Each public class has a core of its own class; pyright would have it invariant."""

TIMEOUT_DOC = (
    "timeout: seconds; None for no limit. When it is over the {what} is cancelled and its outcome may be unknown."
)


@dataclass(frozen=True)
class Target:
    """One public class: the core it is made from and the lines that only it has."""

    name: str
    core: str
    module: str
    extends: str = ""
    """The public class it inherits from; the flavour's facade otherwise."""
    constructed: bool = False
    """Whether an application makes it, rather than being handed it."""


TARGETS = (
    Target("UTDSession", "BaseSession", "base"),
    Target("UTDRoom", "RoomSession", "room", extends="UTDSession", constructed=True),
    Target("UTDCallSession", "CallSession", "call", extends="UTDSession"),
    Target("UTDEngineRoomSession", "EngineRoomSession", "engine_room", extends="UTDSession"),
    Target("UTDLiveStreamSession", "LiveStreamSession", "live_stream", extends="UTDEngineRoomSession"),
    Target("UTDAudioRoomSession", "AudioRoomSession", "audio_room", extends="UTDEngineRoomSession"),
    Target("UTDStreamClient", "ClientCore", "client", constructed=True),
)
FILES = {target.core: target.module for target in TARGETS}
WRAPS = {target.core: target.name for target in TARGETS}


@dataclass
class Flavour:
    """Blocking or awaitable: the words that differ."""

    module: str
    facade: str
    prefix: str
    awaits: bool
    title: str
    handles: dict[str, str] = field(default_factory=dict)

    def call(self, expression: str) -> str:
        return f"await {expression}" if self.awaits else expression

    @property
    def define(self) -> str:
        return "async def" if self.awaits else "def"


BLOCKING = Flavour(
    "client",
    "BlockingFacade",
    "",
    False,
    "The blocking facade: ordinary calls for ordinary threads.",
    {
        "BaseObservable": "Observable",
        "Feed": "Stream",
        "RecorderCore": "RecordingHandle",
        "PlayingCore": "PlayingHandle",
    },
)
AWAITABLE = Flavour(
    "aio",
    "AwaitableFacade",
    "Async",
    True,
    "The awaitable facade: the same members as `utd_fsm.client`, awaited; from any event loop.",
    {
        "BaseObservable": "AsyncObservable",
        "Feed": "LateStream",
        "RecorderCore": "AsyncRecordingHandle",
        "PlayingCore": "AsyncPlayingHandle",
    },
)


def class_of(name: str) -> ast.ClassDef:
    """The syntax tree of one core class."""
    tree = ast.parse((SESSIONS / f"{FILES[name]}.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def mark(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ast.Call | None] | None:
    """Which of the marks a method wears."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = call.func if call else decorator
        if isinstance(name, ast.Name) and name.id in ("verb", "wait", "stream", "property", "plain"):
            return name.id, call
    return None


def default_timeout(call: ast.Call | None) -> str:
    for keyword in call.keywords if call else ():
        if keyword.arg == "timeout":
            return ast.unparse(keyword.value)
    return "30.0"


def members(target: Target) -> dict[str, ast.stmt]:
    """The public members that this class itself declares, in their order."""
    found: dict[str, ast.stmt] = {}
    docs: dict[str, str] = {}
    body = class_of(target.core).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") and mark(node):
                found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ast.unparse(node.annotation)
            if not node.target.id.startswith("_") and ("BaseObservable[" in text or "RoomEventsCore" in text):
                found[node.target.id] = node
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                    docs[node.target.id] = str(following.value.value)
    for name, doc in docs.items():
        found[name].doc = doc  # type: ignore[attr-defined]
    return found


def docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, *, timeout: bool) -> str:
    text = ast.get_docstring(node) or ""
    if not text:
        raise SystemExit(f"{node.name}: a public method without a docstring")
    if timeout:
        line = TIMEOUT_DOC.format(what="verb")
        if "\nArgs:\n" in text:
            head, _, rest = text.partition("\nArgs:\n")
            blocks = rest.split("\n\n", 1)
            text = f"{head}\nArgs:\n{blocks[0]}\n    {line}" + (f"\n\n{blocks[1]}" if len(blocks) > 1 else "")
        else:
            head, separator, rest = text.partition("\n\nReturns:")
            if not separator:
                head, separator, rest = text.partition("\n\nRaises:")
            text = f"{head}\n\nArgs:\n    {line}{separator}{rest}"
        if "\nRaises: as " in text:
            text += "\nAnd `UTDTimeoutError`: it took longer than ``timeout``."
        elif "UTDTimeoutError" not in text:
            fault = "    UTDTimeoutError: it took longer than ``timeout``."
            text = f"{text}\n{fault}" if "\nRaises:\n" in text else f"{text}\n\nRaises:\n{fault}"
    return text


def quoted(text: str, indent: str) -> str:
    lines = text.split("\n")
    body = "\n".join((indent + line if line else "") for line in lines[1:])
    if len(lines) == 1:
        return f'{indent}"""{lines[0]}"""'
    return f'{indent}"""{lines[0]}\n{body}\n{indent}"""'


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, str]:
    """(parameters as written, without self; the same as they are passed on)."""
    args = node.args
    passed = [arg.arg for arg in args.args[1:]] + [f"{arg.arg}={arg.arg}" for arg in args.kwonlyargs]
    bare = ast.arguments(
        posonlyargs=[],
        args=args.args[1:],
        vararg=None,
        kwonlyargs=args.kwonlyargs,
        kw_defaults=args.kw_defaults,
        kwarg=None,
        defaults=args.defaults,
    )
    return ast.unparse(bare), ", ".join(passed)


def translated(annotation: ast.expr | None, flavour: Flavour) -> str:
    text = ast.unparse(annotation) if annotation else "None"
    for old, new in flavour.handles.items():
        text = text.replace(old, new)
    for old, new in WRAPS.items():
        text = re.sub(rf"\b{old}\b", new, text)
    return text.strip("'\"")


def method(node: ast.FunctionDef | ast.AsyncFunctionDef, flavour: Flavour) -> list[str]:
    """One member of a facade class."""
    marked = mark(node)
    assert marked is not None
    kind, call = marked
    name = node.name
    written, passed = arguments(node)
    result = translated(node.returns, flavour)
    raw = ast.unparse(node.returns).strip("'\"") if node.returns else "None"
    lines: list[str] = []
    if kind == "property":
        value = f"self._core.{name}"
        if any(core in raw for core in WRAPS):
            value = f"tuple(_public(core) for core in {value})"
        lines += [
            "    @property",
            f"    def {name}(self) -> {result}:",
            quoted(docstring(node, timeout=False), " " * 8),
        ]
        return [*lines, f"        return {value}", ""]
    if kind == "plain":
        expression = f"self._core.{name}({passed})"
        expression = f"{result}._around({expression})" if raw in WRAPS else expression
        lines += [f"    def {name}(self, {written}) -> {result}:", quoted(docstring(node, timeout=False), " " * 8)]
        return [*lines, f"        return {expression}", ""]
    if kind == "verb":
        separator = ", " if written else ""
        star = "" if node.args.kwonlyargs else "*, "
        parameters = f"self, {written}{separator}{star}timeout: float | None = {default_timeout(call)}"
        expression = flavour.call(f"self._verb(self._core.{name}, timeout{', ' + passed if passed else ''})")
        if raw in WRAPS and flavour.awaits:  # a session: to be awaited, or entered with ``async with``
            parameters = f"self, {written}{separator}{star}timeout: float | None = {default_timeout(call)}"
            lines += [
                f"    def {name}({parameters}) -> Joining[{result}]:",
                quoted(docstring(node, timeout=True), " " * 8),
                f"        return Joining({expression.removeprefix('await ')}, {result}._around)",
                "",
            ]
            return lines
        if raw in WRAPS:
            expression = f"{result}._around({expression})"
    elif kind == "wait":
        parameters = f"self, {written}" if written else "self"
        expression = flavour.call(f"self._wait(self._core.{name}, {passed})")
    else:
        parameters = f"self, {written}" if written else "self"
        if "Feed" in raw:
            lines += [f"    def {name}({parameters}) -> {result}:", quoted(docstring(node, timeout=False), " " * 8)]
            return [*lines, f"        return self._stream(self._core.{name}{', ' + passed if passed else ''})", ""]
        expression = f"{result}(self, {flavour.call(f'self._made(self._core.{name}, {passed})')})"
    lines += [
        f"    {flavour.define} {name}({parameters}) -> {result}:",
        quoted(docstring(node, timeout=kind == "verb"), " " * 8),
        f"        return {expression}" if result != "None" else f"        {expression}",
        "",
    ]
    return lines


def attribute(node: ast.AnnAssign, flavour: Flavour) -> list[str]:
    assert isinstance(node.target, ast.Name)
    name = node.target.id
    doc = getattr(node, "doc", "")
    if not doc:
        raise SystemExit(f"{name}: a public attribute without a docstring")
    if "RoomEventsCore" in ast.unparse(node.annotation):
        kind = f"{flavour.prefix}RoomEvents"
        value = f"{kind}(self, self._core.{name}.listen)"
    else:
        kind = translated(node.annotation, flavour)
        value = f"self._observable(self._core.{name})"
    return ["    @property", f"    def {name}(self) -> {kind}:", quoted(doc, " " * 8), f"        return {value}", ""]


def constructor(target: Target) -> list[str]:
    """Public parameters of the core's constructor: those without a leading underscore."""
    core = class_of(target.core)
    init = next(node for node in core.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    keep = [
        (arg, default)
        for arg, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        if not arg.arg.startswith("_") and arg.arg != "asynchronous"
    ]
    bare = ast.arguments(
        posonlyargs=[],
        args=init.args.args[1:],
        vararg=None,
        kwonlyargs=[arg for arg, _ in keep],
        kw_defaults=[default for _, default in keep],
        kwarg=None,
        defaults=init.args.defaults,
    )
    passed = [arg.arg for arg in init.args.args[1:]] + [f"{arg.arg}={arg.arg}" for arg, _ in keep]
    passed.append("asynchronous=ASYNCHRONOUS")
    doc = ast.get_docstring(init)
    if not doc:
        raise SystemExit(f"{target.core}.__init__: no docstring")
    return [
        f"    def __init__(self, {ast.unparse(bare)}) -> None:",
        quoted(doc, " " * 8),
        f"        core = {target.core}({', '.join(passed)})",
        "        self._core = core" + (NARROWS if target.extends else ""),
        "        self._core.publish_as(self)",
        *(["        self._core.public_of = _public"] if target.core == "ClientCore" else []),
        "",
    ]


def facade_class(target: Target, flavour: Flavour) -> list[str]:
    core = class_of(target.core)
    doc = ast.get_docstring(core) or ""
    lines = [
        f"class {target.name}({target.extends or flavour.facade}):",
        quoted(doc, "    "),
        "",
        f"    _core: {target.core}" + (NARROWS if target.extends else ""),
        "",
    ]
    if target.constructed:
        lines += constructor(target)
    for name, node in members(target).items():
        if isinstance(node, ast.AnnAssign):
            lines += attribute(node, flavour)
        else:
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            lines += method(node, flavour)
        if name == "wait_for_call":
            kind = f"{flavour.prefix}IncomingCalls"
            lines += [
                "    @property",
                f"    def incoming_calls(self) -> {kind}:",
                '        """The calls that ring for this identity; iteration ends when the client is closed."""',
                f"        return {kind}(self, self._core.wait_for_call)",
                "",
            ]
    if not target.extends:
        lines += [
            f"    {flavour.define} close(self) -> None:",
            '        """`dispose`, under the name Python has for it."""',
            f"        {flavour.call('self.dispose()')}",
            "",
        ]
    return lines


HEADER = '''"""{title}

Generated by ``scripts/generate_facades.py`` from the core classes in `utd_fsm.sessions`; change those and run it again.
Nothing is decided here: {how}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utd_fsm.facade import {imports}
from utd_fsm.models import (
    UTDCall,
    UTDCallPage,
    UTDCallStatus,
    UTDConnectionState,
    UTDParticipant,
    UTDRecording,
    UTDRole,
    UTDSeatMode,
    UTDSpeaker,
    UTDStreamType,
)
from utd_fsm.room_models import (
    UTDBan,
    UTDBanPage,
    UTDBroadcast,
    UTDHand,
    UTDInvitation,
    UTDRoleChange,
    UTDSeatGrid,
    UTDSpeakerRequest,
    UTDStageMember,
)
from utd_fsm.sessions.audio_room import AudioRoomSession
from utd_fsm.sessions.base import BaseSession
from utd_fsm.sessions.call import CallSession
from utd_fsm.sessions.client import ClientCore
from utd_fsm.sessions.engine_room import EngineRoomSession
from utd_fsm.sessions.live_stream import LiveStreamSession
from utd_fsm.sessions.room import RoomSession

if TYPE_CHECKING:
    from utd_fsm.media import AudioFrame, AudioSource, VideoFrame, VideoSource
    from utd_fsm.observable import {observable}
{streams}

__all__ = {names}

ASYNCHRONOUS = {awaits}

'''


PUBLIC = '''
def _public(core: BaseSession) -> UTDSession:
    """The public object of a session, of its own class."""
    if isinstance(core, CallSession):
        return UTDCallSession._around(core)
    if isinstance(core, LiveStreamSession):
        return UTDLiveStreamSession._around(core)
    if isinstance(core, AudioRoomSession):
        return UTDAudioRoomSession._around(core)
    return UTDSession._around(core)
'''


def generate(flavour: Flavour) -> str:
    imports = [flavour.facade, f"{flavour.prefix}IncomingCalls", f"{flavour.prefix}RoomEvents"]
    imports += [flavour.handles["RecorderCore"], flavour.handles["PlayingCore"]]
    streams = "    from utd_fsm.streams import Stream" if not flavour.awaits else ""
    if flavour.awaits:
        imports += ["Joining", "LateStream"]
    text = HEADER.format(
        title=flavour.title,
        how="each method posts to the loop thread and "
        + ("awaits, in the caller's loop." if flavour.awaits else "waits, in the caller's thread."),
        imports=", ".join(sorted(imports)),
        observable=flavour.handles["BaseObservable"],
        streams=streams,
        awaits=flavour.awaits,
        names=sorted(target.name for target in TARGETS),
    )
    for target in TARGETS:
        text += "\n".join(facade_class(target, flavour)) + "\n\n"
    text += PUBLIC
    return tidied(text, flavour)


def tidied(text: str, flavour: Flavour) -> str:
    """Formatted, imports sorted, the unused ones left out: with the project's own linter."""
    name = str(ROOT / "utd_fsm" / f"{flavour.module}.py")
    for command in (["check", "--select", "I,F401", "--fix", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", name, "-"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(f"ruff {command[0]}: {done.stderr or done.stdout}")
        text = done.stdout
    return text


def main() -> int:
    drifted = 0
    for flavour in (BLOCKING, AWAITABLE):
        path = ROOT / "utd_fsm" / f"{flavour.module}.py"
        text = generate(flavour)
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                print(f"{path.relative_to(ROOT)} has drifted from the core classes: run scripts/generate_facades.py")
                drifted = 1
        elif not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return drifted


if __name__ == "__main__":
    raise SystemExit(main())
