"""TLS: connections, servers and upgrades, over whatever the `ssl` module can do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import os
import socket
import ssl
import sys
import threading
import weakref

import pytest
import trustme

from harness import (
    PATIENCE,
    Recorder,
    attach,
    close,
    python,
    receive_all,
    resident_bytes,
    run,
    same_as_stock,
    same_trace_as_stock,
    skip_where_the_wait_sends,
    tcp_pair,
    turns,
)

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def authority():
    """A certificate authority of the tests' own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def versioned(request, authority):
    """Contexts of both sides that speak one version only: server, client."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    for context in (server, client):
        context.minimum_version = context.maximum_version = request.param
    return server, client


class Peer:
    """The other end of a connection: a blocking socket and a session of its own, so that every record can be seen."""

    def __init__(self, sock, context, server_side=True, server_hostname=None):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname
        )

    def until_done(self, act):
        """What `act()` answers, with bytes sent and received until it no longer wants any."""
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                self.flush()
                received = self.sock.recv(MEGABYTE)
                if not received:
                    raise EOFError("the stream ended") from None
                self.incoming.write(received)
            finally:
                self.flush()

    def flush(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def handshake(self):
        self.until_done(self.session.do_handshake)

    def write(self, data):
        self.session.write(data)
        self.flush()

    def read_exactly(self, count):
        parts = bytearray()
        while len(parts) < count:
            part = self.until_done(lambda: self.session.read(min(count - len(parts), 65536)))
            if not part:
                raise EOFError(f"close_notify after {len(parts)} of {count} bytes")
            parts += part
        return bytes(parts)

    def records(self, count):
        """The lengths of the records that carry the next `count` bytes."""
        lengths = []
        while sum(lengths) < count:
            lengths.append(len(self.until_done(lambda: self.session.read(65536))))
        return lengths

    def close(self):
        """Send close_notify, and wait for the other one's."""
        self.until_done(self.session.unwrap)
        self.sock.close()


class InThread:
    """A blocking peer in a thread of its own. What it raises is raised by `join`."""

    def __init__(self, target, *arguments):
        self.error = None
        self.result = None

        def body():
            try:
                self.result = target(*arguments)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=body, daemon=True)
        self.thread.start()

    def join(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the peer does not end"
        if self.error is not None:
            raise self.error
        return self.result


@contextlib.contextmanager
def client_of(loop, server_context, client_context, talk, factory=Recorder, **options):
    """A connection of the loop to a peer in a thread, whose side is `talk(peer)`: transport, protocol, the thread."""
    near, far = tcp_pair()
    far.settimeout(PATIENCE)

    def serve():
        peer = Peer(far, server_context)
        peer.handshake()
        try:
            return talk(peer)
        finally:
            far.close()

    thread = InThread(serve)
    transport, protocol = run(
        loop,
        loop.create_connection(factory, sock=near, ssl=client_context, server_hostname="localhost", **options),
    )
    yield transport, protocol, thread
    thread.join()
    close(loop, transport)


async def echo(reader, writer):
    """Send back what comes until it ends."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def wait_lost(loop, protocol):
    return run(loop, protocol.lost)


# Both ends


@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 3 * MEGABYTE])
def test_streams_echo(loop, versioned, size):
    server_context, client_context = versioned
    payload = os.urandom(size)

    async def talk():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_context, server_hostname="localhost")
        sent = asyncio.ensure_future(send(writer))
        assert await reader.readexactly(size) == payload
        await sent
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    async def send(writer):
        writer.write(payload)
        await writer.drain()

    run(loop, talk())
    turns(loop, 3)


class Buffered(asyncio.BufferedProtocol):
    """Receives into a small buffer of its own."""

    size = 1000

    def __init__(self):
        self.received = bytearray()
        self.buffer = bytearray(self.size)
        self.hints = []
        self.changed = asyncio.Event()
        self.ended = False

    def connection_made(self, transport):
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.received += self.buffer[:nbytes]
        self.changed.set()

    def eof_received(self):
        self.ended = True

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 100_000])
def test_buffered_protocols_receive_into_their_own_buffer(loop, server_context, client_context, size):
    payload = os.urandom(size)

    def talk(peer):
        peer.write(payload)
        peer.until_done(peer.session.unwrap)

    with client_of(loop, server_context, client_context, talk, Buffered) as (_, protocol, _):
        assert wait_lost(loop, protocol) is None
        assert bytes(protocol.received) == payload
        assert protocol.ended


def test_a_protocol_may_be_set_in_the_middle(loop, server_context, client_context):
    """cpython#77835: plain, buffered and plain again, on one connection."""

    def talk(peer):
        for _ in range(3):
            peer.write(peer.read_exactly(3))

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, _):
        transport.write(b"one")
        assert run(loop, protocol.wait_received(3)) == b"one"
        buffered = Buffered()
        transport.set_protocol(buffered)
        assert transport.get_protocol() is buffered
        transport.write(b"two")

        async def received():
            while len(buffered.received) < 3:
                buffered.changed.clear()
                await buffered.changed.wait()

        run(loop, received())
        transport.set_protocol(protocol)
        transport.write(b"six")
        assert run(loop, protocol.wait_received(6)) == b"onesix"
        assert bytes(buffered.received) == b"two"


