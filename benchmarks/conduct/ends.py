"""Connections for checks: one end is the loop's, the other a blocking socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from benchmarks.conduct.check import Broken

T = TypeVar("T")
# Seconds for which the blocking end waits: for what is there already, or never comes.
PATIENCE = 0.5
# Seconds for what is on its way, and far more than it takes.
LONG = 10.0


class Recorder(asyncio.Protocol):
    """Notes what it is told, and calls `act` with what it receives."""

    def __init__(self, act: Callable[[asyncio.Transport, bytes], object] = lambda transport, data: None) -> None:
        self.act = act
        self.told: list[Any] = []
        self.failure: BaseException | None = None
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[None] = loop.create_future()
        self.received: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.told.append("made")
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.told.append(data)
        try:
            self.act(self.transport, data)
        except BaseException as error:
            self.failure = error
        if not self.received.done():
            self.received.set_result(None)

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(("lost", exc))
        if not self.lost.done():
            self.lost.set_result(None)

    async def receives(self) -> None:
        """Waits until it has received something. Raises what `act` did."""
        await self.received
        self.received = asyncio.get_running_loop().create_future()
        if self.failure is not None:
            raise self.failure


@contextlib.asynccontextmanager
async def pair(act: Callable[[asyncio.Transport, bytes], object] = lambda t, d: None) -> AsyncIterator[Any]:
    """A connection over a pair of Unix sockets: the protocol, and the other end."""
    near, far = socket.socketpair()
    far.settimeout(PATIENCE)
    with far:
        _, protocol = await asyncio.get_running_loop().create_connection(lambda: Recorder(act), sock=near)
        try:
            yield protocol, far
        finally:
            protocol.transport.abort()
            await protocol.lost


@contextlib.asynccontextmanager
async def accepted(count: int, act: Callable[[asyncio.Transport, bytes], object]) -> AsyncIterator[Any]:
    """Connections over TCP that a server of the loop has accepted: pairs of a protocol and the other end."""
    protocols: list[Recorder] = []
    made = [asyncio.get_running_loop().create_future() for _ in range(count)]

    def factory() -> Recorder:
        protocol = Recorder(act)
        protocol.made = made[len(protocols)]
        protocols.append(protocol)
        return protocol

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    ends = []
    try:
        address = server.sockets[0].getsockname()
        for number in range(count):
            ends.append(socket.create_connection(address, PATIENCE))
            await asyncio.wait_for(made[number], PATIENCE)
        yield list(zip(protocols, ends, strict=True))
    finally:
        for protocol in protocols:
            protocol.transport.abort()
        for end in ends:
            end.close()
        server.close()
        await asyncio.sleep(0)


def has_at_once(end: socket.socket, wanted: bytes, call: str = "write()") -> None:
    """Raises Broken unless this is at the other end now, when the call has returned that sends it."""
    try:
        found = end.recv(len(wanted), socket.MSG_WAITALL)
    except TimeoutError:
        late = f"nor {PATIENCE:g} s later"
        raise Broken(f"what was written is not in the kernel when {call} has returned, {late}") from None
    if found != wanted:
        raise Broken(f"the other end has {found!r}, not {wanted!r}")


async def within(awaitable: Awaitable[T]) -> T:
    """What is awaited. Raises TimeoutError where it does not come."""
    return await asyncio.wait_for(awaitable, LONG)
