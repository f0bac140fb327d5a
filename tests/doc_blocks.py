"""Finds the examples in README.md and docs/, and runs one as a reader would, with the names around it prepared.

A block may use names it does not define; they are what the page's reader has at that point:

- ``ENGINE``, ``APP_ID``, ``APP_KEY``: a local engine; ``engine`` is the `LocalEngine` itself.
- ``client``: a client that is signed in as alice. ``call``: an active audio call of hers with bob, who says 660 Hz;
  ``video_call``: the same with pictures. ``incoming``: a call of carol's that rings for her.
- ``URL``, ``TOKEN``: the way into a media room, as its host. ``room``: a `UTDRoom` that is in it.
- ``live``, ``viewer``: the sessions of a stream's host and of vera, who watches. ``lobby``, ``listener``: those of the
  host of an audio room, who sits, and of vera, who listens.

Where a block awaits, they are the awaitable ones. Where it calls bob, dan (busy) or eve (rejects), that peer is there;
where it waits for calls, carol calls, and closes the block's client after her last call, which ends the loop. Where it
joins a live stream or an audio room, `doc_cast` gives it company.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
import secrets
import threading
import types
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.doc_cast import Cast, prepared
from utd_fsm import UTDRoom, UTDStreamException, UTDStreamType, aio
from utd_fsm.media import TestPattern, Tone
from utd_fsm.testing import LocalEngine, strict_signals

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"(?ms)^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$")
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]+?) -->\s*\Z")
CALLS_LAST = 1.0


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_test_file(self) -> bool:
        return re.search(r"^def test_", self.code, re.MULTILINE) is not None

    def compiled(self) -> types.CodeType:
        filler = "\n" * (self.line - 1)  # so that a traceback shows the page's own line
        code = compile(filler + self.code, self.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        assert isinstance(code, types.CodeType)
        return code

    def names(self) -> set[str]:
        """The names it uses and does not make itself."""
        used: set[str] = set()
        made: set[str] = set()
        for node in ast.walk(ast.parse(self.code)):  # a top-level await parses
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
            elif isinstance(node, ast.alias):
                made.add((node.asname or node.name).split(".")[0])
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                made.add(node.name)
        return used - made


def pages() -> list[Path]:
    """The pages whose examples are run. docs/django.md has a test of its own, under a Django project."""
    return [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "django.md")]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("code")) + 1
        mark = _NOT_RUN.search(text, 0, match.start())
        name = str(page.relative_to(ROOT))
        found.append(Block(name, line, match["language"], code, mark["reason"] if mark else None))
    return found


class Stage:
    """What stands around one block while it runs."""

    def __init__(self, engine: LocalEngine, block: Block) -> None:
        self.engine = engine
        self.block = block
        self.wants = block.names()
        self.names: dict[str, Any] = {
            "__name__": f"page_{block.line}",
            "ENGINE": engine.base_url,
            "APP_ID": engine.app_id,
            "APP_KEY": engine.app_key,
            "engine": engine,
        }
        if {"URL", "TOKEN", "room"} & self.wants:
            self.names["URL"], self.names["TOKEN"] = self._way_in("alice")

    def run(self) -> None:
        """Run the block to its end.

        Raises:
            Whatever the block raises, and what receivers raised on the signals thread.
        """
        code = self.block.compiled()
        with strict_signals(), ExitStack() as stack:
            self._peers(stack)
            stack.enter_context(Cast(self.engine, self.block.code).present())
            if code.co_flags & inspect.CO_COROUTINE:
                stack.enter_context(self._caller(None))
                asyncio.run(self._run_async(types.FunctionType(code, self.names)))
                return
            self._prepare(stack)
            stack.enter_context(self._caller(self.names.get("client")))
            exec(code, self.names)

    def _peers(self, stack: ExitStack) -> None:
        text = self.block.code
        if "call" in self.wants or "video_call" in self.wants or re.search(r"start\(\s*\"bob\"", text):
            picture = TestPattern(320, 240, 15)
            stack.enter_context(self.engine.peer("bob", microphone=Tone(660), camera=picture))
        if '"dan"' in text:
            stack.enter_context(self.engine.peer("dan", on_call="busy"))
        if '"eve"' in text:
            stack.enter_context(self.engine.peer("eve", on_call="reject"))

    def _prepare(self, stack: ExitStack) -> None:
        names = self.names
        if {"client", "call", "video_call", "incoming"} & self.wants:
            client = names["client"] = stack.enter_context(self.engine.client())
            client.authenticate("alice", name="Alice")
            for name, kind in (("call", UTDStreamType.AUDIO_CALL), ("video_call", UTDStreamType.VIDEO_CALL)):
                if name in self.wants:
                    call = names[name] = stack.enter_context(client.call_session(kind))
                    call.start("bob")
                    assert call.wait_for_answer() == "active"
        names.update(prepared(self.engine, self.wants, stack))
        if "incoming" in self.wants:
            names["incoming"] = self._ring(stack)
        if "room" in self.wants:
            room = names["room"] = stack.enter_context(UTDRoom())
            room.connect(names["URL"], names["TOKEN"])

    def _ring(self, stack: ExitStack) -> Any:
        caller = stack.enter_context(self.engine.client())
        caller.authenticate("carol", name="Carol")
        session = stack.enter_context(caller.call_session(UTDStreamType.AUDIO_CALL, microphone=Tone(330)))
        return session.start("alice", callee_name="Alice")

    async def _run_async(self, block: types.FunctionType) -> None:
        names = self.names
        async with AsyncExitStack() as stack:
            if {"client", "call"} & self.wants:
                client = aio.UTDStreamClient(self.engine.app_id, self.engine.app_key, base_url=self.engine.base_url)
                names["client"] = await stack.enter_async_context(client)
                await client.authenticate("alice", name="Alice")
                if "call" in self.wants:
                    call = await stack.enter_async_context(client.call_session(UTDStreamType.AUDIO_CALL))
                    await call.start("bob")
                    await call.wait_for_answer()
                    names["call"] = call
            if "room" in self.wants:
                names["room"] = await stack.enter_async_context(aio.UTDRoom())
                await names["room"].connect(names["URL"], names["TOKEN"])
            await block()

    @contextlib.contextmanager
    def _caller(self, client: Any) -> Iterator[None]:
        """Carol, where the block waits for calls: she calls once, talks, hangs up, and closes the block's client."""
        if not re.search(r"incoming_calls|wait_for_call|incoming_call\b", self.block.code):
            yield
            return
        signs_in = re.search(r"authenticate\(\s*\"(\w+)\"", self.block.code)
        callee = signs_in[1] if signs_in else "alice"
        failed: list[BaseException] = []

        def place() -> None:
            try:
                with self.engine.client() as carol:
                    carol.authenticate("carol", name="Carol")
                    with carol.call_session(UTDStreamType.AUDIO_CALL, microphone=Tone(330)) as call:
                        call.start(callee)
                        call.wait_for_answer(timeout=30)
                        with contextlib.suppress(UTDStreamException):
                            call.wait_until_ended(timeout=CALLS_LAST)
            except BaseException as error:  # told in the block's own thread
                failed.append(error)
            finally:
                answering = self.names.get("client", client)
                if isinstance(answering, aio.UTDStreamClient):
                    asyncio.run(answering.dispose())
                elif answering is not None:
                    answering.close()

        thread = threading.Thread(target=place, name="carol")
        thread.start()
        try:
            yield
        finally:
            thread.join(60)
        assert not failed, failed
        assert not thread.is_alive()

    def _way_in(self, identity: str) -> tuple[str, str]:
        answer = requests.post(
            f"{self.engine.base_url}/api/v1/token",
            json={
                "identity": identity,
                "room_name": f"room-{secrets.token_hex(4)}",
                "type": "live_stream",
                "role": "host",
                "room_owner_id": identity,
            },
            headers={"X-App-Id": self.engine.app_id, "X-App-Key": self.engine.app_key},
            timeout=10,
        )
        answer.raise_for_status()
        return answer.json()["url"], answer.json()["token"]
