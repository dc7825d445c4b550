"""Flow control: limits, when a protocol is paused and resumed, and what it may do in those callbacks."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from harness import (
    Recorder,
    attach,
    close,
    receive_exactly,
    received_in_thread,
    run,
    same_as_stock,
    turns,
    unix_pair,
)

#: More bytes than the kernel takes of a Unix socket at once.
MUCH = bytes(4_000_000)


def test_the_default_limits(loop, connection):
    transport, _, _ = connection
    assert transport.get_write_buffer_limits() == (16384, 65536)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"high": 0},
        {"high": 100},
        {"low": 100},
        {"high": 100, "low": 50},
        {"high": 5, "low": 5},
        {"high": 1, "low": 0},
    ],
    ids=repr,
)
def test_limits_are_as_on_stock_asyncio(loop, limits):
    """zuvloop#79"""
    answers = []

    def ask(loop):
        near, far = unix_pair()
        transport, _ = attach(loop, near)
        transport.set_write_buffer_limits(**limits)
        answers.append(transport.get_write_buffer_limits())
        close(loop, transport)
        far.close()

    same_as_stock(loop, ask)
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "limits",
    [{"high": 1, "low": 2}, {"low": -1}, {"high": -1}, {"high": "1"}, {"low": "1"}, {"high": 1.5, "low": 1}],
    ids=repr,
)
def test_wrong_limits_are_refused_as_on_stock_asyncio(loop, limits):
    """zuvloop#79"""

    def ask(loop):
        near, far = unix_pair()
        transport, _ = attach(loop, near)
        try:
            transport.set_write_buffer_limits(**limits)
        finally:
            close(loop, transport)
            far.close()

    same_as_stock(loop, ask)


def test_limits_lowered_below_the_queue_pause_as_on_stock_asyncio(loop):
    traces = []

    def lower(loop):
        near, far = unix_pair()
        transport, protocol = attach(loop, near)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(MUCH)
        transport.set_write_buffer_limits(high=10)
        traces.append([*protocol.trace, "written"])
        transport.write(b"x")
        close(loop, transport)
        traces[-1].extend(protocol.trace)
        far.close()

    same_as_stock(loop, lower)
    assert traces[0] == traces[1]


