"""Random traffic: sizes, pauses and turns drawn from a seed, between protocols that take all that there is, or little.

Whatever a driver does with it (receive ahead, change its ways with the sizes, run out of buffers, send later), every
byte arrives once and in order. HOTLOOP_TRAFFIC_SEED replays a seed that a failure tells.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any

import pytest

from harness import Loop, run

SEEDS = [int(seed) for seed in os.environ.get("HOTLOOP_TRAFFIC_SEED", "").split()] or [1, 2, 3]

#: What one write has, in bytes: about the limits below which a driver does something else than above.
SIZES = (1, 10, 1000, 4095, 4096, 4097, 16_383, 16_384, 16_385, 70_000, 300_000)


class End:
    """One end of a connection: writes pieces when it likes, pauses when it likes, and keeps a count of what comes."""

    def __init__(self, seed: int, sends: int) -> None:
        self.random = random.Random(seed)
        #: What the other end is to receive.
        self.stream = random.Random(seed * 2)
        self.pieces = [self.random.choice(SIZES) for _ in range(sends)]
        self.sent, self.received = bytearray(), bytearray()
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.writable = True
        self.over = self.loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=self.random.choice([0, 10_000, 100_000]))
        self.loop.call_soon(self.go_on)

    def go_on(self) -> None:
        """Write up to three pieces, while nobody has asked for a pause; then pause or not; then once more."""
        if self.transport.is_closing():
            return
        for _ in range(self.random.randrange(4)):
            if self.pieces and self.writable:
                data = self.stream.randbytes(self.pieces.pop())
                self.sent += data
                self.transport.write(data)
        if self.random.random() < 0.1 and self.transport.is_reading():
            self.transport.pause_reading()
            self.loop.call_later(self.random.choice([0, 0.001]), self.read_again)
        if self.pieces:
            if self.random.random() < 0.8:
                self.loop.call_soon(self.go_on)
            else:
                self.loop.call_later(0.0005, self.go_on)
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def read_again(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, error: BaseException | None) -> None:
        if not self.over.done():
            self.over.set_result(error)


class Whole(End, asyncio.Protocol):
    """Takes what there is."""

    def data_received(self, data: bytes) -> None:
        self.received += data


class InPieces(End, asyncio.BufferedProtocol):
    """Takes as much as it has room for at the moment."""

    def get_buffer(self, sizehint: int) -> memoryview:
        self.room = memoryview(bytearray(self.random.choice(SIZES)))
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.room[:nbytes]


async def connected(kinds: tuple[type[End], type[End]], seed: int, sends: int) -> tuple[End, End]:
    """Two ends of a connection, both writing."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair() if seed % 2 else tcp_sockets()
    ends = []
    for number, (kind, sock) in enumerate(zip(kinds, (near, far), strict=True)):
        sock.setblocking(False)
        if seed % 3 == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        _, end = await loop.create_connection(lambda kind=kind, n=number: kind(seed * 10 + n, sends), sock=sock)
        ends.append(end)
    return ends[0], ends[1]


def tcp_sockets() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        return listener.accept()[0], far


async def finished(*ends: End) -> None:
    """Wait until both ends have received what the other has sent, and close them."""
    one, other = ends
    while one.pieces or other.pieces or len(one.received) < len(other.sent) or len(other.received) < len(one.sent):
        await asyncio.sleep(0.001)
    assert one.received == other.sent
    assert other.received == one.sent
    for end in ends:
        end.transport.close()
        await end.over


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "kinds", [(Whole, Whole), (Whole, InPieces), (InPieces, InPieces)], ids=["whole", "mixed", "pieces"]
)
def test_random_traffic_is_whole(loop: Loop, kinds: tuple[type[End], type[End]], seed: int) -> None:
    async def main() -> None:
        pairs = [await connected(kinds, seed * 100 + number, 15) for number in range(6)]
        await asyncio.gather(*(finished(*pair) for pair in pairs))

    run(loop, main())


def test_more_at_once_than_any_driver_has_buffers_for(loop: Loop) -> None:
    """Two hundred peers each send a burst while nobody takes it, again and again."""

    async def main() -> None:
        socks, readers = [], []
        for _ in range(200):
            near, far = socket.socketpair()
            far.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=near)
            socks.append(far)
            readers.append((reader, writer))
        for size in (1, 5_000, 60_000, 3, 20_000):
            bursts = [random.Random(number).randbytes(size) for number in range(len(socks))]
            for sock, burst in zip(socks, bursts, strict=True):
                assert sock.send(burst) == size
            received = await asyncio.gather(*(reader.readexactly(size) for reader, _ in readers))
            assert received == bursts
        for sock, (_, writer) in zip(socks, readers, strict=True):
            sock.close()
            writer.close()
            await writer.wait_closed()

    run(loop, main())
