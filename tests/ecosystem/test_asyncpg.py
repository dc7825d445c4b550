"""asyncpg on the loop under test, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from .conftest import Certificates, PostgreSQL
from .harness import DEADLINE, LoopUnderTest
from .servers.payload import payload

MIB = 1 << 20


@pytest.fixture(params=["tcp", "unix", "tls"])
def where(request: pytest.FixtureRequest, postgresql: PostgreSQL, certificates: Certificates) -> dict[str, Any]:
    """Arguments of ``asyncpg.connect`` for each way to the server. TLS begins in the middle of its protocol."""
    match request.param:
        case "tcp":
            return postgresql.tcp
        case "unix":
            return postgresql.unix
        case _:
            return postgresql.tcp | {"ssl": certificates.client_context()}


@asynccontextmanager
async def connected(where: dict[str, Any]) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(**where, timeout=DEADLINE)
    try:
        yield connection
    finally:
        await connection.close(timeout=DEADLINE)


def test_queries_and_values(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as connection:
            assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == isinstance(
                where.get("ssl"), ssl.SSLContext
            )
            now = datetime.now(UTC)
            row = await connection.fetchrow(
                "SELECT $1::int AS number, $2::text AS text, $3::numeric AS decimal, $4::timestamptz AS moment, "
                "$5::int[] AS list, $6::bytea AS bytes",
                *(-1, "schön", Decimal("1.50"), now, [1, None, 3], b"\0\xff"),
            )
            assert tuple(row) == (-1, "schön", Decimal("1.50"), now, [1, None, 3], b"\0\xff")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetch("SELECT 1/0")
            assert await connection.fetchval("SELECT 2") == 2

    loop_under_test.run(main())


def test_large_values_and_many_rows(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as connection:
            for size in (0, 1, 65_536, 8 * MIB):
                assert await connection.fetchval("SELECT $1::bytea", payload(size)) == payload(size)
            rows = await connection.fetch("SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) AS n")
            assert [(row[0], len(row[1])) for row in rows] == [(n, n % 100) for n in range(1, 50_001)]

    loop_under_test.run(main())


def test_prepared_statements_cursors_and_transactions(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as connection:
            statement = await connection.prepare("SELECT $1::int * 2")
            for number in range(500):
                assert await statement.fetchval(number) == number * 2
            await connection.execute("CREATE TEMPORARY TABLE numbers (number int PRIMARY KEY)")
            await connection.executemany("INSERT INTO numbers VALUES ($1)", [(number,) for number in range(5000)])
            async with connection.transaction():
                seen = [row[0] async for row in connection.cursor("SELECT number FROM numbers ORDER BY 1", prefetch=77)]
            assert seen == list(range(5000))

            async def fail() -> None:
                async with connection.transaction():
                    await connection.execute("DELETE FROM numbers WHERE number > 100")
                    await connection.execute("INSERT INTO numbers VALUES (1)")

            with pytest.raises(asyncpg.UniqueViolationError):
                await fail()
            assert await connection.fetchval("SELECT count(*) FROM numbers") == 5000

    loop_under_test.run(main())


def test_notifications(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with connected(where) as listener, connected(where) as speaker:

            def hear(connection: object, process: int, channel: str, said: str) -> None:
                assert process == speaker.get_server_pid()
                heard.put_nowait(said)

            await listener.add_listener("news", hear)
            # Nothing is asked of the listening connection: what comes, comes unasked.
            for number in range(200):
                await speaker.execute(f"NOTIFY news, '{number}'")
            assert [await heard.get() for _ in range(200)] == [str(number) for number in range(200)]
            await listener.remove_listener("news", hear)

    loop_under_test.run(main())


def test_copies_in_and_out(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    records = [(number, f"row {number}" * (number % 10)) for number in range(30_000)]
    lines = "".join(f"{number}\t{text}\n" for number, text in records).encode()

    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(lines), 70_001):
            yield lines[start : start + 70_001]

    async def main() -> None:
        async with connected(where) as connection:
            await connection.execute("CREATE TEMPORARY TABLE copied (number int, text text)")
            assert await connection.copy_records_to_table("copied", records=records) == "COPY 30000"
            assert await connection.copy_to_table("copied", source=source()) == "COPY 30000"
            rows = await connection.fetch("SELECT number, text FROM copied ORDER BY 1")
            assert [tuple(row) for row in rows[::2]] == records
            out = io.BytesIO()
            await connection.copy_from_query("SELECT DISTINCT number, text FROM copied ORDER BY 1", output=out)
            assert out.getvalue() == lines

            pieces = bytearray()

            async def sink(piece: bytes) -> None:
                # A turn of the loop for each piece: the connection is paused and resumed meanwhile.
                await asyncio.sleep(0)
                pieces.extend(piece)

            await connection.copy_from_query("SELECT DISTINCT number, text FROM copied ORDER BY 1", output=sink)
            assert pieces == lines

    loop_under_test.run(main())


async def running(connection: asyncpg.Connection, process: int) -> bool:
    """Whether the server still runs a query of `process`."""
    return await connection.fetchval("SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", process)


async def sleeping(observer: asyncpg.Connection) -> int:
    """How many connections the server makes sleep."""
    return await observer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


def test_a_cancelled_query_is_cancelled_on_the_server(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    """asyncpg opens a second connection for it, and the first one goes on."""

    async def main() -> None:
        async with connected(where) as connection, connected(where) as observer:
            process = connection.get_server_pid()
            task = asyncio.create_task(connection.execute("SELECT pg_sleep(3600)"))
            while not await running(observer, process):
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await connection.fetchval("SELECT 1") == 1
            assert not await running(observer, process)
            # The server ignores a request to cancel that overtakes its query, which then must end by itself.
            with pytest.raises(asyncio.TimeoutError):
                await connection.execute("SELECT pg_sleep(2)", timeout=0.01)
            assert await connection.fetchval("SELECT 1") == 1

    loop_under_test.run(main())


def test_a_connection_that_is_cancelled_leaves_nothing(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    """Cancelled at each of its turns; what it opened until then must be closed."""

    async def main() -> None:
        for turns in range(25):
            task = asyncio.create_task(asyncpg.connect(**where, timeout=DEADLINE))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                connection = await task
            except asyncio.CancelledError:
                continue
            await connection.close()
        async with connected(where) as connection:
            assert await connection.fetchval("SELECT 1") == 1

    # asyncpg's own, where it's cancelled between asking for TLS and the server's answer.
    loop_under_test.run(main(), tolerated="unexpected connection_lost() call")


def test_a_connection_ended_by_the_server(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as observer:
            connection = await asyncpg.connect(**where)
            ended = asyncio.Event()
            connection.add_termination_listener(lambda _: ended.set())
            await observer.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await ended.wait()
            assert connection.is_closed()
            with pytest.raises(asyncpg.InterfaceError):
                await connection.execute("SELECT 1")

    loop_under_test.run(main())


def test_a_pool(loop_under_test: LoopUnderTest, where: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(where) as observer, asyncpg.create_pool(**where, min_size=2, max_size=10) as pool:

            async def work(number: int) -> int:
                async with pool.acquire() as connection, connection.transaction():
                    return await connection.fetchval("SELECT $1::int + 1", number)

            assert await asyncio.gather(*(work(number) for number in range(500))) == list(range(1, 501))
            # Tasks that give up while they wait for a connection, or use one, leave the pool whole.
            held = [asyncio.create_task(pool.execute("SELECT pg_sleep(3600)")) for _ in range(30)]
            # The server ignores a request to cancel that overtakes its query: each must have reached it.
            while await sleeping(observer) < 10:
                pass
            for task in held:
                task.cancel()
            outcomes = await asyncio.gather(*held, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert await asyncio.gather(*(work(number) for number in range(100))) == list(range(1, 101))

    loop_under_test.run(main())


def test_refuses_a_certificate_it_does_not_trust(loop_under_test: LoopUnderTest, postgresql: PostgreSQL) -> None:
    async def main() -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(**postgresql.tcp | {"ssl": ssl.create_default_context()}, timeout=DEADLINE)

    loop_under_test.run(main())
