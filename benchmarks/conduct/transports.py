"""Checks of stream transports: when bytes leave, what a protocol is told, and when."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
from typing import Any

from benchmarks.conduct.callbacks import VARIABLE
from benchmarks.conduct.check import (
    BULK,
    DATAGRAMS,
    PROGRAMS,
    RECEIVING,
    TRANSPORTS,
    Loop,
    check,
    demand,
    expect,
    from_callback,
    pass_turns,
    run,
    settle,
)
from benchmarks.conduct.ends import PATIENCE, Recorder, accepted, has_at_once, pair

MEBIBYTE = 1 << 20


@check(*TRANSPORTS)
def a_write_leaves_at_once(loop: Loop) -> None:
    """With nothing queued, what `write` is given is in the kernel when it returns."""

    async def main() -> None:
        async with pair() as (protocol, far):
            for _ in range(20):
                protocol.transport.write(b"of a task")
                has_at_once(far, b"of a task")
                await asyncio.sleep(0)

            def write() -> None:
                protocol.transport.write(b"of a callback")
                has_at_once(far, b"of a callback")

            await from_callback(write)

    run(loop, main())


@check(*TRANSPORTS)
def an_answer_leaves_at_once(loop: Loop) -> None:
    """What `data_received` writes to a TCP connection is in the kernel when `write` returns, after many answers too."""

    async def main() -> None:
        ends: list[socket.socket] = []

        def answer(transport: asyncio.Transport, data: bytes) -> None:
            transport.write(data)
            has_at_once(ends[0], data)

        async with accepted(1, answer) as ((protocol, end),):
            ends.append(end)
            for number in range(50):
                end.send(f"{number:04}".encode())
                await protocol.receives()

    run(loop, main())


@check(*TRANSPORTS)
def answers_of_a_turn_leave_at_once(loop: Loop) -> None:
    """Where several connections are ready in a turn, each one's answer is in the kernel when `write` returns."""

    async def main() -> None:
        ends: dict[int, socket.socket] = {}
        protocols: list[Recorder] = []

        def answer(transport: asyncio.Transport, data: bytes) -> None:
            transport.write(data)
            # Where one answer is late, the wait for it is enough.
            if not any(protocol.failure for protocol in protocols):
                has_at_once(ends[id(transport)], data)

        async with accepted(8, answer) as connections:
            protocols.extend(protocol for protocol, _ in connections)
            ends.update((id(protocol.transport), end) for protocol, end in connections)
            for _ in range(5):
                for number, (_, end) in enumerate(connections):
                    end.send(f"{number:04}".encode())
                await asyncio.gather(*[protocol.receives() for protocol, _ in connections])

    run(loop, main())


@check(*TRANSPORTS)
def a_header_leaves_while_its_callback_waits(loop: Loop) -> None:
    """Where turns so far had two writes, a peer for which the callback waits in between has the first by and by."""

    async def main() -> None:
        ends: list[socket.socket] = []

        def answer(transport: asyncio.Transport, data: bytes) -> None:
            transport.write(b"header")
            if data == b"last":
                has_at_once(ends[0], b"header")
            transport.write(b"body")

        async with accepted(1, answer) as ((protocol, end),):
            ends.append(end)
            for _ in range(5):
                end.send(b"next")
                await protocol.receives()
                await pass_turns(2)
                has_at_once(end, b"headerbody")
            end.send(b"last")
            await protocol.receives()

    run(loop, main())


@check("echo_streams_*", "aiohttp", "websockets")
def a_stream_writer_writes_at_once(loop: Loop) -> None:
    """What `StreamWriter.write` is given is in the kernel when it returns."""

    async def main() -> None:
        near, far = socket.socketpair()
        far.settimeout(PATIENCE)
        with far:
            reader, writer = await asyncio.open_connection(sock=near)
            for _ in range(20):
                far.send(b"question")
                await reader.readexactly(8)
                writer.write(b"answer")
                has_at_once(far, b"answer")
            writer.close()
            await writer.wait_closed()

    run(loop, main())


@check("echo_*_100k", "echo_protocol_*")
def a_large_write_begins_at_once(loop: Loop) -> None:
    """Of a large write, what the kernel takes is there when `write` returns, and the rest is queued."""

    async def main() -> None:
        async with pair() as (protocol, far):
            protocol.transport.write(bytes(4 * MEBIBYTE))
            queued = protocol.transport.get_write_buffer_size()
            demand(0 < queued < 4 * MEBIBYTE, f"get_write_buffer_size() is {queued}")
            has_at_once(far, bytes(1000))
            await empty(far, 4 * MEBIBYTE - 1000)

    run(loop, main())