@pytest.mark.parametrize("count", [1, 2, 50])
def test_writes_of_one_turn_arrive_in_order(loop, server_context, client_context, count):
    pieces = [bytes([65 + number % 26]) * (number + 1) for number in range(count)]

    def talk(peer):
        received = peer.read_exactly(sum(map(len, pieces)))
        peer.write(b"x")
        return received

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        loop.call_soon(lambda: [transport.write(piece) for piece in pieces])
        run(loop, protocol.wait_received(1))
        assert thread.join() == b"".join(pieces)


def test_later_writes_of_a_turn_share_a_record(loop, loop_name, server_context, client_context):
    """A header and the pieces of a body cost two records, not one each."""
    pieces = [b"header", b"a", b"bc", bytearray(b"def"), memoryview(b"ghij")]
    total = sum(map(len, pieces))

    def talk(peer):
        lengths = peer.records(total)
        peer.write(b"x")
        return lengths

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        loop.call_soon(lambda: [transport.write(piece) for piece in pieces])
        run(loop, protocol.wait_received(1))
        lengths = thread.join()
        if loop_name == "asyncio":
            assert lengths == [6, 1, 2, 3, 4]
        else:
            assert lengths == [6, 10]


def test_a_write_reaches_the_kernel_at_once(loop, loop_name, server_context, client_context):
    """uvloop#631: whoever waits for the peer within the same callback does not wait for ever."""
    skip_where_the_wait_sends(loop_name)
    done = threading.Event()

    def talk(peer):
        assert peer.read_exactly(4) == b"ping"
        done.set()
        return peer.read_exactly(5)

    with client_of(loop, server_context, client_context, talk) as (transport, _, thread):

        def call():
            transport.write(b"ping")
            assert done.wait(PATIENCE)
            transport.write(b"after")
            loop.stop()

        loop.call_soon(call)
        loop.run_forever()
        # What the last turn gathered is not kept back until the next run.
        assert thread.join() == b"after"


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
def test_a_buffer_may_be_changed_after_the_write(loop, server_context, client_context, kind):
    """zuvloop#61"""
    size = 4 * MEGABYTE

    def talk(peer):
        return peer.read_exactly(2 * size + 10)

    with client_of(loop, server_context, client_context, talk) as (transport, _, thread):
        large, larger, small = kind(b"a" * size), kind(b"b" * size), kind(b"c" * 10)

        def write():
            for data in (large, larger, small):
                transport.write(data)
            for data in (large, larger, small):
                data[:] = b"x" * len(data)

        loop.call_soon(write)
        run_until_finished(loop, thread)
        assert thread.join() == b"a" * size + b"b" * size + b"c" * 10


def run_until_finished(loop, thread):
    """Run until the thread of a peer ends."""

    async def wait():
        await loop.run_in_executor(None, thread.thread.join, PATIENCE)

    run(loop, wait())


def test_many_small_writes_straight_after_connection_made(loop, server_context, client_context):
    """picows#40: frames written before anything else happens, into a connection that soon has no room."""
    count = 20_000

    class Eager(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            for number in range(count):
                transport.write(b"%08d" % number)

        def pause_writing(self):
            super().pause_writing()
            self.transport.write(b"paused..")

        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"resumed.")

    def talk(peer):
        data = bytearray()
        with contextlib.suppress(EOFError):
            while True:
                data += peer.read_exactly(8)
                if data.endswith(b"the end."):
                    return bytes(data)

    with client_of(loop, server_context, client_context, talk, Eager) as (transport, _, thread):
        transport.write(b"the end.")
        run_until_finished(loop, thread)
        frames = [thread.join()[at : at + 8] for at in range(0, len(thread.join()), 8)]
        assert [frame for frame in frames if frame.isdigit()] == [b"%08d" % number for number in range(count)]


# Flow control


