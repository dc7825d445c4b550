"""The two loops: native scheduling, watching and transports over asyncio's own cold paths."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import socket
import sys
import threading
from asyncio import base_events, constants
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from ._connections import ConnectionMethods
from ._originals import CONNECT, SOCKET, own
from ._processes import Children, has_own_watcher, is_by_descriptor, spawn
from ._queues import ReadyView, ScheduledView
from ._registry import TransportsView
from ._selector import LoopSelector, driver_for, show, show_no_more
from ._sockets import SocketMethods
from ._tls import TlsProtocol, move_buffered
from ._transports import (
    DATAGRAM_FAMILIES,
    make_datagram_transport,
    make_socket_transport,
)

if TYPE_CHECKING:
    import ssl

__all__ = ["EventLoop", "ProactorEventLoop", "SelectorEventLoop"]

_Ts = TypeVarTuple("_Ts")
_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)

# What the native answer for literals stands in for.
_getaddrinfo = own(socket, "getaddrinfo")


class EventLoop(SocketMethods, ConnectionMethods):
    """What both loops are, but for the facility of the kernel underneath. One of this very class is on readiness
    notification.

    :raises OSError: where no descriptor is left.
    """

    # Whether the selector does the waiting, in Python.
    _delegates = False

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        # The file objects that are watched, by number: asyncio's selector knows them, also when they are closed.
        self._read_objects: dict[int, Any] = {}
        self._write_objects: dict[int, Any] = {}
        super().__init__(LoopSelector(self) if selector is None else selector)
        self._children = Children(self)
        # From Python 3.14 on asyncio's own way of spawning looks there, and has chosen threads where the kernel gives
        # no descriptors of children.
        if sys.version_info >= (3, 14) and is_by_descriptor(self._watcher):
            self._watcher = self._children

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

    def _make_self_pipe(self) -> None:
        super()._make_self_pipe()  # type: ignore[misc]  # the stubs know only what is public
        self._wakes_only(self._ssock.fileno())

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call a function when a signal comes in."""
        super().add_signal_handler(sig, callback, *args)
        # From now on what the handler of signals writes is an event like any other, which each turn asks for.
        self._wakes_only(None)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a handler; answer whether there was one."""
        removed = super().remove_signal_handler(sig)
        if not self._signal_handlers and not self.is_closed():
            self._wakes_only(self._ssock.fileno())
        return removed

    def close(self) -> None:
        """Close the loop, which must not be running."""
        selector = self._selector
        super().close()
        if self.is_closed():
            if selector is not None:
                show_no_more(selector)
            self._children.close()
            self._read_objects.clear()
            self._write_objects.clear()
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

    @property
    def _transports(self) -> TransportsView:
        return TransportsView(self)

    @_transports.setter
    def _transports(self, transports: Any) -> None:
        # asyncio's constructor puts an empty dictionary here; the native one is in its place already.
        for fd, transport in dict(transports).items():
            TransportsView(self)[fd] = transport

    # Watching descriptors. The public methods are asyncio's: they check, then come here.

    def _add_reader(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_closed()
        handle = self._new_handle(callback, args, context)
        number = _number(fd)
        replaced = self._watch_read(number, handle)
        if fd is not number:
            self._read_objects[number] = fd
        if self._delegates:
            self._tell_selector(fd)
        if replaced is not None:
            replaced.cancel()
        return handle

    def _remove_reader(self, fd: Any) -> bool:
        if self.is_closed():
            return False
        number = _number(fd, self)
        removed = self._unwatch_read(number)
        self._read_objects.pop(number, None)
        if self._delegates:
            self._tell_selector()
        return _cancel(removed)

    def _add_writer(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_closed()
        handle = self._new_handle(callback, args, context)
        number = _number(fd)
        replaced = self._watch_write(number, handle)
        if fd is not number:
            self._write_objects[number] = fd
        if self._delegates:
            self._tell_selector(fd)
        if replaced is not None:
            replaced.cancel()
        return handle

    def _remove_writer(self, fd: Any) -> bool:
        if self.is_closed():
            return False
        number = _number(fd, self)
        removed = self._unwatch_write(number)
        self._write_objects.pop(number, None)
        if self._delegates:
            self._tell_selector()
        return _cancel(removed)

    # A selector that does the waiting

    def _tell_selector(self, fileobj: Any = None) -> None:
        """Tell the selector what to watch. A file object is one that the caller has just begun to watch.

        :raises Exception: what the selector raises for that one; it is not watched then.
        """
        number = None if fileobj is None else _number(fileobj)
        for fd, before, events in self._take_changes():
            watched: Any = fileobj if fd == number and events else fd
            try:
                if not events:
                    self._selector.unregister(watched)
                elif not before:
                    self._selector.register(watched, events, self._watchers(fd))
                else:
                    self._selector.modify(watched, events, self._watchers(fd))
            except Exception as error:
                if events:
                    self._refused(fd)
                if fd == number:
                    self._unwatch_read(fd)
                    self._unwatch_write(fd)
                    raise
                self.call_exception_handler({"message": "Exception in selector", "exception": error})
                # Who waits there is to find out by himself what is wrong.
                self._found(fd, events)

    def _select(self, timeout: float | None) -> None:
        """Wait with the selector."""
        self._tell_selector()
        for key, events in self._selector.select(timeout):
            if not self._found(key.fd, events):
                # Registered by somebody who knows how asyncio does it.
                self._process_events([(key, events)])

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
        return answer

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
        return self._open_read_pipe(pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.WriteTransport:
        return self._open_write_pipe(pipe, protocol, waiter, extra)

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

    def _is_unaltered(self, names: frozenset[str]) -> bool:
        """Whether nobody has put something of his own in the place of these methods, or of the socket class and what it
        connects with.
        """
        if self._debug or base_events.socket.socket is not SOCKET or not vars(self).keys().isdisjoint(names):  # type: ignore[attr-defined]
            return False
        if SOCKET.connect is not CONNECT:
            return False
        kind = type(self)
        return kind in (SelectorEventLoop, ProactorEventLoop) or all(
            getattr(kind, name) is getattr(EventLoop, name) for name in names
        )


class SelectorEventLoop(EventLoop):
    """An event loop on readiness notification: ``asyncio.SelectorEventLoop``, natively.

    :param selector: which facility of the kernel the loop uses, as a selector of the ``selectors`` module: natively.
        Any other object with the interface of a selector, one of a subclass too, is driven as it is, and so is one
        that has something registered. Without one it is the best facility of the platform. The loop closes the
        selector when it is closed.
    :raises OSError: where no descriptor is left.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        if selector is None:
            super().__init__()
            return
        driver = driver_for(selector)
        if driver != self.driver:
            self._use_driver(driver)
        self._delegates = driver == "selector"
        if self._delegates:
            selector.register(self._waker_fd(), selectors.EVENT_READ, (None, None))
        else:
            show(selector, LoopSelector(self))
        super().__init__(selector)


class ProactorEventLoop(EventLoop):
    """An event loop on completion notification: io_uring, on Linux.

    It has everything that ``SelectorEventLoop`` has. As that one it is an ``asyncio.SelectorEventLoop``, since that is
    the class that Unix sockets, pipes, signals and children come from.

    :raises OSError: where the kernel refuses io_uring to this process; its text says why.
    """

    _by_completion = True

    def __init__(self) -> None:
        super().__init__()


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


def _number(fileobj: Any, removing_from: EventLoop | None = None) -> int:
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
