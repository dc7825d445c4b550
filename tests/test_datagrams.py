"""Datagram transports: what they are, what comes in, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import warnings
import weakref

import pytest
from datagram_harness import LOCAL, Endpoint, bound, opened

from harness import LOOPS, close, outcome, run, same_trace_as_stock, stock_loop, turns

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
    transport, protocol = bound(loop)
    kept = weakref.ref(protocol)
    close(loop, transport)
    del protocol
    gc.collect()
    assert kept() is None
    assert transport.get_protocol() is None


def test_a_loop_with_open_endpoints_is_collected(loop_name, no_leaks):
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
