"""The connections of random programs: ends that are read and written by one set of words, whatever they are made of.

What a program sees on its end of a connection must not depend on how the two ends take turns: an end waits for what it
reads, and tells of it only when it has all that it asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import subprocess
from collections.abc import Callable
from functools import cache
from typing import Any

from prelude import World

#: What the kernel keeps for a socket, in bytes: less than a big write has.
KEPT = 64 * 1024

#: A write that no kernel takes at once.
BIG = 1 << 19


def pattern(start: int, size: int) -> bytes:
    """`size` bytes in which none can be missing or out of place unseen."""
    return bytes((start + index * 7 + (index >> 8)) & 0xFF for index in range(min(size, 4096))).ljust(size, b"#")


def digest(received: bytes) -> str:
    """What a trace tells of some bytes."""
    return f"{len(received)} bytes {hashlib.blake2b(received, digest_size=4).hexdigest()}"


class StreamEnd:
    """An end made of asyncio's streams."""

    def __init__(self, world: World, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.world, self.name, self.reader, self.writer = world, name, reader, writer

    @property
    def transport(self) -> Any:
        return self.writer.transport

    def write(self, *pieces: bytes) -> None:
        """Write pieces, several by `writelines`."""
        if len(pieces) == 1:
            self.writer.write(pieces[0])
        else:
            self.writer.writelines(pieces)

    async def drain(self) -> None:
        await self.writer.drain()

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        return await self.reader.readexactly(size)

    async def read_line(self) -> bytes:
        return await self.reader.readline()

    async def rest(self) -> bytes:
        """What comes until the other end has no more."""
        try:
            return await self.reader.read()
        except OSError as error:
            return type(error).__name__.encode()

    async def upgrade(self, server_side: bool) -> None:
        server, client = contexts()
        await self.writer.start_tls(
            server if server_side else client, server_hostname=None if server_side else "localhost"
        )

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError as error:
            self.world.log(self.name, "closed by", type(error).__name__)


class Pausing:
    """What a protocol is told of writing: to pause and to resume, by turns."""

    news: asyncio.Event
    is_paused = False

    def pause_writing(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_writing(self) -> None:
        assert self.is_paused
        self.is_paused = False
        self.news.set()


class ProtocolEnd(Pausing):
    """An end that is a protocol, and tells what is called."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        # An actor of its own: what it is told may come before or after its task has read what came earlier.
        self.name = name + "-protocol"
        self.received = bytearray()
        self.news = asyncio.Event()
        self.has_eof = False
        self.lost: asyncio.Future[None] = world.loop.create_future()
        self.connected: asyncio.Future[None] = world.loop.create_future()
        self.keeps_half_open = True
        self.fails = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if not self.connected.done():
            self.connected.set_result(None)
            self.world.log(self.name, "connection_made", isinstance(transport, asyncio.Transport))

    def data_received(self, received: bytes) -> None:
        self.received += received
        self.news.set()
        if self.fails:
            raise ValueError(f"{self.name} fails")

    def eof_received(self) -> bool:
        self.world.log(self.name, "eof_received")
        self.has_eof = True
        self.news.set()
        return self.keeps_half_open and not isinstance(self.transport.get_extra_info("sslcontext"), ssl.SSLContext)

    def connection_lost(self, error: Exception | None) -> None:
        self.world.log(self.name, "connection_lost", type(error).__name__)
        self.has_eof = True
        self.is_paused = False
        self.news.set()
        self.lost.set_result(None)

    def write(self, *pieces: bytes) -> None:
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self.transport.writelines(pieces)

    async def _until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self.news.clear()
            await self.news.wait()

    async def drain(self) -> None:
        await self._until(lambda: not self.is_paused)

    async def read(self, size: int) -> bytes:
        await self._until(lambda: len(self.received) >= size or self.has_eof)
        return self._take(size)

    async def read_line(self) -> bytes:
        await self._until(lambda: b"\n" in self.received or self.has_eof)
        return self._take(self.received.find(b"\n") + 1)

    async def rest(self) -> bytes:
        await self._until(lambda: self.has_eof)
        return self._take(len(self.received))

    def _take(self, size: int) -> bytes:
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    async def upgrade(self, server_side: bool) -> None:
        server, client = contexts()
        self.transport = await self.world.loop.start_tls(
            self.transport,
            self,
            server if server_side else client,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )

    async def close(self) -> None:
        self.transport.close()
        await self.lost


class PlainEnd(ProtocolEnd, asyncio.Protocol):
    """The same, receiving bytes."""


class BufferedEnd(ProtocolEnd, asyncio.BufferedProtocol):
    """The same, receiving into a small buffer of its own."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.buffer = bytearray(8000)

    def get_buffer(self, hint: int) -> Any:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.data_received(bytes(self.buffer[:size]))


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server and of a client that trusts it."""
    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


async def connect(world: World, number: int, wire: str, styles: tuple[str, str], talk: Any, answer: Any) -> None:
    """Connect two ends over a wire, and have each say its part."""
    loop = world.loop
    names = (f"client{number}", f"server{number}")
    accepted: asyncio.Future[Any] = loop.create_future()

    # A client's streams are those of a protocol without a callback: `start_tls` tells clients by that.
    readers: dict[Any, asyncio.StreamReader] = {}

    def factory(side: int, arrived: asyncio.Future[Any]) -> Callable[[], Any]:
        def make() -> Any:
            if styles[side] == "streams":
                reader = asyncio.StreamReader(loop=loop)
                if not side:
                    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
                    readers[protocol] = reader
                    return protocol

                def connected(reader: Any, writer: Any) -> None:
                    arrived.set_result(StreamEnd(world, names[side], reader, writer))

                return asyncio.StreamReaderProtocol(reader, connected, loop=loop)
            end = (BufferedEnd if styles[side] == "buffered" else PlainEnd)(world, names[side])
            end.connected.add_done_callback(lambda _: arrived.set_result(end))
            return end

        return make

    arrived: asyncio.Future[Any] = loop.create_future()
    server_context, client_context = contexts() if wire == "tls" else (None, None)
    options: dict[str, Any] = {"ssl": client_context, "server_hostname": "localhost"} if wire == "tls" else {}
    server = None
    if wire == "pair":
        near, far = socket.socketpair()
        transport, protocol = await loop.create_connection(factory(0, arrived), sock=near)
        await loop.create_connection(factory(1, accepted), sock=far)
    elif wire == "unix":
        path = f"\0fuzz-{id(world)}-{number}"
        server = await loop.create_unix_server(factory(1, accepted), path)
        transport, protocol = await loop.create_unix_connection(factory(0, arrived), path)
    else:
        server = await loop.create_server(factory(1, accepted), "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(factory(0, arrived), *address, **options)
    if protocol in readers:
        writer = asyncio.StreamWriter(transport, protocol, readers[protocol], loop)
        arrived.set_result(StreamEnd(world, names[0], readers[protocol], writer))
    ends = (await arrived, await accepted)
    if server is not None:
        server.close()
    for end in ends:
        sock = end.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT)
    for name, end, part in zip(names, ends, (talk, answer), strict=True):
        world.spawn(name, part(end, name))


async def spawn_process(world: World, *arguments: str) -> Any:
    """A child with pipes."""
    pipe = subprocess.PIPE
    return await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, stderr=pipe)


class Endpoint(asyncio.DatagramProtocol):
    """An end of an exchange of datagrams."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name + "-protocol"
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost: asyncio.Future[None] = world.loop.create_future()
        self.peer: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        self.world.log(self.name, "received", digest(datagram), address == self.peer)
        self.heard.put_nowait(datagram)

    def error_received(self, error: Exception) -> None:
        self.world.log(self.name, "error_received", repr(error))

    def connection_lost(self, error: Exception | None) -> None:
        self.world.log(self.name, "connection_lost", type(error).__name__)
        self.lost.set_result(None)

    def send(self, datagram: bytes) -> None:
        self.transport.sendto(datagram, self.peer)

    async def hear(self) -> bytes:
        return await self.heard.get()

    async def close(self) -> None:
        self.transport.close()
        await self.lost


async def exchange(world: World, wire: str, one: Any, other: Any) -> None:
    """Make two endpoints that know each other, and have each say its part."""
    loop = world.loop
    names = ("one", "other")
    family = socket.AF_UNIX if wire == "unix" else socket.AF_INET
    socks = [socket.socket(family, socket.SOCK_DGRAM) for _ in names]
    for sock, name in zip(socks, names, strict=True):
        sock.bind(f"\0fuzz-{id(world)}-{name}" if wire == "unix" else ("127.0.0.1", 0))
        sock.setblocking(False)
    if wire == "connected":
        socks[0].connect(socks[1].getsockname())
        socks[1].connect(socks[0].getsockname())
    peers = [socks[1].getsockname(), socks[0].getsockname()]
    ends = []
    for sock, name, peer in zip(socks, names, peers, strict=True):
        _, end = await loop.create_datagram_endpoint(lambda name=name: Endpoint(world, name), sock=sock)
        end.peer = peer
        ends.append(end)
    for name, end, part in zip(names, ends, (one, other), strict=True):
        world.spawn(name, part(end, name))
