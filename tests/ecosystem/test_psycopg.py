"""psycopg on the loop under test, against a real PostgreSQL. libpq has the socket; the loop watches its number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from .conftest import Certificates, PostgreSQL
from .harness import DEADLINE, LoopUnderTest
from .servers.payload import payload

MIB = 1 << 20


@pytest.fixture(params=["tcp", "unix", "tls"])
def where(request: pytest.FixtureRequest, postgresql: PostgreSQL, certificates: Certificates) -> dict[str, Any]:
    """Arguments of ``AsyncConnection.connect`` for each way to the server."""
    common = {"port": postgresql.port, "user": postgresql.user, "dbname": "postgres", "connect_timeout": int(DEADLINE)}
    match request.param:
        case "tcp":
            return common | {"host": "127.0.0.1", "sslmode": "disable"}
        case "unix":
            return common | {"host": postgresql.sockets}
        case _:
            return common | {
                "host": "127.0.0.1",
                "sslmode": "verify-full",
                "sslrootcert": str(certificates.authority),
            }


@asynccontextmanager
async def connected(where: dict[str, Any]) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(**where, autocommit=True) as connection:
        yield connection


async def value(connection: psycopg.AsyncConnection, query: str, *arguments: object) -> Any:
    """The only value that a query answers."""
    row = await (await connection.execute(query, arguments)).fetchone()
    assert row is not None
    return row[0]


def test_queries_and_values(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as connection:
            ssl = await value(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert ssl == (where.get("sslmode") == "verify-full")
            assert await value(connection, "SELECT %s::bytea", payload(4 * MIB)) == payload(4 * MIB)
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1/0")
            cursor = await connection.execute("SELECT generate_series(1, 5000)")
            assert [number async for (number,) in cursor] == list(range(1, 5001))
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("CREATE TABLE undone (id int)")
                    raise ZeroDivisionError
            assert await value(connection, "SELECT to_regclass('undone')") is None

    loop_under_test.run(main())


def test_pipelines_and_copies(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    """Both directions of the socket are waited for at once, in either order."""

    async def main() -> None:
        async with connected(where) as connection:
            async with connection.pipeline():
                cursors = [await connection.execute("SELECT %s::int", (number,)) for number in range(500)]
            assert [await cursor.fetchone() for cursor in cursors] == [(number,) for number in range(500)]
            async with connection.cursor() as cursor:
                await cursor.execute("CREATE TEMPORARY TABLE copied (number int, text text)")
                async with cursor.copy("COPY copied FROM STDIN") as copy:
                    for number in range(5000):
                        await copy.write_row((number, str(number) * 20))
                async with cursor.copy("COPY copied TO STDOUT") as copy:
                    rows = [row async for row in copy.rows()]
                assert rows == [(str(number), str(number) * 20) for number in range(5000)]

    loop_under_test.run(main())


def test_notifications_come_while_nothing_is_asked(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as listener, connected(where) as sender:
            # One server for all: each connection's own name.
            channel = f"channel_{listener.info.backend_pid}"
            await listener.execute(f"LISTEN {channel}")

            async def listen() -> list[str]:
                return [notification.payload async for notification in listener.notifies(stop_after=100)]

            listening = asyncio.create_task(listen())
            for number in range(100):
                await sender.execute("SELECT pg_notify(%s, %s)", (channel, str(number)))
            assert await listening == [str(number) for number in range(100)]

    loop_under_test.run(main())


def test_a_cancelled_query_ends_on_the_server_too(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as connection, connected(where) as observer:
            number = connection.info.backend_pid
            active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            task = asyncio.create_task(connection.execute("SELECT pg_sleep(1000)"))
            while not await value(observer, active, number):
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not await value(observer, active, number)
            assert await value(connection, "SELECT 1") == 1

    loop_under_test.run(main())


def test_a_pool_under_load(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncConnectionPool(kwargs=where, min_size=2, max_size=5, open=False, timeout=DEADLINE) as pool:

            async def work(number: int) -> None:
                async with pool.connection() as connection:
                    assert await value(connection, "SELECT %s::int", number) == number

            await asyncio.gather(*(work(number) for number in range(100)))
            assert pool.get_stats()["requests_num"] == 100

    loop_under_test.run(main())


def test_a_connection_that_breaks_is_told(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as observer:
            connection = await psycopg.AsyncConnection.connect(**where, autocommit=True)
            task = asyncio.create_task(connection.execute("SELECT pg_sleep(1000)"))
            active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            while not await value(observer, active, connection.info.backend_pid):
                pass
            await value(observer, "SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            with pytest.raises(psycopg.OperationalError):
                await task
            assert connection.broken
            await connection.close()

    loop_under_test.run(main())
