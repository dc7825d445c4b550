"""What a run of the benchmarks has found, and where: as an object, and as a file of JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import loops, process


class Incomparable(Exception):
    """Two runs have nothing to say of each other. The message says why."""


@dataclass(frozen=True)
class Measured:
    """What was found of one row."""

    group: str
    about: str
    unit: str
    # A figure for each round, by loop. Less is better.
    figures: dict[str, list[float]]
    # Under which load, where there was one; as many as there are figures.
    loads: dict[str, list[process.Load]] = field(default_factory=dict)
    # Loops without figures, and why.
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, loop: str) -> float:
        return statistics.median(self.figures[loop])


@dataclass(frozen=True)
class Run:
    """Rows that were measured on one machine, in one interpreter, with the same loops."""

    # When it began, by UTC.
    begun: str
    machine: str
    kernel: str
    # The interpreter: its version, how it was built.
    python: str
    # What is installed of each loop.
    versions: dict[str, str]
    # Loops that could not be had, and why.
    missing: dict[str, str]
    # Seconds that a load lasts.
    duration: float
    rows: dict[str, Measured] = field(default_factory=dict)
    # What the loops do not keep of asyncio's semantics: why, by loop and check; empty where they keep it.
    conduct: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def begin(cls, names: list[str], missing: dict[str, str], duration: float) -> Run:
        """A run of the loops called `names` that begins now, here."""
        return cls(
            begun=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=machine(),
            kernel=f"{platform.system()} {platform.release()}",
            python=interpreter(),
            versions=loops.versions(names) | revision(),
            missing=missing,
            duration=duration,
        )

    @classmethod
    def load(cls, path: Path) -> Run:
        """Reads what `save` has written. Raises OSError, ValueError or KeyError when that is not so."""
        fields = json.loads(path.read_text())
        rows = {name: measured(row) for name, row in fields.pop("rows").items()}
        return cls(**fields, rows=rows)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = asdict(self) | {"rows": {}}
        # A row a line: so that two runs can be told apart, and no file has a million lines.
        rows = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(asdict(row), ensure_ascii=False)}" for name, row in self.rows.items()
        )
        head = json.dumps(fields, indent=1, ensure_ascii=False)
        new = path.with_suffix(".new")
        new.write_text(head.replace('"rows": {}', f'"rows": {{\n{rows}\n }}') + "\n")
        new.replace(path)

    def with_rows_of(self, other: Run) -> Run:
        """This run with the rows, and the conduct, that only `other` has; it began when the first of the two did.

        Raises Incomparable when that is of another interpreter, of another machine or of other loops.
        """
        for what in ("python", "machine", "kernel", "versions"):
            here, there = getattr(self, what), getattr(other, what)
            if here != there:
                raise Incomparable(f"these are not of the same {what}: {here} and {there}")
        return replace(
            self,
            begun=min(self.begun, other.begun),
            rows={**other.rows, **self.rows},
            conduct={**other.conduct, **self.conduct},
        )

    def shortened(self, distributions: tuple[str, ...]) -> Run:
        """This run as it is kept: with one load of each loop, the median one, and percentiles for these rows only."""
        return replace(
            self,
            rows={
                name: replace(
                    row,
                    figures={loop: [float(f"{figure:.5g}") for figure in row.figures[loop]] for loop in row.figures},
                    loads={loop: [middle(row, loop, name in distributions)] for loop in row.loads},
                )
                for name, row in self.rows.items()
            },
        )


def middle(row: Measured, loop: str, with_percentiles: bool) -> process.Load:
    """The load of the round with the median figure."""
    figures = row.figures[loop]
    nearest = min(range(len(figures)), key=lambda index: abs(figures[index] - row.median(loop)))
    load = row.loads[loop][nearest if len(row.loads[loop]) > 1 else 0]
    return load if with_percentiles else replace(load, percentiles_us=())


def measured(row: dict[str, Any]) -> Measured:
    """A row of a file."""
    loads = {
        loop: [process.Load(**load | {"percentiles_us": tuple(map(tuple, load["percentiles_us"]))}) for load in of_loop]
        for loop, of_loop in row["loads"].items()
    }
    return Measured(**row | {"loads": loads})


def interpreter() -> str:
    """What two runs must have in common to be comparable: this interpreter."""
    threading = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", without the interpreter lock"
    return f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()}{threading})"


def machine() -> str:
    """The processor, and how many of it."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    count = len(os.sched_getaffinity(0))
    return f"{model}, {count} core{'s' * (count > 1)}"


def revision() -> dict[str, str]:
    """Which commit hotloop is of: HOTLOOP_REVISION, where there is no git."""
    told = os.environ.get("HOTLOOP_REVISION")
    if not told:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return {}
    return {"revision": told}
