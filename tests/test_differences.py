"""docs/differences.md: its probes observe what it says, and it says what `tests/differences` has."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from differences import page, record
from differences.entry import LOOPS, VERSIONS
from differences.sections import entries, probes
from harness import PATIENCE, refusal

GENERATOR = Path(__file__).parent / "differences"
recorded = pytest.mark.parametrize("version", VERSIONS, ids=lambda minor: f"3.{minor}")


@pytest.mark.parametrize("loop", LOOPS)
def test_each_probe_observes_what_is_on_record(loop):
    if loop == "proactor" and refusal() is not None:
        pytest.skip(refusal())
    on_record = record.load()
    if loop == "asyncio" and on_record.python != platform.python_version():
        pytest.skip(f"asyncio of {on_record.python} is on record, which may differ from this one's")
    command = [sys.executable, str(GENERATOR), "--measure", loop]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert ended.returncode == 0, ended.stderr
    expected = {name: outcomes[loop] for name, outcomes in on_record.outcomes.items() if loop in outcomes}
    assert json.loads(ended.stdout) == expected, "where that is meant: python tests/differences"


@recorded
def test_each_record_has_each_probe_on_its_loops(version):
    expected = {probe.name: [*probe.loops] for probe in probes() if probe.elsewhere or version in probe.versions}
    outcomes = record.load(version).outcomes
    assert {name: [*found] for name, found in outcomes.items()} == expected
    assert len(outcomes) > 40


@recorded
def test_loops_differ_where_a_difference_is_told_and_nowhere_else(version):
    outcomes = record.load(version).outcomes
    wrong = []
    for probe in probes():
        found = outcomes.get(probe.name, {}).values()
        if (len({*found}) > 1) is not (version in probe.versions):
            wrong.append(f"{probe.name}: {' | '.join(found)}")
    assert wrong == []


def test_each_difference_has_a_test_or_a_probe():
    bare = [entry.prose for entry in entries() if not entry.tests and not entry.probes]
    assert bare == []
    assert len(entries()) > 40


def test_a_probe_belongs_to_one_difference():
    names = [probe.name for probe in probes()]
    assert len(names) == len(set(names))


def test_the_page_is_as_generated():
    assert page.PAGE.read_text() == page.text(), "python tests/differences --page writes it"
