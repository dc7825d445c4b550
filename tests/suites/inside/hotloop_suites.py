"""The runner's part in the processes of a suite: the loop under test in asyncio's place, and pytest's plugin that tells.

All that the libraries' fixtures make (pytest-asyncio's runners, anyio's, aiohttp's `loop`, tornado's `IOLoop`) comes
from asyncio's names and its default policy; there the loop under test is put, before any of them is imported. That is
done on the control as well, with stock asyncio's loop, so that the only difference between two runs is the loop.

This file and its neighbour are the only ones of the project that a suite can import. They are imported before pytest
is, which has a word for that: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

LOOPS = Path(__file__).parents[2] / "conformance" / "loops.py"

_census: Any = None
"""Counts the loops that this process made, from `install` on."""


def install() -> None:
    """Puts the loop that `HOTLOOP_SUITES_LOOP` names in asyncio's place, in this process."""
    global _census
    specification = importlib.util.spec_from_file_location("hotloop_suites_loops", LOOPS)
    assert specification is not None
    assert specification.loader is not None
    loops = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loops)

    class WrittenCensus(loops.Census):  # type: ignore[misc, name-defined]
        """Writes down each class of loops that a process makes, when it makes the first one, however it ends."""

        def __init__(self, tested: type) -> None:
            super().__init__(tested)
            self._written: set[tuple[int, str]] = set()

        def add(self, loop: Any) -> None:
            super().add(loop)
            name = self._name(self._tested if isinstance(loop, self._tested) else type(loop))
            if (os.getpid(), name) not in self._written:
                self._written.add((os.getpid(), name))
                _tell(event="loop", process=os.getpid(), loop=name, tested=isinstance(loop, self._tested))

    _census = loops.install(loops.resolve(os.environ["HOTLOOP_SUITES_LOOP"]), WrittenCensus)


def _tell(**what: Any) -> None:
    """Appends a line to the results: one write, whole, for other processes do so too."""
    descriptor = os.open(os.environ["HOTLOOP_SUITES_RESULTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, (json.dumps(what) + "\n").encode())
    finally:
        os.close(descriptor)


def steady(node: str) -> str:
    """The id of a test without what differs from run to run, as in its parameters' texts.

    Those are addresses of objects, and the name of the loop's class: stock asyncio's is called otherwise.
    """
    node = re.sub(r"\b(_UnixSelectorEventLoop|ProactorEventLoop)\b", "SelectorEventLoop", node)
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", node)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tells which tests there are, and takes out those that the runner does not want."""
    wanted = json.loads(Path(os.environ["HOTLOOP_SUITES_WANTED"]).read_text())
    _tell(event="collected", tests=[steady(item.nodeid) for item in items])
    kept, dropped = [], []
    done = set(wanted["done"])
    only = None if wanted["only"] is None else set(wanted["only"])
    for item in items:
        node = steady(item.nodeid)
        out = node in done or (only is not None and node not in only)
        out = out or any(fnmatch.fnmatchcase(node, pattern) for pattern in wanted["left_out"])
        (dropped if out else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


class _Running:
    """The test that runs, and what its phases said so far."""

    test = ""
    outcome = "passed"
    detail = ""
    loops = 0


def pytest_runtest_logstart(nodeid: str) -> None:
    """Tells that a test begins: if nothing follows, it was the end of the process."""
    _Running.test, _Running.outcome, _Running.detail = steady(nodeid), "passed", ""
    _Running.loops = _census.tested
    _tell(event="start", test=_Running.test)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keeps the worst that a phase of the test said."""
    if report.failed:
        detail = f"{report.when}: {report.longreprtext}"
        _Running.detail = f"{_Running.detail}\n{detail}" if _Running.outcome == "failed" else detail
        _Running.outcome = "failed"
    elif report.skipped and _Running.outcome == "passed":
        _Running.outcome = "skipped"
        _Running.detail = str(getattr(report, "wasxfail", "") or report.longreprtext)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Tells how the test ended, and how many loops under test it made."""
    loops = _census.tested - _Running.loops
    _tell(event="end", test=_Running.test, outcome=_Running.outcome, detail=_Running.detail, loops=loops)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tells of a file that cannot be imported, as of a test that failed, and of one that skips itself."""
    if report.failed or (report.skipped and report.nodeid):
        outcome = "failed" if report.failed else "skipped"
        test = f"{report.nodeid} (import)"
        _tell(event="end", test=test, outcome=outcome, detail=report.longreprtext, loops=0)


def pytest_unconfigure() -> None:
    """Tells that every test was run; what ends the process from now on is a crash of its own."""
    _tell(event="finish")
