"""Leaves out of a program whatever a difference does not need."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator

from node import Node, Program


def shrunk(program: Program, differs: Callable[[Program], bool], seconds: float = 60.0) -> Program:
    """The smallest program found within the time given for which `differs` still holds.

    `differs` is asked for programs that are none as well, and answers False for them.
    """
    deadline = time.monotonic() + seconds
    smaller: Program | None = program
    while smaller is not None:
        program = smaller
        smaller = next((candidate for candidate in _candidates(program, deadline) if differs(candidate)), None)
    return program


def _candidates(program: Program, deadline: float) -> Iterator[Program]:
    """Programs with less in them, those with the least first."""
    for size in (8, 4, 2, 1):
        for body, start in _places(program):
            if len(body(program)) < size or start % size:
                continue
            if time.monotonic() > deadline:
                return
            smaller = copy.deepcopy(program)
            gone = body(smaller)[start : start + size]
            del body(smaller)[start : start + size]
            for group in {node.group for node in gone} - {""}:
                _leave_out(smaller.body, group)
            yield smaller
    for body, start in _places(program):
        node = body(program)[start]
        if node.bodies and not node.text.startswith(("async def", "def")) and time.monotonic() < deadline:
            smaller = copy.deepcopy(program)
            body(smaller)[start : start + 1] = [inner for part in body(smaller)[start].bodies for inner in part]
            yield smaller


def _places(program: Program) -> Iterator[tuple[Callable[[Program], list[Node]], int]]:
    """Each node, as the way to its body and its index there."""

    def places(way: Callable[[Program], list[Node]]) -> Iterator[tuple[Callable[[Program], list[Node]], int]]:
        for index, node in enumerate(way(program)):
            yield way, index
            for number in range(len(node.bodies)):
                yield from places(lambda p, index=index, number=number: way(p)[index].bodies[number])

    yield from places(lambda p: p.body)


def _leave_out(body: list[Node], group: str) -> None:
    body[:] = [node for node in body if node.group != group]
    for node in body:
        for inner in node.bodies:
            _leave_out(inner, group)