def test_backpressure_counts_both_layers(loop, loop_name, server_context, client_context):
    """What waits in the transport below is not sent either."""
    go = threading.Event()
    size = 8 * MEGABYTE

    def talk(peer):
        assert go.wait(PATIENCE)
        return len(peer.read_exactly(size))

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        transport.write(bytes(size))
        held = transport.get_write_buffer_size()
        if loop_name != "asyncio":
            # Stock asyncio counts what is in its own layer only: here nothing, and its protocol is not told either.
            assert held > 2 * MEGABYTE
            assert protocol.trace[-1] == "pause_writing"
        go.set()
        run_until_finished(loop, thread)
        turns(loop, 2)
        assert thread.join() == size
        assert transport.get_write_buffer_size() == 0
        assert protocol.trace.count("resume_writing") == protocol.trace.count("pause_writing")


def test_limits_of_the_application_are_kept(loop, loop_name, server_context, client_context):
    go = threading.Event()

    def talk(peer):
        assert go.wait(PATIENCE)
        total = 0
        with contextlib.suppress(EOFError):
            while True:
                total += len(peer.read_exactly(1000))
        return total

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        transport.set_write_buffer_limits(high=3000, low=1000)
        assert transport.get_write_buffer_limits() == (1000, 3000)
        written = 0
        while "pause_writing" not in protocol.trace:
            transport.write(bytes(1000))
            written += 1000
            assert written < 64 * MEGABYTE
        if loop_name != "asyncio":
            assert 3000 <= transport.get_write_buffer_size() <= 6000
        go.set()
        run(loop, protocol.wait_until(lambda: "resume_writing" in protocol.trace))
        assert transport.get_write_buffer_size() <= 1000 or loop_name == "asyncio"
        transport.close()
        wait_lost(loop, protocol)
        assert thread.join() == written


def test_a_limit_of_zero_does_not_pause_a_connection_with_nothing_to_send(
    loop, loop_name, server_context, client_context
):
    if loop_name == "asyncio":
        pytest.skip("a defect of stock asyncio: it pauses at once, and nothing resumes it")

    def talk(peer):
        return peer.read_exactly(3)

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        transport.set_write_buffer_limits(0)
        transport.write(b"one")
        run_until_finished(loop, thread)
        assert "pause_writing" not in protocol.trace


def test_wrong_limits_are_refused_in_the_same_words(loop, server_context, client_context):
    with client_of(loop, server_context, client_context, lambda peer: None) as (transport, _, _):
        for high, low in [(1, 2), (-1, None), (None, -1)]:
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
                transport.set_write_buffer_limits(high=high, low=low)


def test_reading_pauses_and_resumes(loop, server_context, client_context):
    size = 4 * MEGABYTE
    payload = os.urandom(size)

    def talk(peer):
        peer.write(b"first")
        assert peer.read_exactly(2) == b"go"
        peer.write(payload)
        assert peer.read_exactly(3) == b"end"

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, _):
        run(loop, protocol.wait_received(5))
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.write(b"go")

        async def settle():
            # The transport below pauses when enough has come in that nobody reads.
            lower = transport._ssl_protocol._transport
            while lower.is_reading():
                await asyncio.sleep(0)

        run(loop, settle())
        turns(loop, 3)
        assert bytes(protocol.received) == b"first"
        transport.resume_reading()
        assert run(loop, protocol.wait_received(5 + size)) == b"first" + payload
        transport.write(b"end")


def test_a_reader_with_a_limit_gets_more_than_twice_of_it(loop, server_context, client_context):
    """readexactly() of more than the reader holds must not deadlock."""
    payload = os.urandom(MEGABYTE)

    def talk(peer):
        peer.write(payload)
        return peer.read_exactly(1)

    near, far = tcp_pair()

    def serve():
        with far:
            peer = Peer(far, server_context)
            peer.handshake()
            return talk(peer)

    thread = InThread(serve)

    async def read():
        reader, writer = await asyncio.open_connection(
            sock=near, ssl=client_context, server_hostname="localhost", limit=1000
        )
        assert await reader.readexactly(MEGABYTE) == payload
        writer.write(b"x")
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    run(loop, read())
    thread.join()


# The end of a connection


def test_close_sends_what_was_written_and_close_notify(loop, server_context, client_context):
    size = 3 * MEGABYTE

    def talk(peer):
        data = peer.read_exactly(size + 5)
        # An answer to unwrap() is the close_notify of the other side.
        peer.until_done(peer.session.unwrap)
        return data

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):

        def write():
            transport.write(bytes(size))
            transport.write(b"l")
            transport.write(b"ast")
            transport.write(b"!")
            assert not transport.is_closing()
            transport.close()
            assert transport.is_closing()
            transport.write(b"too late")

        loop.call_soon(write)
        assert wait_lost(loop, protocol) is None
        assert thread.join() == bytes(size) + b"last!"


