"""Datagram transports: what comes in, what goes out, errors, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import socket
import warnings

import pytest

from harness import (
    close,
    outcome,
    run,
    same_as_stock,
    same_trace_as_stock,
    stock_loop,
    turns,
)

LOCAL = ("127.0.0.1", 0)


class Endpoint(asyncio.DatagramProtocol):
    """A protocol that writes each of its callbacks to a trace and keeps what it received."""

    def __init__(self, trace=None):
        self.trace = [] if trace is None else trace
        self.received = []
        self.errors = []
        self.transport = None
        self.changed = asyncio.Event()
        self.lost = None

    def note(self, text):
        self.trace.append(text)
        self.changed.set()

    def connection_made(self, transport):
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()
        self.note("connection_made")

    def datagram_received(self, data, addr):
        self.received.append((data, addr))
        self.note(f"datagram_received {data[:20]!r} {len(data)}")

    def error_received(self, exc):
        self.errors.append(exc)
        self.note(f"error_received {type(exc).__name__} {exc}")

    def pause_writing(self):
        self.note("pause_writing")

    def resume_writing(self):
        self.note("resume_writing")

    def connection_lost(self, exc):
        self.note(f"connection_lost {type(exc).__name__}")
        if not self.lost.done():
            self.lost.set_result(exc)

    async def wait_until(self, condition):
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def wait_received(self, count):
        await self.wait_until(lambda: len(self.received) >= count)
        return self.received


def opened(loop, factory=Endpoint, **how):
    """A transport and its protocol, connection_made already called."""
    return run(loop, loop.create_datagram_endpoint(factory, **how))


def bound(loop, factory=Endpoint):
    """An endpoint on a port of its own, connected to nobody."""
    return opened(loop, factory, local_addr=LOCAL)


@pytest.fixture
def far(no_leaks):
    """A plain UDP socket with a time limit."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(LOCAL)
        sock.settimeout(20)
        yield sock


@pytest.fixture
def unix_datagrams(no_leaks):
    """Two connected Unix datagram sockets; neither blocks."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def clogged(tmp_path, no_leaks):
    """A Unix datagram socket to connect to whose queue is full, and a function that empties it."""
    path = str(tmp_path / "far")
    with clogged_at(path) as drain:
        yield path, drain


@contextlib.contextmanager
def clogged_at(path):
    """A Unix datagram socket at `path` whose queue is full; the function takes all that is in it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        sock.bind(path)
        sock.setblocking(False)
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"filler", path)

        def drain():
            got = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(sock.recv(1 << 20))
            return [data for data in got if data != b"filler"]

        yield drain


# What it is


def test_a_transport_is_what_asyncio_says_it_is(loop, loop_name):
    """zuvloop#26"""
    transport, protocol = bound(loop)
    assert isinstance(transport, asyncio.Transport)
    assert transport.get_protocol() is protocol
    assert transport.is_reading()
    assert not transport.is_closing()
    if loop_name != "asyncio":  # stock asyncio's own became one in Python 3.12
        assert isinstance(transport, asyncio.DatagramTransport)
    sock = transport.get_extra_info("socket")
    assert sock.getsockname() == transport.get_extra_info("sockname")
    assert transport.get_extra_info("peername") is None
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_DGRAM
    close(loop, transport)


def test_a_transport_looks_as_on_stock_asyncio(loop):
    def scenario(loop, trace):
        transport, _ = bound(loop)
        trace.append(repr(transport).split("fd=")[0] + repr(transport).split(" ", 2)[2])
        transport.pause_reading()
        trace.append(repr(transport).split(" ", 2)[2])
        transport.close()
        trace.append(repr(transport).split("fd=")[0] + repr(transport).split(" ", 3)[3])
        turns(loop, 2)
        trace.append(repr(transport).split("fd=")[0])

    same_trace_as_stock(loop, scenario)


# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_datagram_comes_with_the_address_that_a_socket_would_give(loop, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    transport, protocol = opened(loop, local_addr=(host, 0))
    with socket.socket(family, socket.SOCK_DGRAM) as far:
        far.bind((host, 0))
        far.settimeout(20)
        for data in [b"one", b"two"]:
            far.sendto(data, transport.get_extra_info("sockname"))
        run(loop, protocol.wait_received(2))
        assert protocol.received == [(b"one", far.getsockname()), (b"two", far.getsockname())]
        address = protocol.received[0][1]
        assert [type(part) for part in address] == [type(part) for part in far.getsockname()]
        # Back to the very object, and to one that is equal.
        transport.sendto(b"back", address)
        transport.sendto(b"again", (*far.getsockname(),))
        transport.sendto(b"short", far.getsockname()[:2])
        assert [far.recvfrom(100) for _ in range(3)] == [
            (data, transport.get_extra_info("sockname")) for data in [b"back", b"again", b"short"]
        ]
    close(loop, transport)


def test_many_peers_are_told_apart(loop):
    transport, protocol = bound(loop)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(150)]
        for round_ in range(3):
            for number, peer in enumerate(peers):
                peer.sendto(b"%d %d" % (round_, number), transport.get_extra_info("sockname"))
            run(loop, protocol.wait_received(150))
            for data, address in protocol.received:
                transport.sendto(data, address)
            got, protocol.received = protocol.received, []
            for number, peer in enumerate(peers):
                assert peer.recv(100) == b"%d %d" % (round_, number)
                assert got[number] == (b"%d %d" % (round_, number), ("127.0.0.1", peer.getsockname()[1]))
    close(loop, transport)


