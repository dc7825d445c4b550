"""A program for `test_faults.py`: does something with a loop while system calls of this process are made to fail.

Its arguments are the loop, the scenario, the seed, and the number of an open file that takes the outcome as JSON. It says
"ready", waits for a line, and only then begins, so that whoever makes its calls fail can start with the first one.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import hashlib
import json
import os
import random
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness import LOOPS, Loop, descriptors

#: How many bytes go each way.
SIZE = 400_000
#: How many clients a serving program serves.
CLIENTS = 6

Outcome = dict[str, Any]


def digest(data: bytes | bytearray) -> str:
    """The checksum that both ends compare."""
    return hashlib.sha256(data).hexdigest()


def payload(seed: int) -> bytes:
    """The bytes of a seed."""
    return random.Random(seed).randbytes(SIZE)


def pieces(seed: int) -> list[bytes]:
    """The bytes of a seed, cut into small and large pieces."""
    rng, data = random.Random(seed + 1), payload(seed)
    found, start = [], 0
    while start < len(data):
        end = start + rng.choice([1, 100, 5_000, 40_000, 120_000])
        found.append(data[start:end])
        start = end
    return found


def surfaced(error: BaseException | None) -> list[Any] | None:
    """An error as the outcome has it."""
    return error and [type(error).__name__, getattr(error, "errno", None)]


def children() -> str:
    """The processes that this thread has started and that nobody has reaped."""
    return Path("/proc/thread-self/children").read_text()


class Exchange(asyncio.Protocol):
    """Sends all pieces as fast as flow control lets it, and keeps what comes back."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()
        self.room.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.room.set()
        self.lost.set_result(exc)


class BufferedExchange(Exchange, asyncio.BufferedProtocol):
    """The same with a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(20_000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]


async def exchange(loop: Loop, seed: int, factory: Callable[[], Exchange]) -> Outcome:
    """Write all, half-close, and read until the peer has sent all of it back."""
    try:
        transport, protocol = await loop.create_connection(factory, "127.0.0.1", int(sys.argv[5]))
    except OSError as error:
        return {"error": surfaced(error), "received": digest(b""), "count": 0}
    together: list[bytes] = []
    for piece in pieces(seed):
        await protocol.room.wait()
        together.append(piece)
        if len(together) == 3:
            transport.write(together[0])
            transport.writelines(together[1:])
            together = []
            await asyncio.sleep(0)
    transport.writelines(together)
    if not transport.is_closing():
        transport.write_eof()
    error = await protocol.lost
    return {"error": surfaced(error), "received": digest(protocol.received), "count": len(protocol.received)}


async def protocol(loop: Loop, seed: int) -> Outcome:
    """A stream transport with a protocol."""
    return await exchange(loop, seed, Exchange)


async def buffered(loop: Loop, seed: int) -> Outcome:
    """A stream transport with a buffered protocol."""
    return await exchange(loop, seed, BufferedExchange)


async def streams(loop: Loop, seed: int) -> Outcome:
    """A stream reader and writer."""
    received = bytearray()

    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces(seed):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    error: BaseException | None = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[5]))
    except OSError as refused:
        return {"error": surfaced(refused), "received": digest(b""), "count": 0}
    sending = loop.create_task(send(writer))
    try:
        while data := await reader.read(50_000):
            received += data
        await sending
    except OSError as broken:
        error = broken
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return {"error": surfaced(error), "received": digest(received), "count": len(received)}


async def sock(loop: Loop, seed: int) -> Outcome:
    """The loop's methods of sockets."""
    received = bytearray()

    async def send() -> None:
        try:
            for piece in pieces(seed):
                await loop.sock_sendall(connection, piece)
        finally:
            connection.shutdown(socket.SHUT_WR)

    error: BaseException | None = None
    with socket.socket() as connection:
        connection.setblocking(False)
        sending = None
        try:
            await loop.sock_connect(connection, ("127.0.0.1", int(sys.argv[5])))
            sending = loop.create_task(send())
            while data := await loop.sock_recv(connection, 50_000):
                received += data
            await sending
        except OSError as broken:
            error = broken
        if sending is not None:
            sending.cancel()
            results = await asyncio.gather(sending, return_exceptions=True)
            error = error or next((result for result in results if isinstance(result, OSError)), None)
    return {"error": surfaced(error), "received": digest(received), "count": len(received)}


