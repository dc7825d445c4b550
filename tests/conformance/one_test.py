"""One test in a process of its own: what the forked child does."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import time
import traceback
import unittest
from pathlib import Path
from typing import Any

from loops import Census


class Outcome(unittest.TestResult):
    """What became of the one test: the worst of its parts, since a test may report several (sub-tests, fixtures)."""

    RANKS = ("passed", "skipped", "failed")

    def __init__(self) -> None:
        super().__init__()
        self.outcome: str | None = None
        self.reasons: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._add("passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._add("skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._add("passed", "fails as CPython expects")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._add("failed", "CPython expects this test to fail")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._add("failed", "".join(traceback.format_exception(*err)))

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.addFailure(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._add("failed", f"{subtest.id()}\n" + "".join(traceback.format_exception(*err)))

    def _add(self, outcome: str, reason: str = "") -> None:
        self.outcome = max(self.outcome or outcome, outcome, key=self.RANKS.index)
        if reason:
            self.reasons.append(reason)


def run(test: unittest.TestCase, census: Census, directory: Path, timeout: float) -> None:
    """Runs `test` in the current process and writes `result.json` into `directory`, its output into `output`.

    After `timeout` seconds the tracebacks of all threads go to the output and the process exits with a status other
    than 0 and without a result.
    """
    _isolate(directory)
    faulthandler.enable()
    faulthandler.dump_traceback_later(timeout, exit=True)
    outcome = Outcome()
    started = time.monotonic()
    unittest.TestSuite([test]).run(outcome)
    # A transport or loop left behind is finalised here, where a crash still counts against this test.
    gc.collect()
    result = {
        "outcome": outcome.outcome or "failed",
        "detail": "\n".join(outcome.reasons) if outcome.outcome else "the test reported nothing",
        "seconds": round(time.monotonic() - started, 3),
        "loops": census.as_dict(),
        "tested_loops": census.tested,
        "escaped": census.escaped,
    }
    (directory / "result.json").write_text(json.dumps(result))


def _isolate(directory: Path) -> None:
    """Cuts the child off from the parent's terminal, files and neighbours: own process group, output and directory."""
    os.setpgid(0, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # A shell's background jobs ignore Ctrl-C, and so would the tests that press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(directory / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    for fd, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(fd, target)
    os.close(null)
    os.close(output)
    # CPython's tests name their scratch files after the process that imported `test.support`: here that is the parent.
    scratch = directory / "scratch"
    scratch.mkdir()
    os.chdir(scratch)
