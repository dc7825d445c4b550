"""call_soon_threadsafe: order, wake-ups, and a loop that is gone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import sys
import threading

import pytest

from harness import PATIENCE, python, run, turns


def in_thread(target) -> threading.Thread:
    """Start a thread of `target`."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_wakes_an_idle_loop(loop):
    """A loop without timers waits for ever: only the wake-up ends this."""
    started = threading.Event()
    loop.call_soon(started.set)

    def caller():
        started.wait(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(caller)
    loop.run_forever()
    thread.join()
    assert started.is_set()


def test_a_call_before_run_forever_is_not_lost(loop):
    """zuvloop#42"""
    thread = in_thread(lambda: loop.call_soon_threadsafe(loop.stop))
    thread.join()
    loop.run_forever()
    assert not loop.is_running()


def test_a_call_between_two_runs_is_not_lost(loop):
    turns(loop)
    seen = []
    for number in range(100):
        in_thread(lambda number=number: loop.call_soon_threadsafe(seen.append, number)).join()
        turns(loop)
        assert seen[-1] == number


def test_no_wake_up_is_lost_in_a_ping_pong(loop):
    """Each call meets a loop that is about to wait, waits or just woke."""
    turn = threading.Semaphore(0)
    rounds = 2000

    def caller():
        for _ in range(rounds):
            turn.acquire()
            loop.call_soon_threadsafe(answer)

    count = 0

    def answer():
        nonlocal count
        count += 1
        if count == rounds:
            loop.stop()
        turn.release()

    loop.call_soon(turn.release)
    thread = in_thread(caller)
    loop.run_forever()
    thread.join()
    assert count == rounds


def test_keeps_the_order_of_each_thread(loop):
    threads, calls = 4, 3000
    seen = []

    def caller(name):
        for number in range(calls):
            loop.call_soon_threadsafe(seen.append, (name, number))
        loop.call_soon_threadsafe(done)

    finished = 0

    def done():
        nonlocal finished
        finished += 1
        if finished == threads:
            loop.stop()

    started = [in_thread(lambda name=name: caller(name)) for name in range(threads)]
    loop.run_forever()
    for thread in started:
        thread.join()
    assert len(seen) == threads * calls
    for name in range(threads):
        assert [number for who, number in seen if who == name] == list(range(calls))


def test_keeps_the_order_with_call_soon_of_the_loops_own_thread(loop):
    seen = []
    for number in range(0, 100, 2):
        loop.call_soon(seen.append, number)
        loop.call_soon_threadsafe(seen.append, number + 1)
    turns(loop)
    assert seen == list(range(100))


def test_returns_a_handle_that_can_be_cancelled(loop):
    """zuvloop#42"""
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    assert isinstance(handle, asyncio.Handle)
    handle.cancel()
    assert handle.cancelled()
    turns(loop)
    assert seen == []


def test_cancel_from_another_thread(loop):
    seen = []
    handles = []
    in_thread(lambda: handles.append(loop.call_soon_threadsafe(seen.append, 1))).join()
    in_thread(lambda: handles[0].cancel()).join()
    turns(loop)
    assert seen == []


def test_cancel_from_another_thread_waits_for_a_callback_that_started(loop):
    """From 3.14 on; before, cancel() returns at once."""
    waits = sys.version_info >= (3, 14)
    entered, cancelled = threading.Event(), threading.Event()
    observed = []

    def callback():
        entered.set()
        # Where cancel() waits it cannot have returned while this callback runs; where it does not, it returns now.
        observed.append(cancelled.wait(0.05 if waits else PATIENCE))

    handle = loop.call_soon_threadsafe(callback)

    def canceller():
        entered.wait(PATIENCE)
        handle.cancel()
        cancelled.set()

    thread = in_thread(canceller)
    turns(loop)
    thread.join()
    assert observed == [not waits]
    assert cancelled.is_set()


def test_after_close_it_raises(new_loop):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        loop.call_soon_threadsafe(int)


def test_calls_while_the_loop_closes_do_not_crash(new_loop):
    """uvloop: the loop goes away under a thread that calls."""
    for _ in range(20):
        loop = new_loop()
        going, outcomes = threading.Event(), []

        def caller(loop=loop, going=going, outcomes=outcomes):
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    going.set()
            except BaseException as error:
                outcomes.append(error)

        thread = in_thread(caller)
        assert going.wait(PATIENCE)
        turns(loop, 2)
        loop.close()
        thread.join(PATIENCE)
        assert [str(error) for error in outcomes] == ["Event loop is closed"]


def test_a_flood_before_the_run_neither_blocks_nor_spins(loop):
    """zuvloop#70, uvloop#94: the wake-up descriptor is full, and later calls still arrive."""
    seen = []
    for _ in range(100_000):
        loop.call_soon_threadsafe(seen.append, None)
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert len(seen) == 100_000
    in_thread(lambda: loop.call_soon_threadsafe(loop.stop)).join()
    loop.run_forever()


@pytest.mark.parametrize("other", ["reader", "timer"])
def test_a_flood_from_a_thread_does_not_starve_others(loop, unix, other):
    """zuvloop#83"""
    near, far = unix
    stop = threading.Event()
    reached = []

    def flood():
        while not stop.is_set():
            loop.call_soon_threadsafe(int)

    def reach():
        reached.append(other)
        loop.stop()

    thread = in_thread(flood)
    if other == "reader":
        far.send(b"x")
        loop.add_reader(near, reach)
    else:
        loop.call_later(0.001, reach)
    loop.run_forever()
    loop.remove_reader(near)
    stop.set()
    thread.join()
    turns(loop, 2)
    assert reached == [other]


def test_the_context_is_the_one_of_the_calling_thread(loop):
    import contextvars

    word = contextvars.ContextVar("word", default="none")
    seen = []

    def caller():
        word.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(word.get()))
        context = contextvars.Context()
        context.run(word.set, "given")
        loop.call_soon_threadsafe(lambda: seen.append(word.get()), context=context)

    in_thread(caller).join()
    turns(loop)
    assert seen == ["thread", "given"]


