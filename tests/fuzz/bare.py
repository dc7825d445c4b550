"""The descriptors of random programs: pipes under transports, and sockets that a program reads and writes itself.

As on the connections of `wires.py`, an end tells of what it reads when it has all that it asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from prelude import World
from wires import PlainEnd, StreamEnd, digest, pattern


class Pipes:
    """The two transports of an end that reads one pipe and writes another, as if they were one."""

    def __init__(self, reading: Any, writing: Any) -> None:
        self.reading, self.writing = reading, writing

    def __getattr__(self, name: str) -> Any:
        reads = {"pause_reading", "resume_reading", "is_reading"}
        return getattr(self.reading if name in reads else self.writing, name)

    def close(self) -> None:
        self.writing.close()
        self.reading.close()

    def abort(self) -> None:
        self.writing.abort()
        self.reading.close()


class Writing(asyncio.BaseProtocol):
    """The protocol of what a `PipeEnd` writes to."""

    def __init__(self, end: PipeEnd) -> None:
        self.end = end

    def pause_writing(self) -> None:
        self.end.pause_writing()

    def resume_writing(self) -> None:
        self.end.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.end.writing_lost(error)


class PipeEnd(PlainEnd):
    """An end of two pipes that is a protocol, and tells what is called."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        # Another actor: which of the two pipes is lost first is not determined.
        self.writer_name = name + "-writer"
        self.written: asyncio.Future[None] = world.loop.create_future()

    def connection_lost(self, error: Exception | None) -> None:
        is_paused = self.is_paused
        super().connection_lost(error)
        self.is_paused = is_paused  # the other pipe is not lost with this one

    def writing_lost(self, error: Exception | None) -> None:
        self.world.log(self.writer_name, "connection_lost", type(error).__name__)
        self.is_paused = False
        self.news.set()
        self.written.set_result(None)

    async def close(self) -> None:
        await super().close()
        await self.written


async def connect_pipes(world: World, number: int, wire: str, styles: tuple[str, str], talk: Any, answer: Any) -> None:
    """Connect two ends over two pipes, or over what else is read and written like one, and have each say its part."""
    names = (f"client{number}", f"server{number}")
    there, back = _one_way(wire), _one_way(wire)
    ends = [
        await piped(world, names[0], styles[0], back[0], there[1]),
        await piped(world, names[1], styles[1], there[0], back[1]),
    ]
    for name, end, part in zip(names, ends, (talk, answer), strict=True):
        world.spawn(name, part(end, name))


def _one_way(wire: str) -> tuple[Any, Any]:
    """What is read from, and what is written to."""
    if wire == "pipes":
        reading, writing = os.pipe()
        return open(reading, "rb", 0), open(writing, "wb", 0)
    return socket.socketpair()


async def piped(world: World, name: str, style: str, reading: Any, writing: Any) -> Any:
    """An end that reads one thing and writes another."""
    loop = world.loop
    if style == "streams":
        reader = asyncio.StreamReader(loop=loop)
        reads, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), reading)
        # A protocol of streams whose reader hears nothing: the writer needs what else it does.
        deaf = asyncio.StreamReader(loop=loop)
        writes, protocol = await loop.connect_write_pipe(lambda: asyncio.StreamReaderProtocol(deaf, loop=loop), writing)
        end = StreamEnd(world, name, reader, asyncio.StreamWriter(Pipes(reads, writes), protocol, reader, loop))
        world.closing.append(lambda: deaf)  # the protocol has a weak reference only
        return end
    end = PipeEnd(world, name)
    reads, _ = await loop.connect_read_pipe(lambda: end, reading)
    writes, _ = await loop.connect_write_pipe(lambda: Writing(end), writing)
    end.transport = Pipes(reads, writes)
    return end


