"""Puts the picture of the call machine into README.md, out of diagrams/; `--check` only says whether it is there.

Run it after `utd-fsm diagram --write`. Text in, text out: nothing of the package is imported.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
_PLACE = re.compile(r"(<!-- diagram: (\w+) -->\n)(?:\n?```mermaid\n.*?```\n)?", re.DOTALL)


def with_diagrams(text: str, folder: Path) -> str:
    """The text with the picture of each machine that it names, in place of the one it holds.

    Raises:
        FileNotFoundError: it names a machine that has no picture.
    """

    def fresh(place: re.Match[str]) -> str:
        picture = (folder / f"{place[2]}.mmd").read_text(encoding="utf-8")
        return f"{place[1]}\n```mermaid\n{picture}```\n"

    return _PLACE.sub(fresh, text)


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
    print("README.md: picture replaced")
    return 0


if __name__ == "__main__":
    sys.exit(main())
