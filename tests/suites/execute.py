"""One run of a suite on one loop: a process of pytest with a time limit, and another one for what a crash left over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environment import Environment
from library import Library

INSIDE = Path(__file__).parent / "inside"

CRASHES = 20
"""Crashes and hangs after which the rest of a suite is given up."""


@dataclass(frozen=True)
class Result:
    """What became of one test."""

    outcome: str
    """`passed`, `failed`, `skipped`, `crashed` or `timeout`."""
    detail: str = ""
    """Tracebacks, or the reason of a skip."""
    loops: int = 0
    """Loops under test that it made in the suite's process."""


@dataclass
class Run:
    """What became of a suite."""

    tests: dict[str, Result] = field(default_factory=dict)
    """By test id."""
    collected: set[str] = field(default_factory=set)
    """The ids of all tests that there are, those left out too."""
    processes: dict[str, set[int]] = field(default_factory=dict)
    """Processes that made a loop, by its class."""
    tested_processes: set[int] = field(default_factory=set)
    """Those that made one under test."""
    trouble: list[str] = field(default_factory=list)
    """What went wrong outside of any test."""
    seconds: float = 0


def execute(
    library: Library,
    environment: Environment,
    loop: str,
    left_out: Collection[str] = (),
    only: Collection[str] | None = None,
    extra: dict[str, str] | None = None,
) -> Run:
    """Runs the suite, or `only` the tests with these ids, on `loop`, without the tests that match `left_out`."""
    run = Run()
    begun = time.monotonic()
    deadline = begun + library.limit
    log = environment.directory / f"{loop.replace(':', '.')}{'' if only is None else '.alone'}.log"
    with tempfile.TemporaryDirectory(prefix="suites-") as scratch, open(log, "wb") as output:
        for attempt in range(CRASHES):
            wanted = Path(scratch, "wanted.json")
            wanted.write_text(
                json.dumps({
                    "left_out": sorted(left_out),
                    "only": None if only is None else sorted(only),
                    "done": sorted(run.tests),
                })
            )  # fmt: skip
            results = Path(scratch, f"results-{attempt}")
            variables = {
                "PYTHONPATH": os.pathsep.join(filter(None, [str(INSIDE), os.environ.get("PYTHONPATH", "")])),
                "HOTLOOP_SUITES_LOOP": loop,
                "HOTLOOP_SUITES_RESULTS": str(results),
                "HOTLOOP_SUITES_WANTED": str(wanted),
                "TMPDIR": scratch,
            }
            variables |= {name: value.format(**(extra or {})) for name, value in library.environment.items()}
            status = _pytest(library, environment, variables, extra or {}, output, deadline)
            if not _read(results, run, status, out_of_time=time.monotonic() >= deadline):
                break
        else:
            run.trouble.append(f"given up after {CRASHES} crashes")
    run.seconds = round(time.monotonic() - begun, 1)
    return run


def _pytest(
    library: Library,
    environment: Environment,
    variables: dict[str, str],
    extra: dict[str, str],
    output: Any,
    deadline: float,
) -> int | None:
    """The exit status of pytest, or none where it ran out of time. Nothing that it started goes on."""
    # Without the working directory in the path, as the program `pytest` has it.
    command = [str(environment.python), "-P", "-m", "pytest", "-p", "hotloop_suites", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", f"--timeout={library.timeout:g}", "--timeout-method=signal"]
    command += ["-o", "faulthandler_timeout=0"]
    command += [argument.format(**extra) for argument in library.arguments]
    path = f"{environment.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    process = subprocess.Popen(
        command,
        cwd=environment.tests,
        env=os.environ | {"PATH": path, "VIRTUAL_ENV": str(environment.python.parents[1])} | variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(results: Path, run: Run, status: int | None, out_of_time: bool) -> bool:
    """Adds what a process told to `run`; whether tests are left over because it ended too early."""
    running = ""
    finished = False
    for line in _lines(results):
        match line:
            case {"event": "collected", "tests": tests}:
                run.collected.update(tests)
            case {"event": "start", "test": running}:
                pass
            case {"event": "end", "test": test, "outcome": outcome, "detail": detail, "loops": loops}:
                # A test that ran twice, for a plugin repeats what failed, is what it was last.
                run.tests[test] = Result(outcome, detail, loops)
                running = ""
            case {"event": "loop", "process": process, "loop": loop, "tested": tested}:
                run.processes.setdefault(loop, set()).add(process)
                if tested:
                    run.tested_processes.add(process)
            case {"event": "finish"}:
                finished = True
    how = "ran out of time" if status is None else f"exit status {status}"
    if finished and status in (0, 1, 5):
        return False
    if finished:
        run.trouble.append(f"after the last test: {how}")
        return False
    if running:
        run.tests[running] = Result("timeout" if status is None else "crashed", how)
    else:
        run.trouble.append(f"between tests: {how}")
    return bool(running) and not out_of_time


def _lines(results: Path) -> Iterator[dict[str, Any]]:
    if results.exists():
        for line in results.read_text().splitlines():
            yield json.loads(line)
