"""Interleaved rounds: each loop has its turn in every round, so that a slow minute strikes all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks import loops, process

Figure = TypeVar("Figure")
# Figures of every round, by row and by loop. The rounds of all loops of a row are equally many.
Rounds = dict[str, dict[str, list[Figure]]]


def interleave(
    row: str,
    names: Sequence[str],
    rounds: int,
    measure: Callable[[str], Figure],
    describe: Callable[[Figure], str],
) -> tuple[dict[str, list[Figure]], dict[str, str]]:
    """Calls `measure(loop)` for every loop, `rounds` times, each round beginning with another loop.

    Each figure is described on standard error as it comes. A loop that fails has no figures, and the second result says
    why. Without the control there is no comparison: where it fails, nobody has figures.
    """
    by_loop: dict[str, list[Figure]] = {loop: [] for loop in names}
    failures: dict[str, str] = {}
    for number in range(rounds):
        order = list(by_loop)
        first = number % len(order) if order else 0
        for loop in order[first:] + order[:first]:
            try:
                figure = measure(loop)
            except process.Failure as error:
                failures[loop] = str(error)
                line = f"{loop} fails: {error}"
                del by_loop[loop]
            else:
                by_loop[loop].append(figure)
                line = f"{loop}: {describe(figure)}"
            print(f"{row}, round {number + 1} of {rounds}, {line}", file=sys.stderr, flush=True)
            if loop == loops.CONTROL and loop in failures:
                return {}, failures
    return by_loop, failures
