"""In-process rows: pipes, and children with pipes.

They are run and reported with those of `benchmarks.scheduling`.
"""

from __future__ import annotations

import asyncio
import os

Loop = asyncio.AbstractEventLoop

#: What a pipe holds, in bytes, and so what one write moves at most.
CHUNK = 64 * 1024


class Writer(asyncio.BaseProtocol):
    """Knows whether to write."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class Counter(asyncio.Protocol):
    """Counts what comes in, until there is no more."""

    def __init__(self) -> None:
        self.received = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended.set_result(None)


def spawn(loop: Loop) -> int:
    """Children that end at once, with three pipes each, one after the other."""
    children = 100

    async def run() -> None:
        for _ in range(children):
            child = await asyncio.create_subprocess_exec("/bin/true", stdin=-1, stdout=-1, stderr=-1)
            await child.communicate()
            if child.returncode != 0:
                raise RuntimeError(f"a child ended with {child.returncode}")

    loop.run_until_complete(run())
    return children


def pipe_throughput(loop: Loop) -> int:
    """Chunks of 64 KiB written to a pipe as flow control lets, and read from it by the same loop."""
    chunks = 4_000
    data = bytes(CHUNK)

    async def move() -> int:
        read, write = os.pipe()
        _, reading = await loop.connect_read_pipe(Counter, os.fdopen(read, "rb", 0))
        writer, writing = await loop.connect_write_pipe(Writer, os.fdopen(write, "wb", 0))
        for _ in range(chunks):
            await writing.writable.wait()
            writer.write(data)
        writer.close()
        await reading.ended
        return reading.received

    if loop.run_until_complete(move()) != chunks * CHUNK:
        raise RuntimeError("not all that was written was read")
    return chunks


def pipe_ping_pong(loop: Loop) -> int:
    """One byte to and fro over two pipes, by stream readers."""
    rounds = 20_000

    async def connect() -> tuple[asyncio.StreamReader, asyncio.WriteTransport]:
        read, write = os.pipe()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0))
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
        return reader, writer

    async def play() -> None:
        (there, to_there), (back, to_back) = await connect(), await connect()

        async def answer() -> None:
            for _ in range(rounds):
                to_back.write(await there.read(1))

        task = loop.create_task(answer())
        for _ in range(rounds):
            to_there.write(b"x")
            if await back.read(1) != b"x":
                raise RuntimeError("the answer was another")
        await task
        to_there.close()
        to_back.close()
        await asyncio.gather(there.read(), back.read())

    loop.run_until_complete(play())
    return rounds
