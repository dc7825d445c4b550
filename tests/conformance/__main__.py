"""Runs CPython's own asyncio tests, as installed with the running interpreter, on a loop of choice.

    python tests/conformance --loop hotloop
    python tests/conformance --loop asyncio            # the control
    python tests/conformance --loop hotloop test_events.SelectEventLoopTests.test_call_later

Exits with 0 if no test failed. README.md beside this file tells what a failure is.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
import warnings
from collections import defaultdict
from pathlib import Path

import loops
import pool
import registry
import report
import suite
from loops import Census
from pool import Result
from report import Verdict

REGISTRIES = ("white_box", "environment", "divergence")


SHOWN_LINES = 40
"""Lines of a failed test's tracebacks and output that are printed."""


def main(arguments: list[str] | None = None) -> int:
    """Runs what `arguments` ask for and returns the exit status."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("default")
    _limit_resources()
    # Before any test module is imported: some keep a loop class in a class attribute.
    census = loops.install(loops.resolve(options.loop))
    try:
        tests, module_skips = _load()
    except ModuleNotFoundError as missing:
        print(f"this interpreter is installed without its own tests: {missing}", file=sys.stderr)
        return 2
    try:
        assigned = registry.assign([entry for name in REGISTRIES for entry in registry.load(name, options.loop)], tests)
    except registry.RegistryError as problems:
        print(problems, file=sys.stderr)
        return 2
    selected = [test_id for test_id in tests if _selected(test_id, options.tests)]
    if options.list:
        print(*selected, sep="\n")
        return 0
    if not selected:
        print("no test selected", file=sys.stderr)
        return 2
    verdicts = {module: Verdict("skipped", reason) for module, reason in module_skips.items() if not options.tests}
    waiting = []
    for test_id in selected:
        entry = assigned.get(test_id)
        if entry is not None and entry.registry == "white_box" and not options.white_box:
            verdicts[test_id] = Verdict("white-box", entry.reason)
        else:
            waiting.append((test_id, tests[test_id]))
    results = _run(waiting, census, options, options.jobs)
    unsteady = _alone(results, assigned, tests, census, options)
    controls = _controls(results, options)
    for test_id, result in results.items():
        if test_id in unsteady:
            verdicts[test_id] = Verdict("unsteady", unsteady[test_id].detail, result)
            continue
        verdict = verdicts[test_id] = report.judge(result, assigned.get(test_id), controls.get(test_id))
        if verdict.verdict == "failed":
            print(f"FAILED {test_id}\n{_indent(_tail(verdict.reason))}")
    if not options.tests:
        verdicts |= {module: Verdict("failed", why) for module, why in _misplaced(results, options.loop).items()}

    if options.json is not None:
        report.write(options.json, options.loop, verdicts)
    for line in report.summary(options.loop, verdicts):
        print(line)
    wrong = {"failed", "unsteady"} if options.strict else {"failed"}
    return int(any(verdict.verdict in wrong for verdict in verdicts.values()))


def _alone(
    results: dict[str, Result],
    assigned: dict[str, registry.Entry],
    tests: dict[str, unittest.TestCase],
    census: Census,
    options: argparse.Namespace,
) -> dict[str, Result]:
    """Runs once more and alone what failed or ran out of time beside others, and is expected to pass.

    Puts what became of it into `results`, and returns the first results of what passes now. A crash, and a loop that
    should not be, are no matter of load: they stay.
    """
    again = [
        test_id
        for test_id, result in results.items()
        if result.outcome in ("failed", "timeout") and test_id not in assigned
    ]
    if not again:
        return {}
    print(f"{len(again)} did not pass; alone:", flush=True)
    first = {test_id: results[test_id] for test_id in again}
    results |= _run([(test_id, tests[test_id]) for test_id in again], census, options, 1)
    return {test_id: result for test_id, result in first.items() if results[test_id].outcome == "passed"}


def _run(
    waiting: list[tuple[str, unittest.TestCase]], census: Census, options: argparse.Namespace, jobs: int
) -> dict[str, Result]:
    # Not a context manager: the forked children leave by this way too, and would delete the directory.
    scratch = Path(tempfile.mkdtemp(prefix="conformance-"))
    results = {}
    for test_id, result in pool.run(waiting, census, scratch, jobs, options.timeout):
        results[test_id] = result
        if options.verbose or result.outcome not in ("passed", "skipped"):
            print(f"[{len(results)}/{len(waiting)}] {result.outcome} {test_id} ({result.seconds} s)", flush=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return results


def _controls(results: dict[str, Result], options: argparse.Namespace) -> dict[str, Result]:
    """How the tests that did not pass go on stock asyncio, in an interpreter that never saw the loop under test."""
    bad = {test_id: result for test_id, result in results.items() if result.outcome not in ("passed", "skipped")}
    if options.loop == "asyncio" or not bad:
        return bad
    print(f"{len(bad)} did not pass; the same on stock asyncio:", flush=True)
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        output = Path(directory, "results.json")
        command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), str(Path(__file__).parent)]
        command += ["--loop=asyncio", f"--json={output}", f"--timeout={options.timeout}", f"--jobs={options.jobs}"]
        command += ["--white-box", *bad]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        tests = json.loads(output.read_text())["tests"]
    return {test_id: Result(**tests[test_id]["result"]) for test_id in bad}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("conformance", description="CPython's own asyncio tests on a loop of choice.")
    parser.add_argument("tests", nargs="*", help="ids or patterns (module.Class.method); all without any")
    parser.add_argument("--loop", default="hotloop", help="hotloop (default), proactor, asyncio, or module:Class")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tests at once (default: one a CPU)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds a test may take (default: 60)")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--white-box", action="store_true", help="run the white-box tests too")
    parser.add_argument("--strict", action="store_true", help="fail for tests, too, that only pass alone")
    parser.add_argument("--list", action="store_true", help="print the selected ids and run nothing")
    parser.add_argument("--verbose", action="store_true", help="print a line for every test")
    return parser


def _limit_resources() -> None:
    """Allows what CPython's tests call resources, except those that leave this machine or need a person."""
    from test import support

    support.use_resources = ["cpu", "subprocess", "walltime", "largefile"]


