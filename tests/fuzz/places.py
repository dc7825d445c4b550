"""Where random programs connect to: places that accept, refuse or say nothing, names for them, and who connects.

Everything is on the loopback interface, where the kernel answers within the call that asks. So time is virtual here, and
a whole trace is determined: what takes a turn on stock asyncio takes one everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

from prelude import World

#: A port for names, whose places have ports of their own.
PORT = 80


class Places:
    """What can be connected to, by names such as `refused1 127.0.0.2`, which say what is there; and hosts, by theirs.

    A place is made when it is first named. The trace has its name where its port would be, which is another in each run.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.hosts: dict[str, tuple[int, list[str]]] = {}
        self.servers: dict[str, Any] = {}
        self._made: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()
        self._directory: str | None = None
        world.closing.append(self._stack.close)
        world.loop.getaddrinfo = self._getaddrinfo

    def __getitem__(self, name: str) -> Any:
        """The address of a place."""
        if name not in self._made:
            what, _, where = name.partition(" ")
            make = self._path if where == "path" else self._port
            self._made[name] = make(what.rstrip("0123456789"), where, name)
        return self._made[name]

    def found(self, address: Any) -> str:
        """The name of the place with that address, if any."""
        names = [name for name, made in self._made.items() if made == address]
        return names[0] if names else f"{type(address).__name__} of nobody"

    def _port(self, what: str, where: str, name: str) -> Any:
        if what == "unreachable":
            return "127.255.255.255", 9  # a broadcast, which no stream is connected to
        if what == "zero":
            return where, 0
        sock = self._stack.enter_context(socket.socket(_family(where)))
        sock.bind((where, 0))
        self._prepare(what, sock)
        self.world.renamed[str(sock.getsockname()[1])] = f"<{name}>"
        return sock.getsockname()

    def _path(self, what: str, where: str, name: str) -> Any:
        if self._directory is None:
            self._directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        path = os.path.join(self._directory, name)
        self.world.renamed[path] = f"<{name}>"
        if what == "file":
            with open(path, "w"):
                pass
        elif what == "long":
            path += "x" * 100
        elif what == "nested":
            path += "/socket"
        elif what not in ("missing", "server"):
            sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(path)
            self._prepare(what, sock)
        return path

    def _prepare(self, what: str, sock: socket.socket) -> None:
        if what == "open":
            sock.listen(100)
        elif what == "silent":
            # One connection is all that it takes: whoever comes then has no answer.
            sock.listen(0)
            self._stack.enter_context(socket.socket(sock.family)).connect(sock.getsockname())

    async def _getaddrinfo(self, host: Any, port: Any, *, family: int = 0, **options: Any) -> list[Any]:
        """What a resolver would do, in a number of turns; hosts without places are not known, as hosts go."""
        self.world.log("resolver:", host, port, family, sorted(options.items()))
        turns, names = self.hosts.get(host, (0, None))
        await pause(turns)
        if names is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return [self._info(name) for name in names]

    def _info(self, name: str) -> Any:
        family = _family(name.partition(" ")[2])
        if name.startswith("strange"):
            return 12345, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9)
        return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", self[name]

    def caller(self, name: str, does: str = "") -> Callable[[], Caller]:
        """A factory of protocols of that name, and what they do when they are connected."""

        def make() -> Caller:
            self.world.log(name, "factory")
            if does == "fail":
                raise ValueError(f"{name} fails")
            return Caller(self.world, name, does)

        return make

    async def serve(self, name: str, factory: Callable[[], Any], **options: Any) -> None:
        """Serve at a new place."""
        where = name.partition(" ")[2]
        log = self.world.log
        try:
            if where == "path":
                address = self[name]
                server: Any = await self.world.loop.create_unix_server(factory, address, **options)
            else:
                server = await self.world.loop.create_server(factory, where, 0, **options)
                address = server.sockets[0].getsockname()
                self.world.renamed[str(address[1])] = f"<{name}>"
        except Exception as error:
            log(name, "does not serve:", repr(error))
            return
        self._made[name] = address
        self.servers[name] = server
        self.world.closing.append(server.close)
        log(name, "serves", server.is_serving(), len(server.sockets))

    def close_server(self, name: str) -> None:
        """Close a server, where there is one."""
        server = self.servers.get(name)
        if server is not None:
            server.close()
            self.world.log(name, "closed", server.is_serving(), len(server.sockets))

    async def tend(self, name: str, method: str) -> None:
        """Await a method of a server, where there is one."""
        server = self.servers.get(name)
        if server is not None:
            try:
                self.world.log(name, method, await getattr(server, method)(), server.is_serving())
            except Exception as error:
                self.world.log(name, method, repr(error))

    async def occupied(self, name: str) -> None:
        """Try to serve where somebody else is."""
        address = self[name]
        loop, log = self.world.loop, self.world.log
        try:
            if isinstance(address, str):
                await loop.create_unix_server(self.caller(name), address)
            else:
                await loop.create_server(self.caller(name), *address[:2])
        except Exception as error:
            log(name, "is occupied:", repr(error))

    async def meet(self, name: str, connecting: Callable[[], Coroutine[Any, Any, Any]], then: str) -> None:
        """Wait for a connection, tell what became of it, and do with it what is said."""
        log = self.world.log
        try:
            connected = await connecting()
        except Exception as error:
            log(name, "fails:", repr(error), repr(error.__cause__))
            return
        if isinstance(connected, socket.socket):
            log(name, "connected a socket to", self.found(connected.getpeername()))
            connected.close()
            return
        if isinstance(connected[1], asyncio.StreamWriter):
            await self._stream(name, *connected, then)
            return
        transport, protocol = connected
        log(name, "is connected to", self.found(transport.get_extra_info("peername")), protocol.name)
        self.world.closing.insert(0, transport.abort)
        if then == "keep":
            return
        if then == "wait":
            await protocol.heard.wait()
        (transport.abort if then == "abort" else transport.close)()
        await protocol.lost.wait()
        log(name, "is gone", transport.is_closing())

    async def _stream(self, name: str, reader: Any, writer: Any, then: str) -> None:
        log = self.world.log
        log(name, "streams to", self.found(writer.get_extra_info("peername")))
        self.world.closing.insert(0, lambda: (reader, writer.transport.abort()))  # without its reader it would close
        if then == "keep":
            return
        try:
            if then == "wait":
                log(name, "read", await reader.read(100))
            (writer.transport.abort if then == "abort" else writer.close)()
            await writer.wait_closed()
        except OSError as error:
            log(name, "breaks:", repr(error))
        log(name, "is gone", writer.is_closing())

    async def accepted(self, name: str, does: str) -> Any:
        """Give the loop a connection that somebody else has accepted."""
        near, far = socket.socketpair()
        self._stack.enter_context(near)
        try:
            return await self.world.loop.connect_accepted_socket(self.caller(name, does), far)
        except BaseException:
            far.close()
            raise

    async def bare(self, place: str, *, keep: bool) -> Any:
        """Connect a socket that is made by hand, and give it to a transport or leave it as it is."""
        address = self[place]
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else _family(address[0]))
        try:
            sock.setblocking(False)
            await self.world.loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        if keep:
            return sock
        return await self.world.loop.create_connection(self.caller(place), sock=sock)


class Caller(asyncio.Protocol):
    """A protocol that tells everything. A proactor's writes meet other events of a turn later: nobody writes anything."""

    def __init__(self, world: World, name: str, does: str) -> None:
        self.world, self.name, self.does = world, name, does
        self.heard, self.lost = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.world.log(self.name, "connection_made", isinstance(transport, asyncio.Transport))
        self.transport = transport
        if self.does in ("close", "abort", "pause_reading", "write_eof"):
            getattr(transport, self.does)()
        elif self.does == "raise":
            raise ValueError(f"{self.name} raises")

    def eof_received(self) -> bool:
        self.world.log(self.name, "eof_received")
        self.heard.set()
        return self.does == "stay"

    def connection_lost(self, error: Exception | None) -> None:
        self.world.log(self.name, "connection_lost", type(error).__name__)
        self.heard.set()
        self.lost.set()


def _family(where: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in where else socket.AF_INET


async def pause(turns: int) -> None:
    """Wait for a number of turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def after(turns: int, call: Callable[..., object], *args: Any) -> None:
    """Call something after a number of turns."""
    await pause(turns)
    call(*args)
