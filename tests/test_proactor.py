"""What a loop on io_uring must not do to the machine, to its threads and to its children."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import random
import shutil
import socket
import threading
import warnings
from pathlib import Path

import pytest

import hotloop
from harness import PATIENCE, Recorder, attach, close, descriptors, made_in_thread, python, refusal, run, turns

pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"{refusal()}")


def threads() -> dict[str, str]:
    """The names of this process's threads, those of the kernel's on its behalf among them, by number."""
    return {number: Path(f"/proc/self/task/{number}/comm").read_text() for number in os.listdir("/proc/self/task")}


@pytest.fixture
def proactor(no_leaks):
    """A new proactor."""
    loop = hotloop.ProactorEventLoop()
    yield loop
    if not loop.is_closed():
        turns(loop, 2)
        loop.close()


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def exchange(count=1, size=1000):
    """Serve `count` clients on the running loop, and be them."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)

    async def client():
        transport, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        sent = random.randbytes(size)
        transport.write(sent)
        assert await protocol.wait_received(size) == sent
        transport.close()
        await protocol.lost

    await asyncio.gather(*(client() for _ in range(count)))
    server.close()
    await server.wait_closed()


def test_the_kernel_has_no_thread_for_it(proactor):
    """libuv#4089: a thread of the kernel's that polls the ring burns a core while nothing happens."""
    before = threads()
    run(proactor, exchange(50))
    appeared = {name for number, name in threads().items() if number not in before}
    assert not appeared


def test_a_file_that_was_just_written_can_be_executed(proactor, tmp_path):
    """libuv#4059: a ring that still has the file open for writing makes it busy (ETXTBSY)."""
    program = shutil.which("true")

    def copied(name):
        copy = tmp_path / name
        shutil.copy(program, copy)
        return copy

    async def spawn(number):
        child = await asyncio.create_subprocess_exec(copied(f"theirs{number}"))
        assert await child.wait() == 0
        ours = copied(f"ours{number}")
        assert in_child(lambda: os.execv(ours, [ours])) == 0

    async def all_at_once():
        exchanges = asyncio.create_task(exchange(20, 100_000))
        for number in range(10):
            await spawn(number)
        await exchanges

    run(proactor, all_at_once())


def test_churn_of_runners_leaves_nothing():
    """Each runner has a ring of its own, which goes with it: its descriptors, its memory, its threads."""

    def churn(count):
        for _ in range(count):
            with asyncio.Runner(loop_factory=hotloop.ProactorEventLoop) as runner:
                runner.run(exchange())

    churn(5)
    gc.collect()
    before, running, memory = descriptors(), threads(), rings_memory()
    churn(100)
    gc.collect()
    assert (descriptors(), threads(), rings_memory()) == (before, running, memory)


def rings_memory() -> int:
    """How many mappings of rings the process has."""
    return Path("/proc/self/maps").read_text().count("io_uring")


def test_loops_that_nobody_closes_leave_nothing_either(no_leaks):
    def abandon():
        loop = hotloop.ProactorEventLoop()
        near, far = socket.socketpair()
        near.setblocking(False)
        transport, _ = attach(loop, near)
        transport.write(b"x")
        far.close()

    for _ in range(20):
        assert "unclosed event loop" in complaints_of(abandon)


def complaints_of(act) -> str:
    """The warnings that come of what `act` leaves to the collector."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        act()
        gc.collect()
    return "\n".join(str(warning.message) for warning in caught)


# Threads


def test_made_in_one_thread_and_run_in_another(no_leaks):
    loop = hotloop.ProactorEventLoop()
    made_in_thread(lambda: run(loop, exchange(5)))
    loop.close()


def test_run_by_one_thread_after_another_and_closed_by_a_third(no_leaks):
    """A ring belongs to one thread; what waits on it moves on with the loop."""
    loop = hotloop.ProactorEventLoop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(PATIENCE)
    transport, protocol = attach(loop, near)
    for number in range(1, 6):
        far.sendall(b"ping")
        made_in_thread(lambda number=number: run(loop, protocol.wait_received(4 * number)))
        transport.write(b"pong")
        turns(loop, 1)
        assert far.recv(100) == b"pong"
    made_in_thread(lambda: close(loop, transport))
    made_in_thread(loop.close)
    far.close()


def test_closed_in_the_thread_that_did_not_run_it(no_leaks):
    far = []

    def abandon():
        loop = hotloop.ProactorEventLoop()
        near, other = socket.socketpair()
        far.append(other)
        near.setblocking(False)
        transport, _ = made_in_thread(lambda: attach(loop, near))
        transport.write(b"last words")
        loop.close()

    assert "unclosed transport" in complaints_of(abandon)
    with far.pop() as other:
        other.settimeout(PATIENCE)
        assert other.recv(100) == b"last words"
        assert other.recv(100) == b""


def test_many_loops_in_many_threads(no_leaks):
    failed = []

    def program():
        try:
            for _ in range(5):
                hotloop.new_event_loop("proactor").close()
                with asyncio.Runner(loop_factory=hotloop.ProactorEventLoop) as runner:
                    runner.run(exchange(5))
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=program) for _ in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(PATIENCE)
    assert (failed, [thread for thread in running if thread.is_alive()]) == ([], [])


# Forks


def in_child(act) -> int:
    """What `act` answers in a forked child; 99 where it raises."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(act())
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


