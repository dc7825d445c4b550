"""Checks of connections: how they are made, what is known of them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.conduct.callbacks import VARIABLE
from benchmarks.conduct.check import CONNECTIONS, PROGRAMS, Loop, check, demand, expect, run, settle
from benchmarks.conduct.ends import PATIENCE, Recorder

OVER_TCP = ("connect_rate", "accept_rate", *PROGRAMS)


@check(*OVER_TCP, "memory_idle")
def both_ends_are_known(loop: Loop) -> None:
    """A transport tells its socket, and the names of both ends, also when it is closed."""

    async def main() -> None:
        async with both_ends() as (made, accepted):
            names = [each.get_extra_info("sockname") for each in (made, accepted)]
            for transport, own, peer in ((made, *names), (accepted, *reversed(names))):
                sock = transport.get_extra_info("socket")
                demand(sock is not None, "there is no socket")
                demand(sock.fileno() >= 0, "the socket has no number")
                expect((sock.family, sock.type), (socket.AF_INET, socket.SOCK_STREAM), "the socket's kind")
                expect((sock.getsockname(), sock.getpeername()), (own, peer), "the names that the socket has")
                expect(transport.get_extra_info("peername"), peer, "the peer's name")
                transport.abort()
            await settle()
            for transport, own, peer in ((made, *names), (accepted, *reversed(names))):
                expect(transport.get_extra_info("sockname"), own, "its own name when it is closed")
                expect(transport.get_extra_info("peername"), peer, "the peer's name when it is closed")

    run(loop, main())


@check("connect_rate_unix", "unix_stream")
def the_path_of_a_connection_is_known(loop: Loop) -> None:
    """A transport over a Unix socket tells its socket, and the path that it is connected to, also when it is closed."""

    async def main() -> None:
        with listener_at_a_path() as far:
            path = far.getsockname()
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
            sock = transport.get_extra_info("socket")
            demand(sock is not None, "there is no socket")
            expect((sock.family, sock.type), (socket.AF_UNIX, socket.SOCK_STREAM), "the socket's kind")
            for state in ("open", "closed"):
                expect(transport.get_extra_info("peername"), path, f"the peer's name when it is {state}")
                expect(transport.get_extra_info("sockname"), "", f"its own name when it is {state}")
                transport.abort()
                await settle()

    run(loop, main())


@check(*OVER_TCP)
def connections_do_not_wait_for_more(loop: Loop) -> None:
    """`TCP_NODELAY` is set on connections that are made and on those that are accepted."""

    async def main() -> None:
        async with both_ends() as (made, accepted):
            for what, transport in (("made", made), ("accepted", accepted)):
                sock = transport.get_extra_info("socket")
                demand(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), f"not on one that was {what}")

    run(loop, main())


@contextlib.asynccontextmanager
async def both_ends() -> AsyncIterator[tuple[Any, Any]]:
    """The transports of both ends of a TCP connection, the one that was made and the one that was accepted."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[Any] = loop.create_future()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport)

    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    made, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    try:
        yield made, await accepted
    finally:
        made.abort()
        (await accepted).abort()
        server.close()
        await settle()


@check(same=True)
def failures_are_asyncios(loop: Loop) -> object:
    """What `create_connection` raises is what asyncio raises, and so is what it says."""
    found: list[list[tuple[str, int | None, str]]] = []
    with listener() as unused:
        port = unused.getsockname()[1]

    async def main() -> None:
        datagrams = {"sock": socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
        cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            (("127.0.0.1", port), {}),
            ((), {}),
            (("127.0.0.1", port), datagrams),
            ((), datagrams),
            (("127.0.0.1", port), {"server_hostname": "example"}),
            ((), {"ssl": True}),
        ]
        if sys.version_info >= (3, 12):
            cases.append((("127.0.0.1", port), {"all_errors": True}))
        for arguments, options in cases:
            try:
                await loop.create_connection(asyncio.Protocol, *arguments, **options)
            except BaseException as error:
                found.append([told(each, port) for each in (error, *getattr(error, "exceptions", ()))])
            else:
                found.append([])
        datagrams["sock"].close()

    run(loop, main())
    return found


def told(error: BaseException, port: int) -> tuple[str, int | None, str]:
    """What a failure says, without what is another one each time: the port, the description of a socket."""
    text = str(error).replace(str(port), "PORT").partition(" <socket")[0]
    return type(error).__name__, getattr(error, "errno", None), text


@check("connect_rate")
def connections_come_from_where_asked(loop: Loop) -> None:
    """`local_addr` is the near end of the connection."""

    async def main() -> None:
        with listener() as far, listener() as unused:
            local = unused.getsockname()
            unused.close()
            transport, protocol = await loop.create_connection(Recorder, *far.getsockname(), local_addr=local)
            accepted, peer = far.accept()
            accepted.close()
            expect(peer, local, "where it came from")
            transport.abort()
            await protocol.lost

    run(loop, main())


