"""The regression gate: instructions that an operation takes, compared with those that are on record.

    python -m benchmarks.gate             compare; the exit status is 1 where a row needs more than it may
    python -m benchmarks.gate --record    put what is measured on record
    python -m benchmarks.gate --rows future,echo_sock

Instructions are counted by callgrind, so neither the machine's speed nor its load matters. A row runs twice, and the
difference of the two runs is that of their lengths: what starting costs is in neither figure. Two figures are kept:

- `own`: instructions within the extension. Python's build has no part in it, the compiler's version has a little.
- `ratio`: all instructions in user space, as a multiple of stock asyncio's in the same environment. So it is noticed
  when the extension leaves more to Python; how well Python was compiled is in both parts.

A record is of one version of Python on one architecture. Where there is none, or no valgrind, nothing is compared, and
the exit status is 0; with --strict it is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import callgrind, exchanges, loops, scheduling

RECORDS = Path(__file__).with_name("gate.json")
# What a figure may be above its record. Equal builds differ by less than 1 %.
TOLERANCE = 0.04
# The same where compilers other than those of the record have built Python or the extension.
OTHER_BUILD = 0.09

# Does an operation so many times on a loop, and answers how many times that were.
Row = Callable[[loops.Loop, int], int]
# Rows, and the operations of the shorter run. The longer one has LONGER times as many.
ROWS: dict[Row, int] = {
    scheduling.call_soon: 2_000,
    scheduling.call_soon_args: 2_000,
    scheduling.call_soon_chain: 1_000,
    scheduling.call_soon_threadsafe: 1_000,
    scheduling.call_later_cancel: 1_000,
    scheduling.timers: 1_000,
    scheduling.sleep_0: 1_000,
    scheduling.gather: 500,
    scheduling.future: 1_000,
    scheduling.queue: 300,
    scheduling.async_context: 500,
    exchanges.echo_protocol: 400,
    exchanges.echo_buffered: 400,
    exchanges.echo_streams: 400,
    exchanges.echo_sock: 400,
}
LONGER = 4
MEASURED = "hotloop"
# How the extension's file is called, as callgrind names objects by their files.
EXTENSION = "_hotloop"


@dataclass(frozen=True)
class Figure:
    """What a row takes."""

    # Instructions an operation within the extension.
    own: float
    # Instructions an operation altogether, as a multiple of asyncio's.
    ratio: float


@dataclass(frozen=True)
class Counts:
    """Instructions of a whole run."""

    total: int
    own: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="put what is measured on record")
    parser.add_argument("--strict", action="store_true", help="fail where nothing can be compared")
    names = [row.__name__ for row in ROWS]
    parser.add_argument("--rows", default=",".join(names), help="names, with commas between them (all)")
    parser.add_argument("--loop", default=MEASURED, help="another loop than %(default)s, to try the gate itself")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = {row: count for row, count in ROWS.items() if row.__name__ in options.rows.split(",")}
    if not rows or len(rows) != len(options.rows.split(",")):
        parser.error(f"the rows are {', '.join(names)}")
    if options.record and (len(rows) < len(ROWS) or options.loop != MEASURED):
        parser.error(f"a record is of all rows on {MEASURED}")
    if options.run:
        run(options.run, rows)
        return 0

    if shutil.which("valgrind") is None:
        return skip("valgrind is not installed", strict=options.strict or options.record)
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    if key() not in records and not options.record:
        return skip(f"there is no record for {key()}", strict=options.strict)
    figures = measure(options.loop, rows)
    if options.record:
        record = {"builds": builds(), "rows": {row: asdict(figure) for row, figure in figures.items()}}
        RECORDS.write_text(json.dumps(dict(sorted({**records, key(): record}.items())), indent=1) + "\n")
        for row, figure in figures.items():
            print(f"{row}: {figure.own:,.1f} instructions of our own, {figure.ratio:.3f} of asyncio's altogether")
        return 0
    record = records[key()]
    tolerance = TOLERANCE if record["builds"] == builds() else OTHER_BUILD
    if tolerance == OTHER_BUILD:
        print(f"the record is of other builds, which may differ by {OTHER_BUILD:.0%}: {record['builds']}")
    lines, worse = compare(figures, {row: Figure(**figure) for row, figure in record["rows"].items()}, tolerance)
    print("\n".join(lines))
    return 1 if worse else 0


def skip(reason: str, *, strict: bool) -> int:
    banner = "*" * 80
    print(f"{banner}\nTHE REGRESSION GATE COMPARES NOTHING: {reason}\n{banner}", file=sys.stderr)
    return 1 if strict else 0


def key() -> str:
    """What a record is kept by."""
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"


def builds() -> dict[str, str]:
    """What else decides how many instructions things take: the builds of Python and of the extension."""
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"python": f"{platform.python_version()}, {platform.python_compiler()}", "extension": compiler}


def compare(figures: dict[str, Figure], record: dict[str, Figure], tolerance: float) -> tuple[list[str], list[str]]:
    """A line for each row, and the names of those that need more than `tolerance` above their record.

    A row without a record is worse, too: so nobody adds one and forgets to put it on record.
    """
    lines, worse = [], []
    for row, figure in figures.items():
        before = record.get(row)
        if before is None:
            worse.append(row)
            lines.append(f"{row}: not on record")
            continue
        changes = [figure.own / before.own - 1, figure.ratio / before.ratio - 1]
        verdict = "as on record"
        if max(changes) > tolerance:
            verdict = "MORE THAN ON RECORD"
            worse.append(row)
        elif min(changes) < -tolerance:
            verdict = "better than on record: record it, so that it stays"
        lines.append(
            f"{row}: {figure.own:,.1f} instructions of our own ({changes[0]:+.1%}), "
            f"{figure.ratio:.3f} of asyncio's altogether ({changes[1]:+.1%}): {verdict}"
        )
    return lines, worse


def measure(loop: str, rows: dict[Row, int]) -> dict[str, Figure]:
    """The figures of these rows. Both loops run side by side, which instructions do not mind."""
    with ThreadPoolExecutor(2) as threads:
        control, ours = threads.map(lambda each: counted(each, rows), (loops.CONTROL, loop))
    figures = {}
    for row, count in rows.items():
        name, more = row.__name__, count * (LONGER - 1)
        own, total, asyncio_total = (
            (counts[name, LONGER] - counts[name, 1]) / more
            for counts in (
                {run: count.own for run, count in ours.items()},
                {run: count.total for run, count in ours.items()},
                {run: count.total for run, count in control.items()},
            )
        )
        figures[name] = Figure(round(own, 1), round(total / asyncio_total, 4))
    return figures


def counted(loop: str, rows: dict[Row, int]) -> dict[tuple[str, int], Counts]:
    """The instructions of these rows on a loop, by its name and by how many times as long it was."""
    with tempfile.TemporaryDirectory() as directory:
        command = [*callgrind.command(f"{directory}/%p"), sys.executable, "-m", "benchmarks.gate", "--run", loop]
        command += ["--rows", ",".join(row.__name__ for row in rows)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=callgrind.environment(),
            check=True,
        )
        runs = (line.split() for line in done.stdout.splitlines())
        return {(row, int(times)): parse(Path(directory, pid).read_text()) for row, times, pid in runs}


def run(loop: str, rows: dict[Row, int]) -> None:
    """Runs these rows on a loop, below valgrind. Each run is a process of its own, a copy of this one.

    So what is imported is the same in all of them, and costs once. A line for each goes to standard output: the row,
    how many times as long it was, the process, by which callgrind names its file.
    """
    # Collections come when many objects are alive, which is not in proportion to the length of a run.
    gc.disable()
    factory = loops.factory(loop)
    factory().close()
    for row, count in rows.items():
        for times in (1, LONGER):
            pid = os.fork()
            if pid == 0:
                status = 1
                with contextlib.suppress(Exception):
                    row(factory(), count * times)
                    status = 0
                # Ends where nothing more is to be counted.
                os._exit(status)
            if os.waitpid(pid, 0)[1]:
                raise RuntimeError(f"{row.__name__} fails on {loop}")
            print(row.__name__, times, pid, flush=True)
            print(f"{row.__name__} on {loop}, {count * times:,} times", file=sys.stderr, flush=True)


def parse(text: str) -> Counts:
    """The counts in a file of callgrind's."""
    counts = callgrind.by_object(text)
    return Counts(counts.total(), sum(count for name, count in counts.items() if EXTENSION in name))


if __name__ == "__main__":
    sys.exit(main())
