"""A loop on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import selectors
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, TypeVarTuple

from .._loop import SelectorEventLoop
from ._network import Faults, MemoryListener, Network

__all__ = ["Deadlock", "EventLoop"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Deadlock(RuntimeError):
    """Nothing is ready or scheduled, and there is nobody left who could change that."""


class EventLoop(SelectorEventLoop):
    """A loop whose time stands still while anything is ready, and else jumps to the next timer.

    Its time begins at 0. Connections and servers that are given by host and port, or by the path of a Unix socket, are
    in memory, on ``network``. Everything else is real: sockets that are given, pipes, children, threads. Time waits
    for what ``run_in_executor`` runs; it does not wait for other things that are real.

    :param seed: what chance depends on: the faults of the network and the order of I/O that is ready at once. The same
        program does the same with the same seed. ``None`` draws one.
    :param faults: what the network does to connections; without it they are perfect.
    """

    def __init__(self, seed: int | None = None, faults: Faults | None = None) -> None:
        #: What chance depends on.
        self.seed: int = random.SystemRandom().getrandbits(32) if seed is None else seed
        #: Where chance comes from; a program may draw from it too.
        self.random = random.Random(self.seed)
        self._now = 0.0
        # How many threads run something on behalf of the loop: time waits for them.
        self._outside = 0
        super().__init__(_VirtualSelector(self))
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
        self.network.close()
        super().close()

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
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **more: Any
    ) -> tuple[Any, Any]:
        """Connect to a server on the network in memory."""
        if more.get("sock") is not None:
            return await super().create_connection(protocol_factory, host, port, **more)
        _refuse_tls(more)
        return await self.network.connect(protocol_factory, (host, port))

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Any], path: Any = None, **more: Any
    ) -> tuple[Any, Any]:
        """Connect to a server on the network in memory."""
        if more.get("sock") is not None:
            return await super().create_unix_connection(protocol_factory, path, **more)
        _refuse_tls(more)
        return await self.network.connect(protocol_factory, str(path))

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **more: Any
    ) -> asyncio.Server:
        """Serve on the network in memory."""
        if more.get("sock") is not None:
            return await super().create_server(protocol_factory, host, port, **more)
        _refuse_tls(more)
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        return await self._serve_in_memory(protocol_factory, [(host, port) for host in hosts], more)

    async def create_unix_server(
        self, protocol_factory: Callable[[], Any], path: Any = None, **more: Any
    ) -> asyncio.Server:
        """Serve on the network in memory."""
        if more.get("sock") is not None:
            return await super().create_unix_server(protocol_factory, path, **more)
        _refuse_tls(more)
        return await self._serve_in_memory(protocol_factory, [str(path)], more)

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

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout != 0:
            if self._loop._outside:
                found = super().select(None)
            elif timeout is not None:
                self._loop._pass(timeout)
            elif len(self.get_map()) <= _OWN and threading.active_count() == 1:
                raise Deadlock("the program waits for ever: nothing is scheduled")
            else:
                found = super().select(None)
        if len(found) > 1:
            self._loop.random.shuffle(found)
        return found


# How close to its time a timer is due, in seconds.
_RESOLUTION = 1e-9

# The descriptors by which signals and other threads wake a loop.
_OWN = 2


def _refuse_tls(options: dict[str, Any]) -> None:
    if options.get("ssl"):
        raise ValueError("connections in memory have no TLS")
