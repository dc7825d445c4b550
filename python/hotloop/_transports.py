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
    set_nodelay(sock)
    transport = loop._open_stream(sock, protocol, waiter, info, server, context)
    loop._transports[sock.fileno()] = transport
    if server is not None:
        attach(server, transport)
    return transport


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
