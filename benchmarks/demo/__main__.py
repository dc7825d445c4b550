"""Runs a FastAPI application under uvicorn and an aiohttp server on each loop, loads them, and compares.

Ends by itself after about a minute; with status 1 when a response was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass

from benchmarks import loops, network, process
from benchmarks.demo import aiohttp_server, fastapi_app
from benchmarks.rounds import Rounds, interleave


@dataclass(frozen=True)
class Program:
    """A server, by its command line, and the one request that it is asked."""

    command: str
    path: str
    body: str

    def arguments(self, loop: str, port: int) -> list[str]:
        return self.command.format(loop=loop, uvicorn_loop=loops.uvicorn_name(loop), port=port).split()


PROGRAMS = {
    "FastAPI on uvicorn": Program(
        "-m uvicorn benchmarks.demo.fastapi_app:app --loop {uvicorn_loop} --port {port}"
        " --log-level warning --no-access-log",
        fastapi_app.PATH,
        fastapi_app.BODY,
    ),
    "aiohttp": Program(
        "-m benchmarks.demo.aiohttp_server --loop {loop} --port {port}",
        aiohttp_server.PATH,
        aiohttp_server.BODY,
    ),
}


class Servers:
    """One program on every loop at once. Each has a process of its own and uses no CPU while another is loaded."""

    def __init__(self, program: Program, names: list[str], duration: float, stack: contextlib.ExitStack) -> None:
        self.program = program
        self.duration = duration
        self.running = {}
        for loop in names:
            port = process.free_port()
            self.running[loop] = stack.enter_context(
                process.server(process.python(*program.arguments(loop, port)), port)
            )

    def measure(self, _: str, loop: str) -> process.Load:
        """Loads the one on `loop`. Raises process.WrongAnswer when a response was wrong."""
        pid, port = self.running[loop]
        request = ["http", f"127.0.0.1:{port}", "--path", self.program.path, "--expect", self.program.body]
        return process.load(request, pid=pid, duration=self.duration)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default=",".join(loops.DEFAULT), help="names, with commas between (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds a program (%(default)s)")
    parser.add_argument("--duration", type=float, default=1.0, help="seconds a measurement (%(default)s)")
    options = parser.parse_args()

    process.binary("hotloop-load")
    names, missing = loops.installed(options.loops.split(","))
    for line in missing:
        print(line, file=sys.stderr)
    rounds: Rounds[process.Load] = {}
    failures = []
    for name, program in PROGRAMS.items():
        print(f"starting {name} on {', '.join(names)}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            servers = Servers(program, names, options.duration, stack)
            measured, failed = interleave([name], names, options.rounds, servers.measure, str)
        rounds |= measured
        failures += failed
    print(f"\nMedians of {options.rounds} rounds of {options.duration:g} s, 50 connections (lowest-highest ratio)\n")
    print(network.to_markdown(rounds))
    for line in failures:
        print(f"\n{line}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
