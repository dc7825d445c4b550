"""websockets: server and client on the loop under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidMessage, InvalidStatus

from .conftest import Certificates
from .harness import LoopUnderTest, package_of
from .servers.payload import payload

MIB = 1 << 20


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificates: Certificates) -> Certificates | None:
    """The certificates to use, if any."""
    return certificates if request.param else None


@asynccontextmanager
async def serving(
    handler: Callable[[ServerConnection], Awaitable[None]], tls: Certificates | None = None, **options: Any
) -> AsyncIterator[tuple[Server, Callable[..., connect]]]:
    """Serve `handler` on a free port; give the server, and how to connect to it."""
    server_tls = tls.server_context() if tls else None
    async with serve(handler, "127.0.0.1", 0, ssl=server_tls, max_size=None, **options) as server:
        port = server.sockets[0].getsockname()[1]
        client_tls = tls.client_context() if tls else None

        def client(**options: Any) -> connect:
            url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/"
            return connect(url, ssl=client_tls, proxy=None, **{"max_size": None} | options)

        yield server, client


def test_runs_on_the_loop(loop_under_test: LoopUnderTest) -> None:
    async def which(connection: ServerConnection) -> None:
        assert isinstance(connection.transport, asyncio.Transport)
        await connection.send(package_of(asyncio.get_running_loop()))

    async def main() -> None:
        async with serving(which) as (_, client), client() as connection:
            assert isinstance(connection.transport, asyncio.Transport)
            assert await connection.recv() == loop_under_test.package
            with pytest.raises(ConnectionClosedOK):
                await connection.recv()

    loop_under_test.run(main())


@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_mebibyte_both_ways(
    loop_under_test: LoopUnderTest, tls: Certificates | None, compression: str | None
) -> None:
    async def main() -> None:
        async with (
            serving(echo, tls, compression=compression) as (_, client),
            client(compression=compression) as connection,
        ):
            for _ in range(4):
                await connection.send(payload(MIB))
                assert await connection.recv() == payload(MIB)
            # A message in pieces, each a frame of its own.
            await connection.send(payload(MIB)[start : start + 4000] for start in range(0, MIB, 4000))
            assert await connection.recv() == payload(MIB)

    loop_under_test.run(main())


def test_mebibytes_cross_each_other(loop_under_test: LoopUnderTest, tls: Certificates | None) -> None:
    """Both sides send before either reads: each waits for the other's flow control."""

    async def exchange(connection: ServerConnection | ClientConnection) -> None:
        async def send() -> None:
            for number in range(16):
                await connection.send(bytes([number]) * MIB)

        sender = asyncio.create_task(send())
        for number in range(16):
            assert await connection.recv() == bytes([number]) * MIB
        await sender

    async def main() -> None:
        async with serving(exchange, tls, compression=None) as (_, client), client(compression=None) as connection:
            await exchange(connection)

    loop_under_test.run(main())


def test_many_frames_right_after_the_connection(loop_under_test: LoopUnderTest, tls: Certificates | None) -> None:
    """picows#40: small frames in masses, straight after the handshake, from both sides at once."""
    count = 1000

    async def flood(connection: ServerConnection | ClientConnection) -> None:
        async def send() -> None:
            for number in range(count):
                await connection.send(f"frame {number}")

        sender = asyncio.create_task(send())
        for number in range(count):
            assert await connection.recv() == f"frame {number}"
        await sender

    async def main() -> None:
        async with serving(flood, tls) as (_, client):
            for _ in range(3):
                async with client() as connection:
                    await flood(connection)

    loop_under_test.run(main())


def test_many_connections_at_once(loop_under_test: LoopUnderTest, tls: Certificates | None) -> None:
    async def main() -> None:
        async with serving(echo, tls) as (_, client):

            async def talk(number: int) -> None:
                async with client() as connection:
                    for turn in range(20):
                        await connection.send(f"{number}:{turn}" * turn)
                        assert await connection.recv() == f"{number}:{turn}" * turn

            await asyncio.gather(*(talk(number) for number in range(50)))

    loop_under_test.run(main())


