"""Runs programs on several loops and compares their traces."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import bare
import guardians
import places
import prelude
import ptys
import wires
from node import Program

#: How often a program is run again before a difference, or stock asyncio's own indecision, is believed.
REPEATS = 3

#: What programs and printed scripts stand on.
FOUNDATION = (prelude, wires, bare, places, guardians, ptys)


@dataclass
class Verdict:
    """What became of one program."""

    differing: list[Any]
    """The loop classes on which its trace was not that of stock asyncio, whenever it was run."""
    undecided: bool = False
    """Whether stock asyncio's own traces differ, or the difference was not there every time."""
    lines: int = 0
    """The length of stock asyncio's trace."""


def judge(program: Program, loop_classes: Sequence[Any]) -> Verdict:
    """Run `program` on stock asyncio and on each of the classes.

    Stock asyncio runs it again where a trace differs, as its own control. Raises `SyntaxError` for a program that is none.
    """
    run = runner(program)
    expected = run(asyncio.SelectorEventLoop)
    suspects = [loop_class for loop_class in loop_classes if run(loop_class) != expected]
    lines = len(expected)
    if not suspects:
        return Verdict([], lines=lines)
    for _ in range(REPEATS):
        if run(asyncio.SelectorEventLoop) != expected:
            return Verdict([], undecided=True, lines=lines)
        differing = [loop_class for loop_class in suspects if run(loop_class) != expected]
        if differing != suspects:
            return Verdict([], undecided=True, lines=lines)
    return Verdict(suspects, lines=lines)


def runner(program: Program) -> Callable[[Any], list[str]]:
    """A function that runs `program` on a loop of a class and returns what is to be compared."""
    scope: dict[str, Any] = {name: found for module in FOUNDATION for name, found in vars(module).items()}
    exec(compiled(program.source()), scope)

    def run(loop_class: Any) -> list[str]:
        return prelude.run_program(scope["program"], loop_class, time=program.time)

    return run


def compiled(source: str) -> CodeType:
    """The code of a program."""
    return compile(source, "<program>", "exec")


@cache
def standalone_prelude() -> str:
    """The source that a printed script begins with."""
    heads = []
    bodies = []
    for module in FOUNDATION:
        lines = Path(module.__file__).read_text().splitlines()
        start = next(index for index, line in enumerate(lines) if line.startswith(("#:", "def ", "class ", "@")))
        heads += [line for line in lines[:start] if line.startswith(("import ", "from "))]
        bodies += lines[start:]
    own = tuple(f"from {module.__name__} import " for module in FOUNDATION)
    first = "from __future__ import annotations"
    imports = sorted({line for line in heads if line != first and not line.startswith(own)})
    return "\n".join([first, *imports, "", *bodies])


def script(program: Program, loop_classes: Sequence[Any]) -> str:
    """A script that shows by itself whether these loops differ from stock asyncio."""
    imports = "".join(f"import {name}\n" for name in sorted({cls.__module__ for cls in loop_classes}))
    names = ", ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in loop_classes)
    return (
        f"{standalone_prelude()}\n\n{program.source()}\n\n{imports}\n"
        f"LIMIT = {prelude.LIMIT}\n"
        f"raise SystemExit(compare(program, [{names}], time={program.time!r}))\n"
    )


def collect() -> None:
    """Collect what programs leave behind; not while one runs, which would tell its finalisers' order."""
    gc.collect()
