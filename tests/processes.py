"""Runs a piece of Python in a process of its own: for what ends, forks or interrupts an interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Forking with threads around is what these tests are about; Python 3.12 warns of it.
_COMMAND = (sys.executable, "-u", "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c")


def start_python(code: str) -> subprocess.Popen[str]:
    """Start ``code``; its output is read from ``stdout`` and ``stderr``, as text."""
    return subprocess.Popen(
        [*_COMMAND, textwrap.dedent(code)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str], timeout: float = 30.0) -> tuple[str, str]:
    """Wait for it to end with status 0; what it wrote to stdout and stderr. It is killed when it takes longer."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s\nstdout: {out}\nstderr: {err}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\nstdout: {out}\nstderr: {err}"
    return out, err


def run_python(code: str, timeout: float = 30.0) -> tuple[str, str]:
    """Run ``code`` to its end, which must come in time and with status 0; its stdout and stderr."""
    return finish(start_python(code), timeout)
