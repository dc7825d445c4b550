"""The `bytes` objects that protocols are given: whoever keeps one has its contents for good."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from harness import Loop, attach, close, run, tcp_pair, unix_pair

SEEDS = [int(seed) for seed in os.environ.get("HOTLOOP_MESSAGES_SEED", "").split()] or [1, 2, 3]

#: Lengths of messages: on both sides of what small objects, glibc's quick lists and long messages are, each with
#: neighbours that its object has room for.
LENGTHS = (1, 2, 478, 479, 480, 481, 900, 1000, 1023, 1024, 1025, 7000, 8000, 32_767, 32_768, 33_000, 100_000)

#: What a protocol may do with a message, each of which has it for longer than the call. Answers how to get it back.
Keeping = Callable[[bytes], Callable[[], bytes]]


def keep_itself(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def keep_a_view(data: bytes) -> Callable[[], bytes]:
    view = memoryview(data)
    return lambda: bytes(view)


def keep_a_part_of_a_view(data: bytes) -> Callable[[], bytes]:
    first, rest = memoryview(data)[:1], memoryview(data)[1:]
    return lambda: bytes(first) + bytes(rest)


def keep_as_a_key(data: bytes) -> Callable[[], bytes]:
    kept = {data: "found"}

    def get() -> bytes:
        (key,) = kept
        assert kept[bytes(bytearray(key))] == "found"
        return key

    return get


def keep_in_a_cycle(data: bytes) -> Callable[[], bytes]:
    cycle: list[Any] = [data]
    cycle.append(cycle)
    return lambda: cycle[0]


def keep_in_a_generator(data: bytes) -> Callable[[], bytes]:
    def generator(data: bytes) -> Any:
        while True:
            yield data

    kept = generator(data)
    next(kept)
    return lambda: next(kept)


KEEPING: list[Keeping] = [
    keep_itself,
    keep_a_view,
    keep_a_part_of_a_view,
    keep_as_a_key,
    keep_in_a_cycle,
    keep_in_a_generator,
]


class Keeper(asyncio.Protocol):
    """Keeps some of the messages, in some way, and looks at the hash of some, as a seed has it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.transport: Any = None
        #: What each kept message was, and how to get it back.
        self.kept: list[tuple[bytearray, Callable[[], bytes]]] = []
        #: What was written back.
        self.written = bytearray()
        self.received = bytearray()
        self.came = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        copy = bytearray(data)
        assert len(copy) == len(data)
        if self.random.random() < 0.5:
            assert hash(data) == hash(bytes(copy))
        if self.random.random() < 0.3:
            self.kept.append((copy, self.random.choice(KEEPING)(data)))
        elif self.random.random() < 0.2:
            self.give_back(data)
        self.received += copy
        self.came.set()

    def give_back(self, data: bytes) -> None:
        self.written += data
        self.transport.write(data)

    def datagram_received(self, data: bytes, _: Any) -> None:
        self.data_received(data)

    async def wait_received(self, count: int) -> None:
        while len(self.received) < count:
            self.came.clear()
            await self.came.wait()

    def look(self) -> None:
        """Each message that was kept is what it was."""
        assert self.kept
        for copy, get in self.kept:
            assert get() == bytes(copy)


class Silent(Keeper):
    """The same, but writes nothing."""

    def give_back(self, data: bytes) -> None:
        pass


def messages(seed: int, lengths: tuple[int, ...] = LENGTHS) -> list[bytes]:
    """Random messages, some of which have the length of the one before, as most have in life."""
    source, length, made = random.Random(seed), lengths[0], []
    for _ in range(200):
        if source.random() < 0.5:
            length = source.choice(lengths)
        made.append(source.randbytes(length))
    return made


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make_pair", [tcp_pair, unix_pair])
def test_messages_that_a_protocol_keeps_stay_as_they_are(
    loop: Loop, make_pair: Callable[[], tuple[socket.socket, socket.socket]], seed: int
) -> None:
    near, far = make_pair()
    transport, keeper = attach(loop, near, lambda: Keeper(seed))

    async def converse() -> None:
        sent = bytearray()
        back, peer = await loop.create_connection(lambda: Silent(seed), sock=far)
        for message in messages(seed):
            back.write(message)
            sent += message
            await keeper.wait_received(len(sent))
        assert keeper.received == sent
        await peer.wait_received(len(keeper.written))
        assert peer.received == keeper.written
        peer.look()
        back.abort()

    far.setblocking(False)
    run(loop, converse())
    close(loop, transport)
    keeper.look()


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_that_a_protocol_keeps_stay_as_they_are_over_tls(loop: Loop, seed: int) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client_context)
    keeper = Keeper(seed)

    async def converse() -> None:
        server = await loop.create_server(lambda: keeper, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        peer = Silent(seed)
        client, _ = await loop.create_connection(
            lambda: peer, *address, ssl=client_context, server_hostname="localhost"
        )
        sent = bytearray()
        for message in messages(seed):
            client.write(message)
            sent += message
            await keeper.wait_received(len(sent))
        assert keeper.received == sent
        server.close()
        # What the peer gives back in its turn comes here too.
        await peer.wait_received(len(keeper.written))
        assert peer.received == keeper.written
        peer.look()
        client.abort()
        keeper.transport.abort()
        await server.wait_closed()

    run(loop, converse())
    keeper.look()


@pytest.mark.parametrize("seed", SEEDS)
def test_datagrams_that_a_protocol_keeps_stay_as_they_are(loop: Loop, seed: int) -> None:
    async def converse() -> None:
        transport, keeper = await loop.create_datagram_endpoint(lambda: Silent(seed), ("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.connect(transport.get_extra_info("sockname"))
            sent = bytearray()
            for message in messages(seed, tuple(length for length in LENGTHS if length < 60_000)):
                far.send(message)
                sent += message
                await keeper.wait_received(len(sent))
        assert keeper.received == sent
        keeper.look()
        transport.abort()

    run(loop, converse())


def test_messages_end_where_they_end_for_c_too(loop: Loop) -> None:
    """The parser of numbers is C that reads up to the zero which is behind the contents of all `bytes` objects."""
    near, far = tcp_pair()
    numbers = []

    class Parser(Silent):
        def data_received(self, data: bytes) -> None:
            numbers.append(int(data))
            super().data_received(data)

    transport, parser = attach(loop, near, lambda: Parser(1))
    count = 0
    for digits in (1000, 999, 950, 900):
        far.send(b"7" * digits)
        count += digits
        run(loop, parser.wait_received(count))
    assert numbers == [int("7" * digits) for digits in (1000, 999, 950, 900)]
    close(loop, transport)
    far.close()
