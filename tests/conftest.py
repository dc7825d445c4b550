"""The fixtures of every test: the loop it runs on, and the proof that the test left nothing behind."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("harness", "datagram_harness")
from datagram_harness import clogged_at  # noqa: E402

from harness import (  # noqa: E402
    LOOPS,
    PATIENCE,
    Loop,
    attach,
    close,
    descriptors,
    refusal,
    run,
    tcp_pair,
    turns,
    unix_pair,
)

HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Hear of interrupts, and let programs hear of them: a shell ignores them for what it runs in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound each test of this directory: a loop that hangs would otherwise hang the whole run."""
    for item in items:
        if item.path.parent == HERE and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3 * PATIENCE))


def pytest_collection_finish() -> None:
    """Freeze what the collection of tests has made. Tests collect garbage thousands of times, which else goes through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail where the test leaves a descriptor behind, or one that refers to something else than before."""
    gc.collect()
    before = descriptors()
    yield
    after = descriptors()
    if after != before:
        gc.collect()
        after = descriptors()
    appeared = {fd: target for fd, target in after.items() if before.get(fd) != target}
    vanished = {fd: target for fd, target in before.items() if after.get(fd) != target}
    assert (appeared, vanished) == ({}, {}), "descriptors leaked, or were closed by somebody else"


@pytest.fixture(params=list(LOOPS))
def loop_name(request: pytest.FixtureRequest) -> str:
    """The id of the loop under test."""
    return made_here(request.param)


@pytest.fixture(params=[name for name in LOOPS if name != "asyncio"])
def hotloop_name(request: pytest.FixtureRequest) -> str:
    """The id of each of hotloop's own loops, for what stock asyncio does not promise."""
    return made_here(request.param)


@pytest.fixture
def new_hotloop(hotloop_name: str, no_leaks: None) -> Callable[[], Loop]:
    """A factory of one of hotloop's own loops; the test closes what it makes."""
    return LOOPS[hotloop_name]


def made_here(name: str) -> str:
    """The id of a loop; skips the test where the machine refuses such loops."""
    if name == "proactor" and refusal() is not None:
        pytest.skip(refusal())
    return name


@pytest.fixture
def new_loop(loop_name: str, no_leaks: None) -> Callable[[], Loop]:
    """A factory of the loop under test; the test closes what it makes."""
    return LOOPS[loop_name]


@pytest.fixture
def unhandled() -> list[dict[str, Any]]:
    """The calls of the loop's exception handler. A test that expects some takes them out, the others fail by them."""
    return []


@pytest.fixture
def loop(new_loop: Callable[[], Loop], unhandled: list[dict[str, Any]]) -> Iterator[Loop]:
    """A new loop of the kind under test; after the test nothing may be left in it."""
    loop = new_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    yield loop
    left: list[str] = []
    if not loop.is_closed():
        if loop._default_executor is not None:
            run(loop, loop.shutdown_default_executor())
        turns(loop, 2)
        left += [f"task {task!r}" for task in asyncio.all_tasks(loop)]
        left += [f"ready {handle!r}" for handle in loop._ready]
        left += [f"timer {handle!r}" for handle in loop._scheduled if not handle.cancelled()]
        loop.close()
    # An object that complains from its finaliser shall do so now, in this test.
    gc.collect()
    left += [f"unhandled {context!r}" for context in unhandled]
    assert left == []


@pytest.fixture
def debug_loop(loop: Loop) -> Loop:
    """The loop under test in debug mode."""
    loop.set_debug(True)
    return loop


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected stream sockets; the near one does not block, the far one blocks with a time limit."""
    near, far = {"tcp": tcp_pair, "unix": unix_pair}[request.param]()
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def unix(no_leaks: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected Unix stream sockets, where the family does not matter."""
    near, far = unix_pair()
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def tcp(no_leaks: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets."""
    near, far = tcp_pair()
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def connection(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> Iterator[tuple[Any, Any, socket.socket]]:
    """A transport with a recording protocol, and the blocking socket at its other end."""
    near, far = pair
    transport, protocol = attach(loop, near)
    yield transport, protocol, far
    if not loop.is_closed():
        close(loop, transport)


@pytest.fixture
def far(no_leaks: None) -> Iterator[socket.socket]:
    """A plain UDP socket with a time limit."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        yield sock


@pytest.fixture
def unix_datagrams(no_leaks: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected Unix datagram sockets; neither blocks."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def clogged(tmp_path: Path, no_leaks: None) -> Iterator[tuple[str, Callable[[], list[bytes]]]]:
    """A Unix datagram socket to connect to whose queue is full, and a function that empties it."""
    path = str(tmp_path / "far")
    with clogged_at(path) as drain:
        yield path, drain


@pytest.fixture
def more(loop_name: str) -> None:
    """Only on a loop that has more than asyncio does."""
    if loop_name == "asyncio":
        pytest.skip("an addition to asyncio")
