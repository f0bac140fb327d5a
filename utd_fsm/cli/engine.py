"""``utd-fsm engine``: the local engine in the foreground, with its media server beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from utd_fsm import wire
from utd_fsm.errors import UTDStreamException
from utd_fsm.local.engine.app import serve
from utd_fsm.local.engine.settings import EngineSettings
from utd_fsm.local.ports import free_port
from utd_fsm.local.processes import ExternalMedia, MediaProcess


def media_server(kind: str, webhook_url: str) -> MediaProcess | ExternalMedia:
    """The media server that an option names: one to start, or one that runs already."""
    if "://" in kind:
        return ExternalMedia(kind, os.environ.get("LIVEKIT_API_KEY"), os.environ.get("LIVEKIT_API_SECRET"))
    return MediaProcess(kind, webhook_url=webhook_url)


def run_engine(*, port: int, db: Path | None, media: str) -> int:
    """Serve until a signal comes.

    Returns:
        The exit status.
    """
    console = Console(stderr=True, highlight=False)
    port = port or free_port()
    try:
        server = media_server(media, f"http://127.0.0.1:{port}{wire.PREFIX}{wire.MEDIA_WEBHOOK}")
        settings = EngineSettings.from_env(
            os.environ,
            port=port,
            db=str(db) if db else ":memory:",
            media_url=server.url,
            livekit_key=server.key,
            livekit_secret=server.secret,
            sole_owner=isinstance(server, MediaProcess),
        )
        server.start()
    except UTDStreamException as error:
        console.print(f"utd-fsm engine: {error}")
        return 2
    try:
        console.print(f"[bold]engine[/]   http://127.0.0.1:{port}   (documentation: /docs)")
        console.print(f"[bold]media[/]    {server.url}   ({media})")
        console.print(f"[bold]calls[/]    {db or 'kept in memory, gone with the process'}")
        # Each on one line however narrow the terminal: they are there to be copied.
        made = f'UTDStreamClient("{settings.app_id}", "{settings.app_key}", base_url="http://127.0.0.1:{port}")'
        console.print(f"[bold]python[/]   {made}", soft_wrap=True)
        exported = f"UTD_ENGINE_URL=http://127.0.0.1:{port} UTD_APP_ID={settings.app_id} UTD_APP_KEY={settings.app_key}"
        console.print(f"[bold]shell[/]    export {exported}", soft_wrap=True)
        serve(settings)
    except OSError as error:
        console.print(f"utd-fsm engine: cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another --port")
        return 3
    finally:
        server.stop()
        sys.stdout.flush()
    return 0
