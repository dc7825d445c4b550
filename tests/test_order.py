"""The order of callbacks: each scenario leaves the trace that it leaves on stock asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

from harness import (
    Recorder,
    attach,
    close,
    receive_all,
    receive_exactly,
    received_in_thread,
    run,
    same_trace_as_stock,
    tcp_pair,
    turns,
    unix_pair,
)

SCENARIOS = []


def scenario(function):
    """Add a scenario: it runs on a stock loop and on the loop under test, and writes what happens to its trace."""
    SCENARIOS.append(pytest.param(function, id=function.__name__))
    return function


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_trace_is_that_of_stock_asyncio(loop, scenario):
    same_trace_as_stock(loop, scenario)


@scenario
def ready_then_io_then_timers(loop, trace):
    near, far = unix_pair()
    far.send(b"x")
    loop.add_reader(near, trace.append, "reader")
    loop.call_at(loop.time() - 1, trace.append, "timer")
    loop.call_soon(trace.append, "soon")
    turns(loop)
    loop.remove_reader(near)
    near.close()
    far.close()


@scenario
def each_turn_asks_for_what_has_come_in(loop, trace):
    """However busy the loop is, what is readable is heard of in the next turn: some loops look only now and then."""
    near, far = unix_pair()
    heard = []

    def reader():
        near.recv(1)
        heard.append(1)

    def step(number):
        trace.append((number, len(heard)))
        if number % 3 == 0:
            far.send(b"x")
        if number < 30:
            loop.call_soon(step, number + 1)
        else:
            loop.stop()

    loop.add_reader(near, reader)
    loop.call_soon(step, 0)
    loop.run_forever()
    loop.remove_reader(near)
    near.close()
    far.close()


@scenario
def what_a_turn_schedules_runs_in_the_next(loop, trace):
    near, far = unix_pair()

    def step(name):
        trace.append(name)
        if name.count("-") < 2:
            loop.call_soon(step, name + "-soon")
            loop.call_later(0, step, name + "-timer")
            loop.call_soon_threadsafe(step, name + "-threadsafe")

    far.send(b"x")
    loop.add_reader(near, lambda: (trace.append("reader"), loop.remove_reader(near)))
    loop.call_later(0, step, "timer")
    loop.call_soon(step, "soon")
    for number in range(5):
        trace.append(f"turn {number}")
        turns(loop)
    near.close()
    far.close()


@scenario
def a_reader_that_becomes_ready_in_a_callback_comes_after_what_was_scheduled_before(loop, trace):
    near, far = unix_pair()

    def send():
        loop.call_soon(trace.append, "before")
        far.send(b"x")
        loop.call_soon(trace.append, "after")

    loop.add_reader(near, lambda: (trace.append("reader"), near.recv(1)))
    loop.call_soon(send)
    turns(loop, 3)
    loop.remove_reader(near)
    near.close()
    far.close()


@scenario
def reader_before_writer(loop, trace):
    near, far = unix_pair()
    far.send(b"x")
    loop.add_writer(near, trace.append, "writer")
    loop.add_reader(near, trace.append, "reader")
    turns(loop, 2)
    loop.remove_reader(near)
    loop.remove_writer(near)
    near.close()
    far.close()


@scenario
def stop_in_a_callback_ends_the_turn_and_not_before(loop, trace):
    def stop():
        trace.append("stop")
        loop.stop()
        loop.call_soon(trace.append, "scheduled after stop")

    loop.call_soon(trace.append, "first")
    loop.call_soon(stop)
    loop.call_soon(trace.append, "last")
    loop.run_forever()
    trace.append("stopped")
    turns(loop)


@scenario
def stop_before_run_forever_gives_one_turn(loop, trace):
    near, far = unix_pair()
    far.send(b"x")
    loop.add_reader(near, trace.append, "reader")
    loop.call_at(loop.time() - 1, trace.append, "timer")
    loop.call_soon(trace.append, "soon")
    loop.stop()
    loop.stop()
    loop.run_forever()
    trace.append("stopped")
    loop.remove_reader(near)
    near.close()
    far.close()


@scenario
def stop_in_a_timer_and_in_a_reader(loop, trace):
    near, far = unix_pair()
    far.send(b"x")

    def readable():
        trace.append("reader")
        loop.stop()

    loop.add_reader(near, readable)
    loop.call_at(loop.time() - 1, lambda: (trace.append("timer"), loop.stop()))
    loop.run_forever()
    trace.append("stopped")
    loop.remove_reader(near)
    near.close()
    far.close()


@scenario
def an_interrupt_keeps_what_was_not_yet_called(loop, trace):
    def interrupt():
        trace.append("interrupt")
        raise KeyboardInterrupt

    near, far = unix_pair()
    far.send(b"x")
    loop.add_reader(near, lambda: (trace.append("reader"), loop.remove_reader(near)))
    loop.call_at(loop.time() - 1, trace.append, "timer")
    loop.call_soon(interrupt)
    loop.call_soon(trace.append, "soon")
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()
    trace.append("left")
    turns(loop)
    trace.append("second")
    turns(loop)
    near.close()
    far.close()


@scenario
def timers_of_a_turn_that_was_interrupted_come_before_what_it_had_scheduled(loop, trace):
    def interrupt(name):
        trace.append(name)
        loop.call_soon(trace.append, f"scheduled by {name}")
        loop.call_at(loop.time() - 1, trace.append, f"timer of {name}")
        raise KeyboardInterrupt

    def schedule(name):
        trace.append(name)
        loop.call_soon(trace.append, f"scheduled by {name}")

    for name in ("first", "second"):
        loop.call_soon(interrupt, name)
        loop.call_at(loop.time() - 1, schedule, f"{name} timer")
        loop.call_at(loop.time() - 1, interrupt, f"{name} interrupting timer")
    loop.call_soon(schedule, "last")
    for _ in range(5):
        with contextlib.suppress(KeyboardInterrupt):
            turns(loop, 1)
        trace.append("left")
    turns(loop, 2)


@scenario
def call_soon_and_call_soon_threadsafe_interleave(loop, trace):
    def callback(name):
        trace.append(name)
        loop.call_soon(trace.append, name + " soon")
        loop.call_soon_threadsafe(trace.append, name + " threadsafe")
        loop.call_soon(trace.append, name + " soon again")

    loop.call_soon_threadsafe(callback, "threadsafe")
    loop.call_soon(callback, "soon")
    turns(loop, 2)


@scenario
def calls_from_a_thread_while_a_callback_runs(loop, trace):
    def callback():
        loop.call_soon(trace.append, "before")
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(trace.append, "thread"))
        thread.start()
        thread.join()
        loop.call_soon(trace.append, "after")

    loop.call_soon(callback)
    turns(loop, 2)


@scenario
def timers_with_equal_and_past_times(loop, trace):
    now = loop.time()
    loop.call_at(now - 1, trace.append, "late one")
    loop.call_at(now - 1, trace.append, "late two")
    loop.call_at(now - 2, trace.append, "later")
    loop.call_at(0, trace.append, "zero")
    loop.call_at(-5, trace.append, "negative")
    loop.call_later(-0.5, trace.append, "half")
    loop.call_soon(trace.append, "soon")
    turns(loop, 2)


@scenario
def a_timer_that_schedules_an_earlier_one(loop, trace):
    now = loop.time()

    def callback():
        trace.append("first")
        loop.call_at(now - 10, trace.append, "earlier")
        loop.call_soon(trace.append, "soon")

    loop.call_at(now - 1, callback)
    loop.call_at(now - 0.5, trace.append, "second")
    turns(loop, 3)


@scenario
def handles_cancelled_in_their_turn(loop, trace):
    near, far = unix_pair()
    far.send(b"x")
    handles = {}

    def cancel(*names):
        trace.append("cancel")
        for name in names:
            handles[name].cancel()
        loop.remove_reader(near)

    loop.call_soon(cancel, "soon", "timer")
    handles["soon"] = loop.call_soon(trace.append, "soon")
    handles["timer"] = loop.call_at(loop.time() - 1, trace.append, "timer")
    loop.add_reader(near, trace.append, "reader")
    loop.call_soon(trace.append, "other")
    turns(loop, 2)
    near.close()
    far.close()


@scenario
def exceptions_of_callbacks_timers_and_readers(loop, trace):
    near, far = unix_pair()
    far.send(b"x")

    def fail(name):
        trace.append(name)
        raise ZeroDivisionError(name)

    loop.call_soon(fail, "soon")
    loop.call_soon_threadsafe(fail, "threadsafe")
    loop.call_at(loop.time() - 1, fail, "timer")
    loop.add_reader(near, fail, "reader")
    loop.add_writer(near, fail, "writer")
    turns(loop)
    loop.remove_reader(near)
    loop.remove_writer(near)
    near.close()
    far.close()


@scenario
def tasks_futures_and_callbacks(loop, trace):
    async def child(name, steps):
        for step in range(steps):
            trace.append(f"{name} {step}")
            await asyncio.sleep(0)
        return name

    async def parent():
        loop.call_soon(trace.append, "soon")
        first = asyncio.ensure_future(child("first", 3))
        second = asyncio.ensure_future(child("second", 2))
        first.add_done_callback(lambda _: trace.append("first is done"))
        trace.append("parent waits")
        results = await asyncio.gather(first, second, child("third", 1))
        trace.append(str(results))

    loop.run_until_complete(parent())


@scenario
def cancellation_of_tasks(loop, trace):
    async def child():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            trace.append("cancelled")
            await asyncio.sleep(0)
            trace.append("cleaned up")
            raise

    async def parent():
        task = asyncio.ensure_future(child())
        await asyncio.sleep(0)
        loop.call_soon(trace.append, "before")
        task.cancel()
        loop.call_soon(trace.append, "after")
        await asyncio.wait([task])
        trace.append("parent")

    loop.run_until_complete(parent())


@scenario
def wait_for_and_its_timer(loop, trace):
    async def parent():
        for timeout in (0, -1, 0.001):
            try:
                await asyncio.wait_for(loop.create_future(), timeout)
            except TimeoutError:
                trace.append(f"timeout {timeout}")
        trace.append(str(await asyncio.wait_for(asyncio.sleep(0, "value"), 0.5)))

    loop.run_until_complete(parent())


def served(near_factory=unix_pair):
    """A scenario of one connection: it gets loop, trace, transport, protocol and the far socket."""

    def decorate(function):
        def wrapped(loop, trace):
            near, far = near_factory()
            transport, protocol = attach(loop, near, lambda: Recorder(trace))
            loop.call_soon(trace.append, "made")
            try:
                function(loop, trace, transport, protocol, far)
            finally:
                close(loop, transport)
                far.close()

        wrapped.__name__ = function.__name__
        return scenario(wrapped)

    return decorate


@served()
def transport_close(loop, trace, transport, protocol, far):
    loop.call_soon(trace.append, "before")
    transport.close()
    loop.call_soon(trace.append, "after")
    transport.close()
    turns(loop, 3)
    trace.append(repr(far.recv(1)))


@served()
def transport_abort(loop, trace, transport, protocol, far):
    loop.call_soon(trace.append, "before")
    transport.abort()
    loop.call_soon(trace.append, "after")
    transport.abort()
    transport.close()
    turns(loop, 3)


@served()
def close_flushes_what_is_queued(loop, trace, transport, protocol, far):
    transport.set_write_buffer_limits(high=0)
    transport.write(bytes(4_000_000))
    transport.close()
    turns(loop, 2)
    trace.append("draining")
    with received_in_thread(far) as received:
        run(loop, protocol.lost)
    trace.append(f"far {len(received[0])}")


@served()
def abort_drops_what_is_queued(loop, trace, transport, protocol, far):
    transport.write(bytes(4_000_000))
    transport.abort()
    trace.append(str(transport.get_write_buffer_size()))
    turns(loop, 3)


@served()
def the_peer_finishes(loop, trace, transport, protocol, far):
    far.send(b"data")
    far.shutdown(socket.SHUT_WR)
    run(loop, protocol.lost)
    trace.append(str(transport.is_closing()))


@served(tcp_pair)
def the_peer_resets(loop, trace, transport, protocol, far):
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    run(loop, protocol.lost)


@served()
def the_peer_is_gone_while_writing(loop, trace, transport, protocol, far):
    transport.pause_reading()
    turns(loop)
    far.close()
    for _ in range(8):
        transport.write(b"x")
        turns(loop)
    run(loop, protocol.lost)


@served()
def eof_that_keeps_the_transport_open(loop, trace, transport, protocol, far):
    original = protocol.eof_received
    protocol.eof_received = lambda: original() or True
    far.shutdown(socket.SHUT_WR)
    run(loop, protocol.wait_until(lambda: "eof_received" in trace))
    turns(loop, 2)
    trace.append(str(transport.is_closing()))
    transport.write(b"answer")
    trace.append(repr(far.recv(10)))
    transport.close()
    turns(loop, 2)


@served()
def write_eof_and_then_the_peers(loop, trace, transport, protocol, far):
    transport.write(b"last")
    transport.write_eof()
    transport.write_eof()
    turns(loop, 2)
    trace.append(repr(receive_all(far)))
    far.send(b"more")
    run(loop, protocol.wait_received(4))
    far.close()
    run(loop, protocol.lost)


@served()
def write_eof_waits_for_the_queue(loop, trace, transport, protocol, far):
    transport.write(bytes(4_000_000))
    transport.write_eof()
    turns(loop)
    with received_in_thread(far) as received:
        run(loop, protocol.wait_until(lambda: "resume_writing" in trace))
        turns(loop, 2)
    trace.append(f"far {len(received[0])}")
    transport.close()
    turns(loop, 2)


@served()
def data_then_close_in_data_received(loop, trace, transport, protocol, far):
    original = protocol.data_received

    def data_received(data):
        original(data)
        transport.close()
        loop.call_soon(trace.append, "soon")

    protocol.data_received = data_received
    far.send(b"one")
    turns(loop, 2)
    with contextlib.suppress(OSError):
        far.send(b"two")
    turns(loop, 3)


@served()
def data_received_raises(loop, trace, transport, protocol, far):
    original = protocol.data_received

    def data_received(data):
        original(data)
        raise ZeroDivisionError("text")

    protocol.data_received = data_received
    far.send(b"one")
    run(loop, protocol.lost)
    with contextlib.suppress(OSError):
        far.send(b"two")
    turns(loop, 2)


@served()
def eof_received_raises(loop, trace, transport, protocol, far):
    def eof_received():
        trace.append("eof")
        raise ZeroDivisionError("text")

    protocol.eof_received = eof_received
    far.shutdown(socket.SHUT_WR)
    run(loop, protocol.lost)


@served()
def connection_lost_raises(loop, trace, transport, protocol, far):
    original = protocol.connection_lost

    def connection_lost(exc):
        original(exc)
        raise ZeroDivisionError("text")

    protocol.connection_lost = connection_lost
    transport.close()
    turns(loop, 3)
    trace.append(repr(far.recv(1)))


@served()
def pause_and_resume_writing(loop, trace, transport, protocol, far):
    transport.set_write_buffer_limits(high=1000, low=100)
    for _ in range(2):
        for _ in range(4):
            transport.write(bytes(500_000))
            trace.append("written")
        turns(loop, 2)
        receiver = threading.Thread(target=receive_exactly, args=(far, 2_000_000))
        receiver.start()
        run(loop, protocol.wait_until(lambda: trace[-1] == "resume_writing"))
        receiver.join()


@served()
def close_inside_pause_writing(loop, trace, transport, protocol, far):
    original = protocol.pause_writing

    def pause_writing():
        original()
        transport.abort()

    protocol.pause_writing = pause_writing
    transport.write(bytes(4_000_000))
    turns(loop, 3)


@served()
def pause_writing_raises(loop, trace, transport, protocol, far):
    def pause_writing():
        trace.append("pause")
        raise ZeroDivisionError("text")

    protocol.pause_writing = pause_writing
    transport.write(bytes(4_000_000))
    trace.append("written")
    transport.abort()
    turns(loop, 3)


@served()
def pause_reading_holds_data_and_eof_back(loop, trace, transport, protocol, far):
    turns(loop)
    transport.pause_reading()
    transport.pause_reading()
    far.send(b"data")
    far.shutdown(socket.SHUT_WR)
    turns(loop, 3)
    trace.append(f"reading: {transport.is_reading()}")
    transport.resume_reading()
    transport.resume_reading()
    trace.append(f"reading: {transport.is_reading()}")
    run(loop, protocol.lost)


@served()
def closing_while_reading_is_paused(loop, trace, transport, protocol, far):
    transport.pause_reading()
    transport.close()
    trace.append(f"reading: {transport.is_reading()}")
    transport.resume_reading()
    transport.pause_reading()
    turns(loop, 3)


@served()
def two_connections_and_their_data(loop, trace, transport, protocol, far):
    near2, far2 = unix_pair()
    second, _ = attach(loop, near2, lambda: Recorder(trace))
    far2.send(b"22")
    far.send(b"1")
    loop.call_soon(trace.append, "soon")
    loop.call_later(0, trace.append, "timer")
    turns(loop)
    trace.sort()  # which of two descriptors is reported first is the kernel's business
    close(loop, second)
    far2.close()


@scenario
def connection_made_is_called_before_create_connection_returns(loop, trace):
    near, far = unix_pair()
    far.send(b"early")

    async def connect():
        loop.call_soon(trace.append, "soon")
        transport, protocol = await loop.create_connection(lambda: Recorder(trace), sock=near)
        trace.append("connected")
        loop.call_soon(trace.append, "soon after")
        await protocol.wait_received(5)
        transport.close()
        await protocol.lost

    run(loop, connect())
    far.close()


@scenario
def connection_made_raises(loop, trace):
    near, far = unix_pair()

    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError("text")

    transport, _ = attach(loop, near, lambda: Failing(trace))
    far.send(b"data")
    turns(loop, 3)
    close(loop, transport)
    far.close()


@scenario
def connection_made_closes(loop, trace):
    near, far = unix_pair()

    class Closing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    far.send(b"data")
    attach(loop, near, lambda: Closing(trace))
    turns(loop, 3)
    trace.append(repr(far.recv(10)))
    far.close()


@scenario
def a_server_and_its_connections(loop, trace):
    async def talk():
        server = await loop.create_server(lambda: Recorder(trace), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = []
        for _ in range(2):
            made = trace.count("connection_made")
            client = Recorder([])
            await loop.create_connection(lambda client=client: client, *address)
            while trace.count("connection_made") == made:
                await asyncio.sleep(0)
            clients.append(client)
        server.close()
        trace.append("closed")
        for client in clients:
            client.transport.write(b"data")
            client.transport.close()
            await client.lost
        while trace.count("connection_lost NoneType") < 2:
            await asyncio.sleep(0)
        await server.wait_closed()
        trace.append("all closed")

    run(loop, talk())


@scenario
def streams_talk(loop, trace):
    async def serve(reader, writer):
        while line := await reader.readline():
            trace.append(f"server {line!r}")
            writer.write(line.upper())
            await writer.drain()
        trace.append("server at end")
        writer.close()
        await writer.wait_closed()

    async def talk():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for word in (b"one\n", b"two\n"):
            writer.write(word)
            trace.append(f"client {await reader.readline()!r}")
        writer.write_eof()
        trace.append(f"client {await reader.read()!r}")
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, talk())


@scenario
def a_buffered_protocol(loop, trace):
    near, far = unix_pair()

    class Buffered(asyncio.BufferedProtocol):
        def connection_made(self, transport):
            trace.append("connection_made")
            self.buffer = bytearray(3)

        def get_buffer(self, sizehint):
            trace.append(f"get_buffer {sizehint}")
            return self.buffer

        def buffer_updated(self, nbytes):
            trace.append(f"buffer_updated {bytes(self.buffer[:nbytes])!r}")

        def eof_received(self):
            trace.append("eof_received")

        def connection_lost(self, exc):
            trace.append(f"connection_lost {exc}")
            loop.stop()

    attach(loop, near, Buffered)
    far.send(b"abcdefgh")
    far.shutdown(socket.SHUT_WR)
    loop.run_forever()
    far.close()


@pytest.mark.parametrize("fault", ["empty", "raises", "not a buffer", "read only", "updated raises"])
def test_faults_of_a_buffered_protocol_end_as_on_stock_asyncio(loop, fault):
    """cpython#77835, uvloop#159"""

    def scenario(loop, trace):
        near, far = unix_pair()

        class Buffered(asyncio.BufferedProtocol):
            def connection_made(self, transport):
                self.buffer = bytearray(8)

            def get_buffer(self, sizehint):
                if fault == "raises":
                    raise ZeroDivisionError("text")
                return {"empty": bytearray(), "not a buffer": 5, "read only": b"12345678"}.get(fault, self.buffer)

            def buffer_updated(self, nbytes):
                raise ZeroDivisionError("text")

            def connection_lost(self, exc):
                trace.append(f"connection_lost {type(exc).__name__} {exc}")
                loop.stop()

        attach(loop, near, Buffered)
        far.send(b"abcd")
        loop.run_forever()
        far.close()

    same_trace_as_stock(loop, scenario)
