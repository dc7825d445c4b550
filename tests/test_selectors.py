"""`SelectorEventLoop(selector)`: whichever selector it is given, the loop is the same."""

from __future__ import annotations

import asyncio
import os
import resource
import selectors
import signal
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hotloop
from harness import Loop, run, turns, unix_pair


class Watched(selectors.SelectSelector):
    """A selector of its own, which knows what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.asked.append("register")
        return super().register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        self.asked.append("unregister")
        return super().unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.asked.append("modify")
        before = len(self.asked)
        key = super().modify(fileobj, events, data)
        # How it does that is its own affair.
        del self.asked[before:]
        return key

    def select(self, timeout: float | None = None) -> Any:
        self.asked.append("select")
        return super().select(timeout)


SELECTORS: dict[str, tuple[type[selectors.BaseSelector], str]] = {
    "default": (selectors.DefaultSelector, "epoll"),
    "epoll": (selectors.EpollSelector, "epoll"),
    "poll": (selectors.PollSelector, "poll"),
    "select": (selectors.SelectSelector, "select"),
    "own": (Watched, "selector"),
}


@pytest.fixture(params=list(SELECTORS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def selector(kind: str, no_leaks: None) -> selectors.BaseSelector:
    return SELECTORS[kind][0]()


@pytest.fixture(params=["asyncio", "hotloop"])
def loop(request: pytest.FixtureRequest, selector: selectors.BaseSelector) -> Iterator[Loop]:
    make: Callable[[Any], Any] = {"asyncio": asyncio.SelectorEventLoop, "hotloop": hotloop.SelectorEventLoop}[
        request.param
    ]
    loop = make(selector)
    yield loop
    if loop._default_executor is not None:
        run(loop, loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def ours(selector: selectors.BaseSelector) -> Iterator[Any]:
    loop = hotloop.SelectorEventLoop(selector)
    yield loop
    loop.close()


def test_names_the_driver(ours, kind):
    assert ours.driver == SELECTORS[kind][1]


def test_shows_the_selector_and_closes_it(loop, selector):
    assert loop._selector is selector
    near, far = unix_pair()
    loop.add_reader(near, print)
    assert selector.get_key(near.fileno()).events == selectors.EVENT_READ
    loop.add_writer(near, print)
    assert selector.get_map()[near.fileno()].events == selectors.EVENT_READ | selectors.EVENT_WRITE
    assert [key.fd for key, _ in selector.select(0)] == [near.fileno()]
    loop.remove_reader(near)
    loop.remove_writer(near)
    assert near.fileno() not in selector.get_map()
    loop.close()
    with pytest.raises((RuntimeError, KeyError)):
        selector.get_key(near.fileno())
    near.close()
    far.close()


def test_watches_readers_and_writers(loop):
    near, far = unix_pair()
    heard: list[str] = []
    loop.add_reader(near, heard.append, "reader")
    turns(loop, 2)
    assert heard == []
    far.send(b"a")
    turns(loop, 3)
    assert set(heard) == {"reader"}
    near.recv(1)
    heard.clear()
    loop.add_writer(near, heard.append, "writer")
    turns(loop, 3)
    assert set(heard) == {"writer"}
    assert loop.remove_writer(near)
    assert loop.remove_reader(near)
    assert not loop.remove_reader(near)
    heard.clear()
    far.send(b"a")
    turns(loop, 3)
    assert heard == []
    near.close()
    far.close()


def test_serves_streams(loop):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        sent = os.urandom(1 << 20)
        writer.write(sent)
        writer.write_eof()
        received = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return received == sent

    assert run(loop, main())


def test_sock_operations(loop):
    near, far = unix_pair()
    far.setblocking(False)

    async def main() -> bytes:
        receiving = asyncio.ensure_future(loop.sock_recv(near, 100))
        await asyncio.sleep(0)
        await loop.sock_sendall(far, b"abc")
        return await receiving

    assert run(loop, main()) == b"abc"
    near.close()
    far.close()


def test_other_threads_wake_it(loop):
    calls = 100

    async def main() -> int:
        done, count = asyncio.Event(), 0

        def call() -> None:
            nonlocal count
            count += 1
            if count == calls:
                done.set()

        def push() -> None:
            for _ in range(calls):
                loop.call_soon_threadsafe(call)

        thread = threading.Thread(target=push)
        thread.start()
        await done.wait()
        thread.join()
        return count

    assert run(loop, main()) == calls


def test_runs_children_and_the_executor(loop):
    async def main() -> tuple[bytes, int]:
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        out, _ = await process.communicate(b"to and fro")
        return out, await loop.run_in_executor(None, sum, (1, 2))

    assert run(loop, main()) == (b"to and fro", 3)


def test_signals_come_in(loop):
    async def main() -> str:
        heard = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, heard.set_result, "heard")
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        result: str = await heard
        loop.remove_signal_handler(signal.SIGUSR1)
        return result

    assert run(loop, main()) == "heard"


def test_timers_are_kept(loop):
    start = loop.time()
    run(loop, asyncio.sleep(0.003))
    assert loop.time() - start >= 0.003


def test_a_pseudo_terminal(loop):
    """A terminal is a character device."""
    master, slave = os.openpty()
    tty.setraw(slave)
    heard: list[bytes] = []

    class Reader(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.append(data)
            if b"".join(heard) == b"line":
                done.set_result(None)

    done = loop.create_future()

    async def main(near: Any, far: Any) -> None:
        reading, _ = await loop.connect_read_pipe(Reader, near)
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, far)
        writing.write(b"li")
        writing.write(b"ne")
        await done
        reading.close()
        writing.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with open(master, "rb", 0) as near, open(slave, "wb", 0) as far:
        run(loop, main(near, far))


def test_a_character_device(loop, kind):
    """epoll refuses a device that is always ready; poll and select say that it is."""
    with open("/dev/zero", "rb", 0) as device:
        heard: list[bytes] = []

        def read() -> None:
            heard.append(device.read(1))

        if kind in ("default", "epoll"):
            with pytest.raises(PermissionError):
                loop.add_reader(device, read)
            return
        loop.add_reader(device, read)
        turns(loop, 3)
        assert loop.remove_reader(device)
        assert heard
        assert set(heard) == {b"\0"}


@pytest.fixture
def beyond() -> Iterator[int]:
    """A descriptor with a number that select has no room for."""
    import fcntl

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= 1100:
        pytest.skip("this machine allows no number beyond select's")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    near, far = socket.socketpair()
    number = fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 1024)
    yield number
    os.close(number)
    near.close()
    far.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_number_beyond_select(loop, kind, beyond):
    """asyncio finds out when it waits, and the loop ends; hotloop when the number is given."""

    def watch() -> None:
        loop.add_writer(beyond, loop.stop)
        loop.run_forever()

    if kind in ("select", "own"):
        with pytest.raises(ValueError, match=r"filedescriptor out of range in select\(\)"):
            watch()
    else:
        watch()
    loop.remove_writer(beyond)


# A selector that does the waiting


def test_a_selector_of_ones_own_is_asked(no_leaks):
    asked = []
    for make in (asyncio.SelectorEventLoop, hotloop.SelectorEventLoop):
        selector = Watched()
        loop = make(selector)
        near, far = unix_pair()
        turns(loop, 1)
        selector.asked.clear()
        loop.add_reader(near, print)
        loop.add_reader(near, print)
        loop.add_writer(near, print)
        loop.remove_writer(near)
        loop.remove_reader(near)
        asked.append(list(selector.asked))
        loop.close()
        near.close()
        far.close()
    assert asked[0] == asked[1] == ["register", "modify", "modify", "modify", "unregister"]


@pytest.mark.parametrize("loop", ["asyncio", "hotloop"], indirect=True)
@pytest.mark.parametrize("kind", ["own"])
def test_every_turn_asks_it(loop, selector, kind):
    selector.asked.clear()
    turns(loop, 5)
    assert selector.asked.count("select") >= 5


@pytest.mark.parametrize("kind", ["own"])
def test_what_it_refuses_is_refused(loop, selector, kind):
    near, far = unix_pair()

    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    selector.register = refuse
    with pytest.raises(ZeroDivisionError):
        loop.add_reader(near, print)
    del selector.register
    assert not loop.remove_reader(near)
    heard: list[int] = []
    loop.add_writer(near, heard.append, 1)
    turns(loop, 2)
    assert heard
    loop.remove_writer(near)
    near.close()
    far.close()


@pytest.mark.parametrize("kind", ["own"])
def test_what_its_select_raises_ends_the_loop(loop, selector, kind):
    def fail(timeout: float | None = None) -> Any:
        raise ZeroDivisionError

    selector.select = fail
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    del selector.select
    turns(loop, 1)


@pytest.mark.parametrize("kind", ["select"])
def test_one_with_something_registered_is_driven(selector, kind, no_leaks):
    """What somebody has registered as asyncio does runs."""
    for make in (asyncio.SelectorEventLoop, hotloop.SelectorEventLoop):
        with selectors.SelectSelector() as used:
            near, far = unix_pair()
            heard: list[int] = []
            used.register(near, selectors.EVENT_WRITE, None)
            loop = make(used)
            used.modify(near, selectors.EVENT_WRITE, (None, asyncio.Handle(heard.append, (1,), loop)))
            turns(loop, 2)
            assert heard
            loop.close()
            near.close()
            far.close()
    selector.close()


@pytest.mark.parametrize("kind", ["select"])
def test_one_that_was_altered_is_driven(selector, kind):
    calls = []

    def select(timeout: float | None = None) -> Any:
        calls.append(timeout)
        return type(selector).select(selector, timeout)

    selector.select = select
    loop = hotloop.SelectorEventLoop(selector)
    turns(loop, 3)
    loop.close()
    assert len(calls) >= 3
