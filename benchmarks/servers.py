"""Echo servers, one of each kind: `python -m benchmarks.servers --loop NAME --kind KIND`.

Prints its port on one line and serves on 127.0.0.1 until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks import loops

# Bytes asked for at once by the kinds that ask, which are these.
READ_SIZE = 64 * 1024
ASKING = ("buffered", "streams", "sock")
# Connections that may wait to be accepted: those of the load generator connect one right behind the other.
BACKLOG = 4096


class EchoProtocol(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoBuffered(asyncio.BufferedProtocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        # A copy: the transport may keep what it cannot send at once, and the buffer is filled again.
        self.transport.write(bytes(self.view[:nbytes]))


class EchoDatagrams(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.DatagramTransport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def serve_protocol(context: ssl.SSLContext | None = None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EchoProtocol, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
    await announce_and_serve(server)


async def serve_buffered() -> None:
    server = await asyncio.get_running_loop().create_server(EchoBuffered, "127.0.0.1", 0, backlog=BACKLOG)
    await announce_and_serve(server)


async def serve_streams(context: ssl.SSLContext | None = None) -> None:
    await announce_and_serve(await asyncio.start_server(echo_stream, "127.0.0.1", 0, ssl=context, backlog=BACKLOG))


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # The load generator leaves in the middle of an exchange when its time is up.
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve_tls_protocol() -> None:
    await serve_protocol(tls_context())


async def serve_tls_streams() -> None:
    await serve_streams(tls_context())


def tls_context() -> ssl.SSLContext:
    """A server's context with a certificate made just now (an elliptic curve's: P-256)."""
    import trustme

    # In a file that stays: one of the loops reads it again when it serves.
    path = Path(tempfile.gettempdir(), "certificate.pem")
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class DownloadProtocol(asyncio.Protocol):
    """Answers the requests of `hotloop-load download`: so many bytes, as fast as they can be written."""

    transport: asyncio.Transport
    # What answers are made of, as long as a program may read from a file at once, and whole periods of 251 bytes.
    PIECE = bytes(range(251)) * 261

    def __init__(self) -> None:
        self.request = b""
        self.left = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.request += data
        if len(self.request) == 8:
            self.left = int.from_bytes(self.request, "little")
            self.request = b""
            self.send()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send()

    def send(self) -> None:
        while self.left and not self.paused:
            piece = self.PIECE[: self.left]
            self.left -= len(piece)
            self.transport.write(piece)


class LinesDownloadProtocol(DownloadProtocol):
    """Writes each piece as a server writes a header and a body: a short line and a long one, in one call."""

    def send(self) -> None:
        while self.left and not self.paused:
            lines = [self.PIECE[: min(251, self.left)], self.PIECE[: max(self.left - 251, 0)]]
            self.left -= len(lines[0]) + len(lines[1])
            self.transport.writelines(lines)


async def serve_lines_download() -> None:
    server = await asyncio.get_running_loop().create_server(LinesDownloadProtocol, "127.0.0.1", 0)
    await announce_and_serve(server)


async def serve_tls_download() -> None:
    server = await asyncio.get_running_loop().create_server(DownloadProtocol, "127.0.0.1", 0, ssl=tls_context())
    await announce_and_serve(server)


async def serve_sock() -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    announce(listener.getsockname()[1])

    tasks = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo_socket(loop, connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def echo_socket(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    with connection, contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(connection, READ_SIZE):
            await loop.sock_sendall(connection, data)


async def serve_udp() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, local_addr=("127.0.0.1", 0))
    announce(transport.get_extra_info("sockname")[1])
    await loop.create_future()


KINDS = {
    "protocol": serve_protocol,
    "buffered": serve_buffered,
    "streams": serve_streams,
    "sock": serve_sock,
    "tls_protocol": serve_tls_protocol,
    "tls_streams": serve_tls_streams,
    "lines_download": serve_lines_download,
    "tls_download": serve_tls_download,
    "udp": serve_udp,
}


async def announce_and_serve(server: asyncio.AbstractServer) -> None:
    announce(server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]  # every loop's server has it
    # It serves already. One of the loops ends that when it is told to serve for ever.
    await asyncio.get_running_loop().create_future()


def announce(port: int) -> None:
    print(port, flush=True)


def compute() -> None:
    """Wants the interpreter, always."""
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", required=True)
    parser.add_argument("--kind", required=True, choices=KINDS)
    parser.add_argument("--busy", action="store_true", help="a thread computes in Python meanwhile")
    options = parser.parse_args()
    if options.busy:
        threading.Thread(target=compute, daemon=True).start()
    with asyncio.Runner(loop_factory=loops.factory(options.loop)) as runner:
        runner.run(KINDS[options.kind]())


if __name__ == "__main__":
    main()
