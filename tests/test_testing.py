"""`hotloop.testing`: virtual time, and connections in memory that are as those of a kernel."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness import run as run_on
from hotloop import testing


def test_an_hour_takes_no_time(no_leaks):
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        await asyncio.sleep(365 * 24 * 3600)
        return asyncio.get_running_loop().time()

    start = time.monotonic()
    assert testing.run(main()) == pytest.approx(3600 + 365 * 24 * 3600)
    assert time.monotonic() - start < 60


def test_timers_run_in_the_order_of_their_times(no_leaks):
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        ran: list[tuple[float, float]] = []
        for delay in (5, 0.1, 1e-6, 86400 * 3, 7):
            loop.call_later(delay, lambda delay=delay: ran.append((delay, loop.time())))
        await asyncio.sleep(86400 * 4)
        return ran

    ran = testing.run(main())
    assert [delay for delay, _ in ran] == [1e-6, 0.1, 5, 7, 86400 * 3]
    assert all(at == pytest.approx(delay) for delay, at in ran)
    assert all(at >= delay for delay, at in ran)


def test_time_waits_for_the_executor(no_leaks):
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        goes_on = threading.Event()
        late = loop.call_later(1, print, "time went on")
        job = loop.run_in_executor(None, goes_on.wait, 60)
        await asyncio.sleep(0)
        goes_on.set()
        assert await job
        late.cancel()
        return "done", loop.time()

    assert testing.run(main()) == ("done", 0.0)


def test_waiting_for_ever_is_an_error(no_leaks):
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(testing.Deadlock, match="waits for ever") as caught:
        testing.run(main(), seed=5)
    assert caught.value.__notes__ == ["with seed 5"]


def test_another_thread_may_wake_it(no_leaks):
    async def main() -> None:
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(woken.set))
        thread.start()
        await woken.wait()
        thread.join()

    testing.run(main())


# Connections, compared with those of a kernel


class Log(asyncio.Protocol):
    """A protocol that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.received = bytearray()
        self.is_lost = asyncio.get_running_loop().create_future()
        self.has_ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self.told.append("data")
        self.received += data

    def eof_received(self) -> bool | None:
        self.told.append("eof")
        self.has_ended.set_result(None)
        return self.keeps_open

    keeps_open: bool | None = None

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append(("lost", type(error).__name__))
        self.is_lost.set_result(None)


class Open(Log):
    """Keeps its half open when the other ends."""

    keeps_open = True


async def connected(kind: type[Log]) -> tuple[asyncio.Server, Log, Log]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Log] = loop.create_future()

    def factory() -> Log:
        protocol = kind()
        loop.call_soon(made.set_result, protocol)
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0)
    _, near = await loop.create_connection(kind, *server.sockets[0].getsockname()[:2])
    return server, near, await made


async def closing_in_order(near: Log, far: Log) -> None:
    near.transport.write(b"a" * 1_000_000)
    near.transport.close()
    await near.is_lost
    await far.is_lost
    assert len(far.received) == 1_000_000


async def half_closing(near: Log, far: Log) -> None:
    near.transport.write(b"question")
    near.transport.write_eof()
    await far.has_ended
    with pytest.raises(RuntimeError, match=r"after write_eof\(\)"):
        near.transport.write(b"more")
    far.transport.write(b"answer")
    far.transport.close()
    await near.has_ended
    assert near.received == b"answer"
    near.transport.close()
    await near.is_lost
    await far.is_lost


async def aborting_a_full_pipe(near: Log, far: Log) -> None:
    far.transport.pause_reading()
    await asyncio.sleep(0.01)
    near.transport.write(b"a" * 20_000_000)
    assert near.transport.get_write_buffer_size() > 0
    near.transport.abort()
    await near.is_lost
    assert near.transport.get_write_buffer_size() == 0


async def closing_twice_and_writing_on(near: Log, far: Log) -> None:
    near.transport.close()
    near.transport.close()
    assert near.transport.is_closing()
    near.transport.write(b"too late")
    await near.is_lost
    await far.is_lost
    assert far.received == b""


