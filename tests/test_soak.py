"""Thousands of connections open and close: descriptors and memory return to where they were."""

from __future__ import annotations

import asyncio
import gc
import resource

import pytest
from harness import Recorder, descriptors, resident_bytes, run, turns

CONNECTIONS = 5000


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


@pytest.mark.timeout(180)
def test_connections_open_and_close(loop, loop_name, no_leaks):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * 500 + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    server = run(loop, loop.create_server(Echo, "127.0.0.1", 0, backlog=600))
    address = server.sockets[0].getsockname()

    async def one(number):
        transport, protocol = await loop.create_connection(Recorder, *address)
        transport.write(b"hello" * 100)
        assert await protocol.wait_received(500) == b"hello" * 100
        if number % 2:
            transport.close()
        else:
            transport.abort()
        await protocol.lost

    async def some(count, at_once):
        for first in range(0, count, at_once):
            await asyncio.gather(*(one(first + number) for number in range(at_once)))

    loop.run_until_complete(some(500, 500))  # what is allocated once
    turns(loop, 5)
    gc.collect()
    fds, memory = descriptors(), resident_bytes()
    loop.run_until_complete(some(CONNECTIONS, 500))
    turns(loop, 5)
    gc.collect()
    assert descriptors() == fds
    assert resident_bytes() - memory < 8 << 20
    server.close()
    run(loop, server.wait_closed())
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_callbacks_and_timers_by_the_hundred_thousand(loop):
    """uvloop#191, uvloop#239: with the collector off, memory stays flat."""

    def burst():
        for _ in range(20_000):
            loop.call_soon(int)
            loop.call_later(1000, int).cancel()
        turns(loop)

    gc.disable()
    try:
        burst()
        burst()
        before = resident_bytes()
        for _ in range(8):
            burst()
        assert resident_bytes() - before < 8 << 20
    finally:
        gc.enable()
