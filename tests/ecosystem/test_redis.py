"""redis-py's asyncio client on the loop under test, against a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError, WatchError

from .conftest import Redis as RedisServer
from .harness import DEADLINE, LoopUnderTest, free_port
from .servers.payload import payload

Client = Callable[[], AbstractAsyncContextManager[Redis]]


@pytest.fixture(params=["tcp", "unix"])
def client(request: pytest.FixtureRequest, redis_server: RedisServer) -> Client:
    """A function that gives a client, for each way to the server."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Redis]:
        if request.param == "tcp":
            redis = Redis(host="127.0.0.1", port=redis_server.port, socket_timeout=DEADLINE)
        else:
            redis = Redis(unix_socket_path=redis_server.path, socket_timeout=DEADLINE)
        async with redis:
            yield redis

    return connect


@pytest.fixture
def key() -> str:
    """A name that no other test uses."""
    return uuid4().hex


def test_commands_and_values(loop_under_test: LoopUnderTest, client: Client, key: str) -> None:
    async def main() -> None:
        async with client() as redis:
            assert await redis.ping() is True
            for size in (0, 1, 65_536, 8 << 20):
                assert await redis.set(key, payload(size)) is True
                assert await redis.get(key) == payload(size)
            assert [await redis.incr(f"{key}:count") for _ in range(100)] == list(range(1, 101))
            with pytest.raises(ResponseError):
                await redis.lpop(key)
            assert await redis.get(f"{key}:none") is None

    loop_under_test.run(main())


def test_pipelines_and_transactions(loop_under_test: LoopUnderTest, client: Client, key: str) -> None:
    async def main() -> None:
        async with client() as redis:
            async with redis.pipeline(transaction=False) as pipeline:
                for number in range(5000):
                    pipeline.rpush(key, number)
                assert await pipeline.execute() == list(range(1, 5001))
                pipeline.lrange(key, 0, -1)
                pipeline.llen(key)
                values, length = await pipeline.execute()
            assert values == [b"%d" % number for number in range(5000)]
            assert length == 5000
            async with redis.pipeline() as pipeline:
                await pipeline.watch(f"{key}:watched")
                await redis.set(f"{key}:watched", "changed")
                pipeline.multi()
                pipeline.set(f"{key}:watched", "mine")
                with pytest.raises(WatchError):
                    await pipeline.execute()

    loop_under_test.run(main())


def test_publishes_and_subscribes(loop_under_test: LoopUnderTest, client: Client, key: str) -> None:
    async def main() -> None:
        async with client() as redis, redis.pubsub() as subscriber:
            await subscriber.subscribe(key)
            await subscriber.psubscribe(f"{key}:*")
            messages = subscriber.listen()
            assert (await anext(messages))["type"] == "subscribe"
            assert (await anext(messages))["type"] == "psubscribe"
            for number in range(300):
                assert await redis.publish(f"{key}:x" if number % 2 else key, str(number)) == 1
            received = [await anext(messages) for _ in range(300)]
            await messages.aclose()
            assert [message["data"] for message in received] == [b"%d" % number for number in range(300)]
            assert [message["type"] for message in received[:2]] == ["message", "pmessage"]
            assert await subscriber.get_message(ignore_subscribe_messages=True, timeout=0.01) is None

    loop_under_test.run(main())


async def blocked(redis: Redis) -> int:
    """How many clients wait in a blocking command."""
    return (await redis.info("clients"))["blocked_clients"]


def test_a_blocking_pop_waits_and_is_cancelled(loop_under_test: LoopUnderTest, client: Client, key: str) -> None:
    async def main() -> None:
        async with client() as redis:
            before = await blocked(redis)
            waiting = asyncio.create_task(redis.blpop([key], timeout=0))
            while await blocked(redis) == before:
                pass
            await redis.rpush(key, "here")
            assert await waiting == (key.encode(), b"here")

            cancelled = asyncio.create_task(redis.blpop([key], timeout=0))
            while await blocked(redis) == before:
                pass
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            # The server learns of it, so that the next value is not popped for nobody.
            while await blocked(redis) != before:
                pass
            await redis.rpush(key, "next")
            assert await redis.blpop([key], timeout=0) == (key.encode(), b"next")
            assert await redis.blpop([key], timeout=0.01) is None

    loop_under_test.run(main())


def test_a_command_cancelled_anywhere_never_gets_another_s_answer(
    loop_under_test: LoopUnderTest, client: Client, key: str
) -> None:
    async def main() -> None:
        async with client() as redis:
            for number in range(20):
                await redis.set(f"{key}:{number}", number)
            for turns in range(20):
                task = asyncio.create_task(redis.get(f"{key}:0"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert await redis.get(f"{key}:{turns}") == b"%d" % turns

    loop_under_test.run(main())


def test_a_pool_under_load(loop_under_test: LoopUnderTest, redis_server: RedisServer, key: str) -> None:
    async def main() -> None:
        pool = BlockingConnectionPool(host="127.0.0.1", port=redis_server.port, max_connections=10, timeout=DEADLINE)
        async with Redis(connection_pool=pool) as redis:

            async def work(number: int) -> None:
                await redis.set(f"{key}:{number}", payload(number))
                assert await redis.get(f"{key}:{number}") == payload(number)

            await asyncio.gather(*(work(number) for number in range(0, 20_000, 40)))
        await pool.aclose()

    loop_under_test.run(main())


def test_says_so_when_nobody_listens(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async with Redis(host="127.0.0.1", port=free_port(), retry=None) as redis:
            with pytest.raises(RedisConnectionError):
                await redis.ping()

    loop_under_test.run(main())