FORKED = "fork"


def refuses(call) -> bool:
    """Whether a call raises the error of a forked loop."""
    try:
        call()
    except (OSError, RuntimeError) as error:
        return FORKED in str(error)
    return False


def test_a_child_of_a_running_loop_is_told_so(proactor):
    """python/asyncio#347: the child has the parent's ring, and must not touch it; the parent goes on unharmed."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(PATIENCE)
    transport, protocol = attach(proactor, near)

    def child():
        refused = [
            refuses(lambda: proactor.add_reader(far.fileno(), int)),
            refuses(lambda: proactor._run_once()),
        ]
        return sum(refused)

    outcome = []

    def fork():
        outcome.append(in_child(child))

    for number in range(1, 6):
        far.sendall(b"before")
        proactor.call_soon(fork)
        far.sendall(b"after")
        run(proactor, protocol.wait_received(11 * number))
        transport.write(b"x" * number)
        turns(proactor, 1)
        assert far.recv(100) == b"x" * number
    assert outcome == [2] * 5
    run(proactor, exchange(10))
    close(proactor, transport)
    far.close()


def test_a_child_makes_a_loop_of_its_own(proactor):
    """Inside of the parent's running loop, and between two runs of it."""

    def child():
        asyncio.events._set_running_loop(None)
        with asyncio.Runner(loop_factory=hotloop.ProactorEventLoop) as runner:
            runner.run(exchange(5))
        return 7

    async def forking():
        return in_child(child)

    for _ in range(3):
        assert run(proactor, forking()) == 7
        assert in_child(child) == 7
        run(proactor, exchange(5))


def test_a_child_closes_its_copy_and_the_parent_hears_nothing_of_it(proactor):
    transport, protocol = None, None
    near, far = socket.socketpair()
    near.setblocking(False)
    transport, protocol = attach(proactor, near)

    def child():
        transport.abort()
        proactor.close()
        gc.collect()
        return 7

    assert in_child(child) == 7
    far.sendall(b"still here")
    run(proactor, protocol.wait_received(10))
    run(proactor, exchange(5))
    close(proactor, transport)
    far.close()


def work(number):
    """What a process of `multiprocessing` does: asyncio of its own."""
    with asyncio.Runner(loop_factory=hotloop.ProactorEventLoop) as runner:
        runner.run(exchange(2))
    return number * number


@pytest.mark.parametrize("where", ["in the loop's thread", "in another thread"])
def test_multiprocessing_by_fork(proactor, where):
    """uvloop#453, universalasync#25"""

    def pool():
        with multiprocessing.get_context("fork").Pool(2) as workers:
            answers = workers.map_async(work, range(6)).get(PATIENCE)
            workers.close()
            workers.join()
        return answers

    async def main():
        exchanges = asyncio.create_task(exchange(20, 100_000))
        await asyncio.sleep(0)
        answers = pool() if where == "in the loop's thread" else await asyncio.to_thread(pool)
        await exchanges
        return answers

    assert run(proactor, main()) == [number * number for number in range(6)]
    run(proactor, proactor.shutdown_default_executor())


def test_the_interpreter_ends_in_peace_with_everything_under_way():
    ended = python(
        """
        import asyncio, socket, warnings
        warnings.simplefilter("ignore")
        near, far = socket.socketpair()
        near.setblocking(False)
        loop = new_loop()
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
        loop.add_reader(far.fileno(), int)
        transport.write(b"x")
        print("over")
        """,
        factory="proactor",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "over\n", "")
