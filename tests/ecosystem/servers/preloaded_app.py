"""The plain application, for a server that imports it before it forks: a loop has been used by then, and stays open."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os

from asgi_app import app as app
from printing import say

module, _, attribute = os.environ["FACTORY"].partition(":")
loop = getattr(importlib.import_module(module), attribute)()
master = os.getpid()


async def connect() -> None:
    """Have the loop watch and send."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"preloaded")
        writer.write_eof()
        assert await reader.read() == b"preloaded"
        writer.close()
        await writer.wait_closed()


loop.run_until_complete(connect())
say(f"preloaded on {type(loop).__module__.partition('.')[0]}")


@atexit.register
def close() -> None:
    """At the end of the master, which is the process that the loop belongs to."""
    if os.getpid() == master:
        loop.run_until_complete(connect())
        loop.close()
        say("the master's loop still runs")
