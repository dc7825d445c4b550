"""Interleaved rounds: each loop has its turn in every round, so that a slow minute strikes all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

Figure = TypeVar("Figure")


def interleave(
    rows: Sequence[str],
    names: list[str],
    rounds: int,
    measure: Callable[[str, str], Figure],
    add: Callable[[str, str, Figure], None],
    describe: Callable[[Figure], str],
) -> None:
    """Calls `measure(row, loop)` for every row and loop, `rounds` times, each round beginning with another loop.

    Each figure goes to `add(row, loop, figure)`, and `describe(figure)` to standard error as it comes.
    """
    total = len(rows) * len(names) * rounds
    done = 0
    for row in rows:
        for number in range(rounds):
            first = number % len(names)
            for loop in names[first:] + names[:first]:
                figure = measure(row, loop)
                add(row, loop, figure)
                done += 1
                print(f"[{done}/{total}] {row}, {loop}: {describe(figure)}", file=sys.stderr, flush=True)
