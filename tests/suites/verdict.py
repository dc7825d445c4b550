"""What a suite on the loop under test says beside the same on stock asyncio."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from execute import Result, Run
from library import Entry, SuiteError

VERDICTS = ("passed", "unsteady", "failed", "divergence", "stock", "skipped", "left out")

ALONE = 40
"""Differences that are looked at once more, test by test; more of them are no matter of load."""

MISSING = Result("missing", "did not run")


@dataclass(frozen=True)
class Verdict:
    """What a test's results mean."""

    verdict: str
    """One of `VERDICTS`."""
    reason: str
    result: Result = MISSING
    """On the loop under test."""
    stock: str = "missing"
    """The outcome on stock asyncio."""


def assign(entries: Iterable[Entry], tests: Collection[str]) -> dict[str, Entry]:
    """Which entry holds for which test.

    Raises `SuiteError` where a pattern matches no test or two entries claim one.
    """
    assigned: dict[str, Entry] = {}
    for entry in entries:
        for pattern in entry.tests:
            matched = [test for test in tests if fnmatch.fnmatchcase(test, pattern)]
            if not matched:
                raise SuiteError(f"no test matches {pattern!r}")
            for test in matched:
                if assigned.setdefault(test, entry) is not entry:
                    raise SuiteError(f"{test} is registered twice")
    return assigned


def compare(
    tested: Run, stock: Run, divergences: dict[str, Entry], alone: Callable[[str, str], Result]
) -> dict[str, Verdict]:
    """The verdict on every test that ran on either loop.

    `alone` runs one test by itself, on the loop `"tested"` or `"stock"`.
    """
    verdicts: dict[str, Verdict] = {}
    different = []
    for test in sorted(tested.tests.keys() | stock.tests.keys()):
        result, control = tested.tests.get(test, MISSING), stock.tests.get(test, MISSING)
        if _differs(result, control):
            different.append(test)
        else:
            verdict = result.outcome if result.outcome in ("passed", "skipped") else "stock"
            verdicts[test] = Verdict(verdict, result.detail, result, control.outcome)
    for test in different:
        result, control = tested.tests.get(test, MISSING), stock.tests.get(test, MISSING)
        verdicts[test] = Verdict(
            "failed", f"{result.outcome}, {control.outcome} on stock: {result.detail}", result, control.outcome
        )
        if test in divergences or len(different) > ALONE:
            continue
        again = alone(test, "tested")
        if not _differs(again, control):
            verdicts[test] = Verdict("unsteady", result.detail, again, control.outcome)
        elif not _differs(again, stock_alone := alone(test, "stock")):
            verdicts[test] = Verdict(
                "stock", f"{again.outcome} alone, on stock too: {again.detail}", again, stock_alone.outcome
            )
    for test, entry in divergences.items():
        found = verdicts.get(test)
        if found is None or found.verdict != "failed":
            how = "did not run" if found is None else f"{found.result.outcome}, {found.stock} on stock"
            verdicts[test] = Verdict("failed", f"registered as a known divergence, but {how}: {entry.reason}")
        else:
            verdicts[test] = Verdict("divergence", entry.reason, found.result, found.stock)
    return verdicts


def _differs(result: Result, control: Result) -> bool:
    """Whether a test did worse than on stock asyncio. What is skipped there may pass here."""
    rank = {"passed": 0, "skipped": 1}
    return rank.get(result.outcome, 2) > rank.get(control.outcome, 2) or result.outcome == "missing"


def counts(verdicts: dict[str, Verdict]) -> dict[str, int]:
    """How many tests got each verdict."""
    found = Counter(verdict.verdict for verdict in verdicts.values())
    return {verdict: found[verdict] for verdict in VERDICTS}
