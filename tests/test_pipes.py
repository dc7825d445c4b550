"""Pipes: what their transports read, write, tell and report, on everything that is used like a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import os
import pty
import socket
import termios
import threading
import tty
import warnings

import pytest

from harness import Recorder, alive, fill, normalised, run, same_trace_as_stock, turns


def ends_of_a_pipe():
    read, write = os.pipe()
    return os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)


def ends_of_a_socket():
    return socket.socketpair()


def ends_of_a_terminal():
    """The terminal, raw, and its other side: what is written to one is read from the other."""
    near, far = pty.openpty()
    tty.setraw(far)
    return os.fdopen(far, "rb", 0), os.fdopen(near, "wb", 0)


ENDS = {"pipe": ends_of_a_pipe, "socket": ends_of_a_socket, "terminal": ends_of_a_terminal}


@pytest.fixture(params=list(ENDS))
def ends(request, no_leaks):
    """What reads and what writes, both open."""
    reader, writer = ENDS[request.param]()
    yield reader, writer
    reader.close()
    writer.close()


@pytest.fixture
def pipe(no_leaks):
    reader, writer = ends_of_a_pipe()
    yield reader, writer
    reader.close()
    writer.close()


def connect_reader(loop, pipe, factory=Recorder):
    return run(loop, loop.connect_read_pipe(factory, pipe))


def connect_writer(loop, pipe, factory=Recorder):
    return run(loop, loop.connect_write_pipe(factory, pipe))


def fill_pipe(writer):
    """Write to a pipe that does not block until it is full; the bytes written."""
    os.set_blocking(writer.fileno(), False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(writer.fileno(), bytes(65536))
    return written


def read_all(reader):
    """What is in a pipe now."""
    os.set_blocking(reader.fileno(), False)
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reader.fileno(), 1 << 20):
            data += part
    return bytes(data)


def test_what_is_written_is_read(loop, ends):
    reading, protocol = connect_reader(loop, ends[0])
    writing, _ = connect_writer(loop, ends[1])
    writing.write(b"one ")
    writing.write(bytearray(b"two "))
    writing.write(memoryview(b"three "))
    writing.writelines([b"four", b"", b" five"])
    assert run(loop, protocol.wait_received(23)) == b"one two three four five"
    writing.close()
    reading.close()
    turns(loop, 2)


class Numbered:
    """A file object that says which descriptor it has."""

    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number

    def close(self):
        pass


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
def test_what_cannot_be_waited_for_is_refused_and_left_as_it_is(loop, connect, tmp_path, no_leaks):
    (tmp_path / "file").write_bytes(b"content")

    def scenario(loop, trace):
        for path in (tmp_path / "file", tmp_path):
            fd = os.open(path, os.O_RDONLY)
            try:
                with pytest.raises(ValueError, match="^Pipe transport is") as caught:
                    connect(loop, Numbered(fd))
                trace.extend((str(caught.value), f"blocking: {os.get_blocking(fd)}"))
            finally:
                os.close(fd)

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
@pytest.mark.parametrize(
    ("number", "error"),
    [(-1, OSError), (1 << 20, OSError), (1 << 31, OverflowError), ("text", TypeError), (None, TypeError)],
)
def test_what_is_no_descriptor_is_refused(new_hotloop, connect, number, error):
    """As stock asyncio does, whose transports then raise once more, where nobody can catch it, when they go."""
    loop = new_hotloop()
    with pytest.raises(error):
        connect(loop, Numbered(number))
    loop.close()


@pytest.mark.parametrize("connect", ["_make_read_pipe_transport", "_make_write_pipe_transport"])
def test_what_a_transport_is_given_to_tell_has_the_pipe_too(loop, connect, pipe):
    """By the names of asyncio's parameters, which libraries pass."""
    file = pipe[connect == "_make_write_pipe_transport"]
    extra = {"name": "value"}
    waiter = loop.create_future()
    protocol = Recorder()
    transport = getattr(loop, connect)(file, protocol, waiter=waiter, extra=extra)
    run(loop, waiter)
    assert extra == {"name": "value", "pipe": file}
    assert transport.get_extra_info("name") == "value"
    assert transport.get_extra_info("pipe") is file
    assert not os.get_blocking(file.fileno())
    transport.close()
    run(loop, protocol.lost)