def _load() -> tuple[dict[str, unittest.TestCase], dict[str, str]]:
    tests: dict[str, unittest.TestCase] = {}
    module_skips = {}
    for module in suite.modules():
        loaded = suite.load(module)
        if isinstance(loaded, str):
            module_skips[module] = loaded
        else:
            tests |= loaded
    return tests, module_skips


def _selected(test_id: str, patterns: list[str]) -> bool:
    return not patterns or any(
        fnmatch.fnmatch(test_id, pattern) or test_id.startswith(f"{pattern}.") for pattern in patterns
    )


def _misplaced(results: dict[str, Result], loop: str) -> dict[str, str]:
    """The modules whose tests used loops otherwise than `registry/modules.toml` says, and how."""
    with open(registry.DIRECTORY / "modules.toml", "rb") as file:
        listed = tomllib.load(file)
    tested = set(listed["tested"])
    untested = {table["name"] for table in listed["untested"] if registry.python_matches(table.get("python", ""))}
    by_module = defaultdict(list)
    for test_id, result in results.items():
        by_module[test_id.partition(".")[0]].append(result)
    wrong = {}
    for module, ran in by_module.items():
        met = any(result.tested_loops for result in ran)
        if module not in tested | untested:
            wrong[module] = "not in modules.toml"
        elif module in tested and not met:
            wrong[module] = f"none of its tests made a loop of {loop}: {report.loops_used(ran)}"
        elif module in untested and met:
            wrong[module] = f"its tests do make loops of {loop}"
    for module, reason in wrong.items():
        print(f"FAILED {module}\n{_indent(reason)}")
    return wrong


def _tail(text: str) -> str:
    """The end of `text`, which is where a traceback says what went wrong; all of it is in the JSON."""
    lines = text.strip().splitlines()
    return "\n".join(lines if len(lines) <= SHOWN_LINES else [lines[0], "...", *lines[-SHOWN_LINES:]])


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


if __name__ == "__main__":
    try:
        status = main()
    except pool.InChild as child:
        status = child.status
    sys.exit(status)
