"""What the tests share: the loops, an oracle to compare with, sockets, and a protocol that keeps a trace."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import functools
import gc
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

#: Upper bound in seconds of anything that a test waits for; nothing depends on how soon it comes.
PATIENCE = 20.0

#: Whether this Python's own `writelines` minds a lost connection, and an iterator of nothing. Those of the first releases of
#: 3.12 and 3.13 end in errors of their own code there.
WRITELINES_IS_WHOLE = (
    sys.version_info < (3, 12)
    or "_conn_lost" in asyncio.selector_events._SelectorSocketTransport.writelines.__code__.co_names
)

Loop = asyncio.AbstractEventLoop
Scenario = Callable[[Loop, list[str]], None]


def asyncio_loop() -> Loop:
    """A new stock selector loop: the oracle."""
    return asyncio.SelectorEventLoop()


def selector_loop() -> Loop:
    """A new loop of hotloop's `SelectorEventLoop`. That hotloop is missing is a failure, not a reason to skip."""
    import hotloop

    return hotloop.SelectorEventLoop()


def proactor_loop() -> Loop:
    """A new loop of hotloop's `ProactorEventLoop`."""
    import hotloop

    return hotloop.ProactorEventLoop()


@functools.cache
def refusal() -> str | None:
    """Why this machine's kernel refuses io_uring, and with it the proactor; None where it does not."""
    try:
        proactor_loop().close()
    except OSError as error:
        return str(error)
    return None


def loop_class(name: str) -> type[Loop]:
    """The class of the loops of that id."""
    import hotloop

    return {
        "asyncio": asyncio.SelectorEventLoop,
        "selector": hotloop.SelectorEventLoop,
        "proactor": hotloop.ProactorEventLoop,
    }[name]


#: The loops that every test runs on, by the id that pytest shows.
LOOPS: dict[str, Callable[[], Loop]] = {
    "asyncio": asyncio_loop,
    "selector": selector_loop,
    "proactor": proactor_loop,
}

#: How a script of its own process makes the loop of that id.
FACTORIES = {"asyncio": "import asyncio\nnew_loop = asyncio.SelectorEventLoop\n"} | {
    name: f"import hotloop\nnew_loop = hotloop.{class_name}\n"
    for name, class_name in [("selector", "SelectorEventLoop"), ("proactor", "ProactorEventLoop")]
}


