"""Interleaved rounds: each loop has its turn in every round, so that a slow minute strikes all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks import loops, process

Figure = TypeVar("Figure")
# Figures of every round, by row and by loop. The rounds of all loops of a row are equally many.
Rounds = dict[str, dict[str, list[Figure]]]


def interleave(
    rows: Sequence[str],
    names: Sequence[str],
    rounds: int,
    measure: Callable[[str, str], Figure],
    describe: Callable[[Figure], str],
) -> tuple[Rounds[Figure], list[str]]:
    """Calls `measure(row, loop)` for every row and loop, `rounds` times, each round beginning with another loop.

    Each figure is described on standard error as it comes. A loop that fails at a row has no figures there, and the
    second result has a line about it. Without the control there is no comparison: its failure ends this process.
    """
    figures: Rounds[Figure] = {}
    failures = []
    for row in rows:
        by_loop: dict[str, list[Figure]] = {loop: [] for loop in names}
        for number in range(rounds):
            order = list(by_loop)
            first = number % len(order)
            for loop in order[first:] + order[:first]:
                try:
                    figure = measure(row, loop)
                except (process.WrongAnswer, process.NotServing, subprocess.CalledProcessError) as error:
                    line = f"{loop} fails at {row}: {error}"
                    if loop == loops.CONTROL:
                        sys.exit(line)
                    del by_loop[loop]
                    failures.append(line)
                else:
                    by_loop[loop].append(figure)
                    line = f"{loop}: {describe(figure)}"
                print(f"{row}, round {number + 1} of {rounds}, {line}", file=sys.stderr, flush=True)
        figures[row] = by_loop
    return figures, failures
