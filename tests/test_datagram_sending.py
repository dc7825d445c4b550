"""Datagram transports: what goes out, at once or from the queue."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys

import pytest
from datagram_harness import LOCAL, Endpoint, bound, clogged_at, opened, queueing

from harness import close, outcome, run, same_as_stock, same_trace_as_stock, turns

# 3.13.0 counts a header for a datagram that is queued, and forgets it for one that is sent.
counts_right = pytest.mark.skipif(
    sys.version_info >= (3, 13) and not hasattr(asyncio.selector_events._SelectorDatagramTransport, "_header_size"),
    reason="this Python's own queue of datagrams grows for ever",
)

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


@counts_right
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


@counts_right
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


@counts_right
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


@counts_right
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


@counts_right
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
