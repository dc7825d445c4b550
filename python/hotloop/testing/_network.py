"""A network in memory: who is where on it, and what happens on the way."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._addresses import LOOPBACK, Addresses, Ports, plain
from ._transport import MemoryTransport

if TYPE_CHECKING:
    from ._datagrams import MemoryDatagramTransport
    from ._loop import EventLoop

__all__ = ["Faults", "MemoryListener", "Network"]


@dataclass(frozen=True)
class Faults:
    """What a network does to what is sent. Chances are between 0 and 1.

    Streams stay streams: bytes arrive once and in order, or the connection breaks. Datagrams stay datagrams: each
    arrives whole or not at all, and may overtake another.
    """

    #: How long a piece of a stream, or a datagram, is under way, in seconds: drawn between the two for each.
    delay: tuple[float, float] = (0.0, 0.0)
    #: The chance that it is lost. A datagram is gone then. A piece of a stream is sent again, which takes time: 0.2 s,
    #: and twice as long each time.
    loss: float = 0.0
    #: The chance that a piece of a stream breaks the connection: both ends hear of a reset.
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
        if self.split < 0:
            raise ValueError(f"split must be a number of bytes, not {self.split!r}")


# What a lost piece waits before it is sent again the first time, in seconds: TCP's least.
_RETRANSMISSION = 0.2


class Network:
    """The network in memory of one loop."""

    def __init__(self, loop: EventLoop, faults: Faults) -> None:
        self._loop = loop
        #: What happens to what is sent from now on. It may be replaced at any time.
        self.faults = faults
        ports = Ports()
        self._ports = ports
        self._listeners: Addresses[MemoryListener] = Addresses(ports)
        #: Who receives datagrams where.
        self.endpoints: Addresses[MemoryDatagramTransport] = Addresses(ports)
        # A dict and not a set: in the order in which they were opened.
        self._open: dict[MemoryTransport | MemoryDatagramTransport, None] = {}
        # What arrives at each time.
        self._arriving: dict[float, list[Callable[[], None]]] = {}
        # What arrives is no part of the program that sent it.
        self._context = contextvars.Context()

    @property
    def connections(self) -> int:
        """How many ends of connections are open."""
        return sum(isinstance(transport, MemoryTransport) for transport in self._open)

    def reset_all(self) -> None:
        """Break every connection: both ends hear of a reset."""
        for transport in list(self._open):
            if isinstance(transport, MemoryTransport):
                transport.reset()

    def close(self) -> None:
        """Let go of everything: nothing arrives any more."""
        self._listeners.clear()
        self.endpoints.clear()
        for transport in self._open:
            transport.drop()
        self._open.clear()
        self._arriving.clear()

    # Streams

    def bind(self, address: Any) -> MemoryListener:
        """Take an address: a host and a port (0 or ``None``: a free one), or a path.

        :raises OSError: if somebody has it.
        """
        address = self._listeners.free(plain(address))
        listener = MemoryListener(self, address)
        self._listeners.take(address, listener)
        return listener

    def unbind(self, listener: MemoryListener) -> None:
        """Give an address back."""
        self._listeners.give_back(listener.address, listener)

    async def connect(self, protocol_factory: Callable[[], Any], address: Any) -> tuple[MemoryTransport, Any]:
        """Connect to who listens at an address.

        :raises ConnectionRefusedError: if nobody does, or chance has it.
        """
        address = plain(address)
        # There and back.
        await asyncio.sleep(self.draw_delay() + self.draw_delay())
        listener = self._listeners.find(address)
        if listener is None or not listener.serves or self._happens(self.faults.refuse):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address!r}")
        name = (LOOPBACK, self._ports.new()) if isinstance(address, tuple) else ""
        if isinstance(address, tuple) and address[0] is None:
            address = (LOOPBACK, address[1])
        near = MemoryTransport(self._loop, self, protocol_factory(), name, address)
        far = listener.accept(address, name)
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

    # What transports tell and ask

    def opened(self, transport: MemoryTransport | MemoryDatagramTransport) -> None:
        """Note a new end."""
        self._open[transport] = None

    def ended(self, transport: MemoryTransport | MemoryDatagramTransport) -> None:
        """Forget an end that is closed."""
        self._open.pop(transport, None)

    def arrive(self, when: float, callback: Callable[[], None]) -> None:
        """Call at a time. Of what arrives at one time chance says what is first."""
        self._arriving.setdefault(when, []).append(callback)
        self._loop.call_at(when, self._arrived, when, context=self._context)

    def _arrived(self, when: float) -> None:
        arriving = self._arriving[when]
        index = self._loop.random.randrange(len(arriving)) if len(arriving) > 1 else 0
        callback = arriving.pop(index)
        if not arriving:
            del self._arriving[when]
        callback()

    def draw_delay(self) -> float:
        """How long a piece is under way, in seconds: with its losses."""
        delay = self.draw_latency()
        again = _RETRANSMISSION
        while self._happens(self.faults.loss):
            delay += again
            again *= 2
        return delay

    def draw_latency(self) -> float:
        """How long something that is not lost is under way, in seconds."""
        low, high = self.faults.delay
        return self._loop.random.uniform(low, high) if high else 0.0

    def draw_loss(self) -> bool:
        """Whether a datagram is lost."""
        return self._happens(self.faults.loss)

    def draw_reset(self) -> bool:
        """Whether a piece breaks its connection."""
        return self._happens(self.faults.reset)

    def draw_piece(self, length: int) -> int:
        """How many of so many bytes travel as one piece."""
        split = self.faults.split
        return min(length, self._loop.random.randint(1, split)) if split else length

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._loop.random.random() < chance


class MemoryListener:
    """What stands in for a listening socket: enough of one for ``asyncio.Server``."""

    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: Network, address: Any) -> None:
        self._network = network
        self.address = address
        self.family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self._factory: Callable[[], Any] | None = None
        self._server: Any = None
        self._context = contextvars.Context()

    @property
    def serves(self) -> bool:
        """Whether connections are accepted."""
        return self._factory is not None

    def serve(self, protocol_factory: Callable[[], Any], server: Any) -> None:
        """Accept connections from now on, each in a copy of the context of this call."""
        self._factory = protocol_factory
        self._server = server
        self._context = contextvars.copy_context()

    def accept(self, name: Any, peer_name: Any) -> MemoryTransport:
        """The near end of a new connection. One without a protocol is closed at once, as by asyncio."""
        assert self._factory is not None
        context, loop = self._context.copy(), self._network._loop
        try:
            protocol, server = context.run(self._factory), self._server
        except Exception as error:
            message = "Error on transport creation for incoming connection"
            loop.call_exception_handler({"message": message, "exception": error})
            protocol, server = None, None
        made = protocol or asyncio.Protocol()
        transport = context.run(MemoryTransport, loop, self._network, made, name, peer_name, server)
        if protocol is None:
            transport.close()
        return transport

    def listen(self, backlog: int) -> None:
        """Nothing: connections do not queue up."""

    def fileno(self) -> int:
        """There is none."""
        return -1

    def getsockname(self) -> Any:
        """The address that is served."""
        if not isinstance(self.address, tuple):
            return self.address
        host, port = self.address
        return (host or "0.0.0.0", port)

    def close(self) -> None:
        """Give the address back."""
        self._factory = None
        self._network.unbind(self)
