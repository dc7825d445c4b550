"""Stream transports: what write promises, what a protocol sees, what is told about a connection."""

from __future__ import annotations

import array
import asyncio
import contextlib
import contextvars
import fcntl
import gc
import os
import random
import socket
import struct
import sys
import threading
import warnings

import pytest

from harness import (
    PATIENCE,
    WRITELINES_IS_WHOLE,
    Recorder,
    attach,
    close,
    descriptors,
    receive_all,
    receive_exactly,
    received_in_thread,
    resident_bytes,
    run,
    same_as_stock,
    same_trace_as_stock,
    skip_where_the_wait_sends,
    tcp_pair,
    turns,
    unix_pair,
)

# From Linux's `sockios.h`; the `termios` module has no name for it.
SIOCOUTQNSD = 0x894B


def test_a_write_is_in_the_kernel_when_write_returns(loop, loop_name, connection):
    """uvloop#631: the peer, read from the same callback, has it already."""
    skip_where_the_wait_sends(loop_name)
    transport, _, far = connection
    got = []

    def write():
        transport.write(b"x")
        got.append(far.recv(10))

    loop.call_soon(write)
    turns(loop)
    assert got == [b"x"]


def test_a_write_in_data_received_is_in_the_kernel_when_write_returns(loop, loop_name, connection):
    """uvloop#631"""
    skip_where_the_wait_sends(loop_name)
    transport, protocol, far = connection
    got = []

    def data_received(data):
        transport.write(data.upper())
        got.append(far.recv(10))
        loop.stop()

    protocol.data_received = data_received
    far.send(b"x")
    loop.run_forever()
    assert got == [b"X"]


def test_a_stream_writers_write_is_in_the_kernel_when_write_returns(loop, loop_name, pair):
    """uvloop#631"""
    skip_where_the_wait_sends(loop_name)
    near, far = pair

    async def talk():
        _, writer = await asyncio.open_connection(sock=near)
        writer.write(b"x")
        assert far.recv(10) == b"x"
        writer.close()
        await writer.wait_closed()

    run(loop, talk())


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_nothing_written_is_stranded_when_the_run_ends(loop, connection, count):
    """uvloop#631: writes of the very last callback are gathered for the end of a turn that still comes."""
    transport, _, far = connection

    async def write():
        for number in range(count):
            transport.write(b"%03d" % number)

    loop.run_until_complete(write())
    assert receive_exactly(far, 3 * count) == b"".join(b"%03d" % number for number in range(count))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_writes_while_the_loop_does_not_run_reach_the_kernel(loop, connection, count):
    """zuvloop: there is no end of a turn that could send them."""
    transport, _, far = connection
    for number in range(count):
        transport.write(b"%03d" % number)
    assert receive_exactly(far, 3 * count) == b"".join(b"%03d" % number for number in range(count))


def test_nothing_written_is_stranded_when_an_interrupt_leaves_the_loop(loop, connection):
    transport, _, far = connection

    def write():
        for number in range(5):
            transport.write(b"%d" % number)
        raise KeyboardInterrupt

    loop.call_soon(write)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert receive_exactly(far, 5) == b"01234"


def test_later_writes_of_a_turn_are_one_packet(loop, loop_name, tcp):
    """Header and body, written one after the other: the first leaves at once, what follows leaves together.

    On the proactor the first waits for the others.
    """
    near, _ = tcp
    transport, _ = attach(loop, near)

    def write():
        for part in range(10):
            transport.write(b"part %d" % part)

    before = packets(transport)
    loop.call_soon(write)
    turns(loop)
    sent = packets(transport) - before
    close(loop, transport)
    # Stock asyncio sends each at once; there this only proves that the counter counts.
    assert sent == {"asyncio": 10, "selector": 2, "proactor": 1}[loop_name]


def test_a_header_is_in_one_packet_with_its_body_once_that_is_the_habit(loop, loop_name, tcp):
    near, far = tcp
    transport, _ = attach(loop, near)
    sent = []
    for _ in range(4):
        before = packets(transport)
        loop.call_soon(write_a_pair, transport)
        turns(loop)
        sent.append(packets(transport) - before)
        assert receive_exactly(far, 10) == b"headerbody"
    close(loop, transport)
    expected = {"asyncio": [2, 2, 2, 2], "selector": [2, 2, 1, 1], "proactor": [1, 1, 1, 1]}
    assert sent == expected[loop_name]


def test_a_write_that_nothing_follows_is_not_kept_longer_than_its_turn(loop, tcp):
    near, far = tcp
    transport, _ = with_a_habit(loop, near, far)
    unsent = []

    def look():
        # What TCP has and has not sent yet.
        answer = fcntl.ioctl(near.fileno(), SIOCOUTQNSD, bytes(4))
        unsent.append(int.from_bytes(answer, sys.byteorder))

    def write():
        transport.write(b"alone")
        loop.call_soon(look)

    loop.call_soon(write)
    turns(loop, 2)
    assert receive_exactly(far, 5) == b"alone"
    close(loop, transport)
    assert unsent == [0]


def test_a_peer_has_what_was_written_before_its_turn_ends_whatever_the_habit(loop, loop_name, tcp):
    """uvloop#631: a kernel that was told of more to come does not wait for it for ever."""
    skip_where_the_wait_sends(loop_name)
    near, far = tcp
    transport, _ = with_a_habit(loop, near, far)
    got = []

    def write():
        transport.write(b"header")
        got.append(receive_exactly(far, 6))

    loop.call_soon(write)
    turns(loop)
    close(loop, transport)
    assert got == [b"header"]


