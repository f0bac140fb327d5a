"""Puts the pictures of all machines into README.md, out of diagrams/; `--check` only says whether they are there.

Those of the call stand open, the others are folded away. Run it after `utd-fsm diagram --write`. Text in, text out:
nothing of the package is imported.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- diagrams: begin -->", "<!-- diagrams: end -->"
OPEN = ("outgoing_call", "incoming_call")
_ROW = re.compile(
    r"^\| \[(?P<name>\w+)\]\((?P<file>\w+)\.md\) \| (?P<states>\d+) \| (?P<edges>\d+) \| (?P<about>.+) \|$"
)


def section(row: re.Match[str], folder: Path) -> str:
    """One machine: what it is, its picture, and the way to its table."""
    name, file = row["name"], row["file"]
    size, to = f"{row['states']} states, {row['edges']} edges", f"[Table](diagrams/{file}.md)."
    picture = f"```mermaid\n{(folder / f'{file}.mmd').read_text(encoding='utf-8')}```\n"
    if file in OPEN:
        return f"### {name}\n\n{row['about']} {size}. {to}\n\n{picture}"
    # GitHub shows Markdown inside of HTML only after an empty line.
    return f"<details>\n<summary><b>{name}</b>: {row['about']}</summary>\n\n{size}. {to}\n\n{picture}\n</details>\n"


def with_diagrams(text: str, folder: Path) -> str:
    """The text with all machines of the folder between its two marks, in place of what stands there.

    Raises:
        ValueError: a mark is missing, or the folder's list does not name a picture that is there.
        FileNotFoundError: a machine of the list has no picture.
    """
    rows = [row for row in map(_ROW.match, (folder / "README.md").read_text(encoding="utf-8").splitlines()) if row]
    listed, drawn = {row["file"] for row in rows}, {path.stem for path in folder.glob("*.mmd")}
    if listed != drawn:
        raise ValueError(f"diagrams/README.md and the pictures differ in {sorted(listed ^ drawn)}")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md lacks {BEGIN} or {END}")
    rows.sort(key=lambda row: row["file"] not in OPEN)  # the call's first
    shown = "\n".join(section(row, folder) for row in rows)
    return f"{before}{begin}\n\n{shown}\n{end}{after}"


def main() -> int:
    before = README.read_text(encoding="utf-8")
    after = with_diagrams(before, ROOT / "diagrams")
    if before == after:
        print("README.md: as drawn")
        return 0
    if "--check" in sys.argv[1:]:
        print("README.md differs from diagrams/: run scripts/readme_diagram.py", file=sys.stderr)
        return 1
    README.write_text(after, encoding="utf-8")
    print("README.md: pictures replaced")
    return 0


if __name__ == "__main__":
    sys.exit(main())
