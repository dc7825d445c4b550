"""Per-connection parts of the native transports."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import trsock
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loop import SelectorEventLoop


def make_socket_transport(
    loop: SelectorEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
    server: Any,
    context: Context | None = None,
) -> asyncio.Transport:
    """Make a native transport over a connected, non-blocking socket."""
    set_nodelay(sock)
    transport = loop._open_stream(sock, protocol, waiter, _described(sock, extra), server, context)
    loop._transports[sock.fileno()] = transport
    if server is not None:
        attach(server, transport)
    return transport


def make_datagram_transport(
    loop: SelectorEventLoop,
    sock: socket.socket,
    protocol: asyncio.DatagramProtocol,
    address: Any,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
) -> asyncio.DatagramTransport:
    """Make a native transport over a non-blocking datagram socket of one of ``DATAGRAM_FAMILIES``."""
    transport = loop._open_datagrams(sock, protocol, address, waiter, _described(sock, extra))
    loop._transports[sock.fileno()] = transport
    return transport


# Those whose addresses the native transport reads and writes itself.
DATAGRAM_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def _described(sock: socket.socket, extra: dict[str, Any] | None) -> dict[str, Any]:
    """What ``get_extra_info`` of a transport over a socket knows."""
    info = dict(extra) if extra else {}
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


def set_nodelay(sock: socket.socket) -> None:
    """Send small packets at once on TCP, by what the socket is: ``sock.proto`` is 0 on most."""
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        # A stream over IP that is not TCP (SCTP, MPTCP on old kernels) has no such option, nor the need.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def attach(server: Any, transport: asyncio.Transport) -> None:
    """Count a connection of a server, as the running Python's server does (with the transport since 3.13)."""
    try:
        server._attach(transport)
    except TypeError:
        server._attach()