def test_what_comes_before_close_notify_is_delivered(loop, server_context, client_context):
    """uvloop#385, uvloop#533"""
    payload = os.urandom(3 * MEGABYTE)

    def talk(peer):
        peer.write(payload)
        peer.session.write(b"tail")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.session.unwrap()
        peer.flush()
        peer.until_done(peer.session.unwrap)

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, _):
        assert wait_lost(loop, protocol) is None
        assert bytes(protocol.received) == payload + b"tail"
        assert protocol.trace[-2:] == ["eof_received", "connection_lost NoneType"]
        assert transport.is_closing()


def test_what_came_while_reading_was_paused_is_delivered_before_the_end(loop, server_context, client_context):
    def talk(peer):
        peer.write(b"before")
        assert peer.read_exactly(1) == b"x"
        peer.write(b"after")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.session.unwrap()
        peer.flush()
        peer.sock.shutdown(socket.SHUT_WR)

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        run(loop, protocol.wait_received(6))
        transport.pause_reading()
        transport.write(b"x")
        run_until_finished(loop, thread)
        turns(loop, 3)
        assert bytes(protocol.received) == b"before"
        transport.resume_reading()
        wait_lost(loop, protocol)
        assert bytes(protocol.received) == b"beforeafter"
        assert "eof_received" in protocol.trace


def test_a_stream_that_is_cut_off_ends_like_on_asyncio(loop, server_context, client_context):
    """The peer closes its socket without close_notify."""

    def scenario(loop, trace):
        with client_of(loop, server_context, client_context, lambda peer: peer.write(b"some")) as (_, protocol, _):
            wait_lost(loop, protocol)
            trace.append(bytes(protocol.received).decode())
            trace.extend(line for line in protocol.trace if not line.startswith("data_received"))

    same_trace_as_stock(loop, scenario)


def test_close_stops_a_download(loop, server_context, client_context):
    """uvloop#471: a connection that is closed does not go on reading for half a minute."""
    sent = []

    def talk(peer):
        piece = bytes(65536)
        peer.sock.settimeout(PATIENCE)
        try:
            while len(sent) < 1600:
                peer.write(piece)
                sent.append(len(piece))
        except (ConnectionError, BrokenPipeError):
            pass

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, thread):
        run(loop, protocol.wait_received(1))
        had = len(protocol.received)
        transport.close()
        wait_lost(loop, protocol)
        run_until_finished(loop, thread)
        # Beyond that, what the kernel's buffers hold.
        assert len(protocol.received) - had < MEGABYTE
        assert sum(sent) < 100 * MEGABYTE


def test_abort_drops_what_is_queued(loop, server_context, client_context):
    go = threading.Event()

    def talk(peer):
        assert go.wait(PATIENCE)
        with contextlib.suppress(EOFError, OSError):
            while peer.until_done(lambda: peer.session.read(65536)):
                pass

    with client_of(loop, server_context, client_context, talk) as (transport, protocol, _):
        transport.write(bytes(16 * MEGABYTE))
        transport.abort()
        assert transport.is_closing()
        assert wait_lost(loop, protocol) is None
        assert protocol.trace.count("connection_lost NoneType") == 1
        go.set()


def test_writes_to_an_ended_connection_are_dropped_and_logged(loop, server_context, client_context, caplog):
    with client_of(loop, server_context, client_context, lambda peer: None) as (transport, protocol, _):
        transport.abort()
        wait_lost(loop, protocol)
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(6):
                transport.write(b"x")
            transport.write(b"")
        assert caplog.messages == ["SSL connection is closed"] * 2


def test_a_shutdown_without_an_answer_times_out(loop, server_context, client_context):
    done = threading.Event()

    def talk(peer):
        assert done.wait(PATIENCE)

    with client_of(loop, server_context, client_context, talk, ssl_shutdown_timeout=0.05) as (transport, protocol, _):
        transport.close()
        error = wait_lost(loop, protocol)
        assert isinstance(error, TimeoutError)
        assert str(error) == "SSL shutdown timed out"
        done.set()


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("seconds", [0, -1])
def test_time_limits_that_are_none_are_refused(loop, client_context, name, seconds):
    near, far = tcp_pair()
    with near, far:

        def connect(loop):
            options = {"sock": near.dup(), "ssl": client_context, "server_hostname": "localhost", name: seconds}
            try:
                run(loop, loop.create_connection(Recorder, **options))
            finally:
                options["sock"].close()

        assert same_as_stock(loop, connect)[0] == "ValueError"


