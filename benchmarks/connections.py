"""Rows about connections rather than bytes: making them, holding them, and Unix ones.

What is counted is this process's own: CPU time, or memory. The other end of each connection is a process that
`os.fork` makes, which uses blocking sockets and no loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import loops, process

CONNECTS = 3_000
EXCHANGES = 20_000
MESSAGE = bytes(1024)
# Idle connections; those before the first count fill what a loop allocates once.
IDLE = 6_000
IDLE_BEFORE = 500


@dataclass(frozen=True)
class Row:
    """What is measured, and in what."""

    run: Callable[[asyncio.AbstractEventLoop], float]
    unit: str


@contextlib.contextmanager
def other_process(act: Callable[[], None]) -> Iterator[None]:
    """Runs `act` in a process of its own meanwhile."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            act()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def connect_rate(loop: asyncio.AbstractEventLoop) -> float:
    """CPU time of `create_connection` to an address, and of an abort."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        host, port = listener.getsockname()
        return connecting(loop, listener, lambda: loop.create_connection(asyncio.Protocol, host, port))


def connect_rate_unix(loop: asyncio.AbstractEventLoop) -> float:
    """CPU time of `create_unix_connection`, and of an abort."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(directory, "socket"))
        listener.bind(path)
        listener.listen(512)
        return connecting(loop, listener, lambda: loop.create_unix_connection(asyncio.Protocol, path))


def connecting(loop: asyncio.AbstractEventLoop, listener: socket.socket, connect: Callable[[], object]) -> float:
    def accept() -> None:
        while True:
            listener.accept()[0].close()

    async def repeat() -> None:
        for _ in range(CONNECTS):
            transport, _ = await connect()  # type: ignore[misc]
            transport.abort()
        await asyncio.sleep(0)

    with other_process(accept):
        start = time.process_time()
        loop.run_until_complete(repeat())
        return (time.process_time() - start) / CONNECTS * 1e6


def unix_stream(loop: asyncio.AbstractEventLoop) -> float:
    """CPU time of an echo of 1 KiB over a Unix socket."""
    near, far = socket.socketpair()

    def ask() -> None:
        near.close()
        while True:
            far.sendall(MESSAGE)
            far.recv(len(MESSAGE), socket.MSG_WAITALL)

    class Echo(asyncio.Protocol):
        left = EXCHANGES

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.done = loop.create_future()

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)  # type: ignore[attr-defined]
            self.left -= 1
            if self.left == 0:
                self.done.set_result(None)

    async def echo() -> None:
        transport, protocol = await loop.create_unix_connection(Echo, sock=near)
        await protocol.done
        transport.abort()
        await asyncio.sleep(0)

    with near, far, other_process(ask):
        start = time.process_time()
        loop.run_until_complete(echo())
        return (time.process_time() - start) / EXCHANGES * 1e6


def memory_idle(loop: asyncio.AbstractEventLoop) -> float:
    """Resident bytes an accepted TCP connection with a bare `asyncio.Protocol`, all of them idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, IDLE + 1_000)), hard))
    made = 0

    def factory() -> asyncio.Protocol:
        nonlocal made
        made += 1
        return asyncio.Protocol()

    def settled(count: int) -> tuple[int, int]:
        while made < count:
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.run_until_complete(asyncio.sleep(0.05))
        gc.collect()
        return made, resident_bytes()

    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0, backlog=1_000))
    address = server.sockets[0].getsockname()

    def connect() -> None:
        kept = [socket.create_connection(address) for _ in range(IDLE_BEFORE)]
        ready.recv(1)
        kept += [socket.create_connection(address) for _ in range(IDLE - IDLE_BEFORE)]
        signal.pause()

    go, ready = socket.socketpair()
    with go, ready, other_process(connect):
        first, before = settled(IDLE_BEFORE)
        go.send(b"x")
        last, after = settled(IDLE)
    server.close()
    return (after - before) / (last - first)


def resident_bytes() -> int:
    """The resident set of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


ROWS = {
    "connect_rate": Row(connect_rate, "CPU µs/connection"),
    "connect_rate_unix": Row(connect_rate_unix, "CPU µs/connection"),
    "unix_stream": Row(unix_stream, "CPU µs/echo"),
    "memory_idle": Row(memory_idle, "bytes/connection"),
}


def measure(row: str, loop: str) -> float:
    """The figure of a row, in a process of its own; the loop and its other end share the server's core."""
    return process.figure(process.python("-W", "ignore", "-m", "benchmarks.connections", "--loop", loop, "--row", row))


def main() -> None:
    parser = argparse.ArgumentParser(description="One row about connections in this process.")
    parser.add_argument("--loop", required=True)
    parser.add_argument("--row", required=True, choices=ROWS)
    options = parser.parse_args()
    print(ROWS[options.row].run(loops.factory(options.loop)()))
    sys.stdout.flush()
    # A loop with thousands of connections takes its time to end properly, and nobody looks.
    os._exit(0)


if __name__ == "__main__":
    main()