def test_run_coroutine_threadsafe(loop):
    results = []

    async def add(left, right):
        await asyncio.sleep(0)
        return left + right

    def caller():
        future = asyncio.run_coroutine_threadsafe(add(1, 2), loop)
        results.append(future.result(PATIENCE))
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(caller)
    loop.run_forever()
    thread.join()
    assert results == [3]


def test_run_in_executor_and_its_thread_names(loop):
    """uvloop#636"""
    name = run(loop, loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name.startswith("asyncio_")
    run(loop, loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, int)


def test_daemon_threads_that_call_at_exit_do_not_crash(loop_name):
    """uvloop#706, uvloop#538"""
    ended = python(
        """
        import threading

        loop = new_loop()
        going = threading.Event()

        def caller():
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    going.set()
            except RuntimeError:
                pass

        threading.Thread(target=caller, daemon=True).start()
        going.wait()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        print("end")
        """,
        factory=loop_name,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


def test_work_is_done_by_the_executor_that_was_set(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ours") as executor:
        loop.set_default_executor(executor)
        name = run(loop, loop.run_in_executor(None, lambda: threading.current_thread().name))
        run(loop, loop.shutdown_default_executor())
    assert name.startswith("ours")


# What is not thread-safe, and done all the same. It goes well on stock asyncio where the loop waits in the kernel.


@pytest.mark.parametrize("threads", [1, 4])
def test_readers_added_by_other_threads_while_the_loop_waits(loop, threads):
    """ipykernel adds the readers of its sockets from its main thread to loops that run in others."""

    def watch():
        near, far = socket.socketpair()
        with near, far:
            for _ in range(50):
                received = threading.Event()

                def ready():
                    near.recv(1)
                    received.set()

                loop.add_reader(near, ready)
                far.send(b"x")
                assert received.wait(PATIENCE)
                assert loop.remove_reader(near)
                assert not loop.remove_reader(near)

    async def main():
        await asyncio.gather(*(asyncio.to_thread(watch) for _ in range(threads)))

    run(loop, main())


def test_timers_of_another_thread_while_the_loop_waits(loop):
    def schedule():
        for _ in range(50):
            fired = threading.Event()
            loop.call_later(1000, fired.set).cancel()
            loop.call_later(0, fired.set)
            # asyncio's loop does not notice by itself.
            loop.call_soon_threadsafe(int)
            assert fired.wait(PATIENCE)

    run(loop, asyncio.wait_for(asyncio.to_thread(schedule), PATIENCE))


def test_a_transport_used_by_another_thread_while_the_loop_waits(loop, unix):
    near, far = unix
    far.settimeout(PATIENCE)
    lost = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.set_result(exc)

    def use(transport):
        for number in range(50):
            transport.write(b"%02d" % number)
            assert far.recv(2) == b"%02d" % number
            assert transport.get_write_buffer_size() == 0
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_closing()
        transport.close()
        assert transport.is_closing()
        # Closing schedules the end of it, which asyncio's loop does not notice by itself.
        loop.call_soon_threadsafe(int)

    async def main():
        transport, _ = await loop.connect_accepted_socket(Protocol, near)
        await asyncio.to_thread(use, transport)
        assert await lost is None

    run(loop, main())


def test_a_child_of_a_process_whose_loop_waits_is_refused(hotloop_name):
    """In a child there is no thread that would let go of the loop."""
    ended = python(
        """
        import os, socket, threading, warnings

        loop = new_loop()
        near, far = socket.socketpair()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        answers = []
        # Until a fork has met the loop waiting, which it does nearly always.
        while "refused" not in answers:
            done = threading.Event()
            loop.call_soon_threadsafe(done.set)
            done.wait()
            reading, writing = os.pipe()
            warnings.simplefilter("ignore", DeprecationWarning)
            if (child := os.fork()) == 0:
                try:
                    loop.add_reader(near, int)
                except (RuntimeError, OSError):
                    os.write(writing, b"refused")
                os._exit(0)
            os.close(writing)
            with open(reading, "rb") as pipe:
                answers.append(pipe.read().decode())
            os.waitpid(child, 0)
            # With a selector loop, parent and child share an epoll set.
            loop.remove_reader(near)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        near.close()
        far.close()
        print(answers[-1])
        """,
        factory=hotloop_name,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "refused\n", "")
