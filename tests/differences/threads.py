"""Differences of calls from a wrong thread."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from differences.entry import Entry, Section, probe
from harness import Loop


def system_call(thread: int) -> str:
    """The number of the system call that a thread of this process sleeps in; a word or -1 where it sleeps in none."""
    return Path(f"/proc/self/task/{thread}/syscall").read_text().split()[0]


def asleep(target: Any, *others: str) -> tuple[int, str]:
    """A thread that runs `target`, once it sleeps in a system call other than these; its number and the call's."""
    started: list[int] = []

    def body() -> None:
        started.append(threading.get_native_id())
        target()

    threading.Thread(target=body, daemon=True).start()
    while True:
        if started and (call := system_call(started[0])).isdecimal() and call not in others:
            return started[0], call
        os.sched_yield()


def waiting(loop: Loop) -> tuple[int, str]:
    """A thread whose loop waits in the kernel; its number, and that of the system call."""
    # A thread that waits for the interpreter is none whose loop waits: that call is found out from one that can do no other.
    lock = threading.Lock()
    lock.acquire()
    _, futex = asleep(lock.acquire)
    return asleep(loop.run_forever, futex)


@probe("`call_soon` from another thread wakes a loop that waits")
def woken(loop: Loop) -> bool:
    thread, call = waiting(loop)
    called = threading.Event()
    loop.call_soon(called.set)
    # Who was woken sleeps in that call no more, or again when it has done what there was to do. How many looks it takes to
    # see it is the kernel's affair.
    return any(system_call(thread) != call or called.is_set() for _ in range(1000))


@probe("`add_reader` in a fork's child, where the loop waits in another thread")
def forked_while_waiting(loop: Loop) -> str:
    waiting(loop)
    return watching_in_a_child(loop)


def watching_in_a_child(loop: Loop) -> str:
    """How `add_reader` ends in a child by a fork."""
    near, _ = socket.socketpair()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loop.add_reader(near, int)
            os.write(writing, b"is done")
        except (OSError, RuntimeError) as error:
            os.write(writing, f"`{type(error).__name__}`".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return os.read(reading, 100).decode()


SECTIONS = [
    Section(
        "Calls from a wrong thread",
        """
    Calling a loop's methods from another thread is an error in asyncio that often goes unnoticed, and some programs live
    by it: ipykernel adds readers to loops that run in other threads. Such calls do what they do in asyncio, with two
    exceptions:
    """,
        Entry(
            """
        A call that reaches into a loop which waits in the kernel (`call_soon`, `call_later`, `add_reader`, a transport's
        `write`, `close` and so on) wakes it; in asyncio what it schedules runs whenever something else wakes the loop.
        Cancelling a timer works too, but the loop may still wake up once at the time for which it was scheduled.
        """,
            woken,
            "test_threadsafe.py::test_readers_added_by_other_threads_while_the_loop_waits",
            "test_threadsafe.py::test_timers_of_another_thread_while_the_loop_waits",
            "test_threadsafe.py::test_a_transport_used_by_another_thread_while_the_loop_waits",
        ),
        Entry(
            """
        In a child of the process, made by a fork while the loop waited in another thread, all of them raise
        `RuntimeError`: nobody is there to end that wait.
        """,
            forked_while_waiting,
            "test_threadsafe.py::test_a_child_of_a_process_whose_loop_waits_is_refused",
        ),
        """
    None of this makes such calls right: one that meets the loop at work, on a TLS connection above all, goes as wrong as
    in asyncio. `call_soon_threadsafe` is for all of this.
    """,
    )
]
