"""What the tests of datagram transports share: a protocol that keeps a trace, endpoints, and a clogged queue."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from harness import run

LOCAL = ("127.0.0.1", 0)


class Endpoint(asyncio.DatagramProtocol):
    """A protocol that writes each of its callbacks to a trace and keeps what it received."""

    def __init__(self, trace=None):
        self.trace = [] if trace is None else trace
        self.received = []
        self.errors = []
        self.transport = None
        self.changed = asyncio.Event()
        self.lost = None

    def note(self, text):
        self.trace.append(text)
        self.changed.set()

    def connection_made(self, transport):
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()
        self.note("connection_made")

    def datagram_received(self, data, addr):
        self.received.append((data, addr))
        self.note(f"datagram_received {data[:20]!r} {len(data)}")

    def error_received(self, exc):
        self.errors.append(exc)
        self.note(f"error_received {type(exc).__name__} {exc}")

    def pause_writing(self):
        self.note("pause_writing")

    def resume_writing(self):
        self.note("resume_writing")

    def connection_lost(self, exc):
        self.note(f"connection_lost {type(exc).__name__}")
        if not self.lost.done():
            self.lost.set_result(exc)

    async def wait_until(self, condition):
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def wait_received(self, count):
        await self.wait_until(lambda: len(self.received) >= count)
        return self.received


def opened(loop, factory=Endpoint, **how):
    """A transport and its protocol, connection_made already called."""
    return run(loop, loop.create_datagram_endpoint(factory, **how))


def bound(loop, factory=Endpoint):
    """An endpoint on a port of its own, connected to nobody."""
    return opened(loop, factory, local_addr=LOCAL)


@contextlib.contextmanager
def clogged_at(path):
    """A Unix datagram socket at `path` whose queue is full; the function takes all that is in it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        sock.bind(path)
        sock.setblocking(False)
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"filler", path)

        def drain():
            got = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(sock.recv(1 << 20))
            return [data for data in got if data != b"filler"]

        yield drain


def queueing(loop, path, trace=None):
    """An endpoint connected to a peer that takes nothing more."""
    return opened(loop, lambda: Endpoint(trace), remote_addr=path, family=socket.AF_UNIX)
