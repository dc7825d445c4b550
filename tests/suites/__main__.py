"""Runs libraries' own test suites on hotloop's loop and on stock asyncio's, and compares.

    python tests/suites                           # all of them
    python tests/suites aiohttp --loop proactor
    python tests/suites aiohttp --tests '*test_web_server*'

Exits with 0 if no test did worse than on stock asyncio. README.md beside this file tells what that means.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import signal
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "conformance"))

import environment  # noqa: E402
import execute  # noqa: E402
import verdict  # noqa: E402
from execute import Result, Run  # noqa: E402
from library import Library, SuiteError, entries, libraries, tables  # noqa: E402
from services import serve  # noqa: E402
from verdict import Verdict  # noqa: E402

STOCK = "asyncio"


def main(arguments: list[str] | None = None) -> int:
    """Runs what `arguments` ask for and returns the exit status."""
    # The process of a suite has a session of its own: it must be ended by whoever ends this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options = _parser().parse_args(arguments)
    known = libraries(options.libraries)
    if options.list:
        print(
            *known,
            *(f"{table['library']}: {table['reason']}" for table in tables("not_run", options.registry)),
            sep="\n",
        )
        return 0
    if unknown := [name for name in options.names if name not in known]:
        print(f"no such library: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    total = Counter[str]()
    for name in options.names or known:
        try:
            total += _suite(known[name], options)
        except SuiteError as problem:
            print(f"FAILED {name}\n{_indent(str(problem))}", flush=True)
            total["failed"] += 1
    passed, skipped = total["passed"] + total["unsteady"], total["skipped"] + total["left out"]
    skipped += total["stock"] + total["divergence"]
    print(f"{passed} passed, {total['failed']} failed, {skipped} skipped")
    return int(total["failed"] > 0)


def _suite(library: Library, options: argparse.Namespace) -> Counter[str]:
    """Runs one library's suite on stock asyncio and on every loop asked for; counts by verdict."""
    made = environment.prepare(library, options.target)
    total = Counter[str]()
    with serve(library.services) as extra:
        controls: dict[tuple[str, ...], Run] = {}
        for loop in options.loop or ["hotloop"]:
            left_out = entries("left_out", library.name, loop, options.registry)
            patterns = tuple(pattern for entry in left_out for pattern in entry.tests)
            if patterns not in controls:
                controls[patterns] = _run(library, made, STOCK, patterns, None, extra, options)
            stock = controls[patterns]
            only = None
            if options.tests:
                only = {test for test in stock.collected for glob in options.tests if fnmatch.fnmatchcase(test, glob)}
            tested = _run(library, made, loop, patterns, only, extra, options)

            def alone(test: str, which: str, loop: str = loop, patterns: tuple[str, ...] = patterns) -> Result:
                where = STOCK if which == "stock" else loop
                run = execute.execute(library, made, where, patterns, {test}, extra)
                return run.tests.get(test, verdict.MISSING)

            collected = tested.collected | stock.collected
            skipped = verdict.assign(left_out, collected)
            divergences = verdict.assign(entries("divergence", library.name, loop, options.registry), collected)
            if only is not None:
                skipped = {test: entry for test, entry in skipped.items() if test in only}
                divergences = {test: entry for test, entry in divergences.items() if test in only}
            verdicts = verdict.compare(tested, stock, divergences, alone)
            verdicts |= {test: Verdict("left out", entry.reason) for test, entry in skipped.items()}
            verdicts |= _whole(tested, stock, loop)
            part = "" if only is None else "-part"
            path = options.target / f"{library.name}-{loop.replace(':', '.')}{part}.json"
            _report(library, loop, tested, stock, verdicts, path)
            total.update(verdict.counts(verdicts))
    return total