def descriptors() -> dict[int, str]:
    """Each open descriptor of this process and what it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def resident_bytes() -> int:
    """The resident set of this process, in bytes, without what the allocator keeps although it is free.

    How much glibc keeps depends on what the process did before, so a test that measures it would depend on its neighbours.
    """
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def turns(loop: Loop, count: int = 1) -> None:
    """Run `count` turns of the loop, none of which waits."""
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def run(loop: Loop, awaitable: Any) -> Any:
    """Run until `awaitable` is done, at most `PATIENCE` seconds."""

    async def bounded() -> Any:
        return await asyncio.wait_for(awaitable, PATIENCE)

    return loop.run_until_complete(bounded())


def run_until_called(loop: Loop, arrange: Callable[[Callable[..., None]], Any]) -> None:
    """Run until a callback calls what `arrange` was given; fail where nothing does."""
    called: list[bool] = []

    def done(*_: Any) -> None:
        called.append(True)
        loop.stop()

    limit = loop.call_later(PATIENCE, loop.stop)
    arrange(done)
    loop.run_forever()
    limit.cancel()
    assert called, "nothing happened in time"


@contextlib.contextmanager
def stock_loop() -> Iterator[Loop]:
    """A stock loop for the time of a comparison."""
    loop = asyncio_loop()
    try:
        yield loop
    finally:
        loop.close()


def normalised(text: str) -> str:
    """`text` without what differs from run to run: addresses, ports, descriptors, lines, durations.

    Nor with the name of the transports' class, which is private.
    """
    text = re.sub(r"0x[0-9a-fA-F]+", "0x", text)
    text = text.replace("_SelectorSocketTransport", "SocketTransport")
    text = re.sub(r"\bfd=\d+", "fd=N", text)
    text = re.sub(r"\('127.0.0.1', \d+\)", "('127.0.0.1', port)", text)
    text = re.sub(r"File descriptor \d+", "File descriptor N", text)
    text = re.sub(r"\.py:\d+", ".py:N", text)
    return re.sub(r"\d+\.\d+ seconds", "T seconds", text)


def outcome(call: Callable[[], Any]) -> tuple[str, str]:
    """How `call()` ends: ("returned", the type's name), or the exception's type and text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Exception as error:
        return type(error).__name__, normalised(str(error))
    return "returned", type(result).__name__


def same_as_stock(loop: Loop, call: Callable[[Loop], Any]) -> tuple[str, str]:
    """Assert that `call(loop)` ends as it does on a stock loop, by type and text; the outcome."""
    with stock_loop() as stock:
        stock.set_debug(loop.get_debug())
        expected = outcome(lambda: call(stock))
    assert outcome(lambda: call(loop)) == expected
    return expected


def trace_of(loop: Loop, scenario: Scenario) -> list[str]:
    """The trace that `scenario` leaves, calls of the exception handler among it."""
    trace: list[str] = []

    def handler(_: Loop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace.append(normalised(f"handler: {context['message']} {type(error).__name__}({error}) {sorted(context)}"))

    loop.set_exception_handler(handler)
    limit = loop.call_later(PATIENCE, loop.stop)
    try:
        scenario(loop, trace)
    finally:
        limit.cancel()
        loop.set_exception_handler(None)
    return trace


def same_trace_as_stock(loop: Loop, scenario: Scenario) -> list[str]:
    """Assert that `scenario` leaves the trace that it leaves on a stock loop; the trace, which is not empty."""
    with stock_loop() as stock:
        expected = trace_of(stock, scenario)
    assert expected, "a scenario without a trace compares nothing"
    assert trace_of(loop, scenario) == expected
    return expected


def python(
    script: str, *, factory: str, send: signal.Signals | None = None, until_it_ends: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with `new_loop` of the loop named `factory` in reach.

    With `send` the script prints "ready" once it wants the signal; it gets it once, or every second `until_it_ends`.
    Warnings are errors.
    """
    source = FACTORIES[factory] + textwrap.dedent(script)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        head = ""
        if send is not None:
            assert process.stdout is not None
            head = process.stdout.readline()
            if head != "ready\n":
                process.kill()
                raise AssertionError(f"the script did not start: {head}{process.communicate()[1]}")
            process.send_signal(send)
        for _ in range(int(PATIENCE) if send is not None and until_it_ends else 0):
            try:
                process.wait(1)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(send)
        out, err = process.communicate(timeout=PATIENCE)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # its children too: they hold the pipes
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, head + out, err)


#: What the kernel keeps for a socket of `tcp_pair`, in bytes. Left to itself it keeps up to dozens of megabytes, as the
#: machine's memory and the speed of both ends suggest; what a test writes too much of must be too much everywhere.
KEPT = 128 * 1024


def tcp_pair(proto: int = socket.IPPROTO_TCP) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets over loopback; the first does not block, the second has a time limit."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        far = socket.create_connection(listener.getsockname(), PATIENCE)
        near, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT)
    near.setblocking(False)
    return near, far


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected Unix stream sockets; the first does not block, the second has a time limit."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(PATIENCE)
    return near, far


def skip_where_the_wait_sends(loop_name: str) -> None:
    """Skip a test of a small write that its peer reads within the same turn.

    On io_uring such writes go out with the wait, all of a turn in one system call: `test_posting.py` holds the proactor
    to what it promises instead.
    """
    if loop_name == "proactor":
        import pytest

        pytest.skip("on io_uring the wait sends the small writes of a turn: an intended difference")


def made_in_thread(call: Callable[[], Any]) -> Any:
    """What `call()` answers, or raises, in a thread of its own."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result(PATIENCE)


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Read `count` bytes from a blocking socket."""
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError(f"the stream ended after {len(parts)} of {count} bytes")
        parts += part
    return bytes(parts)


def receive_all(sock: socket.socket) -> bytes:
    """Read from a blocking socket until its peer has finished."""
    parts = bytearray()
    while part := sock.recv(1 << 20):
        parts += part
    return bytes(parts)


@contextlib.contextmanager
def received_in_thread(sock: socket.socket) -> Iterator[list[bytes]]:
    """Read a blocking socket to its end in a thread meanwhile; afterwards the list holds what came."""
    parts: list[bytes] = []
    thread = threading.Thread(target=lambda: parts.append(receive_all(sock)), daemon=True)
    thread.start()
    yield parts
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the stream did not end"


def fill(sock: socket.socket) -> int:
    """Write to a socket that does not block until the kernel takes no more; the bytes written."""
    sock.setblocking(False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += sock.send(bytes(65536))
    return written


def alive(kind: type) -> int:
    """How many objects of exactly this type the collector knows."""
    return sum(1 for found in gc.get_objects() if type(found) is kind)


class Recorder(asyncio.Protocol):
    """A protocol that writes each of its callbacks to a trace and keeps what it received."""

    def __init__(self, trace: list[str] | None = None) -> None:
        self.trace = [] if trace is None else trace
        self.received = bytearray()
        self.transport: Any = None
        #: Resolved by `connection_lost` with its argument.
        self.lost: asyncio.Future[BaseException | None]
        #: Set by every callback; whoever waits for a state clears it before looking again.
        self.changed = asyncio.Event()

    def note(self, text: str) -> None:
        self.trace.append(text)
        self.changed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()
        self.note("connection_made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.note(f"data_received {len(data)}")

    def eof_received(self) -> bool | None:
        self.note("eof_received")
        return None

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note(f"connection_lost {type(exc).__name__}")
        if not self.lost.done():
            self.lost.set_result(exc)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; it is asked again after each callback."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def wait_received(self, count: int) -> bytes:
        """Wait until at least `count` bytes were received; all of them."""
        await self.wait_until(lambda: len(self.received) >= count)
        return bytes(self.received)


def attach(loop: Loop, sock: socket.socket, factory: Callable[[], Any] = Recorder) -> tuple[Any, Any]:
    """Give a connected socket to the loop: its transport and protocol, connection_made already called."""
    return run(loop, loop.create_connection(factory, sock=sock))


def close(loop: Loop, *transports: Any) -> None:
    """Abort transports and let the loop finish with them."""
    for transport in transports:
        with contextlib.suppress(AttributeError):  # stock 3.11, for a transport that has let its loop go
            transport.abort()
    turns(loop, 3)
