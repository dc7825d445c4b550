"""Connecting: in which turns, with which errors, and what is left when it is given up."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import re
import socket
import sys

import pytest

from harness import (
    PATIENCE,
    Recorder,
    close,
    descriptors,
    loop_class,
    normalised,
    outcome,
    run,
    same_as_stock,
    same_trace_as_stock,
    turns,
)


@pytest.fixture(params=["tcp", "tcp6", "path", "abstract"])
def listening(request, tmp_path, no_leaks):
    """A listening socket, and how a loop connects to it."""
    if request.param in ("tcp", "tcp6"):
        sock = socket.socket(socket.AF_INET if request.param == "tcp" else socket.AF_INET6)
        sock.bind(("127.0.0.1" if request.param == "tcp" else "::1", 0))

        def connect(loop, factory):
            return loop.create_connection(factory, *sock.getsockname()[:2])
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "socket") if request.param == "path" else f"\0hotloop-test-{os.getpid()}")
        name = sock.getsockname() if request.param == "path" else sock.getsockname().decode()

        def connect(loop, factory):
            return loop.create_unix_connection(factory, name)

    sock.listen(100)
    sock.settimeout(PATIENCE)
    with sock:
        yield sock, connect


def test_each_step_of_connecting_is_in_the_turn_of_stock_asyncio(loop, listening):
    sock, connect = listening
    word = contextvars.ContextVar("word", default="none")

    def scenario(loop, trace):
        class Looking(Recorder):
            def note(self, text):
                super().note(f"{text} {word.get()}")

        def factory():
            trace.append(f"factory {word.get()} {asyncio.current_task(loop).get_name()}")
            word.set("factory")
            return Looking(trace)

        async def steps():
            word.set("task")
            transport, protocol = await connect(loop, factory)
            trace.append(f"connected {word.get()} {protocol.transport is transport}")
            return transport

        task = loop.create_task(steps(), name="the task")
        for number in range(8):
            trace.append(f"turn {number}")
            turns(loop)
        far, _ = sock.accept()
        with far:
            far.send(b"hello")
            turns(loop, 2)
        transport = run(loop, task)
        turns(loop, 2)
        close(loop, transport)

    trace = same_trace_as_stock(loop, scenario)
    # Since Python 3.15 a connection has a copy of the context from before its factory.
    seen = "task" if sys.version_info >= (3, 15) else "factory"
    assert f"data_received 5 {seen}" in trace


def test_what_is_known_of_a_connection_that_was_made(loop, listening):
    sock, connect = listening

    def scenario(loop, trace):
        transport, _ = run(loop, connect(loop, Recorder))
        far, _ = sock.accept()
        made = transport.get_extra_info("socket")
        assert transport.get_extra_info("peername") == sock.getsockname() == made.getpeername()
        assert transport.get_extra_info("sockname") == made.getsockname() == far.getpeername()
        trace.append(f"{made.family!r} {made.type!r} {made.proto} {made.gettimeout()} {sorted(transport._extra)}")
        if made.family != socket.AF_UNIX:
            trace.append(str(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        trace.append(normalised(repr(transport)))
        close(loop, transport)
        far.close()

    same_trace_as_stock(loop, scenario)


ERRORS = {
    "refused": lambda loop: loop.create_connection(Recorder, "127.0.0.1", 1),
    "refused on IPv6": lambda loop: loop.create_connection(Recorder, "::1", 1),
    "all errors": lambda loop: loop.create_connection(Recorder, "127.0.0.1", 1, all_errors=True),
    "happy eyeballs": lambda loop: loop.create_connection(Recorder, "127.0.0.1", 1, happy_eyeballs_delay=0.1),
    "bytes": lambda loop: loop.create_connection(Recorder, b"127.0.0.1", 1),
    "text as port": lambda loop: loop.create_connection(Recorder, "127.0.0.1", "1"),
    "port of a service": lambda loop: loop.create_connection(Recorder, "127.0.0.1", "tcpmux"),
    "port out of range": lambda loop: loop.create_connection(Recorder, "127.0.0.1", 70000),
    "negative port": lambda loop: loop.create_connection(Recorder, "127.0.0.1", -1),
    "no port": lambda loop: loop.create_connection(Recorder, "127.0.0.1"),
    "no host": lambda loop: loop.create_connection(Recorder, None, 1),
    "nothing": lambda loop: loop.create_connection(Recorder),
    "broadcast": lambda loop: loop.create_connection(Recorder, "255.255.255.255", 1),
    "other family": lambda loop: loop.create_connection(Recorder, "127.0.0.1", 1, family=socket.AF_INET6),
    "no such keyword": lambda loop: loop.create_connection(Recorder, "127.0.0.1", 1, wrong=1),
    "no such path": lambda loop: loop.create_unix_connection(Recorder, "/no/such/path"),
    "long path": lambda loop: loop.create_unix_connection(Recorder, "/" + "a" * 200),
    "path with a zero": lambda loop: loop.create_unix_connection(Recorder, "/tmp/a\0b"),
    "empty path": lambda loop: loop.create_unix_connection(Recorder, ""),
    "no path": lambda loop: loop.create_unix_connection(Recorder),
    "path of no type": lambda loop: loop.create_unix_connection(Recorder, 1),
    "no such abstract name": lambda loop: loop.create_unix_connection(Recorder, "\0hotloop-no-such-name"),
    "name for TLS": lambda loop: loop.create_unix_connection(Recorder, "/no/such", server_hostname="a"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_connection_that_fails_ends_with_the_words_of_stock_asyncio(loop, no_leaks, name):
    assert outcome(lambda: run(loop, ERRORS[name](loop)))[0] != "returned"
    same_as_stock(loop, lambda loop: run(loop, ERRORS[name](loop)))
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
def test_a_factory_that_raises_closes_the_connection(loop, loop_name, listening, error):
    """cpython#153133"""
    sock, connect = listening

    def factory():
        raise error("text")

    with pytest.raises(error, match="text"):
        run(loop, connect(loop, factory))
    far, _ = sock.accept()
    gc.collect()
    with far:
        if loop_name != "asyncio" or sys.version_info >= (3, 15):
            # Before, stock asyncio leaves it to the collector, or to whoever holds the exception.
            far.settimeout(PATIENCE)
            assert far.recv(1) == b""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_connecting_that_is_cancelled_at_any_point_closes_its_descriptor_once(loop, listening):
    """uvloop#740, uvloop#653, aiohappyeyeballs#93: no watcher stays, and the number belongs to others at once."""
    sock, connect = listening
    cancelled = 0
    for steps in range(8):
        before = set(descriptors())
        task = loop.create_task(connect(loop, Recorder))
        turns(loop, steps)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            while not task.done():
                turns(loop)
            transport, _ = task.result()
            close(loop, transport)
        cancelled += task.cancelled()
        turns(loop, 3)
        del task
        gc.collect()
        if steps:
            sock.settimeout(0.01 if sock.family == socket.AF_UNIX else PATIENCE)
            with contextlib.suppress(TimeoutError):
                far, _ = sock.accept()
                far.close()
        # A descriptor that takes the number over is nobody else's.
        near, far = socket.socketpair()
        turns(loop, 2)
        assert os.fstat(near.fileno()).st_ino != os.fstat(far.fileno()).st_ino
        called = []
        loop.add_reader(near, called.append, steps)
        far.send(b"a")
        turns(loop)
        assert called == [steps]
        assert loop.remove_reader(near)
        near.close()
        far.close()
        assert set(descriptors()) == before
    assert cancelled >= 2