def _run(
    library: Library,
    made: environment.Environment,
    loop: str,
    patterns: tuple[str, ...],
    only: set[str] | None,
    extra: dict[str, str],
    options: argparse.Namespace,
) -> Run:
    if options.tests and only is None:
        # Which tests there are, before it is known which are wanted.
        collected = execute.execute(library, made, loop, patterns, set(), extra).collected
        only = {test for test in collected for glob in options.tests if fnmatch.fnmatchcase(test, glob)}
    run = execute.execute(library, made, loop, patterns, only, extra)
    found = Counter(result.outcome for result in run.tests.values())
    how = ", ".join(f"{count} {outcome}" for outcome, count in found.most_common())
    loops = ", ".join(f"{name} in {len(processes)}" for name, processes in run.processes.items())
    print(
        f"{library.name} {library.version} on {loop}: {how} in {run.seconds} s; processes: {loops or 'none'}",
        flush=True,
    )
    return run


def _whole(tested: Run, stock: Run, loop: str) -> dict[str, Verdict]:
    """What is to say of a run as a whole: that it was no proof, or ended in trouble that the control had not."""
    found = {}
    if not tested.tested_processes:
        found["(loops)"] = Verdict("failed", f"no process of the suite made a loop of {loop}")
    # Stock loops that a library makes by other names than asyncio's would be found here.
    if "asyncio.SelectorEventLoop" in tested.processes and loop != STOCK:
        found["(stock loops)"] = Verdict("failed", "a process of the suite made a loop of stock asyncio's class")
    if tested.trouble and not stock.trouble:
        found["(process)"] = Verdict("failed", "; ".join(tested.trouble))
    if not stock.tests:
        found["(control)"] = Verdict("failed", f"no test ran on stock asyncio: {'; '.join(stock.trouble)}")
    return found


def _report(library: Library, loop: str, tested: Run, stock: Run, verdicts: dict[str, Verdict], path: Path) -> None:
    counts = verdict.counts(verdicts)
    for test, found in verdicts.items():
        if found.verdict in ("failed", "unsteady", "stock"):
            label = {"failed": "FAILED", "unsteady": "unsteady:", "stock": "on stock too:"}[found.verdict]
            print(f"{label} {test}")
            if found.verdict == "failed":
                print(_indent(_tail(found.reason)))
    print(
        f"{library.name} on {loop}: {', '.join(f'{count} {name}' for name, count in counts.items() if count)}",
        flush=True,
    )
    about = {
        "library": library.name,
        "version": library.version,
        "loop": loop,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seconds": tested.seconds,
        "stock_seconds": stock.seconds,
        "processes": {name: len(processes) for name, processes in tested.processes.items()},
        "met": sum(found.result.loops > 0 for found in verdicts.values()),
        "counts": counts,
        "trouble": tested.trouble,
        "tests": {test: asdict(found) for test, found in sorted(verdicts.items())},
    }
    path.write_text(json.dumps(about, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "suites", description="Libraries' own test suites, on hotloop and on stock asyncio."
    )
    parser.add_argument("names", nargs="*", help="libraries; all without any")
    parser.add_argument("--loop", action="append", help="hotloop (default), proactor, or module:Class; may be repeated")
    parser.add_argument("--tests", action="append", help="only tests whose ids match this pattern; may be repeated")
    parser.add_argument(
        "--target", type=Path, default=Path("target/suites"), help="where all of it lies (default: target/suites)"
    )
    parser.add_argument("--libraries", type=Path, default=HERE / "libraries.toml", help="another libraries.toml")
    parser.add_argument("--registry", type=Path, default=HERE / "registry", help="another directory of registries")
    parser.add_argument("--list", action="store_true", help="print the libraries, and those that cannot be run and why")
    return parser


def _tail(text: str, lines: int = 40) -> str:
    """The end of `text`, which is where a traceback says what went wrong; all of it is in the JSON."""
    found = text.strip().splitlines()
    return "\n".join(found if len(found) <= lines else [found[0], "...", *found[-lines:]])


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
