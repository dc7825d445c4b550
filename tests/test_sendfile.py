"""Sending files: all of them, parts of them, to peers that are slow, gone or TLS."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket

import pytest

from harness import (
    PATIENCE,
    Recorder,
    attach,
    close,
    fill,
    outcome,
    receive_exactly,
    received_in_thread,
    run,
    same_as_stock,
    stock_loop,
    tcp_pair,
    turns,
)

SIZE = 3 * 1024 * 1024 + 17


@pytest.fixture(scope="module")
def payload(tmp_path_factory):
    """A file of some megabytes, and its bytes."""
    data = os.urandom(1024) * (SIZE // 1024) + b"z" * (SIZE % 1024)
    path = tmp_path_factory.mktemp("sendfile") / "payload"
    path.write_bytes(data)
    return path, data


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (1000, None), (0, 1), (5, 1024 * 1024), (SIZE - 3, 100), (SIZE, None), (SIZE + 5, 10), (0, SIZE * 2)],
)
def test_a_part_of_a_file_is_sent_and_the_position_is_that_of_stock_asyncio(loop, pair, payload, offset, count):
    path, data = payload
    near, far = pair
    positions = []

    def send(loop):
        with path.open("rb") as file:
            sent = run(loop, loop.sock_sendfile(near, file, offset, count))
            positions.append((sent, file.tell()))
            return sent

    expected = data[offset:][: count or None]
    for which in (None, loop):
        with contextlib.ExitStack() as stack:
            chosen = which or stack.enter_context(stock_loop())
            received = run(
                chosen, both(chosen, send_of(chosen, near, path, offset, count, positions), far, len(expected))
            )
            assert received == expected
    assert positions[0] == positions[1]
    assert positions[1][0] == len(expected)


async def send_of(loop, near, path, offset, count, positions):
    """Send a part of a file; note what that answers and where the file is then."""
    with path.open("rb") as file:
        sent = await loop.sock_sendfile(near, file, offset, count)
        positions.append((sent, file.tell()))


async def both(loop, sending, far, count):
    """Send, and receive in the executor meanwhile."""
    receiving = loop.run_in_executor(None, receive_exactly, far, count)
    await sending
    received = await receiving
    await loop.shutdown_default_executor()
    loop._default_executor = None
    loop._executor_shutdown_called = False
    return received


@pytest.mark.parametrize("kind", ["pipe", "memory", "directory", "closed"])
@pytest.mark.parametrize("fallback", [True, False])
def test_what_is_no_regular_file_ends_as_on_stock_asyncio(loop, tmp_path, kind, fallback):
    def send(loop):
        near, far = tcp_pair()
        with near, far, contextlib.ExitStack() as stack:
            if kind == "pipe":
                reading, writing = os.pipe()
                os.write(writing, b"from a pipe")
                os.close(writing)
                file = stack.enter_context(open(reading, "rb", buffering=0))
                # A pipe cannot be sought, which is all that asyncio's fallback would do with it first.
            elif kind == "memory":
                file = io.BytesIO(b"from memory")
            elif kind == "directory":
                number = os.open(tmp_path, os.O_RDONLY)
                stack.callback(os.close, number)
                file = type("Directory", (), {"fileno": lambda self: number})()
            else:
                file = open(__file__, "rb")  # noqa: SIM115
                file.close()
            try:
                return run(loop, loop.sock_sendfile(near, file, 0, 5, fallback=fallback))
            finally:
                if loop._default_executor is not None:
                    run(loop, loop.shutdown_default_executor())
                    loop._default_executor = None
                    loop._executor_shutdown_called = False

    same_as_stock(loop, send)


@pytest.mark.parametrize(
    "arguments",
    [(-1, None), ("0", None), (0, 0), (0, -1), (0, "1"), (1.5, None)],
    ids=repr,
)
def test_wrong_arguments_are_refused_as_on_stock_asyncio(loop, pair, payload, arguments):
    near, _ = pair

    def send(loop):
        with payload[0].open("rb") as file:
            return run(loop, loop.sock_sendfile(near, file, *arguments))

    assert outcome(lambda: send(loop))[0] in ("ValueError", "TypeError")
    same_as_stock(loop, send)


def test_a_peer_that_is_gone_ends_it_as_on_stock_asyncio(loop, payload):
    def send(loop):
        near, far = tcp_pair()
        with near, payload[0].open("rb") as file:
            far.close()
            fill(near)
            return run(loop, loop.sock_sendfile(near, file, fallback=False))

    def send_halfway(loop):
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, payload[0].open("rb") as file:
            task = loop.create_task(loop.sock_sendfile(near, file, fallback=False))
            turns(loop, 3)
            far.close()
            try:
                return run(loop, task)
            finally:
                assert file.tell() > 0

    with contextlib.suppress(ConnectionResetError):
        same_as_stock(loop, send)
    assert same_as_stock(loop, send_halfway)[0] == "BrokenPipeError"


def test_cancelled_halfway_it_leaves_no_watcher(loop, unix, payload):
    near, far = unix
    with payload[0].open("rb") as file:
        task = loop.create_task(loop.sock_sendfile(near, file))
        turns(loop, 4)
        assert not task.done()
        task.cancel()
        turns(loop, 3)
        assert task.cancelled()
        assert not loop.remove_writer(near)
        # The socket is there for other things.
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while far.recv(1 << 20):
                pass
        far.settimeout(PATIENCE)
        run(loop, loop.sock_sendall(near, b"next"))
        assert receive_exactly(far, 4) == b"next"


def test_a_socket_of_a_transport_is_refused(loop, connection, payload):
    transport, _, _ = connection
    sock = transport._sock

    def send(loop):
        with payload[0].open("rb") as file:
            return run(loop, loop.sock_sendfile(sock, file, fallback=False))

    assert "is used by transport" in outcome(lambda: send(loop))[1]


def test_a_transport_sends_a_file_between_its_writes(loop, pair, payload):
    path, data = payload
    near, far = pair
    transport, protocol = attach(loop, near)
    with received_in_thread(far) as parts, path.open("rb") as file:
        transport.write(b"head" * 50_000)

        async def send():
            sending = loop.create_task(loop.sendfile(transport, file, 10))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"x")
            assert not transport.is_reading()
            assert await sending == SIZE - 10
            assert transport.is_reading()
            assert loop._transports[near.fileno()] is transport
            transport.write(b"tail")
            transport.close()
            await protocol.lost

        run(loop, send())
        assert file.tell() == SIZE
    assert parts == [b"head" * 50_000 + data[10:] + b"tail"]


def test_an_accepted_connection_sends_a_file(loop, payload):
    path, data = payload
    made = []
    server = run(loop, loop.create_server(lambda: made.append(Recorder()) or made[-1], "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname(), PATIENCE) as client:
        while not made or made[0].transport is None:
            turns(loop)
        with received_in_thread(client) as parts, path.open("rb") as file:
            assert run(loop, loop.sendfile(made[0].transport, file)) == SIZE
            made[0].transport.close()
            run(loop, made[0].lost)
        assert parts == [data]
    server.close()
    run(loop, server.wait_closed())


def test_a_transport_that_is_cancelled_halfway_goes_on_reading(loop, unix, payload):
    near, far = unix
    transport, protocol = attach(loop, near)
    with payload[0].open("rb") as file:
        task = loop.create_task(loop.sendfile(transport, file))
        turns(loop, 5)
        assert not task.done()
        task.cancel()
        turns(loop, 3)
        assert task.cancelled()
    far.send(b"hello")
    assert run(loop, protocol.wait_received(5)) == b"hello"
    close(loop, transport)
