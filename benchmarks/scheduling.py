"""In-process rows: what a loop costs a call, a timer, a task, a future; with those of `benchmarks.lines`,
`benchmarks.pipes`, `benchmarks.datagrams` and `benchmarks.files`.

`python -m benchmarks.scheduling --loop NAME --row ROW` runs one row in this process, and prints the nanoseconds an
operation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import datagrams, files, lines, loops, pipes, process

Loop = asyncio.AbstractEventLoop
# A row runs on a loop that is not running, and returns how many operations that were. Those of this file and of
# `benchmarks.exchanges` can be told how many to do.
Row = Callable[[Loop], int]

# Runs of a row in one process, of which the median counts, behind one that does not.
REPEATS = 3


def call_soon(loop: Loop, count: int = 300_000) -> int:
    """Callbacks without arguments, all scheduled before the first runs."""
    for _ in range(count):
        loop.call_soon(nothing)
    return run_all(loop, count)


def call_soon_args(loop: Loop, count: int = 300_000) -> int:
    """The same with two arguments."""
    for _ in range(count):
        loop.call_soon(nothing, 1, 2)
    return run_all(loop, count)


def call_soon_chain(loop: Loop, count: int = 200_000) -> int:
    """A callback that schedules itself: one callback a turn."""
    left = count

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            loop.stop()

    loop.call_soon(again)
    loop.run_forever()
    return count


def call_soon_threadsafe(loop: Loop, count: int = 100_000) -> int:
    """The thread-safe call, from the loop's own thread."""
    for _ in range(count):
        loop.call_soon_threadsafe(nothing)
    return run_all(loop, count)


def call_soon_from_thread(loop: Loop) -> int:
    """The thread-safe call, from another thread while the loop runs."""

    def schedule() -> None:
        for _ in range(100_000):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=schedule)
    thread.start()
    loop.run_forever()
    thread.join()
    return 100_000


def call_later_cancel(loop: Loop, count: int = 100_000) -> int:
    """Timers that are set and cancelled before they are due, as time limits are."""
    for _ in range(count):
        loop.call_later(60, nothing).cancel()
    return run_all(loop, count)


def timers(loop: Loop, count: int = 50_000) -> int:
    """Timers that fire, set in an order that is not that of their times."""
    start = loop.time()
    for index in range(count):
        loop.call_at(start + (index * 7919 % count) * 1e-9, nothing)
    # Due behind all of them, whatever a loop's resolution is.
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    return count


def sleep_0(loop: Loop, count: int = 100_000) -> int:
    """One task that gives way again and again."""

    async def give_way() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return run_coroutine(loop, give_way(), count)


def gather(loop: Loop, count: int = 100_000) -> int:
    """Tasks made and gathered."""

    async def one() -> None:
        return None

    async def all_of_them() -> None:
        await asyncio.gather(*[loop.create_task(one()) for _ in range(count)])

    return run_coroutine(loop, all_of_them(), count)


def future(loop: Loop, count: int = 50_000) -> int:
    """A future that a callback resolves, awaited."""

    async def wait() -> None:
        for _ in range(count):
            waiter = loop.create_future()
            loop.call_soon(waiter.set_result, None)
            await waiter

    return run_coroutine(loop, wait(), count)


def queue(loop: Loop, count: int = 30_000) -> int:
    """Two tasks that pass an item to and fro over two queues."""

    async def play() -> None:
        there: asyncio.Queue[int] = asyncio.Queue(1)
        back: asyncio.Queue[int] = asyncio.Queue(1)

        async def other() -> None:
            for _ in range(count):
                await back.put(await there.get())

        task = loop.create_task(other())
        for item in range(count):
            await there.put(item)
            await back.get()
        await task

    return run_coroutine(loop, play(), count)


def async_context(loop: Loop, count: int = 30_000) -> int:
    """An asynchronous context manager that is written as a generator, entered and left."""

    @contextlib.asynccontextmanager
    async def context() -> AsyncIterator[None]:
        yield

    async def enter() -> None:
        for _ in range(count):
            async with context():
                pass

    return run_coroutine(loop, enter(), count)


def run_in_executor(loop: Loop, count: int = 5_000) -> int:
    """Calls in another thread, one after the other."""

    async def call() -> None:
        with ThreadPoolExecutor(1) as executor:
            for _ in range(count):
                await loop.run_in_executor(executor, nothing)

    return run_coroutine(loop, call(), count)


def getaddrinfo_literal(loop: Loop, count: int = 2_000) -> int:
    """The resolver, asked for what is an address already."""

    async def resolve() -> None:
        for _ in range(count):
            await loop.getaddrinfo("127.0.0.1", 80)

    return run_coroutine(loop, resolve(), count)


ROWS: dict[str, Row] = {
    row.__name__: row
    for row in (
        call_soon,
        call_soon_args,
        call_soon_chain,
        call_soon_threadsafe,
        call_soon_from_thread,
        call_later_cancel,
        timers,
        sleep_0,
        gather,
        future,
        queue,
        async_context,
        run_in_executor,
        getaddrinfo_literal,
        lines.stream_lines,
        pipes.pipe_ping_pong,
        pipes.pipe_throughput,
        pipes.spawn,
        datagrams.udp_many,
        files.fs_small_files,
        files.fs_small_files_threads,
        files.aiofiles_small_files,
    )
}


def nothing(*_: object) -> None:
    pass


def run_all(loop: Loop, operations: int) -> int:
    """Runs what is scheduled already."""
    loop.call_soon(loop.stop)
    loop.run_forever()
    return operations


def run_coroutine(loop: Loop, coroutine: Coroutine[Any, Any, None], operations: int) -> int:
    loop.run_until_complete(coroutine)
    return operations


def nanoseconds(row: Row, factory: loops.Factory) -> float:
    """Nanoseconds an operation of `row`, in this process."""

    def once() -> float:
        loop = factory()
        gc.collect()
        start = time.perf_counter_ns()
        operations = row(loop)
        elapsed = time.perf_counter_ns() - start
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        return elapsed / operations

    once()
    return statistics.median(once() for _ in range(REPEATS))


def measure(row: str, loop: str) -> float:
    """Nanoseconds an operation, in a process of its own on the server's core."""
    return process.figure(process.python("-m", "benchmarks.scheduling", "--loop", loop, "--row", row))


def main() -> None:
    parser = argparse.ArgumentParser(description="One scheduling row in this process.")
    parser.add_argument("--loop", required=True)
    parser.add_argument("--row", required=True, choices=ROWS)
    options = parser.parse_args()
    print(nanoseconds(ROWS[options.row], loops.factory(options.loop)))


if __name__ == "__main__":
    main()
