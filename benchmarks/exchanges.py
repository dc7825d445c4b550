"""Echoes of 1 KiB within one process: what a loop costs an exchange, when no other process is faster or slower.

The far ends are blocking sockets in the same thread. All of them are written to, then the loop runs for the turns that
an echo takes, then all of them are read from: what the loop does is the same in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from benchmarks.servers import EchoBuffered, EchoProtocol, echo_socket, echo_stream

Loop = asyncio.AbstractEventLoop

CONNECTIONS = 20
MESSAGE = bytes(1024)
# Turns within which an echo is there, on any loop: bytes come in, a future is resolved, a task goes on and sends.
TURNS = 4
# Seconds until an echo that does not come is an error.
PATIENCE = 60.0


def echo_protocol(loop: Loop, count: int = 20_000) -> int:
    """An `asyncio.Protocol` that writes what it receives."""

    async def serve(near: socket.socket) -> None:
        await loop.connect_accepted_socket(EchoProtocol, near)

    return exchange(loop, count, serve)


def echo_buffered(loop: Loop, count: int = 20_000) -> int:
    """An `asyncio.BufferedProtocol` that writes what it receives."""

    async def serve(near: socket.socket) -> None:
        await loop.connect_accepted_socket(EchoBuffered, near)

    return exchange(loop, count, serve)


def echo_streams(loop: Loop, count: int = 20_000) -> int:
    """A task that reads from a `StreamReader` and writes to a `StreamWriter`."""

    async def serve(near: socket.socket) -> Awaitable[None]:
        return loop.create_task(echo_stream(*await asyncio.open_connection(sock=near)))

    return exchange(loop, count, serve)


def echo_sock(loop: Loop, count: int = 20_000) -> int:
    """A task that calls `sock_recv` and `sock_sendall`."""

    async def serve(near: socket.socket) -> Awaitable[None]:
        near.setblocking(False)
        return loop.create_task(echo_socket(loop, near))

    return exchange(loop, count, serve)


def exchange(loop: Loop, count: int, serve: Callable[[socket.socket], Awaitable[Awaitable[None] | None]]) -> int:
    """Has `count` messages echoed by what `serve` makes of the near ends. Answers how many those were."""

    async def exchanges(stack: contextlib.ExitStack) -> None:
        far_ends, tasks = [], []
        for _ in range(CONNECTIONS):
            near, far = socket.socketpair()
            far_ends.append(stack.enter_context(far))
            far.settimeout(PATIENCE)
            tasks.append(await serve(near))
        for _ in range(count // CONNECTIONS):
            for far in far_ends:
                far.send(MESSAGE)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            for far in far_ends:
                if far.recv(2 * len(MESSAGE)) != MESSAGE:
                    raise RuntimeError("the echo is not what was sent")
        for far in far_ends:
            far.close()
        for task in tasks:
            if task is not None:
                await task
        for _ in range(TURNS):
            await asyncio.sleep(0)

    with contextlib.ExitStack() as stack:
        loop.run_until_complete(exchanges(stack))
    return count // CONNECTIONS * CONNECTIONS
