"""What ``import utd_fsm`` costs: a fresh interpreter with it, against one without. The aim is 0.15 s."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 11
AIM = 0.15


def _seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def run() -> list[tuple[str, float, str]]:
    """(name, seconds divided by the aim, the figures)."""
    with_it, without, client = [], [], []
    for _ in range(ROUNDS):
        without.append(_seconds("pass"))
        with_it.append(_seconds("import utd_fsm"))
        client.append(_seconds("from utd_fsm import UTDStreamClient"))
    took = statistics.median(with_it) - statistics.median(without)
    whole = statistics.median(client) - statistics.median(without)
    note = f"{took * 1000:.0f} ms (with the client class {whole * 1000:.0f} ms); the ratio is to the aim, {AIM} s"
    return [("import utd_fsm", took / AIM, note)]


if __name__ == "__main__":
    for name, ratio, note in run():
        print(f"{name:44} {ratio:8.4f}  {note}")
