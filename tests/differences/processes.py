"""Differences of signals, children and time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from asyncio.base_subprocess import BaseSubprocessTransport
from typing import Any

from differences.entry import Entry, Section, probe
from harness import Loop, descriptors, turns

CAT = "/bin/cat"


@probe("Python's signal wake-up descriptor while the loop runs")
def wake_up_descriptor(loop: Loop) -> str:
    found: list[int] = []
    loop.call_soon(lambda: found.append(signal.set_wakeup_fd(-1)))
    turns(loop)
    return "not set" if found == [-1] else "set"


class Child(asyncio.SubprocessProtocol):
    """Notes the end of a child."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def process_exited(self) -> None:
        self.statuses.append(self.transport.get_returncode())


def spawned(loop: Loop, *command: str) -> tuple[Any, Child]:
    """A child that runs a program, with a pipe as its standard input."""
    asyncio.set_event_loop(loop)
    transport, child = loop.run_until_complete(
        loop.subprocess_exec(Child, *command, stdin=-1, stdout=None, stderr=None)
    )
    return transport, child


@probe("threads that wait for a child", until=11)
def threads_of_a_child(loop: Loop) -> int:
    before = threading.active_count()
    spawned(loop, CAT)
    return threading.active_count() - before


@probe("the policy is asked for a watcher of children", until=13)
def policy_is_asked(loop: Loop) -> bool:
    asked: list[bool] = []
    if sys.version_info < (3, 14):
        policy = asyncio.get_event_loop_policy()
        original = policy.get_child_watcher
        policy.get_child_watcher = lambda: asked.append(True) or original()
    spawned(loop, CAT)
    return bool(asked)


@probe("the status of a child that had ended with 7 before `close()`", since=12, elsewhere=False)
def status_taken_by_popen(loop: Loop) -> str:
    # On Python 3.11 a thread of stock asyncio waits for it too, and may be the first.
    transport, child = spawned(loop, "/bin/sh", "-c", "read line; exit 7")
    os.write(transport.get_extra_info("subprocess").stdin.fileno(), b"\n")
    os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
    transport.close()
    while not child.statuses:
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
    return str(child.statuses[0])


@probe("a cancelled `create_subprocess_exec`, when its child has ended", until=13)
def cancelled_spawn(loop: Loop) -> str:
    exited: list[int] = []
    original = BaseSubprocessTransport._process_exited

    def noted(self: Any, status: int) -> None:
        exited.append(status)
        original(self, status)

    BaseSubprocessTransport._process_exited = noted
    asyncio.set_event_loop(loop)
    task = loop.create_task(asyncio.create_subprocess_exec(CAT, stdin=-1, stdout=-1, stderr=-1))
    while len(asyncio.all_tasks(loop)) == 1:
        turns(loop)
    # With it the task that connects the pipes, which has not begun.
    for each in asyncio.all_tasks(loop):
        each.cancel()
    while not exited:
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
    turns(loop, 10)
    return "ends" if task.cancelled() else "waits on"


@probe("descriptors of a child that runs still, left open by `loop.close()`", since=12)
def descriptors_left(loop: Loop) -> int:
    transport, _ = spawned(loop, CAT)
    loop.close()
    return sum("pidfd" in target for target in descriptors().values())


SECTIONS = [
    Section(
        "Signals",
        Entry(
            """
            While it runs in the main thread, the loop sets Python's signal wake-up descriptor if nobody else has, and
            puts it back when it stops; asyncio does so only for `add_signal_handler`. A signal that arrives on the way
            into the wait therefore wakes the loop, which on asyncio it may fail to.
            """,
            wake_up_descriptor,
            "test_signals.py::test_a_signal_wakes_an_idle_loop",
            "test_signals.py::test_the_wake_up_descriptor_is_put_back",
        ),
    ),
    Section(
        "Children",
        Entry(
            """
            **Python 3.11 to 3.13.** The end of a child comes through a descriptor that the loop watches (a pidfd), where
            stock asyncio has a thread for each child (3.11) or asks the policy for its watcher. A watcher that the
            program has set with `asyncio.set_child_watcher`, or that its policy makes in a method of its own, is used as
            it is by stock asyncio; `ThreadedChildWatcher` and `PidfdChildWatcher` count as not chosen, since the default
            policy makes them by itself.
            """,
            threads_of_a_child,
            policy_is_asked,
            "test_subprocesses.py::test_no_thread_and_no_signal_handler",
            "test_subprocesses.py::test_a_watcher_that_the_program_has_chosen_is_used",
        ),
        Entry(
            """
            **A child whose status `Popen` has taken**, as `transport.close()` makes it do with a child that has just
            ended, has that status; stock asyncio reports 255 and warns. A status that anybody else has taken is 255 here
            too.
            """,
            status_taken_by_popen,
            "test_subprocesses.py::test_a_child_that_ended_before_close_keeps_its_status",
            "test_subprocesses.py::test_a_child_that_somebody_else_reaped",
        ),
        Entry(
            """
            **Cancelling `create_subprocess_exec`** ends on every version, also when the task that connects the pipes is
            cancelled with it. Stock asyncio before 3.14 waits for ever then.
            """,
            cancelled_spawn,
            "test_subprocesses.py::test_a_hundred_cancelled_runs_end",
            "test_subprocesses.py::test_a_spawn_may_be_cancelled_at_any_step",
        ),
        Entry(
            """
            **Closing a loop** closes the descriptors of children that run still. `subprocess` reaps those later, when
            another child is started. Stock asyncio leaves the descriptors open, from 3.12 on.
            """,
            descriptors_left,
            "test_subprocesses.py::test_a_loop_may_be_closed_before_its_children_end",
        ),
        """
        What is the same: `Popen` runs in the loop's thread, so a slow `preexec_fn`, or a `cwd` on a file system that
        hangs, holds the loop up until the child's program has begun
        (`test_subprocesses.py::test_a_child_is_spawned_by_the_loops_own_thread`).
        """,
    ),
    Section(
        "Time",
        Entry(
            """
            The loop waits to the nanosecond where the kernel can (Linux 5.11); asyncio rounds a wait up to a whole
            millisecond. So a timer may run up to a millisecond sooner than on asyncio, and never before it is due.
            """,
            "test_timers.py::test_never_fires_early",
            "test_timers.py::test_waiting_for_less_than_a_millisecond_is_no_spinning",
        ),
    ),
]
