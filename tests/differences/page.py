"""docs/differences.md, of the sections and of what is on record."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from differences import record
from differences.entry import LOOPS, VERSIONS, Entry, Probe
from differences.sections import HEAD, SECTIONS

PAGE = Path(__file__).parent.parent.parent / "docs" / "differences.md"


def text() -> str:
    """The page as it should be."""
    records = [record.load(version) for version in VERSIONS]
    parts = [filled(HEAD.strip().format(versions=", ".join(each.python for each in records if each.python)))]
    recorded = dict(zip(VERSIONS, (each.outcomes for each in records), strict=True))
    for section in SECTIONS:
        parts.append(f"{'#' * section.level} {section.title}")
        for item in section.content:
            parts += [filled(item)] if isinstance(item, str) else of_entry(item, recorded)
    return "\n\n".join(parts) + "\n"


def filled(prose: str) -> str:
    """Paragraphs and lists, with lines as long as those of other pages."""
    lines = []
    for paragraph in prose.split("\n\n"):
        for item in re.split(r"\n(?=- )", paragraph):
            indent = "  " if item.startswith("- ") else ""
            words = " ".join(item.split())
            lines += textwrap.wrap(words, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines.append("")
    return "\n".join(lines[:-1])


def of_entry(entry: Entry, recorded: dict[int, dict[str, dict[str, str]]]) -> Iterator[str]:
    """What an entry has on the page: its text, its table, its tests."""
    yield filled(entry.prose)
    rows = [row for probe in entry.probes for row in rows_of(probe, recorded)]
    if rows:
        yield "\n".join([f"| measured | {' | '.join(LOOPS)} |", f"|---|{'---|' * len(LOOPS)}", *rows])
    if entry.tests:
        yield filled("Tests: " + ", ".join(f"`{test}`" for test in entry.tests))


def rows_of(probe: Probe, recorded: dict[int, dict[str, dict[str, str]]]) -> list[str]:
    """The rows of a probe, one for each group of neighbouring versions that have the same outcomes."""
    groups: list[tuple[list[int], dict[str, str]]] = []
    for version, outcomes in recorded.items():
        found = outcomes.get(probe.name, {})
        if found and groups and groups[-1][1] == found:
            groups[-1][0].append(version)
        elif found:
            groups.append(([version], found))
    rows = []
    for versions, found in groups:
        where = "" if len(versions) == len(recorded) else f", {span(versions)}"
        cells = [found.get(loop, "-") for loop in LOOPS]
        rows.append(f"| {probe.shows}{where} | {' | '.join(cells)} |")
    return rows


def span(versions: list[int]) -> str:
    """Neighbouring versions in words: `Python 3.11`, `Python 3.14 and 3.15`, `Python 3.12 to 3.14`."""
    first, last = f"3.{versions[0]}", f"3.{versions[-1]}"
    if first == last:
        return f"Python {first}"
    return f"Python {first} {'and' if len(versions) == 2 else 'to'} {last}"
