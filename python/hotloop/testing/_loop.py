"""A loop on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import random
import selectors
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, TypeVarTuple, cast

from .._loop import SelectorEventLoop
from ._addresses import path_of, plain
from ._datagrams import MemoryDatagramTransport
from ._network import Faults, MemoryListener, Network
from ._order import OrderedWeakSet, SimulatedFuture, SimulatedTask

__all__ = ["Deadlock", "EventLoop"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Deadlock(RuntimeError):
    """Nothing is ready or scheduled, and there is nobody left who could change that."""


class EventLoop(SelectorEventLoop):
    """A loop whose time stands still while anything is ready, and else jumps to the next timer.

    Its time begins at 0. Connections, servers and datagram endpoints that are given by host and port, or by the path of
    a Unix socket, are in memory, on ``network``. Everything else is real: sockets that are given, pipes, children,
    threads. Time waits for what ``run_in_executor`` runs; it does not wait for other things that are real.

    The same program does the same with the same seed, as far as it is all on this loop: tasks, futures, transports and
    asynchronous generators have hashes, names and an order that do not depend on where they lie in memory.

    :param seed: what chance depends on: the faults of the network, the order of what arrives at the same time, and that
        of descriptors that are ready at once. ``None`` draws one.
    :param faults: what the network does to what is sent; without it it is perfect.
    """

    def __init__(self, seed: int | None = None, faults: Faults | None = None) -> None:
        #: What chance depends on.
        self.seed: int = random.SystemRandom().getrandbits(32) if seed is None else seed
        #: Where chance comes from; a program may draw from it too.
        self.random = random.Random(self.seed)
        self._now = 0.0
        self._last_number = 0
        # How many threads run something on behalf of the loop: time waits for them.
        self._outside = 0
        # Who could wake the loop from another thread is none of those that were there before.
        self._older_threads = frozenset(threading.enumerate())
        selector = _VirtualSelector(self)
        super().__init__(selector)
        selector.note_own()
        self._asyncgens: Any = OrderedWeakSet()
        #: The network in memory.
        self.network = Network(self, faults or Faults())

    def time(self) -> float:
        """Answer the virtual time, in seconds since the loop was made."""
        return self._now

    def _pass(self, seconds: float) -> None:
        """Have time pass."""
        self._now += seconds
        # Far from 0 neighbouring times are further apart than the resolution, and a timer due now would never be.
        self._clock_resolution = max(_RESOLUTION, 2 * math.ulp(self._now))

    def close(self) -> None:
        """Close the loop, which must not be running."""
        if not self.is_running():
            self.network.close()
        super().close()

    def _can_be_woken(self) -> bool:
        """Whether there is anybody outside of the loop who could give it something to do."""
        mine = {threading.current_thread(), *getattr(self._default_executor, "_threads", ())}  # type: ignore[attr-defined]
        others = set(threading.enumerate()) - self._older_threads - mine
        return bool(others or self._signal_handlers)

    # What is in the same order each time

    def next_number(self) -> int:
        """A number for something of this loop."""
        self._last_number += 1
        return self._last_number

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future, whose hash is a number."""
        return SimulatedFuture(self)

    def create_task(self, coro: Any, **given: Any) -> asyncio.Task[Any]:
        """Make a task, whose hash is a number."""
        if self.get_task_factory() is not None:
            return super().create_task(coro, **given)
        self._check_closed()
        return SimulatedTask(coro, loop=self, **given)

    # What happens in other threads takes no time

    def run_in_executor(self, executor: Any, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Run a function in a thread; time stands still until it is done."""
        future: asyncio.Future[_T] = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._came_back)
        return future

    async def shutdown_default_executor(self, *args: Any, **more: Any) -> None:
        """Wait for the threads of the default executor to end."""
        with self._standing_still():
            await super().shutdown_default_executor(*args, **more)

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self._outside -= 1

    # Connections in memory

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **given: Any
    ) -> tuple[Any, Any]:
        """Connect to a server on the network in memory.

        :raises ValueError: for TLS, of which there is none in memory.
        """
        if given.get("sock") is not None or (host is None and port is None):
            return await super().create_connection(protocol_factory, host, port, **given)
        _check("create_connection", protocol_factory, host, port, **given)
        return await self.network.connect(protocol_factory, (host, port))

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Any], path: Any = None, **given: Any
    ) -> tuple[Any, Any]:
        """Connect to a server on the network in memory.

        :raises ValueError: for TLS, of which there is none in memory.
        """
        if given.get("sock") is not None or path is None:
            return await super().create_unix_connection(protocol_factory, path, **given)
        _check("create_unix_connection", protocol_factory, path, **given)
        return await self.network.connect(protocol_factory, path_of(path))

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **given: Any
    ) -> asyncio.Server:
        """Serve on the network in memory.

        :raises ValueError: for TLS, of which there is none in memory.
        """
        if given.get("sock") is not None or (host is None and port is None):
            return await super().create_server(protocol_factory, host, port, **given)
        _check("create_server", protocol_factory, host, port, **given)
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        return await self._serve_in_memory(protocol_factory, [(host, port) for host in hosts], given)

    async def create_unix_server(
        self, protocol_factory: Callable[[], Any], path: Any = None, **given: Any
    ) -> asyncio.Server:
        """Serve on the network in memory.

        :raises ValueError: for TLS, of which there is none in memory.
        """
        if given.get("sock") is not None or path is None:
            return await super().create_unix_server(protocol_factory, path, **given)
        _check("create_unix_server", protocol_factory, path, **given)
        return await self._serve_in_memory(protocol_factory, [path_of(path)], given)

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], local_addr: Any = None, remote_addr: Any = None, **given: Any
    ) -> tuple[Any, Any]:
        """Make an endpoint for datagrams on the network in memory."""
        if given.get("sock") is not None or (local_addr is None and remote_addr is None and not given.get("family")):
            made = await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **given)
            return cast("tuple[Any, Any]", made)
        _check("create_datagram_endpoint", protocol_factory, local_addr, remote_addr, **given)
        local = self._free_endpoint(local_addr, remote_addr)
        remote = None if remote_addr is None else plain(remote_addr)
        protocol = protocol_factory()
        transport = MemoryDatagramTransport(self, self.network, protocol, local, remote)
        waiter = self.create_future()
        transport.begin(waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def _free_endpoint(self, local: Any, remote: Any) -> Any:
        """The address of a new endpoint."""
        if local is None and isinstance(remote, str | bytes):
            # A Unix socket without a path, which nobody can answer.
            return b"\0" + str(self.next_number()).encode()
        if local is None:
            local = ("127.0.0.1" if remote else None, 0)
        return self.network.endpoints.free(plain(local))

    async def _serve_in_memory(
        self, protocol_factory: Callable[[], Any], addresses: list[Any], options: dict[str, Any]
    ) -> asyncio.Server:
        listeners: list[MemoryListener] = []
        try:
            listeners += (self.network.bind(address) for address in addresses)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        backlog = options.get("backlog", 100)
        server = asyncio.Server(self, listeners, protocol_factory, None, backlog, None)  # type: ignore[arg-type]
        if options.get("start_serving", True):
            await server.start_serving()
        return server

    def _start_serving(self, protocol_factory: Callable[[], Any], sock: Any, *args: Any, **more: Any) -> None:
        if not isinstance(sock, MemoryListener):
            return super()._start_serving(protocol_factory, sock, *args, **more)
        # As asyncio calls it: the context for TLS, the server.
        sock.serve(protocol_factory, args[1] if len(args) > 1 else more.get("server"))
        return None

    def _stop_serving(self, sock: Any) -> None:
        if isinstance(sock, MemoryListener):
            sock.close()
        else:
            super()._stop_serving(sock)  # type: ignore[misc]  # the stubs know only what is public


class _VirtualSelector(selectors.DefaultSelector):
    """A selector that has time pass in place of waiting."""

    def __init__(self, loop: EventLoop) -> None:
        super().__init__()
        self._loop = loop
        # How many descriptors the loop itself is woken by.
        self._own = 0

    def note_own(self) -> None:
        """Note that all that is registered so far is the loop's own."""
        self._own = len(self.get_map())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout != 0:
            loop = self._loop
            if loop._outside:
                found = super().select(None)
            elif timeout is not None:
                loop._pass(timeout)
            elif len(self.get_map()) > self._own or loop._can_be_woken():
                found = super().select(None)
            else:
                # What a thread did last before it ended may have come after the first look.
                found = super().select(0)
                if not found:
                    raise Deadlock("the program waits for ever: nothing is scheduled")
        if len(found) > 1:
            found.sort(key=lambda ready: ready[0].fd)
            self._loop.random.shuffle(found)
        return found


# How close to its time a timer is due, in seconds.
_RESOLUTION = 1e-9


def _check(name: str, *args: Any, ssl: Any = None, **given: Any) -> None:
    """Refuse what asyncio's method of that name does not take, and TLS.

    :raises TypeError: as asyncio's does.
    :raises ValueError: for TLS.
    """
    inspect.signature(getattr(asyncio.SelectorEventLoop, name)).bind(None, *args, **given)
    if ssl or given.get("server_hostname") is not None:
        raise ValueError("connections in memory have no TLS: test it with sockets that are given (sock=)")
