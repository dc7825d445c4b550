"""What a run says: `python -m benchmarks.report RUN.json`.

Prints a page of Markdown: how hotloop compares with the best other loop on each row, the figures of every loop, and who
failed at what. Of several files the later ones add rows to the first; they must be of the same interpreter, machine and
loops.

With --readme the run becomes the one that the project shows: a short form of it is kept in docs/benchmarks.json, the
page is docs/benchmarks.md, the plots are in docs/plots, and README.md has the table of the rows that say most.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import loops, network
from benchmarks.conduct import tables
from benchmarks.ratios import Ratio, geometric_mean, significant, table
from benchmarks.rows import GROUPS
from benchmarks.run import Incomparable, Measured, Run

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
STORED = ROOT / "docs" / "benchmarks.json"
PLOTS = ROOT / "docs" / "plots"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

# The rows in README's table.
HEADLINE = (
    "call_soon",
    "call_later_cancel",
    "gather",
    "echo_protocol_1k",
    "echo_streams_1k",
    "echo_sock_1k",
    "echo_protocol_100k",
    "echo_tls_protocol_1k",
    "udp_pingpong",
    "uvicorn",
    "fastapi",
    "aiohttp",
    "websockets",
    "memory_idle",
)
# The rows of which the plots show how latency is distributed.
LATENCY = ("echo_protocol_1k", "echo_streams_1k", "busy_thread_p99")


# What stands in front of the tables of conduct.
CONDUCT = (
    "Each check is a short program with one claim about what asyncio documents, or stock asyncio does. A check matters "
    "to the rows whose figure may be lower for a loop that does not keep it; where keeping it costs next to nothing, "
    "as the type of a handle does, it matters to none. `python -m benchmarks.conduct` runs them, each in a process of "
    "its own. How much a loop saves by what it does not keep, they do not say."
)


@dataclass(frozen=True)
class Comparison:
    """hotloop's selector loop on one row, and the others: how many times its cost they have."""

    name: str
    row: Measured
    # The loop that is no other of hotloop's and has the least cost.
    best: str
    # The same of those loops that are known to keep what asyncio does and matters to this row, where there are such.
    keeping: str | None = None

    @property
    def against_best(self) -> Ratio:
        """The best other loop's cost as a multiple of hotloop's."""
        return Ratio.of(self.row.figures[self.best], self.row.figures[loops.OURS])

    @property
    def against_keeping(self) -> Ratio | None:
        """The same of the best other loop that keeps asyncio's semantics, where there is one."""
        return self.against(self.keeping) if self.keeping else None

    def against(self, loop: str, ours: str = loops.OURS) -> Ratio | None:
        """The cost of a loop as a multiple of hotloop's, where both have one."""
        figures = self.row.figures
        return Ratio.of(figures[loop], figures[ours]) if loop in figures and ours in figures else None

    @property
    def against_better(self) -> Ratio:
        """The best other loop's cost as a multiple of that of the better one of hotloop's two loops."""
        ratios = [ratio for ours in (loops.OURS, loops.PROACTOR) if (ratio := self.against(self.best, ours))]
        return max(ratios, key=lambda ratio: ratio.median)


def comparisons(run: Run) -> list[Comparison]:
    """Every row that hotloop and another loop have figures of."""
    found = []
    for name, row in run.rows.items():
        others = [loop for loop in row.figures if loop not in {loops.OURS, loops.PROACTOR, *network.BESIDE}]
        if loops.OURS in row.figures and others:
            best = min(others, key=row.median)
            keeping = min(tables.keeping(run.conduct, others, name), key=row.median, default=None)
            found.append(Comparison(name, row, best, keeping))
    return found


def at_the_floor(each: Comparison) -> Comparison:
    """The same comparison, had hotloop the cost of the floor where that is less: how far ahead a loop can be at all."""
    figures = each.row.figures
    floor = figures.get(network.FLOOR)
    if floor is None or each.row.median(network.FLOOR) >= each.row.median(loops.OURS):
        return each
    return replace(each, row=replace(each.row, figures={**figures, loops.OURS: floor}))