def test_a_scope_and_a_flow_are_part_of_the_peer(loop):
    """uvloop#108, zuvloop#19"""

    def scenario(loop, trace):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
            far.bind(("::1", 0))
            far.settimeout(20)
            port = far.getsockname()[1]
            transport, _ = opened(loop, remote_addr=("::1", port))
            for address in [
                ("::1", port),
                ("::1", port, 0),
                ("::1", port, 0, 0),
                ("::1", port, 0, 1),
                ("::1", port, 7),
            ]:
                text, name = outcome(lambda address=address: transport.sendto(b"x", address))
                trace.append(f"{text} {name.replace(str(port), 'port')}")
            trace.append(str(far.recv(10)))
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_an_unconnected_endpoint_sends_with_scope_and_flow(loop, unhandled):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
        far.bind(("::1", 0))
        far.settimeout(20)
        transport, protocol = opened(loop, local_addr=("::1", 0))
        transport.sendto(b"x", (*far.getsockname()[:2], 5, 1))
        assert far.recv(10) == b"x"
        transport.sendto(b"x", (*far.getsockname()[:2], 1 << 20))
        # A flow has 20 bits.
        error = unhandled.pop()
        assert error["message"] == "Fatal write error on datagram transport"
        assert isinstance(error["exception"], OverflowError)
        turns(loop, 3)
        assert transport.is_closing()
        assert protocol.errors == []


@pytest.mark.parametrize("name", [b"\0hotloop-test-far", b"\0hotloop\0test\0far\0", "\0hotloop-text"])
def test_abstract_addresses_keep_their_length_and_zeros(loop, name):
    """uvloop#196, zuvloop#86"""
    encoded = name.encode() if isinstance(name, str) else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(name)
        far.settimeout(20)
        transport, protocol = opened(loop, local_addr=b"\0hotloop-test-near".decode(), family=socket.AF_UNIX)
        transport.sendto(b"x", name)
        data, address = far.recvfrom(10)
        assert (data, address) == (b"x", b"\0hotloop-test-near")
        far.sendto(b"y", address)
        assert run(loop, protocol.wait_received(1)) == [(b"y", encoded)]
        transport.sendto(b"z", protocol.received[0][1])
        assert far.recv(10) == b"z"
        close(loop, transport)


def test_unix_datagrams_by_path(loop, tmp_path):
    """uvloop#196"""
    near, far_path = str(tmp_path / "near"), str(tmp_path / "f\u00e4r")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(far_path)
        far.settimeout(20)
        transport, protocol = opened(loop, local_addr=near, family=socket.AF_UNIX)
        far.sendto(b"x", near)
        assert run(loop, protocol.wait_received(1)) == [(b"x", far_path)]
        transport.sendto(b"y", far_path)
        assert far.recvfrom(10) == (b"y", near)
        close(loop, transport)


def test_a_sender_without_a_name_is_none(loop, tmp_path):
    """uvloop git 2020-04"""
    near = str(tmp_path / "near")
    transport, protocol = opened(loop, local_addr=near, family=socket.AF_UNIX)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.sendto(b"x", near)
    assert run(loop, protocol.wait_received(1)) == [(b"x", None)]
    close(loop, transport)


def test_a_pair_of_unix_sockets_talks_without_names(loop, loop_name, request, unix_datagrams):
    """uvloop#304"""
    if loop_name == "asyncio":
        request.applymarker(
            pytest.mark.xfail(reason="stock asyncio takes a peer without a name for none and sends nowhere")
        )
    near, far = unix_datagrams
    transport, protocol = opened(loop, sock=near)
    far.send(b"x")
    assert run(loop, protocol.wait_received(1)) == [(b"x", None)]
    try:
        transport.sendto(b"y")
        assert far.recv(10) == b"y"
    finally:
        close(loop, transport)


def test_long_unix_datagrams_are_whole(loop, unix_datagrams):
    near, far = unix_datagrams
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    transport, protocol = opened(loop, sock=near)
    sizes = [1, 65536, 65537, 150_000, 2]
    for size in sizes:
        far.send(bytes(size))
    run(loop, protocol.wait_received(len(sizes)))
    assert [len(data) for data, _ in protocol.received] == sizes
    close(loop, transport)


# Receiving


@pytest.mark.parametrize("size", [0, 1, 1200, 65507])
def test_a_datagram_of_any_size_is_whole(loop, far, size):
    """uvloop git 2020-04"""
    transport, protocol = bound(loop)
    far.sendto(b"x" * size, transport.get_extra_info("sockname"))
    assert run(loop, protocol.wait_received(1)) == [(b"x" * size, far.getsockname())]
    close(loop, transport)


def test_datagrams_keep_their_order(loop, far):
    transport, protocol = bound(loop)
    sent = [b"%d" % number for number in range(100)]
    for data in sent:
        far.sendto(data, transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(len(sent)))
    assert [data for data, _ in protocol.received] == sent
    close(loop, transport)


class Reacting(Endpoint):
    """An endpoint whose `datagram_received` calls `react(self, data)` too."""

    react = None

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        type(self).react(self, data)