class Bare:
    """A socket, by the loop's own `sock_*` and its watchers."""

    def __init__(self, world: World, name: str, sock: socket.socket) -> None:
        self.world, self.name, self.sock = world, name, sock
        self.loop = world.loop

    async def send(self, sent: bytes) -> None:
        await self.loop.sock_sendall(self.sock, sent)

    async def push(self, sent: bytes) -> None:
        """The same by a watcher."""
        rest = memoryview(sent)
        done = self.loop.create_future()

        def writable() -> None:
            nonlocal rest
            rest = rest[self.sock.send(rest) :]
            if not rest:
                self.world.log(self.name, "no writer any more", self.loop.remove_writer(self.sock))
                done.set_result(None)

        self.loop.add_writer(self.sock, writable)
        await done

    async def receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size and (piece := await self.loop.sock_recv(self.sock, size - len(received))):
            received += piece
        return received

    async def receive_into(self, size: int) -> bytes:
        buffer = bytearray(size)
        at = 0
        while at < size and (count := await self.loop.sock_recv_into(self.sock, memoryview(buffer)[at:])):
            at += count
        return bytes(buffer[:at])

    async def watch(self, size: int) -> bytes:
        """The same by a watcher, which is known by the descriptor's number."""
        received = bytearray()
        done = self.loop.create_future()
        number = self.sock.fileno()

        def readable() -> None:
            piece = self.sock.recv(size - len(received))
            received.extend(piece)
            if len(received) == size or not piece:
                self.world.log(self.name, "no reader any more", self.loop.remove_reader(number))
                done.set_result(None)

        self.loop.add_reader(number, readable)
        await done
        return bytes(received)

    async def readable(self) -> None:
        """Wait until there is something, and leave it there."""
        done = self.loop.create_future()

        def readable() -> None:
            self.loop.remove_reader(self.sock)
            done.set_result(None)

        self.loop.add_reader(self.sock, readable)
        await done

    async def replaced(self) -> bytes:
        """A byte by a watcher that took the place of another one, and fails."""
        done = self.loop.create_future()

        def readable() -> None:
            self.loop.remove_reader(self.sock)
            done.set_result(self.sock.recv(1))
            raise ValueError(f"the reader of {self.name}")

        def wrong() -> None:
            self.loop.remove_reader(self.sock)
            self.world.log(self.name, "has the reader that was replaced")

        self.loop.add_reader(self.sock, wrong)
        self.loop.add_reader(self.sock, readable)
        received = await done
        self.world.log(self.name, "nothing to remove", self.loop.remove_reader(self.sock))
        return received

    async def send_file(self, size: int, offset: int, count: int | None) -> None:
        """Send a part of a file of that size."""
        with tempfile.TemporaryFile() as file:
            file.write(pattern(4, size))
            file.flush()
            sent = await self.loop.sock_sendfile(self.sock, file, offset, count)
            self.world.log(self.name, "sent", sent, "file at", file.tell())

    async def listen(self, turns: int) -> None:
        """Accept a connection of one's own, behind an attempt that is given up."""
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as near:
            listener.setblocking(False)
            near.setblocking(False)
            waiting = asyncio.ensure_future(self.loop.sock_accept(listener))
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            waiting = asyncio.ensure_future(self.loop.sock_accept(listener))
            await self.loop.sock_connect(near, listener.getsockname())
            far, address = await waiting
            with far:
                told = address == near.getsockname()
                self.world.log(self.name, "accepted", told, far.getblocking(), far.getsockname() == near.getpeername())

    async def refused(self) -> None:
        """Connect to a port where nobody listens."""
        with socket.socket() as silent, socket.socket() as near:
            silent.bind(("127.0.0.1", 0))
            near.setblocking(False)
            try:
                await self.loop.sock_connect(near, silent.getsockname())
            except OSError as error:
                self.world.log(self.name, "refused", type(error).__name__, error.errno)

    async def misuse(self) -> None:
        """What is done to a socket that is closed."""
        closed = socket.socket()
        closed.setblocking(False)
        closed.close()
        calls: list[Callable[[], Any]] = [
            lambda: self.loop.add_reader(closed, print),
            lambda: self.loop.remove_writer(closed),
            lambda: self.loop.sock_recv(closed, 1),
            lambda: self.loop.sock_sendall(closed, b"x"),
            lambda: self.loop.sock_connect(closed, ("127.0.0.1", 1)),
        ]
        for call in calls:
            try:
                answer = call()
                self.world.log(self.name, await answer if asyncio.iscoroutine(answer) else answer)
            except Exception as error:
                self.world.log(self.name, repr(error))

    async def datagrams(self, sizes: list[int]) -> None:
        """Datagrams from one socket to another one."""
        with contextlib.ExitStack() as stack:
            near, far = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
            for sock in (near, far):
                sock.setblocking(False)
                sock.bind(("127.0.0.1", 0))
            buffer = bytearray(2000)
            waiting = asyncio.ensure_future(self.loop.sock_recvfrom(far, 2000))
            await asyncio.sleep(0)
            for size in sizes:
                sent = await self.loop.sock_sendto(near, pattern(1, size), far.getsockname())
                self.world.log(self.name, "sent", sent)
            received, address = await waiting
            self.world.log(self.name, "received", digest(received), address == near.getsockname())
            for _ in sizes[1:]:
                count, address = await self.loop.sock_recvfrom_into(far, buffer)
                self.world.log(self.name, "received", digest(buffer[:count]), address == near.getsockname())

    async def rest(self) -> bytes:
        """What comes until there is no more."""
        try:
            return await self.receive(1 << 30)
        except OSError as error:
            return type(error).__name__.encode()

    def close(self) -> None:
        self.sock.close()


async def meet(world: World, number: int, wire: str, talk: Any, answer: Any) -> None:
    """Connect two sockets, and have each side do its part."""
    loop = world.loop
    names = (f"near{number}", f"far{number}")
    near: Any
    if wire == "pair":
        near, far = socket.socketpair()
    else:
        address: Any = ("127.0.0.1", 0) if wire == "tcp" else f"\0fuzz-{id(world)}-bare{number}"
        family = socket.AF_INET if wire == "tcp" else socket.AF_UNIX
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
            near = socket.socket(family)
            near.setblocking(False)
            waiting = asyncio.ensure_future(loop.sock_accept(listener))
            await loop.sock_connect(near, listener.getsockname())
            far, _ = await waiting
    for name, sock, part in zip(names, (near, far), (talk, answer), strict=True):
        sock.setblocking(False)
        world.spawn(name, part(Bare(world, name, sock), name))