@pytest.mark.parametrize(("option", "value"), [("TCP_NODELAY", 0), ("TCP_CORK", 1)])
def test_options_that_the_program_has_set_are_left_as_they_are(loop, tcp, option, value):
    near, far = tcp
    number = getattr(socket, option)
    transport, _ = with_a_habit(loop, near, far)
    near.setsockopt(socket.IPPROTO_TCP, number, value)
    loop.call_soon(transport.write, b"alone")
    turns(loop)
    assert bool(near.getsockopt(socket.IPPROTO_TCP, number)) == bool(value)
    close(loop, transport)
    assert receive_exactly(far, 5) == b"alone"


def packets(transport):
    """How many segments with data its socket has sent so far."""
    sock = transport.get_extra_info("socket")
    return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 156)[0]


def write_a_pair(transport):
    transport.write(b"header")
    transport.write(b"body")


def with_a_habit(loop, near, far):
    """A transport that has written twice in each of some turns, and what `attach` answers with it."""
    attached = attach(loop, near)
    for _ in range(3):
        loop.call_soon(write_a_pair, attached[0])
        turns(loop)
        assert receive_exactly(far, 10) == b"headerbody"
    return attached


def test_what_is_written_in_one_turn_is_there_in_the_next(loop, connection):
    transport, _, far = connection
    got = []

    def write():
        transport.write(b"one")
        transport.write(b"two")
        loop.call_soon(lambda: got.append(far.recv(10)))

    loop.call_soon(write)
    turns(loop, 2)
    assert got == [b"onetwo"]


def test_writes_of_every_kind_arrive_in_order(loop, connection):
    transport, _, far = connection
    choice = random.Random(16)
    expected = bytearray()
    with received_in_thread(far) as received:

        async def write():
            for number in range(2000):
                part = choice.randbytes(choice.choice([0, 1, 10, 1000, 20000]))
                kind = number % 5
                if kind == 0:
                    transport.write(part)
                elif kind == 1:
                    transport.write(bytearray(part))
                elif kind == 2:
                    transport.write(memoryview(part))
                elif kind == 3:
                    transport.writelines([part, part])
                    expected.extend(part)
                else:
                    transport.writelines(iter([part]))
                expected.extend(part)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            transport.write_eof()

        run(loop, write())
        while transport.get_write_buffer_size():
            run(loop, asyncio.sleep(0))
        turns(loop, 2)
    assert received == [bytes(expected)]


def skip_where_stock_asyncio_keeps_views(loop_name):
    """Skip the oracle where it has the defect that a test is about."""
    if loop_name == "asyncio" and sys.version_info >= (3, 12):
        pytest.skip("from 3.12 on stock asyncio queues a view of a mutable buffer, not a copy")


class Subclass(bytearray):
    """A buffer that is not exactly a bytearray."""


@pytest.mark.parametrize(
    "make", [bytearray, Subclass, lambda data: memoryview(bytearray(data))], ids=["bytearray", "subclass", "memoryview"]
)
@pytest.mark.parametrize("queued", [False, True], ids=["first", "queued"])
@pytest.mark.parametrize("many", [False, True], ids=["write", "writelines"])
def test_a_buffer_changed_after_write_is_sent_as_it_was(loop, loop_name, connection, make, queued, many):
    """zuvloop#61: whatever is sent later was copied before write returned."""
    skip_where_stock_asyncio_keeps_views(loop_name)
    transport, _, far = connection
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    head = bytes(3_000_000) if queued else b""
    payload = random.Random(61).randbytes(300_000)
    received = []

    def write():
        if head:
            transport.write(head)
        buffer = make(payload)
        if many:
            transport.writelines([buffer, buffer])
        else:
            transport.write(buffer)
            transport.write(buffer)
        buffer[:] = bytes(len(payload))
        transport.write_eof()

    loop.call_soon(write)
    turns(loop)
    with received_in_thread(far) as received:
        while transport.get_write_buffer_size():
            run(loop, asyncio.sleep(0))
        turns(loop, 2)
    assert received == [head + payload + payload]


def test_a_bytearray_can_be_resized_after_write(loop, loop_name, connection):
    """A buffer export that outlives write() would make this a BufferError."""
    skip_where_stock_asyncio_keeps_views(loop_name)
    transport, _, _ = connection
    buffer = bytearray(3_000_000)
    transport.write(buffer)
    buffer.clear()
    buffer.extend(b"x")


def test_thousands_of_small_buffers_through_a_small_window(loop, connection):
    """uvloop#445, uvloop#446: more than IOV_MAX, partly written, empty ones among them."""
    transport, _, far = connection
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    parts = [b"%d," % number * (number % 7) for number in range(5000)]
    with received_in_thread(far) as received:
        transport.writelines(parts)
        for part in parts:
            transport.write(part)
        transport.write_eof()
        while transport.get_write_buffer_size():
            run(loop, asyncio.sleep(0))
        turns(loop, 2)
    assert received == [b"".join(parts) * 2]


def test_only_empty_buffers(loop, connection):
    """uvloop#446"""
    transport, _, far = connection
    transport.writelines([b"", bytearray(), memoryview(b"")])
    transport.writelines([])
    transport.write(b"")
    transport.write(b"x")
    turns(loop, 2)
    assert far.recv(10) == b"x"