class Failing(Recorder):
    """Raises in one of its callbacks."""

    where = ""

    def note(self, text):
        super().note(text)
        if text.startswith(self.where):
            if self.where == "connection_lost":
                self.lost.set_result(None)
            raise ZeroDivisionError(text.split()[0])


@pytest.mark.parametrize("where", ["data_received", "eof_received", "connection_lost", "pause_writing"])
def test_an_exception_of_the_protocol_is_reported_as_on_asyncio(loop, server_context, client_context, where):
    class Raises(Failing):
        pass

    Raises.where = where

    def talk(peer):
        peer.write(b"data")
        if where == "pause_writing":
            assert done.wait(PATIENCE)
        with contextlib.suppress(EOFError, OSError):
            peer.read_exactly(1)
            peer.until_done(peer.session.unwrap)

    done = threading.Event()

    def scenario(loop, trace):
        done.clear()
        with client_of(loop, server_context, client_context, talk, Raises) as (transport, protocol, _):
            if where != "data_received":
                run(loop, protocol.wait_received(4))
            if where == "pause_writing":
                # Two writes, since stock asyncio does not count what the transport below has.
                transport.write(bytes(8 * MEGABYTE))
                transport.write(bytes(MEGABYTE))
                transport.abort()
            elif where != "data_received":
                transport.write(b"x")
            wait_lost(loop, protocol)
            done.set()
            turns(loop, 3)
            trace.extend(line for line in protocol.trace if not line.startswith("resume"))

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_of_the_protocol_leave_the_loop(loop, server_context, client_context, error):
    class Interrupts(Recorder):
        def data_received(self, data):
            raise error

    def talk(peer):
        peer.write(b"data")
        with contextlib.suppress(EOFError, OSError):
            peer.read_exactly(1)

    near, far = tcp_pair()

    def serve():
        peer = Peer(far, server_context)
        peer.handshake()
        talk(peer)

    thread = InThread(serve)
    made = loop.create_connection(Interrupts, sock=near, ssl=client_context, server_hostname="localhost")
    task = loop.create_task(made)
    limit = loop.call_later(PATIENCE, loop.stop)
    with pytest.raises(error):
        loop.run_forever()
    limit.cancel()
    transport, _ = run(loop, task)
    close(loop, transport)
    thread.join()
    far.close()
    turns(loop, 3)


# The handshake


def test_an_untrusted_certificate_fails_once(loop, server_context):
    """uvloop#68: the waiter is woken once, and nothing reads a connection that is gone."""
    near, far = tcp_pair()

    def serve():
        with contextlib.suppress(OSError, EOFError):
            Peer(far, server_context).handshake()
        far.close()

    thread = InThread(serve)
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        run(loop, loop.create_connection(Recorder, sock=near, ssl=context, server_hostname="localhost"))
    thread.join()
    turns(loop, 3)
    assert near.fileno() == -1


def test_a_failed_handshake_of_a_server_is_not_logged(loop, server_context, caplog):
    """cpython#155936: whoever scans ports does not fill the log."""
    server = run(loop, loop.create_server(Recorder, "127.0.0.1", 0, ssl=server_context))
    address = server.sockets[0].getsockname()

    async def scan(greeting):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(greeting)
        if not greeting:
            writer.write_eof()
        await reader.read()
        writer.close()

    with caplog.at_level(logging.WARNING, "asyncio"):
        for greeting in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
            run(loop, scan(greeting))
        turns(loop, 3)
    assert caplog.messages == []
    server.close()
    run(loop, server.wait_closed())


@pytest.mark.parametrize("debug", [False, True])
def test_a_silent_peer_runs_into_the_time_limit(loop, client_context, debug):
    loop.set_debug(debug)
    near, far = tcp_pair()
    with near, far:

        def connect(loop):
            sock = near.dup()
            try:
                run(
                    loop,
                    loop.create_connection(
                        Recorder, sock=sock, ssl=client_context, server_hostname="localhost", ssl_handshake_timeout=0.05
                    ),
                )
            finally:
                turns(loop, 2)
                sock.close()

        name, text = same_as_stock(loop, connect)
        assert name == "ConnectionAbortedError"
        assert text == "SSL handshake is taking longer than T seconds: aborting the connection"


def test_a_handshake_is_logged_in_debug_mode(debug_loop, server_context, client_context, caplog):
    with (
        caplog.at_level(logging.DEBUG, "asyncio"),
        client_of(debug_loop, server_context, client_context, lambda peer: None) as (_, protocol, _),
    ):
        wait_lost(debug_loop, protocol)
    told = " ".join(caplog.messages)
    for piece in ("starts SSL handshake", "SSL handshake took", "received EOF"):
        assert piece in told


