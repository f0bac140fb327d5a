"""Answer several calls at a time in one event loop, each as its own task, and speak to each caller.

    python examples/aio_bot.py --as desk-1 --as desk-2

The awaitable client has the members of the blocking one: verbs and waits are awaited, streams are async iterators.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from options import parse, parser

from utd_fsm import UTDCall, UTDStreamException
from utd_fsm.aio import UTDStreamClient
from utd_fsm.media import Tone


async def talk(phone: UTDStreamClient, incoming: UTDCall) -> None:
    """One call, from the ringing to its end."""
    async with phone.call_session(incoming.type) as call:
        await call.ringing(incoming)
        await call.accept(incoming)
        await call.play(Tone(880, seconds=0.5))
        frames = 0
        async for _ in call.listen():  # ends when the call does
            frames += 1
        over = await call.wait_until_ended()
        print(f"{phone.identity}: {over.call_id} {over.status}, heard {frames * 0.02:.1f} s", flush=True)


async def desk(given: argparse.Namespace, identity: str) -> None:
    """One identity, which holds one call at a time."""
    async with UTDStreamClient(given.app_id, given.app_key, base_url=given.engine) as phone:
        await phone.authenticate(identity)
        print(f"{identity} waits for calls", flush=True)
        number = 0
        async for incoming in phone.incoming_calls:
            number += 1
            try:
                await talk(phone, incoming)
            except UTDStreamException as error:
                print(f"{incoming.call_id}: {type(error).__name__}: {error}", flush=True)
            if number == given.calls:
                return


async def work(given: argparse.Namespace) -> None:
    async with asyncio.TaskGroup() as tasks:
        for identity in given.identities or ["bob"]:
            tasks.create_task(desk(given, identity))


def main() -> int:
    known = parser(__doc__)
    known.add_argument("--as", dest="identities", action="append", help="who answers; more than once for several")
    known.add_argument("--calls", type=int, default=0, help="each stops after so many; 0 goes on until Ctrl-C")
    asyncio.run(work(parse(known)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