def after_datagrams(loop, trace, react, count=40, until=None):
    """Feed `count` datagrams to an endpoint that reacts to each, and run until the last was told, or `until` holds."""

    class Protocol(Reacting):
        pass

    Protocol.react = staticmethod(lambda protocol, data: react(loop, protocol, data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        transport, protocol = bound(loop, lambda: Protocol(trace))
        for number in range(count):
            far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        condition = until or (lambda protocol: len(protocol.received) == count)
        run(loop, protocol.wait_until(lambda: condition(protocol)))
        turns(loop, 3)
        close(loop, transport)
    return protocol


def test_each_datagram_has_a_turn_of_its_own(loop):
    """What the protocol schedules for one runs before the next one is told."""

    def react(loop, protocol, data):
        loop.call_soon(protocol.note, f"soon after {data}")

    same_trace_as_stock(loop, lambda loop, trace: after_datagrams(loop, trace, react))


def test_a_timer_that_is_due_runs_before_the_next_datagram(loop):
    def react(loop, protocol, data):
        loop.call_later(0, protocol.note, f"timer after {data}")

    same_trace_as_stock(loop, lambda loop, trace: after_datagrams(loop, trace, react))


def test_a_call_from_a_thread_runs_before_the_next_datagram(loop):
    def react(loop, protocol, data):
        loop.call_soon_threadsafe(protocol.note, f"call after {data}")

    same_trace_as_stock(loop, lambda loop, trace: after_datagrams(loop, trace, react))


def test_a_loop_that_is_stopped_tells_no_further_datagram(loop, far):
    transport, protocol = bound(loop, type("Stopping", (Reacting,), {"react": lambda protocol, data: loop.stop()}))
    for number in range(5):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    for count in range(1, 6):
        loop.run_forever()
        assert len(protocol.received) == count
    close(loop, transport)


def test_no_datagram_is_told_after_a_close(loop):
    """zuvloop#77"""

    def react(loop, protocol, data):
        if data == b"3":
            protocol.transport.close()

    until = lambda protocol: protocol.lost.done()  # noqa: E731
    trace = same_trace_as_stock(loop, lambda loop, trace: after_datagrams(loop, trace, react, until=until))
    assert trace[-2:] == ["datagram_received b'3' 1", "connection_lost NoneType"]


def test_no_datagram_is_told_while_paused(loop, far):
    """zuvloop#26"""
    transport, protocol = bound(
        loop, type("Pausing", (Reacting,), {"react": lambda protocol, data: protocol.transport.pause_reading()})
    )
    for number in range(20):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    for count in range(1, 21):
        run(loop, protocol.wait_received(count))
        assert not transport.is_reading()
        turns(loop, 3)
        assert len(protocol.received) == count
        transport.resume_reading()
        assert transport.is_reading()
    assert [data for data, _ in protocol.received] == [b"%d" % number for number in range(20)]
    close(loop, transport)


def test_pausing_and_resuming_twice_is_as_once(loop, far):
    transport, protocol = bound(loop)
    transport.resume_reading()
    transport.pause_reading()
    transport.pause_reading()
    far.sendto(b"x", transport.get_extra_info("sockname"))
    turns(loop, 3)
    assert protocol.received == []
    transport.resume_reading()
    transport.resume_reading()
    run(loop, protocol.wait_received(1))
    transport.close()
    transport.pause_reading()
    transport.resume_reading()
    assert not transport.is_reading()
    close(loop, transport)


def test_a_datagram_received_before_a_resume_waits_for_its_turn(loop, far):
    def scenario(loop, trace):
        class Pausing(Endpoint):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport.pause_reading()

        transport, protocol = bound(loop, lambda: Pausing(trace))
        for number in range(5):
            far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        for number in range(1, 6):
            run(loop, protocol.wait_received(number))
            transport.resume_reading()
            trace.append("resumed")
            for turn in range(3):
                turns(loop)
                trace.append(f"turn {turn}")
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_an_exception_of_the_protocol_is_reported_and_the_next_datagram_told(loop):
    def react(loop, protocol, data):
        raise ZeroDivisionError(data)

    trace = same_trace_as_stock(loop, lambda loop, trace: after_datagrams(loop, trace, react, count=5))
    assert sum("handler: Exception in callback _SelectorDatagramTransport._read_ready()" in line for line in trace) == 5


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_loop_and_loses_no_datagram(loop, far, kind):
    def react(protocol, data):
        if data == b"2":
            raise kind

    transport, protocol = bound(loop, type("Interrupting", (Reacting,), {"react": react}))
    for number in range(6):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    with pytest.raises(kind):
        loop.run_forever()
    assert [data for data, _ in protocol.received] == [b"0", b"1", b"2"]
    run(loop, protocol.wait_received(6))
    assert [data for data, _ in protocol.received] == [b"%d" % number for number in range(6)]
    close(loop, transport)


def test_a_protocol_is_told_in_the_context_of_its_creation(loop, far):
    """uvloop#348"""
    variable = contextvars.ContextVar("variable", default="unset")

    def react(protocol, data):
        protocol.note(variable.get())
        variable.set(f"set by {data}")

    async def open_it():
        variable.set("creator's")
        return await loop.create_datagram_endpoint(type("Noting", (Reacting,), {"react": react}), local_addr=LOCAL)

    transport, protocol = run(loop, open_it())
    for number in range(3):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(3))
    assert [note for note in protocol.trace if "datagram" not in note and "made" not in note] == [
        "creator's",
        "set by b'0'",
        "set by b'1'",
    ]
    assert variable.get() == "unset"
    close(loop, transport)


def test_a_protocol_may_be_replaced_between_two_datagrams(loop, far):
    later = Endpoint()
    transport, protocol = bound(
        loop, type("Leaving", (Reacting,), {"react": lambda protocol, data: protocol.transport.set_protocol(later)})
    )
    for number in range(3):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    run(loop, later.wait_received(2))
    assert [data for data, _ in protocol.received] == [b"0"]
    assert transport.get_protocol() is later
    transport.set_protocol(protocol)
    close(loop, transport)


def test_another_descriptor_is_not_starved(loop, far):
    """A flood on one endpoint leaves the other its turn."""
    transport, protocol = bound(loop)
    other, other_protocol = bound(loop)
    for _ in range(60):
        far.sendto(b"flood", transport.get_extra_info("sockname"))
    far.sendto(b"other", other.get_extra_info("sockname"))
    run(loop, other_protocol.wait_received(1))
    assert len(protocol.received) < 60
    run(loop, protocol.wait_received(60))
    close(loop, transport, other)


# Sending


def test_a_datagram_goes_at_once(loop, far):
    transport, _ = bound(loop)
    far.setblocking(False)

    async def send():
        transport.sendto(b"x", far.getsockname())
        return far.recvfrom(10)

    assert run(loop, send()) == (b"x", transport.get_extra_info("sockname"))
    close(loop, transport)


def test_an_empty_datagram_is_sent_as_on_stock_asyncio(loop, far):
    """Since Python 3.13; before, it is not sent."""

    def scenario(loop, trace):
        transport, _ = bound(loop)
        for data in [b"", bytearray(), memoryview(b"")]:
            transport.sendto(data, far.getsockname())
        transport.sendto(b"last", far.getsockname())
        while not trace or trace[-1] != "b'last'":
            trace.append(str(far.recv(10)))
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("data", [None, "text", 1, [b"x"], object()], ids=["None", "str", "int", "list", "object"])
@pytest.mark.parametrize("rest", [(), (None,), (("127.0.0.1", 9),), (("127.0.0.1", 9), 1)], ids=len)
def test_data_that_is_none_is_refused_as_on_stock_asyncio(loop, data, rest):
    def call(loop):
        transport, _ = bound(loop)
        try:
            return transport.sendto(data, *rest)
        finally:
            close(loop, transport)

    same_as_stock(loop, call)


@pytest.mark.parametrize(
    "arguments",
    [((), {}), ((b"x", None, 1), {}), ((b"x",), {"data": b"y"}), ((b"x",), {"address": None}), ((), {"addr": None})],
    ids=repr,
)
def test_wrong_calls_are_refused_as_on_stock_asyncio(loop, arguments):
    def call(loop):
        transport, _ = bound(loop)
        try:
            return transport.sendto(*arguments[0], **arguments[1])
        finally:
            close(loop, transport)

    assert same_as_stock(loop, call)[0] == "TypeError"


def test_arguments_may_be_named(loop, far):
    transport, _ = bound(loop)
    transport.sendto(data=b"x", addr=far.getsockname())
    transport.sendto(b"y", addr=far.getsockname())
    assert [far.recv(10), far.recv(10)] == [b"x", b"y"]
    close(loop, transport)


@pytest.mark.parametrize(
    "address",
    [
        None,
        (),
        ("127.0.0.1",),
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        ("127.0.0.1", "9"),
        ("127.0.0.1", 9.0),
        ("127.0.0.1", 9, 0),
        ["127.0.0.1", 9],
        "127.0.0.1",
        b"x",
        (1, 2),
        (None, 9),
        ("::1", 9),
        ("256.0.0.1", 9),
        ("host name with blanks", 9),
        ("a\0b", 9),
        ("255.255.255.255", 9),
    ],
    ids=repr,
)
def test_an_address_that_is_none_has_the_outcome_of_stock_asyncio(loop, address):
    """zuvloop#18: a port that is none must not be cut to one that is."""

    def scenario(loop, trace):
        transport, protocol = bound(loop, lambda: Endpoint(trace))
        trace.append(str(outcome(lambda: transport.sendto(b"x", address))))
        turns(loop, 3)
        trace.append(f"closing {transport.is_closing()}")
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_a_host_name_is_resolved_as_on_stock_asyncio(loop, far):
    """uvloop#91"""

    def scenario(loop, trace):
        transport, _ = bound(loop, lambda: Endpoint(trace))
        transport.sendto(b"x", ("localhost", far.getsockname()[1]))
        trace.append(str(far.recv(10)))
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_a_broadcast_is_sent_where_it_is_allowed(loop):
    """uvloop#592"""

    def scenario(loop, trace):
        for allowed in [None, True]:
            transport, _ = opened(loop, lambda: Endpoint(trace), local_addr=("0.0.0.0", 0), allow_broadcast=allowed)
            port = transport.get_extra_info("sockname")[1]
            trace.append(
                str(outcome(lambda transport=transport, port=port: transport.sendto(b"x", ("<broadcast>", port))))
            )
            trace.append(f"closing {transport.is_closing()}")
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_an_error_of_a_send_is_told_and_the_transport_goes_on(loop, far):
    """uvloop#601, uvloop#338"""

    def scenario(loop, trace):
        transport, protocol = bound(loop, lambda: Endpoint(trace))
        transport.sendto(bytes(70000), far.getsockname())
        trace.append("returned")
        transport.sendto(b"x", ("255.255.255.255", 9))
        transport.sendto(b"x", ("127.0.0.1", 0))
        transport.sendto(b"after", far.getsockname())
        trace.append(str(far.recv(10)))
        assert [error.errno for error in protocol.errors] == [errno.EMSGSIZE, errno.EACCES, errno.EINVAL]
        turns(loop, 2)
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_an_exception_of_error_received_is_the_caller_s(loop):
    class Failing(Endpoint):
        def error_received(self, exc):
            raise ZeroDivisionError(str(exc))

    def scenario(loop, trace):
        transport, _ = bound(loop, lambda: Failing(trace))
        trace.append(str(outcome(lambda: transport.sendto(bytes(70000), ("127.0.0.1", 9)))))
        turns(loop, 2)
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_a_refused_datagram_is_told_and_the_transport_goes_on(loop):
    """uvloop#109: an ICMP error of a connected endpoint"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(LOCAL)
        address = gone.getsockname()
    transport, protocol = opened(loop, remote_addr=address)
    transport.sendto(b"x")
    run(loop, protocol.wait_until(lambda: protocol.errors))
    assert [type(error) for error in protocol.errors] == [ConnectionRefusedError]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind(address)
        back.settimeout(20)
        transport.sendto(b"y")
        assert back.recv(10) == b"y"
        back.sendto(b"z", transport.get_extra_info("sockname"))
        run(loop, protocol.wait_received(1))
    assert protocol.received == [(b"z", address)]
    close(loop, transport)


@pytest.mark.parametrize("how", ["remote_addr", "local and remote", "sock"])
def test_a_connected_endpoint_sends_to_its_peer_only(loop, far, how):
    """uvloop#319, zuvloop#19, zuvloop#66, uvloop#276"""

    def scenario(loop, trace):
        peer = far.getsockname()
        if how == "sock":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(peer)
            where = {"sock": sock}
        else:
            where = {"remote_addr": peer} | ({"local_addr": LOCAL} if how != "remote_addr" else {})
        transport, _ = opened(loop, lambda: Endpoint(trace), **where)
        assert transport.get_extra_info("peername") == peer
        for address in [None, peer, (*peer,), ("127.0.0.1", 9), ("localhost", peer[1]), [*peer], "peer", 0]:
            trace.append(str(outcome(lambda address=address: transport.sendto(b"x", address))))
        transport.sendto(b"last")
        while not trace or trace[-1] != "b'last'":
            trace.append(str(far.recv(10)))
        close(loop, transport)

    trace = same_trace_as_stock(loop, scenario)
    assert trace.count("b'x'") == (8 if how == "sock" else 3)


def test_an_endpoint_that_may_broadcast_sends_to_its_address_unconnected(loop, far):
    """Then asyncio does not connect the socket, but knows one address all the same."""

    def scenario(loop, trace):
        peer = far.getsockname()
        transport, _ = opened(loop, lambda: Endpoint(trace), remote_addr=peer, allow_broadcast=True)
        assert transport.get_extra_info("peername") is None
        for address in [None, peer, ("127.0.0.1", 9)]:
            trace.append(str(outcome(lambda address=address: transport.sendto(b"x", address))))
        trace.append(f"{far.recv(10)} {far.recv(10)}")
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_a_connected_unix_endpoint_sends_to_its_peer_only(loop, tmp_path):
    """zuvloop#66"""

    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
            far.bind(path)
            far.settimeout(20)
            transport, _ = opened(loop, lambda: Endpoint(trace), remote_addr=path, family=socket.AF_UNIX)
            for address in [None, path, path.encode(), path + "x", ("", 1)]:
                trace.append(str(outcome(lambda address=address: transport.sendto(b"x", address))).replace(path, "far"))
            transport.sendto(b"last")
            while trace[-1] != "b'last'":
                trace.append(str(far.recv(10)))
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_a_remote_address_needs_no_family(loop):
    """uvloop#108"""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
        far.bind(("::1", 0))
        far.settimeout(20)
        transport, _ = opened(loop, remote_addr=far.getsockname()[:2])
        transport.sendto(b"x")
        assert far.recvfrom(10) == (b"x", transport.get_extra_info("sockname"))
        close(loop, transport)


# The queue


def queueing(loop, path, trace=None):
    """An endpoint connected to a peer that takes nothing more."""
    return opened(loop, lambda: Endpoint(trace), remote_addr=path, family=socket.AF_UNIX)


def test_what_finds_no_room_is_queued_and_sent_in_order(loop, clogged):
    path, drain = clogged
    transport, _ = queueing(loop, path)
    sent = [b"%d" % number * 10 for number in range(50)]
    for data in sent:
        transport.sendto(data)
    assert transport.get_write_buffer_size() > 0
    got = []

    async def flushed():
        while transport.get_write_buffer_size():
            got.extend(drain())
            await asyncio.sleep(0)

    run(loop, flushed())
    assert got + drain() == sent
    close(loop, transport)


def test_the_size_of_the_queue_is_that_of_stock_asyncio(loop, tmp_path):
    """Since Python 3.13 each datagram counts a header too."""

    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        with clogged_at(path) as drain:
            transport, _ = queueing(loop, path, trace)
            transport.set_write_buffer_limits(high=100, low=20)
            for size in [1, 0, 10, 89, 1]:
                transport.sendto(b"x" * size)
                trace.append(f"size {transport.get_write_buffer_size()}")
            trace.append(f"limits {transport.get_write_buffer_limits()}")
            drain()
            turns(loop, 3)
            trace.append(f"size {transport.get_write_buffer_size()}")
            close(loop, transport)

    trace = same_trace_as_stock(loop, scenario)
    assert "pause_writing" in trace
    assert "resume_writing" in trace


def test_lower_limits_pause_at_once_as_on_stock_asyncio(loop, tmp_path):
    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        with clogged_at(path):
            transport, _ = queueing(loop, path, trace)
            transport.sendto(bytes(100))
            for limits in [{"high": 1000}, {"high": 10}, {"high": 1, "low": 2}, {"low": -1}]:
                trace.append(str(outcome(lambda limits=limits: transport.set_write_buffer_limits(**limits))))
            close(loop, transport)

    assert "pause_writing" in same_trace_as_stock(loop, scenario)


def test_a_mutable_buffer_is_copied(loop, clogged):
    """zuvloop#61"""
    path, drain = clogged
    transport, _ = queueing(loop, path)
    data = bytearray(b"before")
    transport.sendto(data)
    transport.sendto(memoryview(data)[1:])
    data[:] = b"after!"
    assert drain() == []
    turns(loop, 2)
    assert drain() == [b"before", b"efore"]
    close(loop, transport)


def test_a_view_that_is_not_contiguous_has_the_outcome_of_stock_asyncio(loop, far):
    def scenario(loop, trace):
        transport, _ = bound(loop, lambda: Endpoint(trace))
        trace.append(str(outcome(lambda: transport.sendto(memoryview(b"abcd")[::2], far.getsockname()))))
        turns(loop, 2)
        close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_a_close_sends_what_is_queued_first(loop, tmp_path):
    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        with clogged_at(path) as drain:
            transport, protocol = queueing(loop, path, trace)
            transport.sendto(b"queued")
            transport.close()
            turns(loop, 3)
            trace.append("three turns")
            drain()
            run(loop, protocol.lost)
            trace.append(str(drain()))

    trace = same_trace_as_stock(loop, scenario)
    assert trace[-3:] == ["three turns", "connection_lost NoneType", "[b'queued']"]


def test_an_abort_drops_what_is_queued(loop, clogged):
    """zuvloop#16"""
    path, drain = clogged
    transport, protocol = queueing(loop, path)
    transport.sendto(b"queued")
    transport.abort()
    drain()
    turns(loop, 3)
    assert drain() == []
    assert protocol.trace == ["connection_made", "connection_lost NoneType"]


def test_an_error_of_a_queued_datagram_is_told_and_the_rest_follows(loop, tmp_path):
    """cpython#156698: a paused protocol must be resumed"""

    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        other = path + "-other"
        with clogged_at(path) as drain, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
            alive.bind(other)
            alive.settimeout(20)
            transport, protocol = opened(
                loop, lambda: Endpoint(trace), local_addr=path + "-near", family=socket.AF_UNIX
            )
            transport.set_write_buffer_limits(high=0)
            transport.sendto(b"first", path)
            for number in range(3):
                transport.sendto(b"lost", path + "-nobody")
                transport.sendto(b"%d" % number, other)
            trace.append(f"size {transport.get_write_buffer_size()}")
            got = drain()
            for turn in range(6):
                turns(loop)
                trace.append(f"turn {turn} {transport.get_write_buffer_size()}")
            trace.append(f"{got} {drain()} {[alive.recv(10) for _ in range(3)]}")
            close(loop, transport)

    trace = same_trace_as_stock(loop, scenario)
    assert sum("FileNotFoundError" in line for line in trace) == 3
    assert "resume_writing" in trace


def test_a_queued_datagram_may_be_for_an_address_that_only_the_socket_knows(loop, tmp_path):
    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        other = path + "-\u00f6ther"
        with clogged_at(path) as drain, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
            alive.bind(other)
            alive.settimeout(20)
            transport, _ = opened(loop, lambda: Endpoint(trace), local_addr=path + "-near", family=socket.AF_UNIX)
            transport.sendto(b"first", path)
            transport.sendto(b"named", other)
            transport.sendto(b"plain", path)
            trace.append(f"size {transport.get_write_buffer_size()}")
            got = drain()
            turns(loop, 3)
            trace.append(f"{got} {drain()} {alive.recv(10)}")
            transport.sendto(b"first", path)
            transport.sendto(b"a\0", "\ud800")
            transport.close()
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_resume_writing_may_send_again(loop, tmp_path):
    """uvloop#498"""

    class Resending(Endpoint):
        def resume_writing(self):
            super().resume_writing()
            if len(self.trace) < 8:
                self.transport.sendto(b"again")

    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        with clogged_at(path) as drain:
            transport, _ = opened(loop, lambda: Resending(trace), remote_addr=path, family=socket.AF_UNIX)
            transport.set_write_buffer_limits(high=0)
            transport.sendto(b"first")
            drain()
            turns(loop, 4)
            trace.append(str(drain()))
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_an_exception_of_pause_writing_is_reported(loop, tmp_path):
    class Failing(Endpoint):
        def pause_writing(self):
            raise ZeroDivisionError("pause")

        def resume_writing(self):
            raise ZeroDivisionError("resume")

    def scenario(loop, trace):
        path = str(tmp_path / f"far{len(list(tmp_path.iterdir()))}")
        with clogged_at(path) as drain:
            transport, _ = opened(loop, lambda: Failing(trace), remote_addr=path, family=socket.AF_UNIX)
            transport.set_write_buffer_limits(high=0)
            transport.sendto(b"first")
            drain()
            turns(loop, 3)
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


# The end


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("connected", [False, True])
def test_sending_after_the_end_is_as_on_stock_asyncio(loop, far, how, connected, caplog):
    def scenario(loop, trace):
        peer = far.getsockname()
        where = {"remote_addr": peer} if connected else {"local_addr": LOCAL}
        transport, _ = opened(loop, lambda: Endpoint(trace), **where)
        address = None if connected else peer
        getattr(transport, how)()
        getattr(transport, how)()
        for number in range(7):
            trace.append(str(outcome(lambda number=number: transport.sendto(b"%d" % number, address))))
        caplog.clear()
        turns(loop, 2)
        trace.append(str(outcome(lambda: transport.sendto(b"x", address))))
        trace.append(str([record.message for record in caplog.records]))
        trace.append(f"{transport.is_closing()} {transport.get_protocol()} {transport.get_write_buffer_size()}")
        transport.close()
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                trace.append(str(far.recv(10)))

    same_trace_as_stock(loop, scenario)


def test_a_transport_that_goes_unclosed_warns_and_closes_its_socket(loop):
    async def drop():
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=LOCAL)
        # Nothing is awaited for it any more, so nobody keeps it.
        transport.pause_reading()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(loop, drop())
        gc.collect()
    texts = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert any("unclosed transport <_SelectorDatagramTransport" in text for text in texts)


