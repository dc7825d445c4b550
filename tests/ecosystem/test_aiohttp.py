"""aiohttp: its server and its client, both on the loop under test, and its server as a program."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from .conftest import Certificates
from .harness import DEADLINE, SERVERS, LoopUnderTest, ServerProcess, stopping
from .servers.payload import payload

MIB = 1 << 20

pytestmark = pytest.mark.filterwarnings(
    # aiohttp's own, on Pythons that deprecate what it still asks asyncio for.
    "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning:aiohttp",
)


async def which(request: web.Request) -> web.Response:
    assert request.transport is not None
    assert isinstance(request.transport, asyncio.Transport)
    return web.json_response(
        {"loop": type(asyncio.get_running_loop()).__module__, "peer": request.transport.get_extra_info("peername")}
    )


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def digest(request: web.Request) -> web.Response:
    """Reads the upload piece by piece."""
    sha256, size = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        sha256.update(piece)
        size += len(piece)
    return web.json_response({"size": size, "sha256": sha256.hexdigest()})


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    body = payload(int(request.query["size"]))
    for start in range(0, len(body), 50_000):
        await response.write(body[start : start + 50_000])
    await response.write_eof()
    return response


async def websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    # Frames right after the handshake: the first ones are in the same packet as its response.
    for number in range(int(request.query.get("greetings", "0"))):
        await socket.send_str(f"greeting {number}")
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        else:
            await socket.send_str(message.data)
    return socket


async def file(request: web.Request) -> web.FileResponse:
    """Sent by the kernel: aiohttp calls ``loop.sendfile``."""
    return web.FileResponse(request.query["path"])


@asynccontextmanager
async def serving(
    tls: ssl.SSLContext | None = None, uds: str | None = None, **handlers: Callable[..., object]
) -> AsyncIterator[str]:
    """Serve the handlers above, and those given, on a free port; give the server's URL."""
    app = web.Application(client_max_size=1 << 30)
    for path in (which, echo, digest, stream, websocket, file):
        app.router.add_route("*", f"/{path.__name__}", path)
    for name, handler in handlers.items():
        app.router.add_route("*", f"/{name}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        if uds is not None:
            await web.UnixSite(runner, uds, ssl_context=tls).start()
            yield "http://local"
            return
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def session(**options: object) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE), **options)


def test_serves_and_asks_on_the_loop(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with serving() as url, session() as client:
            peers = set()
            for _ in range(20):
                async with client.get(f"{url}/which") as answer:
                    said = await answer.json()
                    peers.add(tuple(said["peer"]))
            assert said["loop"].partition(".")[0] == loop_under_test.package
            assert len(peers) == 1

    loop_under_test.run(main())


def test_many_requests_at_once(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with serving() as url, session(connector=aiohttp.TCPConnector(limit=50)) as client:

            async def ask(number: int) -> None:
                body = b"%d." % number * number
                async with client.post(f"{url}/echo", data=body) as answer:
                    assert await answer.read() == body

            await asyncio.gather(*(ask(number) for number in range(500)))

    loop_under_test.run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_streams_both_ways(loop_under_test: LoopUnderTest, certificates: Certificates, tls: bool) -> None:
    body = payload(8 * MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 99_991):
            yield body[start : start + 99_991]

    async def main() -> None:
        context = certificates.client_context() if tls else True
        async with serving(certificates.server_context() if tls else None) as url, session() as client:
            for data in (io.BytesIO(body), pieces()):
                async with client.post(f"{url}/digest", data=data, ssl=context) as answer:
                    assert await answer.json() == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            async with client.get(f"{url}/stream", params={"size": len(body)}, ssl=context) as answer:
                received = bytearray()
                async for piece in answer.content.iter_any():
                    received += piece
            assert received == body

    loop_under_test.run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 8 * MIB])
