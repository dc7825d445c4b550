"""What asyncio does not have: datagrams told and sent several at a time."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import struct

import pytest
from datagram_harness import Endpoint, bound, opened, queueing

from harness import close, run, turns

#: Options of sockets that the socket module does not name.
UDP_SEGMENT, UDP_GRO, SO_NO_CHECK, SO_TIMESTAMP = 103, 104, 11, 29


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


def put_together(sock):
    """Whether the kernel puts datagrams together on their way into `sock`."""
    return sock.getsockopt(socket.IPPROTO_UDP, UDP_GRO)


def test_datagrams_of_one_size_to_one_address_leave_together(loop, far, more):
    far.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    transport, protocol = bound(loop)
    transport.sendto_many((bytes([number]) * 1200, far.getsockname()) for number in range(50))
    transport.sendto_many([(b"first", far.getsockname()), (b"last", far.getsockname())])
    messages = [far.recvmsg(1 << 16, 100) for _ in range(2)]
    assert messages[0][0] == b"".join(bytes([number]) * 1200 for number in range(50))
    assert messages[1][0] == b"firstlast"
    told = [(kind, struct.unpack("i", size)) for _, said, *_ in messages for _, kind, size in said]
    assert told == [(UDP_GRO, (1200,)), (UDP_GRO, (5,))]
    assert protocol.errors == []
    close(loop, transport)


@pytest.mark.parametrize("factory", [Endpoint, Batched])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_many_of_any_sizes_arrive_as_they_were_sent(loop, more, factory, family):
    rng = random.Random(1)
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    sending, _ = opened(loop, local_addr=(host, 0))
    endpoints = [opened(loop, factory, local_addr=(host, 0)) for _ in range(2)]
    sender = sending.get_extra_info("sockname")
    for transport, _ in endpoints:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    for _ in range(40):
        expected = [[], []]
        datagrams = []
        for _ in range(rng.randint(1, 12)):
            size, to = rng.choice([1, 2, 100, 1200, 1452, 1472, 1473, 5000]), rng.randrange(2)
            for _ in range(rng.choice([1, 1, 2, 5, 20, 70]) if size < 5000 else 2):
                datagrams.append((rng.randbytes(size), to))
            if rng.random() < 0.5:
                datagrams.append((rng.randbytes(rng.randint(1, size)), to))
        for data, to in datagrams:
            expected[to].append((data, sender))
        addresses = [transport.get_extra_info("sockname") for transport, _ in endpoints]
        sending.sendto_many((data, addresses[to]) for data, to in datagrams)
        for (_, protocol), told in zip(endpoints, expected, strict=True):
            run(loop, protocol.wait_received(len(told)))
            assert protocol.received == told
            protocol.received.clear()
    close(loop, sending, *[transport for transport, _ in endpoints])


@pytest.mark.parametrize("factory", [Endpoint, Batched])
def test_what_the_kernel_has_put_together_is_told_one_by_one(loop, far, factory, more):
    transport, protocol = bound(loop, factory)
    sock = transport.get_extra_info("socket")
    assert bool(put_together(sock)) == (factory is Batched), "only who wants several at a time has asked for it"
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)  # the kernel says more than the size then
    size = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 3))]
    for data in (b"onetwosix", b"tenmore", b"one", b"a"):
        far.sendmsg([data], size if len(data) > 3 else [], 0, sock.getsockname())
    run(loop, protocol.wait_received(8))
    assert [data for data, _ in protocol.received] == [b"one", b"two", b"six", b"ten", b"mor", b"e", b"one", b"a"]
    assert {addr for _, addr in protocol.received} == {far.getsockname()}
    close(loop, transport)


def test_a_protocol_that_is_set_later_may_want_several(loop, far, more):
    transport, protocol = bound(loop)
    assert not put_together(transport.get_extra_info("socket"))
    later = Batched()
    transport.set_protocol(later)
    assert put_together(transport.get_extra_info("socket"))
    transport.set_protocol(protocol)
    far.sendto(b"x", transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(1))
    assert later.received == []
    close(loop, transport)


def test_what_cannot_leave_together_leaves_one_by_one(loop, far, more):
    """Without checksums, as over a network with smaller packets, the kernel refuses to take a message apart."""
    transport, protocol = bound(loop)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    sent = [b"%03d" % number for number in range(100)]
    transport.sendto_many((data, far.getsockname()) for data in sent)
    assert [far.recv(100) for _ in sent] == sent
    assert protocol.errors == []
    close(loop, transport)


def test_unix_datagrams_never_leave_together(loop, unix_datagrams, more):
    near, far = unix_datagrams
    transport, _ = opened(loop, sock=near)
    sent = [b"%d" % number for number in range(10)]
    transport.sendto_many((data, None) for data in sent)
    assert [far.recv(100) for _ in sent] == sent
    close(loop, transport)
