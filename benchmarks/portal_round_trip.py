"""What a blocking call costs on its way to the loop thread and back, against anyio's BlockingPortal.

Both in one process and one run, in alternating slices, so that whatever else the machine does hits both. The ratio is
of the medians of the slices. The aim is 1.0 at most: no slower.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable

from anyio.from_thread import start_blocking_portal

from utd_fsm.portal import portal

SLICES = 20
CALLS = 500
THREADS = 8


async def _nothing() -> int:
    return 1


async def _a_tick() -> int:
    await asyncio.sleep(0)
    return 1


def _alone(call: Callable[[], int]) -> float:
    """Seconds a call takes one thread."""
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begin) / CALLS


def _crowded(call: Callable[[], int]) -> float:
    """Seconds a call takes when eight threads call at once, by the throughput of all."""
    barrier = threading.Barrier(THREADS + 1)

    def work() -> None:
        barrier.wait()
        for _ in range(CALLS // THREADS):
            call()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begin) / (CALLS // THREADS * THREADS)


def run() -> list[tuple[str, float, str]]:
    """(name, ours divided by theirs, the medians) for each way of calling."""
    rows: list[tuple[str, float, str]] = []
    ours = portal()
    lease = ours.hold()
    try:
        with start_blocking_portal() as theirs:
            work: Callable[[], Awaitable[int]]
            for name, measure, work in (
                ("portal round trip, one thread", _alone, _nothing),
                ("portal round trip, one thread, one tick of the loop", _alone, _a_tick),
                (f"portal round trip, {THREADS} threads at once", _crowded, _nothing),
            ):

                def through_ours(work: Callable[[], Awaitable[int]] = work) -> int:
                    return ours.call(work, timeout=30.0, what="the benchmark")

                def through_theirs(work: Callable[[], Awaitable[int]] = work) -> int:
                    return theirs.call(work)

                measure(through_ours)  # warm both
                measure(through_theirs)
                samples = [(measure(through_ours), measure(through_theirs)) for _ in range(SLICES)]
                a, b = (statistics.median(sample[i] for sample in samples) for i in (0, 1))
                rows.append((name, a / b, f"{a * 1e6:.0f} µs against {b * 1e6:.0f} µs (anyio's BlockingPortal)"))
    finally:
        lease.release()
    return rows


if __name__ == "__main__":
    for name, ratio, note in run():
        print(f"{name:<55} {ratio:5.2f}  {note}")
