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
CONTENT = "a line of text\n" * 64


def fs_small_files(loop: Loop) -> int:
    """1,000 files of 960 bytes with `hotloop.fs`."""
    return read_all(loop, fs.open)


def fs_small_files_threads(loop: Loop) -> int:
    """The same on the default executor."""
    with_ring = _backend.new_ring

    def refused() -> Any:
        raise OSError("refused by the benchmark")

    _backend.new_ring = refused
    try:
        return read_all(loop, fs.open)
    finally:
        _backend.new_ring = with_ring


def aiofiles_small_files(loop: Loop) -> int:
    """The same with `aiofiles`."""
    return read_all(loop, importlib.import_module("aiofiles").open)


def read_all(loop: Loop, opens: Callable[[str], Any]) -> int:
    """Read every file in a task of its own, all of them at a time, twenty times."""
    rounds = 20  # what only the first costs is then a small part

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
