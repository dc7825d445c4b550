"""What callgrind, a tool of valgrind's, has counted: instructions in user space, by the object file they are in."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path


def command(output: str) -> list[str]:
    """What goes before a command for it to be counted, into this file. `%p` in the name is the process."""
    return ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}"]


def environment() -> dict[str, str]:
    """The environment for such a command: hashes decide the order of sets and where dictionaries collide."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


def by_object(text: str) -> Counter[str]:
    """The counts in a file of callgrind's, by the name of the object file without its directory.

    There `ob=(3) /a/file` names the object file of the functions below, later ones `ob=(3)`; a line of figures is
    a place and its cost; behind `calls=` is a line that is not counted here, the cost of what was called.
    """
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    name = ""
    is_call = False
    for line in text.splitlines():
        if line.startswith(("ob=", "cob=")):
            number, _, path = line.partition("=")[2].partition(" ")
            names.setdefault(number, Path(path).name)
            if line.startswith("ob="):
                name = names[number]
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[-+*\d]", line):
            if not is_call:
                counts[name] += int(line.split()[1])
            is_call = False
    return counts