def test_a_large_message_both_ways(loop, connection):
    transport, protocol, far = connection
    payload = random.Random(8).randbytes(8_000_000)
    transport.write(payload)

    def echo():
        far.sendall(receive_exactly(far, len(payload)))

    thread = threading.Thread(target=echo)
    thread.start()
    assert run(loop, protocol.wait_received(len(payload))) == payload
    thread.join()


@pytest.mark.parametrize("size", [1, 100, 4096, 65535, 65536, 65537, 262144, 262145, 1_000_000])
def test_data_received_gets_bytes_of_any_size(loop, connection, size):
    transport, protocol, far = connection
    kinds = set()
    original = protocol.data_received

    def data_received(data):
        kinds.add(type(data))
        original(data)

    protocol.data_received = data_received
    payload = random.Random(size).randbytes(size)
    for _ in range(3):
        thread = threading.Thread(target=far.sendall, args=(payload,))
        thread.start()
        protocol.received.clear()
        assert run(loop, protocol.wait_received(size)) == payload
        thread.join()
    assert kinds == {bytes}


def test_data_kept_by_the_protocol_is_not_overwritten(loop, connection):
    """A read buffer that is used again must not shine through what was given out before."""
    _, protocol, far = connection
    kept = []
    protocol.data_received = lambda data: (kept.append(data), loop.stop())
    for number in range(50):
        far.send(b"%03d" % number * 10)
        loop.run_forever()
    assert kept == [b"%03d" % number * 10 for number in range(50)]


@pytest.mark.parametrize("data", ["text", None, 1, [1], object()], ids=["str", "None", "int", "list", "object"])
@pytest.mark.parametrize("state", ["open", "closing", "eof", "lost"])
def test_a_wrong_type_is_refused_first(loop, data, state):
    """zuvloop#17, zuvloop#67: before any look at the state of the transport."""

    def write(loop):
        near, far = unix_pair()
        transport, _ = attach(loop, near)
        try:
            if state == "eof":
                transport.write_eof()
            elif state != "open":
                transport.close()
            if state == "lost":
                turns(loop, 2)
            transport.write(data)
        finally:
            close(loop, transport)
            far.close()

    assert same_as_stock(loop, write)[0] == "TypeError"


@pytest.mark.parametrize("data", [b"", b"x"])
@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
def test_write_after_write_eof_raises(loop, data, closing):
    """zuvloop#17: for nothing to write, and for a closing transport too."""

    def write(loop):
        near, far = unix_pair()
        transport, _ = attach(loop, near)
        try:
            transport.write_eof()
            if closing:
                transport.close()
            transport.write(data)
        finally:
            close(loop, transport)
            far.close()

    assert same_as_stock(loop, write) == ("RuntimeError", "Cannot call write() after write_eof()")


