"""Differences of datagram transports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import Any

from datagram_harness import LOCAL, Endpoint, bound, opened

from differences.entry import Entry, Section, probe
from harness import Loop, descriptors, run, turns

#: As the kernel's `linux/udp.h` has them.
UDP_SEGMENT, UDP_GRO = 103, 104


def far_socket() -> socket.socket:
    """A socket that datagrams come from."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(LOCAL)
    return sock


@probe("datagrams that the loop has received ahead, when it tells the 50th of 100")
def received_ahead(loop: Loop) -> str:
    transport, protocol = bound(loop)
    other = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    far = far_socket()
    for number in range(100):
        far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    while len(protocol.received) < 50:
        turns(loop)
    left = 0
    with contextlib.suppress(BlockingIOError):
        while other.recv(100, socket.MSG_DONTWAIT):
            left += 1
    return "some" if 0 < 50 - left <= 15 else str(50 - left)


@probe("`sendto` without an address, on one of a Unix `socketpair()`")
def unix_pair_without_names(loop: Loop) -> str:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    loop.set_exception_handler(lambda *_: None)
    transport, _ = opened(loop, sock=near)
    with contextlib.suppress(Exception):
        transport.sendto(b"data")
    with contextlib.suppress(BlockingIOError):
        return f"sends {far.recv(100).decode()}"
    return "ends the transport" if transport.is_closing() else "sends nothing"


@probe("sockets left open by a factory that raises, before the collector runs")
def factory_that_raises(loop: Loop) -> int:
    kept: list[BaseException] = []

    def fail() -> None:
        raise ZeroDivisionError

    before = set(descriptors())
    try:
        opened(loop, fail, local_addr=LOCAL)
    except ZeroDivisionError as error:
        # Its traceback has what is left, as the log of a program does.
        kept.append(error)
    return len(set(descriptors()) - before)


@probe("calls of `datagram_received` for three datagrams that the kernel has put together")
def put_together(loop: Loop) -> int:
    transport, protocol = bound(loop)
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    segments = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 3))]
    far_socket().sendmsg([b"onetwosix"], segments, 0, sock.getsockname())
    run(loop, protocol.wait_until(lambda: sum(len(data) for data, _ in protocol.received) == 9))
    return len(protocol.received)


@probe("a transport is an `asyncio.DatagramTransport`", until=11)
def kind(loop: Loop) -> bool:
    transport, _ = bound(loop)
    return isinstance(transport, asyncio.DatagramTransport)


class Batched(Endpoint):
    """Would be told of several at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.calls.append("`datagram_received`")

    def datagrams_received(self, datagrams: Any) -> None:
        self.received += datagrams
        self.calls.append("`datagrams_received`")
        self.changed.set()


@probe("what is called where a protocol has `datagrams_received`")
def told_at_once(loop: Loop) -> str:
    transport, protocol = bound(loop, Batched)
    far = far_socket()
    for data in (b"one", b"two", b"six"):
        far.sendto(data, transport.get_extra_info("sockname"))
    run(loop, protocol.wait_received(3))
    return ", ".join(sorted(set(protocol.calls)))


@probe("`transport.sendto_many`")
def sendto_many(loop: Loop) -> str:
    transport, _ = bound(loop)
    return "is there" if hasattr(transport, "sendto_many") else "is not there"


@probe("`loop.sock_recvmsg`, `loop.sock_sendmsg`")
def messages(loop: Loop) -> str:
    return "are there" if hasattr(loop, "sock_recvmsg") and hasattr(loop, "sock_sendmsg") else "are not there"


SECTIONS = [
    Section(
        "Datagrams",
        """
        A datagram transport receives several datagrams at once where several wait, and tells a `DatagramProtocol` of
        them one by one, in the order and with everything in between that asyncio would have: what a protocol schedules
        for one runs before the next one is told. That saves a call of the kernel for each. What can be observed:
        """,
        Entry(
            """
            Up to 15 datagrams may be out of the kernel's buffer and not told yet. If the transport is closed they are
            lost, as those in the buffer are; if another process reads from the same socket, they are not there for it.
            """,
            received_ahead,
            "test_datagrams.py::test_each_datagram_has_a_turn_of_its_own",
            "test_datagrams.py::test_no_datagram_is_told_after_a_close",
        ),
        Entry(
            """
            Two Unix datagram sockets of a `socketpair()` can send to each other without an address. asyncio takes a peer
            without a name for none, and ends the transport.
            """,
            unix_pair_without_names,
            "test_inherited.py::test_a_unix_datagram_pair",
        ),
        Entry(
            """
            A protocol factory that raises leaves no open socket behind, which in asyncio waits for the collector.
            """,
            factory_that_raises,
            "test_datagrams.py::test_a_factory_that_raises_leaves_no_socket",
        ),
        Entry(
            """
            On a socket that has UDP_GRO set, which is the program's own doing, each datagram is told by itself. asyncio
            tells all that the kernel has put together as one.
            """,
            put_together,
            "test_datagram_batches.py::test_what_the_kernel_has_put_together_is_told_one_by_one",
        ),
        Entry(
            """
            Where queued datagrams of one size go out as one message (UDP_SEGMENT) and the kernel refuses that with an
            error that can be the message's alone, they are sent one by one. Such an error that was pending from an
            earlier datagram, as `EMSGSIZE` on a connected socket may be, is then not told.
            """,
            "test_datagram_batches.py::test_what_cannot_leave_together_leaves_one_by_one",
        ),
        Entry(
            """
            On Python 3.11 a datagram transport is an `asyncio.DatagramTransport` too, as asyncio's own is since 3.12.
            Sockets of other families than IPv4, IPv6 and Unix, and objects that only look like sockets, get asyncio's
            own transport.
            """,
            kind,
            "test_datagrams.py::test_a_transport_is_what_asyncio_says_it_is",
        ),
        "**Additions.** They change nothing for who does not use them:",
        Entry(
            """
            A protocol whose class has a method `datagrams_received(datagrams)` is told of all datagrams of one receive
            in one call: a list of `(data, addr)`, of one item or more, oldest first. Its `datagram_received` is not
            called. Its socket has the kernel put datagrams of one sender together on their way in (UDP_GRO), where that
            is UDP: another process that reads from it must expect so.
            """,
            told_at_once,
            "test_datagram_batches.py::test_datagrams_come_several_at_a_time_to_who_wants_them_so",
        ),
        Entry(
            """
            `transport.sendto_many(datagrams)` sends an iterable of `(data, addr)` as `sendto(data, addr)` would one by
            one, with one call of the kernel for up to 64 of them. Neighbours of one size to one address go through the
            network's code together, too (UDP_SEGMENT). Errors of the socket go to `error_received`; what is refused with
            an exception ends the call, and what came before it is sent.
            """,
            sendto_many,
            "test_datagram_batches.py::test_many_datagrams_are_sent_in_one_call",
        ),
        Entry(
            """
            `loop.sock_recvmsg(sock, bufsize, ancbufsize=0, flags=0)` and
            `loop.sock_sendmsg(sock, buffers, ancdata=(), flags=0, address=None)` are the socket's methods of these
            names, for ancillary data such as descriptors; on a stream `sock_sendmsg` may send, and answer, less than
            all.
            """,
            messages,
            "test_sock.py::test_descriptors_travel_beside_the_bytes",
        ),
    ),
]
