"""Compares event loops: `python -m benchmarks`.

Markdown tables of medians and ratios go to standard output, progress to standard error. A loop that fails at a row,
be it by a wrong answer, a crash or a hang, is left out of that row, and the tables say why; which loops do not keep
what asyncio does, they say too. The exit status is 1 when hotloop or the control fails at a row, and 2 when nothing
could be measured.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import resource
import sys
import time
from pathlib import Path

from benchmarks import loops, process, report
from benchmarks.conduct.apart import of_loops
from benchmarks.network import BESIDE
from benchmarks.ratios import significant
from benchmarks.rounds import interleave
from benchmarks.rows import ROWS, Figure, Row
from benchmarks.run import Incomparable, Measured, Run

# What `--quick` measures: a few minutes, with the loops of a usual installation.
QUICK = (
    "call_soon,call_soon_chain,call_soon_threadsafe,call_later_cancel,timers,sleep_0,gather,"
    "echo_protocol_1k,echo_streams_1k,echo_sock_1k,echo_tls_protocol_1k,echo_protocol_100k,uvicorn"
)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default=",".join(loops.default()), help="names or module:function (%(default)s)")
    parser.add_argument("--rows", help="patterns of row names, with commas between them (all)")
    parser.add_argument("--quick", action="store_true", help="a few rows, three rounds of half a second")
    parser.add_argument("--rounds", type=int, help="rounds a row (5)")
    parser.add_argument("--duration", type=float, help="seconds a load lasts (1)")
    parser.add_argument("--json", type=Path, help="a file for every figure of every round, written after each row")
    parser.add_argument("--resume", action="store_true", help="go on with that file: leave out the rows that it has")
    parser.add_argument("--plots", type=Path, help="a directory for the plots")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    options = parser.parse_args()
    options.rows = options.rows or (QUICK if options.quick else "*")
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.duration = options.duration or (0.5 if options.quick else 1.0)
    if options.resume and not options.json:
        parser.error("--resume goes on with the file of --json")
    return options


def main() -> int:
    options = parse_options()
    if options.list:
        print("\n".join(ROWS))
        return 0
    patterns = options.rows.split(",")
    rows = [row for row in ROWS.values() if any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]
    if not rows:
        print(f"no row matches {options.rows}", file=sys.stderr)
        return 2
    for name in ("hotloop-load", *(command[0] for command in BESIDE.values())):
        process.binary(name)
    # Servers and load have as many descriptors as connections, and children have this process's limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    names, missing = loops.installed(options.loops.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    run = Run.begin(names, missing, options.duration)
    if options.resume and options.json.exists():
        try:
            run = run.with_rows_of(Run.load(options.json))
        except Incomparable as error:
            print(f"{options.json} cannot be gone on with: {error}", file=sys.stderr)
            return 2
        rows = [row for row in rows if row.name not in run.rows]
    run.conduct.update(of_loops([name for name in names if name not in run.conduct]))
    if options.json:
        run.save(options.json)
    run = measure(run, rows, names, options.rounds, options.json)
    print(report.page(run))
    if options.plots:
        from benchmarks import plots

        plots.draw(run, options.plots)
    ours = {loops.CONTROL, loops.OURS, loops.PROACTOR}
    return 1 if any(ours & row.failures.keys() for row in run.rows.values()) else 0


def measure(run: Run, rows: list[Row], names: list[str], rounds: int, file: Path | None) -> Run:
    """The run with these rows, saved in the file after each of them."""
    start = time.monotonic()
    for number, row in enumerate(rows):
        if number:
            left = (time.monotonic() - start) / number * (len(rows) - number)
            print(f"{number} of {len(rows)} rows, {datetime.timedelta(seconds=round(left))} left", file=sys.stderr)
        run.rows[row.name] = measure_row(row, names, rounds, run.duration)
        if file:
            run.save(file)
    return run


def measure_row(row: Row, names: list[str], rounds: int, duration: float) -> Measured:
    compared = [name for name in names if name not in row.without]

    def describe(figure: Figure) -> str:
        return f"{significant(figure[0])} {row.unit}" + (f" ({figure[1]})" if figure[1] else "")

    by_loop, failures = interleave(
        row.name, [*compared, *row.floors], rounds, lambda loop: row.measure(loop, duration), describe
    )
    return Measured(
        group=row.group,
        about=row.about,
        unit=row.unit,
        figures={loop: [figure for figure, _ in found] for loop, found in by_loop.items()},
        loads={loop: loads for loop, found in by_loop.items() if (loads := [load for _, load in found if load])},
        failures=failures,
    )


if __name__ == "__main__":
    sys.exit(main())