def test_much_is_written_and_read(loop, ends):
    reading, protocol = connect_reader(loop, ends[0])
    writing, _ = connect_writer(loop, ends[1])
    payload = os.urandom(500_000)
    writing.write(payload[:300_000])
    writing.write(payload[300_000:])
    assert run(loop, protocol.wait_received(len(payload))) == payload
    assert writing.get_write_buffer_size() == 0
    writing.close()
    reading.close()
    turns(loop, 2)


def test_a_write_is_in_the_kernel_when_write_returns(loop, pipe):
    """Each one: several processes may write to a pipe, and a terminal shows what it gets."""
    writing, _ = connect_writer(loop, pipe[1])

    async def write():
        writing.write(b"one")
        first = os.read(pipe[0].fileno(), 10)
        writing.write(b"two")
        return first, os.read(pipe[0].fileno(), 10)

    assert run(loop, write()) == (b"one", b"two")
    writing.close()
    turns(loop, 2)


def test_messages_stay_apart(loop, no_leaks):
    """A datagram socket is a pipe too, whose writes are messages."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    writing, _ = connect_writer(loop, near)

    async def write():
        for message in (b"one", b"two", b"three"):
            writing.write(message)

    run(loop, write())
    assert [far.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
    writing.close()
    turns(loop, 2)
    far.close()


def test_the_callbacks_of_a_reader(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_reader(loop, read, lambda: Recorder(trace))
        trace.append(f"{transport.is_reading()} {transport.is_closing()}")
        write.write(b"abc")
        turns(loop, 2)
        write.close()
        loop.call_soon(lambda: loop.call_soon(trace.append, "behind"))
        turns(loop, 1)
        trace.append(f"{transport.is_reading()} {transport.is_closing()} {read.closed}")
        turns(loop, 1)
        trace.append(f"{transport.is_reading()} {transport.is_closing()} {read.closed}")

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("queued", [0, 10])
def test_the_callbacks_of_a_writer_that_closes(loop, queued):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        if queued:
            fill_pipe(write)
            transport.write(bytes(queued))
        transport.close()
        transport.close()
        transport.write_eof()
        transport.write(b"too late")
        trace.append(f"{transport.is_closing()} {transport.get_write_buffer_size()}")
        turns(loop, 2)
        trace.append(f"{len(read_all(read)) > 0} {write.closed}")
        turns(loop, 3)
        trace.append(f"{write.closed}")
        read.close()

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("queued", [0, 10])
@pytest.mark.parametrize("closing", [False, True])
def test_a_writer_hears_that_nobody_reads_any_more(loop, kind, queued, closing):
    """With something left to write it is a `BrokenPipeError`, else an end like any other."""

    def scenario(loop, trace):
        read, write = ENDS[kind]()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        if queued:
            (fill if kind == "socket" else fill_pipe)(write)
            transport.write(bytes(queued))
        if closing:
            transport.close()
        read.close()
        trace.append(repr(run(loop, protocol.lost)))

    same_trace_as_stock(loop, scenario)


def test_a_write_that_nobody_reads(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        read.close()
        transport.write(b"into the void")
        trace.append(f"{transport.is_closing()}")
        trace.append(repr(run(loop, protocol.lost)))

    trace = same_trace_as_stock(loop, scenario)
    assert trace[-1] == f"BrokenPipeError({errno.EPIPE}, 'Broken pipe')"


def test_writes_that_come_too_late_are_logged(loop, pipe, caplog):
    transport, _ = connect_writer(loop, pipe[1])
    transport.close()
    for _ in range(5):
        transport.write(b"x")
    assert caplog.messages == []
    transport.write(b"")
    transport.write(b"x")
    assert caplog.messages == ["pipe closed by peer or os.write(pipe, data) raised exception."]
    turns(loop, 2)


def test_flow_control(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        trace.append(str(transport.get_write_buffer_limits()))
        transport.set_write_buffer_limits(high=100, low=50)
        trace.append(str(transport.get_write_buffer_limits()))
        fill_pipe(write)
        transport.write(bytes(100))
        trace.append("at the mark")
        transport.write(b"x")
        trace.append(str(transport.get_write_buffer_size()))
        turns(loop, 2)
        read_all(read)
        turns(loop, 2)
        trace.append(str(transport.get_write_buffer_size()))
        with contextlib.suppress(ValueError):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.abort()
        run(loop, protocol.lost)
        read.close()

    same_trace_as_stock(loop, scenario)


def test_a_writer_resumes_when_all_is_written(loop):
    """Not at the low mark already: asyncio's pipes differ from its sockets in this."""

    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        transport.set_write_buffer_limits(high=100_000, low=99_999)
        fill_pipe(write)
        transport.write(bytes(100_001))
        for _ in range(3):
            os.read(read.fileno(), 65536)
            turns(loop, 2)
            trace.append(str(transport.get_write_buffer_size()))
        transport.abort()
        turns(loop, 3)
        read.close()

    same_trace_as_stock(loop, scenario)


