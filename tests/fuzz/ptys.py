"""The terminals of random programs: ends of a pair, of which the first is the master, and children on such terminals."""

from __future__ import annotations

import asyncio
import os
import tempfile
import tty
from typing import Any

from bare import piped
from guardians import DEVNULL, raise_child
from prelude import World


def terminal() -> tuple[int, int]:
    """The two ends of a terminal that passes on every byte as it is."""
    near, far = os.openpty()
    tty.setraw(far)
    return near, far


async def on_terminal(world: World, name: str, style: str, descriptor: int, *, one_file: bool) -> Any:
    """An end that reads and writes a terminal, through one file or through two."""
    return await piped(world, name, style, *(_one_file if one_file else _two_files)(descriptor))


def _one_file(descriptor: int) -> tuple[Any, Any]:
    file = os.fdopen(descriptor, "r+b", 0)
    return file, file


def _two_files(descriptor: int) -> tuple[Any, Any]:
    return os.fdopen(descriptor, "rb", 0), os.fdopen(os.dup(descriptor), "wb", 0)


async def connect_terminal(
    world: World, number: int, wire: str, styles: tuple[str, str], talk: Any, answer: Any
) -> None:
    """Connect two ends over a terminal, and have each say its part."""
    names = (f"client{number}", f"server{number}")
    ends = [
        await on_terminal(world, name, style, descriptor, one_file=wire == "one file")
        for name, style, descriptor in zip(names, styles, terminal(), strict=True)
    ]
    for name, end, part in zip(names, ends, (talk, answer), strict=True):
        world.spawn(name, part(end, name))


async def child_on_terminal(world: World, name: str, style: str) -> tuple[Any, Any]:
    """The end of a terminal on which a child writes what it reads, and the child's protocol."""
    near, far = terminal()
    try:
        child = await raise_child(world, name, ("exec cat",), (far, far, DEVNULL))
    finally:
        os.close(far)
    return await on_terminal(world, name + "-end", style, near, one_file=False), child


async def refused(world: World, name: str) -> None:
    """Try to read and write what is no pipe."""
    with tempfile.TemporaryFile() as file:
        descriptor = os.open("/", os.O_RDONLY)
        for connect in (world.loop.connect_read_pipe, world.loop.connect_write_pipe):
            for what in (file, descriptor, "text", None):
                try:
                    await connect(asyncio.Protocol, what)
                except Exception as error:
                    world.log(name, connect.__name__, type(what).__name__, repr(error))
        os.close(descriptor)
    try:
        await world.loop.connect_read_pipe(asyncio.Protocol, file)
    except ValueError as error:
        world.log(name, "a closed file", repr(error))
