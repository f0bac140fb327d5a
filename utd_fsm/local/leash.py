"""``python -m utd_fsm.local.leash -- PROGRAM ARG…``: runs a foreign program that must not outlive whoever started it.

Prints ``pid N`` first, then what the program writes. The program ends when this process ends, however it ends (Linux:
even by SIGKILL), and when the parent of this process is gone. Its exit status is passed on. Single-threaded on
purpose: that is what makes running code between fork and exec safe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Final

PARENT_PID: Final = "UTD_PARENT_PID"
"""Environment variable: the process whose end is to be ours. Without it, whoever is the parent at the start."""
_PR_SET_PDEATHSIG: Final = 1
_POLL: Final = 0.2


def parent_pid() -> int:
    """The process we live with."""
    return int(os.environ.get(PARENT_PID) or os.getppid())


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: list[str]) -> int:
    """Run it; returns its exit status."""
    program = argv[1:] if argv[:1] == ["--"] else argv
    parent = parent_pid()
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; our parent decides what it means
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    sys.stdout.write(f"pid {child.pid}\n")
    sys.stdout.flush()
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(_POLL)
    return abs(int(child.returncode))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
