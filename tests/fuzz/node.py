"""A program as a tree of pieces of source text, from which pieces can be left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Node:
    """A statement: lines of source, in which a line `<0>` stands for the first of its bodies, and so on."""

    text: str
    bodies: list[list[Node]] = field(default_factory=list)
    group: str = ""
    """Nodes of one group, other than the empty one, are left out together or not at all."""

    def lines(self, indent: str = "") -> Iterator[str]:
        """The lines of source, each after `indent`."""
        for line in self.text.splitlines():
            if match := re.fullmatch(r"( *)<(\d+)>", line):
                yield from block(self.bodies[int(match[2])], indent + match[1])
            else:
                yield indent + line

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for body in self.bodies:
            for node in body:
                yield from node.walk()


@dataclass
class Program:
    """A random program: the body of a function `program(w)`, and how it is to be run and compared."""

    body: list[Node]
    time: str
    """How time passes in it; see `run_program`."""

    def source(self) -> str:
        """The source of its function."""
        return "\n".join(["def program(w):", *block(self.body, "    ")]) + "\n"

    def walk(self) -> Iterator[Node]:
        """All its nodes."""
        for node in self.body:
            yield from node.walk()


def block(body: list[Node], indent: str) -> Iterator[str]:
    """The lines of a body, which has one at least."""
    lines = [line for node in body for line in node.lines(indent)]
    yield from lines or [indent + "pass"]