LINES = {
    "nothing": lambda: [],
    "bytes": lambda: [b"x", b"", b"yz"],
    "a tuple": lambda: (b"x", b"yz"),
    "other kinds": lambda: [bytearray(b"x"), memoryview(b"yz"), memoryview(b"a-b-")[::2].tobytes()],
    "a generator": lambda: (line for line in [b"x", b"", b"yz"]),
    "a generator that ends badly": lambda: (1 // divisor for divisor in [0]),
    "an iterator of nothing": lambda: iter([]),
    "a string among bytes": lambda: [b"x", "text"],
    "an empty string among bytes": lambda: [b"x", ""],
    "None among bytes": lambda: [b"x", None],
    "a number": lambda: [1],
    "None": lambda: None,
    "zero": lambda: 0,
    "no iterable": lambda: 1,
    "a string": lambda: "text",
    "an empty string": lambda: "",
    "only bytes": lambda: b"bytes",
}


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("state", ["open", "eof", "closing", "aborted"])
def test_writelines_ends_as_on_stock_asyncio(loop, lines, state):
    """zuvloop#67"""
    if not WRITELINES_IS_WHOLE and (state in ("closing", "aborted") or lines == "an iterator of nothing"):
        pytest.skip("this Python's own writelines fails there")
    received = []

    def write(loop):
        near, far = unix_pair()
        transport, _ = attach(loop, near)
        try:
            if state == "eof":
                transport.write_eof()
            elif state == "closing":
                transport.close()
            elif state == "aborted":
                transport.abort()
            transport.writelines(LINES[lines]())
        finally:
            close(loop, transport)
            received.append(receive_all(far))
            far.close()

    same_as_stock(loop, write)
    on_stock, on_this = received
    assert on_this == on_stock


@pytest.mark.parametrize(
    "sizes",
    [[200, 1_000_000], [40_000] * 100, [5_000] * 20, [0, 300_000, 0, 5], [100_000, 7, 100_000]],
    ids=["header and body", "many", "short", "with empty ones", "a short one between"],
)
@pytest.mark.parametrize("kind", [list, tuple])
def test_long_lines_arrive_in_their_places_and_are_let_go_of(loop, connection, kind, sizes):
    """They are not copied: what the kernel does not take at once is kept as it is until it does."""
    transport, protocol, far = connection
    source = random.Random(1)
    lines = [source.randbytes(size) for size in sizes]
    counts = [sys.getrefcount(line) for line in lines]
    with received_in_thread(far) as received:
        transport.write(b"before")
        transport.writelines(kind(lines))
        transport.write(b"between")
        transport.writelines(kind(lines))
        assert transport.get_write_buffer_size() <= 2 * sum(sizes) + len(b"between")
        transport.close()
        assert run(loop, protocol.lost) is None
    joined = b"".join(lines)
    assert received == [b"before" + joined + b"between" + joined]
    assert [sys.getrefcount(line) for line in lines] == counts


def test_long_lines_pause_who_writes_them(loop, loop_name, connection):
    writelines = asyncio.selector_events._SelectorSocketTransport.writelines
    if loop_name == "asyncio" and sys.version_info >= (3, 12):
        if "_maybe_pause_protocol" not in writelines.__code__.co_names:
            pytest.skip("this Python's own writelines pauses nobody")
    transport, protocol, far = connection
    transport.writelines([bytes(100), bytes(1 << 24)])
    assert protocol.trace[-1] == "pause_writing"
    assert transport.get_write_buffer_size() > 1 << 20
    with received_in_thread(far):
        transport.close()
        run(loop, protocol.lost)


@pytest.mark.parametrize("write", ["write", "writelines"])
@pytest.mark.parametrize("state", ["open", "lost"])
def test_memory_with_gaps_ends_the_connection_as_on_stock_asyncio(loop, write, state):
    """It is the socket that refuses it, so that the connection is broken; a lost one is past that."""
    if not WRITELINES_IS_WHOLE and (write, state) == ("writelines", "lost"):
        pytest.skip("this Python's own writelines fails there")
    gaps = memoryview(b"a-b-c-")[::2]

    def scenario(loop, trace):
        near, far = unix_pair()
        transport, protocol = attach(loop, near)
        if state == "lost":
            transport.abort()
        try:
            getattr(transport, write)(gaps if write == "write" else [gaps])
        except Exception as error:
            trace.append(type(error).__name__)
        error = run(loop, protocol.lost) if transport.is_closing() else None
        trace += [type(error).__name__, *protocol.trace]
        close(loop, transport)
        far.close()

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize(
    ("write", "data"),
    [
        ("writelines", [b"x"]),
        ("writelines", [bytearray(b"x")]),
        ("writelines", [bytes(1 << 20)] * 2),
        ("write", b"x"),
        ("write", bytearray(b"x")),
        ("write", memoryview(b"a-b-")[::2]),
    ],
    ids=["bytes in lines", "bytearray in lines", "long lines", "bytes", "bytearray", "memory with gaps"],
)
def test_what_is_written_to_a_lost_connection_is_warned_of(loop, loop_name, caplog, write, data):
    """From the fifth on."""
    if not WRITELINES_IS_WHOLE and loop_name == "asyncio" and write == "writelines":
        pytest.skip("this Python's own writelines fails there")
    near, far = unix_pair()
    transport, _ = attach(loop, near)
    transport.abort()
    for _ in range(7):
        getattr(transport, write)(data)
    close(loop, transport)
    far.close()
    assert [record.message for record in caplog.records] == ["socket.send() raised exception."] * 3


def test_write_after_close_is_dropped(loop, connection):
    """zuvloop#17"""
    transport, protocol, far = connection
    transport.close()
    transport.write(b"dropped")
    assert run(loop, protocol.lost) is None
    transport.write(b"dropped")
    assert receive_all(far) == b""


def test_write_after_abort_is_dropped_and_nothing_is_buffered(loop, connection):
    transport, protocol, far = connection
    transport.abort()
    transport.write(b"dropped")
    assert transport.get_write_buffer_size() == 0
    run(loop, protocol.lost)
    assert receive_all(far) == b""


def test_a_write_to_what_is_no_connection_fails_at_once(loop, no_leaks):
    class Writing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"to nobody")
            self.note(f"is_closing {transport.is_closing()}")

    _, protocol = attach(loop, socket.socket(), Writing)
    assert isinstance(run(loop, protocol.lost), BrokenPipeError)
    assert protocol.trace == ["connection_made", "is_closing True", "connection_lost BrokenPipeError"]


def test_abort_with_a_queue_is_a_loss_without_an_error(loop, connection):
    """zuvloop#16: writes that are given up on the way must not turn into ECANCELED."""
    transport, protocol, _ = connection
    transport.write(bytes(4_000_000))
    turns(loop)
    transport.abort()
    assert run(loop, protocol.lost) is None
    assert protocol.trace.count("connection_lost NoneType") == 1


def test_the_first_reason_of_a_loss_wins(loop, connection):
    """zuvloop#16"""
    transport, protocol, far = connection
    transport.write(bytes(4_000_000))
    transport.abort()
    far.close()
    turns(loop, 3)
    assert protocol.lost.result() is None


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_lost"])
def test_exit_and_interrupt_in_a_protocol_leave_the_loop(loop, unix, error, method):
    """zuvloop#23"""
    near, far = unix
    transport, protocol = attach(loop, near)

    def leave(*_):
        raise error("text")

    setattr(protocol, method, leave)
    if method == "data_received":
        far.send(b"x")
    elif method == "eof_received":
        far.shutdown(socket.SHUT_WR)
    else:
        transport.close()
    with pytest.raises(error, match="text"):
        loop.run_forever()
    if method != "connection_lost":
        close(loop, transport)
    del transport, protocol