def test_a_lost_transport_holds_nothing(loop):
    import weakref

    transport, protocol = bound(loop)
    kept = weakref.ref(protocol)
    close(loop, transport)
    del protocol
    gc.collect()
    assert kept() is None
    assert transport.get_protocol() is None


def test_a_loop_with_open_endpoints_is_collected(loop_name, no_leaks):
    import weakref

    from harness import LOOPS

    loop = LOOPS[loop_name]()
    transport, protocol = bound(loop)
    kept = [weakref.ref(item) for item in (loop, transport, protocol)]
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del loop, transport, protocol
        gc.collect()
    assert [item() for item in kept] == [None] * 3


@pytest.mark.parametrize("how", [{"local_addr": LOCAL}, {"remote_addr": ("127.0.0.1", 9)}], ids=list)
def test_a_factory_that_raises_leaves_no_socket(loop, loop_name, how):
    """cpython#153133"""

    def factory():
        raise ZeroDivisionError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ZeroDivisionError):
            opened(loop, factory, **how)
        gc.collect()
    unclosed = [str(warning.message) for warning in caught if "unclosed <socket" in str(warning.message)]
    if loop_name == "asyncio":
        assert unclosed, "a defect of stock asyncio: the collector closes it"
    else:
        assert unclosed == []


def test_a_factory_that_raises_leaves_a_given_socket_alone(loop, far):
    def factory():
        raise ZeroDivisionError

    far.setblocking(False)
    with pytest.raises(ZeroDivisionError):
        opened(loop, factory, sock=far)
    assert far.fileno() >= 0


