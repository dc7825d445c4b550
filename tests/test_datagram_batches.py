"""What asyncio does not have: datagrams told and sent several at a time."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from datagram_harness import Endpoint, bound, opened, queueing

from harness import close, run, turns


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
