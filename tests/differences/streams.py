"""Differences of stream transports."""

from __future__ import annotations

import contextlib
import socket
import struct

from differences.entry import Entry, Section, probe
from harness import Loop, attach, tcp_pair, turns, unix_pair


def there(sock: socket.socket, count: int = 1 << 20) -> str:
    """What can be read from a socket at this moment, as text."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return sock.recv(count).decode()
    return "nothing"


@probe("packets of ten writes in a turn")
def packets(loop: Loop) -> int:
    near, far = tcp_pair()
    transport, _ = attach(loop, near)

    def segments() -> int:
        # tcpi_data_segs_out
        return struct.unpack_from("=I", near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 156)[0]

    before = segments()
    loop.call_soon(lambda: [transport.write(b"part") for _ in range(10)])
    turns(loop)
    sent = segments() - before
    far.close()
    return sent


@probe("what the peer can read when the second write of a callback returns")
def second_write(loop: Loop) -> str:
    near, far = unix_pair()
    transport, _ = attach(loop, near)
    seen: list[str] = []

    def write() -> None:
        transport.write(b"one ")
        transport.write(b"two")
        seen.append(there(far))

    loop.call_soon(write)
    turns(loop)
    return seen[0].strip()


@probe("turns from a second write, which fails, to `connection_lost`")
def broken_write(loop: Loop) -> int:
    near, far = unix_pair()
    transport, protocol = attach(loop, near)
    transport.pause_reading()

    def write() -> None:
        transport.write(b"one")
        far.close()
        transport.write(b"two")

    loop.call_soon(write)
    turns(loop)
    count = 0
    while not protocol.lost.done():
        turns(loop)
        count += 1
    return count


@probe("what the peer receives of a queued `bytearray` that was changed", since=12)
def changed_buffer(loop: Loop) -> str:
    near, far = unix_pair()
    transport, _ = attach(loop, near)
    buffer = bytearray(b"written")
    transport.write(bytes(3_000_000))
    transport.write(buffer)
    buffer[:] = b"changed"
    far.setblocking(False)
    received = bytearray()
    while len(received) < 3_000_007:
        with contextlib.suppress(BlockingIOError):
            received += far.recv(1 << 20)
        turns(loop)
    return received[-7:].decode()


SECTIONS = [
    Section(
        "Several writes in one turn",
        Entry(
            """
            The first write of a turn to a transport goes to the kernel at once, as in asyncio. Later writes of the same
            turn to the same transport are gathered and sent together when the turn ends, before the loop waits. They go
            out earlier

            - when 64 KiB, or more than the high-water mark, are gathered;
            - before `close()`, `abort()`, `write_eof()`, `get_write_buffer_size()` and `loop.sendfile()` on that
              transport.

            So what another program sees is the same bytes in the same order, in fewer packets, for fewer calls of the
            kernel. Two consequences show:

            - A callback that writes twice and then computes for long sends the second piece only afterwards.
            - If the connection breaks under a gathered write, `connection_lost` comes a turn later than asyncio's would.

            Outside a turn (before and after a run) every write is sent at once. [The proactor](#the-proactor) has the
            first small write wait for the others, too.
            """,
            packets,
            second_write,
            broken_write,
            "test_stream_transport.py::test_later_writes_of_a_turn_are_one_packet",
            "test_stream_transport.py::test_nothing_written_is_stranded_when_the_run_ends",
            "test_stream_transport.py::test_writes_while_the_loop_does_not_run_reach_the_kernel",
        ),
    ),
    Section(
        "Buffers that change",
        Entry(
            """
            What is queued of a `bytearray` or `memoryview` is a copy, on every version: what was written is what is sent.
            On asyncio it is a view from Python 3.12 on, so that what is changed after `write` is sent as changed.
            """,
            changed_buffer,
            "test_stream_transport.py::test_a_buffer_changed_after_write_is_sent_as_it_was",
        ),
    ),
]
