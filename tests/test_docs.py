"""Every example in README.md and docs/ runs, every link leads somewhere, every command line is one there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from tests.doc_blocks import ROOT, Block, Stage, blocks_of, pages
from utd_fsm.machines import ALL, table
from utd_fsm.testing import LocalEngine, local_engine

BLOCKS = [block for page in pages() for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if block.not_run is None]
MOST_NOT_RUN = 4

MARKDOWN = [*pages(), *sorted((ROOT / "docs").glob("django.md")), *sorted((ROOT / "diagrams").glob("*.md"))]
MARKDOWN += [path for path in (ROOT / "CHANGELOG.md",) if path.exists()]


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with local_engine(media="embedded") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the sound that the pages play."""
    sound = (np.sin(np.arange(4800) * 2 * np.pi * 440 / 16_000) * 8000).astype("<i2")
    with wave.open(str(tmp_path / "hello.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(sound.tobytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.media
@pytest.mark.parametrize("block", [block for block in RUN if not block.is_test_file], ids=str)
def test_example_runs(block: Block, engine: LocalEngine, folder: Path) -> None:
    Stage(engine, block).run()


@pytest.mark.media
@pytest.mark.parametrize("block", [block for block in RUN if block.is_test_file], ids=str)
def test_test_file_passes(block: Block, folder: Path) -> None:
    """An example that is a test file is run as its reader would run it."""
    file = folder / "test_example.py"
    file.write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.media
@pytest.mark.parametrize(
    "code",
    [
        "assert call.status.value == 'ended'",
        (
            "from utd_fsm import signals\n"
            "def receive(*_, **__):\n    raise AssertionError('in a receiver')\n"
            "signals.call_status_changed.connect(receive)\ncall.end()\n"
        ),
        "import asyncio\nawait asyncio.sleep(0)\nassert call.status.value == 'ended'",
        "assert viewer.broadcast.value == 'waiting'",
        "assert lobby.seats.value.my_seat == 1",
    ],
    ids=["wrong", "wrong in a receiver", "wrong and awaited", "wrong in a stream", "wrong in a room"],
)
def test_an_example_that_is_wrong_fails(code: str, engine: LocalEngine, folder: Path) -> None:
    """The harness sees what a reader would see; otherwise all of the above would be worth nothing."""
    with pytest.raises((AssertionError, ExceptionGroup)):
        Stage(engine, Block("wrong.md", 1, "python", code, None)).run()


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_example_is_python(block: Block) -> None:
    block.compiled()


def test_few_examples_are_not_run() -> None:
    skipped = [f"{block}: {block.not_run}" for block in PYTHON if block.not_run is not None]
    assert len(skipped) <= MOST_NOT_RUN, skipped


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_page_begins_with_something_to_run(page: Path) -> None:
    if page.name in {"features.md", "django.md"}:
        return
    languages = [block.language for block in blocks_of(page) if block.language in {"python", "sh", "mermaid"}]
    assert languages, "no example"
    assert languages[0] in {"python", "sh"}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / unquote(path)).resolve() if path else page
        if not to.exists():
            broken.append(target)
        elif anchor and to.suffix == ".md" and anchor not in anchors(to):
            broken.append(f"{target} (there is no such heading)")
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    made = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"`|\*", "", heading).lower())
        made.add(plain.strip().replace(" ", "-"))
    return made


def command_lines() -> list[tuple[str, list[str]]]:
    """Each ``utd-fsm …`` line of the shell examples, as a list of arguments."""
    found = []
    for block in BLOCKS:
        if block.language not in {"sh", "console"}:
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            called = re.search(r"(?:^|[\s/])utd-fsm\s+(?P<rest>[^|>&#]*)", line)
            if called:
                found.append((f"{block}: {line.strip()[:60]}", shlex.split(called["rest"])))
    return found


@pytest.mark.parametrize(("where", "arguments"), command_lines(), ids=lambda value: value if value is str else None)
def test_command_line_is_one_there_is(where: str, arguments: list[str]) -> None:
    typer = pytest.importorskip("typer")
    from utd_fsm.cli.app import app

    command: Any = typer.main.get_command(app)
    rest = arguments
    while hasattr(command, "commands"):
        assert rest, where
        assert rest[0] in command.commands, where
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(command.name, list(rest), resilient_parsing=False)


def test_readme_shows_every_machine_as_it_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "diagrams").glob("*.mmd")}
    assert len(pictures) == len(ALL)
    for name, picture in pictures.items():
        assert readme.count(f"\n\n```mermaid\n{picture}```\n") == 1, f"{name}: run scripts/readme_diagram.py"
        assert f"(diagrams/{name}.md)" in readme
    assert readme.count("```mermaid") == len(pictures)


def test_machines_are_counted_right() -> None:
    """The numbers that are told on the page."""
    tables = [table(machine) for machine in ALL]
    states = sum(len(machine.states) for machine in ALL)
    told = f"{len(ALL)} machines, {states} states, {sum(map(len, tables))} edges"
    assert told in re.sub(r"\s+", " ", (ROOT / "docs" / "machines.md").read_text(encoding="utf-8"))


def test_readme_keeps_its_two_commands() -> None:
    """`.ci/run` reads them out of the page; each is one line, and needs nothing but Python and a network."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, last in (("demo", "utd-fsm demo call"), ("tests", "pytest -n 3 --dist loadfile")):
        command = re.search(rf"<!-- command: {name} -->\n```sh\n(.+)\n```\n", readme)
        assert command, name
        assert command[1].startswith("python3 -m venv .venv && ")
        assert command[1].endswith(last)


def test_every_example_is_named_in_the_docs() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    examples = [path.name for path in (ROOT / "examples").glob("*.py") if path.name != "options.py"]
    assert [name for name in examples if name not in text] == []


def test_nothing_names_a_machine_of_ours() -> None:
    """Pages are for everybody: no path of the machine they were written on."""
    pages = [*MARKDOWN, *(ROOT / "examples").glob("*.py")]
    told = [str(page) for page in pages if f"{ROOT.parent}/" in page.read_text()]
    assert not told
    assert os.sep == "/"
