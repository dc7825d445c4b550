"""Signals: Ctrl-C, handlers of the loop and of the signal module, and who owns the wake-up descriptor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import textwrap
import threading
import time

import pytest

from harness import LOOPS, PATIENCE, outcome, python, run, run_until_called, same_as_stock, stock_loop, turns


@pytest.fixture(autouse=True)
def handlers_are_put_back(no_leaks):
    """Fail where a signal handler or the wake-up descriptor stays changed."""
    watched = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in watched}
    assert signal.set_wakeup_fd(-1) == -1
    yield
    assert signal.set_wakeup_fd(-1) == -1
    assert {number: signal.getsignal(number) for number in watched} == before


def kill(number):
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def test_a_handler_is_called_with_its_arguments(loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, lambda *args: (seen.append(args), loop.stop()), 1, "two")
    loop.call_soon(kill, signal.SIGUSR1)
    loop.run_forever()
    assert seen == [(1, "two")]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


def test_a_signal_wakes_an_idle_loop(loop):
    """Nothing else ends this wait."""
    main = threading.main_thread().ident
    started = threading.Event()

    def send():
        started.wait(PATIENCE)
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(started.set)
    loop.run_forever()
    thread.join()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_before_the_run_is_delivered_in_it(loop):
    """uvloop#453: between two runs."""
    for _ in range(3):
        run_until_called(loop, lambda done: (loop.add_signal_handler(signal.SIGUSR1, done), kill(signal.SIGUSR1)))
    loop.remove_signal_handler(signal.SIGUSR1)


def test_many_signals_at_once(loop):
    seen = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, seen.append, number)

    def send():
        for _ in range(100):
            kill(signal.SIGUSR1)
            kill(signal.SIGUSR2)
        loop.call_soon(loop.call_soon, loop.stop)

    loop.call_soon(send)
    loop.run_forever()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.remove_signal_handler(number)
    assert set(seen) == {signal.SIGUSR1, signal.SIGUSR2}


def test_a_second_handler_replaces_the_first(loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 2)
    loop.call_soon(kill, signal.SIGUSR1)
    turns(loop, 3)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == [2]


def test_the_handlers_can_be_looked_at(loop):
    """covalent#917: `_signal_handlers`."""
    assert signal.SIGUSR1 not in loop._signal_handlers
    loop.add_signal_handler(signal.SIGUSR1, int)
    assert signal.SIGUSR1 in loop._signal_handlers
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.SIGUSR1 not in loop._signal_handlers


def test_closing_the_loop_removes_its_handlers(new_loop):
    loop = new_loop()
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_the_wake_up_descriptor_is_put_back(loop):
    """uvloop#270, zuvloop#62: a loop without handlers leaves it as it was found."""
    near, far = socket.socketpair()
    near.setblocking(False)
    signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=False)
    try:
        with stock_loop() as stock:
            turns(stock, 2)
            after_stock = signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=False)
        turns(loop, 2)
        after = signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=False)
        assert after == after_stock == near.fileno()
    finally:
        signal.set_wakeup_fd(-1)
        near.close()
        far.close()


def test_a_second_loop_closed_meanwhile_does_not_take_the_signals(loop, new_loop):
    """asyncio#191, cpython#91170"""
    other = new_loop()
    turns(other)
    other.close()
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(kill, signal.SIGUSR1)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_loop_in_another_thread_does_not_take_the_signals(loop, new_loop):
    """uvloop#270"""
    results = []

    def other_thread():
        other = new_loop()
        results.append(outcome(lambda: other.add_signal_handler(signal.SIGUSR1, int)))
        turns(other, 3)
        other.close()

    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    loop.call_soon(kill, signal.SIGUSR1)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert results[0][0] in ("RuntimeError", "ValueError")


def test_an_exception_of_a_plain_handler_leaves_run_forever(loop):
    """uvloop#94: arq relies on it; from an idle loop and a busy one."""

    class Told(Exception):
        pass

    def handler(number, frame):
        raise Told

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        loop.call_soon(kill, signal.SIGUSR1)
        try:
            # Inside the callback it is an exception of the callback on stock asyncio: reported, and the loop goes on.
            loop.call_soon(loop.call_soon, loop.stop)
            loop.set_exception_handler(lambda *_: None)
            loop.run_forever()
        except Told:
            pass
        main = threading.main_thread().ident
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        timer.start()
        with pytest.raises(Told):
            loop.run_forever()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_plain_handler_that_returns_does_not_end_the_wait(loop):
    """rloop#39: EINTR is no error, and no reason to fire a timer early."""
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(loop.time()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        when = loop.time() + 0.1
        loop.call_at(when, loop.stop)
        loop.run_forever()
        ended = loop.time()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    assert ended + time.get_clock_info("monotonic").resolution >= when


def test_interrupted_transfers_are_whole(loop, pair):
    """rloop#39: EINTR in the middle of reads and writes."""
    near, far = pair
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    payload = os.urandom(3_000_000)
    received = bytearray()

    def echo():
        while len(received) < len(payload):
            received.extend(far.recv(65536))
        far.sendall(received)

    async def talk():
        reader, writer = await asyncio.open_connection(sock=near)
        writer.write(payload)
        assert await reader.readexactly(len(payload)) == payload
        writer.close()
        await writer.wait_closed()

    thread = threading.Thread(target=echo)
    thread.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        run(loop, talk())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, 0, -1, 1000, "SIGINT", None, 1.5], ids=repr)
@pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
def test_wrong_signals_are_refused_as_on_stock_asyncio(loop, number, method):
    args = (int,) if method.startswith("add") else ()
    same_as_stock(loop, lambda loop: getattr(loop, method)(number, *args))


def test_a_coroutine_as_a_handler_is_refused_as_on_stock_asyncio(loop):
    async def coroutine():
        pass

    assert same_as_stock(loop, lambda loop: loop.add_signal_handler(signal.SIGUSR1, coroutine))[0] == "TypeError"


def test_an_exception_of_a_handler_is_reported(loop, unhandled):
    def fail():
        raise ZeroDivisionError("text")

    loop.add_signal_handler(signal.SIGUSR1, fail)
    loop.call_soon(kill, signal.SIGUSR1)
    turns(loop, 3)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert isinstance(unhandled.pop()["exception"], ZeroDivisionError)


def test_sigchld_stays_the_users(loop):
    """uvloop#409: the loop does not own SIGCHLD."""
    seen = []
    before = signal.signal(signal.SIGCHLD, lambda *_: seen.append(True))
    try:

        async def spawn():
            process = await asyncio.create_subprocess_exec("/bin/true")
            return await process.wait()

        assert run(loop, spawn()) == 0
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert seen


#: How a loop may be occupied when Ctrl-C comes. Each prints "ready" from inside the run.
OCCUPATIONS = {
    "idle": """
        loop = new_loop()
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
    """,
    "busy": """
        loop = new_loop()
        def spin():
            loop.call_soon(spin)
        loop.call_soon(lambda: print("ready", flush=True))
        loop.call_soon(spin)
        loop.run_forever()
    """,
    "in a callback": """
        loop = new_loop()
        def spin():
            print("ready", flush=True)
            while True:
                pass
        loop.call_soon(spin)
        loop.run_forever()
    """,
    "blocked in C": """
        import threading
        loop = new_loop()
        def block():
            print("ready", flush=True)
            threading.Event().wait()
        loop.call_soon(block)
        loop.run_forever()
    """,
    "reading": """
        import socket
        loop = new_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        async def read():
            print("ready", flush=True)
            await loop.sock_recv(near, 1)
        loop.run_until_complete(read())
    """,
    "after a second loop": """
        other = new_loop()
        other.call_soon(other.stop)
        other.run_forever()
        other.close()
        loop = new_loop()
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
    """,
    "runner": """
        import asyncio
        async def main():
            try:
                print("ready", flush=True)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                raise
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    """,
    "handler": """
        import signal
        loop = new_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: (print("handled", flush=True), loop.stop()))
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
        loop.close()
        print("end")
    """,
}


@pytest.mark.parametrize("occupation", OCCUPATIONS)
def test_an_interrupt_ends_the_program_as_on_stock_asyncio(loop_name, occupation):
    """uvloop#295, uvloop#296, asyncio#407, cpython#101166: status and output the same."""

    def ended(name):
        process = python(
            "import warnings\nwarnings.simplefilter('ignore', ResourceWarning)\n"
            + textwrap.dedent(OCCUPATIONS[occupation]),
            factory=name,
            send=signal.SIGINT,
            # Python's last look for signals comes before the block: one in between is seen with the next one.
            until_it_ends=occupation == "blocked in C",
        )
        last = process.stderr.strip().splitlines()[-1:]
        return process.returncode, process.stdout, last

    expected = ended("asyncio")
    assert expected[0] == (0 if occupation == "handler" else -signal.SIGINT)
    assert ended(loop_name) == expected


def test_an_interrupt_reaches_every_process_of_the_group(loop_name):
    """uvloop#54"""
    process = python(
        """
        import os, signal, sys
        children = []
        for _ in range(3):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read)
                loop = new_loop()
                loop.call_soon(os.close, write)
                try:
                    loop.run_forever()
                except KeyboardInterrupt:
                    os._exit(7)
                os._exit(1)
            os.close(write)
            os.read(read, 1)
            os.close(read)
            children.append(child)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.killpg(0, signal.SIGINT)
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        """,
        factory=loop_name,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "[7, 7, 7]\n", "")


def test_a_loop_made_in_a_forked_child_of_a_thread_gets_signals(loop_name):
    """uvloop#453, uvloop#533"""
    process = python(
        """
        import os, signal, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        def in_thread():
            child = os.fork()
            if child == 0:
                loop = new_loop()
                loop.add_signal_handler(signal.SIGUSR1, loop.stop)
                loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
                loop.run_forever()
                loop.close()
                os._exit(5)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        outer = new_loop()
        outer.call_soon(outer.stop)
        outer.run_forever()
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        outer.close()
        """,
        factory=loop_name,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "5\n", "")


def test_the_loops_are_known():
    """Each loop that tests run on can be made in a process of its own."""
    from harness import FACTORIES

    assert set(FACTORIES) == set(LOOPS)