def test_what_waits_to_be_written_may_be_changed(loop, pipe):
    """zuvloop#61"""
    transport, _ = connect_writer(loop, pipe[1])
    filled = fill_pipe(pipe[1])
    data = bytearray(b"old")
    transport.write(data)
    transport.write(memoryview(data))
    data[:] = b"new"
    received = read_all(pipe[0])
    assert len(received) == filled
    turns(loop, 2)
    assert read_all(pipe[0]) == b"oldold"
    transport.close()
    turns(loop, 2)


def test_abort_drops_what_is_queued(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        filled = fill_pipe(write)
        transport.write(b"dropped")
        transport.abort()
        trace.append(f"{transport.is_closing()} {transport.get_write_buffer_size()}")
        turns(loop, 2)
        trace.append(str(len(read_all(read)) - filled))
        read.close()

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]], ids=repr)
def test_what_is_no_bytes_is_refused(loop, data):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, _ = connect_writer(loop, write)
        with pytest.raises(AssertionError) as error:
            transport.write(data)
        trace.append(str(error.value))
        transport.close()
        turns(loop, 2)
        read.close()

    same_trace_as_stock(loop, scenario)


def test_a_buffer_that_is_in_pieces_ends_the_transport(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, protocol = connect_writer(loop, write, lambda: Recorder(trace))
        transport.write(memoryview(b"abcdef")[::2])
        run(loop, protocol.lost)
        read.close()

    same_trace_as_stock(loop, scenario)


def test_pausing_and_resuming(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        transport, _ = connect_reader(loop, read, lambda: Recorder(trace))
        transport.resume_reading()
        transport.pause_reading()
        transport.pause_reading()
        trace.append(str(transport.is_reading()))
        write.write(b"abc")
        turns(loop, 2)
        trace.append("resumes")
        transport.resume_reading()
        trace.append(str(transport.is_reading()))
        turns(loop, 2)
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        trace.append(str(transport.is_reading()))
        turns(loop, 2)
        write.close()

    same_trace_as_stock(loop, scenario)


def test_a_reader_paused_in_connection_made_does_not_read(loop):
    class Paused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        write.write(b"abc")
        transport, _ = connect_reader(loop, read, lambda: Paused(trace))
        turns(loop, 2)
        transport.resume_reading()
        turns(loop, 2)
        transport.close()
        turns(loop, 2)
        write.close()

    same_trace_as_stock(loop, scenario)


def test_a_transport_closed_in_connection_made(loop):
    class Closing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    def scenario(loop, trace):
        for connect, end in ((connect_reader, 0), (connect_writer, 1)):
            ends = ends_of_a_pipe()
            transport, protocol = connect(loop, ends[end], lambda: Closing(trace))
            run(loop, protocol.lost)
            trace.append(str(ends[end].closed))
            ends[1 - end].close()

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
def test_an_exception_of_data_received_is_reported_and_reading_goes_on(loop, unhandled, pipe, error):
    class Failing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            raise error("text")

    transport, protocol = connect_reader(loop, pipe[0], Failing)
    for _ in range(2):
        pipe[1].write(b"x")
        turns(loop, 2)
    assert protocol.received == b"xx"
    assert not transport.is_closing()
    keys = ["exception", "handle", "message"]
    assert [(context["message"], type(context["exception"]), sorted(context)) for context in unhandled] == [
        ("Exception in callback _UnixReadPipeTransport._read_ready()", error, keys)
    ] * 2
    unhandled.clear()
    transport.close()
    turns(loop, 2)


def test_exceptions_of_the_last_callbacks_are_reported(loop, unhandled, pipe):
    class Failing(Recorder):
        def eof_received(self):
            raise ZeroDivisionError("eof")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError("lost")

    _, reads = connect_reader(loop, pipe[0], Failing)
    _, writes = connect_writer(loop, pipe[1], Failing)
    writes.transport.close()
    turns(loop, 5)
    assert reads.trace[-1] == writes.trace[-1] == "connection_lost NoneType"
    assert sorted(str(context["exception"]) for context in unhandled) == ["eof", "lost", "lost"]
    assert pipe[0].closed
    assert pipe[1].closed
    unhandled.clear()


def test_a_terminal_that_hangs_up(loop):
    """Its end is EIO, which is told to the protocol but no error to report."""

    def scenario(loop, trace):
        near, far = pty.openpty()
        transport, protocol = connect_reader(loop, os.fdopen(near, "rb", 0), lambda: Recorder(trace))
        os.write(far, b"last words\n")
        run(loop, protocol.wait_received(10))
        os.close(far)
        error = run(loop, protocol.lost)
        trace.append(repr(error))

    trace = same_trace_as_stock(loop, scenario)
    assert trace[-1] == f"OSError({errno.EIO}, 'Input/output error')"


def test_an_error_of_reading_is_reported(loop):
    def scenario(loop, trace):
        near, far = socket.socketpair()
        near.send(b"unread")
        transport, protocol = connect_reader(loop, near, lambda: Recorder(trace))
        far.close()
        trace.append(repr(run(loop, protocol.lost)))

    trace = same_trace_as_stock(loop, scenario)
    assert trace[-1] == f"ConnectionResetError({errno.ECONNRESET}, 'Connection reset by peer')"
    assert any(line.startswith("handler: Fatal read error on pipe transport") for line in trace)


def test_one_terminal_for_reading_and_writing(loop, no_leaks):
    """Two transports over one file object, as for the other side of a child's terminal."""
    near, far = pty.openpty()
    tty.setraw(far)
    terminal = os.fdopen(near, "r+b", 0)
    reading, reads = connect_reader(loop, terminal)
    writing, writes = connect_writer(loop, terminal)
    writing.write(b"there")
    assert os.read(far, 10) == b"there"
    os.write(far, b"back")
    assert run(loop, reads.wait_received(4)) == b"back"
    written = fill_pipe(terminal)
    writing.write(b"rest")

    async def drain():
        got = 0
        while got < written + 4:
            with contextlib.suppress(BlockingIOError):
                got += len(os.read(far, 65536))
            await asyncio.sleep(0)

    os.set_blocking(far, False)
    run(loop, drain())
    assert writing.get_write_buffer_size() == 0
    reading.close()
    writing.close()
    run(loop, asyncio.wait([reads.lost, writes.lost]))
    os.close(far)


def test_the_same_pipe_written_by_two_transports(loop, pipe):
    """uvloop#262: on one descriptor."""
    first, _ = connect_writer(loop, pipe[1])
    second, other = connect_writer(loop, pipe[1])
    first.write(b"one ")
    second.write(b"two ")
    first.write(b"three")
    assert read_all(pipe[0]) == b"one two three"
    pipe[0].close()
    run(loop, other.lost)  # of several that wait for the end, the last one hears of it
    first.close()
    turns(loop, 2)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_a_device_that_cannot_be_waited_for_is_not_read(loop, path):
    def scenario(loop, trace):
        transport, protocol = connect_reader(loop, open(path, "rb", 0), lambda: Recorder(trace))  # noqa: SIM115
        turns(loop, 2)
        trace[:] = [line.replace("_UnixReadPipeTransport._add_reader", "starting to read") for line in trace]
        trace[:] = [line.split("starting")[0].split("ReadPipeTransport")[0] for line in trace]
        transport.close()
        run(loop, protocol.lost)

    trace = same_trace_as_stock(loop, scenario)
    assert any(line.startswith("handler: Exception in callback") for line in trace)


def test_a_device_that_cannot_be_waited_for_is_written_to(loop):
    def scenario(loop, trace):
        transport, protocol = connect_writer(loop, open("/dev/null", "wb", 0), lambda: Recorder(trace))  # noqa: SIM115
        transport.write(bytes(1_000_000))
        trace.append(f"{transport.get_write_buffer_size()} {transport.is_closing()}")
        transport.close()
        run(loop, protocol.lost)

    same_trace_as_stock(loop, scenario)


def test_a_full_device(loop):
    def scenario(loop, trace):
        transport, protocol = connect_writer(loop, open("/dev/full", "wb", 0), lambda: Recorder(trace))  # noqa: SIM115
        transport.write(b"x")
        trace.append(repr(run(loop, protocol.lost)))

    trace = same_trace_as_stock(loop, scenario)
    assert "No space left" in trace[-1]


def test_a_fifo_with_many_writers(loop, no_leaks, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    _, protocol = connect_reader(loop, os.fdopen(read, "rb", 0))
    writers = [os.open(path, os.O_WRONLY) for _ in range(3)]
    for writer in writers:
        os.write(writer, b"x")
    assert run(loop, protocol.wait_received(3)) == b"xxx"
    for writer in writers:
        assert not protocol.lost.done()
        os.close(writer)
    assert run(loop, protocol.lost) is None


def test_a_stream_reader_over_a_pipe(loop, pipe):
    async def talk():
        reader = asyncio.StreamReader(limit=1000)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe[0])
        pipe[1].write(b"line\n" + bytes(30_000))
        assert await reader.readline() == b"line\n"
        assert await reader.readexactly(30_000) == bytes(30_000)
        waiting = asyncio.ensure_future(reader.read(100))
        await asyncio.sleep(0)
        pipe[1].write(b"more")
        assert await waiting == b"more"
        pipe[1].close()
        assert await reader.read() == b""
        assert reader.at_eof()
        return transport

    transport = run(loop, talk())
    turns(loop, 2)
    assert transport.is_closing()


@pytest.mark.parametrize("behind", ["end", "packet", "rest of a line", "another pipe"])
def test_what_lies_behind_the_bytes_that_wake_a_reader_comes_in_the_turn_of_who_is_woken(loop, no_leaks, behind):
    """Also where the loop is spared a call because it has received all that there was: then there was not all."""

    async def pass_turns(count):
        for _ in range(count):
            await asyncio.sleep(0)

    async def play():
        if behind == "rest of a line":
            near, far = pty.openpty()
        else:
            far, near = os.pipe2(os.O_DIRECT) if behind == "packet" else os.pipe()
        other_far, other_near = os.pipe()
        reader, other = asyncio.StreamReader(), asyncio.StreamReader()
        transports = []
        for stream, descriptor in ((reader, far), (other, other_far)):
            pipe = os.fdopen(descriptor, "rb", 0)
            made, _ = await loop.connect_read_pipe(lambda stream=stream: asyncio.StreamReaderProtocol(stream), pipe)
            transports.append(made)
        seen = []

        async def read():
            seen.append(await reader.read(100))
            if behind == "another pipe":
                os.write(other_near, b"more")
            # The next turn runs the first of these before what it finds itself, and the one after that the second.
            loop.call_soon(lambda: seen.append((bytes(reader._buffer), bytes(other._buffer))))
            loop.call_soon(loop.call_soon, lambda: seen.append((reader.at_eof(), bytes(other._buffer))))

        task = loop.create_task(read())
        await pass_turns(2)
        os.write(near, b"some\n")
        if behind == "end":
            os.close(near)
        elif behind != "another pipe":
            os.write(near, b"more\n")
        await task
        await pass_turns(4)
        for transport in transports:
            transport.close()
        for descriptor in (other_near,) if behind == "end" else (near, other_near):
            os.close(descriptor)
        await pass_turns(4)
        return seen

    first, second, third = run(loop, play())
    assert first == b"some\n"
    assert second == (b"more\n" if behind in ("packet", "rest of a line") else b"", b"")
    # The end of a pipe is told one turn after it was read.
    assert third == (behind == "end", b"more" if behind == "another pipe" else b"")


def test_a_stream_writer_over_a_pipe(loop, pipe):
    async def talk():
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe[0])
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe[1]
        )
        writer = asyncio.StreamWriter(transport, protocol, None, loop)

        async def write():
            for _ in range(20):
                writer.write(bytes(50_000))
                await writer.drain()
            writer.write_eof()

        received, _ = await asyncio.gather(reader.read(), write())
        return len(received)

    assert run(loop, talk()) == 1_000_000
    turns(loop, 2)