def test_a_slow_reader_holds_the_sender_up(loop_under_test: LoopUnderTest) -> None:
    """Backpressure through both queues: what nobody reads is not sent without end."""

    async def main() -> None:
        sent = 0
        ended = asyncio.Event()

        async def flood(connection: ServerConnection) -> None:
            nonlocal sent
            try:
                while True:
                    await connection.send(payload(MIB))
                    sent += 1
            except ConnectionClosedError:
                ended.set()

        async with serving(flood, compression=None) as (_, client):
            async with client(compression=None, max_queue=1) as connection:
                assert await connection.recv() == payload(MIB)
                # Turns in which the server could go on, were it not held up.
                for _ in range(200):
                    await asyncio.sleep(0)
                assert sent < 64
                for _ in range(5):
                    assert await connection.recv() == payload(MIB)
                # The closing handshake would stand behind what is not read, and wait for its timeout.
                connection.transport.abort()
            await ended.wait()

    loop_under_test.run(main())


def test_pings_and_codes_of_the_end(loop_under_test: LoopUnderTest, tls: Certificates | None) -> None:
    async def main() -> None:
        codes: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

        async def note(connection: ServerConnection) -> None:
            await connection.wait_closed()
            await codes.put((connection.close_code, connection.close_reason))

        async with serving(note, tls) as (_, client):
            async with client() as connection:
                assert await (await connection.ping()) >= 0
                await connection.close(4000, "enough")
            assert await codes.get() == (4000, "enough")
            async with client() as connection:
                # Without a word: what the other end of a vanished process looks like.
                connection.transport.abort()
                assert await codes.get() == (1006, "")
                with pytest.raises(ConnectionClosedError):
                    await connection.recv()

    loop_under_test.run(main())


def test_a_handler_that_fails_closes_its_connection_only(loop_under_test: LoopUnderTest) -> None:
    async def fail(connection: ServerConnection) -> None:
        if await connection.recv() == "fail":
            raise ZeroDivisionError
        await echo(connection)

    async def main() -> None:
        async with serving(fail) as (_, client), client() as other:
            await other.send("work")
            async with client() as connection:
                await connection.send("fail")
                with pytest.raises(ConnectionClosedError) as raised:
                    await connection.recv()
                assert raised.value.rcvd is not None
                assert raised.value.rcvd.code == 1011
            await other.send("still here")
            assert await other.recv() == "still here"

    loop_under_test.run(main())


def test_the_server_s_end_closes_connections(loop_under_test: LoopUnderTest, tls: Certificates | None) -> None:
    async def main() -> None:
        async with serving(echo, tls) as (server, client):
            connections = [await client() for _ in range(10)]
            server.close()
            for connection in connections:
                with pytest.raises(ConnectionClosedOK):
                    await connection.recv()
                assert connection.close_code == 1001
            await server.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await client()

    loop_under_test.run(main())


def test_what_is_not_a_websocket_is_refused(loop_under_test: LoopUnderTest) -> None:
    async def forbidden(connection: ServerConnection, request: object) -> object:
        return connection.respond(403, "no\n")

    async def main() -> None:
        async with serving(echo, process_request=forbidden) as (_, client):
            with pytest.raises(InvalidStatus):
                await client()

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises((InvalidMessage, ConnectionResetError)):
                await connect(f"ws://127.0.0.1:{port}/", proxy=None)

    loop_under_test.run(main())


def test_goes_over_a_unix_socket(loop_under_test: LoopUnderTest, short_tmp: str) -> None:
    async def main() -> None:
        path = f"{short_tmp}/websockets"
        async with unix_serve(echo, path), unix_connect(path, "ws://local/") as connection:
            await connection.send(payload(MIB // 2))
            assert await connection.recv() == payload(MIB // 2)

    loop_under_test.run(main())