@check("echo_streams_*", "echo_*_100k", *PROGRAMS)
def flow_control_is_told_at_once(loop: Loop) -> None:
    """`pause_writing` is called within the `write` that goes beyond the limit, `resume_writing` when all has left."""

    async def main() -> None:
        async with pair() as (protocol, far):
            protocol.transport.set_write_buffer_limits(high=1000, low=10)
            protocol.transport.write(bytes(4 * MEBIBYTE))
            expect(protocol.told, ["made", "pause"], "what the protocol was told within write()")
            await empty(far, 4 * MEBIBYTE)
            await settle()
            expect(protocol.told, ["made", "pause", "resume"], "what the protocol was told")
            expect(protocol.transport.get_write_buffer_size(), 0, "what is queued then")

    run(loop, main())


@check(*RECEIVING)
def bytes_stay_as_received(loop: Loop) -> None:
    """`data_received` is given `bytes`, which stay as they are."""

    async def main() -> None:
        async with pair() as (protocol, far):
            for number in range(5):
                far.send(bytes([number]) * 1000)
                await protocol.receives()
            received = protocol.told[1:]
            expect({type(data) for data in received}, {bytes}, "what it was given")
            expect(received, [bytes([number]) * 1000 for number in range(5)], "what it has received")

    run(loop, main())


@check("echo_streams_*", *PROGRAMS)
def a_paused_transport_is_silent(loop: Loop) -> None:
    """After `pause_reading`, be it in `data_received`, nothing is received until `resume_reading`."""

    async def main() -> None:
        async with pair(lambda transport, _: transport.pause_reading()) as (protocol, far):
            far.send(b"first")
            await protocol.receives()
            expect(protocol.transport.is_reading(), False, "is_reading()")
            far.send(b"second")
            await settle()
            expect(protocol.told, ["made", b"first"], "what it was told while it paused")
            protocol.transport.resume_reading()
            await protocol.receives()
            expect(protocol.told, ["made", b"first", b"second"], "what it was told")

    run(loop, main())


@check(*RECEIVING, same=True)
def callbacks_run_behind_what_is_ready(loop: Loop) -> object:
    """What `data_received` schedules runs behind all that is ready in the same turn."""
    order: list[str] = []

    async def main() -> None:
        def note(transport: asyncio.Transport, data: bytes) -> None:
            order.append(f"received {data!r}")
            loop.call_soon(order.append, f"scheduled by {data!r}")

        async with pair(note) as (first, one), pair(note) as (second, two):
            one.send(b"1")
            two.send(b"2")
            await first.receives()
            await second.receives()
            await pass_turns(2)

    run(loop, main())
    return order


@check(*RECEIVING, same=True)
def a_turn_for_each_read(loop: Loop) -> object:
    """What `data_received` schedules runs before what has come meanwhile is received."""
    order: list[str] = []

    async def main() -> None:
        def note(transport: asyncio.Transport, data: bytes) -> None:
            order.append(f"received {data!r}")
            loop.call_soon(order.append, f"scheduled by {data!r}")
            if len(order) < 8:
                ends[0].send(b"%d" % len(order))

        ends: list[socket.socket] = []
        async with pair(note) as (_, far):
            ends.append(far)
            far.send(b"0")
            await settle()

    run(loop, main())
    return order