def test_data_received_that_raises_is_called_once(loop, connection, unhandled):
    """zuvloop#23"""
    transport, protocol, far = connection
    calls = []

    def data_received(data):
        calls.append(data)
        raise ZeroDivisionError("text")

    protocol.data_received = data_received
    far.send(b"one")
    assert isinstance(run(loop, protocol.lost), ZeroDivisionError)
    with contextlib.suppress(OSError):
        far.send(b"two")
    turns(loop, 3)
    assert calls == [b"one"]
    report = unhandled.pop()
    assert report["message"] == "Fatal error: protocol.data_received() call failed."
    assert report["transport"] is transport
    assert report["protocol"] is protocol


def test_is_a_transport_of_asyncio(loop, connection):
    """aiohttp asserts it."""
    transport, _, _ = connection
    assert isinstance(transport, asyncio.Transport)
    assert isinstance(transport, asyncio.ReadTransport)
    assert isinstance(transport, asyncio.WriteTransport)
    assert isinstance(transport, asyncio.BaseTransport)
    assert not isinstance(transport, asyncio.DatagramTransport)
    assert not isinstance(transport, asyncio.SubprocessTransport)


def test_get_extra_info(loop, pair):
    """uvloop#241: the socket is there, and can be asked and set."""
    near, far = pair
    names = near.getsockname(), near.getpeername()
    transport, _ = attach(loop, near)
    sock = transport.get_extra_info("socket")
    assert isinstance(sock, asyncio.trsock.TransportSocket)
    assert sock.fileno() == near.fileno()
    assert (sock.family, sock.type) == (near.family, near.type)
    assert sock.getsockname() == transport.get_extra_info("sockname") == names[0]
    assert transport.get_extra_info("peername") == names[1]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert transport.get_extra_info("nothing of this name") is None
    assert transport.get_extra_info("nothing of this name", 5) == 5
    assert transport.get_extra_info("sslcontext") is None
    sock.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    close(loop, transport)
    # They are still there when the connection is not.
    assert transport.get_extra_info("peername") == names[1]


def test_private_attributes_that_programs_look_at(loop, connection):
    transport, protocol, _ = connection
    assert transport._sock.fileno() == transport.get_extra_info("socket").fileno()
    assert transport._protocol_paused is False
    assert transport._protocol is protocol
    assert transport._loop is loop
    assert loop._transports[transport._sock.fileno()] is transport


@pytest.mark.parametrize("proto", [0, socket.IPPROTO_TCP])
@pytest.mark.parametrize("side", ["client", "server", "accepted"])
def test_tcp_connections_do_not_wait_for_acknowledgements(loop, loop_name, no_leaks, proto, side):
    """rloop 0.3.1, and a stall of 40 ms a response behind a server socket of protocol 0."""
    if side == "server":
        made = []

        class Kept(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.append(self)

        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto)
        listener.bind(("127.0.0.1", 0))
        server = run(loop, loop.create_server(Kept, sock=listener))
        far = socket.create_connection(listener.getsockname(), PATIENCE)
        while not made:
            turns(loop)
        transport = made[0].transport
    else:
        server = None
        near, far = tcp_pair(proto)
        if side == "client":
            transport, _ = attach(loop, near)
        else:
            transport, _ = run(loop, loop.connect_accepted_socket(Recorder, near))
    delayed = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    close(loop, transport)
    if server is not None:
        server.close()
        run(loop, server.wait_closed())
    far.close()
    # The known defect of stock asyncio: it asks the socket's protocol number, which says nothing when it is 0.
    assert delayed == (loop_name == "asyncio" and proto == 0)


def test_a_socket_that_is_not_tcp_is_served(loop, no_leaks):
    """uvloop#304, uvloop#467: any stream socket that is passed in; NODELAY is not for all of them."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    near.setblocking(False)
    far.settimeout(PATIENCE)
    transport, protocol = attach(loop, near)
    far.send(b"x")
    run(loop, protocol.wait_received(1))
    close(loop, transport)
    far.close()


class Buffered(asyncio.BufferedProtocol):
    """A buffered protocol that collects what it gets in pieces of at most `size`."""

    def __init__(self, size=16):
        self.buffer = bytearray(size)
        self.received = bytearray()
        self.hints = []
        self.wanted = 0
        self.reached = asyncio.Event()
        self.ended = False

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.received += self.buffer[:nbytes]
        if len(self.received) >= self.wanted:
            self.reached.set()

    def eof_received(self):
        self.ended = True
        self.reached.set()


def test_a_buffered_protocol_gets_all_in_its_own_buffer(loop, pair):
    near, far = pair
    transport, protocol = attach(loop, near, Buffered)
    payload = random.Random(3).randbytes(100_000)
    protocol.wanted = len(payload)
    thread = threading.Thread(target=far.sendall, args=(payload,))
    thread.start()
    run(loop, protocol.reached.wait())
    thread.join()
    assert protocol.received == payload
    close(loop, transport)


@pytest.mark.parametrize("first", ["plain", "buffered"])
def test_the_protocol_can_be_switched_in_the_middle(loop, connection, first):
    """cpython#77835, uvloop#159"""
    transport, protocol, far = connection
    buffered = Buffered()
    assert transport.get_protocol() is protocol
    order = [(protocol, protocol), (buffered, buffered)]
    if first == "buffered":
        order.reverse()
    for number, (current, _) in enumerate(order * 3):
        transport.set_protocol(current)
        assert transport.get_protocol() is current
        before = len(current.received)
        if current is buffered:
            buffered.wanted = before + 5
            buffered.reached.clear()
        far.send(b"%05d" % number)
        if current is buffered:
            run(loop, buffered.reached.wait())
        else:
            run(loop, protocol.wait_received(before + 5))
        assert current.received[before:] == b"%05d" % number
    transport.set_protocol(protocol)


