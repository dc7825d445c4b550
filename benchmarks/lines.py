"""An in-process row: lines, read from a stream one by one.

It is run and reported with those of `benchmarks.scheduling`.
"""

from __future__ import annotations

import asyncio
import socket
import threading

Loop = asyncio.AbstractEventLoop

LINE = b"a line of some forty bytes, as logs have.\n"


def stream_lines(loop: Loop, count: int = 200_000) -> int:
    """`StreamReader.readline` over a socket that a thread fills as fast as it is emptied."""
    near, far = socket.socketpair()

    async def read() -> None:
        reader, writer = await asyncio.open_connection(sock=near)
        for _ in range(count):
            if await reader.readline() != LINE:
                raise RuntimeError("a line was not read as it was written")
        writer.close()

    with far:
        thread = threading.Thread(target=far.sendall, args=(LINE * count,))
        thread.start()
        loop.run_until_complete(read())
        thread.join()
    return count