@check("echo_buffered_100k", same=True)
def a_turn_for_each_buffer(loop: Loop) -> object:
    """What `buffer_updated` schedules runs before the buffer is filled again, though more waits already."""
    order: list[str] = []

    class Protocol(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(4)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            data = bytes(self.buffer[:nbytes])
            order.append(f"received {data!r}")
            loop.call_soon(order.append, f"scheduled by {data!r}")

    receive_what_waits(loop, b"0123456789", Protocol)
    return order


@check(*BULK)
def what_waits_is_one_piece(loop: Loop) -> None:
    """What waits in the socket is received in one piece of up to 256 KiB: a `StreamReader` may be full by it."""
    pieces: list[int] = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            pieces.append(len(data))

    receive_what_waits(loop, bytes(1 << 17), Protocol)
    expect(pieces, [1 << 17], "the pieces")


def receive_what_waits(loop: Loop, waiting: bytes, protocol: type[asyncio.BaseProtocol]) -> None:
    """Makes a connection of a socket in which all of these bytes wait already, and ends it when they are received."""

    async def main() -> None:
        near, far = socket.socketpair()
        with far:
            far.setblocking(False)
            expect(far.send(waiting), len(waiting), "the bytes that wait")
            transport, _ = await loop.create_connection(protocol, sock=near)
            await settle()
            transport.abort()
            await pass_turns(3)

    run(loop, main())


@check(*RECEIVING)
def protocols_keep_their_context(loop: Loop) -> None:
    """A protocol is called in a copy of the context in which its connection, or its server, was made."""
    seen: dict[str, str] = {}

    async def main() -> None:
        near, far = socket.socketpair()

        class Protocol(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                seen["made"] = VARIABLE.get()
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                seen["received"] = VARIABLE.get()
                super().data_received(data)

        async def connect() -> Protocol:
            VARIABLE.set("the connection's")
            return (await loop.create_connection(Protocol, sock=near))[1]

        with far:
            protocol = await loop.create_task(connect(), context=contextvars.copy_context())
            far.send(b"data")
            await protocol.receives()
            protocol.transport.abort()
            await protocol.lost

    run(loop, main())
    expect(seen, {"made": "the connection's", "received": "the connection's"}, "what the protocol saw")


@check()
def an_error_of_a_protocol_is_fatal_once(loop: Loop) -> None:
    """`data_received` that raises is told to the exception handler, and ends its connection, once."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    told: list[object] = []
    error = ZeroDivisionError()

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise error

        def connection_lost(self, exc: Exception | None) -> None:
            told.append(exc)

    async def main() -> None:
        near, far = socket.socketpair()
        with far:
            await loop.create_connection(Protocol, sock=near)
            far.send(b"data")
            far.settimeout(PATIENCE)
            await settle()
            expect(told, [error], "what connection_lost was told")
            expect(far.recv(1), b"", "what the other end reads then")

    run(loop, main())
    expect([report.get("exception") for report in reports], [error], "what was reported")


@check("accept_rate")
def the_end_comes_once_and_later(loop: Loop) -> None:
    """`connection_lost` is called once, in a turn behind `close`, `abort` or the end that the peer makes."""

    async def main() -> None:
        for end in ("close", "abort"):
            async with pair() as (protocol, _):
                getattr(protocol.transport, end)()
                expect(protocol.told, ["made"], f"what the protocol was told within {end}()")
                await protocol.lost
                await pass_turns()
                expect(protocol.told, ["made", ("lost", None)], f"what the protocol was told after {end}()")
        async with pair() as (protocol, far):
            far.close()
            await protocol.lost
            expect(protocol.told, ["made", "eof", ("lost", None)], "what the protocol was told after the peer's end")

    run(loop, main())


@check("uvicorn", "fastapi", "aiohttp", "websockets")
def protocols_may_be_changed(loop: Loop) -> None:
    """`set_protocol` changes who is told, from the next bytes on."""

    async def main() -> None:
        async with pair() as (protocol, far):
            other = Recorder()
            other.transport = protocol.transport
            protocol.act = lambda transport, _: transport.set_protocol(other)
            far.send(b"first")
            await protocol.receives()
            far.send(b"second")
            await other.receives()
            expect((protocol.told, other.told), (["made", b"first"], [b"second"]), "what the two were told")
            expect(protocol.transport.get_protocol() is other, True, "whether get_protocol() answers the other")
            protocol.transport.set_protocol(protocol)

    run(loop, main())


@check(*DATAGRAMS)
def a_datagram_leaves_at_once(loop: Loop) -> None:
    """With nothing queued, what `sendto` is given is in the kernel when it returns."""

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            far.settimeout(PATIENCE)
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            for _ in range(20):
                transport.sendto(b"datagram", far.getsockname())
                has_at_once(far, b"datagram", "sendto()")
            transport.close()
            await pass_turns(2)

    run(loop, main())


@check("udp_many", "udp_flood", same=True)
def a_turn_for_each_datagram(loop: Loop) -> object:
    """What `datagram_received` schedules for one datagram runs before the next one is told."""
    order: list[str] = []

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            order.append(f"received {data!r}")
            loop.call_soon(order.append, f"scheduled by {data!r}")

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
            for number in range(4):
                far.sendto(b"%d" % number, transport.get_extra_info("sockname"))
            await settle()
            transport.close()
            await pass_turns(2)

    run(loop, main())
    return order


async def empty(end: socket.socket, count: int) -> None:
    """Reads so many bytes from the other end, and lets the loop send them meanwhile."""
    end.setblocking(False)
    while count:
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            count -= len(end.recv(count, socket.MSG_DONTWAIT))


CHECKS = [
    a_write_leaves_at_once,
    an_answer_leaves_at_once,
    answers_of_a_turn_leave_at_once,
    a_header_leaves_while_its_callback_waits,
    a_stream_writer_writes_at_once,
    a_large_write_begins_at_once,
    flow_control_is_told_at_once,
    bytes_stay_as_received,
    a_paused_transport_is_silent,
    callbacks_run_behind_what_is_ready,
    a_turn_for_each_read,
    a_turn_for_each_buffer,
    what_waits_is_one_piece,
    protocols_keep_their_context,
    an_error_of_a_protocol_is_fatal_once,
    the_end_comes_once_and_later,
    protocols_may_be_changed,
    a_datagram_leaves_at_once,
    a_turn_for_each_datagram,
]
