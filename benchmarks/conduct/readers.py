"""Checks of streams: that they are asyncio's, and what reading from them does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from benchmarks.conduct.check import READERS, Loop, check, demand, expect, pass_turns, run, settle
from benchmarks.conduct.ends import PATIENCE

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]


@contextlib.asynccontextmanager
async def streams(**options: Any) -> AsyncIterator[Streams]:
    """What `asyncio.open_connection` makes of a socket, and the other end of it, which is a blocking one."""
    near, far = socket.socketpair()
    far.settimeout(PATIENCE)
    with far:
        reader, writer = await asyncio.open_connection(sock=near, **options)
        try:
            yield reader, writer, far
        finally:
            writer.transport.abort()
            await pass_turns(3)


@check(*READERS)
def streams_are_asyncios(loop: Loop) -> None:
    """`asyncio.open_connection` answers an `asyncio.StreamReader` and an `asyncio.StreamWriter`."""

    async def main() -> None:
        async with streams() as (reader, writer, _):
            for stream, wanted in ((reader, asyncio.StreamReader), (writer, asyncio.StreamWriter)):
                kind = type(stream)
                demand(isinstance(stream, wanted), f"it is a {kind.__module__}.{kind.__name__}, no {wanted.__name__}")

    run(loop, main())


@check(*READERS)
def reads_are_coroutines(loop: Loop) -> None:
    """What reads from a stream is a coroutine: a task can be made of it."""

    async def main() -> None:
        async with streams() as (reader, _, far):
            far.send(b"a line\nthe rest")
            for read, wanted in ((reader.readline, b"a line\n"), (lambda: reader.readexactly(8), b"the rest")):
                demand(asyncio.iscoroutine(reading := read()), f"it is a {type(reading).__name__}")
                expect(await loop.create_task(reading), wanted, "what was read")

    run(loop, main())


@check(*READERS)
def patched_readers_are_used(loop: Loop) -> None:
    """A tool that has replaced methods of `asyncio.StreamReader` sees them called: tracing and mocking live by it."""
    called: list[str] = []
    names = ("feed_data", "feed_eof", "readline", "readuntil", "read")
    for name in names:
        setattr(asyncio.StreamReader, name, noting(called, name, getattr(asyncio.StreamReader, name)))

    async def main() -> None:
        async with streams() as (reader, _, far):
            far.send(b"a line\nthe rest")
            far.shutdown(socket.SHUT_WR)
            expect(await reader.readline(), b"a line\n", "the line")
            expect(await reader.read(), b"the rest", "the rest")

    run(loop, main())
    missing = [name for name in names if name not in called]
    demand(not missing, f"not called: {', '.join(missing)}")


def noting(called: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that notes that it was called."""

    def replaced(self: object, *arguments: Any, **named: Any) -> Any:
        called.append(name)
        return method(self, *arguments, **named)

    return replaced


@check(*READERS)
def readers_of_ones_own_are_used(loop: Loop) -> None:
    """A `StreamReader` of one's own has its methods called, and so has the protocol that feeds it."""

    class Reader(asyncio.StreamReader):
        def feed_data(self, data: Any) -> None:
            super().feed_data(data.upper())

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data + b"!\n")

    async def main() -> None:
        near, far = socket.socketpair()
        with far:
            reader = Reader(loop=loop)
            transport, _ = await loop.create_connection(lambda: Protocol(reader, loop=loop), sock=near)
            far.send(b"a line")
            expect(await reader.readline(), b"A LINE!\n", "what was read")
            transport.abort()
            await pass_turns(3)

    run(loop, main())


@check(*READERS, same=True)
def limits_are_asyncios(loop: Loop) -> object:
    """Lines beyond the limit, and separators that do not come, raise what asyncio raises and leave what it leaves."""
    found: list[object] = []

    async def main() -> None:
        for sent in (b"x" * 30 + b"\nnext\n", b"y" * 30, b"short\n", b"z" * 16 + b"\n", b"w" * 17 + b"\n"):
            for read in ("readline", "readuntil"):
                async with streams(limit=16) as (reader, _, far):
                    far.send(sent)
                    far.shutdown(socket.SHUT_WR)
                    # All of it is there, and its end, before the first is asked for.
                    await settle()
                    for _ in range(3):
                        found.append(await told(getattr(reader, read)()))
                    found.append((await told(reader.read(100)), reader.at_eof()))
        async with streams() as (reader, _, far):
            far.send(b"abc")
            far.shutdown(socket.SHUT_WR)
            found.append(await told(reader.readexactly(5)))
            found.append(await told(reader.readexactly(-1)))

    run(loop, main())
    return found


