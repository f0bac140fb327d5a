"""The command line: ``utd-fsm engine``, ``utd-fsm demo``, ``utd-fsm diagram``. Floor 7.

Needs the extra ``cli`` (and ``local`` for whatever runs an engine). With ``--json`` stdout is exactly one JSON object;
progress and logs go to stderr. The exit status is 0 only when what was promised was observed.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point ``utd-fsm``."""
    try:
        import rich  # noqa: F401 - asked for here so that one message names the mend
        import typer  # noqa: F401
    except ModuleNotFoundError as missing:
        sys.exit(f"utd-fsm: {missing.name} is not installed; install the extra: pip install 'utd-fsm[cli,local]'")
    from utd_fsm.cli.app import app

    app()
