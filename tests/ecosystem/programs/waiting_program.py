"""Tasks that wait for each other, for somebody to look at from another process."""

from __future__ import annotations

import asyncio
import os

from chosen import answer, package_of, run


async def leaf(event: asyncio.Event) -> None:
    await event.wait()


async def branch(event: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(event), name="first leaf")
        group.create_task(leaf(event), name="second leaf")


async def main() -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    # The end of standard input is the end of the program.
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", 0))
    task = asyncio.create_task(branch(event), name="the branch")
    for _ in range(5):
        await asyncio.sleep(0)
    answer(package_of(loop))
    await reader.read()
    event.set()
    await task
    transport.close()


run(main())
