"""The selector loop: native scheduling, watching and transports over asyncio's own cold paths."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import selectors
import signal
import socket
import sys
import threading
from asyncio import base_events, constants, trsock
from asyncio.log import logger
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from . import _hotloop
from ._processes import Children, has_own_watcher, is_by_descriptor, spawn
from ._selector import LoopSelector
from ._tls import TlsProtocol, move_buffered
from ._transports import (
    DATAGRAM_FAMILIES,
    make_datagram_transport,
    make_read_pipe_transport,
    make_socket_transport,
    make_write_pipe_transport,
)

if TYPE_CHECKING:
    import ssl

__all__ = ["SelectorEventLoop"]

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


# What the native answer for literals stands in for.
_getaddrinfo = socket.getaddrinfo

# How many connections one turn accepts: of several processes on one socket, each is to have its share.
_ACCEPT_BUDGET = 8


class SelectorEventLoop(_hotloop.Loop, asyncio.SelectorEventLoop):
    """An event loop on readiness notification: ``asyncio.SelectorEventLoop``, natively.

    :param selector: a selector of the ``selectors`` module; the loop runs on the best facility of the platform and
        closes the one it is given.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        if selector is not None:
            selector.close()
        super().__init__(LoopSelector(self))
        self._children = Children(self)
        # From Python 3.14 on asyncio's own way of spawning looks there, and has chosen threads where the kernel gives
        # no descriptors of children.
        if sys.version_info >= (3, 14) and is_by_descriptor(self._watcher):
            self._watcher = self._children

    if TYPE_CHECKING:
        # What asyncio's classes have without telling the type checker.
        _selector: LoopSelector
        _transports: MutableMapping[int, asyncio.Transport]
        _csock: socket.socket
        _watcher: Any
        _signal_handlers: dict[int, asyncio.Handle]

        def _check_closed(self) -> None: ...
        def _ensure_fd_no_transport(self, fd: Any) -> None: ...
        def _child_watcher_callback(self, pid: int, returncode: int, transp: Any) -> None: ...
        async def _ensure_resolved(
            self,
            address: Any,
            *,
            family: int = 0,
            type: int = socket.SOCK_STREAM,
            proto: int = 0,
            flags: int = 0,
            loop: asyncio.AbstractEventLoop,
        ) -> list[Any]: ...

    # Running

    def run_forever(self) -> None:
        """Run until ``stop()`` is called."""
        self._begin_running()
        try:
            with self._woken_by_signals():
                super().run_forever()
        finally:
            self._end_running()

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Have signals wake the loop, also one that arrives on the very way into the wait.

        Without this such a signal would set Python's flag and go unnoticed until something else wakes the loop. Only
        the main thread handles signals, and a wake-up descriptor that somebody else has set stays his.
        """
        if threading.current_thread() is not threading.main_thread() or self.is_closed():
            yield
            return
        number = self._csock.fileno()
        try:
            before = signal.set_wakeup_fd(number, warn_on_full_buffer=False)
        except ValueError:
            # Not the main interpreter.
            yield
            return
        if before != -1:
            signal.set_wakeup_fd(before)
        try:
            yield
        finally:
            # A loop with signal handlers keeps it between runs, as asyncio's does.
            if before == -1 and not self._signal_handlers:
                now = signal.set_wakeup_fd(-1)
                if now != number:
                    signal.set_wakeup_fd(now)

    def close(self) -> None:
        """Close the loop, which must not be running."""
        super().close()
        if self.is_closed():
            self._children.close()
            self._release()

    # Scheduled callbacks, for programs that look at asyncio's private queues.

    @property
    def _ready(self) -> ReadyView:
        return ReadyView(self)

    @_ready.setter
    def _ready(self, handles: Any) -> None:
        # asyncio's constructor puts an empty queue here; the native one is in its place already.
        for handle in handles:
            self._add_callback(handle)

    @property
    def _scheduled(self) -> ScheduledView:
        return ScheduledView(self)

    @_scheduled.setter
    def _scheduled(self, timers: Any) -> None:
        if len(timers):
            raise AttributeError("timers are scheduled with call_at()")

    # Watching descriptors. The public methods are asyncio's: they check, then come here.

    def _add_reader(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_closed()
        handle = self._new_handle(callback, args, context)
        replaced = self._watch_read(_number(fd), handle)
        if replaced is not None:
            replaced.cancel()
        return handle

    def _remove_reader(self, fd: Any) -> bool:
        if self.is_closed():
            return False
        removed = self._unwatch_read(_number(fd, self))
        return _cancel(removed)

    def _add_writer(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_closed()
        handle = self._new_handle(callback, args, context)
        replaced = self._watch_write(_number(fd), handle)
        if replaced is not None:
            replaced.cancel()
        return handle

    def _remove_writer(self, fd: Any) -> bool:
        if self.is_closed():
            return False
        removed = self._unwatch_write(_number(fd, self))
        return _cancel(removed)

    # Sockets: tried at once, else waited for natively. Objects that only look like sockets take asyncio's own way.

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to ``n`` bytes; none at the end of the stream."""
        if not self._is_plain(sock):
            return await super().sock_recv(sock, n)
        data = self._try_recv(sock, n)
        return data if isinstance(data, bytes) else await self._outcome(sock, data)

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive into a buffer; answer the number of bytes."""
        if not self._is_plain(sock):
            return await super().sock_recv_into(sock, buf)
        count = self._try_recv_into(sock, buf)
        return count if isinstance(count, int) else await self._outcome(sock, count)

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all bytes."""
        if not self._is_plain(sock):
            return await super().sock_sendall(sock, data)
        sent = self._try_sendall(sock, data)
        if sent is not None:
            await self._outcome(sock, sent)
        return None

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection; answer its socket, non-blocking, and the peer's address."""
        if not self._is_plain(sock):
            return await super().sock_accept(sock)
        accepted = self._try_call(sock, False, sock._accept)  # type: ignore[attr-defined]
        if not isinstance(accepted, tuple):
            accepted = await self._outcome(sock, accepted)
        fd, address = accepted
        conn = socket.socket(sock.family, sock.type, sock.proto, fileno=fd)
        conn.setblocking(False)
        return conn, address

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> Any:
        """Receive a datagram of up to ``bufsize`` bytes; answer it and the address of its sender."""
        if not self._is_plain(sock):
            return await super().sock_recvfrom(sock, bufsize)
        received = self._try_recvfrom(sock, bufsize)
        return received if isinstance(received, tuple) else await self._outcome(sock, received)

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> Any:
        """Receive a datagram into a buffer; answer the number of bytes and the address of its sender."""
        if not self._is_plain(sock):
            return await super().sock_recvfrom_into(sock, buf, nbytes)
        received = self._try_recvfrom_into(sock, buf, nbytes or len(buf))
        return received if isinstance(received, tuple) else await self._outcome(sock, received)

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send a datagram to an address; answer the number of bytes."""
        if not self._is_plain(sock):
            return await super().sock_sendto(sock, data, address)
        sent = self._try_sendto(sock, data, address)
        return sent if isinstance(sent, int) else await self._outcome(sock, sent)

    async def sock_recvmsg(
        self, sock: socket.socket, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive bytes and ancillary data, as ``socket.recvmsg`` does: bytes, ancillary data, flags, address.

        asyncio's loops have no such method.
        """
        self._is_plain(sock)
        received = self._try_call(sock, False, sock.recvmsg, bufsize, ancbufsize, flags)
        return received if isinstance(received, tuple) else await self._outcome(sock, received)

    async def sock_sendmsg(
        self, sock: socket.socket, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None
    ) -> int:
        """Send bytes and ancillary data, as ``socket.sendmsg`` does; answer the number of bytes.

        On a stream that may be less than all of them. asyncio's loops have no such method.
        """
        self._is_plain(sock)
        sent = self._try_call(sock, True, sock.sendmsg, buffers, ancdata, flags, address)
        return sent if isinstance(sent, int) else await self._outcome(sock, sent)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to an address; a host name in it is resolved first."""
        if not self._is_plain(sock):
            await super().sock_connect(sock, address)
            return
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        try:
            sock.connect(address)
        except (BlockingIOError, InterruptedError):
            await self._outcome(sock, self._wait_connected(sock, address))

    def _is_plain(self, sock: Any) -> bool:
        """Whether a socket is one of the stdlib's own class; raises where asyncio refuses a socket."""
        base_events._check_ssl_socket(sock)  # type: ignore[attr-defined]
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        # A closed loop has no driver any more; on asyncio it still does what needs no waiting.
        return type(sock) is socket.socket and not self._closed

    async def _outcome(self, sock: socket.socket, future: asyncio.Future[Any]) -> Any:
        """Wait for an operation on a socket, and end it if the wait is given up."""
        try:
            return await future
        except BaseException:
            if sock.fileno() >= 0:
                self._forget_operation(sock)
            raise

    # Names

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve a host and a port: an address at once, a name on the executor."""
        # A replaced `socket.getaddrinfo` (a proxy, a cache, a test) is asked for everything, as on stock asyncio.
        by_resolver = self._debug or socket.getaddrinfo is not _getaddrinfo
        answer = None if by_resolver else self._literal_addresses(host, port, family, type, proto, flags)
        if answer is None:
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        return [(socket.AddressFamily(family), socket.SocketKind(kind), *rest) for family, kind, *rest in answer]

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
        how: tuple[Any, ...] = (sslcontext, server, backlog, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sys.version_info >= (3, 15):
            how = (*how, context)
        handle = self._new_handle(self._accept_connection, (protocol_factory, sock, *how))
        natively = _is_accepted_natively(sock) and self._serves_natively()
        factory = protocol_factory
        if sslcontext:
            limits = {"ssl_handshake_timeout": ssl_handshake_timeout, "ssl_shutdown_timeout": ssl_shutdown_timeout}

            def factory() -> asyncio.BaseProtocol:
                return TlsProtocol(self, protocol_factory(), sslcontext, None, True, **limits)  # type: ignore[arg-type]

        replaced = self._listen(sock, handle, natively, factory, server, backlog, context)
        if replaced is not None:
            replaced.cancel()

    def _serves_natively(self) -> bool:
        """Whether nobody has put methods of his own where asyncio would call them for each connection."""
        names = (
            *("_accept_connection", "_accept_connection2", "_make_socket_transport", "_make_ssl_transport"),
            *("create_task", "create_future"),
        )
        own = vars(self)
        return not any(
            name in own or getattr(type(self), name) is not getattr(SelectorEventLoop, name) for name in names
        )

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        *context: Context | None,
    ) -> None:
        """Accept some of what waits, each connection in a task; rest where the system has run out of something."""
        how = (sslcontext, server, backlog, ssl_handshake_timeout, ssl_shutdown_timeout, *context)
        for _ in range(min(backlog, _ACCEPT_BUDGET)):
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
            if context and context[0] is not None:
                given["context"] = context[0].copy()
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

    # Transports

    async def create_datagram_endpoint(self, *args: Any, **more: Any) -> Any:
        """Create a datagram endpoint: asyncio's own, but that a failing factory leaves no socket behind."""
        if args and more.get("sock") is None:
            args = (_closing_socket(args[0]), *args[1:])
        return await super().create_datagram_endpoint(*args, **more)

    def _make_socket_transport(
        self,
        sock: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.Server | None = None,
        context: Context | None = None,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(sock)
        return make_socket_transport(self, sock, protocol, waiter, extra, server, context)

    def _make_datagram_transport(
        self,
        sock: Any,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.DatagramTransport:
        self._ensure_fd_no_transport(sock)
        if type(sock) is not socket.socket or sock.family not in DATAGRAM_FAMILIES:
            return super()._make_datagram_transport(sock, protocol, address, waiter, extra)  # type: ignore[misc, no-any-return]
        return make_datagram_transport(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.ReadTransport:
        return make_read_pipe_transport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.WriteTransport:
        return make_write_pipe_transport(self, pipe, protocol, waiter, extra)

    if sys.version_info < (3, 14):

        async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> asyncio.SubprocessTransport:
            if has_own_watcher():
                return await super()._make_subprocess_transport(*args, **kwargs)  # type: ignore[misc, no-any-return]
            return await spawn(self, self._children, *args, **kwargs)

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.Server | None = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(rawsock)
        ssl_protocol = TlsProtocol(
            self,
            protocol,
            sslcontext,
            waiter,  # type: ignore[arg-type]
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        make_socket_transport(self, rawsock, ssl_protocol, None, extra, server, context)
        return ssl_protocol._app_transport  # type: ignore[no-any-return]

    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Upgrade a connection to TLS; answer the transport that its protocol is to use from then on."""
        try:
            import ssl
        except ImportError:
            raise RuntimeError("Python ssl module is not available") from None
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        connection = TlsProtocol(
            *(self, protocol, sslcontext, waiter, server_side, server_hostname),
            ssl_handshake_timeout=ssl_handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            call_connection_made=False,
        )
        # Nothing may come in for the connection before it knows its transport.
        transport.pause_reading()  # type: ignore[attr-defined]
        if server_side:
            move_buffered(protocol, connection)
        transport.set_protocol(connection)
        made = self.call_soon(connection.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)  # type: ignore[attr-defined]
        try:
            await waiter
        except BaseException:
            transport.close()
            made.cancel()
            resumed.cancel()
            raise
        return connection._app_transport  # type: ignore[no-any-return]


class ReadyView:
    """The callbacks that are ready, as asyncio's ``deque`` of them would look."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return len(self._loop._ready_handles())

    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._loop._ready_handles())

    def __getitem__(self, index: int) -> asyncio.Handle:
        return self._loop._ready_handles()[index]

    def append(self, handle: asyncio.Handle) -> None:
        """Add a handle behind all others."""
        self._loop._add_callback(handle)

    def appendleft(self, handle: asyncio.Handle) -> None:
        """Add a handle before all others."""
        self._loop._ready_appendleft(handle)

    def popleft(self) -> asyncio.Handle:
        """Take the oldest handle."""
        handle = self._loop._ready_popleft()
        if handle is None:
            raise IndexError("pop from an empty deque")
        return handle

    def clear(self) -> None:
        """Drop all handles."""
        self._loop._clear_scheduled(False)


class ScheduledView:
    """The timers that wait, as asyncio's heap of them would look."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return len(self._loop._scheduled_handles())

    def __iter__(self) -> Iterator[asyncio.TimerHandle]:
        return iter(self._loop._scheduled_handles())

    def __getitem__(self, index: int) -> asyncio.TimerHandle:
        return self._loop._scheduled_handles()[index]

    def clear(self) -> None:
        """Drop all timers."""
        self._loop._clear_scheduled(True)


def _is_accepted_natively(sock: Any) -> bool:
    """Whether a listening socket has no ``accept`` of its own, and peers whose names are known natively."""
    return type(sock) is socket.socket and sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def _cancel(removed: asyncio.Handle | None) -> bool:
    """Cancel a removed watcher; answer whether there was one."""
    # The watcher of an operation on a socket that is over may stay in place for the next one.
    if removed is None or removed.cancelled():
        return False
    removed.cancel()
    return True


def _closing_socket(protocol_factory: Callable[[], _Protocol]) -> Callable[[], _Protocol]:
    """The factory, but that the socket that its caller has just made is closed where the factory fails."""

    def make() -> _Protocol:
        try:
            return protocol_factory()
        except BaseException:
            # No name but the caller's own refers to it yet, and nobody would close it.
            sock = sys._getframe(1).f_locals.get("sock")
            if isinstance(sock, socket.socket):
                sock.close()
            raise

    return make


def _number(fileobj: Any, removing_from: SelectorEventLoop | None = None) -> int:
    """The descriptor number of a file object, with the exceptions of the ``selectors`` module."""
    if type(fileobj) is int and 0 <= fileobj <= 0x7FFFFFFF:
        return fileobj
    if type(fileobj) is int and fileobj > 0:
        raise OverflowError("Python int too large to convert to C int")
    try:
        return selectors._fileobj_to_fd(fileobj)  # type: ignore[attr-defined, no-any-return]
    except ValueError:
        # A selector still finds a file object that was closed after it was registered.
        if removing_from is not None:
            for key in removing_from._selector.get_map().values():
                if key.fileobj is fileobj:
                    return key.fd
        raise


if sys.platform == "win32":
    raise ImportError("hotloop does not run on Windows yet")
