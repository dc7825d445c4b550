"""Ratios of figures, and Markdown tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """A figure as a multiple of another: the median of the rounds, and the lowest and highest of them.

    Each round's ratio is taken within that round, so that a slow minute of the machine is in both parts of it.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float], control: Sequence[float]) -> Ratio:
        ratios = [figure / other for figure, other in zip(figures, control, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    @property
    def is_tie(self) -> bool:
        """Whether some rounds say one thing and some another."""
        return self.lowest <= 1 <= self.highest

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}-{self.highest:.2f})"


def geometric_mean(ratios: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


def significant(figure: float) -> str:
    """Three digits that say something, or all in front of the point."""
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 2) -> str:
    """A Markdown table whose source lines up too: so many columns of text, then figures to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def line_of(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < texts else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line_of(header), line_of(rule), *map(line_of, lines[1:])])
