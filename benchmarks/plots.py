"""The plots of a run, as SVG and PNG. They need matplotlib: requirements/plots.txt."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import loops, network, report
from benchmarks.run import Measured, Run, middle

# A colour for each loop, the same in all plots: ours stand out, floors are grey.
COLOURS = {
    loops.OURS: "#d1495b",
    loops.PROACTOR: "#edae49",
    loops.CONTROL: "#30638e",
    "uvloop": "#00798c",
    loops.AIOFASTNET: "#52489c",
    "blazio": "#8cb369",
    "rloop": "#a47148",
    "rsloop": "#5f0f40",
    "talyn": "#6d9dc5",
    "veloxloop": "#bc8da0",
    "zloop": "#4f772d",
    "zuvloop": "#e36414",
    network.FLOOR: "#555555",
    network.URING_FLOOR: "#aaaaaa",
}
OTHER = "#000000"
WIDTH = 9.0


def draw(run: Run, directory: Path, *, replace: bool = False) -> list[Path]:
    """Draws what the run has figures for. Answers the files in `directory`; with `replace` there are then no others.

    Raises ImportError without matplotlib, before anything is removed.
    """
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    # So that equal runs make equal files.
    matplotlib.rcParams.update({"svg.hashsalt": "hotloop", "font.size": 9, "axes.spines.top": False})
    matplotlib.rcParams.update({"axes.spines.right": False, "figure.constrained_layout.use": True})
    pyplot = importlib.import_module("matplotlib.pyplot")
    directory.mkdir(parents=True, exist_ok=True)
    if replace:
        for old in directory.glob("*.*"):
            old.unlink()
    files = []
    for name in report.PLOTTED:
        figure = DRAWN[name](pyplot, run)
        if figure is None:
            continue
        where = f"{run.begun.partition(' ')[0]}, {run.machine}, {run.kernel}, {run.python.partition(' (')[0]}"
        figure.text(0.995, 0.0, where, ha="right", va="top", fontsize=6, color="#777777")
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            path = directory / f"{name}.{suffix}"
            figure.savefig(path, metadata=metadata, dpi=150, bbox_inches="tight")
            files.append(path)
        pyplot.close(figure)
    return files


def best_other(pyplot: Any, run: Run) -> Any:
    """Bars: how many times hotloop's cost the best other loop has, with the spread of the rounds."""
    found = report.comparisons(run)
    if not found:
        return None
    found.sort(key=lambda each: each.against_best.median)
    figure, axes = pyplot.subplots(figsize=(WIDTH, 1 + 0.19 * len(found)))
    places = range(len(found))
    medians = [each.against_best.median for each in found]
    spread = [
        [each.against_best.median - each.against_best.lowest for each in found],
        [each.against_best.highest - each.against_best.median for each in found],
    ]
    colours = [COLOURS[loops.OURS] if median >= 1 else COLOURS[loops.CONTROL] for median in medians]
    # On a logarithmic axis bars have no zero: they start where both cost the same.
    axes.barh(places, [median - 1 for median in medians], left=1, color=colours, height=0.7)
    axes.errorbar(medians, places, xerr=spread, fmt="none", ecolor="#333333", elinewidth=0.6)
    keeping = {place: each.against_keeping.median for place, each in enumerate(found) if each.against_keeping}
    if keeping:
        points = list(keeping.values()), list(keeping)
        axes.scatter(*points, s=12, facecolors="white", edgecolors="#333333", linewidths=0.7, zorder=3)
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.set_yticks(places, [f"{each.name} ({each.best})" for each in found], fontsize=7)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_xscale("log")
    reached = [*medians, *keeping.values()]
    ticks = [tick for tick in (0.25, 0.5, 0.7, 1, 1.25, 1.5, 2, 3, 5, 10, 20) if in_reach(tick, reached)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(
        "cost of the best other loop (in brackets), hotloop's being 1; right of 1 hotloop is ahead"
        + "\ncircles: the best other loop that keeps asyncio's semantics on the row" * bool(keeping)
    )
    return figure


def in_reach(tick: float, medians: list[float]) -> bool:
    return min([1.0, *medians]) / 1.3 <= tick <= max([1.0, *medians]) * 1.3


def throughput(pyplot: Any, run: Run) -> Any:
    """Lines: what is echoed in a second, against the size of messages."""

    def megabytes(row: Measured, loop: str, size: float) -> float:
        return statistics.median(load.requests_per_second for load in row.loads[loop]) * size / 1e6

    figure = lines(pyplot, run, {size: network.of_size(size).name for size in network.SIZES}, megabytes)
    if figure:
        axes = figure.axes[0]
        axes.set_xticks(network.SIZES, [network.size_text(size) for size in network.SIZES])
        axes.set_xlabel("size of a message; 50 connections, an asyncio.Protocol that echoes")
        axes.set_ylabel("MB/s each way")
    return figure


def connections(pyplot: Any, run: Run) -> Any:
    """Lines: what a request costs, against the number of connections."""

    def cost(row: Measured, loop: str, _: float) -> float:
        return row.median(loop)

    figure = lines(pyplot, run, {count: network.of_count(count).name for count in network.COUNTS}, cost)
    if figure:
        axes = figure.axes[0]
        axes.set_xticks(network.COUNTS, [f"{count:,}" for count in network.COUNTS])
        axes.set_xlabel("connections; messages of 1 KiB, an asyncio.Protocol that echoes")
        axes.set_ylabel("µs of the server's CPU a request")
    return figure


def lines(pyplot: Any, run: Run, names: dict[int, str], value: Callable[[Measured, str, float], float]) -> Any:
    """A line for each loop through the rows called `names`, by their places; `None` where fewer than two are there."""
    rows = {place: run.rows[name] for place, name in names.items() if name in run.rows and run.rows[name].figures}
    if len(rows) < 2:
        return None
    figure, axes = pyplot.subplots(figsize=(WIDTH, 5))
    for loop in dict.fromkeys(loop for row in rows.values() for loop in row.figures):
        places = [place for place, row in rows.items() if loop in row.figures]
        values = [value(rows[place], loop, place) for place in places]
        axes.plot(places, values, marker=".", label=loop, **style(loop))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False, fontsize=7)
    return figure