def test_a_protocol_may_be_replaced(loop, pipe):
    transport, first = connect_reader(loop, pipe[0])
    pipe[1].write(b"one")
    run(loop, first.wait_received(3))
    second = Recorder()
    second.lost = loop.create_future()
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    pipe[1].write(b"two")
    assert run(loop, second.wait_received(3)) == b"two"
    transport.close()
    run(loop, second.lost)
    assert first.trace == ["connection_made", "data_received 3"]


def test_what_a_transport_says_of_itself(loop):
    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        extra = (connect_reader(loop, read)[0], connect_writer(loop, write)[0])
        for transport, pipe in zip(extra, (read, write), strict=True):
            trace.append(repr(transport.get_extra_info("pipe") is pipe))
            trace.append(repr(transport.get_extra_info("nothing", 5)))
            trace.append(normalised(repr(transport)))
        reading, writing = extra
        trace.append(repr(writing.can_write_eof()))
        fill_pipe(write)
        writing.write(b"x")
        trace.append(normalised(repr(writing)))
        writing.close()
        reading.pause_reading()
        trace += [normalised(repr(transport)) for transport in extra]
        reading.close()
        trace += [normalised(repr(transport)) for transport in extra]
        turns(loop, 5)
        trace += [normalised(repr(transport)) for transport in extra]
        trace += [repr(transport.get_extra_info("pipe").closed) for transport in extra]

    same_trace_as_stock(loop, scenario)


