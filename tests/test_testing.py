"""`hotloop.testing`: virtual time, and connections in memory that are as those of a kernel."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
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
        testing.run(main())
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"HOTLOOP_SEED=\d+ runs it again as it was", note)


def test_threads_that_nobody_waits_for_do_not_hide_that_it_waits_for_ever(no_leaks):
    async def main() -> None:
        # The executor's thread is idle from here on.
        await asyncio.get_running_loop().run_in_executor(None, int)
        await asyncio.Event().wait()

    done = threading.Event()
    older = threading.Thread(target=done.wait)
    older.start()
    try:
        with pytest.raises(testing.Deadlock):
            testing.run(main())
    finally:
        done.set()
        older.join()


def test_the_seed_of_the_environment_is_taken_where_one_would_be_drawn(monkeypatch, no_leaks):
    async def seed() -> int:
        loop: Any = asyncio.get_running_loop()
        return loop.seed

    monkeypatch.setenv("HOTLOOP_SEED", "77")
    assert testing.run(seed()) == 77
    assert testing.run(seed(), seed=5) == 5


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


class Told(list[Any]):
    """What somebody was told, for others to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def append(self, said: Any) -> None:
        super().append(said)
        self._news.set()

    async def reaches(self, count: int) -> None:
        """Wait until so much was told."""
        while len(self) < count:
            self._news.clear()
            await self._news.wait()


class Log(asyncio.Protocol):
    """A protocol that notes what it is told."""

    def __init__(self) -> None:
        self.told = Told()
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
    # What had left arrives, and then the end.
    far.transport.resume_reading()
    await far.is_lost
    assert far.received.strip(b"a") == b""


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
        return [near.told, far.told]

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
    context = ssl.create_default_context()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="no TLS"):
            await asyncio.open_connection("localhost", 443, ssl=True)
        with pytest.raises(ValueError, match="no TLS"):
            await loop.create_unix_connection(asyncio.Protocol, "/nowhere", ssl=context)
        with pytest.raises(ValueError, match="no TLS"):
            await asyncio.start_server(print, "localhost", 443, ssl=context)
        with pytest.raises(ValueError, match="no TLS"):
            await loop.create_unix_server(asyncio.Protocol, "/nowhere", ssl=context)
        server, near, far = await connected(Log)
        with pytest.raises(TypeError, match="not supported by start_tls"):
            await loop.start_tls(near.transport, near, context)
        near.transport.abort()
        await far.is_lost
        server.close()

    testing.run(main())


def test_arguments_that_asyncio_does_not_take_are_refused(no_leaks):
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for method in (loop.create_connection, loop.create_server, loop.create_datagram_endpoint):
            with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
                await method(asyncio.Protocol, ("localhost"), 80, colour="red")
        with pytest.raises(ValueError, match="host and port was not specified and no sock specified"):
            await loop.create_connection(asyncio.Protocol)

    testing.run(main())


def test_a_server_whose_factory_raises_closes_the_connection(no_leaks):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
        server = await loop.create_server(lambda: 1 / 0, "localhost", 80)  # type: ignore[arg-type,return-value]
        _, near = await loop.create_connection(Log, "localhost", 80)
        await near.is_lost
        assert near.told == ["made", "eof", ("lost", "NoneType")]
        assert [type(error) for error in reports] == [ZeroDivisionError]
        server.close()

    testing.run(main())


