"""Servers: their life, their clients, their failures, and accepting under load."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import sys
import time
import warnings

import pytest

from harness import (
    PATIENCE,
    Recorder,
    close,
    descriptors,
    outcome,
    run,
    same_as_stock,
    same_trace_as_stock,
    stock_loop,
    tcp_pair,
    turns,
)


def connect(server):
    """A blocking client of a server."""
    return socket.create_connection(server.sockets[0].getsockname()[:2], PATIENCE)


class Echo(Recorder):
    """Sends back what it gets."""

    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


@pytest.fixture
def serve(loop):
    """Start a server of protocols that are kept in the list it answers with."""

    def start(kind=Echo, **options):
        made = []

        def factory():
            made.append(kind())
            return made[-1]

        return run(loop, loop.create_server(factory, "127.0.0.1", 0, **options)), made

    return start


def finish(loop, server, made=()):
    """Close a server and its connections, and wait for it."""
    server.close()
    for protocol in made:
        if protocol.transport is not None:
            close(loop, protocol.transport)
    turns(loop, 2)
    run(loop, server.wait_closed())


def exchange(loop, client, data=b"hello"):
    """Send to an echo server and get it back, while the loop runs."""
    client.sendall(data)
    return run(loop, loop.run_in_executor(None, client.recv, len(data)))


def test_serves_clients(loop, serve):
    server, made = serve()
    assert server.is_serving()
    with connect(server) as one, connect(server) as two:
        assert exchange(loop, one) == b"hello"
        assert exchange(loop, two, b"you") == b"you"
        assert made[0].transport.get_extra_info("peername") == one.getsockname()
    assert len(made) == 2
    finish(loop, server, made)
    assert not server.is_serving()


def test_a_server_listens_once_create_server_returned(loop, serve):
    server, made = serve()
    client = connect(server)
    client.close()
    while not made:
        turns(loop)
    finish(loop, server, made)


def test_start_serving_can_be_put_off(loop, serve):
    server, made = serve(start_serving=False)
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    run(loop, server.start_serving())
    run(loop, server.start_serving())
    assert server.is_serving()
    with connect(server) as client:
        assert exchange(loop, client) == b"hello"
    finish(loop, server, made)


def test_is_a_server_of_asyncio(loop, serve):
    server, _ = serve()
    assert isinstance(server, asyncio.Server)
    assert isinstance(server, asyncio.AbstractServer)
    assert server.get_loop() is loop
    assert isinstance(server.sockets, tuple)
    assert isinstance(server.sockets[0], asyncio.trsock.TransportSocket)
    finish(loop, server)
    assert server.sockets == ()


def life(name):
    """The steps of a server's life that a test compares with stock asyncio."""

    async def serve_forever_on_a_closed_one(loop, server, trace):
        server.close()
        await server.serve_forever()

    async def two_serve_forever(loop, server, trace):
        first = loop.create_task(server.serve_forever())
        await asyncio.sleep(0)
        try:
            await server.serve_forever()
        finally:
            first.cancel()
            await asyncio.wait([first])

    async def close_cancels_serve_forever(loop, server, trace):
        first = loop.create_task(server.serve_forever())
        await asyncio.sleep(0)
        server.close()
        await asyncio.wait([first])
        trace.append(f"{first.cancelled()} {server.is_serving()}")

    async def cancelling_serve_forever_closes(loop, server, trace):
        first = loop.create_task(server.serve_forever())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        trace.append(f"{first.cancelled()} {server.is_serving()} {server.sockets}")

    async def close_twice(loop, server, trace):
        server.close()
        server.close()
        await server.wait_closed()
        await server.wait_closed()
        trace.append(f"{server._waiters}")

    async def start_serving_a_closed_one(loop, server, trace):
        server.close()
        await server.start_serving()

    async def as_a_context(loop, server, trace):
        async with server as same:
            trace.append(f"{same is server} {server.is_serving()}")
        trace.append(f"{server.is_serving()}")

    return locals()[name]