def page(run: Run) -> str:
    """Everything that a run says, as Markdown."""
    parts = ["# Benchmarks", conditions(run), summary(run), means(run)]
    parts += ["## hotloop and the best other loop", against_best(run)]
    if run.conduct:
        parts.append(tables.LEGEND)
    for group, title in GROUPS.items():
        rows = {name: row for name, row in run.rows.items() if row.group == group and row.figures}
        if rows:
            parts += [f"## {title}", medians(run, rows)]
    failed = [[name, loop, tables.escape(why)] for name, row in run.rows.items() for loop, why in row.failures.items()]
    if failed:
        parts += ["## Failures", table(["row", "loop", "why it has no figure"], failed, texts=3)]
    if run.conduct:
        parts += ["## Conduct", CONDUCT, tables.counts(run.conduct), tables.grid(run.conduct)]
        parts += [tables.reasons(run.conduct)]
    if run.missing:
        parts += [
            "## Left out",
            table(["loop", "why"], [[loop, tables.escape(why)] for loop, why in run.missing.items()]),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(run: Run) -> str:
    """When, where and of what."""
    versions = ", ".join(
        version if name in version else f"{name} {version}" if name == "revision" else f"{name} ({version})"
        for name, version in run.versions.items()
    )
    rounds = sorted({len(figures) for row in run.rows.values() for figures in row.figures.values()})
    return (
        f"Measured on {run.begun}: {run.machine}, {run.kernel}, {run.python}; {versions}. "
        f"{'-'.join(map(str, rounds[:1] + rounds[1:][-1:]))} interleaved rounds a row, loads of {run.duration:g} s. "
        "Every figure is a cost, of which less is better; every ratio is another loop's cost divided by hotloop's "
        "within one round, so that above 1 hotloop is ahead: the median of rounds, then the lowest and highest."
    )


def summary(run: Run) -> str:
    """How often hotloop is first, and the means."""
    found = comparisons(run)
    if not found:
        return ""
    lines = standing("", {each.name: each.against_best for each in found})
    kept = {each.name: each.against_keeping for each in found if each.against_keeping}
    if kept:
        lines += standing(" that keeps asyncio's semantics there", kept)
    if any(loops.PROACTOR in each.row.figures for each in found):
        better = {each.name: each.against_better for each in found}
        lines += standing(", for whoever takes the better one of hotloop's two loops", better)
    return "\n".join(lines)


def means(run: Run) -> str:
    """Geometric means, of each group of rows and of all."""
    found = comparisons(run)
    groups = {title: [each for each in found if each.row.group == group] for group, title in GROUPS.items()}
    lines = []
    sets = {**groups, "All": found}
    if any(network.FLOOR in each.row.figures for each in found):
        sets[f"All, were hotloop at the {network.FLOOR} where it is above"] = [at_the_floor(each) for each in found]
    for title, rows in sets.items():
        if rows:
            columns: list[list[Ratio | None]] = [[each.against_best for each in rows]]
            columns += [[each.against_keeping for each in rows]] if run.conduct else []
            columns += [[each.against(other) for each in rows] for other in ("uvloop", loops.CONTROL)]
            ratios = [[ratio for ratio in column if ratio] for column in columns]
            lines.append([title, str(len(rows)), *[mean(iter(column)) if column else "" for column in ratios]])
    header = ["geometric mean of", "rows", "best other", "best that keeps", "uvloop", loops.CONTROL]
    if not run.conduct:
        header.remove("best that keeps")
    return table(header, lines, texts=1) if lines else ""


def standing(which: str, found: dict[str, Ratio]) -> list[str]:
    """How hotloop stands beside the best other loop of each row, of those that are so."""
    ties = [name for name, ratio in found.items() if ratio.is_tie]
    behind = [name for name, ratio in found.items() if ratio.highest < 1]
    lines = [f"- ahead of every other loop{which} on {len(found) - len(ties) - len(behind)} of {len(found)} rows"]
    if ties:
        names = ", ".join(ties)
        lines.append(f"- level with the best other loop{which}, as rounds disagree, on {len(ties)}: {names}")
    if behind:
        lines.append(f"- behind the best other loop{which} on {len(behind)}: {', '.join(behind)}")
    return lines


def mean(ratios: Iterator[Ratio]) -> str:
    return f"{geometric_mean(ratio.median for ratio in ratios):.2f}"


def against_best(run: Run) -> str:
    """A line for each row."""
    floors = [floor for floor in network.BESIDE if any(floor in row.figures for row in run.rows.values())]
    others = [*[name for name in ("uvloop", loops.CONTROL) if name in run.versions or name == loops.CONTROL], *floors]
    ours = [loops.PROACTOR] if any(loops.PROACTOR in row.figures for row in run.rows.values()) else []
    header = ["row", "best other", loops.OURS, "unit", "best other / hotloop"]
    header += ["best that keeps asyncio's semantics", "that / hotloop"] if run.conduct else []
    lines = [
        [
            each.name,
            each.best + tables.mark(run.conduct, each.best, each.name),
            significant(each.row.median(loops.OURS)),
            each.row.unit,
            str(each.against_best),
            *([each.keeping or "", str(each.against_keeping or "")] if run.conduct else []),
            *[f"{ratio.median:.2f}" if (ratio := each.against(other)) else "" for other in [*others, *ours]],
        ]
        for each in comparisons(run)
    ]
    return table([*header, *[f"{other} /" for other in [*others, *ours]]], lines)


def medians(run: Run, rows: dict[str, Measured]) -> str:
    """The figures of every loop, the best of the loops in bold."""
    there = {loop for row in rows.values() for loop in [*row.figures, *row.failures]}
    order = [loops.CONTROL, loops.OURS, loops.PROACTOR, *run.versions, *sorted(there)]
    names = [name for name in dict.fromkeys(order) if name in there and name not in network.BESIDE]
    names += [floor for floor in network.BESIDE if floor in there]
    lines = []
    for name, row in rows.items():
        best = min((loop for loop in row.figures if loop not in network.BESIDE), key=row.median)

        def cell(loop: str, name: str = name, row: Measured = row, best: str = best) -> str:
            if loop in row.failures:
                return "failed"
            if loop not in row.figures:
                return ""
            figure = significant(row.median(loop))
            return (f"**{figure}**" if loop == best else figure) + tables.mark(run.conduct, loop, name)

        lines.append([name, f"{row.about} ({row.unit})", *map(cell, names)])
    return table(["row", "what", *names], lines)


def readme_block(run: Run) -> str:
    """What README.md has between its marks."""
    lines = []
    found = {each.name: each for each in comparisons(run)}
    both = any(loops.PROACTOR in each.row.figures for each in found.values())
    for each in (found[name] for name in HEADLINE if name in found):
        ratios = [each.against(other) for other in ("uvloop", loops.CONTROL)]
        lines.append(
            [
                each.row.about,
                f"{significant(each.row.median(loops.OURS))} {each.row.unit}",
                *([proactor(run, each)] if both else []),
                f"{each.against_best.median:.2f} {each.best}{tables.mark(run.conduct, each.best, each.name)}",
                *([kept(each)] if run.conduct else []),
                *[f"{ratio.median:.2f}" if ratio else "" for ratio in ratios],
            ]
        )
    means = mean(each.against_best for each in found.values())
    keeping = [each.against_keeping for each in found.values() if each.against_keeping]
    python = run.python.partition(" (")[0]
    begun = run.begun.partition(" ")[0]
    ours = "hotloop's `SelectorEventLoop`" if both else "hotloop"
    others = "its `ProactorEventLoop`, which is on io_uring, and on other loops" if both else "other loops"
    first = (
        f"What an operation costs on {ours}, and how many times that on {others}, medians of interleaved rounds. "
        f"The best other loop costs {means} times as much (geometric mean of {len(found)} rows)."
    )
    if keeping:
        first += (
            f" Loops with a {tables.BROKEN} do not keep something of asyncio's semantics that matters to the row "
            "([what](docs/benchmarks.md#conduct)); the best other loop that keeps all that does, on each row, costs "
            f"{mean(iter(keeping))} times as much."
        )
        if any(tables.INTENDED in cell for line in lines for cell in line):
            first += f" What {tables.INTENDED} marks is [by intention](docs/differences.md)."
    last = (
        f"{begun}, {run.machine}, {run.kernel}, {python}. All rows, the versions of all loops and the spread of the "
        "rounds are in [docs/benchmarks.md](docs/benchmarks.md)."
    )
    header = ["", "hotloop", *(["its proactor"] if both else []), "best other"]
    header += [*(["best that keeps semantics"] if run.conduct else []), "uvloop", "asyncio"]
    parts = [
        BEGIN,
        paragraph(first),
        table(header, lines),
        f"![{PLOTTED['best-other']}](docs/plots/best-other.svg)",
        paragraph(last),
        END,
    ]
    return "\n\n".join(parts)


def proactor(run: Run, each: Comparison) -> str:
    """How many times hotloop's cost its other loop has."""
    ratio = each.against(loops.PROACTOR)
    return f"{ratio.median:.2f}{tables.mark(run.conduct, loops.PROACTOR, each.name)}" if ratio else ""


def kept(each: Comparison) -> str:
    """How many times hotloop's cost the best loop has that keeps asyncio's semantics, and which that is."""
    return f"{each.against_keeping.median:.2f} {each.keeping}" if each.against_keeping else ""


def paragraph(text: str) -> str:
    """A text in lines of the usual width; no word is divided, since Markdown would put a space there."""
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


def with_block(text: str, block: str) -> str:
    """README's text with this block in the place of the one that is there. Raises ValueError where it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} ... {END}")
    return before + block + after


def stored_page(run: Run) -> str:
    """docs/benchmarks.md: the page, and the plots that the directory has."""
    drawn = {name: alt for name, alt in PLOTTED.items() if (PLOTS / f"{name}.svg").exists()}
    images = "\n\n".join(f"![{alt}](plots/{name}.svg)" for name, alt in drawn.items())
    return f"{page(run)}\n## Plots\n\n{images}\n"


# The plots by their files' names, see `benchmarks.plots`.
PLOTTED = {
    "best-other": "How many times hotloop's cost the best other loop has, by row",
    "throughput": "Throughput against the size of messages",
    "connections": "Cost of a request against the number of connections",
    "latency": "How latency is distributed",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="what python -m benchmarks --json wrote")
    parser.add_argument("--plots", type=Path, help="a directory for the plots, SVG and PNG")
    parser.add_argument("--readme", action="store_true", help="show this run in the project's pages")
    options = parser.parse_args()
    try:
        first, *others = map(Run.load, options.runs)
        for other in others:
            first = first.with_rows_of(other)
    except Incomparable as error:
        print(error, file=sys.stderr)
        return 2
    if options.plots or options.readme:
        from benchmarks import plots

        # An earlier run may have had rows that this one has not.
        plots.draw(first, options.plots or PLOTS, replace=options.readme)
    if not options.readme:
        print(page(first))
        return 0
    stored = first.shortened(LATENCY)
    stored.save(STORED)
    PAGE.write_text(stored_page(stored))
    README.write_text(with_block(README.read_text(), readme_block(stored)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