def test_each_connection_has_a_context_of_its_own(no_leaks):
    who = contextvars.ContextVar("who", default="nobody")

    class Remembering(Log):
        def data_received(self, data: bytes) -> None:
            self.told.append(who.get())
            who.set(who.get() + "!")

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        fars = Told()

        def accepted() -> Remembering:
            fars.append(Remembering())
            return fars[-1]

        who.set("server")
        server = await loop.create_server(accepted, "127.0.0.1", 0)
        who.set("client")
        told = []
        for number in range(2):
            transport, near = await loop.create_connection(Remembering, *server.sockets[0].getsockname())
            await fars.reaches(number + 1)
            far = fars[number]
            await far.told.reaches(1)
            for sender, receiver in [(transport, far), (far.transport, near)] * 2:
                count = len(receiver.told)
                sender.write(b"?")
                await receiver.told.reaches(count + 1)
            transport.close()
            await far.is_lost
            told.append((near.told, far.told))
        server.close()
        return told

    real = asyncio.SelectorEventLoop()
    try:
        expected = run_on(real, main())
    finally:
        real.close()
    assert testing.run(main()) == expected


def test_files_are_sent(no_leaks, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789" * 50_000)

    async def main() -> None:
        server, near, far = await connected(Log)
        with (tmp_path / "file").open("rb") as file:
            assert await asyncio.get_running_loop().sendfile(near.transport, file, 10) == 499_990
        near.transport.close()
        await far.is_lost
        assert len(far.received) == 499_990
        server.close()

    testing.run(main())


# Datagrams, compared with those of a kernel


class Datagrams(asyncio.DatagramProtocol):
    """A protocol that notes what it is told, and answers."""

    def __init__(self) -> None:
        self.told = Told()
        self.is_lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.told.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.told.append(type(exc).__name__)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(("lost", exc))
        self.is_lost.set_result(None)


async def talk(loop: asyncio.AbstractEventLoop) -> list[Any]:
    """What the two ends of a conversation are told, with words in the place of ports."""
    far_transport, far = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    at = far_transport.get_extra_info("sockname")
    near_transport, near = await loop.create_datagram_endpoint(Datagrams, remote_addr=at)
    own = near_transport.get_extra_info("sockname")
    assert near_transport.get_extra_info("peername") == at
    names = {at: "far", own: "near"}
    near_transport.sendto(b"one")
    near_transport.sendto(b"two", at)
    await far.told.reaches(3)
    far_transport.sendto(b"three", own)
    await near.told.reaches(2)
    # Neither from another than the one that it is connected to, nor to another.
    stranger_transport, stranger = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    stranger_transport.sendto(b"who is this?", own)
    with pytest.raises(ValueError, match="must be None or"):
        near_transport.sendto(b"four", ("127.0.0.1", 9))
    with pytest.raises(TypeError, match="bytes-like object"):
        near_transport.sendto("text")
    near_transport.sendto(b"x" * 70_000)
    far_transport.close()
    await far.is_lost
    near_transport.sendto(b"five")
    await near.told.reaches(4)
    assert near_transport.get_write_buffer_size() == 0
    for transport in (near_transport, stranger_transport):
        assert not transport.is_closing()
        transport.abort()
        transport.close()
        assert transport.is_closing()
    await near.is_lost
    await stranger.is_lost
    return [
        [(said[0], names[said[1]]) if said[0].__class__ is bytes else said for said in end.told]
        for end in (near, far, stranger)
    ]


def test_datagrams_are_told_as_by_a_kernel(no_leaks):
    real = asyncio.SelectorEventLoop()
    try:
        expected = run_on(real, talk(real))
    finally:
        real.close()
    loop = testing.EventLoop(seed=1)
    try:
        assert loop.run_until_complete(talk(loop)) == expected
    finally:
        loop.close()


@pytest.mark.parametrize("delay", [(0, 0), (0, 1)])
def test_datagrams_are_lost_and_overtake_each_other(delay, no_leaks):
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        _, far = await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", 53))
        transport, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=("example.org", 53))
        for number in range(100):
            transport.sendto(bytes([number]))
        await asyncio.sleep(10)
        return [said[0][0] for said in far.told[1:]]

    faults = testing.Faults(delay=delay, loss=0.2)
    got = testing.run(main(), seed=4, faults=faults)
    assert 60 < len(set(got)) == len(got) < 95
    assert got != sorted(got)
    assert testing.run(main(), seed=4, faults=faults) == got
    assert testing.run(main(), seed=5, faults=faults) != got