def test_sends_files(
    loop_under_test: LoopUnderTest, certificates: Certificates, tls: bool, size: int, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(payload(size))

    async def main() -> None:
        context = certificates.client_context() if tls else True
        async with serving(certificates.server_context() if tls else None) as url, session() as client:
            # Twice, so that what a file leaves behind on its connection shows.
            for _ in range(2):
                async with client.get(f"{url}/file", params={"path": str(path)}, ssl=context) as answer:
                    assert await answer.read() == payload(size)
            if size > 1:
                headers = {"Range": f"bytes=1-{size // 2}"}
                async with client.get(
                    f"{url}/file", params={"path": str(path)}, ssl=context, headers=headers
                ) as answer:
                    assert answer.status == 206
                    assert await answer.read() == payload(size)[1 : size // 2 + 1]

    loop_under_test.run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_websocket_messages_of_every_size(
    loop_under_test: LoopUnderTest, certificates: Certificates, tls: bool
) -> None:
    async def main() -> None:
        context = certificates.client_context() if tls else True
        async with (
            serving(certificates.server_context() if tls else None) as url,
            session() as client,
            client.ws_connect(f"{url}/websocket?greetings=500", ssl=context, max_msg_size=0) as socket,
        ):
            for number in range(500):
                assert await socket.receive_str() == f"greeting {number}"
            for size in (0, 1, 125, 126, 65_535, 65_536, MIB, 4 * MIB):
                await socket.send_bytes(payload(size))
                assert await socket.receive_bytes() == payload(size)
            for number in range(300):
                await socket.send_str(str(number))
            for number in range(300):
                assert await socket.receive_str() == str(number)
            await socket.close()
            assert socket.close_code == aiohttp.WSCloseCode.OK

    loop_under_test.run(main())


def test_a_client_that_leaves_cancels_the_handler(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def wait(request: web.Request) -> web.Response:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError("unreachable")

        async with serving(wait=wait) as url, session() as client:
            task = asyncio.create_task(client.get(f"{url}/wait").__aenter__())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await cancelled.wait()
            with pytest.raises(asyncio.TimeoutError):
                async with client.get(f"{url}/wait", timeout=aiohttp.ClientTimeout(total=0.01)):
                    pass

    loop_under_test.run(main())


def test_a_download_left_in_the_middle_is_not_read_on(
    loop_under_test: LoopUnderTest, certificates: Certificates
) -> None:
    """uvloop#471: a TLS transport that is closed stops reading, and the server learns of it."""

    async def main() -> None:
        ended = asyncio.Event()
        written = 0

        async def endless(request: web.Request) -> web.StreamResponse:
            nonlocal written
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(payload(65_536))
                    written += 65_536
            finally:
                ended.set()

        async with serving(certificates.server_context(), endless=endless) as url, session() as client:
            async with client.get(f"{url}/endless", ssl=certificates.client_context()) as answer:
                assert await answer.content.readexactly(1000) == payload(1000)
                answer.close()
            await ended.wait()
            assert written < 64 * MIB

    loop_under_test.run(main())


def test_many_tls_connections_at_once(loop_under_test: LoopUnderTest, certificates: Certificates) -> None:
    async def main() -> None:
        context = certificates.client_context()
        async with serving(certificates.server_context()) as url, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(session()) for _ in range(40)]

            async def ask(number: int, client: aiohttp.ClientSession) -> None:
                for size in (1, 1000, 20_000):
                    body = payload(size + number)
                    async with client.post(f"{url}/echo", data=body, ssl=context) as answer:
                        assert await answer.read() == body

            await asyncio.gather(*(ask(number, client) for number, client in enumerate(clients)))

    loop_under_test.run(main())


def test_goes_over_a_unix_socket(loop_under_test: LoopUnderTest, short_tmp: str) -> None:
    path = f"{short_tmp}/aiohttp"

    async def main() -> None:
        async with (
            serving(uds=path) as url,
            session(connector=aiohttp.UnixConnector(path)) as client,
            client.post(f"{url}/echo", data=payload(MIB)) as answer,
        ):
            assert await answer.read() == payload(MIB)

    loop_under_test.run(main())


def test_connects_by_name_and_says_so_when_nobody_listens(loop_under_test: LoopUnderTest) -> None:
    """By name, aiohttp connects with happy eyeballs over ``sock_connect``."""

    async def main() -> None:
        async with session() as client:
            async with serving() as url:
                by_name = url.replace("127.0.0.1", "localhost") + "/which"
                assert await (await client.get(by_name, headers={"Connection": "close"})).json()
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get(by_name)

    loop_under_test.run(main())


def run_app(loop_under_test: LoopUnderTest) -> ServerProcess:
    return ServerProcess([sys.executable, str(SERVERS / "aiohttp_app.py"), loop_under_test.factory])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_run_app(loop_under_test: LoopUnderTest, number: signal.Signals) -> None:
    """The server as a program: signal handlers of the loop, clean-up, and a request that is let finish."""
    with stopping(run_app(loop_under_test)) as server:
        port = int(server.wait_for(r"Running on http://127\.0\.0\.1:(\d+)")[1])
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
            connection.request("GET", "/loop")
            module = json.loads(connection.getresponse().read())
            assert module.partition(".")[0] == loop_under_test.package
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
            connection.request("GET", "/until-shutdown")
            server.wait_for("the request runs")
            server.send_signal(number)
            response = connection.getresponse()
            assert response.read() == payload(MIB)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), DEADLINE)
        assert server.wait() == 0
        assert "Traceback" not in server.output
        server.wait_for("the application stops")
        server.wait_for("run_app has returned")
