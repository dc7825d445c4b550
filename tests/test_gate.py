"""The regression gate notices what it has to, and nothing else."""

from __future__ import annotations

import json

import pytest

from benchmarks import exchanges, gate, loops
from benchmarks.gate import Figure

RECORD = {"a row": Figure(own=1000.0, ratio=0.5)}


@pytest.mark.parametrize("tolerance", [gate.TOLERANCE, gate.OTHER_BUILD])
def test_a_row_that_is_a_tenth_worse_is_noticed(tolerance: float) -> None:
    for worse in (Figure(1100.0, 0.5), Figure(1000.0, 0.55)):
        lines, names = gate.compare({"a row": worse}, RECORD, tolerance)
        assert names == ["a row"]
        assert "MORE THAN ON RECORD" in lines[0]


@pytest.mark.parametrize("tolerance", [gate.TOLERANCE, gate.OTHER_BUILD])
def test_what_differs_between_equal_builds_is_not_noticed(tolerance: float) -> None:
    for same in (Figure(1010.0, 0.505), Figure(990.0, 0.495), Figure(500.0, 0.25)):
        assert gate.compare({"a row": same}, RECORD, tolerance)[1] == []


def test_a_row_that_is_not_on_record_is_noticed() -> None:
    assert gate.compare({"another": Figure(1.0, 1.0)}, RECORD, gate.TOLERANCE) == (
        ["another: not on record"],
        ["another"],
    )


def test_the_records_are_of_the_rows_that_there_are() -> None:
    records = json.loads(gate.RECORDS.read_text())
    assert len(records) > 0
    for record in records.values():
        assert set(record["rows"]) == {row.__name__ for row in gate.ROWS}
        assert set(record["builds"]) == {"python", "extension"}


def test_instructions_are_summed_by_object() -> None:
    text = """\
version: 1
events: Ir
ob=(1) /usr/lib/libc.so.6
fn=(1) malloc
+1 10
* 5
ob=(2) /a/_hotloop.abi3.so
fn=(2) push
+3 100
calls=1 -7
* 1000000
-2 20
cob=(3) /usr/bin/_hotloop_like_python
calls=2 5
+1 2000000
ob=(1)
fn=(1)
+7 1
totals: 999
"""
    assert gate.parse(text) == gate.Counts(total=136, own=120)


def test_where_nothing_can_be_compared_that_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate.shutil, "which", lambda _: None)
    for arguments, status in (([], 0), (["--strict"], 1), (["--record"], 1)):
        monkeypatch.setattr("sys.argv", ["gate", *arguments])
        assert gate.main() == status
        assert "COMPARES NOTHING: valgrind is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("loop", ["asyncio", "hotloop"])
@pytest.mark.parametrize("row", gate.ROWS, ids=lambda row: row.__name__)
def test_each_row_does_as_much_as_it_is_told(loop: str, row: gate.Row) -> None:
    made = loops.factory(loop)()
    try:
        assert row(made, 2 * exchanges.CONNECTIONS) == 2 * exchanges.CONNECTIONS
    finally:
        made.close()
