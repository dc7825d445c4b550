"""In-process rows: small files, opened, read and closed by as many tasks at a time.

They are run and reported with those of `benchmarks.scheduling`. Of one loop, the rows are to be compared with each
other: what a file costs with `aiofiles`, with `hotloop.fs`, and with `hotloop.fs` where io_uring is refused.
"""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hotloop import fs
from hotloop.fs import _backend

Loop = asyncio.AbstractEventLoop

FILES = 1_000
# How often each is read: what only the first time costs is then a small part.
ROUNDS = 20
CONTENT = "a line of text\n" * 64


def fs_small_files(loop: Loop, rounds: int = ROUNDS) -> int:
    """1,000 files of 960 bytes with `hotloop.fs`."""
    return read_all(loop, fs.open, rounds)


def fs_small_files_threads(loop: Loop, rounds: int = ROUNDS) -> int:
    """The same on the default executor."""
    with_ring = _backend.new_ring

    def refused() -> Any:
        raise OSError("refused by the benchmark")

    _backend.new_ring = refused
    try:
        return read_all(loop, fs.open, rounds)
    finally:
        _backend.new_ring = with_ring


def aiofiles_small_files(loop: Loop, rounds: int = ROUNDS) -> int:
    """The same with `aiofiles`."""
    return read_all(loop, importlib.import_module("aiofiles").open, rounds)


def read_all(loop: Loop, opens: Callable[[str], Any], rounds: int) -> int:
    """Read every file in a task of its own, all of them at a time, so many times."""

    async def one(path: str) -> str:
        async with opens(path) as file:
            text: str = await file.read()
            return text

    async def everything(paths: list[str]) -> None:
        for _ in range(rounds):
            texts = await asyncio.gather(*[one(path) for path in paths])
            if texts != [CONTENT] * FILES:
                raise RuntimeError("a file was not read as it was written")

    with tempfile.TemporaryDirectory() as directory:
        paths = [str(Path(directory, str(number))) for number in range(FILES)]
        for path in paths:
            Path(path).write_text(CONTENT)
        loop.run_until_complete(everything(paths))
    return FILES * rounds
