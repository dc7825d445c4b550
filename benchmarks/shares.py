"""Whose instructions a server's request takes: the loop's own, Python's with all that is written in it, or others'.

    python -m benchmarks.shares                              the echo servers and the programs, on three loops
    python -m benchmarks.shares --rows aiohttp,echo_streams_1k --loops hotloop,uvloop --into docs/shares.md

callgrind counts the instructions that a server executes in user space. A server answers so many requests, and another
one several times as many: the difference of the two is that of the requests, without what starting and ending cost.
Each round asks on all connections, and then reads all answers, so that the server finds many ready in a turn as under
load. How much of its processor time a server spends in the kernel comes from a run of its own under the load
generator, without callgrind.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import callgrind, loops, network, process, programs
from benchmarks.ratios import table

# As under the load generator.
CONNECTIONS = 50
# Rounds of the shorter run, and of the longer one: what is compiled or cached on first use is in both.
ROUNDS = (20, 80)
# Seconds to wait for an answer, or for a server's end, below callgrind.
PATIENCE = 60.0
ECHOES = ("echo_protocol_1k", "echo_buffered_1k", "echo_streams_1k", "echo_sock_1k")
LOOPS = ("hotloop", "hotloop-proactor", "uvloop")
# How the object files begin that are a loop's own. The stock loop is Python, and cannot be told from the rest of it.
OWN = {"hotloop": "_hotloop", "hotloop-proactor": "_hotloop", "uvloop": "loop.", "rloop": "_rloop", "blazio": "_blazio"}
# How the object files begin that are the C library's.
LIBRARY = ("libc.so", "libm.so", "libpthread.so", "ld-linux")


@dataclass(frozen=True)
class Request:
    """What a client sends, and what ends the answer."""

    sent: bytes
    is_answer: Callable[[bytes], bool]
    # What is sent first on each connection, and answered too.
    greeting: bytes = b""


@dataclass(frozen=True)
class Share:
    """What a request takes of a server."""

    # Instructions in user space.
    total: float
    # Of these, the loop's own; None where that cannot be told.
    own: float | None
    # The C library's.
    library: float
    # The part of the server's processor time, from 0 to 1, that it spends in the kernel.
    kernel: float

    @property
    def own_of_all(self) -> float | None:
        """The part of all processor time that is the loop's own, from 0 to 1, as if all instructions took as long."""
        return None if self.own is None else self.own / self.total * (1 - self.kernel)


def echo(size: int) -> Request:
    """A message of so many bytes, and the same back."""
    return Request(b"x" * size, lambda answer: len(answer) == size)


def http(path: str, expected: str) -> Request:
    """A request for a page, and an answer that ends with what is expected."""
    text = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    return Request(text.encode(), lambda answer: answer.endswith(expected.encode()))


