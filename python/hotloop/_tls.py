"""TLS connections: asyncio's handshake and shutdown around a native data path."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import TYPE_CHECKING, Any

from . import _hotloop

if TYPE_CHECKING:
    pass

#: The marks of flow control, in bytes, of a transport that nobody has set any for.
_HIGH_WATER, _LOW_WATER = 64 * 1024, 16 * 1024


class SSLTransport(_hotloop.TlsTransport, sslproto._SSLProtocolTransport):
    """What the application writes to. Programs look for the letters "ssl" in the name of its class."""

    if TYPE_CHECKING:
        # What asyncio's class has without telling the type checker.
        _ssl_protocol: TlsProtocol

    def _test__append_write_backlog(self, data: bytes) -> None:
        # asyncio's own hook for tests, which appends to a queue that is kept natively here.
        self._ssl_protocol._queue(data)


class TlsProtocol(_hotloop.TlsProtocol, sslproto.SSLProtocol):
    """The protocol towards the transport of encrypted bytes.

    What runs for each packet is native. The handshake, the shutdown, their time limits and what they report are the
    methods of the running Python's ``SSLProtocol``, on state that is kept natively.
    """

    # asyncio's constructor would make, and fill with zeros, a buffer of this size for each connection. The native
    # transport receives into the loop's.
    max_size = 0

    if TYPE_CHECKING:
        # What asyncio's class has without telling the type checker.
        _app_transport_created: bool
        _ssl_buffer: bytearray
        _ssl_buffer_view: memoryview

    def _get_app_transport(self) -> SSLTransport:
        if self._app_transport is None:
            if self._app_transport_created:
                raise RuntimeError("Creating _SSLProtocolTransport twice")
            self._app_transport = SSLTransport(self._loop, self)
            self._app_transport_created = True
        return self._app_transport  # type: ignore[no-any-return]

    # The general way in, for transports that are not ours.

    def get_buffer(self, n: int) -> memoryview:
        """Room for encrypted bytes."""
        if not self._ssl_buffer:
            self._ssl_buffer = bytearray(_HIGH_WATER)
            self._ssl_buffer_view = memoryview(self._ssl_buffer)
        return self._ssl_buffer_view

    def buffer_updated(self, nbytes: int) -> None:
        """Encrypted bytes have come in."""
        self._receive(self._ssl_buffer_view[:nbytes])

    # Flow control

    def _set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super()._set_write_buffer_limits(high, low)  # type: ignore[misc]
        # What waits below counts too, so the transport there must tell of it in time.
        if isinstance(self._transport, _hotloop.SocketTransport):
            self._transport.set_write_buffer_limits(
                min(self._outgoing_high_water, _HIGH_WATER), min(self._outgoing_low_water, _LOW_WATER)
            )

    # The end

    def _do_shutdown(self) -> None:
        # close_notify goes behind everything that was written.
        try:
            self._do_write()
        except Exception as error:
            self._fatal_error(error, "Fatal error on SSL protocol")
            return
        super()._do_shutdown()  # type: ignore[misc]

    def _on_shutdown_complete(self, shutdown_exc: BaseException | None) -> None:
        # The transport below sends what it is given before it closes, also while it asks to wait.
        if shutdown_exc is None and self._transport is not None:
            self._send_outgoing()
        super()._on_shutdown_complete(shutdown_exc)  # type: ignore[misc]

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._forget_queued()
        super().connection_lost(exc)


def move_buffered(protocol: asyncio.BaseProtocol, connection: TlsProtocol) -> None:
    """Give a connection the encrypted bytes that a server's stream reader has received ahead of it."""
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        reader: Any = getattr(protocol, "_stream_reader", None)
        if reader is not None and reader._buffer:
            connection._incoming.write(reader._buffer)
            reader._buffer.clear()
