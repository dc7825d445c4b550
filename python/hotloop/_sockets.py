"""`sock_*`: operations on sockets of the program's own."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import socket
import sys
from asyncio import base_events, unix_events
from typing import Any

from ._base import LoopBase

__all__ = ["SocketMethods"]


# Whether `sendfile` sets the position of a file of which nothing was sent: asyncio's own method is told then no more
# how much that was.
_POSITIONS_ALWAYS = (
    asyncio.SelectorEventLoop._sock_sendfile_update_filepos.__code__.co_argcount == 3  # type: ignore[attr-defined]
)


class SocketMethods(LoopBase):
    """Tried at once, else waited for natively. Objects that only look like sockets take asyncio's own way."""

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

    async def _sock_sendfile_native(self, sock: Any, file: Any, offset: int, count: int | None) -> int:
        """Send bytes of a regular file without reading them; what cannot be sent so is for asyncio's fallback."""
        # A platform without the call, and tests that pretend to be one, have asyncio's answer.
        if type(sock) is not socket.socket or self._closed or not hasattr(unix_events.os, "sendfile"):  # type: ignore[attr-defined]
            return await super()._sock_sendfile_native(sock, file, offset, count)  # type: ignore[misc, no-any-return]
        try:
            number = file.fileno()
        except (AttributeError, io.UnsupportedOperation):
            raise asyncio.SendfileNotAvailableError("not a regular file") from None
        try:
            size = os.fstat(number).st_size
        except OSError:
            raise asyncio.SendfileNotAvailableError("not a regular file") from None
        block = count or size
        if not block:
            return 0
        progress = [0]
        try:
            sent = self._try_sendfile(sock, number, offset, count or 0, min(block, sys.maxsize // 2 + 1), progress)
            total: int = sent if isinstance(sent, int) else await self._outcome(sock, sent)
        except OSError as error:
            self._set_file_position(number, offset, progress[0])
            if not progress[0]:
                raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from None
            if error.errno == errno.ENOTCONN and type(error) is not ConnectionError:
                # The connection was closed meanwhile.
                raise ConnectionError("socket is not connected", errno.ENOTCONN) from error
            raise
        self._set_file_position(number, offset, total)
        return total

    def _set_file_position(self, number: int, offset: int, sent: int) -> None:
        """Leave a file where asyncio leaves it: behind what was sent; up to Python 3.13 only if anything was."""
        if sent or _POSITIONS_ALWAYS:
            os.lseek(number, offset + sent, os.SEEK_SET)

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
            # One that is collected when its loop is closed has nothing left to end.
            if sock.fileno() >= 0 and not self._closed:
                self._forget_operation(sock)
            raise
        finally:
            # An error's traceback has this frame, and a future that failed has the error: no cycle of these.
            del future
