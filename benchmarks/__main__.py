"""``python -m benchmarks [NAME …]``: runs all benchmarks, or those named, and prints one table."""

from __future__ import annotations

import importlib
import os
import sys
import time

ALL = (
    "portal_round_trip",
    "machine_step",
    "event_latency",
    "many_participants",
    "seat_grid_update",
    "call_setup",
    "join_audio_room",
    "idle_sessions",
    "idle_audio_rooms",
    "import_time",
)


def main() -> int:
    """Run and print."""
    names = sys.argv[1:] or list(ALL)
    if unknown := set(names) - set(ALL):
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}")
    print(f"{'what':60} {'ratio':>8}  figures")
    for name in names:
        began = time.monotonic()
        for row, ratio, note in importlib.import_module(f"benchmarks.{name}").run():
            print(f"{row:60} {ratio:8.3f}  {note}", flush=True)
        print(f"{'':60} {'':8}  ({name}: {time.monotonic() - began:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
