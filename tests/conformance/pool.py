"""Runs tests side by side, each in a child forked from this process, which has everything imported already."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import one_test
from loops import Census

GRACE = 10.0
"""Seconds past its time limit after which a child that did not end itself is killed."""

OUTPUT_LIMIT = 20_000
"""Bytes of a test's output that are kept, from its end: enough for the tracebacks of a dozen threads."""


class InChild(BaseException):
    """Unwinds a forked child out of the pool, so that it ends as any interpreter does, finalisation included.

    `status` is what the process is to exit with.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Result:
    """How one test went, before any registry is asked."""

    outcome: str
    """`passed`, `failed`, `skipped`, `crashed`, `timeout`, or `escaped`: made a stock loop with another under test."""
    detail: str
    seconds: float = 0.0
    loops: dict[str, int] = field(default_factory=dict)
    """Loops the test made, by class name."""
    tested_loops: int = 0


@dataclass
class _Child:
    test_id: str
    directory: Path
    deadline: float
    killed: bool = False


def run(
    tests: Iterable[tuple[str, unittest.TestCase]], census: Census, directory: Path, jobs: int, timeout: float
) -> Iterator[tuple[str, Result]]:
    """Runs `tests`, at most `jobs` at once, and yields each result as it comes.

    `timeout` is each test's limit in seconds; `directory` is for scratch files. Raises `InChild` in the children, which
    the caller must let through to its end without doing anything else.
    """
    _assert_single_threaded()
    # The imported modules are garbage to no test: without them a child's collections are short, and copy no pages.
    gc.collect()
    gc.freeze()
    waiting = iter(list(tests))
    children: dict[int, _Child] = {}
    with _overdue_killed(children), _none_left(children):
        for number, (test_id, test) in enumerate(waiting):
            if len(children) == jobs:
                yield _reap(children)
            scratch = directory / str(number)
            scratch.mkdir()
            if not (pid := _fork()):
                children.clear()
                raise InChild(_run_one(test, census, scratch, timeout))
            children[pid] = _Child(test_id, scratch, time.monotonic() + timeout + GRACE)
        while children:
            yield _reap(children)


def _fork() -> int:
    # What is in these buffers would be written by both.
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fork()


def _run_one(test: unittest.TestCase, census: Census, directory: Path, timeout: float) -> int:
    try:
        one_test.run(test, census, directory, timeout)
    except BaseException:
        # `KeyboardInterrupt` and `SystemExit` too, which unittest lets through: the parent's code must not see them.
        traceback.print_exc()
        return 1
    return 0


def _reap(children: dict[int, _Child]) -> tuple[str, Result]:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid in children:
            break
    child = children.pop(pid)
    # What the test itself started and did not end must not live on beside the next tests.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return child.test_id, _result(child, os.waitstatus_to_exitcode(status))


def _result(child: _Child, exit_code: int) -> Result:
    output = (child.directory / "output").read_bytes()[-OUTPUT_LIMIT:].decode(errors="replace").strip()
    try:
        report: dict[str, Any] | None = json.loads((child.directory / "result.json").read_text())
    except FileNotFoundError:
        report = None
    if report is None or exit_code:
        outcome = "timeout" if child.killed or "\nTimeout (" in f"\n{output}" else "crashed"
        when = "before its result" if report is None else f"after the test {report['outcome']}"
        ended = f"signal {-exit_code}" if exit_code < 0 else f"status {exit_code}"
        return Result(outcome, f"the process ended by {ended} {when}\n{output}")
    result = Result(report["outcome"], report["detail"], report["seconds"], report["loops"], report["tested_loops"])
    if result.outcome == "failed" and output:
        result.detail += f"\n--- output ---\n{output}"
    if report["escaped"] and result.outcome != "skipped":
        result.detail = f"made a stock loop, not only the one under test\n{result.detail}"
        result.outcome = "escaped"
    return result


def _assert_single_threaded() -> None:
    """A fork copies only the thread that calls it; a lock held by another would stay locked in every child."""
    tasks = Path("/proc/self/task")
    if tasks.exists() and (count := len(list(tasks.iterdir()))) > 1:
        raise RuntimeError(f"{count} threads run in the parent: importing the loop or the tests started one")


@contextlib.contextmanager
def _overdue_killed(children: dict[int, _Child]) -> Iterator[None]:
    """Kills children past their deadline; they end by themselves unless their watchdog is gone too."""

    def kill_overdue(*_: object) -> None:
        for pid, child in list(children.items()):
            if time.monotonic() > child.deadline:
                child.killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    previous = signal.signal(signal.SIGALRM, kill_overdue)
    signal.setitimer(signal.ITIMER_REAL, GRACE, GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _none_left(children: dict[int, _Child]) -> Iterator[None]:
    try:
        yield
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
