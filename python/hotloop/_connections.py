"""Making connections and accepting them."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import sys
from asyncio import constants, selector_events, trsock
from asyncio.log import logger
from contextvars import Context, copy_context
from typing import Any

from . import _hotloop
from ._base import LoopBase
from ._originals import ACCEPT
from ._registry import ServerClients
from ._tls import TlsProtocol

__all__ = ["ConnectionMethods"]

# What asyncio calls for each connection that it makes, and for each that it accepts.
_CONNECTING = frozenset(
    {
        *("sock_connect", "_sock_connect", "_connect_sock", "_ensure_resolved", "_create_connection_transport"),
        *("_make_socket_transport", "create_future"),
    }
)
_SERVING = frozenset(
    {
        *("_accept_connection", "_accept_connection2", "_make_socket_transport", "_make_ssl_transport"),
        *("create_task", "create_future"),
    }
)


class ConnectionMethods(LoopBase):
    """Connecting to one address and accepting are native.

    Names, other options, and loops where somebody has put methods of his own in the way, have asyncio's way.
    """

    # Connecting

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a host and a port; the keywords are asyncio's."""
        begun = None if options or not self._is_unaltered(_CONNECTING) else self._connect(host, port)
        if begun is None:
            return await super().create_connection(protocol_factory, host, port, **options)
        return await self._finish_connecting(protocol_factory, *begun)

    async def create_unix_connection(  # type: ignore[override]
        self, protocol_factory: Any, path: Any = None, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to the path of a Unix socket; the keywords are asyncio's."""
        begun = None
        if path is not None and not options and self._is_unaltered(_CONNECTING):
            begun = self._connect_unix(os.fsencode(path))
        if begun is None:
            return await super().create_unix_connection(protocol_factory, path, **options)
        return await self._finish_connecting(protocol_factory, *begun)

    async def _finish_connecting(
        self, protocol_factory: Any, transport: _hotloop.SocketTransport, connected: asyncio.Future[None] | None
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Wait for a connection and give it its protocol; close it where that fails or is given up."""
        try:
            if connected is not None:
                await connected
            # What the factory changes in its own is not what the protocol sees, since Python 3.15.
            context = copy_context() if sys.version_info >= (3, 15) else None
            protocol = protocol_factory()
            begun = self.create_future()
            transport._begin_connected(protocol, begun, context)
        except BaseException:
            transport._abandon()
            raise
        finally:
            # An exception in it would refer to this frame, and this frame to it.
            connected = None
        try:
            await begun
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    # Servers

    def _start_serving(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> None:
        """Accept connections from the next turn on. Since Python 3.15 each gets a copy of ``context``."""
        self._check_closed()
        # A server may be closed while its socket rests for lack of descriptors.
        if sock.fileno() == -1:
            return
        ServerClients.take_over(self, server)
        how: tuple[Any, ...] = (sslcontext, server, backlog, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sys.version_info >= (3, 15):
            how = (*how, context)
        if not _is_accepted_natively(sock):
            self._add_reader(sock.fileno(), self._accept_connection, protocol_factory, sock, *how)
            return
        handle = self._new_handle(self._accept_connection, (protocol_factory, sock, *how))
        natively = self._is_unaltered(_SERVING)
        factory = protocol_factory
        if sslcontext:
            limits = {"ssl_handshake_timeout": ssl_handshake_timeout, "ssl_shutdown_timeout": ssl_shutdown_timeout}

            def factory() -> asyncio.BaseProtocol:
                return TlsProtocol(self, protocol_factory(), sslcontext, None, True, **limits)  # type: ignore[arg-type]

        replaced = self._listen(sock, handle, natively, factory, server, _budget(backlog), context)
        if replaced is not None:
            replaced.cancel()

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> None:
        """Accept some of what waits, each connection in a task; rest where the system has run out of something."""
        how: tuple[Any, ...] = (sslcontext, server, backlog, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sys.version_info >= (3, 15):
            how = (*how, context)
        for _ in range(_budget(backlog)):
            try:
                conn, address = self._accept_from(sock)
            except ConnectionAbortedError:
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._rest_accepting(error, (protocol_factory, sock, *how))
                return
            if self._debug:
                logger.debug("%r got a new connection from %r: %r", server, address, conn)
            conn.setblocking(False)
            given: dict[str, Any] = {}
            if context is not None:
                given["context"] = context.copy()
            accepted = self._accept_connection2(
                *(protocol_factory, conn, {"peername": address}, sslcontext, server),
                *(ssl_handshake_timeout, ssl_shutdown_timeout),
                **given,
            )
            self.create_task(accepted, **given)

    def _accept_from(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept one connection."""
        if not _is_accepted_natively(sock):
            return sock.accept()
        fd, address = self._accept(sock.fileno())
        return socket.socket(sock.family, sock.type, sock.proto, fileno=fd), address

    def _rest_accepting(self, error: OSError, how: tuple[Any, ...]) -> None:
        """Report that the system has run out of something, and accept again after a while.

        The socket stays readable all the while: without a rest the loop would spin.
        """
        sock = how[1]
        self.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": error,
                "socket": trsock.TransportSocket(sock),
            }
        )
        self._remove_reader(sock.fileno())
        self.call_later(constants.ACCEPT_RETRY_DELAY, self._start_serving, *how)

    async def _accept_connection2(
        self, protocol_factory: Any, conn: socket.socket, extra: Any, *rest: Any, **given: Any
    ) -> None:
        """Make the transport of an accepted connection; close the connection where that fails, and say so."""

        def make_protocol() -> asyncio.BaseProtocol:
            try:
                return protocol_factory()  # type: ignore[no-any-return]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                # asyncio reports this in debug mode only; a server that drops its clients silently helps nobody.
                if not self._debug:
                    message = "Error on transport creation for incoming connection"
                    self.call_exception_handler({"message": message, "exception": error})
                raise

        try:
            await super()._accept_connection2(make_protocol, conn, extra, *rest, **given)  # type: ignore[misc]
        finally:
            if conn.fileno() != -1 and self._transports.get(conn.fileno()) is None:
                conn.close()


def _budget(backlog: int) -> int:
    """How many connections of a listener with that backlog a turn accepts."""
    return max(1, min(backlog + _more_than_backlog(), _hotloop.ACCEPT_BUDGET))


@functools.cache
def _more_than_backlog() -> int:
    """How many more than the backlog is long asyncio accepts in a turn: one more from some release of 3.13 on, which is
    what the kernel lets wait. Its own method says so, when it looks at a backlog of nothing."""

    class Empty:
        looks = 0

        def accept(self) -> None:
            self.looks += 1
            raise BlockingIOError

    empty = Empty()
    selector_events.BaseSelectorEventLoop._accept_connection(None, None, empty, backlog=0)  # type: ignore[attr-defined]
    return empty.looks


def _is_accepted_natively(sock: Any) -> bool:
    """Whether a listening socket has no ``accept`` of its own, and peers whose names are known natively."""
    if type(sock) is not socket.socket or socket.socket.accept is not ACCEPT:
        return False
    return sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
