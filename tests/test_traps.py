"""What broke other loops and has no better place: see docs/traps.md."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
from test_faults import tracing_is_refused

from harness import (
    FACTORIES,
    PATIENCE,
    Recorder,
    attach,
    close,
    python,
    run,
    run_until_called,
    stock_loop,
    turns,
)


def test_descriptors_of_a_thread_survive_the_churn_of_the_loop(loop, no_leaks):
    """uvloop#763, uvloop#740: a second close of a number hits what another thread has opened meanwhile."""
    wrong = []
    ended = threading.Event()
    null = os.stat("/dev/null").st_rdev

    def open_and_close():
        try:
            while not ended.is_set():
                held = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
                wrong.extend(fd for fd in held if os.fstat(fd).st_rdev != null)
                for fd in held:
                    os.close(fd)
        except OSError as error:
            wrong.append(error)

    async def churn():
        listener = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(Recorder, sock=listener)
        address = listener.getsockname()
        for number in range(150):
            transport, protocol = await loop.create_connection(Recorder, *address)
            read, write = os.pipe()
            pipe, _ = await loop.connect_read_pipe(Recorder, os.fdopen(read, "rb", 0))
            task = loop.create_task(loop.create_connection(Recorder, *address))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
            [given_up] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(given_up, tuple):
                given_up[0].close()
            (transport.abort if number % 2 else transport.close)()
            pipe.close()
            os.close(write)
            await protocol.lost
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=open_and_close)
    thread.start()
    try:
        run(loop, churn())
        turns(loop, 5)
    finally:
        ended.set()
        thread.join()
    assert wrong == []


def test_a_local_address_is_looked_up_off_the_loops_thread(loop, no_leaks, monkeypatch):
    """zuvloop#183"""
    looked_up = []
    real = socket.getaddrinfo

    def recording(host, *args, **kwargs):
        if host == "localhost":
            looked_up.append(threading.get_ident())
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", recording)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = loop.create_connection(
            Recorder, *listener.getsockname(), local_addr=("localhost", 0), family=socket.AF_INET
        )
        transport, _ = run(loop, connecting)
        close(loop, transport)
    assert looked_up
    assert threading.get_ident() not in looked_up


def test_a_write_of_more_than_two_gibibytes_is_whole(loop, loop_name, unix):
    """zuvloop#40: lengths of 32 bits, and calls that take less than they are given."""
    size = (2 << 30) + (8 << 20) + 12_345
    if loop_name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("before 3.12 stock asyncio copies what it queues, which is too much for most machines")
    near, far = unix
    transport, protocol = attach(loop, near)
    received = 0

    def receive():
        nonlocal received
        room = bytearray(1 << 20)
        while count := far.recv_into(room):
            received += count

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    transport.write(bytes(size))
    assert transport.get_write_buffer_size() > 1 << 31
    transport.close()
    loop.run_until_complete(protocol.lost)
    thread.join(PATIENCE)
    assert received == size


def state(pid: int) -> str:
    """What a process does, as /proc says it: "S" is waiting."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_idle_loop_makes_no_system_calls(loop_name):
    """tideway#308: it is in the one that waits, until there is something to do."""
    assert_idle(
        loop_name,
        """
        loop = new_loop()
        loop.call_later(1000, int)
        loop.add_reader(0, loop.stop)
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
        loop.close()
        """,
    )


def test_an_idle_loop_with_many_connections_makes_no_system_calls(loop_name):
    """tideway#308: what is idle costs nothing, whatever there is of it."""
    many = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)
    assert_idle(
        loop_name,
        f"""
        import asyncio, os, resource, signal, socket
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        peer = os.fork()
        if peer == 0:
            address = listener.getsockname()
            listener.close()
            kept = [socket.create_connection(address) for _ in range({many})]
            signal.pause()
        loop = new_loop()
        loop.call_later(1000, int)
        loop.add_reader(0, loop.stop)
        made = []
        class Idle(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)
                if len(made) == {many}:
                    print("ready", flush=True)
        loop.run_until_complete(loop.create_server(Idle, sock=listener, backlog=4096))
        loop.run_forever()
        os.kill(peer, signal.SIGKILL)
        os._exit(0)
        """,
    )


def assert_idle(loop_name: str, script: str) -> None:
    """Have a program say that it is ready, watch it do nothing, and have it end.

    Says why it skips where a process may not be traced.
    """
    refused = tracing_is_refused()
    if refused:
        pytest.skip(refused)
    traceable = "import ctypes\nctypes.CDLL(None).prctl(0x59616D61, -1)  # PR_SET_PTRACER: anybody\n"
    source = FACTORIES[loop_name] + traceable + textwrap.dedent(script)
    with tempfile.NamedTemporaryFile("r") as trace:
        program = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with program:
            assert program.stdout.readline() == "ready\n"
            limit = time.monotonic() + PATIENCE
            switches = -1
            # It is on its way into the wait, until it sleeps and nothing wakes it.
            while (switches, state(program.pid)) != (context_switches(program.pid), "S"):
                assert time.monotonic() < limit, "it does not come to rest"
                switches = context_switches(program.pid)
                time.sleep(0.1)
            time.sleep(0.5)  # in which nothing happens
            assert context_switches(program.pid) == switches
            command = ["strace", "-o", trace.name, "-p", str(program.pid)]
            tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert "attached" in tracer.stderr.readline()
            time.sleep(0.5)  # in which nothing happens
            tracer.terminate()
            tracer.communicate(timeout=PATIENCE)
            program.communicate("\n", timeout=PATIENCE)
        assert program.returncode == 0
        calls = [re.split(r"\W", line)[0] for line in trace.read().splitlines() if not line.startswith("---")]
    # The wait that attaching interrupts, and the one after it.
    assert 1 <= len(calls) <= 2
    assert all(name.startswith(("epoll_", "io_uring_enter", "restart")) for name in calls), calls