@pytest.mark.parametrize(
    "name",
    [
        "serve_forever_on_a_closed_one",
        "two_serve_forever",
        "close_cancels_serve_forever",
        "cancelling_serve_forever_closes",
        "close_twice",
        "start_serving_a_closed_one",
        "as_a_context",
    ],
)
def test_the_life_of_a_server_is_that_of_stock_asyncio(loop, name):
    """zuvloop#31, zuvloop#87, rloop#36"""
    traces = []

    def live(loop):
        trace = []
        traces.append(trace)

        async def steps():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            try:
                await life(name)(loop, server, trace)
            finally:
                server.close()

        run(loop, steps())

    same_as_stock(loop, live)
    assert traces[0] == traces[1]


def test_wait_closed_waits_for_the_connections_as_on_stock_asyncio(loop, serve):
    """zuvloop#31: since 3.12.1."""
    answers = []

    def live(loop):
        made = []

        async def steps():
            server = await loop.create_server(lambda: made.append(Echo()) or made[-1], "127.0.0.1", 0)
            client, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            client.write(b"x")
            await protocol.wait_received(1)
            server.close()
            waiting = loop.create_task(server.wait_closed())
            for _ in range(5):
                await asyncio.sleep(0)
            answers.append(waiting.done())
            client.close()
            await made[0].lost
            await waiting

        run(loop, steps())
        turns(loop, 2)

    same_as_stock(loop, live)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_can_be_closed_and_aborted_from_3_13_on(loop, serve, method):
    """zuvloop#31"""
    server, made = serve()
    if sys.version_info < (3, 13):
        assert not hasattr(server, method)
        finish(loop, server)
        return
    with connect(server) as one, connect(server) as two:
        exchange(loop, one)
        exchange(loop, two)
        server.close()
        getattr(server, method)()
        run(loop, server.wait_closed())
        for protocol in made:
            assert run(loop, protocol.lost) is None
        assert one.recv(1) == two.recv(1) == b""
    turns(loop, 2)


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_a_factory_that_raises_does_not_end_the_server(loop, loop_name, unhandled, error, debug):
    """cpython#153133, cpython#156400, zuvloop#80: one bad connection, reported, closed; the next is served.

    Stock asyncio reports it in debug mode only, and leaves closing the socket to the collector.
    """
    loop.set_debug(debug)
    loop.slow_callback_duration = PATIENCE
    failing = True
    made = []

    def factory():
        if failing:
            raise error("text")
        made.append(Echo())
        return made[-1]

    server = run(loop, loop.create_server(factory, "127.0.0.1", 0))
    with warnings.catch_warnings():
        if loop_name == "asyncio":
            warnings.simplefilter("ignore", ResourceWarning)
        bad = connect(server)
        if debug or loop_name != "asyncio":
            run(loop, reported(unhandled))
            assert isinstance(unhandled.pop()["exception"], error)
        turns(loop, 5)
        gc.collect()
        if loop_name != "asyncio":
            assert bad.recv(1) == b""
        failing = False
        with connect(server) as good:
            assert exchange(loop, good) == b"hello"
        unhandled.clear()
        bad.close()
        finish(loop, server, made)
        gc.collect()


async def reported(unhandled):
    """Wait for a call of the exception handler."""
    while not unhandled:
        await asyncio.sleep(0)


def test_a_connection_lost_before_it_is_accepted_does_not_end_the_server(loop, serve):
    server, made = serve()
    for _ in range(5):
        gone = connect(server)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
    with connect(server) as good:
        assert exchange(loop, good) == b"hello"
    finish(loop, server, made)


def test_a_server_that_cannot_bind_every_address_closes_what_it_bound(loop, no_leaks):
    """zuvloop#22: cleans up what succeeded, and the error names the address as stock asyncio does."""
    with socket.create_server(("127.0.0.2", 0)) as busy:
        port = busy.getsockname()[1]
        before = descriptors()
        result = same_as_stock(
            loop,
            lambda loop: run(loop, loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], port, reuse_address=False)),
        )
        assert result[0] == "OSError"
        assert "address already in use" in result[1].lower()
        assert descriptors() == before


def test_the_same_address_twice_is_one_socket(loop, no_leaks):
    """zuvloop#27"""
    server = run(loop, loop.create_server(Echo, ["127.0.0.1", "127.0.0.1"], 0))
    assert len(server.sockets) == 1
    finish(loop, server)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ["127.0.0.1", "127.0.0.2"], "", None], ids=repr)
