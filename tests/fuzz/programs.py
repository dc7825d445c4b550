"""Which program a seed stands for."""

from __future__ import annotations

import random
from collections.abc import Callable

from children import children
from connections import connections
from descriptors import descriptors
from networks import networks
from node import Program
from runs import runs
from scheduling import scheduling
from terminals import terminals
from workers import datagrams, processes, threads

#: The kinds of programs by name, and how often each is drawn.
KINDS: dict[str, tuple[Callable[[random.Random], Program], int]] = {
    "scheduling": (scheduling, 12),
    "networks": (networks, 6),
    "descriptors": (descriptors, 3),
    "runs": (runs, 4),
    "datagrams": (datagrams, 2),
    "threads": (threads, 2),
    "processes": (processes, 1),
    "connections": (connections, 4),
    "children": (children, 1),
    "terminals": (terminals, 2),
}


def program_of(seed: int, kinds: list[str] | None = None) -> Program:
    """The program of that seed, of one of the kinds named, or of any."""
    rng = random.Random(seed)
    names = kinds or list(KINDS)
    (name,) = rng.choices(names, [KINDS[name][1] for name in names])
    return KINDS[name][0](rng)
