"""aiofastnet: its own transports, plain and over TLS, on the loop under test (aiohttp's speed-ups pull it in)."""

from __future__ import annotations

import asyncio

import aiofastnet
import pytest

from .conftest import Certificates
from .harness import LoopUnderTest
from .servers.payload import payload

SIZE = 300_000


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Collecting(Echo):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.complete = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) == SIZE:
            self.complete.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


@pytest.mark.parametrize("theirs", [("server",), ("client",), ("server", "client")], ids="-".join)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_its_transports_install(
    loop_under_test: LoopUnderTest, certificates: Certificates, tls: bool, theirs: tuple[str, ...]
) -> None:
    data = payload(SIZE)

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        server_tls = {"ssl": certificates.server_context()} if tls else {}
        client_tls = {"ssl": certificates.client_context(), "server_hostname": "127.0.0.1"} if tls else {}
        if "server" in theirs:
            server = await aiofastnet.create_server(loop, Echo, "127.0.0.1", 0, **server_tls)
        else:
            server = await loop.create_server(Echo, "127.0.0.1", 0, **server_tls)  # type: ignore[arg-type]
        address = server.sockets[0].getsockname()
        if "client" in theirs:
            transport, protocol = await aiofastnet.create_connection(loop, Collecting, *address, **client_tls)
            assert type(transport).__module__.startswith("aiofastnet")
        else:
            transport, protocol = await loop.create_connection(Collecting, *address, **client_tls)  # type: ignore[arg-type]
        transport.write(data)
        await protocol.complete
        assert bytes(protocol.received) == data
        transport.close()
        await protocol.lost
        server.close()
        await server.wait_closed()

    loop_under_test.run(talk())