def latency(pyplot: Any, run: Run) -> Any:
    """Lines: how long the fastest so many of the answers took at most, one plot a row."""
    names = [name for name in report.LATENCY if name in run.rows and run.rows[name].loads]
    if not names:
        return None
    figure, every = pyplot.subplots(1, len(names), figsize=(WIDTH, 4), squeeze=False)
    for name, axes in zip(names, every[0], strict=True):
        row = run.rows[name]
        for loop in row.loads:
            points = [
                (1 / (1 - percentile / 100), latency)
                for percentile, latency in middle(row, loop, True).percentiles_us
                if percentile < 100
            ]
            axes.plot(*zip(*points, strict=True), label=loop, **style(loop))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([2, 10, 100, 1_000, 10_000], ["50", "90", "99", "99.9", "99.99"])
        axes.minorticks_off()
        axes.grid(axis="y", color="#dddddd", linewidth=0.5)
        axes.set_title(name, fontsize=8)
        axes.set_xlabel("percentile")
    every[0][0].set_ylabel("µs")
    every[0][0].legend(frameon=False, fontsize=6)
    return figure


def style(loop: str) -> dict[str, Any]:
    """How a loop's line looks."""
    return {
        "color": COLOURS.get(loop, OTHER),
        "linewidth": 2.2 if loop == loops.OURS else 1.1,
        "linestyle": "--" if loop in network.BESIDE else "-",
        "zorder": 3 if loop == loops.OURS else 2,
    }


DRAWN = {"best-other": best_other, "throughput": throughput, "connections": connections, "latency": latency}
