"""From raw results and registries to verdicts, and from these to JSON and a summary."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pool import Result
from registry import Entry

COUNTED_AS = {
    "passed": "passed",
    "unsteady": "passed",
    "failed": "failed",
    "skipped": "skipped",
    "white-box": "skipped",
    "environment": "skipped",
    "divergence": "skipped",
}


@dataclass(frozen=True)
class Verdict:
    """What a test's result means."""

    verdict: str
    """A key of `COUNTED_AS`."""
    reason: str
    result: Result | None = None


def judge(result: Result, entry: Entry | None, control: Result | None) -> Verdict:
    """The verdict on `result`, given the entry for its test and, where it did not pass, how stock asyncio did."""
    if result.outcome in ("passed", "skipped"):
        if entry is not None and entry.registry == "divergence" and result.outcome == "passed":
            return Verdict("failed", f"passes, but is registered as a known divergence: {entry.reason}", result)
        return Verdict(result.outcome, result.detail, result)
    fails_on_stock = control is not None and control.outcome != "passed"
    if entry is not None and entry.registry == "divergence":
        return Verdict("divergence", entry.reason, result)
    if entry is not None and entry.registry == "environment" and fails_on_stock:
        return Verdict("environment", entry.reason, result)
    if fails_on_stock:
        return Verdict("failed", f"{result.outcome}, and {control.outcome} on stock asyncio: {result.detail}", result)
    return Verdict("failed", f"{result.outcome}: {result.detail}", result)


def loops_used(results: Iterable[Result]) -> str:
    """The loop classes that `results` made most, in words."""
    made = Counter[str]()
    for result in results:
        made.update(result.loops)
    return ", ".join(f"{count} of {name}" for name, count in made.most_common(3)) or "no loop at all"


def write(path: Path, loop: str, verdicts: dict[str, Verdict]) -> None:
    """Writes everything known about the run to `path` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tests = {test_id: asdict(verdict) for test_id, verdict in sorted(verdicts.items())}
    about = {"loop": loop, "python": sys.version, "platform": platform.platform(), "counts": counts(verdicts)}
    path.write_text(json.dumps(about | {"tests": tests}, indent=1) + "\n")


def counts(verdicts: dict[str, Verdict]) -> dict[str, int]:
    """How many tests got each verdict."""
    found = Counter(verdict.verdict for verdict in verdicts.values())
    return {verdict: found[verdict] for verdict in COUNTED_AS}


def summary(loop: str, verdicts: dict[str, Verdict]) -> Iterator[str]:
    """The lines that end a run; the last is `N passed, N failed, N skipped`."""
    for test_id in sorted(test_id for test_id, verdict in verdicts.items() if verdict.verdict == "unsteady"):
        yield f"unsteady: {test_id} failed beside others, and passed alone"
    for verdict in ("white-box", "environment", "divergence", "skipped"):
        alike = [v.reason.partition("\n")[0] for v in verdicts.values() if v.verdict == verdict]
        reasons = Counter(" ".join(reason.split()) for reason in alike)
        if reasons:
            yield f"{verdict}: {reasons.total()}"
        for reason, count in reasons.most_common():
            yield f"  {count:4} {reason}"
    passed = [v.result for v in verdicts.values() if v.verdict == "passed" and v.result is not None]
    on_loop = sum(result.tested_loops > 0 for result in passed)
    mixed = sum(0 < result.tested_loops < sum(result.loops.values()) for result in passed)
    on_other = sum(not result.tested_loops and bool(result.loops) for result in passed)
    yield (
        f"passed: {on_loop} made a loop of {loop} ({mixed} of them others too), "
        f"{on_other} only loops of the suite's own, {len(passed) - on_loop - on_other} none"
    )
    total = Counter(COUNTED_AS[verdict.verdict] for verdict in verdicts.values())
    yield f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped"