async def serve(loop: Loop, seed: int) -> Outcome:
    """A server that sends back what each of its clients sent."""
    served: list[BaseException | None] = []
    done = loop.create_future()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def connection_lost(self, exc: BaseException | None) -> None:
            served.append(exc)
            if len(served) == CLIENTS:
                done.set_result(None)

    listener = socket.socket(fileno=os.dup(int(sys.argv[5])))
    server = await loop.create_server(Echo, sock=listener)
    await done
    server.close()
    await server.wait_closed()
    return {"error": surfaced(next(filter(None, served), None)), "served": len(served)}


async def spawn(loop: Loop, seed: int) -> Outcome:
    """Spawns twice: what fails the first time must not fail again, nor leave anything behind."""
    data = payload(seed)
    errors, echoed = [], []
    for _ in range(2):
        try:
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate(data)
            echoed.append(out == data)
        except OSError as error:
            errors.append(surfaced(error))
    # What the failed attempt left behind is reaped by the loop, whenever it comes to it.
    while children():
        await asyncio.sleep(0.01)
    return {"error": errors[0] if errors else None, "errors": len(errors), "echoed": echoed}


async def pipes(loop: Loop, seed: int) -> Outcome:
    """Writes to one end of a pipe and reads the other."""
    read, write = os.pipe()

    class Reading(asyncio.Protocol):
        def __init__(self) -> None:
            self.received = bytearray()
            self.lost = loop.create_future()

        def data_received(self, data: bytes) -> None:
            self.received += data

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost.set_result(exc)

    class Writing(Reading, asyncio.BaseProtocol):
        pass

    _, reading = await loop.connect_read_pipe(Reading, os.fdopen(read, "rb", 0))
    transport, writing = await loop.connect_write_pipe(Writing, os.fdopen(write, "wb", 0))
    for piece in pieces(seed):
        transport.write(piece)
    transport.write_eof()
    errors = [await writing.lost, await reading.lost]
    sent = payload(seed)
    return {
        "error": surfaced(next(filter(None, errors), None)),
        "whole": reading.received == sent,
        "prefix": sent.startswith(reading.received),
    }


async def threads(loop: Loop, seed: int) -> Outcome:
    """Another thread calls back and forth; each call meets a loop that waits, or is about to."""
    called = 0
    done = loop.create_future()
    again = threading.Semaphore(0)

    def call() -> None:
        nonlocal called
        called += 1
        if called == 200:
            done.set_result(None)
        again.release()

    def caller() -> None:
        for _ in range(200):
            loop.call_soon_threadsafe(call)
            again.acquire()

    thread = threading.Thread(target=caller)
    thread.start()
    await done
    thread.join()
    return {"error": None, "called": called}


SCENARIOS: dict[str, Callable[[Loop, int], Awaitable[Outcome]]] = {
    scenario.__name__: scenario for scenario in [protocol, buffered, streams, sock, serve, spawn, pipes, threads]
}


def create(new_loop: Callable[[], Loop]) -> Outcome:
    """Make a loop twice: the first time it may fail."""
    errors = []
    for _ in range(2):
        try:
            loop = new_loop()
        except OSError as error:
            errors.append(surfaced(error))
        else:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    return {"error": errors[0] if errors else None, "errors": len(errors)}


def main() -> None:
    """Run the scenario and write what came of it."""
    name, scenario, seed, result = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    faulthandler.enable()
    pr_set_ptracer, anyone = 0x59616D61, -1
    ctypes.CDLL(None).prctl(pr_set_ptracer, anyone)
    # Whatever is opened once and for all is opened now.
    LOOPS[name]().close()
    unhandled: list[str] = []
    gc.collect()
    before = descriptors()
    loop = None if scenario == "create" else LOOPS[name]()
    print("ready", flush=True)
    sys.stdin.readline()
    if loop is None:
        outcome = create(LOOPS[name])
    else:
        loop.set_exception_handler(lambda _, context: unhandled.append(context["message"]))
        outcome = loop.run_until_complete(SCENARIOS[scenario](loop, seed))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    del loop
    gc.collect()
    after = descriptors()
    outcome["unhandled"] = unhandled
    outcome["leaked"] = {fd: after[fd] for fd in after.keys() - before.keys()}
    outcome["closed"] = {fd: before[fd] for fd in before.keys() - after.keys()}
    os.pwrite(result, json.dumps(outcome).encode(), 0)


if __name__ == "__main__":
    main()
