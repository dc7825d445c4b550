"""Accepting connections: when each callback of theirs runs, whom they belong to, and who gets how many."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import gc
import os
import signal
import socket
import subprocess
import sys
import warnings

import pytest

from harness import (
    FACTORIES,
    LOOPS,
    PATIENCE,
    Recorder,
    close,
    loop_class,
    normalised,
    receive_all,
    run,
    same_trace_as_stock,
    turns,
)


@pytest.fixture
def listener(no_leaks):
    """A bound socket that does not listen yet."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@contextlib.contextmanager
def clients(address, count, data=b"hello"):
    """Connected clients that have sent something."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(count)]
        for client in made:
            client.sendall(data)
        yield made


def counted_turns(loop, trace, count):
    """Run turns, each with a mark in the trace."""
    for number in range(count):
        trace.append(f"turn {number}")
        turns(loop)


def served(loop, factory, host="127.0.0.1"):
    """A server, and the address of its one socket."""
    server = run(loop, loop.create_server(factory, host, 0))
    return server, server.sockets[0].getsockname()[:2]


def end(loop, server, transports):
    """Close a server and the transports that it made."""
    server.close()
    close(loop, *transports)
    run(loop, server.wait_closed())


def test_every_callback_of_accepted_connections_runs_in_the_turn_of_stock_asyncio(loop):
    def scenario(loop, trace):
        made = []

        def factory():
            trace.append("factory")
            made.append(Recorder(trace))
            return made[-1]

        server, address = served(loop, factory)
        with clients(address, 3):
            counted_turns(loop, trace, 6)
        counted_turns(loop, trace, 3)
        end(loop, server, [protocol.transport for protocol in made])

    trace = same_trace_as_stock(loop, scenario)
    assert trace.count("connection_made") == trace.count("connection_lost NoneType") == 3


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_connections_behind_one_whose_factory_raises_are_served_in_the_same_turns(loop, unhandled, error):
    """cpython#153133: stock asyncio reports it in debug mode only, and so is not asked here."""

    def scenario(loop, trace):
        made = []

        def factory():
            trace.append("factory")
            if trace.count("factory") == 2:
                raise error
            made.append(Recorder(trace))
            return made[-1]

        server, address = served(loop, factory)
        loop.set_exception_handler(lambda loop, context: None)
        with clients(address, 3):
            counted_turns(loop, trace, 6)
        turns(loop, 3)
        end(loop, server, [protocol.transport for protocol in made])

    trace = same_trace_as_stock(loop, scenario)
    gc.collect()
    assert trace.count("connection_made") == 2


def test_what_a_factory_sets_is_seen_by_its_own_connection_only(loop):
    word = contextvars.ContextVar("word", default="none")

    def scenario(loop, trace):
        made = []

        class Looking(Recorder):
            def note(self, text):
                super().note(f"{text} {word.get()}")

        def factory():
            trace.append(f"factory {word.get()}")
            word.set(f"factory {len(made)}")
            made.append(Looking(trace))
            return made[-1]

        async def start():
            word.set("listening")
            return await loop.create_server(factory, "127.0.0.1", 0)

        server = run(loop, start())
        with clients(server.sockets[0].getsockname(), 3):
            turns(loop, 6)
        turns(loop, 3)
        trace.append(word.get())
        end(loop, server, [protocol.transport for protocol in made])

    trace = same_trace_as_stock(loop, scenario)
    assert trace.count("factory listening") == 3
    assert trace[-1] == "none"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_factory_leaves_the_loop_and_closes_the_connection(loop, loop_name, unhandled, error):
    made = []

    def factory():
        if not made:
            made.append(None)
            raise error
        made.append(Recorder())
        return made[-1]

    server, address = served(loop, factory)
    with clients(address, 2) as (first, second):
        with pytest.raises(error):
            turns(loop, 6)
        while len(made) < 2:
            turns(loop)
        turns(loop, 3)
        if loop_name != "asyncio":
            # Stock asyncio leaves it to the collector, with a warning, and reports its task.
            with contextlib.suppress(ConnectionResetError):
                assert first.recv(1) == b""
        assert made[1].received == b"hello"
        end(loop, server, [made[1].transport])
        gc.collect()
        if loop_name == "asyncio":
            unhandled.clear()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("after", range(3))
def test_a_server_that_closes_while_connections_come_in_serves_those_that_stock_asyncio_serves(loop, after):
    def scenario(loop, trace):
        made = []

        def factory():
            trace.append("factory")
            made.append(Recorder(trace))
            return made[-1]

        server, address = served(loop, factory)
        with clients(address, 2) as connected:
            turns(loop, after)
            server.close()
            turns(loop, 4)
            close(loop, *(protocol.transport for protocol in made if protocol.transport))
            gc.collect()
            for client in connected:
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
        trace.append(f"{len(made)}")

    same_trace_as_stock(loop, scenario)
    gc.collect()


