"""anyio on the loop under test, chosen by ``backend_options``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, TaskStatus
from anyio.streams.tls import TLSListener, TLSStream

from .conftest import Certificates
from .harness import DEADLINE, LoopUnderTest, package_of
from .servers.payload import payload

MIB = 1 << 20


@pytest.fixture
def run(loop_under_test: LoopUnderTest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """A function that runs another with anyio on the loop."""

    def run(main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            assert package_of(asyncio.get_running_loop()) == loop_under_test.package
            with anyio.fail_after(DEADLINE):
                await main()

        anyio.run(bounded, backend_options={"loop_factory": loop_under_test.new_loop})

    return run


Run = Callable[[Callable[[], Awaitable[None]]], None]


async def echo(stream: anyio.abc.ByteStream) -> None:
    async with stream:
        async for piece in stream:
            await stream.send(piece)


async def send_and_receive(stream: anyio.abc.ByteStream, body: bytes) -> bytes:
    """What comes back, as much as was sent, while it is sent."""
    received = bytearray()
    async with anyio.create_task_group() as group:
        group.start_soon(stream.send, body)
        while len(received) < len(body):
            received += await stream.receive()
    return bytes(received)


def test_streams_over_tcp(run: Run) -> None:
    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)

            async def client(number: int) -> None:
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    body = payload(number * 40_000)
                    assert await send_and_receive(stream, body) == body
                    await stream.send_eof()
                    with pytest.raises(anyio.EndOfStream):
                        await stream.receive()

            async with anyio.create_task_group() as clients:
                for number in range(30):
                    clients.start_soon(client, number)
            group.cancel_scope.cancel()

    run(main)


def test_connects_by_name(run: Run) -> None:
    """anyio has happy eyeballs of its own, which cancels the attempts that lost."""

    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)
            for _ in range(10):
                async with await anyio.connect_tcp("localhost", port) as stream:
                    assert await send_and_receive(stream, b"by name") == b"by name"
            group.cancel_scope.cancel()
        with pytest.raises(OSError, match="All connection attempts failed"):
            await anyio.connect_tcp("localhost", port)

    run(main)


def test_streams_over_tls(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
        listener = TLSListener(plain, certificates.server_context())
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = plain.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp(
                "127.0.0.1", port, tls=True, ssl_context=certificates.client_context()
            ) as stream:
                assert isinstance(stream, TLSStream)
                assert await send_and_receive(stream, payload(MIB)) == payload(MIB)
            group.cancel_scope.cancel()

    run(main)


def test_passes_descriptors_over_a_unix_socket(run: Run, short_tmp: str, tmp_path: Path) -> None:
    """anyio reads these sockets itself, with ``add_reader`` and ``add_writer``."""
    (tmp_path / "file").write_text("passed")

    async def main() -> None:
        async def serve(stream: anyio.abc.UNIXSocketStream) -> None:
            async with stream:
                assert await send_and_receive(stream, payload(MIB)) == payload(MIB)
                await stream.send(b"ready")
                _, (descriptor,) = await stream.receive_fds(10, 1)
                with os.fdopen(descriptor) as file:
                    await stream.send(file.read().encode())

        async with (
            await anyio.create_unix_listener(f"{short_tmp}/anyio") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, serve)
            async with await anyio.connect_unix(f"{short_tmp}/anyio") as stream:
                received = bytearray()
                while len(received) < MIB:
                    piece = await stream.receive()
                    received += piece
                    await stream.send(piece)
                assert received == payload(MIB)
                # Sent any earlier, they could come together with the end of what is echoed.
                assert await stream.receive() == b"ready"
                async with await anyio.open_file(tmp_path / "file") as file:
                    await stream.send_fds(b"here", [file.fileno()])
                assert await stream.receive() == b"passed"
            group.cancel_scope.cancel()

    run(main)


def test_datagrams(run: Run) -> None:
    async def main() -> None:
        async with (
            await anyio.create_udp_socket(local_host="127.0.0.1", family=socket.AF_INET) as server,
            await anyio.create_connected_udp_socket(
                "127.0.0.1", server.extra(SocketAttribute.local_port), local_host="127.0.0.1"
            ) as client,
        ):
            for number in range(100):
                await client.send(b"%d" % number)
                packet, address = await server.receive()
                await server.sendto(packet * 2, *address)
                assert await client.receive() == b"%d" % number * 2

    run(main)


def test_processes(run: Run) -> None:
    async def main() -> None:
        done = await anyio.run_process([sys.executable, "-c", "print(input()[::-1])"], input=b"backwards\n")
        assert done.stdout == b"sdrawkcab\n"
        async with await anyio.open_process(["cat"], stderr=None) as process:
            assert isinstance(process.stdin, anyio.abc.ByteSendStream)
            assert process.stdout is not None
            async with anyio.create_task_group() as group:

                async def feed() -> None:
                    await process.stdin.send(payload(MIB))
                    await process.stdin.aclose()

                group.start_soon(feed)
                received = b"".join([piece async for piece in process.stdout])
            assert received == payload(MIB)
            assert await process.wait() == 0
        with pytest.raises(subprocess.CalledProcessError):
            await anyio.run_process(["false"])
        with anyio.move_on_after(0.05) as scope:
            await anyio.run_process(["sleep", "3600"])
        assert scope.cancelled_caught

    run(main)


def test_threads_and_the_way_back(run: Run, loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        async def on_the_loop(number: int) -> int:
            assert threading.current_thread() is threading.main_thread()
            await anyio.lowlevel.checkpoint()
            return number + 1

        def in_a_thread(number: int) -> int:
            assert threading.current_thread() is not threading.main_thread()
            return anyio.from_thread.run(on_the_loop, number)

        results = []

        async def call(number: int) -> None:
            results.append(await anyio.to_thread.run_sync(in_a_thread, number))

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(call, number)
        assert sorted(results) == list(range(1, 101))

    run(main)
    # A loop in another thread, which this one, that has none, calls into.
    with anyio.from_thread.start_blocking_portal(backend_options={"loop_factory": loop_under_test.new_loop}) as portal:
        assert package_of(portal.call(asyncio.get_running_loop)) == loop_under_test.package
        assert [portal.start_task_soon(anyio.sleep, 0).result(DEADLINE) for _ in range(20)] == [None] * 20


def test_signals(run: Run) -> None:
    async def main() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGTERM) as signals:
            for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
                os.kill(os.getpid(), number)
                assert await anext(signals) == number

    run(main)


def test_cancellation(run: Run) -> None:
    async def main() -> None:
        cancelled = []

        async def child(number: int, *, task_status: TaskStatus[int]) -> None:
            task_status.started(number)
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(number)
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for number in range(50):
                assert await group.start(child, number) == number
            group.cancel_scope.cancel()
        assert sorted(cancelled) == list(range(50))
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await anyio.sleep_forever()

        async def fail() -> None:
            async with anyio.create_task_group() as group:
                await group.start(child, 50)
                raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as raised:
            await fail()
        assert raised.group_contains(ZeroDivisionError)
        assert cancelled[-1] == 50

    run(main)


def test_waits_for_readable_and_writable_sockets(run: Run) -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            await anyio.wait_writable(left)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.wait_readable, left)
                await anyio.wait_all_tasks_blocked()
                right.send(b"x")
            assert left.recv(1) == b"x"

    run(main)


PLUGIN_TESTS = """
    import asyncio

    import pytest
    import {module}

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend():
        return "asyncio", {{"loop_factory": {factory}}}

    @pytest.fixture
    async def loop():
        yield asyncio.get_running_loop()

    async def test_runs_on_the_loop(loop):
        assert loop is asyncio.get_running_loop()
        assert type(loop).__module__.partition(".")[0] == "{package}"
"""


def test_its_pytest_plugin(loop_under_test: LoopUnderTest, tmp_path: Path) -> None:
    module, _, attribute = loop_under_test.factory.partition(":")
    (tmp_path / "test_generated.py").write_text(
        dedent(PLUGIN_TESTS).format(module=module, factory=f"{module}.{attribute}", package=loop_under_test.package)
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
