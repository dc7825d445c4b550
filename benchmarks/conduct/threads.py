"""Checks of calls from other threads, and of a loop that waits for them."""

from __future__ import annotations

import contextvars
import resource
import threading
import time
from pathlib import Path

from benchmarks.conduct.callbacks import VARIABLE, is_served_beside_a_chain
from benchmarks.conduct.check import Loop, check, demand, expect, run_turns

FROM_THREADS = ("call_soon_threadsafe", "call_soon_from_thread")


@check(*FROM_THREADS)
def calls_of_a_thread_keep_their_order(loop: Loop) -> None:
    """Calls of another thread run in their order, and all of them."""
    count = 20_000
    order: list[int] = []

    def schedule() -> None:
        for number in range(count):
            loop.call_soon_threadsafe(order.append, number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=schedule)
    thread.start()
    loop.run_forever()
    thread.join()
    demand(len(order) == count, f"{len(order)} of {count} have run")
    demand(order == list(range(count)), "they ran in another order")


@check("call_soon_threadsafe")
def both_ways_in_are_one_queue(loop: Loop) -> None:
    """Calls of `call_soon` and of `call_soon_threadsafe` by one thread run in the order of the calls."""
    order: list[int] = []

    def schedule(first: int) -> None:
        for number in range(first, first + 6, 2):
            loop.call_soon_threadsafe(order.append, number)
            loop.call_soon(order.append, number + 1)

    schedule(0)
    loop.call_soon(schedule, 6)
    run_turns(loop)
    expect(order, list(range(12)), "the order")


@check(*FROM_THREADS, "run_in_executor")
def a_call_wakes_a_loop_that_waits(loop: Loop) -> None:
    """A call of another thread wakes a loop that waits in the kernel."""
    main = threading.get_native_id()
    runs = threading.Event()

    def wake() -> None:
        runs.wait()
        wait_until_it_sleeps(main)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=wake)
    thread.start()
    loop.call_soon(runs.set)
    loop.run_forever()
    thread.join()


@check("call_soon_from_thread")
def a_thread_brings_its_context(loop: Loop) -> None:
    """A call of another thread runs in a copy of that thread's context."""
    seen: list[str] = []

    def schedule() -> None:
        VARIABLE.set("the thread's")
        loop.call_soon_threadsafe(lambda: seen.append(VARIABLE.get()))
        VARIABLE.set("later")
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=contextvars.Context().run, args=(schedule,))
    thread.start()
    thread.join()
    loop.run_forever()
    expect(seen, ["the thread's"], "what the callback saw")


@check(*FROM_THREADS)
def thread_safe_calls_leave_room(loop: Loop) -> None:
    """A loop that always has thread-safe calls to run asks the kernel in each turn what is ready."""
    is_served_beside_a_chain(loop, loop.call_soon_threadsafe)


@check("call_soon_from_thread", "run_in_executor")
def waiting_is_no_spinning(loop: Loop) -> None:
    """A loop with nothing to do waits in the kernel."""
    over = threading.Event()

    def wake() -> None:
        over.wait(0.3)
        loop.call_soon_threadsafe(loop.stop)

    run_turns(loop)
    thread = threading.Thread(target=wake)
    thread.start()
    before = resource.getrusage(resource.RUSAGE_THREAD)
    loop.run_forever()
    after = resource.getrusage(resource.RUSAGE_THREAD)
    thread.join()
    switches = after.ru_nvcsw - before.ru_nvcsw
    demand(switches < 50, f"it woke up {switches} times in 0.3 s")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    demand(used < 0.05, f"it used {used * 1000:.0f} ms of CPU in 0.3 s")


def wait_until_it_sleeps(thread: int) -> None:
    """Waits until a thread of this process sleeps in the kernel, and not only until it may have the interpreter.

    It does so for a second at most: a loop that never sleeps is another check's matter.
    """
    status = Path(f"/proc/self/task/{thread}/stat")
    asleep = 0
    end = time.monotonic() + 1
    while asleep < 5 and time.monotonic() < end:
        # This lets go of the interpreter.
        time.sleep(0.0005)
        asleep = asleep + 1 if status.read_text().rpartition(")")[2].split()[0] == "S" else 0


CHECKS = [
    calls_of_a_thread_keep_their_order,
    both_ways_in_are_one_queue,
    a_call_wakes_a_loop_that_waits,
    a_thread_brings_its_context,
    thread_safe_calls_leave_room,
    waiting_is_no_spinning,
]