def test_the_protocol_can_be_switched_in_data_received(loop, connection):
    """uvloop#159: what comes after the upgrade goes to the new protocol."""
    transport, protocol, far = connection
    buffered = Buffered()
    buffered.wanted = 3
    original = protocol.data_received

    def data_received(data):
        original(data)
        transport.set_protocol(buffered)

    protocol.data_received = data_received
    far.send(b"upgrade")
    run(loop, protocol.wait_received(7))
    far.send(b"new")
    run(loop, buffered.reached.wait())
    assert (protocol.received, buffered.received) == (b"upgrade", b"new")
    transport.set_protocol(protocol)


WORD = contextvars.ContextVar("WORD", default="none")


def test_callbacks_run_in_the_context_that_stock_asyncio_gives_them(loop):
    """uvloop#305, uvloop#348"""

    def scenario(loop, trace):
        near, far = unix_pair()
        seen = {}

        class Looking(Recorder):
            def note(self, text):
                seen[text.split()[0]] = WORD.get()
                super().note(text)

        async def connect():
            WORD.set("connecting")
            return await loop.create_connection(Looking, sock=near)

        def write():
            WORD.set("writing")
            transport.write(bytes(4_000_000))

        transport, protocol = run(loop, connect())
        transport.set_write_buffer_limits(high=0)
        contextvars.copy_context().run(write)
        reader = threading.Thread(target=receive_exactly, args=(far, 4_000_000))
        reader.start()
        run(loop, protocol.wait_until(lambda: "resume_writing" in seen))
        reader.join()
        far.send(b"x")
        far.shutdown(socket.SHUT_WR)
        run(loop, protocol.lost)
        turns(loop, 2)
        far.close()
        trace.extend(f"{name} in {word}" for name, word in seen.items())

    assert "data_received in connecting" in same_trace_as_stock(loop, scenario)


def test_readexactly_of_more_than_twice_the_limit(loop, pair):
    """rsloop shipped a deadlock here."""
    near, far = pair
    payload = os.urandom(100_000)

    async def read():
        reader, writer = await asyncio.open_connection(sock=near, limit=1000)
        writing = loop.run_in_executor(None, far.sendall, payload)
        assert await reader.readexactly(len(payload)) == payload
        await writing
        writer.close()
        await writer.wait_closed()

    run(loop, read())


def test_readuntil_and_readline_over_their_limit(loop, pair):
    near, far = pair

    async def read():
        reader, writer = await asyncio.open_connection(sock=near, limit=100)
        far.send(b"a" * 300 + b"\nrest\n")
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        lines = b""
        while b"rest" not in lines:
            lines += await reader.read(10)
        writer.close()
        await writer.wait_closed()

    run(loop, read())


def test_a_stream_reader_that_is_not_read_stops_the_transport(loop, unix):
    near, far = unix

    async def read():
        reader, writer = await asyncio.open_connection(sock=near, limit=1000)
        far.send(bytes(5000))
        while writer.transport.is_reading():
            await asyncio.sleep(0)
        assert await reader.readexactly(5000) == bytes(5000)
        assert writer.transport.is_reading()
        writer.close()
        await writer.wait_closed()

    run(loop, read())


@pytest.mark.parametrize("where", ["reader", "protocol"])
def test_a_subclassed_stream_reader_sees_its_own_methods_called(loop, unix, where):
    """Whatever is native for the exact classes: a subclass takes the general way."""
    near, far = unix
    calls = []

    class Reader(asyncio.StreamReader):
        def feed_data(self, data):
            calls.append("feed_data")
            super().feed_data(data)

        def feed_eof(self):
            calls.append("feed_eof")
            super().feed_eof()

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data):
            calls.append("feed_data")
            super().data_received(data)

        def eof_received(self):
            calls.append("feed_eof")
            return super().eof_received()

    async def read():
        reader = (Reader if where == "reader" else asyncio.StreamReader)()
        protocol = (Protocol if where == "protocol" else asyncio.StreamReaderProtocol)(reader)
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        far.send(b"data")
        assert await reader.readexactly(4) == b"data"
        far.shutdown(socket.SHUT_WR)
        assert await reader.read() == b""
        transport.close()

    run(loop, read())
    turns(loop, 2)
    assert calls == ["feed_data", "feed_eof"]


def test_a_stream_reader_patched_on_the_instance_or_the_class_is_called(loop, unix, monkeypatch):
    near, far = unix
    calls = []
    original = asyncio.StreamReader.feed_data

    def feed_data(self, data):
        calls.append(bytes(data))
        original(self, data)

    async def read():
        reader, writer = await asyncio.open_connection(sock=near)
        far.send(b"one")
        assert await reader.readexactly(3) == b"one"
        monkeypatch.setattr(asyncio.StreamReader, "feed_data", feed_data)
        far.send(b"two")
        assert await reader.readexactly(3) == b"two"
        monkeypatch.undo()
        reader.feed_data = lambda data: feed_data(reader, data)
        far.send(b"three")
        assert await reader.readexactly(5) == b"three"
        writer.close()
        await writer.wait_closed()

    run(loop, read())
    assert calls == [b"two", b"three"]