def test_the_classes_of_the_transports(loop, pipe):
    """The abstract classes that asyncio's are of; libraries ask."""
    reading, _ = connect_reader(loop, pipe[0])
    writing, _ = connect_writer(loop, pipe[1])
    assert isinstance(reading, asyncio.ReadTransport)
    assert not isinstance(reading, asyncio.WriteTransport)
    assert isinstance(writing, asyncio.WriteTransport)
    with pytest.raises(AttributeError):
        reading.write  # noqa: B018
    reading.close()
    writing.close()
    turns(loop, 2)


def test_debug_mode_logs_what_happens(debug_loop, caplog):
    """In asyncio's words."""

    def scenario(loop, trace):
        loop.set_debug(True)
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "asyncio"):
            read, write = ends_of_a_pipe()
            transport, _ = connect_reader(loop, read)
            transport.pause_reading()
            transport.resume_reading()
            write.close()
            turns(loop, 3)
            read, write = ends_of_a_pipe()
            connect_writer(loop, write)
            read.close()
            turns(loop, 3)
        # The text as it was logged then; a record's message is put together when it is read.
        trace += [normalised(line[line.index("<") :]) for line in caplog.text.splitlines() if "connected" not in line]

    trace = same_trace_as_stock(debug_loop, scenario)
    assert len(trace) >= 4