def test_the_sockets_of_a_server_are_those_of_stock_asyncio(loop, no_leaks, host):
    def addresses(loop):
        server = run(loop, loop.create_server(Echo, host, 0))
        try:
            return sorted((sock.family, sock.getsockname()[0]) for sock in server.sockets)
        finally:
            finish(loop, server)

    with stock_loop() as stock:
        expected = addresses(stock)
    assert addresses(loop) == expected


@pytest.mark.parametrize("port", ["http", "70000", -1, 70000, None, "no such service"], ids=repr)
def test_an_odd_port_ends_as_on_stock_asyncio(loop, no_leaks, port):
    def start(loop):
        server = run(loop, loop.create_server(Echo, "127.0.0.1", port))
        finish(loop, server)

    same_as_stock(loop, start)


def test_reuse_port_and_keep_alive_and_backlog(loop, no_leaks):
    """zuvloop#27"""
    options = {"keep_alive": True} if sys.version_info >= (3, 13) else {}
    first = run(loop, loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True, backlog=7, **options))
    port = first.sockets[0].getsockname()[1]
    second = run(loop, loop.create_server(Echo, "127.0.0.1", port, reuse_port=True))
    sock = first.sockets[0]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    if options:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    finish(loop, first)
    finish(loop, second)


def test_a_burst_is_accepted_while_a_connection_is_served(loop, serve):
    """zuvloop#78"""
    server, made = serve(backlog=100)
    clients = [connect(server) for _ in range(60)]
    with clients[0] as first:
        assert exchange(loop, first) == b"hello"
        while len(made) < 60:
            turns(loop)
        assert exchange(loop, first) == b"hello"
    for client in clients:
        client.close()
    finish(loop, server, made)


@pytest.mark.parametrize("backlog", [1, 2, 5])
@pytest.mark.parametrize("tasks", [False, True], ids=["", "by tasks"])
def test_a_turn_accepts_as_many_as_the_backlog_lets_wait(loop, no_leaks, backlog, tasks):
    def scenario(loop, trace):
        if tasks:
            loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        server = run(loop, loop.create_server(factory, "127.0.0.1", 0, backlog=backlog))
        clients = [connect(server) for _ in range(backlog + 1)]
        for _ in range(6):
            turns(loop)
            trace.append(f"{len(made)} are made")
        for client in clients:
            client.close()
        finish(loop, server, made)
        loop.set_task_factory(None)

    assert f"{backlog + 1} are made" in same_trace_as_stock(loop, scenario)


def test_clients_that_wait_at_the_close_of_the_server_do_not_hang(loop, serve):
    server, made = serve()
    client = connect(server)
    server.close()
    turns(loop, 3)
    for protocol in made:
        close(loop, protocol.transport)
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
    client.close()
    run(loop, server.wait_closed())


def test_a_connection_accepted_in_the_turn_in_which_its_server_ends_is_closed(loop, loop_name, serve):
    if loop_name == "asyncio":
        pytest.skip("stock asyncio leaves it open until it is collected")
    server, made = serve()
    client = connect(server)
    turns(loop)
    server.close()
    turns(loop, 2)
    assert [protocol.trace for protocol in made] == [[]]
    with client:
        assert client.recv(1) == b""
    run(loop, server.wait_closed())


def test_a_server_out_of_descriptors_rests_and_recovers(loop, serve, unhandled):
    """zuvloop#78, zuvloop#89, rsloop#30: no spinning, no end, and no timer that goes off on a closed server."""
    server, made = serve(backlog=20)
    clients = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _ in range(10):
        client = socket.socket()
        client.settimeout(PATIENCE)
        clients.append(client)
    highest = max(descriptors())
    run(loop, loop.run_in_executor(None, int))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    holes = []
    try:
        with contextlib.suppress(OSError):
            while True:
                holes.append(os.dup(0))
        for client in clients:
            client.connect(server.sockets[0].getsockname())
        while not unhandled:
            turns(loop)
        assert "out of system resource" in unhandled[0]["message"]
        before = time.thread_time()
        loop.call_later(0.3, loop.stop)
        loop.run_forever()
        assert time.thread_time() - before < 0.05
        assert len(unhandled) < 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hole in holes:
            os.close(hole)
    unhandled.clear()
    while len(made) < 10:
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
    assert exchange(loop, clients[0]) == b"hello"
    for client in clients:
        client.close()
    finish(loop, server, made)


