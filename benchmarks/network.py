"""Network rows: an echo server on each loop, under load from outside."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks import loops, process, servers
from benchmarks.ratios import Ratio, table
from benchmarks.rounds import Rounds

# These stand among the loops in these rows: the same exchange on bare epoll, `crates/hotloop-load/src/floor.rs`, and on
# bare io_uring, `floor_uring.rs` beside it.
FLOOR = "floor"
URING_FLOOR = "floor-uring"
# And in one of them the same server on the loops of the Rust crate, without Python: `crate_echo.rs` beside them.
CRATE = "crate"
CRATE_PROACTOR = "crate-proactor"
# The command of each, whose first word is a binary of `crates/hotloop-load`.
FLOORS = {FLOOR: ("hotloop-floor",), URING_FLOOR: ("hotloop-floor-uring",)}
CRATES = {CRATE: ("hotloop-crate-echo",), CRATE_PROACTOR: ("hotloop-crate-echo", "proactor")}
BESIDE = FLOORS | CRATES

# How many times as long a load of downloads lasts: there are a few dozen of them a second, and between rounds of half a
# second the ratio of two loops was anything from 0.5 to 1.7.
LONGER = 4


@dataclass(frozen=True)
class Row:
    """One server under one load."""

    kind: str
    # Bytes a message.
    size: int
    connections: int = 50
    # Whether each exchange has a connection, and a handshake, of its own.
    reconnect: bool = False
    # Whether a thread of the server's computes in Python meanwhile. What counts then is how long answers take.
    busy: bool = False
    # What it is called, where that is not how it is made.
    title: str = ""

    @property
    def name(self) -> str:
        verb = "connect" if self.reconnect else "echo"
        return self.title or f"{verb}_{self.kind}_{size_name(self.size)}"

    @property
    def about(self) -> str:
        """What it is, for a table."""
        what = KINDS[self.kind]
        if self.is_download:
            return f"{what}, a megabyte of {self.size // 1_000_000}, loads of {LONGER} times the length"
        size = size_text(self.size)
        if self.reconnect:
            return f"{what}, connection and echo of {size}"
        count = f"{self.connections:,} connection{'s' * (self.connections > 1)}"
        return f"{what}, echo of {size}, {count}" + ", beside a busy thread" * self.busy

    @property
    def unit(self) -> str:
        return "µs, p99" if self.busy else "CPU µs/request"

    @property
    def is_tls(self) -> bool:
        return self.kind.startswith("tls_")

    @property
    def is_download(self) -> bool:
        """Whether bytes go one way: `size` of them answer a request, and each megabyte counts as one."""
        return self.kind.endswith("_download")

    @property
    def lengthening(self) -> int:
        """How many times as long as the others a load of this row lasts."""
        return LONGER if self.is_download else 1

    @property
    def is_datagrams(self) -> bool:
        return self.kind == "udp"

    @property
    def floors(self) -> list[str]:
        """What is measured beside the loops: the floors that can do it too, and the crate where one asks for it."""
        if self.is_tls or self.is_download or self.busy:
            return []
        if self == of_count(50):
            return list(BESIDE)
        return [FLOOR] if self.is_datagrams else list(FLOORS)

    def server(self, loop: str) -> list[str]:
        """The command that serves on a loop or beside them, and prints its port."""
        if loop in BESIDE:
            name, *arguments = BESIDE[loop]
            return [str(process.binary(name)), *arguments, *(self.told if loop == FLOOR else [])]
        command = process.python("-m", "benchmarks.servers", "--loop", loop, "--kind", self.kind)
        return command + ["--busy"] * self.busy

    @property
    def told(self) -> list[str]:
        """What the floor is told: what kind it is, or how much to ask for where that is the program's choice."""
        if self.is_datagrams:
            return ["udp"]
        return [str(servers.READ_SIZE)] if self.kind in servers.ASKING else []

    def request(self, port: int) -> list[str]:
        """What the load generator is told."""
        scheme = "udp:" if self.is_datagrams else ""
        address = f"{scheme}127.0.0.1:{port}"
        if self.is_download:
            arguments = ["download", address, "--megabytes", str(self.size // 1_000_000)]
        else:
            arguments = ["echo", address, "--size", str(self.size)]
        arguments += ["--connections", str(self.connections)]
        return arguments + ["--tls"] * self.is_tls + ["--reconnect"] * self.reconnect

    def figure(self, load: process.Load) -> float:
        """What counts of a load; less is better."""
        return load.p99_us if self.busy else load.server_cpu_us_per_request


KINDS = {
    "protocol": "protocol",
    "buffered": "buffered protocol",
    "streams": "streams",
    "sock": "sock_recv, sock_sendall",
    "tls_protocol": "protocol over TLS",
    "tls_streams": "streams over TLS",
    "lines_download": "download by writelines",
    "tls_download": "download over TLS",
    "udp": "UDP",
}
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
# The sizes of messages that the plot of throughput has.
SIZES = (64, 256, KIBIBYTE, 4 * KIBIBYTE, 16 * KIBIBYTE, 64 * KIBIBYTE, 256 * KIBIBYTE, MEBIBYTE)
# The numbers of connections that the plot of cost has.
COUNTS = (1, 10, 50, 100, 500, 1_000, 10_000)


def size_name(size: int) -> str:
    """A size in the name of a row."""
    if size % MEBIBYTE == 0:
        return f"{size // MEBIBYTE}m"
    return f"{size // KIBIBYTE}k" if size >= KIBIBYTE else f"{size}b"


def size_text(size: int) -> str:
    """A size for a person."""
    if size % MEBIBYTE == 0:
        return f"{size // MEBIBYTE} MiB"
    return f"{size // KIBIBYTE} KiB" if size % KIBIBYTE == 0 else f"{size:,} B"


def of_size(size: int) -> Row:
    """The row of the plot of throughput that has messages of `size` bytes."""
    return Row("protocol", size)


def of_count(count: int) -> Row:
    """The row of the plot of cost that has `count` connections."""
    return Row("protocol", KIBIBYTE, count, title="" if count == 50 else f"echo_protocol_1k_x{count}")


ROWS = {
    row.name: row
    for row in (
        Row("protocol", KIBIBYTE),
        Row("buffered", KIBIBYTE),
        Row("streams", KIBIBYTE),
        Row("sock", KIBIBYTE),
        *(Row(kind, 10 * KIBIBYTE) for kind in ("protocol", "streams", "sock")),
        *(Row(kind, 100 * KIBIBYTE) for kind in ("protocol", "buffered", "streams", "sock")),
        # One connection waits for each answer; of many, a turn has more.
        *(
            Row(kind, KIBIBYTE, connections=count, title=f"echo_{kind}_1k_x{count}")
            for count in (1, 500)
            for kind in ("streams", "sock")
        ),
        Row("tls_protocol", KIBIBYTE),
        Row("tls_streams", KIBIBYTE),
        # Bulk, there and back.
        Row("tls_protocol", MEBIBYTE, connections=4),
        Row("tls_streams", MEBIBYTE, connections=4),
        # Bulk one way: 100 MB from the server, again and again. A request of the table is a megabyte here.
        Row("lines_download", 100_000_000, connections=1, title="writelines_100mb"),
        Row("tls_download", 100_000_000, connections=1, title="tls_100mb"),
        # Next to nothing but connections: what accepting and closing one costs.
        Row("protocol", 64, reconnect=True, title="accept_rate"),
        # Handshakes: what each costs, with the connection under it.
        Row("tls_protocol", KIBIBYTE, reconnect=True),
        # One peer that waits for each answer, and so many that datagrams always wait. The size is that of a packet.
        Row("udp", 1200, connections=1, title="udp_pingpong"),
        Row("udp", 1200, title="udp_flood"),
        # How long the loop waits for the interpreter when another thread wants it, too.
        Row("protocol", KIBIBYTE, busy=True, title="busy_thread_p99"),
        *map(of_size, SIZES),
        *map(of_count, COUNTS),
    )
}


def measure(row: Row, loop: str, duration: float) -> process.Load:
    """One round of one loop, on a fresh server. Raises process.Failure when that fails."""
    with process.server(row.server(loop)) as (pid, port):
        return process.load(row.request(port), pid=pid, duration=duration * row.lengthening)


def to_markdown(rounds: Rounds[process.Load]) -> str:
    """A line for each row and loop. CPU ratios below 1 are better, requests/s ratios above 1."""
    header = ["row", "loop", "requests/s", "p50 µs", "p99 µs", "server CPU µs/request"]
    compared = ("uvloop", loops.AIOFASTNET, loops.OURS, FLOOR, URING_FLOOR)
    others = [other for other in compared if any(other in by_loop for by_loop in rounds.values())]
    header += ["requests/s vs asyncio", *[f"CPU vs {other}" for other in (loops.CONTROL, *others)]]
    lines = []
    for row, by_loop in rounds.items():
        cpu = {name: [load.server_cpu_us_per_request for load in theirs] for name, theirs in by_loop.items()}
        speed = {name: [load.requests_per_second for load in theirs] for name, theirs in by_loop.items()}
        for loop, loads in by_loop.items():
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