def test_a_creation_that_is_cancelled_closes_the_socket_once(loop):
    """uvloop#740"""

    async def cancelled(steps):
        task = loop.create_task(loop.create_datagram_endpoint(Endpoint, remote_addr=("127.0.0.1", 9)))
        for _ in range(steps):
            await asyncio.sleep(0)
        canary, other = socket.socketpair()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.close()
        for _ in range(3):
            await asyncio.sleep(0)
        canary.send(b"alive")
        assert other.recv(10) == b"alive"
        canary.close()
        other.close()

    for steps in range(8):
        run(loop, cancelled(steps))


def test_a_descriptor_of_a_transport_cannot_be_watched(loop):
    """python/asyncio#420"""
    transport, _ = bound(loop)
    sock = transport.get_extra_info("socket")
    for watch in [loop.add_reader, loop.add_writer]:
        with pytest.raises(RuntimeError, match="is used by transport"):
            watch(sock, print)
    close(loop, transport)


def test_a_closed_number_that_is_used_anew_is_the_new_endpoint_s(loop, far):
    """aiohttp#1412"""
    for _ in range(50):
        transport, protocol = bound(loop)
        far.sendto(b"x", transport.get_extra_info("sockname"))
        run(loop, protocol.wait_received(1))
        close(loop, transport)
        assert len(protocol.received) == 1


