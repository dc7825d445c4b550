"""Differences of TLS connections."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from asyncio import sslproto
from typing import Any

import trustme

from differences.entry import CRASHED, Entry, Section, probe
from harness import Loop, Recorder, tcp_pair, turns

MEBIBYTE = 1 << 20


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of a server and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


class Peer:
    """The other end of a connection, which only does something when it is told to."""

    def __init__(self, sock: socket.socket, server_side: bool = True) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server, client = contexts()
        self.session = (server if server_side else client).wrap_bio(
            self.incoming, self.outgoing, server_side, None if server_side else "localhost"
        )
        #: The pieces of plain text that came in, one for each record.
        self.records: list[bytes] = []

    def attempt(self, act: Any) -> None:
        """Do something of the session, as far as it goes."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            act()

    def send(self) -> None:
        """Send what there is to be sent."""
        if self.outgoing.pending:
            self.sock.setblocking(True)
            self.sock.sendall(self.outgoing.read())
            self.sock.setblocking(False)

    def receive(self) -> None:
        """Take in what there is."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(MEBIBYTE):
                self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while record := self.session.read(65536):
                self.records.append(record)

    @property
    def received(self) -> bytes:
        """All plain text that came in."""
        return b"".join(self.records)


def connected(loop: Loop, factory: Any = Recorder, context: ssl.SSLContext | None = None) -> tuple[Any, Any, Peer]:
    """A client's connection over TLS: its transport, its protocol, and the peer."""
    near, far = tcp_pair()
    peer = Peer(far)
    task = loop.create_task(
        loop.create_connection(factory, sock=near, ssl=context or contexts()[1], server_hostname="localhost")
    )
    done = False
    while not (done and task.done()):
        turns(loop)
        with contextlib.suppress(BlockingIOError):
            peer.incoming.write(far.recv(MEBIBYTE))
        if not done:
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.session.do_handshake()
                done = True
        peer.send()
    # What the server sends behind the handshake, on TLS 1.3.
    turns(loop, 3)
    return *task.result(), peer


def exchange_until(loop: Loop, peer: Peer, condition: Any) -> None:
    """Run turns, in between which the peer receives, until a condition holds."""
    while not condition():
        turns(loop)
        peer.receive()


@probe("lengths of the records of four writes in a turn")
def record_lengths(loop: Loop) -> str:
    transport, _, peer = connected(loop)
    loop.call_soon(lambda: [transport.write(b"x" * length) for length in (6, 1, 2, 3)])
    exchange_until(loop, peer, lambda: len(peer.received) == 12)
    return ", ".join(str(len(record)) for record in peer.records)


@probe("`get_write_buffer_size()` behind 8 MiB that the peer does not read")
def size_behind_a_long_write(loop: Loop) -> str:
    transport, _, _ = connected(loop)
    transport.write(bytes(8 * MEBIBYTE))
    size = transport.get_write_buffer_size()
    return "7 MiB or more" if size >= 7 * MEBIBYTE else str(size)


@probe("`pause_writing` is called for them")
def paused_by_a_long_write(loop: Loop) -> bool:
    transport, protocol, _ = connected(loop)
    transport.write(bytes(8 * MEBIBYTE))
    turns(loop, 3)
    return "pause_writing" in protocol.trace


@probe("a mark of 0 is set, with nothing to send")
def mark_of_zero(loop: Loop) -> str:
    transport, protocol, _ = connected(loop)
    transport.set_write_buffer_limits(0)
    turns(loop, 3)
    return told(protocol)


@probe("a byte is written, and sent, after that")
def write_with_a_mark_of_zero(loop: Loop) -> str:
    transport, protocol, peer = connected(loop)
    transport.set_write_buffer_limits(0)
    protocol.trace.clear()
    transport.write(b"x")
    exchange_until(loop, peer, lambda: peer.received)
    return told(protocol)


def told(protocol: Recorder) -> str:
    """What a protocol was told of flow control."""
    return ", ".join(f"`{line}`" for line in protocol.trace if line.endswith("_writing")) or "nothing is told"


@probe("a hello that came before `start_tls`, behind a line", until=13)
def hello_ahead(loop: Loop) -> str:
    near, far = tcp_pair()
    peer = Peer(far, server_side=False)
    peer.attempt(peer.session.do_handshake)
    far.sendall(b"line\n" + peer.outgoing.read())
    readers: list[asyncio.StreamReader] = []

    async def serve() -> None:
        reader, writer = await asyncio.open_connection(sock=near)
        await reader.readline()
        readers.append(reader)
        protocol = writer.transport.get_protocol()
        await loop.start_tls(writer.transport, protocol, contexts()[0], server_side=True)

    task = loop.create_task(serve())
    while not readers:
        turns(loop)
    turns(loop, 3)
    del task
    return "stays in the reader" if readers[0]._buffer else "goes to the handshake"