@pytest.mark.parametrize("end", ["read", "write"])
def test_an_unclosed_transport_warns_and_closes_its_pipe(loop, no_leaks, end):
    """One for which nothing is awaited any more: paused, or over a terminal, which does not hang up."""
    if end == "read":
        pipe, other = ends_of_a_pipe()
        transport, protocol = connect_reader(loop, pipe)
        transport.pause_reading()
    else:
        other, pipe = ends_of_a_terminal()
        transport, protocol = connect_writer(loop, pipe)
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, protocol
        gc.collect()
    assert [str(item.message).startswith("unclosed transport <_Unix") for item in caught] == [True]
    assert pipe.closed
    other.close()


def test_a_transport_whose_loop_is_closed(loop, no_leaks):
    """It still says what it is, refuses what takes a loop, and its pipe can be closed by hand."""

    def scenario(loop, trace):
        ends = ends_of_a_pipe()
        pair = [connect_reader(loop, ends[0])[0], connect_writer(loop, ends[1])[0]]
        loop.close()
        for transport in pair:
            trace.append(normalised(repr(transport)))
            trace.append(str(transport.is_closing()))
            with pytest.raises(RuntimeError) as error:
                transport.close()
            trace.append(str(error.value))
            trace.append(f"{transport.is_closing()} {transport._pipe.closed}")
            transport._pipe.close()
            transport._pipe = None

    with contextlib.closing(type(loop)()) as other:
        expected = []
        with contextlib.closing(asyncio.SelectorEventLoop()) as stock:
            scenario(stock, expected)
        trace = []
        scenario(other, trace)
        assert trace == expected