def test_peers_that_vanish_in_the_handshake_leave_nothing(loop, server_context):
    """uvloop#565, cpython#109534: no connection and no session is left, also without the collector."""
    if sys.version_info < (3, 13):
        pytest.skip("a defect of asyncio's own way to accept: the exception and a frame hold each other")
    server = run(loop, loop.create_server(Recorder, "127.0.0.1", 0, ssl=server_context))
    address = server.sockets[0].getsockname()
    hello = client_hello()
    gone = []
    sessions = []
    wrap = server_context.wrap_bio

    class Watching:
        """Notes each session."""

        def __call__(self, *arguments, **options):
            made = wrap(*arguments, **options)
            sessions.append(weakref.ref(made))
            return made

    async def vanish(length):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(hello[:length])
        writer.write_eof()
        await reader.read()
        writer.close()
        gone.append(length)

    server_context.wrap_bio = Watching()
    gc.collect()
    gc.disable()
    try:
        for length in (0, 1, 100, len(hello)):
            run(loop, vanish(length))
        turns(loop, 5)
        assert len(sessions) == 4
        assert [session() for session in sessions] == [None] * 4
    finally:
        gc.enable()
        del server_context.wrap_bio
    server.close()
    run(loop, server.wait_closed())


def client_hello():
    """The first flight of a client."""
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def test_a_connection_leaves_nothing_without_the_collector(loop, server_context, client_context):
    """uvloop#237: no cycle is left of connections that were used and closed."""
    refs = []

    def once():
        with client_of(loop, server_context, client_context, lambda peer: peer.close()) as (transport, protocol, _):
            wait_lost(loop, protocol)
            refs.extend(map(weakref.ref, (transport, transport._ssl_protocol, protocol)))

    gc.collect()
    gc.disable()
    try:
        once()
        turns(loop, 3)
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


def test_memory_returns_after_thousands_of_vanished_peers(loop, loop_name, server_context):
    """uvloop#220"""
    if loop_name == "asyncio":
        pytest.skip("it is about what hotloop holds")
    server = run(loop, loop.create_server(Recorder, "127.0.0.1", 0, ssl=server_context))
    address = server.sockets[0].getsockname()
    hello = client_hello()

    async def vanish(number):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(hello[: number % len(hello)])
        await asyncio.sleep(0)
        writer.transport.abort()

    async def some(count):
        for first in range(0, count, 50):
            await asyncio.gather(*(vanish(first + number) for number in range(50)))

    run(loop, some(300))
    turns(loop, 10)
    gc.collect()
    before = resident_bytes()
    run(loop, some(1500))
    turns(loop, 10)
    gc.collect()
    assert resident_bytes() - before < 8 * MEGABYTE
    server.close()
    run(loop, server.wait_closed())


# What a program asks a transport


def test_extra_info_of_a_connection(loop, server_context, client_context):
    with client_of(loop, server_context, client_context, lambda peer: peer.read_exactly(1)) as (transport, _, _):
        check_extra_info(transport, client_context)
        transport.write(b"x")


def check_extra_info(transport, context):
    """uvloop#55"""
    session = transport.get_extra_info("ssl_object")
    assert isinstance(session, ssl.SSLObject)
    assert session.version().startswith("TLS")
    assert transport.get_extra_info("peercert")["subjectAltName"]
    assert transport.get_extra_info("cipher") == session.cipher()
    assert transport.get_extra_info("compression") is None
    assert transport.get_extra_info("sslcontext") is context
    assert transport.get_extra_info("peername")[0] == "127.0.0.1"
    assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
    assert transport.get_extra_info("socket").fileno() > 0
    assert transport.get_extra_info("no such", 7) == 7


def test_the_types_that_programs_look_for(loop, server_context, client_context):
    from asyncio import sslproto

    with client_of(loop, server_context, client_context, lambda peer: None) as (transport, _, _):
        assert isinstance(transport, asyncio.Transport)
        assert "ssl" in type(transport).__name__.lower()
        assert isinstance(transport, sslproto._SSLProtocolTransport)
        assert isinstance(transport._ssl_protocol, sslproto.SSLProtocol)
        assert transport._start_tls_compatible
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        assert weakref.ref(transport)() is transport


@pytest.mark.parametrize("data", ["text", None, 3, [b"x"]])
def test_what_is_not_bytes_is_refused_in_the_same_words(loop, server_context, client_context, data):
    with client_of(loop, server_context, client_context, lambda peer: None) as (transport, _, _):
        with pytest.raises(TypeError) as error:
            transport.write(data)
        assert str(error.value) == f"data: expecting a bytes-like instance, got {type(data).__name__}"