def test_a_server_closed_while_it_rests_stays_closed(loop, serve, unhandled):
    """zuvloop#89"""
    server, made = serve(backlog=20)
    client = socket.socket()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 1, hard))
    holes = []
    try:
        with contextlib.suppress(OSError):
            while True:
                holes.append(os.dup(0))
        client.connect(server.sockets[0].getsockname())
        while not unhandled:
            turns(loop)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hole in holes:
            os.close(hole)
    unhandled.clear()
    server.close()
    client.close()
    # The rest is one second; afterwards nothing may have happened.
    loop.call_later(1.3, loop.stop)
    loop.run_forever()
    assert made == []
    stale = [report for report in unhandled if type(loop).__module__.startswith("hotloop")]
    unhandled.clear()
    assert stale == []
    for timer in list(loop._scheduled):
        timer.cancel()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers know their transports since Python 3.13")
def test_a_server_knows_its_transports_and_keeps_none_alive(loop, serve):
    server, made = serve()
    clients = [connect(server) for _ in range(3)]
    for client in clients:
        exchange(loop, client)
    transports = {protocol.transport for protocol in made}
    assert set(server._clients) == transports
    assert len(server._clients) == 3
    assert made[0].transport in server._clients
    close(loop, made[0].transport)
    assert set(server._clients.copy()) == transports - {made[0].transport}
    # One that is abandoned no longer counts, and nobody waits for it.
    transports.clear()
    made[1].transport.pause_reading()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        made[1].transport = None
        gc.collect()
    assert len(server._clients) == 1
    server.close()
    server.close_clients()
    run(loop, server.wait_closed())
    for client in clients:
        client.close()


def test_connect_accepted_socket(loop, no_leaks):
    near, far = tcp_pair()
    transport, protocol = run(loop, loop.connect_accepted_socket(Recorder, near))
    far.send(b"x")
    run(loop, protocol.wait_received(1))
    assert transport.get_extra_info("peername") == far.getsockname()
    close(loop, transport)
    far.close()


def test_callbacks_of_accepted_connections_run_in_the_context_of_the_listening(loop, no_leaks):
    """uvloop#305, uvloop#348"""
    import contextvars

    word = contextvars.ContextVar("word", default="none")
    answers = []

    def live(loop):
        seen = []

        class Looking(Echo):
            def note(self, text):
                seen.append((text.split()[0], word.get()))
                super().note(text)

        async def start():
            word.set("listening")
            return await loop.create_server(Looking, "127.0.0.1", 0)

        server = run(loop, start())
        with connect(server) as client:
            assert exchange(loop, client) == b"hello"
        while len(seen) < 4:
            turns(loop)
        finish(loop, server)
        run(loop, loop.shutdown_default_executor())
        answers.append(seen)

    same_as_stock(loop, live)
    assert answers[0] == answers[1]
    assert answers[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda loop, sock: loop.create_server(Echo),
        lambda loop, sock: loop.create_server(Echo, "127.0.0.1", 0, sock=sock),
        lambda loop, sock: loop.create_server(Echo, "127.0.0.1", 0, ssl=True),
        lambda loop, sock: loop.create_server(Echo, "127.0.0.1", 0, ssl_handshake_timeout=1),
        lambda loop, sock: loop.create_server(Echo, sock=sock),
        lambda loop, sock: loop.create_connection(Echo),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, sock=sock),
        lambda loop, sock: loop.create_connection(Echo, sock=sock),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, server_hostname="name"),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, ssl_handshake_timeout=1),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, ssl_shutdown_timeout=1),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, local_addr=("no such host.invalid", 1)),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, local_addr=("192.0.2.1", 1)),
        lambda loop, sock: loop.create_connection(Echo, "127.0.0.1", 1, family=socket.AF_INET6),
        lambda loop, sock: loop.connect_accepted_socket(Echo, sock),
    ],
    ids=range(15),
)
def test_wrong_arguments_are_refused_as_on_stock_asyncio(loop, no_leaks, call):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert outcome(lambda: run(loop, call(loop, sock)))[0] != "returned"
        same_as_stock(loop, lambda loop: run(loop, call(loop, sock)))
