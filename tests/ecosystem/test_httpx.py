"""httpx's asynchronous client, on the loop under test, against uvicorn on the same kind of loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from .conftest import Certificates
from .harness import DEADLINE, LoopUnderTest, Uvicorn, UvicornServers, free_port, stopping
from .servers.payload import payload


@pytest.fixture
def server(uvicorn_servers: UvicornServers, loop_under_test: LoopUnderTest) -> Uvicorn:
    """The plain ASGI application, served."""
    return uvicorn_servers.get(loop_under_test, "asgi_app:app", "--http", "httptools")


def client_of(server: Uvicorn, **options: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(**{"base_url": server.url, "timeout": DEADLINE, "trust_env": False} | options)


def test_reuses_its_connections(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with client_of(server) as client:
            answers = [(await client.get("/which")).json() for _ in range(10)]
        assert len({answer["peer"] for answer in answers}) == 1
        assert answers[0]["loop"].partition(".")[0] == loop_under_test.package

    loop_under_test.run(main())


def test_makes_many_requests_at_once(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        limits = httpx.Limits(max_connections=40)
        async with client_of(server, limits=limits) as client:

            async def ask(number: int) -> None:
                body = b"%d." % number * number
                answer = await client.post("/echo", content=body)
                assert answer.content == body

            async with asyncio.TaskGroup() as group:
                for number in range(150):
                    group.create_task(ask(number))

    loop_under_test.run(main())


def test_streams_both_ways(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    body = payload(16 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 70_001):
            yield body[start : start + 70_001]

    async def main() -> None:
        async with client_of(server) as client:
            answer = await client.post("/digest", content=pieces())
            assert answer.json() == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            received = bytearray()
            async with client.stream("GET", f"/download?size={len(body)}") as response:
                async for piece in response.aiter_raw():
                    received += piece
            assert received == body

    loop_under_test.run(main())


def test_times_out_and_goes_on(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        tag = uuid4().hex
        async with client_of(server) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"/never?tag={tag}", timeout=httpx.Timeout(DEADLINE, read=0.01))
            assert (await client.get(f"/gone?tag={tag}")).json() is True

    loop_under_test.run(main())


def test_is_cancelled_and_goes_on(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    """Wherever the request stands when it is cancelled: connecting, sending, or waiting."""

    async def main() -> None:
        async with client_of(server) as client:
            for turns in range(30):
                tag = uuid4().hex
                task = asyncio.create_task(client.get(f"/never?tag={tag}"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await client.get("/which")).status_code == 200

    loop_under_test.run(main())


def test_leaves_a_download_in_the_middle(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with client_of(server) as client:
            for _ in range(5):
                async with client.stream("GET", f"/download?size={32 << 20}") as response:
                    chunks = response.aiter_raw()
                    assert await anext(chunks)
                    await chunks.aclose()
            assert (await client.get("/which")).status_code == 200

    loop_under_test.run(main())


def test_speaks_tls(
    uvicorn_servers: UvicornServers, loop_under_test: LoopUnderTest, certificates: Certificates
) -> None:
    tls = ("--ssl-certfile", str(certificates.chain), "--ssl-keyfile", str(certificates.key))
    server = uvicorn_servers.get(loop_under_test, "asgi_app:app", "--http", "httptools", *tls)
    body = payload(4 << 20)

    async def main() -> None:
        async with client_of(server, verify=certificates.client_context()) as client:
            answers = await asyncio.gather(
                *(client.post("/echo", content=body[:size]) for size in range(0, 99_999, 5000))
            )
            assert [answer.content for answer in answers] == [body[:size] for size in range(0, 99_999, 5000)]
            assert (await client.post("/echo", content=body)).content == body
        async with client_of(server) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get("/which")

    loop_under_test.run(main())


def test_goes_over_a_unix_socket(loop_under_test: LoopUnderTest, short_tmp: str) -> None:
    path = f"{short_tmp}/uvicorn"

    async def main() -> None:
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(transport=transport, base_url="http://local", timeout=DEADLINE) as client:
            assert (await client.get("/download?size=1000000")).content == payload(1_000_000)

    with stopping(Uvicorn(loop_under_test, "asgi_app:app", uds=path)):
        loop_under_test.run(main())


def test_says_so_when_nobody_listens(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(timeout=DEADLINE, trust_env=False) as client:
            for host in ("127.0.0.1", "localhost"):
                with pytest.raises(httpx.ConnectError):
                    await client.get(f"http://{host}:{free_port()}/")

    loop_under_test.run(main())