def test_a_transport_that_is_not_closed_says_so(loop, server_context, client_context):
    near, far = tcp_pair()

    def serve():
        peer = Peer(far, server_context)
        with contextlib.suppress(OSError, EOFError):
            peer.handshake()
            peer.read_exactly(1)

    thread = InThread(serve)
    transport, _ = run(
        loop, loop.create_connection(Recorder, sock=near, ssl=client_context, server_hostname="localhost")
    )
    transport._ssl_protocol._transport.pause_reading()
    held = [transport]
    del transport, _
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        collect(held)
    thread.join()
    far.close()


def collect(held):
    """Let go of objects and collect them."""
    held.clear()
    gc.collect()


# The user's own context


def test_a_context_may_wrap_its_own_way(loop, authority, server_context):
    """A subclass that overrides wrap_bio() and answers a session of its own class."""
    calls = []

    class Session(ssl.SSLObject):
        def read(self, len=1024, buffer=None):
            calls.append("read")
            return super().read(len, buffer)

        def write(self, data):
            calls.append("write")
            return super().write(data)

    class Context(ssl.SSLContext):
        sslobject_class = Session

        def wrap_bio(self, *arguments, **options):
            calls.append("wrap_bio")
            return super().wrap_bio(*arguments, **options)

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    payload = os.urandom(100_000)

    def talk(peer):
        peer.write(peer.read_exactly(len(payload)))
        peer.until_done(peer.session.unwrap)

    with client_of(loop, server_context, context, talk) as (transport, protocol, _):
        transport.write(payload)
        wait_lost(loop, protocol)
        assert bytes(protocol.received) == payload
        assert type(transport.get_extra_info("ssl_object")) is Session
    assert calls[0] == "wrap_bio"
    assert {"read", "write"} <= set(calls)


def test_names_protocols_and_client_certificates(loop, authority, client_context):
    """ALPN, an SNI callback that changes the context, and a certificate of the client."""
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(inner)
    authority.configure_trust(inner)
    inner.verify_mode = ssl.CERT_REQUIRED
    inner.set_alpn_protocols(["h2", "http/1.1"])
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(outer)
    authority.configure_trust(outer)
    outer.verify_mode = ssl.CERT_REQUIRED
    outer.set_alpn_protocols(["h2", "http/1.1"])
    names = []

    def choose(session, name, context):
        names.append(name)
        session.context = inner

    outer.sni_callback = choose
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    authority.issue_cert("someone").configure_cert(client)
    client.set_alpn_protocols(["http/1.1"])

    async def talk():
        accepted = loop.create_future()

        async def serve(reader, writer):
            accepted.set_result(writer.get_extra_info("peercert"))
            await echo(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=outer)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client, server_hostname="localhost"
        )
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert (await accepted)["subjectAltName"] == (("DNS", "someone"),)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, talk())
    assert names == ["localhost"]
    turns(loop, 3)


def test_a_callback_of_the_session_may_write(loop, loop_name, authority, server_context):
    """A message callback runs within every read and write, and may use the transport itself."""
    if loop_name == "asyncio":
        pytest.skip("a defect of stock asyncio: it enters OpenSSL twice, which ends the process")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    transports = []
    written = []

    def message(*_):
        if transports and not written:
            written.append(True)
            transports[0].write(b"from within ")

    context._msg_callback = message

    def talk(peer):
        return peer.read_exactly(17)

    with client_of(loop, server_context, context, talk) as (transport, _, thread):
        transports.append(transport)
        transport.write(b"first")
        run_until_finished(loop, thread)
        assert sorted(thread.join()) == sorted(b"firstfrom within ")


# Upgrades


@contextlib.asynccontextmanager
async def served(handler, **options):
    """A server of streams: its address."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await server.wait_closed()


def test_start_tls_of_both_sides(loop, server_context, client_context):
    payload = os.urandom(300_000)

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.drain()
        await start_tls(loop, reader, writer, server_context, server_side=True)
        await echo(reader, writer)

    async def talk():
        async with served(serve) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go\n"
            await start_tls(loop, reader, writer, client_context, server_hostname="localhost")
            check_extra_info(writer.transport, client_context)
            writer.write(payload)
            assert await reader.readexactly(len(payload)) == payload
            writer.close()
            await writer.wait_closed()

    run(loop, talk())
    turns(loop, 3)


async def start_tls(loop, reader, writer, context, **options):
    """`StreamWriter.start_tls`, which knows on the server's side what side it is since Python 3.11 only."""
    protocol = writer.transport.get_protocol()
    transport = await loop.start_tls(writer.transport, protocol, context, **options)
    writer._transport = transport
    reader._transport = transport
    protocol._transport = transport
    protocol._over_ssl = True