def context_switches(pid: int) -> int:
    """How often a process has been put to sleep, or another one in its place."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(map(int, re.findall(r"ctxt_switches:\s*(\d+)", status)))


@pytest.mark.parametrize("live", [True, False], ids=["open", "closed at exit"])
def test_the_interpreter_ends_under_threads_that_call(loop_name, live):
    """uvloop#706, uvloop#538: with live transports, and daemon threads that do not stop calling."""
    script = """
        import asyncio, atexit, threading

        loop = new_loop()
        going = threading.Semaphore(0)

        def caller():
            going.release()
            try:
                while True:
                    loop.call_soon_threadsafe(int)
            except RuntimeError:
                pass

        async def main():
            server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
            return server, [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(3)]

        kept = loop.run_until_complete(main())
        for _ in range(3):
            threading.Thread(target=caller, daemon=True).start()
            going.acquire()
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
    """
    closing = "" if live else "atexit.register(loop.close)\n        "
    ended = python(f'{script}    {closing}print("end", flush=True)\n', factory=loop_name)
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr
    assert "Fatal" not in ended.stderr
    assert "Event loop is closed" not in ended.stderr


def test_a_tool_that_times_callbacks_sees_every_kind(loop, unix, monkeypatch):
    """logfire#2186: it replaces `asyncio.events.Handle._run` while the loop is in use, and later puts it back."""
    near, far = unix
    seen = []
    real = asyncio.events.Handle._run

    def timed(self):
        seen.append(getattr(self._callback, "__name__", None) or type(self._callback).__name__)
        return real(self)

    def soon(): ...
    def later(): ...
    def from_thread(): ...

    def readable(done):
        loop.remove_reader(near)
        done()

    async def step():
        await asyncio.sleep(0)

    def arrange(done):
        loop.call_soon(soon)
        loop.call_later(0, later)
        loop.call_soon_threadsafe(from_thread)
        loop.create_task(step())
        loop.add_reader(near, readable, done)
        loop.call_later(0.01, far.send, b"x")

    monkeypatch.setattr(asyncio.events.Handle, "_run", timed)
    run_until_called(loop, arrange)
    assert {"soon", "later", "from_thread", "readable"} <= set(seen)
    assert any("Task" in name for name in seen), seen
    monkeypatch.undo()
    seen.clear()
    run(loop, step())
    assert seen == []


#: Attributes of a loop that programs were seen to read.
PRIVATE = [
    "_asyncgens",
    "_check_closed",
    "_clock_resolution",
    "_closed",
    "_current_handle",
    "_debug",
    "_default_executor",
    "_internal_fds",
    "_ready",
    "_run_once",
    "_scheduled",
    "_selector",
    "_signal_handlers",
    "_stopping",
    "_task_factory",
    "_thread_id",
    "_transports",
]


@pytest.mark.parametrize("name", PRIVATE)
def test_private_attributes_answer_as_on_stock_asyncio(loop, name):
    """ray#8176, covalent#917, uvloop#721, twisted#10106: what a fresh loop and a running one answer."""

    def shape(value):
        """What can be compared of a value: itself where that is plain, else whether it can be called or measured."""
        if value is None or isinstance(value, bool | int | float):
            return value
        return callable(value), len(value) if hasattr(value, "__len__") else None

    async def running(loop):
        return loop._thread_id == threading.get_ident() if name == "_thread_id" else shape(getattr(loop, name))

    with stock_loop() as stock:
        expected = shape(getattr(stock, name)), stock.run_until_complete(running(stock))
    if name == "_selector":
        expected = ((False, None),) * 2
    assert (shape(getattr(loop, name)), loop.run_until_complete(running(loop))) == expected


@pytest.mark.skipif(
    "timeouts" not in asyncio.BaseEventLoop.shutdown_default_executor.__code__.co_names,
    reason="shutdown_default_executor takes a time limit from 3.12 on, which its first releases do not keep",
)
def test_the_shutdown_of_the_executor_keeps_its_time_limit(loop):
    """uvloop#636"""
    released = threading.Event()
    future = loop.run_in_executor(None, released.wait)
    try:
        with pytest.warns(RuntimeWarning, match="did not finish"):
            loop.run_until_complete(loop.shutdown_default_executor(timeout=0.05))
    finally:
        released.set()
    assert run(loop, future) is True


def test_closing_a_loop_whose_executor_works_does_not_hang(new_loop):
    """uvloop#636: what the thread answers comes to a closed loop."""
    loop = new_loop()
    started, released = threading.Event(), threading.Event()

    def work():
        started.set()
        released.wait()

    executor_future = loop.run_in_executor(None, work)
    started.wait()
    executor = loop._default_executor
    loop.close()
    released.set()
    executor.shutdown(wait=True)
    assert not executor_future.done()
