"""The drawn machines: complete, the same on every machine, and the same as what is kept in diagrams/."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from utd_fsm import machines
from utd_fsm.cli import diagram
from utd_fsm.errors import UTDInputError
from utd_fsm.machines import ALL, Broadcast, IncomingCall, Machine, OutgoingCall, Source, StageMember, table

EVERY = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
KEPT = Path(__file__).parents[2] / "diagrams"


def drawn(cls: type[Machine]) -> dict[tuple[str, str], str]:
    """The picture, read back: what each of its arrows says, those from the box expanded. (state, event) → state"""
    others = [state.id for state in cls.states if not state.final]
    edges: dict[tuple[str, str], str] = {}
    for source, target, label in re.findall(r"^ *(\w+) --> (\w+) : (.*)$", diagram.mermaid(cls), re.MULTILINE):
        words = label.split("<br/>")
        without = {word.removeprefix("unless ") for word in words if word.startswith("unless ")}
        sources = set(others) - without - {target} if source in {"not_over", "any_state"} else {source}
        for state in sources:
            for event in words:
                if not event.startswith("unless "):
                    assert (state, event) not in edges, "drawn twice"
                    edges[state, event] = target
    return edges


@EVERY
def test_the_picture_has_every_edge_that_changes_anything_and_no_other(cls: type[Machine]) -> None:
    assert drawn(cls) == {key: target for key, target in table(cls).items() if key[0] != target}


@EVERY
def test_the_picture_marks_what_is_first_and_what_is_pending_and_final(cls: type[Machine]) -> None:
    lines = [line.strip() for line in diagram.mermaid(cls).splitlines()]
    styled = {line.split()[2]: set(line.split()[1].split(",")) for line in lines if line.startswith("class ")}
    assert f"[*] --> {next(state.id for state in cls.states if state.initial)}" in lines
    assert styled.get("pending", set()) == cls.PENDING
    assert styled.get("final", set()) == {state.id for state in cls.states if state.final}
    marked = styled.get("pending", set()) | styled.get("final", set()) | styled["steady"]
    assert marked == {state.id for state in cls.states}


@EVERY
def test_the_table_has_every_edge_with_cause_and_meaning(cls: type[Machine]) -> None:
    head, _, *rows = diagram.transition_table(cls).splitlines()
    assert head == "| source | event | guard | target | who causes it | what it means |"
    read = {}
    for row in rows:
        source, event, guard, target, by, means = (cell.strip("` ") for cell in row.strip("|").split(" | "))
        assert guard == "none"
        assert by
        assert means
        assert ("nothing changes" in means) == (source == target)
        read[source, event] = target
    assert read == dict(table(cls))
    assert len(rows) == len(read)


def test_a_row_says_who_and_what() -> None:
    rows = diagram.transition_table(OutgoingCall).splitlines()
    assert "| `idle` | `dial` | none | `dialing` | application: start() | a call is wished for |" in rows
    assert (
        "| `ending` | `saw_active` | none | `ending` | engine | the callee answered; "
        "nothing changes, what is under way goes on |"
    ) in rows


def test_a_page_has_the_rules_the_states_the_picture_and_the_table() -> None:
    page = diagram.page(IncomingCall)
    assert "before the answer a callee never sends end" in page
    assert "| `elsewhere` | final | `ended` | another device of the callee answered |" in page
    assert "| `accepting` | pending | what was shown before | accept sent |" in page
    assert diagram.mermaid(IncomingCall) in page
    assert diagram.transition_table(IncomingCall) in page


def test_what_nearly_every_state_leads_to_is_one_arrow() -> None:
    assert "    any_state --> on_stage : saw_on_stage<br/>unless stepping_down" in diagram.mermaid(StageMember)
    assert "    not_over --> over : saw_over" in diagram.mermaid(Broadcast)
    assert "any_state" not in diagram.mermaid(Source)
    for cls in ALL:
        assert diagram.mermaid(cls).count(" --> ") <= 25, f"{cls.__name__}: more arrows than anybody follows"


def test_files_are_named_after_the_machines() -> None:
    assert diagram.slug(IncomingCall) == "incoming_call"
    assert diagram.slug(Source) == "source"
    assert set(diagram.contents()) == {"README.md"} | {
        f"{name}.{kind}"
        for name in (
            *("call_record", "outgoing_call", "incoming_call", "connection", "source"),
            *("stage_record", "stage_member", "broadcast", "seat", "speaker_record", "speaker"),
        )
        for kind in ("md", "mmd")
    }


def test_what_is_kept_is_what_runs() -> None:
    assert diagram.check(KEPT) == [], "write the diagrams again: utd-fsm diagram --write"


def test_the_text_is_the_same_under_every_hash_seed() -> None:
    code = "from utd_fsm.cli import diagram; print(sorted(diagram.contents().items()))"
    digests = set()
    for seed in ("0", "1", "2", "random"):
        run = [sys.executable, "-c", code]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(KEPT.parent), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(run, check=True, capture_output=True, timeout=60, env=env)
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1


def test_writing_leaves_no_drift_and_writes_nothing_twice(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "diagrams"
    assert diagram.check(folder) == sorted(f"{name}: missing" for name in diagram.contents())
    assert diagram.write(folder) == sorted(diagram.contents())
    assert diagram.check(folder) == []
    assert diagram.write(folder) == []


def test_drift_is_told_and_mended(tmp_path: Path) -> None:
    diagram.write(tmp_path)
    (tmp_path / "source.md").unlink()
    changed = tmp_path / "connection.mmd"
    changed.write_text(changed.read_text(encoding="utf-8") + "    connected --> nowhere\n", encoding="utf-8")
    (tmp_path / "stage.mmd").write_bytes((tmp_path / "source.mmd").read_bytes())
    assert diagram.check(tmp_path) == ["connection.mmd: changed", "source.md: missing", "stage.mmd: surplus"]
    assert diagram.write(tmp_path) == ["connection.mmd", "source.md", "stage.mmd"]
    assert diagram.check(tmp_path) == []


def test_a_changed_machine_is_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagram.write(tmp_path)
    monkeypatch.setattr(machines, "ALL", ALL[:-1])
    assert diagram.check(tmp_path) == ["README.md: changed", "speaker.md: surplus", "speaker.mmd: surplus"]


def test_what_was_not_generated_is_told_but_never_touched(tmp_path: Path) -> None:
    diagram.write(tmp_path)
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert diagram.check(tmp_path) == ["notes.md: surplus"]
    assert diagram.write(tmp_path) == []
    assert (tmp_path / "notes.md").read_text(encoding="utf-8") == "mine"


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project", encoding="utf-8")
    with pytest.raises(UTDInputError, match=r"README\.md, which was not generated"):
        diagram.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
