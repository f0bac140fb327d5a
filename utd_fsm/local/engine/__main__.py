"""``python -m utd_fsm.local.engine``: one engine, until SIGTERM. Prints one line, ``ready http://127.0.0.1:PORT``.

Settings come from the environment (``UTD_ENGINE_<FIELD>``, see `settings`); secrets only from there. Exit status 2 for
wrong settings, 3 if the port is taken.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from utd_fsm.errors import UTDInputError
from utd_fsm.scrub import scrub

from .settings import EngineSettings


class _Scrubbed(logging.Formatter):
    """No line of the log holds a token or a key, whoever wrote it."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utd_fsm.local.engine", description=__doc__)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, help="0 takes a free one")
    parser.add_argument("--db", help="an SQLite file, or :memory:")
    parser.add_argument("--media-url")
    parser.add_argument("--with-parent", action="store_true", help="stop when the process that started this one ends")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    handler = logging.StreamHandler()
    handler.setFormatter(_Scrubbed("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING, handlers=[handler])
    try:
        settings = EngineSettings.from_env(
            os.environ, host=given.host, port=given.port, db=given.db, media_url=given.media_url
        )
    except UTDInputError as error:
        sys.stderr.write(f"engine: {error}\n")
        return 2
    from .app import serve

    try:
        serve(settings, with_parent=given.with_parent)
    except OSError as error:
        sys.stderr.write(f"engine: cannot listen on {settings.host}:{settings.port}: {error.strerror}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