def test_the_queue_is_measured(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    assert transport.get_write_buffer_size() == 0
    transport.write(MUCH)
    first = transport.get_write_buffer_size()
    assert 0 < first < len(MUCH)
    transport.write(b"12345")
    transport.writelines([b"678", b"9"])
    assert transport.get_write_buffer_size() == first + 9
    receive_exactly(far, len(MUCH) - first)
    reader = threading.Thread(target=receive_exactly, args=(far, first + 9))
    reader.start()
    run(loop, protocol.wait_until(lambda: "resume_writing" in protocol.trace))
    while transport.get_write_buffer_size():
        turns(loop)
    reader.join()
    close(loop, transport)


def test_pause_comes_inside_write_and_resume_from_the_loop(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    transport.write(MUCH)
    assert protocol.trace == ["connection_made", "pause_writing"]
    transport.write(b"more")
    assert protocol.trace == ["connection_made", "pause_writing"]
    reader = threading.Thread(target=receive_exactly, args=(far, len(MUCH) + 4))
    reader.start()
    run(loop, protocol.wait_until(lambda: "resume_writing" in protocol.trace))
    reader.join()
    assert protocol.trace == ["connection_made", "pause_writing", "resume_writing"]
    close(loop, transport)


def test_resume_writing_may_write_to_another_transport(loop, no_leaks):
    """uvloop#498"""
    near, far = unix_pair()
    near2, far2 = unix_pair()
    other, _ = attach(loop, near2)

    class Relaying(Recorder):
        def resume_writing(self):
            other.write(b"from the other's resume")
            super().resume_writing()

    transport, protocol = attach(loop, near, Relaying)
    transport.write(MUCH)
    with received_in_thread(far):
        run(loop, protocol.wait_until(lambda: "resume_writing" in protocol.trace))
        assert receive_exactly(far2, 23) == b"from the other's resume"
        transport.close()
        run(loop, protocol.lost)
    close(loop, other)
    far.close()
    far2.close()


@pytest.mark.parametrize("action", ["close", "abort", "write", "write much", "write_eof", "pause_reading", "raise"])
def test_resume_writing_may_do_anything_to_its_transport(loop, loop_name, unix, unhandled, action):
    """uvloop#498"""
    near, far = unix

    class Acting(Recorder):
        def resume_writing(self):
            first = "resume_writing" not in self.trace
            super().resume_writing()
            if action == "raise":
                raise ZeroDivisionError("text")
            if action == "write":
                self.transport.write(b"more")
            elif action == "write much":
                if first:
                    self.transport.write(MUCH)
            else:
                getattr(self.transport, action)()

    transport, protocol = attach(loop, near, Acting)
    transport.write(MUCH)
    with received_in_thread(far) as received:
        run(loop, protocol.wait_until(lambda: "resume_writing" in protocol.trace))
        if action == "write much":
            run(loop, protocol.wait_until(lambda: protocol.trace.count("resume_writing") == 2))
        if action == "abort":
            run(loop, protocol.lost)
        transport.close()
        run(loop, protocol.lost)
    length = len(received[0])
    if action == "write":
        assert length == len(MUCH) + 4
    elif action == "write much":
        assert length == 2 * len(MUCH)
    elif action == "abort":
        assert length <= len(MUCH)
    else:
        assert length == len(MUCH)
    if action == "raise":
        assert unhandled.pop()["message"] == "protocol.resume_writing() failed"
    if loop_name == "asyncio" and action in ("close", "abort"):
        # A defect of stock asyncio: it calls connection_lost twice, and reports the second.
        unhandled.clear()
    assert unhandled == []


@pytest.mark.parametrize("action", ["close", "abort", "write", "write_eof", "raise"])
def test_pause_writing_may_do_anything_to_its_transport(loop, unix, unhandled, action):
    """zuvloop#33: no resume_writing for who gave the transport up while it was being paused."""
    near, far = unix

    class Acting(Recorder):
        def pause_writing(self):
            super().pause_writing()
            if action == "raise":
                raise ZeroDivisionError("text")
            if action == "write":
                self.transport.write(b"more")
            else:
                getattr(self.transport, action)()

    transport, protocol = attach(loop, near, Acting)
    transport.write(MUCH)
    with received_in_thread(far) as received:
        if action in ("write", "write_eof", "raise"):
            run(loop, protocol.wait_until(lambda: "resume_writing" in protocol.trace))
            transport.close()
        run(loop, protocol.lost)
    if action == "abort":
        assert len(received[0]) < len(MUCH)
        assert protocol.trace == ["connection_made", "pause_writing", "connection_lost NoneType"]
    else:
        assert len(received[0]) == len(MUCH) + (4 if action == "write" else 0)
    if action == "raise":
        assert unhandled.pop()["message"] == "protocol.pause_writing() failed"
    assert unhandled == []


def test_no_resume_after_an_abort_while_paused(loop, unix):
    """zuvloop#33"""
    near, _ = unix
    transport, protocol = attach(loop, near)
    transport.write(MUCH)
    transport.abort()
    run(loop, protocol.lost)
    assert protocol.trace == ["connection_made", "pause_writing", "connection_lost NoneType"]


def test_drain_waits_for_room_and_raises_at_the_end(loop, unix):
    near, far = unix

    async def write():
        _, writer = await asyncio.open_connection(sock=near)
        writer.write(b"little")
        await writer.drain()
        writer.write(MUCH)
        draining = loop.create_task(writer.drain())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not draining.done()
        reading = loop.run_in_executor(None, receive_exactly, far, len(MUCH) + 6)
        await draining
        await reading
        writer.write(MUCH)
        draining = loop.create_task(writer.drain())
        await asyncio.sleep(0)
        far.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await draining
        writer.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await writer.wait_closed()

    run(loop, write())


def test_pause_reading_stops_data_and_resume_reading_gives_it(loop, pair):
    near, far = pair
    transport, protocol = attach(loop, near)
    turns(loop)
    transport.pause_reading()
    assert transport.is_reading() is False
    far.send(b"data")
    turns(loop, 3)
    assert protocol.received == b""
    transport.resume_reading()
    assert transport.is_reading() is True
    assert run(loop, protocol.wait_received(4)) == b"data"
    close(loop, transport)


def test_pause_reading_in_data_received_holds_the_rest_back(loop, unix):
    near, far = unix

    class Slow(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    transport, protocol = attach(loop, near, Slow)
    far.send(b"one")
    run(loop, protocol.wait_received(3))
    far.send(b"two")
    far.shutdown(socket.SHUT_WR)
    turns(loop, 3)
    assert protocol.trace == ["connection_made", "data_received 3"]
    transport.resume_reading()
    run(loop, protocol.wait_received(6))
    turns(loop, 3)
    assert "eof_received" not in protocol.trace
    transport.resume_reading()
    run(loop, protocol.lost)
    assert protocol.trace[3:] == ["eof_received", "connection_lost NoneType"]


def test_pause_reading_in_connection_made(loop, unix):
    near, far = unix

    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    far.send(b"data")
    transport, protocol = attach(loop, near, Pausing)
    turns(loop, 3)
    assert protocol.received == b""
    transport.resume_reading()
    assert run(loop, protocol.wait_received(4)) == b"data"
    close(loop, transport)


def test_pausing_and_resuming_in_one_turn(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    for number in range(20):
        transport.pause_reading()
        transport.resume_reading()
        far.send(b"x")
        transport.pause_reading()
        turns(loop)
        transport.resume_reading()
        run(loop, protocol.wait_received(number + 1))
    close(loop, transport)


def test_a_paused_reader_notices_no_data_but_a_failing_write(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    turns(loop)
    transport.pause_reading()
    far.close()
    turns(loop, 2)
    assert not transport.is_closing()
    transport.write(b"x")
    assert isinstance(run(loop, protocol.lost), (BrokenPipeError, ConnectionResetError))


def test_a_slow_reader_and_a_fast_writer_exchange_everything(loop, tcp):
    near, far = tcp
    size = 3_000_000

    async def echo():
        reader, writer = await asyncio.open_connection(sock=near, limit=4096)
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    payload = bytes(range(256)) * (size // 256)

    def send():
        far.sendall(payload)
        far.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    with received_in_thread(far) as received:
        run(loop, echo())
    sender.join()
    assert received == [payload]


def test_limits_below_what_was_just_written_do_not_pause_for_good(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    turns(loop, 2)

    def write():
        transport.write(b"one")
        transport.write(b"two")
        transport.set_write_buffer_limits(high=0)

    loop.call_soon(write)
    turns(loop, 3)
    assert "pause_writing" not in protocol.trace
    assert far.recv(6) == b"onetwo"
    close(loop, transport)
