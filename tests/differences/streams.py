"""Differences of stream transports."""

from __future__ import annotations

import contextlib
import socket
import struct

from differences.entry import Entry, Section, probe
from harness import Loop, Recorder, attach, tcp_pair, turns, unix_pair


def there(sock: socket.socket, count: int = 1 << 20) -> str:
    """What can be read from a socket at this moment, as text."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return sock.recv(count).decode()
    return "nothing"


def segments(sock: socket.socket) -> int:
    """How many segments with data a TCP socket has sent: tcpi_data_segs_out."""
    return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 156)[0]  # type: ignore[no-any-return]


@probe("packets of ten writes in a turn")
def packets(loop: Loop) -> int:
    near, _far = tcp_pair()
    transport, _ = attach(loop, near)
    before = segments(near)
    loop.call_soon(lambda: [transport.write(b"part") for _ in range(10)])
    turns(loop)
    return segments(near) - before


@probe("packets of two writes in a turn, behind two such turns")
def habitual_packets(loop: Loop) -> int:
    near, _far = tcp_pair()
    transport, _ = attach(loop, near)
    before = 0
    for _ in range(3):
        before = segments(near)
        loop.call_soon(transport.writelines, [b"header"])
        loop.call_soon(transport.write, b"body")
        turns(loop)
    return segments(near) - before


@probe("what the peer can read when the first write of a turn returns, then")
def habitual_first_write(loop: Loop) -> str:
    near, far = tcp_pair()
    transport, _ = attach(loop, near)
    seen = ""

    def write() -> None:
        nonlocal seen
        transport.write(b"header")
        seen = there(far)
        transport.write(b"body")

    for _ in range(3):
        loop.call_soon(write)
        turns(loop)
        there(far)
    return seen


def there_behind(loop: Loop, *writes: bytes) -> str:
    """What the peer can read when the last of these writes of one callback returns."""
    near, far = unix_pair()
    transport, _ = attach(loop, near)
    seen: list[str] = []

    def write() -> None:
        for data in writes:
            transport.write(data)
        seen.append(there(far))

    loop.call_soon(write)
    turns(loop)
    return seen[0].strip()


def turns_until_lost(loop: Loop, protocol: Recorder) -> int:
    """How many turns behind the next one `connection_lost` comes."""
    turns(loop)
    count = 0
    while not protocol.lost.done():
        turns(loop)
        count += 1
    return count


@probe("what the peer can read when the second write of a callback returns")
def second_write(loop: Loop) -> str:
    return there_behind(loop, b"one ", b"two")


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
    return turns_until_lost(loop, protocol)


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
        Entry(
            """
            **Header and body in one packet**: where each of the last two turns of a TCP connection that was written to
            had several writes, the first write of the next one goes to the kernel with word that more follows
            (`MSG_MORE`). The kernel has it, and nothing that the program does afterwards can lose it; it sends it with
            what follows, when the turn ends, or after 200 ms or so, whichever comes first. So a callback that writes
            and then blocks until the peer has answered gets its answer, but later. Options that the program has set,
            `TCP_NODELAY` and `TCP_CORK` among them, stay as they are.
            """,
            habitual_packets,
            habitual_first_write,
            "test_stream_transport.py::test_a_header_is_in_one_packet_with_its_body_once_that_is_the_habit",
            "test_stream_transport.py::test_a_write_that_nothing_follows_is_not_kept_longer_than_its_turn",
            "test_stream_transport.py::test_a_peer_has_what_was_written_before_its_turn_ends_whatever_the_habit",
            "test_stream_transport.py::test_options_that_the_program_has_set_are_left_as_they_are",
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
