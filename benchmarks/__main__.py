"""Compares event loops: `python -m benchmarks`.

Markdown tables of medians and ratios go to standard output, progress to standard error. The exit status is 1
when a loop failed, be it by a wrong answer.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import connections, loops, network, process, scheduling
from benchmarks.rounds import Rounds, interleave


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default=",".join(loops.default()), help="names or module:function (%(default)s)")
    parser.add_argument("--rows", default="*", help="patterns of row names, with commas between them (all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a row (%(default)s)")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds a network measurement (%(default)s)")
    parser.add_argument("--json", type=Path, help="a file for every figure of every round")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    if options.list:
        print("\n".join([*scheduling.ROWS, *connections.ROWS, *network.ROWS]))
        return 0
    patterns = options.rows.split(",")

    def chosen(rows: Iterable[str]) -> list[str]:
        return [row for row in rows if any(fnmatch.fnmatch(row, pattern) for pattern in patterns)]

    scheduling_rows, network_rows = chosen(scheduling.ROWS), chosen(network.ROWS)
    connection_rows = chosen(connections.ROWS)
    if not scheduling_rows and not connection_rows and not network_rows:
        print(f"no row matches {options.rows}", file=sys.stderr)
        return 2
    if network_rows:
        process.binary("hotloop-load")
    names, missing = loops.installed(options.loops.split(","))
    for line in missing:
        print(line, file=sys.stderr)

    schedulers = [name for name in names if name != loops.AIOFASTNET]  # uvloop's own scheduling
    calls, call_failures = interleave(
        scheduling_rows, schedulers, options.rounds, scheduling.measure, lambda figure: f"{figure:,.0f} ns"
    )
    held, held_failures = interleave(
        connection_rows, names, options.rounds, connections.measure, lambda figure: f"{figure:,.1f}"
    )
    failures = call_failures + held_failures
    traffic: Rounds[process.Load] = {}
    for row in network_rows:
        figures, row_failures = interleave(
            [row],
            [*names, network.FLOOR] if network.ROWS[row].has_floor else names,
            options.rounds,
            lambda row, loop: network.measure(network.ROWS[row], loop, options.duration),
            str,
        )
        traffic |= figures
        failures += row_failures

    print(f"Python {platform.python_version()}, medians of {options.rounds} interleaved rounds (lowest-highest)\n")
    for line in missing + failures:
        print(f"{line}\n")
    if calls:
        print(scheduling.to_markdown(calls) + "\n")
    if held:
        print(connections.to_markdown(held) + "\n")
    if traffic:
        print(network.to_markdown(traffic))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        everything = {
            "python": platform.python_version(),
            "scheduling_ns": calls,
            "connections": held,
            "network": network.to_json(traffic),
        }
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