class Buffered(asyncio.BufferedProtocol):
    """Keeps what it receives in a buffer of a given kind."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer
        self.received: list[bytes] = []
        self.trace: list[str] = []

    def get_buffer(self, sizehint: int) -> Any:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received.append(bytes(self.buffer[:nbytes]))

    def eof_received(self) -> None:
        self.trace.append("`eof_received`")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.trace.append(f"connection_lost with {type(exc).__name__}")


@probe("of three records that come at once, a `bytearray` is told")
def several_records(loop: Loop) -> str:
    _, protocol, peer = connected(loop, lambda: Buffered(bytearray(1000)))
    for data in (b"one ", b"two ", b"three "):
        peer.session.write(data)
    peer.send()
    while not protocol.received:
        turns(loop)
    turns(loop, 3)
    received = b"".join(protocol.received)
    nothing = received.count(0)
    return received.decode().replace("\0", "").strip() + (f" and {nothing} NULs" if nothing else "")


@probe("with an empty buffer and a record that comes in")
def empty_buffer(loop: Loop) -> str:
    _, protocol, peer = connected(loop, lambda: Buffered(bytearray(1000)))
    protocol.buffer = bytearray()
    loop.set_exception_handler(
        lambda _, context: protocol.trace.append(f"`{type(context['exception']).__name__}` is reported")
    )
    peer.session.write(b"data")
    peer.send()
    while not protocol.trace:
        turns(loop)
    return protocol.trace[0]


@probe("`write` after two calls of `close`")
def write_after_two_closes(loop: Loop) -> str:
    transport, protocol, peer = connected(loop)
    transport.close()
    while not protocol.lost.done():
        turns(loop)
        peer.receive()
        peer.attempt(peer.session.unwrap)
        peer.send()
    transport.close()
    try:
        transport.write(b"late")
    except Exception as error:
        return f"`{type(error).__name__}`"
    return "is dropped"


@probe("`is_closing()` when the transport below is closing", until=13)
def closing_below(loop: Loop) -> bool:
    transport, _, _ = connected(loop)
    transport._ssl_protocol._transport.close()
    return transport.is_closing()


@probe("a callback of the context writes, within a `write`")
def write_within_openssl(loop: Loop) -> str:
    transports: list[Any] = []
    context = contexts()[1]

    def message(*_: Any) -> None:
        if transports:
            transports.pop().write(b"within ")

    context._msg_callback = message  # type: ignore[attr-defined]
    transport, _, peer = connected(loop, context=context)
    transports.append(transport)
    transport.write(b"first ")
    try:
        exchange_until(loop, peer, lambda: len(peer.received) == 13)
    except ssl.SSLError:
        return CRASHED
    return "both arrive"


@probe("the connection is exactly an `SSLProtocol`")
def tls_class(loop: Loop) -> bool:
    transport, _, _ = connected(loop)
    return type(transport._ssl_protocol) is sslproto.SSLProtocol


@probe("`max_size` of the connection")
def tls_max_size(loop: Loop) -> int:
    transport, _, _ = connected(loop)
    return transport._ssl_protocol.max_size


SECTIONS = [
    Section(
        "TLS",
        Entry(
            """
            **Gathering.** Later writes of a turn share a record, up to 16 KiB, which goes out when the turn ends, for
            the same reason as [above](#several-writes-in-one-turn). What is gathered of a mutable buffer is a copy, so
            that, as on asyncio, it may be changed after `write`.
            """,
            record_lengths,
            "test_tls.py::test_later_writes_of_a_turn_share_a_record",
            "test_tls.py::test_a_buffer_may_be_changed_after_the_write",
        ),
        Entry(
            """
            **Flow control.** What waits in the transport below counts for `get_write_buffer_size()`, and for
            `pause_writing` while that transport is paused; `set_write_buffer_limits` lowers its marks too. asyncio
            counts its own layer only, so a program on it can queue any amount in one write without being told.
            """,
            size_behind_a_long_write,
            paused_by_a_long_write,
            "test_tls.py::test_backpressure_counts_both_layers",
            "test_tls.py::test_limits_of_the_application_are_kept",
        ),
        Entry(
            """
            A connection with nothing to send is never told to pause. With a mark of 0, asyncio does so, and resumes it
            when something is written, which a program that waits for that never does.
            """,
            mark_of_zero,
            write_with_a_mark_of_zero,
            "test_tls.py::test_a_limit_of_zero_does_not_pause_a_connection_with_nothing_to_send",
        ),
        Entry(
            """
            **`start_tls`** on a server's side hands on what its `StreamReader` has received ahead, on every version;
            asyncio does so on newer ones only.
            """,
            hello_ahead,
            "test_tls.py::test_start_tls_keeps_what_was_received_before",
        ),
        Entry(
            """
            **Buffers of protocols.** A `BufferedProtocol` whose `get_buffer` answers a `bytearray` has several records
            after another in it; asyncio loses all but the first. One that answers an empty buffer is an error, not the
            end of the stream.
            """,
            several_records,
            empty_buffer,
            "test_tls.py::test_buffered_protocols_receive_into_their_own_buffer",
        ),
        Entry(
            """
            **Writes to an end.** `write` to a transport that was closed twice is dropped, where asyncio raises
            `AttributeError`.
            """,
            write_after_two_closes,
            "test_tls.py::test_writes_to_an_ended_connection_are_dropped_and_logged",
        ),
        Entry(
            """
            **`is_closing()`** is true from the moment the transport below is closing, on every version; asyncio's is
            from 3.14 on.
            """,
            closing_below,
        ),
        Entry(
            """
            **Callbacks of the context.** One that writes to its own connection while OpenSSL is at work has its bytes
            queued; on asyncio OpenSSL is entered twice, which crashes the process or breaks the connection.
            """,
            write_within_openssl,
            "test_tls.py::test_a_callback_of_the_session_may_write",
        ),
    ),
]
