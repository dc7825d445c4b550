"""TLS connections: asyncio's handshake and shutdown around a native data path."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import TYPE_CHECKING, Any

from . import _hotloop

#: How much is received at once from a transport that is not ours, in bytes.
_ROOM = 64 * 1024


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

    What runs for each packet is native, and so are the handshake and the goodbye where they go well. The rest (errors,
    debug mode, what is reported) are the methods of the running Python's ``SSLProtocol``, on state that is kept
    natively.
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
            self._ssl_buffer = bytearray(_ROOM)
            self._ssl_buffer_view = memoryview(self._ssl_buffer)
        return self._ssl_buffer_view

    def buffer_updated(self, nbytes: int) -> None:
        """Encrypted bytes have come in."""
        self._receive(self._ssl_buffer_view[:nbytes])


def move_buffered(protocol: asyncio.BaseProtocol, connection: TlsProtocol) -> None:
    """Give a connection the encrypted bytes that a server's stream reader has received ahead of it."""
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        reader: Any = getattr(protocol, "_stream_reader", None)
        if reader is not None and reader._buffer:
            connection._incoming.write(reader._buffer)
            reader._buffer.clear()
