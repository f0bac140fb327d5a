"""For MkDocs only: takes diagrams/ into the site, which stands beside docs/ and is linked as such from its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DIAGRAMS = Path(__file__).resolve().parent.parent / "diagrams"


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, as ``diagrams/<machine>.md``."""
    from mkdocs.structure.files import File

    for path in sorted(DIAGRAMS.glob("*.md")):
        name = "diagrams/" + ("index.md" if path.name == "README.md" else path.name)
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link that leaves docs/ for diagrams/ stays inside the site."""
    return markdown.replace("](../diagrams/README.md", "](diagrams/index.md").replace("](../diagrams/", "](diagrams/")