def test_many_connections_cancelled_at_random_leave_nothing(loop, no_leaks):
    """uvloop#653: a thousand attempts, to a listener and to nobody."""
    import random

    choose = random.Random(1)
    before = descriptors()

    async def attempt(address):
        transport, _ = await loop.create_connection(Recorder, *address)
        transport.abort()

    async def all_of_them(address):
        for _ in range(20):
            tasks = [loop.create_task(attempt(choose.choice([address, ("127.0.0.1", 1)]))) for _ in range(50)]
            for _ in range(choose.randrange(5)):
                await asyncio.sleep(0)
            for task in tasks:
                if choose.random() < 0.5:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, (ConnectionRefusedError, asyncio.CancelledError))

    with socket.create_server(("127.0.0.1", 0), backlog=2000) as listener:
        run(loop, all_of_them(listener.getsockname()))
        turns(loop, 3)
    gc.collect()
    assert descriptors() == before


def test_a_loop_closed_while_it_connects_closes_the_descriptor(new_loop, no_leaks):
    loop = new_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = loop.create_task(loop.create_connection(Recorder, *listener.getsockname()))
        turns(loop, 1)
        task.cancel()
        turns(loop, 1)
        loop.close()
        assert task.cancelled()


@pytest.mark.parametrize(
    "name", ["sock_connect", "_connect_sock", "_create_connection_transport", "_make_socket_transport"]
)
@pytest.mark.parametrize("on", ["class", "instance"])
def test_a_method_of_ones_own_is_called_for_connections(loop_name, no_leaks, name, on):
    base = loop_class(loop_name)
    calls = []

    def own(self, *args, **kwargs):
        calls.append(name)
        return getattr(base, name)(self, *args, **kwargs)

    loop = type("Own", (base,), {name: own} if on == "class" else {})()
    if on == "instance":
        setattr(loop, name, own.__get__(loop))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = run(loop, loop.create_connection(Recorder, *listener.getsockname()))
        close(loop, transport)
    loop.close()
    assert calls == [name]


def test_a_replaced_socket_class_is_used(loop, no_leaks, monkeypatch):
    """Tests that forbid the network, and proxies, put their own class there."""
    made = []

    class Own(socket.socket):
        def __init__(self, *args, **kwargs):
            made.append(args)
            super().__init__(*args, **kwargs)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(socket, "socket", Own)
        transport, _ = run(loop, loop.create_connection(Recorder, *listener.getsockname()))
        monkeypatch.undo()
        close(loop, transport)
    assert made


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_replaced_connect_of_sockets_is_called(loop, no_leaks, monkeypatch, tmp_path, family):
    """pytest-socket's `allow_hosts` puts a function there that refuses what is not allowed."""
    if family == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
    else:
        listener = socket.socket(socket.AF_UNIX)
        address = str(tmp_path / "socket")
        listener.bind(address)
        listener.listen()

    def refuse(sock, asked):
        raise ZeroDivisionError(f"{type(sock).__name__} to {asked}")

    def connect():
        if family == "tcp":
            return loop.create_connection(Recorder, *address)
        return loop.create_unix_connection(Recorder, address)

    with listener:
        monkeypatch.setattr(socket.socket, "connect", refuse)
        with pytest.raises(ZeroDivisionError, match=f"socket to {re.escape(str(address))}"):
            run(loop, connect())
        monkeypatch.undo()
        transport, _ = run(loop, connect())
        close(loop, transport)


def test_local_addr_is_resolved_by_the_loop(loop, no_leaks, monkeypatch):
    """zuvloop#183: a name there does not hold the loop up."""
    asked = []
    original = loop.getaddrinfo

    async def getaddrinfo(host, *args, **kwargs):
        asked.append(host)
        return await original("127.0.0.1" if host == "here" else host, *args, **kwargs)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = run(loop, loop.create_connection(Recorder, *listener.getsockname(), local_addr=("here", 0)))
        close(loop, transport)
    assert "here" in asked