def websocket(size: int) -> Request:
    """A text message of so many bytes, and the same back, behind a handshake (RFC 6455, sections 1.3 and 5.2)."""
    key = base64.b64encode(bytes(16)).decode()
    greeting = (
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    # A whole message of text, masked, with a length of 16 bits; a mask of zeros changes nothing.
    head = bytes([0x81, 0x80 | 126]) + size.to_bytes(2, "big")
    sent = head + bytes(4) + b"x" * size
    # The answer is not masked.
    return Request(sent, lambda answer: len(answer) == 4 + size, greeting.encode())


def request_of(row: str) -> Request:
    """What is asked of the server of a row."""
    if row in network.ROWS:
        return echo(network.ROWS[row].size)
    mode, *words = programs.PROGRAMS[row].load
    options = dict(zip(words[::2], words[1::2], strict=True))
    if mode == "websocket":
        return websocket(int(options["--size"]))
    return http(options.get("--path", "/"), options["--expect"])


def command_of(row: str, loop: str, port: int) -> list[str]:
    """The server of a row; those of programs serve on `port`, the others tell theirs."""
    if row in network.ROWS:
        return network.ROWS[row].server(loop)
    return programs.PROGRAMS[row].server(loop, port)


def measure(row: str, loop: str) -> Share:
    """What a request takes. Raises process.Failure where the server does not serve."""
    runs = [counted(row, loop, rounds) for rounds in ROUNDS]
    requests = (ROUNDS[1] - ROUNDS[0]) * CONNECTIONS
    counts = {name: (count - runs[0][name]) / requests for name, count in runs[1].items()}
    own = None
    if loop in OWN:
        own = sum(count for name, count in counts.items() if name.startswith(OWN[loop]))
    return Share(
        total=sum(counts.values()),
        own=own,
        library=sum(count for name, count in counts.items() if name.startswith(LIBRARY)),
        kernel=kernel_part(row, loop),
    )


def counted(row: str, loop: str, rounds: int) -> Counter[str]:
    """The instructions of a server that answers so many rounds, from its start to its end, by object file."""
    port = process.free_port() if row in programs.PROGRAMS else None
    with tempfile.TemporaryDirectory() as directory:
        command = callgrind.command(f"{directory}/counts") + command_of(row, loop, port or 0)
        with process.server(command, port, callgrind.environment()) as (pid, found):
            exchange(found, request_of(row), rounds)
            # Ends as by Ctrl-C, so that callgrind writes what it has counted.
            os.kill(pid, signal.SIGINT)
            process.wait_until_it_ends(pid, PATIENCE)
            return callgrind.by_object(Path(directory, "counts").read_text())


def exchange(port: int, request: Request, rounds: int) -> None:
    """So many rounds of a request on each connection, at once. Raises process.WrongAnswer where no answer comes."""
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            end = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            if request.greeting:
                end.sendall(request.greeting)
                receive(end, lambda answer: answer.endswith(b"\r\n\r\n"))
            return end

        def ask(ends: list[socket.socket]) -> None:
            for end in ends:
                end.sendall(request.sent)
            for end in ends:
                receive(end, request.is_answer)

        # The first one is served before others come, as where a server is not under load from its first moment on:
        # CPython gives the instances of a class the room for attributes that the first ones need, and less of it where
        # several are made before any of them has all of its own.
        ends = [connect()]
        ask(ends)
        ends += [connect() for _ in range(CONNECTIONS - 1)]
        for _ in range(rounds):
            ask(ends)


def receive(end: socket.socket, is_answer: Callable[[bytes], bool]) -> None:
    """An answer. Raises process.WrongAnswer where it does not come."""
    answer = b""
    while not is_answer(answer):
        try:
            more = end.recv(1 << 20)
        except TimeoutError:
            raise process.WrongAnswer(f"no whole answer within {PATIENCE:g} s: {answer[:200]!r}") from None
        if not more:
            raise process.WrongAnswer(f"the connection ended in the middle of an answer: {answer[:200]!r}")
        answer += more


def kernel_part(row: str, loop: str, duration: float = 2.0) -> float:
    """The part of a server's processor time that it spends in the kernel, under the load generator."""
    port = process.free_port() if row in programs.PROGRAMS else None
    with process.server(command_of(row, loop, port or 0), port) as (pid, found):
        asked = network.ROWS[row].request(found) if row in network.ROWS else programs.PROGRAMS[row].request(found)
        before = process.times(pid)
        process.load(asked, pid=pid, duration=duration)
        user, kernel = (after - start for after, start in zip(process.times(pid), before, strict=True))
        return kernel / (user + kernel)


def page(shares: dict[tuple[str, str], Share]) -> str:
    """The page."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    lines = [
        [
            row,
            loop,
            f"{share.total:,.0f}",
            "" if share.own is None else f"{share.own:,.0f}",
            f"{share.library:,.0f}",
            f"{share.total - (share.own or 0) - share.library:,.0f}",
            f"{share.kernel:.0%}",
            "" if share.own_of_all is None else f"{share.own_of_all:.0%}",
        ]
        for (row, loop), share in shares.items()
    ]
    header = ["row", "loop", "instructions", "loop's own", "C library", "Python", "kernel", "loop's own of all"]
    return f"""# Whose instructions a request takes

Written by `make shares`; {python} on {platform.machine()}.

Instructions in user space that a server executes for a request, counted by callgrind, with {CONNECTIONS} connections
that all ask at once. `Python` is the interpreter with all that is not the loop's: asyncio's modules in Python and in C,
the application and its libraries. asyncio's own loop is Python, so nothing tells it from the rest. `kernel` is the part
of the server's processor time that it spends in the kernel, under the load generator of the benchmark; `loop's own
of all` is what share of all its time is then the loop's, as if every instruction took as long as another.

{table(header, lines)}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*ECHOES, *programs.PROGRAMS]
    parser.add_argument("--rows", default=",".join(names), help="names, with commas between them (%(default)s)")
    parser.add_argument("--loops", default=",".join([loops.CONTROL, *LOOPS]), help="(%(default)s)")
    parser.add_argument("--into", type=Path, help="a file for the page, rather than standard output")
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := [row for row in rows if row not in names]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(names)}")
    if shutil.which("valgrind") is None:
        print("valgrind is not installed, and counts these instructions", file=sys.stderr)
        return 1
    found, missing = loops.installed(options.loops.split(","))
    for name, why in missing.items():
        print(f"without {name}: {why}", file=sys.stderr)
    shares = {}
    for row in rows:
        for loop in found:
            try:
                shares[row, loop] = measure(row, loop)
            except process.Failure as failure:
                print(f"{row} on {loop}: {failure}", file=sys.stderr, flush=True)
            else:
                print(f"{row} on {loop}: {shares[row, loop].total:,.0f}", file=sys.stderr, flush=True)
    text = page(shares)
    if options.into:
        options.into.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
