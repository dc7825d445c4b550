"""Network rows: an echo server on each loop, under load from outside."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import loops, process
from benchmarks.report import Ratio, table
from benchmarks.rounds import Rounds

# Stands among the loops in these rows: the same exchange on bare epoll, `crates/hotloop-load/src/floor.rs`.
FLOOR = "floor"


@dataclass(frozen=True)
class Row:
    """One server under one load."""

    kind: str
    size: int
    connections: int = 50
    # Whether each exchange has a connection, and a handshake, of its own.
    reconnect: bool = False
    # What it is called, where that is not how it is made.
    title: str = ""

    @property
    def name(self) -> str:
        verb = "connect" if self.reconnect else "echo"
        return self.title or f"{verb}_{self.kind}_{self.size // 1024}k"

    @property
    def is_tls(self) -> bool:
        return self.kind.startswith("tls_")

    @property
    def is_download(self) -> bool:
        """Whether bytes go one way: `size` of them answer a request, and each megabyte counts as one."""
        return self.kind.endswith("_download")

    @property
    def is_datagrams(self) -> bool:
        return self.kind == "udp"

    @property
    def has_floor(self) -> bool:
        """Whether the floor can do it too."""
        return not self.is_tls


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
        *(Row(kind, 10 * 1024) for kind in ("protocol", "streams", "sock")),
        # One connection waits for each answer; of many, a turn has more.
        *(
            Row(kind, 1024, connections=count, title=f"echo_{kind}_1k_x{count}")
            for count in (1, 500)
            for kind in ("protocol", "streams", "sock")
        ),
        Row("tls_protocol", 1024),
        Row("tls_streams", 1024),
        # Bulk, there and back.
        Row("tls_protocol", 1024 * 1024, connections=4),
        Row("tls_streams", 1024 * 1024, connections=4),
        # Bulk one way: 100 MB from the server, again and again. A request of the table is a megabyte here.
        Row("tls_download", 100_000_000, connections=1, title="tls_100mb"),
        # Next to nothing but connections: what accepting and closing one costs.
        Row("protocol", 64, reconnect=True, title="accept_rate"),
        # Handshakes: what each costs, with the connection under it.
        Row("tls_protocol", 1024, reconnect=True),
        # One peer that waits for each answer, and so many that datagrams always wait. The size is that of a packet.
        Row("udp", 1200, connections=1, title="udp_pingpong"),
        Row("udp", 1200, title="udp_flood"),
    )
}


def measure(row: Row, loop: str, duration: float) -> process.Load:
    """One round of one loop, on a fresh server. Raises what `process` does when that fails."""
    if loop == FLOOR:
        command = [str(process.binary("hotloop-floor")), *(["udp"] if row.is_datagrams else [])]
    else:
        command = process.python("-m", "benchmarks.servers", "--loop", loop, "--kind", row.kind)
    with process.server(command) as (pid, port):
        scheme = "udp:" if row.is_datagrams else ""
        address = f"{scheme}127.0.0.1:{port}"
        if row.is_download:
            arguments = ["download", address, "--megabytes", str(row.size // 1_000_000)]
        else:
            arguments = ["echo", address, "--size", str(row.size)]
        arguments += ["--connections", str(row.connections)]
        arguments += ["--tls"] * row.is_tls + ["--reconnect"] * row.reconnect
        return process.load(arguments, pid=pid, duration=duration)


def to_markdown(rounds: Rounds[process.Load]) -> str:
    """A line for each row and loop. CPU ratios below 1 are better, requests/s ratios above 1."""
    header = ["row", "loop", "requests/s", "p50 µs", "p99 µs", "server CPU µs/request"]
    compared = ("uvloop", loops.AIOFASTNET, "hotloop", FLOOR)
    others = [other for other in compared if any(other in by_loop for by_loop in rounds.values())]
    header += ["requests/s vs asyncio", *[f"CPU vs {other}" for other in (loops.CONTROL, *others)]]
    lines = []
    for row, by_loop in rounds.items():
        for loop, loads in by_loop.items():
            cpu = {name: [load.server_cpu_us_per_request for load in theirs] for name, theirs in by_loop.items()}
            speed = {name: [load.requests_per_second for load in theirs] for name, theirs in by_loop.items()}
            lines.append(
                [
                    row,
                    loop,
                    f"{statistics.median(speed[loop]):,.0f}",
                    f"{statistics.median(load.p50_us for load in loads):,.0f}",
                    f"{statistics.median(load.p99_us for load in loads):,.0f}",
                    f"{statistics.median(cpu[loop]):.2f}",
                    str(Ratio.of(speed[loop], speed[loops.CONTROL])),
                    str(Ratio.of(cpu[loop], cpu[loops.CONTROL])),
                    *[str(Ratio.of(cpu[loop], cpu[other])) if other in cpu else "" for other in others],
                ]
            )
    return table(header, lines)


def to_json(rounds: Rounds[process.Load]) -> dict[str, Any]:
    """Every figure of every round."""
    return {
        row: {loop: [asdict(load) for load in loads] for loop, loads in by_loop.items()}
        for row, by_loop in rounds.items()
    }
