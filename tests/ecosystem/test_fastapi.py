"""FastAPI under uvicorn, with httpx and websockets as its clients on the same kind of loop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect

from .harness import DEADLINE, LoopUnderTest, Uvicorn, UvicornServers, stopping
from .servers.payload import payload


@pytest.fixture(params=["httptools", "h11"])
def server(uvicorn_servers: UvicornServers, loop_under_test: LoopUnderTest, request: pytest.FixtureRequest) -> Uvicorn:
    """The application, served."""
    return uvicorn_servers.get(loop_under_test, "fastapi_app:app", "--http", request.param, "--ws", "websockets-sansio")


def client_of(server: Uvicorn) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=DEADLINE, trust_env=False)


async def read_events(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Server-sent events, each given out when its empty line is there."""
    event: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield event
            event = {}


def test_serves_json_threads_and_background_tasks(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with client_of(server) as client:
            assert (await client.get("/loop")).json().partition(".")[0] == loop_under_test.package
            made = await client.post("/items/7", json={"name": "loop", "numbers": [1, 2]})
            assert made.json() == {"name": "LOOP", "numbers": [1, 2, 7]}
            assert (await client.post("/items/seven", json={"name": "", "numbers": []})).status_code == 422
            threads = await asyncio.gather(
                *(client.get("/thread", headers={"caller": f"client {number}"}) for number in range(60))
            )
            assert [answer.json() for answer in threads] == [
                {"name": f"client {number}", "main": False} for number in range(60)
            ]
            tag = uuid4().hex
            assert (await client.post(f"/background/{tag}")).status_code == 200
            assert (await client.get(f"/background/{tag}")).json() is True

    loop_under_test.run(main())


def test_reads_and_writes_files(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    content = payload(8 << 20)

    async def main() -> None:
        async with client_of(server) as client:
            answer = await client.post("/files", files={"file": ("payload.bin", content)})
            digest = hashlib.sha256(content).hexdigest()
            assert answer.json() == {"name": "payload.bin", "size": len(content), "sha256": digest}
            assert (await client.get(f"/blob/{len(content)}")).content == content

    loop_under_test.run(main())


@pytest.mark.parametrize("path", ["/events", "/plain-events"])
def test_events_arrive_as_they_come(server: Uvicorn, loop_under_test: LoopUnderTest, path: str) -> None:
    """The server makes an event only when the client has read the one before and asks: nothing may wait in between."""

    async def main() -> None:
        tag = uuid4().hex
        async with client_of(server) as client, client.stream("GET", f"{path}/{tag}") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = read_events(response)
            for number in range(20):
                assert (await client.post(f"/more/{tag}")).status_code == 200
                event = await anext(events)
                assert event["event"] == "count"
                assert event["id"] == str(number)
                assert json.loads(event["data"]) == {"number": number}
            await events.aclose()

    loop_under_test.run(main())


@pytest.mark.parametrize("path", ["/events", "/plain-events", "/flood"])
def test_the_server_notices_a_reader_that_leaves(server: Uvicorn, loop_under_test: LoopUnderTest, path: str) -> None:
    """While it waits for the next event, and while it is held up because nobody reads."""

    async def main() -> None:
        tag = uuid4().hex
        async with client_of(server) as client:
            async with client.stream("GET", f"{path}/{tag}") as response:
                await client.post(f"/more/{tag}")
                events = read_events(response)
                assert "data" in await anext(events)
                await events.aclose()
            assert (await client.get(f"/closed/{tag}")).json() is True

    loop_under_test.run(main())


def test_many_readers_of_events_come_and_go(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def reader(client: httpx.AsyncClient, count: int) -> None:
        tag = uuid4().hex
        async with client.stream("GET", f"/events/{tag}") as response:
            events = read_events(response)
            for number in range(count):
                await client.post(f"/more/{tag}")
                assert (await anext(events))["id"] == str(number)
            await events.aclose()
        assert (await client.get(f"/closed/{tag}")).json() is True

    async def main() -> None:
        async with client_of(server) as client:
            await asyncio.gather(*(reader(client, count) for count in range(1, 21)))

    loop_under_test.run(main())


def test_a_cancelled_reader_of_events_hangs_up(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        tag = uuid4().hex
        began = asyncio.Event()

        async def read(client: httpx.AsyncClient) -> None:
            async with client.stream("GET", f"/events/{tag}") as response:
                began.set()
                async for _ in response.aiter_bytes():
                    pass

        async with client_of(server) as client:
            task = asyncio.create_task(read(client))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.get(f"/closed/{tag}")).json() is True

    loop_under_test.run(main())


def test_serves_websockets(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as socket:
            for length in (0, 1, 125, 126, 65_535, 65_536, 1 << 20):
                await socket.send("x" * length)
                answer = json.loads(await socket.recv())
                assert answer["length"] == length
                assert answer["loop"].partition(".")[0] == loop_under_test.package

    loop_under_test.run(main())


def test_stops_gracefully(loop_under_test: LoopUnderTest) -> None:
    with stopping(Uvicorn(loop_under_test, "fastapi_app:app")) as server:
        assert server.stop(signal.SIGINT) == 0
        server.wait_for("the application starts")
        server.wait_for("the application stops")
