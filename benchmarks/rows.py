"""All rows, whatever measures them: `ROWS`, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks import connections, loops, network, process, programs, scheduling

# One round's figure, of which less is better, with the load under which it was found.
Figure = tuple[float, process.Load | None]


@dataclass(frozen=True)
class Row:
    """What is measured on each loop."""

    name: str
    # One of GROUPS.
    group: str
    # What it is, for a table.
    about: str
    # What a figure counts.
    unit: str
    # One round of a loop: its name, and the seconds that a load lasts. Raises process.Failure.
    measure: Callable[[str, float], Figure] = field(compare=False)
    # What is measured beside the loops.
    floors: tuple[str, ...] = ()
    # Loops that have nothing of their own to show here.
    without: tuple[str, ...] = ()


GROUPS = {
    "calls": "Within the process",
    "connections": "Connections",
    "network": "Echo servers",
    "programs": "Programs",
}


def called(name: str) -> Row:
    def measure(loop: str, _: float) -> Figure:
        return scheduling.measure(name, loop), None

    # aiofastnet leaves uvloop's own scheduling alone.
    about = first_sentence(scheduling.ROWS[name])
    return Row(name, "calls", about, "ns/operation", measure, without=(loops.AIOFASTNET,))


def connected(name: str) -> Row:
    def measure(loop: str, _: float) -> Figure:
        return connections.measure(name, loop), None

    row = connections.ROWS[name]
    return Row(name, "connections", first_sentence(row.run), row.unit, measure)


def loaded(row: network.Row) -> Row:
    def measure(loop: str, duration: float) -> Figure:
        load = network.measure(row, loop, duration)
        return row.figure(load), load

    return Row(row.name, "network", row.about, row.unit, measure, floors=tuple(row.floors))


def served(program: programs.Program) -> Row:
    def measure(loop: str, duration: float) -> Figure:
        load = programs.measure(program, loop, duration)
        return load.server_cpu_us_per_request, load

    return Row(program.name, "programs", program.about, "CPU µs/request", measure)


def first_sentence(function: Callable[..., object]) -> str:
    """What a function's documentation says first, without the full stop."""
    text = " ".join((inspect.getdoc(function) or "").split())
    return text.split(". ")[0].rstrip(".")


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        *map(called, scheduling.ROWS),
        *map(connected, connections.ROWS),
        *map(loaded, network.ROWS.values()),
        *map(served, programs.PROGRAMS.values()),
    )
}
