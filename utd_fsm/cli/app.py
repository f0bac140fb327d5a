"""The commands and their options. Each command's work stands in a module of its own."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="utd-fsm",
    help="Calls on the UTD stream engine and LiveKit, as declared state machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
demo = typer.Typer(
    help="Run a whole scenario with real media, and measure what each party heard.", no_args_is_help=True
)
app.add_typer(demo, name="demo")

MOST_PEOPLE = 30
"""Beside the host: a demonstration decodes everybody for everybody, in one process."""
MEDIA_HELP = "embedded, livekit-server, or the ws:// URL of one (keys in LIVEKIT_API_KEY and LIVEKIT_API_SECRET)."


class Verbosity(StrEnum):
    """How much is logged to stderr."""

    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


Media = Annotated[str, typer.Option(help=MEDIA_HELP)]
LogLevel = Annotated[Verbosity, typer.Option("--log", help="What is logged to stderr.")]


def configure_logging(level: Verbosity) -> None:
    """The command line is an application: it may configure logging, the library never does."""
    logging.basicConfig(
        stream=sys.stderr, level=level.value.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    for noisy in ("aioice", "aiortc", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if level is Verbosity.WARNING:
        # The native client reports every hang-up as channels that "closed unexpectedly".
        logging.getLogger("livekit").setLevel(logging.CRITICAL)


@app.command()
def engine(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 chooses a free one.")] = 8090,
    db: Annotated[Path | None, typer.Option(help="SQLite file; in memory unless given.")] = None,
    media: Media = "embedded",
    log: LogLevel = Verbosity.INFO,
) -> None:
    """Run the local engine, for development: until Ctrl-C. Prints what a client needs to reach it."""
    from utd_fsm.cli.engine import run_engine

    configure_logging(log)
    raise typer.Exit(run_engine(port=port, db=db, media=media))


@demo.command("call")
def demo_call(
    media: Media = "embedded",
    video: Annotated[bool, typer.Option("--video", help="A video call: each also watches the other.")] = False,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="How long they talk.")] = 3.0,
    record: Annotated[Path | None, typer.Option(help="A folder for what each party heard, as WAV files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object to stdout.")] = False,
    log: LogLevel = Verbosity.WARNING,
) -> None:
    """Two clients in two threads call each other: ring, answer, 440 Hz one way and 660 Hz the other, hang up."""
    from utd_fsm.cli.demo_call import run_demo_call

    configure_logging(log)
    raise typer.Exit(run_demo_call(media=media, video=video, seconds=seconds, record=record, as_json=as_json))


@demo.command("stream")
def demo_stream(
    viewers: Annotated[int, typer.Option(min=1, max=MOST_PEOPLE, help="How many watch; one comes on stage.")] = 3,
    media: Media = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object to stdout.")] = False,
    log: LogLevel = Verbosity.WARNING,
) -> None:
    """A live stream: a host, viewers, one of them on stage and off it again, each with a tone; who heard whom."""
    from utd_fsm.cli.demo_stream import run_demo_stream

    configure_logging(log)
    raise typer.Exit(run_demo_stream(media=media, viewers=viewers, as_json=as_json))


@demo.command("room")
def demo_room(
    seats: Annotated[int, typer.Option(min=4, max=100, help="How many seats; the first is the host's.")] = 8,
    listeners: Annotated[int, typer.Option(min=2, max=MOST_PEOPLE, help="How many come; up to three get a seat.")] = 4,
    media: Media = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object to stdout.")] = False,
    log: LogLevel = Verbosity.WARNING,
) -> None:
    """An audio room: requests, approval, invitation, kick, lock, swap, mute; and after each who heard whom."""
    from utd_fsm.cli.demo_room import run_demo_room

    configure_logging(log)
    raise typer.Exit(run_demo_room(media=media, seats=seats, listeners=listeners, as_json=as_json))


@app.command()
def diagram(
    write: Annotated[bool, typer.Option("--write", help="Write the pictures and tables of all machines.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when they differ from the classes.")] = False,
    folder: Annotated[Path, typer.Option(help="Where they stand.")] = Path("diagrams"),
    machine: Annotated[str | None, typer.Argument(help="Print this machine's picture as Mermaid text.")] = None,
) -> None:
    """Draw the declared machines: Mermaid pictures and transition tables, generated from the classes that run."""
    from utd_fsm.cli import diagram as drawing
    from utd_fsm.machines import ALL

    if machine is not None:
        cls = next((cls for cls in ALL if machine in (cls.__name__, drawing.slug(cls))), None)
        if cls is None:
            known = ", ".join(cls.__name__ for cls in ALL)
            typer.echo(f"no machine is called {machine!r}; there are {known}", err=True)
            raise typer.Exit(2)
        typer.echo(drawing.mermaid(cls))
    if write:
        for path in drawing.write(folder):
            typer.echo(f"wrote {path}")
    if check:
        drift = drawing.check(folder)
        for line in drift:
            typer.echo(line, err=True)
        if drift:
            raise typer.Exit(1)
        typer.echo(f"{folder}: as declared")
    if not (machine or write or check):
        typer.echo("\n".join(cls.__name__ for cls in ALL))
