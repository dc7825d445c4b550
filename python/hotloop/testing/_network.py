"""A network in memory: who listens where, and what happens on the way."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._transport import MemoryTransport

if TYPE_CHECKING:
    from ._loop import EventLoop

__all__ = ["Faults", "MemoryListener", "Network"]


@dataclass(frozen=True)
class Faults:
    """What a network does to connections. Chances are between 0 and 1.

    Streams stay streams: bytes arrive once and in order, or the connection breaks.
    """

    #: How long a piece of a stream is under way, in seconds: drawn between the two for each.
    delay: tuple[float, float] = (0.0, 0.0)
    #: The chance that a piece is lost. It is sent again, which takes time: 0.2 s, and twice as long each time.
    loss: float = 0.0
    #: The chance that a piece breaks the connection: both ends hear of a reset.
    reset: float = 0.0
    #: The chance that a connection is refused although somebody listens.
    refuse: float = 0.0
    #: The largest piece, in bytes: a stream is cut at places drawn from 1 to here. 0: it is cut at the window only.
    split: int = 0

    def __post_init__(self) -> None:
        low, high = self.delay
        if not 0 <= low <= high:
            raise ValueError(f"delay must be two times in order, not {self.delay!r}")
        for name in ("loss", "reset", "refuse"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a chance, not {getattr(self, name)!r}")
        if self.loss == 1:
            raise ValueError("loss must be less than 1, or nothing would ever arrive")


# What a lost piece waits before it is sent again the first time, in seconds: TCP's least.
_RETRANSMISSION = 0.2

# Which hosts a server without one listens on.
_ANY = frozenset({None, "", "0.0.0.0", "::"})


class Network:
    """The connections in memory of one loop."""

    def __init__(self, loop: EventLoop, faults: Faults) -> None:
        self._loop = loop
        #: What happens to connections from now on. It may be replaced at any time.
        self.faults = faults
        self._listeners: dict[tuple[Any, Any], MemoryListener] = {}
        self._connections: set[MemoryTransport] = set()
        # Drawn from no chance, so that a program that fails prints the same ports whatever else it draws.
        self._next_port = 40000

    @property
    def connections(self) -> int:
        """How many ends of connections are open."""
        return len(self._connections)

    def reset_all(self) -> None:
        """Break every connection: both ends hear of a reset."""
        for transport in sorted(self._connections, key=lambda transport: transport.number):
            transport.reset()

    def close(self) -> None:
        """Let go of everything: nothing arrives any more."""
        self._listeners.clear()
        for transport in self._connections:
            transport.drop()
        self._connections.clear()

    def bind(self, address: Any) -> MemoryListener:
        """Take an address: a host and a port (0 or ``None``: a free one), or a path.

        :raises OSError: if somebody has it.
        """
        if not isinstance(address, str):
            host, port = address
            if not port:
                port = self._new_port()
            address = (_plain(host), int(port))
        if self._find(address) is not None:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {address!r}: in use")
        listener = MemoryListener(self, address)
        self._listeners[address] = listener
        return listener

    def unbind(self, listener: MemoryListener) -> None:
        """Give an address back."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    async def connect(self, protocol_factory: Callable[[], Any], address: Any) -> tuple[MemoryTransport, Any]:
        """Connect to who listens at an address.

        :raises ConnectionRefusedError: if nobody does, or chance has it.
        """
        if not isinstance(address, str):
            address = (_plain(address[0]), int(address[1]))
        # There and back.
        await asyncio.sleep(self.draw_delay() + self.draw_delay())
        listener = self._find(address)
        faults = self.faults
        if listener is None or not listener.serves or (faults.refuse and self._loop.random.random() < faults.refuse):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address!r}")
        name: Any = "" if isinstance(address, str) else ("127.0.0.1", self._new_port())
        near = MemoryTransport(self._loop, self, protocol_factory(), name, address, None)
        far = MemoryTransport(self._loop, self, listener.make_protocol(), address, name, listener.server)
        near.join(far)
        waiter = self._loop.create_future()
        far.begin(None)
        near.begin(waiter)
        try:
            await waiter
        except BaseException:
            near.close()
            raise
        return near, near.get_protocol()

    def opened(self, transport: MemoryTransport) -> None:
        """Note a new end."""
        self._connections.add(transport)

    def ended(self, transport: MemoryTransport) -> None:
        """Forget an end that is closed."""
        self._connections.discard(transport)

    def draw_delay(self) -> float:
        """How long a piece is under way, in seconds: with its losses."""
        faults, chance = self.faults, self._loop.random
        low, high = faults.delay
        delay = chance.uniform(low, high) if high else 0.0
        again = _RETRANSMISSION
        while faults.loss and chance.random() < faults.loss:
            delay += again
            again *= 2
        return delay

    def draw_reset(self) -> bool:
        """Whether a piece breaks its connection."""
        return self.faults.reset > 0 and self._loop.random.random() < self.faults.reset

    def draw_piece(self, length: int) -> int:
        """How many of so many bytes travel as one piece."""
        split = self.faults.split
        return min(length, self._loop.random.randint(1, split)) if split else length

    def _find(self, address: Any) -> MemoryListener | None:
        if isinstance(address, str):
            return self._listeners.get(address)  # type: ignore[call-overload, no-any-return]
        host, port = address
        everywhere = (None, port)
        if host is None:
            return next((found for at, found in self._listeners.items() if at[-1] == port), None)
        return self._listeners.get((host, port)) or self._listeners.get(everywhere)

    def _new_port(self) -> int:
        self._next_port += 1
        return self._next_port


class MemoryListener:
    """What stands in for a listening socket: enough of one for ``asyncio.Server``."""

    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: Network, address: Any) -> None:
        self._network = network
        self.address = address
        self.family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._factory: Callable[[], Any] | None = None
        self.server: Any = None

    @property
    def serves(self) -> bool:
        """Whether connections are accepted."""
        return self._factory is not None

    def serve(self, protocol_factory: Callable[[], Any], server: Any) -> None:
        """Accept connections from now on."""
        self._factory = protocol_factory
        self.server = server

    def make_protocol(self) -> Any:
        """A protocol for a new connection."""
        assert self._factory is not None
        return self._factory()

    def listen(self, backlog: int) -> None:
        """Nothing: connections do not queue up."""

    def fileno(self) -> int:
        """There is none."""
        return -1

    def getsockname(self) -> Any:
        """The address that is served."""
        if isinstance(self.address, str):
            return self.address
        host, port = self.address
        return (host or "0.0.0.0", port)

    def close(self) -> None:
        """Give the address back."""
        self._factory = None
        self._network.unbind(self)


def _plain(host: Any) -> str | None:
    """One name for each host; ``None`` for all of them."""
    if host in _ANY:
        return None
    name = host.decode() if isinstance(host, bytes) else str(host)
    return "127.0.0.1" if name in ("localhost", "::1") else name
