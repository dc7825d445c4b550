"""Network rows: an echo server on each loop, under load from outside."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import loops, process
from benchmarks.report import Ratio, table


@dataclass(frozen=True)
class Row:
    """One server under one load."""

    kind: str
    size: int
    connections: int = 50

    @property
    def name(self) -> str:
        return f"echo_{self.kind}_{self.size // 1024}k"


ROWS = {
    row.name: row
    for row in (
        Row("protocol", 1024),
        Row("buffered", 1024),
        Row("streams", 1024),
        Row("sock", 1024),
        Row("protocol", 100 * 1024),
        Row("buffered", 100 * 1024),
        Row("streams", 100 * 1024),
        Row("sock", 100 * 1024),
    )
}


def measure(row: Row, loop: str, duration: float) -> process.Load:
    """One round of one loop, on a fresh server. Raises process.WrongAnswer when an echo was wrong."""
    with process.server(["-m", "benchmarks.servers", "--loop", loop, "--kind", row.kind]) as (pid, port):
        arguments = ["echo", f"127.0.0.1:{port}", "--size", str(row.size), "--connections", str(row.connections)]
        return process.load(arguments, pid=pid, duration=duration)


class Results:
    """The rounds of every row and loop so far."""

    def __init__(self, names: list[str]) -> None:
        self.loops = names
        self.rounds: dict[str, dict[str, list[process.Load]]] = {}

    def add(self, row: str, loop: str, load: process.Load) -> None:
        self.rounds.setdefault(row, {}).setdefault(loop, []).append(load)

    def ratio(self, row: str, loop: str, control: str, figure: Callable[[process.Load], float]) -> Ratio:
        rounds = self.rounds[row]
        return Ratio.of([figure(load) for load in rounds[loop]], [figure(load) for load in rounds[control]])

    def to_json(self) -> dict[str, Any]:
        return {
            row: {loop: [asdict(load) for load in loads] for loop, loads in by_loop.items()}
            for row, by_loop in self.rounds.items()
        }

    def to_markdown(self) -> str:
        """CPU ratios below 1 are better, requests/s ratios above 1."""
        peers = [name for name in self.loops if name == "uvloop"]
        header = ["row", "loop", "requests/s", "p50 µs", "p99 µs", "server CPU µs/request", "requests/s vs asyncio"]
        header += [f"CPU vs {control}" for control in [loops.CONTROL, *peers]]
        lines = []
        for row, by_loop in self.rounds.items():
            for loop, loads in by_loop.items():
                line = [
                    row,
                    loop,
                    f"{statistics.median(load.requests_per_second for load in loads):,.0f}",
                    f"{statistics.median(load.p50_us for load in loads):,.0f}",
                    f"{statistics.median(load.p99_us for load in loads):,.0f}",
                    f"{statistics.median(load.server_cpu_us_per_request for load in loads):.2f}",
                    str(self.ratio(row, loop, loops.CONTROL, lambda load: load.requests_per_second)),
                ]
                for control in [loops.CONTROL, *peers]:
                    line.append(str(self.ratio(row, loop, control, lambda load: load.server_cpu_us_per_request)))
                lines.append(line)
        return table(header, lines)
