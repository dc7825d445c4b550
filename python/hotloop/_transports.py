"""Per-connection parts of the native transports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
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


def make_read_pipe_transport(
    loop: SelectorEventLoop,
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
    loop: SelectorEventLoop,
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