def test_streams_at_the_end_of_the_connection(loop, tcp):
    near, far = tcp

    async def read():
        reader, writer = await asyncio.open_connection(sock=near)
        waiting = loop.create_task(reader.readexactly(10))
        await asyncio.sleep(0)
        far.send(b"abc")
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await waiting
        assert caught.value.partial == b"abc"
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()

    run(loop, read())


def test_a_reset_is_raised_to_the_reader_of_a_stream(loop, tcp):
    near, far = tcp

    async def read():
        reader, writer = await asyncio.open_connection(sock=near)
        waiting = loop.create_task(reader.read(10))
        await asyncio.sleep(0)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        with pytest.raises(ConnectionResetError):
            await waiting
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()

    run(loop, read())


def test_pipelined_requests_are_answered_in_order(loop, no_leaks):
    """uvloop#631: several writes a response, several requests a packet."""

    class Responder(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.pending = b""

        def data_received(self, data):
            *lines, self.pending = (self.pending + data).split(b"\n")
            for line in lines:
                self.transport.write(b"head " + line)
                self.transport.write(b" body " + line)
                self.transport.writelines([b" tail", b"\n"])

    async def start():
        return await loop.create_server(Responder, "127.0.0.1", 0)

    server = run(loop, start())
    requests = b"".join(b"%d\n" % number for number in range(5000))
    expected = b"".join(b"head %d body %d tail\n" % (number, number) for number in range(5000))
    with socket.create_connection(server.sockets[0].getsockname(), PATIENCE) as client:

        def talk():
            client.sendall(requests)
            return receive_exactly(client, len(expected))

        assert run(loop, loop.run_in_executor(None, talk)) == expected
    server.close()
    turns(loop, 3)
    run(loop, server.wait_closed())


def test_memory_of_a_queue_is_given_back_when_the_peer_vanishes(loop, tcp):
    """uvloop#548"""
    near, far = tcp
    transport, protocol = attach(loop, near)
    before = resident_bytes()
    for _ in range(64):
        transport.write(bytes(1 << 20))
    assert transport.get_write_buffer_size() > 32 << 20
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    run(loop, protocol.lost)
    assert transport.get_write_buffer_size() == 0
    gc.collect()
    assert resident_bytes() - before < 24 << 20


def test_a_transport_that_is_dropped_warns_and_closes_its_socket(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    # What still leads to it is the watcher of the loop; stock asyncio has that one too.
    transport.pause_reading()
    protocol.transport = None
    protocol.lost.cancel()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, protocol
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert str(caught[0].message).startswith("unclosed transport <")
    assert far.recv(1) == b""


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("how", ["address", "local address", "socket", "unix"])
def test_create_connection_may_be_cancelled_at_any_step(loop, tmp_path, how, steps):
    """uvloop#740: no descriptor stays open, and none that others opened meanwhile is closed."""
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX if how == "unix" else socket.AF_INET)
    listener.bind(path if how == "unix" else ("127.0.0.1", 0))
    listener.listen()
    before = descriptors()
    canaries = []

    async def connect():
        if how == "unix":
            connecting = loop.create_unix_connection(Recorder, path)
        elif how == "socket":
            sock = socket.create_connection(listener.getsockname())
            sock.setblocking(False)
            try:
                return await loop.create_connection(Recorder, sock=sock)
            except BaseException:
                sock.close()
                raise
        else:
            local = ("127.0.0.1", 0) if how == "local address" else None
            connecting = loop.create_connection(Recorder, *listener.getsockname(), local_addr=local)
        return await connecting

    task = loop.create_task(connect())
    turns(loop, steps)
    task.cancel()
    turns(loop)
    canaries.append(os.open("/dev/null", os.O_RDONLY))
    with contextlib.suppress(asyncio.CancelledError):
        transport, _ = run(loop, task)
        close(loop, transport)
    run(loop, loop.shutdown_default_executor())
    turns(loop, 3)
    gc.collect()
    os.close(canaries[0])  # fails where somebody else closed it
    assert descriptors() == before
    listener.close()


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
@pytest.mark.parametrize("how", ["address", "socket", "accepted"])
def test_a_factory_that_raises_leaks_nothing(loop, no_leaks, error, how):
    """cpython#153133, cpython#155934: the socket that the loop made is closed, one passed in is the caller's."""

    def factory():
        raise error("text")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = descriptors()
        near, far = tcp_pair()
        with pytest.raises(error, match="text"):
            if how == "address":
                run(loop, loop.create_connection(factory, *listener.getsockname()))
            elif how == "socket":
                run(loop, loop.create_connection(factory, sock=near))
            else:
                run(loop, loop.connect_accepted_socket(factory, near))
        turns(loop, 2)
        near.close()
        far.close()
        with warnings.catch_warnings():
            # Stock asyncio leaves closing the socket to its finaliser on some versions.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        assert descriptors() == before


def test_create_connection_to_a_name(loop, no_leaks):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = run(loop, loop.create_connection(Recorder, "localhost", listener.getsockname()[1]))
        assert transport.get_extra_info("peername") == listener.getsockname()
        close(loop, transport)


def test_create_connection_with_a_local_address(loop, no_leaks):
    """zuvloop#183"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = run(loop, loop.create_connection(Recorder, *listener.getsockname(), local_addr=("127.0.0.2", 0)))
        assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
        close(loop, transport)


@pytest.mark.parametrize(
    "options", [{}, {"happy_eyeballs_delay": 0.25}, {"interleave": 1}], ids=["plain", "eyeballs", "interleave"]
)
def test_create_connection_tries_each_address(loop, no_leaks, monkeypatch, options):
    """zuvloop#28"""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addresses = [unused.getsockname(), unused.getsockname(), listener.getsockname()]

        async def getaddrinfo(host, port, **_):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        transport, _ = run(loop, loop.create_connection(Recorder, "name", 1, **options))
        assert transport.get_extra_info("peername") == listener.getsockname()
        close(loop, transport)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.25}], ids=["plain", "eyeballs"])
