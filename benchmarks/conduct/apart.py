"""Checks in processes of their own: `python -m benchmarks.conduct.apart --loop NAME CHECK...`.

Prints a line of JSON for each check: its name, and why the loop does not keep it, which is empty where it does. Each
check runs in a fork of this process, which has asyncio and the checks, and nothing of any other loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence

from benchmarks import loops, process
from benchmarks.conduct.check import Broken, Check, expect
from benchmarks.conduct.checks import CHECKS
from benchmarks.conduct.tables import Conduct

# Seconds behind which a check hangs. None takes a second, on any machine.
TIMEOUT = 10.0
# Characters of a reason: it stands in a table.
REASON = 160


def found(loop: str, checks: Iterable[str]) -> dict[str, str]:
    """Why the loop called `loop` does not keep each of these checks, in processes of their own; empty where it does.

    Raises process.NoFigure when nothing could be found out.
    """
    command = process.python("-W", "ignore", "-m", "benchmarks.conduct.apart", "--loop", loop, *checks)
    return dict(json.loads(line) for line in process.output(command, timeout=600).splitlines())


def of_loops(names: Iterable[str], checks: Sequence[str] = tuple(CHECKS)) -> Conduct:
    """What each of the loops keeps of the checks that this version of Python can run; each is told of as it comes."""
    here = [name for name in checks if CHECKS[name].since <= sys.version_info[:2]]
    conduct = {}
    for loop in names:
        conduct[loop] = found(loop, here)
        kept = sum(not reason for reason in conduct[loop].values())
        print(f"conduct, {loop}: keeps {kept} of {len(here)} checks", file=sys.stderr, flush=True)
    return conduct


def in_forks(loop: str, checks: Iterable[Check]) -> Iterator[tuple[str, str]]:
    """The name of each check, and why the loop does not keep it."""
    for check in checks:
        yield check.name, in_fork(loop, check)


def in_fork(loop: str, check: Check) -> str:
    """Why the loop does not keep a check, which runs in a fork of this process."""
    answer, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        os.setsid()
        silence()
        os.write(end, f"{judge(loop, check)}\n".encode())
        # What a loop does at the end of a process is no matter here.
        os._exit(0)
    os.close(end)
    with os.fdopen(answer, "rb") as answers:
        ready, _, _ = select.select([answers], [], [], TIMEOUT)
        line = os.read(answer, 4096).decode(errors="replace") if ready else ""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if line.endswith("\n"):
        return line.strip()
    if not ready:
        return f"it hangs: no end within {TIMEOUT:g} s"
    code = os.waitstatus_to_exitcode(status)
    return f"it ends with status {code}" if code >= 0 else f"it is killed by {signal.Signals(-code).name}"


def silence() -> None:
    """What a loop has to say goes nowhere: the answer is a line in a pipe."""
    warnings.simplefilter("ignore")
    faulthandler.disable()
    with open(os.devnull, "r+b") as nowhere:
        for descriptor in range(3):
            os.dup2(nowhere.fileno(), descriptor)


def judge(loop: str, check: Check) -> str:
    """Why the loop does not keep a check, in this process, in one line."""
    try:
        # The oracle first: before the loop's module is there, which may patch asyncio.
        wanted = oracle(check) if check.same else None
        answered = check.run(loops.factory(loop)())
        if check.same:
            expect(*first_difference(answered, wanted))
    except Broken as broken:
        reason = str(broken)
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return ""
    reason = " ".join(reason.split())
    return reason if len(reason) <= REASON else f"{reason[:REASON]}..."


def oracle(check: Check) -> object:
    """What a check answers on stock asyncio, of which nothing is left for the collector to close later."""
    loop = asyncio.SelectorEventLoop()
    try:
        return check.run(loop)
    finally:
        loop.close()
        gc.collect()


def first_difference(answered: object, wanted: object) -> tuple[object, object, str]:
    """Where two answers differ first, be these lists."""
    if isinstance(answered, list) and isinstance(wanted, list):
        for place, (one, other) in enumerate(zip(answered, wanted, strict=False)):
            if one != other:
                return one, other, f"place {place} of {len(wanted)}"
        return len(answered), len(wanted), "how much there is"
    return answered, wanted, "what comes of it"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", required=True)
    parser.add_argument("checks", nargs="+", choices=CHECKS, metavar="CHECK")
    options = parser.parse_args()
    for name, reason in in_forks(options.loop, [CHECKS[name] for name in options.checks]):
        print(json.dumps([name, reason]), flush=True)


if __name__ == "__main__":
    main()