@pytest.mark.parametrize("name", ["_accept_connection", "_accept_connection2", "_make_socket_transport"])
@pytest.mark.parametrize("on", ["class", "instance"])
def test_a_method_of_ones_own_is_called_for_accepted_connections(loop_name, no_leaks, name, on):
    base = loop_class(loop_name)
    calls = []

    def own(self, *args, **kwargs):
        calls.append(name)
        return getattr(base, name)(self, *args, **kwargs)

    if on == "class":
        loop = type("Own", (base,), {name: own})()
    else:
        loop = base()
        setattr(loop, name, own.__get__(loop))
    made = []
    server, address = served(loop, lambda: made.append(Recorder()) or made[-1])
    with clients(address, 1) as (client,):
        while not made or not made[0].received:
            turns(loop)
        end(loop, server, [made[0].transport])
        assert receive_all(client) == b""
    loop.close()
    assert calls


def test_a_task_factory_sees_a_task_for_each_connection(loop):
    seen, made = [], []

    def factory(loop, coroutine, **options):
        seen.append(coroutine.__qualname__.rpartition(".")[2])
        return asyncio.Task(coroutine, loop=loop, **options)

    server, address = served(loop, lambda: made.append(Recorder()) or made[-1])
    loop.set_task_factory(factory)
    with clients(address, 2):
        while len(made) < 2:
            turns(loop)
        turns(loop, 3)
    assert seen.count("_accept_connection2") == 2
    loop.set_task_factory(None)
    end(loop, server, [protocol.transport for protocol in made])


def test_a_server_serves_on_when_debug_mode_is_switched(loop):
    made = []
    server, address = served(loop, lambda: made.append(Recorder()) or made[-1])
    loop.slow_callback_duration = PATIENCE
    for debug in [False, True, False]:
        loop.set_debug(debug)
        with clients(address, 1):
            before = len(made)
            while len(made) == before or not made[-1].received:
                turns(loop)
        run(loop, made[-1].lost)
    end(loop, server, [])


def test_a_socket_of_a_class_with_its_own_accept_is_asked(loop, no_leaks):
    accepted, made = [], []

    class Own(socket.socket):
        def accept(self):
            pair = super().accept()
            accepted.append(pair[1])
            return pair

    sock = Own()
    sock.bind(("127.0.0.1", 0))
    server = run(loop, loop.create_server(lambda: made.append(Recorder()) or made[-1], sock=sock))
    with clients(sock.getsockname(), 2) as connected:
        while len(made) < 2:
            turns(loop)
        assert accepted == [client.getsockname() for client in connected]
        turns(loop, 3)
        end(loop, server, [protocol.transport for protocol in made])


def test_a_replaced_accept_of_sockets_is_called(loop, no_leaks, monkeypatch):
    accepted, made = [], []
    original = socket.socket.accept

    def accept(listener):
        pair = original(listener)
        accepted.append(pair[1])
        return pair

    monkeypatch.setattr(socket.socket, "accept", accept)
    server, address = served(loop, lambda: made.append(Recorder()) or made[-1])
    with clients(address, 2) as connected:
        while len(made) < 2:
            turns(loop)
        assert accepted == [client.getsockname() for client in connected]
        turns(loop, 3)
        end(loop, server, [protocol.transport for protocol in made])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_known_of_an_accepted_connection(loop, host):
    def scenario(loop, trace):
        made = []
        server = run(loop, loop.create_server(lambda: made.append(Recorder()) or made[-1], host, 0))
        address = server.sockets[0].getsockname()
        with clients(address[:2], 1) as (client,):
            while not made or not made[0].received:
                turns(loop)
            transport = made[0].transport
            sock = transport.get_extra_info("socket")
            assert transport.get_extra_info("socket") is sock
            assert transport.get_extra_info("peername") == client.getsockname()
            assert transport.get_extra_info("sockname") == address == sock.getsockname()
            trace.append(f"{sock.family!r} {sock.type!r} {sock.proto} {sock.gettimeout()}")
            trace.append(
                normalised(repr(sock)).replace(str(address[1]), "port").replace(str(client.getsockname()[1]), "port")
            )
            trace.append(f"{transport.get_extra_info('no such')} {transport.get_extra_info('no such', 1)}")
            trace.append(f"{transport.get_extra_info(default=2, name='no such')} {sorted(transport._extra)}")
            for wrong in [(), ("a", 1, 2), ([],)]:
                with pytest.raises(TypeError) as raised:
                    transport.get_extra_info(*wrong)
                trace.append(str(raised.value))
            end(loop, server, [transport])
            trace.append(f"{sock.fileno()} {transport.get_extra_info('socket') is sock}")

    same_trace_as_stock(loop, scenario)


