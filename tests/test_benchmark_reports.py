"""What runs of the benchmarks say: files, pages, the README and plots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import process, report
from benchmarks.rows import ROWS
from benchmarks.run import Incomparable, Measured, Run

LOAD = process.Load(100, 1.0, 100.0, 10.0, 20.0, 8.0, 0, ((0.0, 1.0), (50.0, 10.0), (99.0, 20.0), (100.0, 21.0)))


def row(name: str, **costs: list[float]) -> Measured:
    """A row with these costs, a load for each where it has some."""
    of = ROWS[name]
    figures = {loop.replace("_", "-"): figures for loop, figures in costs.items()}
    is_loaded = of.group in ("network", "programs")
    loads = {loop: [replace(LOAD, p50_us=figure) for figure in figures[loop]] for loop in figures if is_loaded}
    return Measured(of.group, of.about, of.unit, figures, loads)


def some_run() -> Run:
    rows = {
        "call_soon": row("call_soon", asyncio=[400.0, 800.0], hotloop=[100.0, 200.0], uvloop=[150.0, 220.0]),
        "gather": row("gather", asyncio=[4.0, 8.0], hotloop=[4.0, 5.0], uvloop=[3.0, 5.0]),
        "spawn": row("spawn", asyncio=[2.0, 2.0], hotloop=[4.0, 4.0]),
        "echo_protocol_1k": row(
            "echo_protocol_1k", asyncio=[24.0, 24.0], hotloop=[6.0, 6.0], hotloop_proactor=[5.0, 5.0], floor=[3.0, 3.0]
        ),
        "echo_protocol_1k_x10": row("echo_protocol_1k_x10", asyncio=[24.0, 24.0], hotloop=[6.0, 6.0]),
    }
    rows["gather"].failures["rloop"] = "killed by SIGSEGV: a | b"
    return Run(
        "2026-01-02 03:04 UTC", "a machine", "Linux 6", "CPython 3.14.0 (GCC)", {"uvloop": "uvloop 1"}, {}, 1.0, rows
    )


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.json"
    some_run().save(path)
    assert Run.load(path) == some_run()
    empty = replace(some_run(), rows={})
    empty.save(path)
    assert Run.load(path) == empty


@pytest.mark.parametrize("what", ["python", "machine", "kernel", "versions"])
def test_runs_of_different_interpreters_or_machines_are_not_put_together(what: str) -> None:
    run = some_run()
    other = replace(run, begun="later", rows={"call_soon": row("call_soon", asyncio=[1.0]), "timers": row("timers")})
    assert run.with_rows_of(other).begun == other.with_rows_of(run).begun == run.begun
    assert list(run.with_rows_of(other).rows) == ["call_soon", "timers", *list(run.rows)[1:]]
    assert run.with_rows_of(other).rows["call_soon"] == run.rows["call_soon"]
    with pytest.raises(Incomparable, match=f"not of the same {what}"):
        run.with_rows_of(replace(other, **{what: {"uvloop": "uvloop 2"} if what == "versions" else "another"}))


def test_a_run_that_has_all_its_rows_is_given_the_conduct_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    begun = replace(Run.begin(["asyncio", "hotloop"], {}, 1.0), rows={"gather": some_run().rows["gather"]})
    begun.save(path)
    conduct = {"asyncio": {"never_early": ""}, "hotloop": {"never_early": ""}}
    monkeypatch.setattr(command, "of_loops", lambda names: {name: conduct[name] for name in names})
    monkeypatch.setattr(process, "binary", lambda name: tmp_path)
    options = ["--json", str(path), "--resume", "--loops", "asyncio,hotloop", "--rows", "gather"]
    monkeypatch.setattr("sys.argv", ["benchmarks", *options])
    assert command.main() == 0
    assert Run.load(path) == replace(begun, conduct=conduct)


def test_hotloop_is_compared_with_the_best_other_loop_of_each_round() -> None:
    found = {each.name: each for each in report.comparisons(some_run())}
    assert (found["call_soon"].best, str(found["call_soon"].against_best)) == ("uvloop", "1.30 (1.10-1.50)")
    assert found["echo_protocol_1k"].best == "asyncio", "neither the floor nor the proactor is another loop"
    summary = report.summary(some_run())
    assert "- ahead of every other loop on 3 of 5 rows" in summary
    assert "on 1: gather" in summary
    assert "- behind the best other loop on 1: spawn" in summary
    better = report.summary(some_run()).split("better one of hotloop's two loops on ")[1]
    assert better.startswith("3 of 5 rows")


def test_the_better_one_of_two_loops_is_compared_too() -> None:
    found = {each.name: each for each in report.comparisons(some_run())}
    assert str(found["echo_protocol_1k"].against_best) == "4.00 (4.00-4.00)"
    assert str(found["echo_protocol_1k"].against_better) == "4.80 (4.80-4.80)"
    assert found["gather"].against_better == found["gather"].against_best, "the proactor has no figure there"


def test_each_group_of_rows_has_a_mean() -> None:
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in report.means(some_run()).splitlines()]
    assert lines[0] == ["geometric mean of", "rows", "best other", "uvloop", "asyncio"]
    # The square root of 4 by 4, of two rows; of the three others of 1.30, 0.875 and 0.5, and uvloop's of two of them.
    assert lines[2:] == [
        ["Within the process", "3", "0.83", "1.07", "1.38"],
        ["Echo servers", "2", "4.00", "", "4.00"],
        ["All", "5", "1.56", "1.07", "2.11"],
        # The floor has half of hotloop's cost, in one of five rows: the fifth root of 2 more.
        ["All, were hotloop at the floor where it is above", "5", "1.79", "1.07", "2.42"],
    ]


def test_the_page_has_every_row_and_why_a_loop_has_no_figure() -> None:
    page = report.page(some_run())
    assert "2026-01-02 03:04 UTC: a machine, Linux 6, CPython 3.14.0 (GCC); uvloop 1" in page
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines()]
    assert [line[2:] for line in lines if line[0] == "gather" and len(line) == 6] == [
        ["6.00", "4.50", "**4.00**", "failed"]
    ]
    assert ["gather", "rloop", "killed by SIGSEGV: a \\| b"] in lines
    assert any(line[:2] == ["echo_protocol_1k", "asyncio"] for line in lines)


def test_the_readme_says_what_the_stored_run_found() -> None:
    readme = report.README.read_text()
    if not report.STORED.exists():
        assert report.BEGIN + report.END in readme, "no figures without a run"
        return
    run = Run.load(report.STORED)
    assert report.with_block(readme, report.readme_block(run)) == readme, "run python -m benchmarks.report --readme"
    assert report.PAGE.read_text() == report.stored_page(run)
    assert run == run.shortened(report.LATENCY), "the stored run is a short one"
    assert {plot.stem for plot in report.PLOTS.iterdir()} <= report.PLOTTED.keys()
    assert (report.PLOTS / "best-other.svg").exists(), "the README shows it"


def test_the_block_of_the_readme_is_replaced() -> None:
    block = report.readme_block(some_run().shortened(report.LATENCY))
    assert " 1.30 uvloop |" in block
    assert "2026-01-02, a machine, Linux 6, CPython 3.14.0" in block
    text = f"before\n\n{report.BEGIN} old {report.END}\nafter\n"
    once = report.with_block(text, block)
    assert once == f"before\n\n{block}\nafter\n"
    assert report.with_block(once, block) == once
    with pytest.raises(ValueError, match="there is no"):
        report.with_block("nothing", block)


def test_a_short_run_keeps_the_median_load() -> None:
    short = some_run().shortened(("echo_protocol_1k",))
    loads = short.rows["echo_protocol_1k"].loads["hotloop"]
    assert [load.percentiles_us for load in loads] == [LOAD.percentiles_us]
    assert [load.percentiles_us for load in short.rows["echo_protocol_1k_x10"].loads["hotloop"]] == [()]
    assert short.shortened(("echo_protocol_1k",)) == short
    assert report.page(short) == report.page(some_run())


def test_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="requirements/plots.txt is not installed")
    from benchmarks import plots

    files = plots.draw(some_run(), tmp_path)
    assert {path.name for path in files} == {
        f"{name}.{suffix}" for name in ("best-other", "connections", "latency") for suffix in ("svg", "png")
    }, "there is one size only, which makes no line"
    assert all(path.stat().st_size > 1000 for path in files)
