"""hypercorn's ASGI server on the loop under test, over HTTP/1.1 and, with TLS, HTTP/2."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection
from typing import Any

import httpx
import hypercorn
import hypercorn.asyncio
import pytest

from .conftest import Certificates
from .harness import DEADLINE, SERVERS, LoopUnderTest, ServerProcess, stopping
from .servers.payload import payload


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with its loop and its protocol, or with what it was sent."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/which":
        loop = type(asyncio.get_running_loop()).__module__
        body[:] = json.dumps({"loop": loop, "http": scope["http_version"]}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), 50_000):
        piece = bytes(body[start : start + 50_000])
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def serving(short_tmp: str, certificates: Certificates | None) -> AsyncIterator[str]:
    """Serve on a Unix socket, which nobody else can have taken; give the path."""
    path = f"{short_tmp}/hypercorn"
    config = hypercorn.Config()
    config.bind = [f"unix:{path}"]
    config.errorlog = None
    if certificates is not None:
        config.certfile, config.keyfile = str(certificates.chain), str(certificates.key)
    stop = asyncio.Event()
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await application(scope, receive, send)

    server = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
    await started.wait()
    # The lifespan has begun, the sockets come behind it.
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0)
        else:
            writer.close()
            await writer.wait_closed()
            break
    yield path
    stop.set()
    await server


@pytest.mark.parametrize("tls", [False, True], ids=["http1", "http2"])
def test_serves_on_the_loop(
    loop_under_test: LoopUnderTest, certificates: Certificates, short_tmp: str, tls: bool
) -> None:
    body = payload(1 << 20)

    async def main() -> None:
        async with serving(short_tmp, certificates if tls else None) as path:
            context = certificates.client_context() if tls else True
            transport = httpx.AsyncHTTPTransport(uds=path, http2=tls, verify=context)
            base = f"{'https' if tls else 'http'}://localhost"
            async with httpx.AsyncClient(transport=transport, base_url=base, timeout=DEADLINE) as client:
                said = (await client.get("/which")).json()
                assert said["loop"].partition(".")[0] == loop_under_test.package
                assert said["http"] == ("2" if tls else "1.1")

                async def echo() -> None:
                    answer = await client.post("/echo", content=body)
                    assert answer.content == body

                await asyncio.gather(*(echo() for _ in range(8)))

    loop_under_test.run(main())


RUN = """
import sys

import {package}

{package}.install()

from hypercorn.__main__ import main

sys.exit(main([*sys.argv[1:]]))
"""


def test_its_command_line_runs_on_an_installed_policy(loop_under_test: LoopUnderTest) -> None:
    """Its worker classes are fixed; what its own asyncio one makes is what the policy makes."""
    if loop_under_test.name == "asyncio":
        pytest.skip("there is nothing to install")
    with stopping(
        ServerProcess(
            [
                *(sys.executable, "-c", RUN.format(package=loop_under_test.package)),
                *("asgi_app:app", "--bind", "127.0.0.1:0", "--workers", "0"),
            ],
            env={"HOTLOOP_LOOP": loop_under_test.name, "PYTHONPATH": str(SERVERS)},
        )
    ) as server:
        port = int(server.wait_for(r"Running on http://127\.0\.0\.1:(\d+)")[1])
        with closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
            connection.request("GET", "/which", headers={"Connection": "close"})
            said = json.loads(connection.getresponse().read())
        assert said["loop"].partition(".")[0] == loop_under_test.package
        assert server.stop() == 0
        server.wait_for("lifespan.shutdown")