def test_what_is_known_of_a_connection_can_be_asked_first_when_it_is_closed(loop):
    def scenario(loop, trace):
        made = []
        server, address = served(loop, lambda: made.append(Recorder()) or made[-1])
        with clients(address, 1) as (client,):
            while not made or not made[0].received:
                turns(loop)
            transport = made[0].transport
            end(loop, server, [transport])
            assert transport.get_extra_info("peername") == client.getsockname()
            assert transport.get_extra_info("sockname") == address
            trace.append(normalised(repr(transport.get_extra_info("socket"))))
            trace.append(repr(transport._sock))

    same_trace_as_stock(loop, scenario)


def test_a_connection_that_nobody_holds_is_reported_and_closed(loop):
    """As any transport that was not closed; its socket was never asked for."""
    server, address = served(loop, asyncio.Protocol)
    with clients(address, 1) as (client,):
        turns(loop, 3)
        (transport,) = loop._transports.values()
        transport.pause_reading()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport
            turns(loop, 2)
            gc.collect()
        assert any("unclosed transport" in str(warning.message) for warning in caught)
        with contextlib.suppress(ConnectionResetError):
            assert receive_all(client) == b""
    server.close()


@pytest.mark.parametrize("steps", range(2))
def test_a_loop_closed_while_connections_come_in_closes_their_descriptors(loop_name, no_leaks, steps):
    if loop_name == "asyncio":
        pytest.skip("stock asyncio leaves them to the collector, with warnings of tasks that never ran")
    loop = LOOPS[loop_name]()
    server, address = served(loop, Recorder)
    with clients(address, 2):
        turns(loop, steps)
        server.close()
        loop.close()


def test_remove_reader_ends_and_add_reader_replaces_the_accepting(loop):
    def scenario(loop, trace):
        made = []
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            server = run(loop, loop.create_server(lambda: made.append(Recorder(trace)) or made[-1], sock=sock))
            address = sock.getsockname()
            trace.append(f"{loop.remove_reader(sock)} {loop.remove_reader(sock)}")
            with clients(address, 1):
                turns(loop, 4)
                loop._start_serving(lambda: made.append(Recorder(trace)) or made[-1], sock, None, server)
                loop.add_reader(sock, trace.append, "reader")
                turns(loop, 2)
                loop._start_serving(lambda: made.append(Recorder(trace)) or made[-1], sock, None, server)
                turns(loop, 4)
            turns(loop, 3)
            end(loop, server, [protocol.transport for protocol in made])

    trace = same_trace_as_stock(loop, scenario)
    assert trace[0] == "True False"
    assert trace.count("connection_made") == 1


def test_a_listener_closed_behind_the_loops_back_gives_its_number_away(loop, loop_name, no_leaks):
    """uvloop#61: the number of a listening socket is that of a connection now."""
    if loop_name == "asyncio":
        pytest.skip("stock asyncio waits for the descriptor that is gone, without end")
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = run(loop, loop.create_server(Recorder, sock=sock))
    near, far = socket.socketpair()
    near.setblocking(False)
    os.dup2(near.fileno(), sock.fileno())
    taken = socket.socket(fileno=sock.detach())
    protocol = Recorder()
    transport, _ = run(loop, loop.create_connection(lambda: protocol, sock=taken))
    far.send(b"hello")
    assert run(loop, protocol.wait_received(5)) == b"hello"
    close(loop, transport)
    near.close()
    far.close()
    assert server.is_serving()


WORKER = """
import asyncio, os, signal, socket, sys

class Named(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"%d\\n" % os.getpid())
        transport.close()

async def serve():
    sock = socket.socket(fileno=int(sys.argv[1]))
    server = await asyncio.get_running_loop().create_server(Named, sock=sock)
    print("ready", flush=True)
    await server.serve_forever()

loop = new_loop()
loop.run_until_complete(serve())
"""


@pytest.mark.parametrize("at_once", [1, 10])
def test_processes_that_share_a_listener_share_its_connections(listener, hotloop_name, at_once):
    """Of four processes on one socket the busiest has at most twice its share.

    Who is woken is fair, who runs is the machine's affair: a busy one needs some tries, of a quarter of a second each.
    Where the first to come is the first to be woken, one process serves nearly all, try after try.
    """
    workers = 4
    listener.listen(128)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FACTORIES[hotloop_name] + WORKER, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
        )
        for _ in range(workers)
    ]
    tries = []
    try:
        for process in processes:
            assert process.stdout.readline() == b"ready\n"
        while len(tries) < 30 and not any(max(served.values()) <= 2 * 400 / workers for served in tries):
            served_by = collections.Counter()
            for _ in range(400 // at_once):
                with contextlib.ExitStack() as stack:
                    connected = [
                        stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE))
                        for _ in range(at_once)
                    ]
                    served_by.update(receive_all(client) for client in connected)
            assert sum(served_by.values()) == 400
            tries.append(served_by)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    assert any(max(served.values()) <= 2 * 400 / workers for served in tries), tries