async def told(reading: Coroutine[Any, Any, bytes]) -> object:
    """What it answers, or what it raises and what that has to tell."""
    try:
        return await reading
    except Exception as error:
        attributes = [getattr(error, name, None) for name in ("consumed", "partial", "expected")]
        return type(error).__name__, str(error), attributes


@check(*READERS)
def a_full_reader_pauses(loop: Loop) -> None:
    """A reader that has twice its limit pauses its transport, and resumes it when it is emptied."""

    async def main() -> None:
        async with streams(limit=1000) as (reader, writer, far):
            far.send(bytes(2000))
            await settle()
            expect(writer.transport.is_reading(), True, "is_reading() at twice the limit")  # type: ignore[attr-defined]
            far.send(b"\n")
            await settle()
            expect(writer.transport.is_reading(), False, "is_reading() beyond it")  # type: ignore[attr-defined]
            far.send(b"more")
            await reader.readexactly(1999)
            expect(writer.transport.is_reading(), True, "is_reading() when it is emptied")  # type: ignore[attr-defined]
            expect(await reader.readexactly(6), b"\0\nmore", "the rest")

    run(loop, main())


@check(*READERS)
def a_reader_tells_its_exception(loop: Loop) -> None:
    """`set_exception` ends the read that waits, and each one that follows."""

    async def main() -> None:
        async with streams() as (reader, _, far):
            reading = asyncio.ensure_future(reader.readline())
            await settle()
            error = ZeroDivisionError()
            reader.set_exception(error)
            expect(await asyncio.gather(reading, return_exceptions=True), [error], "what the waiting read raises")
            far.send(b"a line\n")
            expect(await asyncio.gather(reader.readline(), return_exceptions=True), [error], "what the next one raises")
            expect(reader.exception(), error, "exception()")

    run(loop, main())


@check(*READERS)
def a_cancelled_read_loses_nothing(loop: Loop) -> None:
    """A read that is cancelled while it waits leaves the bytes that are there to the next one."""

    async def main() -> None:
        async with streams() as (reader, _, far):
            far.send(b"half ")
            reading = asyncio.ensure_future(reader.readline())
            await settle()
            reading.cancel()
            found = (await asyncio.gather(reading, return_exceptions=True))[0]
            demand(isinstance(found, asyncio.CancelledError), f"the cancelled read answers {found!r}")
            far.send(b"a line\n")
            expect(await reader.readline(), b"half a line\n", "the line")

    run(loop, main())


@check(*READERS)
def one_reads_at_a_time(loop: Loop) -> None:
    """A second read, while one waits, is refused by a RuntimeError."""

    async def main() -> None:
        async with streams() as (reader, _, far):
            first = asyncio.ensure_future(reader.readline())
            await settle()
            second = asyncio.ensure_future(reader.read(1))
            await settle()
            demand(second.done(), "a second read waits, too")
            demand(isinstance(second.exception(), RuntimeError), f"a second read ends with {second.exception()!r}")
            far.send(b"a line\n")
            expect(await first, b"a line\n", "the line")

    run(loop, main())


@check(*READERS, same=True)
def reading_what_is_there_does_not_wait(loop: Loop) -> object:
    """Reads of what is there are answered without a turn between them; for what is not, others run."""
    order: list[object] = []

    async def main() -> None:
        async with streams() as (reader, _, far):
            far.send(b"1\n2\n3\n")
            await settle()
            loop.call_soon(order.append, "callback")
            for _ in range(3):
                order.append(await reader.readline())
            loop.call_soon(far.send, b"4\n")
            order.append(await reader.readline())

    run(loop, main())
    return order


CHECKS = [
    streams_are_asyncios,
    reads_are_coroutines,
    patched_readers_are_used,
    readers_of_ones_own_are_used,
    limits_are_asyncios,
    a_full_reader_pauses,
    a_reader_tells_its_exception,
    a_cancelled_read_loses_nothing,
    one_reads_at_a_time,
    reading_what_is_there_does_not_wait,
]