def test_datagram_addresses(no_leaks):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        _, everywhere = await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", 53))
        with pytest.raises(OSError, match="in use"):
            await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", 53))
        with pytest.raises(ValueError, match="unexpected address family"):
            await loop.create_datagram_endpoint(Datagrams)
        sender, _ = await loop.create_datagram_endpoint(Datagrams, family=socket.AF_INET)
        sender.sendto(b"anybody?", ("example.org", 53))
        sender.sendto(b"nobody", ("example.org", 54))
        await everywhere.told.reaches(2)
        address = sender.get_extra_info("sockname")
        assert everywhere.told[1] == (b"anybody?", ("127.0.0.1", address[1]))
        # A path has no port, and the sender no path.
        _, at_path = await loop.create_datagram_endpoint(Datagrams, local_addr="/nowhere", family=socket.AF_UNIX)
        nameless, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr="/nowhere", family=socket.AF_UNIX)
        nameless.sendto(b"by path")
        await at_path.told.reaches(2)
        assert at_path.told[1][0] == b"by path"

    testing.run(main())


def test_sending_to_nobody_in_particular_ends_the_endpoint(no_leaks):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
        transport, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
        transport.sendto(b"?")
        await protocol.is_lost
        assert reports == ["Fatal write error on datagram transport"]
        assert isinstance(protocol.told[-1][1], TypeError)

    testing.run(main())


# One seed, one history

HISTORY = """
import asyncio
from hotloop import testing

told = []

async def sleeper(number):
    try:
        await asyncio.sleep(1000)
    finally:
        told.append((asyncio.current_task().get_name(), number))

async def generator(number):
    try:
        yield number
    finally:
        told.append(("generator", number))

class Told(asyncio.Protocol):
    def __init__(self, name):
        self.name = name
    def data_received(self, data):
        told.append((self.name, data))
    def connection_lost(self, error):
        told.append((self.name, "lost"))

async def main():
    loop = asyncio.get_running_loop()
    count = iter(range(100))
    server = await loop.create_server(lambda: Told(f"far {next(count)}"), "localhost", 80)
    nears = [await loop.create_connection(lambda: Told("near"), "localhost", 80) for _ in range(20)]
    for transport, _ in nears:
        transport.write(b"hello")
    await asyncio.sleep(1)
    if hasattr(server, "close_clients"):
        server.close_clients()
    else:
        loop.network.reset_all()
    server.close()
    await asyncio.sleep(1)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(sleeper(number))
            await asyncio.sleep(0)
            raise ValueError
    except* ValueError:
        pass
    done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1, number)) for number in range(50)])
    told.extend(task.result() for task in done)
    generators = [generator(number) for number in range(20)]
    for one in generators:
        await anext(one)
    tasks = [asyncio.ensure_future(sleeper(number)) for number in range(50)]
    await asyncio.sleep(0)
    told.append("the end")
    return generators, tasks

for seed in (3, 3, 4):
    kept = testing.run(main(), seed=seed)
    print(told)
    told.clear()
"""


def test_neither_hashes_nor_places_in_memory_show():
    """What is cancelled or closed all at once is so in one order, also in a process where everything lies elsewhere."""
    histories = []
    for hash_seed, ballast in [("1", 0), ("2", 0), ("3", 100_000)]:
        script = f"ballast = [object() for _ in range({ballast})]\ndel ballast[::2]\n" + HISTORY
        ran = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        histories.append(ran.stdout.splitlines())
    assert histories[0] == histories[1] == histories[2]
    first, again, other = histories[0]
    assert first == again != other
    assert "generator" in first
    assert "Task-" in first


def test_the_examples_of_the_page_run(tmp_path):
    page = Path(__file__).parent.parent / "docs" / "testing.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^7 passed", ran.stdout, re.MULTILINE), ran.stdout