def test_transports_are_collected(loop, no_leaks):
    ends = ends_of_a_pipe()
    pair = [connect_writer(loop, ends[1]), connect_reader(loop, ends[0])]
    kinds = [type(transport) for transport, _ in pair]
    before = [alive(kind) for kind in kinds]
    for transport, protocol in pair:
        transport.close()
        run(loop, protocol.lost)
    del transport, protocol, pair
    gc.collect()
    assert [alive(kind) for kind in kinds] == [count - 1 for count in before]


def test_callbacks_run_in_the_context_of_the_connection(loop, pipe):
    """uvloop#348"""
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen = []

    class Looking(Recorder):
        def note(self, text):
            super().note(text)
            seen.append((text.split()[0], variable.get()))

    async def connect():
        variable.set("the connection's")
        return await loop.connect_read_pipe(Looking, pipe[0])

    _, protocol = run(loop, connect())
    pipe[1].write(b"x")
    pipe[1].close()
    run(loop, protocol.lost)
    names = ["connection_made", "data_received", "eof_received", "connection_lost"]
    assert seen == [(name, "the connection's") for name in names]


def test_a_pipe_is_left_without_blocking(loop, pipe):
    reading, _ = connect_reader(loop, pipe[0])
    writing, _ = connect_writer(loop, pipe[1])
    assert [os.get_blocking(end.fileno()) for end in pipe] == [False, False]
    reading.close()
    writing.close()
    turns(loop, 2)


def test_a_terminal_stays_in_its_mode(loop, no_leaks):
    near, far = pty.openpty()
    before = termios.tcgetattr(far)
    transport, protocol = connect_reader(loop, os.fdopen(near, "rb", 0))
    assert termios.tcgetattr(far) == before
    transport.close()
    run(loop, protocol.lost)
    os.close(far)


def test_many_pipes_close_nothing_that_is_not_theirs(loop, no_leaks):
    """uvloop#763, skypilot#10681: ten thousand there, five hundred pairs here, while a thread opens and closes too."""
    done = threading.Event()
    stolen = []

    def open_and_close():
        while not done.is_set():
            try:
                os.close(os.open("/dev/null", os.O_RDONLY))
            except OSError as error:
                stolen.append(error)

    thread = threading.Thread(target=open_and_close)
    thread.start()
    try:
        for _ in range(500):
            ends = ends_of_a_pipe()
            reading, _ = connect_reader(loop, ends[0], asyncio.Protocol)
            writing, _ = connect_writer(loop, ends[1], asyncio.BaseProtocol)
            reading.close()
            writing.close()
            turns(loop, 1)
            canaries = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
            turns(loop, 1)
            ends[0].close()
            ends[1].close()
            for canary in canaries:
                os.close(canary)  # fails where somebody closed it meanwhile
    finally:
        done.set()
        thread.join()
    assert stolen == []


def test_a_buffered_protocol_is_not_for_pipes(loop):
    """asyncio calls its `data_received`, which it does not have."""

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    def scenario(loop, trace):
        read, write = ends_of_a_pipe()
        _, protocol = connect_reader(loop, read, Buffered)
        write.write(b"abc")
        turns(loop, 2)
        write.close()
        run(loop, protocol.lost)
        # The report of a handle has the handle.
        trace[:] = [line.split(" [")[0] for line in trace]

    trace = same_trace_as_stock(loop, scenario)
    assert "has no attribute 'data_received'" in trace[0]
