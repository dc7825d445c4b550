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
    second result has a line about it. Without the control there is no comparison: where it fails, the row is left out.
    """
    figures: Rounds[Figure] = {}
    failures = []
    for row in rows:
        by_loop: dict[str, list[Figure]] = {loop: [] for loop in names}
        for number in range(rounds):
            order = list(by_loop)
            first = number % len(order) if order else 0
            for loop in order[first:] + order[:first]:
                try:
                    figure = measure(row, loop)
                except (process.WrongAnswer, process.NotServing, subprocess.CalledProcessError) as error:
                    line = f"{loop} fails at {row}: {error}"
                    failures.append(line)
                    del by_loop[loop]
                    if loop == loops.CONTROL:
                        by_loop.clear()
                        break
                else:
                    by_loop[loop].append(figure)
                    line = f"{loop}: {describe(figure)}"
                print(f"{row}, round {number + 1} of {rounds}, {line}", file=sys.stderr, flush=True)
        if by_loop:
            figures[row] = by_loop
    return figures, failures
