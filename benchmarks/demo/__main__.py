"""Runs a FastAPI application under uvicorn and an aiohttp server on each loop, loads them, and compares.

Ends by itself after about a minute; with status 1 when a response was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from benchmarks import loops, network, process, programs
from benchmarks.rounds import Rounds, interleave

# The programs of the demo.
SHOWN = ("fastapi", "aiohttp")


class Servers:
    """One program on every loop at once. Each has a process of its own and uses no CPU while another is loaded."""

    def __init__(
        self, program: programs.Program, names: list[str], duration: float, stack: contextlib.ExitStack
    ) -> None:
        self.program = program
        self.duration = duration
        self.running = {}
        for loop in names:
            port = process.free_port()
            self.running[loop] = stack.enter_context(process.server(program.server(loop, port), port))

    def measure(self, loop: str) -> process.Load:
        """Loads the one on `loop`. Raises process.WrongAnswer when a response was wrong."""
        pid, port = self.running[loop]
        return process.load(self.program.request(port), pid=pid, duration=self.duration)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default=",".join(loops.DEFAULT), help="names, with commas between (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds a program (%(default)s)")
    parser.add_argument("--duration", type=float, default=1.0, help="seconds a measurement (%(default)s)")
    options = parser.parse_args()

    process.binary("hotloop-load")
    names, missing = loops.installed(options.loops.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    rounds: Rounds[process.Load] = {}
    failures = []
    for program in (programs.PROGRAMS[name] for name in SHOWN):
        print(f"starting {program.about} on {', '.join(names)}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            servers = Servers(program, names, options.duration, stack)
            measured, failed = interleave(program.about, names, options.rounds, servers.measure, str)
        if measured:
            rounds[program.about] = measured
        failures += [f"{loop} fails at {program.about}: {reason}" for loop, reason in failed.items()]
    print(f"\nMedians of {options.rounds} rounds of {options.duration:g} s, 50 connections (lowest-highest ratio)\n")
    print(network.to_markdown(rounds))
    for line in failures:
        print(f"\n{line}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
