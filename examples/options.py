"""What every example is told on its command line: which engine, and as whom.

Each option has an environment variable, so that one ``export`` serves a whole terminal.
"""

from __future__ import annotations

import argparse
import logging
import os

from utd_fsm import UTDStreamClient

# What `utd-fsm engine` uses unless it is told otherwise.
URL = "http://127.0.0.1:8090"
APP_ID = "1234567890"
APP_KEY = "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``--engine``, ``--app-id``, ``--app-key`` and ``--verbose``."""
    made = argparse.ArgumentParser(
        description=(about or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--engine", default=os.environ.get("UTD_ENGINE_URL", URL), help="root of the engine's URL")
    made.add_argument("--app-id", default=os.environ.get("UTD_APP_ID", APP_ID), help="ten digits")
    made.add_argument("--app-key", default=os.environ.get("UTD_APP_KEY", APP_KEY), help="publishable key")
    made.add_argument("--verbose", action="store_true", help="log what the SDK does")
    return made


def parse(known: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and configure logging: the library never does."""
    given = known.parse_args()
    if not given.verbose:
        logging.getLogger("livekit").setLevel(logging.CRITICAL)  # it says ERROR when a call ends while it is set up
    logging.basicConfig(
        level=logging.INFO if given.verbose else logging.WARNING, format="%(asctime)s %(name)s: %(message)s"
    )
    return given


def client(given: argparse.Namespace) -> UTDStreamClient:
    """A client for that engine; nobody is signed in yet."""
    return UTDStreamClient(given.app_id, given.app_key, base_url=given.engine)