@check("connect_rate", same=True)
def connecting_has_asyncios_order(loop: Loop) -> object:
    """The protocol is made and told of its connection before `create_connection` answers, in the caller's context."""
    with listener() as far:
        return order_of_connecting(loop, far, lambda made: loop.create_connection(made, *far.getsockname()))


@check("connect_rate_unix", same=True)
def connecting_to_a_path_has_asyncios_order(loop: Loop) -> object:
    """Of a Unix connection, too, the protocol is made and told in the caller's context before it is answered."""
    with listener_at_a_path() as far:
        return order_of_connecting(loop, far, lambda made: loop.create_unix_connection(made, far.getsockname()))


Connect = Callable[[type[asyncio.Protocol]], Awaitable[tuple[asyncio.Transport, asyncio.Protocol]]]


def order_of_connecting(loop: Loop, far: socket.socket, connect: Connect) -> object:
    """What happens when a connection is made and ended, twice, and in which context."""
    order: list[object] = []

    class Protocol(asyncio.Protocol):
        def __init__(self) -> None:
            order.append(("made", VARIABLE.get(), asyncio.current_task() is not None))

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            order.append(("told", VARIABLE.get(), asyncio.current_task() is not None))

        def connection_lost(self, exc: Exception | None) -> None:
            order.append(("lost", exc))

    async def main() -> None:
        VARIABLE.set("the caller's")
        for end in ("abort", "close"):
            transport, _ = await connect(Protocol)
            VARIABLE.set("later")
            order.append("answered")
            getattr(transport, end)()
            order.append((end, transport.is_closing()))
            await settle()
            far.accept()[0].close()

    run(loop, main())
    return order


@check(*CONNECTIONS)
def an_abort_ends_it_for_good(loop: Loop) -> None:
    """`abort` tells the protocol once, in a later turn, and the socket is closed then."""

    async def main() -> None:
        with listener() as far:
            transport, protocol = await loop.create_connection(Recorder, *far.getsockname())
            accepted, _ = far.accept()
            accepted.settimeout(PATIENCE)
            transport.abort()
            expect(protocol.told, ["made"], "what it was told within abort()")
            await protocol.lost
            await settle()
            expect(protocol.told, ["made", ("lost", None)], "what it was told")
            with accepted:
                expect(accepted.recv(1), b"", "what the other end reads")

    run(loop, main())


@check(same=True)
def servers_know_their_sockets(loop: Loop) -> object:
    """A server has its sockets until it is closed, and says whether it serves."""
    found: list[object] = []

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
        found.append((len(server.sockets), server.sockets[0].getsockname()[0], server.is_serving()))
        await server.start_serving()
        found.append((server.get_loop() is loop, server.is_serving()))
        server.close()
        found.append((len(server.sockets), server.is_serving()))
        await server.wait_closed()

    run(loop, main())
    return found


@check("getaddrinfo_literal")
def addresses_are_the_resolvers(loop: Loop) -> None:
    """`loop.getaddrinfo` answers what `socket.getaddrinfo` answers."""
    cases: list[tuple[Any, Any, dict[str, int]]] = [
        ("127.0.0.1", 80, {}),
        ("127.0.0.1", "80", {"type": socket.SOCK_STREAM}),
        ("::1", 443, {"type": socket.SOCK_STREAM}),
        ("127.0.0.1", None, {"family": socket.AF_INET, "proto": socket.IPPROTO_UDP}),
        ("127.1", 80, {"type": socket.SOCK_DGRAM}),
        ("::ffff:127.0.0.1", 80, {}),
        (None, 80, {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM}),
        ("127.0.0.1", 80, {"family": socket.AF_INET6}),
        ("127.0.0.1", "no such service", {}),
        ("127.0.0.1", 80, {"flags": socket.AI_CANONNAME}),
        (b"127.0.0.1", b"80", {"type": socket.SOCK_STREAM}),
    ]

    async def main() -> None:
        for host, port, options in cases:
            try:
                wanted: object = socket.getaddrinfo(host, port, **options)
            except OSError as error:
                wanted = type(error), error.errno
            try:
                found: object = await loop.getaddrinfo(host, port, **options)
            except OSError as error:
                found = type(error), error.errno
            expect(found, wanted, f"{host!r}, {port!r}, {options!r}"[:60])

    run(loop, main())


def listener() -> socket.socket:
    """A blocking socket that listens."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.settimeout(PATIENCE)
    return sock


@contextlib.contextmanager
def listener_at_a_path() -> Iterator[socket.socket]:
    """A blocking Unix socket that listens, at a path that is gone afterwards."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(Path(directory, "socket")))
        sock.listen()
        sock.settimeout(PATIENCE)
        yield sock


CHECKS = [
    both_ends_are_known,
    the_path_of_a_connection_is_known,
    connections_do_not_wait_for_more,
    failures_are_asyncios,
    connections_come_from_where_asked,
    connecting_has_asyncios_order,
    connecting_to_a_path_has_asyncios_order,
    an_abort_ends_it_for_good,
    servers_know_their_sockets,
    addresses_are_the_resolvers,
]
