"""A datagram endpoint in memory."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import sys
from typing import TYPE_CHECKING, Any

from ._addresses import LOOPBACK, plain

if TYPE_CHECKING:
    from ._loop import EventLoop
    from ._network import Network

__all__ = ["MemoryDatagramTransport"]

# What fits into a datagram of UDP over IPv4, in bytes.
_MAX_DATAGRAM = 65507

# Whether a datagram may be empty: before Python 3.13 asyncio's transports send none then.
_SENDS_EMPTY = sys.version_info >= (3, 13)


class MemoryDatagramTransport(asyncio.DatagramTransport):
    """A datagram transport on the network in memory of its loop.

    What is sent is under way at once, so nothing ever queues up and flow control has nothing to do.
    """

    def __init__(self, loop: EventLoop, network: Network, protocol: Any, address: Any, remote: Any) -> None:
        self._address = address
        self._remote = remote
        super().__init__({"sockname": self._name(address), "peername": remote and self._name(remote)})
        self._event_loop = loop
        self._network = network
        self._protocol = protocol
        self._closing = False
        # In which everything is told.
        self._context = contextvars.copy_context()
        self._number = loop.next_number()
        network.endpoints.take(address, self)
        network.opened(self)

    def begin(self, waiter: asyncio.Future[None]) -> None:
        """Tell the protocol of the endpoint, then the waiter."""
        self._event_loop.call_soon(self._protocol.connection_made, self, context=self._context)
        self._event_loop.call_soon(tell, waiter, context=self._context)

    def drop(self) -> None:
        """Close without a word: the loop is closed."""
        self._closing = True

    def __hash__(self) -> int:
        return self._number

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<MemoryDatagramTransport {self.get_extra_info('sockname')} {state}>"

    # The transport

    def get_protocol(self) -> Any:
        """The protocol that is told of what comes in."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol be told."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """None: what is sent is under way at once."""
        return 0

    def sendto(self, data: bytes | bytearray | memoryview[Any], addr: Any = None) -> None:
        """Send a datagram; without an address to the one that the endpoint was made for.

        :raises ValueError: if the endpoint was made for another address.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(
                f"data argument must be bytes-like object (bytes, bytearray or memoryview), not {type(data).__name__!r}"
            )
        if not data and not _SENDS_EMPTY:
            return
        if self._remote is not None:
            if addr is not None and plain(addr) != self._remote:
                raise ValueError(f"Invalid address: must be None or {self._name(self._remote)}")
            target = self._remote
        elif addr is None:
            self._fatal_error(TypeError("sendto(): the endpoint was made without a remote address, so it needs one"))
            return
        else:
            target = plain(addr)
        if self._closing:
            return
        if len(data) > _MAX_DATAGRAM:
            self._fail(OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE)))
            return
        network = self._network
        if not network.draw_loss():
            payload = bytes(data)
            when = self._event_loop.time() + network.draw_latency()
            network.arrive(when, lambda: self._arrive(payload, target))

    def close(self) -> None:
        """Close; ``connection_lost`` follows. What was sent still arrives."""
        self._close(None)

    def abort(self) -> None:
        """As ``close``: nothing is queued."""
        self.close()

    # On the way

    def _arrive(self, payload: bytes, target: Any) -> None:
        """A datagram of this endpoint is where it was sent."""
        far = self._network.endpoints.find(target)
        if far is not None:
            far._context.run(far._receive, payload, self._address)
        elif self._remote is not None and not self._closing:
            # A host where nobody has the port says so, and a kernel tells those who are connected.
            refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            when = self._event_loop.time() + self._network.draw_latency()
            self._network.arrive(when, lambda: self._context.run(self._fail, refused))

    def _receive(self, payload: bytes, source: Any) -> None:
        # A kernel passes over what comes from others than the one that an endpoint was made for.
        named = (LOOPBACK, source[1]) if isinstance(source, tuple) and source[0] is None else source
        if self._remote is None or self._remote == named:
            self._protocol.datagram_received(payload, named)

    def _fail(self, error: OSError) -> None:
        if not self._closing:
            self._protocol.error_received(error)

    def _fatal_error(self, error: BaseException) -> None:
        self._event_loop.call_exception_handler(
            {
                "message": "Fatal write error on datagram transport",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._network.endpoints.give_back(self._address, self)
        self._event_loop.call_soon(self._end, error, context=self._context)

    def _end(self, error: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._network.ended(self)

    def _name(self, address: Any) -> Any:
        """An address as the program sees it."""
        if isinstance(address, tuple) and address[0] is None:
            return "0.0.0.0", address[1]
        return address


def tell(waiter: asyncio.Future[None]) -> None:
    """Resolve a future that nobody has given up."""
    if not waiter.done():
        waiter.set_result(None)