def test_debug_mode_tells_each_datagram(debug_loop, far):
    transport, protocol = bound(debug_loop)
    for number in range(20):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    run(debug_loop, protocol.wait_received(20))
    close(debug_loop, transport)


def test_a_stock_endpoint_talks_to_one_under_test(loop):
    """Both at once, in one process."""
    with stock_loop() as stock:
        there, there_protocol = bound(stock)
        here, here_protocol = bound(loop)
        here.sendto(b"to stock", there.get_extra_info("sockname"))
        run(stock, there_protocol.wait_received(1))
        there.sendto(b"from stock", there_protocol.received[0][1])
        run(loop, here_protocol.wait_received(1))
        assert here_protocol.received == [(b"from stock", there.get_extra_info("sockname"))]
        close(stock, there)
        close(loop, here)


# What asyncio does not have


@pytest.fixture
def more(loop_name):
    """Only on a loop that has more than asyncio does."""
    if loop_name == "asyncio":
        pytest.skip("an addition to asyncio")


class Batched(Endpoint):
    """A protocol that wants datagrams several at a time."""

    def __init__(self, trace=None):
        super().__init__(trace)
        self.batches = []

    def datagrams_received(self, datagrams):
        self.batches.append(datagrams)
        self.received.extend(datagrams)
        self.changed.set()