def test_start_tls_keeps_what_was_received_before(loop, loop_name, server_context, client_context):
    """cpython#142352, uvloop#707: a PROXY header and the ClientHello in one segment."""
    if loop_name == "asyncio" and "_incoming" not in inspect.getsource(asyncio.BaseEventLoop.start_tls):
        pytest.skip("a defect of this version of stock asyncio: the handshake hangs")

    async def serve(reader, writer):
        assert await reader.readline() == b"PROXY TCP4\r\n"
        await start_tls(loop, reader, writer, server_context, server_side=True)
        await echo(reader, writer)

    def client(address):
        with socket.create_connection(address, PATIENCE) as sock:
            peer = Peer(sock, client_context, server_side=False, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.session.do_handshake()
            sock.sendall(b"PROXY TCP4\r\n" + peer.outgoing.read())
            peer.handshake()
            peer.write(b"hello")
            assert peer.read_exactly(5) == b"hello"
            peer.until_done(peer.session.unwrap)

    async def talk():
        async with served(serve) as address:
            await loop.run_in_executor(None, client, address)

    run(loop, talk())
    turns(loop, 3)


def test_tls_within_tls(loop, server_context, client_context):
    payload = os.urandom(300_000)

    async def serve(reader, writer):
        await start_tls(loop, reader, writer, server_context, server_side=True)
        await echo(reader, writer)

    async def talk():
        async with served(serve, ssl=server_context) as address:
            reader, writer = await asyncio.open_connection(*address, ssl=client_context, server_hostname="localhost")
            outer = writer.transport
            await start_tls(loop, reader, writer, client_context, server_hostname="localhost")
            assert writer.transport is not outer
            assert writer.transport._ssl_protocol._transport is outer
            for size in (1, 100, len(payload)):
                writer.write(payload[:size])
                assert await reader.readexactly(size) == payload[:size]
            writer.close()
            await writer.wait_closed()

    run(loop, talk())
    turns(loop, 3)


def test_start_tls_refuses_in_the_same_words(loop, client_context):
    near, far = tcp_pair()
    transport, protocol = attach(loop, near)

    class Other:
        def __repr__(self):
            return "other"

    run_on = {
        "context": lambda loop: loop.start_tls(transport, protocol, "context"),
        "transport": lambda loop: loop.start_tls(Other(), protocol, client_context),
        "time limit": lambda loop: loop.start_tls(transport, protocol, client_context, ssl_handshake_timeout=0),
    }
    for start in run_on.values():
        same_as_stock(loop, lambda loop, start=start: run(loop, start(loop)))
    close(loop, transport)
    far.close()


def test_a_failed_upgrade_closes_the_connection(loop, client_context):
    near, far = tcp_pair()
    transport, protocol = attach(loop, near)
    answering = InThread(lambda: far.recv(1) and far.sendall(b"not tls at all"))
    with pytest.raises(ssl.SSLError):
        run(loop, loop.start_tls(transport, protocol, client_context, server_hostname="localhost"))
    answering.join()
    turns(loop, 3)
    assert near.fileno() == -1
    far.close()


def test_an_upgrade_that_is_given_up_closes_the_connection(loop, client_context):
    near, far = tcp_pair()
    transport, protocol = attach(loop, near)
    upgrade = loop.create_task(loop.start_tls(transport, protocol, client_context, server_hostname="localhost"))
    turns(loop, 2)
    upgrade.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, upgrade)
    turns(loop, 3)
    assert near.fileno() == -1
    assert receive_all(far) is not None
    far.close()


# The library underneath


def test_no_other_libssl_is_opened(loop_name):
    """aiofastnet#24: Pythons with a library of their own linked in must work, so nothing opens another one."""
    script = """
        import asyncio, ssl
        import trustme
        def libraries():
            with open("/proc/self/maps") as maps:
                return {line.split()[-1] for line in maps if "libssl" in line or "libcrypto" in line}
        ca = trustme.CA()
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca.issue_cert("localhost").configure_cert(server)
        ca.configure_trust(client)
        before = libraries()
        async def echo(reader, writer):
            writer.write(await reader.readexactly(5))
            writer.close()
        async def main():
            served = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
            address = served.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address, ssl=client, server_hostname="localhost")
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            served.close()
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        assert libraries() == before, libraries() - before
        print("same")
    """
    done = python(script, factory=loop_name)
    assert done.stdout == "same\n", done.stderr