@pytest.mark.parametrize("kind", [Log, Open])
@pytest.mark.parametrize(
    "scenario", [closing_in_order, half_closing, aborting_a_full_pipe, closing_twice_and_writing_on]
)
def test_protocols_are_told_what_a_kernel_would_have_told(
    scenario: Callable[[Log, Log], Any], kind: type[Log], no_leaks: None
) -> None:
    if scenario is half_closing and kind is Log:
        pytest.skip("who closes at the end of the other's half cannot answer")

    async def main() -> list[list[Any]]:
        server, near, far = await connected(kind)
        if kind is Open and scenario is not half_closing:
            far.has_ended.add_done_callback(lambda _: far.transport.close())
        await scenario(near, far)
        for end in (near, far):
            end.transport.abort()
        await near.is_lost
        await far.is_lost
        server.close()
        await server.wait_closed()
        # Which error a far end has of an abort depends on where its bytes are.
        return [near.told, far.told[:2] if scenario is aborting_a_full_pipe else far.told]

    real = asyncio.SelectorEventLoop()
    try:
        expected = run_on(real, main())
    finally:
        real.close()
    assert testing.run(main()) == expected
    assert testing.run(main(), seed=1, faults=testing.Faults(delay=(0, 1), loss=0.1, split=50_000)) == expected


def test_a_reader_that_pauses_pauses_the_writer(no_leaks):
    async def main() -> None:
        server, near, far = await connected(Log)
        paused: list[bool] = []
        near.pause_writing = lambda: paused.append(True)
        near.resume_writing = lambda: paused.append(False)
        far.transport.pause_reading()
        near.transport.write(b"a" * 1_000_000)
        assert paused == [True]
        await asyncio.sleep(3600)
        assert far.received == b""
        far.transport.resume_reading()
        near.transport.close()
        await far.is_lost
        assert len(far.received) == 1_000_000
        assert paused == [True, False]
        server.close()

    testing.run(main())


def test_nobody_listens(no_leaks):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "localhost", 80)
        server = await loop.create_server(asyncio.Protocol, "localhost", 80)
        with pytest.raises(OSError, match="in use") as caught:
            await loop.create_server(asyncio.Protocol, "127.0.0.1", 80)
        assert caught.value.errno == errno.EADDRINUSE
        transport, _ = await loop.create_connection(asyncio.Protocol, "localhost", 80)
        transport.abort()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "localhost", 80)

    testing.run(main())


def test_unix_paths_and_buffered_protocols(no_leaks):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.room, self.received = bytearray(1000), bytearray()
            self.is_lost = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.room

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.room[:nbytes]

        def connection_lost(self, exc: Exception | None) -> None:
            self.is_lost.set_result(exc)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Buffered] = []
        server = await loop.create_unix_server(lambda: made.append(Buffered()) or made[-1], "/nowhere")
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, "/nowhere")
        transport.write(b"abc" * 1000)
        transport.close()
        assert await made[0].is_lost is None
        assert made[0].received == b"abc" * 1000
        server.close()

    testing.run(main())


def test_resets_reach_both_ends(no_leaks):
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        server, near, far = await connected(Log)
        loop.network.reset_all()
        await near.is_lost
        await far.is_lost
        assert near.told[-1] == far.told[-1] == ("lost", "ConnectionResetError")
        server.close()

    testing.run(main())


@pytest.mark.parametrize(
    "options", [{"delay": (2, 1)}, {"delay": (-1, 1)}, {"loss": 1}, {"reset": 2}, {"refuse": -0.1}]
)
def test_faults_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        testing.Faults(**options)


def test_tls_in_memory_is_refused(no_leaks):
    async def main() -> None:
        with pytest.raises(ValueError, match="no TLS"):
            await asyncio.open_connection("localhost", 443, ssl=True)

    testing.run(main())
