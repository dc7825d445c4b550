"""Checks how event loops keep asyncio's semantics: `python -m benchmarks.conduct`.

Prints a table of loops and checks, and what a loop does instead of what it does not keep. The exit status is 1 when a
loop of this project, or stock asyncio, does not keep what it should, and 2 when the file of a run is of something else.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from pathlib import Path

from benchmarks import loops
from benchmarks.conduct import tables
from benchmarks.conduct.apart import of_loops
from benchmarks.conduct.checks import CHECKS, EXCEPTED
from benchmarks.run import Incomparable, Run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default=",".join(loops.default()), help="names or module:function (%(default)s)")
    parser.add_argument("--checks", default="*", help="patterns of names, with commas between them (all)")
    parser.add_argument("--json", type=Path, help="a file for what was found, by loop and check")
    parser.add_argument(
        "--into", type=Path, metavar="RUN.json", help="a stored run of the benchmarks to put it into, for its loops"
    )
    options = parser.parse_args()
    patterns = options.checks.split(",")
    checks = [name for name in CHECKS if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not checks:
        parser.error(f"no check matches {options.checks}")
    names, missing = loops.installed(options.loops.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    try:
        run = of_this_installation(options.into, names) if options.into else None
    except Incomparable as error:
        print(f"{options.into}: {error}", file=sys.stderr)
        return 2
    if run:
        names = [name for name in names if name == loops.CONTROL or name in run.versions]
    conduct = of_loops(names, checks)
    print("\n\n".join(part for part in (tables.grid(conduct), tables.reasons(conduct), tables.counts(conduct)) if part))
    if options.json:
        options.json.write_text(json.dumps(conduct, indent=1, ensure_ascii=False) + "\n")
    if run:
        for loop, found in conduct.items():
            run.conduct[loop] = run.conduct.get(loop, {}) | found
        run.save(options.into)
    ours = {loops.CONTROL, loops.OURS, loops.PROACTOR}
    return (
        1
        if any(
            reason and loop in ours and (loop, name) not in EXCEPTED
            for loop, found in conduct.items()
            for name, reason in found.items()
        )
        else 0
    )


def of_this_installation(path: Path, names: list[str]) -> Run:
    """A stored run. Raises Incomparable when it is of another interpreter, or of other versions of these loops."""
    run = Run.load(path)
    here = Run.begin(names, {}, run.duration)
    if run.python != here.python:
        raise Incomparable(f"these are not of the same interpreter: {here.python} and {run.python}")
    for name, version in loops.versions(names).items():
        if run.versions.get(name, version) != version:
            raise Incomparable(f"these are not of the same {name}: {version} and {run.versions[name]}")
    return run


if __name__ == "__main__":
    sys.exit(main())
