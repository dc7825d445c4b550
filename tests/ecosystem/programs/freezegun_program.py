"""Timers on the loop while freezegun has stopped the clocks, and lets time pass by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import freezegun
from chosen import answer, package_of, run

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def main() -> dict[str, object]:
    loop = asyncio.get_running_loop()
    said: list[object] = []
    with freezegun.freeze_time(NOON) as clock:
        begun = loop.time()
        loop.call_later(60, said.append, "a minute")
        waiting = loop.create_task(asyncio.wait_for(loop.create_future(), 3600))
        await turns()
        for seconds in (59, 2, 3600):
            clock.tick(seconds)
            await turns()
            said.append([loop.time() - begun, waiting.done()])
    said.append(type(waiting.exception()).__name__)
    # Time goes on by itself again.
    await asyncio.sleep(0.001)
    return {"loop": package_of(loop), "said": said}


answer(run(main()))