def test_datagrams_come_several_at_a_time_to_who_wants_them_so(loop, far, more):
    transport, protocol = bound(loop, Batched)
    sent = [(b"%d" % number, far.getsockname()) for number in range(200)]
    for data, _ in sent:
        far.sendto(data, transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(200))
    assert protocol.received == sent
    assert type(protocol.batches[0]) is list
    assert max(map(len, protocol.batches)) > 1
    transport.pause_reading()
    far.sendto(b"paused", transport.get_extra_info("sockname"))
    turns(loop, 3)
    assert protocol.received == sent
    transport.resume_reading()
    run(loop, protocol.wait_received(201))
    close(loop, transport)


def test_a_protocol_that_answers_for_any_name_has_not_asked_for_batches(loop, far, more):
    class Anything(Endpoint):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args: self.note(f"{name} {args}")

    transport, protocol = bound(loop, Anything)
    far.sendto(b"x", transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(1))
    assert protocol.trace == ["connection_made", "datagram_received b'x' 1"]
    close(loop, transport)


def test_an_exception_of_datagrams_received_is_reported(loop, far, unhandled, more):
    class Failing(Batched):
        def datagrams_received(self, datagrams):
            super().datagrams_received(datagrams)
            raise ZeroDivisionError

    transport, protocol = bound(loop, Failing)
    far.sendto(b"x", transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(1))
    assert isinstance(unhandled.pop()["exception"], ZeroDivisionError)
    far.sendto(b"y", transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(2))
    unhandled.clear()
    close(loop, transport)


