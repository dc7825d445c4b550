"""Per-connection parts of the native transports."""

from __future__ import annotations

import asyncio
import socket
from asyncio import trsock
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loop import EventLoop


def make_socket_transport(
    loop: EventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
    server: Any,
    context: Context | None = None,
) -> asyncio.Transport:
    """Make a native transport over a connected, non-blocking socket."""
    return loop._open_stream(sock, protocol, waiter, extra, server, context)


def make_datagram_transport(
    loop: EventLoop,
    sock: socket.socket,
    protocol: asyncio.DatagramProtocol,
    address: Any,
    waiter: asyncio.Future[None] | None,
    given: dict[str, Any] | None,
) -> asyncio.DatagramTransport:
    """Make a native transport over a non-blocking datagram socket of one of ``DATAGRAM_FAMILIES``."""
    transport = loop._open_datagrams(sock, protocol, address, waiter, extra(sock, given))
    loop._transports[sock.fileno()] = transport
    return transport


# Those whose addresses the native transport reads and writes itself.
DATAGRAM_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def extra(sock: socket.socket, given: dict[str, Any] | None) -> dict[str, Any]:
    """What ``get_extra_info`` looks names up in, where something of it is given or of an unusual family."""
    info = dict(given) if given else {}
    # Wrapped, so that nobody who asks for it closes the socket or changes its mode.
    info["socket"] = trsock.TransportSocket(sock)
    try:
        info["sockname"] = sock.getsockname()
    except OSError:
        info["sockname"] = None
    if "peername" not in info:
        try:
            info["peername"] = sock.getpeername()
        except OSError:
            info["peername"] = None
    return info


def adopt(fd: int, family: int, kind: int, proto: int) -> socket.socket:
    """The socket of a connection that was accepted natively; it owns the descriptor from now on."""
    sock = socket.socket(family, kind, proto, fileno=fd)
    sock.setblocking(False)
    return sock


def closed_socket(_: int, family: int, kind: int, proto: int) -> socket.socket:
    """A socket as it is after the connection: closed."""
    sock = socket.socket(family, kind, proto)
    sock.close()
    return sock