@pytest.mark.parametrize("count", [1, 3])
def test_errors_of_every_address_are_told_as_on_stock_asyncio(loop, no_leaks, monkeypatch, options, count):
    """zuvloop#28"""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        def connect(loop):
            async def getaddrinfo(host, port, **_):
                addresses = [("127.0.0.1", unused.getsockname()[1]), ("127.0.0.1", 1), ("127.0.0.2", 1)]
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses[:count]]

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            return run(loop, loop.create_connection(Recorder, "name", port, **options))

        assert same_as_stock(loop, connect)[0] in ("OSError", "ConnectionRefusedError")


def test_create_connection_all_errors(loop, no_leaks):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        def connect(loop):
            return run(loop, loop.create_connection(Recorder, *unused.getsockname(), all_errors=True))

        same_as_stock(loop, connect)


def test_transport_texts_and_states(loop, connection):
    transport, protocol, _ = connection
    assert transport.can_write_eof() is True
    assert transport.is_reading() is True
    assert transport.is_closing() is False
    assert transport.get_write_buffer_size() == 0
    assert repr(transport).startswith("<")
    transport.close()
    assert transport.is_closing() is True
    assert transport.is_reading() is False
    run(loop, protocol.lost)
    assert transport.is_closing() is True
    assert repr(transport).startswith("<")


def test_writing_to_a_lost_connection_warns_as_on_stock_asyncio(loop, caplog):
    """From the fifth write on it is told once a write, in the log."""

    def scenario(loop, trace):
        near, far = unix_pair()
        transport, _ = attach(loop, near, lambda: Recorder(trace))
        transport.abort()
        caplog.clear()
        for _ in range(8):
            transport.write(b"x")
        trace.extend(record.getMessage() for record in caplog.records)
        turns(loop, 2)
        far.close()

    same_trace_as_stock(loop, scenario)


def test_array_formats_are_counted_in_bytes(loop, connection):
    transport, _, far = connection
    numbers = array.array("I", range(1000))
    transport.write(memoryview(numbers).cast("B"))
    turns(loop, 2)
    assert receive_exactly(far, 4000) == numbers.tobytes()


def test_lengths_that_come_behind_long_ones(loop):
    # What a long message is followed by is received to the same place as it.
    sent = random.Random(10).randbytes(300_000)

    async def read_all(limit):
        near, far = unix_pair()
        reader, writer = await asyncio.open_connection(sock=near, limit=limit)
        for length in (100_000, 100_000, 1, 100_000, 40_000, 300_000, 10):
            thread = threading.Thread(target=far.sendall, args=(sent[:length],))
            thread.start()
            assert await reader.readexactly(length) == sent[:length]
            thread.join()
        far.sendall(sent[:100_000])
        far.close()
        assert await reader.read() == sent[:100_000]
        writer.close()
        await writer.wait_closed()

    run(loop, read_all(2**16))
    run(loop, read_all(2**20))


@pytest.mark.parametrize("kind", ["protocol", "reader"])
def test_what_is_there_comes_in_pieces_of_stock_asyncios_size(loop, kind):
    # What a program sees behind them, be it an end or an error, it sees in the same turn.
    def scenario(loop, trace):
        near, far = unix_pair()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        far.setblocking(False)
        if kind == "protocol":
            protocol = Recorder(trace)
        else:
            reader = asyncio.StreamReader(limit=2**20, loop=loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)

        async def receive():
            transport, _ = await loop.create_connection(lambda: protocol, sock=near)
            total = 0
            for length in (50_000, 150_000, 150_000, 100, 150_000):
                assert far.send(bytes(length)) == length
                total += length
                if kind == "protocol":
                    await protocol.wait_received(total)
                    continue
                held = len(reader._buffer)
                while held < total:
                    await asyncio.sleep(0)
                    if len(reader._buffer) != held:
                        trace.append(f"{len(reader._buffer) - held} more")
                        held = len(reader._buffer)
            transport.close()

        loop.run_until_complete(receive())
        turns(loop, 2)
        far.close()

    same_trace_as_stock(loop, scenario)


def test_a_view_of_a_readers_buffer_ends_the_connection(loop):
    # Also where the read before was a long one, and the next one would go right into that buffer.
    def scenario(loop, trace):
        async def hold():
            near, far = unix_pair()
            reader, writer = await asyncio.open_connection(sock=near)
            for _ in range(2):
                far.sendall(bytes(100_000))
                await reader.readexactly(100_000)
            far.sendall(bytes(50_000))
            await reader.readexactly(1)
            with memoryview(reader._buffer):
                far.sendall(b"more")
                while reader.exception() is None:
                    await asyncio.sleep(0)
            trace.append(repr(reader.exception()))
            trace.append(f"{len(reader._buffer)} bytes are left")
            writer.close()
            with contextlib.suppress(BufferError):
                await writer.wait_closed()
            far.close()

        loop.run_until_complete(hold())

    same_trace_as_stock(loop, scenario)
