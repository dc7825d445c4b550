"""What loops keep, as tables, and what that means for a row."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from benchmarks.conduct.checks import CHECKS, EXCEPTED
from benchmarks.ratios import table

# Why loops do not keep checks, by loop and check; empty where they do.
Conduct = dict[str, dict[str, str]]

# Behind a figure of a loop that does not keep something that matters to the row, and where that is by intention.
BROKEN, INTENDED = "†", "‡"
LEGEND = (
    f"{BROKEN} marks a loop that does not keep a check of conduct that matters to the row, {INTENDED} one of hotloop's "
    "that does not by an intention that docs/differences.md has. [Conduct](#conduct) is which checks these are."
)


def broken(conduct: Conduct, loop: str, row: str) -> list[str]:
    """The checks that matter to a row and that a loop does not keep."""
    return [
        name
        for name, reason in conduct.get(loop, {}).items()
        if reason and name in CHECKS and any(fnmatch.fnmatchcase(row, pattern) for pattern in CHECKS[name].rows)
    ]


def mark(conduct: Conduct, loop: str, row: str) -> str:
    """What stands behind the loop's name, or its figure, in a row."""
    names = broken(conduct, loop, row)
    if not names:
        return ""
    return f" {INTENDED if all((loop, name) in EXCEPTED for name in names) else BROKEN}"


def keeping(conduct: Conduct, loops: Iterable[str], row: str) -> list[str]:
    """Those of the loops that are known to keep all that matters to a row."""
    return [loop for loop in loops if loop in conduct and not broken(conduct, loop, row)]


def grid(conduct: Conduct) -> str:
    """A line for each check, a column for each loop."""
    names = [name for name in CHECKS if any(name in of_loop for of_loop in conduct.values())]

    def cell(loop: str, name: str) -> str:
        reason = conduct[loop].get(name)
        if not reason:
            return "" if reason is None else "yes"
        return "by intention" if (loop, name) in EXCEPTED else "no"

    lines = [
        [name, CHECKS[name].claim, ", ".join(CHECKS[name].rows), *[cell(loop, name) for loop in conduct]]
        for name in names
    ]
    return table(["check", "what asyncio does", "matters to", *conduct], lines, texts=3)


def reasons(conduct: Conduct) -> str:
    """A line for each check that a loop does not keep; empty where all keep all."""
    lines = [
        [loop, name, escape("; ".join(filter(None, (reason, EXCEPTED.get((loop, name))))))]
        for loop, of_loop in conduct.items()
        for name, reason in of_loop.items()
        if reason
    ]
    return table(["loop", "check", "what it does instead"], lines, texts=3) if lines else ""


def counts(conduct: Conduct) -> str:
    """How many checks each loop keeps, in a sentence."""
    found = [
        f"{loop} {sum(not reason for reason in of_loop.values())} of {len(of_loop)}"
        for loop, of_loop in conduct.items()
    ]
    return f"Kept: {', '.join(found)}."


def escape(text: str) -> str:
    """A text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
