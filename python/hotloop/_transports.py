"""Per-connection parts of the native transports."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
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


def make_read_pipe_transport(
    loop: EventLoop,
    pipe: Any,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
) -> asyncio.ReadTransport:
    """Make a native transport over what a file object gives, which it owns and closes."""
    if not _is_pipe(os.fstat(pipe.fileno()).st_mode):
        raise ValueError("Pipe transport is for pipes/sockets only.")
    os.set_blocking(pipe.fileno(), False)
    return loop._open_read_pipe(pipe, protocol, waiter, _with_pipe(extra, pipe))


def make_write_pipe_transport(
    loop: EventLoop,
    pipe: Any,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
) -> asyncio.WriteTransport:
    """Make a native transport over what a file object takes, which it owns and closes."""
    mode = os.fstat(pipe.fileno()).st_mode
    if not _is_pipe(mode):
        raise ValueError("Pipe transport is only for pipes, sockets and character devices")
    os.set_blocking(pipe.fileno(), False)
    # A terminal is readable whenever somebody types.
    hangs_up = not stat.S_ISCHR(mode)
    return loop._open_write_pipe(pipe, protocol, waiter, _with_pipe(extra, pipe), hangs_up)


def _is_pipe(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _with_pipe(extra: dict[str, Any] | None, pipe: Any) -> dict[str, Any]:
    extra = {} if extra is None else extra
    extra["pipe"] = pipe
    return extra


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
