"""Runs random programs on stock asyncio and on hotloop, and prints those whose traces differ, as short scripts.

python tests/fuzz --seeds 20000           # from a seed drawn at random, which is printed
python tests/fuzz --from 41 --seeds 1     # again
python tests/fuzz                         # until something is found
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import prelude
from execute import collect, judge, script
from node import Program
from prelude import loop_class
from programs import KINDS, program_of
from shrink import shrunk

#: After how many programs what they left behind is collected.
ROUND = 20

#: Share of undecided programs above which a run fails: a fuzzer that cannot tell finds nothing.
UNDECIDED = 0.01

#: How many times in a row a shorter program has to differ, to be taken.
TIMES_SEEN = 3


def main() -> int:
    options = arguments()
    prelude.LIMIT = options.limit
    loops = [loop_class(name) for name in options.loop or ["selector", "proactor"]]
    first = random.randrange(10**9) if options.first is None else options.first
    seeds = itertools.count(first) if options.seeds is None else range(first, first + options.seeds)
    warnings.simplefilter("ignore")  # coroutines that are never awaited, as programs go
    sys.unraisablehook = lambda _: None  # nor those that do not end when they are collected
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # one that a program raises after its handler was removed
    started, done, undecided, lines = time.monotonic(), 0, 0, 0
    print(f"seeds from {first} on {', '.join(cls.__module__ + '.' + cls.__qualname__ for cls in loops)}", flush=True)
    for seed in seeds:
        program = program_of(seed, options.kind)
        verdict = judge(program, loops)
        done += 1
        undecided += verdict.undecided
        lines += verdict.lines
        if verdict.undecided:
            print(f"seed {seed}: asyncio does not agree with itself", flush=True)
        if verdict.differing:
            report(seed, program, verdict.differing, options)
            return 1
        if done % ROUND == 0:
            collect()
        if done % 1000 == 0 or done == options.seeds:
            seconds = time.monotonic() - started
            print(f"{done} programs, {lines} lines of trace, {undecided} undecided, in {seconds:.0f} s", flush=True)
    if undecided > max(1, done * UNDECIDED):
        print("too many programs are undecided: the fuzzer has to be mended")
        return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--from", dest="first", type=int, help="the first seed; drawn at random if not given")
    parser.add_argument("--seeds", type=int, help="how many; until something is found if not given")
    parser.add_argument("--loop", action="append", help="selector, proactor, or module:Class; both if not given")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only programs of that kind")
    parser.add_argument(
        "--shrink", type=float, default=60.0, help="seconds to look for a shorter program (%(default)s)"
    )
    parser.add_argument("--limit", type=float, default=prelude.LIMIT, help="seconds a program may take (%(default)s)")
    parser.add_argument("--script", type=Path, help="where to write the script; it is printed if not given")
    return parser.parse_args()


def report(seed: int, program: Program, differing: list[Any], options: argparse.Namespace) -> None:
    """Print what differs, and write or print the script that shows it."""

    def differs(candidate: Program) -> bool:
        # Whoever runs the script is to see it: what differs by a race, and not again, is not shorter but worse.
        try:
            return all(judge(candidate, differing[:1]).differing for _ in range(TIMES_SEEN))
        except SyntaxError:
            return False

    prelude.LIMIT = min(options.limit, 2.0)  # those that hang are asked for again and again
    small = shrunk(program, differs, options.shrink)
    names = ", ".join(cls.__qualname__ for cls in differing)
    print(f"seed {seed}: {names} differs from asyncio on Python {sys.version.partition(' ')[0]}")
    print(small.source())
    text = script(small, differing)
    if options.script:
        options.script.write_text(text)
        print(f"the whole script is {options.script}")
    else:
        print("# The whole script:", text, sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
