"""``python -m utd_fsm.local.media_server``: the media server as a child process.

Prints exactly one line on stdout, ``ready http://127.0.0.1:<port>``, once it listens; logs go to stderr. Ends within a
second of SIGTERM or SIGINT. Key and secret come from the environment (``UTD_MEDIA_KEY``, ``UTD_MEDIA_SECRET``) or, with
``--config-stdin``, as one JSON object ``{"key": …, "secret": …}`` on stdin: never on the command line, which everybody
on the machine can read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence

from utd_fsm.local.leash import parent_pid

_PARENT_POLL = 0.25


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utd_fsm.local.media_server",
        description="A LiveKit-compatible media server for development and tests: loopback, one process.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    parser.add_argument("--media-host", default="127.0.0.1", help="address media is received on (default: %(default)s)")
    parser.add_argument("--key", default=None, help="API key (default: environment variable UTD_MEDIA_KEY)")
    parser.add_argument(
        "--secret-env",
        default="UTD_MEDIA_SECRET",
        metavar="NAME",
        help="environment variable that holds the secret (default: %(default)s)",
    )
    parser.add_argument("--config-stdin", action="store_true", help='read {"key": …, "secret": …} from stdin instead')
    parser.add_argument("--webhook-url", default=None, help="where LiveKit's webhooks go (default: nowhere)")
    parser.add_argument("--remote-unmute", action="store_true", help="allow MutePublishedTrack to unmute")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to stderr")
    return parser.parse_args(argv)


def _credentials(arguments: argparse.Namespace) -> tuple[str, str]:
    """Key and secret; the environment does not keep the secret."""
    key = arguments.key or os.environ.get("UTD_MEDIA_KEY", "")
    secret = os.environ.pop(arguments.secret_env, "")
    if arguments.config_stdin:
        config = json.loads(sys.stdin.readline() or "{}")
        key, secret = str(config.get("key") or key), str(config.get("secret") or secret)
    if not key or not secret:
        sys.exit(
            "media server: key or secret is missing; set UTD_MEDIA_KEY and UTD_MEDIA_SECRET in the environment, "
            "or give both as JSON on stdin with --config-stdin"
        )
    return key, secret


async def _serve(arguments: argparse.Namespace, key: str, secret: str) -> None:
    from .server import MediaServer

    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    server = MediaServer(
        key=key,
        secret=secret,
        webhook_url=arguments.webhook_url,
        remote_unmute=arguments.remote_unmute,
        media_host=arguments.media_host,
    )
    parent = parent_pid()
    try:
        url = await server.start(arguments.host, arguments.port)
    except OSError as error:
        sys.exit(f"media server: cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}")
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()
    while not done.is_set():
        try:
            await asyncio.wait_for(done.wait(), _PARENT_POLL if arguments.with_parent else None)
        except TimeoutError:
            if os.getppid() != parent:
                break
    await server.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs until a signal, or until the parent is gone. Must be called on the main thread."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if arguments.verbose:
        logging.getLogger("utd_fsm").setLevel(logging.DEBUG)
    # aioice and aiortc log every packet's fate at their lower levels
    for name in ("aioice", "aiortc", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    asyncio.run(_serve(arguments, *_credentials(arguments)))


if __name__ == "__main__":
    main()
