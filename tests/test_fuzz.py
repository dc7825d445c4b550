"""The fuzzer of `tests/fuzz`: it finds what is wrong, and finds nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz"

#: Seeds that every run of the tests tries; HOTLOOP_FUZZ_SEEDS says how many.
SEEDS = int(os.environ.get("HOTLOOP_FUZZ_SEEDS", "1000"))

#: In how many parts, each a test, so that several cores have something of them.
PARTS = 4


def fuzz(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer in a process of its own."""
    command = [sys.executable, str(FUZZER), *arguments]
    environment = os.environ | {"PYTHONPATH": str(FUZZER)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_random_programs_leave_the_traces_of_stock_asyncio(part):
    count = SEEDS // PARTS
    run = fuzz("--from", str(part * count), "--seeds", str(count))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{count} programs" in run.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("defect", "kind"),
    [
        ("Swapping", "scheduling"),
        ("LosingCancellations", "scheduling"),
        ("ForgettingTimers", "scheduling"),
        ("DroppingBytes", "networks"),
        ("ForgettingReaders", "descriptors"),
        ("LeavingGenerators", "runs"),
        ("IgnoringFamilies", "connections"),
        ("AnsweringLate", "connections"),
        ("HidingSignals", "children"),
        ("HidingHangUps", "terminals"),
    ],
)
def test_a_planted_defect_is_found_and_told_by_a_script_of_its_own(defect, kind, tmp_path):
    script = tmp_path / "difference.py"
    options = ["--loop", f"planted:{defect}", "--kind", kind, "--limit", "1", "--shrink", "5", "--script", str(script)]
    run = fuzz("--from", "0", "--seeds", "400", *options)
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"{defect} differs from asyncio" in run.stdout
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(FUZZER)},
    )
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "asyncio: " in shown.stdout
    assert "here: " in shown.stdout


def test_stock_asyncio_does_not_differ_from_itself():
    run = fuzz("--from", "0", "--seeds", "100", "--kind", "scheduling", "--loop", "asyncio")
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 undecided" in run.stdout