def test_many_datagrams_are_sent_in_one_call(loop, far, more):
    transport, protocol = bound(loop)
    sent = [b"%d" % number for number in range(100)]
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    assert transport.sendto_many((data, far.getsockname()) for data in sent) is None
    assert [far.recv(100) for _ in sent] == sent
    mixed = [bytearray(b"a"), memoryview(b"b"), b"c"]
    transport.sendto_many([(data, ("localhost", far.getsockname()[1])) for data in mixed])
    assert [far.recv(100) for _ in mixed] == [b"a", b"b", b"c"]
    assert protocol.errors == []
    close(loop, transport)


def test_an_error_among_many_is_told_and_the_rest_is_sent(loop, far, more):
    transport, protocol = bound(loop)
    peer = far.getsockname()
    transport.sendto_many([(b"1", peer), (bytes(70000), peer), (b"2", peer), (b"x", ("127.0.0.1", 0)), (b"3", peer)])
    assert [far.recv(10) for _ in range(3)] == [b"1", b"2", b"3"]
    assert [error.errno for error in protocol.errors] == [errno.EMSGSIZE, errno.EINVAL]
    close(loop, transport)


def test_many_to_one_peer(loop, far, more):
    transport, _ = opened(loop, remote_addr=far.getsockname())
    with pytest.raises(ValueError, match="Invalid address"):
        transport.sendto_many([(b"1", None), (b"2", far.getsockname()), (b"3", ("127.0.0.1", 9)), (b"4", None)])
    transport.sendto_many([(b"5", None)])
    assert [far.recv(10) for _ in range(3)] == [b"1", b"2", b"5"]
    close(loop, transport)


@pytest.mark.parametrize("arguments", [(), (None,), ([b"x"],), ([(b"x",)],), ([("x", None)],), ([], [])], ids=repr)
def test_wrong_calls_for_many_are_refused(loop, more, arguments):
    transport, _ = bound(loop)
    with pytest.raises((TypeError, ValueError)):
        transport.sendto_many(*arguments)
    close(loop, transport)


def test_many_that_find_no_room_are_queued_and_sent_in_order(loop, clogged, more):
    path, drain = clogged
    transport, protocol = queueing(loop, path)
    transport.set_write_buffer_limits(high=100)
    sent = [b"%d" % number * 10 for number in range(50)]
    transport.sendto_many((data, None) for data in sent)
    assert "pause_writing" in protocol.trace
    got = []

    async def flushed():
        while transport.get_write_buffer_size():
            got.extend(drain())
            await asyncio.sleep(0)

    run(loop, flushed())
    assert got + drain() == sent
    assert "resume_writing" in protocol.trace
    close(loop, transport)


def test_many_after_the_end_are_as_one_by_one(loop, far, more):
    transport, _ = opened(loop, remote_addr=far.getsockname())
    close(loop, transport)
    transport.sendto_many([(b"x", None)] * 3)
    transport, _ = bound(loop)
    close(loop, transport)
    with pytest.raises(AttributeError):
        transport.sendto_many([(b"x", far.getsockname())] * 3)
