"""One end of a connection in memory."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import sys
from asyncio.log import logger
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._datagrams import tell

if TYPE_CHECKING:
    from ._loop import EventLoop
    from ._network import Network

__all__ = ["MemoryTransport"]

# How many bytes are under way or unread at most, as with the buffers of a kernel.
_WINDOW = 64 * 1024

# How many bytes a protocol is given at once, as by asyncio's transports.
_MAX_SIZE = 256 * 1024

# So many writes to a lost connection are passed over before there is a word of them, as by asyncio's transports.
_LOST_WRITES = 5


class MemoryTransport(asyncio.transports._FlowControlMixin, asyncio.Transport):
    """A stream transport whose far end is another one of the same loop."""

    # Files are read and written.
    _sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK

    def __init__(
        self, loop: EventLoop, network: Network, protocol: Any, name: Any, peer_name: Any, server: Any = None
    ) -> None:
        super().__init__({"sockname": name, "peername": peer_name}, loop)
        self._event_loop = loop
        self._network = network
        self._protocol: Any = protocol
        self._server = server
        self._number = loop.next_number()
        # In which everything is told.
        self._context = contextvars.copy_context()
        self._far: MemoryTransport | None = None
        # Written, and not under way yet.
        self._buffer = bytearray()
        # Bytes that are under way to the far end, or that its protocol has not taken.
        self._in_flight = 0
        # What happens when that arrives, in its order, and when the last of it does.
        self._under_way: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._last_arrival = 0.0
        # Arrived, and not taken by the protocol.
        self._received = bytearray()
        self._eof_received = False
        self._eof_told = False
        # Whether the protocol wants no more to be written, and whether the far end was told.
        self._eof = False
        self._eof_sent = False
        self._paused = False
        self._closing = False
        # Whether the protocol is to be told of more in a turn to come.
        self._is_delivering = False
        # Whether the protocol was told of the connection.
        self._began = False
        self._lost = 0
        if server is not None:
            if sys.version_info >= (3, 13):
                server._attach(self)
            else:
                server._attach()
        network.opened(self)

    # For the network

    def join(self, far: MemoryTransport) -> None:
        """Make two ends one connection."""
        self._far, far._far = far, self

    def begin(self, waiter: asyncio.Future[None] | None) -> None:
        """Tell the protocol of the connection, then the waiter."""
        self._soon(self._begin, waiter)

    def reset(self) -> None:
        """Break the connection: both ends hear of it."""
        error = (errno.ECONNRESET, "Connection reset by peer")
        for end in (self, self._far_end()):
            end._force_close(ConnectionResetError(*error))

    def drop(self) -> None:
        """Close without a word: the loop is closed."""
        self._closing = True
        self._lost += 1

    def _begin(self, waiter: asyncio.Future[None] | None) -> None:
        self._began = True
        self._protocol.connection_made(self)
        self._deliver_soon()
        if waiter is not None:
            self._soon(tell, waiter)

    # The transport

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<MemoryTransport {self.get_extra_info('sockname')} {state}>"

    def get_protocol(self) -> Any:
        """The protocol that is told of what comes in."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol be told."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether the protocol is told of what comes in."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Stop telling the protocol what comes in."""
        self._paused = True

    def resume_reading(self) -> None:
        """Tell the protocol what comes in."""
        if self._closing or not self._paused:
            return
        self._paused = False
        self._deliver_soon()

    def get_write_buffer_size(self) -> int:
        """How many bytes are written and not under way, since the far end does not read."""
        return len(self._buffer)

    def can_write_eof(self) -> bool:
        """Half of a connection can be ended."""
        return True

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes to the far end."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._lost:
            if self._lost >= _LOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self._lost += 1
            return
        self._buffer += data
        self._send()
        self._maybe_pause_protocol()  # type: ignore[attr-defined]

    def write_eof(self) -> None:
        """End the stream behind what was written."""
        if self._closing or self._eof:
            return
        self._eof = True
        self._send()

    def close(self) -> None:
        """Close behind what was written."""
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._lost += 1
            self._soon(self._end, None)

    def abort(self) -> None:
        """Close at once: what waits to be sent is dropped."""
        self._force_close(None)

    def __hash__(self) -> int:
        return self._number

    # On the way

    def _far_end(self) -> MemoryTransport:
        assert self._far is not None, "an end is joined before it is told of"
        return self._far

    def _soon(self, callback: Callable[..., None], *args: Any) -> None:
        self._event_loop.call_soon(callback, *args, context=self._context)

    def _send(self) -> None:
        """Put on the way what the window has room for."""
        while self._buffer and self._in_flight < _WINDOW:
            length = self._network.draw_piece(min(len(self._buffer), _WINDOW - self._in_flight))
            piece = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._in_flight += length
            self._after_delay(self._far_end()._receive, piece)
        if self._buffer:
            return
        self._maybe_resume_protocol()  # type: ignore[attr-defined]
        if self._closing and not self._lost:
            self._lost += 1
            self._soon(self._end, None)
        elif self._eof and not self._eof_sent:
            self._eof_sent = True
            self._after_delay(self._far_end()._receive, b"")

    def _after_delay(self, callback: Callable[..., None], *args: Any) -> None:
        """Have the far end hear of something when what is sent now arrives, behind all that was sent before."""
        self._last_arrival = max(self._last_arrival, self._event_loop.time() + self._network.draw_delay())
        self._under_way.append((callback, args))
        self._network.arrive(self._last_arrival, self._arrived)

    def _arrived(self) -> None:
        callback, args = self._under_way.popleft()
        self._far_end()._context.run(callback, *args)

    def _receive(self, piece: bytes) -> None:
        """A piece of the far end's stream, or its end, is here."""
        if piece and self._network.draw_reset():
            self.reset()
        elif not self._closing:
            self._received += piece
            self._eof_received |= not piece
            self._deliver()
        elif piece:
            # Nobody reads it any more, and a kernel says so.
            self._after_delay(self._far_end()._refuse)

    def _refuse(self) -> None:
        """The far end does not want what was sent."""
        self._force_close(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def _make_room(self, count: int) -> None:
        """The far end has taken some of what was sent."""
        self._in_flight -= count
        if not self._closing or self._buffer:
            self._send()

    # To the protocol

    def _deliver_soon(self) -> None:
        if not self._is_delivering:
            self._is_delivering = True
            self._soon(self._deliver_more)

    def _deliver_more(self) -> None:
        self._is_delivering = False
        self._deliver()

    def _deliver(self) -> None:
        """Tell the protocol of what has arrived: of one thing a turn, as asyncio does."""
        if self._is_delivering or not self._began or not self.is_reading():
            return
        if self._received:
            self._deliver_bytes()
        elif self._eof_received and not self._eof_told:
            self._deliver_end()
        if self._received or (self._eof_received and not self._eof_told):
            self._deliver_soon()

    def _deliver_bytes(self) -> None:
        try:
            count = self._give()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")
            return
        far = self._far_end()
        far._soon(far._make_room, count)

    def _deliver_end(self) -> None:
        self._eof_told = True
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()

    def _give(self) -> int:
        """Give the protocol some of what has arrived; answer how many bytes."""
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            data = bytes(self._received[:_MAX_SIZE])
            del self._received[: len(data)]
            self._protocol.data_received(data)
            return len(data)
        buffer = memoryview(self._protocol.get_buffer(-1)).cast("B")
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        buffer.release()
        del self._received[:count]
        self._protocol.buffer_updated(count)
        return count

    def _fatal_error(self, error: BaseException, message: str) -> None:
        context = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        self._event_loop.call_exception_handler(context)
        self._force_close(error)

    # The end

    def _force_close(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._buffer.clear()
        self._closing = True
        self._lost += 1
        self._soon(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        """Tell the protocol that the connection is lost, and the far end that the stream is over."""
        try:
            if self._began:
                self._protocol.connection_lost(error)
        finally:
            self._network.ended(self)
            # As a kernel has it: what was sent arrives, and of a connection that is closed with something unread the
            # far end hears of a reset.
            if self._received:
                self._after_delay(self._far_end()._refuse)
            elif not self._eof_sent:
                self._eof_sent = True
                self._after_delay(self._far_end()._receive, b"")
            self._received.clear()
            server, self._server = self._server, None
            if server is not None:
                if sys.version_info >= (3, 13):
                    server._detach(self)
                else:
                    server._detach()
